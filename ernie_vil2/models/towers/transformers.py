"""The transformers: the ViT of the released models in any size, ERNIE and BERT from PaddleNLP as text towers."""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.nn import functional as F

from ernie_vil2.config import ImageTowerConfig, TextTowerConfig
from ernie_vil2.device.cpu_kernels import tokens_alone
from ernie_vil2.models.towers.backbones import paddleclas

VIT_SIZES = {
    "ViT-B/16": {"patch_size": 16, "width": 768, "depth": 12, "heads": 12},
    "ViT-L/14": {"patch_size": 14, "width": 1024, "depth": 24, "heads": 16},
}
NAMED_SIZES = {"base": {"width": 768, "depth": 12, "heads": 12}, "large": {"width": 1024, "depth": 24, "heads": 16}}
"""Of ERNIE and BERT, by the last part of the name."""
PAD_ID = 0


def build_vit(config: ImageTowerConfig) -> VisionTransformer:
    """The ViT of a published size or of the sizes given; ValueError if they do not fit each other."""
    paddleclas()
    names = ("patch_size", "width", "depth", "heads")
    sizes = VIT_SIZES.get(config.name) or {name: getattr(config, name) for name in names}
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
                _rescale(layer.weight, (768 / width) ** 0.5)

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


def build_transformer(config: TextTowerConfig, vocab_size: int) -> TextTower:
    """The tower of a published or given size, randomly initialised; ValueError if the heads do not divide the width."""
    family, _, size = config.name.partition("-")
    sizes = NAMED_SIZES[size] if size else {"width": config.width, "depth": config.depth, "heads": config.heads}
    if sizes["width"] % sizes["heads"]:
        raise ValueError(f"Model.text: width ({sizes['width']}) must be divisible by heads ({sizes['heads']})")
    arguments = {
        "vocab_size": vocab_size,
        "hidden_size": sizes["width"],
        "num_hidden_layers": sizes["depth"],
        "num_attention_heads": sizes["heads"],
        "intermediate_size": 4 * sizes["width"],
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "max_position_embeddings": config.max_positions,
    }
    return TextTower(FAMILIES[family](arguments, config.epsilon), config.pooling)


class TextTower(nn.Layer):
    """A PaddleNLP encoder with features for the whole text. Padding (id 0) is masked: it changes no feature.

    Args:
        network: PaddleNLP's encoder.
        pooling: "cls", its own pooled output, tanh of a linear map of the [CLS] state; or "mean", the mean of the
            states of all tokens that are not padding.
    """

    def __init__(self, network: nn.Layer, pooling: str = "cls"):
        super().__init__()
        self.network = network
        self.pooling = pooling
        if pooling == "mean":
            network.pooler = nn.Identity()
        self.width = network.config.hidden_size
        for layer in network.sublayers():
            if isinstance(layer, nn.Linear):
                # The libraries' deviation of 0.02 belongs to width 768: a narrow tower's layers would hardly
                # pass a signal on, and all its texts would look alike.
                _rescale(layer.weight, (768 / self.width) ** 0.5)
            elif isinstance(layer, nn.Embedding) and self.width < 768:
                # The sum of the embeddings is normalised, so that their scale only says how far a step of Adam,
                # whose length is given, turns them. Smaller ones let a small tower learn its words in fewer steps.
                _rescale(layer.weight, 0.25)

    @property
    def blocks(self) -> list[nn.Layer]:
        """The transformer's layers, first to last."""
        return list(self.network.encoder.layers)

    def fuse_attention(self) -> None:
        """Leaves attention to Paddle's kernel of the device, which draws its dropout by itself.

        Without dropout the features are the same to rounding.
        """
        for block in self.blocks:
            block.self_attn.__class__ = _FusedAttention

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:
        _check_length(ids.shape[1], self.network.config.max_position_embeddings)
        tokens = (ids != PAD_ID).astype("float32")  # [B, L]
        with tokens_alone(ids, PAD_ID):
            states, pooled = self.network(ids, attention_mask=tokens)
        if self.pooling == "cls":
            return pooled
        weights = (tokens / tokens.sum(axis=1, keepdim=True)).unsqueeze(1)  # [B, 1, L]
        return weights.astype(states.dtype).matmul(states).squeeze(1)


class _FusedAttention(nn.MultiHeadAttention):
    """Self-attention whose weights nobody asks for."""

    def forward(self, query, key=None, value=None, attn_mask=None, cache=None):
        if cache is not None or self.need_weights:
            return super().forward(query, key, value, attn_mask, cache)
        heads = [0, 0, self.num_heads, self.head_dim]
        q, k, v = (project(query).reshape(heads) for project in (self.q_proj, self.k_proj, self.v_proj))  # [B, L, h, d]
        mask = attn_mask.astype(q.dtype).expand([query.shape[0], 1, query.shape[1], query.shape[1]])
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0, training=self.training
        )
        return self.out_proj(mixed.flatten(start_axis=2))


@paddle.jit.not_to_static  # a traced graph has no length yet
def _check_length(length: int, longest: int) -> None:
    if paddle.in_dynamic_mode() and length > longest:
        raise ValueError(f"texts of {length} tokens, but Model.text.max_positions is {longest}")


def _rescale(parameter: paddle.Tensor, factor: float) -> None:
    """Multiplies an initialised parameter in place; one that `paddle.LazyGuard` has left without values stays so."""
    if parameter._is_initialized():
        parameter.set_value(parameter * factor)


def _ernie(arguments: dict, epsilon: float) -> nn.Layer:
    from paddlenlp.transformers import ErnieConfig, ErnieModel

    model = ErnieModel(ErnieConfig(**arguments, type_vocab_size=0, use_task_id=False))
    for layer in model.sublayers():
        if isinstance(layer, nn.LayerNorm):
            # PaddleNLP's initialiser sets 1e-12 whatever its configuration says.
            layer._epsilon = epsilon
    return model


def _bert(arguments: dict, epsilon: float) -> nn.Layer:
    from paddlenlp.transformers import BertConfig, BertModel

    return BertModel(BertConfig(**arguments))


FAMILIES = {"ernie": _ernie, "bert": _bert}
