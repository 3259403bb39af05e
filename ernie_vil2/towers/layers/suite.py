"""Towers that PaddleClas and PaddleNLP build: `paddleclas:NAME` any backbone, `paddlenlp:NAME` ERNIE and BERT."""

import inspect
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import paddle
from paddle import nn
from paddle.nn import functional as F
from paddle.utils import unique_name

from ernie_vil2.device.cpu_kernels import tokens_alone
from ernie_vil2.device.extras import installed, missing
from ernie_vil2.towers.base import TextTowerConfig
from ernie_vil2.towers.layers.transformer import PAD_ID, check_length, check_size, cut_to_patches

CLASSES = 1237
"""Output width by which a backbone's classifier is recognised: no backbone has a layer of this width itself."""


def imported(module: str, task: str) -> ModuleType:
    """A module of PaddleClas or PaddleNLP; MissingPackage, with `task` as its subject, if it cannot be imported."""
    try:
        return import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise missing(library, f"{task} ({error})" if installed(library) else task) from error


def paddleclas(task: str) -> ModuleType:
    """PaddleClas's module of backbones, imported and used without its chatter; see `imported`."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)
    backbone = imported("paddleclas.ppcls.arch.backbone", task)
    # Its import sets the level; the warnings are about its own deprecated calls.
    logging.getLogger("ppcls").setLevel(logging.ERROR)
    return backbone


def backbone_builders(task: str) -> dict[str, Callable[..., nn.Layer]]:
    """Return what builds the backbones that PaddleClas has, by name, and EfficientNetL2; see `imported`."""
    builders = {name: value for name, value in vars(paddleclas(task)).items() if inspect.isfunction(value)}
    del builders["get_apis"]
    return builders | {"EfficientNetL2": _efficientnet_l2}


def build_repvgg(width: int, depth: int, image_size: int) -> nn.Layer:
    """Return PaddleClas's RepVGG of any size; MissingPackage if PaddleClas cannot be imported."""
    paddleclas("the image tower paddleclas:RepVGG")
    return Backbone("RepVGG", partial(_repvgg, width, depth), image_size)


class Backbone(nn.Layer):
    """A PaddleClas backbone, which its constructor builds, without its classifier: what that saw are the features.
    ValueError if it does not end in exactly one linear classifier."""

    def __init__(self, name: str, build: Callable[..., nn.Layer], image_size: int):
        super().__init__()
        self.network = _construct(name, build, image_size)
        _settle(self.network)
        classifiers = [
            (parent, child, layer)
            for parent in self.network.sublayers(include_self=True)
            for child, layer in parent.named_children()
            if isinstance(layer, nn.Linear) and layer.weight.shape[1] == CLASSES
        ]
        if len(classifiers) != 1:
            raise ValueError(
                f"image tower {name!r}: expected one linear classifier to remove, found {len(classifiers)}; "
                "choose another backbone"
            )
        parent, child, layer = classifiers[0]
        setattr(parent, child, nn.Identity())
        self.width = layer.weight.shape[0]

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


def _construct(name: str, build: Callable[..., nn.Layer], image_size: int) -> nn.Layer:
    # The constructors pass their arguments on, so only a call shows which of them takes an image size.
    # Some default to downloaded weights.
    arguments = {"class_num": CLASSES, "pretrained": False}
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
    if hasattr(module, "_model_size"):  # foundation_vit: see SuiteVit
        network.proj = None
        own = {name: getattr(module, name) for name in ("_model_size", "_model_diff")}

        def restore(layer: nn.Layer, inputs: Any) -> Any:
            vars(module).update(own)

        network.register_forward_pre_hook(restore)


def _efficientnet_l2(class_num: int, pretrained: bool) -> nn.Layer:
    """EfficientNet-L2, which PaddleClas lacks: width 4.3, depth 5.3, dropout 0.5 (Noisy Student, Xie et al. 2020)."""
    from paddleclas.ppcls.arch.backbone.model_zoo.efficientnet import EfficientNet, efficientnet

    blocks, sizes = efficientnet(width_coefficient=4.3, depth_coefficient=5.3, dropout_rate=0.5)
    # SAME padding is tabulated for B0 to B7 only; DYNAMIC follows from the kernel and serves every image size.
    return EfficientNet(blocks, sizes, padding_type="DYNAMIC", class_num=class_num)


def _repvgg(width: int, depth: int, class_num: int, pretrained: bool) -> nn.Layer:
    from paddleclas.ppcls.arch.backbone.model_zoo.repvgg import RepVGG

    return RepVGG(num_blocks=[depth] * 4, width_multiplier=[width / 64] * 4, class_num=class_num)


class SuiteVit(nn.Layer):
    """`transformer.VisionTransformer` of PaddleClas's parts.

    Its own forward is not used, because it reads module globals that the last constructed model of its family has set.
    """

    def __init__(self, image_size: int, patch_size: int, width: int, depth: int, heads: int, drop_path: float = 0.0):
        from paddleclas.ppcls.arch.backbone.model_zoo import foundation_vit

        super().__init__()
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
        self.width, self.image_size, self.patch_size = width, image_size, patch_size
        self.patch_embed = parts.patch_embed
        self.cls_token = parts.cls_token  # [1, 1, width]
        self.pos_embed = parts.pos_embed  # [1, 1 + patches, width]
        self.ln_pre, self.blocks, self.norm = parts.ln_pre, parts.blocks, parts.norm
        for block in self.blocks:
            block.mlp.act = foundation_vit.QuickGELU()
        for layer in self.sublayers():
            if isinstance(layer, nn.LayerNorm):
                layer._epsilon = 1e-6
            elif isinstance(layer, nn.Linear):
                _rescale(layer.weight, (768 / width) ** 0.5)

    def fuse_attention(self, fused: bool = True) -> None:
        """As `VisionTransformer.fuse_attention`."""
        for block in self.blocks:
            block.attn.use_fused_attn = fused

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        check_size(images.shape[2], images.shape[3], self.image_size)
        # PaddleClas would pad what is left of an image to another patch, for which there is no position.
        patches, _ = self.patch_embed(cut_to_patches(images, self.image_size, self.patch_size))  # [B, P, width]
        tokens = paddle.concat([self.cls_token.expand([images.shape[0], -1, -1]), patches], axis=1)
        tokens = self.ln_pre(tokens + self.pos_embed)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])


class SuiteText(nn.Layer):
    """`transformer.TextTransformer` around an encoder of PaddleNLP, of which pooling "cls" is its own pooled output."""

    def __init__(self, network: nn.Layer, pooling: str):
        super().__init__()
        self.network, self.pooling = network, pooling
        if pooling == "mean":
            network.pooler = nn.Identity()
        self.width = network.config.hidden_size
        for layer in network.sublayers():  # see TextTransformer
            if isinstance(layer, nn.Linear):
                _rescale(layer.weight, (768 / self.width) ** 0.5)
            elif isinstance(layer, nn.Embedding) and self.width < 768:
                _rescale(layer.weight, 0.25)

    @property
    def blocks(self) -> list[nn.Layer]:
        """The transformer's layers, first to last."""
        return list(self.network.encoder.layers)

    def fuse_attention(self, fused: bool = True) -> None:
        """As `TextTransformer.fuse_attention`."""
        for block in self.blocks:
            block.self_attn.__class__ = _FusedAttention if fused else nn.MultiHeadAttention

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:
        check_length(ids.shape[1], self.network.config.max_position_embeddings)
        tokens = (ids != PAD_ID).astype("float32")  # [B, L]
        with tokens_alone(ids, PAD_ID):
            states, pooled = self.network(ids, attention_mask=tokens)
        if self.pooling == "cls":
            return pooled
        weights = (tokens / tokens.sum(axis=1, keepdim=True)).unsqueeze(1)  # [B, 1, L]
        return weights.astype(states.dtype).matmul(states).squeeze(1)


class _FusedAttention(nn.MultiHeadAttention):
    """Self-attention whose weights nobody asks for."""

    def forward(self, query: Any, key: Any = None, value: Any = None, attn_mask: Any = None, cache: Any = None) -> Any:
        if cache is not None or self.need_weights:
            return super().forward(query, key, value, attn_mask, cache)
        heads = [0, 0, self.num_heads, self.head_dim]
        q, k, v = (project(query).reshape(heads) for project in (self.q_proj, self.k_proj, self.v_proj))  # [B, L, h, d]
        mask = attn_mask.astype(q.dtype).expand([query.shape[0], 1, query.shape[1], query.shape[1]])
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0, training=self.training
        )
        return self.out_proj(mixed.flatten(start_axis=2))


def build_encoder(config: TextTowerConfig, vocab_size: int) -> SuiteText:
    """ERNIE or BERT of a published or given size; MissingPackage if PaddleNLP is not installed."""
    library = imported("paddlenlp.transformers", f"the text tower {config.name}")
    sizes = config.sizes
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
    if config.family == "bert":
        return SuiteText(library.BertModel(library.BertConfig(**arguments)), config.pooling)
    model = library.ErnieModel(library.ErnieConfig(**arguments, type_vocab_size=0, use_task_id=False))
    for layer in model.sublayers():
        if isinstance(layer, nn.LayerNorm):
            # PaddleNLP's initialiser sets 1e-12 whatever its configuration says.
            layer._epsilon = config.epsilon
    return SuiteText(model, config.pooling)


def _rescale(parameter: paddle.Tensor, factor: float) -> None:
    """Multiplies an initialised parameter in place; one that `paddle.LazyGuard` has left without values stays so."""
    if parameter._is_initialized():
        parameter.set_value(parameter * factor)
