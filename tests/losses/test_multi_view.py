"""The multi-view loss equals a NumPy reference, and its gradients equal finite differences of it."""

import math
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paddle.base import core

from ernie_vil2.losses import DUPLICATES, PAIR_LOSSES, InfoNCE, MultiViewLoss, NoNegatives, check_negatives
from ernie_vil2.losses.tiles import should_compute_untiled
from tests.support.encoding_model import normalise_rows
from tests.support.limits import limit_examples

WEIGHTS = {"image_image": 0.5, "text_text": 0.25, "image_text": 1.0, "text_image": 2.0}
VIEWS = ["image_1", "image_2", "text_1", "text_2"]
SIDES = {"image_image": ("image_1", "image_2"), "text_text": ("text_1", "text_2"),
         "image_text": ("image_1", "text_1"), "text_image": ("text_1", "image_1")}  # fmt: skip
IDS = np.array([[1, 10], [2, 20], [1, 30], [4, 20], [5, 50]])  # 0 and 2 share an image, 1 and 3 a text
SCALE = 3.0
SCALARS = {"logit_scale": paddle.to_tensor(SCALE)}


def compute_mean_loss(rows, columns, scale, duplicates):
    """Return equation 1 averaged over the rows of a whole batch."""
    diagonal = np.eye(len(rows), dtype=bool)
    shares_id = (IDS[:, None] == IDS[None]).any(axis=-1)
    logits = scale * rows @ columns.T
    if duplicates == "masked":
        logits = np.where(shares_id & ~diagonal, -np.inf, logits)
    positives = shares_id if duplicates == "positives" else diagonal
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return np.mean([-line[positive].mean() for line, positive in zip(log_softmax, positives, strict=True)])


def compute_reference(views, scale, duplicates, widths=()):
    """Return the weighted sum and the loss of each view pair, summed over the prefixes of the embeddings."""
    pairs = dict.fromkeys(WEIGHTS, 0.0)
    for width in widths or [3]:
        prefixes = dict(views)
        if width < 3:
            for name, view in views.items():
                prefixes[name] = normalise_rows(view[:, :width])
        for pair, (rows, columns) in SIDES.items():
            pairs[pair] += compute_mean_loss(prefixes[rows], prefixes[columns], scale, duplicates)
    return sum(WEIGHTS[pair] * loss for pair, loss in pairs.items()), pairs


def differentiate(function, array, step=1e-5):
    """Return central differences of function() with respect to every entry of the array that it reads."""
    result = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + step
        above = function()
        array[index] = value - step
        result[index] = (above - function()) / (2 * step)
        array[index] = value
    return result


@pytest.fixture
def views():
    rng = np.random.default_rng(0)
    return {name: normalise_rows(rng.normal(size=(len(IDS), 3))) for name in VIEWS}


def to_tensors(arrays):
    return {name: paddle.to_tensor(array, stop_gradient=False) for name, array in arrays.items()}


@pytest.mark.parametrize("widths", [[], [2, 3]])
@pytest.mark.parametrize("tile", [None, 2])
@pytest.mark.parametrize("duplicates", DUPLICATES)
def test_values_and_gradients_equal_the_reference(views, duplicates, tile, widths):
    leaves, ids = to_tensors(views), paddle.to_tensor(IDS)
    scale = paddle.to_tensor(SCALE, dtype="float64", stop_gradient=False)
    loss = MultiViewLoss(WEIGHTS, duplicates, tile, widths=widths)
    total, pairs = loss(leaves, leaves, {"logit_scale": scale}, ids, ids)
    total.backward()

    scale_array = np.array(SCALE)
    expected_total, expected_pairs = compute_reference(views, scale_array, duplicates, widths)
    assert total.shape == [] and float(total) == pytest.approx(expected_total, abs=1e-12)
    assert {pair: float(loss) for pair, loss in pairs.items()} == pytest.approx(expected_pairs, abs=1e-12)
    leaves, arrays = leaves | {"scale": scale}, views | {"scale": scale_array}
    for name, array in arrays.items():
        expected = differentiate(lambda: compute_reference(views, scale_array, duplicates, widths)[0], array)
        # The error of central differences is of the order of the squared step, 1e-10.
        np.testing.assert_allclose(leaves[name].grad.numpy(), expected, atol=1e-8, err_msg=name)


@pytest.mark.parametrize(
    ("weights", "needed"),
    [
        ({"image_text": 1.0, "text_text": 0.0}, {"image_1", "text_1"}),
        ({"text_text": 0.5}, {"text_1", "text_2"}),
        ({"image_image": 0.1, "text_image": 1.0}, {"image_1", "image_2", "text_1"}),
    ],
)
def test_pairs_that_are_off_need_no_views(views, weights, needed):
    loss = MultiViewLoss(weights)
    assert loss.views == needed
    needed_views = to_tensors({name: views[name] for name in needed})
    total, pairs = loss(needed_views, needed_views, SCALARS)
    _, expected = compute_reference(views, SCALE, "ignored")
    expected = {pair: expected[pair] for pair, weight in weights.items() if weight}
    assert {pair: float(value) for pair, value in pairs.items()} == pytest.approx(expected, abs=1e-12)
    assert float(total) == pytest.approx(sum(weights[pair] * value for pair, value in expected.items()))


@pytest.mark.parametrize(
    ("weights", "options", "culprit"),
    [
        ({"image_txt": 1.0}, {}, "'image_txt'"),
        ({"image_text": 0.0}, {}, "every view pair"),
        ({"image_text": -1.0}, {}, "image_text is -1.0"),
        ({"image_text": math.nan}, {}, "image_text is nan"),
        (WEIGHTS, {"duplicates": "mask"}, "'mask'"),
        (WEIGHTS, {"kind": "siglip"}, "'siglip'"),
        (WEIGHTS, {"tile": 0}, "tile of 0 rows"),
    ],
)
def test_wrong_setting_is_named(weights, options, culprit):
    with pytest.raises(ValueError, match=culprit):
        MultiViewLoss(weights, **options)


@pytest.mark.parametrize("kind", ["info_nce", "sigmoid"])
@pytest.mark.parametrize("tile", [None, 2])
def test_no_product_is_rounded_to_tf32(monkeypatch, views, kind, tile):
    """Check the switch of cuBLAS at every product, forward and backward, and that it is restored afterwards."""
    switches, matmul = [], paddle.matmul

    def record_switch(*arguments, **options):
        switches.append(core.get_cublas_switch())
        return matmul(*arguments, **options)

    monkeypatch.setattr(paddle, "matmul", record_switch)
    views = to_tensors(views)
    scalars = {name: paddle.to_tensor(1.0, "float64", stop_gradient=False) for name in ("logit_scale", "logit_bias")}
    original = core.get_cublas_switch()
    core.set_cublas_switch(True)
    try:
        MultiViewLoss(WEIGHTS, tile=tile, kind=kind)(views, views, scalars)[0].backward()
        assert len(switches) >= 12 and not any(switches) and core.get_cublas_switch()
    finally:
        core.set_cublas_switch(original)


@pytest.mark.parametrize("kind", ["info_nce", "sigmoid"])
def test_untiled_losses_on_gpus_equal_tiled_losses(monkeypatch, views, kind):
    scalars = {name: paddle.to_tensor(1.0, "float64") for name in ("logit_scale", "logit_bias")}
    views, ids = to_tensors(views), paddle.to_tensor(IDS)
    num_rows, matmul = [], paddle.matmul

    def record_rows(*arguments, **options):
        num_rows.append(arguments[0].shape[0])
        return matmul(*arguments, **options)

    monkeypatch.setattr(paddle, "matmul", record_rows)
    module = import_module(PAIR_LOSSES.find(kind).__module__)
    losses = []
    for is_untiled in (False, True):
        monkeypatch.setattr(module, "should_compute_untiled", lambda rows, columns, result=is_untiled: result)
        num_rows.clear()
        loss, _ = MultiViewLoss(WEIGHTS, "masked", tile=2, kind=kind)(views, views, scalars, ids, ids)
        losses.append(float(loss))
        assert (max(num_rows) == 5) == is_untiled
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)

    # Up to 8,192 x 8,192 logits are computed at once, on GPUs only.
    cpu, gpu = (SimpleNamespace(is_gpu_place=lambda is_gpu=is_gpu: is_gpu) for is_gpu in (False, True))
    columns = SimpleNamespace(shape=[8192, 8], place=gpu)
    assert should_compute_untiled(SimpleNamespace(shape=[8192, 8], place=gpu), columns)
    assert not should_compute_untiled(SimpleNamespace(shape=[8193, 8], place=gpu), columns)
    cpu_row = SimpleNamespace(shape=[1, 8], place=cpu)
    assert not should_compute_untiled(cpu_row, cpu_row)


def test_loss_may_require_an_option(monkeypatch):
    class Strict(InfoNCE):
        def __init__(self, duplicates, tile, *, margin):
            super().__init__(duplicates, tile)

    monkeypatch.setitem(PAIR_LOSSES, "strict", Strict)
    MultiViewLoss(WEIGHTS, kind="strict", options={"margin": 0.3})
    with pytest.raises(ValueError, match="Loss.kind=strict.*'margin'"):
        MultiViewLoss(WEIGHTS, kind="strict")


@pytest.mark.parametrize("tile", [2, None])
def test_derived_loss_adds_its_term_once(views, tile):
    class PlusOne(InfoNCE):
        def __call__(self, *arguments):
            return super().__call__(*arguments) + 1

    class PlusOneBothWays(PlusOne):
        def both_ways(self, *arguments):
            return tuple(loss + 1 for loss in InfoNCE.both_ways(InfoNCE("ignored", tile), *arguments))

    images, texts = paddle.to_tensor(views["image_1"]), paddle.to_tensor(views["text_1"])
    for kind, added_term in ((InfoNCE, 0), (PlusOne, 1), (PlusOneBothWays, 1)):
        image_losses = kind("ignored", tile)(images, texts, SCALARS, 0, None, None)
        row_losses, column_losses = kind("ignored", tile).both_ways(images, texts, SCALARS, None)
        expected = compute_mean_loss(views["image_1"], views["text_1"], SCALE, "ignored") + added_term
        assert float(image_losses.mean()) == pytest.approx(float(row_losses.mean())) == pytest.approx(expected)
        assert column_losses.shape == row_losses.shape


KEYS = st.integers(0, 3) | st.integers(2**62, 2**62 + 1)


@limit_examples(60)
@given(st.lists(st.tuples(KEYS, KEYS), min_size=1, max_size=9))
def test_batch_with_too_few_negatives_is_refused(ids):
    ids = np.array(ids, np.int64)
    # A row that shares an id with every row has no negative.
    num_without = (ids[:, None] == ids[None]).any(axis=2).all(axis=1).sum()
    if len(ids) > 1 and num_without > len(ids) / 2:
        with pytest.raises(NoNegatives, match=f"^{num_without} of the {len(ids)} rows"):
            check_negatives(ids)
    else:
        check_negatives(ids)
