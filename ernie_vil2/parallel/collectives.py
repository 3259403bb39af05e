"""The collectives that the package calls, each counted, so that what a step sends can be printed and tested.

What data parallel sends for the gradients of the parameters is Paddle's own and not counted here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import paddle
import paddle.distributed as dist

from ernie_vil2.parallel.gloo import barrier

_listening: list[dict[str, Traffic]] = []


@dataclass
class Traffic:
    """What one rank has sent by one kind of collective.

    Attributes:
        calls: how often it was called.
        payload: bytes of the tensors that this rank put in.
        sent: bytes that left this rank; see `sent_bytes`.
    """

    calls: int = 0
    payload: int = 0
    sent: float = 0


@contextmanager
def counted_traffic() -> Iterator[dict[str, Traffic]]:
    """Counts this rank's collectives within the block, by kind: `all_gather`, `all_reduce`, `reduce_scatter`."""
    traffic: dict[str, Traffic] = defaultdict(Traffic)
    _listening.append(traffic)
    try:
        yield traffic
    finally:
        _listening.remove(traffic)


def sent_bytes(kind: str, payload: int, ranks: int) -> float:
    """Bytes that leave a rank in a ring, which is how gloo and NCCL run large collectives.

    Args:
        kind: `all_gather`, `reduce_scatter` or `all_reduce`, which is the other two in a row; of `reduce` to a rank and
            `broadcast` from it the mean over the ranks, of which all but one pass everything on.
        payload: bytes of the tensor that each rank puts in.
        ranks: length of the ring.
    """
    if kind == "all_gather":
        return (ranks - 1) * payload
    return (2 if kind == "all_reduce" else 1) * (ranks - 1) / ranks * payload


def all_gather(tensor: paddle.Tensor, wait: bool = True) -> paddle.Tensor:
    """`[b, ...]` of equal shape on every rank to `[ranks * b, ...]`, in rank order; without gradient.

    `wait=False` goes without `barrier`: between layers of one forward no rank is late, and there are many of them.
    """
    _about_to_send("all_gather", tensor, wait)
    gathered = paddle.empty([dist.get_world_size() * tensor.shape[0], *tensor.shape[1:]], tensor.dtype)
    dist.stream.all_gather(gathered, tensor.contiguous())
    return gathered


def all_reduce(tensor: paddle.Tensor, wait: bool = True) -> paddle.Tensor:
    """Replaces a tensor by its sum over the ranks, in place, and returns it; `wait` as in `all_gather`."""
    _about_to_send("all_reduce", tensor, wait)
    whole = tensor.contiguous()  # backends read memory from its first byte on
    dist.all_reduce(whole)
    return tensor if tensor.is_contiguous() else paddle.assign(whole, tensor)


def reduce_scatter(tensor: paddle.Tensor) -> paddle.Tensor:
    """Sums `[ranks * b, ...]` over the ranks and leaves each rank its own `[b, ...]`."""
    rows = tensor.shape[0] // dist.get_world_size()
    if dist.get_backend() == "GLOO":  # which has none
        return all_reduce(tensor.clone())[dist.get_rank() * rows :][:rows]
    _about_to_send("reduce_scatter", tensor)
    own = paddle.empty([rows, *tensor.shape[1:]], tensor.dtype)
    dist.stream.reduce_scatter(own, tensor.contiguous())
    return own


def all_gather_object(value: Any) -> list[Any]:
    """Any picklable value of every rank, in rank order; for what is small and rare, and not counted."""
    if dist.get_world_size() == 1:
        return [value]
    barrier()
    values: list[Any] = []
    dist.all_gather_object(values, value)
    return values


def _about_to_send(kind: str, tensor: paddle.Tensor, wait: bool = True) -> None:
    if wait:
        barrier()
    payload = tensor.size * tensor.element_size()
    for traffic in _listening:
        entry = traffic[kind]
        entry.calls += 1
        entry.payload += payload
        entry.sent += sent_bytes(kind, payload, dist.get_world_size())
