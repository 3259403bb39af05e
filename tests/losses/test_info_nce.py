"""InfoNCE against a NumPy reference written from the formula, and against cases worked out by hand."""

import numpy as np
import paddle
import pytest

from ernie_vil2.losses import info_nce, same_sample


@pytest.mark.parametrize(("duplicates", "loss"), [
    ("ignored", np.log(4 / 3)), ("masked", 0), ("positives", np.log(4 / np.sqrt(3)))
])  # fmt: skip
def test_two_rows_by_hand(duplicates, loss):
    """Rows e1, e2 against columns e1, e2 at scale ln 3: logits (ln 3, 0), hence softmax (3/4, 1/4).

    Alone the own column costs -ln(3/4). If both rows hold the same text, nothing is left to confuse it
    with when masked, and as positives the loss is the mean of -ln(3/4) and -ln(1/4).
    """
    unit, scale = paddle.eye(2, dtype="float64"), paddle.to_tensor(np.log(3))
    losses = info_nce(unit, unit, scale, 0, paddle.ones([2, 2], "bool"), duplicates)
    np.testing.assert_allclose(losses.numpy(), [loss, loss], atol=1e-12)


def test_same_sample_by_hand():
    ids = paddle.to_tensor([[1, 10], [2, 10], [1, 30], [10, 2]])
    expected = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    assert same_sample(ids, ids).astype("int64").tolist() == expected
    assert same_sample(ids[1:2], ids).astype("int64").tolist() == expected[1:2]
