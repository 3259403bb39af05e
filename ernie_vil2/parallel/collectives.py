"""The collectives that the package calls, and checks that ranks agree: on their configuration, and on an error."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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

# Most bytes of tensors that are sent together, as in fleet's fused buffers (Paddle 3.3.1). Larger buckets need more
# memory; smaller ones are more collectives, each of which takes some tens of microseconds to start.
BUCKET_BYTES = 128 << 20


def count_sent_bytes(kind: str, payload: int, ranks: int) -> float:
    """Return the bytes that a rank sends in a ring, which is how gloo and NCCL run large collectives.

    Args:
        kind: `all_gather`, `reduce_scatter` or `all_reduce`, which is the other two in a row. For `reduce` to a rank
            and `broadcast` from it, the result is the mean over the ranks: all but one pass everything on.
        payload: bytes of the tensor that each rank contributes.
        ranks: length of the ring.
    """
    if kind == "all_gather":
        return (ranks - 1) * payload
    rounds = 2 if kind == "all_reduce" else 1
    return rounds * (ranks - 1) / ranks * payload


def all_gather(tensor: paddle.Tensor, wait: bool = True) -> paddle.Tensor:
    """Concatenate the tensors `[b, ...]` of all ranks in rank order; without gradient. A collective.

    Args:
        tensor: of equal shape on every rank.
        wait: wait for late ranks first, see `barrier`. False saves time between the layers of one forward, where no
            rank is late.

    Returns:
        `[ranks * b, ...]`.
    """
    if wait:
        barrier()
    gathered = paddle.empty([dist.get_world_size() * tensor.shape[0], *tensor.shape[1:]], tensor.dtype)
    dist.stream.all_gather(gathered, tensor.contiguous())
    return gathered


def all_reduce(tensor: paddle.Tensor, wait: bool = True) -> paddle.Tensor:
    """Replace a tensor by its sum over the ranks, in place, and return it; `wait` as in `all_gather`. A collective."""
    if wait:
        barrier()
    contiguous = tensor.contiguous()  # backends read memory from its first byte on, whatever the strides
    dist.all_reduce(contiguous)
    return tensor if tensor.is_contiguous() else paddle.assign(contiguous, tensor)


def reduce_scatter(tensor: paddle.Tensor) -> paddle.Tensor:
    """Sum `[ranks * b, ...]` over the ranks; return this rank's rows `[b, ...]` of the sum. A collective."""
    num_rows = tensor.shape[0] // dist.get_world_size()
    if dist.get_backend() == "GLOO":  # gloo has no reduce_scatter
        return all_reduce(tensor.clone())[dist.get_rank() * num_rows :][:num_rows]
    barrier()
    local_sum = paddle.empty([num_rows, *tensor.shape[1:]], tensor.dtype)
    dist.stream.reduce_scatter(local_sum, tensor.contiguous())
    return local_sum


def average_on_owners(tensors: Mapping[int, Sequence[paddle.Tensor]]) -> None:
    """Replace each tensor by its mean over the ranks, in place, on the rank that owns it. A collective.

    On other ranks its values are undefined afterwards. The tensors of an owner are sent in buckets, not one by one.

    Args:
        tensors: tensors by the rank that owns them. All have one type, and the same shapes and order on every rank.
    """
    for owner, bucket in _split_by_owner(tensors):
        buffer = _concatenate(bucket)
        buffer.scale_(1 / dist.get_world_size())
        reduce(buffer, owner)
        if owner == dist.get_rank():
            _copy_back(buffer, bucket)


def broadcast_from_owners(tensors: Mapping[int, Sequence[paddle.Tensor]]) -> None:
    """Replace each tensor by that of the rank that owns it, in place. A collective.

    Args:
        tensors: see `average_on_owners`.
    """
    for owner, bucket in _split_by_owner(tensors):
        buffer = _concatenate(bucket)
        broadcast(buffer, owner)
        if owner != dist.get_rank():
            _copy_back(buffer, bucket)


def reduce(tensor: paddle.Tensor, rank: int) -> None:
    """Replace a contiguous tensor by its sum over the ranks, in place, on the rank of this number. A collective."""
    dist.reduce(tensor, rank)


def broadcast(tensor: paddle.Tensor, rank: int) -> None:
    """Replace a contiguous tensor by that of the rank of this number, in place. A collective."""
    dist.broadcast(tensor, rank)


def split_into_buckets(sizes: Sequence[int], max_size: int) -> list[slice]:
    """Divide entries, in order, into buckets of at most `max_size`; a larger entry has a bucket to itself.

    Args:
        sizes: sizes of the entries.
        max_size: largest sum of the sizes in a bucket.

    Returns:
        The entries of each bucket.
    """
    buckets, start, total = [], 0, 0
    for index, size in enumerate(sizes):
        if index > start and total + size > max_size:
            buckets.append(slice(start, index))
            start, total = index, 0
        total += size
    if sizes:
        buckets.append(slice(start, len(sizes)))
    return buckets


def _split_by_owner(
    tensors: Mapping[int, Sequence[paddle.Tensor]],
) -> Iterator[tuple[int, Sequence[paddle.Tensor]]]:
    for owner, owned_tensors in tensors.items():
        sizes = [tensor.size * tensor.element_size() for tensor in owned_tensors]
        for bucket in split_into_buckets(sizes, BUCKET_BYTES):
            yield owner, owned_tensors[bucket]


def _concatenate(bucket: Sequence[paddle.Tensor]) -> paddle.Tensor:
    """Return the tensors one after the other in a new one; a single tensor, which may be large, is not copied."""
    if len(bucket) == 1:
        return bucket[0]
    return paddle.concat([tensor.flatten() for tensor in bucket])


def _copy_back(buffer: paddle.Tensor, bucket: Sequence[paddle.Tensor]) -> None:
    if len(bucket) == 1:
        return  # the buffer is the tensor itself
    chunks = paddle.split(buffer, [tensor.size for tensor in bucket])
    for tensor, chunk in zip(bucket, chunks, strict=True):
        tensor.set_value(chunk.reshape(tensor.shape))


def all_gather_object(value: Any) -> list[Any]:
    """Return the values of all ranks in rank order. A collective.

    Args:
        value: anything that can be pickled; meant for small values, rarely.
    """
    if dist.get_world_size() == 1:
        return [value]
    barrier()
    values: list[Any] = []
    dist.all_gather_object(values, value)
    return values


class Disagreement(ValueError):  # noqa: N818  -- named by what has happened
    """Ranks were started with different configurations, data or code; the message says which rank has what."""


class FailedRank(ValueError):  # noqa: N818  -- named by what has happened
    """Another rank has raised an error; the message is that error's, with the rank's number."""


def raise_on_all_ranks(error: Exception | None) -> None:
    """Raise on every rank if one of them has an error. A collective.

    Args:
        error: the error of this rank; None: it has none.

    Raises:
        FailedRank: another rank has an error. A rank that has an error itself raises its own.
    """
    message = None
    if error is not None:
        message = str(error) or type(error).__name__
    messages = all_gather_object(message)
    if error is not None:
        raise error
    for rank, rank_message in enumerate(messages):
        if rank_message is not None:
            raise FailedRank(f"rank {rank}: {rank_message}")


@contextmanager
def errors_on_all_ranks() -> Iterator[None]:
    """Raise an error of one rank in the block on all ranks, which would otherwise wait for that rank.

    A collective, see `raise_on_all_ranks`: every rank must enter the block, which must not contain a collective.
    """
    error = None
    try:
        yield
    except Exception as raised:
        error = raised
    raise_on_all_ranks(error)


def run_on_first_rank_first(action: Callable[[], T]) -> T:
    """Run an action on rank 0, then on the others, which find what rank 0 has fetched. A collective.

    An error ends it on all ranks, see `raise_on_all_ranks`; the action must not contain a collective.
    """
    results = []
    for is_turn_of_first in (True, False):
        with errors_on_all_ranks():
            if is_turn_of_first == (dist.get_rank() == 0):
                results.append(action())
    return results[0]


def check_agreement(facts: Mapping[str, Any]) -> None:
    """Compare facts over all ranks; raise on every rank if any differs. A collective.

    Args:
        facts: JSON-like values by name; nested mappings are compared key by key.

    Raises:
        Disagreement: names every key in which ranks differ, and the ranks.
    """
    lines = []
    for key, values_by_rank in differences(*all_gather_object(dict(facts))):
        values = [repr(value) for value in values_by_rank]
        # The value that most ranks have is assumed to be the intended one; among equally frequent values, the first
        # rank's.
        usual, _ = Counter(values).most_common(1)[0]
        deviations = [f"rank {rank} has {value}" for rank, value in enumerate(values) if value != usual]
        lines.append(f"  {key}: {', '.join(deviations)}; rank {values.index(usual)} has {usual}")
    if lines:
        raise Disagreement(
            "the ranks were not started alike; give all of them the same configuration, data and code\n"
            + "\n".join(lines)
        )


def hash_samples(stream: SampleStream, num_samples: int = 16) -> str:
    """Return a short hash of the first samples of a stream: their names, texts and images.

    Of a shard elsewhere only the address is hashed: otherwise every machine would fetch a shard that only one reads.
    """
    summary = blake2b(digest_size=8)
    for position in range(num_samples):
        if not stream.is_local(position):
            summary.update(stream.describe_location(position).encode())
            continue
        try:
            source, sample = stream[position]
        except BadSample as bad_sample:
            summary.update(str(bad_sample).encode())
        else:
            summary.update(repr((source, sample.image_name, sample.text_name, sample.captions, sample.tags)).encode())
            summary.update(sample.image)
    return summary.hexdigest()
