"""Values and gradients of both losses against NumPy: whole and in tiles, by rows and both ways, of prefixes too."""

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.losses import DUPLICATES, InfoNCE, SigmoidLoss
from tests.support.limits import limit_examples
from tests.support.loss_reference import (
    compute_sigmoid_loss,
    compute_weighted_gradients,
    draw_unit_rows,
    find_shared_ids,
)
from tests.support.loss_reference import compute_weighted_info_nce as info_nce_reference

WIDTHS = [1, 3, 5]
BIAS = -2.0
KINDS = {"info_nce": InfoNCE, "sigmoid": SigmoidLoss}
EVERY_KIND = pytest.mark.parametrize(
    ("kind", "widths"), [(kind, widths) for kind in KINDS for widths in ([], WIDTHS)], ids=str
)
TILES = st.one_of(st.none(), st.integers(1, 8))


def prefix(rows, width):
    """Prefixes `[n, width]` of unit length, and what takes their gradient to that of `rows`; the widest is `rows`."""
    if width == rows.shape[1]:
        return rows, lambda gradient: gradient
    cut = rows[:, :width]
    norms = np.linalg.norm(cut, axis=1, keepdims=True)
    unit = cut / norms

    def back(gradient):
        whole = np.zeros_like(rows)
        for number, (direction, norm) in enumerate(zip(unit, norms, strict=True)):
            jacobian = (np.eye(width) - np.outer(direction, direction)) / norm
            whole[number, :width] = jacobian @ gradient[number]
        return whole

    return unit, back


def reference(kind, widths, rows, columns, scale, offset, same, duplicates, weights):
    """Losses summed over the widths, and the gradients of their weighted sum in rows, columns, scale and bias."""
    sums = []
    for width in widths or WIDTHS[-1:]:
        (own, back), (among, back_columns) = prefix(rows, width), prefix(columns, width)
        if kind == "info_nce":
            losses, *gradients = info_nce_reference(own, among, scale, offset, same, duplicates, weights)
        else:
            losses, *gradients = compute_sigmoid_loss(own, among, scale, BIAS, offset, same, duplicates, weights)
        sums.append([losses, back(gradients[0]), back_columns(gradients[1]), *gradients[2:]])
    return [sum(terms) for terms in zip(*sums, strict=True)]


def assert_close(values, references):
    for value, expected in zip(values, references, strict=True):
        # A prefix of one number is 1 or -1: next to a short prefix the gradient of its normalisation is large.
        np.testing.assert_allclose(value, expected, rtol=1e-8, atol=1e-9 * max(1, np.abs(expected).max()))


@EVERY_KIND
@limit_examples(25)
@given(
    duplicates=st.sampled_from(DUPLICATES),
    count=st.integers(1, 12),
    before=st.integers(0, 7),
    after=st.integers(0, 7),
    tile=TILES,
    scale=st.floats(0.1, 100),
    seed=st.integers(0, 2**32 - 1),
)
def test_rows_equal_the_reference(kind, widths, duplicates, count, before, after, tile, scale, seed):
    rng = np.random.default_rng(seed)
    total = before + count + after
    ids = rng.integers(0, 9, size=(total, 2))
    rows, columns, weights = draw_unit_rows(rng, count, 5), draw_unit_rows(rng, total, 5), rng.normal(size=count)
    row_ids, column_ids = paddle.to_tensor(ids[before : before + count]), paddle.to_tensor(ids)

    def loss(rows, columns, scale, bias):
        scalars = {"logit_scale": scale, "logit_bias": bias}
        return [KINDS[kind](duplicates, tile, widths)(rows, columns, scalars, before, row_ids, column_ids)]

    losses, gradients = compute_weighted_gradients(loss, (rows, columns, scale, BIAS), [weights])
    same = find_shared_ids(ids[before : before + count], ids)
    expected = reference(kind, widths, rows, columns, scale, before, same, duplicates, weights)
    assert_close([*losses, *gradients], expected)


@EVERY_KIND
@limit_examples(20)
@given(
    duplicates=st.sampled_from(DUPLICATES),
    count=st.integers(1, 14),
    tile=TILES,
    scale=st.floats(0.1, 100),
    seed=st.integers(0, 2**32 - 1),
)
def test_both_ways_equal_the_reference_of_each(kind, widths, duplicates, count, tile, scale, seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 9, size=(count, 2))
    rows, columns, weights = draw_unit_rows(rng, count, 5), draw_unit_rows(rng, count, 5), rng.normal(size=(2, count))

    def loss(rows, columns, scale, bias):
        scalars = {"logit_scale": scale, "logit_bias": bias}
        return KINDS[kind](duplicates, tile, widths).both_ways(rows, columns, scalars, paddle.to_tensor(ids))

    losses, gradients = compute_weighted_gradients(loss, (rows, columns, scale, BIAS), weights)
    same = find_shared_ids(ids, ids)
    there, *first = reference(kind, widths, rows, columns, scale, 0, same, duplicates, weights[0])
    back, *second = reference(kind, widths, columns, rows, scale, 0, same, duplicates, weights[1])
    scalars = [a + b for a, b in zip(first[2:], second[2:], strict=True)]
    assert_close([*losses, *gradients], [there, back, first[0] + second[1], first[1] + second[0], *scalars])


@pytest.mark.parametrize(("tile", "widths"), [(None, []), (4, []), (4, WIDTHS)])
def test_half_precision_embeddings_are_scored_in_float32(tile, widths):
    rng = np.random.default_rng(2)
    rows, columns = (paddle.to_tensor(draw_unit_rows(rng, 6, 5)).astype("bfloat16") for _ in range(2))
    rows.stop_gradient = False
    with paddle.amp.auto_cast(enable=True, dtype="bfloat16"):
        losses = InfoNCE("ignored", tile, widths)(rows, columns, {"logit_scale": paddle.to_tensor(20.0)}, 0, None, None)
    losses.sum().backward()
    assert losses.dtype == paddle.float32 and rows.grad.dtype == paddle.bfloat16
    exact = [side.astype("float64").numpy() for side in (rows, columns)]
    own, ones = np.eye(6, dtype=bool), np.ones(6)
    expected, gradient, *_ = reference("info_nce", widths, *exact, 20.0, 0, own, "ignored", ones)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-5)
    difference = rows.grad.astype("float32").numpy() - gradient
    assert np.linalg.norm(difference) < 1e-2 * np.linalg.norm(gradient)
