"""Names of OpenAI's CLIP, which OpenCLIP and Chinese-CLIP's own files have: its ViTs and its ResNets."""

from __future__ import annotations

from collections.abc import Sequence

from ernie_vil2.config import ImageTowerConfig
from ernie_vil2.models.weights.families.clip import CLIP_MEAN, CLIP_STD
from ernie_vil2.models.weights.names import Row

COUNTED = "how many batches its averages have seen, which nothing depends on"
"""Why `num_batches_tracked` of a batch norm is not used."""


def blocks(ours: str, theirs: str) -> list[Row]:
    """Rows of the blocks as OpenAI's code spells them."""
    return [
        (f"{ours}N.norm1", f"{theirs}N.ln_1", "layer"),
        (f"{ours}N.norm2", f"{theirs}N.ln_2", "layer"),
        (f"{ours}N.attn.qkv", f"{theirs}N.attn.in_proj_*", "linear"),
        (f"{ours}N.attn.proj", f"{theirs}N.attn.out_proj", "linear"),
        (f"{ours}N.mlp.fc1", f"{theirs}N.mlp.c_fc", "linear"),
        (f"{ours}N.mlp.fc2", f"{theirs}N.mlp.c_proj", "linear"),
    ]


_VIT: list[Row] = [
    ("image.cls_token", "visual.class_embedding", "token"),
    ("image.patch_embed.proj.weight", "visual.conv1.weight", "array"),
    ("image.pos_embed", "visual.positional_embedding", "grid"),
    ("image.ln_pre", "visual.ln_pre", "layer"),
    *blocks("image.blocks.", "visual.transformer.resblocks."),
    ("image.norm", "visual.ln_post", "layer"),
    ("image_projection.weight", "visual.proj", "array"),
]


def image_rows(tower: ImageTowerConfig) -> list[Row]:
    """Rows of an image tower, and of the scale."""
    rows = _VIT if tower.name == "ViT" else _resnet()
    return [("log_logit_scale", "logit_scale", "scalar"), *rows]


def _resnet() -> list[Row]:
    stem: list[Row] = [(f"image.conv{part}.weight", f"visual.conv{part}.weight", "array") for part in (1, 2, 3)]
    rows = stem + [row for part in (1, 2, 3) for row in _batch_norm(f"bn{part}")]
    for stage in (1, 2, 3, 4):
        block, first = f"layer{stage}.N.", f"layer{stage}.0.downsample."
        for part in (1, 2, 3):
            rows.append((f"image.{block}conv{part}.weight", f"visual.{block}conv{part}.weight", "array"))
            rows += _batch_norm(f"{block}bn{part}")
        rows.append((f"image.{first}0.weight", f"visual.{first}0.weight", "array"))
        rows += _batch_norm(f"{first}1")
    pool = [(f"image.attnpool.{part}_proj", f"visual.attnpool.{part}_proj") for part in ("q", "k", "v", "c")]
    rows.append(("image.attnpool.pos_embed", "visual.attnpool.positional_embedding", "grid"))
    return rows + [(ours, theirs, "linear") for ours, theirs in pool]


def _batch_norm(name: str) -> list[Row]:
    return [
        (f"image.{name}", f"visual.{name}", "layer"),
        (f"image.{name}._mean", f"visual.{name}.running_mean", "array"),
        (f"image.{name}._variance", f"visual.{name}.running_var", "array"),
    ]


def resnet_tower(image_size: int, layers: Sequence[int], width: int, head_width: int, dim: int) -> ImageTowerConfig:
    """CLIP's ResNet, whose attention pooling has heads of `head_width` and makes features of width `dim`."""
    return ImageTowerConfig(
        name="ModifiedResNet",
        image_size=image_size,
        layers=list(layers),
        width=width,
        heads=max(1, 32 * width // head_width),
        projection=dim,
        mean=CLIP_MEAN,
        std=CLIP_STD,
    )
