"""The sigmoid loss against the NumPy reference in float64, in tiles and all at once, by rows and both ways."""

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.losses import DUPLICATES, MultiViewLoss, SigmoidLoss
from tests.support.limits import examples
from tests.support.loss_reference import normalised, sigmoid_reference

TILES = st.one_of(st.none(), st.integers(1, 8))


def gradients(loss, arrays, weights, dtype="float64"):
    """The losses each way, and the gradients of their sum times the weights in rows, columns, scale and bias."""
    leaves = [paddle.to_tensor(np.asarray(array, dtype), stop_gradient=False) for array in arrays]
    losses = loss(*leaves[:2], {"logit_scale": leaves[2], "logit_bias": leaves[3]})
    paddle.add_n(
        [(way * paddle.to_tensor(w.astype(dtype))).sum() for way, w in zip(losses, weights, strict=True)]
    ).backward()
    return [way.numpy() for way in losses], [leaf.grad.numpy() for leaf in leaves]


def numpy_same(row_ids, column_ids):
    return (row_ids[:, None] == column_ids[None]).any(axis=-1)


@examples(80)
@given(
    duplicates=st.sampled_from(DUPLICATES),
    count=st.integers(1, 12),
    before=st.integers(0, 7),
    after=st.integers(0, 7),
    tile=TILES,
    scale=st.floats(0.1, 100),
    bias=st.floats(-20, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_the_reference(duplicates, count, before, after, tile, scale, bias, seed):
    rng = np.random.default_rng(seed)
    total = before + count + after
    ids = rng.integers(0, 9, size=(total, 2))
    rows, columns, weights = normalised(rng, count, 4), normalised(rng, total, 4), rng.normal(size=count)
    row_ids, column_ids = paddle.to_tensor(ids[before : before + count]), paddle.to_tensor(ids)

    def loss(rows, columns, scalars):
        return [SigmoidLoss(duplicates, tile)(rows, columns, scalars, before, row_ids, column_ids)]

    (losses,), found = gradients(loss, (rows, columns, scale, bias), [weights])
    same = numpy_same(ids[before : before + count], ids)
    expected = sigmoid_reference(rows, columns, scale, bias, before, same, duplicates, weights)
    for ours, theirs in zip([losses, *found], expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)


@examples(40)
@given(duplicates=st.sampled_from(DUPLICATES), count=st.integers(1, 14), tile=TILES, seed=st.integers(0, 2**32 - 1))
def test_both_ways_equal_the_reference_of_each(duplicates, count, tile, seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 9, size=(count, 2))
    rows, columns, weights = normalised(rng, count, 4), normalised(rng, count, 4), rng.normal(size=(2, count))

    def loss(rows, columns, scalars):
        return SigmoidLoss(duplicates, tile).both_ways(rows, columns, scalars, paddle.to_tensor(ids))

    losses, found = gradients(loss, (rows, columns, 10.0, -3.0), weights)
    same = numpy_same(ids, ids)
    there, *first = sigmoid_reference(rows, columns, 10.0, -3.0, 0, same, duplicates, weights[0])
    back, *second = sigmoid_reference(columns, rows, 10.0, -3.0, 0, same, duplicates, weights[1])
    expected = [there, back, first[0] + second[1], first[1] + second[0], first[2] + second[2], first[3] + second[3]]
    for ours, theirs in zip([*losses, *found], expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("duplicates", DUPLICATES)
def test_float32_is_within_1e_5_of_the_reference_where_most_entries_cost_next_to_nothing(duplicates):
    """At the initial bias of -10 a negative costs 5e-5: rounding it to the precision of 1 would lose a thousandth."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 80, size=(160, 2))
    rows, columns = normalised(rng, 90, 16), normalised(rng, 160, 16)
    arrays = [np.asarray(array, "float32") for array in (rows, columns, 10.0, -10.0)]

    row_ids, column_ids = paddle.to_tensor(ids[50:140]), paddle.to_tensor(ids)

    def loss(rows, columns, scalars):
        return [SigmoidLoss(duplicates, 32)(rows, columns, scalars, 50, row_ids, column_ids)]

    (losses,), found = gradients(loss, arrays, [np.ones(90)], "float32")
    assert losses.dtype == np.float32
    exact = [array.astype("float64") for array in arrays]
    expected = sigmoid_reference(*exact, 50, numpy_same(ids[50:140], ids), duplicates, np.ones(90))
    for ours, theirs in zip([losses, *found], expected, strict=True):
        assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) < 1e-5


def test_the_negatives_alone_keep_their_digits():
    """Two orthogonal samples at a bias of -10: a negative costs log1p(exp(-10)), worked out by hand."""
    rows = paddle.eye(2)
    scalars = {"logit_scale": paddle.to_tensor(0.0), "logit_bias": paddle.to_tensor(-10.0)}
    losses = SigmoidLoss("masked", None)(rows, rows, scalars, 0, *[paddle.to_tensor([[1, 1], [2, 2]])] * 2)
    np.testing.assert_allclose(losses.numpy() - np.log1p(np.exp(10)), np.log1p(np.exp(-10)), rtol=0.05)


def test_image_to_text_and_text_to_image_cost_the_same():
    rng = np.random.default_rng(0)
    views = {name: paddle.to_tensor(normalised(rng, 6, 4)) for name in ("image_1", "text_1")}
    scalars = {"logit_scale": paddle.to_tensor(10.0), "logit_bias": paddle.to_tensor(-10.0)}
    _, pairs = MultiViewLoss({"image_text": 1.0, "text_image": 1.0}, kind="sigmoid")(views, views, scalars)
    assert float(pairs["image_text"]) == pytest.approx(float(pairs["text_image"]), rel=1e-12)


def test_an_unknown_loss_is_named():
    with pytest.raises(ValueError, match="there is no loss 'siglip'.*info_nce, sigmoid"):
        MultiViewLoss({"image_text": 1.0}, kind="siglip")


@pytest.mark.parametrize("tile", [None, 2])
def test_the_small_losses_of_far_negatives_are_not_rounded_away(tile):
    """In float32, at the bias that training begins with: 1 + exp(-18) is 1."""
    rows = np.eye(6, dtype=np.float32)
    columns = np.concatenate([rows, -0.08 * rows[:2]])
    scalars = {"logit_scale": paddle.to_tensor(100.0), "logit_bias": paddle.to_tensor(-18.0)}
    losses = SigmoidLoss("ignored", tile)(paddle.to_tensor(rows), paddle.to_tensor(columns), scalars, 0, None, None)
    logits = 100.0 * rows.astype(np.float64) @ columns.T - 18.0
    characters = np.where(np.eye(6, 8, dtype=bool), 1.0, -1.0)
    np.testing.assert_allclose(losses.numpy(), np.log1p(np.exp(-characters * logits)).sum(axis=1), rtol=1e-4)
