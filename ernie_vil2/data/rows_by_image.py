"""Rows by image, for epochs in which each image occurs once, with one of its texts (`Data.unit: image`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ernie_vil2.data.order import Draw, generator
from ernie_vil2.data.readers import ShardedSource


class RowsByImage:
    """The rows of a source by image. A row whose image has no name is a unit of its own.

    A unit's rows take turns: every one stands once in as many epochs as there are of them, in an order that is drawn
    anew each time.

    Args:
        source: rows of one image lie in one shard, otherwise it is a unit of each.
        seed: the run's.
        number: of the source, so that equal sources take other turns.

    Attributes:
        shard_sizes: units of each shard.
    """

    def __init__(self, source: ShardedSource, seed: int, number: int = 0):
        self._key = seed, number
        units, self.shard_sizes, rows = [np.zeros(0, np.int64)], [], 0
        for names in source.image_names():
            own = _numbered(names)
            units.append(own + sum(self.shard_sizes))
            self.shard_sizes.append(int(own.max(initial=-1)) + 1)
            rows += len(names)
        joined = np.concatenate(units)
        self._rows = np.argsort(joined, kind="stable")
        self._ends = np.cumsum(np.bincount(joined, minlength=sum(self.shard_sizes)))

    def __len__(self) -> int:
        return len(self._ends)

    def row(self, unit: int, epoch: int) -> int:
        """The row that a unit stands for in an epoch."""
        first = int(self._ends[unit - 1]) if unit else 0
        rows = self._rows[first : self._ends[unit]]
        turn, place = divmod(epoch, len(rows))
        seed, number = self._key
        order = generator(Draw.UNIT, seed, number, unit, turn).permutation(len(rows)) if len(rows) > 1 else [0]
        return int(rows[order[place]])


def _numbered(names: Sequence[str | None]) -> np.ndarray:
    """The names as numbers from 0 in order of their first place; every None is another."""
    known: dict[object, int] = {}
    return np.array([known.setdefault(row if name is None else name, len(known)) for row, name in enumerate(names)],
                    np.int64)  # fmt: skip
