"""Files that are scanned once and then read by row; what a scan found is kept for the next start."""

from __future__ import annotations

import io
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np

from ernie_vil2.data.readers.locations import LocalFile, Location, as_location
from ernie_vil2.data.readers.prepared import INDEX
from ernie_vil2.data.samples import MAX_BYTES, check_size
from ernie_vil2.io.files import atomic_write, cache_folder, system_errors_named

Index = dict[str, np.ndarray]
CHECKSUM = 16  # bytes that stand before the arrays; the archive's own leaves its table of contents out
VERSION = 2  # of what the scans write; another one is scanned anew
WORTH_KEEPING = 0.5  # seconds; a scan that is quicker is repeated instead


class IndexedFile(ABC):
    """A file whose rows are found by one scan, and then read by number.

    The index and the open file are held from the first row on until `release`; the length is always known.

    Args:
        place: the file.
        rows: how many it has, if that is known; it is then not read before its first row is.

    Raises:
        ValueError: the file is of another kind.
    """

    kind: ClassVar[str]
    """Of index; distinguishes those of two readers of one file."""

    def __init__(self, place: str | Path | Location, rows: int | None = None):
        self.location = as_location(place)
        self._file = ByteRanges(self.location)
        self._identity = self.location.identity()
        self._index: Index | None = None
        self._size = rows
        if rows is None:
            self._size = self._rows(self.index)
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
            if self._size is None:
                raise
            raise OSError(str(error)) from error  # it was to be read, and cannot be
        if self._size not in (None, self._rows(index)):
            raise OSError(
                f"{self.name} holds {self._rows(index)} samples, not {self._size} as {INDEX} says; copy it again, or "
                f"delete {INDEX}"
            )
        return index

    def release(self) -> None:
        """Gives index and open file back; the next row loads them again."""
        self._index = None
        self._file.close()

    def __len__(self) -> int:
        return self._size

    def _bytes(self, start: int, size: int, name: str, most: int = MAX_BYTES) -> bytes:
        """A part of the file; BadSample if it is longer than `most` (as `check_size`), OSError as `ByteRanges.read`."""
        check_size(size, most, name)
        return self._file.read(start, size)

    @abstractmethod
    def _scan(self) -> Index:
        """Reads the file from one end to the other; ValueError if it is of another kind."""

    @abstractmethod
    def _rows(self, index: Index) -> int:
        """Rows that an index lists."""


class ByteRanges:
    """Reads parts of a file. It is opened at first use, so that a reader may be sent to another process."""

    __slots__ = ("_file", "location")

    def __init__(self, location: Location):
        self.location = location
        self._file: BinaryIO | None = None

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on; processes that share the open file do not disturb each other.

        Raises:
            OSError: the file cannot be read, or it ends before that; it has changed since it was indexed.
        """
        if self._file is None:
            self._file = self.location.open()
        data = b""
        while len(data) < size:  # the kernel gives no more than 2 GiB at once
            more = os.pread(self._file.fileno(), size - len(data), offset + len(data))
            if not more:
                raise OSError(f"{self.location.name} ends before byte {offset + size}: it has changed while in use")
            data += more
        return data

    def close(self) -> None:
        """Gives the open file back; the next read opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self):
        self.close()

    def __reduce__(self):
        return ByteRanges, (self.location,)


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
        _keep(path, index)
    return index


def _keep(path: Path, index: Index) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.savez(content, **index)
        with atomic_write(path) as aside, open(aside, "wb") as file:
            file.write(_checksum(content.getbuffer()))
            file.write(content.getbuffer())
    except OSError:  # as above
        pass


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
