"""All ranks' rows on every rank, with the gradient that the joined batch would have."""

import paddle
import paddle.distributed as dist
from paddle.autograd import PyLayer


def gather_rows(tensor):
    """Join the rows of all ranks, in rank order; ranks may hold different numbers of rows.

    Every rank scores its own rows against the gathered ones, so every rank's loss has a gradient for
    every row: backward adds these up over the ranks and hands each rank those of its own rows. It is a
    collective like forward: all ranks must run both. Integer tensors are gathered without gradient.

    Args:
        tensor: `[b, ...]`, this rank's rows; the other axes are equal on all ranks.

    Returns:
        `[N, ...]`, the rows of all ranks, and the place of this rank's first row among them. A single
        process gets its own tensor and 0 and needs no process group.
    """
    if dist.get_world_size() == 1:
        return tensor, 0
    counts = _all_gather(paddle.to_tensor([tensor.shape[0]]))
    counts = paddle.concat(counts).tolist()
    offset = sum(counts[: dist.get_rank()])
    if tensor.is_floating_point():
        return _GatherRows.apply(tensor, counts, offset), offset
    return _join(tensor, counts), offset


def gather_views(views):
    """`gather_rows` for all views of a step at once: one collective forward and one backward.

    Args:
        views: view name -> `[b, D]`; the same names, `b`, and floating-point type for all of them.

    Returns:
        View name -> `[N, D]`, and the place of this rank's first row.
    """
    names = sorted(views)  # one order on all ranks
    gathered, offset = gather_rows(paddle.concat([views[name] for name in names], axis=1))
    columns = paddle.split(gathered, [views[name].shape[1] for name in names], axis=1)
    return dict(zip(names, columns, strict=True)), offset


class _GatherRows(PyLayer):
    @staticmethod
    def forward(ctx, tensor, counts, offset):
        ctx.own = slice(offset, offset + tensor.shape[0])
        return _join(tensor, counts)

    @staticmethod
    def backward(ctx, gradient):
        # all_reduce and a slice, not reduce_scatter: gloo has none, and it would need even rows.
        total = gradient.clone()
        dist.all_reduce(total)
        return total[ctx.own]


def _join(tensor, counts):
    """The first `counts[r]` rows of every rank r; collectives want equal shapes, hence the padding."""
    missing = max(counts) - tensor.shape[0]
    if missing:
        padding = paddle.zeros([missing, *tensor.shape[1:]], dtype=tensor.dtype)
        tensor = paddle.concat([tensor, padding])
    parts = _all_gather(tensor)
    return paddle.concat([part[:count] for part, count in zip(parts, counts, strict=True)])


def _all_gather(tensor):
    parts = []
    dist.all_gather(parts, tensor.contiguous())
    return parts
