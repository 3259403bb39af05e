"""Locks of files between processes. The kernel ends a lock with the process that holds it, however that ends."""

import fcntl
import os
import socket
import sys
from pathlib import Path
from typing import IO, TextIO
from weakref import WeakSet

from ernie_vil2.io.terminal import RunError, printable

_locked: WeakSet[IO] = WeakSet()


class Locked(RunError):
    """Another process holds a lock; owner names it, as in "process 123 on host", as far as that is known."""

    def __init__(self, path: str | os.PathLike, owner: str):
        super().__init__(f"{path} is locked by {owner}")
        self.owner = owner


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


def owned(path: Path) -> TextIO:
    """A lock file that this process has locked until it is closed, with who it is in it; `Locked` if another has."""
    file = open(path, "a+", encoding="utf-8", errors="replace")
    try:
        lock(file)
    except Locked as error:
        file.seek(0)
        owner = printable(file.read(200).strip()) or error.owner
        file.close()
        raise Locked(path, owner) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def _leave_locks_to_parent() -> None:
    while _locked:
        _locked.pop().close()


# A loader process that outlives its parent, because it hangs in the system, must not keep a folder locked.
os.register_at_fork(after_in_child=_leave_locks_to_parent)
