"""CLIP as `CLIPModel` of transformers stores it (OpenAI, LAION, DataComp, DFN, MetaCLIP 1), and MetaCLIP 2.

Radford et al. 2021, arXiv 2103.00020; Chuang et al. 2025, arXiv 2507.22062.
"""

from collections.abc import Collection
from typing import Any

from ernie_vil2.config import ModelConfig
from ernie_vil2.models.weights.families.family import Dialect, Family, Folder, Towers, count_words
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
POSITION_IDS = "the numbers 0 to n - 1, which the towers count by themselves"  # why they are unused


def make_block_rows(ours: str, theirs: str) -> list[Row]:
    """Return the rows of the pre-norm blocks in both towers of CLIP and SigLIP."""
    return [
        (f"{ours}N.norm1", f"{theirs}N.layer_norm1", "weight_bias"),
        (f"{ours}N.norm2", f"{theirs}N.layer_norm2", "weight_bias"),
        (f"{ours}N.attn.qkv", f"{theirs}N.self_attn.{{q,k,v}}_proj", "linear"),
        (f"{ours}N.attn.proj", f"{theirs}N.self_attn.out_proj", "linear"),
        (f"{ours}N.mlp.fc1", f"{theirs}N.mlp.fc1", "linear"),
        (f"{ours}N.mlp.fc2", f"{theirs}N.mlp.fc2", "linear"),
    ]


def make_image_rows(layers: str = "vision_model.encoder.layers.") -> list[Row]:
    """Return the rows of CLIP's image tower, which Chinese-CLIP and AltCLIP have, too."""
    return [
        ("log_logit_scale", "logit_scale", "scalar"),
        ("image.cls_token", "vision_model.embeddings.class_embedding", "token"),
        ("image.patch_embed.proj.weight", "vision_model.embeddings.patch_embedding.weight", "equal"),
        ("image.pos_embed", "vision_model.embeddings.position_embedding.weight", "grid"),
        ("image.ln_pre", "vision_model.pre_layrnorm", "weight_bias"),  # their spelling
        *make_block_rows("image.blocks.", layers),
        ("image.norm", "vision_model.post_layernorm", "weight_bias"),
        ("image_projection.weight", "visual_projection.weight", "transposed"),
        ("text_projection.weight", "text_projection.weight", "transposed"),
    ]


TEXT_ROWS: list[Row] = [
    ("text.network.embeddings.word_embeddings.weight", "text_model.embeddings.token_embedding.weight", "equal"),
    ("text.network.embeddings.position_embeddings.weight", "text_model.embeddings.position_embedding.weight", "equal"),
    *make_block_rows("text.network.encoder.layers.", "text_model.encoder.layers."),
    ("text.network.norm", "text_model.final_layer_norm", "weight_bias"),
]


def read_sizes(tower: Settings, width: int, depth: int, heads: int) -> dict[str, Any]:
    """Read width, depth and heads of a tower; the arguments are the defaults."""
    return {
        "width": tower.read_int("hidden_size", width),
        "depth": tower.read_int("num_hidden_layers", depth),
        "heads": tower.read_int("num_attention_heads", heads),
    }


def read_mlp(tower: Settings, hidden: int, activation: Activation) -> dict[str, Any]:
    """Read width and activation of the MLPs of a tower; the arguments are the defaults."""
    return {
        "hidden": tower.read_int("intermediate_size", hidden),
        "activation": tower.read_choice("hidden_act", activation, ACTIVATIONS),
    }


def read_image_tower(vision: Settings) -> ImageTowerConfig:
    """Read CLIP's image tower from its section of a config.json; defaults are those of B/32."""
    vision.check_values(num_channels=3)
    epsilon = vision.read_epsilon("layer_norm_eps", 1e-5)
    return Vit(
        name="ViT",
        image_size=vision.read_int("image_size", 224),
        patch_size=vision.read_int("patch_size", 32),
        **read_sizes(vision, 768, 12, 12),
        mean=CLIP_MEAN,
        std=CLIP_STD,
        variant=ImageVariant(**read_mlp(vision, 3072, "quick_gelu"), epsilon=epsilon),
    )


def find_activation_name(activation: Activation) -> str:
    """Return the name of an activation in settings, the inverse of `ACTIVATIONS`; ValueError if there is none."""
    # The last one that fits: of the names of gelu_tanh, the code of Chinese-CLIP's authors knows gelu_new alone.
    for name, meaning in reversed(ACTIVATIONS.items()):
        if meaning == activation:
            return name
    raise ValueError(f"no setting of this layout stands for the activation {activation}")


def open_section(settings: Settings, name: str) -> Settings:
    """Return a tower's section of a config.json; the older `NAME_dict` goes before it, as in transformers."""
    return settings.open_optional_section(f"{name}_dict" if settings.values.get(f"{name}_dict") else name)


def _configure(folder: Folder) -> Towers:
    settings = folder.settings
    # Here and in the other families, the defaults are those of the classes in transformers.
    text = open_section(settings, "text_config")
    # Older files have the end token 2, whatever the model. Their code takes the position of the largest id instead.
    end = text.read_token_id("eos_token_id", 49407, count_words(folder))
    uses_largest_id = end == 2 and settings.values.get("model_type") == "clip"
    text_length = text.read_int("max_position_embeddings", 77)
    text_tower = Transformer(
        name="transformer",
        **read_sizes(text, 512, 12, 8),
        max_positions=text_length,
        pooling="largest_id" if uses_largest_id else "end",
        dropout=0.0,
        attention_dropout=0.0,
        epsilon=text.read_epsilon("layer_norm_eps", 1e-5),
        variant=TextVariant(
            **read_mlp(text, 2048, "quick_gelu"),
            padding=text.read_int("pad_token_id", 1, minimum=0),
            end=None if uses_largest_id else end,
        ),
    )
    model = ModelConfig(
        image=read_image_tower(open_section(settings, "vision_config")),
        text=text_tower,
        embed_dim=settings.read_int("projection_dim", 512),
        projections="both",
    )
    return Towers(model, text_length)


def _make_rows(model: ModelConfig, dialect: Dialect, array_names: Collection[str]) -> list[Row]:
    return [*make_image_rows(), *TEXT_ROWS]


CLIP = Family(
    "CLIP",
    _configure,
    _make_rows,
    tokenizer="clip",
    preprocessing="clip",
    unused={"*.position_ids": POSITION_IDS},
    dialects={"tokenizer": ("stored", "open_clip"), "preprocessing": ("stored", "open_clip")},
)
METACLIP_2 = Family(
    "MetaCLIP 2",
    _configure,
    _make_rows,
    tokenizer="xlm_roberta",
    preprocessing="clip",
    dialects={"preprocessing": ("stored", "open_clip")},
)
