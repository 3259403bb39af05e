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
    """

    flops: float
    kept: float
    work: float
    fixed: int


def count(graph: Graph) -> Census:
    """The census of a traced graph."""
    rows = graph.rows
    kept = _kept(graph)
    return Census(
        flops=sum(op.flops for op in graph.forward) / rows,
        kept=_total(graph, kept - graph.fixed) / rows,
        work=(_peak(graph) - _total(graph, kept - graph.fixed)) / rows,
        fixed=_total(graph, {value for value in kept & graph.fixed if value in _made(graph)}),
    )


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
