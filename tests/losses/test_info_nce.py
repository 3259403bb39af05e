"""InfoNCE against a NumPy reference written from the formula, and against cases worked out by hand."""

import numpy as np
import paddle
import pytest

from ernie_vil2.losses import DUPLICATES, info_nce, same_sample
from tests.support.loss_reference import normalised, reference, scale_gradient


def run(rows, columns, scale, offset, same, duplicates, dtype="float64"):
    """The same four values from the package."""
    leaves = [paddle.to_tensor(np.asarray(x, dtype), stop_gradient=False) for x in (rows, columns, scale)]
    losses = info_nce(*leaves, offset, paddle.to_tensor(same), duplicates)
    losses.sum().backward()
    return [losses.numpy(), *(leaf.grad.numpy() for leaf in leaves)]


@pytest.mark.parametrize("duplicates", DUPLICATES)
def test_float32_equals_the_reference(duplicates):
    rng = np.random.default_rng(1)
    same = np.eye(12, dtype=bool)[2:10] | (rng.random((8, 12)) < 0.2)
    arguments = normalised(rng, 8, 16), normalised(rng, 12, 16), 5.0, 2, same, duplicates
    ours = run(*arguments, dtype="float32")
    assert ours[0].dtype == np.float32
    for value, expected in zip(ours, reference(*arguments), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("duplicates", "loss"),
    [("ignored", np.log(4 / 3)), ("masked", 0), ("positives", np.log(4 / np.sqrt(3)))],
)
def test_two_rows_by_hand(duplicates, loss):
    """Rows e1, e2 against columns e1, e2 at scale ln 3: logits (ln 3, 0), hence softmax (3/4, 1/4).

    Alone the own column costs -ln(3/4). If both rows hold the same text, nothing is left to confuse it
    with when masked, and as positives the loss is the mean of -ln(3/4) and -ln(1/4).
    """
    unit = np.eye(2)
    losses, *_ = run(unit, unit, np.log(3), 0, np.ones((2, 2), bool), duplicates)
    np.testing.assert_allclose(losses, [loss, loss], atol=1e-12)


def test_same_sample_by_hand():
    ids = paddle.to_tensor([[1, 10], [2, 10], [1, 30], [10, 2]])
    expected = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    assert same_sample(ids, ids).astype("int64").tolist() == expected
    assert same_sample(ids[1:2], ids).astype("int64").tolist() == expected[1:2]


def test_scale_gradient_is_accurate_in_float32_for_a_large_batch():
    """Summed term by term over the logits it is off by 1e-3 and more."""
    rng = np.random.default_rng(3)
    rows = normalised(rng, 2048, 16)
    columns = rows + rng.normal(size=rows.shape) / 8
    columns /= np.linalg.norm(columns, axis=1, keepdims=True)
    *_, ours = run(rows, columns, 1.0, 0, np.eye(2048, dtype=bool), "ignored", dtype="float32")
    np.testing.assert_allclose(ours, scale_gradient(rows, columns, 1.0), rtol=1e-4)
