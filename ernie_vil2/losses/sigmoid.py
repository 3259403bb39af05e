"""The sigmoid loss of SigLIP (Zhai et al. 2023, arXiv 2303.15343, equation 1), in tiles.

Every image-text logit `scale * cosine + bias` is a binary classification: without a softmax, a logit does not depend on
the other columns of its row. As for InfoNCE, the backward pass computes every tile again. With `G` the gradient with
respect to the logits, the gradient of the scale is the sum of `rows * (G @ columns)`, that of the bias the sum of `G`.
"""

from itertools import product
from typing import Any

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer
from paddle.nn import functional as F

from ernie_vil2.device.cpu_kernels import save_for_backward

from .multi_view import PairLoss
from .tiles import Ids, Scalars, Tiles, combine_weights, float32_products, should_compute_untiled, sum_along


class SigmoidLoss(PairLoss):
    """The sigmoid loss for the view pairs of `MultiViewLoss`."""

    has_bias = True

    def __call__(
        self, rows: Tensor, columns: Tensor, scalars: Scalars, offset: int, row_ids: Ids, column_ids: Ids
    ) -> Tensor:
        """Return the loss of every row: the sum over its columns of `-log sigmoid(z * logit)`.

        z is 1 for positives and -1 for negatives.

        Returns:
            `[B]`, in nats; float64 for float64 rows, otherwise float32, under autocast too.

        Raises:
            ValueError: unknown `duplicates`, missing ids, or rows without their own columns.
        """
        return self._apply_loss(rows, columns, scalars, (offset, row_ids, column_ids), both_ways=False)[0]

    def both_ways(self, rows: Tensor, columns: Tensor, scalars: Scalars, ids: Ids) -> tuple[Tensor, Tensor]:
        row_losses, column_losses = self._apply_loss(rows, columns, scalars, (0, ids, ids), both_ways=True)
        return row_losses, column_losses

    def _apply_loss(
        self, rows: Tensor, columns: Tensor, scalars: Scalars, ids: tuple[int, Ids, Ids], both_ways: bool
    ) -> tuple[Tensor, ...]:
        tile = None if should_compute_untiled(rows, columns) else self.tile
        tiles = _LabelledTiles(*ids, self.duplicates, tile, both_ways, self.widths)
        tiles.check(rows, columns)
        with paddle.amp.auto_cast(enable=False):
            dtype = rows.dtype if rows.dtype == paddle.float64 else paddle.float32
            inputs = (rows, columns, scalars["logit_scale"], scalars["logit_bias"])
            return _TiledSigmoid.apply(*(value.astype(dtype) for value in inputs), tiles)


class _LabelledTiles(Tiles):
    """Tiles whose logits are classified."""

    def labels(self, row_block: slice, column_block: slice, dtype: paddle.dtype) -> Tensor:
        """Return `[r, c]`: 1 for positives of a row, -1 for negatives, 0 for columns that are left out."""
        shape = [row_block.stop - row_block.start, column_block.stop - column_block.start]
        labels = paddle.full(shape, -1.0, dtype)
        if self.duplicates != "ignored":
            duplicate_label = 0.0 if self.duplicates == "masked" else 1.0
            labels.masked_fill_(self.find_duplicates(row_block, column_block), duplicate_label)
        if self.has_positive_diagonal(row_block, column_block):
            labels.fill_diagonal_(1.0)
        return labels


class _TiledSigmoid(PyLayer):
    """Autograd function from rows, columns, scale and bias to the losses of the rows and, both ways, of the columns."""

    @staticmethod
    @float32_products()
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, logit_scale: Tensor, logit_bias: Tensor, tiles: _LabelledTiles
    ) -> tuple[Tensor, ...]:
        row_losses, column_losses = paddle.zeros([len(rows)], "float64"), paddle.zeros([len(columns)], "float64")
        for prefix, row_block in product(tiles.prefixes(rows), tiles.split_rows(len(rows))):
            scaled_rows = prefix.cut(rows[row_block]) * logit_scale
            for column_block in tiles.split_columns(len(columns)):
                labels = tiles.labels(row_block, column_block, rows.dtype)
                logits = paddle.matmul(scaled_rows, prefix.cut(columns[column_block]), transpose_y=True) + logit_bias
                losses = [labels.abs() * _softplus(-labels * logits)]  # [r, c]
                row_losses[row_block] += sum_along(losses, axis=1)[0]
                if tiles.both_ways:
                    column_losses[column_block] += sum_along(losses, axis=0)[0]
        save_for_backward(ctx, rows, columns, logit_scale, logit_bias)
        # Paddle wants None as the gradient of an input that needs none.
        ctx.stop_gradients = [tensor.stop_gradient for tensor in (rows, columns, logit_scale, logit_bias)]
        ctx.tiles = tiles
        if tiles.both_ways:
            return row_losses.astype(rows.dtype), column_losses.astype(rows.dtype)
        return (row_losses.astype(rows.dtype),)

    @staticmethod
    @float32_products()
    def backward(ctx: Any, *loss_gradients: Tensor) -> tuple[Any, ...]:
        rows, columns, logit_scale, logit_bias = ctx.saved_tensor()
        tiles = ctx.tiles
        row_gradient, column_gradient = paddle.zeros_like(rows), paddle.zeros_like(columns)
        scale_gradient, bias_gradient = paddle.zeros([], "float64"), paddle.zeros([], "float64")
        for prefix, row_block in product(tiles.prefixes(rows), tiles.split_rows(len(rows))):
            row_prefixes = prefix.cut(rows[row_block])
            scaled_rows = row_prefixes * logit_scale
            scaled_gradient = paddle.zeros_like(row_prefixes)  # G @ columns, [r, D]
            for column_block in tiles.split_columns(len(columns)):
                labels = tiles.labels(row_block, column_block, rows.dtype)
                column_prefixes = prefix.cut(columns[column_block])
                logits = paddle.matmul(scaled_rows, column_prefixes, transpose_y=True) + logit_bias
                weights = combine_weights(loss_gradients, row_block, column_block)
                logit_gradient = -labels * F.sigmoid(-labels * logits) * weights
                scaled_gradient += paddle.matmul(logit_gradient, column_prefixes)
                tile_gradient = paddle.matmul(logit_gradient, scaled_rows, transpose_x=True)  # of the columns, [c, D]
                prefix.add_gradient(column_gradient, column_block, columns, tile_gradient)
                bias_gradient += sum_along([logit_gradient], axis=1).sum()
            prefix.add_gradient(row_gradient, row_block, rows, scaled_gradient * logit_scale)
            scale_gradient += (row_prefixes * scaled_gradient).astype("float64").sum()
        gradients = (
            row_gradient,
            column_gradient,
            scale_gradient.astype(rows.dtype).reshape(logit_scale.shape),
            bias_gradient.astype(rows.dtype).reshape(logit_bias.shape),
        )
        return tuple(None if stop else value for stop, value in zip(ctx.stop_gradients, gradients, strict=True))


def _softplus(x: Tensor) -> Tensor:
    # Paddle's own adds 1 before the logarithm: at the initial bias of -10 that rounds a thousandth of the loss away.
    return F.relu(x) + paddle.log1p(paddle.exp(-x.abs()))
