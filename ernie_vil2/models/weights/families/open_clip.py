"""Folders of OpenCLIP: its own towers with the text tower's names on the top level or under `text.`, and SigLIP's image
towers of timm.

Its own towers have the names of OpenAI's CLIP, which Chinese-CLIP's own files have too: its ViTs and its ResNets.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np

from ernie_vil2.config import ImageTowerConfig, ModelConfig, TextTowerConfig
from ernie_vil2.config.model import Activation, ImageVariant, Pooling, TextVariant
from ernie_vil2.io.files import is_count
from ernie_vil2.models.weights.families.clip import CLIP_MEAN, CLIP_STD
from ernie_vil2.models.weights.families.family import ACTIVATION, Family, Folder, first_file
from ernie_vil2.models.weights.names import Row
from ernie_vil2.models.weights.settings import Settings

SETTINGS = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pt")
_TRUNK = "visual.trunk."
_TANH = ("base_patch32_siglip", "large_patch16_siglip_512", "so400m_patch16_siglip", "giantopt_patch16_siglip")
"""Of the names of SigLIP's image towers in timm: those with a tanh in their gelu; the others have the exact one."""
_HEAD_WIDTHS = {1152: 72}  # by width, of timm's towers; else 64
_POOLING: dict[str, Pooling] = {"argmax": "largest", "last": "last", "first": "first", "eos": "end"}
COUNTED = "how many batches its averages have seen, which nothing depends on"
"""Why `num_batches_tracked` of a batch norm is not used."""


def blocks(ours: str, theirs: str) -> list[Row]:
    """Rows of the blocks as OpenAI's code spells them."""
    return [
        (f"{ours}N.norm1", f"{theirs}N.ln_1", "layer"),
        (f"{ours}N.norm2", f"{theirs}N.ln_2", "layer"),
        (f"{ours}N.attn.qkv", f"{theirs}N.attn.in_proj_*", "linear"),
        (f"{ours}N.attn.proj", f"{theirs}N.attn.out_proj", "linear"),
        (f"{ours}N.mlp.fc1", f"{theirs}N.mlp.c_fc", "linear"),
        (f"{ours}N.mlp.fc2", f"{theirs}N.mlp.c_proj", "linear"),
    ]


_VIT: list[Row] = [
    ("image.cls_token", "visual.class_embedding", "token"),
    ("image.patch_embed.proj.weight", "visual.conv1.weight", "array"),
    ("image.pos_embed", "visual.positional_embedding", "grid"),
    ("image.ln_pre", "visual.ln_pre", "layer"),
    *blocks("image.blocks.", "visual.transformer.resblocks."),
    ("image.norm", "visual.ln_post", "layer"),
    ("image_projection.weight", "visual.proj", "array"),
]


def image_rows(tower: ImageTowerConfig) -> list[Row]:
    """Rows of an image tower, and of the scale."""
    rows = _VIT if tower.name == "ViT" else _resnet()
    return [("log_logit_scale", "logit_scale", "scalar"), *rows]


def _resnet() -> list[Row]:
    stem: list[Row] = [(f"image.conv{part}.weight", f"visual.conv{part}.weight", "array") for part in (1, 2, 3)]
    rows = stem + [row for part in (1, 2, 3) for row in _batch_norm(f"bn{part}")]
    for stage in (1, 2, 3, 4):
        block, first = f"layer{stage}.N.", f"layer{stage}.0.downsample."
        for part in (1, 2, 3):
            rows.append((f"image.{block}conv{part}.weight", f"visual.{block}conv{part}.weight", "array"))
            rows += _batch_norm(f"{block}bn{part}")
        rows.append((f"image.{first}0.weight", f"visual.{first}0.weight", "array"))
        rows += _batch_norm(f"{first}1")
    pool = [(f"image.attnpool.{part}_proj", f"visual.attnpool.{part}_proj") for part in ("q", "k", "v", "c")]
    rows.append(("image.attnpool.pos_embed", "visual.attnpool.positional_embedding", "grid"))
    return rows + [(ours, theirs, "linear") for ours, theirs in pool]


def _batch_norm(name: str) -> list[Row]:
    return [
        (f"image.{name}", f"visual.{name}", "layer"),
        (f"image.{name}._mean", f"visual.{name}.running_mean", "array"),
        (f"image.{name}._variance", f"visual.{name}.running_var", "array"),
    ]


def resnet_tower(image_size: int, layers: Sequence[int], width: int, head_width: int, dim: int) -> ImageTowerConfig:
    """CLIP's ResNet, whose attention pooling has heads of `head_width` and makes features of width `dim`."""
    return ImageTowerConfig(
        name="ModifiedResNet",
        image_size=image_size,
        layers=list(layers),
        width=width,
        heads=max(1, 32 * width // head_width),
        projection=dim,
        mean=CLIP_MEAN,
        std=CLIP_STD,
    )


_TIMM_LAYERS = ("patch_embed.proj", "blocks.N.norm1", "blocks.N.norm2", "norm", "attn_pool.norm")
_TIMM_LINEAR = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
_TIMM_POOL = ("q", "kv", "proj", "mlp.fc1", "mlp.fc2")
_TIMM_IMAGE: list[Row] = [
    ("log_logit_scale", "logit_scale", "scalar"),
    ("image.pos_embed", f"{_TRUNK}pos_embed", "array"),
    ("image.attn_pool.probe", f"{_TRUNK}attn_pool.latent", "array"),
    *((f"image.{name}", f"{_TRUNK}{name}", "layer") for name in _TIMM_LAYERS),
    *((f"image.blocks.N.{name}", f"{_TRUNK}blocks.N.{name}", "linear") for name in _TIMM_LINEAR),
    *((f"image.attn_pool.{name}", f"{_TRUNK}attn_pool.{name}", "linear") for name in _TIMM_POOL),
]


def _configure(folder: Folder) -> tuple[ModelConfig, int]:
    settings = folder.settings.within("model_cfg")
    vision, text = settings.within("vision_cfg"), settings.within("text_cfg")
    settings.check_facts(multimodal_cfg=None, text_trunk=None)
    quick: Activation = "quick_gelu" if settings.values.get("quick_gelu") else "gelu"
    dim = settings.count("embed_dim", 512)
    timm = vision.values.get("timm_model_name") is not None
    image = _timm_tower(vision, folder.arrays) if timm else _image_tower(vision, quick, dim)
    image = image.model_copy(update={"mean": CLIP_MEAN, "std": CLIP_STD})
    tower, longest = _text_tower(text, "gelu" if timm else quick, dim)
    projections: Literal["by_width", "always", "text"] = "by_width" if timm else "text" if image.layers else "always"
    return ModelConfig(image=image, text=tower, embed_dim=dim, projections=projections), longest


_CLEANING = {"whitespace": "open_clip_hf", "lower": "open_clip_lower", "canonicalize": "open_clip_canonical"}
"""Rules of a tokenizer of transformers within OpenCLIP, by what is done to a text before."""


def _tokenizer(folder: Folder) -> str:
    text = folder.settings.within("model_cfg").within("text_cfg")
    named, options = text.values.get("hf_tokenizer_name"), text.part("tokenizer_kwargs")
    if not named:
        options.check_facts(clean="lower", reduction_mask="")
        return "open_clip"
    options.check_facts(strip_sep_token=False, tokenizer_mode=None, language=None)
    return options.choice("clean", "open_clip_hf", _CLEANING)


def _image_tower(vision: Settings, quick: Activation, dim: int) -> ImageTowerConfig:
    vision.check_facts(
        ls_init_value=None,
        attentional_pool=False,
        no_ln_pre=False,
        pos_embed_type="learnable",
        pool_type="tok",
        final_ln_after_pool=False,
        block_type=None,
    )
    layers, width, size = vision.values.get("layers"), vision.count("width", 768), vision.count("image_size", 224)
    if isinstance(layers, list):
        if len(layers) != 4 or not all(is_count(depth, most=1024) for depth in layers):
            raise vision.refusal("layers", "a number, or those of the four stages of a ResNet are expected")
        return resnet_tower(size, layers, width, vision.count("head_width", 64), dim)
    return ImageTowerConfig(
        name="ViT",
        image_size=size,
        patch_size=vision.count("patch_size", 16),
        width=width,
        depth=vision.count("layers", 12),
        heads=_heads(vision, width, vision.count("head_width", 64)),
        variant=ImageVariant(
            hidden=int(width * vision.number("mlp_ratio", 4.0)),
            activation=_activation(vision, quick),
            epsilon=_epsilon(vision, 1e-5),
        ),
    )


def _timm_tower(vision: Settings, arrays: Mapping[str, np.ndarray]) -> ImageTowerConfig:
    """An image tower of timm, whose name says its sizes; they are those of the arrays here."""
    name = vision.values["timm_model_name"]
    known = isinstance(name, str) and name.startswith("vit_") and "_siglip_" in name and "_gap_" not in name
    if not known or vision.values.get("timm_proj", "linear") not in ("none", "", None):
        raise vision.refusal(
            "timm_model_name", "of timm only SigLIP's ViTs with attention pooling and without a projection are read"
        )
    vision.check_facts(timm_pool="map")
    shapes = {
        part: arrays[f"{_TRUNK}{part}"].shape
        for part in ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight")
        if f"{_TRUNK}{part}" in arrays
    }
    if len(shapes) < 2 or any(len(shape) not in (2, 4) for shape in shapes.values()):
        raise ValueError(
            f"{vision.path}: it describes {name}, of which the weights hold no {_TRUNK}patch_embed.proj "
            f"or {_TRUNK}blocks.0.mlp.fc1"
        )
    width, _, size, _ = shapes["patch_embed.proj.weight"]
    hidden, _ = shapes["blocks.0.mlp.fc1.weight"]
    numbers = {part.split(".")[3] for part in arrays if part.startswith(f"{_TRUNK}blocks.")}
    return ImageTowerConfig(
        name="ViT",
        image_size=vision.count("image_size", 224),
        patch_size=size,
        width=width,
        depth=len(numbers),
        heads=_heads(vision, width, vision.count("head_width", _HEAD_WIDTHS.get(width, 64))),
        variant=ImageVariant(
            hidden=hidden,
            activation="gelu_tanh" if any(part in name for part in _TANH) else "gelu",
            patch_bias=True,
            class_token=False,
            input_norm=False,
            pooling="attention",
        ),
    )


def _text_tower(text: Settings, quick: Activation, dim: int) -> tuple[TextTowerConfig, int]:
    text.check_facts(
        hf_model_name=None,
        ls_init_value=None,
        embed_cls=False,
        final_ln_after_pool=False,
        proj_type="linear",
        output_tokens=False,
        block_type=None,
    )
    width, longest = text.count("width", 512), text.count("context_length", 77)
    pooling = text.choice("pool_type", _POOLING["argmax"], _POOLING)
    return TextTowerConfig(
        name="transformer",
        width=width,
        depth=text.count("layers", 12),
        heads=text.count("heads", 8),
        max_positions=longest,
        pooling=pooling,
        dropout=0.0,
        attention_dropout=0.0,
        epsilon=_epsilon(text, 1e-5),
        variant=TextVariant(
            hidden=int(width * text.number("mlp_ratio", 4.0)),
            activation=_activation(text, quick),
            mask="none" if text.values.get("no_causal_mask") else "causal",
            padding=text.count("pad_id", 0, least=0),
            end=text.count("eos_id", 2, least=0) if pooling == "end" else None,
            head=dim if text.values.get("proj_bias") else None,
        ),
    ), longest


def _heads(vision: Settings, width: int, head_width: int) -> int:
    if width % head_width:
        raise vision.refusal("head_width", f"it does not divide the width, {width}")
    return width // head_width


def _activation(tower: Settings, plain: Activation) -> Activation:
    given = tower.values.get("act_kwargs") or {}
    if given not in ({}, {"approximate": "tanh"}, {"approximate": "none"}):
        raise tower.refusal("act_kwargs", "only an approximate gelu is read")
    return "gelu_tanh" if given == {"approximate": "tanh"} and plain == "gelu" else plain


def _epsilon(tower: Settings, default: float) -> float:
    given = tower.values.get("norm_kwargs") or {}
    if not isinstance(given, dict) or given.keys() - {"eps"}:
        raise tower.refusal("norm_kwargs", "only eps is read")
    return Settings(tower.path, given, f"{tower.section}norm_kwargs.").number("eps", default)


def _rows(model: ModelConfig, dialect: Mapping[str, str], has: Collection[str]) -> list[Row]:
    timm, head = model.projections == "by_width", model.text.variant is not None and model.text.variant.head
    under = "text." if "text.token_embedding.weight" in has or head else ""
    network = "text.network."
    projection: Row = ("text_projection.weight", f"{under}text_projection", "array")
    if head:
        projection = ("text.head", f"{under}text_projection", "linear")
    bias: list[Row] = [("logit_bias", "logit_bias", "scalar")] if "logit_bias" in has else []
    return [
        *(_TIMM_IMAGE if timm else image_rows(model.image)),
        *bias,
        (f"{network}embeddings.word_embeddings.weight", f"{under}token_embedding.weight", "array"),
        (f"{network}embeddings.position_embeddings.weight", f"{under}positional_embedding", "array"),
        *blocks(f"{network}encoder.layers.", f"{under}transformer.resblocks."),
        (f"{network}norm", f"{under}ln_final", "layer"),
        projection,
    ]


OPEN_CLIP = Family(
    "OpenCLIP",
    _configure,
    _rows,
    tokenizer=_tokenizer,
    preprocessing="open_clip",
    dialects={**ACTIVATION, "tokenizer": ("stored", "clip"), "preprocessing": ("stored", "transformers")},
    settings=SETTINGS,
    weights=lambda folder: first_file(folder, WEIGHTS),
    layout="openclip",
    unused={"*attn_mask": "the causal mask, which the text tower makes by itself", "*.num_batches_tracked": COUNTED},
)
