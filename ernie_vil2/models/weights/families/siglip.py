"""SigLIP and SigLIP 2 as `SiglipModel` and `Siglip2Model` (NaFlex) of transformers store them, and FG-CLIP 2.

Zhai et al. 2023, arXiv 2303.15343; Tschannen et al. 2025, arXiv 2502.14786; Xie et al. 2025, arXiv 2510.10921.

FG-CLIP 2 is SigLIP 2 NaFlex with three ways of reading a text; the code in its folders is never run. The dialect `text`
chooses the way: `short` as in SigLIP 2 (64 tokens), `box` the same with a head for captions of regions, and `long` (196
tokens) with its own positions and head. The ways share everything else, and a model of this package has one of them.
"""

import math
from collections.abc import Collection
from typing import Any

from ernie_vil2.config import ModelConfig
from ernie_vil2.models.weights.families.clip import POSITION_IDS, TEXT_ROWS, make_block_rows, read_mlp, read_sizes
from ernie_vil2.models.weights.families.family import ACTIVATION, Dialect, Family, Folder, Towers
from ernie_vil2.models.weights.name_table import Form, Row
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.towers.base import ImageVariant, TextVariant
from ernie_vil2.towers.transformer import NaFlex, Transformer, Vit, get_image_variant

HALF = [0.5, 0.5, 0.5]  # mean and standard deviation of red, green and blue
GEMMA_WORDS = 256_000  # tokens of SigLIP 2's vocabulary, which is Gemma's
# Authors' names of the layer that projects a text, by the choice of the dialect `text`.
_HEADS = {"short": "text_model.head", "box": "boxtext_head", "long": "longtext_head"}
_EMBEDDINGS = "text_model.embeddings.position_embedding"


def _make_image_rows(patches: str) -> list[Row]:
    """Return the rows of the image tower, and of scale and bias."""
    embedding_form: Form = "linear" if patches == "linear" else "weight_bias"
    return [
        ("log_logit_scale", "logit_scale", "equal"),
        ("logit_bias", "logit_bias", "equal"),
        ("image.patch_embed.proj", "vision_model.embeddings.patch_embedding", embedding_form),
        ("image.pos_embed", "vision_model.embeddings.position_embedding.weight", "grid"),
        *make_block_rows("image.blocks.", "vision_model.encoder.layers."),
        ("image.norm", "vision_model.post_layernorm", "weight_bias"),
        ("image.attn_pool.probe", "vision_model.head.probe", "equal"),
        # in_proj_weight and in_proj_bias hold queries, keys and values together; ours are split into q and kv.
        ("image.attn_pool.{q,kv}", "vision_model.head.attention.in_proj_*", "linear"),
        ("image.attn_pool.proj", "vision_model.head.attention.out_proj", "linear"),
        ("image.attn_pool.norm", "vision_model.head.layernorm", "weight_bias"),
        ("image.attn_pool.mlp.fc1", "vision_model.head.mlp.fc1", "linear"),
        ("image.attn_pool.mlp.fc2", "vision_model.head.mlp.fc2", "linear"),
    ]


def _configure(folder: Folder) -> Towers:
    """Read the towers of `SiglipModel`, or of `Siglip2Model`, whose images may have any shape."""
    settings = folder.settings
    text, vision = settings.open_optional_section("text_config"), settings.open_optional_section("vision_config")
    vision.check_values(num_channels=3, vision_use_head=True)
    text_sizes = read_sizes(text, 768, 12, 12)
    text_length = text.read_int("max_position_embeddings", 64)
    patch_size = vision.read_int("patch_size", 16)
    is_naflex = settings.values["model_type"] != "siglip"
    if is_naflex:
        # NaFlex has a square grid of position embeddings, which is resized to each image.
        num_patches = vision.read_int("num_patches", 256)
        side = math.isqrt(num_patches)
        if side * side != num_patches:
            raise vision.make_error("num_patches", "a square number is expected")
        image_size = side * patch_size
    else:
        image_size = vision.read_int("image_size", 224)
    fields: dict[str, Any] = {
        "image_size": image_size,
        "patch_size": patch_size,
        **read_sizes(vision, 768, 12, 12),
        "mean": HALF,
        "std": HALF,
        "variant": ImageVariant(
            **read_mlp(vision, 3072, "gelu_tanh"),
            epsilon=vision.read_epsilon("layer_norm_eps", 1e-6),
            patches="linear" if is_naflex else "convolution",
            patch_bias=True,
            class_token=False,
            input_norm=False,
            pooling="attention",
        ),
    }
    embed_dim = text.read_int("projection_size", None) or text_sizes["width"]
    text_tower = Transformer(
        name="transformer",
        **text_sizes,
        max_positions=text_length,
        pooling="last",
        dropout=0.0,
        attention_dropout=0.0,
        epsilon=text.read_epsilon("layer_norm_eps", 1e-6),
        variant=TextVariant(
            **read_mlp(text, 3072, "gelu_tanh"),
            mask="none",
            padding=text.read_int("pad_token_id", 1, minimum=0),
            head=embed_dim,
        ),
    )
    model = ModelConfig(
        image=NaFlex(name="NaFlex", **fields) if is_naflex else Vit(name="ViT", **fields),
        text=text_tower,
        embed_dim=embed_dim,
    )
    return Towers(model, text_length)


def _find_rules(folder: Folder) -> str:
    """Return SigLIP 2's rules if the folder has Gemma's tokenizer, or as many words as it; otherwise SigLIP's."""
    path = folder.weights.with_name("tokenizer_config.json")
    tokenizer_class = ""
    if path.is_file():
        tokenizer_class = str(Settings.from_file(path).values.get("tokenizer_class")).lower()
    num_words = folder.settings.open_optional_section("text_config").read_int("vocab_size", 32_000)
    if "gemma" in tokenizer_class or "siglip2" in tokenizer_class or num_words == GEMMA_WORDS:
        return "siglip2"
    return "siglip"


def _make_rows(model: ModelConfig, dialect: Dialect, array_names: Collection[str]) -> list[Row]:
    variant = get_image_variant(model.image) or ImageVariant()
    return [*_make_image_rows(variant.patches), *TEXT_ROWS, ("text.head", "text_model.head", "linear")]


def _configure_fgclip2(folder: Folder) -> Towers:
    model, short_length = _configure(folder)
    text = folder.settings.open_optional_section("text_config")
    long_length = text.read_int("longtext_len", 196)
    if _count_kept_positions(folder.settings) > long_length:
        raise text.make_error("keep_len", f"texts have at most {long_length} tokens (longtext_len)")
    if folder.dialect["text"] != "long":
        return Towers(model, short_length)
    tower = model.text.model_copy(update={"max_positions": long_length})
    return Towers(model.model_copy(update={"text": tower}), long_length)


def _count_kept_positions(settings: Settings) -> int:
    """Return how many positions of short texts a long text keeps; the further ones are its own."""
    return settings.open_optional_section("text_config").read_int("keep_len", 20, minimum=0)


def _make_fgclip2_rows(model: ModelConfig, dialect: Dialect, array_names: Collection[str]) -> list[Row]:
    choice = dialect["text"]
    text_rows = TEXT_ROWS
    if choice == "long":
        positions = "text.network.embeddings.position_embeddings.weight"
        text_rows = [row for row in TEXT_ROWS if row[0] != positions]
        text_rows.append((positions, f"{_EMBEDDINGS}_{{ori,res}}.weight", "spliced"))
    return [*_make_image_rows("linear"), *text_rows, ("text.head", _HEADS[choice], "linear")]


SIGLIP = Family(
    "SigLIP",
    _configure,
    _make_rows,
    tokenizer=_find_rules,
    preprocessing="square",
    unused={"*.position_ids": POSITION_IDS},
    dialects=ACTIVATION,
)
SIGLIP_2 = Family(
    "SigLIP 2 NaFlex", _configure, _make_rows, tokenizer="siglip2", preprocessing="naflex", dialects=ACTIVATION
)
FGCLIP_2 = Family(
    "FG-CLIP 2",
    _configure_fgclip2,
    _make_fgclip2_rows,
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
    count_first_rows=_count_kept_positions,
)
