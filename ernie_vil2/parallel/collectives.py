"""The collectives that the package calls, and how ranks agree: on what they were started with, and on an error."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, TypeVar

import paddle
import paddle.distributed as dist

from ernie_vil2.config import differences
from ernie_vil2.data.samples import BadSample
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.parallel.ranks import barrier

T = TypeVar("T")


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
    if wait:
        barrier()
    gathered = paddle.empty([dist.get_world_size() * tensor.shape[0], *tensor.shape[1:]], tensor.dtype)
    dist.stream.all_gather(gathered, tensor.contiguous())
    return gathered


def all_reduce(tensor: paddle.Tensor, wait: bool = True) -> paddle.Tensor:
    """Replaces a tensor by its sum over the ranks, in place, and returns it; `wait` as in `all_gather`."""
    if wait:
        barrier()
    whole = tensor.contiguous()  # backends read memory from its first byte on
    dist.all_reduce(whole)
    return tensor if tensor.is_contiguous() else paddle.assign(whole, tensor)


def reduce_scatter(tensor: paddle.Tensor) -> paddle.Tensor:
    """Sums `[ranks * b, ...]` over the ranks and leaves each rank its own `[b, ...]`."""
    rows = tensor.shape[0] // dist.get_world_size()
    if dist.get_backend() == "GLOO":  # which has none
        return all_reduce(tensor.clone())[dist.get_rank() * rows :][:rows]
    barrier()
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


class Disagreement(ValueError):  # noqa: N818  -- named by what has happened
    """Ranks that were started with different configuration, data or code; the message says which rank has what."""


class FailedRank(ValueError):  # noqa: N818  -- named by what has happened
    """Another rank has raised an error; the message is that error's, with the rank's number."""


def agree(error: Exception | None) -> None:
    """Raises on every rank if one has an error. A collective: every rank must call it.

    Raises:
        FailedRank: another rank has one; a rank that has one itself raises its own.
    """
    everyone = all_gather_object(error and (str(error) or type(error).__name__))
    if error is not None:
        raise error
    for rank, other in enumerate(everyone):
        if other is not None:
            raise FailedRank(f"rank {rank}: {other}")


@contextmanager
def agreed_errors() -> Iterator[None]:
    """An error of one rank within the block ends it on all ranks, which otherwise would wait for that one.

    A collective, see `agree`: every rank must enter the block, and there must be no collective in it.
    """
    error = None
    try:
        yield
    except Exception as raised:
        error = raised
    agree(error)


def first_rank_first(action: Callable[[], T]) -> T:
    """What `action` returns, done by rank 0 before the others, who find what it has fetched. A collective.

    An error ends it on all ranks, see `agree`; there must be no collective in it.
    """
    result = []
    for turn in (True, False):
        with agreed_errors():
            if turn == (dist.get_rank() == 0):
                result.append(action())
    return result[0]


def check_agreement(facts: Mapping[str, Any]) -> None:
    """Compares facts over all ranks. A collective: every rank must call it, and every rank raises if any differs.

    Args:
        facts: JSON-like values by name; nested mappings are compared key by key.

    Raises:
        Disagreement: names every key in which ranks differ, and the ranks.
    """
    lines = []
    for key, found in differences(*all_gather_object(dict(facts))):
        values = [repr(value) for value in found]
        # The value that most ranks have, or rank 0's, is taken for the right one.
        [(usual, _)] = Counter(values).most_common(1)
        others = [f"rank {rank} has {value}" for rank, value in enumerate(values) if value != usual]
        lines.append(f"  {key}: {', '.join(others)}; rank {values.index(usual)} has {usual}")
    if lines:
        raise Disagreement(
            "the ranks were not started alike; give all of them the same configuration, data and code\n"
            + "\n".join(lines)
        )


def digest(stream: SampleStream, samples: int = 16) -> str:
    """A short hash of the first samples of a stream: their names, texts, and images; of shards elsewhere the address.

    Fetched shards are not looked at: each machine would fetch what only one of them reads.
    """
    summary = blake2b(digest_size=8)
    for position in range(samples):
        if not stream.is_here(position):
            summary.update(stream.where(position).encode())
            continue
        try:
            source, sample = stream[position]
        except BadSample as bad:
            summary.update(str(bad).encode())
        else:
            summary.update(repr((source, sample.image_name, sample.text_name, sample.captions, sample.tags)).encode())
            summary.update(sample.image)
    return summary.hexdigest()
