"""Configurations of towers of the user's own: a Layer that takes from its section what it likes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ernie_vil2.section import Depth, Probability, Size
from ernie_vil2.towers.base import ImageTowerConfig, TextTowerConfig, TowerConfig

if TYPE_CHECKING:
    from paddle import nn


class OwnImageTower(ImageTowerConfig):
    """An image tower of the user's own, `module:Class` or registered by name."""

    is_own: ClassVar[bool] = True
    patch_size: Size | None = Field(None, description="what the tower makes of it")
    width: Size | None = Field(None, description="likewise")
    depth: Depth | None = Field(None, description="likewise")
    heads: Size | None = Field(None, description="likewise")
    layers: list[Depth] | None = Field(None, min_length=4, max_length=4, description="likewise")
    projection: Size | None = Field(None, description="likewise")
    drop_path: Probability = Field(0.0, description="likewise")

    def build(self) -> nn.Layer:
        return _build(self)


class OwnTextTower(TextTowerConfig):
    """A text tower of the user's own."""

    is_own: ClassVar[bool] = True
    width: Size | None = Field(None, description="what the tower makes of it")
    depth: Depth | None = Field(None, description="likewise")
    heads: Size | None = Field(None, description="likewise")

    def build(self, vocab_size: int) -> nn.Layer:
        return _build(self, vocab_size)


def _build(config: TowerConfig, *arguments: Any) -> nn.Layer:
    from paddle import nn

    kind = config.registry.find(config.name)
    is_layer = isinstance(kind, type) and issubclass(kind, nn.Layer)
    if not is_layer:
        raise ValueError(f"{config.name} is not a class of paddle.nn.Layer")
    tower: Any = kind(config, *arguments)
    if not isinstance(getattr(tower, "width", None), int):
        raise ValueError(f"{config.name} does not say its output width: set self.width")
    if not hasattr(tower, "blocks"):
        tower.blocks = []  # nothing to recompute
    return tower
