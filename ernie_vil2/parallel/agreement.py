"""What all ranks must have in common before they train, and how they end together when one of them cannot go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, TypeVar

import paddle.distributed as dist

from ernie_vil2.config.section import differences
from ernie_vil2.data.samples import BadSample
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.parallel import collectives

T = TypeVar("T")


class Disagreement(ValueError):
    """Ranks that were started with different configuration, data or code; the message says which rank has what."""


class FailedRank(ValueError):
    """Another rank has raised an error; the message is that error's, with the rank's number."""


def agree(error: Exception | None) -> None:
    """Raises on every rank if one has an error. A collective: every rank must call it.

    Raises:
        FailedRank: another rank has one; a rank that has one itself raises its own.
    """
    everyone = collectives.all_gather_object(error and (str(error) or type(error).__name__))
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
    for key, found in differences(*collectives.all_gather_object(dict(facts))):
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
