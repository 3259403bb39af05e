"""The order of samples: a function of the seed and of the place in an endless stream, without any other state.

What is drawn at a place does not depend on what was drawn before it. A run that goes on at a place therefore needs to
know that place alone, and any number of ranks and workers may share the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np


class Draw(IntEnum):
    """What a random number is drawn for; draws for different purposes are independent."""

    SHARDS = 0
    WINDOW = 1
    MIXTURE = 2
    IMAGES = 3
    TEXT = 4


def generator(draw: Draw, seed: int, *place: int) -> np.random.Generator:
    """Random numbers for one purpose at one place, of up to three coordinates.

    A counter-based generator (Philox, Salmon et al. 2011): seed and purpose are its key, the place is the upper part of
    its counter, so that no two places ever share a number.
    """
    counter = [0, *place, *[0] * (3 - len(place))]
    return np.random.Generator(np.random.Philox(key=[seed, draw], counter=counter))


class SampleOrder:
    """Which sample of one source stands at a place of its endless stream; each sample once in every epoch.

    Every epoch puts the shards in a new order and cuts this row of samples into windows of nearly equal size, which
    are shuffled each on its own. Reading thus goes from shard to shard: a window touches as many shards as its samples
    fill, and at most two beyond.

    Args:
        sizes: samples of each shard; at least one sample in all.
        seed: the run's.
        source: number of the source, so that equal sources are in different orders.
        buffer: largest window, in samples.
    """

    def __init__(self, sizes: Sequence[int], seed: int, source: int = 0, buffer: int = 100_000):
        self._sizes = np.asarray(sizes, np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self.samples = int(self._sizes.sum())
        self._windows = -(-self.samples // buffer)
        self._width = -(-self.samples // self._windows)
        self._key = seed, source
        self._epoch = self._window = -1

    def __getitem__(self, place: int) -> int:
        """Number of the sample, counted over all shards as they were given."""
        epoch, place = divmod(place, self.samples)
        window, place = divmod(place, self._width)
        if (epoch, window) != (self._epoch, self._window):
            self._shuffle(epoch, window)
        place = window * self._width + int(self._shuffled[place])
        number = int(np.searchsorted(self._ends, place, side="right"))
        shard = self._shards[number]
        return int(self._starts[shard] + self._sizes[shard] - self._ends[number] + place)

    def _shuffle(self, epoch: int, window: int) -> None:
        seed, source = self._key
        if epoch != self._epoch:
            self._shards = generator(Draw.SHARDS, seed, source, epoch).permutation(len(self._sizes))
            self._ends = np.cumsum(self._sizes[self._shards])
        samples = min(self._width, self.samples - window * self._width)
        self._shuffled = generator(Draw.WINDOW, seed, source, epoch, window).permutation(samples)
        self._epoch, self._window = epoch, window
