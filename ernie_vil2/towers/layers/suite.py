"""Towers that Paddle's suites build: any backbone of PaddleClas (`paddleclas:NAME`), ERNIE and BERT of PaddleNLP."""

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

from ernie_vil2.device.extras import is_installed, missing_package_error
from ernie_vil2.device.token_packing import skip_padding
from ernie_vil2.io.terminal import make_printable
from ernie_vil2.towers.base import TextTowerConfig
from ernie_vil2.towers.layers.kept_tokens import draw_kept_tokens, gather_tokens
from ernie_vil2.towers.layers.transformer import PAD_ID, align_length, check_length, check_size, cut_to_patches

# Output width by which the classifier of a backbone is recognised: no backbone has another layer of this width.
CLASSES = 1237


def import_suite(module: str, feature: str) -> ModuleType:
    """Import a module of PaddleClas or PaddleNLP.

    Args:
        module: full name of the module.
        feature: what needs the module, such as a setting; the subject of the error.

    Raises:
        MissingPackage: the module cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        if is_installed(library):
            feature = f"{feature} ({error})"  # the library is there, but a package that it imports is missing
        raise missing_package_error(library, feature) from error


def import_paddleclas(feature: str) -> ModuleType:
    """Import PaddleClas's module of backbones and silence its log; arguments and errors as for `import_suite`."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)
    backbone = import_suite("paddleclas.ppcls.arch.backbone", feature)
    # After the import, which sets the level. The warnings are about its own deprecated calls.
    logging.getLogger("ppcls").setLevel(logging.ERROR)
    return backbone


def backbone_builders(feature: str) -> dict[str, Callable[..., nn.Layer]]:
    """Return the functions that build PaddleClas's backbones and EfficientNetL2, by name; errors as `import_suite`."""
    members = vars(import_paddleclas(feature))
    builders: dict[str, Callable[..., nn.Layer]] = {}
    for name, member in members.items():
        if inspect.isfunction(member):
            builders[name] = member
    del builders["get_apis"]  # its only function that builds no backbone
    builders["EfficientNetL2"] = _build_efficientnet_l2
    return builders


def build_repvgg(width: int, depth: int, image_size: int) -> nn.Layer:
    """Return PaddleClas's RepVGG of any size; MissingPackage if PaddleClas cannot be imported."""
    import_paddleclas("the image tower paddleclas:RepVGG")
    return Backbone("RepVGG", partial(_build_repvgg, width, depth), image_size)


class Backbone(nn.Layer):
    """Backbone of PaddleClas without its classifier; the features are what the classifier would take as input.

    Args:
        name: name of the backbone, for errors.
        build: function that builds it.
        image_size: side of the images in pixels.

    Raises:
        ValueError: the backbone does not have exactly one linear classifier.
    """

    def __init__(self, name: str, build: Callable[..., nn.Layer], image_size: int):
        super().__init__()
        self.backbone_name = name
        self.network = _construct(name, build, image_size)
        _prepare_for_training(self.network)
        classifiers = []
        for parent in self.network.sublayers(include_self=True):
            for child_name, layer in parent.named_children():
                if isinstance(layer, nn.Linear) and layer.weight.shape[1] == CLASSES:
                    classifiers.append((parent, child_name, layer))
        if len(classifiers) != 1:
            raise ValueError(
                f"image tower {name!r}: expected one linear classifier to remove, found {len(classifiers)}; "
                "choose another backbone"
            )
        parent, child_name, layer = classifiers[0]
        setattr(parent, child_name, nn.Identity())
        self.width = layer.weight.shape[0]

    @property
    def blocks(self) -> list[nn.Layer]:
        """Blocks that the network repeats: outermost layers made of others, whose class occurs more than once."""
        class_counts = Counter(type(layer) for layer in self.network.sublayers())

        def find_outermost(layer: nn.Layer) -> Iterator[nn.Layer]:
            for child in layer.children():
                if not list(child.children()):
                    continue
                if class_counts[type(child)] > 1 and not isinstance(child, nn.Sequential | nn.LayerList):
                    yield child
                else:
                    yield from find_outermost(child)

        return list(find_outermost(self.network))

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        try:
            return self.network(images).flatten(1)
        except (ValueError, AssertionError) as error:  # Paddle's and the backbone's own, for shapes that do not fit
            raise ValueError(_describe_refusal(self.backbone_name, images.shape[2], error)) from error


def _describe_refusal(name: str, image_size: int, error: Exception) -> str:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return (
        f"image tower {name!r} takes no images of {image_size} pixels ({make_printable(reason, max_length=200)}); set "
        "Model.image.image_size to a size that it takes, such as the one in its name or 224"
    )


def _construct(name: str, build: Callable[..., nn.Layer], image_size: int) -> nn.Layer:
    # The constructors pass their arguments on, so only a call shows which of them takes an image size.
    arguments = {"class_num": CLASSES, "pretrained": False}  # some download weights by default
    for size_argument in ({"img_size": image_size}, {}):
        try:
            # Many give their parameters fixed names, which Paddle refuses a second time in the same namespace.
            with unique_name.guard():
                network = build(**arguments, **size_argument)
        except (TypeError, KeyError) as error:
            refusal = error
        except MemoryError:
            raise
        except Exception as error:  # some check the image size, and raise plain Exception
            raise ValueError(_describe_refusal(name, image_size, error)) from error
        else:
            for parameter in network.parameters():
                parameter.name = unique_name.generate("image_tower")
            return network
    raise ValueError(f"image tower {name!r} cannot be built without its classifier: {refusal}")


def _prepare_for_training(network: nn.Layer) -> None:
    """Freeze unused parameters, which break data parallel training, and isolate the network from module globals."""
    for layer in network.sublayers():
        if hasattr(layer, "dw_conv_list"):  # PP-LCNetV2: dw_conv is the sum of this list, for deployment only
            for parameter in layer.dw_conv.parameters():
                parameter.stop_gradient = True
    module = sys.modules[type(network).__module__]
    if hasattr(module, "_model_size"):
        # foundation_vit: its constructor sets these globals and its forward reads them, so that the last model
        # constructed would decide for all.
        network.proj = None
        globals_of_network = {name: getattr(module, name) for name in ("_model_size", "_model_diff")}

        def restore_globals(layer: nn.Layer, inputs: Any) -> Any:
            vars(module).update(globals_of_network)

        network.register_forward_pre_hook(restore_globals)


def _build_efficientnet_l2(class_num: int, pretrained: bool) -> nn.Layer:
    """Build EfficientNet-L2, which PaddleClas lacks (Noisy Student, Xie et al. 2020)."""
    from paddleclas.ppcls.arch.backbone.model_zoo.efficientnet import EfficientNet, efficientnet

    blocks, sizes = efficientnet(width_coefficient=4.3, depth_coefficient=5.3, dropout_rate=0.5)
    # PaddleClas has tables of SAME padding for B0 to B7 only; DYNAMIC computes it for every image size.
    return EfficientNet(blocks, sizes, padding_type="DYNAMIC", class_num=class_num)


def _build_repvgg(width: int, depth: int, class_num: int, pretrained: bool) -> nn.Layer:
    from paddleclas.ppcls.arch.backbone.model_zoo.repvgg import RepVGG

    return RepVGG(num_blocks=[depth] * 4, width_multiplier=[width / 64] * 4, class_num=class_num)


class SuiteVit(nn.Layer):
    """`transformer.VisionTransformer` made of PaddleClas's layers; arguments as there.

    PaddleClas's own forward is not used, because it reads module globals that the last constructed model has set.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        width: int,
        depth: int,
        heads: int,
        drop_path: float = 0.0,
        keep_tokens: float = 1.0,
    ):
        from paddleclas.ppcls.arch.backbone.model_zoo import foundation_vit

        super().__init__()
        network = foundation_vit.VisionTransformer(
            "CLIP_vit_large_patch14_224",  # the name of the variant with class token and ln_pre
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
        self.keep_tokens = keep_tokens
        self.patch_embed = network.patch_embed
        self.cls_token = network.cls_token  # [1, 1, width]
        self.pos_embed = network.pos_embed  # [1, 1 + patches, width]
        self.ln_pre, self.blocks, self.norm = network.ln_pre, network.blocks, network.norm
        # The released model differs from PaddleClas's in activation and epsilon.
        for block in self.blocks:
            block.mlp.act = foundation_vit.QuickGELU()
        for layer in self.sublayers():
            if isinstance(layer, nn.LayerNorm):
                layer._epsilon = 1e-6
            elif isinstance(layer, nn.Linear):
                _rescale(layer.weight, (768 / width) ** 0.5)

    def fuse_attention(self, fused: bool = True) -> None:
        """Compute attention by Paddle's fused kernel or not; see `transformer.Transformer.fuse_attention`."""
        for block in self.blocks:
            block.attn.use_fused_attn = fused

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        check_size(images.shape[2], images.shape[3], self.image_size)
        # PaddleClas would pad the rest of an image to another patch, which has no position.
        patches, _ = self.patch_embed(cut_to_patches(images, self.image_size, self.patch_size))  # [B, P, width]
        tokens = paddle.concat([self.cls_token.expand([images.shape[0], -1, -1]), patches], axis=1)
        tokens = tokens + self.pos_embed
        if self.training and self.keep_tokens < 1:
            tokens = gather_tokens(tokens, draw_kept_tokens(tokens, self.keep_tokens, num_fixed=1))
        tokens = self.ln_pre(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])


class SuiteText(nn.Layer):
    """`transformer.TextTransformer` made of an encoder of PaddleNLP, whose pooled output is the pooling "cls"."""

    def __init__(self, network: nn.Layer, pooling: str):
        super().__init__()
        self.network, self.pooling = network, pooling
        if pooling == "mean":
            network.pooler = nn.Identity()
        self.width = network.config.hidden_size
        # Initial weights as in TextTransformer, which explains them.
        for layer in network.sublayers():
            if isinstance(layer, nn.Linear):
                _rescale(layer.weight, (768 / self.width) ** 0.5)
            elif isinstance(layer, nn.Embedding) and self.width < 768:
                _rescale(layer.weight, 0.25)

    @property
    def blocks(self) -> list[nn.Layer]:
        """Blocks, first to last."""
        return list(self.network.encoder.layers)

    def fuse_attention(self, fused: bool = True) -> None:
        """Compute attention by Paddle's fused kernel or not; see `transformer.Transformer.fuse_attention`."""
        for block in self.blocks:
            block.self_attn.__class__ = _FusedAttention if fused else nn.MultiHeadAttention

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:
        longest = self.network.config.max_position_embeddings
        check_length(ids.shape[1], longest)
        aligned = align_length(ids, PAD_ID)
        if aligned.shape[1] <= longest:
            ids = aligned
        is_token = (ids != PAD_ID).astype("float32")  # [B, L]
        with skip_padding(ids, PAD_ID):
            states, pooled = self.network(ids, attention_mask=is_token)
        if self.pooling == "cls":
            return pooled
        weights = (is_token / is_token.sum(axis=1, keepdim=True)).unsqueeze(1)  # [B, 1, L]
        return weights.astype(states.dtype).matmul(states).squeeze(1)


class _FusedAttention(nn.MultiHeadAttention):
    """Self-attention by Paddle's fused kernel, which does not return the attention weights."""

    def forward(self, query: Any, key: Any = None, value: Any = None, attn_mask: Any = None, cache: Any = None) -> Any:
        if cache is not None or self.need_weights:
            return super().forward(query, key, value, attn_mask, cache)
        by_head = [0, 0, self.num_heads, self.head_dim]
        q = self.q_proj(query).reshape(by_head)  # [B, L, heads, d]
        k = self.k_proj(query).reshape(by_head)
        v = self.v_proj(query).reshape(by_head)
        mask = attn_mask.astype(q.dtype).expand([query.shape[0], 1, query.shape[1], query.shape[1]])
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, training=self.training)
        return self.out_proj(mixed.flatten(start_axis=2))


def build_encoder(config: TextTowerConfig, vocab_size: int) -> SuiteText:
    """Build PaddleNLP's ERNIE or BERT; MissingPackage if PaddleNLP is not installed."""
    library = import_suite("paddlenlp.transformers", f"the text tower {config.name}")
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
            # PaddleNLP's initialiser sets 1e-12, whatever its configuration says.
            layer._epsilon = config.epsilon
    return SuiteText(model, config.pooling)


def _rescale(parameter: paddle.Tensor, factor: float) -> None:
    """Multiply the values of a parameter in place; one without values, made under `paddle.LazyGuard`, stays so."""
    # Private, as of Paddle 3.3.1; no public function tells whether a parameter has values.
    if parameter._is_initialized():
        parameter.set_value(parameter * factor)
