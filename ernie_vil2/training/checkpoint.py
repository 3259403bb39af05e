"""Checkpoints, and what a run that continues from one may change of its configuration.

A checkpoint is a folder, written aside and renamed, of safetensors and JSON only; see `io.run_folder`.
"""

import contextlib
import errno
import os
import resource
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from safetensors.numpy import load_file

from ernie_vil2.config import Config, ConfigError, differences, dump_config, load_config
from ernie_vil2.config.sections import without_implementation
from ernie_vil2.data.tokenizer import TextTokenizer
from ernie_vil2.io.files import (
    DamagedFile,
    atomic_folder,
    check_version,
    load_json,
    read_integrity,
    remove_folder,
    remove_partial,
    save_arrays,
    write_json,
)
from ernie_vil2.io.run_folder import (
    BEST,
    CHECKPOINT_FILES,
    CHECKPOINTS,
    CONFIG,
    EVALUATION,
    MODEL,
    OPTIMIZER,
    STATE,
    STEP,
    Best,
    State,
    checkpoint_folder,
    list_checkpoints,
    with_its_vocabulary,
)
from ernie_vil2.models import load_weights, save_weights
from ernie_vil2.models.weights.integrity import write_model_integrity
from ernie_vil2.training.optimizer import RAW_WEIGHTS, WARMUP_DIVISOR, WeightAverage

VERSION = 1  # of `state.json`
INODES = 8
"""Files, folder and link of a checkpoint."""


class DamagedCheckpoint(ValueError):  # noqa: N818  -- named by what has happened
    """Every checkpoint of a run is damaged; the message says how."""


class FullDisk(OSError):  # noqa: N818  -- named by what has happened
    """A checkpoint finds no room; the message says what it needs (bytes, inodes, larger files) and what there is."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: steps, position and counters, the model's parameters and buffers, the optimiser's as
    `gather_optimizer_state` gives them, and what the model computes, see `integrity.compute_golden`."""

    state: State
    model: paddle.nn.Layer
    optimizer: Mapping[str, np.ndarray]
    config: Config
    tokenizer: TextTokenizer
    golden: Mapping[str, Any] | None = None


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint into a run folder; removes all but the newest `Training.keep_checkpoints` and the best.

    The folder appears under its name only when it is whole and on the disk; then older ones are removed.

    Returns:
        The checkpoint's folder.

    Raises:
        FullDisk: there is no room; the checkpoints that there are stay as they are.
    """
    state, model, arrays, config = checkpoint.state, checkpoint.model, checkpoint.optimizer, checkpoint.config
    final, best = checkpoint_folder(run, state["step"]), state["best"]
    weights = sum(value.size * value.element_size() for value in model.state_dict().values())
    with _room_for([weights, sum(array.nbytes for array in arrays.values())], final.parent):
        with atomic_folder(final) as aside:
            save_weights(model, aside / MODEL)
            save_arrays(aside / OPTIMIZER, arrays)
            write_json(aside / STATE, {"version": VERSION, **state})
            (aside / CONFIG).write_text(dump_config(config), encoding="utf-8")
            for name, text in checkpoint.tokenizer.files().items():
                (aside / name).write_text(text, encoding="utf-8")
            write_model_integrity(aside, config, with_its_vocabulary(aside, CHECKPOINT_FILES), checkpoint.golden)
        keep_only(run, config.Training.keep_checkpoints, best and best["step"])
    return final


def keep_only(run: Path, keep: int, best: int | None) -> None:
    """Removes all checkpoints but the newest `keep` and that of step `best`, to which `checkpoints/best` leads then."""
    mark_best(run, best)
    for old in list_checkpoints(run)[:-keep]:
        if best is None or old != checkpoint_folder(run, best):
            remove_folder(old)


def note_evaluation(run: Path, step: int, best: Best | None) -> None:
    """Notes with the checkpoint of a step that it has been evaluated, and the best evaluation so far."""
    write_json(checkpoint_folder(run, step) / EVALUATION, {"evaluated": step, "best": best})


def mark_best(run: Path, step: int | None) -> None:
    """Lets `checkpoints/best` lead to the checkpoint of a step; None: to none."""
    link = run / CHECKPOINTS / BEST
    if link.is_dir() and not link.is_symlink():  # as copying with the links followed makes of it
        _set_aside(link, "it is a folder and no link")
    if step is None:
        link.unlink(missing_ok=True)
        return
    aside = link.with_name(f".{BEST}.partial")
    aside.symlink_to(checkpoint_folder(run, step).name)
    aside.replace(link)


def check_checkpoint(folder: Path) -> None:
    """Compare every file with its checksum; raise DamagedFile if one is missing or another than was written."""
    read_integrity(folder).check_files(folder, with_its_vocabulary(folder, CHECKPOINT_FILES))


def recover(run: Path) -> Path | None:
    """The newest complete checkpoint, or None; removes what a crash has left.

    The caller owns the run folder. Partial folders of killed runs are removed. A damaged checkpoint newer than the one
    returned is reported on standard error and renamed to `damaged_step_...`, so that it is neither counted nor taken
    for the newest again.

    Raises:
        DamagedCheckpoint: there are checkpoints, but none is whole; they stay as they are.
    """
    remove_partial(run / CHECKPOINTS, f"{STEP.pattern}|{BEST}")
    damaged: dict[Path, str] = {}
    for folder in reversed(list_checkpoints(run)):
        try:
            check_checkpoint(folder)
        except DamagedFile as error:
            damaged[folder] = str(error)
            continue
        for other, why in damaged.items():
            _set_aside(other, why, f"; going on from {folder.name}")
        return folder
    if damaged:
        reasons = "; ".join(f"{folder.name}: {why}" for folder, why in damaged.items())
        raise DamagedCheckpoint(
            f"no checkpoint of {run / CHECKPOINTS} is whole ({reasons}). Put one back from a copy, or start again with "
            "another -o Training.output=..."
        )
    return None


def load_checkpoint(
    folder: Path,
    model: paddle.nn.Layer,
    optimizer: paddle.optimizer.Optimizer,
    average: WeightAverage | None = None,
    own: Collection[str] | None = None,
) -> dict[str, Any]:
    """Restores model and optimiser in place, and the average of the weights, where there is one.

    Args:
        own: Paddle's names of the parameters whose state this rank holds; None: all. Paddle would keep that of the
            others, too, for as long as the run lasts.

    Returns:
        What `state.json` holds, with what is known of the step's evaluation.
    """
    load_weights(model, folder / MODEL)
    if average:
        average.restart()
    weights, state = model.state_dict(), {}
    for key, array in load_file(folder / OPTIMIZER).items():
        name, _, kind = key.rpartition("/")
        if kind == RAW_WEIGHTS:
            weights[name].set_value(array)
        elif own is None or weights[name].name in own:
            state[f"{weights[name].name}_{kind}"] = paddle.to_tensor(array)
    optimizer.set_state_dict(state)
    state = load_json(folder / STATE)
    check_version(state.pop("version", None), VERSION, folder / STATE, "start a new run, -o Training.output=...")
    state |= _noted_evaluation(folder / EVALUATION)
    return state


def _noted_evaluation(path: Path) -> dict[str, Any]:
    try:
        noted = load_json(path)
        return {"evaluated": int(noted["evaluated"]), "best": noted["best"] and dict(noted["best"])}
    except FileNotFoundError:
        pass
    except (ValueError, LookupError, TypeError):
        print(f"warning: {path} is damaged and left out: this step is evaluated again", file=sys.stderr)
    return {}


def _set_aside(folder: Path, why: str, then: str = "") -> None:
    aside = folder.with_name(f"damaged_{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    print(f"warning: checkpoint {folder} is damaged: {why}. It is now {aside.name}{then}", file=sys.stderr)


@contextlib.contextmanager
def _room_for(sizes: Sequence[int], folder: Path) -> Iterator[None]:
    """Says of a disk without room for files of these sizes, or that turns out to be so in the block, what it lacks."""
    if folder.is_dir() and sum(sizes) > shutil.disk_usage(folder).free:
        raise FullDisk(_lack(errno.ENOSPC, sizes, folder))
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise FullDisk(_lack(error.errno, sizes, folder)) from error


def _lack(code: int, sizes: Sequence[int], folder: Path) -> str:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    needed, largest, free = sum(sizes), max(sizes), shutil.disk_usage(there).free
    inodes, limit = os.statvfs(there), resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    lack = f"it needs {needed:,} bytes, {free:,} are free"
    if code == errno.EFBIG:
        allowed = f"ulimit -f allows {limit:,}" if limit != resource.RLIM_INFINITY else "this file system allows less"
        lack = f"its largest file needs {largest:,} bytes, {allowed}"
    elif code == errno.EDQUOT:
        lack += ", but this user's quota is used up"
    elif inodes.f_files and inodes.f_favail < INODES:
        lack = f"it needs {INODES} inodes, {inodes.f_favail:,} of {inodes.f_files:,} are free (df -i)"
    elif free > needed:
        lack += " now, which they were not while it was written"
    return (
        f"no room for a checkpoint in {folder}: {lack}. Make room or raise the limit, or move the run folder to "
        "another disk and set Training.output, then continue with --resume"
    )


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
    "Training.max_skipped_share",
    "Training.log_every",
    "Training.checkpoint_every",
    "Training.keep_checkpoints",
}


def as_begun(config: Config, checkpoint: Path) -> Config:
    """Return the configuration with towers by whom the run's were built, unless `Model.implementation` says by whom.

    Raises:
        ConfigError: the library that built a tower is not installed.
    """
    before, model = load_config(checkpoint / CONFIG, is_strangers=True), config.Model
    if model.implementation is None:
        for side in ("image", "text"):
            now, then = getattr(model, side), getattr(before.Model, side)
            if now.native().name == then.native().name:
                model = model.model_copy(update={side: now.model_copy(update={"name": then.name})})
    missing = [tower.name for tower in (model.image, model.text) if tower.lacks_suite]
    if missing:
        raise ConfigError(
            f"{checkpoint} was trained with {' and '.join(missing)}, and that library is not installed: install it, or "
            "use this package's own towers, equal to rounding: -o Model.implementation=native"
        )
    model = model.model_copy(update={"implementation": None})
    return config.model_copy(update={"Model": model})


def check_changes(checkpoint: Path, now: Config, extend: bool) -> None:
    """Whether a run may resume from a checkpoint with this configuration.

    Args:
        extend: whether it may have more steps. Their learning rates are those of a run that has had so many from the
            beginning: the cosine of the new length, from the next step on.

    Raises:
        ConfigError: it was trained with other values; the message names them, and the way.
    """
    before = load_config(checkpoint / CONFIG, is_strangers=True)
    changed = changed_settings(before, now)
    steps = before.Training.steps, now.Training.steps
    if steps[1] > steps[0]:
        # A warm-up that was cut to a tenth of the shorter run is that of the longer one now, as its rates are.
        if before.Schedule.warmup_steps == before.Training.steps // WARMUP_DIVISOR:
            changed = [name for name in changed if name != "Schedule.warmup_steps"]
        if extend:
            changed.remove("Training.steps")
        elif changed == ["Training.steps"]:
            raise ConfigError(
                f"{checkpoint} is of a run of {steps[0]:,} Training.steps: --resume --extend makes them {steps[1]:,}, "
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
    """The configuration as a tree, without where the training data lies, whose content must not change, and without who
    builds the towers, which only `Model.implementation` changes."""
    tree = {**config.model_dump(), "Model": without_implementation(config.Model).model_dump()}
    tree["Data"]["train"] = [source.model_dump(exclude={"data"}) for source in config.Data.sources]
    return tree
