"""LoRA (Hu et al. 2021, arXiv 2106.09685): a layer learns a change of low rank to its weight, which itself stays.

A layer with LoRA has `lora_a` and `lora_b`, of which the second begins at zero, and `lora_scale`,
alpha / rank. It computes with W + scale * A B, without ever making it. Whoever reads weights gets them merged: a
checkpoint with LoRA is, to every other part of this package, one of the plain model.
"""

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from ernie_vil2.config import LoraConfig
from ernie_vil2.config.sections import VIEWS_OF
from ernie_vil2.models.dual_encoder import DualEncoder

A, B, SCALE = PARTS = "lora_a", "lora_b", "lora_scale"
SHOWN = 8


class LoraLinear(nn.Linear):
    """`x [..., in]` to `[..., out]`; A is `[in, rank]`, B `[rank, out]`."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return F.linear(x, self.weight, self.bias) + (x @ self.lora_a @ self.lora_b) * self.lora_scale

    def add(self, rank: int) -> None:
        """Gives the layer its change, at first none."""
        inputs, outputs = self.weight.shape
        _add(self, [inputs, rank], [rank, outputs], inputs)


class LoraConv2D(nn.Conv2D):
    """A convolution; A is one of its kind to `rank` channels, `[rank, in, h, w]`, B `[out, rank, 1, 1]`."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        layout: Any = self._data_format  # one of two dimensions
        low = F.conv2d(x, self.lora_a, None, self._stride, self._padding, self._dilation, 1, layout)
        change = F.conv2d(low, self.lora_b, data_format=layout)
        return nn.Conv2D.forward(self, x) + change * self.lora_scale

    def add(self, rank: int) -> None:
        """As `LoraLinear.add`."""
        outputs, *kernel = self.weight.shape
        _add(self, [rank, *kernel], [outputs, rank, 1, 1], math.prod(kernel))


def add_lora(model: DualEncoder, config: LoraConfig, resumed: bool = False) -> str:
    """Gives the layers that `config.layers` names LoRA, and takes all else of both towers out of training, in place.

    Args:
        resumed: whether the run has begun already; its rank is then what it is.

    Returns:
        A line for people.

    Raises:
        ValueError: a pattern names no linear layer and no convolution, and the message lists those that the tower has;
            or the rank is above the width of a layer.
    """
    fitting = {name: kind for name, layer in model.named_sublayers() if (kind := _kind(layer))}
    chosen = {name: None for pattern in config.layers for name in _named(fitting, pattern)}
    for tower in (model.image, model.text, model.image_projection, model.text_projection):
        for parameter in tower.parameters():
            parameter.stop_gradient = True
    layers = dict(model.named_sublayers())
    if not resumed:
        _check_rank({name: layers[name] for name in chosen}, config.rank)
    for name in chosen:
        layer = layers[name]
        layer.__class__ = fitting[name]
        layer.add(config.rank)
        layer.register_buffer(SCALE, paddle.full([1], config.alpha / config.rank, layer.weight.dtype))
    size = sum(getattr(layers[name], part).size for name in chosen for part in (A, B))
    return f"LoRA of rank {config.rank} in {len(chosen)} layers: {size:,} weights are trained, the others stay"


def merged(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights by name with the changes of LoRA in them; those without LoRA are returned as they are.

    Raises:
        ValueError: a part of LoRA has no counterpart.
    """
    plain = {name: array for name, array in arrays.items() if name.rpartition(".")[2] not in PARTS}
    for name in [name for name in arrays if name.endswith(f".{A}")]:
        layer = name.removesuffix(f".{A}")
        parts = [f"{layer}.{part}" for part in ("weight", A, B, SCALE)]
        if lacking := [part for part in parts if part not in arrays]:
            raise ValueError(f"the weights are not whole: {lacking[0]} is missing, which belongs to {name}")
        weight, a, b, scale = (arrays[part] for part in parts)
        wide = [part.astype(np.float64) for part in (a, b)]
        change = wide[0] @ wide[1] if a.ndim == 2 else np.tensordot(wide[1][:, :, 0, 0], wide[0], axes=1)
        if change.shape != weight.shape:
            raise ValueError(f"{name} and its counterpart make {list(change.shape)}, the weight is "
                             f"{list(weight.shape)}")  # fmt: skip
        plain[parts[0]] = (weight + float(scale[0]) * change).astype(weight.dtype)
    return plain


def _kind(layer: nn.Layer) -> type[nn.Layer] | None:
    if isinstance(layer, nn.Linear):
        return LoraLinear
    plain = isinstance(layer, nn.Conv2D) and layer._groups == 1 and layer._padding_mode == "zeros"
    return LoraConv2D if plain else None


def _named(fitting: Mapping[str, type], pattern: str) -> list[str]:
    found = [name for name in fitting if fnmatchcase(name, pattern)]
    if not found:
        tower = pattern.partition(".")[0]
        there = [name for name in fitting if tower not in VIEWS_OF or name.startswith(tower)]
        where = f"the {tower} tower" if tower in VIEWS_OF else "this model"
        known = f"{', '.join(there[:SHOWN])}{', ...' * (len(there) > SHOWN)}"
        raise ValueError(f"{pattern} names no linear layer and no convolution; {where} has {known}: give patterns of "
                         "these")  # fmt: skip
    return found


def _check_rank(layers: Mapping[str, nn.Layer], rank: int) -> None:
    for name, layer in layers.items():
        sides = layer.weight.shape[0], math.prod(layer.weight.shape[1:])
        if rank > min(sides):
            raise ValueError(f"{name} has a weight of {sides[0]} x {sides[1]}, to which no change has a rank above "
                             f"{min(sides)}: lower Tuning.lora.rank ({rank}) or name other layers")  # fmt: skip


def _add(layer: nn.Layer, a: list[int], b: list[int], inputs: int) -> None:
    bound = 1 / math.sqrt(inputs)
    dtype = layer.weight.dtype
    uniform, zero = nn.initializer.Uniform(-bound, bound), nn.initializer.Constant(0.0)
    layer.lora_a = layer.create_parameter(a, dtype=dtype, default_initializer=uniform)
    layer.lora_b = layer.create_parameter(b, dtype=dtype, default_initializer=zero)
