"""Where attention is one kernel: `Training.fused_attention`, and by `Training.dropout` in which towers."""

from __future__ import annotations

import paddle

from ernie_vil2.config import ConfigError, TrainingConfig
from ernie_vil2.models import DualEncoder
from ernie_vil2.models.towers.transformers import TextTower, VisionTransformer


def prepare_attention(model: DualEncoder, training: TrainingConfig) -> list[str]:
    """Does what `Training.fused_attention` says, in place: `on`, `off`, or `auto`, which is on with a GPU.

    The text tower's attention has dropout. It is fused where that is Paddle's own (`Training.dropout=native`): masks
    that follow from a row's position in the global batch could not be had from within a kernel.

    Returns:
        Lines for people, of that and of the dropout.

    Raises:
        ConfigError: `on`, and there is no tower whose attention can be fused.
    """
    native, setting = training.dropout == "native", training.fused_attention
    lines = ["dropout: Paddle's own; another number of ranks draws other masks"] if native else []
    kinds = {"image": VisionTransformer, **({"text": TextTower} if native else {})}
    towers = [name for name, kind in kinds.items() if isinstance(getattr(model, name), kind)]
    if setting == "on" and not towers:
        raise ConfigError("Training.fused_attention=on is for image towers named ViT..., and with dropout=native for "
                          "text towers; set auto or off")  # fmt: skip
    if setting == "off" or not towers:
        return lines
    on_cpu = paddle.get_device() == "cpu"
    if setting == "auto" and on_cpu:
        return [*lines, "fused attention: off, Paddle has no such kernel for CPUs"]
    for name in towers:
        getattr(model, name).fuse_attention()
    where = f"in the {' and the '.join(towers)} tower"
    kernel = ", by Paddle's plain formula, as CPUs have no such kernel" if on_cpu else ""
    return [*lines, f"fused attention: on {where}{kernel}"]
