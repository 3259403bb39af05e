"""Convolutional towers: RepVGG in any size, which learns from scratch when it is small, and CLIP's ResNet."""

from collections.abc import Sequence

import paddle
from paddle import nn
from paddle.nn import functional as F

from ernie_vil2.towers.layers.suite import CLASSES
from ernie_vil2.towers.layers.transformer import Attention, check_size

EXPANSION = 4  # channels after a block, per channel in it
REDUCTION = 32  # pixels of the image per side of a cell that is pooled


class RepVGG(nn.Layer):
    """`[B, 3, H, W]` to `[B, 8 * width]` (Ding et al. 2021): four stages with 1, 2, 4 and 8 times `width` channels.

    The first convolution, and the first block of each stage, halves height and width. The names of its parameters, and
    the draws of their first values, are those of PaddleClas's.
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


class ModifiedResNet(nn.Layer):
    """`[B, 3, S, S]` images to `[B, projection]` (Radford et al. 2021, section 2.4): the RN50 of CLIP and Chinese-CLIP.

    Its layers have OpenAI's names. ValueError for sizes that do not divide each other.
    """

    def __init__(self, image_size: int, width: int, layers: Sequence[int], heads: int, projection: int):
        super().__init__()
        # The first convolution rounds a half up and every later halving rounds down, while the positions are counted by
        # one division that rounds down. The authors' code fails, too, where these disagree.
        if (image_size + 1) // REDUCTION != image_size // REDUCTION or image_size < REDUCTION:
            raise ValueError(
                f"image_size ({image_size}) must be at least {REDUCTION} and not one below a multiple of it"
            )
        if REDUCTION * width % heads:
            raise ValueError(f"{REDUCTION} times the width ({width}) must be divisible by heads ({heads})")
        self.image_size, self.width = image_size, projection
        for number, (before, after) in enumerate(((3, width // 2), (width // 2, width // 2), (width // 2, width)), 1):
            stride = 2 if number == 1 else 1
            setattr(self, f"conv{number}", nn.Conv2D(before, after, 3, stride, 1, bias_attr=False))
            setattr(self, f"bn{number}", nn.BatchNorm2D(after))
        before = width
        for stage, depth in enumerate(layers):
            inner, first = 2**stage * width, 1 if stage == 0 else 2
            blocks = [Bottleneck(before, inner, first)]
            before = EXPANSION * inner
            blocks += [Bottleneck(before, inner, 1) for _ in range(depth - 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.attnpool = MeanAttentionPool((image_size // REDUCTION) ** 2, before, heads, self.width)

    @property
    def blocks(self) -> list[nn.Layer]:
        """First to last."""
        return [layer for layer in self.sublayers() if isinstance(layer, Bottleneck)]

    @paddle.jit.not_to_static  # traced as it is: no control flow depends on a tensor
    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        check_size(images.shape[2], images.shape[3], self.image_size)
        for number in (1, 2, 3):
            images = F.relu(getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(images)))
        images = F.avg_pool2d(images, 2)
        for block in self.blocks:
            images = block(images)
        return self.attnpool(images.flatten(2).transpose([0, 2, 1]))


class Bottleneck(nn.Layer):
    """Convolutions of 1, 3 and 1 pixels, each normalised over the batch, and the input; averages halve the sides."""

    def __init__(self, before: int, inner: int, stride: int):
        super().__init__()
        after, self.stride = EXPANSION * inner, stride
        self.conv1, self.bn1 = nn.Conv2D(before, inner, 1, bias_attr=False), nn.BatchNorm2D(inner)
        self.conv2, self.bn2 = nn.Conv2D(inner, inner, 3, padding=1, bias_attr=False), nn.BatchNorm2D(inner)
        self.conv3 = nn.Conv2D(inner, after, 1, bias_attr=False)
        self.bn3 = nn.BatchNorm2D(after, weight_attr=nn.initializer.Constant(0.0))  # at first a block changes nothing
        self.downsample = None
        if stride > 1 or before != after:
            convolution = nn.Conv2D(before, after, 1, bias_attr=False)
            self.downsample = nn.LayerDict({"0": convolution, "1": nn.BatchNorm2D(after)})

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self._smaller(F.relu(self.bn2(self.conv2(y))))
        y = self.bn3(self.conv3(y))
        if self.downsample is not None:
            x = self.downsample["1"](self.downsample["0"](self._smaller(x)))
        return F.relu(x + y)

    def _smaller(self, x: paddle.Tensor) -> paddle.Tensor:
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x


class MeanAttentionPool(Attention):
    """The mean of all cells attends to itself and to them."""

    def __init__(self, cells: int, width: int, heads: int, projection: int):
        super().__init__(heads)
        normal = nn.initializer.Normal(std=width**-0.5)
        self.pos_embed = self.create_parameter([1, 1 + cells, width], default_initializer=normal)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width, weight_attr=normal) for _ in range(3))
        self.c_proj = nn.Linear(width, projection, weight_attr=normal)

    def forward(self, cells: paddle.Tensor) -> paddle.Tensor:
        """`[B, cells, width]` to `[B, projection]`."""
        tokens = paddle.concat([cells.mean(axis=1, keepdim=True), cells], axis=1) + self.pos_embed
        layers = (self.q_proj, tokens[:, :1]), (self.k_proj, tokens), (self.v_proj, tokens)
        q, k, v = (self.by_head(layer(x))[0] for layer, x in layers)
        return self.c_proj(self.attend(q, k, v, None)).squeeze(1)
