"""Stochastic depth keeps a branch with its probability in every type."""

import numpy as np
import paddle
import pytest

from benchmarks.mixed_precision import emulate_mixed_precision
from ernie_vil2.towers.layers.blocks import DropPath


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_branch_is_kept_from_the_rate_on(monkeypatch, dtype):
    # A narrow type would round most of these numbers to the rate, and the scale by 0.2 %.
    rate = 0.4
    numbers = np.linspace(rate - 0.002, rate + 0.002, 401, dtype=np.float32)
    monkeypatch.setattr(paddle, "rand", lambda shape: paddle.to_tensor(numbers).reshape(shape))
    branch = np.random.default_rng(0).normal(size=[401, 1, 3]).astype(np.float32)
    with emulate_mixed_precision():
        x = paddle.to_tensor(branch).astype(dtype)
        scaled = x.astype("float64") / (1 - rate)
        outputs = DropPath(rate)(x)
    assert outputs.dtype == x.dtype
    # Half the distance between two numbers of the type, relative to them
    rounding = {"float32": 2**-23, "float64": 2**-50, "float16": 2**-11, "bfloat16": 2**-8}[dtype]
    expected = np.where(numbers[:, None, None] >= np.float32(rate), scaled.numpy(), 0)
    np.testing.assert_allclose(outputs.astype("float64").numpy(), expected, rtol=rounding)
    errors = (outputs.astype("float64").numpy() / scaled.numpy())[expected != 0] - 1
    assert abs(errors.mean()) < max(0.2 * rounding, 1e-7)
