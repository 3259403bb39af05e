"""RepVGG in any size: small towers that learn from scratch."""

from __future__ import annotations

from functools import partial

from paddle import nn

from ernie_vil2.config import ImageTowerConfig
from ernie_vil2.models.towers.backbones import Backbone, paddleclas


def build_repvgg(config: ImageTowerConfig) -> Backbone:
    """The tower of the given width and depth."""
    paddleclas()
    return Backbone(config.name, partial(_network, config.width, config.depth), config.image_size)


def _network(width: int, depth: int, class_num: int, pretrained: bool) -> nn.Layer:
    """RepVGG (Ding et al. 2021): four stages of `depth` blocks, with 1, 2, 4 and 8 times `width` channels."""
    from paddleclas.ppcls.arch.backbone.model_zoo.repvgg import RepVGG

    return RepVGG(num_blocks=[depth] * 4, width_multiplier=[width / 64] * 4, class_num=class_num)
