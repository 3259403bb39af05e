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

from ernie_vil2.losses import DUPLICATES, PAIR_LOSSES, InfoNCE, MultiViewLoss, NoNegatives, refuse_without_negatives
from ernie_vil2.losses.tiles import computed_whole
from tests.support.limits import examples

WEIGHTS = {"image_image": 0.5, "text_text": 0.25, "image_text": 1.0, "text_image": 2.0}
VIEWS = ["image_1", "image_2", "text_1", "text_2"]
IDS = np.array([[1, 10], [2, 20], [1, 30], [4, 20], [5, 50]])  # 0 and 2 share an image, 1 and 3 a text
SCALE = 3.0
SCALARS = {"logit_scale": paddle.to_tensor(SCALE)}
TILES = [None, 2, 1024]  # all at once, ragged tiles, one tile


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


def reference(views, scale, duplicates):
    pairs = {
        "image_image": mean_loss(views["image_1"], views["image_2"], scale, duplicates),
        "text_text": mean_loss(views["text_1"], views["text_2"], scale, duplicates),
        "image_text": mean_loss(views["image_1"], views["text_1"], scale, duplicates),
        "text_image": mean_loss(views["text_1"], views["image_1"], scale, duplicates),
    }
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


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("duplicates", DUPLICATES)
def test_values_and_gradients_equal_the_reference(views, duplicates, tile):
    leaves, ids = tensors(views), paddle.to_tensor(IDS)
    scale = paddle.to_tensor(SCALE, dtype="float64", stop_gradient=False)
    total, pairs = MultiViewLoss(WEIGHTS, duplicates, tile)(leaves, leaves, {"logit_scale": scale}, ids, ids)
    total.backward()

    expected_total, expected_pairs = reference(views, SCALE, duplicates)
    assert total.shape == [] and float(total) == pytest.approx(expected_total, abs=1e-12)
    assert {pair: float(loss) for pair, loss in pairs.items()} == pytest.approx(expected_pairs, abs=1e-12)
    for name, array in views.items():
        expected = numerical_gradient(lambda: reference(views, SCALE, duplicates)[0], array)
        np.testing.assert_allclose(leaves[name].grad.numpy(), expected, atol=1e-8, err_msg=name)
    scale_array = np.array(SCALE)
    expected = numerical_gradient(lambda: reference(views, scale_array, duplicates)[0], scale_array)
    np.testing.assert_allclose(scale.grad.numpy(), expected, atol=1e-8)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("duplicates", DUPLICATES)
def test_parts_of_a_batch_add_up_to_the_whole(views, duplicates, tile):
    """Two and three rows, each part against all columns: what two ranks compute."""
    loss, ids = MultiViewLoss(WEIGHTS, duplicates, tile), paddle.to_tensor(IDS)
    gathered = tensors(views)
    parts = [
        loss(tensors(views, slice(start, stop)), gathered, SCALARS, ids[start:stop], ids, offset=start)
        for start, stop in ((0, 2), (2, 5))
    ]
    expected_total, expected_pairs = reference(views, SCALE, duplicates)
    assert sum(float(total) for total, _ in parts) == pytest.approx(expected_total, abs=1e-12)
    for pair, expected in expected_pairs.items():
        assert sum(float(pairs[pair]) for _, pairs in parts) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("weights", "needed"),
    [
        ({"image_text": 1.0, "text_image": 1.0}, {"image_1", "text_1"}),
        ({"image_text": 1.0, "text_text": 0.0}, {"image_1", "text_1"}),
        ({"text_text": 0.5}, {"text_1", "text_2"}),
        ({"image_image": 0.1, "text_image": 1.0}, {"image_1", "image_2", "text_1"}),
        (WEIGHTS, set(VIEWS)),
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
def test_no_product_may_be_rounded_to_tf32(monkeypatch, kind, tile):
    """Neither forward nor backward; what a GPU may do besides is as it was."""
    allowed, product = [], paddle.matmul

    def watched(*arguments, **options):
        allowed.append(core.get_cublas_switch())
        return product(*arguments, **options)

    monkeypatch.setattr(paddle, "matmul", watched)
    rng = np.random.default_rng(0)
    views = {name: paddle.to_tensor(rng.normal(size=[5, 3]), stop_gradient=False) for name in VIEWS}
    scalars = {name: paddle.to_tensor(1.0, stop_gradient=False) for name in ("logit_scale", "logit_bias")}
    before = core.get_cublas_switch()
    core.set_cublas_switch(True)
    try:
        MultiViewLoss(WEIGHTS, tile=tile, kind=kind)(views, views, scalars)[0].backward()
        assert len(allowed) >= 12 and not any(allowed) and core.get_cublas_switch()
    finally:
        core.set_cublas_switch(before)


def test_small_logits_are_computed_at_once_on_gpus():
    def tensor(rows, on_gpu):
        return SimpleNamespace(shape=[rows, 8], place=SimpleNamespace(is_gpu_place=lambda: on_gpu))

    assert computed_whole(tensor(2048, True), tensor(8192, True))
    assert not computed_whole(tensor(2049, True), tensor(8192, True))
    assert not computed_whole(tensor(1, False), tensor(1, False))


@pytest.mark.parametrize("kind", ["info_nce", "sigmoid"])
def test_computed_at_once_they_give_the_same(monkeypatch, kind):
    rng = np.random.default_rng(0)
    views = {name: paddle.to_tensor(rng.normal(size=[5, 3])) for name in VIEWS}
    scalars = {name: paddle.to_tensor(1.0, "float64") for name in ("logit_scale", "logit_bias")}
    ids, found, products, product = paddle.to_tensor(IDS), [], [], paddle.matmul

    def counted(*arguments, **options):
        products.append(arguments[0].shape[0])
        return product(*arguments, **options)

    monkeypatch.setattr(paddle, "matmul", counted)
    module = import_module(PAIR_LOSSES.find(kind).__module__)
    for whole in (False, True):
        monkeypatch.setattr(module, "computed_whole", lambda rows, columns, whole=whole: whole)
        products.clear()
        found.append(float(MultiViewLoss(WEIGHTS, "masked", tile=2, kind=kind)(views, views, scalars, ids, ids)[0]))
        assert (max(products) == 5) == whole
    assert found[0] == pytest.approx(found[1], rel=1e-12)


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

        def both_ways(self, *arguments):
            return tuple(loss + 1 for loss in super().both_ways(*arguments))

    class DearerByRow(InfoNCE):
        def __call__(self, *arguments):
            return super().__call__(*arguments) + 1

    pair = (*(paddle.to_tensor(views[name]) for name in ("image_1", "text_1")), SCALARS)
    for kind, more in ((InfoNCE, 0), (Dearer, 1), (DearerByRow, 1)):
        alone = kind("ignored", tile)(*pair, 0, None, None)
        of_rows, of_columns = kind("ignored", tile).both_ways(*pair, None)
        expected = mean_loss(views["image_1"], views["text_1"], SCALE, "ignored") + more
        assert float(alone.mean()) == pytest.approx(float(of_rows.mean())) == pytest.approx(expected)
        assert of_columns.shape == of_rows.shape


KEYS = st.integers(0, 3) | st.integers(2**62, 2**62 + 1)


@examples(60)
@given(st.lists(st.tuples(KEYS, KEYS), min_size=1, max_size=9))
def test_a_batch_in_which_most_rows_lack_a_negative_is_refused(ids):
    ids = np.array(ids, np.int64)
    without = (ids[:, None] == ids[None]).any(axis=2).all(axis=1).sum()
    if len(ids) > 1 and without > len(ids) / 2:
        with pytest.raises(NoNegatives, match=f"^{without} of the {len(ids)} rows"):
            refuse_without_negatives(ids)
    else:
        refuse_without_negatives(ids)
