"""Values and gradients of both losses equal NumPy's: untiled and in tiles, by rows and both ways, and of prefixes."""

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
    compute_weighted_info_nce,
    draw_unit_rows,
    find_shared_ids,
)

WIDTHS = [1, 3, 5]
BIAS = -2.0
KINDS = {"info_nce": InfoNCE, "sigmoid": SigmoidLoss}
EVERY_KIND = pytest.mark.parametrize(
    ("kind", "widths"), [("info_nce", []), ("info_nce", WIDTHS), ("sigmoid", []), ("sigmoid", WIDTHS)], ids=str
)
TILES = st.one_of(st.none(), st.integers(1, 8))


def take_prefix(rows, width):
    """Return prefixes `[n, width]` of unit length, and a function from their gradient to that of `rows`.

    The widest prefix is `rows` itself.
    """
    if width == rows.shape[1]:
        return rows, lambda gradient: gradient
    norms = np.linalg.norm(rows[:, :width], axis=1, keepdims=True)
    unit_rows = rows[:, :width] / norms

    def backward(gradient):
        row_gradient = np.zeros_like(rows)
        for number, (direction, norm) in enumerate(zip(unit_rows, norms, strict=True)):
            jacobian = (np.eye(width) - np.outer(direction, direction)) / norm
            row_gradient[number, :width] = jacobian @ gradient[number]
        return row_gradient

    return unit_rows, backward


def compute_reference(kind, widths, rows, columns, scale, offset, shares_id, duplicates, weights):
    """Return losses summed over the widths, and gradients of their weighted sum in rows, columns, scale and bias."""
    terms = []
    for width in widths or WIDTHS[-1:]:
        row_prefixes, rows_backward = take_prefix(rows, width)
        column_prefixes, columns_backward = take_prefix(columns, width)
        arguments = offset, shares_id, duplicates, weights
        if kind == "info_nce":
            losses, *gradients = compute_weighted_info_nce(row_prefixes, column_prefixes, scale, *arguments)
        else:
            losses, *gradients = compute_sigmoid_loss(row_prefixes, column_prefixes, scale, BIAS, *arguments)
        terms.append([losses, rows_backward(gradients[0]), columns_backward(gradients[1]), *gradients[2:]])
    return [sum(values) for values in zip(*terms, strict=True)]


def assert_close(values, references):
    for value, expected in zip(values, references, strict=True):
        # A prefix of one number is 1 or -1: next to a short prefix the gradient of its normalisation is large.
        np.testing.assert_allclose(value, expected, rtol=1e-8, atol=1e-9 * max(1, np.abs(expected).max()))


@EVERY_KIND
@limit_examples(25)
@given(
    duplicates=st.sampled_from(DUPLICATES),
    count=st.integers(1, 12),
    num_before=st.integers(0, 7),
    num_after=st.integers(0, 7),
    tile=TILES,
    scale=st.floats(0.1, 100),
    seed=st.integers(0, 2**32 - 1),
)
def test_rows_equal_the_reference(kind, widths, duplicates, count, num_before, num_after, tile, scale, seed):
    rng = np.random.default_rng(seed)
    total = num_before + count + num_after
    ids = rng.integers(0, 9, size=(total, 2))
    rows, columns, weights = draw_unit_rows(rng, count, 5), draw_unit_rows(rng, total, 5), rng.normal(size=count)
    row_ids, column_ids = paddle.to_tensor(ids[num_before : num_before + count]), paddle.to_tensor(ids)

    def loss(rows, columns, scale, bias):
        scalars = {"logit_scale": scale, "logit_bias": bias}
        return [KINDS[kind](duplicates, tile, widths)(rows, columns, scalars, num_before, row_ids, column_ids)]

    losses, gradients = compute_weighted_gradients(loss, (rows, columns, scale, BIAS), [weights])
    shares_id = find_shared_ids(ids[num_before : num_before + count], ids)
    expected = compute_reference(kind, widths, rows, columns, scale, num_before, shares_id, duplicates, weights)
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
def test_both_ways_equal_the_reference(kind, widths, duplicates, count, tile, scale, seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 9, size=(count, 2))
    rows, columns, weights = draw_unit_rows(rng, count, 5), draw_unit_rows(rng, count, 5), rng.normal(size=(2, count))

    def loss(rows, columns, scale, bias):
        scalars = {"logit_scale": scale, "logit_bias": bias}
        return KINDS[kind](duplicates, tile, widths).both_ways(rows, columns, scalars, paddle.to_tensor(ids))

    losses, gradients = compute_weighted_gradients(loss, (rows, columns, scale, BIAS), weights)
    shares_id = find_shared_ids(ids, ids)
    row_losses, *row_gradients = compute_reference(
        kind, widths, rows, columns, scale, 0, shares_id, duplicates, weights[0]
    )
    column_losses, *column_gradients = compute_reference(
        kind, widths, columns, rows, scale, 0, shares_id, duplicates, weights[1]
    )
    scalars = [a + b for a, b in zip(row_gradients[2:], column_gradients[2:], strict=True)]
    assert_close(
        [*losses, *gradients],
        [
            row_losses,
            column_losses,
            row_gradients[0] + column_gradients[1],
            row_gradients[1] + column_gradients[0],
            *scalars,
        ],
    )


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
    diagonal, ones = np.eye(6, dtype=bool), np.ones(6)
    expected, gradient, *_ = compute_reference("info_nce", widths, *exact, 20.0, 0, diagonal, "ignored", ones)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-5)
    # The gradient is rounded to bfloat16, which has 8 bits.
    difference = rows.grad.astype("float32").numpy() - gradient
    assert np.linalg.norm(difference) < 1e-2 * np.linalg.norm(gradient)
