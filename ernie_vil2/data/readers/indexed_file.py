"""Files that are scanned once and then read by row, lines among them; a scan is kept for the next start."""

import base64
import binascii
import io
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from ernie_vil2.data.readers.shard_files import INDEX, LocalFile, Location, as_location
from ernie_vil2.data.samples import MAX_BYTES, MAX_TEXT_BYTES, BadSample, Reason, check_size
from ernie_vil2.data.source_files import BYTE_ORDER_MARK
from ernie_vil2.io.files import atomic_write, cache_folder, system_errors_named

Index = dict[str, np.ndarray]
CHECKSUM = 16  # bytes in front of the arrays; the archive's own leaves its table of contents out
VERSION = 1  # of what the scans write; another one is scanned again
WORTH_KEEPING = 0.5  # seconds; a scan that is quicker is repeated instead
PIECE = 2**20  # bytes of a line that are looked at together
MAX_LINE = 2**29  # bytes; a line of less, but too many for a row, is a bad sample
MAX_COLUMNS = 1000  # more are left together


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
