"""Where the bytes of a shard lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol


class Location(Protocol):
    """A file by its address. `name` is the address as a person writes it."""

    name: str

    def identity(self) -> str:
        """Changes when the file's content does; what was found out about the file is kept under it."""
        ...

    def local(self) -> Path:
        """The file on this machine; it may have to be fetched first."""
        ...


class LocalFile:
    """A file that is here already."""

    def __init__(self, path: str | Path):
        self.name = str(path)

    def identity(self) -> str:
        stat = os.stat(self.name)
        return f"{os.path.abspath(self.name)} {stat.st_size} {stat.st_mtime_ns}"

    def local(self) -> Path:
        return Path(self.name)


def as_location(place: str | Path | Location) -> Location:
    """A path as location; a location as it is."""
    return LocalFile(place) if isinstance(place, str | Path) else place


class ByteRanges:
    """Reads parts of a file. It is opened at first use, so that a reader may be sent to another process."""

    def __init__(self, location: Location):
        self.location = location
        self._handle: int | None = None

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on.

        Raises:
            OSError: the file cannot be read, or it ends before that; it has changed since it was indexed.
        """
        if self._handle is None:
            self._handle = os.open(self.location.local(), os.O_RDONLY | os.O_CLOEXEC)
        data = os.pread(self._handle, size, offset)
        while len(data) < size:  # the kernel gives no more than 2 GiB at once
            more = os.pread(self._handle, size - len(data), offset + len(data))
            if not more:
                raise OSError(f"{self.location.name} ends before byte {offset + size}: it has changed while in use")
            data += more
        return data

    def close(self) -> None:
        """Gives the open file back; the next read opens it again."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __del__(self):
        self.close()

    def __reduce__(self):
        return ByteRanges, (self.location,)
