"""The digits that the sigmoid loss keeps in float32; values and gradients are compared in test_reference.py."""

import numpy as np
import paddle
import pytest

from ernie_vil2.losses import DUPLICATES, SigmoidLoss
from tests.support.loss_reference import normalised, share_an_id, sigmoid_reference, weighted_gradients


@pytest.mark.parametrize("duplicates", DUPLICATES)
def test_float32_is_within_1e_5_where_most_entries_cost_little(duplicates):
    """At the initial bias of -10 a negative costs 5e-5: rounding it to the precision of 1 would lose a thousandth."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 80, size=(160, 2))
    rows, columns = normalised(rng, 90, 16), normalised(rng, 160, 16)
    arrays = [np.asarray(array, "float32") for array in (rows, columns, 10.0, -10.0)]

    row_ids, column_ids = paddle.to_tensor(ids[50:140]), paddle.to_tensor(ids)

    def loss(rows, columns, scale, bias):
        scalars = {"logit_scale": scale, "logit_bias": bias}
        return [SigmoidLoss(duplicates, 32)(rows, columns, scalars, 50, row_ids, column_ids)]

    (losses,), found = weighted_gradients(loss, arrays, [np.ones(90)], "float32")
    assert losses.dtype == np.float32
    exact = [array.astype("float64") for array in arrays]
    expected = sigmoid_reference(*exact, 50, share_an_id(ids[50:140], ids), duplicates, np.ones(90))
    for ours, theirs in zip([losses, *found], expected, strict=True):
        assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) < 1e-5


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
