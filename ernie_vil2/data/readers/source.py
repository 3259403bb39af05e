"""What every kind of source has in common, and many of them as one."""

import os
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np

from ernie_vil2.data.decoding import ImageRemark
from ernie_vil2.data.readers.fetching import FetchAhead
from ernie_vil2.data.readers.remote import FetchError, PipeOutput, RemoteFile
from ernie_vil2.data.readers.shard_files import Location
from ernie_vil2.data.samples import BadSample, Reason, Sample, SampleSequence
from ernie_vil2.io.terminal import RunError

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
