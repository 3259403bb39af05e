"""The multi-view loss against a NumPy reference and its finite differences."""

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
from tests.support.limits import limit_examples

WEIGHTS = {"image_image": 0.5, "text_text": 0.25, "image_text": 1.0, "text_image": 2.0}
VIEWS = ["image_1", "image_2", "text_1", "text_2"]
SIDES = {"image_image": ("image_1", "image_2"), "text_text": ("text_1", "text_2"),
         "image_text": ("image_1", "text_1"), "text_image": ("text_1", "image_1")}  # fmt: skip
IDS = np.array([[1, 10], [2, 20], [1, 30], [4, 20], [5, 50]])  # 0 and 2 share an image, 1 and 3 a text
SCALE = 3.0
SCALARS = {"logit_scale": paddle.to_tensor(SCALE)}


def mean_loss(rows, columns, scale, duplicates):
    """Equation 1 averaged over the rows of a whole batch."""
    own = np.eye(len(rows), dtype=bool)
    same = (IDS[:, None] == IDS[None]).any(axis=-1)
    logits = scale * rows @ columns.T
    if duplicates == "masked":
        logits = np.where(same & ~own, -np.inf, logits)
    positives = same if duplicates == "positives" else own
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return np.mean([-line[positive].mean() for line, positive in zip(log_softmax, positives, strict=True)])


def reference(views, scale, duplicates, widths=()):
    pairs = dict.fromkeys(WEIGHTS, 0.0)
    for width in widths or [3]:
        cut = {name: view[:, :width] / np.linalg.norm(view[:, :width], axis=1, keepdims=True)
               for name, view in views.items()} if width < 3 else views  # fmt: skip
        for pair, (rows, columns) in SIDES.items():
            pairs[pair] += mean_loss(cut[rows], cut[columns], scale, duplicates)
    return sum(WEIGHTS[pair] * loss for pair, loss in pairs.items()), pairs


def numerical_gradient(function, array, step=1e-5):
    """Central differences of function() with respect to every entry of the array that it reads."""
    result = np.empty_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        above = function()
        array[index] = kept - step
        result[index] = (above - function()) / (2 * step)
        array[index] = kept
    return result


@pytest.fixture
def views():
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(len(IDS), 3)) for name in VIEWS}
    return {name: array / np.linalg.norm(array, axis=1, keepdims=True) for name, array in arrays.items()}


def tensors(arrays, rows=slice(None)):
    return {name: paddle.to_tensor(array[rows], stop_gradient=False) for name, array in arrays.items()}


@pytest.mark.parametrize("widths", [[], [2, 3]])
@pytest.mark.parametrize("tile", [None, 2])
@pytest.mark.parametrize("duplicates", DUPLICATES)
def test_values_and_gradients_equal_the_reference(views, duplicates, tile, widths):
    leaves, ids = tensors(views), paddle.to_tensor(IDS)
    scale = paddle.to_tensor(SCALE, dtype="float64", stop_gradient=False)
    loss = MultiViewLoss(WEIGHTS, duplicates, tile, widths=widths)
    total, pairs = loss(leaves, leaves, {"logit_scale": scale}, ids, ids)
    total.backward()

    scale_array = np.array(SCALE)
    expected_total, expected_pairs = reference(views, scale_array, duplicates, widths)
    assert total.shape == [] and float(total) == pytest.approx(expected_total, abs=1e-12)
    assert {pair: float(loss) for pair, loss in pairs.items()} == pytest.approx(expected_pairs, abs=1e-12)
    for name, array in (*views.items(), ("scale", scale_array)):
        expected = numerical_gradient(lambda: reference(views, scale_array, duplicates, widths)[0], array)
        np.testing.assert_allclose((leaves | {"scale": scale})[name].grad.numpy(), expected, atol=1e-8, err_msg=name)


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
    given = tensors({name: views[name] for name in needed})
    total, pairs = loss(given, given, SCALARS)
    _, expected = reference(views, SCALE, "ignored")
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
def test_a_wrong_set_up_is_named(weights, options, culprit):
    with pytest.raises(ValueError, match=culprit):
        MultiViewLoss(weights, **options)


@pytest.mark.parametrize("kind", ["info_nce", "sigmoid"])
@pytest.mark.parametrize("tile", [None, 2])
def test_no_product_may_be_rounded_to_tf32(monkeypatch, views, kind, tile):
    """Neither forward nor backward; what a GPU may do besides is as it was."""
    allowed, product = [], paddle.matmul

    def watched(*arguments, **options):
        allowed.append(core.get_cublas_switch())
        return product(*arguments, **options)

    monkeypatch.setattr(paddle, "matmul", watched)
    views = tensors(views)
    scalars = {name: paddle.to_tensor(1.0, "float64", stop_gradient=False) for name in ("logit_scale", "logit_bias")}
    before = core.get_cublas_switch()
    core.set_cublas_switch(True)
    try:
        MultiViewLoss(WEIGHTS, tile=tile, kind=kind)(views, views, scalars)[0].backward()
        assert len(allowed) >= 12 and not any(allowed) and core.get_cublas_switch()
    finally:
        core.set_cublas_switch(before)


@pytest.mark.parametrize("kind", ["info_nce", "sigmoid"])
def test_computed_at_once_on_gpus_they_give_the_same(monkeypatch, views, kind):
    scalars = {name: paddle.to_tensor(1.0, "float64") for name in ("logit_scale", "logit_bias")}
    views, ids, found, products, product = tensors(views), paddle.to_tensor(IDS), [], [], paddle.matmul

    def counted(*arguments, **options):
        products.append(arguments[0].shape[0])
        return product(*arguments, **options)

    monkeypatch.setattr(paddle, "matmul", counted)
    module = import_module(PAIR_LOSSES.find(kind).__module__)
    for whole in (False, True):
        monkeypatch.setattr(module, "should_compute_untiled", lambda rows, columns, whole=whole: whole)
        products.clear()
        found.append(float(MultiViewLoss(WEIGHTS, "masked", tile=2, kind=kind)(views, views, scalars, ids, ids)[0]))
        assert (max(products) == 5) == whole
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    for rows, is_gpu, is_whole in ((2048, True, True), (2049, True, False), (1, False, False)):
        place = SimpleNamespace(is_gpu_place=lambda is_gpu=is_gpu: is_gpu)
        tensors_of = [SimpleNamespace(shape=[count, 8], place=place) for count in (rows, 8192 if is_gpu else 1)]
        assert should_compute_untiled(*tensors_of) == is_whole


def test_a_loss_may_need_an_argument(monkeypatch):
    class Strict(InfoNCE):
        def __init__(self, duplicates, tile, *, margin):
            super().__init__(duplicates, tile)

    monkeypatch.setitem(PAIR_LOSSES, "strict", Strict)
    MultiViewLoss(WEIGHTS, kind="strict", options={"margin": 0.3})
    with pytest.raises(ValueError, match="Loss.kind=strict.*'margin'"):
        MultiViewLoss(WEIGHTS, kind="strict")


@pytest.mark.parametrize("tile", [2, None])
def test_a_class_derived_from_it_counts_its_own_term_once(views, tile):
    class Dearer(InfoNCE):
        def __call__(self, *arguments):
            return super().__call__(*arguments) + 1

    class DearerBothWays(Dearer):
        def both_ways(self, *arguments):
            return tuple(loss + 1 for loss in InfoNCE.both_ways(InfoNCE("ignored", tile), *arguments))

    pair = (*(paddle.to_tensor(views[name]) for name in ("image_1", "text_1")), SCALARS)
    for kind, more in ((InfoNCE, 0), (Dearer, 1), (DearerBothWays, 1)):
        alone = kind("ignored", tile)(*pair, 0, None, None)
        of_rows, of_columns = kind("ignored", tile).both_ways(*pair, None)
        expected = mean_loss(views["image_1"], views["text_1"], SCALE, "ignored") + more
        assert float(alone.mean()) == pytest.approx(float(of_rows.mean())) == pytest.approx(expected)
        assert of_columns.shape == of_rows.shape


KEYS = st.integers(0, 3) | st.integers(2**62, 2**62 + 1)


@limit_examples(60)
@given(st.lists(st.tuples(KEYS, KEYS), min_size=1, max_size=9))
def test_a_batch_in_which_most_rows_lack_a_negative_is_refused(ids):
    ids = np.array(ids, np.int64)
    without = (ids[:, None] == ids[None]).any(axis=2).all(axis=1).sum()
    if len(ids) > 1 and without > len(ids) / 2:
        with pytest.raises(NoNegatives, match=f"^{without} of the {len(ids)} rows"):
            check_negatives(ids)
    else:
        check_negatives(ids)
