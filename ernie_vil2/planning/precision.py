"""A float32 graph as automatic mixed precision would run it.

Tracing under mixed precision itself would need kernels that Paddle's CPU build lacks, those of batch norms for one.
"""

from __future__ import annotations

from collections import defaultdict

from paddle.amp.amp_lists import FP16_BLACK_LIST, WHITE_LIST

from ernie_vil2.planning.graph import Graph, Op

# Names of operations that differ between Paddle's graphs and its lists.
_LISTED_AS = {"sum": "reduce_sum", "p_norm": "pnorm", "embedding": "lookup_table_v2"}
_NORMS = ("batch_norm", "sync_batch_norm")


def reduced(graph: Graph) -> Graph:
    """`graph` with 16-bit floats where Paddle's level O1 has them, and the casts between.

    Matrix products and convolutions are computed in 16 bits, what is on Paddle's black list in 32, all else in 16 bits
    where no float32 takes part. Every operation casts what it reads for itself, and backward reads these casts. The
    sizes of gradients are left in float32, which overstates the work space.
    """
    other = Graph(
        graph.rows,
        forward=[],
        nbytes=dict(graph.nbytes),
        views=dict(graph.views),
        fixed=set(graph.fixed),
        parameters=graph.parameters,
        results=graph.results,
    )
    half: set[int] = set()
    casts: dict[tuple[str, int], list[int]] = defaultdict(list)
    makers = {value: op.name for op in graph.forward for value in op.outputs}
    constants = graph.fixed - graph.parameters
    starts = []
    for op in graph.forward:
        starts.append(len(other.forward))
        name = _kind(op)
        floats = [value for value in op.inputs if value in graph.floats and value not in constants]
        if name in _NORMS:
            floats = floats[:1]  # parameters and statistics stay as they are
        is_half = _in_16_bits(name, floats, half, graph, makers)
        inputs = list(op.inputs)
        for value in floats:
            if is_half != (value in half):
                cast = -1 - len(other.forward)
                other.nbytes[cast] = graph.nbytes[value] // 2 if is_half else graph.nbytes[value]
                other.forward.append(Op("cast", [value], [cast]))
                if value in graph.fixed:
                    other.fixed.add(cast)
                casts[name, value].append(cast)
                inputs[inputs.index(value)] = cast
        outputs = [value for value in op.outputs if value in graph.floats]
        for value in outputs[:1] if name in _NORMS else outputs:
            if is_half:
                half.add(value)
                other.nbytes[value] = graph.nbytes[value] // 2
        if op.outputs and op.outputs[0] in other.views and inputs[0] != op.inputs[0]:
            del other.views[op.outputs[0]]  # a view of a cast would be one of another size
        other.forward.append(Op(op.name, inputs, op.outputs, op.flops))
    other.backward = [_reading_casts(op, casts) for op in graph.backward]
    starts.append(len(other.forward))
    other.blocks = [(starts[start], starts[stop]) for start, stop in graph.blocks]
    return other


def _in_16_bits(name: str, floats: list[int], half: set[int], graph: Graph, makers: dict[int, str]) -> bool:
    if name in WHITE_LIST or _is_bias_of_product(name, floats, graph, makers):
        return True
    return bool(floats) and _LISTED_AS.get(name, name) not in FP16_BLACK_LIST and half.issuperset(floats)


def _is_bias_of_product(name: str, floats: list[int], graph: Graph, makers: dict[int, str]) -> bool:
    """On a GPU a linear layer is one operation; in a graph it is two."""
    return (
        name == "add"
        and any(makers.get(value) == "pd_op.matmul" for value in floats)
        and any(value in graph.parameters for value in floats)
    )


def _reading_casts(op: Op, casts: dict[tuple[str, int], list[int]]) -> Op:
    name = _kind(op).removesuffix("_grad")
    # Backward runs the other way round: it reads the last cast first.
    inputs = [casts[name, value].pop() if casts.get((name, value)) else value for value in op.inputs]
    return Op(op.name, inputs, op.outputs, op.flops)


def _kind(op: Op) -> str:
    return op.name.removeprefix("pd_op.").rstrip("_")
