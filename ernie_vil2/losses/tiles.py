"""How B x N logits are cut into tiles, and sums over a tile that are quick and exact."""

from contextlib import contextmanager
from dataclasses import dataclass

import paddle
from paddle.base import core

from ernie_vil2.cpu.tensors import pairwise_sums, sums

from .duplicates import same_sample

WHOLE = 64 * 2**20
"""Bytes of logits up to which a GPU computes them at once: tiles would spare little, and be many short kernels."""


def computed_whole(rows, columns):
    """Whether the logits of `[B, D]` rows and `[N, D]` columns are computed at once, whatever the tile."""
    return rows.place.is_gpu_place() and 4 * rows.shape[0] * columns.shape[0] <= WHOLE


@dataclass(frozen=True)
class Tiles:
    """The tiles of B x N logits whose row i belongs to column `offset + i`.

    Attributes:
        offset: the column that belongs to row 0.
        row_ids, column_ids: int64 `[B, 2]` and `[N, 2]`, image id and text id; None where duplicates are ignored.
        duplicates: one of `DUPLICATES`.
        size: rows and columns of a tile; None: one tile holds all.
        both_ways: the columns are scored against the rows as well.
    """

    offset: int
    row_ids: paddle.Tensor | None
    column_ids: paddle.Tensor | None
    duplicates: str
    size: int | None
    both_ways: bool

    def row_blocks(self, count):
        size = self.size or count
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    def column_blocks(self, total):
        """Blocks that begin wherever the positive columns of a block of rows begin: positives are a tile's diagonal."""
        starts = list(range(self.offset % self.size, total, self.size)) if self.size else [self.offset]
        if starts[0] > 0:
            starts.insert(0, 0)
        return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], total], strict=True)]

    def positive_columns(self, block):
        """The columns that belong to the rows of a block."""
        return slice(block.start + self.offset, block.stop + self.offset)

    def has_positives(self, block, column_block):
        """Whether the columns that belong to these rows are the diagonal of this tile."""
        return column_block.start == self.positive_columns(block).start

    def same(self, block, column_block):
        """bool `[r, c]`, the duplicates in a tile, among them each row and its own column."""
        return same_sample(self.row_ids[block], self.column_ids[column_block])


@contextmanager
def float32_products():
    """Within the block, GPUs compute products of float32 in float32, where they otherwise may round to TF32."""
    allowed = core.get_cublas_switch()
    core.set_cublas_switch(False)
    try:
        yield
    finally:
        core.set_cublas_switch(allowed)


def expanded(vector, axis, tile):
    """An entry for each row (axis 1) or column (axis 0), in the shape of a tile.

    By hand: broadcasting in a sum or product costs Paddle on CPU five times as much.
    """
    return vector.unsqueeze(axis).expand(tile.shape)


def largest_over(tile, axis):
    """The largest entries of a `[r, c]` matrix over an axis, one for each row (axis 1) or column (axis 0)."""
    if axis == 1:
        return tile.max(axis=1)
    while len(tile) > 1:  # by halves: over axis 0 Paddle's own takes ten times as long on CPU
        half = (len(tile) + 1) // 2
        tile = paddle.maximum(tile[:half], tile[-half:])
    return tile[0]


def sums_over(terms, axis):
    """Sums of `[r, c]` matrices over an axis in the type of the first one, one row each, float64."""
    return paddle.stack([sums(term.astype(terms[0].dtype), axis) for term in terms]).astype("float64")


def spread(weights, block, column_block):
    """`[r, 1]`, the weights of the rows; with those of the columns `[r, c]`, the sum of both."""
    of_rows = weights[0][block]
    return of_rows.unsqueeze(1) if len(weights) == 1 else pairwise_sums(of_rows, weights[1][column_block])
