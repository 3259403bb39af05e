"""Convolutional towers: RepVGG of any size, which learns from scratch when it is small, CLIP's ResNet, and ConvNeXt."""

from collections.abc import Sequence

import paddle
from paddle import nn
from paddle.nn import functional as F

from ernie_vil2.towers.layers.attention import Attention
from ernie_vil2.towers.layers.blocks import Mlp
from ernie_vil2.towers.layers.suite import CLASSES
from ernie_vil2.towers.layers.transformer import check_size

EXPANSION = 4  # output channels of a bottleneck block per inner channel
REDUCTION = 32  # side in pixels of the square that one cell of the last feature map stands for
LAYER_SCALE = 1e-6  # of a new ConvNeXt (Liu et al. 2022, table 5): its blocks change next to nothing at first


class RepVGG(nn.Layer):
    """RepVGG (Ding et al. 2021): `[B, 3, H, W]` images to `[B, 8 * width]` features.

    Four stages have 1, 2, 4 and 8 times `width` channels. The first convolution and the first block of each stage halve
    height and width. Names and initial values of the parameters are those of PaddleClas's RepVGG.

    Args:
        width: channels of the first stage.
        depth: blocks of each stage.
    """

    def __init__(self, width: int, depth: int):
        super().__init__()
        channels = min(64, width)
        layers: dict[str, nn.Layer] = {"stage0": RepVGGBlock(3, channels, 2)}
        for stage in range(4):
            stage_channels = 2**stage * width
            blocks = [RepVGGBlock(channels, stage_channels, 2)]
            for _ in range(depth - 1):
                blocks.append(RepVGGBlock(stage_channels, stage_channels, 1))
            layers[f"stage{stage + 1}"] = nn.Sequential(*blocks)
            channels = stage_channels
        # PaddleClas draws the weights of a classifier here; later draws must be the same as there.
        nn.Linear(channels, CLASSES)
        layers["linear"] = nn.Identity()
        self.network, self.width = nn.LayerDict(layers), channels

    @property
    def blocks(self) -> list[nn.Layer]:
        """Blocks, first to last."""
        return [layer for layer in self.network.sublayers() if isinstance(layer, RepVGGBlock)]

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        for block in self.blocks:
            images = block(images)
        return F.adaptive_avg_pool2d(images, 1).flatten(1)


class RepVGGBlock(nn.Layer):
    """Sum of a 3x3 convolution, a 1x1 convolution and, if the shape stays, the input; each is batch-normalised."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        keeps_shape = in_channels == out_channels and stride == 1
        self.rbr_identity = nn.BatchNorm2D(in_channels) if keeps_shape else None
        for name, kernel_size in (("rbr_dense", 3), ("rbr_1x1", 1)):
            convolution = nn.Conv2D(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias_attr=False)
            setattr(self, name, nn.LayerDict({"conv": convolution, "bn": nn.BatchNorm2D(out_channels)}))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        dense, point = self.rbr_dense, self.rbr_1x1
        y = dense["bn"](dense["conv"](x)) + point["bn"](point["conv"](x))
        if self.rbr_identity is not None:
            y = y + self.rbr_identity(x)
        return F.relu(y)


class ModifiedResNet(nn.Layer):
    """ResNet of CLIP and Chinese-CLIP (Radford et al. 2021, section 2.4): `[B, 3, S, S]` images to `[B, projection]`.

    Layers have OpenAI's names.

    Args:
        image_size: side of the images in pixels, S.
        width: channels of the first stage.
        layers: blocks of each of the four stages.
        heads: heads of the attention that pools the last feature map.
        projection: width of the features.

    Raises:
        ValueError: the sizes do not fit each other.
    """

    def __init__(self, image_size: int, width: int, layers: Sequence[int], heads: int, projection: int):
        super().__init__()
        # The first convolution rounds a half up and every later halving rounds down, but the number of positions is one
        # division that rounds down. The authors' code fails, too, for sizes where these disagree.
        if (image_size + 1) // REDUCTION != image_size // REDUCTION or image_size < REDUCTION:
            raise ValueError(
                f"image_size ({image_size}) must be at least {REDUCTION} and not one below a multiple of it"
            )
        if REDUCTION * width % heads:
            raise ValueError(f"{REDUCTION} times the width ({width}) must be divisible by heads ({heads})")
        self.image_size, self.width = image_size, projection
        half = width // 2
        self.conv1, self.bn1 = nn.Conv2D(3, half, 3, 2, 1, bias_attr=False), nn.BatchNorm2D(half)
        self.conv2, self.bn2 = nn.Conv2D(half, half, 3, 1, 1, bias_attr=False), nn.BatchNorm2D(half)
        self.conv3, self.bn3 = nn.Conv2D(half, width, 3, 1, 1, bias_attr=False), nn.BatchNorm2D(width)

        channels = width
        for stage, depth in enumerate(layers):
            inner_channels = 2**stage * width
            blocks = [Bottleneck(channels, inner_channels, 1 if stage == 0 else 2)]
            channels = EXPANSION * inner_channels
            for _ in range(depth - 1):
                blocks.append(Bottleneck(channels, inner_channels, 1))
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        num_cells = (image_size // REDUCTION) ** 2
        self.attnpool = MeanAttentionPool(num_cells, channels, heads, self.width)

    @property
    def blocks(self) -> list[nn.Layer]:
        """Bottleneck blocks, first to last."""
        return [layer for layer in self.sublayers() if isinstance(layer, Bottleneck)]

    @paddle.jit.not_to_static  # traced as it is: no control flow depends on a tensor
    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        check_size(images.shape[2], images.shape[3], self.image_size)
        images = F.relu(self.bn1(self.conv1(images)))
        images = F.relu(self.bn2(self.conv2(images)))
        images = F.relu(self.bn3(self.conv3(images)))
        images = F.avg_pool2d(images, 2)
        for block in self.blocks:
            images = block(images)
        return self.attnpool(images.flatten(2).transpose([0, 2, 1]))


class Bottleneck(nn.Layer):
    """Residual block of 1x1, 3x3 and 1x1 convolutions, each batch-normalised; average pooling halves the sides."""

    def __init__(self, in_channels: int, inner_channels: int, stride: int):
        super().__init__()
        self.stride = stride
        inner, out_channels = inner_channels, EXPANSION * inner_channels
        self.conv1, self.bn1 = nn.Conv2D(in_channels, inner, 1, bias_attr=False), nn.BatchNorm2D(inner)
        self.conv2, self.bn2 = nn.Conv2D(inner, inner, 3, padding=1, bias_attr=False), nn.BatchNorm2D(inner)
        self.conv3 = nn.Conv2D(inner, out_channels, 1, bias_attr=False)
        # Zero, so that a block changes nothing at first.
        self.bn3 = nn.BatchNorm2D(out_channels, weight_attr=nn.initializer.Constant(0.0))
        self.downsample = None
        if stride > 1 or in_channels != out_channels:
            convolution = nn.Conv2D(in_channels, out_channels, 1, bias_attr=False)
            self.downsample = nn.LayerDict({"0": convolution, "1": nn.BatchNorm2D(out_channels)})

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self._halve(F.relu(self.bn2(self.conv2(y))))
        y = self.bn3(self.conv3(y))
        if self.downsample is not None:
            x = self.downsample["1"](self.downsample["0"](self._halve(x)))
        return F.relu(x + y)

    def _halve(self, x: paddle.Tensor) -> paddle.Tensor:
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x


class MeanAttentionPool(Attention):
    """Attention pooling, in which the mean of all cells attends to itself and to the cells."""

    def __init__(self, num_cells: int, width: int, heads: int, projection: int):
        super().__init__(heads)
        normal = nn.initializer.Normal(std=width**-0.5)
        self.pos_embed = self.create_parameter([1, 1 + num_cells, width], default_initializer=normal)
        self.q_proj = nn.Linear(width, width, weight_attr=normal)
        self.k_proj = nn.Linear(width, width, weight_attr=normal)
        self.v_proj = nn.Linear(width, width, weight_attr=normal)
        self.c_proj = nn.Linear(width, projection, weight_attr=normal)

    def forward(self, cells: paddle.Tensor) -> paddle.Tensor:
        """Pool cells `[B, C, width]` to `[B, projection]`."""
        tokens = paddle.concat([cells.mean(axis=1, keepdim=True), cells], axis=1) + self.pos_embed
        (query,) = self.split_heads(self.q_proj(tokens[:, :1]))
        (k,) = self.split_heads(self.k_proj(tokens))
        (v,) = self.split_heads(self.v_proj(tokens))
        return self.c_proj(self.attend(query, k, v, None)).squeeze(1)


class ConvNeXt(nn.Layer):
    """ConvNeXt (Liu et al. 2022, arXiv 2201.03545): `[B, 3, S, S]` images to `[B, width of the features]`.

    Four stages have 1, 2, 4 and 8 times `width` channels. Cells of 4 x 4 pixels enter the first stage; each later one
    begins with a convolution that halves height and width. A map of odd sides loses its last row and column there. The
    features are the mean of the last map, through a LayerNorm.

    Args:
        image_size: side of the images in pixels, S.
        width: channels of the first stage.
        layers: blocks of each of the four stages.
        head: width of a linear layer with a GELU after the LayerNorm, which makes an MLP of it and the projection;
            None: no such layer.
        epsilon: epsilon of the LayerNorms.

    Raises:
        ValueError: the images are smaller than one cell of the last map.
    """

    def __init__(self, image_size: int, width: int, layers: Sequence[int], head: int | None, epsilon: float):
        super().__init__()
        if image_size < REDUCTION:
            raise ValueError(f"image_size ({image_size}) must be at least {REDUCTION}")
        self.image_size = image_size
        self.patch_embed = nn.LayerDict({"proj": nn.Conv2D(3, width, 4, 4), "norm": nn.LayerNorm(width, epsilon)})
        channels = width
        for stage, depth in enumerate(layers, 1):
            if stage > 1:
                downsample = {"norm": nn.LayerNorm(channels, epsilon), "proj": nn.Conv2D(channels, 2 * channels, 2, 2)}
                setattr(self, f"downsample{stage}", nn.LayerDict(downsample))
                channels *= 2
            blocks = [ConvNeXtBlock(channels, epsilon) for _ in range(depth)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.norm = nn.LayerNorm(channels, epsilon)
        self.head = nn.Linear(channels, head) if head else None
        self.width = head or channels

        normal = nn.initializer.TruncatedNormal(std=0.02)
        for layer in self.sublayers():
            if isinstance(layer, nn.Conv2D | nn.Linear):
                normal(layer.weight)

    @property
    def blocks(self) -> list[nn.Layer]:
        """Blocks, first to last."""
        return [layer for layer in self.sublayers() if isinstance(layer, ConvNeXtBlock)]

    @paddle.jit.not_to_static  # traced as it is: no control flow depends on a tensor
    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        check_size(images.shape[2], images.shape[3], self.image_size)
        embed = self.patch_embed
        maps = _norm_channels(embed["proj"](images), embed["norm"])
        for stage in (1, 2, 3, 4):
            if stage > 1:
                downsample = getattr(self, f"downsample{stage}")
                maps = downsample["proj"](_norm_channels(maps, downsample["norm"]))
            maps = getattr(self, f"layer{stage}")(maps)
        features = self.norm(maps.mean(axis=[2, 3]))
        return features if self.head is None else F.gelu(self.head(features))


class ConvNeXtBlock(nn.Layer):
    """Residual block: a 7 x 7 convolution of each channel, then a LayerNorm and an MLP of each cell."""

    def __init__(self, channels: int, epsilon: float):
        super().__init__()
        self.conv_dw = nn.Conv2D(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, epsilon)
        self.mlp = Mlp(channels, 4 * channels, "gelu")
        self.gamma = self.create_parameter([channels], default_initializer=nn.initializer.Constant(LAYER_SCALE))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        cells = self.conv_dw(x).transpose([0, 2, 3, 1])  # [B, H, W, C]
        cells = self.gamma * self.mlp(self.norm(cells))
        return x + cells.transpose([0, 3, 1, 2])


def _norm_channels(maps: paddle.Tensor, norm: nn.Layer) -> paddle.Tensor:
    """Apply a LayerNorm to the channels of each cell of maps `[B, C, H, W]`."""
    return norm(maps.transpose([0, 2, 3, 1])).transpose([0, 3, 1, 2])
