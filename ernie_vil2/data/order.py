"""The order of samples in an endless stream, computed from the seed and the position alone.

What is drawn at a position does not depend on earlier draws. So a run that continues needs to know only its position,
and any number of ranks and workers can share the stream.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

# Positions of the stream in which every source has exactly its share. A share is rounded to a whole number of
# positions, at least one: a smaller block rounds more coarsely, a larger one takes longer to shuffle.
BLOCK = 65_536


class Purpose(IntEnum):
    """The use of a random number; numbers for different purposes are independent.

    The values are part of the generators' keys: changing one changes every run.
    """

    SHARDS = 0
    WINDOW = 1
    MIXTURE = 2
    IMAGES = 3
    TEXT = 4
    UNIT = 5


def make_generator(purpose: Purpose, seed: int, *position: int) -> np.random.Generator:
    """Return the random numbers for one purpose at one position.

    The generator is counter-based (Philox, Salmon et al. 2011). Seed and purpose are its key, and the position is the
    upper part of its counter, so that no two positions share a number.

    Args:
        purpose: what the numbers are used for.
        seed: the run's seed.
        position: up to three coordinates.
    """
    padding = [0] * (3 - len(position))
    counter = [0, *position, *padding]
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=counter))


class EpochDraws(Protocol):
    """The rows that are drawn for each epoch, where rows have probabilities (`data/selection.py`).

    Attributes:
        mean_size: mean number of rows of an epoch.
    """

    mean_size: float

    def shard_sizes(self, epoch: int) -> np.ndarray:
        """Return how many rows of each shard are drawn."""

    def drawn_rows(self, epoch: int, shard: int) -> np.ndarray:
        """Return the rows of a shard that are drawn, by their numbers in the shard."""


class ShardOrder:
    """The samples of one source in a sequence per epoch: the shards in random order, each from its first row on.

    Args:
        sizes: number of samples of each shard; at least one sample in all.
        seed: the run's seed.
        source: number of the source, so that equal sources are in different orders.
        draws: the samples of each epoch; None: every epoch has all samples.

    Attributes:
        num_samples: number of samples of all shards.
        num_shards: number of shards that have samples.
        epoch_size: function of an epoch to its number of samples.
    """

    def __init__(self, sizes: Sequence[int] | np.ndarray, seed: int, source: int = 0, draws: EpochDraws | None = None):
        self._sizes = np.asarray(sizes, np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self.num_samples = int(self._sizes.sum())
        self.num_shards = int(np.count_nonzero(self._sizes))
        self.draws = draws
        self.key = seed, source
        # All epochs: each group finds its position by the sizes of the epochs before, which are counted over all rows.
        self.epoch_size = lru_cache(maxsize=None)(self._count_samples)
        # Two epochs, because the rows of one batch may lie in both: some groups are in the next epoch already.
        self._shards_and_ends = lru_cache(maxsize=2)(self._shuffle_shards)

    @property
    def expected_samples(self) -> int:
        """Mean number of samples of an epoch."""
        return self.num_samples if self.draws is None else max(1, round(self.draws.mean_size))

    def _count_samples(self, epoch: int) -> int:
        return self.num_samples if self.draws is None else int(self.draws.shard_sizes(epoch).sum())

    def sample_number(self, epoch: int, position: int) -> int:
        """Return the number of the sample at a position of an epoch's sequence.

        Samples are numbered shard after shard, in the order of `sizes`.
        """
        shards, ends = self._shards_and_ends(epoch)
        shard_position = int(np.searchsorted(ends, position, side="right"))  # position of the shard in the epoch
        shard = shards[shard_position]
        row = position - (int(ends[shard_position - 1]) if shard_position else 0)
        if self.draws is not None:
            # So far the row is counted among the drawn rows of the shard.
            row = int(self.draws.drawn_rows(epoch, shard)[row])
        return int(self._starts[shard]) + row

    def shards(self, epoch: int, first: int, last: int) -> list[int]:
        """Return the shards that hold the positions from `first` to `last`, both included, in their order."""
        shards, ends = self._shards_and_ends(epoch)
        begin, end = np.searchsorted(ends, [first, last], side="right")
        candidates = shards[begin : end + 1]
        # Shards without rows in this epoch may lie between others; they need not be opened.
        return candidates[self._shard_sizes(epoch)[candidates] > 0].tolist()

    def _shard_sizes(self, epoch: int) -> np.ndarray:
        return self._sizes if self.draws is None else self.draws.shard_sizes(epoch)

    def _shuffle_shards(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the shards of an epoch in their order, and the position behind the end of each."""
        seed, source = self.key
        shards = make_generator(Purpose.SHARDS, seed, source, epoch).permutation(len(self._sizes))
        return shards, np.cumsum(self._shard_sizes(epoch)[shards])


class SampleOrder:
    """The order of one source's samples in a group's endless stream; every epoch has each sample once.

    Where samples are drawn, an epoch has the samples that are drawn for it.

    An epoch's sequence is cut into one share for each group, of sizes that differ by one at most; a shard that lies
    across a border belongs to two shares. A share is cut into windows of nearly equal size, each shuffled by itself. So
    reading goes from shard to shard: a window touches the shards that its samples fill, and at most two more.

    Args:
        shard_order: order of the source's shards, common to its groups.
        buffer: largest window, in samples. A larger one mixes more shards, and keeps more of them open.
        group: number of the group.
        num_groups: number of groups; at most the number of samples.
    """

    def __init__(self, shard_order: ShardOrder, buffer: int = 100_000, group: int = 0, num_groups: int = 1):
        self._shard_order = shard_order
        self._group, self._num_groups, self._buffer = group, num_groups, buffer
        # The epoch that is read and the next ones, which `window_shards` looks into; others are cut again.
        self._share = lru_cache(maxsize=4)(self._cut_share)
        self.num_samples = self._share(0).num_samples
        self._epoch_starts = [0]  # position of each epoch, where epochs differ in size
        # Windows are numbered over all groups, so that each is shuffled differently. No group has more than this.
        max_windows = _divide_up(shard_order.num_samples, buffer)
        self._first_window = group * max_windows
        self._shuffled_window = -1, -1  # epoch and window of `_order`

    def __getitem__(self, position: int) -> int:
        """Return the number of the sample, see `ShardOrder.sample_number`."""
        epoch, window, row = self.locate(position)
        share = self._share(epoch)
        if (epoch, window) != self._shuffled_window:
            seed, source = self._shard_order.key
            generator = make_generator(Purpose.WINDOW, seed, source, epoch, self._first_window + window)
            size = min(share.window_size, share.num_samples - window * share.window_size)
            self._order = generator.permutation(size)
            self._shuffled_window = epoch, window
        position_in_epoch = share.first + window * share.window_size + int(self._order[row])
        return self._shard_order.sample_number(epoch, position_in_epoch)

    def locate(self, position: int) -> tuple[int, int, int]:
        """Return the epoch of a position, its window in the epoch, and its row in the window."""
        if self._shard_order.draws is None:
            epoch, position_in_share = divmod(position, self.num_samples)
        else:
            while self._epoch_starts[-1] <= position:
                last_epoch = len(self._epoch_starts) - 1
                self._epoch_starts.append(self._epoch_starts[-1] + self._share(last_epoch).num_samples)
            epoch = bisect_right(self._epoch_starts, position) - 1
            position_in_share = position - self._epoch_starts[epoch]
        window, row = divmod(position_in_share, self._share(epoch).window_size)
        return epoch, window, row

    def window_shards(self, epoch: int, window: int) -> list[int]:
        """Return the shards that a window touches; a window after an epoch's last one is the next epoch's first."""
        share = self._share(epoch)
        while window >= share.num_windows:
            window -= share.num_windows
            epoch += 1
            share = self._share(epoch)
        first = share.first + window * share.window_size
        last = min(first + share.window_size, share.first + share.num_samples) - 1
        return self._shard_order.shards(epoch, first, last)

    def _cut_share(self, epoch: int) -> _GroupShare:
        size = self._shard_order.epoch_size(epoch)
        first = size * self._group // self._num_groups
        num_samples = size * (self._group + 1) // self._num_groups - first
        num_windows = _divide_up(num_samples, self._buffer)
        # An epoch for which no sample is drawn has no window.
        window_size = _divide_up(num_samples, num_windows) if num_windows else 0
        return _GroupShare(first, num_samples, num_windows, window_size)


class _GroupShare(NamedTuple):
    """A group's share of an epoch: its first position in the epoch's sequence, its size, and its windows' size."""

    first: int
    num_samples: int
    num_windows: int
    window_size: int


def _divide_up(number: int, divisor: int) -> int:
    return -(-number // divisor)


class Mixture:
    """The source of each position of a group's endless stream, and how often that source came before.

    A source has the same number of positions, its quota, in every block of 65,536 positions; their order is random and
    new in each block. So shares are exact over blocks, and within a block as exact as chance allows.

    Args:
        weights: shares of the sources, of any sum.
        seed: the run's seed.
        group: number of the group; each has an order of its own.
    """

    def __init__(self, weights: Sequence[float], seed: int, group: int = 0):
        self._seed, self._group = seed, group
        self.quotas = _compute_quotas(np.asarray(weights, np.float64))
        self._block = -1

    def __getitem__(self, position: int) -> tuple[int, int]:
        """Return the source's number, and the position in that source's own stream."""
        block, offset = divmod(position, BLOCK)
        self._shuffle(block)
        source = int(self._sources[offset])
        return source, block * int(self.quotas[source]) + int(self._occurrences[offset])

    def source_positions(self, position: int) -> list[int]:
        """Return the next position in each source's own stream: the number of its samples before `position`."""
        block, offset = divmod(position, BLOCK)
        self._shuffle(block)
        in_earlier_blocks = block * self.quotas
        in_this_block = np.bincount(self._sources[:offset], minlength=len(self.quotas))
        return (in_earlier_blocks + in_this_block).tolist()

    def first_positions(self, source: int, count: int) -> list[int]:
        """Return the first `count` positions that hold a source."""
        positions: list[int] = []
        block = 0
        while len(positions) < count:
            self._shuffle(block)
            rows = np.flatnonzero(self._sources == source)[: count - len(positions)]
            positions += (block * BLOCK + rows).tolist()
            block += 1
        return positions

    def _shuffle(self, block: int) -> None:
        if block == self._block:
            return
        self._block = block
        sources = np.repeat(np.arange(len(self.quotas)), self.quotas)
        order = make_generator(Purpose.MIXTURE, self._seed, block, self._group).permutation(sources)
        self._sources = order.astype(np.uint16)  # small, because every group keeps a block
        # How often the source of each position occurs before it in this block.
        self._occurrences = np.empty(BLOCK, np.int32)
        for source, quota in enumerate(self.quotas):
            self._occurrences[self._sources == source] = np.arange(quota)


def _compute_quotas(weights: np.ndarray) -> np.ndarray:
    """Return each source's positions in a block: whole numbers by largest remainder, at least one.

    Raises:
        ValueError: there are so many sources of less than one position that the largest source cannot pay for them.
    """
    exact = weights / weights.sum() * BLOCK
    quotas = np.maximum(1, np.floor(exact)).astype(np.int64)
    num_left = BLOCK - quotas.sum()  # negative if sources were raised to one
    if num_left > 0:
        # Positions that rounding left over go to the sources that lost most by it.
        quotas[np.argsort(quotas - exact)[:num_left]] += 1
    else:  # the largest source pays for those that were raised to one
        quotas[np.argmax(quotas)] += num_left
        if quotas.min() < 1:
            raise ValueError(
                f"Data.train has {len(quotas):,} sources, too many of them with a share below 1/{BLOCK:,}; make one "
                "source of small ones"
            )
    return quotas


class RowsByImage:
    """The rows of a source grouped by image, for epochs with one row of each image (`Data.unit: image`).

    The rows of one image are a unit; a row whose image has no name is a unit by itself. The rows of a unit take turns:
    of n rows, each occurs once in n epochs, in a random order that is drawn anew for every n epochs.

    Args:
        shards: for each shard the image name of every row, see `ShardedSource.read_image_names`. An image whose rows
            lie in several shards is a unit in each of them.
        seed: the run's seed.
        source: number of the source, so that equal sources take different turns.

    Attributes:
        shard_sizes: number of units of each shard.
    """

    def __init__(self, shards: Iterable[Sequence[str | None]], seed: int, source: int = 0):
        self._key = seed, source
        units_of_shards = [np.zeros(0, np.int64)]  # `concatenate` needs an array even if there are no shards
        num_units = 0
        self.shard_sizes: list[int] = []
        for names in shards:
            units = _number_names(names)
            units_of_shards.append(units + num_units)
            self.shard_sizes.append(int(units.max(initial=-1)) + 1)
            num_units += self.shard_sizes[-1]
        units_of_rows = np.concatenate(units_of_shards)
        self._rows = np.argsort(units_of_rows, kind="stable")  # row numbers, unit after unit
        self._ends = np.cumsum(np.bincount(units_of_rows, minlength=num_units))

    def __len__(self) -> int:
        return len(self._ends)

    def max_by_unit(self, values: np.ndarray) -> np.ndarray:
        """Return for each unit the largest value of its rows."""
        starts = np.append(0, self._ends[:-1])
        return np.maximum.reduceat(values[self._rows], starts)

    def row(self, unit: int, epoch: int) -> int:
        """Return the row of a unit in an epoch."""
        first = int(self._ends[unit - 1]) if unit else 0
        rows = self._rows[first : self._ends[unit]]
        if len(rows) == 1:
            return int(rows[0])
        cycle, position = divmod(epoch, len(rows))  # every row has its turn once in a cycle
        seed, source = self._key
        order = make_generator(Purpose.UNIT, seed, source, unit, cycle).permutation(len(rows))
        return int(rows[order[position]])


def _number_names(names: Sequence[str | None]) -> np.ndarray:
    """Return the names as numbers, from 0 in the order of their first occurrence; every None is a new number."""
    number_by_key: dict[object, int] = {}
    numbers = np.empty(len(names), np.int64)
    for row, name in enumerate(names):
        key = row if name is None else name  # a row is an int, so it equals no name
        numbers[row] = number_by_key.setdefault(key, len(number_by_key))
    return numbers
