"""Files that have to be fetched first, from an address or the output of a command, and the local cache of them.

The size of the cache is bounded: what was not used for longest goes first.
"""

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from hashlib import blake2b
from pathlib import Path
from random import Random
from threading import Lock, Thread
from typing import Any, BinaryIO, TypeVar

from ernie_vil2.device.extras import MissingPackage, require
from ernie_vil2.io.files import atomic_write, cache_folder, sha256
from ernie_vil2.io.locks import Locked, hold, lock
from ernie_vil2.io.terminal import shows_progress

T = TypeVar("T")
WEB = ("http://", "https://")

ATTEMPTS = 3  # to get something from a server
PAUSE = 2.0  # seconds before the second attempt, twice that before the third
TIMEOUT = 30.0  # seconds in which nothing arrives
SLOWEST = 2**10  # bytes a second; what is slower has stopped
DEADLINE = 300.0  # seconds after which nothing is asked for again
SHELL = "/bin/bash"
# What a file system may say about the version of a file, besides its size.
VERSIONS = ("ETag", "etag", "LastModified", "last_modified", "mtime", "updated", "created", "sha256")
DEFAULT_GIB = 100.0
ROOM = "room"  # the lock of who counts what is there
RESERVED = ".reserved"


class FetchError(OSError):
    """A file could not be fetched; the message says what the server did, or did not do. Where it is `lasting`, asking
    again is of no use."""

    def __init__(self, message: str, lasting: bool = False):
        super().__init__(message)
        self.lasting = lasting


class RemoteFile:
    """A file at an address that fsspec opens (`s3://`, `https://`, `hdfs://`, ...); it is fetched into the cache.

    The server is asked when the file is needed. FetchError then says why the file cannot be had, ValueError that what
    this kind of address needs is not installed.

    Args:
        address: of the file.
        size, checksum: bytes and SHA-256, if they are known; what arrives is compared with them.
        samples: how many samples it holds, if that is known.

    Attributes:
        failures: transfers that failed, in this process.
    """

    __slots__ = ("_info", "checksum", "failures", "name", "samples")

    def __init__(self, address: str, size: int | None = None, checksum: str | None = None, samples: int | None = None):
        self.name, self.checksum, self.samples = address, checksum, samples
        self.failures = 0
        # Equal content is fetched once, from whichever address.
        self._info: tuple[int | None, str] | None = (size, f"sha256 {checksum}") if checksum else None

    def _size_and_identity(self) -> tuple[int | None, str]:
        if self._info is None:
            self._info = asked(self.name, self._ask)
        return self._info

    def _ask(self) -> tuple[int | None, str]:
        system, path = file_system(self.name, DEADLINE)
        info = system.info(path)
        version = next((_plain(info[key]) for key in VERSIONS if info.get(key)), "")
        # Not the address as it was written: the same file may have several.
        return info.get("size"), f"{system.unstrip_protocol(path)} {info.get('size')} {version}"

    def identity(self) -> str:
        return self._size_and_identity()[1]

    def open(self, ahead: bool = False) -> BinaryIO:
        """As `Location.open`; `ahead` as of `fetched`."""
        size, identity = self._size_and_identity()
        return fetched(identity, self.name, lambda path: asked(self.name, lambda: self._fetch(path, size)), size, ahead)

    def _fetch(self, path: Path, size: int | None) -> None:
        self.failures += 1
        fetch(self.name, path, cache_bytes() if size is None else size)
        got = path.stat().st_size
        if size is not None and got != size:
            raise OSError(f"{got} of {size} bytes arrived")
        if self.checksum and sha256(path) != self.checksum:
            raise OSError("what arrived differs from its SHA-256 checksum")
        self.failures -= 1


def fetch(address: str, path: Path, most: int) -> None:
    """Writes the file at an address to a path; errors as fsspec's, and OSError for more than `most` bytes."""
    system, remote = file_system(address)
    with _progress(address, most) as callback:
        system.get_file(remote, str(path), callback=callback)


def asked(address: str, ask: Callable[[], T]) -> T:
    """The answer of a server that may fail now and then.

    Raises:
        FetchError: the server refuses, has no such file, or has failed again and again.
        ValueError, MissingPackage: what this kind of address needs is not installed.
        OSError: the disk here is full, or more arrives than was announced.
    """
    shown, deadline = address.partition("?")[0], time.monotonic() + DEADLINE  # what follows is a signature, mostly
    attempt = 0
    while True:
        attempt += 1
        try:
            return ask()
        except (ValueError, MissingPackage):
            raise
        except Exception as error:  # every kind of address has its own
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            reason, lasting = _reason(error)
            if lasting:
                raise FetchError(f"{shown}: {reason}", lasting) from error
            if attempt >= ATTEMPTS or time.monotonic() > deadline:
                raise FetchError(f"{shown}: {reason}; attempts made: {attempt}. Try again later") from error
            time.sleep(PAUSE * attempt)


def _reason(error: BaseException) -> tuple[str, bool]:
    """Why a file is not to be had, and whether asking again is of no use."""
    from aiohttp import ClientPayloadError, ClientResponseError, TooManyRedirects

    if isinstance(error, FileNotFoundError) and error.__cause__:  # which fsspec makes of whatever HTTP says
        error = error.__cause__
    if isinstance(error, ClientResponseError) and not isinstance(error, TooManyRedirects):
        answer = f"{error.status} {error.message.partition(chr(10))[0][:100]}".rstrip(":")
        if error.status in (404, 410):
            return f"no such file ({answer}); check the address", True
        if error.status in (401, 403, 407):
            return f"the server refuses it ({answer}); check your access to it", True
        return f"the server answers {answer}", error.status < 500 and error.status not in (408, 425, 429)
    for kind, reason, lasting in (
        (ConnectionRefusedError, "the connection is refused; check the address, and that the server runs", False),
        (socket.gaierror, "no server of this name is found; check the address and the network", False),
        (TimeoutError, f"nothing arrived for {TIMEOUT:.0f} seconds, or hardly anything", False),
        (ClientPayloadError, "the transfer broke off", False),
        (TooManyRedirects, "the server sends it round in a circle; check the address", True),
        (PermissionError, "the server refuses it; check your access to it", True),
        (FileNotFoundError, "no such file; check the address and your access to it", True),
    ):
        if isinstance(error, kind) or isinstance(error.__cause__, kind):
            return reason, lasting
    return f"it cannot be fetched ({' '.join(str(error).split())[:300] or type(error).__name__})", False


def _progress(address: str, most: int) -> Any:
    """fsspec's callback with a bar, which ends a transfer that is too slow, or of more than `most` bytes."""
    from fsspec.callbacks import TqdmCallback

    start = time.monotonic()

    class Progress(TqdmCallback):
        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            if self.value > most:
                raise OSError(errno.EFBIG, f"more than {most} bytes, as announced or the cache holds", address)
            if time.monotonic() - start > TIMEOUT + self.value / SLOWEST:
                raise TimeoutError

    bar = {"desc": address.rpartition("/")[2], "unit": "B", "unit_scale": True, "unit_divisor": 1024}
    return Progress({**bar, "delay": 2, "leave": False, "disable": not shows_progress()})


class PipeOutput:
    """What a shell command writes to its standard output; it runs once and the output is kept in the cache.

    The command identifies its content: to run a changed one again, delete its file in the cache, or change the command.
    """

    def __init__(self, command: str):
        self.command = command.strip()
        self.name = f"pipe:{self.command}"
        self.samples: int | None = None

    def identity(self) -> str:
        return self.name

    def open(self, ahead: bool = False) -> BinaryIO:
        """As `RemoteFile.open`."""
        return fetched(self.identity(), "pipe.tar", self._run, None, ahead)

    def _run(self, path: Path) -> None:
        # A pipe of which any part fails has failed; sh would only see the last.
        call = [SHELL, "-o", "pipefail", "-c"] if Path(SHELL).exists() else ["sh", "-c"]
        with path.open("wb") as output:
            done = subprocess.run(  # noqa: S603  -- a command of the user, which --allow-pipes has allowed
                [*call, self.command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE
            )
        if done.returncode:
            printed = done.stderr.decode("utf-8", "replace").strip()[-500:]
            raise OSError(
                f"{self.name}: the command ended with status {done.returncode}: {printed or '(it printed nothing)'}"
            )


def file_system(address: str, total: float | None = None) -> tuple[Any, str]:
    """fsspec's file system of an address, and the path in it; ValueError if what the address needs is not installed.

    Over HTTP a request may take `total` seconds, besides `TIMEOUT`.
    """
    require(address, "fsspec")
    from fsspec.core import url_to_fs

    options = {}
    try:
        if address.startswith(WEB):
            from aiohttp import ClientTimeout

            timeout = ClientTimeout(total=total, sock_connect=TIMEOUT, sock_read=TIMEOUT)
            options = {"client_kwargs": {"timeout": timeout}}
        # A kept instance cannot be used after a fork.
        return url_to_fs(address, skip_instance_cache=True, **options)
    except (ValueError, ImportError) as error:
        raise ValueError(f"{address}: fsspec cannot open it ({error}); or fetch it and name the local file") from error


def _forget_loop() -> None:
    """fsspec's thread does not survive a fork, and what asked it would wait for ever."""
    if "fsspec.asyn" in sys.modules:
        sys.modules["fsspec.asyn"].reset_lock()


os.register_at_fork(after_in_child=_forget_loop)


def _plain(version: Any) -> str:
    return version.isoformat() if isinstance(version, date) else str(version)


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
