"""Shards of samples: files that are scanned once and then read by row, and a source that joins many shards."""

import base64
import binascii
import io
import os
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

import numpy as np

from ernie_vil2.data.decoding import ImageRemark
from ernie_vil2.data.readers.locations import INDEX, LocalFile, Location, to_location
from ernie_vil2.data.readers.remote import FetchError, PipeOutput, Prefetcher, RemoteFile
from ernie_vil2.data.samples import (
    MAX_BYTES,
    MAX_TEXT_BYTES,
    BadSample,
    Reason,
    Sample,
    SampleSequence,
    check_size,
)
from ernie_vil2.data.source_files import BYTE_ORDER_MARK
from ernie_vil2.io.files import add_path_to_errors, atomic_write, cache_folder
from ernie_vil2.io.terminal import RunError

Index = dict[str, np.ndarray]  # result of a scan: where the rows of a file are

# Index files in the cache folder.
CHECKSUM_BYTES = 16  # in front of the arrays: the checksums of a zip archive do not cover its table of contents
INDEX_VERSION = 1  # raised when scans write other arrays; files with another version are scanned again
MIN_CACHED_SECONDS = 0.5  # a scan that is quicker is repeated at each start, rather than kept in a file

# Lines.
READ_BYTES = 2**20  # a long line is scanned in pieces of this size, so that it takes little memory
MAX_LINE_BYTES = 2**29  # a longer line means that the file is no text; a shorter one that is too long is a bad sample
MAX_COLUMNS = 1000  # bounds the memory of a line that consists of tabs

NUM_THREADS = 8  # threads that open shards; they mostly wait for the disk, so more than there are cores
MAX_OPEN_SHARDS = 128  # shards of a source that are open at once; bounds the memory of indexes and the number of files
RETRY_SECONDS = 300.0  # time for which a shard that cannot be fetched is tried again: a server may restart meanwhile
RETRY_PAUSES = 2.0, 30.0  # seconds between two attempts: at first, and at most after doubling
LATE_REMARK = "shard fetched after attempts that failed"  # on the first sample that is read from such a shard
# Bytes that a fingerprint reads at the beginning, in the middle and at the end of a file: it has to be quick for
# thousands of large shards, and a file that was written anew differs in one of these places.
EXCERPT_BYTES = 16_384


class Shard(SampleSequence, Protocol):
    """Samples of one file or folder, which is opened when the first sample is read.

    A shard that knows the names of its images without reading the images also has a method `read_image_name(index)`,
    which raises BadSample for a row that cannot be used.
    """

    @property
    def name(self) -> str:
        """Address of the shard."""

    @property
    def files(self) -> Sequence[Path]:
        """Local files, or a folder, that its rows are read from."""

    def release(self) -> None:
        """Close files and free memory; reading the next sample opens the shard again."""


def find_field(shard: Shard, name: str) -> str:
    """Return the field of a shard's samples for a name, which may be a header of its table."""
    return shard.field_name(name) if hasattr(shard, "field_name") else name


class ShardPart:
    """Some rows of a shard, as a shard.

    Args:
        shard: the whole shard.
        rows: `[N]` int64, numbers of the rows in it.
    """

    def __init__(self, shard: Shard, rows: np.ndarray):
        self._shard, self._rows = shard, rows
        self.name: str = shard.name
        self.files: Sequence[Path] = shard.files
        self.release = shard.release
        # Whoever reads names asks whether the shard has this method.
        if hasattr(shard, "read_image_name"):
            self.read_image_name = self._read_image_name

    def _read_image_name(self, index: int) -> str:
        return self._shard.read_image_name(int(self._rows[index]))  # type: ignore[attr-defined]  # checked above

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        return self._shard[int(self._rows[index])]

    def locate(self, index: int) -> tuple[Shard, int]:
        """Return the whole shard, and the number of a row of this part in it."""
        return self._shard, int(self._rows[index])


class IndexedFile(ABC):
    """A file that is scanned once to find its rows, which are then read by number.

    The index and the open file are held from the first row that is read until `release`. The length is always known.

    Args:
        location: the file.
        num_rows: number of rows, if known. The file is then not scanned before a row is read.

    Raises:
        ValueError: the file has another format.
    """

    kind: str
    """Kind of index. It distinguishes the cached indexes of two readers of the same file."""

    def __init__(self, location: str | Path | Location, num_rows: int | None = None):
        self.location = to_location(location)
        self._file: BinaryIO | None = None
        self._identity = self.location.identity()
        self._index: Index | None = None
        self._expected_rows = num_rows  # None accepts the number that the first scan finds
        self._size = self._expected_rows = self._count_rows(self.index) if num_rows is None else num_rows
        self.release()

    @property
    def name(self) -> str:
        """Address of the file."""
        return self.location.name

    @property
    def files(self) -> list[Path]:
        """The file, if it is a local one."""
        return [Path(self.name)] if isinstance(self.location, LocalFile) else []

    @property
    def index(self) -> Index:
        """Result of the scan, loaded when it is needed; OSError if the file has changed since it was opened."""
        if self._index is None:
            if self.location.identity() != self._identity:
                raise OSError(f"{self.name} has changed while in use")
            self._index = self._load_index()
        return self._index

    def _load_index(self) -> Index:
        try:
            with add_path_to_errors(self.name):
                index = load_or_scan_index(self.kind, self._identity, self._scan)
        except ValueError as error:
            if self._expected_rows is None:
                raise
            # `index.json` lists the file as a shard, so it is not of another format, but broken.
            raise OSError(str(error)) from error
        num_rows = self._count_rows(index)
        if self._expected_rows not in (None, num_rows):
            raise OSError(
                f"{self.name} holds {num_rows} samples, not {self._expected_rows} as {INDEX} says; copy it again, "
                f"or delete {INDEX}"
            )
        return index

    def release(self) -> None:
        """Free the index and close the file; reading the next row loads them again."""
        self._index = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}  # the receiving process opens it again

    def __len__(self) -> int:
        return self._size

    def _read_bytes(self, start: int, size: int, name: str, max_bytes: int = MAX_BYTES) -> bytes:
        """Return `size` bytes from `start` on. Processes that share the open file do not disturb each other.

        Raises:
            BadSample: the size exceeds `max_bytes`.
            OSError: the file cannot be read, or it ends too early: it has changed since it was scanned.
        """
        check_size(size, max_bytes, name)
        if self._file is None:
            self._file = self.location.open()
        data = b""
        while len(data) < size:  # Linux returns at most 2 GiB at once
            chunk = os.pread(self._file.fileno(), size - len(data), start + len(data))
            if not chunk:
                raise OSError(f"{self.name} ends before byte {start + size}: it has changed while in use")
            data += chunk
        return data

    @abstractmethod
    def _scan(self) -> Index:
        """Read the whole file; raise ValueError if it has another format."""

    @abstractmethod
    def _count_rows(self, index: Index) -> int:
        """Return the number of rows in an index."""


def load_or_scan_index(kind: str, identity: str, scan: Callable[[], Index]) -> Index:
    """Return the index of a file from the cache folder or from a scan, which is cached if it takes long.

    Args:
        kind: kind of index, so that two readers of one file do not share one.
        identity: identity of the file and its content (`Location.identity`).
        scan: makes the index.
    """
    # The key changes with the content of the file, so that an outdated index is never found.
    key = blake2b(f"{INDEX_VERSION} {kind} {identity}".encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    path = cache_folder() / "indexes" / key
    # A cache that cannot be read or written only costs time. So does a damaged file in it.
    with suppress(OSError):
        data = path.read_bytes()
        content = data[CHECKSUM_BYTES:]
        if data[:CHECKSUM_BYTES] == _checksum(content):
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return dict(arrays)

    start = time.monotonic()
    index = scan()
    if time.monotonic() - start > MIN_CACHED_SECONDS:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            buffer = io.BytesIO()
            keywords: dict[str, Any] = index  # the type hints of NumPy 2 take any keyword for an option of savez
            np.savez(buffer, **keywords)
            with atomic_write(path) as partial_path, partial_path.open("wb") as file:
                file.write(_checksum(buffer.getbuffer()))
                file.write(buffer.getbuffer())
    return index


def _checksum(content: bytes | memoryview) -> bytes:
    return blake2b(content, digest_size=CHECKSUM_BYTES).digest()


def pack_names(names: list[str]) -> Index:
    """Return texts, which may be file names in Python's form, as two arrays: all bytes, and where each text ends."""
    encoded_names = [name.encode("utf-8", "surrogateescape") for name in names]
    ends = np.cumsum(list(map(len, encoded_names)), dtype=np.int64)
    return {"name_bytes": np.frombuffer(b"".join(encoded_names), np.uint8), "name_ends": ends}


def unpack_name(index: Index, row: int) -> str:
    """Return the text of a row that `pack_names` has packed."""
    ends = index["name_ends"]
    start = ends[row - 1] if row else 0
    return index["name_bytes"][start : ends[row]].tobytes().decode("utf-8", "surrogateescape")


class Lines(IndexedFile):
    """Lines of a file by number, found by offset: a line that holds an image can have megabytes.

    Raises:
        ValueError: the file is empty.
    """

    kind: str = "lines"
    max_bytes: ClassVar[int] = MAX_BYTES

    def _scan(self) -> Index:
        with self.location.open() as file:
            sizes = (size for size, _ in scan_lines(file, self.name))
            bounds = np.fromiter(accumulate(sizes, initial=0), np.int64)
        if len(bounds) == 1:
            raise ValueError(f"{self.name}: no rows in this file; is it whole?")
        return {"bounds": bounds}

    def _count_rows(self, index: Index) -> int:
        return len(index["bounds"]) - 1

    def describe_row(self, index: int) -> str:
        """Return file and line number, for a user who looks for the row."""
        return f"{self.name.rpartition('/')[2]}:{index + 1}"

    def read_line(self, index: int, num_bytes: int | None = None) -> bytes:
        """Return a line without its end and without byte order mark.

        Args:
            index: number of the line, from 0.
            num_bytes: read only so many bytes of the line; None: all.

        Raises:
            BadSample: more than `max_bytes` would be read.
        """
        start, end = self.index["bounds"][index : index + 2].tolist()
        size = end - start if num_bytes is None else min(num_bytes, end - start)
        # Subclasses number their rows without blank lines, so the name must come from this class.
        line = self._read_bytes(start, size, Lines.describe_row(self, index), self.max_bytes)
        if index == 0:
            line = line.removeprefix(BYTE_ORDER_MARK)
        return line.rstrip(b"\r\n")

    def read_columns(self, index: int, num_bytes: int | None = None) -> list[bytes]:
        """Return the columns of a TSV line; with `num_bytes` the last one may be cut."""
        return self.read_line(index, num_bytes).split(b"\t", MAX_COLUMNS)


class TextLines(Lines):
    """Lines without images."""

    max_bytes = MAX_TEXT_BYTES


def scan_lines(file: BinaryIO, name: str) -> Iterator[tuple[int, bool]]:
    """Yield for each line its number of bytes, with the line end, and whether it is blank.

    Lines of any length take little memory.

    Raises:
        ValueError: a line does not end, as in a file that is no text.
    """
    size, is_blank_line = 0, True
    while piece := file.readline(READ_BYTES):
        size += len(piece)
        if size > MAX_LINE_BYTES:
            raise ValueError(f"{name}: a line of more than {MAX_LINE_BYTES >> 20} MiB; is it a text file?")
        is_blank_line = is_blank_line and piece.isspace()
        if piece.endswith(b"\n"):
            yield size, is_blank_line
            size, is_blank_line = 0, True
    if size:
        yield size, is_blank_line


def decode_base64(text: bytes, name: str) -> bytes:
    """Decode base64 in the standard or the URL-safe alphabet, with or without white space; else raise BadSample."""
    # b64decode drops unknown characters unless it validates, and knows one alphabet only.
    text = text.replace(b"-", b"+").replace(b"_", b"/")
    with suppress(binascii.Error):
        return base64.b64decode(text, validate=True)
    # White space is rare, and looking for it in each image would take half as long as decoding.
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error as error:
        raise BadSample(Reason.MALFORMED_BASE64, name) from error


class ShardedSource:
    """Samples of many shards, one shard after the other. At most `max_open_shards` are open in a process.

    A file that cannot be read any more makes its samples bad ones; it does not end the run. A shard that cannot be
    fetched is tried again for up to `RETRY_SECONDS` each time when it is opened.

    Threads may read at the same time. They take turns, because one of them may release the shard of another.

    Args:
        shards: shards in order.
        locations: locations of the shards, which say whether they have to be fetched; may be omitted for local files.
    """

    max_open_shards = MAX_OPEN_SHARDS

    def __init__(self, shards: Sequence[Shard], locations: Sequence[Location] = ()):
        self.shards = tuple(shards)
        self.shard_sizes = np.array(list(map(len, shards)), np.int64)
        self._ends = np.cumsum(self.shard_sizes)
        self._remote_locations: dict[int, RemoteFile | PipeOutput] = {}
        for number, location in enumerate(locations):
            if isinstance(location, RemoteFile | PipeOutput):
                self._remote_locations[number] = location
        self._prefetcher: Prefetcher | None = None
        self._read_windows: dict[int, tuple[list[int], list[int]]] = {}  # current and upcoming shards of each reader
        self._open_shards: OrderedDict[int, None] = OrderedDict()  # the least recently read one first
        self._failed_shards: dict[int, Reason] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def contents(self) -> list[str]:
        """Name and number of samples of each shard; work that is resumed compares them."""
        return [f"{shard.name} {size}" for shard, size in zip(self.shards, self.shard_sizes, strict=True)]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the shards' content, from a few reads in each shard; OSError if a file cannot be read."""
        with ThreadPoolExecutor(NUM_THREADS) as threads:
            digests = threads.map(fingerprint, [shard.files for shard in self.shards])
            return blake2b(b"".join(digests), digest_size=8).hexdigest()

    def locate(self, index: int) -> tuple[int, int]:
        """Return the number of the shard that holds a sample, and the row there; raise IndexError if there is none."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return shard, int(index - (self._ends[shard] - self.shard_sizes[shard]))

    def describe_location(self, index: int) -> str:
        """Return shard and row of a sample, counted in the whole shard from 1, for a user who looks for it."""
        number, row = self.locate(index)
        shard, row = _locate_in_whole(self.shards[number], row)
        return f"{shard.name}, {row + 1}"

    @property
    def files(self) -> list[Path]:
        """Local files that rows are read from."""
        files: list[Path] = []
        for shard in self.shards:
            for path in shard.files:
                if path.is_file():
                    files.append(path)
                else:
                    # The folder of an LMDB holds a folder for images and one for pairs.
                    files.extend(sorted(path.glob("*/data.mdb")))
        return files

    @property
    def has_image_names(self) -> bool:
        """Whether the names of the images are known without reading the images."""
        # Parquet holds the images in its rows, which are read whole.
        return all(
            hasattr(shard, "read_image_name") and not shard.name.lower().endswith(".parquet") for shard in self.shards
        )

    def read_image_names(self) -> Iterator[list[str | None]]:
        """Yield for each shard the image names of its rows, with None for a row that cannot be used.

        Each sample is read where the name is not known otherwise.
        """
        first = 0
        for shard, size in zip(self.shards, self.shard_sizes.tolist(), strict=True):
            yield [self._read_image_name(shard, first, row) for row in range(size)]
            first += size
            shard.release()

    def _read_image_name(self, shard: Shard, first: int, row: int) -> str | None:
        with suppress(BadSample):
            if hasattr(shard, "read_image_name"):
                return shard.read_image_name(row)
            return self[first + row].image_name
        return None

    def is_local(self, index: int) -> bool:
        """Return whether a sample can be read without fetching a file."""
        return self.locate(index)[0] not in self._remote_locations

    @property
    def has_remote_shards(self) -> bool:
        """Whether some shards have to be fetched."""
        return bool(self._remote_locations)

    def fetch_ahead(self, reader: int, current: Sequence[int], upcoming: Sequence[int]) -> None:
        """Fetch shards in the background as far as the cache has room, and close shards that nobody reads any more.

        Args:
            reader: number of the caller. What other readers have requested stays requested.
            current: numbers of the shards that it reads from now on.
            upcoming: numbers of the shards that it reads after those.
        """
        # Threads do not survive a fork, so each process needs its own prefetcher.
        if self._prefetcher is None or self._prefetcher.process != os.getpid():
            self._prefetcher = Prefetcher(lambda number: self._remote_locations[number].open(is_prefetch=True))
        self._read_windows[reader] = (
            [number for number in current if number in self._remote_locations],
            [number for number in upcoming if number in self._remote_locations],
        )
        all_current: dict[int, None] = {}
        all_upcoming: dict[int, None] = {}
        for current_shards, upcoming_shards in self._read_windows.values():
            all_current |= dict.fromkeys(current_shards)
            all_upcoming |= dict.fromkeys(upcoming_shards)

        # An open file takes room in the cache.
        outdated = self._remote_locations.keys() - all_current.keys() - all_upcoming.keys()
        for number in self._open_shards.keys() & outdated:
            self._release(number)
        self._prefetcher.request(all_current, all_upcoming)

    def __getitem__(self, index: int) -> Sample:
        number, row = self.locate(index)
        with self._lock:
            return self._read_row(number, row)

    def _read_row(self, number: int, row: int) -> Sample:
        shard = self.shards[number]
        # A broken shard is not tried again for each of its rows, until it is opened another time.
        if number in self._failed_shards:
            raise BadSample(self._failed_shards[number], shard.name)

        # Close the shard that has not been read for the longest time.
        self._open_shards[number] = None
        self._open_shards.move_to_end(number)
        if len(self._open_shards) > self.max_open_shards:
            self._release(next(iter(self._open_shards)))

        try:
            sample = self._read_with_retries(shard, row)
        except FetchError as error:
            self._failed_shards[number] = Reason.NOT_FETCHED
            raise BadSample(Reason.NOT_FETCHED, str(error)) from error
        except OSError as error:
            self._failed_shards[number] = Reason.UNREADABLE_FILE
            raise BadSample(Reason.UNREADABLE_FILE, f"{shard.name} ({error})") from error
        except BadSample:
            raise
        except Exception as error:
            # An error in a user's own shard is explained; one in this package is a defect, whose traceback is needed.
            shard, row = _locate_in_whole(shard, row)
            if type(shard).__module__.startswith("ernie_vil2."):
                raise
            class_name = f"{type(shard).__module__}.{type(shard).__qualname__}"
            raise RunError(
                f"{shard.name}, {row + 1}: {class_name} raised {type(error).__name__}: {error}; docs/extending.md says "
                "what a sample has"
            ) from error

        # Report once that fetching the shard took several attempts.
        location = self._remote_locations.get(number)
        if isinstance(location, RemoteFile) and location.failures:
            location.failures = 0
            warnings.warn(LATE_REMARK, ImageRemark, stacklevel=2)
        return sample

    def _read_with_retries(self, shard: Shard, row: int) -> Sample:
        deadline = time.monotonic() + RETRY_SECONDS
        pause, max_pause = RETRY_PAUSES
        while True:
            try:
                return shard[row]
            except FetchError as error:
                if error.is_permanent or time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, max_pause)

    def _release(self, number: int) -> None:
        del self._open_shards[number]
        self._failed_shards.pop(number, None)
        self.shards[number].release()


def _locate_in_whole(shard: Shard, row: int) -> tuple[Shard, int]:
    """Return the shard that a part of a shard belongs to, with the row there; a whole shard as it is."""
    while isinstance(shard, ShardPart):
        shard, row = shard.locate(row)
    return shard, row


def fingerprint(paths: Sequence[Path]) -> bytes:
    """Return 16 bytes that identify the content of the files and folders of a shard.

    A file's digest covers its size and three excerpts. A folder's covers the names and sizes of its files, and three of
    the files.

    Args:
        paths: local files; none for a shard at an address, which would have to be fetched. The digest is then empty.

    Raises:
        OSError: a file cannot be read.
    """
    if not paths:
        return b""
    digest = blake2b(digest_size=16)
    for path in paths:
        files = [path]
        if path.is_dir():
            # LMDB writes lock.mdb even when it only reads.
            files = sorted(file for file in path.rglob("[!.]*") if file.is_file() and file.name != "lock.mdb")
            for file in files:
                line = f"{file.relative_to(path)}\t{file.stat().st_size}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
            if files:
                files = [files[0], files[len(files) // 2], files[-1]]
        for file in files:
            for excerpt in _read_excerpts(file):
                digest.update(excerpt)
    return digest.digest()


def _read_excerpts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        yield size.to_bytes(8, "little")
        for start in (0, size // 2, max(0, size - EXCERPT_BYTES)):
            yield os.pread(file.fileno(), EXCERPT_BYTES, start)
