"""The ViT of the released models, in any size."""

from __future__ import annotations

import paddle
from paddle import nn

from ernie_vil2.config.schema import ImageTowerConfig
from ernie_vil2.models.rescale import rescale
from ernie_vil2.models.towers.backbones import paddleclas

SIZES = {
    "ViT-B/16": {"patch_size": 16, "width": 768, "depth": 12, "heads": 12},
    "ViT-L/14": {"patch_size": 14, "width": 1024, "depth": 24, "heads": 16},
}


def build_vit(config: ImageTowerConfig) -> VisionTransformer:
    """The ViT of a published size or of the sizes given; ValueError if they do not fit each other."""
    paddleclas()
    names = ("patch_size", "width", "depth", "heads")
    sizes = SIZES.get(config.name) or {name: getattr(config, name) for name in names}
    return VisionTransformer(config.image_size, **sizes, drop_path=config.drop_path)


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
        _check_size(images.shape[2], images.shape[3], self.image_size)
        patches, _ = self.patch_embed(images)  # [B, P, width]
        tokens = paddle.concat([self.cls_token.expand([images.shape[0], -1, -1]), patches], axis=1)
        tokens = self.ln_pre(tokens + self.pos_embed)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])


@paddle.jit.not_to_static  # with the error in it, tracing takes the batch of the moment for that of all
def _check_size(height: int, width: int, side: int) -> None:
    if (height, width) != (side, side):
        raise ValueError(f"images of {height} x {width} pixels; this tower takes {side} x {side}")
