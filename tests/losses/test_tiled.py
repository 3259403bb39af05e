"""The digits and the memory of InfoNCE in tiles; values and gradients are compared in test_reference.py."""

import json
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from ernie_vil2.losses import DUPLICATES, info_nce, tiled_both_ways, tiled_info_nce
from tests.support.limits import PATIENCE
from tests.support.loss_reference import normalised, reference, scale_gradient, share_an_id, weighted_gradients
from tests.support.processes import run_process

ROOT = Path(__file__).parents[2]
SCALES = [1.0, 1 / 0.07, 40.0, 100.0]


def relative_error(found, expected):
    return np.linalg.norm(np.asarray(found, "float64") - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("duplicates", DUPLICATES)
def test_float32_is_within_1e_6_of_the_reference(duplicates, scale):
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 80, size=(160, 2))
    columns = normalised(rng, 160, 16).astype("float32")
    rows = normalised(rng, 90, 16).astype("float32")
    row_ids, column_ids, scale = paddle.to_tensor(ids[50:140]), paddle.to_tensor(ids), np.float32(scale)

    def loss(*leaves):
        return [tiled_info_nce(*leaves, 50, row_ids, column_ids, duplicates, 32)]

    (losses,), found = weighted_gradients(loss, (rows, columns, scale), [np.ones(90)], "float32")
    assert losses.dtype == np.float32
    exact = [array.astype("float64") for array in (rows, columns, scale)]
    expected = reference(*exact, 50, share_an_id(ids[50:140], ids), duplicates)
    for ours, theirs in zip([losses, *found], expected, strict=True):
        assert relative_error(ours, theirs) < 1e-6


@pytest.mark.thorough
@pytest.mark.parametrize("scale", [100.0, pytest.param(1.0, marks=pytest.mark.slow)])
def test_temperature_gradient_at_a_batch_of_4096(scale):
    """In float32 within 1e-6 of float64, for embeddings that training has begun to align."""
    rng = np.random.default_rng(3)
    rows = normalised(rng, 4096, 64)
    columns = rows + rng.normal(size=rows.shape) / 2
    columns /= np.linalg.norm(columns, axis=1, keepdims=True)
    rows, columns, scale = rows.astype("float32"), columns.astype("float32"), np.float32(scale)
    leaves = [paddle.to_tensor(x) for x in (rows, columns)]
    scale_leaf = paddle.to_tensor(scale, stop_gradient=False)
    tiled_info_nce(*leaves, scale_leaf).sum().backward()
    exact = [array.astype("float64") for array in (rows, columns, scale)]
    assert abs(float(scale_leaf.grad) / scale_gradient(*exact) - 1) < 1e-6


def test_a_sure_model_keeps_the_digits_of_its_small_losses():
    """Losses of 1e-6 and less: in float32 a softmax that contains the own column has lost them."""
    rng = np.random.default_rng(0)
    rows = normalised(rng, 512, 64)
    columns = rows + rng.normal(size=rows.shape) / 8
    columns /= np.linalg.norm(columns, axis=1, keepdims=True)
    rows, columns, scale = rows.astype("float32"), columns.astype("float32"), np.float32(100)
    losses, found = weighted_gradients(
        lambda *leaves: [tiled_info_nce(*leaves, tile=200)], (rows, columns, scale), [np.ones(512)], "float32"
    )
    exact = [array.astype("float64") for array in (rows, columns, scale)]
    expected, *expected_gradients = reference(*exact, 0, np.eye(512, dtype=bool), "ignored")
    assert 0 < expected.mean() < 1e-5
    assert relative_error(losses[0], expected) < 1e-5
    for ours, theirs in zip(found, expected_gradients, strict=True):
        assert relative_error(ours, theirs) < 1e-5


@pytest.mark.parametrize("scale", [100, 1000])
def test_rows_whose_largest_logits_lie_far_apart(scale):
    """Sums relative to one number for all of them would leave float32."""
    angles = np.array([[0.0, 0.01, 0.02, 3.1, -0.01, 0.3, 0.1], [0.02, -0.03, 0.0, 3.0, 0.05, -0.2, 0.0]])
    leaves = np.stack([np.cos(angles), np.sin(angles)], axis=2).astype("float32")
    others = np.where(np.eye(7, dtype=bool), -1, leaves[0] @ leaves[1].T)  # cosines
    assert all(others.max(axis=axis).min() < -0.9 and others.max() > 0.99 for axis in (0, 1))
    losses, found = weighted_gradients(
        lambda *tensors: tiled_both_ways(*tensors, tile=3), (*leaves, scale), np.ones([2, 7]), "float32"
    )
    exact, none = [array.astype("float64") for array in leaves], np.eye(7, dtype=bool)
    there, of_rows, of_columns, of_scale = reference(*exact, scale, 0, none, "ignored")
    back, *more = reference(*exact[::-1], scale, 0, none, "ignored")
    expected = [there, back, of_rows + more[1], of_columns + more[0], of_scale + more[2]]
    for ours, theirs in zip([*losses, *found], expected, strict=True):
        assert relative_error(ours, theirs) < 1e-7 * scale  # logits are known to 6e-8 of the scale


def test_what_needs_no_gradient_gets_none():
    """A frozen tower and a fixed temperature; the other side's gradient is there all the same."""
    rng = np.random.default_rng(4)
    frozen, columns = (paddle.to_tensor(normalised(rng, 5, 3)) for _ in range(2))
    columns.stop_gradient = False
    scale = paddle.to_tensor(2.0, dtype="float64")
    tiled_info_nce(frozen, columns, scale, tile=2).sum().backward()
    expected = reference(frozen.numpy(), columns.numpy(), 2.0, 0, np.eye(5, dtype=bool), "ignored")[2]
    np.testing.assert_allclose(columns.grad.numpy(), expected, atol=1e-12)
    assert frozen.grad is None and scale.grad is None


def test_memory_does_not_grow_with_rows_times_columns():
    """8,192 rows: one float32 matrix of all logits would be 256 MiB; a process of its own, for its peak."""
    command = [sys.executable, "benchmarks/loss_memory.py", "--measure", "tiled", "--rows", "8192", "--width", "8"]
    done = run_process([*command, "--tile", "512"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["memory"] < 64


@pytest.mark.parametrize("loss", [info_nce, tiled_info_nce])
def test_a_hopeless_row_costs_all_it_costs(loss):
    """Own column opposite, the other one equal, scale 100: logits (-100, 100), hence a loss of 200."""
    arrays = [[1.0]], [[-1.0], [1.0]], 100
    losses, gradients = weighted_gradients(lambda *leaves: [loss(*leaves)], arrays, [np.ones(1)], "float32")
    assert losses[0].tolist() == [200] and gradients[2] == 2


@pytest.mark.parametrize("loss", [info_nce, tiled_info_nce])
def test_errors_name_the_culprit(loss):
    unit, scale = paddle.eye(2), paddle.to_tensor(1.0)
    with pytest.raises(ValueError, match="'mask'"):
        loss(unit, unit, scale, duplicates="mask")
    with pytest.raises(ValueError, match="ids"):
        loss(unit, unit, scale, duplicates="positives")
    with pytest.raises(ValueError, match="offset 1"):
        loss(unit, unit, scale, offset=1)
    with pytest.raises(ValueError, match="1 and 2"):
        tiled_both_ways(unit[:1], unit, scale)
