"""LoRA (Hu et al. 2021, arXiv 2106.09685): a layer learns a low-rank change to its weight, while the weight stays.

A layer with LoRA has two factors A and B, `lora_a` and `lora_b`, and the constant `lora_scale`, alpha / rank. It
computes with W + A (scale * B) without storing the product. B starts at zero, and so does the change. Weights are
merged when a checkpoint is read: the rest of the package never sees LoRA.

The scale multiplies B and not the output. Under mixed precision B is float32, like the scale, but an output has 16
bits: its product with the scale would be float32, and so would all of a block's attention.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from ernie_vil2.config import LoraConfig
from ernie_vil2.config.sections import TOWER_VIEWS
from ernie_vil2.device.cpu_kernels import CpuLinear, CpuPatchConv2D, CpuSmallMapConv2D
from ernie_vil2.io.terminal import make_printable
from ernie_vil2.models.dual_encoder import DualEncoder, fnmatch_filter

LORA_NAMES = LORA_A, LORA_B, LORA_SCALE = "lora_a", "lora_b", "lora_scale"  # of a layer's arrays in a checkpoint
MAX_LISTED_LAYERS = 8  # in a message, which stays one line


class LoraLinear(nn.Linear):
    """Linear layer from `[..., in]` to `[..., out]`; A is `[in, rank]`, B `[rank, out]`."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return F.linear(x, self.weight, self.bias) + x @ self.lora_a @ (self.lora_b * self.lora_scale)

    def add_factors(self, rank: int) -> None:
        """Give the layer its factors; their product is zero at first."""
        in_width, out_width = self.weight.shape
        _create_factors(self, [in_width, rank], [rank, out_width], in_width)


class LoraConv2D(nn.Conv2D):
    """Convolution; A, `[rank, in, h, w]`, is one of the same kind to `rank` channels, and B is `[out, rank, 1, 1]`."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        # Private attributes of nn.Conv2D, which Paddle 3.3.1 offers no public way to read.
        layout: Any = self._data_format
        hidden = F.conv2d(x, self.lora_a, None, self._stride, self._padding, self._dilation, 1, layout)
        change = F.conv2d(hidden, self.lora_b * self.lora_scale, data_format=layout)
        return nn.Conv2D.forward(self, x) + change

    def add_factors(self, rank: int) -> None:
        """Give the layer its factors; their product is zero at first."""
        out_channels, *kernel = self.weight.shape
        _create_factors(self, [rank, *kernel], [out_channels, rank, 1, 1], math.prod(kernel))


def add_lora(model: DualEncoder, config: LoraConfig, is_resumed: bool = False) -> str:
    """Add LoRA to the layers that `config.layers` matches, and freeze all other parameters of both towers, in place.

    Args:
        model: the model to change.
        config: rank, alpha and layers.
        is_resumed: whether the run continues; its rank was checked when it began.

    Returns:
        A line that tells the user how many weights are trained.

    Raises:
        ValueError: a pattern matches no linear layer and no convolution (the message lists those that the tower has),
            or the rank is larger than a side of a layer's weight.
    """
    lora_types = {}
    for name, layer in model.named_sublayers():
        lora_type = _find_lora_type(layer)
        if lora_type is not None:
            lora_types[name] = lora_type
    names = _match_layers(lora_types, config.layers)
    # Check all layers before the first one is changed.
    layers = dict(model.named_sublayers())
    if not is_resumed:
        for name in names:
            _check_rank(name, layers[name], config.rank)

    # Freeze all parameters that exist; the factors that are added next are trained.
    for tower in (model.image, model.text, model.image_projection, model.text_projection):
        for parameter in tower.parameters():
            parameter.stop_gradient = True

    weight_count = 0
    for name in names:
        layer = layers[name]
        layer.__class__ = lora_types[name]  # adds methods alone; parameters and their names stay
        layer.add_factors(config.rank)
        layer.register_buffer(LORA_SCALE, paddle.full([1], config.alpha / config.rank, layer.weight.dtype))
        weight_count += layer.lora_a.size + layer.lora_b.size
    return f"LoRA of rank {config.rank} in {len(names)} layers: {weight_count:,} weights are trained, the others stay"


def merge_lora(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the weights by name with the changes of LoRA added to them; weights without LoRA are returned as they are.

    Raises:
        ValueError: one of the arrays of a layer with LoRA is missing, or its factors do not fit its weight.
    """
    plain: dict[str, np.ndarray] = {}
    layers: dict[str, None] = {}  # names of the layers with LoRA, each once, in the order of the file
    for name, array in arrays.items():
        layer, _, suffix = name.rpartition(".")
        if suffix in LORA_NAMES:
            layers[layer] = None
        else:
            plain[name] = array

    for layer in layers:
        names = [f"{layer}.{suffix}" for suffix in ("weight", *LORA_NAMES)]
        missing = [name for name in names if name not in arrays]
        if missing:
            raise ValueError(
                f"the weights are not whole: {make_printable(missing[0], max_length=100)} is missing, which belongs to "
                "a layer with LoRA"
            )
        weight, a, b, scale = (arrays[name] for name in names)
        _check_factors(layer, weight, a, b, scale)

        a, b = a.astype(np.float64), b.astype(np.float64)  # so that only the sum is rounded
        if a.ndim == 2:
            change = a @ b  # [in, out]
        else:
            change = np.tensordot(b[:, :, 0, 0], a, axes=1)  # [out, in, h, w]
        plain[f"{layer}.weight"] = (weight + scale.item() * change).astype(weight.dtype)
    return plain


def _check_factors(layer: str, weight: np.ndarray, a: np.ndarray, b: np.ndarray, scale: np.ndarray) -> None:
    """Raise ValueError if the factors of a layer do not fit its weight.

    Their product is not computed for that: a small file can hold factors whose product would fill the memory.
    """
    is_linear = a.ndim == b.ndim == 2 and a.shape[1] == b.shape[0]
    is_convolution = a.ndim == b.ndim == 4 and b.shape[1:] == (a.shape[0], 1, 1)
    product_shape: tuple[int, ...] | None = None
    if is_linear:
        product_shape = (a.shape[0], b.shape[1])
    elif is_convolution:
        product_shape = (b.shape[0], *a.shape[1:])
    if product_shape != weight.shape or scale.size != 1:
        raise ValueError(
            f"the LoRA of {make_printable(layer, max_length=100)} does not fit its weight, {list(weight.shape)}: "
            f"{LORA_A} is {list(a.shape)}, {LORA_B} {list(b.shape)}, {LORA_SCALE} {list(scale.shape)}"
        )


def _find_lora_type(layer: nn.Layer) -> type[nn.Layer] | None:
    """Return the class with LoRA for a layer; None if LoRA cannot be added to it.

    A class that somebody derived from Paddle's computes something else, which LoRA's forward would replace.
    """
    if type(layer) in (nn.Linear, CpuLinear):
        return LoraLinear
    # Other convolutions would need a change of their own kind. Both attributes are private in Paddle 3.3.1.
    is_convolution = type(layer) in (nn.Conv2D, CpuPatchConv2D, CpuSmallMapConv2D)
    if is_convolution and layer._groups == 1 and layer._padding_mode == "zeros":
        return LoraConv2D
    return None


def _match_layers(layers: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Return the names that the patterns match, each once, in the order of the patterns."""
    layers = list(layers)
    matches: dict[str, None] = {}
    for pattern in patterns:
        names = fnmatch_filter(layers, pattern)
        if not names:
            raise ValueError(_describe_mismatch(layers, pattern))
        matches |= dict.fromkeys(names)
    return list(matches)


def _describe_mismatch(layers: list[str], pattern: str) -> str:
    """Return the error of a pattern that matches no layer; it lists the layers of the pattern's tower."""
    place, choices = "this model", layers
    tower = pattern.partition(".")[0]
    if tower in TOWER_VIEWS:
        place, choices = f"the {tower} tower", [name for name in layers if name.startswith(tower)]
    listed_choices = ", ".join(choices[:MAX_LISTED_LAYERS])
    if len(choices) > MAX_LISTED_LAYERS:
        listed_choices += ", ..."
    return (
        f"{pattern} matches no linear layer and no convolution; {place} has {listed_choices}: give patterns that match "
        "some of these"
    )


def _check_rank(name: str, layer: nn.Layer, rank: int) -> None:
    rows, columns = layer.weight.shape[0], math.prod(layer.weight.shape[1:])
    max_rank = min(rows, columns)
    if rank > max_rank:
        raise ValueError(
            f"{name} has a weight of {rows} x {columns}, so that no change of it has a rank above {max_rank}: lower "
            f"Tuning.lora.rank ({rank}) or choose other layers"
        )


def _create_factors(layer: nn.Layer, shape_a: list[int], shape_b: list[int], num_inputs: int) -> None:
    # The same bound as in the authors' code, whose kaiming_uniform_ with a = sqrt(5) comes to 1 / sqrt(inputs).
    bound = 1 / math.sqrt(num_inputs)
    dtype = layer.weight.dtype
    uniform, zero = nn.initializer.Uniform(-bound, bound), nn.initializer.Constant(0.0)
    layer.lora_a = layer.create_parameter(shape_a, dtype=dtype, default_initializer=uniform)
    layer.lora_b = layer.create_parameter(shape_b, dtype=dtype, default_initializer=zero)
