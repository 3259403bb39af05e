"""The sigmoid loss of SigLIP (Zhai et al. 2023, arXiv 2303.15343, equation 1), in tiles.

Every image-text logit `scale * cosine + bias` is a binary classification of its own: no softmax, so nothing has to
be known of a row's other columns. As for InfoNCE, the backward pass computes each tile again, and the gradient of the
scale is the sum of `rows * (G @ columns)` with `G` that of the logits; the gradient of the bias is the sum of `G`.
"""

from itertools import product
from typing import Any

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer
from paddle.nn import functional as F

from ernie_vil2.device.cpu_kernels import keep

from .multi_view import PairLoss
from .tiles import Ids, Scalars, Tiles, computed_whole, float32_products, spread, sums_over


class SigmoidLoss(PairLoss):
    """The sigmoid loss for the view pairs of `MultiViewLoss`."""

    has_bias = True

    def __call__(
        self, rows: Tensor, columns: Tensor, scalars: Scalars, offset: int, row_ids: Ids, column_ids: Ids
    ) -> Tensor:
        """The loss of every row: the sum over its columns of `-log sigmoid(z * logit)`, z = 1 for positives, else -1.

        Returns:
            `[B]`, in nats; float64 for float64 rows, otherwise float32, under autocast too.

        Raises:
            ValueError: unknown `duplicates`, missing ids, or a row without its own column.
        """
        return self._losses(rows, columns, scalars, (offset, row_ids, column_ids), both_ways=False)[0]

    def both_ways(self, rows: Tensor, columns: Tensor, scalars: Scalars, ids: Ids) -> tuple[Tensor, Tensor]:
        of_rows, of_columns = self._losses(rows, columns, scalars, (0, ids, ids), both_ways=True)
        return of_rows, of_columns

    def _losses(
        self, rows: Tensor, columns: Tensor, scalars: Scalars, ids: tuple[int, Ids, Ids], both_ways: bool
    ) -> tuple[Tensor, ...]:
        tile = None if computed_whole(rows, columns) else self.tile
        tiles = _LabelledTiles(*ids, self.duplicates, tile, both_ways, self.widths)
        tiles.check(rows, columns)
        with paddle.amp.auto_cast(enable=False):
            dtype = rows.dtype if rows.dtype == paddle.float64 else paddle.float32
            leaves = (rows, columns, scalars["logit_scale"], scalars["logit_bias"])
            return _TiledSigmoid.apply(*(leaf.astype(dtype) for leaf in leaves), tiles)


class _LabelledTiles(Tiles):
    def labels(self, block: slice, column_block: slice, dtype: paddle.dtype) -> Tensor:
        """`[r, c]`: 1 where a column is a positive of the row, -1 where it is a negative, 0 where it is left out."""
        shape = [block.stop - block.start, column_block.stop - column_block.start]
        labels = paddle.full(shape, -1.0, dtype)
        if self.duplicates != "ignored":
            labels.masked_fill_(self.same(block, column_block), 0.0 if self.duplicates == "masked" else 1.0)
        if self.has_positives(block, column_block):
            labels.fill_diagonal_(1.0)
        return labels


class _TiledSigmoid(PyLayer):
    @staticmethod
    @float32_products()
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, logit_scale: Tensor, logit_bias: Tensor, tiles: _LabelledTiles
    ) -> tuple[Tensor, ...]:
        of_rows, of_columns = (paddle.zeros([len(each)], "float64") for each in (rows, columns))
        for prefix, block in product(tiles.prefixes(rows), tiles.row_blocks(len(rows))):
            scaled = prefix.of(rows[block]) * logit_scale
            for column_block in tiles.column_blocks(len(columns)):
                labels = tiles.labels(block, column_block, rows.dtype)
                logits = paddle.matmul(scaled, prefix.of(columns[column_block]), transpose_y=True) + logit_bias
                losses = [labels.abs() * _softplus(-labels * logits)]
                of_rows[block] += sums_over(losses, axis=1)[0]
                if tiles.both_ways:
                    of_columns[column_block] += sums_over(losses, axis=0)[0]
        keep(ctx, rows, columns, logit_scale, logit_bias)
        # Paddle wants None for the gradients of these.
        ctx.fixed = [tensor.stop_gradient for tensor in (rows, columns, logit_scale, logit_bias)]
        ctx.tiles = tiles
        return tuple(found.astype(rows.dtype) for found in (of_rows, of_columns)[: 1 + tiles.both_ways])

    @staticmethod
    @float32_products()
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        rows, columns, logit_scale, logit_bias = ctx.saved_tensor()
        tiles = ctx.tiles
        rows_gradient, columns_gradient = paddle.zeros_like(rows), paddle.zeros_like(columns)
        scale_gradient, bias_gradient = paddle.zeros([], "float64"), paddle.zeros([], "float64")
        for prefix, block in product(tiles.prefixes(rows), tiles.row_blocks(len(rows))):
            own = prefix.of(rows[block])
            scaled, grad_rows = own * logit_scale, paddle.zeros_like(own)  # grad_rows: G @ columns
            for column_block in tiles.column_blocks(len(columns)):
                labels, among = tiles.labels(block, column_block, rows.dtype), prefix.of(columns[column_block])
                logits = paddle.matmul(scaled, among, transpose_y=True) + logit_bias
                grad_logits = -labels * F.sigmoid(-labels * logits) * spread(gradients, block, column_block)
                grad_rows += paddle.matmul(grad_logits, among)
                grad_columns = paddle.matmul(grad_logits, scaled, transpose_x=True)
                prefix.add_gradient(columns_gradient, column_block, columns, grad_columns)
                bias_gradient += sums_over([grad_logits], axis=1).sum()
            prefix.add_gradient(rows_gradient, block, rows, grad_rows * logit_scale)
            scale_gradient += (own * grad_rows).astype("float64").sum()
        found = (
            rows_gradient,
            columns_gradient,
            scale_gradient.astype(rows.dtype).reshape(logit_scale.shape),
            bias_gradient.astype(rows.dtype).reshape(logit_bias.shape),
        )
        return tuple(None if fixed else gradient for fixed, gradient in zip(ctx.fixed, found, strict=True))


def _softplus(x: Tensor) -> Tensor:
    # Paddle's own adds 1 before the logarithm: at the initial bias of -10 that rounds a thousandth of the loss away.
    return F.relu(x) + paddle.log1p(paddle.exp(-x.abs()))
