"""Processes with a time limit, which leave nothing behind."""

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Environment variable that marks a process and everything it starts. Paddle's launcher gives each rank a session of its
# own (Paddle 3.3.1, distributed/launch/utils/process_context.py), so a signal to a process group does not reach the
# ranks. A rank that is left over would keep its GPU memory from all later measurements.
MARK = "ERNIE_VIL2_GPU_DAY_PROCESS"
# Seconds between SIGTERM and SIGKILL: time for Paddle's launcher to end its ranks.
GRACE_SECONDS = 10.0
# Seconds after SIGKILL until a process is given up: one that hangs in the GPU's driver cannot be ended by any signal.
KILL_SECONDS = 20.0
_POLL_SECONDS = 0.1

_numbers = itertools.count()


def run_limited(
    command: Sequence[str], variables: Mapping[str, str], log: Path, seconds: float
) -> tuple[int | None, float]:
    """Run a command from the repository's root, and end all processes that it has started.

    Args:
        command: the command line.
        variables: changes of the environment.
        log: file to which output and errors are appended.
        seconds: time limit.

    Returns:
        Exit code, None if the time was over; seconds that the command took.
    """
    mark = f"{os.getpid()}-{next(_numbers)}"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, **variables, MARK: mark}
    start = time.monotonic()
    code: int | None = None
    with log.open("ab") as file:
        # In a session of its own: Ctrl-C is for the day, which then ends this process.
        process = subprocess.Popen(  # noqa: S603  -- a command of this package
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            elapsed = time.monotonic() - start
            end_processes({MARK: mark})
            if process.poll() is None:  # a system without /proc: at least the process itself ends
                process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
    return code, elapsed


def find_processes(variables: Mapping[str, str]) -> list[int]:
    """Return the ids of the other processes that were started with these environment variables, oldest first."""
    entries = {f"{name}={value}".encode() for name, value in variables.items()}
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or belongs to somebody else
            continue
        if entries.issubset(environment) and int(folder.name) != os.getpid():
            pids.append(int(folder.name))
    return sorted(pids)


def end_processes(variables: Mapping[str, str]) -> None:
    """End the processes with these environment variables: by SIGTERM, and after a while by SIGKILL.

    Those that are there after `KILL_SECONDS` more stay.
    """
    kill_time = time.monotonic() + GRACE_SECONDS
    _signal_all(find_processes(variables), signal.SIGTERM)
    while pids := find_processes(variables):
        if time.monotonic() > kill_time + KILL_SECONDS:
            return
        if time.monotonic() > kill_time:
            _signal_all(pids, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
