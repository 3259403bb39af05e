"""Paddle's mixed precision (O1) on a CPU, on which Paddle ignores it.

On a GPU every operation first converts its tensors: to 16 bits if it is on the white list, to float32 if it is on the
black list, and otherwise to the widest type among them (`paddle/fluid/imperative/amp_utils.h`). Here Python does that
in front of the operations, with Paddle's own lists, so that tensors have the types that they would have on a GPU.
Operations on tensors of 16 bits, which mostly lack kernels for CPUs, compute in float32 and round their results.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import BuiltinFunctionType
from typing import Any, Literal
from unittest import mock

import paddle
from paddle import Tensor
from paddle.amp.auto_cast import _update_list  # private, as of Paddle 3.3.1: the lists, with those of the caller
from paddle.base import core

NARROW_TYPES = (paddle.bfloat16, paddle.float16)
# The lists have older names of some operations (`phi::TransToFluidOpName`). `linear` is what CPUs compute where GPUs
# compute `linear_v2`.
LISTED_NAMES = {
    "matmul": "matmul_v2", "__matmul__": "matmul_v2", "__rmatmul__": "matmul_v2", "linear": "linear_v2",
    "embedding": "lookup_table_v2", "sum": "reduce_sum", "mean": "reduce_mean", "prod": "reduce_prod",
    "cross_entropy_with_softmax": "softmax_with_cross_entropy", "bilinear_interp": "bilinear_interp_v2",
    "nearest_interp": "nearest_interp_v2", "bicubic_interp": "bicubic_interp_v2",
}  # fmt: skip
# Norms take the type of their input alone; scale, bias and statistics stay in float32.
NORMS = {"batch_norm", "layer_norm", "sync_batch_norm"}
# Operations that O1 does not convert: `cast` and `full_like` are given a type, and `assign` copies a tensor as it is.
UNCONVERTED = {"cast", "full_like", "assign"}
# Paddle runs gradients in backward, where O1 converts nothing. `ernie_vil2` calls this one as an ordinary operation.
CALLED_GRADIENTS = {"silu_grad"}
OPERATORS = (
    "__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__rtruediv__", "__matmul__",
    "__rmatmul__", "__pow__", "__rpow__", "__gt__", "__ge__", "__lt__", "__le__", "__eq__", "__ne__",
)  # fmt: skip


@dataclass
class MixedPrecision:
    """State of the emulation."""

    dtype: Any = None  # type of 16 bits in a block of `auto_cast`; None: outside of all
    white_list: set[str] = field(default_factory=set)
    black_list: set[str] = field(default_factory=set)

    @contextmanager
    def auto_cast(
        self,
        enable: bool = True,
        custom_white_list: Any = None,
        custom_black_list: Any = None,
        level: Literal["O0", "OD", "O1", "O2"] = "O1",
        dtype: Literal["float16", "bfloat16"] = "float16",
        use_promote: bool = True,
    ) -> Iterator[None]:
        """Stand in for `paddle.amp.auto_cast`."""
        if level != "O1":
            raise ValueError(f"level {level}: only O1 is emulated")
        previous = self.dtype, self.white_list, self.black_list
        if enable:
            self.dtype = getattr(paddle, dtype)
            self.white_list, self.black_list = _update_list(custom_white_list, custom_black_list, level, dtype)
        else:
            self.dtype, self.white_list, self.black_list = None, set(), set()
        try:
            yield
        finally:
            self.dtype, self.white_list, self.black_list = previous

    def choose_type(self, name: str, types: tuple[Any, ...]) -> Any:
        """Return the type in which an operation on tensors of these types computes."""
        if name in self.white_list:
            return self.dtype
        if name in self.black_list:
            return paddle.float32
        if name in NORMS:
            return types[0]
        return next((dtype for dtype in types if dtype not in NARROW_TYPES), types[0])

    def wrap(self, name: str, function: Any) -> Any:
        """Return a function that converts its tensors as O1 does for an operation, and then calls `function`."""

        def run(*arguments: Any, **options: Any) -> Any:
            tensors = [tensor for tensor in list_tensors([*arguments, *options.values()]) if is_convertible(tensor)]
            if not tensors:
                return function(*arguments, **options)
            types = tuple(tensor.dtype for tensor in tensors)
            dtype = self.choose_type(name, types)
            is_narrow = dtype in NARROW_TYPES
            if not is_narrow and not any(tensor_type in NARROW_TYPES for tensor_type in types):
                return function(*arguments, **options)

            # The CPU computes in float32, with tensors rounded to the type that the GPU computes in.
            rounded_tensors = tensors[:1] if name in NORMS else tensors
            converted = {id(tensor): tensor.astype("float32") for tensor in tensors}
            for tensor in rounded_tensors:
                converted[id(tensor)] = tensor.astype(dtype).astype("float32")
            results = function(*replace_tensors(arguments, converted), **replace_tensors(options, converted))
            if not is_narrow:
                return results
            if name in NORMS and not isinstance(results, Tensor):
                return results[0].astype(dtype), *results[1:]
            return _round(results, dtype)

        return run


@contextmanager
def emulate_mixed_precision() -> Iterator[None]:
    """Make `paddle.amp.auto_cast` work on a CPU in the block; on a GPU Paddle's own is used."""
    if paddle.get_device() != "cpu":
        yield
        return
    emulation = MixedPrecision()
    with ExitStack() as patches:

        def replace(owner: Any, attribute: str, value: Any) -> None:
            patches.enter_context(mock.patch.object(owner, attribute, value))

        for owner, attribute, name in _find_operations():
            function = getattr(owner, attribute)
            replace(owner, attribute, emulation.wrap(LISTED_NAMES.get(name, name), function))
        replace(paddle.amp, "auto_cast", emulation.auto_cast)
        replace(paddle.amp, "is_autocast_enabled", lambda: emulation.dtype is not None)
        replace(paddle.amp, "get_autocast_dtype", lambda: emulation.dtype)
        yield


@cache
def _find_operations() -> list[tuple[Any, str, str]]:
    """Return all places in Paddle from which operations are called: the object, its attribute, and the operation."""
    names = {}
    for name in dir(core.eager.ops):
        # A trailing underscore marks operations in place, which O1 leaves alone.
        is_gradient = name.endswith("_grad") and name not in CALLED_GRADIENTS
        if not name.endswith("_") and not is_gradient and name not in UNCONVERTED:
            names[getattr(paddle._C_ops, name)] = name
    places: list[tuple[Any, str, str]] = [(Tensor, name, name) for name in OPERATORS]
    # Paddle's older batch norms call their activation by the older interface.
    places += [(paddle._legacy_C_ops, name, name) for name in ("relu", "relu6", "sigmoid", "swish", "hard_swish")]
    # Most functions look an operation up in paddle._C_ops when they are called; some modules have imported it.
    for module_name, module in list(sys.modules.items()):
        if module_name == "paddle._C_ops" or module_name.startswith(("paddle.tensor", "paddle.nn", "paddle.incubate")):
            for attribute, value in list(vars(module).items()):
                if isinstance(value, BuiltinFunctionType) and value in names:
                    places.append((module, attribute, names[value]))
    return places


def list_tensors(arguments: Any) -> Iterator[Tensor]:
    """Yield the tensors of arguments, also those in lists and tuples."""
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, list | tuple):
            yield from list_tensors(argument)


def is_convertible(tensor: Tensor) -> bool:
    """Return whether a tensor has values of a type that mixed precision may convert."""
    return tensor._is_initialized() and (tensor.dtype == paddle.float32 or tensor.dtype in NARROW_TYPES)


def replace_tensors(arguments: Any, replacements: dict[int, Tensor]) -> Any:
    """Return arguments, or options by name, with some tensors replaced; `replacements` are by the id of the tensor."""
    if isinstance(arguments, dict):
        return {name: replace_tensors([value], replacements)[0] for name, value in arguments.items()}
    replaced = []
    for argument in arguments:
        if isinstance(argument, list | tuple):
            argument = type(argument)(replace_tensors(argument, replacements))
        replaced.append(replacements.get(id(argument), argument))
    return replaced


def _round(results: Any, dtype: Any) -> Any:
    if isinstance(results, list | tuple):
        return type(results)(_round(result, dtype) for result in results)
    # What an operation keeps for backward may have no values.
    if isinstance(results, Tensor) and results._is_initialized() and results.dtype == paddle.float32:
        return results.astype(dtype)
    return results
