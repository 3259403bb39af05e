"""The towers of a configuration as a plan needs them: their sizes, and what a row costs, measured on a few rows."""

import gc
import heapq
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import paddle
from paddle import nn
from paddle.base import core

from ernie_vil2.config import Config
from ernie_vil2.data.tokenizer_files import open_tokenizer
from ernie_vil2.device.extras import installed
from ernie_vil2.device.tracing import tracing
from ernie_vil2.models import DualEncoder, build_dual_encoder
from ernie_vil2.parallel.norms import batch_norms
from ernie_vil2.towers.layers.suite import imported

ENOUGH = 2**27  # bytes that the measured rows save, if they are no more than 64 and no less than two
IN_16_BITS = {"maps": 0.77, "tokens": 0.71}  # share of saved bytes left in 16 bits: softmax and norms stay in float32


class RowCost(NamedTuple):
    """What a row costs in a tower, with its projection and normalisation, in training."""

    flops: float  # of forward's matrix products and convolutions; backward takes twice as many
    saved: float  # bytes that forward saves for backward, its input included
    work: float  # bytes in use beyond these at the most; a block that is recomputed is part of them


class Towers:
    """The towers of `config`, built without weights; what a row costs is measured on Paddle's device when asked for."""

    def __init__(self, config: Config):
        side, length, text = config.Model.image.image_size, config.Data.max_length, config.Model.text
        model = _without_weights(config, open_tokenizer(text.vocabulary, length, text.tokenizer).vocab_size)
        self.embed_dim = model.embed_dim  # width of the joint space
        self.parameters = _trained_sizes(model)  # elements of each tensor that is trained
        # Their sum in each tower, with its projection, those of the word embedding, and the channels of batch norms.
        self.of_tower = {kind: sum(_trained_sizes(_tower(model, kind))) for kind in ("image", "text")}
        named = model.named_parameters()
        self.words = sum(int(value.size) for name, value in named if name.endswith("word_embeddings.weight"))
        self.norm_channels = [norm._mean.size for norm in batch_norms(model).values()]
        self._measured = _without_weights(config, vocab_size=8)  # the gradient of more words would hide that of a row
        self._rows = {"image": paddle.ones([1, 3, side, side]), "text": paddle.ones([1, length], "int64")}
        self._costs: dict[str, tuple[RowCost, RowCost]] = {}

    def largest_share(self, ranks: int) -> int:
        """Elements of the parameters that the busiest of `ranks` owns when whole parameters are shared out.

        As fleet's sharding does it: the largest parameter first, each to the rank that has the fewest elements.
        """
        shares = [0] * ranks
        for size in sorted(self.parameters, reverse=True):
            heapq.heapreplace(shares, shares[0] + size)
        return max(shares)

    def flops(self, kind: str) -> float:
        """Return the operations of a row in forward of the tower "image" or "text", from the traced graph."""
        return _flops(getattr(self._measured, f"encode_{kind}"), self._rows[kind])

    def cost(self, kind: str, precision: str = "float32", recompute: bool = False) -> RowCost:
        """Of a row of the tower "image" or "text"; with `recompute` its blocks keep their inputs only."""
        if kind not in self._costs:
            encode, row = getattr(self._measured, f"encode_{kind}"), self._rows[kind]
            tower = _tower(self._measured, kind)
            flops = self.flops(kind)
            repeats = [_Repeat(*alike) for _, alike in groupby(tower[0].blocks, key=str)]
            for parameter in tower.parameters():
                parameter.initialize()
            self._costs[kind] = _measured(encode, row, repeats, flops)
        cost = self._costs[kind][recompute]
        share = IN_16_BITS["maps" if kind == "image" and self.norm_channels else "tokens"]
        return cost if precision == "float32" else cost._replace(saved=share * cost.saved)


def _without_weights(config: Config, vocab_size: int) -> DualEncoder:
    without = nullcontext()
    if config.Model.text.name.startswith("paddlenlp:") and installed("paddlenlp"):
        without = imported("paddlenlp.transformers.model_utils", config.Model.text.name).no_init_weights()
    with paddle.LazyGuard(), without:
        model = build_dual_encoder(config.Model, vocab_size)
    model.train()
    return model


def _tower(model: DualEncoder, kind: str) -> nn.LayerList:
    return nn.LayerList([getattr(model, kind), getattr(model, f"{kind}_projection")])


def _trained_sizes(layer: nn.Layer) -> list[int]:
    return [parameter.size for parameter in layer.parameters() if not parameter.stop_gradient]


class _Repeat:
    """Neighbouring blocks that are alike: the first one computes and is measured, the others hand on what they get.

    Attributes:
        count: of the blocks.
        left: bytes that the first one left in memory when it last ran, with its result and without what it was given,
            if that is gone by the time the next one begins.
        result: bytes of its result.
    """

    def __init__(self, first: nn.Layer, *others: nn.Layer):
        self.count, self.left, self.result = 1 + len(others), 0, 0
        self._results, self._bytes = 1, _allocator()[0]
        first.register_forward_pre_hook(self._begin)
        first.register_forward_post_hook(self._end)
        for block in others:
            block._sub_layers.clear()
            # Past `__setattr__`: PaddleNLP puts a wrapper of its own around a forward that is set on its layers.
            block.__dict__["forward"] = self._hand_on

    def _begin(self, layer: nn.Layer, inputs: Any) -> Any:
        self._before = self._bytes()

    def _end(self, layer: nn.Layer, inputs: Any, output: Any) -> Any:
        results = [output] if isinstance(output, paddle.Tensor) else output
        self.left, self._results = self._bytes() - self._before, len(results)
        self.result = sum(result.size * result.element_size() for result in results)

    def _hand_on(self, *inputs: Any, **_: Any) -> Any:
        self.left = self._bytes() - self._before
        return inputs[0] if self._results == 1 else inputs[: self._results]


def _measured(encode: Callable, row: paddle.Tensor, repeats: list[_Repeat], flops: float) -> tuple[RowCost, RowCost]:
    """What `row` costs, without and with recomputation of blocks."""
    current, peak, reset_peak = _allocator()

    def step(rows: int) -> np.ndarray:
        """Bytes that forward leaves, that are in use beyond these at the most, and that each block leaves and gives."""
        batch = row.expand([rows, *row.shape[1:]]).clone()
        gc.collect(0)
        before = current()
        reset_peak()
        embeddings = encode(batch)
        saved = current() - before
        embeddings.sum().backward()
        return np.array(
            [saved, peak() - before - saved, *(size for each in repeats for size in (each.left, each.result))]
        )

    automatic = gc.isenabled()
    gc.disable()  # so that a step frees nothing of others, and its own garbage is all that is young
    try:
        step(1)  # what is allocated once, the gradients of the parameters above all, is not a part of a row
        rows = int(max(2, min(64, ENOUGH // step(1)[0])))  # of one row Paddle spares some copies
        # What twice the rows take more: a gradient of a parameter, before it is added, is not a part of a row either.
        saved, work, *blocks = ((step(2 * rows) - step(rows)) / rows).tolist()
    finally:
        if automatic:
            gc.enable()
    blocks = list(zip([each.count for each in repeats], blocks[::2], blocks[1::2], strict=True))
    saved += row.size * row.element_size() + sum((count - 1) * left for count, left, _ in blocks)
    saved_again = saved + sum(count * (result - left) for count, left, result in blocks)
    work_again = work + max((left - result for _, left, result in blocks), default=0.0)
    return RowCost(flops, saved, max(0.0, work)), RowCost(flops, saved_again, max(0.0, work_again))


def _flops(encode: Callable, row: paddle.Tensor) -> float:
    """Of the matrix products and convolutions of a row, two for every multiplication and its addition."""
    flops = 0.0
    for op in operations(encode, row):
        name = op.name().removeprefix("pd_op.")
        if name in ("matmul", "bmm"):
            first = op.operands_source()[0].shape
            inner = first[-2] if name == "matmul" and op.attrs()["transpose_x"] else first[-1]
        elif name in ("conv2d", "depthwise_conv2d"):
            inner = math.prod(op.operands_source()[1].shape[1:])  # of [out, in / groups, height, width]
        else:
            continue
        flops += 2.0 * math.prod(op.results()[0].shape) * inner
    return flops


def operations(encode: Callable, batch: paddle.Tensor) -> Iterator[Any]:
    """Those of Paddle's graph of `encode` for a batch like this one; parameters need no values.

    An operation is valid until the next one is asked for: it does not keep the graph alive, which the iterator does.
    """

    class Encoding(nn.Layer):
        @paddle.jit.not_to_static  # rewriting its Python for control flow on tensors takes a minute
        def forward(self, batch: paddle.Tensor) -> paddle.Tensor:
            return encode(batch)

    layer, spec = Encoding(), paddle.static.InputSpec(batch.shape, batch.dtype)
    with warnings.catch_warnings(action="ignore"), tracing():  # warnings that traced tensors are on no device
        forward: Any = paddle.jit.to_static(layer, input_spec=[spec], full_graph=True).forward
        program = forward.concrete_program.main_program
    yield from program.global_block().ops


def _allocator() -> list[Callable[[], int]]:
    """Bytes in use now and at their most, and a function that lets the most begin again, where tensors are."""
    device = paddle.zeros([1]).place
    of, number = ("device", device.gpu_device_id()) if device.is_gpu_place() else ("host", 0)
    return [partial(getattr(core, f"{of}_memory_stat_{what}_value"), "Allocated", number)
            for what in ("current", "peak", "reset_peak")]  # fmt: skip
