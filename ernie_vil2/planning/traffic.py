"""What a rank sends in a step, by collective."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ernie_vil2.parallel.collectives import sent_bytes

BUCKET = 25 * 2**20
"""Bytes of gradients that Paddle's data parallel reduces at once."""


@dataclass(frozen=True)
class Transfer:
    """One kind of message of a step.

    Attributes:
        what: is sent.
        collective: `all_gather`, `reduce_scatter` or `all_reduce`.
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


def transfers(ranks: int, rows: int, views: int, width: int, pairs: int, parameters: int) -> list[Transfer]:
    """What each of `ranks` sends in a step; nothing for one rank.

    Args:
        rows: of this rank.
        views: encodings of a row that the loss needs, 2 to 4.
        width: of the joint space.
        pairs: view pairs of the loss.
        parameters: elements of the model.
    """
    if ranks == 1:
        return []
    embeddings = rows * views * width * 4
    gradients = parameters * 4

    def transfer(what: str, collective: str, payload: int, calls: int = 1, hidden: bool = False) -> Transfer:
        return Transfer(what, collective, calls, payload, sent_bytes(collective, payload, ranks), hidden)

    return [
        transfer("ids of the rows", "all_gather", rows * 2 * 8),
        transfer("embeddings", "all_gather", embeddings),
        transfer("gradients of the embeddings", "reduce_scatter", ranks * embeddings),
        transfer("gradients of the parameters", "all_reduce", gradients, math.ceil(gradients / BUCKET), hidden=True),
        transfer("losses", "all_reduce", (pairs + 2) * 4),
    ]
