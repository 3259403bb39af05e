"""Files that are fetched before they are read, from an address or the output of a command, and their local cache.

The cache has a bounded size; the files that have not been used for the longest time are removed first.
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
from ernie_vil2.io.locks import Locked, lock_exclusive, lock_shared
from ernie_vil2.io.terminal import should_show_progress

T = TypeVar("T")
HTTP_PREFIXES = ("http://", "https://")
SHELL = "/bin/bash"

# A request is tried a few times here, to ride out a dropped connection. Outages that last longer are the caller's to
# wait for: `ShardedSource` reads a shard again for minutes.
MAX_ATTEMPTS = 3
RETRY_PAUSE = 2.0  # seconds before the second attempt; twice that before the third
REQUEST_DEADLINE = 300.0  # seconds after which a request is not tried again
TIMEOUT = 30.0  # seconds without any data after which a connection has failed
MIN_SPEED = 2**10  # bytes a second; a slower transfer counts as stalled

# Keys under which the file systems of fsspec give the version of a file, besides its size.
VERSION_KEYS = ("ETag", "etag", "LastModified", "last_modified", "mtime", "updated", "created", "sha256")
LAST_MODIFIED = "Last-Modified"  # header of HTTP that has it where there is no ETag; fsspec drops it

DEFAULT_CACHE_GIB = 100.0
PIPE_FILE_NAME = "pipe.tar"  # makes the file in the cache recognisable: a command has no address
SPACE_LOCK = "space"  # held by the process that counts and removes files of the cache
RESERVED_SUFFIX = ".reserved"


class FetchError(OSError):
    """A file could not be fetched; the message tells what the server did.

    Attributes:
        is_permanent: whether it is useless to try again.
    """

    def __init__(self, message: str, is_permanent: bool = False):
        super().__init__(message)
        self.is_permanent = is_permanent


class RemoteFile:
    """A file at an address that fsspec opens (`s3://`, `https://`, `hdfs://`, ...); it is fetched into the cache.

    The server is first contacted when the file is needed. Methods raise FetchError if the file cannot be fetched, and
    ValueError if the package for this kind of address is not installed.

    Args:
        address: address of the file.
        size: number of bytes, if known; compared with the data that arrive.
        checksum: SHA-256, if known; compared with the data that arrive.
        num_samples: number of samples in the file, if known.

    Attributes:
        failures: number of failed transfers in this process.
    """

    # A data set may have hundreds of thousands of these.
    __slots__ = ("_size_and_identity", "checksum", "failures", "name", "num_samples")

    def __init__(
        self, address: str, size: int | None = None, checksum: str | None = None, num_samples: int | None = None
    ):
        self.name = address
        self.checksum = checksum
        self.num_samples = num_samples
        self.failures = 0
        self._size_and_identity: tuple[int | None, str] | None = None
        if checksum:
            # With the checksum as identity, equal files at several addresses are fetched once.
            self._size_and_identity = (size, f"sha256 {checksum}")

    def _get_size_and_identity(self) -> tuple[int | None, str]:
        if self._size_and_identity is None:
            self._size_and_identity = ask_server(self.name, self._request_size_and_identity)
        return self._size_and_identity

    def _request_size_and_identity(self) -> tuple[int | None, str]:
        headers: dict[str, str] = {}
        system, path = open_file_system(self.name, REQUEST_DEADLINE, headers)
        info = system.info(path)
        version = next((info[key] for key in VERSION_KEYS if info.get(key)), headers.get(LAST_MODIFIED, ""))
        if isinstance(version, date):
            version = version.isoformat()
        # The address in the file system's own spelling: users may write it in several ways.
        address = system.unstrip_protocol(path)
        size = info.get("size")
        return size, f"{address} {size} {version}"

    def identity(self) -> str:
        return self._get_size_and_identity()[1]

    def open(self, is_prefetch: bool = False) -> BinaryIO:
        """Open the file as `Location.open`; for `is_prefetch` see `open_cached`."""
        size, identity = self._get_size_and_identity()

        def fetch(path: Path) -> None:
            ask_server(self.name, lambda: self._fetch(path, size))

        return open_cached(identity, remove_query(self.name), fetch, size, is_prefetch)

    def _fetch(self, path: Path, size: int | None) -> None:
        try:
            self._download_and_check(path, size)
        except BaseException:
            self.failures += 1
            raise

    def _download_and_check(self, path: Path, size: int | None) -> None:
        max_bytes = cache_bytes() if size is None else size
        download(self.name, path, max_bytes)
        received = path.stat().st_size
        if size is not None and received != size:
            raise OSError(f"{received} of {size} bytes arrived")
        if self.checksum and sha256(path) != self.checksum:
            raise OSError("what arrived differs from its SHA-256 checksum")


def remove_query(address: str) -> str:
    """Return an address without its query, which usually holds a signature: it is secret."""
    return address.partition("?")[0]


def download(address: str, path: Path, max_bytes: int) -> None:
    """Write the file at an address to a path; raise fsspec's errors, and OSError if it has more than `max_bytes`."""
    system, remote_path = open_file_system(address)
    with _make_transfer_guard(remove_query(address), max_bytes) as guard:
        system.get_file(remote_path, str(path), callback=guard)


def ask_server(address: str, request: Callable[[], T]) -> T:
    """Return the result of a request, trying it again if it fails for a reason that may pass.

    Args:
        address: address for error messages.
        request: function that contacts the server.

    Raises:
        FetchError: the server refuses, has no such file, or has failed again and again.
        ValueError, MissingPackage: the package for this kind of address is not installed.
        OSError: the local disk is full, or the file is larger than announced.
    """
    public_address = remove_query(address)
    deadline = time.monotonic() + REQUEST_DEADLINE
    attempt = 0
    while True:
        attempt += 1
        try:
            return request()
        except (ValueError, MissingPackage):
            raise
        except Exception as error:  # each file system of fsspec has its own kinds of errors
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            reason, is_permanent = _explain(error)
            if is_permanent:
                raise FetchError(f"{public_address}: {reason}", is_permanent) from error
            if attempt >= MAX_ATTEMPTS or time.monotonic() > deadline:
                raise FetchError(f"{public_address}: {reason}; attempts made: {attempt}. Try again later") from error
            time.sleep(RETRY_PAUSE * attempt)


def _explain(error: BaseException) -> tuple[str, bool]:
    """Return why a file cannot be fetched, and whether it is useless to try again."""
    from aiohttp import ClientPayloadError, ClientResponseError, TooManyRedirects

    # fsspec turns every error of HTTP into FileNotFoundError.
    if isinstance(error, FileNotFoundError) and error.__cause__:
        error = error.__cause__
    if isinstance(error, ClientResponseError) and not isinstance(error, TooManyRedirects):
        # Some servers send a whole page as the message, others nothing. In aiohttp's own messages, such as that for a
        # malformed header, a colon ends the first line.
        first_line = error.message.partition("\n")[0][:100]
        answer = f"{error.status} {first_line}".rstrip(": ")
        if error.status in (404, 410):
            return f"no such file ({answer}); check the address", True
        if error.status in (401, 403, 407):
            return f"the server refuses it ({answer}); check your access to it", True
        # Request timeout, too early and too many requests are the client errors that may pass.
        return f"the server answers {answer}", error.status < 500 and error.status not in (408, 425, 429)

    # The file systems raise these errors, or others with these as their cause.
    for kind, reason, is_permanent in (
        (ConnectionRefusedError, "the connection is refused; check the address, and that the server runs", False),
        (socket.gaierror, "no server of this name is found; check the address and the network", False),
        (TimeoutError, f"nothing arrived for {TIMEOUT:.0f} seconds, or hardly anything", False),
        (ClientPayloadError, "the transfer broke off", False),
        (TooManyRedirects, "the server sends it round in a circle; check the address", True),
        (PermissionError, "the server refuses it; check your access to it", True),
        (FileNotFoundError, "no such file; check the address and your access to it", True),
    ):
        if isinstance(error, kind) or isinstance(error.__cause__, kind):
            return reason, is_permanent
    message = " ".join(str(error).split())[:300]
    return f"it cannot be fetched ({message or type(error).__name__})", False


def _make_transfer_guard(address: str, max_bytes: int) -> Any:
    """Return a callback for fsspec: a progress bar that also ends a transfer if it stalls or exceeds `max_bytes`."""
    from fsspec.callbacks import TqdmCallback

    start = time.monotonic()

    class TransferGuard(TqdmCallback):
        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            if self.value > max_bytes:
                message = f"more than the {max_bytes} bytes that were announced or that the cache holds"
                raise OSError(errno.EFBIG, message, address)
            # A transfer may take TIMEOUT to begin, and must be faster than MIN_SPEED on average.
            max_seconds = TIMEOUT + self.value / MIN_SPEED
            if time.monotonic() - start > max_seconds:
                raise TimeoutError

    bar = {"desc": address.rpartition("/")[2], "unit": "B", "unit_scale": True, "unit_divisor": 1024}
    return TransferGuard({**bar, "delay": 2, "leave": False, "disable": not should_show_progress()})


class PipeOutput:
    """The standard output of a shell command, which runs once; its output is kept in the cache.

    The output is identified by the command. To run it again, change the command or delete its file in the cache.
    Output that is no shard is not kept.
    """

    def __init__(self, command: str):
        self.command = command.strip()
        self.name = f"pipe:{self.command}"
        self.num_samples: int | None = None

    def identity(self) -> str:
        return self.name

    def open(self, is_prefetch: bool = False) -> BinaryIO:
        """Open the output as `RemoteFile.open`."""
        return open_cached(self.identity(), PIPE_FILE_NAME, self._run, None, is_prefetch)

    def forget(self) -> None:
        """Remove the output from the cache, so that the command runs again when the output is opened next."""
        _cached_path(self.identity(), PIPE_FILE_NAME).unlink(missing_ok=True)

    def _run(self, path: Path) -> None:
        # With pipefail, a failure anywhere in the pipe counts; plain sh reports only a failure of the last command.
        call = [SHELL, "-o", "pipefail", "-c"] if Path(SHELL).exists() else ["sh", "-c"]
        with path.open("wb") as output:
            process = subprocess.run(  # noqa: S603  -- a command of the user, which --allow-pipes has allowed
                [*call, self.command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE
            )
        if process.returncode:
            message = process.stderr.decode("utf-8", "replace").strip()[-500:]
            raise OSError(
                f"{self.name}: the command ended with status {process.returncode}: {message or '(it printed nothing)'}"
            )


def open_file_system(
    address: str, total_timeout: float | None = None, headers: dict[str, str] | None = None
) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the path in it.

    Args:
        address: address of a file.
        total_timeout: seconds that a whole request over HTTP may take; None: no limit besides `TIMEOUT`.
        headers: receives the header `LAST_MODIFIED` of answers over HTTP.

    Raises:
        ValueError: the package for this kind of address is not installed, or the address is a chain of several.
    """
    # The address may come from a stranger's configuration or list. In a chain such as `reference::https://...`, fsspec
    # reads templates from the file at its end, and Jinja runs the code in them.
    if "::" in address:
        raise ValueError(f"{remove_query(address)}: a chain of addresses (::) is not opened; name the file itself")
    require(address, "fsspec")
    from fsspec.core import url_to_fs

    options = {}
    try:
        if address.startswith(HTTP_PREFIXES):
            from aiohttp import ClientTimeout, TraceConfig

            async def record_header(_session: Any, _context: Any, request: Any) -> None:
                if headers is not None and LAST_MODIFIED in request.response.headers:
                    headers[LAST_MODIFIED] = request.response.headers[LAST_MODIFIED]

            trace = TraceConfig()
            trace.on_request_end.append(record_header)
            timeout = ClientTimeout(total=total_timeout, sock_connect=TIMEOUT, sock_read=TIMEOUT)
            options = {"client_kwargs": {"timeout": timeout, "trace_configs": [trace]}}
        # A cached instance cannot be used after a fork.
        return url_to_fs(address, skip_instance_cache=True, **options)
    except (ValueError, ImportError) as error:
        raise ValueError(f"{address}: fsspec cannot open it ({error}); or fetch it and name the local file") from error


def _reset_fsspec_after_fork() -> None:
    """Make fsspec start a new thread and event loop in a child process, which would wait for the parent's for ever."""
    if "fsspec.asyn" in sys.modules:
        sys.modules["fsspec.asyn"].reset_lock()


os.register_at_fork(after_in_child=_reset_fsspec_after_fork)


def cache_bytes() -> int:
    """Return the size that the fetched files may have together: `$ERNIE_VIL2_SHARD_CACHE_GIB` (default 100), in bytes.

    Raises:
        ValueError: the variable is not a positive number.
    """
    value = os.environ.get("ERNIE_VIL2_SHARD_CACHE_GIB") or DEFAULT_CACHE_GIB
    try:
        gib = float(value)
    except ValueError:
        gib = 0.0
    if not 0 < gib < float("inf"):
        raise ValueError(f"ERNIE_VIL2_SHARD_CACHE_GIB={value}: set it to a number of GiB above 0")
    return int(gib * 2**30)


class CacheFull(OSError):  # noqa: N818  -- named by what has happened
    """The cache has no room for a file, unless files that are open are removed."""


def open_cached(
    identity: str, name: str, fetch: Callable[[Path], None], size: int | None, is_prefetch: bool = False
) -> BinaryIO:
    """Open a file of the cache, fetching it first if necessary. Only one process fetches it; others wait.

    Open files are removed from the cache last, and stay readable after that.

    Args:
        identity: identity of the file and its content.
        name: address of the file; its end makes the file in the cache recognisable.
        fetch: writes the file to a path.
        size: number of bytes, if known.
        is_prefetch: the file is not needed yet. It is not fetched if open files would have to be removed for it.

    Raises:
        CacheFull: the file is prefetched and there is no room.
        OSError: the file could not be fetched, or it is larger than the whole cache.
    """
    path = _cached_path(identity, name)
    folder = path.parent
    # There are 256 locks for all files, rather than a lock file for each of them.
    with _locked(folder / "locks" / path.name[:2]):
        try:
            file = _open_and_hold(path)
            os.utime(path)  # the time of last use, by which files are removed
            return file
        except FileNotFoundError:
            pass
        file = _fetch_into_cache(path, name, fetch, size or 0, is_prefetch)
    # The file may be larger than expected.
    with _locked(folder / "locks" / SPACE_LOCK):
        _free_space(folder, 0, name, keep_open_files=is_prefetch)
    return file


def _cached_path(identity: str, name: str) -> Path:
    key = blake2b(identity.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
    # The end of the name keeps the suffix, and the file name short enough for any file system, which counts bytes.
    name_end = name.rpartition("/")[2].encode("utf-8", "surrogateescape")[-80:].decode("utf-8", "ignore")
    return cache_folder() / "shards" / f"{key}-{name_end}"


def _fetch_into_cache(path: Path, name: str, fetch: Callable[[Path], None], size: int, is_prefetch: bool) -> BinaryIO:
    """Fetch a file to a path in the cache and open it; the caller has the lock of the file."""
    reservation = _reserve(path, size, name, keep_open_files=is_prefetch)
    if reservation is None:
        raise CacheFull(f"{name}: the cache has no room")
    try:
        # The stack is entered first, so it unlocks last: `atomic_write` renames the file at the end of its block.
        with ExitStack() as until_renamed, atomic_write(path) as partial_path:
            fetch(partial_path)
            file = _open_and_hold(partial_path)  # before others can see the file and remove it
            # The space is locked until the file has its name and the reservation is gone, so that a process which
            # counts sees exactly one of the two.
            until_renamed.enter_context(_locked(path.parent / "locks" / SPACE_LOCK))
            until_renamed.callback(Path(reservation.name).unlink, missing_ok=True)
    finally:
        Path(reservation.name).unlink(missing_ok=True)  # if an error came before the renaming
        reservation.close()
    return file


def _reserve(path: Path, size: int, name: str, keep_open_files: bool) -> BinaryIO | None:
    """Return an open sparse file that reserves space for a file; None if `keep_open_files` and there is no space.

    If open files need not be kept, the file is needed now: it is fetched even if others take more than the limit.
    """
    with _locked(path.parent / "locks" / SPACE_LOCK):
        has_space = _free_space(path.parent, size, name, keep_open_files)
        if keep_open_files and not has_space:
            return None
        file = path.with_name(f".{path.name}{RESERVED_SUFFIX}").open("wb")
        lock_shared(file)
        file.truncate(size)
    return file


def _open_and_hold(path: Path) -> BinaryIO:
    file = path.open("rb")
    lock_shared(file)  # until the file is closed, however its process ends
    return file


def _free_space(folder: Path, size: int, name: str, keep_open_files: bool) -> bool:
    """Remove files until `size` more bytes fit into the cache; return whether they do.

    Files that have not been used for the longest time go first. Open files go after all others, or stay if
    `keep_open_files`.
    """
    limit = cache_bytes()
    if size > limit:
        raise OSError(
            f"{name}: {size} bytes do not fit into the cache of {limit} bytes; raise ERNIE_VIL2_SHARD_CACHE_GIB"
        )
    files, incoming_bytes = _scan_cache(folder)
    used = sum(file_size for file_size, _ in files) + incoming_bytes
    open_files: list[tuple[int, Path]] = []
    for file_size, path in files:
        if used + size <= limit:
            return True
        if _remove_if_unused(path):
            used -= file_size
        else:
            open_files.append((file_size, path))
    if not keep_open_files:
        for file_size, path in open_files:
            if used + size <= limit:
                return True
            path.unlink(missing_ok=True)
            used -= file_size
    return used + size <= limit


def _scan_cache(folder: Path) -> tuple[list[tuple[int, Path]], int]:
    """Read what the cache holds, and remove what killed processes have reserved and begun to fetch.

    Returns:
        Size and path of each file, from the one that was not used for the longest time, and the bytes that files which
        are being fetched have or have reserved.
    """
    files: list[tuple[int, int, Path]] = []  # time of last use, size, path
    incoming_sizes: dict[str, int] = {}
    partial_files: list[tuple[int, Path]] = []
    for entry in os.scandir(folder):
        path = Path(entry.path)
        is_hidden = entry.name.startswith(".")
        is_reservation = is_hidden and path.suffix == RESERVED_SUFFIX
        try:
            if not entry.is_file():
                continue
            if is_reservation and _remove_if_unused(path):
                continue  # reserved by a killed process
            status = entry.stat()
        except FileNotFoundError:  # another process has removed it
            continue
        if is_reservation:
            incoming_sizes[entry.name.removesuffix(RESERVED_SUFFIX)] = status.st_size
        elif is_hidden:
            partial_files.append((status.st_size, path))
        else:
            files.append((status.st_mtime_ns, status.st_size, path))
    files.sort()

    # A file that is being fetched takes the larger one of the sizes of `.NAME.reserved` and `.NAME.THREAD.partial`. The
    # former is there as long as the latter, unless the process has been killed.
    for size, path in partial_files:
        target = path.name.rsplit(".", 2)[0]
        if target in incoming_sizes:
            incoming_sizes[target] = max(incoming_sizes[target], size)
        elif path.suffix == ".partial":
            path.unlink(missing_ok=True)
    return [(size, path) for _, size, path in files], sum(incoming_sizes.values())


def _remove_if_unused(path: Path) -> bool:
    """Remove a file unless a process has it open; return whether it is gone."""
    try:
        # Over NFS, an exclusive lock needs a file that is open for writing.
        with path.open("r+b") as file:
            lock_exclusive(file)
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return True
    except Locked:
        return False
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        lock_exclusive(file, wait=True)
        yield


class Prefetcher:
    """Threads that fetch files before they are read, as far as the cache has room.

    A file that cannot be fetched is skipped; whoever reads it then gets the error. Processes that read the same files
    begin with different ones. A prefetcher belongs to the process that makes it, because threads do not survive a fork.

    Args:
        fetch: fetches and opens the file with a number. It raises CacheFull if there is no room, and OSError or
            ValueError if the file cannot be fetched.
    """

    NUM_THREADS = 4  # files that a process fetches at the same time
    PAUSE = 2.0  # seconds until a thread looks again whether others have closed files and made room

    def __init__(self, fetch: Callable[[int], BinaryIO]):
        self.process = os.getpid()
        self._fetch = fetch
        self._lock = Lock()
        self._wanted_files: dict[int, None] = {}  # an ordered set of numbers, the most urgent one first
        self._queue: list[int] = []  # files to fetch, the most urgent one last
        self._open_files: dict[int, BinaryIO] = {}  # open, so that nobody removes them before they are read
        self._num_threads = 0

    def request(self, current: Iterable[int], upcoming: Iterable[int]) -> None:
        """Replace the files to fetch.

        Args:
            current: numbers of the files that are read from now on.
            upcoming: numbers of the files that are read after those.
        """
        # Another order in each process, so that two processes seldom wait for the same file.
        random = Random(os.getpid())  # noqa: S311  -- no secret
        current, upcoming = list(current), list(upcoming)
        random.shuffle(current)
        random.shuffle(upcoming)
        with self._lock:
            self._wanted_files = dict.fromkeys([*current, *upcoming])
            for number, file in list(self._open_files.items()):
                # A process that needed room at once may have removed the file: it has no name any more.
                was_removed = os.fstat(file.fileno()).st_nlink == 0
                if was_removed or number not in self._wanted_files:
                    self._open_files.pop(number).close()
            self._queue = [number for number in self._wanted_files if number not in self._open_files]
            self._queue.reverse()
            num_useful_threads = min(self.NUM_THREADS, len(self._queue))
            while self._num_threads < num_useful_threads:
                Thread(target=self._work, daemon=True).start()
                self._num_threads += 1

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._num_threads -= 1
                    return
                number = self._queue.pop()
            try:
                file = self._fetch(number)
            except CacheFull:
                with self._lock:
                    if self._is_wanted(number):
                        self._queue.append(number)
                time.sleep(self.PAUSE)
                continue
            except (OSError, ValueError):
                continue
            with self._lock:
                if self._is_wanted(number):
                    self._open_files[number] = file
                else:
                    file.close()

    def _is_wanted(self, number: int) -> bool:
        return number in self._wanted_files and number not in self._open_files
