"""What the collectives of the package send from one rank, for benchmarks and tests.

What data parallel sends for the gradients of the parameters is Paddle's own, and not counted here.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import paddle
import paddle.distributed as dist

from ernie_vil2.parallel import collectives

KINDS = ("all_gather", "all_reduce", "broadcast", "reduce", "reduce_scatter")


@dataclass
class Traffic:
    """What one rank has sent by one kind of collective.

    Attributes:
        calls: number of calls.
        payload: bytes of the tensors that this rank put in.
        sent: bytes that left this rank; see `count_sent_bytes`.
    """

    calls: int = 0
    payload: int = 0
    sent: float = 0


@contextmanager
def counted_traffic() -> Iterator[dict[str, Traffic]]:
    """Count this rank's collectives within the block, by kind."""
    traffic: dict[str, Traffic] = defaultdict(Traffic)
    with ExitStack() as patches:
        for kind in KINDS:
            counting = _count_calls(kind, getattr(collectives, kind), traffic)
            patches.enter_context(mock.patch.object(collectives, kind, counting))
        yield traffic


def _count_calls(kind: str, collective: Callable, traffic: dict[str, Traffic]) -> Callable:
    def call(tensor: paddle.Tensor, *args: Any, **options: Any) -> paddle.Tensor:
        # Gloo has no reduce_scatter: the package's calls its all_reduce there, which is counted as such.
        if kind != "reduce_scatter" or dist.get_backend() != "GLOO":
            payload = tensor.size * tensor.element_size()
            traffic[kind].calls += 1
            traffic[kind].payload += payload
            traffic[kind].sent += collectives.count_sent_bytes(kind, payload, dist.get_world_size())
        return collective(tensor, *args, **options)

    return call
