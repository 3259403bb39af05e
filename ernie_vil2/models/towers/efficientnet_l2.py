"""EfficientNet-L2, which PaddleClas lacks, of its parts."""

from __future__ import annotations

from paddle import nn

from ernie_vil2.config import ImageTowerConfig
from ernie_vil2.models.towers.backbones import Backbone, paddleclas


def build_efficientnet_l2(config: ImageTowerConfig) -> Backbone:
    """The tower for images of the given size."""
    paddleclas()
    return Backbone(config.name, _network, config.image_size)


def _network(class_num: int, pretrained: bool) -> nn.Layer:
    """EfficientNet-L2: width 4.3, depth 5.3, dropout 0.5 (Noisy Student, Xie et al. 2020)."""
    from paddleclas.ppcls.arch.backbone.model_zoo.efficientnet import EfficientNet, efficientnet

    blocks, sizes = efficientnet(width_coefficient=4.3, depth_coefficient=5.3, dropout_rate=0.5)
    # SAME padding is tabulated for B0 to B7 only; DYNAMIC follows from the kernel and serves every image size.
    return EfficientNet(blocks, sizes, padding_type="DYNAMIC", class_num=class_num)
