"""InfoNCE in tiles: values and gradients of `info_nce` in memory that does not grow with B x N.

The forward pass goes over the logits tile by tile and keeps the sums of each row; the backward pass computes each tile
again. Four things keep this exact:

- The positive of a row is kept out of the tiles: its logit is one dot product. With `p` its exponential and `others`
  the sum over the tiles, the loss is `log((p + others) / p)` and its gradient with respect to the positive logit
  `-others / (p + others)`: neither is a difference of nearly equal numbers, however sure the model is.
- Each row keeps the largest logit so far, and the sum of the exponentials relative to it: none is above 1,
  whatever the scale, and all but what has one entry per row is float32.
- With `G` the gradient with respect to the logits, that of the scale is the sum of `rows * (G @ columns)`, B x D
  terms that the gradient of the rows needs anyway.
- Rows against columns and columns against rows have the same logits: `tiled_both_ways` multiplies once for both.

The losses of several widths (`Loss.widths`) are taken one after another. A tile's prefixes are cut out and normalised
where the tile is computed, and their gradients are added to those of the whole embeddings at once, so that the memory
stays that of the widest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer
from paddle.base import core

from ernie_vil2.device.cpu_kernels import keep, pairwise_sums, sums

Ids = Tensor | None  # int64 `[n, 2]`, image id and text id of each row; needed unless duplicates are "ignored"
Rows = tuple[Tensor, Tensor]  # `[b, D]` of this rank, `[N, D]` of all ranks
Scalars = Mapping[str, Tensor]  # `logit_scale`, the paper's 1/tau, and what else a loss learns, by name
DUPLICATES = ("ignored", "masked", "positives")
"""What a column is to a row that holds the same image or text: a negative like any other, left out, or a positive."""
WHOLE = 64 * 2**20
"""Bytes of logits up to which a GPU computes them at once: tiles would spare little, and be many short kernels."""
UNCOUNTED = -1e30  # for a logit that does not count: below all others, and finite, so that its differences are numbers


def same_sample(row_ids: Tensor, column_ids: Tensor) -> Tensor:
    """Which rows and columns hold the same image or the same text.

    Args:
        row_ids: int64 `[B, 2]`, the image id and the text id of every row.
        column_ids: int64 `[N, 2]`, likewise for the columns.

    Returns:
        bool `[B, N]`, true where the image ids are equal or the text ids are equal.
    """
    images, texts = (row_ids[:, kind].unsqueeze(1) == column_ids[:, kind] for kind in (0, 1))
    return images | texts


def check_arguments(rows: Tensor, columns: Tensor, offset: int, has_ids: bool, duplicates: str) -> None:
    """Raise a ValueError for an unknown mode, missing ids, or a row without its own column."""
    if duplicates not in DUPLICATES:
        raise ValueError(f"duplicates is {duplicates!r}; choose one of {', '.join(DUPLICATES)}")
    if duplicates != "ignored" and not has_ids:
        raise ValueError(f"duplicates={duplicates!r} needs the ids of the rows and of the columns")
    count, total = rows.shape[0], columns.shape[0]
    if not 0 <= offset <= total - count:
        raise ValueError(
            f"{count} rows from offset {offset} do not fit into {total} columns; "
            "pass the columns of all ranks and the offset that the gather returns"
        )


def computed_whole(rows: Tensor, columns: Tensor) -> bool:
    """Whether the logits of `[B, D]` rows and `[N, D]` columns are computed at once, whatever the tile."""
    return rows.place.is_gpu_place() and 4 * rows.shape[0] * columns.shape[0] <= WHOLE


class Prefix(NamedTuple):
    """The first `width` numbers of embeddings `[n, D]`, L2-normalised; all D of them as they are."""

    width: int

    def of(self, rows: Tensor) -> Tensor:
        """`[n, D]` to `[n, width]`."""
        return rows if self.width == rows.shape[1] else self._normalised(rows)[0]

    def add_gradient(self, total: Tensor, block: slice, rows: Tensor, gradient: Tensor) -> None:
        """Adds the gradient of `rows[block]` to `total[block]`, in place.

        Args:
            total, rows: `[n, D]`.
            gradient: `[r, width]`, with respect to `of(rows[block])`.
        """
        if self.width == rows.shape[1]:
            total[block] += gradient
            return
        prefixes, norms = self._normalised(rows[block])
        along = (prefixes * gradient).sum(axis=1, keepdim=True)
        total[block, : self.width] += (gradient - prefixes * along) / norms

    def _normalised(self, rows: Tensor) -> Rows:
        """The prefixes, and their norms before, `[n, 1]`."""
        prefixes = rows[:, : self.width]
        norms = (prefixes * prefixes).sum(axis=1, keepdim=True).sqrt().clip(min=1e-12)
        return prefixes / norms, norms


@dataclass(frozen=True)
class Tiles:
    """The tiles of B x N logits whose row i belongs to column `offset + i`.

    Attributes:
        offset: the column that belongs to row 0.
        row_ids, column_ids: int64 `[B, 2]` and `[N, 2]`, image id and text id; None where duplicates are ignored.
        duplicates: one of `DUPLICATES`.
        size: rows and columns of a tile; None: one tile holds all.
        both_ways: the columns are scored against the rows as well.
        widths: of the prefixes whose losses are added up; none: the embeddings as they are.
    """

    offset: int
    row_ids: Ids
    column_ids: Ids
    duplicates: str
    size: int | None
    both_ways: bool
    widths: Sequence[int] = ()

    def prefixes(self, rows: Tensor) -> list[Prefix]:
        """Those of `widths`, the narrowest first."""
        return [Prefix(width) for width in self.widths or rows.shape[1:]]

    def check(self, rows: Tensor, columns: Tensor) -> None:
        """Raises a ValueError as `check_arguments`."""
        has_ids = self.row_ids is not None and self.column_ids is not None
        check_arguments(rows, columns, self.offset, has_ids, self.duplicates)

    def row_blocks(self, count: int) -> list[slice]:
        size = self.size or count
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    def column_blocks(self, total: int) -> list[slice]:
        """Blocks that begin wherever the positive columns of a block of rows begin: positives are a tile's diagonal."""
        starts = list(range(self.offset % self.size, total, self.size)) if self.size else [self.offset]
        if starts[0] > 0:
            starts.insert(0, 0)
        return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], total], strict=True)]

    def positive_columns(self, block: slice) -> slice:
        """The columns that belong to the rows of a block."""
        return slice(block.start + self.offset, block.stop + self.offset)

    def has_positives(self, block: slice, column_block: slice) -> bool:
        """Whether the columns that belong to these rows are the diagonal of this tile."""
        return column_block.start == self.positive_columns(block).start

    def same(self, block: slice, column_block: slice) -> Tensor:
        """bool `[r, c]`, the duplicates in a tile, among them each row and its own column."""
        if self.row_ids is None or self.column_ids is None:
            raise ValueError("duplicates are found by ids, of the rows and of the columns")
        return same_sample(self.row_ids[block], self.column_ids[column_block])


@contextmanager
def float32_products() -> Iterator[None]:
    """Within the block, GPUs compute products of float32 in float32, where they otherwise may round to TF32."""
    allowed = core.get_cublas_switch()
    core.set_cublas_switch(False)
    try:
        yield
    finally:
        core.set_cublas_switch(allowed)


def expanded(vector: Tensor, axis: int, tile: Tensor) -> Tensor:
    """An entry for each row (axis 1) or column (axis 0), in the shape of a tile.

    By hand: broadcasting in a sum or product costs Paddle on CPU five times as much.
    """
    return vector.unsqueeze(axis).expand(tile.shape)


def largest_over(tile: Tensor, axis: int) -> Tensor:
    """The largest entries of a `[r, c]` matrix over an axis, one for each row (axis 1) or column (axis 0)."""
    if axis == 1:
        return tile.max(axis=1)
    while len(tile) > 1:  # by halves: over axis 0 Paddle's own takes ten times as long on CPU
        half = (len(tile) + 1) // 2
        tile = paddle.maximum(tile[:half], tile[-half:])
    return tile[0]


def sums_over(terms: Sequence[Tensor], axis: int) -> Tensor:
    """Sums of `[r, c]` matrices over an axis in the type of the first one, one row each, float64."""
    return paddle.stack([sums(term.astype(terms[0].dtype), axis) for term in terms]).astype("float64")


def spread(weights: Sequence[Tensor], block: slice, column_block: slice) -> Tensor:
    """`[r, 1]`, the weights of the rows; with those of the columns `[r, c]`, the sum of both."""
    of_rows = weights[0][block]
    return of_rows.unsqueeze(1) if len(weights) == 1 else pairwise_sums(of_rows, weights[1][column_block])


def tiled_info_nce(
    rows: Tensor,
    columns: Tensor,
    logit_scale: Tensor,
    offset: int = 0,
    row_ids: Ids = None,
    column_ids: Ids = None,
    duplicates: str = "ignored",
    tile: int | None = 1024,
    widths: Sequence[int] = (),
) -> Tensor:
    """`info_nce` in tiles: every row against all columns.

    Args:
        rows: `[B, D]`, L2-normalised embeddings of one view, this rank's.
        columns: `[N, D]`, L2-normalised embeddings of the other view, all ranks'.
        logit_scale: scalar, the paper's 1/tau.
        offset: the column that belongs to row 0.
        row_ids, column_ids: int64 `[B, 2]` and `[N, 2]`, image id and text id; "ignored" does without.
        duplicates: see `info_nce`.
        tile: rows and columns of a tile. Memory over inputs and gradients is a few tiles; beyond about 1,024 larger
            tiles are no faster.
        widths: of the prefixes whose losses are added up; none: D alone.

    Returns:
        `[B]`, the loss of every row, in nats; float64 for float64 rows, otherwise float32, under autocast too.

    Raises:
        ValueError: unknown `duplicates`, missing ids, or a row without its own column.
    """
    return _losses(rows, columns, logit_scale, _Logits(offset, row_ids, column_ids, duplicates, tile, False, widths))[0]


def tiled_both_ways(
    rows: Tensor,
    columns: Tensor,
    logit_scale: Tensor,
    ids: Ids = None,
    duplicates: str = "ignored",
    tile: int | None = 1024,
    widths: Sequence[int] = (),
) -> tuple[Tensor, Tensor]:
    """Every row against all columns and every column against all rows, from one product.

    This needs all rows as well as all columns: across ranks, where a rank has its own rows only, the two ways have
    no product in common.

    Args:
        rows, columns: `[B, D]`, L2-normalised embeddings of two views of the same B samples.
        ids: int64 `[B, 2]`, image id and text id of each sample; "ignored" does without.
        logit_scale, duplicates, tile, widths: as for `tiled_info_nce`.

    Returns:
        Twice `[B]`: the losses of `tiled_info_nce(rows, columns)` and of `tiled_info_nce(columns, rows)`.

    Raises:
        ValueError: as `tiled_info_nce`, and rows that are not as many as the columns.
    """
    if rows.shape[0] != columns.shape[0]:
        raise ValueError(f"both ways need as many rows as columns, got {rows.shape[0]} and {columns.shape[0]}")
    of_rows, of_columns = _losses(rows, columns, logit_scale, _Logits(0, ids, ids, duplicates, tile, True, widths))
    return of_rows, of_columns


def _losses(rows: Tensor, columns: Tensor, logit_scale: Tensor, tiles: _Logits) -> tuple[Tensor, ...]:
    tiles.check(rows, columns)
    with paddle.amp.auto_cast(enable=False):
        dtype = rows.dtype if rows.dtype == paddle.float64 else paddle.float32
        return _TiledInfoNCE.apply(rows.astype(dtype), columns.astype(dtype), logit_scale.astype(dtype), tiles)


class _Logits(Tiles):
    """Tiles with what their entries are to the softmax."""

    def tile(self, scaled: Tensor, columns: Tensor, block: slice, column_block: slice) -> tuple[Tensor, Tensor | None]:
        """One tile without the columns that belong to its rows.

        Args:
            scaled: `[r, D]`, the rows of the block times the scale.
            columns: `[c, D]`, those of the block.

        Returns:
            Twice `[r, c]`: the logits, `UNCOUNTED` where a column does not count; and 1 where a column is a further
            positive of the row, or None unless duplicates are positives.
        """
        logits = paddle.matmul(scaled, columns, transpose_y=True)
        positives = None
        if self.duplicates != "ignored":
            same = self.same(block, column_block)
            if self.duplicates == "masked":
                logits.masked_fill_(same, UNCOUNTED)
            else:
                positives = same.astype(logits.dtype)
        if self.has_positives(block, column_block):
            logits.fill_diagonal_(UNCOUNTED)
            if positives is not None:
                positives.fill_diagonal_(0.0)
        return logits, positives


class _Sums(NamedTuple):
    """What the softmax of some rows, or columns, has come to over the tiles so far, an entry for each of them."""

    largest: Tensor  # of the logits that count, or half of `UNCOUNTED`
    others: Tensor  # float64, sum of the exponentials relative to it
    further: Tensor | None  # float64, sum and number of the logits of further positives

    @classmethod
    def of(cls, logits: Tensor, positives: Tensor | None, axis: int, last: bool) -> Self:
        """Of one tile, over an axis; `last` as in `_exponentials`."""
        largest = largest_over(logits, axis).clip(min=UNCOUNTED / 2)
        further = None if positives is None else sums_over([logits * positives, positives], axis)
        (others,) = sums_over([_exponentials(logits, largest, axis, last)], axis)
        return cls(largest, others, further)

    def with_those_of(self, before: _Sums | None) -> _Sums:
        """With those of the tiles before, of the same rows."""
        if before is None:
            return self
        largest = paddle.maximum(self.largest, before.largest)
        a, b = (each.others * (each.largest - largest).astype("float64").exp() for each in (before, self))
        further = None if before.further is None or self.further is None else before.further + self.further
        return _Sums(largest, a + b, further)


class _Direction(NamedTuple):
    """What the softmax of one direction comes to, an entry for each of its rows, float64 but for `largest`."""

    loss: Tensor
    largest: Tensor  # of the logits but the positive one
    share: Tensor  # of a logit as large as that in the softmax
    positive_share: Tensor  # of the positive logit
    positives: Tensor  # their number, those of duplicates among them

    @classmethod
    def of(cls, positive_logits: Tensor, blocks: Sequence[_Sums]) -> Self:
        largest, others = (paddle.concat([getattr(sums, name) for sums in blocks]) for name in ("largest", "others"))
        further_logits = further = paddle.zeros_like(positive_logits)
        if found := [sums.further for sums in blocks if sums.further is not None]:
            further_logits, further = paddle.concat(found, axis=1)
        positives = further + 1
        top = paddle.maximum(largest.astype("float64"), positive_logits)
        from_largest, from_positive = (largest.astype("float64") - top).exp(), (positive_logits - top).exp()
        total = others * from_largest + from_positive
        loss = total.log() + (top - (positive_logits + further_logits) / positives)
        return cls(loss, largest, from_largest / total, from_positive / total, positives)


class _TiledInfoNCE(PyLayer):
    @staticmethod
    @float32_products()
    def forward(ctx: Any, rows: Tensor, columns: Tensor, logit_scale: Tensor, tiles: _Logits) -> tuple[Tensor, ...]:
        of_widths = [_directions(rows, columns, logit_scale, tiles, prefix) for prefix in tiles.prefixes(rows)]
        keep(ctx, rows, columns, logit_scale)
        ctx.fixed = [tensor.stop_gradient for tensor in (rows, columns, logit_scale)]  # Paddle wants None for these
        ctx.tiles, ctx.of_widths = tiles, of_widths
        losses = [paddle.add_n([one.loss for one in ways]) for ways in zip(*of_widths, strict=True)]
        return tuple(loss.astype(rows.dtype) for loss in losses)

    @staticmethod
    @float32_products()
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        rows, columns, logit_scale = ctx.saved_tensor()
        totals = paddle.zeros_like(rows), paddle.zeros_like(columns)
        scale_gradient = paddle.zeros([], dtype="float64")
        for prefix, directions in zip(ctx.tiles.prefixes(rows), ctx.of_widths, strict=True):
            scale_gradient += _add_gradients(totals, gradients, directions, ctx.saved_tensor(), ctx.tiles, prefix)
        found = *totals, scale_gradient.astype(logit_scale.dtype).reshape(logit_scale.shape)
        return tuple(None if fixed else gradient for fixed, gradient in zip(ctx.fixed, found, strict=True))


def _directions(rows: Tensor, columns: Tensor, logit_scale: Tensor, tiles: _Logits, prefix: Prefix) -> list[_Direction]:
    """What the softmax comes to for the rows and, both ways, for the columns, at one width."""
    positive_products = []
    of_rows: dict[int, _Sums] = {}  # by the start of a block
    of_columns: dict[int, _Sums] = {}
    for block in tiles.row_blocks(len(rows)):
        scaled = prefix.of(rows[block]) * logit_scale
        own = prefix.of(columns[tiles.positive_columns(block)])
        positive_products.append((scaled.astype("float64") * own.astype("float64")).sum(axis=1))
        for column_block in tiles.column_blocks(len(columns)):
            logits, positives = tiles.tile(scaled, prefix.of(columns[column_block]), block, column_block)
            if tiles.both_ways:
                sums, before = _Sums.of(logits, positives, axis=0, last=False), of_columns.get(column_block.start)
                of_columns[column_block.start] = sums.with_those_of(before)
            sums, before = _Sums.of(logits, positives, axis=1, last=True), of_rows.get(block.start)
            of_rows[block.start] = sums.with_those_of(before)
    positive_logits = paddle.concat(positive_products)
    return [_Direction.of(positive_logits, list(sums.values())) for sums in (of_rows, of_columns) if sums]


def _add_gradients(
    totals: Rows, gradients: Sequence[Tensor], directions: list[_Direction], leaves: Any, tiles: _Logits, prefix: Prefix
) -> Tensor:
    """Adds the gradients of rows and columns at one width to `totals`, in place; returns that of the scale, float64."""
    rows, columns, logit_scale = leaves
    # A logit's gradient is its share times the row's gradient, less a part of that where it is a positive.
    weights, positive_weights, grad_positives = [], [], paddle.zeros_like(directions[0].loss)
    for gradient, direction in zip(gradients, directions, strict=True):
        gradient = gradient.astype("float64")
        weights.append((gradient * direction.share).astype(rows.dtype))
        positive_weights.append(gradient / direction.positives)
        grad_positives += gradient * direction.positive_share - positive_weights[-1]
    positive_weights = [each.astype(rows.dtype) for each in positive_weights]
    grad_positives = grad_positives.astype(rows.dtype).unsqueeze(1)

    of_rows, of_columns = totals
    of_scale = paddle.zeros([], dtype="float64")
    for block in tiles.row_blocks(len(rows)):
        own, positive_columns = prefix.of(rows[block]), tiles.positive_columns(block)
        scaled = own * logit_scale
        grad_rows = grad_positives[block] * prefix.of(columns[positive_columns])  # G @ columns
        prefix.add_gradient(of_columns, positive_columns, columns, grad_positives[block] * scaled)
        for column_block in tiles.column_blocks(len(columns)):
            among = prefix.of(columns[column_block])
            logits, positives = tiles.tile(scaled, among, block, column_block)
            back = _shares(logits, directions[1], weights[1], column_block, 0) if tiles.both_ways else None
            grad_logits = _shares(logits, directions[0], weights[0], block, 1, last=True)
            if back is not None:
                grad_logits.add_(back)
            if positives is not None:
                grad_logits -= positives * spread(positive_weights, block, column_block)
            grad_rows += paddle.matmul(grad_logits, among)
            prefix.add_gradient(of_columns, column_block, columns, paddle.matmul(grad_logits, scaled, transpose_x=True))
        prefix.add_gradient(of_rows, block, rows, grad_rows * logit_scale)
        of_scale += (own * grad_rows).astype("float64").sum()
    return of_scale


def _shares(
    logits: Tensor, direction: _Direction, weights: Tensor, block: slice, axis: int, last: bool = False
) -> Tensor:
    """What each logit of a tile has of its row's gradient (axis 1), or of its column's (axis 0)."""
    exponentials = _exponentials(logits, direction.largest[block], axis, last)
    return exponentials.multiply_(expanded(weights[block], axis, exponentials))


def _exponentials(logits: Tensor, largest: Tensor, axis: int, last: bool) -> Tensor:
    """Relative to the largest logit of each row (axis 1) or column (axis 0); over the logits' memory if it is
    the last that is asked of them."""
    largest = expanded(largest, axis, logits)
    return (logits.subtract_(largest) if last else logits - largest).exp_()
