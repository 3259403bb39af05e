"""Several sources in one stream, by weight."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ernie_vil2.data.order import Draw, generator

BLOCK = 65_536
"""Positions that hold every source exactly in its share; a share is a whole number of them, at least one."""


class Mixture:
    """Which source stands at a position of the endless stream, and how often it stood there before.

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
        """For each source the samples of it that stand before a position: its own next position."""
        block, position = divmod(position, BLOCK)
        self._shuffle(block)
        return (block * self.quotas + np.bincount(self._sources[:position], minlength=len(self.quotas))).tolist()

    def first_positions(self, source: int, count: int) -> list[int]:
        """The first `count` positions that hold a source."""
        found: list[int] = []
        for block in itertools.count():
            self._shuffle(block)
            found += (block * BLOCK + np.flatnonzero(self._sources == source)[: count - len(found)]).tolist()
            if len(found) == count:
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
