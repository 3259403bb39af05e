"""What every kind of source has in common, and many of them as one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import numpy as np

from ernie_vil2.data.samples import BadSample, Reason, Sample
from ernie_vil2.data.sources.fingerprint import fingerprint
from ernie_vil2.data.sources.locations import FetchError

THREADS = 8  # that look at the shards; it is waiting for the disk, mostly
HELD_SHARDS = 128
"""Shards whose index and file a process holds at once; more are opened in turn."""


class Source(Protocol):
    """Random access to samples; reading one raises BadSample when it cannot be used."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class Shard(Source, Protocol):
    """A source that is opened at its first sample."""

    name: str
    """Its address."""

    files: Sequence[Path]
    """Local files, or a folder, that its rows are read from."""

    def release(self) -> None:
        """Gives back what is open; the next sample opens it again."""


class Sources:
    """Many shards, one behind the other, of which a process holds at most `held` open.

    A file that cannot be read any more while the run goes on makes its samples bad ones; it does not end the run.
    """

    held = HELD_SHARDS

    def __init__(self, shards: Sequence[Shard]):
        self.shards = tuple(shards)
        self.shard_sizes = np.array([len(shard) for shard in shards], np.int64)
        self._ends = np.cumsum(self.shard_sizes)
        self._held: OrderedDict[int, None] = OrderedDict()
        self._unreadable: dict[int, Reason] = {}

    def __len__(self) -> int:
        return int(self._ends[-1])

    @cached_property
    def fingerprint(self) -> str:
        """Tells the content of the shards from another's; it takes a few reads a shard.

        Raises:
            OSError: a file cannot be read.
        """
        with ThreadPoolExecutor(THREADS) as threads:
            parts = threads.map(fingerprint, [shard.files for shard in self.shards])
            return blake2b(b"".join(parts), digest_size=8).hexdigest()

    def locate(self, index: int) -> tuple[int, int]:
        """The shard that holds a sample, and its row there; IndexError if there is no such sample."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return shard, int(index - (self._ends[shard] - self.shard_sizes[shard]))

    def place(self, index: int) -> str:
        """Shard and row of a sample, for a person who looks for it."""
        shard, row = self.locate(index)
        return f"{self.shards[shard].name}, {row + 1}"

    def __getitem__(self, index: int) -> Sample:
        number, row = self.locate(index)
        shard = self.shards[number]
        if number in self._unreadable:
            raise BadSample(self._unreadable[number], shard.name)
        self._hold(number)
        try:
            return shard[row]
        except OSError as error:
            not_fetched = isinstance(error, FetchError)
            self._unreadable[number] = Reason.NOT_FETCHED if not_fetched else Reason.UNREADABLE_FILE
            name = str(error) if not_fetched else f"{shard.name} ({error})"
            raise BadSample(self._unreadable[number], name) from error

    def _hold(self, number: int) -> None:
        self._held[number] = None
        self._held.move_to_end(number)
        if len(self._held) > self.held:
            oldest, _ = self._held.popitem(last=False)
            self.shards[oldest].release()
