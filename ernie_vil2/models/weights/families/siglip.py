"""SigLIP and SigLIP 2 as `SiglipModel` and `Siglip2Model` (NaFlex) of transformers store them.

Zhai et al. 2023, arXiv 2303.15343; Tschannen et al. 2025, arXiv 2502.14786.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from ernie_vil2.config import ImageTowerConfig, ModelConfig, TextTowerConfig
from ernie_vil2.config.model import ImageVariant, TextVariant
from ernie_vil2.models.weights.families.clip import ACTIVATIONS, POSITION_IDS, TEXT_ROWS, blocks
from ernie_vil2.models.weights.families.family import ACTIVATION, Family, Folder
from ernie_vil2.models.weights.names import Form, Row
from ernie_vil2.models.weights.settings import Settings

HALF = [0.5, 0.5, 0.5]
GEMMA_WORDS = 256_000
"""Of SigLIP 2's vocabulary."""


def attention_pool(ours: str, theirs: str) -> list[Row]:
    """Rows of the attention pooling that their `MultiheadAttention` has."""
    return [
        (f"{ours}probe", f"{theirs}probe", "array"),
        (f"{ours}{{q,kv}}", f"{theirs}attention.in_proj_*", "linear"),
        (f"{ours}proj", f"{theirs}attention.out_proj", "linear"),
        (f"{ours}norm", f"{theirs}layernorm", "layer"),
        (f"{ours}mlp.fc1", f"{theirs}mlp.fc1", "linear"),
        (f"{ours}mlp.fc2", f"{theirs}mlp.fc2", "linear"),
    ]


def image_rows(patches: str) -> list[Row]:
    """Rows of the image tower, and of scale and bias."""
    embedded: Form = "linear" if patches == "linear" else "layer"
    return [
        ("log_logit_scale", "logit_scale", "array"),
        ("logit_bias", "logit_bias", "array"),
        ("image.patch_embed.proj", "vision_model.embeddings.patch_embedding", embedded),
        ("image.pos_embed", "vision_model.embeddings.position_embedding.weight", "grid"),
        *blocks("image.blocks.", "vision_model.encoder.layers."),
        ("image.norm", "vision_model.post_layernorm", "layer"),
        *attention_pool("image.attn_pool.", "vision_model.head."),
    ]


def configure(folder: Folder) -> tuple[ModelConfig, int]:
    """The towers of `SiglipModel`, and of `Siglip2Model`, whose images have any shape."""
    settings = folder.settings
    text, vision = settings.part("text_config"), settings.part("vision_config")
    vision.check_facts({"num_channels": 3, "vision_use_head": True})
    width, longest = text.count("hidden_size", 768), text.count("max_position_embeddings", 64)
    size, side = vision.count("patch_size", 16), None
    any_shape = settings.values["model_type"] != "siglip"
    if any_shape:
        side = math.isqrt(count := vision.count("num_patches", 256))
        if side * side != count:
            raise vision.refusal("num_patches", "a square number is expected")
    image = ImageTowerConfig(
        name="NaFlex" if any_shape else "ViT",
        image_size=vision.count("image_size", 224) if side is None else side * size,
        patch_size=size,
        width=vision.count("hidden_size", 768),
        depth=vision.count("num_hidden_layers", 12),
        heads=vision.count("num_attention_heads", 12),
        mean=HALF,
        std=HALF,
        variant=ImageVariant(
            **_mlp(vision),
            epsilon=vision.number("layer_norm_eps", 1e-6),
            patches="linear" if any_shape else "convolution",
            patch_bias=True,
            class_token=False,
            input_norm=False,
            pooling="attention",
        ),
    )
    head = text.count("projection_size", None) or width
    return ModelConfig(
        image=image,
        text=TextTowerConfig(
            name="transformer",
            width=width,
            depth=text.count("num_hidden_layers", 12),
            heads=text.count("num_attention_heads", 12),
            max_positions=longest,
            pooling="last",
            dropout=0.0,
            attention_dropout=0.0,
            epsilon=text.number("layer_norm_eps", 1e-6),
            variant=TextVariant(**_mlp(text), mask="none", padding=text.count("pad_token_id", 1, least=0), head=head),
        ),
        embed_dim=head,
    ), longest


def _mlp(tower: Settings) -> dict:
    return {
        "hidden": tower.count("intermediate_size", 3072),
        "activation": tower.choice("hidden_act", "gelu_tanh", ACTIVATIONS),
    }


def _tokenizer(folder: Folder) -> str:
    """SigLIP 2's where the folder names its class, which is Gemma's, or has as many words; else SigLIP's."""
    path = folder.weights.with_name("tokenizer_config.json")
    kind = str(Settings.read(path).values.get("tokenizer_class")) if path.is_file() else ""
    words = folder.settings.part("text_config").count("vocab_size", 32_000)
    return "siglip2" if "gemma" in kind.lower() or "siglip2" in kind.lower() or words == GEMMA_WORDS else "siglip"


def _rows(model: ModelConfig, dialect: Mapping[str, str], has: Collection[str]) -> list[Row]:
    variant = model.image.variant or ImageVariant()
    return [*image_rows(variant.patches), *TEXT_ROWS, ("text.head", "text_model.head", "linear")]


SIGLIP = Family(
    "SigLIP",
    configure,
    _rows,
    tokenizer=_tokenizer,
    preprocessing="square",
    unused={"*.position_ids": POSITION_IDS},
    dialects=ACTIVATION,
)
SIGLIP_2 = Family("SigLIP 2 NaFlex", configure, _rows, tokenizer="siglip2", preprocessing="naflex", dialects=ACTIVATION)
