"""Files that are scanned once and then read by row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from ernie_vil2.data.samples import MAX_BYTES, check_size
from ernie_vil2.data.sources.index import Index, cached_index
from ernie_vil2.data.sources.locations import ByteRanges, LocalFile, Location, as_location
from ernie_vil2.data.sources.prepared import INDEX
from ernie_vil2.files import system_errors_named


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
    """Of index; tells the indexes of two readers of one file apart."""

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
