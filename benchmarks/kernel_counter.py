"""Counts the kernels that Paddle would run on a GPU in a block of code, on a CPU; see `benchmarks/launches.py`.

Every operation that Python calls in Paddle is replaced by one that also records its tensors. The kernel of a gradient,
which Paddle calls itself, is recorded when backward has computed the gradient of the operation's result. Its bytes
follow from what the operation has saved. The package is told that its tensors lie on a GPU, linear layers compute as in
a GPU build, and mixed precision is emulated.

Private interfaces of Paddle are those of the wheel of 3.3.1; what GPUs do was read in its sources.
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import BuiltinFunctionType, FrameType
from typing import Any, NamedTuple
from unittest import mock

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer, saved_tensors_hooks
from paddle.base import core
from paddle.nn import functional as F

from benchmarks.gpu_linear import make_gpu_linear
from benchmarks.mixed_precision import (
    LISTED_NAMES,
    NARROW_TYPES,
    NORMS,
    MixedPrecision,
    is_convertible,
    list_tensors,
    replace_tensors,
)
from ernie_vil2.tasks import contrastive_step, task

KINDS = (
    "matrix products", "norms", "activations", "dropout", "attention", "casts", "sums of gradients", "copies of views",
    "loss", "optimiser", "other",
)  # fmt: skip
PRODUCTS = {"matmul", "linear_v2", "bmm", "addmm", "conv1d", "conv2d", "depthwise_conv2d"}
# The name of most operations does not tell what they work for. Their kind is that of the innermost calling function
# with one of these words in the name of its file or in its own: dropout of attention weights is dropout.
WORDS = (
    ("gelu", "activations"), ("layers/activations", "activations"), ("dropout", "dropout"), ("attention", "attention"),
    ("losses", "loss"), ("parallel/gather", "loss"), ("optimizer", "optimiser"), ("training/update", "optimiser"),
    ("/clip", "optimiser"),
)  # fmt: skip

# Operations whose result is a view, if the order of the elements allows it. Their gradients are views, too, unless they
# have more elements than the result.
VIEWS = {"reshape", "transpose", "flatten", "squeeze", "unsqueeze", "unbind", "slice", "split", "split_with_num"}
# Kernels of a GPU that read views where they are (paddle/phi/kernels/stride/*.cu; FLAGS_use_stride_compute_kernel is on
# by default). Others begin with a copy, and so do matrix products of heads.
VIEW_READERS = {
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "scale", "exp", "log", "sqrt", "tanh", "sigmoid",
    "silu", "sum", "mean", "max", "min", "bitwise_xor", "bitwise_and", "bitwise_or", "bitwise_not",
    "bitwise_right_shift", "greater_equal", "greater_than", "less_than", "less_equal", "equal", "not_equal",
    "contiguous", "assign",
}  # fmt: skip
ACTIVATIONS = {"gelu", "silu", "swish", "relu", "hardswish", "sigmoid"}
# Operations that read only as many elements of their tensor as they write.
GATHERS = {"embedding", "gather", "gather_nd", "index_select", "take_along_axis"}
# Operations whose tensors mixed precision does not convert, because they set a type themselves.
UNCONVERTED = {"cast", "full_like", "assign", "contiguous"}
ARITHMETIC = {"add", "subtract", "multiply", "divide"}
FUSED_ATTENTION = "flash_attn"

# Methods of tensors that are implemented in C++, with the kernel that each calls.
METHODS = {
    "__add__": "add", "__radd__": "add", "__sub__": "subtract", "__rsub__": "subtract", "__mul__": "multiply",
    "__rmul__": "multiply", "__truediv__": "divide", "__rtruediv__": "divide", "__matmul__": "matmul",
    "__rmatmul__": "matmul", "__pow__": "elementwise_pow", "__rpow__": "elementwise_pow", "__gt__": "greater_than",
    "__ge__": "greater_equal", "__lt__": "less_than", "__le__": "less_equal", "__eq__": "equal", "__ne__": "not_equal",
    "__mod__": "remainder", "__floordiv__": "floor_divide", "clone": "assign", "contiguous": "contiguous",
    "copy_": "copy_", "_getitem_dygraph": "slice", "_setitem_dygraph": "set_value_",
}  # fmt: skip


@dataclass
class Cost:
    """Launches of kernels, and the bytes that they read and write."""

    launches: int = 0
    num_bytes: int = 0


@dataclass
class StepCost:
    """Kernels that a block of code launches, and the bytes that it holds.

    Attributes:
        kinds: cost by kind of work.
        micro_batch_total: the cost of all micro batches of a cached step, which is part of `kinds`.
        num_micro_batches: micro batches that were encoded, each of them twice.
        kernels: launches by name of the kernel; names of gradients end in `_grad`.
        views: calls of operations that launch nothing, by name.
        held_bytes: bytes saved when backward begins; of several backwards, the most.
    """

    kinds: dict[str, Cost] = field(default_factory=lambda: {kind: Cost() for kind in KINDS})
    micro_batch_total: dict[str, Cost] = field(default_factory=lambda: {kind: Cost() for kind in KINDS})
    num_micro_batches: int = 0
    kernels: Counter[str] = field(default_factory=Counter)
    views: Counter[str] = field(default_factory=Counter)
    held_bytes: int = 0

    @property
    def launches(self) -> int:
        """Launches of all kinds."""
        return sum(cost.launches for cost in self.kinds.values())

    @property
    def mean_micro_batch(self) -> dict[str, Cost]:
        """Mean cost of a micro batch, which is encoded twice, by kind of work."""
        means = {}
        for kind, cost in self.micro_batch_total.items():
            number = max(1, self.num_micro_batches)
            means[kind] = Cost(cost.launches // number, cost.num_bytes // number)
        return means


class Buffer(NamedTuple):
    """A tensor as a kernel sees it."""

    address: int
    num_bytes: int
    is_contiguous: bool


class SavedTensor:
    """A tensor that is saved for backward. Paddle stores this object in its place, so it lives as long.

    Attributes:
        packed: the tensor; within a recomputed block, what Paddle's recomputation stores.
        buffer: memory of the tensor that a GPU would save, which may have 16 bits.
        is_parameter: whether it is a parameter, which takes memory in any case.
        original: that tensor of 16 bits, kept so that no other tensor gets its address.
    """

    def __init__(self, packed: Any, buffer: Buffer, is_parameter: bool = False):
        self.packed, self.buffer, self.is_parameter = packed, buffer, is_parameter
        self.original: Tensor | None = None


class KernelCounter:
    """Counter of kernels. Paddle runs as on a GPU within `patch`, and is counted within `count`."""

    def __init__(self) -> None:
        self._cost: StepCost | None = None  # None: nothing is counted
        self._emulation = MixedPrecision()
        self._is_in_operation = False  # an operation runs; what it calls is part of it
        self._is_converting = False  # a tensor is converted for mixed precision, which is a cast of its own
        self._is_emulating = False  # something runs that a GPU does not; what it saves does not count
        self._in_micro_batch = False
        # Tensors are numbered in the order of their computation: those with numbers up to `_block_start` are inputs of
        # the recomputed block that is running, which Paddle keeps, the others are dropped.
        self._num_tensors = 0
        self._tensor_numbers: dict[int, int] = {}  # by address
        self._block_start: int | None = None  # None: no recomputed block is running
        self._num_gradients: Counter[str] = Counter()  # by name of a tensor: gradients so far
        self._held: weakref.WeakSet[SavedTensor] = weakref.WeakSet()
        self._saved_by_operation: list[SavedTensor] = []

    @contextmanager
    def patch(self) -> Iterator[None]:
        """Let Paddle run as on a GPU in the block; models and trainers must be built within it."""
        emulation, flag = self._emulation, "FLAGS_use_stride_kernel"
        patches: list[tuple[Any, str, Any]] = []
        for owner, attribute, name in _find_operations():
            patches.append((owner, attribute, self._wrap(name, getattr(owner, attribute))))
        patches += [
            (F, "linear", make_gpu_linear(F.common)),
            (F, "scaled_dot_product_attention", self._wrap(FUSED_ATTENTION, _attend)),
            (F, "flash_attn_qkvpacked", self._wrap(FUSED_ATTENTION, _attend_packed)),
            (F.flash_attention, "flash_attn_qkvpacked", self._wrap(FUSED_ATTENTION, _attend_packed)),
            (paddle.device.cuda, "get_device_capability", lambda *_: (9, 0)),  # of an H100
            (Tensor, "place", property(partial(_find_place, Tensor.place))),
            (Tensor, "backward", self._wrap_backward(Tensor.backward)),
            (Tensor, "clear_gradient", self._wrap_clear_gradient(Tensor.clear_gradient)),
            (PyLayer, "apply", classmethod(self._watch_layer(vars(core.eager.PyLayer)["apply"]))),
            (saved_tensors_hooks, "__enter__", lambda hooks: self._enter_hooks(hooks)),
            (saved_tensors_hooks, "__exit__", lambda hooks, *_: self._exit_hooks()),
            (paddle.amp, "auto_cast", emulation.auto_cast),
            (paddle.amp, "is_autocast_enabled", lambda: emulation.dtype is not None),
            (paddle.amp, "get_autocast_dtype", lambda: emulation.dtype),
            (contrastive_step, "recompute", self._keep_types(contrastive_step.recompute)),
            (
                contrastive_step.CachedStep,
                "_split_rows",
                self._mark_micro_batches(contrastive_step.CachedStep._split_rows),
            ),
            (task, "prepare_attention", _prepare_attention(task.prepare_attention)),
        ]
        flags = paddle.get_flags(flag)
        paddle.set_flags({flag: True})  # as on a GPU; `runtime.set_device` switches it off on a CPU
        try:
            with ExitStack() as stack:
                for owner, name, value in patches:
                    stack.enter_context(mock.patch.object(owner, name, value))
                yield
        finally:
            paddle.set_flags(flags)

    @contextmanager
    def count(self) -> Iterator[StepCost]:
        """Count in the block, which is within `patch`."""
        self._num_gradients.clear()
        self._cost = cost = StepCost()
        self._register_hooks()
        try:
            yield cost
        finally:
            core.eager.reset_saved_tensors_hooks()
            self._cost = None

    def _wrap(self, name: str, function: Callable) -> Callable:
        """Return an operation that computes in the types that it has on a GPU, and is counted."""

        def run(*arguments: Any, **options: Any) -> Any:
            if self._is_in_operation:
                return function(*arguments, **options)
            dtype, arguments, options = self._convert(name, arguments, options)

            # CPUs mostly lack kernels for 16 bits: such an operation computes with stand-ins in float32.
            inputs = list(list_tensors([*arguments, *options.values()]))
            is_emulated = dtype in NARROW_TYPES and name not in VIEWS
            stand_ins = {}
            if is_emulated:
                stand_ins = {id(x): self._emulate_cast(x, "float32") for x in inputs if x.dtype in NARROW_TYPES}
            saved: list[Any] = []
            self._saved_by_operation = saved
            self._is_in_operation, self._is_emulating = True, name == FUSED_ATTENTION
            try:
                results = function(*replace_tensors(arguments, stand_ins), **replace_tensors(options, stand_ins))
            finally:
                self._is_in_operation = self._is_emulating = False
                self._saved_by_operation = []

            # What the operation has saved of the stand-ins, a GPU saves in 16 bits.
            originals = [(stand_ins[id(x)], x) for x in inputs if id(x) in stand_ins]
            if is_emulated:
                results = self._round(name, results, dtype, originals)
            if self._cost is not None:
                outputs = list(list_tensors([results]))
                self._number_tensors(outputs, inputs)
                self._register_saved(saved, originals)
                self._record(name, inputs, outputs, saved)
            return results

        return run

    def _convert(self, name: str, arguments: Any, options: Any) -> tuple[Any, Any, Any]:
        """Convert tensors as O1 does.

        Returns:
            Type of the operation, None if nothing is converted; arguments and options with the converted tensors.
        """
        tensors = [x for x in list_tensors([*arguments, *options.values()]) if is_convertible(x)]
        if not tensors or name in UNCONVERTED or name.endswith("_"):
            return None, arguments, options
        listed_name = LISTED_NAMES.get(name, name)
        types = tuple(x.dtype for x in tensors)
        dtype = self._emulation.choose_type(listed_name, types)
        if dtype not in NARROW_TYPES and not any(x in NARROW_TYPES for x in types):
            return None, arguments, options
        if listed_name in NORMS:
            tensors = tensors[:1]  # scale, bias and statistics stay in float32
        self._is_converting = True
        try:
            converted = {id(x): x.astype(dtype) for x in tensors if x.dtype != dtype}
        finally:
            self._is_converting = False
        return dtype, replace_tensors(arguments, converted), replace_tensors(options, converted)

    def _emulate_cast(self, x: Tensor, dtype: Any) -> Tensor:
        """Convert a tensor as only the emulation does, uncounted."""
        self._is_in_operation = self._is_emulating = True
        try:
            return x.astype(dtype)
        finally:
            self._is_in_operation = self._is_emulating = False

    def _round(self, name: str, results: Any, dtype: Any, originals: list[tuple[Tensor, Tensor]]) -> Any:
        """Convert the results of an emulated operation to 16 bits, and add pairs of both to `originals`."""
        wide = list(list_tensors([results]))
        if LISTED_NAMES.get(name, name) in NORMS:
            wide = wide[:1]
        narrow = {}
        for result in wide:
            # What an operation keeps for backward may have no values.
            if is_convertible(result) and result.dtype == paddle.float32:
                narrow[id(result)] = self._emulate_cast(result, dtype)
                originals.append((result, narrow[id(result)]))
        return replace_tensors([results], narrow)[0]

    def _record(self, name: str, inputs: list[Tensor], outputs: list[Tensor], saved: list[SavedTensor]) -> None:
        """Count an operation now, and its gradient when backward comes to it."""
        if name in ARITHMETIC and len(inputs) == 1:
            name = "scale"  # with a number
        kind = self._find_kind(name)
        buffers = [_make_buffer(x) for x in _unique(inputs)]
        written = sum(_make_buffer(x).num_bytes for x in outputs)
        is_view = name in VIEWS and any(outputs[0]._is_shared_buffer_with(x) for x in inputs)
        if is_view:
            self._count_view(name)
        else:
            self._count_copies(name, buffers)
            read = sum(buffer.num_bytes for buffer in buffers)
            if name in GATHERS:
                read = sum(min(buffer.num_bytes, written) for buffer in buffers)
            self._count(name, kind, read + written)

        # The gradient's kernel reads what is saved and the gradients of the results, and writes those of the inputs.
        results = [x for x in outputs if not x.stop_gradient]
        if not results or name.endswith("_"):
            return
        sources = [x for x in inputs if not x.stop_gradient]
        saved_buffers = [x.buffer for x in saved]
        if name == FUSED_ATTENTION:
            # It is emulated by the plain formula, which saves other tensors.
            held_tensors = [self._hold(x) for x in (*_unique(inputs), *outputs)]
            saved_buffers = [x.buffer for x in held_tensors]
        sizes = {x.size for x in sources}
        has_equal_sizes = len(results) == 1 and sizes == {results[0].size}
        # The gradient of a sum of equal shapes is the gradient of the result.
        is_free = has_equal_sizes and (is_view or name == "add")
        read = sum(buffer.num_bytes for buffer in saved_buffers) + sum(_make_buffer(x).num_bytes for x in results)
        num_bytes = read + sum(_make_buffer(x).num_bytes for x in sources)

        def record_gradient(is_first: bool, buffer: Buffer) -> None:
            gradient = f"{name}_grad"
            if is_first and is_free:
                self._count_view(gradient)
            elif is_first:
                self._count_copies(gradient, saved_buffers)
                self._count(gradient, kind, num_bytes)
            if not is_free:
                self._count_copies(gradient, [buffer])
            if name == FUSED_ATTENTION:
                held_tensors.clear()

        self._watch_gradients(sources, results, record_gradient)

    def _watch_gradients(
        self, sources: list[Tensor], results: list[Tensor], record: Callable[[bool, Buffer], None] | None = None
    ) -> None:
        """Count the sums of gradients of an operation's inputs.

        Args:
            sources: inputs that have gradients.
            results: results of the operation.
            record: called for the gradient of each result: whether it is the first one, and its memory.
        """
        leaves = [x for x in sources if x.is_leaf]
        others = [(x.name, _make_buffer(x).num_bytes) for x in sources if not x.is_leaf]
        is_first = True

        def run(gradient: Tensor) -> None:
            nonlocal is_first
            if self._cost is None:
                return
            if record:
                record(is_first, _make_buffer(gradient))
            if not is_first:
                return
            is_first = False
            kind = "sums of gradients"
            for leaf in leaves:
                # The first gradient becomes that of the leaf, others are added to it.
                if leaf.grad is not None:
                    self._count("add", kind, 3 * _make_buffer(leaf).num_bytes)
            for name, size in others:
                self._num_gradients[name] += 1
                if self._num_gradients[name] > 1:
                    self._count("add", kind, 3 * size)

        for result in results:
            result.register_hook(run)

    def _watch_layer(self, apply: Any) -> Callable:
        """Return `PyLayer.apply` whose gradients are summed with others; the layer's operations count by themselves."""

        def run(layer: type, *arguments: Any, **options: Any) -> Any:
            results = apply.__get__(None, layer)(*arguments, **options)
            if self._cost is not None and not self._is_in_operation:
                sources = [x for x in list_tensors([*arguments, *options.values()]) if not x.stop_gradient]
                self._watch_gradients(sources, [x for x in list_tensors([results]) if not x.stop_gradient])
            return results

        return run

    def _count(self, name: str, kind: str, num_bytes: int) -> None:
        if self._cost is None:
            return
        costs = [self._cost.kinds[kind]]
        if self._in_micro_batch:
            costs.append(self._cost.micro_batch_total[kind])
        for cost in costs:
            cost.launches += 1
            cost.num_bytes += num_bytes
        self._cost.kernels[name] += 1

    def _count_view(self, name: str) -> None:
        if self._cost is not None:
            self._cost.views[name] += 1

    def _count_copies(self, name: str, buffers: Iterable[Buffer]) -> None:
        """Count the copies of views that a kernel cannot read where they are, unless it is itself such a copy."""
        if name in VIEWS or name.removesuffix("_grad") in VIEW_READERS:
            return
        for buffer in buffers:
            if not buffer.is_contiguous:
                self._count("contiguous", "copies of views", 2 * buffer.num_bytes)

    def _find_kind(self, name: str) -> str:
        """Return the kind of work of an operation that is being called."""
        if name in PRODUCTS:
            return "matrix products"
        if name in NORMS:
            return "norms"
        if self._is_converting:
            return "casts"
        if name == FUSED_ATTENTION:
            return "attention"
        frame: FrameType | None = sys._getframe(2)  # the caller of `_record`
        while frame:
            code = frame.f_code
            path = "/".join(code.co_filename.split("/")[-3:])
            text = f"{path}:{code.co_qualname}".lower()
            for word, kind in WORDS:
                if word in text:
                    return kind
            # Functions of `device` do the work of their callers, as Paddle's do.
            if frame.f_globals.get("__name__", "").startswith("ernie_vil2.") and "/device/" not in path:
                break
            frame = frame.f_back
        if name in ACTIVATIONS:
            return "activations"
        return "casts" if name == "cast" else "other"

    def _register_hooks(self) -> None:
        """Let Paddle call `_pack` for each tensor that it saves for backward."""
        core.eager.register_saved_tensors_hooks(partial(self._pack, None), partial(self._unpack, None))

    def _enter_hooks(self, hooks: saved_tensors_hooks) -> None:
        """Begin a recomputed block, or its second run: both use Paddle's hooks."""
        self._block_start = self._num_tensors
        core.eager.reset_saved_tensors_hooks()  # Paddle has room for one pair
        core.eager.register_saved_tensors_hooks(
            partial(self._pack, hooks.pack_hook), partial(self._unpack, hooks.unpack_hook)
        )

    def _exit_hooks(self) -> None:
        self._block_start = None
        core.eager.reset_saved_tensors_hooks()
        if self._cost is not None:
            self._register_hooks()

    def _pack(self, pack: Callable | None, x: Tensor) -> SavedTensor:
        saved = SavedTensor(pack(x) if pack else x, _make_buffer(x), x.persistable)
        if self._cost is None or self._is_emulating or not x._is_initialized():
            return saved
        if self._is_in_operation:
            self._saved_by_operation.append(saved)  # registered when the operation's results are known
        else:
            self._register_saved([saved], [])
        return saved

    def _unpack(self, unpack: Callable | None, saved: SavedTensor) -> Tensor:
        self._held.discard(saved)  # backward has come to it
        return unpack(saved.packed) if unpack else saved.packed

    def _hold(self, x: Tensor) -> SavedTensor:
        """Return a tensor as one that Paddle has saved."""
        saved = SavedTensor(None, _make_buffer(x))
        saved.original = x
        self._register_saved([saved], [])
        return saved

    def _number_tensors(self, outputs: list[Tensor], inputs: list[Tensor]) -> None:
        """Number the results of an operation, but for views that begin where an input does and keep its number."""
        input_addresses = {_make_buffer(x).address for x in inputs}
        for x in outputs:
            self._num_tensors += 1
            address = _make_buffer(x).address
            if address not in input_addresses:
                self._tensor_numbers[address] = self._num_tensors

    def _register_saved(self, saved: list[SavedTensor], originals: list[tuple[Tensor, Tensor]]) -> None:
        """Find the tensors of 16 bits for which saved ones stand, and note those that are held until backward.

        Args:
            saved: tensors that Paddle has saved.
            originals: tensors in float32 of the emulation, each with that of 16 bits for which it stands.
        """
        addresses = {_make_buffer(stand_in).address: original for stand_in, original in originals}
        for entry in saved:
            original = addresses.get(entry.buffer.address)
            if original is not None:
                entry.buffer = _make_buffer(original)
            # A recomputed block holds only its inputs. A tensor without a number is computed within the block, besides
            # the result of an operation, such as the statistics of a norm.
            number = self._tensor_numbers.get(entry.buffer.address)
            is_dropped = self._block_start is not None and (number is None or number > self._block_start)
            if not (is_dropped or entry.is_parameter):
                entry.original = entry.original if original is None else original
                self._held.add(entry)

    def _wrap_backward(self, backward: Callable) -> Callable:
        def run(*arguments: Any, **options: Any) -> None:
            if self._cost is not None:
                sizes: dict[int, int] = {}
                for entry in self._held:
                    address, size = entry.buffer.address, entry.buffer.num_bytes
                    sizes[address] = max(size, sizes.get(address, 0))
                self._cost.held_bytes = max(self._cost.held_bytes, sum(sizes.values()))
            backward(*arguments, **options)

        return run

    def _wrap_clear_gradient(self, clear_gradient: Callable) -> Callable:
        def run(x: Tensor, set_to_zero: bool = True) -> None:
            if self._cost is not None and set_to_zero and x.grad is not None:
                self._count("full", "optimiser", _make_buffer(x).num_bytes)
            clear_gradient(x, set_to_zero)

        return run

    def _keep_types(self, recompute: Callable) -> Callable:
        """Return `recompute` whose second run has the mixed precision of the first, as Paddle's has on a GPU."""

        def run(function: Callable, *arguments: Any, **options: Any) -> Any:
            emulation = self._emulation
            state = emulation.dtype, emulation.white_list, emulation.black_list

            def run_block(*inputs: Any, **keywords: Any) -> Any:
                current = emulation.dtype, emulation.white_list, emulation.black_list
                emulation.dtype, emulation.white_list, emulation.black_list = state
                try:
                    return function(*inputs, **keywords)
                finally:
                    emulation.dtype, emulation.white_list, emulation.black_list = current

            return recompute(run_block, *arguments, **options)

        return run

    def _mark_micro_batches(self, split_rows: Callable) -> Callable:
        """Return `CachedStep._split_rows` that marks what runs between two of its results as part of a micro batch."""

        def run(step: contrastive_step.CachedStep) -> Iterator[Any]:
            for rows in split_rows(step):
                self._in_micro_batch = True
                # Each is encoded twice, with gradients only the second time; it is counted once.
                if self._cost is not None and paddle.is_grad_enabled():
                    self._cost.num_micro_batches += 1
                yield rows
                self._in_micro_batch = False

        return run


def _find_operations() -> list[tuple[Any, str, str]]:
    """Return all places from which Python calls operations of Paddle: the object, its attribute, and the operation."""
    names = {}
    for name in dir(core.eager.ops):
        if isinstance(getattr(paddle._C_ops, name, None), BuiltinFunctionType):
            names[getattr(paddle._C_ops, name)] = name
    places: list[tuple[Any, str, str]] = [(Tensor, method, name) for method, name in METHODS.items()]
    # Most functions look an operation up in paddle._C_ops when they are called; some modules have imported it.
    for module_name, module in list(sys.modules.items()):
        if module_name in ("paddle._C_ops", "paddle._legacy_C_ops") or module_name.startswith("paddle."):
            for attribute, value in list(vars(module).items()):
                if isinstance(value, BuiltinFunctionType) and value in names:
                    places.append((module, attribute, names[value]))
    return places


class _GpuPlace:
    """Stand-in for the place of a tensor, which claims to be a GPU."""

    def __init__(self, place: Any):
        self._place = place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._place, name)

    def is_cpu_place(self) -> bool:
        return False

    def is_gpu_place(self) -> bool:
        return True

    def gpu_device_id(self) -> int:
        return 0


def _find_place(place: Any, x: Tensor) -> Any:
    """Return the place of a tensor; the package `ernie_vil2` is told that it is a GPU, Paddle the truth."""
    caller = sys._getframe(1).f_globals.get("__name__", "")
    true_place = place.__get__(x)
    return _GpuPlace(true_place) if caller.startswith("ernie_vil2.") else true_place


def _prepare_attention(prepare: Callable) -> Callable:
    """Return `prepare_attention` that chooses as on a GPU."""

    def run(*arguments: Any, **options: Any) -> Any:
        with mock.patch.object(paddle, "get_device", return_value="gpu:0"):
            return prepare(*arguments, **options)

    return run


def _attend(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, **_: Any
) -> Tensor:
    """Compute attention of `[B, L, h, d]` by the plain formula, without dropout, whose values do not matter here."""
    q, k, v = (x.transpose([0, 2, 1, 3]) for x in (q, k, v))
    scores = paddle.matmul(q * q.shape[-1] ** -0.5, k, transpose_y=True)
    if attn_mask is not None:
        scores = scores + attn_mask
    return paddle.matmul(F.softmax(scores), v).transpose([0, 2, 1, 3]).contiguous()


def _attend_packed(qkv: Tensor, *_: Any, **options: Any) -> tuple[Tensor, None]:
    """Compute attention of `[B, L, 3, h, d]`."""
    q, k, v = qkv.unbind(2)
    return _attend(q, k, v), None


def _make_buffer(x: Tensor) -> Buffer:
    if not x._is_initialized():
        return Buffer(0, 0, True)
    return Buffer(x.data_ptr(), x.size * x.element_size(), x.is_contiguous())


def _unique(tensors: Iterable[Tensor]) -> list[Tensor]:
    return list({id(x): x for x in tensors}.values())
