"""Image towers of timm in folders of OpenCLIP: plain ViTs, and PE-Core and EVA-02, which are timm's class `Eva`.

Depth, width, hidden width and patch size are those of the arrays. The number of heads follows from `head_width`, if the
folder gives it, and otherwise from the name.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from ernie_vil2.models.weights.name_table import Row
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.towers.base import Activation, ImageTowerConfig, ImageVariant, Rotary
from ernie_vil2.towers.transformer import Vit

TRUNK = "visual.trunk."  # prefix of the arrays of an image tower of timm
_PROJECTION = "visual.head.proj"  # layer of OpenCLIP after the tower
PE_POOLING_HEADS = 8  # of every PE-Core, however wide it is


class EvaFacts(NamedTuple):
    """Settings that timm derives from the name of a tower with rotary positions.

    Attributes:
        width: width of the tower, only to check that the number of heads belongs to the weights.
        heads: number of heads.
        grid: rows and columns of patches to which positions are stretched.
    """

    width: int
    heads: int
    grid: int


TIMM_PE_CORES = {
    "vit_pe_core_tiny_patch16_384": EvaFacts(192, 3, 24),
    "vit_pe_core_small_patch16_384": EvaFacts(384, 6, 24),
    "vit_pe_core_base_patch16_224": EvaFacts(768, 12, 14),
    "vit_pe_core_large_patch14_336": EvaFacts(1024, 16, 24),
    "vit_pe_core_gigantic_patch14_448": EvaFacts(1536, 16, 32),
}
TIMM_EVA02_CLIPS = {
    "eva02_base_patch16_clip_224": EvaFacts(768, 12, 16),
    "eva02_large_patch14_clip_224": EvaFacts(1024, 16, 16),
    "eva02_large_patch14_clip_336": EvaFacts(1024, 16, 16),
}
"""All PE-Cores and EVA-02-CLIPs of timm 1.0.31 but the enormous one, which has neither rotary positions nor SwiGLU.

`tests/fixtures/open_clip/make.py` builds every tower of these names in timm, and compares.
"""
_EVA_FACTS = {**TIMM_PE_CORES, **TIMM_EVA02_CLIPS}


class VitFacts(NamedTuple):
    """Settings that timm derives from the name of a ViT with a class token.

    Attributes:
        width: width of the tower, only to check that the number of heads belongs to the weights.
        heads: number of heads.
        activation: activation of the MLPs.
        is_clip: whether the tower is as in CLIP: a norm before the blocks, patches without a bias, an epsilon of 1e-5.
    """

    width: int
    heads: int
    activation: Activation
    is_clip: bool


_VIT_SIZES = {
    "xsmall": (256, 4),
    "tiny": (192, 3),
    "small": (384, 6),
    "medium": (512, 8),
    "betwixt": (640, 10),
    "base": (768, 12),
    "large": (1024, 16),
    "huge": (1280, 16),
    "giant": (1408, 16),
    "gigantic": (1664, 16),
}
"""Width and heads by the second word of a name."""
_VIT_NAME_ENDINGS = {
    "tiny": "patch16_224 patch16_384",
    "small": "patch8_224 patch16_224 patch16_384 patch32_224 patch32_384",
    "base": "patch8_224 patch16_224 patch16_384 patch32_224 patch32_384 patch16_clip_224 patch16_clip_384 "
    "patch16_clip_quickgelu_224 patch32_clip_224 patch32_clip_256 patch32_clip_384 patch32_clip_448 "
    "patch32_clip_quickgelu_224",
    "large": "patch14_224 patch16_224 patch16_384 patch32_224 patch32_384 patch14_clip_224 patch14_clip_336 "
    "patch14_clip_quickgelu_224 patch14_clip_quickgelu_336",
    "huge": "patch14_224 patch14_clip_224 patch14_clip_336 patch14_clip_378 patch14_clip_quickgelu_224 "
    "patch14_clip_quickgelu_378",
    "giant": "patch14_224 patch14_clip_224",
    "gigantic": "patch14_224 patch14_clip_224 patch14_clip_378 patch14_clip_quickgelu_224",
    "xsmall": "patch16_clip_224",
    "medium": "patch16_clip_224 patch32_clip_224",
    "betwixt": "patch32_clip_224",
}
"""Further words of the names, by the second one."""


def _list_plain_vits() -> dict[str, VitFacts]:
    facts = {"vit_base_patch16_plus_clip_240": VitFacts(896, 14, "gelu", is_clip=True)}
    for size, endings in _VIT_NAME_ENDINGS.items():
        width, heads = _VIT_SIZES[size]
        for ending in endings.split():
            activation: Activation = "quick_gelu" if "quickgelu" in ending else "gelu"
            facts[f"vit_{size}_{ending}"] = VitFacts(width, heads, activation, "clip" in ending)
    return facts


TIMM_PLAIN_VITS = _list_plain_vits()
"""All ViTs of timm 1.0.31 with a class token whose blocks have no other layers than those of ViT and CLIP.

`tests/fixtures/open_clip/make.py` builds every tower `vit_*` of timm, and compares.
"""


class TrunkSizes(NamedTuple):
    """Sizes of an image tower of timm by its arrays."""

    width: int
    patch_size: int
    depth: int
    hidden: int


def find_timm_name(vision: Settings) -> str:
    """Return the name of the image tower in timm; "" if the settings name none."""
    name = vision.values.get("timm_model_name")
    # After a full stop comes the name of published weights, which does not change what is computed.
    return name.partition(".")[0] if isinstance(name, str) else ""


def find_array(vision: Settings, arrays: Mapping[str, np.ndarray], name: str, num_axes: int) -> np.ndarray:
    """Return an array of the weights; raise ValueError if it is missing or has another number of axes."""
    array = arrays.get(name)
    if array is None or array.ndim != num_axes:
        raise ValueError(
            f"{vision.path}: it describes {find_timm_name(vision)}, but the weights hold no {name} of {num_axes} axes"
        )
    return array


def read_trunk_sizes(vision: Settings, arrays: Mapping[str, np.ndarray], fc1_name: str = "mlp.fc1") -> TrunkSizes:
    """Return the sizes of a tower by its arrays.

    Args:
        vision: settings of the tower.
        arrays: arrays of the model.
        fc1_name: name of the first layer of a block's MLP.
    """
    kernel = find_array(vision, arrays, f"{TRUNK}patch_embed.proj.weight", 4)
    fc1 = find_array(vision, arrays, f"{TRUNK}blocks.0.{fc1_name}.weight", 2)
    blocks = {array_name.split(".")[3] for array_name in arrays if array_name.startswith(f"{TRUNK}blocks.")}
    return TrunkSizes(kernel.shape[0], kernel.shape[2], len(blocks), fc1.shape[0])


def make_trunk_vit(vision: Settings, sizes: TrunkSizes, heads: int, variant: ImageVariant) -> Vit:
    """Return the configuration of a tower of these sizes."""
    return Vit(
        name="ViT",
        image_size=vision.read_int("image_size", 224),
        patch_size=sizes.patch_size,
        width=sizes.width,
        depth=sizes.depth,
        heads=heads,
        variant=variant,
    )


def read_trunk_heads(vision: Settings, width: int, named_width: int, named_heads: int) -> int:
    """Return the number of heads of a tower, by the setting `head_width` or by its name in timm.

    Args:
        vision: settings of the tower.
        width: width of the tower, by its arrays.
        named_width: width of the tower that timm builds by the name.
        named_heads: number of heads of that tower.
    """
    if "head_width" in vision.values:
        head_width = vision.read_int("head_width", 64)
        if width % head_width:
            raise vision.make_error("head_width", f"it does not divide the width, {width}")
        return width // head_width
    if width != named_width:
        raise vision.make_error(
            "timm_model_name", f"that tower is {named_width} wide, its weights {width}; give head_width next to it"
        )
    return named_heads


def is_plain_vit(vision: Settings) -> bool:
    """Return whether the settings name a supported ViT with a class token."""
    return find_timm_name(vision) in TIMM_PLAIN_VITS


def read_plain_vit(vision: Settings, arrays: Mapping[str, np.ndarray]) -> tuple[ImageTowerConfig, bool]:
    """Describe a ViT with a class token by its name and its arrays.

    Returns:
        The tower, and whether a projection without a bias follows it. A projection with a bias is the tower's head.
    """
    facts = TIMM_PLAIN_VITS[find_timm_name(vision)]
    if vision.values.get("timm_pool", "avg") not in ("", "token"):
        raise vision.make_error("timm_pool", "this tower supports only 'token', and '', which means the same")
    projection = vision.values.get("timm_proj", "linear")
    if projection not in ("linear", "none", None):
        raise vision.make_error("timm_proj", "this tower supports only 'linear', 'none' and null")

    # timm's own head and OpenCLIP's projection with a bias are both the head of our tower.
    head_name = None
    if projection is None:
        head_name = f"{TRUNK}head"
    elif projection == "linear" and vision.read_bool("timm_proj_bias", False):
        head_name = _PROJECTION
    out_features = None
    if head_name is not None:
        head_bias = arrays.get(f"{head_name}.bias")
        if head_bias is None:
            raise vision.make_error("timm_proj", f"the weights hold no {head_name}.bias")
        out_features = head_bias.size

    sizes = read_trunk_sizes(vision, arrays)
    heads = read_trunk_heads(vision, sizes.width, facts.width, facts.heads)
    variant = ImageVariant(
        hidden=sizes.hidden,
        activation=facts.activation,
        epsilon=1e-5 if facts.is_clip else 1e-6,
        patch_bias=not facts.is_clip,
        input_norm=facts.is_clip,
        head=out_features,
    )
    tower = make_trunk_vit(vision, sizes, heads, variant)
    return tower, projection == "linear" and head_name is None


def has_plain_vit(array_names: Collection[str]) -> bool:
    """Return whether a model without rotary positions has a ViT of timm with a class token.

    A model with rotary positions may have the array, too: that of a tower of the class `Eva`.
    """
    return f"{TRUNK}cls_token" in array_names


def make_plain_vit_rows(variant: ImageVariant, array_names: Collection[str]) -> list[Row]:
    """Return the rows of a ViT with a class token, of its projection, and of the scale."""
    rows: list[Row] = [
        ("log_logit_scale", "logit_scale", "scalar"),
        ("image.cls_token", f"{TRUNK}cls_token", "equal"),
        ("image.pos_embed", f"{TRUNK}pos_embed", "equal"),
        ("image.norm", f"{TRUNK}norm", "weight_bias"),
        *_make_plain_block_rows(),
    ]
    if variant.patch_bias:
        rows.append(("image.patch_embed.proj", f"{TRUNK}patch_embed.proj", "weight_bias"))
    else:
        rows.append(("image.patch_embed.proj.weight", f"{TRUNK}patch_embed.proj.weight", "equal"))
    if variant.input_norm:
        rows.append(("image.ln_pre", f"{TRUNK}norm_pre", "weight_bias"))
    if variant.head:
        head_name = _PROJECTION if f"{_PROJECTION}.bias" in array_names else f"{TRUNK}head"
        rows.append(("image.head", head_name, "linear"))
    elif f"{_PROJECTION}.weight" in array_names:
        rows.append(("image_projection.weight", f"{_PROJECTION}.weight", "transposed"))
    return rows


def _make_plain_block_rows() -> list[Row]:
    rows: list[Row] = []
    for layer in ("norm1", "norm2"):
        rows.append((f"image.blocks.N.{layer}", f"{TRUNK}blocks.N.{layer}", "weight_bias"))
    for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
        rows.append((f"image.blocks.N.{layer}", f"{TRUNK}blocks.N.{layer}", "linear"))
    return rows


def is_eva_tower(vision: Settings) -> bool:
    """Return whether the settings name a supported PE-Core or EVA-02-CLIP."""
    return find_timm_name(vision) in _EVA_FACTS


def read_eva_tower(vision: Settings, arrays: Mapping[str, np.ndarray]) -> ImageTowerConfig:
    """Describe a PE-Core or an EVA-02-CLIP by its name and its arrays."""
    name = find_timm_name(vision)
    facts = _EVA_FACTS[name]
    is_pe_core = name in TIMM_PE_CORES
    pool = "map" if is_pe_core else "token"
    if vision.values.get("timm_pool", "avg") != pool:
        raise vision.make_error("timm_pool", f"{name} supports only '{pool}'")
    if vision.values.get("timm_proj", "linear") is not None:
        raise vision.make_error("timm_proj", f"it must be null for {name}, whose own last layer is the projection")

    sizes = read_trunk_sizes(vision, arrays, "mlp.fc1" if is_pe_core else "mlp.fc1_g")
    heads = read_trunk_heads(vision, sizes.width, facts.width, facts.heads)
    out_features = find_array(vision, arrays, f"{TRUNK}head.weight", 2).shape[0]
    has_class_token = f"{TRUNK}cls_token" in arrays
    if is_pe_core:
        # A class token is at position 0, so rows and columns of patches are then counted from 1.
        rotary = Rotary(first_half="columns", start=1 if has_class_token else 0, grid=facts.grid)
        variant = ImageVariant(
            hidden=sizes.hidden,
            activation="gelu",
            epsilon=1e-5,
            rotary=rotary,
            class_token=has_class_token,
            pooling="attention",
            pooling_heads=PE_POOLING_HEADS,
            pooling_hidden=find_array(vision, arrays, f"{TRUNK}attn_pool.mlp.fc1.weight", 2).shape[0],
            head=out_features,
        )
    else:
        variant = make_eva02_variant(sizes.hidden, out_features, facts.grid)
    return make_trunk_vit(vision, sizes, heads, variant)


def make_eva02_variant(hidden: int, out_features: int, grid: int) -> ImageVariant:
    """Return how the image tower of EVA-02-CLIP differs from a plain ViT.

    Args:
        hidden: width of the MLPs.
        out_features: width of the features, which the last layer returns.
        grid: rows and columns to which positions are stretched.
    """
    return ImageVariant(
        hidden=hidden,
        activation="silu",
        mlp="swiglu",
        epsilon=1e-6,
        rotary=Rotary(first_half="rows", grid=grid),
        key_bias=False,
        attention_norm=True,
        patch_bias=True,
        input_norm=False,
        head=out_features,
    )


def make_eva_rows(variant: ImageVariant) -> list[Row]:
    """Return the rows of a PE-Core or an EVA-02-CLIP, and of the scale."""
    rows: list[Row] = [
        ("log_logit_scale", "logit_scale", "scalar"),
        ("image.pos_embed", f"{TRUNK}pos_embed", "equal"),
    ]
    if variant.class_token:
        rows.append(("image.cls_token", f"{TRUNK}cls_token", "equal"))
    if variant.mlp == "swiglu":
        rows.append(("image.patch_embed.proj", f"{TRUNK}patch_embed.proj", "weight_bias"))
        rows += _make_eva02_block_rows()
    else:
        rows += _make_pe_rows()
    rows.append(("image.norm", f"{TRUNK}norm", "weight_bias"))
    rows.append(("image.head", f"{TRUNK}head", "linear"))
    return rows


def _make_eva02_block_rows() -> list[Row]:
    ours, theirs = "image.blocks.N.", f"{TRUNK}blocks.N."
    rows: list[Row] = [(f"{ours}attn.k_proj.weight", f"{theirs}attn.k_proj.weight", "transposed")]
    for layer in ("norm1", "norm2", "attn.norm", "mlp.norm"):
        rows.append((f"{ours}{layer}", f"{theirs}{layer}", "weight_bias"))
    linear_layers = {
        "attn.q_proj": "attn.q_proj",
        "attn.v_proj": "attn.v_proj",
        "attn.out_proj": "attn.proj",
        "mlp.gate": "mlp.fc1_g",
        "mlp.fc1": "mlp.fc1_x",
        "mlp.fc2": "mlp.fc2",
    }
    for our_layer, their_layer in linear_layers.items():
        rows.append((f"{ours}{our_layer}", f"{theirs}{their_layer}", "linear"))
    return rows


def _make_pe_rows() -> list[Row]:
    rows: list[Row] = [
        ("image.patch_embed.proj.weight", f"{TRUNK}patch_embed.proj.weight", "equal"),
        ("image.ln_pre", f"{TRUNK}norm_pre", "weight_bias"),
        ("image.attn_pool.probe", f"{TRUNK}attn_pool.latent", "equal"),
        ("image.attn_pool.norm", f"{TRUNK}attn_pool.norm", "weight_bias"),
        *_make_plain_block_rows(),
    ]
    for layer in ("q", "kv", "proj", "mlp.fc1", "mlp.fc2"):
        rows.append((f"image.attn_pool.{layer}", f"{TRUNK}attn_pool.{layer}", "linear"))
    return rows
