"""InfoNCE in tiles: values and gradients of `info_nce` in memory that does not grow with B x N.

The forward pass goes over the logits tile by tile and keeps the sums of each row; the backward pass computes each tile
again. Four things keep this exact:

- The own column of a row is kept out of the tiles: its logit is one dot product. With `own` its exponential and
  `others` the sum over the tiles, the loss is `log((own + others) / own)` and its gradient with respect to the own
  logit `-others / (own + others)`: neither is a difference of nearly equal numbers, however sure the model is.
- Embeddings are normalised, so that no logit is larger than `logit_scale`. Up to a scale of 40 the exponentials of
  a tile fit float32 as they are, above it they are float64: no running maximum is needed. What has one entry a row is
  float64.
- With `G` the gradient with respect to the logits, that of the scale is the sum of `rows * (G @ columns)`, B x D
  terms that the gradient of the rows needs anyway.
- Rows against columns and columns against rows have the same logits: `tiled_both_ways` multiplies once for both.
"""

from dataclasses import dataclass
from typing import NamedTuple

import paddle
from paddle.autograd import PyLayer

from .info_nce import check_arguments, same_sample

FLOAT32_SCALE = 40.0  # exp(-40) to exp(40) and their sums lie well within float32
FLOAT64_SCALE = 600.0  # exp(-600) to exp(600) likewise within float64


def tiled_info_nce(
    rows, columns, logit_scale, offset=0, row_ids=None, column_ids=None, duplicates="ignored", tile=1024
):
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

    Returns:
        `[B]`, the loss of every row, in nats; float64 for float64 rows, otherwise float32, under autocast too.

    Raises:
        ValueError: unknown `duplicates`, missing ids, a row without its own column, or a scale beyond 600.
    """
    return _losses(rows, columns, logit_scale, offset, row_ids, column_ids, duplicates, tile)[0]


def tiled_both_ways(rows, columns, logit_scale, ids=None, duplicates="ignored", tile=1024):
    """Every row against all columns and every column against all rows, from one product.

    This needs all rows as well as all columns: across ranks, where a rank has its own rows only, the two ways have
    no product in common.

    Args:
        rows, columns: `[B, D]`, L2-normalised embeddings of two views of the same B samples.
        ids: int64 `[B, 2]`, image id and text id of each sample; "ignored" does without.
        logit_scale, duplicates, tile: as for `tiled_info_nce`.

    Returns:
        Twice `[B]`: the losses of `tiled_info_nce(rows, columns)` and of `tiled_info_nce(columns, rows)`.

    Raises:
        ValueError: as `tiled_info_nce`, and rows that are not as many as the columns.
    """
    if rows.shape[0] != columns.shape[0]:
        raise ValueError(f"both ways need as many rows as columns, got {rows.shape[0]} and {columns.shape[0]}")
    return _losses(rows, columns, logit_scale, 0, ids, ids, duplicates, tile, both_ways=True)


def _losses(rows, columns, logit_scale, offset, row_ids, column_ids, duplicates, tile, both_ways=False):
    check_arguments(rows, columns, offset, row_ids is not None and column_ids is not None, duplicates)
    scale = float(logit_scale)
    if scale > FLOAT64_SCALE:
        raise ValueError(
            f"logit_scale is {scale:.0f}, beyond the {FLOAT64_SCALE:.0f} of the tiled loss: "
            "raise Loss.temperature, lower Loss.max_logit_scale, or set Loss.tile to null"
        )
    with paddle.amp.auto_cast(enable=False):
        dtype = rows.dtype if rows.dtype == paddle.float64 else paddle.float32
        exps_dtype = dtype if scale <= FLOAT32_SCALE else paddle.float64
        grid = _Grid(offset, row_ids, column_ids, duplicates, tile, both_ways, exps_dtype)
        return _TiledInfoNCE.apply(rows.astype(dtype), columns.astype(dtype), logit_scale.astype(dtype), grid)


@dataclass(frozen=True)
class _Grid:
    """The tiles of B x N logits, and what the entries of a tile are to the loss."""

    offset: int
    row_ids: paddle.Tensor | None
    column_ids: paddle.Tensor | None
    duplicates: str
    size: int
    both_ways: bool
    exps_dtype: paddle.dtype

    def row_blocks(self, count):
        return [slice(start, min(start + self.size, count)) for start in range(0, count, self.size)]

    def column_blocks(self, total):
        """Blocks that begin wherever the own columns of a block of rows begin: own logits are a tile's diagonal."""
        starts = list(range(self.offset % self.size, total, self.size))
        if starts[0] > 0:
            starts.insert(0, 0)
        return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], total], strict=True)]

    def own_columns(self, block):
        return slice(block.start + self.offset, block.stop + self.offset)

    def tile(self, scaled, columns, block, column_block):
        """One tile without the own columns.

        Args:
            scaled: `[r, D]`, the rows of the block times the scale.
            columns: `[N, D]`, all columns.

        Returns:
            Three times `[r, c]`: the logits; their exponentials, 0 where a column does not count; and 1 where a column
            is a further answer to the row, or None unless duplicates are positives.
        """
        logits = paddle.matmul(scaled, columns[column_block], transpose_y=True)
        exps = logits.astype(self.exps_dtype).exp()
        answers = None
        if self.duplicates != "ignored":
            same = same_sample(self.row_ids[block], self.column_ids[column_block])
            if self.duplicates == "masked":
                exps.masked_fill_(same, 0.0)
            else:
                answers = same.astype(logits.dtype)
        if column_block.start == self.own_columns(block).start:
            exps.fill_diagonal_(0.0)
            if answers is not None:
                answers.fill_diagonal_(0.0)
        return logits, exps, answers


class _Direction(NamedTuple):
    """What the softmax of one direction comes to, a float64 entry for each of its rows."""

    total: paddle.Tensor  # sum of the exponentials of all columns that count
    answers: paddle.Tensor  # number of answers, the own column among them
    loss: paddle.Tensor

    @classmethod
    def of(cls, own_logits, sums):
        others, answer_logits, answers = sums if len(sums) == 3 else (*sums, 0.0, paddle.zeros_like(own_logits))
        total, answers = others + own_logits.exp(), answers + 1
        return cls(total, answers, total.log() - (own_logits + answer_logits) / answers)


class _TiledInfoNCE(PyLayer):
    @staticmethod
    def forward(ctx, rows, columns, logit_scale, grid):
        row_blocks, column_blocks = grid.row_blocks(len(rows)), grid.column_blocks(len(columns))
        own_logits, sums_of_rows, sums_of_columns = [], [], [0.0] * len(column_blocks)
        for block in row_blocks:
            scaled, sums = rows[block] * logit_scale, 0.0
            own = scaled.astype("float64") * columns[grid.own_columns(block)].astype("float64")
            own_logits.append(own.sum(axis=1))
            for number, column_block in enumerate(column_blocks):
                logits, exps, answers = grid.tile(scaled, columns, block, column_block)
                terms = [exps] if answers is None else [exps, logits * answers, answers]
                sums = sums + _sums(terms, axis=1)
                if grid.both_ways:
                    sums_of_columns[number] = sums_of_columns[number] + _sums(terms, axis=0)
            sums_of_rows.append(sums)
        own_logits = paddle.concat(own_logits)
        directions = [_Direction.of(own_logits, paddle.concat(sums_of_rows, axis=1))]
        if grid.both_ways:
            directions.append(_Direction.of(own_logits, paddle.concat(sums_of_columns, axis=1)))
        ctx.save_for_backward(rows, columns, logit_scale)
        ctx.fixed = [tensor.stop_gradient for tensor in (rows, columns, logit_scale)]  # Paddle wants None for these
        ctx.grid, ctx.own_logits, ctx.directions = grid, own_logits, directions
        return tuple(direction.loss.astype(rows.dtype) for direction in directions)

    @staticmethod
    def backward(ctx, *gradients):
        rows, columns, logit_scale = ctx.saved_tensor()
        grid, directions = ctx.grid, ctx.directions
        # A logit's gradient is its exponential times the one weight, less the other where it is an answer.
        exps_weights, answer_weights, own_slopes = [], [], 0.0
        for gradient, direction in zip(gradients, directions, strict=True):
            gradient = gradient.astype("float64")
            exps_weights.append(gradient / direction.total)
            answer_weights.append(gradient / direction.answers)
            own_slopes += exps_weights[-1] * ctx.own_logits.exp() - answer_weights[-1]
        exps_weights = [weights.astype(grid.exps_dtype) for weights in exps_weights]
        answer_weights = [weights.astype(rows.dtype) for weights in answer_weights]
        own_slopes = own_slopes.astype(rows.dtype).unsqueeze(1)

        rows_gradient, columns_gradient = paddle.zeros_like(rows), paddle.zeros_like(columns)
        scale_gradient = paddle.zeros([], dtype="float64")
        for block in grid.row_blocks(len(rows)):
            scaled, own_columns = rows[block] * logit_scale, grid.own_columns(block)
            mixed = own_slopes[block] * columns[own_columns]  # G @ columns
            columns_gradient[own_columns] += own_slopes[block] * scaled
            for column_block in grid.column_blocks(len(columns)):
                _, exps, answers = grid.tile(scaled, columns, block, column_block)
                slopes = (exps * _spread(exps_weights, block, column_block)).astype(rows.dtype)
                if answers is not None:
                    slopes -= answers * _spread(answer_weights, block, column_block)
                mixed += paddle.matmul(slopes, columns[column_block])
                columns_gradient[column_block] += paddle.matmul(slopes, scaled, transpose_x=True)
            rows_gradient[block] = mixed * logit_scale
            scale_gradient += (rows[block] * mixed).astype("float64").sum()
        scale_gradient = scale_gradient.astype(logit_scale.dtype).reshape(logit_scale.shape)
        found = rows_gradient, columns_gradient, scale_gradient
        return tuple(None if fixed else gradient for fixed, gradient in zip(ctx.fixed, found, strict=True))


def _sums(terms, axis):
    """Sums of `[r, c]` matrices over an axis, one row each, float64.

    As products with ones: on CPU they are many times faster than Paddle's sum over axis 0.
    """
    ones = paddle.ones([terms[0].shape[axis]], dtype=terms[0].dtype)
    sums = [paddle.matmul(term.astype(ones.dtype), ones, transpose_x=axis == 0) for term in terms]
    return paddle.stack(sums).astype("float64")


def _spread(weights, block, column_block):
    """`[r, 1]`, the weights of the rows; with those of the columns `[r, c]`, the sum of both."""
    of_rows = weights[0][block].unsqueeze(1)
    if len(weights) == 1:
        return of_rows
    of_columns = weights[1][column_block]
    # Expanded by hand: adding [r, 1] and [c] costs Paddle on CPU five times as much.
    return of_columns.expand([of_rows.shape[0], of_columns.shape[0]]) + of_rows
