"""InfoNCE against a NumPy reference written from the formula, and against cases worked out by hand."""

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.losses import DUPLICATES, info_nce, same_sample
from tests.support.limits import examples
from tests.support.loss_reference import normalised, reference, scale_gradient


def run(rows, columns, scale, offset, same, duplicates, dtype="float64"):
    """The same four values from the package."""
    leaves = [paddle.to_tensor(np.asarray(x, dtype), stop_gradient=False) for x in (rows, columns, scale)]
    losses = info_nce(*leaves, offset, paddle.to_tensor(same), duplicates)
    losses.sum().backward()
    return [losses.numpy(), *(leaf.grad.numpy() for leaf in leaves)]


@examples(60)
@given(
    duplicates=st.sampled_from(DUPLICATES),
    count=st.integers(1, 6),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
    width=st.integers(1, 8),
    scale=st.floats(0.1, 100),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_the_reference(duplicates, count, before, after, width, scale, seed):
    rng = np.random.default_rng(seed)
    total = before + count + after
    ids = rng.integers(0, 5, size=(total, 2))
    rows, columns = normalised(rng, count, width), normalised(rng, total, width)
    same = same_sample(paddle.to_tensor(ids[before : before + count]), paddle.to_tensor(ids)).numpy()
    arguments = rows, columns, scale, before, same, duplicates
    for ours, expected in zip(run(*arguments), reference(*arguments), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-10)


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


def test_a_hopeless_row_costs_all_it_costs():
    """Own column opposite, the other one equal, scale 100: logits (-100, 100), hence a loss of 200."""
    rows, columns = np.array([[1.0]]), np.array([[-1.0], [1.0]])
    losses, _, _, scale_gradient = run(rows, columns, 100, 0, np.eye(1, 2, dtype=bool), "ignored", "float32")
    assert losses.tolist() == [200] and scale_gradient == 2


def test_same_sample_by_hand():
    ids = paddle.to_tensor([[1, 10], [2, 10], [1, 30], [10, 2]])
    expected = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    assert same_sample(ids, ids).astype("int64").tolist() == expected
    assert same_sample(ids[1:2], ids).astype("int64").tolist() == expected[1:2]


def test_half_precision_embeddings_are_scored_in_float32():
    rng = np.random.default_rng(2)
    rows, columns = (paddle.to_tensor(normalised(rng, 6, 32)).astype("bfloat16") for _ in range(2))
    losses = info_nce(rows, columns, paddle.to_tensor(50.0))
    assert losses.dtype == paddle.float32
    exact = [x.astype("float64").numpy() for x in (rows, columns)]
    expected, *_ = reference(*exact, 50.0, 0, np.eye(6, dtype=bool), "ignored")
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-5)


def test_scale_gradient_is_accurate_in_float32_for_a_large_batch():
    """Summed term by term over the logits it is off by 1e-3 and more."""
    rng = np.random.default_rng(3)
    rows = normalised(rng, 2048, 16)
    columns = rows + rng.normal(size=rows.shape) / 8
    columns /= np.linalg.norm(columns, axis=1, keepdims=True)
    *_, ours = run(rows, columns, 1.0, 0, np.eye(2048, dtype=bool), "ignored", dtype="float32")
    np.testing.assert_allclose(ours, scale_gradient(rows, columns, 1.0), rtol=1e-4)


def test_errors_name_the_culprit():
    unit, scale = paddle.eye(2), paddle.to_tensor(1.0)
    with pytest.raises(ValueError, match="'mask'.*masked"):
        info_nce(unit, unit, scale, duplicates="mask")
    with pytest.raises(ValueError, match="needs the ids"):
        info_nce(unit, unit, scale, duplicates="masked")
    with pytest.raises(ValueError, match="2 rows from offset 1 do not fit into 2 columns"):
        info_nce(unit, unit, scale, offset=1)
