"""All ranks' rows on every rank, with the gradient that the joined batch would have."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from paddle.autograd import PyLayer

from ernie_vil2.device.transfers import fetched
from ernie_vil2.parallel import collectives


def gather_ids(
    ids: paddle.Tensor, on_host: np.ndarray, capacity: int
) -> Callable[[], tuple[paddle.Tensor, np.ndarray, list[int]]]:
    """Begins to bring the ids of all ranks' rows here, and with them how many rows each holds: one small collective.

    Args:
        ids: integers `[b, K]`, none negative; padding is.
        on_host: the same.
        capacity: the most rows that any rank can hold, the same on all ranks.

    Returns:
        What waits for them, and for nothing that is queued on the device meanwhile, and gives: `[N, K]` in rank
        order, the same on the host, and the row counts of the ranks, which `gather_rows` and `gather_views` take.

    Raises:
        ValueError: more rows than `capacity`.
    """
    rows = ids.shape[0]
    if rows > capacity:
        raise ValueError(f"{rows} rows do not fit into the capacity of {capacity} rows a rank")
    if dist.get_world_size() == 1:
        return lambda: (ids, on_host, [rows])
    gathered = collectives.all_gather(_padded(ids, capacity, -1))
    values = fetched(gathered)

    def joined() -> tuple[paddle.Tensor, np.ndarray, list[int]]:
        all_on_host = values()
        is_row = all_on_host[:, 0] >= 0
        counts = is_row.reshape([-1, capacity]).sum(axis=1).tolist()
        return _without_padding(gathered, counts, capacity), all_on_host[is_row], counts

    return joined


def gather_rows(tensor: paddle.Tensor, counts: Sequence[int] | None = None) -> tuple[paddle.Tensor, int]:
    """Join the rows of all ranks, in rank order; ranks may hold different numbers of rows.

    Every rank scores its own rows against the gathered ones, so every rank's loss has a gradient for
    every row: backward adds these up over the ranks and hands each rank those of its own rows. It is a
    collective like forward: all ranks must run both. Integer tensors are gathered without gradient.

    Args:
        tensor: `[b, ...]`, this rank's rows; the other axes are equal on all ranks.
        counts: the rows of each rank, from `gather_ids`; None: one more small collective finds out.

    Returns:
        `[N, ...]`, the rows of all ranks, and the position of this rank's first row among them. A single
        process gets its own tensor and 0 and needs no process group.
    """
    if dist.get_world_size() == 1:
        return tensor, 0
    if counts is None:
        counts = collectives.all_gather(paddle.to_tensor([tensor.shape[0]])).numpy().tolist()
    gathered = _GatherRows.apply(tensor, counts) if tensor.is_floating_point() else _joined(tensor, counts)
    return gathered, sum(counts[: dist.get_rank()])


def gather_views(
    views: dict[str, paddle.Tensor], counts: Sequence[int] | None = None
) -> tuple[dict[str, paddle.Tensor], int]:
    """`gather_rows` for all views of a step at once: one collective forward and one backward.

    Args:
        views: view name -> `[b, D]`; the same names, `b`, and floating-point type for all of them.
        counts: as for `gather_rows`.

    Returns:
        View name -> `[N, D]`, and the position of this rank's first row.
    """
    names = sorted(views)  # one order on all ranks
    gathered, offset = gather_rows(paddle.concat([views[name] for name in names], axis=1), counts)
    columns = paddle.split(gathered, [views[name].shape[1] for name in names], axis=1)
    return dict(zip(names, columns, strict=True)), offset


class _GatherRows(PyLayer):
    @staticmethod
    def forward(ctx: Any, tensor: paddle.Tensor, counts: Sequence[int]) -> paddle.Tensor:
        ctx.counts = counts
        return _joined(tensor, counts)

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        most, own = max(ctx.counts), ctx.counts[dist.get_rank()]
        if min(ctx.counts) < most:  # reduce_scatter cuts into equal parts, so they are padded as in forward
            gradient = paddle.concat([_padded(part, most, 0) for part in gradient.split(ctx.counts)])
        return collectives.reduce_scatter(gradient)[:own]


def _joined(tensor: paddle.Tensor, counts: Sequence[int]) -> paddle.Tensor:
    """The first `counts[r]` rows of every rank r; collectives want equal shapes, hence the padding."""
    most = max(counts)
    return _without_padding(collectives.all_gather(_padded(tensor, most, 0)), counts, most)


def _without_padding(gathered: paddle.Tensor, counts: Sequence[int], most: int) -> paddle.Tensor:
    """The rows of all ranks of `[ranks * most, ...]`, of which every rank r has filled the first `counts[r]`."""
    if min(counts) == most:
        return gathered
    return paddle.concat([part[:count] for part, count in zip(gathered.split(len(counts)), counts, strict=True)])


def _padded(tensor: paddle.Tensor, rows: int, value: float) -> paddle.Tensor:
    missing = rows - tensor.shape[0]
    if not missing:
        return tensor
    return paddle.concat([tensor, paddle.full([missing, *tensor.shape[1:]], value, tensor.dtype)])
