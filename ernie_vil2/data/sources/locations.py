"""Where the bytes of a shard lie: here, at an address that fsspec opens, or in the output of a command."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ernie_vil2.data.sources.fetching import fetched, shows_progress

ATTEMPTS = 3  # to reach a server
PAUSE = 2.0  # seconds before the second attempt, twice that before the third
SHELL = "/bin/bash"
# What a file system may say about the version of a file, besides its size.
VERSIONS = ("ETag", "etag", "LastModified", "last_modified", "mtime", "updated", "created", "sha256")


class Location(Protocol):
    """A file by its address. `name` is the address as a person writes it."""

    name: str

    def identity(self) -> str:
        """Changes when the file's content does; what was found out about the file is kept under it."""
        ...

    def open(self) -> BinaryIO:
        """The file, readable at any place; it may have to be fetched first."""
        ...


class LocalFile:
    """A file that is here already.

    OSError says that it cannot be read, or that it is no file: a pipe, above all, which would be waited for.
    """

    def __init__(self, path: str | Path):
        self.name = str(path)

    def identity(self) -> str:
        with self._explained():
            found = os.stat(self.name)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{self.name}: not an ordinary file; rows are read at random, so write it to a disk first")
        return f"{os.path.abspath(self.name)} {found.st_size} {found.st_mtime_ns}"

    def open(self) -> BinaryIO:
        with self._explained():
            return open(self.name, "rb")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise type(error)(
                f"{self.name}: {error.strerror}; check that it is there and may be read by this user"
            ) from error


class RemoteFile:
    """A file at an address that fsspec opens (`s3://`, `https://`, `hdfs://`, ...); it is fetched into the cache.

    The server is asked when the file is needed. FileNotFoundError then says that there is no such file, ValueError that
    what this kind of address needs is not installed.
    """

    def __init__(self, address: str):
        self.name = address
        self._info: tuple[int | None, str] | None = None

    def _size_and_identity(self) -> tuple[int | None, str]:
        if self._info is None:
            self._info = _stable(self._ask)
        return self._info

    def _ask(self) -> tuple[int | None, str]:
        system, path = file_system(self.name)
        try:
            info = system.info(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.name}: no such file; check the address and your access to it") from error
        version = next((_plain(info[key]) for key in VERSIONS if info.get(key)), "")
        # Not the address as it was written: the same file may have several.
        return info.get("size"), f"{system.unstrip_protocol(path)} {info.get('size')} {version}"

    def identity(self) -> str:
        return self._size_and_identity()[1]

    def open(self) -> BinaryIO:
        size, _ = self._size_and_identity()
        return fetched(self.identity(), self.name, lambda path: _stable(lambda: self._fetch(path)), size)

    def _fetch(self, path: Path) -> None:
        from fsspec.callbacks import TqdmCallback

        system, remote = file_system(self.name)
        bar = {"desc": self.name.rpartition("/")[2], "unit": "B", "unit_scale": True, "unit_divisor": 1024}
        with TqdmCallback({**bar, "delay": 2, "leave": False, "disable": not shows_progress()}) as callback:
            system.get_file(remote, str(path), callback=callback)
        got, (size, _) = path.stat().st_size, self._size_and_identity()
        if size is not None and got != size:
            raise OSError(f"{self.name}: {got} of {size} bytes arrived")


class PipeOutput:
    """What a shell command writes to its standard output; it runs once and the output is kept in the cache.

    The command stands for its content: to run a changed one again, delete its file in the cache, or change the command.
    """

    def __init__(self, command: str):
        self.command = command.strip()
        self.name = f"pipe:{self.command}"

    def identity(self) -> str:
        return self.name

    def open(self) -> BinaryIO:
        return fetched(self.identity(), "pipe.tar", self._run, None)

    def _run(self, path: Path) -> None:
        # A pipe of which any part fails has failed; sh would only see the last.
        call = [SHELL, "-o", "pipefail", "-c"] if os.path.exists(SHELL) else ["sh", "-c"]
        with open(path, "wb") as output:
            done = subprocess.run(
                [*call, self.command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE
            )
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()[-500:]
            raise OSError(
                f"{self.name}: the command ended with status {done.returncode}: {said or '(it said nothing)'}"
            )


def as_location(place: str | Path | Location) -> Location:
    """A path as location; a location as it is."""
    return LocalFile(place) if isinstance(place, str | Path) else place


def file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system of an address, and the path in it.

    Raises:
        ValueError: what this kind of address needs is not installed.
    """
    from fsspec.core import url_to_fs

    try:
        # A kept instance cannot be used after a fork.
        return url_to_fs(address, skip_instance_cache=True)
    except (ValueError, ImportError) as error:
        raise ValueError(f"{address}: fsspec cannot open it ({error}); or fetch it and name the local file") from error


def _stable(ask):
    """The answer of a server that may fail now and then."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return ask()
        except FileNotFoundError:
            raise
        except OSError:
            if attempt == ATTEMPTS:
                raise
            time.sleep(PAUSE * attempt)


def _plain(version: Any) -> str:
    return version.isoformat() if isinstance(version, date) else str(version)


class ByteRanges:
    """Reads parts of a file. It is opened at first use, so that a reader may be sent to another process."""

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
