"""The length of a run that is given in epochs."""

from __future__ import annotations

import math

from ernie_vil2.config import Config, validated

WARMUP_SHARE = 10


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
