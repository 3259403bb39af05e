"""ConvNeXt of timm within folders of OpenCLIP. Its sizes are those of the arrays."""

from collections.abc import Mapping

import numpy as np

from ernie_vil2.models.weights.families.timm_towers import TRUNK, find_array, find_timm_name
from ernie_vil2.models.weights.name_table import Row
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.towers.convolution import ConvNeXt

TIMM_CONVNEXTS = {
    "convnext_tiny": 1e-6,
    "convnext_small": 1e-6,
    "convnext_base": 1e-6,
    "convnext_large": 1e-6,
    "convnext_xlarge": 1e-6,
    "convnext_xxlarge": 1e-5,
}
"""Epsilon of the LayerNorms by the name of the tower in timm 1.0.31, of all of OpenCLIP's configurations.

`tests/fixtures/open_clip/make.py` builds these towers in timm, and compares. Smaller ones have other layers.
"""


def is_convnext(vision: Settings) -> bool:
    """Return whether the settings name a supported ConvNeXt."""
    return find_timm_name(vision) in TIMM_CONVNEXTS


def read_convnext(vision: Settings, arrays: Mapping[str, np.ndarray]) -> ConvNeXt:
    """Describe a ConvNeXt by its name and its arrays."""
    name = find_timm_name(vision)
    # '' keeps timm's own pooling, which is the mean, too.
    if vision.values.get("timm_pool", "avg") not in ("", "avg"):
        raise vision.make_error("timm_pool", f"{name} supports only '' and 'avg', the mean")
    vision.check_values(timm_proj_bias=False)
    projection = vision.values.get("timm_proj", "linear")
    if projection not in ("linear", "mlp"):
        raise vision.make_error("timm_proj", f"{name} supports only 'linear' and 'mlp'")

    kernel = find_array(vision, arrays, f"{TRUNK}stem.0.weight", 4)
    layers = []
    for stage in range(4):
        prefix = f"{TRUNK}stages.{stage}.blocks."
        layers.append(len({key.removeprefix(prefix).partition(".")[0] for key in arrays if key.startswith(prefix)}))
    head = None
    if projection == "mlp":
        head = find_array(vision, arrays, "visual.head.mlp.fc1.weight", 2).shape[0]
    return ConvNeXt(
        name="ConvNeXt",
        image_size=vision.read_int("image_size", 224),
        width=kernel.shape[0],
        layers=layers,
        head=head,
        epsilon=TIMM_CONVNEXTS[name],
    )


def make_convnext_rows(tower: ConvNeXt) -> list[Row]:
    """Return the rows of a ConvNeXt, of its projection, and of the scale."""
    rows: list[Row] = [
        ("log_logit_scale", "logit_scale", "scalar"),
        ("image.patch_embed.proj", f"{TRUNK}stem.0", "weight_bias"),
        ("image.patch_embed.norm", f"{TRUNK}stem.1", "weight_bias"),
    ]
    for stage in (1, 2, 3, 4):
        ours, theirs = f"image.layer{stage}.N.", f"{TRUNK}stages.{stage - 1}."
        if stage > 1:
            rows.append((f"image.downsample{stage}.norm", f"{theirs}downsample.0", "weight_bias"))
            rows.append((f"image.downsample{stage}.proj", f"{theirs}downsample.1", "weight_bias"))
        rows.append((f"{ours}gamma", f"{theirs}blocks.N.gamma", "equal"))
        for layer in ("conv_dw", "norm"):
            rows.append((f"{ours}{layer}", f"{theirs}blocks.N.{layer}", "weight_bias"))
        for layer in ("mlp.fc1", "mlp.fc2"):
            rows.append((f"{ours}{layer}", f"{theirs}blocks.N.{layer}", "linear"))
    rows.append(("image.norm", f"{TRUNK}head.norm", "weight_bias"))
    if tower.head is None:
        rows.append(("image_projection.weight", "visual.head.proj.weight", "transposed"))
    else:
        rows.append(("image.head", "visual.head.mlp.fc1", "linear"))
        rows.append(("image_projection.weight", "visual.head.mlp.fc2.weight", "transposed"))
    return rows
