"""Checkpoints, and what a resumed run may change in its configuration.

A checkpoint is a folder of safetensors and JSON files only, written aside and renamed; see `io.run_folder`.
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
from typing import Any, Literal

import numpy as np
import paddle
from safetensors.numpy import load_file

from ernie_vil2.config import Config, ConfigError, differences, dump_config, load_config
from ernie_vil2.config.sections import with_native_towers
from ernie_vil2.config.stages import find_stage, list_begun_stages
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
    checkpoint_step,
    list_checkpoints,
    resolve_vocabulary,
)
from ernie_vil2.models import load_weights
from ernie_vil2.models.weights.integrity import write_model_integrity
from ernie_vil2.models.weights.positions import fit_positions
from ernie_vil2.training.optimizer import RAW_WEIGHTS, WARMUP_DIVISOR, WeightAverage, compute_cooldown_start

VERSION = 1  # of `state.json`
# Inodes that a checkpoint needs for its files, folder and link.
INODES_PER_CHECKPOINT = 8


class DamagedCheckpoint(ValueError):  # noqa: N818  -- named by what has happened
    """Every checkpoint of a run is damaged; the message says how."""


class FullDisk(OSError):  # noqa: N818  -- named by what has happened
    """There is no room for a checkpoint; the message says what it needs (bytes, inodes, larger files), what is free."""


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint.

    Attributes:
        state: steps, position and counters.
        weights: parameters and buffers by their names in the model.
        optimizer_state: arrays that `gather_optimizer_state` returned.
        config: configuration of the run.
        tokenizer: tokenizer of the model.
        golden: outputs of the model for a few inputs, see `integrity.compute_golden`; None between evaluations.
    """

    state: State
    weights: Mapping[str, np.ndarray]
    optimizer_state: Mapping[str, np.ndarray]
    config: Config
    tokenizer: TextTokenizer
    golden: Mapping[str, Any] | None = None


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint into a run folder, and remove old ones, see `remove_old_checkpoints`.

    The folder gets its name only when it is complete and on the disk; only then are older ones removed.

    Args:
        run: the run folder, which the caller owns.
        checkpoint: what to write.

    Returns:
        The checkpoint's folder.

    Raises:
        FullDisk: there is no room; existing checkpoints are unchanged.
    """
    state, config = checkpoint.state, checkpoint.config
    folder, best = checkpoint_folder(run, state["step"]), state["best"]
    arrays_by_file = {MODEL: checkpoint.weights, OPTIMIZER: checkpoint.optimizer_state}
    sizes = []
    for arrays in arrays_by_file.values():
        sizes.append(sum(array.nbytes for array in arrays.values()))
    with _check_disk_space(sizes, folder.parent):
        with atomic_folder(folder) as partial_folder:
            for name, arrays in arrays_by_file.items():
                save_arrays(partial_folder / name, arrays)
            write_json(partial_folder / STATE, {"version": VERSION, **state})
            (partial_folder / CONFIG).write_text(dump_config(config), encoding="utf-8")
            for name, text in checkpoint.tokenizer.files().items():
                (partial_folder / name).write_text(text, encoding="utf-8")
            # The integrity file is written last, because it holds the checksums of the other files.
            names = resolve_vocabulary(partial_folder, CHECKPOINT_FILES)
            write_model_integrity(partial_folder, config, names, checkpoint.golden)
        remove_old_checkpoints(run, config, best and best["step"])
    return folder


def remove_old_checkpoints(run: Path, config: Config, best_step: int | None) -> None:
    """Remove old checkpoints, and let `checkpoints/best` link to the best one.

    It keeps the newest `Training.keep_checkpoints`, the best, and the one before the cooldown, from which `--extend`
    continues.

    Args:
        run: the run folder, which the caller owns.
        config: configuration of the run.
        best_step: step of the best checkpoint; None: there is none yet.
    """
    link_best(run, best_step)
    for folder in list_checkpoints(run)[: -config.Training.keep_checkpoints]:
        if checkpoint_step(folder) not in (best_step, compute_cooldown_start(config)):
            remove_folder(folder)


def save_evaluation(run: Path, step: int, best: Best | None) -> None:
    """Record in the checkpoint of a step that it has been evaluated, and the best evaluation so far."""
    write_json(checkpoint_folder(run, step) / EVALUATION, {"evaluated_step": step, "best": best})


def link_best(run: Path, step: int | None) -> None:
    """Make `checkpoints/best` a link to the checkpoint of a step; None: remove the link."""
    link = run / CHECKPOINTS / BEST
    # A copy that follows links makes it a folder.
    if link.is_dir() and not link.is_symlink():
        _set_aside(link, "it is a folder and no link")
    if step is None:
        link.unlink(missing_ok=True)
        return
    # A link cannot be changed; renaming a new one over it leaves no moment without a link.
    new_link = link.with_name(f".{BEST}.partial")
    new_link.symlink_to(checkpoint_folder(run, step).name)
    new_link.replace(link)


def check_checkpoint(folder: Path) -> None:
    """Compare every file with its checksum; raise DamagedFile if a file is missing or has changed."""
    read_integrity(folder).check_files(folder, resolve_vocabulary(folder, CHECKPOINT_FILES))


def recover_checkpoint(run: Path, last_step: int | None = None) -> Path | None:
    """Return the newest complete checkpoint, or None; remove partial folders that a crash has left.

    The caller owns the run folder. A damaged checkpoint newer than the returned one is reported on standard error and
    renamed to `damaged_step_...`, so that it no longer counts as a checkpoint.

    Args:
        run: the run folder.
        last_step: checkpoints of later steps are ignored; None: none is.

    Raises:
        DamagedCheckpoint: there are checkpoints, but all are damaged; they are left unchanged.
    """
    remove_partial(run / CHECKPOINTS, f"{STEP.pattern}|{BEST}")
    errors: dict[Path, str] = {}  # of damaged checkpoints
    for folder in reversed(list_checkpoints(run)):
        if last_step is not None and checkpoint_step(folder) > last_step:
            continue
        try:
            check_checkpoint(folder)
        except DamagedFile as error:
            errors[folder] = str(error)
            continue
        for damaged_folder, error_text in errors.items():
            _set_aside(damaged_folder, error_text, f"; going on from {folder.name}")
        return folder
    if errors:
        reasons = "; ".join(f"{folder.name}: {error_text}" for folder, error_text in errors.items())
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
    local_names: Collection[str] | None = None,
) -> dict[str, Any]:
    """Restore model, optimiser and average of the weights, in place.

    Positions of images are resized if the model has another image size than that of the checkpoint, as the model of the
    next stage has.

    Args:
        folder: the checkpoint.
        model: the model.
        optimizer: its optimiser.
        average: average of the weights; None: the run has none.
        local_names: Paddle's names of the parameters whose optimiser state this rank holds; None: all. Paddle would
            keep the state of other parameters, too, for as long as the run lasts.

    Returns:
        Content of `state.json`, with the evaluation of the step if it is recorded.
    """
    weights, optimizer_state = model.state_dict(), {}
    shapes = {name: value.shape for name, value in weights.items()}
    load_weights(model, folder / MODEL, resizes_positions=True)
    if average:
        average.restart()  # before raw weights replace the averages in the model
    for key, array in load_file(folder / OPTIMIZER).items():
        name, _, kind = key.rpartition("/")
        parameter = weights[name]
        # Between second moments, which are never negative, a bicubic curve could fall below zero, and its root is NaN.
        mode: Literal["bicubic", "bilinear"] = "bicubic" if kind == RAW_WEIGHTS else "bilinear"
        array = fit_positions({name: array}, shapes, mode)[name]
        if kind == RAW_WEIGHTS:
            parameter.set_value(array)
        elif local_names is None or parameter.name in local_names:
            optimizer_state[f"{parameter.name}_{kind}"] = paddle.to_tensor(array)
    optimizer.set_state_dict(optimizer_state)

    state = load_json(folder / STATE)
    check_version(state.pop("version", None), VERSION, folder / STATE, "start a new run, -o Training.output=...")
    return state | _read_evaluation(folder / EVALUATION)


def _read_evaluation(path: Path) -> dict[str, Any]:
    """Return the fields of `State` that `save_evaluation` has written later; empty if there are none."""
    try:
        record = load_json(path)
        return {"evaluated_step": int(record["evaluated_step"]), "best": record["best"] and dict(record["best"])}
    except FileNotFoundError:
        pass
    except (ValueError, LookupError, TypeError):
        print(f"warning: {path} is damaged and left out: this step is evaluated again", file=sys.stderr)
    return {}


def _set_aside(folder: Path, reason: str, consequence: str = "") -> None:
    """Rename a damaged checkpoint to `damaged_...`, with a warning."""
    damaged_folder = folder.with_name(f"damaged_{folder.name}")
    shutil.rmtree(damaged_folder, ignore_errors=True)
    folder.rename(damaged_folder)
    print(
        f"warning: checkpoint {folder} is damaged: {reason}. It is now {damaged_folder.name}{consequence}",
        file=sys.stderr,
    )


@contextlib.contextmanager
def _check_disk_space(sizes: Sequence[int], folder: Path) -> Iterator[None]:
    """Raise FullDisk if the file system cannot hold files of these sizes, before or during the block."""
    # Fail before a long write if possible. The write may still fail: quotas and limits of the user are not known here,
    # and other processes write, too.
    if folder.is_dir() and sum(sizes) > shutil.disk_usage(folder).free:
        raise FullDisk(_describe_shortage(errno.ENOSPC, sizes, folder))
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise FullDisk(_describe_shortage(error.errno, sizes, folder)) from error


def _describe_shortage(code: int, sizes: Sequence[int], folder: Path) -> str:
    """Return a message that says what a checkpoint needs, what is free, and what to do.

    Args:
        code: error number of the failed write.
        sizes: bytes of the large files.
        folder: where the checkpoint was to be written.
    """
    existing_folder = next(path for path in (folder, *folder.parents) if path.exists())
    num_bytes, free_bytes = sum(sizes), shutil.disk_usage(existing_folder).free
    file_system, limit = os.statvfs(existing_folder), resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    shortage = f"it needs {num_bytes:,} bytes, {free_bytes:,} are free"
    if code == errno.EFBIG:
        cause = f"ulimit -f allows {limit:,}" if limit != resource.RLIM_INFINITY else "this file system allows less"
        shortage = f"its largest file needs {max(sizes):,} bytes, {cause}"
    elif code == errno.EDQUOT:
        shortage += ", but this user's quota is used up"
    elif file_system.f_files and file_system.f_favail < INODES_PER_CHECKPOINT:
        inodes = f"{file_system.f_favail:,} of {file_system.f_files:,} are free (df -i)"
        shortage = f"it needs {INODES_PER_CHECKPOINT} inodes, {inodes}"
    elif free_bytes > num_bytes:
        shortage += " now, which they were not while it was written"
    return (
        f"no room for a checkpoint in {folder}: {shortage}. Make room or raise the limit, or move the run folder to "
        "another disk and set Training.output, then continue with --resume"
    )


# Settings that a resumed run may change: the weights do not depend on them, except for rounding.
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


def restore_towers(config: Config, checkpoint: Path) -> Config:
    """Return the configuration with towers from the libraries that the run began with.

    `Model.implementation` overrides this choice, and is resolved in the result.

    Raises:
        ConfigError: the library of a tower is not installed.
    """
    saved_config, model = load_config(checkpoint / CONFIG, is_untrusted=True), config.Model
    if model.implementation is None:
        for side in ("image", "text"):
            tower, saved_tower = getattr(model, side), getattr(saved_config.Model, side)
            # The same architecture, whichever library builds it.
            if tower.native().name == saved_tower.native().name:
                model = model.model_copy(update={side: tower.model_copy(update={"name": saved_tower.name})})
    names = [tower.name for tower in (model.image, model.text) if tower.lacks_suite]
    if names:
        raise ConfigError(
            f"{checkpoint} was trained with {' and '.join(names)}, and that library is not installed: install it, or "
            "use this package's own towers, equal to rounding: -o Model.implementation=native"
        )
    return config.model_copy(update={"Model": model.model_copy(update={"implementation": None})})


def find_stage_of_checkpoint(checkpoint: Path) -> int:
    """Return the number of the stage, from 0, whose step was the last one before a checkpoint."""
    config = load_config(checkpoint / CONFIG, is_untrusted=True)
    return find_stage(config, checkpoint_step(checkpoint) - 1)


def choose_checkpoint(run: Path, newest: Path, config: Config, can_extend: bool) -> Path:
    """Return the checkpoint from which a run resumes.

    It is the newest one, unless a run with a cooldown is extended: then it is the newest one before the cooldowns of
    both lengths, so that the steps up to it are the same in the longer run.

    Args:
        run: the run folder, which the caller owns.
        newest: its newest complete checkpoint.
        config: configuration of the resumed run.
        can_extend: see `check_changes`.

    Raises:
        ConfigError: the configuration differs from the run's, or there is no checkpoint before the cooldown.
        DamagedCheckpoint: all checkpoints before the cooldown are damaged.
    """
    check_changes(newest, config, can_extend)
    saved_config = load_config(newest / CONFIG, is_untrusted=True)
    if config.Training.steps == saved_config.Training.steps:
        return newest
    start = min(compute_cooldown_start(saved_config), compute_cooldown_start(config))
    if checkpoint_step(newest) <= start:
        return newest
    if start == 0:
        raise ConfigError(
            "--extend continues from a step before the cooldown, and this cooldown begins with the first step: set a "
            "smaller Schedule.cooldown, or, if the run itself began so, start a new one, -o Training.output=..."
        )
    checkpoint = recover_checkpoint(run, start)
    if checkpoint is None:
        raise ConfigError(
            f"--extend continues from a checkpoint before the cooldown, and {run / CHECKPOINTS} has none up to step "
            f"{start:,}: put {checkpoint_folder(run, start).name} back from a copy, or start a new run, -o "
            "Training.output=... (a run with Schedule.cooldown keeps that checkpoint; do not remove it)"
        )
    return checkpoint


def set_aside_cooled(run: Path, step: int) -> list[str]:
    """Rename the checkpoints after a step from `step_N` to `step_N_of_STEPS`; return a line about each.

    They are from the cooldown of a run that is extended. Under their new names they are still models, but the run no
    longer resumes from them.

    Args:
        run: the run folder, which the caller owns.
        step: step from which the extended run continues.
    """
    cooled_folders = [folder for folder in list_checkpoints(run) if checkpoint_step(folder) > step]
    if not cooled_folders:
        return []
    steps = load_config(cooled_folders[-1] / CONFIG, is_untrusted=True).Training.steps
    lines = []
    for folder in cooled_folders:
        new_folder = folder.with_name(f"{folder.name}_of_{steps}")
        # A folder of this name holds the same steps, from an extension that was given up.
        shutil.rmtree(new_folder, ignore_errors=True)
        folder.rename(new_folder)
        lines.append(f"extended from step {step:,}, before the cooldown: {folder} is now {new_folder.name}")
    return lines


def check_changes(checkpoint: Path, config: Config, can_extend: bool) -> None:
    """Raise ConfigError if a run may not resume from a checkpoint with this configuration.

    Args:
        checkpoint: the checkpoint.
        config: configuration of the resumed run.
        can_extend: whether the resumed run may have more steps, and then another cooldown. From the next step on, its
            learning rates are those of the new length, as if the run had had it from the beginning.

    Raises:
        ConfigError: the message names the settings that differ, and what to do.
    """
    saved_config = load_config(checkpoint / CONFIG, is_untrusted=True)
    changed_names = find_changed_settings(saved_config, config)
    saved_steps, steps = saved_config.Training.steps, config.Training.steps
    if steps > saved_steps:
        # Settings that may differ because the run becomes longer.
        names_of_length = set()
        if can_extend:
            names_of_length = {"Training.steps", "Schedule.cooldown"}
            _check_begun_stages(saved_config, config, checkpoint_step(checkpoint))
            names_of_length.add("Training.stages")
        # A warm-up that was cut to a tenth of the shorter run is now cut to a tenth of the longer one, unless the rate
        # is constant: that would change steps that were made.
        warmup = saved_config.Schedule.warmup_steps
        if warmup == saved_steps // WARMUP_DIVISOR:
            if config.Schedule.kind == "cosine":
                names_of_length.add("Schedule.warmup_steps")
            elif "Schedule.warmup_steps" in changed_names:
                raise ConfigError(
                    f"{checkpoint} was trained with a warm-up of {warmup:,} steps, a tenth of its run; a longer run "
                    f"with Schedule.kind=constant keeps it: -o Schedule.warmup_steps={warmup}"
                )
        changed_names = [name for name in changed_names if name not in names_of_length]
        if changed_names == ["Training.steps"]:
            raise ConfigError(
                f"{checkpoint} is of a run of {saved_steps:,} Training.steps: --resume --extend makes them {steps:,}, "
                f"with the learning rates of a run of {steps:,} (docs/runs.md)"
            )
    if changed_names:
        raise ConfigError(
            f"{checkpoint} was trained with other values of {', '.join(changed_names)}; "
            "resume with the run's own or choose another -o Training.output=..."
        )


def _check_begun_stages(saved_config: Config, config: Config, step: int) -> None:
    """Raise ConfigError if a longer run would have made the steps up to a step in other stages."""
    begun_stages = list_begun_stages(saved_config, step)
    if begun_stages == list_begun_stages(config, step):
        return
    borders = [start for start, _ in begun_stages[1:]]
    shares = [f"{border:,} (until: {border / config.Training.steps:.6g})" for border in borders]
    raise ConfigError(
        f"Training.stages: a run of {config.Training.steps:,} steps with these stages would have made the steps up to "
        f"{step:,} differently; keep the settings of the stages so far, and their borders: "
        f"{', '.join(shares) or 'none before this step'}"
    )


def find_changed_settings(saved_config: Config, config: Config) -> list[str]:
    """Return the names of the settings that differ and must not.

    `FREE_ON_RESUME` may differ. So may the location of the training data, whose content is checked elsewhere, and the
    library that builds the towers, which only `Model.implementation` changes.
    """
    trees = []
    for compared in (saved_config, config):
        tree = {**compared.model_dump(), "Model": with_native_towers(compared.Model).model_dump()}
        tree["Data"]["train"] = [source.model_dump(exclude={"data"}) for source in compared.Data.sources]
        trees.append(tree)
    names = [name for name, _ in differences(*trees)]
    return [name for name in names if not FREE_ON_RESUME & {name, name.partition(".")[0]}]
