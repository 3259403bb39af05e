"""Checkpoints: a folder each, written aside and renamed, of safetensors and JSON only.

<run>/checkpoints/step_00000500/
    model.safetensors      parameters and buffers by their name in the model
    optimizer.safetensors  optimiser state as <parameter>/<kind>
    state.json             step and seed (the learning rate and every random state follow from these two), place in the
                           data and what the data is, loss scaler, counters, best evaluation
    config.yaml            the resolved configuration
    vocab.txt              the tokens in the order of their ids, so that the folder stands alone
    checksums.json         bytes and SHA-256 of the others
    evaluation.json        the best evaluation up to this step, where this step was evaluated after it was saved
<run>/checkpoints/best     link to the checkpoint with the best evaluation, if there has been one
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ernie_vil2.checksums import DamagedFile, check_files, write_checksums
from ernie_vil2.config import Config, dump_config
from ernie_vil2.files import folder_written_whole, remove_folder, remove_partial, write_text
from ernie_vil2.models import load_weights, save_weights
from ernie_vil2.run_folder import BEST, CHECKPOINTS, STEP, checkpoint_folder, list_checkpoints

EVALUATION = "evaluation.json"
FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "config.yaml", "vocab.txt")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class DamagedCheckpoint(ValueError):
    """No checkpoint of a run is as it was written; the message says what is wrong with each."""


class FullDisk(OSError):
    """A checkpoint finds no room; the message says how much it needs and how much there is."""


def save_checkpoint(
    run: Path,
    step: int,
    model: paddle.nn.Layer,
    optimizer: Mapping[str, np.ndarray],
    config: Config,
    tokens: Sequence[str],
    state: dict[str, Any],
    keep: int,
    best: int | None = None,
) -> Path:
    """Writes the checkpoint of `step` optimiser steps; removes all but the newest `keep` and that of step `best`.

    The folder appears under its name only when it is whole and on the disk; then older ones are removed.

    Args:
        optimizer: as `sharding.optimizer_arrays` gives it.

    Returns:
        The checkpoint's folder.

    Raises:
        FullDisk: there is no room; the checkpoints that there are stay as they are.
    """
    final = checkpoint_folder(run, step)
    with _room_for(_size(model, optimizer), final.parent), folder_written_whole(final) as aside:
        save_weights(model, aside / "model.safetensors")
        save_file(dict(optimizer), aside / "optimizer.safetensors")
        (aside / "state.json").write_text(
            json.dumps({"step": step, **state}, ensure_ascii=False, indent=1), encoding="utf-8"
        )
        (aside / "config.yaml").write_text(dump_config(config), encoding="utf-8")
        (aside / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
        write_checksums(aside, FILES)
    keep_only(run, keep, best)
    return final


def keep_only(run: Path, keep: int, best: int | None) -> None:
    """Removes all checkpoints but the newest `keep` and that of step `best`, to which `checkpoints/best` leads then."""
    mark_best(run, best)
    for old in list_checkpoints(run)[:-keep]:
        if best is None or old != checkpoint_folder(run, best):
            remove_folder(old)


def note_evaluation(run: Path, step: int, best: dict[str, Any]) -> None:
    """Notes with the checkpoint of a step that it has been evaluated, and the best evaluation so far."""
    write_text(checkpoint_folder(run, step) / EVALUATION, json.dumps({"evaluated": step, "best": best}, indent=1))


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
    os.replace(aside, link)


def find_checkpoint(run: Path, step: int) -> Path | None:
    """The checkpoint of a step, None if it is not there."""
    folder = checkpoint_folder(run, step)
    return folder if folder.is_dir() else None


def check_checkpoint(folder: Path) -> None:
    """Compares every file with its checksum; DamagedFile if one is missing or another than was written."""
    check_files(folder, FILES)


def recover(run: Path) -> Path | None:
    """The newest whole checkpoint, None if there is no checkpoint at all; clears away what a crash has left.

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
            f"no checkpoint of {run / CHECKPOINTS} is whole ({reasons}). Put one back from a copy, or start anew with "
            "another -o Training.output=..."
        )
    return None


def load_checkpoint(folder: Path, model: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer) -> dict[str, Any]:
    """Restores model and optimiser in place.

    Returns:
        What `state.json` holds, with what is known of the step's evaluation.

    Raises:
        ValueError: the weights are not those of this model.
    """
    load_weights(model, folder / "model.safetensors")
    names = {name: parameter.name for name, parameter in model.named_parameters()}
    state = {}
    for key, array in load_file(folder / "optimizer.safetensors").items():
        name, _, kind = key.rpartition("/")
        state[f"{names[name]}_{kind}"] = paddle.to_tensor(array)
    optimizer.set_state_dict(state)
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    evaluation = folder / EVALUATION
    return state | json.loads(evaluation.read_text(encoding="utf-8")) if evaluation.exists() else state


def _set_aside(folder: Path, why: str, then: str = "") -> None:
    aside = folder.with_name(f"damaged_{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    print(f"warning: checkpoint {folder} is damaged: {why}. It is now {aside.name}{then}", file=sys.stderr)


def _size(model: paddle.nn.Layer, optimizer: Mapping[str, np.ndarray]) -> int:
    """Bytes of the tensors that a checkpoint holds."""
    weights = sum(value.size * value.element_size() for value in model.state_dict().values())
    return weights + sum(array.nbytes for array in optimizer.values())


@contextlib.contextmanager
def _room_for(needed: int, folder: Path) -> Iterator[None]:
    """Says of a disk that has no room for `needed` bytes, or turns out to be full within the block, what it lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    full = FullDisk(
        f"no room for a checkpoint in {folder}: it needs {needed:,} bytes, {free:,} are free. Make room on this disk, "
        "or move the run folder and set Training.output, then go on with --resume"
    )
    if needed > free:
        raise full
    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors tells the system's error only in words.
        if getattr(error, "errno", None) in _FULL or any(f"(os error {code})" in str(error) for code in _FULL):
            raise full from error
        raise
