"""AdamW over the parameter groups of a task, and its schedule: the number of steps, and the learning rate of each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import paddle

from ernie_vil2.config import Config, OptimizerConfig, validated
from ernie_vil2.tasks import ParameterGroup

WARMUP_SHARE = 10
"""Of a run that is given in epochs, the warm-up is at most one step in so many."""


def with_steps(config: Config, samples: int) -> Config:
    """The configuration with the steps that `Training.epochs` stands for, and a warm-up of at most a tenth of them.

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
