"""Format of a run folder, for its writers and readers: files, keys of its state, names of checkpoints, and its lock.

<run>/run.lock                  locked by the process that trains here, as long as it lives
<run>/config.yaml               the resolved configuration
<run>/environment.json          version of this layout; versions of packages, git revision and machine
<run>/log.jsonl                 a record for each logged step and each evaluation, see training/run_log.py
<run>/curves.html               page with the curves of the log
<run>/bad_samples.json, .txt    samples that could not be used, see data/samples.py
<run>/evaluation/before.json, ...   results of evaluations, see evaluation/report.py
<run>/checkpoints/step_00000500/
    model.safetensors           parameters and buffers by their name in the model; with Tuning.ema their averages
    optimizer.safetensors       optimiser state as <parameter>/<kind>; with Tuning.ema also the weights themselves, /raw
    state.json                  `State`, and the version of its keys
    config.yaml                 the resolved configuration
    vocab.txt                   the tokens in the order of their ids, so that the folder can be used alone; other
                                people's models have tokenizer.json instead, see data/tokenizer.py
    integrity.json              size and SHA-256 of the other files; of evaluated steps and the last one also golden
                                embeddings of the model, see models/weights/integrity.py
    evaluation.json             the best evaluation up to this step, if this step was evaluated after it was saved
<run>/checkpoints/step_00000500_of_500/   a checkpoint of a cooldown, after the run of 500 steps was extended
<run>/checkpoints/best          link to the checkpoint with the best evaluation, if there has been an evaluation
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
NEWEST = "newest"
LOCK = "run.lock"
CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
LOG = "log.jsonl"
CURVES = "curves.html"
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
VOCABULARY, TOKENIZER = "vocab.txt", "tokenizer.json"
# Files of a checkpoint, and of any model in our own format.
MODEL_FILES = (MODEL, CONFIG, VOCABULARY)
# Files of a checkpoint that its integrity file lists.
CHECKPOINT_FILES = (MODEL, OPTIMIZER, STATE, CONFIG, VOCABULARY)
EVALUATION = "evaluation.json"
# Folder of evaluation results in a run, and the names of the results on `Data.test` in it.
RESULTS = "evaluation"
BEFORE, AFTER = "before", "after"
DRY_RUN = "dry_run"
# Exactly the names of checkpoints: not that of a copy such as `step_00000500_keep`.
STEP = re.compile(r"step_(\d{8,})")


class Best(TypedDict):
    """The best evaluation so far."""

    step: int
    metric: str
    value: float


class State(TypedDict):
    """Content of `state.json`: what a run needs to continue besides the weights and the state of the optimiser."""

    step: int  # optimiser steps done; learning rate and all random states follow from it and the seed
    seed: int
    ranks: int
    scaler: dict[str, Any]  # loss scale of float16; empty with other precisions
    bad_samples: dict[str, Any]  # see `BadSampleReport.as_dict`
    skipped_steps: list[int]  # steps with a gradient that was not finite: in all, and the last ones in a row
    data: dict[str, Any]  # which data the run reads, and its position in them, see `SampleStream.state`
    evaluated_step: int  # step of the last evaluation, -1 before the first
    best: Best | None


def list_checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first; whether they are complete, `check_checkpoint` says."""
    folder = run / CHECKPOINTS
    if not folder.is_dir():
        return []
    checkpoints = [path for path in folder.iterdir() if STEP.fullmatch(path.name) and path.is_dir()]
    return sorted(checkpoints, key=checkpoint_step)


def checkpoint_step(checkpoint: Path) -> int:
    """Return the number of optimiser steps in the name of a checkpoint."""
    return int(checkpoint.name.removeprefix("step_"))


def checkpoint_folder(run: Path, step: int) -> Path:
    """Return the path of the checkpoint of a step, whether it exists or not."""
    return run / CHECKPOINTS / f"step_{step:08d}"


def resolve_vocabulary(folder: Path, names: Iterable[str]) -> list[str]:
    """Replace `vocab.txt` in names of files by `tokenizer.json` if the folder has only the latter."""
    vocabulary = VOCABULARY
    if (folder / TOKENIZER).is_file() and not (folder / VOCABULARY).is_file():
        vocabulary = TOKENIZER
    return [vocabulary if name == VOCABULARY else name for name in names]


def resolve_checkpoint(name: str | os.PathLike) -> Path | None:
    """Return the checkpoint that a name of a user stands for, under its own name `step_...`.

    Args:
        name: `RUN@best`, `RUN@newest`, the link `RUN/checkpoints/best`, or `RUN`, which stands for its newest.

    Returns:
        Folder of the checkpoint; None if `name` has none of these forms.

    Raises:
        FileNotFoundError: the run has no such checkpoint.
    """
    path = Path(name)
    if find_run_folder(path) and path.name == BEST and path.is_symlink():
        return path.parent / path.readlink()

    # A folder may have an @ in its own name.
    run, _, selector = str(name).rpartition("@")
    if path.exists() or selector not in (BEST, NEWEST):
        run, selector = str(name), NEWEST
    if not Path(run, CHECKPOINTS).is_dir():
        return None

    if selector == BEST:
        best = Path(run, CHECKPOINTS, BEST)
        if not best.is_dir():
            raise FileNotFoundError(f"{name}: no evaluation has marked a best checkpoint; name {run}@newest")
        return resolve_checkpoint(best) or best
    checkpoints = list_checkpoints(Path(run))
    if not checkpoints:
        raise FileNotFoundError(f"{name}: this run has no checkpoint yet")
    return checkpoints[-1]


def find_run_folder(checkpoint: Path) -> Path | None:
    """Return the run folder that a checkpoint belongs to; None if the path is not a checkpoint of a run."""
    for folder in (checkpoint, checkpoint.resolve()):
        is_checkpoint = STEP.fullmatch(folder.name) or folder.name == BEST
        if is_checkpoint and folder.parent.name == CHECKPOINTS:
            return folder.parent.parent
    return None


def check_run_folder(run: Path) -> None:
    """Raise ConfigError if a folder holds other files than a run, a dry run and hidden ones."""
    if not run.exists():
        return
    if not run.is_dir():
        raise ConfigError(f"{run} is a file; choose another folder, -o Training.output=...")
    if (run / LOCK).exists() or list_checkpoints(run):
        return
    other_names = sorted(path.name for path in run.iterdir() if path.name[0] != "." and path.name != DRY_RUN)
    if other_names:
        raise ConfigError(
            f"{run} is not a run but holds other files ({join_names(other_names, 3)}), which are left as they are; "
            "choose a new or empty folder, -o Training.output=..."
        )


@contextmanager
def lock_run_folder(run: Path) -> Iterator[None]:
    """Reserve a run folder for training by this process during the block; it is created if it does not exist.

    Raises:
        ConfigError: another process trains there, or the folder holds something else than a run.
    """
    check_run_folder(run)
    run.mkdir(parents=True, exist_ok=True)
    try:
        lock_file = locks.open_lock_file(run / LOCK)
    except locks.Locked as error:
        raise ConfigError(
            f"{run} is in use: {error.owner} trains there. Wait for its end, stop it, or choose another "
            "-o Training.output=..."
        ) from None
    with lock_file:
        yield
