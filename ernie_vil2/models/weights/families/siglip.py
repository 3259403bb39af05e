"""SigLIP and SigLIP 2 as `SiglipModel` and `Siglip2Model` (NaFlex) of transformers store them, and FG-CLIP 2.

Zhai et al. 2023, arXiv 2303.15343; Tschannen et al. 2025, arXiv 2502.14786; Xie et al. 2025, arXiv 2510.10921.

FG-CLIP 2 is SigLIP 2 NaFlex with three ways of reading a text. Its folders carry code, which is read by nobody here.
The dialect `text` is how texts are read: `short` as SigLIP 2 (64 tokens), `box` the same with the head for captions of
regions, `long` (196 tokens) with positions and a head of their own. The three share all else, and a model here has one
of them.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

from ernie_vil2.config import ModelConfig
from ernie_vil2.models.weights.families.clip import POSITION_IDS, TEXT_ROWS, blocks, mlp, sizes
from ernie_vil2.models.weights.families.family import ACTIVATION, Family, Folder
from ernie_vil2.models.weights.name_table import SPLICE, Form, Row
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.towers.base import ImageVariant, TextVariant
from ernie_vil2.towers.transformer import NaFlex, Transformer, Vit, image_variant

HALF = [0.5, 0.5, 0.5]
GEMMA_WORDS = 256_000  # of SigLIP 2's vocabulary
_HEADS = {"short": "text_model.head", "box": "boxtext_head", "long": "longtext_head"}
_EMBEDDINGS = "text_model.embeddings.position_embedding"


def _image_rows(patches: str) -> list[Row]:
    """Rows of the image tower, and of scale and bias."""
    embedded: Form = "linear" if patches == "linear" else "layer"
    return [
        ("log_logit_scale", "logit_scale", "array"),
        ("logit_bias", "logit_bias", "array"),
        ("image.patch_embed.proj", "vision_model.embeddings.patch_embedding", embedded),
        ("image.pos_embed", "vision_model.embeddings.position_embedding.weight", "grid"),
        *blocks("image.blocks.", "vision_model.encoder.layers."),
        ("image.norm", "vision_model.post_layernorm", "layer"),
        ("image.attn_pool.probe", "vision_model.head.probe", "array"),
        ("image.attn_pool.{q,kv}", "vision_model.head.attention.in_proj_*", "linear"),
        ("image.attn_pool.proj", "vision_model.head.attention.out_proj", "linear"),
        ("image.attn_pool.norm", "vision_model.head.layernorm", "layer"),
        ("image.attn_pool.mlp.fc1", "vision_model.head.mlp.fc1", "linear"),
        ("image.attn_pool.mlp.fc2", "vision_model.head.mlp.fc2", "linear"),
    ]


def _configure(folder: Folder) -> tuple[ModelConfig, int]:
    """The towers of `SiglipModel`, and of `Siglip2Model`, whose images have any shape."""
    settings = folder.settings
    text, vision = settings.open_optional_section("text_config"), settings.open_optional_section("vision_config")
    vision.check_values(num_channels=3, vision_use_head=True)
    of_text, longest = sizes(text, 768, 12, 12), text.read_count("max_position_embeddings", 64)
    size, side = vision.read_count("patch_size", 16), None
    any_shape = settings.values["model_type"] != "siglip"
    if any_shape:
        side = math.isqrt(count := vision.read_count("num_patches", 256))
        if side * side != count:
            raise vision.make_error("num_patches", "a square number is expected")
    image_size = vision.read_count("image_size", 224) if side is None else side * size
    fields: dict[str, Any] = {
        "image_size": image_size,
        "patch_size": size,
        **sizes(vision, 768, 12, 12),
        "mean": HALF,
        "std": HALF,
        "variant": ImageVariant(
            **mlp(vision, 3072, "gelu_tanh"),
            epsilon=vision.read_epsilon("layer_norm_eps", 1e-6),
            patches="linear" if any_shape else "convolution",
            patch_bias=True,
            class_token=False,
            input_norm=False,
            pooling="attention",
        ),
    }
    image = NaFlex(name="NaFlex", **fields) if any_shape else Vit(name="ViT", **fields)
    head = text.read_count("projection_size", None) or of_text["width"]
    return ModelConfig(
        image=image,
        text=Transformer(
            name="transformer",
            **of_text,
            max_positions=longest,
            pooling="last",
            dropout=0.0,
            attention_dropout=0.0,
            epsilon=text.read_epsilon("layer_norm_eps", 1e-6),
            variant=TextVariant(
                **mlp(text, 3072, "gelu_tanh"),
                mask="none",
                padding=text.read_count("pad_token_id", 1, minimum=0),
                head=head,
            ),
        ),
        embed_dim=head,
    ), longest


def _tokenizer(folder: Folder) -> str:
    """SigLIP 2's where the folder names its class, which is Gemma's, or has as many words; else SigLIP's."""
    path = folder.weights.with_name("tokenizer_config.json")
    kind = str(Settings.from_file(path).values.get("tokenizer_class")) if path.is_file() else ""
    words = folder.settings.open_optional_section("text_config").read_count("vocab_size", 32_000)
    return "siglip2" if "gemma" in kind.lower() or "siglip2" in kind.lower() or words == GEMMA_WORDS else "siglip"


def _rows(model: ModelConfig, dialect: Mapping[str, str], has: Collection[str]) -> list[Row]:
    variant = image_variant(model.image) or ImageVariant()
    return [*_image_rows(variant.patches), *TEXT_ROWS, ("text.head", "text_model.head", "linear")]


def _fgclip2(folder: Folder) -> tuple[ModelConfig, int]:
    model, short = _configure(folder)
    text = folder.settings.open_optional_section("text_config")
    kept, longest = text.read_count("keep_len", SPLICE), text.read_count("longtext_len", 196)
    if kept != SPLICE:
        raise text.make_error("keep_len", f"only models that keep {SPLICE} positions are read")
    if folder.dialect["text"] != "long":
        return model, short
    return model.model_copy(update={"text": model.text.model_copy(update={"max_positions": longest})}), longest


def _fgclip2_rows(model: ModelConfig, dialect: Mapping[str, str], has: Collection[str]) -> list[Row]:
    positions = "text.network.embeddings.position_embeddings.weight"
    long: list[Row] = [(positions, f"{_EMBEDDINGS}_{{ori,res}}.weight", "spliced")]
    return [
        *_image_rows("linear"),
        *(row for row in TEXT_ROWS if dialect["text"] != "long" or row[0] != positions),
        *(long if dialect["text"] == "long" else ()),
        ("text.head", _HEADS[dialect["text"]], "linear"),
    ]


SIGLIP = Family(
    "SigLIP",
    _configure,
    _rows,
    tokenizer=_tokenizer,
    preprocessing="square",
    unused={"*.position_ids": POSITION_IDS},
    dialects=ACTIVATION,
)
SIGLIP_2 = Family(
    "SigLIP 2 NaFlex", _configure, _rows, tokenizer="siglip2", preprocessing="naflex", dialects=ACTIVATION
)
FGCLIP_2 = Family(
    "FG-CLIP 2",
    _fgclip2,
    _fgclip2_rows,
    tokenizer="siglip2",
    preprocessing="fgclip2",
    unused={
        "*.position_ids": POSITION_IDS,
        "dense_feature_head.*": "it makes features of single patches, which a dual encoder does not compare",
        "text_model.head.*": "of the dialect text=short",
        "boxtext_head.*": "of the dialect text=box",
        "longtext_head.*": "of the dialect text=long",
        f"{_EMBEDDINGS}.weight": "positions of the dialects text=short and box",
        f"{_EMBEDDINGS}_*": "positions of the dialect text=long",
    },
    dialects={"text": ("short", "box", "long")},
    has_fixed_length=True,
)
