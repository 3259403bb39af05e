"""The local cache of shards that lie elsewhere. Its size is bounded: what was not used for longest goes first."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path
from random import Random
from threading import Lock, Thread
from typing import BinaryIO

from ernie_vil2.io.files import atomic_write, cache_folder
from ernie_vil2.io.locks import Locked, hold, lock

DEFAULT_GIB = 100.0
ROOM = "room"  # the lock of who counts what is there
RESERVED = ".reserved"


def cache_bytes() -> int:
    """`$ERNIE_VIL2_SHARD_CACHE_GIB` (100 if it is not set): how much the fetched shards may take, in bytes. ValueError
    if it is not a positive number."""
    value = os.environ.get("ERNIE_VIL2_SHARD_CACHE_GIB") or DEFAULT_GIB
    try:
        gib = float(value)
    except ValueError:
        gib = 0.0
    if not 0 < gib < float("inf"):
        raise ValueError(f"ERNIE_VIL2_SHARD_CACHE_GIB={value}: set it to a number of GiB above 0")
    return int(gib * 2**30)


class NoRoom(OSError):  # noqa: N818  -- named by what has happened
    """The cache has no room for a file but that of files that are open."""


def fetched(identity: str, name: str, fetch: Callable[[Path], None], size: int | None, ahead: bool = False) -> BinaryIO:
    """A file of the cache, opened; it is fetched if it is not there. Processes that want the same file wait for one.

    Files that are open are the last to be taken out of the cache, and stay readable.

    Args:
        identity: of the file and its content.
        name: whose last part makes the file in the cache recognisable.
        fetch: writes the file to a path.
        size: in bytes, if it is known beforehand.
        ahead: the file is not needed yet: where there is no room but that of files that are open, it is not fetched.

    Raises:
        NoRoom: the file is wanted ahead and there is no room.
        OSError: the file could not be fetched, or it is larger than the cache may be.
    """
    folder = cache_folder() / "shards"
    key = blake2b(identity.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
    path = folder / f"{key}-{name.rpartition('/')[2][-80:]}"
    with _locked(folder / "locks" / key[:2]):
        try:
            file = _opened(path)
            os.utime(path)
            return file
        except FileNotFoundError:
            pass
        for left in folder.glob(f".{path.name}.*.partial"):  # by a process that was killed; none writes now
            left.unlink(missing_ok=True)
        reserved = _reserve(path, size or 0, name, ahead)
        if reserved is None:
            raise NoRoom(f"{name}: the cache has no room")
        try:
            with ExitStack() as settled, atomic_write(path) as aside:
                fetch(aside)
                file = _opened(aside)  # before others can see and remove it
                # While nobody counts, the file replaces its reserved size: who counts sees one of the two.
                settled.enter_context(_locked(folder / "locks" / ROOM))
                settled.callback(Path(reserved.name).unlink, missing_ok=True)
        finally:
            Path(reserved.name).unlink(missing_ok=True)
            reserved.close()
    with _locked(folder / "locks" / ROOM):
        _make_room(folder, 0, name, ahead)  # for what was larger than expected
    return file


def _reserve(path: Path, size: int, name: str, only_unused: bool) -> BinaryIO | None:
    """Makes room for a file, and an empty one of its size that holds it while it is open; None: there is no room."""
    with _locked(path.parent / "locks" / ROOM):
        if not _make_room(path.parent, size, name, only_unused) and only_unused:
            return None
        file = path.with_name(f".{path.name}{RESERVED}").open("wb")
        hold(file)
        file.truncate(size)
    return file


def _opened(path: Path) -> BinaryIO:
    file = path.open("rb")
    hold(file)  # until it is closed, however its process ends
    return file


def _make_room(folder: Path, size: int, name: str, only_unused: bool) -> bool:
    """Removes the files that were not used for longest until `size` more bytes fit in; whether they do.

    Files that are open go when all others have gone, or not at all (`only_unused`).
    """
    limit = cache_bytes()
    if size > limit:
        raise OSError(
            f"{name}: {size} bytes do not fit into the cache of {limit} bytes; raise ERNIE_VIL2_SHARD_CACHE_GIB"
        )
    files, coming = [], dict[str, int]()
    for entry in os.scandir(folder):
        path, hidden = Path(entry.path), entry.name.startswith(".")
        try:
            if not entry.is_file() or (hidden and path.suffix == RESERVED and _remove_unused(path)):
                continue  # of a process that was killed
            stat = entry.stat()
        except FileNotFoundError:  # another process has removed it
            continue
        if hidden:  # the reserved size, or what has come if it is more: `.NAME.PROCESS.partial`
            own = entry.name.removesuffix(RESERVED) if path.suffix == RESERVED else entry.name.rsplit(".", 2)[0]
            coming[own] = max(coming.get(own, 0), stat.st_size)
        else:
            files.append((stat.st_mtime_ns, stat.st_size, path))
    used = sum(size for _, size, _ in files) + sum(coming.values())
    for remove in (_remove_unused,) if only_unused else (_remove_unused, _remove):
        for _, taken, path in sorted(files):
            if used + size <= limit:
                return True
            if remove(path):
                used -= taken
    return used + size <= limit


def _remove_unused(path: Path) -> bool:
    try:
        with path.open("r+b") as file:
            lock(file)
            return _remove(path)
    except FileNotFoundError:
        return True
    except Locked:
        return False


def _remove(path: Path) -> bool:
    path.unlink(missing_ok=True)
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        lock(file, wait=True)
        yield


class FetchAhead:
    """Fetches files before they are read, on threads of the process that reads them, as far as the cache has room.

    What cannot be fetched is left to who reads it, who then says why. Processes that read the same files begin with
    different ones. It is of the process that makes it: threads do not survive a fork.

    Args:
        fetch: opens the file of a number; NoRoom where there is no room for it, OSError and ValueError if it cannot be
            had.
    """

    THREADS = 4
    PAUSE = 2.0  # seconds until it is seen whether others have closed files since

    def __init__(self, fetch: Callable[[int], BinaryIO]):
        self.process = os.getpid()
        self._fetch = fetch
        self._lock = Lock()
        self._wanted: dict[int, None] = {}
        self._missing: list[int] = []  # of these, the one that is needed first last
        self._open: dict[int, BinaryIO] = {}  # so that nobody takes them out of the cache before they are read
        self._threads = 0

    def want(self, now: Iterable[int], later: Iterable[int]) -> None:
        """Names the files that are read from now on, and after these; others are wanted no more."""
        order = Random(os.getpid())  # noqa: S311  -- no secret
        now, later = list(now), list(later)
        order.shuffle(now)
        order.shuffle(later)
        with self._lock:
            self._wanted = dict.fromkeys([*now, *later])
            for number, file in list(self._open.items()):
                taken = not os.fstat(file.fileno()).st_nlink  # out of the cache, by who needed the room at once
                if taken or number not in self._wanted:
                    self._open.pop(number).close()
            self._missing = [number for number in self._wanted if number not in self._open][::-1]
            for _ in range(min(self.THREADS, len(self._missing)) - self._threads):
                Thread(target=self._work, daemon=True).start()
                self._threads += 1

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._missing:
                    self._threads -= 1
                    return
                number = self._missing.pop()
            try:
                file = self._fetch(number)
            except NoRoom:
                with self._lock:
                    if number in self._wanted and number not in self._open:
                        self._missing.append(number)
                time.sleep(self.PAUSE)
                continue
            except (OSError, ValueError):
                continue
            with self._lock:
                if number in self._wanted and number not in self._open:
                    self._open[number] = file
                else:
                    file.close()
