"""Configurations of convolutional towers: RepVGG, CLIP's ResNet, ConvNeXt, and the backbones of PaddleClas."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ernie_vil2.registry import unknown_name
from ernie_vil2.section import Depth, Epsilon, Size
from ernie_vil2.towers.base import IMAGE_TOWERS, OWN, ImageTowerConfig, strip_suite_prefix

if TYPE_CHECKING:
    from paddle import nn


class RepVgg(ImageTowerConfig):
    """RepVGG of any size, which learns from scratch when it is small."""

    suite: ClassVar[str | None] = "paddleclas"
    name: Literal["RepVGG", "paddleclas:RepVGG"] = Field(description="RepVGG of this package, or of PaddleClas")
    width: Size = Field(description="channels of the first of four stages")
    depth: Depth = Field(description="blocks of each stage")

    def build(self) -> nn.Layer:
        from ernie_vil2.towers.layers import convolution, suite

        if ":" in self.find_installed().name:
            return suite.build_repvgg(self.width, self.depth, self.image_size)
        return convolution.RepVGG(self.width, self.depth)

    def fewest_parameters(self) -> int:
        # Of a 3x3 and a 1x1 convolution in each block; the width doubles from stage to stage.
        num_weights, channels = 0, min(64, self.width)
        for stage in range(4):
            stage_channels = 2**stage * self.width
            num_weights += 10 * stage_channels * (channels + (self.depth - 1) * stage_channels)
            channels = stage_channels
        return num_weights


class ModifiedResNet(ImageTowerConfig):
    """ResNet of CLIP and Chinese-CLIP, whose features are pooled by attention."""

    name: Literal["ModifiedResNet"] = Field(description="CLIP's ResNet")
    width: Size = Field(description="channels of the first of four stages")
    layers: list[Depth] = Field(min_length=4, max_length=4, description="blocks of each stage (RN50: 3, 4, 6, 3)")
    heads: Size = Field(description="heads of the attention pooling; 32 times the width must be divisible by them")
    projection: Size = Field(description="width of the features (RN50: 1024)")

    def build(self) -> nn.Layer:
        from ernie_vil2.towers.layers.convolution import ModifiedResNet

        return ModifiedResNet(self.image_size, **self.sizes)

    def fewest_parameters(self) -> int:
        # A bottleneck block of inner width w has at least 17 w^2 weights: w^2 in its first layer, 9 w^2 in the 3x3
        # convolution and 4 w^2 in the last, and 3 w^2 more for wider inputs or for its shortcut. The width doubles from
        # stage to stage.
        num_weights = [depth * (2**stage * self.width) ** 2 for stage, depth in enumerate(self.layers)]
        pooled_width = 32 * self.width
        return 17 * sum(num_weights) + pooled_width * (3 * pooled_width + self.projection)


class ConvNeXt(ImageTowerConfig):
    """ConvNeXt of any size, as timm and OpenCLIP have it."""

    name: Literal["ConvNeXt"] = Field(description="ConvNeXt")
    width: Size = Field(description="channels of the first of four stages")
    layers: list[Depth] = Field(min_length=4, max_length=4, description="blocks of each stage (base: 3, 3, 27, 3)")
    head: Size | None = Field(
        None, description="width of a linear layer with a GELU after the pooling; null: no such layer"
    )
    epsilon: Epsilon | None = Field(None, description="epsilon of the LayerNorms (xxlarge: 1e-5); null: 1e-6")

    def build(self) -> nn.Layer:
        from ernie_vil2.towers.layers.convolution import ConvNeXt

        return ConvNeXt(self.image_size, **self.sizes, head=self.head, epsilon=self.epsilon or 1e-6)

    def fewest_parameters(self) -> int:
        # A block has 8 width^2 weights in its MLP; the width doubles from stage to stage.
        num_weights = [depth * (2**stage * self.width) ** 2 for stage, depth in enumerate(self.layers)]
        return 8 * sum(num_weights)


class Backbone(ImageTowerConfig):
    """Backbone of PaddleClas, whose name fixes its sizes: `paddleclas:NAME`, or NAME alone."""

    suite: ClassVar[str | None] = "paddleclas"

    def build(self) -> nn.Layer:
        from ernie_vil2.towers.layers import suite

        name = strip_suite_prefix(self.name)
        builders = suite.backbone_builders(f"the image tower {self.name}")
        if name not in builders:
            registered = [tower for tower in IMAGE_TOWERS if tower != OWN]
            raise unknown_name("image tower", name, [*registered, "EfficientNetL2"], builders)
        return suite.Backbone(name, builders[name], self.image_size)
