"""An exponential moving average of the weights: what a run with `Tuning.ema` scores and saves as its model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import paddle

from ernie_vil2.parallel.norms import running_statistics

RAW = "raw"
"""Kind of the weights themselves among the state of the optimiser, in a checkpoint whose model is the average."""


class WeightAverage:
    """The average of the parameters that are trained and of the running statistics of a model.

    After each step it moves by `1 - decay` of the way to the weights. At first it moves faster, so that it does not
    stay at where training began: the decay of step t, from 1, is at most (1 + t) / (10 + t).

    Args:
        model: on every rank the same.
        decay: of `Tuning.ema`.
    """

    def __init__(self, model: paddle.nn.Layer, decay: float):
        self.decay = decay
        statistics = {id(value) for value in running_statistics(model)}
        self._weights = {name: value for name, value in model.state_dict().items()
                         if not value.stop_gradient or id(value) in statistics}  # fmt: skip
        self.restart()

    @paddle.no_grad()
    def restart(self) -> None:
        """Takes the weights as they are for the average."""
        self._averages = {name: value.clone() for name, value in self._weights.items()}

    @paddle.no_grad()
    def update(self, step: int) -> None:
        """Takes the weights after a step into the average.

        Args:
            step: its number, from 1.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in self._weights.items():
            average = self._averages[name]
            average.set_value(average + (value - average) * (1 - decay))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model has the average for its weights; what becomes of them there stays in it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def raw(self) -> dict[str, np.ndarray]:
        """The weights themselves, as a checkpoint holds them among the optimiser's state."""
        return {f"{name}/{RAW}": value.numpy() for name, value in self._weights.items()}

    @paddle.no_grad()
    def _swap(self) -> None:
        for name, value in self._weights.items():
            other = self._averages[name].clone()
            self._averages[name].set_value(value)
            value.set_value(other)
