"""The digits and the memory of losses in tiles; values and gradients are compared in test_reference.py."""

import json
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from ernie_vil2.losses import (
    DUPLICATES,
    PAIR_LOSSES,
    InfoNCE,
    MultiViewLoss,
    SigmoidLoss,
    info_nce,
    tiled_info_nce,
    tiled_info_nce_both_ways,
)
from tests.support.limits import PATIENCE
from tests.support.loss_reference import (
    compute_info_nce,
    compute_scale_gradient,
    compute_sigmoid_loss,
    compute_weighted_gradients,
    draw_unit_rows,
    find_shared_ids,
)
from tests.support.processes import run_process

ROOT = Path(__file__).parents[2]


def relative_error(found, expected):
    return np.linalg.norm(np.asarray(found, "float64") - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("duplicates", DUPLICATES)
@pytest.mark.parametrize(("kind", "scale", "tolerance"), [
    *(("info_nce", scale, 1e-6) for scale in (1.0, 1 / 0.07, 100.0)),
    # At the initial bias of -10 a negative costs 5e-5: rounding it to the precision of 1 would lose a thousandth.
    ("sigmoid", 10.0, 1e-5),
])  # fmt: skip
def test_float32_is_near_the_reference(kind, scale, tolerance, duplicates):
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 80, size=(160, 2))
    arrays = [
        np.asarray(array, "float32")
        for array in (draw_unit_rows(rng, 90, 16), draw_unit_rows(rng, 160, 16), scale, -10)
    ]
    row_ids, column_ids = paddle.to_tensor(ids[50:140]), paddle.to_tensor(ids)

    def loss(rows, columns, scale, bias):
        scalars = {"logit_scale": scale, "logit_bias": bias}
        return [PAIR_LOSSES.find(kind)(duplicates, 32)(rows, columns, scalars, 50, row_ids, column_ids)]

    (losses,), found = compute_weighted_gradients(loss, arrays, [np.ones(90)], "float32")
    assert losses.dtype == np.float32
    exact = [array.astype("float64") for array in arrays]
    same = find_shared_ids(ids[50:140], ids)
    if kind == "info_nce":
        expected = compute_info_nce(*exact[:3], 50, same, duplicates)
    else:
        expected = compute_sigmoid_loss(*exact, 50, same, duplicates, np.ones(90))
    for ours, theirs in zip([losses, *found], expected, strict=True):
        assert relative_error(ours, theirs) < tolerance


@pytest.mark.parametrize("tile", [None, 2])
def test_the_small_sigmoid_losses_of_far_negatives_are_kept(tile):
    """In float32, at the bias that training begins with: 1 + exp(-18) is 1."""
    rows = np.eye(6, dtype=np.float32)
    columns = np.concatenate([rows, -0.08 * rows[:2]])
    scalars = {"logit_scale": paddle.to_tensor(100.0), "logit_bias": paddle.to_tensor(-18.0)}
    losses = SigmoidLoss("ignored", tile)(paddle.to_tensor(rows), paddle.to_tensor(columns), scalars, 0, None, None)
    logits = 100.0 * rows.astype(np.float64) @ columns.T - 18.0
    characters = np.where(np.eye(6, 8, dtype=bool), 1.0, -1.0)
    np.testing.assert_allclose(losses.numpy(), np.log1p(np.exp(-characters * logits)).sum(axis=1), rtol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize(("loss", "scale", "tolerance"), [
    (tiled_info_nce, 100.0, 1e-6),
    pytest.param(tiled_info_nce, 1.0, 1e-6, marks=pytest.mark.slow),
    (info_nce, 1.0, 1e-4),  # summed term by term over the logits it is off by 1e-3 and more
])  # fmt: skip
def test_temperature_gradient_at_a_batch_of_4096(loss, scale, tolerance):
    """In float32 next to float64, for embeddings that training has begun to align."""
    rng = np.random.default_rng(3)
    rows = draw_unit_rows(rng, 4096, 64)
    columns = rows + rng.normal(size=rows.shape) / 2
    columns /= np.linalg.norm(columns, axis=1, keepdims=True)
    rows, columns, scale = rows.astype("float32"), columns.astype("float32"), np.float32(scale)
    leaves = [paddle.to_tensor(x) for x in (rows, columns)]
    scale_leaf = paddle.to_tensor(scale, stop_gradient=False)
    loss(*leaves, scale_leaf).sum().backward()
    exact = [array.astype("float64") for array in (rows, columns, scale)]
    assert abs(float(scale_leaf.grad) / compute_scale_gradient(*exact) - 1) < tolerance


def test_a_sure_model_keeps_the_digits_of_its_small_losses():
    """Losses of 1e-6 and less: in float32 a softmax that contains the own column has lost them."""
    rng = np.random.default_rng(0)
    rows = draw_unit_rows(rng, 512, 64)
    columns = rows + rng.normal(size=rows.shape) / 8
    columns /= np.linalg.norm(columns, axis=1, keepdims=True)
    rows, columns, scale = rows.astype("float32"), columns.astype("float32"), np.float32(100)
    losses, found = compute_weighted_gradients(
        lambda *leaves: [tiled_info_nce(*leaves, tile=200)], (rows, columns, scale), [np.ones(512)], "float32"
    )
    exact = [array.astype("float64") for array in (rows, columns, scale)]
    expected, *expected_gradients = compute_info_nce(*exact, 0, np.eye(512, dtype=bool), "ignored")
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
    losses, found = compute_weighted_gradients(
        lambda *tensors: tiled_info_nce_both_ways(*tensors, tile=3), (*leaves, scale), np.ones([2, 7]), "float32"
    )
    exact, none = [array.astype("float64") for array in leaves], np.eye(7, dtype=bool)
    there, of_rows, of_columns, of_scale = compute_info_nce(*exact, scale, 0, none, "ignored")
    back, *more = compute_info_nce(*exact[::-1], scale, 0, none, "ignored")
    expected = [there, back, of_rows + more[1], of_columns + more[0], of_scale + more[2]]
    for ours, theirs in zip([*losses, *found], expected, strict=True):
        assert relative_error(ours, theirs) < 1e-7 * scale  # logits are known to 6e-8 of the scale


def test_what_needs_no_gradient_gets_none():
    """A frozen tower and a fixed temperature; the other side's gradient is there all the same."""
    rng = np.random.default_rng(4)
    frozen, columns = (paddle.to_tensor(draw_unit_rows(rng, 5, 3)) for _ in range(2))
    columns.stop_gradient = False
    scale = paddle.to_tensor(2.0, dtype="float64")
    tiled_info_nce(frozen, columns, scale, tile=2).sum().backward()
    expected = compute_info_nce(frozen.numpy(), columns.numpy(), 2.0, 0, np.eye(5, dtype=bool), "ignored")[2]
    np.testing.assert_allclose(columns.grad.numpy(), expected, atol=1e-12)
    assert frozen.grad is None and scale.grad is None


def memory_of(form, rows, width, tile):
    """Return the MiB that a loss takes, measured in a process of its own, for its peak."""
    sizes = ["--rows", rows, "--width", width, "--tile", tile]
    command = [sys.executable, "benchmarks/loss_memory.py", "--measure", form, *map(str, sizes)]
    done = run_process(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["memory"]


def test_memory_does_not_grow_with_rows_times_columns():
    """8,192 rows: one float32 matrix of all logits would be 256 MiB."""
    assert memory_of("tiled", 8192, 8, 512) < 64


@pytest.mark.slow
def test_memory_of_several_widths_stays_that_of_the_widest():
    """With a copy of each prefix and of its gradient it would be more than twice as much."""
    assert memory_of("tiled-widths", 2048, 1024, 128) < 1.1 * memory_of("tiled", 2048, 1024, 128)


@pytest.mark.parametrize("loss", [info_nce, tiled_info_nce])
def test_a_hopeless_row_costs_all_it_costs(loss):
    """Own column opposite, the other one equal, scale 100: logits (-100, 100), hence a loss of 200."""
    arrays = [[1.0]], [[-1.0], [1.0]], 100
    losses, gradients = compute_weighted_gradients(lambda *leaves: [loss(*leaves)], arrays, [np.ones(1)], "float32")
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
        tiled_info_nce_both_ways(unit[:1], unit, scale)


def test_errors_of_widths_name_what_to_change(monkeypatch):
    views = {name: paddle.eye(5) for name in ("image_1", "text_1")}
    with pytest.raises(ValueError, match="Loss.widths ends with 3"):
        MultiViewLoss({"image_text": 1.0}, widths=[1, 3])(views, views, {"logit_scale": paddle.to_tensor(1.0)})
    monkeypatch.setitem(PAIR_LOSSES, "two_arguments", lambda duplicates, tile: InfoNCE(duplicates, tile))
    with pytest.raises(ValueError, match="Loss.kind=two_arguments takes no widths"):
        MultiViewLoss({"image_text": 1.0}, kind="two_arguments", widths=[1, 5])
