"""InfoNCE (arXiv 2209.15270, equation 1), aware of rows that hold the same image or text."""

import paddle
from paddle.autograd import PyLayer

from .duplicates import check_arguments, same_sample
from .tiled import tiled_both_ways, tiled_info_nce
from .tiles import computed_whole, float32_products


def info_nce(rows, columns, logit_scale, offset=0, same=None, duplicates="ignored"):
    """Contrast every row with all columns: equation 1 of arXiv 2209.15270, row by row.

    The loss of row i is `-log(exp(s_ip) / sum_j exp(s_ij))`, where `s_ij` is `logit_scale` times the
    dot product of row i and column j, and `p = offset + i` is the row's own column.

    Args:
        rows: `[B, D]`, L2-normalised embeddings of one view, this rank's.
        columns: `[N, D]`, L2-normalised embeddings of the other view, all ranks'.
        logit_scale: scalar, the paper's 1/tau.
        offset: the column that belongs to row 0.
        same: bool `[B, N]` from `same_sample`: the duplicates of each row; "ignored" does without.
        duplicates: what a column is to a row that holds the same image or text: "ignored", a negative
            like any other (as in the paper); "masked", left out of the sum over j; "positives", a
            positive like the row's own column: the loss is the mean over the positives.

    Returns:
        `[B]`, the loss of every row, in nats; float64 for float64 rows, otherwise float32, under
        autocast too.

    Raises:
        ValueError: unknown `duplicates`, missing `same`, or a row without its own column.
    """
    check_arguments(rows, columns, offset, same is not None, duplicates)
    count, total = rows.shape[0], columns.shape[0]
    with paddle.amp.auto_cast(enable=False):
        dtype = rows.dtype if rows.dtype == paddle.float64 else paddle.float32
        # Scaling the rows instead of the logits makes the gradient of logit_scale a sum of B x D
        # terms behind a matrix product; a float32 sum of B x N terms is off by up to a percent at 4,096.
        scaled = rows.astype(dtype) * logit_scale.astype(dtype)
        logits = _Product.apply(scaled, columns.astype(dtype))  # [B, N]
        is_positive = paddle.arange(offset, offset + count).unsqueeze(1) == paddle.arange(total)  # [B, N]
        positives = (is_positive | same if duplicates == "positives" else is_positive).astype(dtype)
        positive = (logits * positives).sum(axis=1, keepdim=True) / positives.sum(axis=1, keepdim=True)
        if duplicates == "masked":
            logits = paddle.where(same & ~is_positive, paddle.full_like(logits, -float("inf")), logits)
        # Not cross_entropy or log_softmax: on CPU they cut a loss off at 64; at scale 100 it can reach 200.
        return paddle.logsumexp(logits - positive, axis=1)


class _Product(PyLayer):
    """`[B, D]` and `[N, D]` to `[B, N]`, in float32 also on GPUs, forward and backward."""

    @staticmethod
    @float32_products()
    def forward(ctx, rows, columns):
        ctx.save_for_backward(rows, columns)
        ctx.fixed = rows.stop_gradient, columns.stop_gradient  # Paddle wants None for these
        return paddle.matmul(rows, columns, transpose_y=True)

    @staticmethod
    @float32_products()
    def backward(ctx, gradient):
        rows, columns = ctx.saved_tensor()
        of_rows = None if ctx.fixed[0] else paddle.matmul(gradient, columns)
        of_columns = None if ctx.fixed[1] else paddle.matmul(gradient, rows, transpose_x=True)
        return of_rows, of_columns


class InfoNCE:
    """Equation 1 for the view pairs of `MultiViewLoss`, in tiles or all at once.

    Args:
        duplicates: see `info_nce`.
        tile: rows and columns of the tiles in which the logits are computed (see `losses.tiled`); None, and on GPUs
            where they are small: all at once.
    """

    def __init__(self, duplicates, tile):
        self.duplicates, self.tile = duplicates, tile

    def __call__(self, rows, columns, scalars, offset, row_ids, column_ids):
        """The loss of every row, `[B]`; arguments as for `info_nce`, `scalars` with `logit_scale`."""
        scale = scalars["logit_scale"]
        if self._in_tiles(rows, columns):
            return tiled_info_nce(rows, columns, scale, offset, row_ids, column_ids, self.duplicates, self.tile)
        has_ids = row_ids is not None and column_ids is not None
        same = same_sample(row_ids, column_ids) if has_ids and self.duplicates != "ignored" else None
        return info_nce(rows, columns, scale, offset, same, self.duplicates)

    def both_ways(self, rows, columns, scalars, ids):
        """The losses of the rows among the columns and of the columns among the rows, where both are all there are."""
        if self._in_tiles(rows, columns):
            return tiled_both_ways(rows, columns, scalars["logit_scale"], ids, self.duplicates, self.tile)
        return self(rows, columns, scalars, 0, ids, ids), self(columns, rows, scalars, 0, ids, ids)

    def _in_tiles(self, rows, columns):
        return self.tile is not None and not computed_whole(rows, columns)
