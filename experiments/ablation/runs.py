"""The runs of a study: one in this process, or all as processes of their own, one after another or side by side.

A run is made by an ordinary trainer in an ordinary run folder, and measured when it is finished. What is there already
is not made again: a measured run is left alone, a trained one is measured, a stopped one goes on.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ernie_vil2.config import Config
from ernie_vil2.device.launch import STOP_EXIT_CODES, exit_when_parent_dies, find_stop_signals
from ernie_vil2.io.files import load_json, write_json
from ernie_vil2.io.run_folder import RESULTS, STATE, checkpoint_step, list_checkpoints
from experiments.ablation.definition import VERSION, Measured, Run, Study

RESULT = "study.json"  # in the folder `evaluation` of a run: what it was measured by
_POLL = 0.5  # seconds


def make_run(study: Study, run: Run) -> None:
    """Trains a run to its end and measures it, in this process; what was found is written into its folder.

    The model of the last step is read, which the configuration fixes beforehand, whatever validation found on the way.
    """
    from ernie_vil2.encoder import load_model
    from experiments.ablation.measure import measure, open_tests

    checkpoint, tests = trained(run.config), open_tests(study.definition)
    path = checkpoint / STATE
    try:
        sources = [dict(source) for source in load_json(path)["data"]["sources"]]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path}: does not say what the run was trained on ({error!r})") from None
    result = {
        "version": VERSION,
        "step": checkpoint_step(checkpoint),
        "config": run.config.model_dump(),
        "train": [{key: source[key] for key in source if key not in ("name", "epochs")} for source in sources],
        "tests": dict(tests.digests),
        "figures": measure(load_model(checkpoint, device=run.config.Training.device), tests),
    }
    folder = run.folder / RESULTS
    folder.mkdir(exist_ok=True)
    write_json(folder / RESULT, result)


def trained(config: Config) -> Path:
    """The newest checkpoint of a run, which is made or goes on if it has not ended; SystemExit if a signal stops it."""
    from ernie_vil2.training.trainer import Trainer

    folder = Path(config.Training.output)
    if newest_step(folder) < config.Training.steps:
        trainer = Trainer(config, resume=True)
        if not trainer.fit():
            sys.exit(trainer.signals.exit_code)
    return list_checkpoints(folder)[-1]


def read_result(run: Run) -> dict[str, Any] | None:
    """What a run was measured by; None if it was not, or the file is not whole."""
    try:
        return Measured.model_validate(load_json(run.folder / RESULTS / RESULT)).model_dump()
    except (OSError, ValueError):
        return None


def newest_step(folder: Path) -> int:
    """The step of the newest checkpoint of a run folder, 0 if there is none."""
    checkpoints = list_checkpoints(folder)
    return checkpoint_step(checkpoints[-1]) if checkpoints else 0


def make_all(study: Study, command: Sequence[str], processes: int) -> dict[str, int]:
    """Makes all runs that are not measured yet, each by a command of its own.

    SIGINT, SIGTERM and SIGHUP reach the runs in progress, which save and end; no further one begins. A run that fails
    does not keep the others from being made.

    Args:
        command: makes the run whose name follows.
        processes: runs at a time.

    Returns:
        By the name of each run that was begun its exit code; SystemExit, with a code that says so, if a signal came.
    """
    waiting = [run for run in study.runs() if read_result(run) is None]
    going: dict[subprocess.Popen, tuple[Run, float]] = {}
    codes: dict[str, int] = {}
    stopped: list[int] = []

    def forward(number: int, _: object) -> None:
        stopped.append(number)
        for process in going:
            process.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in find_stop_signals()}
    try:
        while (waiting and not stopped) or going:
            while waiting and len(going) < processes and not stopped:
                run = waiting.pop(0)
                print(f"{run}: {_what(run)}, {len(waiting)} runs behind it", flush=True)
                going[_started(command, run)] = (run, time.monotonic())
            time.sleep(_POLL)
            for process in [process for process in going if process.poll() is not None]:
                run, began = going.pop(process)
                codes[str(run)] = process.returncode
                how = "done" if process.returncode == 0 else f"exit code {process.returncode}, see {_log(run)}"
                print(f"{run}: {how}, {time.monotonic() - began:.0f} s", flush=True)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if stopped:
        name = signal.Signals(stopped[0])
        print(f"stopped by {name.name}; the same command continues", file=sys.stderr)
        sys.exit(STOP_EXIT_CODES[name])
    return codes


def _started(command: Sequence[str], run: Run) -> subprocess.Popen:
    log = _log(run)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as output:
        return subprocess.Popen(  # noqa: S603  -- a command of this script
            [*command, str(run)], stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            preexec_fn=partial(exit_when_parent_dies, os.getpid()),
        )  # fmt: skip


def _log(run: Run) -> Path:
    """What a run prints; next to its folder, in which nothing of others lies."""
    return run.folder.with_name(f"{run.folder.name}.txt")


def _what(run: Run) -> str:
    step = newest_step(run.folder)
    if step >= run.config.Training.steps:
        return "is measured"
    return f"resumes from step {step}" if step else "is trained"
