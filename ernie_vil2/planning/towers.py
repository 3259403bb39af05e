"""The towers of a configuration: their sizes, and the cost of a row, measured on a few rows."""

import gc
import heapq
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import paddle
from paddle import nn
from paddle.base import core

from ernie_vil2.config import Config
from ernie_vil2.data.tokenizer import open_tokenizer
from ernie_vil2.device.extras import is_installed
from ernie_vil2.device.tracing import tracing
from ernie_vil2.models import DualEncoder, build_dual_encoder
from ernie_vil2.parallel.norms import find_batch_norms
from ernie_vil2.tasks.task import apply_tuning
from ernie_vil2.towers.layers.suite import import_suite

# Bytes of activations to measure with, within 2 to 16 rows: enough to hide allocations that do not grow with the rows.
# Tried with up to 32 rows, the figures of ViT-B/16 and ViT-L/14 are the same from 6 rows on, those of EfficientNet and
# ERNIE from 2 rows on, where more rows cost time only: 3 seconds of a core for a row of EfficientNet-L2.
MEASURED_BYTES = 2**27
MAX_MEASURED_ROWS = 16
# Share of the activations' bytes that remain in 16 bits, where softmax and norms stay in float32: the largest share of
# the four models in docs/plan.md, counted in their graphs by Paddle's rules for mixed precision. A reduced residual
# stream lowers the share of ViT-B/16 and ERNIE base by 0.04, counted on the tensors that a step of two rows saves under
# emulated mixed precision.
HALF_PRECISION_SHARES = {"feature maps": 0.77, "tokens": 0.71, "reduced tokens": 0.67}


class RowCost(NamedTuple):
    """Cost of training a tower, with its projection and normalisation, on one row.

    Attributes:
        flops: operations of forward's matrix products and convolutions; backward takes twice as many.
        saved: bytes that forward saves for backward, with its input.
        work: peak of the bytes in use beyond these; a recomputed block counts here.
    """

    flops: float
    saved: float
    work: float


class Towers:
    """Towers of a configuration, built without weights; costs are measured on Paddle's device at the first use.

    Attributes:
        embed_dim: width of the joint space.
        tower_parameters: parameters of the towers "image" and "text", with their projections; LoRA's do not count.
        num_parameters: parameters of the model, with LoRA's.
        parameter_sizes: elements of each trained tensor, after `Tuning.lora` and `Tuning.freeze`.
        num_word_embedding_parameters: elements of the word embedding.
        norm_channels: channels of each batch norm.
    """

    def __init__(self, config: Config):
        side, length, text = config.Model.image.image_size, config.Data.max_length, config.Model.text
        model = _build_without_weights(config, open_tokenizer(text.vocabulary, length, text.tokenizer).vocab_size)
        self.embed_dim = model.embed_dim
        self.tower_parameters = {
            "image": sum(_trained_sizes(_select_tower(model, "image")).values()),
            "text": sum(_trained_sizes(_select_tower(model, "text")).values()),
        }
        sizes = _trained_sizes(model)
        with paddle.LazyGuard():
            apply_tuning(model, config.Tuning)
        trained_sizes = _trained_sizes(model)
        self.num_parameters = sum((sizes | trained_sizes).values())
        self.parameter_sizes = list(trained_sizes.values())
        self.num_word_embedding_parameters = 0
        for name, value in model.named_parameters():
            if name.endswith("word_embeddings.weight"):
                self.num_word_embedding_parameters += int(value.size)
        # `_mean` is private: a batch norm has no public attribute for its channels (Paddle 3.3.1).
        self.norm_channels = [norm._mean.size for norm in find_batch_norms(model).values()]

        # A small vocabulary: the gradient of a large word embedding would hide the cost of a row.
        self._measured_model = _build_without_weights(config, vocab_size=8)
        with paddle.LazyGuard():
            apply_tuning(self._measured_model, config.Tuning)
        self._rows = {"image": paddle.ones([1, 3, side, side]), "text": paddle.ones([1, length], "int64")}
        self._row_costs: dict[str, tuple[RowCost, RowCost]] = {}

    def divide_parameters(self, ranks: int) -> list[list[int]]:
        """Return the sizes, in elements, of the parameters that each of `ranks` owns; no parameter is split.

        Fleet's sharding takes the largest parameter first and gives each to the rank with the fewest elements.
        """
        shares: list[list[int]] = [[] for _ in range(ranks)]
        totals = [(0, rank) for rank in range(ranks)]
        for size in sorted(self.parameter_sizes, reverse=True):
            total, rank = totals[0]
            shares[rank].append(size)
            heapq.heapreplace(totals, (total + size, rank))
        return shares

    def largest_share(self, ranks: int) -> int:
        """Return how many elements of parameters the busiest of `ranks` owns, see `divide_parameters`."""
        return max(map(sum, self.divide_parameters(ranks)))

    def row_flops(self, kind: str) -> float:
        """Return the operations of a row in forward of the tower "image" or "text", from the traced graph."""
        return _count_flops(getattr(self._measured_model, f"encode_{kind}"), self._rows[kind])

    def row_cost(
        self, kind: str, precision: str = "float32", recompute: bool = False, residual: str = "float32"
    ) -> RowCost:
        """Return the cost of a row in the tower "image" or "text".

        Args:
            kind: the tower.
            precision: precision of the training; 16 bits save fewer bytes.
            recompute: whether blocks save their inputs only and run again in backward.
            residual: type of the residual stream of transformers, as `Training.residual` names it.
        """
        if kind not in self._row_costs:
            encode, row = getattr(self._measured_model, f"encode_{kind}"), self._rows[kind]
            tower = _select_tower(self._measured_model, kind)
            flops = self.row_flops(kind)
            is_partly_frozen = any(parameter.stop_gradient for parameter in tower.parameters())
            repeats = group_blocks(list(tower[0].blocks), is_partly_frozen)
            for parameter in tower.parameters():
                parameter.initialize()
            self._row_costs[kind] = measure_row(encode, row, repeats, flops)
        cost = self._row_costs[kind][recompute]
        if precision == "float32":
            return cost
        if kind == "image" and self.norm_channels:
            activations = "feature maps"
        else:
            activations = "reduced tokens" if residual == "reduced" else "tokens"
        return cost._replace(saved=HALF_PRECISION_SHARES[activations] * cost.saved)


def _build_without_weights(config: Config, vocab_size: int) -> DualEncoder:
    no_initial_weights = nullcontext()
    # PaddleNLP has its own switch against initial weights.
    if config.Model.text.name.startswith("paddlenlp:") and is_installed("paddlenlp"):
        no_initial_weights = import_suite(
            "paddlenlp.transformers.model_utils", config.Model.text.name
        ).no_init_weights()
    with paddle.LazyGuard(), no_initial_weights:
        model = build_dual_encoder(config.Model, vocab_size)
    model.train()
    return model


def _select_tower(model: DualEncoder, kind: str) -> nn.LayerList:
    return nn.LayerList([getattr(model, kind), getattr(model, f"{kind}_projection")])


def _trained_sizes(layer: nn.Layer) -> dict[str, int]:
    """Return the elements of each trained parameter, by name."""
    return {name: parameter.size for name, parameter in layer.named_parameters() if not parameter.stop_gradient}


class RepeatedBlock:
    """Neighbouring blocks of equal structure: only the first computes and is measured, the others return their inputs.

    Attributes:
        count: number of the blocks.
        kept: bytes that the first block left in memory when it last ran: its result counts, and its input does not if
            it is freed before the next block begins.
        result: bytes of its result.
    """

    def __init__(self, first: nn.Layer, *repetitions: nn.Layer):
        self.count = 1 + len(repetitions)
        self.kept, self.result = 0, 0
        self._num_results = 1
        self._current_bytes = _memory_counters()[0]
        first.register_forward_pre_hook(self._before_first)
        first.register_forward_post_hook(self._after_first)
        for block in repetitions:
            # A block without layers has no parameters. `_sub_layers` is private to Paddle (3.3.1), but clearing it
            # empties any kind of block.
            block._sub_layers.clear()
            # This bypasses `__setattr__`, because PaddleNLP wraps a `forward` that is assigned to one of its layers.
            block.__dict__["forward"] = self._return_inputs

    def _before_first(self, layer: nn.Layer, inputs: Any) -> Any:
        self._bytes_before = self._current_bytes()

    def _after_first(self, layer: nn.Layer, inputs: Any, output: Any) -> Any:
        results = [output] if isinstance(output, paddle.Tensor) else output
        self.kept = self._current_bytes() - self._bytes_before
        self._num_results = len(results)
        self.result = sum(result.size * result.element_size() for result in results)

    def _return_inputs(self, *inputs: Any, **_: Any) -> Any:
        # Memory is measured again, because by now the input of the first block may be freed.
        self.kept = self._current_bytes() - self._bytes_before
        return inputs[0] if self._num_results == 1 else inputs[: self._num_results]


def group_blocks(blocks: Sequence[nn.Layer], is_partly_frozen: bool) -> list[RepeatedBlock]:
    """Group neighbouring blocks of equal structure with the same trained parameters.

    The last block is measured by itself: that of a transformer may compute only the token that is pooled. In a tower
    that is frozen in part, so is the first block of each group that is trained: if nothing is trained before it, it
    needs no gradient of its input, and saves less than the others.
    """
    groups: list[list[nn.Layer]] = []
    for (_, trained_sizes), group in groupby(blocks[:-1], key=lambda block: (str(block), _trained_sizes(block))):
        first, *next_blocks = group
        if is_partly_frozen and trained_sizes and next_blocks:
            groups += [[first], next_blocks]
        else:
            groups.append([first, *next_blocks])
    groups += [[block] for block in blocks[-1:]]
    return [RepeatedBlock(*group) for group in groups]


def measure_row(
    encode: Callable, row: paddle.Tensor, repeats: list[RepeatedBlock], flops: float
) -> tuple[RowCost, RowCost]:
    """Measure the cost of a row by training steps on a few.

    Args:
        encode: forward of the tower, from a batch to its embeddings.
        row: batch of one row.
        repeats: blocks of the tower.
        flops: operations of a row in forward.

    Returns:
        The costs without and with recomputation of blocks.
    """
    current_bytes, peak_bytes, reset_peak = _memory_counters()

    def train_step(num_rows: int) -> np.ndarray:
        """Return the bytes saved by forward, the peak beyond these, and of each block the bytes kept and its result."""
        batch = row.expand([num_rows, *row.shape[1:]]).clone()
        gc.collect(0)
        start_bytes = current_bytes()
        reset_peak()
        embeddings = encode(batch)
        saved = current_bytes() - start_bytes
        if not embeddings.stop_gradient:  # a frozen tower has no backward
            embeddings.sum().backward()
        sizes = [saved, peak_bytes() - start_bytes - saved]
        for repeat in repeats:
            sizes += [repeat.kept, repeat.result]
        return np.array(sizes)

    was_enabled = gc.isenabled()
    gc.disable()  # so that a step frees nothing of earlier code, and only its own garbage is in the young generation
    try:
        # The first step also allocates what is allocated once, above all the gradients of the parameters.
        row_bytes = train_step(1)[0]
        num_rows = max(2, min(MAX_MEASURED_ROWS, math.ceil(MEASURED_BYTES / row_bytes)))
        more_rows = num_rows + num_rows // 2
        # There are at least two rows, since Paddle spares some copies for a single row. The difference of two steps
        # leaves out what does not grow with the rows, such as the gradient of a parameter before it is added.
        sizes = ((train_step(more_rows) - train_step(num_rows)) / (more_rows - num_rows)).tolist()
    finally:
        if was_enabled:
            gc.enable()

    saved, work = sizes[:2]
    saved += row.size * row.element_size()
    extra_saved, extra_work = 0.0, []
    for repeat, block_saved, result in zip(repeats, sizes[2::2], sizes[3::2], strict=True):
        saved += (repeat.count - 1) * block_saved  # only the first block ran
        # With recomputation a block leaves its result only, and backward needs the rest of one block at a time.
        # A frozen block behind frozen layers saves nothing that recomputation could spare.
        extra_saved += repeat.count * min(0.0, result - block_saved)
        extra_work.append(block_saved - result)
    recomputed_work = work + max(extra_work, default=0.0)
    return RowCost(flops, saved, max(0.0, work)), RowCost(flops, saved + extra_saved, max(0.0, recomputed_work))


def _count_flops(encode: Callable, row: paddle.Tensor) -> float:
    """Count the operations of the matrix products and convolutions of a row, two for a multiplication and addition."""
    flops = 0.0
    for op in operations(encode, row):
        name = op.name().removeprefix("pd_op.")
        if name in ("matmul", "bmm"):
            shape = op.operands_source()[0].shape
            is_transposed = name == "matmul" and op.attrs()["transpose_x"]
            inner = shape[-2] if is_transposed else shape[-1]
        elif name in ("conv2d", "depthwise_conv2d"):
            inner = math.prod(op.operands_source()[1].shape[1:])  # filter [out, in / groups, height, width]
        else:
            continue
        flops += 2.0 * math.prod(op.results()[0].shape) * inner
    return flops


def operations(encode: Callable, batch: paddle.Tensor) -> Iterator[Any]:
    """Yield the operations of Paddle's graph of `encode` for a batch of this shape; parameters need no values.

    An operation is valid until the next one is requested: the iterator keeps the graph alive, the operation does not.
    """

    class Encoding(nn.Layer):
        @paddle.jit.not_to_static  # converting the Python control flow of `encode` takes a minute
        def forward(self, batch: paddle.Tensor) -> paddle.Tensor:
            return encode(batch)

    layer, spec = Encoding(), paddle.static.InputSpec(batch.shape, batch.dtype)
    with warnings.catch_warnings(action="ignore"), tracing():  # Paddle warns that traced tensors are on no device
        forward: Any = paddle.jit.to_static(layer, input_spec=[spec], full_graph=True).forward
        program = forward.concrete_program.main_program
    yield from program.global_block().ops


def _memory_counters() -> list[Callable[[], int]]:
    """Return three functions for the device of new tensors: current bytes, peak bytes, and a reset of the peak.

    `core` is private: `paddle.device` has no such figures for a CPU (Paddle 3.3.1).
    """
    place = paddle.zeros([1]).place
    memory, device_id = "host", 0
    if place.is_gpu_place():
        memory, device_id = "device", place.gpu_device_id()
    return [
        partial(getattr(core, f"{memory}_memory_stat_{name}_value"), "Allocated", device_id)
        for name in ("current", "peak", "reset_peak")
    ]
