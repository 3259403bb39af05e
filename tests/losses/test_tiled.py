"""Losses in tiles keep their digits and need little memory; test_reference.py compares values and gradients."""

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


def compute_relative_error(actual, expected):
    return np.linalg.norm(np.asarray(actual, "float64") - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("duplicates", DUPLICATES)
@pytest.mark.parametrize(("kind", "scale", "tolerance"), [
    *(("info_nce", scale, 1e-6) for scale in (1.0, 1 / 0.07, 100.0)),
    # At the initial bias of -10 a negative costs 5e-5: rounding it to the precision of 1 would lose a thousandth.
    ("sigmoid", 10.0, 1e-5),
])  # fmt: skip
def test_float32_is_near_the_reference(kind, scale, tolerance, duplicates):
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 80, size=(160, 2))
    rows, columns = draw_unit_rows(rng, 90, 16), draw_unit_rows(rng, 160, 16)
    arrays = [np.asarray(array, "float32") for array in (rows, columns, scale, -10)]
    row_ids, column_ids = paddle.to_tensor(ids[50:140]), paddle.to_tensor(ids)

    def loss(rows, columns, scale, bias):
        scalars = {"logit_scale": scale, "logit_bias": bias}
        return [PAIR_LOSSES.find(kind)(duplicates, 32)(rows, columns, scalars, 50, row_ids, column_ids)]

    (losses,), gradients = compute_weighted_gradients(loss, arrays, [np.ones(90)], "float32")
    assert losses.dtype == np.float32
    exact = [array.astype("float64") for array in arrays]
    shares_id = find_shared_ids(ids[50:140], ids)
    if kind == "info_nce":
        references = compute_info_nce(*exact[:3], 50, shares_id, duplicates)
    else:
        references = compute_sigmoid_loss(*exact, 50, shares_id, duplicates, np.ones(90))
    for actual, expected in zip([losses, *gradients], references, strict=True):
        assert compute_relative_error(actual, expected) < tolerance


@pytest.mark.parametrize("tile", [None, 2])
def test_sigmoid_keeps_small_losses_of_far_negatives(tile):
    # At a bias like the initial one, 1 + exp(-18) rounds to 1 in float32.
    rows = np.eye(6, dtype=np.float32)
    columns = np.concatenate([rows, -0.08 * rows[:2]])
    scalars = {"logit_scale": paddle.to_tensor(100.0), "logit_bias": paddle.to_tensor(-18.0)}
    losses = SigmoidLoss("ignored", tile)(paddle.to_tensor(rows), paddle.to_tensor(columns), scalars, 0, None, None)
    logits = 100.0 * rows.astype(np.float64) @ columns.T - 18.0
    signs = np.where(np.eye(6, 8, dtype=bool), 1.0, -1.0)
    np.testing.assert_allclose(losses.numpy(), np.log1p(np.exp(-signs * logits)).sum(axis=1), rtol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize(("loss", "scale", "tolerance"), [
    (tiled_info_nce, 100.0, 1e-6),
    pytest.param(tiled_info_nce, 1.0, 1e-6, marks=pytest.mark.slow),
    (info_nce, 1.0, 1e-4),  # a sum over the logits term by term would be off by 1e-3 and more
])  # fmt: skip
def test_temperature_gradient_at_a_batch_of_4096(loss, scale, tolerance):
    # Embeddings that training has begun to align, in float32 against float64.
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


def test_small_losses_keep_their_digits():
    # Losses of 1e-6 and less: 1 + 1e-6 in the sum of a float32 softmax would lose nearly all of their digits.
    rng = np.random.default_rng(0)
    rows = draw_unit_rows(rng, 512, 64)
    columns = rows + rng.normal(size=rows.shape) / 8
    columns /= np.linalg.norm(columns, axis=1, keepdims=True)
    rows, columns, scale = rows.astype("float32"), columns.astype("float32"), np.float32(100)
    losses, gradients = compute_weighted_gradients(
        lambda *leaves: [tiled_info_nce(*leaves, tile=200)], (rows, columns, scale), [np.ones(512)], "float32"
    )
    exact = [array.astype("float64") for array in (rows, columns, scale)]
    expected, *expected_gradients = compute_info_nce(*exact, 0, np.eye(512, dtype=bool), "ignored")
    assert 0 < expected.mean() < 1e-5
    assert compute_relative_error(losses[0], expected) < 1e-5
    for actual_gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert compute_relative_error(actual_gradient, expected_gradient) < 1e-5


@pytest.mark.parametrize("scale", [100, 1000])
def test_rows_with_very_different_maxima_keep_their_digits(scale):
    # Sums relative to a single maximum of all rows would underflow in float32.
    angles = np.array([[0.0, 0.01, 0.02, 3.1, -0.01, 0.3, 0.1], [0.02, -0.03, 0.0, 3.0, 0.05, -0.2, 0.0]])
    leaves = np.stack([np.cos(angles), np.sin(angles)], axis=2).astype("float32")
    negative_cosines = np.where(np.eye(7, dtype=bool), -1, leaves[0] @ leaves[1].T)
    assert negative_cosines.max() > 0.99
    assert negative_cosines.max(axis=0).min() < -0.9 and negative_cosines.max(axis=1).min() < -0.9
    losses, gradients = compute_weighted_gradients(
        lambda *tensors: tiled_info_nce_both_ways(*tensors, tile=3), (*leaves, scale), np.ones([2, 7]), "float32"
    )
    exact, diagonal = [array.astype("float64") for array in leaves], np.eye(7, dtype=bool)
    row_losses, *row_gradients = compute_info_nce(*exact, scale, 0, diagonal, "ignored")
    column_losses, *column_gradients = compute_info_nce(*exact[::-1], scale, 0, diagonal, "ignored")
    # In the other direction rows and columns have changed places.
    references = [
        row_losses, column_losses, row_gradients[0] + column_gradients[1], row_gradients[1] + column_gradients[0],
        row_gradients[2] + column_gradients[2],
    ]  # fmt: skip
    for actual, expected in zip([*losses, *gradients], references, strict=True):
        assert compute_relative_error(actual, expected) < 1e-7 * scale  # logits are exact to 6e-8 of the scale


def test_frozen_inputs_get_no_gradient():
    # A frozen tower and a fixed temperature must not cost the other tower its gradient.
    rng = np.random.default_rng(4)
    frozen, columns = (paddle.to_tensor(draw_unit_rows(rng, 5, 3)) for _ in range(2))
    columns.stop_gradient = False
    scale = paddle.to_tensor(2.0, dtype="float64")
    tiled_info_nce(frozen, columns, scale, tile=2).sum().backward()
    expected = compute_info_nce(frozen.numpy(), columns.numpy(), 2.0, 0, np.eye(5, dtype=bool), "ignored")[2]
    np.testing.assert_allclose(columns.grad.numpy(), expected, atol=1e-12)
    assert frozen.grad is None and scale.grad is None


def measure_memory(form, rows, width, tile):
    """Return the peak memory of a loss in MiB, measured in a fresh process."""
    sizes = ["--rows", rows, "--width", width, "--tile", tile]
    command = [sys.executable, "benchmarks/loss_memory.py", "--measure", form, *map(str, sizes)]
    result = run_process(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])["memory"]


def test_memory_does_not_grow_with_rows_times_columns():
    # With 8,192 rows, a float32 matrix of all logits would take 256 MiB.
    assert measure_memory("tiled", 8192, 8, 512) < 64


@pytest.mark.slow
def test_memory_of_several_widths_is_that_of_the_widest():
    # Copies of each prefix and of its gradient would more than double it.
    assert measure_memory("tiled-widths", 2048, 1024, 128) < 1.1 * measure_memory("tiled", 2048, 1024, 128)


@pytest.mark.parametrize("loss", [info_nce, tiled_info_nce])
def test_loss_of_a_hopeless_row_is_not_clipped(loss):
    # The positive is opposite, the negative equal, and the scale 100: logits of -100 and 100 give a loss of 200.
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
