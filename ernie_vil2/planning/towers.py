"""The towers of a configuration as a plan needs them: sizes and censuses, without weights."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import paddle
from paddle import nn

from ernie_vil2.config import Config
from ernie_vil2.data.tokenizer import Tokenizer
from ernie_vil2.models import DualEncoder, build_dual_encoder
from ernie_vil2.models.towers.backbones import PatchConv2D
from ernie_vil2.parallel.norms import batch_norms
from ernie_vil2.planning.census import Census, count
from ernie_vil2.planning.graph import Graph, trace
from ernie_vil2.planning.precision import reduced


@dataclass(frozen=True)
class Sizes:
    """Numbers of elements.

    Attributes:
        image, text: parameters of a tower with its projection.
        tensors: that hold the parameters of the model.
        norms: batch norms.
        channels: that all batch norms together normalise; each has a running mean and a running variance.
    """

    image: int
    text: int
    tensors: int
    norms: int
    channels: int

    @property
    def parameters(self) -> int:
        """Of the whole model, the temperature included."""
        return self.image + self.text + 1


class Towers:
    """The towers of `config`, counted on demand and once for each precision.

    Args:
        config: `Model` and `Data.max_length` are read.
        on_cpu: count what a CPU computes, where some layers have another form and transposed tensors are copied.

    Raises:
        ValueError: as `build_dual_encoder`.
    """

    def __init__(self, config: Config, on_cpu: bool = False):
        text = config.Model.text
        vocab_size = Tokenizer(text.vocabulary, config.Data.max_length, text.tokenizer).vocab_size
        self.model = _without_weights(config, vocab_size)
        self.embed_dim = self.model.embed_dim
        self._side, self._length = config.Model.image.image_size, config.Data.max_length
        self._on_cpu = on_cpu
        self._graphs: dict[str, Graph] = {}
        self._censuses: dict[tuple[str, str], Census] = {}
        if not on_cpu:
            for layer in self.model.sublayers():
                if isinstance(layer, PatchConv2D):
                    layer.__class__ = nn.Conv2D

    @property
    def sizes(self) -> Sizes:
        """Counted from the layers."""
        model = self.model
        image, text = (
            sum(parameter.size for layer in layers for parameter in layer.parameters() if not parameter.stop_gradient)
            for layers in ((model.image, model.image_projection), (model.text, model.text_projection))
        )
        norms = batch_norms(model).values()
        tensors = sum(not parameter.stop_gradient for parameter in model.parameters())
        return Sizes(image, text, tensors, len(norms), sum(norm._mean.size for norm in norms))

    def largest_share(self, ranks: int) -> int:
        """Elements of the parameters that the busiest of `ranks` owns when whole parameters are shared out.

        As fleet's sharding does it: the largest parameter first, each to the rank that has the fewest elements.
        """
        shares = [0] * ranks
        sizes = (parameter.size for parameter in self.model.parameters() if not parameter.stop_gradient)
        for size in sorted(sizes, reverse=True):
            heapq.heapreplace(shares, shares[0] + size)
        return max(shares)

    def census(self, kind: str, precision: str) -> Census:
        """Of the tower "image" or "text" with its projection and normalisation, in training."""
        if (kind, precision) not in self._censuses:
            graph = self._graph(kind)
            self._censuses[kind, precision] = count(graph if precision == "float32" else reduced(graph))
        return self._censuses[kind, precision]

    def _graph(self, kind: str) -> Graph:
        if kind not in self._graphs:
            model = self.model
            if kind == "image":
                encode, shape, dtype, blocks = (
                    model.encode_image,
                    [3, self._side, self._side],
                    "float32",
                    model.image.blocks,
                )
            else:
                encode, shape, dtype, blocks = model.encode_text, [self._length], "int64", model.text.blocks
            self._graphs[kind] = trace(model, encode, shape, dtype, blocks, strided_views=not self._on_cpu)
        return self._graphs[kind]


def _without_weights(config: Config, vocab_size: int) -> DualEncoder:
    from paddlenlp.transformers.model_utils import no_init_weights

    with paddle.LazyGuard(), no_init_weights():
        model = build_dual_encoder(config.Model, vocab_size)
    model.train()
    return model
