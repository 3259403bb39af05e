"""The order of samples: a function of the seed and of the position in an endless stream, without any other state.

What is drawn at a position does not depend on what was drawn before it. A run that continues at a position therefore
needs to know that position alone, and any number of ranks and workers may share the stream.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

BLOCK = 65_536
"""Positions that hold every source exactly in its share; a share is a whole number of them, at least one."""


class Draw(IntEnum):
    """What a random number is drawn for; draws for different purposes are independent."""

    SHARDS = 0
    WINDOW = 1
    MIXTURE = 2
    IMAGES = 3
    TEXT = 4
    UNIT = 5


def generator(draw: Draw, seed: int, *position: int) -> np.random.Generator:
    """Random numbers for one purpose at one position, of up to three coordinates.

    A counter-based generator (Philox, Salmon et al. 2011): seed and purpose are its key, the position is the upper part
    of its counter, so that no two positions ever share a number.
    """
    counter = [0, *position, *[0] * (3 - len(position))]
    return np.random.Generator(np.random.Philox(key=[seed, draw], counter=counter))


class Draws(Protocol):
    """Which samples of the shards are in an epoch, where that is drawn (`data/selection.py`)."""

    expected: float

    def sizes(self, epoch: int) -> np.ndarray: ...

    def rows(self, epoch: int, shard: int) -> np.ndarray: ...


class ShardOrder:
    """The samples of one source in a row that is new in every epoch: shards in random order, one behind the other.

    Args:
        sizes: samples of each shard; at least one sample in all.
        seed: the run's.
        source: number of the source, so that equal sources are in different orders.
        draws: which of the samples are in an epoch; None: all of them in each.
    """

    def __init__(self, sizes: Sequence[int] | np.ndarray, seed: int, source: int = 0, draws: Draws | None = None):
        self._sizes = np.asarray(sizes, np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self.samples = int(self._sizes.sum())
        self.draws = draws
        self.key = seed, source
        # Groups do not come to the end of an epoch with the same row of a batch.
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    @property
    def expected(self) -> int:
        """The samples of an epoch, on average."""
        return self.samples if self.draws is None else max(1, round(self.draws.expected))

    def size(self, epoch: int) -> int:
        """The samples of an epoch."""
        return self.samples if self.draws is None else int(self.draws.sizes(epoch).sum())

    def sample(self, epoch: int, position: int) -> int:
        """Number of the sample at a position of an epoch's row, counted over all shards as they were given."""
        shards, ends = self._epoch(epoch)
        number = int(np.searchsorted(ends, position, side="right"))
        shard = shards[number]
        row = position - (int(ends[number - 1]) if number else 0)
        return int(self._starts[shard]) + (row if self.draws is None else int(self.draws.rows(epoch, shard)[row]))

    def shards(self, epoch: int, first: int, last: int) -> list[int]:
        """The shards that hold the positions from `first` up to `last`, in their order."""
        shards, ends = self._epoch(epoch)
        begin, end = np.searchsorted(ends, [first, last], side="right")
        found = shards[begin : end + 1]
        return found[self._sizes_in(epoch)[found] > 0].tolist()

    def _sizes_in(self, epoch: int) -> np.ndarray:
        return self._sizes if self.draws is None else self.draws.sizes(epoch)

    def _shuffled(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        seed, source = self.key
        shards = generator(Draw.SHARDS, seed, source, epoch).permutation(len(self._sizes))
        return shards, np.cumsum(self._sizes_in(epoch)[shards])


class SampleOrder:
    """Which sample of one source is at a position of a group's endless stream; each sample once in every epoch.

    Where samples are drawn, an epoch has those that are drawn for it.

    An epoch's row of samples is cut into one part for each group, of sizes that differ by one at most: whole shards,
    but for the two at its ends. A part is cut into windows of nearly equal size, which are shuffled each on its own.
    Reading thus goes from shard to shard: a window touches as many shards as its samples fill, and at most two beyond.

    Args:
        shards: of the source; its groups share them.
        buffer: largest window, in samples.
        group: number of the group.
        groups: how many there are; no more than samples.
    """

    def __init__(self, shards: ShardOrder, buffer: int = 100_000, group: int = 0, groups: int = 1):
        self._shards = shards
        self._group, self._groups, self._buffer = group, groups, buffer
        self._part = lru_cache(maxsize=4)(self._part_of)
        self.samples = self._part(0).samples
        self._starts = [0]  # of the epochs, where these differ in size
        # Windows are numbered over all groups, so that each is shuffled in its own way.
        self._first_window = group * -(-shards.samples // buffer)
        self._at = -1, -1

    def __getitem__(self, position: int) -> int:
        """Number of the sample, counted over all shards as they were given."""
        epoch, window, position = self.window(position)
        part = self._part(epoch)
        if (epoch, window) != self._at:
            seed, source = self._shards.key
            self._order = generator(Draw.WINDOW, seed, source, epoch, self._first_window + window).permutation(
                min(part.width, part.samples - window * part.width)
            )
            self._at = epoch, window
        return self._shards.sample(epoch, part.first + window * part.width + int(self._order[position]))

    def window(self, position: int) -> tuple[int, int, int]:
        """The epoch of a position, its window in there, and the position in that window."""
        if self._shards.draws is None:
            epoch, position = divmod(position, self.samples)
        else:
            while self._starts[-1] <= position:
                self._starts.append(self._starts[-1] + self._part(len(self._starts) - 1).samples)
            epoch = bisect_right(self._starts, position) - 1
            position -= self._starts[epoch]
        return epoch, *divmod(position, self._part(epoch).width)

    def window_shards(self, epoch: int, window: int) -> list[int]:
        """The shards that a window is of; a window behind an epoch's last is the next epoch's first."""
        while window >= (windows := self._part(epoch).windows):
            epoch, window = epoch + 1, window - windows
        part = self._part(epoch)
        first = part.first + window * part.width
        last = min(first + part.width, part.first + part.samples) - 1
        return self._shards.shards(epoch, first, last)

    def _part_of(self, epoch: int) -> _Part:
        size = self._shards.size(epoch)
        first = size * self._group // self._groups
        samples = size * (self._group + 1) // self._groups - first
        windows = -(-samples // self._buffer)
        return _Part(first, samples, windows, -(-samples // max(windows, 1)))


class _Part(NamedTuple):
    """Of an epoch, a group's: its first sample, how many they are, its windows, and the samples of one."""

    first: int
    samples: int
    windows: int
    width: int


class Mixture:
    """Which source is at a position of the endless stream, and how often it was drawn before.

    Every block of 65,536 positions holds each source equally often, in a new order drawn from the seed, so that
    the shares hold exactly over blocks and as well as chance lets them within.

    Args:
        weights: shares of the sources, of any sum.
        seed: the run's.
        group: that the stream is of; each has an order of its own.
    """

    def __init__(self, weights: Sequence[float], seed: int, group: int = 0):
        self._seed, self._group = seed, group
        self.quotas = _quotas(np.asarray(weights, np.float64))
        self._block = -1

    def __getitem__(self, position: int) -> tuple[int, int]:
        """The source's number, and the position in that source's own stream."""
        block, position = divmod(position, BLOCK)
        self._shuffle(block)
        source = int(self._sources[position])
        return source, block * int(self.quotas[source]) + int(self._positions[position])

    def positions(self, position: int) -> list[int]:
        """For each source the samples of it that come before a position: its own next position."""
        block, position = divmod(position, BLOCK)
        self._shuffle(block)
        return (block * self.quotas + np.bincount(self._sources[:position], minlength=len(self.quotas))).tolist()

    def first_positions(self, source: int, count: int) -> list[int]:
        """The first `count` positions that hold a source."""
        found: list[int] = []
        blocks = itertools.count()
        while len(found) < count:
            self._shuffle(block := next(blocks))
            found += (block * BLOCK + np.flatnonzero(self._sources == source)[: count - len(found)]).tolist()
        return found

    def _shuffle(self, block: int) -> None:
        if block == self._block:
            return
        self._block = block
        every = np.repeat(np.arange(len(self.quotas)), self.quotas)
        order = generator(Draw.MIXTURE, self._seed, block, self._group).permutation(every)
        self._sources = order.astype(np.uint16)  # there is a block of every group
        self._positions = np.empty(BLOCK, np.int32)
        for source, quota in enumerate(self.quotas):
            self._positions[self._sources == source] = np.arange(quota)


def _quotas(weights: np.ndarray) -> np.ndarray:
    """Positions of a block by weight: whole numbers by largest remainder, at least one for each source."""
    exact = weights / weights.sum() * BLOCK
    quotas = np.maximum(1, np.floor(exact)).astype(np.int64)
    missing = BLOCK - quotas.sum()
    if missing > 0:
        quotas[np.argsort(quotas - exact)[:missing]] += 1
    else:  # what lifted the smallest comes from the largest
        quotas[np.argmax(quotas)] += missing
    return quotas


class RowsByImage:
    """The rows of a source by image, for epochs in which each image occurs once, with one text (`Data.unit: image`).

    A row whose image has no name is a unit of its own. A unit's rows take turns: each occurs once in as many epochs as
    there are of them, in an order that is drawn each time.

    Args:
        shards: for each shard the name of every row's image, as `ShardedSource.image_names` gives them. Rows of one
            image lie in one shard, otherwise it is a unit of each.
        seed: the run's.
        number: of the source, so that equal sources take other turns.

    Attributes:
        shard_sizes: units of each shard.
    """

    def __init__(self, shards: Iterable[Sequence[str | None]], seed: int, number: int = 0):
        self._key = seed, number
        units, rows = [np.zeros(0, np.int64)], 0
        self.shard_sizes: list[int] = []
        for names in shards:
            own = _numbered(names)
            units.append(own + sum(self.shard_sizes))
            self.shard_sizes.append(int(own.max(initial=-1)) + 1)
            rows += len(names)
        joined = np.concatenate(units)
        self._rows = np.argsort(joined, kind="stable")
        self._ends = np.cumsum(np.bincount(joined, minlength=sum(self.shard_sizes)))

    def __len__(self) -> int:
        return len(self._ends)

    def largest(self, values: np.ndarray) -> np.ndarray:
        """For each unit the largest of its rows' values."""
        return np.maximum.reduceat(values[self._rows], np.append(0, self._ends[:-1]))

    def row(self, unit: int, epoch: int) -> int:
        """The row that a unit is in an epoch."""
        first = int(self._ends[unit - 1]) if unit else 0
        rows = self._rows[first : self._ends[unit]]
        turn, position = divmod(epoch, len(rows))
        seed, number = self._key
        order = generator(Draw.UNIT, seed, number, unit, turn).permutation(len(rows)) if len(rows) > 1 else [0]
        return int(rows[order[position]])


def _numbered(names: Sequence[str | None]) -> np.ndarray:
    """The names as numbers from 0 in the order in which they come first; every None is another."""
    known: dict[object, int] = {}
    return np.array([known.setdefault(row if name is None else name, len(known)) for row, name in enumerate(names)],
                    np.int64)  # fmt: skip
