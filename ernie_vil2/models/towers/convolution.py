"""RepVGG in any size: small convolutional towers that learn from scratch."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.nn import functional as F

from ernie_vil2.config import ImageTowerConfig
from ernie_vil2.models.towers.suite import CLASSES


def build_repvgg(config: ImageTowerConfig) -> RepVGG:
    """The tower of the given width and depth."""
    return RepVGG(**config.sizes)


class RepVGG(nn.Layer):
    """`[B, 3, H, W]` to `[B, 8 * width]` (Ding et al. 2021): four stages with 1, 2, 4 and 8 times `width` channels.

    The names of its parameters, and the draws of their first values, are those of PaddleClas's.

    Args:
        width: channels of the first convolution and of the first stage.
        depth: blocks of each stage; the first of them halves height and width, as the first convolution does.
    """

    def __init__(self, width: int, depth: int):
        super().__init__()
        before = min(64, width)
        stages: dict[str, nn.Layer] = {"stage0": RepVGGBlock(3, before, 2)}
        for stage in range(4):
            after = 2**stage * width
            sizes = [(before, after, 2), *[(after, after, 1)] * (depth - 1)]
            stages[f"stage{stage + 1}"] = nn.Sequential(*(RepVGGBlock(*size) for size in sizes))
            before = after
        nn.Linear(before, CLASSES)  # the classifier, of which PaddleClas draws the weights, too
        self.network, self.width = nn.LayerDict({**stages, "linear": nn.Identity()}), before

    @property
    def blocks(self) -> list[nn.Layer]:
        """First to last."""
        return [layer for layer in self.network.sublayers() if isinstance(layer, RepVGGBlock)]

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        for block in self.blocks:
            images = block(images)
        return F.adaptive_avg_pool2d(images, 1).flatten(1)


class RepVGGBlock(nn.Layer):
    """A 3x3 convolution, a 1x1 one and, where the shape stays, the input, each normalised over the batch; their sum."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        same = before == after and stride == 1
        self.rbr_identity = nn.BatchNorm2D(before) if same else None
        for name, size in (("rbr_dense", 3), ("rbr_1x1", 1)):
            convolution = nn.Conv2D(before, after, size, stride, size // 2, bias_attr=False)
            setattr(self, name, nn.LayerDict({"conv": convolution, "bn": nn.BatchNorm2D(after)}))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        dense, point = self.rbr_dense, self.rbr_1x1
        y = dense["bn"](dense["conv"](x)) + point["bn"](point["conv"](x))
        return F.relu(y if self.rbr_identity is None else y + self.rbr_identity(x))
