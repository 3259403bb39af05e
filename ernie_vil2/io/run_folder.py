"""The format of a run folder, for who writes and who reads it: its files, the keys of its state, and who may write.

<run>/run.lock                  locked by the process that trains here, as long as it lives
<run>/config.yaml               the resolved configuration
<run>/environment.json          version of this layout; versions of packages, git revision and machine
<run>/log.jsonl                 a record for each logged step and each evaluation, see training/run_log.py
<run>/curves.html               the page of them
<run>/bad_samples.json, .txt    what could not be used, see data/samples.py
<run>/evaluation/before.json, ...   what was scored, see evaluation/report.py
<run>/checkpoints/step_00000500/
    model.safetensors           parameters and buffers by their name in the model; with Tuning.ema their averages
    optimizer.safetensors       optimiser state as <parameter>/<kind>; with Tuning.ema also the weights themselves, /raw
    state.json                  `State`, and the version of its keys
    config.yaml                 the resolved configuration
    vocab.txt                   the tokens in the order of their ids, so that the folder can be used alone; of other
                                people's models tokenizer.json instead, see data/tokenizer_files.py
    integrity.json              bytes and SHA-256 of the others, and what the model computes, see
                                models/weights/integrity.py
    evaluation.json             the best evaluation up to this step, where this step was evaluated after it was saved
<run>/checkpoints/best          link to the checkpoint with the best evaluation, if there has been one
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from ernie_vil2.io import locks
from ernie_vil2.io.terminal import ConfigError, join_names

CHECKPOINTS = "checkpoints"
BEST = "best"
LOCK = "run.lock"
CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
LOG = "log.jsonl"
CURVES = "curves.html"
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
VOCABULARY, TOKENIZER = "vocab.txt", "tokenizer.json"
MODEL_FILES = (MODEL, CONFIG, VOCABULARY)  # of a checkpoint, and of any model in our own format
CHECKPOINT_FILES = (MODEL, OPTIMIZER, STATE, CONFIG, VOCABULARY)  # those that its integrity file lists


def with_its_vocabulary(folder: Path, names: Iterable[str]) -> list[str]:
    """The files of a folder, with `tokenizer.json` for `vocab.txt` where it has that."""
    has = (folder / TOKENIZER).is_file() and not (folder / VOCABULARY).is_file()
    return [TOKENIZER if has and name == VOCABULARY else name for name in names]


EVALUATION = "evaluation.json"
RESULTS = "evaluation"  # folder of what was scored, within a run
BEFORE, AFTER = "before", "after"  # names of the results on `Data.test`, in `RESULTS`
DRY_RUN = "dry_run"
STEP = re.compile(r"step_(\d{8,})")
"""Names of checkpoints, and nothing else's: not that of a copy, `step_00000500_keep`."""


class Best(TypedDict):
    """The best evaluation so far."""

    step: int
    metric: str
    value: float


class State(TypedDict):
    """What `state.json` says: with the weights and the optimiser's state all that a run continues from."""

    step: int  # optimiser steps done; learning rate and every random state follow from it and the seed
    seed: int
    ranks: int
    scaler: dict[str, Any]  # of float16's loss scale; empty without
    bad_samples: dict[str, Any]  # see `BadSampleReport.as_dict`
    skipped_steps: list[int]  # that were not finite: in all, and in a row
    data: dict[str, Any]  # what the data is, and the position in it, see `SampleStream.state`
    evaluated_step: int  # of the last evaluation, -1 before the first
    best: Best | None


def list_checkpoints(run: Path) -> list[Path]:
    """The run's checkpoints, oldest first; whether they are whole, `check_checkpoint` says."""
    folder = run / CHECKPOINTS
    found = [path for path in folder.iterdir() if STEP.fullmatch(path.name)] if folder.is_dir() else []
    return sorted((path for path in found if path.is_dir()), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The optimiser steps that a checkpoint's name says."""
    return int(checkpoint.name.removeprefix("step_"))


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or would be."""
    return run / CHECKPOINTS / f"step_{step:08d}"


def named_checkpoint(name: str | os.PathLike) -> Path | None:
    """The checkpoint that `RUN@best`, `RUN@newest` or the link `RUN/checkpoints/best` means; `RUN` is its newest.

    Its folder is under the name that has its step; None if `name` is none of these. FileNotFoundError if the run has no
    such checkpoint.
    """
    path = Path(name)
    if run_of(path) and path.name == BEST and path.is_symlink():
        return path.parent / path.readlink()
    run, _, which = str(name).rpartition("@")
    if path.exists() or which not in (BEST, "newest"):
        run, which = str(name), "newest"
    if not Path(run, CHECKPOINTS).is_dir():
        return None
    if which == BEST:
        best = Path(run, CHECKPOINTS, BEST)
        if not best.is_dir():
            raise FileNotFoundError(f"{name}: no evaluation has marked a best checkpoint; name {run}@newest")
        return named_checkpoint(best) or best
    checkpoints = list_checkpoints(Path(run))
    if not checkpoints:
        raise FileNotFoundError(f"{name}: this run has no checkpoint yet")
    return checkpoints[-1]


def run_of(checkpoint: Path) -> Path | None:
    """The run folder whose checkpoint this is, None if it is none's."""
    for folder in (checkpoint, checkpoint.resolve()):
        if folder.parent.name == CHECKPOINTS and (STEP.fullmatch(folder.name) or folder.name == BEST):
            return folder.parent.parent
    return None


def check_run_folder(run: Path) -> None:
    """ConfigError if a folder is neither a run's, nor empty but for a dry run and hidden files."""
    if not run.exists():
        return
    if not run.is_dir():
        raise ConfigError(f"{run} is a file; choose another folder, -o Training.output=...")
    begun = (run / LOCK).exists()
    others = sorted(path.name for path in run.iterdir() if path.name[0] != "." and path.name != DRY_RUN)
    if others and not begun and not list_checkpoints(run):
        raise ConfigError(
            f"{run} holds no run but other files ({join_names(others, 3)}), which stay as they are; choose a new or "
            "empty folder, -o Training.output=..."
        )


@contextmanager
def owned(run: Path) -> Iterator[None]:
    """Within the block this process alone trains into a run folder, which is made if it is not there; ConfigError if
    another process does, or the folder is not a run's."""
    check_run_folder(run)
    run.mkdir(parents=True, exist_ok=True)
    try:
        lock = locks.open_lock_file(run / LOCK)
    except locks.Locked as error:
        raise ConfigError(
            f"{run} is in use: {error.owner} trains there. Wait for its end, stop it, or choose another "
            "-o Training.output=..."
        ) from None
    with lock:
        yield
