"""What a resumed run may change of its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ernie_vil2.config import Config, ConfigError, load_config
from ernie_vil2.config.section import differences
from ernie_vil2.io.run_folder import CONFIG

# Nothing that the weights depend on, but for rounding.
FREE_ON_RESUME = {
    "Loss.tile",
    "Data.val",
    "Data.test",
    "Data.workers",
    "Data.patience",
    "Data.max_bad_share",
    "Evaluation",
    "Tuning.patience",
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


def as_begun(config: Config, checkpoint: Path) -> Config:
    """The configuration under the rules that a run was begun with, where those of today are others."""
    before = load_config(checkpoint / CONFIG).Tuning.moving_statistics
    tuning = config.Tuning.model_copy(update={"moving_statistics": before or config.Tuning.moving_statistics})
    return config.model_copy(update={"Tuning": tuning})


def check_changes(checkpoint: Path, now: Config, extend: bool) -> None:
    """Whether a run may go on from a checkpoint with this configuration.

    Args:
        extend: whether it may have more steps. Their learning rates are those of a run that has had so many from the
            beginning: the cosine of the new length, from the next step on.

    Raises:
        ConfigError: it was trained with other values; the message names them, and the way.
    """
    before = load_config(checkpoint / CONFIG)
    changed = changed_settings(before, now)
    steps = before.Training.steps, now.Training.steps
    if steps[1] > steps[0]:
        if extend:
            changed.remove("Training.steps")
        elif changed == ["Training.steps"]:
            raise ConfigError(
                f"{checkpoint} is of a run of {steps[0]:,} Training.steps: --resume --extend goes on to {steps[1]:,}, "
                f"with the learning rates of a run of {steps[1]:,} (docs/runs.md)"
            )
    if changed:
        raise ConfigError(
            f"{checkpoint} was trained with other values of {', '.join(changed)}; "
            "resume with the run's own or choose another -o Training.output=..."
        )


def changed_settings(before: Config, now: Config) -> list[str]:
    """The names of the values that differ and must not: all but `FREE_ON_RESUME` and where the training data lies."""
    changed = [name for name, _ in differences(_settings(before), _settings(now))]
    return [name for name in changed if not FREE_ON_RESUME & {name, name.partition(".")[0]}]


def _settings(config: Config) -> dict[str, Any]:
    """The configuration as a tree, without where the training data lies: what it is must not change."""
    tree = config.model_dump()
    tree["Data"]["train"] = [source.model_dump(exclude={"data"}) for source in config.Data.sources]
    return tree
