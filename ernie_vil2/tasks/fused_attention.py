"""Where attention is one kernel: `Training.fused_attention`."""

from __future__ import annotations

import paddle

from ernie_vil2.config import ConfigError
from ernie_vil2.models import DualEncoder
from ernie_vil2.models.towers.transformers import VisionTransformer


def fuse_attention(model: DualEncoder, setting: str) -> str:
    """Does what `Training.fused_attention` says, in place.

    Only the image tower's attention is fused: that of the text tower has dropout, whose masks follow from a row's place
    in the global batch and could not be had from within a kernel, and 48 tokens have small weights.

    Args:
        setting: `on`, `off`, or `auto`: on a GPU.

    Returns:
        One line for people; empty where there was nothing to choose.

    Raises:
        ConfigError: `on`, and the image tower is of another kind.
    """
    fits = isinstance(model.image, VisionTransformer)
    if setting == "on" and not fits:
        raise ConfigError("Training.fused_attention=on is for image towers named ViT...; set auto or off")
    if setting == "off" or not fits:
        return ""
    on_cpu = paddle.get_device() == "cpu"
    if setting == "auto" and on_cpu:
        return "fused attention: off, Paddle has no such kernel for CPUs"
    model.image.fuse_attention()
    kernel = "by Paddle's plain formula, as CPUs have no such kernel" if on_cpu else "in the image tower"
    return f"fused attention: on, {kernel}"
