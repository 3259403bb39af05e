"""CLIP as `CLIPModel` of transformers stores it: OpenAI's, LAION's, DataComp's, DFN's, MetaCLIP 1, and MetaCLIP 2.

Radford et al. 2021, arXiv 2103.00020; Chuang et al. 2025, arXiv 2507.22062.
"""

from collections.abc import Collection, Mapping
from typing import Any

from ernie_vil2.config import ModelConfig
from ernie_vil2.models.weights.families.family import Family, Folder, count_words
from ernie_vil2.models.weights.name_table import Row
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.towers.base import Activation, ImageTowerConfig, ImageVariant, TextVariant
from ernie_vil2.towers.transformer import Transformer, Vit

ACTIVATIONS: dict[str, Activation] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
POSITION_IDS = "the numbers 0 to n - 1, which the towers count by themselves"


def blocks(ours: str, theirs: str) -> list[Row]:
    """Rows of the pre-norm blocks that CLIP and SigLIP have in both towers."""
    return [
        (f"{ours}N.norm1", f"{theirs}N.layer_norm1", "layer"),
        (f"{ours}N.norm2", f"{theirs}N.layer_norm2", "layer"),
        (f"{ours}N.attn.qkv", f"{theirs}N.self_attn.{{q,k,v}}_proj", "linear"),
        (f"{ours}N.attn.proj", f"{theirs}N.self_attn.out_proj", "linear"),
        (f"{ours}N.mlp.fc1", f"{theirs}N.mlp.fc1", "linear"),
        (f"{ours}N.mlp.fc2", f"{theirs}N.mlp.fc2", "linear"),
    ]


def image_rows(layers: str = "vision_model.encoder.layers.") -> list[Row]:
    """Rows of CLIP's image tower, which Chinese-CLIP and AltCLIP have as well."""
    return [
        ("log_logit_scale", "logit_scale", "scalar"),
        ("image.cls_token", "vision_model.embeddings.class_embedding", "token"),
        ("image.patch_embed.proj.weight", "vision_model.embeddings.patch_embedding.weight", "array"),
        ("image.pos_embed", "vision_model.embeddings.position_embedding.weight", "grid"),
        ("image.ln_pre", "vision_model.pre_layrnorm", "layer"),  # their spelling
        *blocks("image.blocks.", layers),
        ("image.norm", "vision_model.post_layernorm", "layer"),
        ("image_projection.weight", "visual_projection.weight", "matrix"),
        ("text_projection.weight", "text_projection.weight", "matrix"),
    ]


TEXT_ROWS: list[Row] = [
    ("text.network.embeddings.word_embeddings.weight", "text_model.embeddings.token_embedding.weight", "array"),
    ("text.network.embeddings.position_embeddings.weight", "text_model.embeddings.position_embedding.weight", "array"),
    *blocks("text.network.encoder.layers.", "text_model.encoder.layers."),
    ("text.network.norm", "text_model.final_layer_norm", "layer"),
]


def sizes(tower: Settings, width: int, depth: int, heads: int) -> dict[str, Any]:
    """Width, depth and heads of a tower in a config.json; these where it leaves them out."""
    return {
        "width": tower.read_count("hidden_size", width),
        "depth": tower.read_count("num_hidden_layers", depth),
        "heads": tower.read_count("num_attention_heads", heads),
    }


def mlp(tower: Settings, hidden: int, activation: Activation) -> dict[str, Any]:
    """Likewise width and activation of its MLPs."""
    return {
        "hidden": tower.read_count("intermediate_size", hidden),
        "activation": tower.read_choice("hidden_act", activation, ACTIVATIONS),
    }


def image_tower(vision: Settings) -> ImageTowerConfig:
    """CLIP's image tower from its section of a config.json; what that leaves out is as in B/32."""
    vision.check_values(num_channels=3)
    return Vit(
        name="ViT",
        image_size=vision.read_count("image_size", 224),
        patch_size=vision.read_count("patch_size", 32),
        **sizes(vision, 768, 12, 12),
        mean=CLIP_MEAN,
        std=CLIP_STD,
        variant=ImageVariant(**mlp(vision, 3072, "quick_gelu"), epsilon=vision.read_epsilon("layer_norm_eps", 1e-5)),
    )


def section(settings: Settings, name: str) -> Settings:
    """A tower's section of a config.json: where the older `NAME_dict` is given, transformers takes all from that."""
    return settings.open_optional_section(f"{name}_dict" if settings.values.get(f"{name}_dict") else name)


def _configure(folder: Folder) -> tuple[ModelConfig, int]:
    settings = folder.settings
    text = section(settings, "text_config")
    # "2" is what older files say for any model; their code then took the position of the largest id.
    end = text.read_token_id("eos_token_id", 49407, count_words(folder))
    largest = end == 2 and settings.values.get("model_type") == "clip"
    longest = text.read_count("max_position_embeddings", 77)
    return ModelConfig(
        image=image_tower(section(settings, "vision_config")),
        text=Transformer(
            name="transformer",
            **sizes(text, 512, 12, 8),
            max_positions=longest,
            pooling="largest" if largest else "end",
            dropout=0.0,
            attention_dropout=0.0,
            epsilon=text.read_epsilon("layer_norm_eps", 1e-5),
            variant=TextVariant(
                **mlp(text, 2048, "quick_gelu"),
                padding=text.read_count("pad_token_id", 1, minimum=0),
                end=None if largest else end,
            ),
        ),
        embed_dim=settings.read_count("projection_dim", 512),
        projections="always",
    ), longest


def _rows(model: ModelConfig, dialect: Mapping[str, str], has: Collection[str]) -> list[Row]:
    return [*image_rows(), *TEXT_ROWS]


CLIP = Family(
    "CLIP",
    _configure,
    _rows,
    tokenizer="clip",
    preprocessing="clip",
    unused={"*.position_ids": POSITION_IDS},
    dialects={"tokenizer": ("stored", "open_clip"), "preprocessing": ("stored", "open_clip")},
)
METACLIP_2 = Family(
    "MetaCLIP 2",
    _configure,
    _rows,
    tokenizer="xlm_roberta",
    preprocessing="clip",
    dialects={"preprocessing": ("stored", "open_clip")},
)
