"""Configurations of the user's own towers: a Layer that reads from its section the fields that it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ernie_vil2.section import Depth, Fraction, Probability, Size
from ernie_vil2.towers.base import ImageTowerConfig, TextTowerConfig, TowerConfig

if TYPE_CHECKING:
    from paddle import nn


class OwnImageTower(ImageTowerConfig):
    """Image tower of the user's own, `module:Class` or registered by name."""

    is_user_defined: ClassVar[bool] = True
    # The fields of all kinds, for the tower to use as it likes.
    patch_size: Size | None = Field(None, description="passed to your tower")
    width: Size | None = Field(None, description="passed to your tower")
    depth: Depth | None = Field(None, description="passed to your tower")
    heads: Size | None = Field(None, description="passed to your tower")
    layers: list[Depth] | None = Field(None, min_length=4, max_length=4, description="passed to your tower")
    projection: Size | None = Field(None, description="passed to your tower")
    drop_path: Probability = Field(0.0, description="passed to your tower")
    keep_tokens: Fraction = Field(1.0, description="passed to your tower")

    def build(self) -> nn.Layer:
        return _build_layer(self)


class OwnTextTower(TextTowerConfig):
    """Text tower of the user's own, `module:Class` or registered by name."""

    is_user_defined: ClassVar[bool] = True
    width: Size | None = Field(None, description="passed to your tower")
    depth: Depth | None = Field(None, description="passed to your tower")
    heads: Size | None = Field(None, description="passed to your tower")

    def build(self, vocab_size: int) -> nn.Layer:
        return _build_layer(self, vocab_size)


def _build_layer(config: TowerConfig, *arguments: Any) -> nn.Layer:
    from paddle import nn

    layer_class = config.registry.find(config.name)
    is_layer = isinstance(layer_class, type) and issubclass(layer_class, nn.Layer)
    if not is_layer:
        raise ValueError(f"{config.name} is not a class of paddle.nn.Layer")
    tower: Any = layer_class(config, *arguments)
    if not isinstance(getattr(tower, "width", None), int):
        raise ValueError(f"{config.name} does not say its output width: set self.width")
    if not hasattr(tower, "blocks"):
        tower.blocks = []  # nothing to recompute
    return tower
