"""Chinese-CLIP (Yang et al. 2022, arXiv 2211.01335) as `ChineseCLIPModel` of transformers stores it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ernie_vil2.config import ModelConfig, TextTowerConfig
from ernie_vil2.config.model import TextVariant
from ernie_vil2.models.weights.families.clip import ACTIVATIONS, POSITION_IDS, image_rows, image_tower, section
from ernie_vil2.models.weights.families.family import Family, Folder
from ernie_vil2.models.weights.names import Row

LENGTH = 52
"""Tokens of a text with which Chinese-CLIP was trained; its position embedding has 512."""
NO_POOLER = "BERT's pooler, which the family does not use: its features are the [CLS] state"


def bert_rows(theirs: str) -> list[Row]:
    """Rows of a BERT whose names begin with `theirs`."""
    layers, network = f"{theirs}encoder.layer.N.", "text.network."
    ours = f"{network}encoder.layers.N."
    return [
        (f"{network}embeddings.word_embeddings.weight", f"{theirs}embeddings.word_embeddings.weight", "array"),
        (f"{network}embeddings.position_embeddings.weight", f"{theirs}embeddings.position_embeddings.weight", "array"),
        (
            f"{network}embeddings.token_type_embeddings.weight",
            f"{theirs}embeddings.token_type_embeddings.weight",
            "array",
        ),
        (f"{network}embeddings.layer_norm", f"{theirs}embeddings.LayerNorm", "layer"),
        (f"{ours}self_attn.q_proj", f"{layers}attention.self.query", "linear"),
        (f"{ours}self_attn.k_proj", f"{layers}attention.self.key", "linear"),
        (f"{ours}self_attn.v_proj", f"{layers}attention.self.value", "linear"),
        (f"{ours}self_attn.out_proj", f"{layers}attention.output.dense", "linear"),
        (f"{ours}norm1", f"{layers}attention.output.LayerNorm", "layer"),
        (f"{ours}linear1", f"{layers}intermediate.dense", "linear"),
        (f"{ours}linear2", f"{layers}output.dense", "linear"),
        (f"{ours}norm2", f"{layers}output.LayerNorm", "layer"),
    ]


def _configure(folder: Folder) -> tuple[ModelConfig, int]:
    settings = folder.settings
    text = section(settings, "text_config")
    text.check_facts({"position_embedding_type": "absolute"})
    positions = text.count("max_position_embeddings", 512)
    return ModelConfig(
        image=image_tower(section(settings, "vision_config")),
        text=TextTowerConfig(
            name="transformer",
            width=text.count("hidden_size", 768),
            depth=text.count("num_hidden_layers", 12),
            heads=text.count("num_attention_heads", 12),
            max_positions=positions,
            pooling="first",
            dropout=text.share("hidden_dropout_prob", 0.1),
            attention_dropout=text.share("attention_probs_dropout_prob", 0.1),
            epsilon=text.number("layer_norm_eps", 1e-12),
            variant=TextVariant(
                norm="after",
                hidden=text.count("intermediate_size", 3072),
                activation=text.choice("hidden_act", "gelu", ACTIVATIONS),
                token_types=text.count("type_vocab_size", 2),
                mask="padding",
                padding=text.count("pad_token_id", 0, least=0),
            ),
        ),
        embed_dim=settings.count("projection_dim", 512),
        projections="always",
    ), min(LENGTH, positions)


def _rows(model: ModelConfig, dialect: Mapping[str, str], has: Collection[str]) -> list[Row]:
    return [*image_rows(), *bert_rows("text_model.")]


CHINESE_CLIP = Family(
    "Chinese-CLIP",
    _configure,
    _rows,
    tokenizer="bert",
    preprocessing="square",
    dialects={"tokenizer": ("stored", "cn_clip"), "preprocessing": ("stored", "open_clip")},
    unused={"*.position_ids": POSITION_IDS, "text_model.pooler.*": NO_POOLER},
)
