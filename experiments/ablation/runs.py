"""Make the runs of a study: one in this process, or all in processes of their own, also several at a time.

A run is an ordinary training in an ordinary run folder, which is scored at its end. Nothing is done twice: a scored run
is left alone, a trained one is scored, and a stopped one is resumed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ernie_vil2.config import Config
from ernie_vil2.device.launch import STOP_EXIT_CODES, exit_when_parent_dies, find_stop_signals
from ernie_vil2.io.files import load_json, write_json
from ernie_vil2.io.run_folder import RESULTS, STATE, checkpoint_step, list_checkpoints
from experiments.ablation.definition import VERSION, Run, RunResult, Study

RESULT = "study.json"  # in the folder `evaluation` of a run
_POLL = 0.5  # seconds between two looks at the processes


def make_run(study: Study, run: Run) -> None:
    """Train a run to its end in this process, score it, and write the figures into its folder.

    The checkpoint of the last step is scored, whatever validation found on the way.

    Raises:
        SystemExit: a signal stopped the training.
        ValueError: the checkpoint does not say what it was trained on.
    """
    from ernie_vil2.encoder import load_model
    from experiments.ablation.measure import measure, open_tests

    # Opened first: a test that cannot be read is named before the training and not after it.
    tests = open_tests(study.definition)
    checkpoint = train(run.config)
    result = {
        "version": VERSION,
        "step": checkpoint_step(checkpoint),
        "config": run.config.model_dump(),
        "train": _read_sources(checkpoint),
        "tests": dict(tests.digests),
        "figures": measure(load_model(checkpoint, device=run.config.Training.device), tests),
    }
    folder = run.folder / RESULTS
    folder.mkdir(exist_ok=True)
    write_json(folder / RESULT, result)


def _read_sources(checkpoint: Path) -> list[dict[str, Any]]:
    """Return what identifies each source that a checkpoint was trained on, wherever it lies and however often read."""
    path = checkpoint / STATE
    try:
        sources = [dict(source) for source in load_json(path)["data"]["sources"]]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path}: does not say what the run was trained on ({error!r})") from None
    for source in sources:
        source.pop("name", None)
        source.pop("epochs", None)
    return sources


def train(config: Config) -> Path:
    """Train a run to its end, and return its last checkpoint.

    A run that has ended is not trained again, and a stopped one is resumed.

    Raises:
        ConfigError: the run was made with other settings.
        SystemExit: a signal stopped the training.
    """
    from ernie_vil2.training.trainer import Trainer

    # For a run that has ended, too: the trainer compares its settings, some of which follow from data and stages.
    trainer = Trainer(config, resume=True)
    if not trainer.fit():
        sys.exit(trainer.signals.exit_code)
    return list_checkpoints(Path(config.Training.output))[-1]


def read_result(run: Run) -> dict[str, Any] | None:
    """Return the result of a run, or None if it has not been scored, or the file is damaged."""
    try:
        return RunResult.model_validate(load_json(run.folder / RESULTS / RESULT)).model_dump()
    except (OSError, ValueError):
        return None


def find_newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint of a run folder, 0 if there is none."""
    checkpoints = list_checkpoints(folder)
    return checkpoint_step(checkpoints[-1]) if checkpoints else 0


def make_all_runs(study: Study, command: Sequence[str], max_processes: int) -> dict[str, int]:
    """Make all runs that have not been scored, each in a process of its own.

    If a run fails, the others are made nevertheless. SIGINT, SIGTERM and SIGHUP are passed on to the running processes,
    which save and end; no further one is started.

    Args:
        study: the study.
        command: command that makes a run, without the run's name.
        max_processes: number of processes that run at a time.

    Returns:
        The exit code of each process, by the name of its run.

    Raises:
        SystemExit: a signal came; the code says so.
    """
    waiting_runs = [run for run in study.runs() if read_result(run) is None]
    processes: dict[subprocess.Popen, tuple[Run, float]] = {}  # to the run and the time of its start
    exit_codes: dict[str, int] = {}
    with _forward_stop_signals(processes) as received_signals:
        while (waiting_runs and not received_signals) or processes:
            while waiting_runs and len(processes) < max_processes and not received_signals:
                run = waiting_runs.pop(0)
                print(f"{run}: {_describe_work(run)}, {len(waiting_runs)} runs behind it", flush=True)
                process = _start_process(command, run)
                processes[process] = (run, time.monotonic())
                for number in received_signals:  # while the process was started
                    process.send_signal(number)
            time.sleep(_POLL)
            for process in list(processes):
                if process.poll() is None:
                    continue
                run, start = processes.pop(process)
                code = exit_codes[str(run)] = process.returncode
                outcome = "done" if code == 0 else f"exit code {code}, see {_get_log_path(run)}"
                print(f"{run}: {outcome}, {time.monotonic() - start:.0f} s", flush=True)
    if received_signals:
        stop_signal = signal.Signals(received_signals[0])
        print(f"stopped by {stop_signal.name}; the same command continues", file=sys.stderr)
        sys.exit(STOP_EXIT_CODES[stop_signal])
    return exit_codes


@contextmanager
def _forward_stop_signals(processes: dict[subprocess.Popen, Any]) -> Iterator[list[int]]:
    """Pass stop signals on to the processes that are running when they come; yield the list of those that came."""
    received_signals: list[int] = []

    def forward(number: int, _: object) -> None:
        received_signals.append(number)
        for process in processes:
            process.send_signal(number)

    previous_handlers = {number: signal.signal(number, forward) for number in find_stop_signals()}
    try:
        yield received_signals
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)


def _start_process(command: Sequence[str], run: Run) -> subprocess.Popen:
    log_path = _get_log_path(run)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("a", encoding="utf-8") as log:
        return subprocess.Popen(  # noqa: S603  -- a command of this script
            [*command, str(run)],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            preexec_fn=partial(exit_when_parent_dies, os.getpid()),
        )


def _get_log_path(run: Run) -> Path:
    """Return the file of what a run prints, next to its folder, which holds files of the training only."""
    return run.folder.with_name(f"{run.folder.name}.txt")


def _describe_work(run: Run) -> str:
    """Return what is left to do for a run, in words."""
    step = find_newest_step(run.folder)
    if step >= run.config.Training.steps:
        return "is scored"
    return f"resumes from step {step}" if step else "is trained"
