"""Rows of all ranks on every rank, with the gradient that the joined batch would have."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from paddle.autograd import PyLayer

from ernie_vil2.device.transfers import start_host_copy
from ernie_vil2.parallel import collectives


def gather_ids(
    ids: paddle.Tensor, host_ids: np.ndarray, capacity: int
) -> Callable[[], tuple[paddle.Tensor, np.ndarray, list[int]]]:
    """Begin to gather the ids of all ranks' rows, and how many rows each rank holds: one small collective.

    Args:
        ids: integers `[b, K]`, none negative: negative ids mark the padding.
        host_ids: the same ids on the host.
        capacity: the largest number of rows that a rank can hold, the same on all ranks.

    Returns:
        A function that waits for the result, but not for anything queued on the device meanwhile. It returns the ids
        `[N, K]` in rank order, the same on the host, and the row counts of the ranks, which `gather_rows` and
        `gather_views` take.

    Raises:
        ValueError: more rows than `capacity`.
    """
    num_rows = ids.shape[0]
    if num_rows > capacity:
        raise ValueError(f"{num_rows} rows do not fit into the capacity of {capacity} rows a rank")
    if dist.get_world_size() == 1:
        return lambda: (ids, host_ids, [num_rows])
    gathered = collectives.all_gather(_pad(ids, capacity, -1))  # [ranks * capacity, K]
    wait_for_host_copy = start_host_copy(gathered)

    def finish() -> tuple[paddle.Tensor, np.ndarray, list[int]]:
        padded_host_ids = wait_for_host_copy()
        is_row = padded_host_ids[:, 0] >= 0
        counts = is_row.reshape([-1, capacity]).sum(axis=1).tolist()
        return _remove_padding(gathered, counts, capacity), padded_host_ids[is_row], counts

    return finish


def gather_rows(tensor: paddle.Tensor, counts: Sequence[int] | None = None) -> tuple[paddle.Tensor, int]:
    """Concatenate the rows of all ranks, in rank order; ranks may hold different numbers of rows.

    Every rank scores its own rows against the gathered ones, so every rank's loss has a gradient for every row.
    Backward adds the gradients up over the ranks and returns to each rank those of its rows. Forward and backward are
    collectives: all ranks must run both. Integer tensors are gathered without gradient.

    Args:
        tensor: `[b, ...]`, this rank's rows; the other axes are equal on all ranks.
        counts: the row counts of the ranks, from `gather_ids`; None: they are gathered by another small collective.

    Returns:
        `[N, ...]`, the rows of all ranks, and the position of this rank's first row among them. A single
        process gets its own tensor and 0, and needs no process group.
    """
    if dist.get_world_size() == 1:
        return tensor, 0
    if counts is None:
        counts = collectives.all_gather(paddle.to_tensor([tensor.shape[0]])).numpy().tolist()
    if tensor.is_floating_point():
        gathered = _GatherRows.apply(tensor, counts)
    else:
        gathered = _gather_padded(tensor, counts)
    return gathered, sum(counts[: dist.get_rank()])


def gather_views(
    views: dict[str, paddle.Tensor], counts: Sequence[int] | None = None
) -> tuple[dict[str, paddle.Tensor], int]:
    """Gather the rows of all views of a step at once: one collective forward and one backward.

    Args:
        views: view name -> `[b, D]`; the same names, `b`, and floating-point type on all ranks.
        counts: as for `gather_rows`.

    Returns:
        View name -> `[N, D]`, and the position of this rank's first row.
    """
    names = sorted(views)  # the same order on all ranks
    gathered, offset = gather_rows(paddle.concat([views[name] for name in names], axis=1), counts)
    columns = paddle.split(gathered, [views[name].shape[1] for name in names], axis=1)
    return dict(zip(names, columns, strict=True)), offset


class _GatherRows(PyLayer):
    """Autograd function of `gather_rows`: gathers forward, sums over the ranks and scatters backward."""

    @staticmethod
    def forward(ctx: Any, tensor: paddle.Tensor, counts: Sequence[int]) -> paddle.Tensor:
        ctx.counts = counts
        return _gather_padded(tensor, counts)

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        max_count, local_count = max(ctx.counts), ctx.counts[dist.get_rank()]
        # reduce_scatter cuts into equal blocks, so the blocks of the ranks are padded as in forward.
        if min(ctx.counts) < max_count:
            gradient = paddle.concat([_pad(block, max_count, 0) for block in gradient.split(ctx.counts)])
        return collectives.reduce_scatter(gradient)[:local_count]


def _gather_padded(tensor: paddle.Tensor, counts: Sequence[int]) -> paddle.Tensor:
    """Return the rows of all ranks `[N, ...]`; they travel padded, because collectives need equal shapes."""
    max_count = max(counts)
    return _remove_padding(collectives.all_gather(_pad(tensor, max_count, 0)), counts, max_count)


def _remove_padding(gathered: paddle.Tensor, counts: Sequence[int], max_count: int) -> paddle.Tensor:
    """Return the first `counts[r]` of the `max_count` rows of each rank r, `[N, ...]`."""
    if min(counts) == max_count:
        return gathered
    blocks = gathered.split(len(counts))
    return paddle.concat([block[:count] for block, count in zip(blocks, counts, strict=True)])


def _pad(tensor: paddle.Tensor, num_rows: int, value: float) -> paddle.Tensor:
    num_missing = num_rows - tensor.shape[0]
    if not num_missing:
        return tensor
    return paddle.concat([tensor, paddle.full([num_missing, *tensor.shape[1:]], value, tensor.dtype)])
