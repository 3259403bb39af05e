"""Sums by products with ones against NumPy's, and what a PyLayer keeps of a lazy view."""

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paddle.autograd import PyLayer
from paddle.distributed.fleet.utils import recompute

from ernie_vil2.device.cpu_kernels import channel_sums, keep, pairwise_sums, sums
from tests.support.limits import examples

SIZES = st.integers(1, 9)


@examples(30)
@given(rows=SIZES, columns=SIZES, axis=st.integers(0, 1), seed=st.integers(0, 99))
def test_sums_over_an_axis(rows, columns, axis, seed):
    values = np.random.default_rng(seed).normal(size=(rows, columns))
    np.testing.assert_allclose(sums(paddle.to_tensor(values), axis).numpy(), values.sum(axis), atol=1e-12)


@examples(30)
@given(shape=st.lists(SIZES, min_size=2, max_size=4), seed=st.integers(0, 99))
def test_sums_of_channels(shape, seed):
    values = np.random.default_rng(seed).normal(size=shape)
    expected = values.sum(axis=tuple(axis for axis in range(len(shape)) if axis != 1))
    np.testing.assert_allclose(channel_sums(paddle.to_tensor(values)).numpy(), expected, atol=1e-12)


@examples(30)
@given(rows=SIZES, columns=SIZES, seed=st.integers(0, 99))
def test_sums_of_pairs(rows, columns, seed):
    left, right = np.random.default_rng(seed).normal(size=rows), np.random.default_rng(seed + 1).normal(size=columns)
    found = pairwise_sums(paddle.to_tensor(left), paddle.to_tensor(right)).numpy()
    np.testing.assert_array_equal(found, left[:, None] + right[None])


class Squared(PyLayer):
    @staticmethod
    def forward(ctx, x):
        keep(ctx, x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensor()
        return 2 * x * gradient


VIEWS = {
    "crop": lambda x: x[:, 1:, 1:4],
    "every other": lambda x: x[:, ::2, 1::2],
    "transposed": lambda x: x.transpose([0, 2, 1]),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_lazy_view_kept_in_a_recomputed_block_is_the_view(view):
    strides = "FLAGS_use_stride_kernel"
    before = paddle.get_flags(strides)
    paddle.set_flags({strides: True})
    try:
        x = paddle.arange(48, dtype="float32").reshape([2, 4, 6])
        x.stop_gradient = False
        y = recompute(lambda x: Squared.apply(view(x + 1)), x, preserve_rng_state=False, use_reentrant=False)
        (found,) = paddle.grad(y.sum(), [x])
        (expected,) = paddle.grad(view(x + 1).square().sum(), [x])
    finally:
        paddle.set_flags(before)
    np.testing.assert_array_equal(found.numpy(), expected.numpy())
