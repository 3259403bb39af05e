"""Counting what is copied to the host."""

from contextlib import contextmanager

import paddle
import pytest


@contextmanager
def count_copied_bytes():
    """Collect the bytes that each `Tensor.numpy()` in the block copies: all the memory that the tensor shares."""
    sizes, copy = [], paddle.Tensor.numpy

    def copy_and_count(tensor, *arguments):
        sizes.append(tensor._holder_size())
        return copy(tensor, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paddle.Tensor, "numpy", copy_and_count)
        yield sizes
