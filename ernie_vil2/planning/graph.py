"""A tower's operations, forward and backward, without its weights and without running it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import paddle
from paddle import nn

ROWS = 2
"""Rows of a traced batch: more than one, since axes of size 1 are often treated apart."""

_BYTES = {
    **dict.fromkeys(("bool", "uint8", "int8"), 1),
    **dict.fromkeys(("float16", "bfloat16"), 2),
    **dict.fromkeys(("int32", "float32"), 4),
    **dict.fromkeys(("int64", "float64"), 8),
}
_NO_OPERATION = ("builtin.parameter", "builtin.combine")


def _forms(*names: str) -> set[str]:
    return {f"pd_op.{name}{suffix}" for name in names for suffix in ("", "_")}


# Operations whose result lies in the memory of their first input.
_VIEWS = _forms("reshape", "flatten", "unsqueeze", "squeeze") | {
    "builtin.split",
    "builtin.slice",
    "pd_op.relu_",
    "pd_op.share_data_",
}
# Likewise, unless Paddle's kernels for strided tensors are switched off.
_STRIDED_VIEWS = _forms("transpose", "slice", "split", "split_with_num", "unbind")


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        name: Paddle's.
        inputs: numbers of the values whose content it reads.
        outputs: numbers of the values that it makes.
        flops: floating-point operations of a matrix product or convolution; 0 for all others.
    """

    name: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    flops: float = 0.0


@dataclass
class Graph:
    """The operations of one batch of `rows` rows.

    Attributes:
        rows: of the batch.
        forward: in the order in which they run.
        backward: likewise, with forward's values by the same numbers.
        nbytes: size of every value.
        views: value -> the value in whose memory it lies.
        fixed: values that are the same for every batch: parameters, constants and what is computed from these alone.
        parameters: of the fixed ones, those that are learned or gathered.
        floats: forward's values of float32.
        results: values that outlive the step: gradients of the parameters.
        blocks: `[start, stop)` in `forward` of every layer that the caller named.
    """

    rows: int
    forward: list[Op]
    backward: list[Op] = field(default_factory=list)
    nbytes: dict[int, int] = field(default_factory=dict)
    views: dict[int, int] = field(default_factory=dict)
    fixed: set[int] = field(default_factory=set)
    parameters: set[int] = field(default_factory=set)
    floats: set[int] = field(default_factory=set)
    results: set[int] = field(default_factory=set)
    blocks: list[tuple[int, int]] = field(default_factory=list)


def trace(
    model: nn.Layer,
    encode: Callable[[paddle.Tensor], paddle.Tensor],
    shape: Sequence[int],
    dtype: str,
    blocks: Sequence[nn.Layer] = (),
    strided_views: bool = True,
) -> Graph:
    """The operations of `encode` on `ROWS` rows and of its backward.

    Args:
        model: whose parameters `encode` uses; they need no values (`paddle.LazyGuard`).
        encode: a method of `model`.
        shape: of one row of the input.
        dtype: of the input.
        blocks: layers within `model` whose place in the graph is asked for.
        strided_views: whether transposed tensors and parts of tensors lie in the memory of the whole, as Paddle has it;
            on CPU this package has them copied (`runtime.set_device`).
    """
    places: list[list[int]] = []
    hooks = []
    for block in blocks:
        hooks.append(block.register_forward_pre_hook(lambda layer, inputs: places.append([_position()])))
        hooks.append(block.register_forward_post_hook(lambda layer, inputs, output: places[-1].append(_position())))
    spec = paddle.static.InputSpec([ROWS, *shape], dtype)
    traced = paddle.jit.to_static(_Encoding(model, encode), input_spec=[spec], full_graph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that traced tensors are on no device
        concrete = traced.forward.concrete_program
        for hook in hooks:
            hook.remove()
        program = concrete.main_program
        block = program.global_block()
        count = len(block.ops)
        used = [parameter for parameter in block.all_parameters() if not parameter.use_empty()]
        paddle.enable_static()
        try:
            with paddle.static.program_guard(program):
                gradients = paddle.static.gradients(paddle.utils.flatten(concrete.outputs), used)
        finally:
            paddle.disable_static()
    graph = Graph(ROWS, [], blocks=[tuple(place) for place in places])
    lists: dict[int, list[int]] = {}
    views = _VIEWS | _STRIDED_VIEWS if strided_views else _VIEWS
    for number, op in enumerate(block.ops):
        _add(graph, op, lists, views, is_backward=number >= count)
    graph.results = {value.id for value in gradients if value is not None}
    return graph


class _Encoding(nn.Layer):
    """What is traced: as it stands, since rewriting its Python for control flow on tensors takes a minute."""

    def __init__(self, model: nn.Layer, encode: Callable[[paddle.Tensor], paddle.Tensor]):
        super().__init__()
        self.model, self.encode = model, encode

    @paddle.jit.not_to_static
    def forward(self, batch: paddle.Tensor) -> paddle.Tensor:
        return self.encode(batch)


def _position() -> int:
    """How many operations a graph of the program under construction would have; parameters are put in front."""
    ops = paddle.static.default_main_program().global_block().ops
    return sum(op.name() not in _NO_OPERATION for op in ops)


def _add(graph: Graph, op: Any, lists: dict[int, list[int]], views: set[str], is_backward: bool) -> None:
    """Appends an operation.

    Args:
        lists: the values of every list of values that one operation has made for another.
        views: names of the operations whose result lies in the memory of their first input.
    """
    operands = [value for value in op.operands_source() if value.initialized()]
    results = [value for value in op.results() if value.initialized()]
    if op.name() == "builtin.combine":
        lists[results[0].id] = [value.id for value in operands]
        return
    for value in results:
        graph.nbytes[value.id] = _nbytes(value)
        if not is_backward and value.is_dense_tensor_type() and str(value.dtype) == "paddle.float32":
            graph.floats.add(value.id)
    if op.name() == "builtin.parameter":
        graph.fixed.update(value.id for value in results)
        graph.parameters.update(value.id for value in results)
        return
    inputs = [number for value in operands for number in lists.get(value.id, [value.id])]
    if not is_backward and op.name() != "pd_op.data" and graph.fixed.issuperset(inputs):
        graph.fixed.update(value.id for value in results)
    if op.name() in views:
        graph.views.update((value.id, inputs[0]) for value in results)
    # The gradient of the result, with which backward begins, takes no more than its shape.
    shape_only = is_backward and op.name() == "pd_op.full_like"
    unread = {value.id for value in operands if shape_only or (is_backward and op.is_no_need_buffer(value))}
    (graph.backward if is_backward else graph.forward).append(
        Op(
            op.name(),
            [number for value in operands if value.id not in unread for number in lists.get(value.id, [value.id])],
            [value.id for value in results],
            0.0 if is_backward else _flops(op),
        )
    )


def _nbytes(value: Any) -> int:
    if not value.is_dense_tensor_type():
        return 0  # a list of values, whose parts are counted
    return math.prod(max(0, size) for size in value.shape) * _BYTES[str(value.dtype).split(".")[-1]]


def _flops(op: Any) -> float:
    """Two for every multiplication with the addition that follows it."""
    name = op.name().removeprefix("pd_op.")
    if name in ("matmul", "bmm"):
        first = op.operands_source()[0].shape
        inner = first[-2] if name == "matmul" and op.attrs()["transpose_x"] else first[-1]
        return 2.0 * math.prod(op.results()[0].shape) * inner
    if name in ("conv2d", "depthwise_conv2d"):
        kernel = op.operands_source()[1].shape  # [out, in / groups, height, width]
        return 2.0 * math.prod(op.results()[0].shape) * math.prod(kernel[1:])
    return 0.0
