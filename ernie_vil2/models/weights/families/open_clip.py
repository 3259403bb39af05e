"""Folders of OpenCLIP: its own towers, and those of timm (`timm_towers.py`) and transformers (`open_clip_texts.py`).

Its own ViTs and ResNets have the names of OpenAI's CLIP, which Chinese-CLIP's own files use, too. The names of the text
tower are on the top level, or under `text.`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from ernie_vil2.config import ModelConfig
from ernie_vil2.io.files import is_count
from ernie_vil2.models.weights.families.clip import CLIP_MEAN, CLIP_STD, POSITION_IDS
from ernie_vil2.models.weights.families.family import ACTIVATION, Dialect, Family, Folder, Towers, count_words
from ernie_vil2.models.weights.families.open_clip_texts import (
    is_library_text,
    make_library_text_rows,
    read_library_text,
)
from ernie_vil2.models.weights.families.timm_convnext import (
    TIMM_CONVNEXTS,
    is_convnext,
    make_convnext_rows,
    read_convnext,
)
from ernie_vil2.models.weights.families.timm_towers import (
    TIMM_EVA02_CLIPS,
    TIMM_PE_CORES,
    TIMM_PLAIN_VITS,
    TRUNK,
    find_timm_name,
    has_plain_vit,
    is_eva_tower,
    is_plain_vit,
    make_eva_rows,
    make_plain_vit_rows,
    make_trunk_vit,
    read_eva_tower,
    read_plain_vit,
    read_trunk_heads,
    read_trunk_sizes,
)
from ernie_vil2.models.weights.files import get_folder
from ernie_vil2.models.weights.format import find_first_file
from ernie_vil2.models.weights.name_table import Row
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.towers.base import Activation, ImageTowerConfig, ImageVariant, Pooling, TextTowerConfig, TextVariant
from ernie_vil2.towers.convolution import ConvNeXt, ModifiedResNet
from ernie_vil2.towers.transformer import Transformer, Vit, get_image_variant, get_text_variant

SETTINGS = "open_clip_config.json"
# In order of preference, if a folder has several.
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pt")


class TimmVit(NamedTuple):
    """What timm fixes by the name of one of SigLIP's image towers; `width` only checks that `heads` belongs to it."""

    width: int
    heads: int
    activation: Activation


_BASE, _LARGE = TimmVit(768, 12, "gelu"), TimmVit(1024, 16, "gelu")
_SO400M, _GIANT = TimmVit(1152, 16, "gelu"), TimmVit(1536, 16, "gelu_tanh")
TIMM_VITS = {
    "vit_base_patch16_siglip_224": _BASE,
    "vit_base_patch16_siglip_256": _BASE,
    "vit_base_patch16_siglip_384": _BASE,
    "vit_base_patch16_siglip_512": _BASE,
    "vit_base_patch32_siglip_256": _BASE._replace(activation="gelu_tanh"),
    "vit_large_patch16_siglip_256": _LARGE,
    "vit_large_patch16_siglip_384": _LARGE,
    "vit_large_patch16_siglip_512": _LARGE._replace(activation="gelu_tanh"),
    "vit_so400m_patch14_siglip_224": _SO400M,
    "vit_so400m_patch14_siglip_378": _SO400M,
    "vit_so400m_patch14_siglip_384": _SO400M,
    "vit_so400m_patch16_siglip_256": _SO400M._replace(activation="gelu_tanh"),
    "vit_so400m_patch16_siglip_384": _SO400M._replace(activation="gelu_tanh"),
    "vit_so400m_patch16_siglip_512": _SO400M._replace(activation="gelu_tanh"),
    "vit_giantopt_patch16_siglip_256": _GIANT,
    "vit_giantopt_patch16_siglip_384": _GIANT,
}
"""SigLIP's image towers with attention pooling in timm 1.0.31; `tests/fixtures/open_clip/make.py` reads its registry.

A tower of another name is refused, because its number of heads and its gelu would be a guess.
"""
_REQUIRED_VALUES = {
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
    "ls_init_value": None,
    "block_type": None,
    "output_tokens": False,
}
"""Settings of both towers that change what a block computes; only OpenCLIP's defaults are implemented."""
# All settings that OpenCLIP knows. Others are refused: nobody knows what they change.
_MODEL_KEYS = (
    "embed_dim vision_cfg text_cfg quick_gelu custom_text init_logit_scale init_logit_bias nonscalar_logit_scale "
    "multimodal_cfg text_trunk cast_dtype output_dict"
)
_VISION_KEYS = (
    "layers width head_width mlp_ratio patch_size image_size patch_dropout attentional_pool attn_pooler_queries "
    "attn_pooler_heads no_ln_pre pos_embed_type final_ln_after_pool pool_type act_kwargs norm_kwargs timm_model_name "
    "timm_model_pretrained timm_pool timm_proj timm_proj_bias timm_drop timm_drop_path"
)
_TEXT_KEYS = (
    "context_length vocab_size hf_tokenizer_name tokenizer_mode tokenizer_kwargs width heads layers mlp_ratio "
    "embed_cls pad_id eos_id no_causal_mask final_ln_after_pool pool_type proj_bias proj_type act_kwargs norm_kwargs "
    "hf_model_name hf_model_pretrained hf_proj_type hf_pooler_type"
)
# OpenCLIP's names of the poolings of texts, and of images.
_POOLING: dict[str, Pooling] = {"argmax": "largest_id", "last": "last", "first": "first", "eos": "end"}
_IMAGE_POOLING: dict[str, Literal["class", "mean"]] = {"tok": "class", "avg": "mean"}
BATCH_COUNT = "how many batches its averages have seen, which nothing depends on"
"""Why `num_batches_tracked` of a batch norm is unused."""


def make_block_rows(ours: str, theirs: str) -> list[Row]:
    """Return the rows of the blocks by the names of OpenAI's code."""
    return [
        (f"{ours}N.norm1", f"{theirs}N.ln_1", "weight_bias"),
        (f"{ours}N.norm2", f"{theirs}N.ln_2", "weight_bias"),
        (f"{ours}N.attn.qkv", f"{theirs}N.attn.in_proj_*", "linear"),
        (f"{ours}N.attn.proj", f"{theirs}N.attn.out_proj", "linear"),
        (f"{ours}N.mlp.fc1", f"{theirs}N.mlp.c_fc", "linear"),
        (f"{ours}N.mlp.fc2", f"{theirs}N.mlp.c_proj", "linear"),
    ]


def make_text_rows(prefix: str) -> list[Row]:
    """Return the rows of a text tower by the names of OpenAI's code, after a prefix, but for its projection."""
    network = "text.network."
    return [
        (f"{network}embeddings.word_embeddings.weight", f"{prefix}token_embedding.weight", "equal"),
        (f"{network}embeddings.position_embeddings.weight", f"{prefix}positional_embedding", "equal"),
        *make_block_rows(f"{network}encoder.layers.", f"{prefix}transformer.resblocks."),
        (f"{network}norm", f"{prefix}ln_final", "weight_bias"),
    ]


_VIT: list[Row] = [
    ("image.cls_token", "visual.class_embedding", "token"),
    ("image.patch_embed.proj.weight", "visual.conv1.weight", "equal"),
    ("image.pos_embed", "visual.positional_embedding", "grid"),
    ("image.ln_pre", "visual.ln_pre", "weight_bias"),
    *make_block_rows("image.blocks.", "visual.transformer.resblocks."),
    ("image.norm", "visual.ln_post", "weight_bias"),
    ("image_projection.weight", "visual.proj", "equal"),
]


def make_image_rows(tower: ImageTowerConfig) -> list[Row]:
    """Return the rows of an image tower, and of the scale."""
    rows = _VIT if tower.name == "ViT" else _make_resnet_rows()
    variant = get_image_variant(tower)
    if variant is not None and not variant.input_norm:
        rows = [row for row in rows if row[0] != "image.ln_pre"]
    return [("log_logit_scale", "logit_scale", "scalar"), *rows]


def _make_resnet_rows() -> list[Row]:
    rows: list[Row] = []
    for number in (1, 2, 3):
        rows.append((f"image.conv{number}.weight", f"visual.conv{number}.weight", "equal"))
    for number in (1, 2, 3):
        rows += _make_batch_norm_rows(f"bn{number}")
    for stage in (1, 2, 3, 4):
        block, downsample = f"layer{stage}.N.", f"layer{stage}.0.downsample."
        for number in (1, 2, 3):
            rows.append((f"image.{block}conv{number}.weight", f"visual.{block}conv{number}.weight", "equal"))
            rows += _make_batch_norm_rows(f"{block}bn{number}")
        rows.append((f"image.{downsample}0.weight", f"visual.{downsample}0.weight", "equal"))
        rows += _make_batch_norm_rows(f"{downsample}1")
    rows.append(("image.attnpool.pos_embed", "visual.attnpool.positional_embedding", "grid"))
    for letter in ("q", "k", "v", "c"):
        rows.append((f"image.attnpool.{letter}_proj", f"visual.attnpool.{letter}_proj", "linear"))
    return rows


def _make_batch_norm_rows(name: str) -> list[Row]:
    return [
        (f"image.{name}", f"visual.{name}", "weight_bias"),
        (f"image.{name}._mean", f"visual.{name}.running_mean", "equal"),
        (f"image.{name}._variance", f"visual.{name}.running_var", "equal"),
    ]


def make_resnet(
    image_size: int, layers: Sequence[int], width: int, head_width: int, embed_dim: int
) -> ImageTowerConfig:
    """Return the configuration of CLIP's ResNet.

    Args:
        image_size: side of the images in pixels.
        layers: number of blocks in each of the four stages.
        width: channels of the first stage.
        head_width: width of a head of the attention pooling, which reads features 32 times as wide as `width`.
        embed_dim: width of the features that the pooling returns.
    """
    return ModifiedResNet(
        name="ModifiedResNet",
        image_size=image_size,
        layers=list(layers),
        width=width,
        heads=max(1, 32 * width // head_width),
        projection=embed_dim,
        mean=CLIP_MEAN,
        std=CLIP_STD,
    )


_TIMM_LAYERS = ("patch_embed.proj", "blocks.N.norm1", "blocks.N.norm2", "norm", "attn_pool.norm")
_TIMM_LINEAR = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
_TIMM_POOL = ("q", "kv", "proj", "mlp.fc1", "mlp.fc2")
_TIMM_IMAGE: list[Row] = [
    ("log_logit_scale", "logit_scale", "scalar"),
    ("image.pos_embed", f"{TRUNK}pos_embed", "equal"),
    ("image.attn_pool.probe", f"{TRUNK}attn_pool.latent", "equal"),
    *((f"image.{name}", f"{TRUNK}{name}", "weight_bias") for name in _TIMM_LAYERS),
    *((f"image.blocks.N.{name}", f"{TRUNK}blocks.N.{name}", "linear") for name in _TIMM_LINEAR),
    *((f"image.attn_pool.{name}", f"{TRUNK}attn_pool.{name}", "linear") for name in _TIMM_POOL),
]


def _configure(folder: Folder) -> Towers:
    settings = folder.settings.open_section("model_cfg")
    vision, text = settings.open_section("vision_cfg"), settings.open_section("text_cfg")
    settings.check_values(multimodal_cfg=None, text_trunk=None)
    settings.check_keys(_MODEL_KEYS.split())
    for section, keys in ((vision, _VISION_KEYS), (text, _TEXT_KEYS)):
        section.check_keys([*keys.split(), *_REQUIRED_VALUES])
        section.check_values(**_REQUIRED_VALUES)

    activation: Activation = "quick_gelu" if settings.read_bool("quick_gelu", False) else "gelu"
    embed_dim = settings.read_int("embed_dim", 512)
    has_image_projection = False
    if is_eva_tower(vision):
        # The image tower ends with its own projection.
        image = read_eva_tower(vision, folder.arrays)
    elif is_convnext(vision):
        image, has_image_projection = read_convnext(vision, folder.arrays), True
    elif is_plain_vit(vision):
        image, has_image_projection = read_plain_vit(vision, folder.arrays)
    elif vision.values.get("timm_model_name") is not None:
        # The activation is that of the texts alone: timm has its own.
        image = _read_timm_tower(vision, folder.arrays)
    else:
        image = _read_image_tower(vision, activation, embed_dim)
        # A ResNet projects within its attention pooling.
        has_image_projection = not isinstance(image, ModifiedResNet)
    image = image.model_copy(update={"mean": CLIP_MEAN, "std": CLIP_STD})
    if text.values.get("hf_model_name") is not None:
        text_tower, text_length, has_text_projection = read_library_text(text, embed_dim, folder)
    else:
        text_tower, text_length = _read_text_tower(text, activation, embed_dim, folder)
        # With a bias, the projection is the head of the tower.
        has_text_projection = _has_text_projection(text) and not _has_projection_bias(text)
    projections = _PROJECTIONS[has_image_projection, has_text_projection]
    model = ModelConfig(image=image, text=text_tower, embed_dim=embed_dim, projections=projections)
    return Towers(model, text_length)


_PROJECTIONS: dict[tuple[bool, bool], Literal["both", "image", "text", "by_width"]] = {
    (True, True): "both",
    (True, False): "image",
    (False, True): "text",
    (False, False): "by_width",
}
"""Values of `Model.projections`, by whether the image tower and the text tower have a projection."""


_RULES_BY_CLEANING = {"whitespace": "open_clip_hf", "lower": "open_clip_lower", "canonicalize": "open_clip_canonical"}
"""Rules of a tokenizer of transformers within OpenCLIP, by how a text is cleaned first."""


def _find_rules(folder: Folder) -> str:
    text = folder.settings.open_section("model_cfg").open_section("text_cfg")
    options = text.open_optional_section("tokenizer_kwargs")
    if not text.values.get("hf_tokenizer_name"):
        options.check_values(clean="lower", reduction_mask="")
        return "open_clip"
    options.check_values(tokenizer_mode=None, language=None)
    if options.read_bool("strip_sep_token", False):
        options.check_values(clean="whitespace")
        return "open_clip_without_sep"
    return options.read_choice("clean", "open_clip_hf", _RULES_BY_CLEANING)


def _read_image_tower(vision: Settings, activation: Activation, embed_dim: int) -> ImageTowerConfig:
    vision.check_values(attentional_pool=False, pos_embed_type="learnable")
    layers, width = vision.values.get("layers"), vision.read_int("width", 768)
    image_size = vision.read_int("image_size", 224)
    if isinstance(layers, list):
        if len(layers) != 4 or not all(is_count(depth, maximum=1024) for depth in layers):
            raise vision.make_error("layers", "a number, or those of the four stages of a ResNet are expected")
        vision.check_values(no_ln_pre=False, pool_type="tok", final_ln_after_pool=False)
        return make_resnet(image_size, layers, width, vision.read_int("head_width", 64), embed_dim)
    pooling = vision.read_choice("pool_type", "class", _IMAGE_POOLING)
    is_norm_last = vision.read_bool("final_ln_after_pool", False)
    return Vit(
        name="ViT",
        image_size=image_size,
        patch_size=vision.read_int("patch_size", 16),
        width=width,
        depth=vision.read_int("layers", 12),
        heads=_count_heads(vision, width, vision.read_int("head_width", 64)),
        variant=ImageVariant(
            hidden=int(width * vision.read_number("mlp_ratio", 4.0)),
            activation=_read_activation(vision, activation),
            epsilon=_read_epsilon(vision, 1e-5),
            input_norm=not vision.read_bool("no_ln_pre", False),
            pooling=pooling,
            # For the class token, the norm before the pooling equals the norm after it.
            norm_after_mean=pooling == "mean" and is_norm_last,
        ),
    )


def _read_timm_tower(vision: Settings, arrays: Mapping[str, np.ndarray]) -> ImageTowerConfig:
    """Describe one of SigLIP's image towers of timm by its name and its arrays."""
    facts = TIMM_VITS.get(find_timm_name(vision))
    if facts is None:
        names = [*TIMM_VITS, *TIMM_PLAIN_VITS, *TIMM_PE_CORES, *TIMM_EVA02_CLIPS, *TIMM_CONVNEXTS]
        raise vision.make_error("timm_model_name", f"of timm only these image towers are supported: {', '.join(names)}")
    if vision.values.get("timm_proj", "linear") != "none":
        raise vision.make_error("timm_proj", "only 'none' is supported")
    if vision.values.get("timm_pool", "avg") != "map":
        raise vision.make_error("timm_pool", "only 'map' is supported")
    sizes = read_trunk_sizes(vision, arrays)
    heads = read_trunk_heads(vision, sizes.width, facts.width, facts.heads)
    variant = ImageVariant(
        hidden=sizes.hidden,
        activation=facts.activation,
        patch_bias=True,
        class_token=False,
        input_norm=False,
        pooling="attention",
    )
    return make_trunk_vit(vision, sizes, heads, variant)


def _has_text_projection(text: Settings) -> bool:
    return text.read_choice("proj_type", True, {"linear": True, "none": False})


def _has_projection_bias(text: Settings) -> bool:
    return _has_text_projection(text) and text.read_bool("proj_bias", False)


def _read_text_tower(
    text: Settings, activation: Activation, embed_dim: int, folder: Folder
) -> tuple[TextTowerConfig, int]:
    text.check_values(tokenizer_mode=None, embed_cls=False, final_ln_after_pool=False)
    has_projection_bias = _has_projection_bias(text)
    if has_projection_bias != any(f"{prefix}text_projection.bias" in folder.arrays for prefix in ("", "text.")):
        raise text.make_error(
            "proj_bias", f"its weights have {'no' if has_projection_bias else 'a'} bias of the text projection"
        )
    num_words = count_words(folder)
    width, text_length = text.read_int("width", 512), text.read_int("context_length", 77)
    if not _has_text_projection(text) and width != embed_dim:
        raise text.make_error("proj_type", f"texts are {width} wide and the joint space {embed_dim}")
    pooling = text.read_choice("pool_type", _POOLING["argmax"], _POOLING)
    tower = Transformer(
        name="transformer",
        width=width,
        depth=text.read_int("layers", 12),
        heads=text.read_int("heads", 8),
        max_positions=text_length,
        pooling=pooling,
        dropout=0.0,
        attention_dropout=0.0,
        epsilon=_read_epsilon(text, 1e-5),
        variant=TextVariant(
            hidden=int(width * text.read_number("mlp_ratio", 4.0)),
            activation=_read_activation(text, activation),
            mask="none" if text.read_bool("no_causal_mask", False) else "causal",
            padding=text.read_token_id("pad_id", 0, num_words),
            end=text.read_token_id("eos_id", 2, num_words) if pooling == "end" else None,
            head=embed_dim if has_projection_bias else None,
        ),
    )
    return tower, text_length


def _count_heads(vision: Settings, width: int, head_width: int) -> int:
    if width % head_width:
        raise vision.make_error("head_width", f"it does not divide the width, {width}")
    return width // head_width


def _read_activation(tower: Settings, activation: Activation) -> Activation:
    """Return the activation of a tower; `activation` is that of the model, which options may modify."""
    options = tower.values.get("act_kwargs") or {}
    if options not in ({}, {"approximate": "tanh"}, {"approximate": "none"}):
        raise tower.make_error("act_kwargs", "only an approximate gelu is supported")
    if options and activation == "quick_gelu":
        raise tower.make_error("act_kwargs", "quick_gelu, which the model has, takes none")
    return "gelu_tanh" if options == {"approximate": "tanh"} else activation


def _read_epsilon(tower: Settings, default: float) -> float:
    options = tower.values.get("norm_kwargs") or {}
    if not isinstance(options, dict) or options.keys() - {"eps"}:
        raise tower.make_error("norm_kwargs", "only eps is supported")
    return Settings(tower.path, options, f"{tower.prefix}norm_kwargs.").read_epsilon("eps", default)


def _make_rows(model: ModelConfig, dialect: Dialect, array_names: Collection[str]) -> list[Row]:
    variant = get_text_variant(model.text)
    has_head = variant is not None and variant.head
    # The names of the text tower begin with "text." in a CustomTextCLIP. A model that is yet to be written has no names
    # of arrays; if its projection has a bias, it will be a CustomTextCLIP.
    is_custom = "text.token_embedding.weight" in array_names or (has_head and not array_names)
    prefix = "text." if is_custom else ""
    projection: list[Row] = []
    if has_head:
        projection.append(("text.head", f"{prefix}text_projection", "linear"))
    elif model.projections in ("both", "text"):
        projection.append(("text_projection.weight", f"{prefix}text_projection", "equal"))
    bias: list[Row] = []
    if "logit_bias" in array_names:
        bias.append(("logit_bias", "logit_bias", "scalar"))
    if is_library_text(model):
        return [*_find_image_rows(model, array_names), *bias, *make_library_text_rows(model)]
    return [*_find_image_rows(model, array_names), *bias, *make_text_rows(prefix), *projection]


def _find_image_rows(model: ModelConfig, array_names: Collection[str]) -> list[Row]:
    if isinstance(model.image, ConvNeXt):
        return make_convnext_rows(model.image)
    variant = get_image_variant(model.image)
    if variant is not None and variant.rotary is not None:
        return make_eva_rows(variant)
    if variant is not None and variant.pooling == "attention":
        return _TIMM_IMAGE
    if variant is not None and has_plain_vit(array_names):
        return make_plain_vit_rows(variant, array_names)
    return make_image_rows(model.image)


def _explain_obstacle(old: ModelConfig, new: ModelConfig, is_trimmed: bool) -> str | None:
    if is_library_text(old) and (is_trimmed or old.text.max_positions != new.text.max_positions):
        return "OpenCLIP builds the text tower that hf_model_name names, with the words and positions of that model"
    return None


OPEN_CLIP = Family(
    "OpenCLIP",
    _configure,
    _make_rows,
    tokenizer=_find_rules,
    preprocessing="open_clip",
    dialects={**ACTIVATION, "tokenizer": ("stored", "clip"), "preprocessing": ("stored", "transformers")},
    settings_file=SETTINGS,
    find_weights=lambda folder: find_first_file(folder, WEIGHTS),
    layout="openclip",
    is_family=lambda path: (get_folder(path) / SETTINGS).is_file(),
    unused={
        "*attn_mask": "the causal mask, which the text tower makes by itself",
        "*.num_batches_tracked": BATCH_COUNT,
        "text.transformer.embeddings.position_ids": POSITION_IDS,
    },
    explain_obstacle=_explain_obstacle,
)
