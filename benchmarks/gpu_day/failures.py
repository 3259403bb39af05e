"""Step 6, failures: what a run of the demo does when a rank is killed or paused, when it is asked to stop, and after.

Codes and seconds are recorded, whatever they are; docs/ranks.md and docs/runs.md say what they should be.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu_day.measuring import LeftOut, Measurement, Options, Results, list_demo_command, make_measurement
from benchmarks.gpu_day.processes import MARK, ROOT, find_processes

SETTINGS = [
    "Training.steps=1000000",  # the run ends by a signal
    "Training.log_every=1",
    "Evaluation.every=0",
    "Data.val=[]",
]
PAUSE_SECONDS, DRY_PAUSE_SECONDS = 60.0, 1.0
# Seconds after which a rank that was killed or paused must have ended the run; docs/ranks.md promises a minute.
END_PATIENCE = 90.0
START_PATIENCE = 120.0
_POLL_SECONDS = 0.1


def list_measurements(options: Options) -> list[Measurement]:
    names = ["kill_and_resume", "pause_last_rank"]
    # A dry run has seen how a pause is measured; it pauses one rank only.
    if not options.is_dry:
        names.append("pause_first_rank")
    return [make_measurement("failures", name, options, 300) for name in names]


def measure(name: str, options: Options, results: Results) -> None:
    run = TrainingRun(name, options)
    results.add(ranks=run.num_ranks)
    if name == "kill_and_resume":
        kill_and_resume(run, results)
        return
    if name == "pause_first_rank" and run.num_ranks == 1:
        raise LeftOut("needs two GPUs")
    rank = 0 if name == "pause_first_rank" else run.num_ranks - 1
    pause(run, rank, options.choose(PAUSE_SECONDS, DRY_PAUSE_SECONDS), results)


def kill_and_resume(run: "TrainingRun", results: Results) -> None:
    """Kill the last rank, resume the run, and ask it to stop."""
    run.start()
    first_checkpoint = run.checkpoint_every
    run.wait_for(lambda: run.last_step >= first_checkpoint + 1, START_PATIENCE)
    os.kill(run.find_rank(run.num_ranks - 1), signal.SIGKILL)
    code, seconds = run.wait_for_end(END_PATIENCE)
    step = run.last_step
    results.add(kill_code=code, kill_seconds=seconds, step_when_killed=step)

    start = time.monotonic()
    run.start("--resume")
    # The log still has the steps after the checkpoint, until they are trained again.
    run.wait_for(lambda: run.last_step > step, START_PATIENCE)
    results.add(resume_seconds=time.monotonic() - start)
    stop(run, results)
    checkpoints = sorted(path.name for path in (run.folder / "checkpoints").glob("step_*"))
    results.add(saved_when_stopped=checkpoints[-1] == f"step_{run.last_step:08}")


def pause(run: "TrainingRun", rank: int, pause_seconds: float, results: Results) -> None:
    """Pause a rank, and see whether the run ends or goes on."""
    run.start()
    run.wait_for(lambda: run.last_step >= 1, START_PATIENCE)
    paused_rank = run.find_rank(rank)
    start = time.monotonic()
    os.kill(paused_rank, signal.SIGSTOP)
    run.wait_for(lambda: run.has_ended or time.monotonic() - start > pause_seconds, 2 * pause_seconds, may_end=True)
    if not run.has_ended:
        step = run.last_step
        os.kill(paused_rank, signal.SIGCONT)
        # A run that is about to end may still log a step that was begun before the pause; another one needs all ranks.
        run.wait_for(lambda: run.has_ended or run.last_step > step + 1, END_PATIENCE, may_end=True)
    results.add(pause_seconds=pause_seconds, goes_on=not run.has_ended)
    if run.has_ended:
        results.add(pause_code=run.process.returncode, seconds_until_end=time.monotonic() - start)
    else:
        stop(run, results)


def stop(run: "TrainingRun", results: Results) -> None:
    """Ask a run to stop, as a batch system does."""
    start = time.monotonic()
    run.process.send_signal(signal.SIGTERM)
    code, _ = run.wait_for_end(END_PATIENCE)
    # A launcher may end before the ranks have saved.
    run.wait_for(lambda: not run.find_ranks(0), END_PATIENCE, may_end=True)
    results.add(stop_code=code, stop_seconds=time.monotonic() - start)


class TrainingRun:
    """A training of the demo on all GPUs of the day, but at most two."""

    process: subprocess.Popen

    def __init__(self, name: str, options: Options):
        self._name, self._options = f"failures_{name}", options
        self.num_ranks = min(2, options.num_gpus)
        self.folder = options.run_folder(self._name)
        self.checkpoint_every = options.choose(50, 5)

    def start(self, *flags: str) -> None:
        overrides = [*SETTINGS, f"Training.checkpoint_every={self.checkpoint_every}"]
        command = list_demo_command(self._options, self._name, self.num_ranks, overrides)
        self.process = subprocess.Popen([*command, *flags], cwd=ROOT)  # noqa: S603  -- a command of this package

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def last_step(self) -> int:
        """Number of the last logged step; 0 before the first."""
        return read_last_step(self.folder / "log.jsonl")

    def wait_for(self, condition: Callable[[], bool], seconds: float, may_end: bool = False) -> None:
        """Wait for a condition.

        Raises:
            RuntimeError: the run has ended before, and it must not.
            TimeoutError: the time is over.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if self.has_ended and not may_end:
                raise RuntimeError(f"the training ended with code {self.process.returncode}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing has happened for {seconds:.0f} seconds")
            time.sleep(_POLL_SECONDS)

    def wait_for_end(self, seconds: float) -> tuple[int | None, float]:
        """Return the exit code, None if the run does not end in time, and the seconds until the end."""
        start = time.monotonic()
        try:
            code: int | None = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        return code, time.monotonic() - start

    def find_rank(self, rank: int) -> int:
        """Return the process id of a rank."""
        if self.num_ranks == 1:
            return self.process.pid
        # The oldest one: processes of the loader have the same environment.
        return self.find_ranks(rank)[0]

    def find_ranks(self, rank: int) -> list[int]:
        """Return the process ids of a rank and its loader, if a launcher has started them."""
        return find_processes({MARK: os.environ[MARK], "PADDLE_TRAINER_ID": str(rank)})


def read_last_step(log: Path) -> int:
    from ernie_vil2.training.run_log import read_log

    if not log.exists():
        return 0
    records: list[dict[str, Any]] = read_log(log)
    return max((record["step"] for record in records), default=0)
