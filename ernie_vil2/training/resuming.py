"""What a resumed run may change of its configuration."""

from __future__ import annotations

from typing import Any

from ernie_vil2.config import Config

# Nothing that the weights depend on, but for rounding.
FREE_ON_RESUME = {
    "Loss.tile",
    "Data.val",
    "Data.workers",
    "Data.patience",
    "Data.max_bad_share",
    "Evaluation",
    "Training.output",
    "Training.device",
    "Training.micro_batch",
    "Training.recompute",
    "Training.fused_attention",
    "Training.sharding",
    "Training.precision",
    "Training.nonfinite",
    "Training.log_every",
    "Training.checkpoint_every",
    "Training.keep_checkpoints",
}


def changed_settings(before: Config, now: Config) -> list[str]:
    """The names of the values that differ and must not: all but `FREE_ON_RESUME` and where the training data lies."""
    return _differences(_settings(before), _settings(now))


def _settings(config: Config) -> dict[str, Any]:
    """The configuration as a tree, without where the training data lies: what it is must not change."""
    tree = config.model_dump()
    tree["Data"]["train"] = [source.model_dump(exclude={"data"}) for source in config.Data.sources]
    return tree


def _differences(before: dict, now: dict, prefix: str = "") -> list[str]:
    changed = []
    for key, value in now.items():
        name = prefix + key
        if name in FREE_ON_RESUME or before.get(key) == value:
            continue
        if isinstance(value, dict) and isinstance(before.get(key), dict):
            changed += _differences(before[key], value, f"{name}.")
        else:
            changed.append(name)
    return changed
