"""InfoNCE in tiles against the NumPy reference in float64."""

import json
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.losses import DUPLICATES, tiled_both_ways, tiled_info_nce
from tests.support.limits import PATIENCE, examples
from tests.support.loss_reference import normalised, reference, scale_gradient, weighted_reference
from tests.support.processes import run_process

ROOT = Path(__file__).parents[2]
SCALES = [1.0, 1 / 0.07, 40.0, 100.0]


def gradients(loss, rows, columns, scale, weights, dtype):
    """What `loss` gives for each row (one array, or one each way), and the gradients of their sum times the weights."""
    leaves = [paddle.to_tensor(np.asarray(x, dtype), stop_gradient=False) for x in (rows, columns, scale)]
    losses = loss(*leaves)
    paddle.add_n(
        [(way * paddle.to_tensor(w.astype(dtype))).sum() for way, w in zip(losses, weights, strict=True)]
    ).backward()
    return [way.numpy() for way in losses], [leaf.grad.numpy() for leaf in leaves]


def relative_error(found, expected):
    return np.linalg.norm(np.asarray(found, "float64") - expected) / np.linalg.norm(expected)


def numpy_same(row_ids, column_ids):
    return (row_ids[:, None] == column_ids[None]).any(axis=-1)


@examples(80)
@given(
    duplicates=st.sampled_from(DUPLICATES),
    count=st.integers(1, 12),
    before=st.integers(0, 7),
    after=st.integers(0, 7),
    tile=st.integers(1, 8),
    scale=st.floats(0.1, 2000),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_the_reference(duplicates, count, before, after, tile, scale, seed):
    rng = np.random.default_rng(seed)
    total = before + count + after
    ids = rng.integers(0, 9, size=(total, 2))
    rows, columns, weights = normalised(rng, count, 4), normalised(rng, total, 4), rng.normal(size=count)
    row_ids, column_ids = paddle.to_tensor(ids[before : before + count]), paddle.to_tensor(ids)

    def loss(*leaves):
        return [tiled_info_nce(*leaves, before, row_ids, column_ids, duplicates, tile)]

    (losses,), found = gradients(loss, rows, columns, scale, [weights], "float64")
    same = numpy_same(ids[before : before + count], ids)
    expected = weighted_reference(rows, columns, scale, before, same, duplicates, weights)
    for ours, theirs in zip([losses, *found], expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)


@examples(60)
@given(
    duplicates=st.sampled_from(DUPLICATES),
    count=st.integers(1, 14),
    tile=st.integers(1, 8),
    scale=st.floats(0.1, 2000),
    seed=st.integers(0, 2**32 - 1),
)
def test_both_ways_equal_the_reference_of_each(duplicates, count, tile, scale, seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 9, size=(count, 2))
    rows, columns, weights = normalised(rng, count, 4), normalised(rng, count, 4), rng.normal(size=(2, count))

    def loss(*leaves):
        return tiled_both_ways(*leaves, paddle.to_tensor(ids), duplicates, tile)

    losses, found = gradients(loss, rows, columns, scale, weights, "float64")
    same = numpy_same(ids, ids)
    there, of_rows, of_columns, of_scale = weighted_reference(rows, columns, scale, 0, same, duplicates, weights[0])
    back, *more = weighted_reference(columns, rows, scale, 0, same, duplicates, weights[1])
    expected = [there, back, of_rows + more[1], of_columns + more[0], of_scale + more[2]]
    for ours, theirs in zip([*losses, *found], expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)


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

    (losses,), found = gradients(loss, rows, columns, scale, [np.ones(90)], "float32")
    assert losses.dtype == np.float32
    exact = [array.astype("float64") for array in (rows, columns, scale)]
    expected = reference(*exact, 50, numpy_same(ids[50:140], ids), duplicates)
    for ours, theirs in zip([losses, *found], expected, strict=True):
        assert relative_error(ours, theirs) < 1e-6


@pytest.mark.thorough
@pytest.mark.parametrize("scale", [SCALES[0], SCALES[-1], *(pytest.param(scale, marks=pytest.mark.slow)
                                                             for scale in SCALES[1:-1])])  # fmt: skip
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
    losses, found = gradients(
        lambda *x: [tiled_info_nce(*x, tile=200)], rows, columns, scale, [np.ones(512)], "float32"
    )
    exact = [array.astype("float64") for array in (rows, columns, scale)]
    expected, *expected_gradients = reference(*exact, 0, np.eye(512, dtype=bool), "ignored")
    assert 0 < expected.mean() < 1e-5
    assert relative_error(losses[0], expected) < 1e-5
    for ours, theirs in zip(found, expected_gradients, strict=True):
        assert relative_error(ours, theirs) < 1e-5


def test_a_hopeless_row_costs_all_it_costs():
    """Own column opposite, the other one equal, scale 100: logits (-100, 100), hence a loss of 200."""
    rows, columns = np.array([[1.0]]), np.array([[-1.0], [1.0]])
    losses, found = gradients(lambda *x: [tiled_info_nce(*x)], rows, columns, 100, [np.ones(1)], "float32")
    assert losses[0].tolist() == [200] and found[2] == 2


@pytest.mark.parametrize("scale", [100, 1000])
def test_rows_whose_largest_logits_lie_far_apart(scale):
    """Sums relative to one number for all of them would leave float32."""
    angles = np.array([[0.0, 0.01, 0.02, 3.1, -0.01, 0.3, 0.1], [0.02, -0.03, 0.0, 3.0, 0.05, -0.2, 0.0]])
    leaves = np.stack([np.cos(angles), np.sin(angles)], axis=2).astype("float32")
    others = np.where(np.eye(7, dtype=bool), -1, leaves[0] @ leaves[1].T)  # cosines
    assert all(others.max(axis=axis).min() < -0.9 and others.max() > 0.99 for axis in (0, 1))
    losses, found = gradients(
        lambda *x: tiled_both_ways(*x, tile=3), *leaves, np.float32(scale), np.ones([2, 7]), "float32"
    )
    exact, none = [array.astype("float64") for array in leaves], np.eye(7, dtype=bool)
    there, of_rows, of_columns, of_scale = reference(*exact, scale, 0, none, "ignored")
    back, *more = reference(*exact[::-1], scale, 0, none, "ignored")
    expected = [there, back, of_rows + more[1], of_columns + more[0], of_scale + more[2]]
    for ours, theirs in zip([*losses, *found], expected, strict=True):
        assert relative_error(ours, theirs) < 1e-7 * scale  # logits are known to 6e-8 of the scale


def test_half_precision_embeddings_are_scored_in_float32():
    rng = np.random.default_rng(2)
    rows, columns = (paddle.to_tensor(normalised(rng, 6, 32)).astype("bfloat16") for _ in range(2))
    rows.stop_gradient = False
    losses = tiled_info_nce(rows, columns, paddle.to_tensor(50.0))
    losses.sum().backward()
    assert losses.dtype == paddle.float32 and rows.grad.dtype == paddle.bfloat16
    exact = [x.astype("float64").numpy() for x in (rows, columns)]
    expected, gradient, *_ = reference(*exact, 50.0, 0, np.eye(6, dtype=bool), "ignored")
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-5)
    assert relative_error(rows.grad.astype("float32").numpy(), gradient) < 1e-2


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


def test_errors_name_the_culprit():
    unit, scale = paddle.eye(2), paddle.to_tensor(1.0)
    with pytest.raises(ValueError, match="'mask'.*masked"):
        tiled_info_nce(unit, unit, scale, duplicates="mask")
    with pytest.raises(ValueError, match="needs the ids"):
        tiled_both_ways(unit, unit, scale, duplicates="positives")
    with pytest.raises(ValueError, match="2 rows from offset 1 do not fit into 2 columns"):
        tiled_info_nce(unit, unit, scale, offset=1)
    with pytest.raises(ValueError, match="as many rows as columns, got 1 and 2"):
        tiled_both_ways(unit[:1], unit, scale)
