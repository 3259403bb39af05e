"""AdamW over the parameter groups of a task, its schedule, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import paddle

from ernie_vil2.config import Config, OptimizerConfig, validated
from ernie_vil2.parallel.norms import running_statistics
from ernie_vil2.tasks import ParameterGroup

WARMUP_SHARE = 10
"""Of a run that is given in epochs, the warm-up is at most one step in so many."""


def with_steps(config: Config, samples: int) -> Config:
    """The configuration with the steps that `Training.epochs` means, and a warm-up of at most a tenth of them.

    Args:
        samples: of an epoch.
    """
    epochs = config.Training.epochs
    if epochs is None:
        return config
    steps = max(1, math.ceil(epochs * samples / config.Training.global_batch))
    tree = config.model_dump()
    tree["Training"] |= {"steps": steps, "epochs": None}
    tree["Schedule"]["warmup_steps"] = min(config.Schedule.warmup_steps, steps // WARMUP_SHARE)
    return validated(tree, f"Training.epochs={epochs:g}")


def learning_rate(step: int, config: Config) -> float:
    """Learning rate of optimiser step `step` (0 is the first).

    Linear from 0 over the warm-up, reaching the peak at its last step; then half a cosine down to the
    floor, reached at the last step (paper, section 4.1). `Tuning.base_batch` scales both.
    """
    scale = config.Training.global_batch / (config.Tuning.base_batch or config.Training.global_batch)
    peak, floor = (rate * scale for rate in (config.Optimizer.learning_rate, config.Schedule.floor))
    warmup, steps = config.Schedule.warmup_steps, config.Training.steps
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step + 1 - warmup) / (steps - warmup)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@paddle.no_grad()
def set_rate(optimizer: paddle.optimizer.AdamW, rate: float, factor: paddle.Tensor | None = None) -> None:
    """Sets the learning rate of the next step.

    Args:
        factor: a scalar on the device, by which it is multiplied there.
    """
    optimizer.set_lr(rate)
    if factor is not None:
        optimizer._create_global_learning_rate()  # before the first step there is no tensor of it
        optimizer._global_learning_rate().multiply_(factor)


def build_optimizer(
    model: paddle.nn.Layer, groups: Sequence[ParameterGroup], config: OptimizerConfig
) -> paddle.optimizer.AdamW:
    """AdamW over the groups, in the order of the model's parameters.

    Raises:
        ValueError: a group names a parameter that is in none or in another group, or that the model lacks.
    """
    named = dict(model.named_parameters())
    names = [name for group in groups for name in group.names]
    if len(set(names)) < len(names) or not set(names) <= named.keys():
        wrong = [name for name in names if names.count(name) > 1 or name not in named]
        raise ValueError(f"parameter groups: {wrong[0]} is in two groups, or the model has no such parameter")
    decayed = set()
    for group in groups:
        for name in group.names:
            named[name].optimize_attr["learning_rate"] = group.factor
            if group.decay:
                decayed.add(named[name].name)
    return paddle.optimizer.AdamW(
        learning_rate=config.learning_rate,
        beta1=config.beta1,
        beta2=config.beta2,
        epsilon=config.epsilon,
        weight_decay=config.weight_decay,
        apply_decay_param_fun=decayed.__contains__,
        grad_clip=paddle.nn.ClipGradByGlobalNorm(config.clip_norm) if config.clip_norm else None,
        parameters=[parameter for name, parameter in named.items() if name in set(names)],
    )


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
