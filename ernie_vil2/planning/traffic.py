"""What a rank sends in a step, by collective."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ernie_vil2.launch import STOPPED
from ernie_vil2.parallel.collectives import sent_bytes

BUCKET = 25 * 2**20
"""Bytes of gradients that Paddle's data parallel reduces at once."""


@dataclass(frozen=True)
class Transfer:
    """One kind of message of a step.

    Attributes:
        what: is sent.
        collective: as in `sent_bytes`.
        calls: of the collective in a step.
        payload: bytes that a rank puts in over all calls.
        sent: bytes that leave a rank in a ring.
        hidden: whether it runs while the step computes.
    """

    what: str
    collective: str
    calls: int
    payload: int
    sent: float
    hidden: bool = False


def transfers(ranks: int, rows: int, views: int, width: int, pairs: int) -> list[Transfer]:
    """What each of `ranks` sends in a step for the loss; nothing for one rank.

    Args:
        rows: of this rank.
        views: encodings of a row that the loss needs, 2 to 4.
        width: of the joint space.
        pairs: view pairs of the loss.
    """
    if ranks == 1:
        return []
    embeddings = rows * views * width * 4
    return [
        _transfer("ids of the rows", "all_gather", rows * 2 * 8, ranks),
        _transfer("embeddings", "all_gather", embeddings, ranks),
        _transfer("gradients of the embeddings", "reduce_scatter", ranks * embeddings, ranks),
        # The sum, that of each pair, the norm of the gradient, and whether a signal asks for the end.
        _transfer("losses", "all_reduce", (1 + pairs + 1 + len(STOPPED)) * 4, ranks),
    ]


def gradient_transfers(ranks: int, parameters: int, tensors: int, sharding: str) -> list[Transfer]:
    """What each of `ranks` sends in a step so that all take it with the mean of their gradients.

    Args:
        parameters: elements of the model.
        tensors: that hold them.
        sharding: `Training.sharding`: an owner gets a parameter's gradients and gives out what it has updated.
    """
    if ranks == 1:
        return []
    size = parameters * 4
    if sharding == "none":
        buckets = math.ceil(size / BUCKET)
        return [_transfer("gradients of the parameters", "all_reduce", size, ranks, buckets, hidden=True)]
    return [
        _transfer("gradients of the parameters", "reduce", size, ranks, tensors, hidden=sharding == "stage2"),
        _transfer("updated parameters", "broadcast", size, ranks, tensors),
    ]


def norm_transfers(ranks: int, norms: int, channels: int, forwards: int, backwards: int) -> list[Transfer]:
    """What each of `ranks` sends in a step so that batch norms see the rows of all.

    Args:
        norms: how many there are.
        channels: of all of them together.
        forwards, backwards: how often each runs in a step.
    """
    if ranks == 1 or not norms:
        return []
    # Means, variances and the number of elements; then two sums.
    forward, backward = (2 * channels + norms) * 4 * forwards, 2 * channels * 4 * backwards
    return [
        _transfer("statistics of batch norms", "all_gather", forward, ranks, norms * forwards),
        _transfer("gradients of these", "all_reduce", backward, ranks, norms * backwards),
    ]


def _transfer(what: str, collective: str, payload: int, ranks: int, calls: int = 1, hidden: bool = False) -> Transfer:
    return Transfer(what, collective, calls, payload, sent_bytes(collective, payload, ranks), hidden)
