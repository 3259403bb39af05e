"""InfoNCE in tiles: losses and gradients of `info_nce` in memory that does not grow with B x N.

The forward pass computes the logits tile by tile and keeps a few sums for each row. The backward pass computes every
tile again. Four measures keep the result exact:

- The positive logit of a row is left out of the tiles and computed as one dot product. With `p` its exponential and
  `others` the sum of the exponentials in the tiles, the loss is `log((p + others) / p)`, and its gradient with respect
  to the positive logit is `-others / (p + others)`. Neither is a difference of nearly equal numbers, however confident
  the model is.
- Each row keeps its largest logit so far, and the sum of the exponentials relative to it. No exponential exceeds 1
  whatever the scale, so float32 suffices for tiles; only vectors with one entry per row are float64.
- With `G` the gradient with respect to the logits, the gradient of the scale is the sum of `rows * (G @ columns)`:
  B x D terms that the gradient of the rows needs anyway, instead of B x N terms.
- Rows against columns and columns against rows have the same logits: `tiled_info_nce_both_ways` multiplies once.

`Loss.widths` (Matryoshka) adds a loss for each of several widths: the loss of the first `width` numbers of all
embeddings, normalised again. These prefixes are cut when a tile is computed, and their gradients are added to the
gradients of the whole embeddings at once. The losses are computed one after another, so together they need no more
memory than the widest alone.
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

from ernie_vil2.device.cpu_kernels import add_pairwise, save_for_backward, sum_axis

Ids = Tensor | None  # int64 `[n, 2]`, image id and text id of each row; None is allowed if duplicates are "ignored"
LocalAndGathered = tuple[Tensor, Tensor]  # `[b, D]` of this rank and `[N, D]` of all ranks
Scalars = Mapping[str, Tensor]  # by name: `logit_scale`, the paper's 1/tau, and other learned scalars of a loss

# How a column that holds the same image or text counts for a row: as a negative, not at all, or as a positive.
DUPLICATES = ("ignored", "masked", "positives")

# A GPU computes up to 256 MiB of logits at once, 8,192 x 8,192. Tiles cost many short kernels: with 64 MiB, a batch of
# 14,000 over 8 GPUs (98 MB on each) was cut into 112 tiles of some 40 kernels, 60 to 90 ms of launches by calculation.
# Without tiles up to 15 such matrices (four view pairs) are in memory: 3.75 GiB, of a device that has 24 to 80. They
# are freed before the backward of the towers, and with micro batches the towers hold no activations meanwhile.
MAX_UNTILED_BYTES = 256 * 2**20

# Stands for a logit that does not count: below all real logits, yet finite, so that differences of two are not NaN.
EXCLUDED_LOGIT = -1e30


def find_duplicates(row_ids: Tensor, column_ids: Tensor) -> Tensor:
    """Return which rows and columns hold the same image or the same text.

    Args:
        row_ids: int64 `[B, 2]`, the image id and the text id of every row.
        column_ids: int64 `[N, 2]`, the image id and the text id of every column.

    Returns:
        bool `[B, N]`, true where the image ids are equal or the text ids are equal.
    """
    same_image = row_ids[:, 0].unsqueeze(1) == column_ids[:, 0]
    same_text = row_ids[:, 1].unsqueeze(1) == column_ids[:, 1]
    return same_image | same_text


def check_arguments(rows: Tensor, columns: Tensor, offset: int, has_ids: bool, duplicates: str) -> None:
    """Raise ValueError for an unknown mode, missing ids, or rows without their own columns.

    Args:
        rows: `[B, D]`.
        columns: `[N, D]`.
        offset: the column that belongs to row 0; row i belongs to column `offset + i`.
        has_ids: whether there are ids of the rows and of the columns.
        duplicates: one of `DUPLICATES`.
    """
    if duplicates not in DUPLICATES:
        raise ValueError(f"duplicates is {duplicates!r}; choose one of {', '.join(DUPLICATES)}")
    if duplicates != "ignored" and not has_ids:
        raise ValueError(f"duplicates={duplicates!r} needs the ids of the rows and of the columns")
    num_rows, num_columns = rows.shape[0], columns.shape[0]
    if not 0 <= offset <= num_columns - num_rows:
        raise ValueError(
            f"{num_rows} rows from offset {offset} do not fit into {num_columns} columns; "
            "pass the columns of all ranks and the offset that the gather returns"
        )


def should_compute_untiled(rows: Tensor, columns: Tensor) -> bool:
    """Return whether the logits of `[B, D]` rows and `[N, D]` columns are computed at once, whatever `tile` says."""
    return rows.place.is_gpu_place() and 4 * rows.shape[0] * columns.shape[0] <= MAX_UNTILED_BYTES


class Prefix(NamedTuple):
    """The first `width` numbers of embeddings `[n, D]`, normalised again; if `width` is D, the embeddings unchanged."""

    width: int

    def cut(self, embeddings: Tensor) -> Tensor:
        """Return the prefixes `[n, width]` of embeddings `[n, D]`."""
        if self.width == embeddings.shape[1]:
            return embeddings
        return self._normalize(embeddings)[0]

    def add_gradient(self, total: Tensor, block: slice, embeddings: Tensor, gradient: Tensor) -> None:
        """Add the gradient of `embeddings[block]` to `total[block]`, in place.

        Args:
            total: `[n, D]`, the gradient of the embeddings so far.
            block: the rows of the gradient.
            embeddings: `[n, D]`.
            gradient: `[r, width]`, the gradient with respect to `cut(embeddings[block])`.
        """
        if self.width == embeddings.shape[1]:
            total[block] += gradient
            return
        prefixes, norms = self._normalize(embeddings[block])
        # The gradient of x / |x|: remove the component along the unit vector, and divide by the norm.
        parallel = (prefixes * gradient).sum(axis=1, keepdim=True)
        total[block, : self.width] += (gradient - prefixes * parallel) / norms

    def _normalize(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Return the unit prefixes `[n, width]`, and their norms `[n, 1]` before."""
        prefixes = embeddings[:, : self.width]
        # The bound keeps a prefix of zeros from being divided by 0.
        norms = (prefixes * prefixes).sum(axis=1, keepdim=True).sqrt().clip(min=1e-12)
        return prefixes / norms, norms


@dataclass(frozen=True)
class Tiles:
    """Division of B x N logits into tiles; the positive of row i is column `offset + i`.

    Attributes:
        offset: the column that belongs to row 0.
        row_ids: int64 `[B, 2]`, image id and text id; None if duplicates are ignored.
        column_ids: int64 `[N, 2]`, image id and text id; None if duplicates are ignored.
        duplicates: one of `DUPLICATES`.
        size: rows and columns of a tile; None: one tile holds all.
        both_ways: whether the columns are scored against the rows as well.
        widths: widths of the prefixes whose losses are added up; empty: the whole embeddings.
    """

    offset: int
    row_ids: Ids
    column_ids: Ids
    duplicates: str
    size: int | None
    both_ways: bool
    widths: Sequence[int] = ()

    def prefixes(self, rows: Tensor) -> list[Prefix]:
        """Return a prefix for each of `widths`; without widths, one of the whole width of the rows."""
        widths = self.widths or [rows.shape[1]]
        return [Prefix(width) for width in widths]

    def check(self, rows: Tensor, columns: Tensor) -> None:
        """Raise ValueError as `check_arguments` does."""
        has_ids = self.row_ids is not None and self.column_ids is not None
        check_arguments(rows, columns, self.offset, has_ids, self.duplicates)

    def split_rows(self, num_rows: int) -> list[slice]:
        """Return the blocks of rows; the last one may be shorter."""
        size = self.size or num_rows
        return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]

    def split_columns(self, num_columns: int) -> list[slice]:
        """Return the blocks of columns.

        A block begins wherever the positives of a block of rows begin, so that positives are the diagonal of a tile.
        With offset 5, size 4 and 12 columns, the blocks are 0:1, 1:5, 5:9 and 9:12.
        """
        starts = [self.offset]
        if self.size:
            starts = list(range(self.offset % self.size, num_columns, self.size))
        if starts[0] > 0:
            starts.insert(0, 0)
        return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], num_columns], strict=True)]

    def positive_columns(self, row_block: slice) -> slice:
        """Return the columns that belong to a block of rows."""
        return slice(row_block.start + self.offset, row_block.stop + self.offset)

    def has_positive_diagonal(self, row_block: slice, column_block: slice) -> bool:
        """Return whether the diagonal of this tile holds the positives of its rows."""
        return column_block.start == self.positive_columns(row_block).start

    def find_duplicates(self, row_block: slice, column_block: slice) -> Tensor:
        """Return bool `[r, c]`, the duplicates in a tile; a row and its own column are duplicates, too."""
        if self.row_ids is None or self.column_ids is None:
            raise ValueError("duplicates are found by ids, of the rows and of the columns")
        return find_duplicates(self.row_ids[row_block], self.column_ids[column_block])


@contextmanager
def float32_products() -> Iterator[None]:
    """Let GPUs multiply float32 matrices in float32 within the block, where they might otherwise round to TF32."""
    allows_tf32 = core.get_cublas_switch()
    core.set_cublas_switch(False)
    try:
        yield
    finally:
        core.set_cublas_switch(allows_tf32)


def expand_to_tile(vector: Tensor, axis: int, tile: Tensor) -> Tensor:
    """Return a vector with an entry for each row (axis 1) or column (axis 0) in the shape of a tile.

    The shapes are made equal by hand: broadcasting in a sum or product costs Paddle on CPU five times as much.
    """
    return vector.unsqueeze(axis).expand(tile.shape)


def max_along(tile: Tensor, axis: int) -> Tensor:
    """Return the largest entry of each row (axis 1) or column (axis 0) of a `[r, c]` matrix."""
    if axis == 1:
        return tile.max(axis=1)
    # By halves: Paddle's own maximum over axis 0 takes ten times as long on CPU.
    while len(tile) > 1:
        half = (len(tile) + 1) // 2
        tile = paddle.maximum(tile[:half], tile[-half:])
    return tile[0]


def sum_along(terms: Sequence[Tensor], axis: int) -> Tensor:
    """Return the sums of T matrices `[r, c]` along an axis, float64 `[T, r]` (axis 1) or `[T, c]` (axis 0).

    They are added in the type of the first matrix.
    """
    return paddle.stack([sum_axis(term.astype(terms[0].dtype), axis) for term in terms]).astype("float64")


def combine_weights(weights: Sequence[Tensor], row_block: slice, column_block: slice) -> Tensor:
    """Return the weights of the logits of a tile.

    Args:
        weights: `[B]`, one for each row; both ways also `[N]`, one for each column.
        row_block: the rows of the tile.
        column_block: the columns of the tile.

    Returns:
        `[r, 1]`, or both ways `[r, c]`, the sum of the weights of row and column.
    """
    row_weights = weights[0][row_block]
    if len(weights) == 1:
        return row_weights.unsqueeze(1)
    return add_pairwise(row_weights, weights[1][column_block])


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
    """Score every row against all columns: `info_nce` in tiles.

    Args:
        rows: `[B, D]`, L2-normalised embeddings of one view on this rank.
        columns: `[N, D]`, L2-normalised embeddings of the other view on all ranks.
        logit_scale: scalar, the paper's 1/tau.
        offset: the column that belongs to row 0.
        row_ids: int64 `[B, 2]`, image id and text id; not needed if duplicates are "ignored".
        column_ids: int64 `[N, 2]`, image id and text id; not needed if duplicates are "ignored".
        duplicates: see `info_nce`.
        tile: rows and columns of a tile. Beyond inputs and gradients, a few tiles are in memory; tiles of more than
            about 1,024 are no faster.
        widths: widths of the prefixes whose losses are added up; empty: the whole embeddings.

    Returns:
        `[B]`, the loss of every row, in nats; float64 for float64 rows, otherwise float32, under autocast too.

    Raises:
        ValueError: unknown `duplicates`, missing ids, or rows without their own columns.
    """
    tiles = _SoftmaxTiles(offset, row_ids, column_ids, duplicates, tile, False, widths)
    return _apply_loss(rows, columns, logit_scale, tiles)[0]


def tiled_info_nce_both_ways(
    rows: Tensor,
    columns: Tensor,
    logit_scale: Tensor,
    ids: Ids = None,
    duplicates: str = "ignored",
    tile: int | None = 1024,
    widths: Sequence[int] = (),
) -> tuple[Tensor, Tensor]:
    """Score every row against all columns and every column against all rows, from one product.

    This needs all rows as well as all columns: across ranks, where a rank has only its own rows, the two directions
    have no product in common.

    Args:
        rows: `[B, D]`, L2-normalised embeddings of one view.
        columns: `[B, D]`, L2-normalised embeddings of another view of the same B samples.
        logit_scale: see `tiled_info_nce`.
        ids: int64 `[B, 2]`, image id and text id of each sample; not needed if duplicates are "ignored".
        duplicates: see `info_nce`.
        tile: see `tiled_info_nce`.
        widths: see `tiled_info_nce`.

    Returns:
        Twice `[B]`: the losses of `tiled_info_nce(rows, columns)` and of `tiled_info_nce(columns, rows)`.

    Raises:
        ValueError: unequal numbers of rows and columns, or the causes that `tiled_info_nce` names.
    """
    if rows.shape[0] != columns.shape[0]:
        raise ValueError(f"both ways need as many rows as columns, got {rows.shape[0]} and {columns.shape[0]}")
    tiles = _SoftmaxTiles(0, ids, ids, duplicates, tile, True, widths)
    row_losses, column_losses = _apply_loss(rows, columns, logit_scale, tiles)
    return row_losses, column_losses


def _apply_loss(rows: Tensor, columns: Tensor, logit_scale: Tensor, tiles: _SoftmaxTiles) -> tuple[Tensor, ...]:
    tiles.check(rows, columns)
    with paddle.amp.auto_cast(enable=False):
        # Autocast would multiply in a type that resolves logits of up to 100 to 0.5 (bfloat16).
        dtype = rows.dtype if rows.dtype == paddle.float64 else paddle.float32
        return _TiledInfoNCE.apply(rows.astype(dtype), columns.astype(dtype), logit_scale.astype(dtype), tiles)


class _SoftmaxTiles(Tiles):
    """Tiles that compute the logits of a softmax."""

    def compute_logits(
        self, scaled_rows: Tensor, columns: Tensor, row_block: slice, column_block: slice
    ) -> tuple[Tensor, Tensor | None]:
        """Return the logits of one tile, without those of the rows' own positives.

        Args:
            scaled_rows: `[r, D]`, the rows of the block times the scale.
            columns: `[c, D]`, the columns of the block.
            row_block: where these rows are among all rows.
            column_block: where these columns are among all columns.

        Returns:
            The logits `[r, c]`, `EXCLUDED_LOGIT` where a column does not count. Then `[r, c]`, 1 where a column is a
            further positive of the row and 0 elsewhere; None unless duplicates are positives.
        """
        logits = paddle.matmul(scaled_rows, columns, transpose_y=True)
        positives = None
        if self.duplicates != "ignored":
            is_duplicate = self.find_duplicates(row_block, column_block)
            if self.duplicates == "masked":
                logits.masked_fill_(is_duplicate, EXCLUDED_LOGIT)
            else:
                positives = is_duplicate.astype(logits.dtype)
        if self.has_positive_diagonal(row_block, column_block):
            logits.fill_diagonal_(EXCLUDED_LOGIT)
            if positives is not None:
                positives.fill_diagonal_(0.0)
        return logits, positives


class _RunningSums(NamedTuple):
    """Softmax sums over the tiles so far, with an entry for each row (or column) of a block."""

    # Largest logit that counts. If none counts, half of `EXCLUDED_LOGIT`: exp(EXCLUDED_LOGIT - max_logit) is then 0 as
    # it should be; relative to EXCLUDED_LOGIT itself it would be 1.
    max_logit: Tensor
    exp_sum: Tensor  # float64, sum of exp(logit - max_logit)
    positive_sums: Tensor | None  # float64 `[2, n]`, sum and number of the logits of further positives

    @classmethod
    def from_tile(cls, logits: Tensor, positives: Tensor | None, axis: int, in_place: bool) -> Self:
        """Return the sums of one tile over an axis; `in_place` as in `_exp_relative_to`."""
        max_logit = max_along(logits, axis).clip(min=EXCLUDED_LOGIT / 2)
        positive_sums = None
        # Before the exponentials, which may overwrite the logits.
        if positives is not None:
            positive_sums = sum_along([logits * positives, positives], axis)
        (exp_sum,) = sum_along([_exp_relative_to(logits, max_logit, axis, in_place)], axis)
        return cls(max_logit, exp_sum, positive_sums)

    def merge(self, previous: _RunningSums | None) -> _RunningSums:
        """Return the sums of this tile and of the previous ones of the same rows."""
        if previous is None:
            return self
        max_logit = paddle.maximum(self.max_logit, previous.max_logit)
        previous_exp_sum = previous.exp_sum * (previous.max_logit - max_logit).astype("float64").exp()
        exp_sum = self.exp_sum * (self.max_logit - max_logit).astype("float64").exp()
        positive_sums = None
        if previous.positive_sums is not None and self.positive_sums is not None:
            positive_sums = previous.positive_sums + self.positive_sums
        return _RunningSums(max_logit, previous_exp_sum + exp_sum, positive_sums)


class _DirectionState(NamedTuple):
    """Loss and softmax of one direction, with an entry for each of its n rows; float64 but for `max_logit`."""

    loss: Tensor
    max_logit: Tensor  # largest logit other than the row's own positive
    max_softmax: Tensor  # exp(max_logit - logsumexp): the softmax of the largest logit
    positive_softmax: Tensor  # exp(positive_logit - logsumexp)
    num_positives: Tensor  # the row's own positive and its duplicates that count as positives

    @classmethod
    def from_sums(cls, positive_logits: Tensor, blocks: Sequence[_RunningSums]) -> Self:
        """Combine the positive logits `[n]`, float64, with the sums of all blocks of rows."""
        max_logit = paddle.concat([block.max_logit for block in blocks])
        exp_sum = paddle.concat([block.exp_sum for block in blocks])
        further_logits = num_further = paddle.zeros_like(positive_logits)
        positive_sums = [block.positive_sums for block in blocks if block.positive_sums is not None]
        if positive_sums:
            further_logits, num_further = paddle.concat(positive_sums, axis=1)
        num_positives = num_further + 1

        # exp(logit - top) cannot overflow: top is the largest logit of all, with the row's own positive.
        top = paddle.maximum(max_logit.astype("float64"), positive_logits)
        exp_max, exp_positive = (max_logit.astype("float64") - top).exp(), (positive_logits - top).exp()
        total = exp_sum * exp_max + exp_positive
        # logsumexp, which is top + log(total), minus the mean logit of the positives.
        loss = total.log() + (top - (positive_logits + further_logits) / num_positives)
        return cls(loss, max_logit, exp_max / total, exp_positive / total, num_positives)


class _TiledInfoNCE(PyLayer):
    """Autograd function from rows, columns and scale to the losses of the rows and, both ways, of the columns."""

    @staticmethod
    @float32_products()
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, logit_scale: Tensor, tiles: _SoftmaxTiles
    ) -> tuple[Tensor, ...]:
        states = [_compute_states(rows, columns, logit_scale, tiles, prefix) for prefix in tiles.prefixes(rows)]
        save_for_backward(ctx, rows, columns, logit_scale)
        # Paddle wants None as the gradient of an input that needs none.
        ctx.stop_gradients = [tensor.stop_gradient for tensor in (rows, columns, logit_scale)]
        ctx.tiles, ctx.states = tiles, states
        losses = []
        for states_of_direction in zip(*states, strict=True):
            loss = paddle.add_n([state.loss for state in states_of_direction])  # over the widths
            losses.append(loss.astype(rows.dtype))
        return tuple(losses)

    @staticmethod
    @float32_products()
    def backward(ctx: Any, *loss_gradients: Tensor) -> tuple[Any, ...]:
        rows, columns, logit_scale = ctx.saved_tensor()
        row_gradient, column_gradient = paddle.zeros_like(rows), paddle.zeros_like(columns)
        scale_gradient = paddle.zeros([], dtype="float64")
        for prefix, states in zip(ctx.tiles.prefixes(rows), ctx.states, strict=True):
            scale_gradient += _add_gradients(
                row_gradient, column_gradient, loss_gradients, states, ctx.saved_tensor(), ctx.tiles, prefix
            )
        scale_gradient = scale_gradient.astype(logit_scale.dtype).reshape(logit_scale.shape)
        gradients = row_gradient, column_gradient, scale_gradient
        return tuple(None if stop else value for stop, value in zip(ctx.stop_gradients, gradients, strict=True))


def _compute_states(
    rows: Tensor, columns: Tensor, logit_scale: Tensor, tiles: _SoftmaxTiles, prefix: Prefix
) -> list[_DirectionState]:
    """Return the states of the rows and, both ways, of the columns, at one width."""
    positive_products = []
    row_sums: dict[int, _RunningSums] = {}  # by the start of a block of rows
    column_sums: dict[int, _RunningSums] = {}  # by the start of a block of columns
    for row_block in tiles.split_rows(len(rows)):
        scaled_rows = prefix.cut(rows[row_block]) * logit_scale  # [r, D]
        positives = prefix.cut(columns[tiles.positive_columns(row_block)])  # [r, D]
        positive_products.append((scaled_rows.astype("float64") * positives.astype("float64")).sum(axis=1))
        for column_block in tiles.split_columns(len(columns)):
            column_prefixes = prefix.cut(columns[column_block])  # [c, D]
            logits, further_positives = tiles.compute_logits(scaled_rows, column_prefixes, row_block, column_block)
            if tiles.both_ways:
                sums_of_tile = _RunningSums.from_tile(logits, further_positives, axis=0, in_place=False)
                column_sums[column_block.start] = sums_of_tile.merge(column_sums.get(column_block.start))
            # The rows come last, because they overwrite the logits.
            sums_of_tile = _RunningSums.from_tile(logits, further_positives, axis=1, in_place=True)
            row_sums[row_block.start] = sums_of_tile.merge(row_sums.get(row_block.start))
    positive_logits = paddle.concat(positive_products)  # [B]
    states = [_DirectionState.from_sums(positive_logits, list(row_sums.values()))]
    if column_sums:
        states.append(_DirectionState.from_sums(positive_logits, list(column_sums.values())))
    return states


def _add_gradients(
    row_gradient: Tensor,
    column_gradient: Tensor,
    loss_gradients: Sequence[Tensor],
    states: list[_DirectionState],
    inputs: Any,
    tiles: _SoftmaxTiles,
    prefix: Prefix,
) -> Tensor:
    """Add the gradients of rows and columns at one width, in place; return the gradient of the scale, float64.

    Args:
        row_gradient: `[B, D]`, to which the gradient of the rows is added.
        column_gradient: `[N, D]`, to which the gradient of the columns is added.
        loss_gradients: the incoming gradient `[n]` of the losses of each direction.
        states: the state of each direction at this width.
        inputs: rows, columns and scale.
        tiles: the tiles of the forward pass.
        prefix: the width.
    """
    rows, columns, logit_scale = inputs

    # With g the incoming gradient of a row, the gradient of its logits is g * softmax, and for its positives
    # g * softmax - g / num_positives. The softmax is exp(logit - max_logit) * max_softmax, so `_weighted_softmax`
    # multiplies the exponentials by softmax_weights = g * max_softmax.
    softmax_weights, positive_weights = [], []
    positive_gradient = paddle.zeros_like(states[0].loss)  # with respect to the positive logits, [B]
    for loss_gradient, state in zip(loss_gradients, states, strict=True):
        loss_gradient = loss_gradient.astype("float64")
        softmax_weights.append((loss_gradient * state.max_softmax).astype(rows.dtype))
        positive_weights.append(loss_gradient / state.num_positives)
        positive_gradient += loss_gradient * state.positive_softmax - positive_weights[-1]
    positive_weights = [weights.astype(rows.dtype) for weights in positive_weights]
    positive_gradient = positive_gradient.astype(rows.dtype).unsqueeze(1)  # [B, 1]

    scale_gradient = paddle.zeros([], dtype="float64")
    for row_block in tiles.split_rows(len(rows)):
        row_prefixes, positive_columns = prefix.cut(rows[row_block]), tiles.positive_columns(row_block)
        scaled_rows = row_prefixes * logit_scale
        # With respect to the scaled rows: G @ columns, [r, D]. The positives come first, because the tiles leave them
        # out.
        scaled_rows_gradient = positive_gradient[row_block] * prefix.cut(columns[positive_columns])
        prefix.add_gradient(column_gradient, positive_columns, columns, positive_gradient[row_block] * scaled_rows)
        for column_block in tiles.split_columns(len(columns)):
            column_prefixes = prefix.cut(columns[column_block])
            logits, further_positives = tiles.compute_logits(scaled_rows, column_prefixes, row_block, column_block)
            # The columns come first, because the rows overwrite the logits.
            column_softmax = None
            if tiles.both_ways:
                column_softmax = _weighted_softmax(logits, states[1], softmax_weights[1], column_block, 0)
            logit_gradient = _weighted_softmax(logits, states[0], softmax_weights[0], row_block, 1, in_place=True)
            if column_softmax is not None:
                logit_gradient.add_(column_softmax)
            if further_positives is not None:
                logit_gradient -= further_positives * combine_weights(positive_weights, row_block, column_block)
            scaled_rows_gradient += paddle.matmul(logit_gradient, column_prefixes)
            tile_gradient = paddle.matmul(logit_gradient, scaled_rows, transpose_x=True)  # of the columns, [c, D]
            prefix.add_gradient(column_gradient, column_block, columns, tile_gradient)
        prefix.add_gradient(row_gradient, row_block, rows, scaled_rows_gradient * logit_scale)
        scale_gradient += (row_prefixes * scaled_rows_gradient).astype("float64").sum()
    return scale_gradient


def _weighted_softmax(
    logits: Tensor, state: _DirectionState, weights: Tensor, block: slice, axis: int, in_place: bool = False
) -> Tensor:
    """Return the softmax of each logit of a tile times the incoming gradient of its row (axis 1) or column (axis 0).

    Args:
        logits: `[r, c]`.
        state: the state of the direction.
        weights: `[n]`, the incoming gradient times `max_softmax` for each row of the direction.
        block: the rows (axis 1) or columns (axis 0) of the tile.
        axis: the axis of the softmax.
        in_place: as in `_exp_relative_to`.
    """
    exponentials = _exp_relative_to(logits, state.max_logit[block], axis, in_place)
    return exponentials.multiply_(expand_to_tile(weights[block], axis, exponentials))


def _exp_relative_to(logits: Tensor, max_logit: Tensor, axis: int, in_place: bool) -> Tensor:
    """Return exp(logit - max_logit) `[r, c]`, with one maximum for each row (axis 1) or column (axis 0).

    Args:
        logits: `[r, c]`.
        max_logit: `[r]` (axis 1) or `[c]` (axis 0).
        axis: the axis of the softmax.
        in_place: overwrite the logits, which saves the memory of a tile; only for their last use.
    """
    max_logit = expand_to_tile(max_logit, axis, logits)
    differences = logits.subtract_(max_logit) if in_place else logits - max_logit
    return differences.exp_()
