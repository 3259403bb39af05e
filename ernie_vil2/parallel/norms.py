"""Batch norms: which layers of a model they are, and their running statistics."""

from collections.abc import Iterator
from contextlib import contextmanager

import paddle
from paddle import nn


def batch_norms(model: nn.Layer) -> list[nn.Layer]:
    """The layers of a model that normalise by statistics of the batch, and gather running ones."""
    # Paddle's batch norms hold them under these names, some kinds as buffers and some as parameters.
    return [layer for layer in model.sublayers() if hasattr(layer, "_mean") and hasattr(layer, "_variance")]


@contextmanager
def statistics_kept(model: nn.Layer) -> Iterator[None]:
    """Forwards of a model within the block leave no trace in its running statistics.

    For rows that are encoded a second time: they count once.
    """
    statistics = [value for norm in batch_norms(model) for value in (norm._mean, norm._variance)]
    before = [value.clone() for value in statistics]
    yield
    with paddle.no_grad():
        for value, kept in zip(statistics, before, strict=True):
            value.set_value(kept)
