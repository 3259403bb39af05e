"""Towers by name: `[B, 3, H, W]` images or `[B, L]` token ids to `[B, width]` features.

A family of towers is a file here and a line below. A tower of a user's own module is named `module:Class`: a Layer that
is built from its section of the configuration (a text tower from that and the size of the vocabulary), says its output
width as `width`, and may list as `blocks` the parts that recomputation runs twice (docs/extending.md).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

from paddle import nn

from ernie_vil2.config import ImageTowerConfig, ModelConfig, TextTowerConfig
from ernie_vil2.models.towers.backbones import build_backbone
from ernie_vil2.models.towers.efficientnet_l2 import build_efficientnet_l2
from ernie_vil2.models.towers.repvgg import build_repvgg
from ernie_vil2.models.towers.transformers import VIT_SIZES, build_transformer, build_vit

IMAGE_TOWERS: dict[str, Callable[[ImageTowerConfig], nn.Layer]] = {
    "ViT": build_vit,
    **dict.fromkeys(VIT_SIZES, build_vit),
    "RepVGG": build_repvgg,
    "EfficientNetL2": build_efficientnet_l2,
}
"""By name; every other name is one of PaddleClas's."""
TEXT_TOWERS: dict[str, Callable[[TextTowerConfig, int], nn.Layer]] = {
    "ernie": build_transformer,
    "bert": build_transformer,
}
"""By the first part of the name."""


def build_image_tower(config: ImageTowerConfig) -> nn.Layer:
    """The tower that `config` names, randomly initialised.

    Raises:
        ValueError: there is no such tower, or its sizes do not fit each other.
    """
    if ":" in config.name:
        return _own(config.name, config)
    return IMAGE_TOWERS.get(config.name, build_backbone)(config)


def build_text_tower(config: TextTowerConfig, vocab_size: int) -> nn.Layer:
    """Likewise for `vocab_size` tokens."""
    if ":" in config.name:
        return _own(config.name, config, vocab_size)
    return TEXT_TOWERS[config.name.partition("-")[0]](config, vocab_size)


def import_own_towers(config: ModelConfig) -> None:
    """Imports the modules of a user's own towers.

    To be called for a configuration that its user wrote, never for one that came with weights: importing a module runs
    it.

    Raises:
        ValueError: there is no such module.
    """
    for tower in (config.image, config.text):
        module, colon, _ = tower.name.partition(":")
        if colon:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise ValueError(f"{tower.name}: {error}; is the folder of {module} in PYTHONPATH?") from error


def _own(name: str, *arguments) -> nn.Layer:
    module, _, attribute = name.partition(":")
    if module not in sys.modules:
        raise ValueError(
            f"the tower {name} is of a module of its own: import {module} before the model is loaded, or --import it"
        )
    tower = getattr(sys.modules[module], attribute, None)
    if not (isinstance(tower, type) and issubclass(tower, nn.Layer)):
        raise ValueError(f"{name} is no class of paddle.nn.Layer")
    built = tower(*arguments)
    if not isinstance(getattr(built, "width", None), int):
        raise ValueError(f"{name} does not say its output width: set self.width")
    if not hasattr(built, "blocks"):
        built.blocks = []
    return built
