"""InfoNCE in tiles: values and gradients of `info_nce` in memory that does not grow with B x N.

The forward pass goes over the logits tile by tile and keeps the sums of each row; the backward pass computes each tile
again. Four things keep this exact:

- The positive of a row is kept out of the tiles: its logit is one dot product. With `p` its exponential and `others`
  the sum over the tiles, the loss is `log((p + others) / p)` and its gradient with respect to the positive logit
  `-others / (p + others)`: neither is a difference of nearly equal numbers, however sure the model is.
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

from .duplicates import check_arguments
from .tiles import Tiles, spread, sums_over

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
        tiles = _Exponentials(offset, row_ids, column_ids, duplicates, tile, both_ways, exps_dtype)
        return _TiledInfoNCE.apply(rows.astype(dtype), columns.astype(dtype), logit_scale.astype(dtype), tiles)


@dataclass(frozen=True)
class _Exponentials(Tiles):
    """Tiles with what their entries are to the softmax."""

    exps_dtype: paddle.dtype

    def tile(self, scaled, columns, block, column_block):
        """One tile without the columns that belong to its rows.

        Args:
            scaled: `[r, D]`, the rows of the block times the scale.
            columns: `[N, D]`, all columns.

        Returns:
            Three times `[r, c]`: the logits; their exponentials, 0 where a column does not count; and 1 where a column
            is a further positive of the row, or None unless duplicates are positives.
        """
        logits = paddle.matmul(scaled, columns[column_block], transpose_y=True)
        exps = logits.astype(self.exps_dtype).exp()
        positives = None
        if self.duplicates != "ignored":
            same = self.same(block, column_block)
            if self.duplicates == "masked":
                exps.masked_fill_(same, 0.0)
            else:
                positives = same.astype(logits.dtype)
        if self.has_positives(block, column_block):
            exps.fill_diagonal_(0.0)
            if positives is not None:
                positives.fill_diagonal_(0.0)
        return logits, exps, positives


class _Direction(NamedTuple):
    """What the softmax of one direction comes to, a float64 entry for each of its rows."""

    total: paddle.Tensor  # sum of the exponentials of all columns that count
    positives: paddle.Tensor  # number of positives, those of duplicates among them
    loss: paddle.Tensor

    @classmethod
    def of(cls, positive_logits, found):
        none = 0.0, paddle.zeros_like(positive_logits)
        others, further_logits, further = found if len(found) == 3 else (*found, *none)
        total, positives = others + positive_logits.exp(), further + 1
        return cls(total, positives, total.log() - (positive_logits + further_logits) / positives)


class _TiledInfoNCE(PyLayer):
    @staticmethod
    def forward(ctx, rows, columns, logit_scale, tiles):
        row_blocks, column_blocks = tiles.row_blocks(len(rows)), tiles.column_blocks(len(columns))
        positive_logits, sums_of_rows, sums_of_columns = [], [], [0.0] * len(column_blocks)
        for block in row_blocks:
            scaled, row_sums = rows[block] * logit_scale, 0.0
            positive = scaled.astype("float64") * columns[tiles.positive_columns(block)].astype("float64")
            positive_logits.append(positive.sum(axis=1))
            for number, column_block in enumerate(column_blocks):
                logits, exps, positives = tiles.tile(scaled, columns, block, column_block)
                terms = [exps] if positives is None else [exps, logits * positives, positives]
                row_sums = row_sums + sums_over(terms, axis=1)
                if tiles.both_ways:
                    sums_of_columns[number] = sums_of_columns[number] + sums_over(terms, axis=0)
            sums_of_rows.append(row_sums)
        positive_logits = paddle.concat(positive_logits)
        directions = [_Direction.of(positive_logits, paddle.concat(sums_of_rows, axis=1))]
        if tiles.both_ways:
            directions.append(_Direction.of(positive_logits, paddle.concat(sums_of_columns, axis=1)))
        ctx.save_for_backward(rows, columns, logit_scale)
        ctx.fixed = [tensor.stop_gradient for tensor in (rows, columns, logit_scale)]  # Paddle wants None for these
        ctx.tiles, ctx.positive_logits, ctx.directions = tiles, positive_logits, directions
        return tuple(direction.loss.astype(rows.dtype) for direction in directions)

    @staticmethod
    def backward(ctx, *gradients):
        rows, columns, logit_scale = ctx.saved_tensor()
        tiles, directions = ctx.tiles, ctx.directions
        # A logit's gradient is its exponential times the one weight, less the other where it is a positive.
        exps_weights, positive_weights, grad_positives = [], [], 0.0
        for gradient, direction in zip(gradients, directions, strict=True):
            gradient = gradient.astype("float64")
            exps_weights.append(gradient / direction.total)
            positive_weights.append(gradient / direction.positives)
            grad_positives += exps_weights[-1] * ctx.positive_logits.exp() - positive_weights[-1]
        exps_weights = [weights.astype(tiles.exps_dtype) for weights in exps_weights]
        positive_weights = [weights.astype(rows.dtype) for weights in positive_weights]
        grad_positives = grad_positives.astype(rows.dtype).unsqueeze(1)

        rows_gradient, columns_gradient = paddle.zeros_like(rows), paddle.zeros_like(columns)
        scale_gradient = paddle.zeros([], dtype="float64")
        for block in tiles.row_blocks(len(rows)):
            scaled, positive_columns = rows[block] * logit_scale, tiles.positive_columns(block)
            grad_rows = grad_positives[block] * columns[positive_columns]  # G @ columns
            columns_gradient[positive_columns] += grad_positives[block] * scaled
            for column_block in tiles.column_blocks(len(columns)):
                _, exps, positives = tiles.tile(scaled, columns, block, column_block)
                grad_logits = (exps * spread(exps_weights, block, column_block)).astype(rows.dtype)
                if positives is not None:
                    grad_logits -= positives * spread(positive_weights, block, column_block)
                grad_rows += paddle.matmul(grad_logits, columns[column_block])
                columns_gradient[column_block] += paddle.matmul(grad_logits, scaled, transpose_x=True)
            rows_gradient[block] = grad_rows * logit_scale
            scale_gradient += (rows[block] * grad_rows).astype("float64").sum()
        scale_gradient = scale_gradient.astype(logit_scale.dtype).reshape(logit_scale.shape)
        found = rows_gradient, columns_gradient, scale_gradient
        return tuple(None if fixed else gradient for fixed, gradient in zip(ctx.fixed, found, strict=True))
