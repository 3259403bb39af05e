"""Shards of samples: a file that is scanned once and read by row, and many shards as one source."""

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
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

import numpy as np

from ernie_vil2.data.decoding import ImageRemark
from ernie_vil2.data.readers.locations import INDEX, LocalFile, Location, as_location
from ernie_vil2.data.readers.remote import FetchAhead, FetchError, PipeOutput, RemoteFile
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
from ernie_vil2.io.files import atomic_write, cache_folder, system_errors_named
from ernie_vil2.io.terminal import RunError

Index = dict[str, np.ndarray]
CHECKSUM = 16  # bytes in front of the arrays; the archive's own leaves its table of contents out
VERSION = 1  # of what the scans write; another one is scanned again
WORTH_KEEPING = 0.5  # seconds; a scan that is quicker is repeated instead
PIECE = 2**20  # bytes of a line that are looked at together
MAX_LINE = 2**29  # bytes; a line of less, but too many for a row, is a bad sample
MAX_COLUMNS = 1000  # more are left together
THREADS = 8  # that look at the shards; it is waiting for the disk, mostly
OPEN_SHARDS = 128  # shards whose index and file a process keeps open at once; more are opened in turn
DEADLINE = 300.0  # seconds for which a shard that a run needs is asked for again
PAUSES = 2.0, 30.0  # the first and the longest between two attempts
LATE = "shard fetched after attempts that failed"  # remark on the sample that was read of it first
PART = 16_384  # bytes that are read at the beginning, in the middle and at the end of a file


class Shard(SampleSequence, Protocol):
    """A source that is opened at its first sample.

    One that knows what a row's image is called without reading it has a method `image_name(index)`, which raises
    BadSample where the row cannot be used.
    """

    @property
    def name(self) -> str:
        """Its address."""

    @property
    def files(self) -> Sequence[Path]:
        """Local files, or a folder, that its rows are read from."""

    def release(self) -> None:
        """Gives back what is open; the next sample opens it again."""


class IndexedFile(ABC):
    """A file whose rows are found by one scan, and then read by number.

    The index and the open file are kept from the first row on until `release`; the length is always known.

    Args:
        location: the file.
        rows: how many it has, if that is known; it is then not read before its first row is.

    Raises:
        ValueError: the file is of another kind.
    """

    kind: str
    """Of index; distinguishes those of two readers of one file."""

    def __init__(self, location: str | Path | Location, rows: int | None = None):
        self.location = as_location(location)
        self._file: BinaryIO | None = None
        self._identity = self.location.identity()
        self._index: Index | None = None
        self._expected = rows  # None: whatever the first scan finds
        self._size = self._expected = self._rows(self.index) if rows is None else rows
        self.release()

    @property
    def name(self) -> str:
        """The address of the file."""
        return self.location.name

    @property
    def files(self) -> list[Path]:
        """The file, if it lies here."""
        return [Path(self.name)] if isinstance(self.location, LocalFile) else []

    @property
    def index(self) -> Index:
        """What the scan found, loaded when it is needed; OSError if the file is another one by now."""
        if self._index is None:
            if self.location.identity() != self._identity:
                raise OSError(f"{self.name} has changed while in use")
            self._index = self._indexed()
        return self._index

    def _indexed(self) -> Index:
        try:
            with system_errors_named(self.name):
                index = cached_index(self.kind, self._identity, self._scan)
        except ValueError as error:
            if self._expected is None:
                raise
            raise OSError(str(error)) from error  # it was to be read, and cannot be
        if self._expected not in (None, self._rows(index)):
            raise OSError(
                f"{self.name} holds {self._rows(index)} samples, not {self._expected} as {INDEX} says; copy it again, "
                f"or delete {INDEX}"
            )
        return index

    def release(self) -> None:
        """Gives index and open file back; the next row loads them again."""
        self._index = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}  # opened again where it is sent to

    def __len__(self) -> int:
        return self._size

    def _bytes(self, start: int, size: int, name: str, most: int = MAX_BYTES) -> bytes:
        """`size` bytes from `start` on; processes that share the open file do not disturb each other.

        Raises:
            BadSample: they are more than `most` (as `check_size`).
            OSError: the file cannot be read, or it ends before that; it has changed since it was indexed.
        """
        check_size(size, most, name)
        if self._file is None:
            self._file = self.location.open()
        data = b""
        while len(data) < size:  # the kernel gives no more than 2 GiB at once
            more = os.pread(self._file.fileno(), size - len(data), start + len(data))
            if not more:
                raise OSError(f"{self.name} ends before byte {start + size}: it has changed while in use")
            data += more
        return data

    @abstractmethod
    def _scan(self) -> Index:
        """Reads the file from one end to the other; ValueError if it is of another kind."""

    @abstractmethod
    def _rows(self, index: Index) -> int:
        """Rows that an index lists."""


def cached_index(kind: str, identity: str, scan: Callable[[], Index]) -> Index:
    """The index of a shard: from the cache folder, or from a scan, which is kept there if it took long.

    Args:
        kind: of index, so that two readers of one file share none.
        identity: of the file and its content (`Location.identity`).
    """
    key = blake2b(f"{VERSION} {kind} {identity}".encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    path = cache_folder() / "indexes" / key
    with suppress(OSError):  # a cache that cannot be read only costs time
        kept = path.read_bytes()
        content = kept[CHECKSUM:]
        if kept[:CHECKSUM] == _checksum(content):  # otherwise it is damaged: as if it were not there
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                return dict(stored)
    start = time.monotonic()
    index = scan()
    if time.monotonic() - start > WORTH_KEEPING:
        with suppress(OSError):  # as above
            path.parent.mkdir(parents=True, exist_ok=True)
            buffer = io.BytesIO()
            arrays: dict[str, Any] = index  # a name might be an option of savez, say the types of NumPy 2
            np.savez(buffer, **arrays)
            with atomic_write(path) as aside, aside.open("wb") as file:
                file.write(_checksum(buffer.getbuffer()))
                file.write(buffer.getbuffer())
    return index


def _checksum(content: bytes | memoryview) -> bytes:
    return blake2b(content, digest_size=CHECKSUM).digest()


def pack_names(names: list[str]) -> Index:
    """Texts, or names of files in Python's form, as two arrays: their bytes in one row, and where each ends."""
    encoded = [name.encode("utf-8", "surrogateescape") for name in names]
    ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
    return {"name_bytes": np.frombuffer(b"".join(encoded), np.uint8), "name_ends": ends}


def unpack_name(index: Index, row: int) -> str:
    """A text of `pack_names` by its number."""
    ends = index["name_ends"]
    return index["name_bytes"][ends[row - 1] if row else 0 : ends[row]].tobytes().decode("utf-8", "surrogateescape")


class Lines(IndexedFile):
    """Lines of a file by number, found by offset: a line that holds an image can be megabytes long. ValueError if the
    file is empty."""

    kind: str = "lines"
    longest: ClassVar[int] = MAX_BYTES

    def _scan(self) -> Index:
        with self.location.open() as file:
            bounds = np.fromiter(accumulate((size for size, _ in measured_lines(file, self.name)), initial=0), np.int64)
        if len(bounds) == 1:
            raise ValueError(f"{self.name}: no rows in this file; is it whole?")
        return {"bounds": bounds}

    def _rows(self, index: Index) -> int:
        return len(index["bounds"]) - 1

    def row_name(self, index: int) -> str:
        """File and line, for a person who looks for the row."""
        return f"{self.name.rpartition('/')[2]}:{index + 1}"

    def line(self, index: int, first: int | None = None) -> bytes:
        """A line without its end and without byte order mark; `first` reads that many of its bytes alone. BadSample if
        it is too long (`check_size`)."""
        start, end = self.index["bounds"][index : index + 2].tolist()
        size = end - start if first is None else min(first, end - start)
        line = self._bytes(start, size, Lines.row_name(self, index), self.longest)
        return (line if index else line.removeprefix(BYTE_ORDER_MARK)).rstrip(b"\r\n")

    def columns(self, index: int, first: int | None = None) -> list[bytes]:
        """The columns of a TSV line; `first` reads that many of its bytes alone, so that the last column is cut."""
        return self.line(index, first).split(b"\t", MAX_COLUMNS)


class TextLines(Lines):
    """Lines without images."""

    longest = MAX_TEXT_BYTES


def measured_lines(file: BinaryIO, name: str) -> Iterator[tuple[int, bool]]:
    """Bytes of each line, its end included, and whether it is blank; a line of any length takes little memory.
    ValueError if a line does not end, as in a file that is not a text."""
    size, blank = 0, True
    while piece := file.readline(PIECE):
        size += len(piece)
        if size > MAX_LINE:
            raise ValueError(f"{name}: a line of more than {MAX_LINE >> 20} MiB; is it a text file?")
        blank = blank and piece.isspace()
        if piece.endswith(b"\n"):
            yield size, blank
            size, blank = 0, True
    if size:
        yield size, blank


def decode_base64(text: bytes, name: str) -> bytes:
    """What base64 means, in the standard or the URL-safe alphabet, with blanks; BadSample if it is none."""
    # b64decode drops characters that it does not know unless asked to validate.
    text = text.replace(b"-", b"+").replace(b"_", b"/")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:  # blanks, perhaps; looking for them in every image would take half as long as decoding it
        try:
            return base64.b64decode(b"".join(text.split()), validate=True)
        except binascii.Error as error:
            raise BadSample(Reason.MALFORMED_BASE64, name) from error


class ShardedSource:
    """Many shards, one after the other; a process keeps at most `most_open` of them open.

    A file that cannot be read any more while the run goes on makes its samples bad ones; it does not end the run. One
    that cannot be fetched is asked for again for up to `DEADLINE` seconds, also when it is opened another time.

    Threads may read at the same time; they take turns, since one of them may release the shard of another.

    Args:
        shards: in their order.
        locations: of their files, if these may have to be fetched.
    """

    most_open = OPEN_SHARDS

    def __init__(self, shards: Sequence[Shard], locations: Sequence[Location] = ()):
        self.shards = tuple(shards)
        self._elsewhere: dict[int, RemoteFile | PipeOutput] = {
            number: location
            for number, location in enumerate(locations)
            if isinstance(location, RemoteFile | PipeOutput)
        }
        self._windows: dict[int, tuple[list[int], list[int]]] = {}
        self._ahead: FetchAhead | None = None
        self.shard_sizes = np.array([len(shard) for shard in shards], np.int64)
        self._ends = np.cumsum(self.shard_sizes)
        self._opened: OrderedDict[int, None] = OrderedDict()
        self._unreadable: dict[int, Reason] = {}
        self._turn = threading.Lock()

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def contents(self) -> list[str]:
        """The name of each shard and its number of samples, by which work that was stopped knows them again."""
        return [f"{shard.name} {size}" for shard, size in zip(self.shards, self.shard_sizes, strict=True)]

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the content of the shards; it takes a few reads a shard. OSError if a file cannot be read."""
        with ThreadPoolExecutor(THREADS) as threads:
            parts = threads.map(fingerprint, [shard.files for shard in self.shards])
            return blake2b(b"".join(parts), digest_size=8).hexdigest()

    def locate(self, index: int) -> tuple[int, int]:
        """The shard that holds a sample, and its row there; IndexError if there is no such sample."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return shard, int(index - (self._ends[shard] - self.shard_sizes[shard]))

    def where(self, index: int) -> str:
        """Shard and row of a sample, for a person who looks for it."""
        shard, row = self.locate(index)
        return f"{self.shards[shard].name}, {row + 1}"

    @property
    def files(self) -> list[Path]:
        """The local files that rows are read from."""
        paths = chain.from_iterable(shard.files for shard in self.shards)
        # The folder of an LMDB holds one for images and one for pairs.
        files = ([path] if path.is_file() else sorted(path.glob("*/data.mdb")) for path in paths)
        return list(chain.from_iterable(files))

    @property
    def names_images(self) -> bool:
        """Whether the images' names are known without reading the images."""
        # The rows of a Parquet file hold their images, and are read whole.
        return all(hasattr(shard, "image_name") and not shard.name.endswith(".parquet") for shard in self.shards)

    def image_names(self) -> Iterator[list[str | None]]:
        """For each shard the name of every row's image, None of a row that cannot be used.

        Where the names are not known otherwise, every sample is read.
        """
        first = 0
        for shard, size in zip(self.shards, self.shard_sizes.tolist(), strict=True):
            yield [self._image_name(shard, first, row) for row in range(size)]
            first += size
            shard.release()

    def _image_name(self, shard: Shard, first: int, row: int) -> str | None:
        try:
            return shard.image_name(row) if hasattr(shard, "image_name") else self[first + row].image_name
        except BadSample:
            return None

    def is_here(self, index: int) -> bool:
        """Whether a sample can be read without fetching a file."""
        return self.locate(index)[0] not in self._elsewhere

    @property
    def fetches(self) -> bool:
        """Whether there are shards that have to be fetched."""
        return bool(self._elsewhere)

    def fetch_ahead(self, reader: int, now: Sequence[int], later: Sequence[int]) -> None:
        """Fetches shards before they are read, as far as the cache has room, and closes those that are read no more.

        Args:
            reader: a number for who reads; what others have named remains wanted.
            now: numbers of the shards that it reads from now on.
            later: of those that it reads afterwards.
        """
        if self._ahead is None or self._ahead.process != os.getpid():
            self._ahead = FetchAhead(lambda number: self._elsewhere[number].open(ahead=True))
        self._windows[reader] = ([number for number in now if number in self._elsewhere],
                                 [number for number in later if number in self._elsewhere])  # fmt: skip
        all_now, all_later = (
            dict.fromkeys(chain.from_iterable(part)) for part in zip(*self._windows.values(), strict=True)
        )
        for number in self._opened.keys() & self._elsewhere.keys() - all_now.keys() - all_later.keys():
            self._release(number)
        self._ahead.want(all_now, all_later)

    def __getitem__(self, index: int) -> Sample:
        number, row = self.locate(index)
        with self._turn:
            return self._row(number, row)

    def _row(self, number: int, row: int) -> Sample:
        shard = self.shards[number]
        if number in self._unreadable:
            raise BadSample(self._unreadable[number], shard.name)
        self._hold(number)
        try:
            sample = self._read(shard, row)
        except OSError as error:
            not_fetched = isinstance(error, FetchError)
            self._unreadable[number] = Reason.NOT_FETCHED if not_fetched else Reason.UNREADABLE_FILE
            name = str(error) if not_fetched else f"{shard.name} ({error})"
            raise BadSample(self._unreadable[number], name) from error
        location = self._elsewhere.get(number)
        if isinstance(location, RemoteFile) and location.failures:
            location.failures = 0
            warnings.warn(LATE, ImageRemark, stacklevel=2)
        return sample

    def _read(self, shard: Shard, row: int) -> Sample:
        if type(shard).__module__.startswith("ernie_vil2."):
            return self._fetched(shard, row)
        try:
            return self._fetched(shard, row)
        except (OSError, BadSample):
            raise
        except Exception as error:
            made = f"{type(shard).__module__}.{type(shard).__qualname__}"
            raise RunError(
                f"{shard.name}, {row + 1}: {made} raised {type(error).__name__}: {error}; docs/extending.md says what "
                "a sample has"
            ) from error

    def _fetched(self, shard: Shard, row: int) -> Sample:
        deadline, (pause, longest) = time.monotonic() + DEADLINE, PAUSES
        while True:
            try:
                return shard[row]
            except FetchError as error:
                if error.lasting or time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, longest)

    def _hold(self, number: int) -> None:
        self._opened[number] = None
        self._opened.move_to_end(number)
        if len(self._opened) > self.most_open:
            self._release(next(iter(self._opened)))

    def _release(self, number: int) -> None:
        del self._opened[number]
        self._unreadable.pop(number, None)
        self.shards[number].release()


def fingerprint(paths: Sequence[Path]) -> bytes:
    """Of the files and folders of a shard, 16 bytes; empty for none, as of an address, which would have to be fetched.

    A file's digest is of its size and three parts. A folder's is of its files' names and sizes, and of three of them.

    Raises:
        OSError: a file cannot be read.
    """
    if not paths:
        return b""
    content = blake2b(digest_size=16)
    for path in paths:
        files = [path]
        if path.is_dir():
            # LMDB writes lock.mdb when it reads.
            files = sorted(file for file in path.rglob("[!.]*") if file.is_file() and file.name != "lock.mdb")
            for file in files:
                content.update(f"{file.relative_to(path)}\t{file.stat().st_size}\n".encode("utf-8", "surrogateescape"))
            files = [files[0], files[len(files) // 2], files[-1]] if files else []
        for part in chain.from_iterable(map(_parts, files)):
            content.update(part)
    return content.digest()


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        yield size.to_bytes(8, "little")
        for start in (0, size // 2, max(0, size - PART)):
            yield os.pread(file.fileno(), PART, start)
