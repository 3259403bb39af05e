"""Locks of files between processes, and outputs that belong to one job. The kernel ends a lock with the process that
holds it, however that ends."""

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

JOB = "job.json"

_locked: WeakSet[IO] = WeakSet()


class Locked(RunError):  # noqa: N818  -- named by what has happened
    """Another process holds a lock; owner names it, as in "process 123 on host", as far as that is known."""

    def __init__(self, path: str | os.PathLike, owner: str):
        super().__init__(f"{path} is locked by {owner}")
        self.owner = owner


class OtherJob(RunError):  # noqa: N818  -- named by what has happened
    """An output belongs to another job, or another run is writing there; the message says what to do."""


def lock(file: IO, wait: bool = False) -> None:
    """Locks an open file for this process until it is closed. Processes that are forked meanwhile do not hold it.

    Another process that holds the lock is waited for, or else `Locked`; a file system without locks is an OSError, or
    else a warning.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Locked(file.name, "another process") from None
    except OSError as error:
        if wait:
            raise
        print(f"warning: {file.name} cannot be locked ({error.strerror}): nothing keeps a second process from writing "
              "there", file=sys.stderr)  # fmt: skip
    _locked.add(file)


def hold(file: IO) -> None:
    """Keeps others from locking an open file until this process, and those forked from it, have closed it."""
    fcntl.flock(file, fcntl.LOCK_SH)


def owned(path: Path) -> TextIO:
    """A lock file that this process has locked until it is closed, with who it is in it; `Locked` if another has."""
    file = path.open("a+", encoding="utf-8", errors="replace")
    try:
        lock(file)
    except Locked as error:
        file.seek(0)
        owner = make_printable(file.read(200).strip()) or error.owner
        file.close()
        raise Locked(path, owner) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


@contextmanager
def claimed(output: Path, state: str, job: Mapping[str, Any] | None = None, alone: bool = True) -> Iterator[Path]:
    """A folder in an output, by which a run that was stopped continues; nobody else writes there meanwhile.

    Args:
        output: folder of the results: new, or left by a run of the same job.
        state: name of the folder in it.
        job: what decides the results, for JSON; it is kept in the folder. None: any job may continue.
        alone: False: others may write at the same time.

    Raises:
        OtherJob: the output holds something else, was begun by another job, or another run is writing there.
    """
    folder = output / state
    begun = folder if job is None else folder / JOB
    if output.is_dir() and not begun.exists() and any(path.name != state for path in output.iterdir()):
        raise OtherJob(f"{output} holds other files; choose a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    if not alone:
        yield folder
        return
    try:
        lock = owned(folder / "lock")
    except Locked as error:
        raise OtherJob(f"{output}: {error.owner} is writing there; wait for it or stop it") from None
    with lock:
        if job is not None and begun.exists():
            found = load_json(begun)
            check_job(output, found if isinstance(found, dict) else {}, job, "or choose a new folder")
        elif job is not None:
            write_json(begun, job, indent=None)
        yield folder


def check_job(output: Path, begun: Mapping[str, Any], job: Mapping[str, Any], else_: str) -> None:
    """Raise OtherJob if an output was begun by a job that differs, or is of another version than the job names."""
    if "version" in job:
        try:
            check_version(begun.get("version"), job["version"], output, else_)
        except OtherVersion as error:
            raise OtherJob(str(error)) from None
    if differing := [part for part in job if begun.get(part) != job[part]]:
        raise OtherJob(f"{output} was begun with other {' and '.join(differing)}; run with the same, {else_}")


def _leave_locks_to_parent() -> None:
    while _locked:
        _locked.pop().close()


# A loader process that outlives its parent, because it hangs in the system, must not keep a folder locked.
os.register_at_fork(after_in_child=_leave_locks_to_parent)
