"""Image towers from PaddleClas: `[B, 3, H, W]` images to `[B, width]` features."""

from __future__ import annotations

import difflib
import inspect
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import paddle
from paddle import nn
from paddle.utils import unique_name

from ernie_vil2.config.schema import ImageTowerConfig
from ernie_vil2.models.rescale import rescale

VIT_SIZES = {
    "ViT-B/16": {"patch_size": 16, "width": 768, "depth": 12, "heads": 12},
    "ViT-L/14": {"patch_size": 14, "width": 1024, "depth": 24, "heads": 16},
}
_CLASSES = 1237
"""Output width by which a backbone's classifier is recognised: no backbone has a layer of this width itself."""


def build_image_tower(config: ImageTowerConfig) -> nn.Layer:
    """The tower that `config` names, randomly initialised, with its output width as attribute `width`.

    Raises:
        ValueError: PaddleClas has no backbone of this name, or none whose classifier can be told from the rest;
            or a ViT's sizes do not fit each other.
    """
    backbones = _paddleclas()
    if config.name == "ViT":
        return VisionTransformer(
            config.image_size, config.patch_size, config.width, config.depth, config.heads, config.drop_path
        )
    if config.name in VIT_SIZES:
        return VisionTransformer(config.image_size, **VIT_SIZES[config.name], drop_path=config.drop_path)
    if config.name == "EfficientNetL2":
        return Backbone(config.name, _efficientnet_l2, config.image_size)
    if config.name == "RepVGG":
        return Backbone(config.name, partial(_repvgg, config.width, config.depth), config.image_size)
    builders = {name: value for name, value in vars(backbones).items() if inspect.isfunction(value)}
    del builders["get_apis"]
    if config.name not in builders:
        known = ["ViT", *VIT_SIZES, "RepVGG", "EfficientNetL2", *builders]
        near = difflib.get_close_matches(config.name, known) or ["ViT-B/16", "EfficientNetB0", "ResNet50"]
        raise ValueError(f"no image tower is called {config.name!r}; near names: {', '.join(near)}")
    return Backbone(config.name, builders[config.name], config.image_size)


class VisionTransformer(nn.Layer):
    """The released models' ViT: pre-norm blocks with QuickGELU after a LayerNorm of the embedded tokens.

    The features are the class token of the last layer, normalised. The parts are PaddleClas's; its own forward
    is not used, because it reads module globals that the last constructed model of its family has set.

    Args:
        image_size: side of the square input in pixels.
        patch_size: side of a patch in pixels; it divides the image size.
        width: of the tokens.
        depth: number of blocks.
        heads: attention heads; they divide the width.
        drop_path: stochastic depth of the last block, growing linearly from 0 in the first.
    """

    def __init__(self, image_size: int, patch_size: int, width: int, depth: int, heads: int, drop_path: float = 0.0):
        from paddleclas.ppcls.arch.backbone.model_zoo import foundation_vit

        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"image_size ({image_size}) must be divisible by patch_size ({patch_size})")
        if width % heads:
            raise ValueError(f"width ({width}) must be divisible by heads ({heads})")
        parts = foundation_vit.VisionTransformer(
            "CLIP_vit_large_patch14_224",  # of the family, the variant with class token and ln_pre
            img_size=image_size,
            patch_size=patch_size,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            qkv_bias=True,
            drop_path_rate=drop_path,
            return_embed=True,
            head_init_scale=1,
        )
        self.width = width
        self.image_size = image_size
        self.patch_embed = parts.patch_embed
        self.cls_token = parts.cls_token  # [1, 1, width]
        self.pos_embed = parts.pos_embed  # [1, 1 + patches, width]
        self.ln_pre = parts.ln_pre
        self.blocks = parts.blocks
        self.norm = parts.norm
        for block in self.blocks:
            block.mlp.act = foundation_vit.QuickGELU()
        for layer in self.sublayers():
            if isinstance(layer, nn.LayerNorm):
                layer._epsilon = 1e-6
            elif isinstance(layer, nn.Linear):
                # PaddleClas draws with deviation 0.02, which belongs to width 768: a narrow tower's blocks
                # would hardly pass a signal on to the class token.
                rescale(layer.weight, (768 / width) ** 0.5)

    def fuse_attention(self) -> None:
        """Leaves attention to Paddle's kernel of the device, which on GPUs never holds the `P x P` weights.

        The features are the same to rounding. The layers have no dropout, which such a kernel would draw by itself.
        """
        for block in self.blocks:
            block.attn.use_fused_attn = True

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        height, width = images.shape[2:]
        if (height, width) != (self.image_size, self.image_size):
            raise ValueError(
                f"images of {height} x {width} pixels; this tower takes {self.image_size} x {self.image_size}"
            )
        patches, _ = self.patch_embed(images)  # [B, P, width]
        tokens = paddle.concat([self.cls_token.expand([images.shape[0], -1, -1]), patches], axis=1)
        tokens = self.ln_pre(tokens + self.pos_embed)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])


class Backbone(nn.Layer):
    """A PaddleClas backbone without its classifier: what the classifier saw are the features.

    Args:
        name: for error messages.
        build: PaddleClas's constructor.
        image_size: side of the square input in pixels, for constructors that ask for it.

    Raises:
        ValueError: the network does not end in exactly one linear classifier.
    """

    def __init__(self, name: str, build: Callable[..., nn.Layer], image_size: int):
        super().__init__()
        self.network = _construct(name, build, image_size)
        _settle(self.network)
        classifiers = [
            (parent, child, layer)
            for parent in self.network.sublayers(include_self=True)
            for child, layer in parent.named_children()
            if isinstance(layer, nn.Linear) and layer.weight.shape[1] == _CLASSES
        ]
        if len(classifiers) != 1:
            raise ValueError(
                f"image tower {name!r}: expected one linear classifier to remove, found {len(classifiers)}; "
                "choose another backbone"
            )
        parent, child, layer = classifiers[0]
        setattr(parent, child, nn.Identity())
        self.width = layer.weight.shape[0]
        if not paddle.is_compiled_with_cuda():
            for sublayer in self.network.sublayers():
                if PatchConv2D.fits(sublayer):
                    sublayer.__class__ = PatchConv2D

    @property
    def blocks(self) -> list[nn.Layer]:
        """The parts that the network repeats: outermost layers made of others, of a class that occurs again."""
        classes = Counter(type(layer) for layer in self.network.sublayers())

        def outermost(layer: nn.Layer) -> Iterator[nn.Layer]:
            for part in layer.children():
                if not list(part.children()):
                    continue
                if classes[type(part)] > 1 and not isinstance(part, nn.Sequential | nn.LayerList):
                    yield part
                else:
                    yield from outermost(part)

        return list(outermost(self.network))

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        return self.network(images).flatten(1)


class PatchConv2D(nn.Conv2D):
    """A convolution of patches that do not overlap (1x1 among them) as one matrix product over all images.

    Paddle's CPU kernel multiplies image by image; on the small maps of small images the calls cost more than the sums.
    """

    @staticmethod
    def fits(layer: nn.Layer) -> bool:
        """Whether a layer is such a convolution and nothing more special."""
        return (
            type(layer) is nn.Conv2D
            and list(layer.weight.shape[2:]) == list(layer._stride)
            and layer._groups == 1
            and layer._padding == 0
            and layer._data_format == "NCHW"
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        (images, channels, height, width), (down, across) = x.shape, self._stride
        rows, columns = height // down, width // across
        patches = x[:, :, : rows * down, : columns * across]
        patches = patches.reshape([images, channels, rows, down, columns, across]).transpose([1, 3, 5, 0, 2, 4])
        y = paddle.matmul(
            self.weight.reshape([self._out_channels, -1]), patches.reshape([channels * down * across, -1])
        )
        y = y.reshape([-1, images, rows, columns]).transpose([1, 0, 2, 3])
        return y if self.bias is None else y + self.bias.reshape([1, -1, 1, 1])


def _construct(name: str, build: Callable[..., nn.Layer], image_size: int) -> nn.Layer:
    # The constructors pass their arguments on, so only a call tells which of them takes an image size.
    # Some default to downloaded weights.
    arguments = {"class_num": _CLASSES, "pretrained": False}
    for extra in ({"img_size": image_size}, {}):
        try:
            # Many give their parameters fixed names, which Paddle refuses a second time in its namespace.
            with unique_name.guard():
                network = build(**arguments, **extra)
        except (TypeError, KeyError) as error:
            refusal = error
        else:
            for parameter in network.parameters():
                parameter.name = unique_name.generate("image_tower")
            return network
    raise ValueError(f"image tower {name!r} cannot be built without its classifier: {refusal}")


def _settle(network: nn.Layer) -> None:
    """Rids a network of parameters that its forward leaves out, which break data parallel, and of globals."""
    for layer in network.sublayers():
        if hasattr(layer, "dw_conv_list"):  # PP-LCNetV2: the sum of this list, fused for deployment
            for parameter in layer.dw_conv.parameters():
                parameter.stop_gradient = True
    module = sys.modules[type(network).__module__]
    if hasattr(module, "_model_size"):  # foundation_vit: see VisionTransformer
        network.proj = None
        own = {name: getattr(module, name) for name in ("_model_size", "_model_diff")}
        network.register_forward_pre_hook(lambda layer, inputs: vars(module).update(own))


def _efficientnet_l2(class_num: int, pretrained: bool) -> nn.Layer:
    """EfficientNet-L2: width 4.3, depth 5.3, dropout 0.5 (Noisy Student, Xie et al. 2020)."""
    from paddleclas.ppcls.arch.backbone.model_zoo.efficientnet import EfficientNet, efficientnet

    blocks, sizes = efficientnet(width_coefficient=4.3, depth_coefficient=5.3, dropout_rate=0.5)
    # SAME padding is tabulated for B0 to B7 only; DYNAMIC follows from the kernel and serves every image size.
    return EfficientNet(blocks, sizes, padding_type="DYNAMIC", class_num=class_num)


def _repvgg(width: int, depth: int, class_num: int, pretrained: bool) -> nn.Layer:
    """RepVGG (Ding et al. 2021): four stages of `depth` blocks, with 1, 2, 4 and 8 times `width` channels."""
    from paddleclas.ppcls.arch.backbone.model_zoo.repvgg import RepVGG

    return RepVGG(num_blocks=[depth] * 4, width_multiplier=[width / 64] * 4, class_num=class_num)


def _paddleclas():
    """PaddleClas's module of backbones, imported and used without its chatter."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)
    from paddleclas.ppcls.arch import backbone

    # Its import sets the level; the warnings are about its own deprecated calls.
    logging.getLogger("ppcls").setLevel(logging.ERROR)
    return backbone
