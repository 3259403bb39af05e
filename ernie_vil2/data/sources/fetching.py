"""The local cache of shards that lie elsewhere. Its size is bounded: what was not used for longest goes first."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from ernie_vil2.files import written_whole
from ernie_vil2.hub import cache_folder

DEFAULT_GIB = 100.0
_IMPORTED_BY = os.getpid()


def cache_bytes() -> int:
    """`$ERNIE_VIL2_SHARD_CACHE_GIB` (100 if it is not set): how much the fetched shards may take, in bytes.

    Raises:
        ValueError: it is no positive number.
    """
    value = os.environ.get("ERNIE_VIL2_SHARD_CACHE_GIB") or DEFAULT_GIB
    try:
        gib = float(value)
    except ValueError:
        gib = 0.0
    if not 0 < gib < float("inf"):
        raise ValueError(f"ERNIE_VIL2_SHARD_CACHE_GIB={value}: set it to a number of GiB above 0")
    return int(gib * 2**30)


def fetched(identity: str, name: str, fetch: Callable[[Path], None], size: int | None) -> BinaryIO:
    """A file of the cache, opened; it is fetched if it is not there. Processes that want the same file wait for one.

    An open file stays readable when it is taken out of the cache.

    Args:
        identity: of the file and its content.
        name: whose last part makes the file in the cache recognisable.
        fetch: writes the file to a path.
        size: in bytes, if it is known beforehand.

    Raises:
        OSError: the file could not be fetched, or it is larger than the cache may be.
    """
    folder = cache_folder() / "shards"
    key = blake2b(identity.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
    path = folder / f"{key}-{name.rpartition('/')[2][-80:]}"
    with _locked(folder / "locks" / key[:2]):
        try:
            file = open(path, "rb")
            os.utime(path)
            return file
        except FileNotFoundError:
            pass
        for left in folder.glob(f".{path.name}.*.partial"):  # by a process that was killed; none writes now
            left.unlink(missing_ok=True)
        _make_room(folder, size or 0, name)
        with written_whole(path) as aside:
            fetch(aside)
        file = open(path, "rb")
    _make_room(folder, 0, name)
    return file


def _make_room(folder: Path, size: int, name: str) -> None:
    """Removes the files that were not used for longest until `size` more bytes fit in."""
    limit = cache_bytes()
    if size > limit:
        raise OSError(
            f"{name}: {size} bytes do not fit into the cache of {limit} bytes; raise ERNIE_VIL2_SHARD_CACHE_GIB"
        )
    files = []
    for entry in os.scandir(folder):
        try:
            if entry.is_file():
                stat = entry.stat()
                files.append((stat.st_mtime_ns, stat.st_size, Path(entry.path)))
        except FileNotFoundError:  # another process has removed it
            continue
    used = sum(size for _, size, _ in files)
    for _, taken, path in sorted(files):
        if used + size <= limit:
            return
        if not path.name.startswith("."):
            path.unlink(missing_ok=True)
            used -= taken


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def shows_progress() -> bool:
    """Whether this is the process that a person looks at: not a loader's, and not a rank but the first."""
    first_rank = os.environ.get("PADDLE_TRAINER_ID", "0") == "0"
    return first_rank and os.getpid() == _IMPORTED_BY and multiprocessing.parent_process() is None
