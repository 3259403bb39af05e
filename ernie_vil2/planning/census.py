"""What a row costs in a tower: operations, and bytes that its forward keeps for its backward."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ernie_vil2.planning.graph import Graph, Op


@dataclass(frozen=True)
class Census:
    """Counts of a tower's graph.

    Attributes:
        flops: of the matrix products and convolutions of one row's forward; backward takes twice as many.
        kept: bytes a row that forward keeps for backward, its input included.
        work: bytes a row that are in use beyond `kept`, where forward and backward together need the most.
        fixed: bytes kept whatever the number of rows: parameters in reduced precision.
        kept_recomputed: `kept` when blocks keep their inputs only.
        work_recomputed: `work` then; the block that runs a second time is part of it.
    """

    flops: float
    kept: float
    work: float
    fixed: int
    kept_recomputed: float
    work_recomputed: float


def count(graph: Graph) -> Census:
    """The census of a traced graph."""
    kept = _kept(graph)
    fixed = {value for value in kept & graph.fixed if value in _made(graph)}
    activations = kept - graph.fixed
    total, work = _total(graph, activations), _peak(graph) - _total(graph, activations)
    left, largest = _recomputed(graph, activations)
    return Census(
        flops=sum(op.flops for op in graph.forward) / graph.rows,
        kept=total / graph.rows,
        work=work / graph.rows,
        fixed=_total(graph, fixed),
        kept_recomputed=_total(graph, left) / graph.rows,
        work_recomputed=(work + largest) / graph.rows,
    )


def _recomputed(graph: Graph, activations: set[int]) -> tuple[set[int], int]:
    """What is kept of `activations` when blocks keep their inputs only, and the bytes of the largest block's rest."""
    left, largest = set(activations), 0
    for start, stop in graph.blocks:
        block = graph.forward[start:stop]
        made = {value for op in block for value in op.outputs if value not in graph.views}
        read = {_storage(graph, value) for op in block for value in op.inputs if value not in graph.fixed}
        read_later = {_storage(graph, value) for op in graph.forward[stop:] for value in op.inputs}
        left = left - (made - read_later) | (read - made - graph.fixed)
        largest = max(largest, _total(graph, activations & (made - read_later)))
    return left, largest


def _total(graph: Graph, values: Iterable[int]) -> int:
    return sum(graph.nbytes[value] for value in values)


def _made(graph: Graph) -> set[int]:
    return {value for op in graph.forward for value in op.outputs}


def _storage(graph: Graph, value: int) -> int:
    """The value in whose memory this one lies."""
    while value in graph.views:
        value = graph.views[value]
    return value


def _kept(graph: Graph) -> set[int]:
    """Forward's values, as storages, that backward reads."""
    forward = {_storage(graph, value) for value in _made(graph)}
    return {_storage(graph, value) for op in graph.backward for value in op.inputs} & forward


def _peak(graph: Graph) -> int:
    """The most bytes in use at one time when every value is freed after its last use."""
    ops: list[Op] = graph.forward + graph.backward
    last = {}
    for number, op in enumerate(ops):
        for value in (*op.outputs, *op.inputs):
            last[_storage(graph, value)] = number
    dying: dict[int, list[int]] = {}
    for value, number in last.items():
        dying.setdefault(number, []).append(value)
    outside = graph.fixed | {_storage(graph, value) for value in graph.results}
    live: set[int] = set()
    used = peak = 0
    for number, op in enumerate(ops):
        for value in op.outputs:
            value = _storage(graph, value)
            if value not in live and value not in outside:
                live.add(value)
                used += graph.nbytes[value]
        peak = max(peak, used)
        for value in dying.get(number, ()):
            if value in live:
                live.remove(value)
                used -= graph.nbytes[value]
    return peak
