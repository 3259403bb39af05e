"""Towers by name: `[B, 3, H, W]` images or `[B, L]` token ids to `[B, width]` features.

A family of towers is a file here and a line below. A tower of a user's own module is named `module:Class`: a Layer that
is built from its section of the configuration (a text tower from that and the size of the vocabulary), says its output
width as `width`, and may list as `blocks` the parts that recomputation runs twice (docs/extending.md).
"""

from __future__ import annotations

from collections.abc import Callable

from paddle import nn

from ernie_vil2.config import ImageTowerConfig, TextTowerConfig
from ernie_vil2.models.towers.backbones import build_backbone
from ernie_vil2.models.towers.efficientnet_l2 import build_efficientnet_l2
from ernie_vil2.models.towers.repvgg import build_repvgg
from ernie_vil2.models.towers.transformers import VIT_SIZES, build_transformer, build_vit
from ernie_vil2.registry import Registry

IMAGE_TOWERS: Registry[Callable[[ImageTowerConfig], nn.Layer]] = Registry(
    "image tower",
    {
        "ViT": build_vit,
        **dict.fromkeys(VIT_SIZES, build_vit),
        "RepVGG": build_repvgg,
        "EfficientNetL2": build_efficientnet_l2,
    },
)
"""By name; every other name is one of PaddleClas's."""
TEXT_TOWERS: Registry[Callable[[TextTowerConfig, int], nn.Layer]] = Registry(
    "text tower", {"ernie": build_transformer, "bert": build_transformer}
)
"""By the first part of the name."""


def build_image_tower(config: ImageTowerConfig) -> nn.Layer:
    """The tower that `config` names, randomly initialised.

    Raises:
        ValueError: there is no such tower, or its sizes do not fit each other.
    """
    if ":" in config.name:
        return _own(IMAGE_TOWERS.find(config.name), config.name, config)
    return IMAGE_TOWERS.get(config.name, build_backbone)(config)


def build_text_tower(config: TextTowerConfig, vocab_size: int) -> nn.Layer:
    """Likewise for `vocab_size` tokens."""
    if ":" in config.name:
        return _own(TEXT_TOWERS.find(config.name), config.name, config, vocab_size)
    return TEXT_TOWERS[config.name.partition("-")[0]](config, vocab_size)


def _own(tower: object, name: str, *arguments: object) -> nn.Layer:
    if not (isinstance(tower, type) and issubclass(tower, nn.Layer)):
        raise ValueError(f"{name} is not a class of paddle.nn.Layer")
    built = tower(*arguments)
    if not isinstance(getattr(built, "width", None), int):
        raise ValueError(f"{name} does not say its output width: set self.width")
    if not hasattr(built, "blocks"):
        built.blocks = []
    return built
