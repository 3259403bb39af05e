"""Sums by products with ones against NumPy's."""

import numpy as np
import paddle
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.cpu.tensors import channel_sums, pairwise_sums, sums

sizes = st.integers(1, 9)


@given(rows=sizes, columns=sizes, axis=st.integers(0, 1), seed=st.integers(0, 99))
def test_sums_over_an_axis(rows, columns, axis, seed):
    values = np.random.default_rng(seed).normal(size=(rows, columns))
    np.testing.assert_allclose(sums(paddle.to_tensor(values), axis).numpy(), values.sum(axis), atol=1e-12)


@given(shape=st.lists(sizes, min_size=2, max_size=4), seed=st.integers(0, 99))
def test_sums_of_channels(shape, seed):
    values = np.random.default_rng(seed).normal(size=shape)
    expected = values.sum(axis=tuple(axis for axis in range(len(shape)) if axis != 1))
    np.testing.assert_allclose(channel_sums(paddle.to_tensor(values)).numpy(), expected, atol=1e-12)


@given(rows=sizes, columns=sizes, seed=st.integers(0, 99))
def test_sums_of_pairs(rows, columns, seed):
    left, right = np.random.default_rng(seed).normal(size=rows), np.random.default_rng(seed + 1).normal(size=columns)
    found = pairwise_sums(paddle.to_tensor(left), paddle.to_tensor(right)).numpy()
    np.testing.assert_array_equal(found, left[:, None] + right[None])
