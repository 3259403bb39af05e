"""Locks between processes, and output folders that belong to one job.

The kernel releases a lock when the process that holds it ends, however it ends.
"""

import fcntl
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO
from weakref import WeakSet

from ernie_vil2.io.files import OtherVersion, check_version, load_json, write_json
from ernie_vil2.io.terminal import RunError, make_printable

# File in the state folder of an output: the job that the output belongs to.
JOB = "job.json"
# Characters of a lock file that are read for a message: a process id and a host name are shorter.
_MAX_OWNER_LENGTH = 200

_locked_files: WeakSet[IO] = WeakSet()


class Locked(RunError):  # noqa: N818  -- named by what has happened
    """Another process holds a lock; `owner` names it if it is known, as in "process 123 on host"."""

    def __init__(self, path: str | os.PathLike, owner: str):
        super().__init__(f"{path} is locked by {owner}")
        self.owner = owner


class OtherJob(RunError):  # noqa: N818  -- named by what has happened
    """An output belongs to another job, or another run is writing there; the message says what to do."""


def lock_exclusive(file: IO, wait: bool = False) -> None:
    """Lock an open file for this process until the file is closed; processes that it forks do not hold the lock.

    Args:
        file: the open file.
        wait: wait until another process releases its lock.

    Raises:
        Locked: another process holds the lock, and `wait` is False.
        OSError: the file system has no locks, and `wait` is True; otherwise a warning is printed.
    """
    operation = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
    try:
        fcntl.flock(file, operation)
    except BlockingIOError:
        raise Locked(file.name, "another process") from None
    except OSError as error:
        if wait:
            raise
        print(f"warning: {file.name} cannot be locked ({error.strerror}): nothing keeps a second process from writing "
              "there", file=sys.stderr)  # fmt: skip
    _locked_files.add(file)


def lock_shared(file: IO) -> None:
    """Prevent exclusive locks of an open file until this process and those that it forks have closed the file."""
    fcntl.flock(file, fcntl.LOCK_SH)


def open_lock_file(path: Path) -> TextIO:
    """Open a lock file, lock it until it is closed, and write into it which process this is.

    Raises:
        Locked: another process holds the lock; the error names that process as the file does.
    """
    file = path.open("a+", encoding="utf-8", errors="replace")
    try:
        lock_exclusive(file)
    except Locked as error:
        file.seek(0)
        owner = make_printable(file.read(_MAX_OWNER_LENGTH).strip()) or error.owner
        file.close()
        raise Locked(path, owner) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


@contextmanager
def claim_output(
    output: Path, state_name: str, job: Mapping[str, Any] | None = None, is_exclusive: bool = True
) -> Iterator[Path]:
    """Claim an output folder for the block and yield the folder in it with which a stopped run continues.

    Args:
        output: folder of the results: new, or left behind by a run of the same job.
        state_name: name of the yielded folder in `output`.
        job: everything that decides the results, as JSON; it is recorded in the yielded folder. None: any job may
            continue.
        is_exclusive: whether other processes must not write at the same time.

    Raises:
        OtherJob: the output holds other files, belongs to another job, or another run is writing there.
    """
    state_folder = output / state_name
    job_file = state_folder / JOB
    is_claimed = state_folder.exists() if job is None else job_file.exists()
    if output.is_dir() and not is_claimed and any(path.name != state_name for path in output.iterdir()):
        raise OtherJob(f"{output} holds other files; choose a new folder")
    state_folder.mkdir(parents=True, exist_ok=True)
    if not is_exclusive:
        yield state_folder
        return

    try:
        lock_file = open_lock_file(state_folder / "lock")
    except Locked as error:
        raise OtherJob(f"{output}: {error.owner} is writing there; wait for it or stop it") from None
    with lock_file:
        if job is not None:
            # Only now: another run may have recorded its job before it released the lock.
            if job_file.exists():
                recorded_job = load_json(job_file)
                if not isinstance(recorded_job, dict):
                    recorded_job = {}
                check_job(output, recorded_job, job, "or choose a new folder")
            else:
                write_json(job_file, job, indent=None)
        yield state_folder


def check_job(output: Path, recorded_job: Mapping[str, Any], job: Mapping[str, Any], alternative: str) -> None:
    """Raise OtherJob if the job that is recorded in an output differs from `job` in a value or in the format's version.

    Args:
        output: the output, for the message.
        recorded_job: job that began the output.
        job: job that wants to continue it; other keys of the recorded job are ignored.
        alternative: what a user can do besides running the recorded job.
    """
    if "version" in job:
        try:
            check_version(recorded_job.get("version"), job["version"], output, alternative)
        except OtherVersion as error:
            raise OtherJob(str(error)) from None
    differing_keys = [key for key in job if recorded_job.get(key) != job[key]]
    if differing_keys:
        raise OtherJob(
            f"{output} was begun with other {' and '.join(differing_keys)}; run with the same, {alternative}"
        )


def _release_locks_of_parent() -> None:
    while _locked_files:
        _locked_files.pop().close()


# Otherwise a loader process that outlives its parent, because it hangs in the system, would keep a folder locked.
os.register_at_fork(after_in_child=_release_locks_of_parent)
