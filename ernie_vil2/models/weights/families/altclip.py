"""AltCLIP (Chen et al. 2022, arXiv 2211.06679) as `AltCLIPModel` of transformers stores it: CLIP's images, XLM-R."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ernie_vil2.config import ModelConfig, TextTowerConfig
from ernie_vil2.config.model import TextVariant
from ernie_vil2.models.weights.families.chinese_clip import bert_rows
from ernie_vil2.models.weights.families.clip import ACTIVATIONS, POSITION_IDS, image_rows, image_tower, section
from ernie_vil2.models.weights.families.family import Family, Folder
from ernie_vil2.models.weights.names import Row

_LAYERS, _LAYERS_5 = "vision_model.encoder.layers.", "vision_model.encoder.layer."


def _configure(folder: Folder) -> tuple[ModelConfig, int]:
    settings = folder.settings
    text = section(settings, "text_config")
    text.check_facts({"position_embedding_type": "absolute"})
    padding = text.count("pad_token_id", 1, least=0)
    positions = text.count("max_position_embeddings", 514, least=padding + 2)
    return ModelConfig(
        image=image_tower(section(settings, "vision_config")),
        text=TextTowerConfig(
            name="transformer",
            width=text.count("hidden_size", 1024),
            depth=text.count("num_hidden_layers", 24),
            heads=text.count("num_attention_heads", 16),
            max_positions=positions,
            pooling="first",
            dropout=text.share("hidden_dropout_prob", 0.1),
            attention_dropout=text.share("attention_probs_dropout_prob", 0.1),
            epsilon=text.number("layer_norm_eps", 1e-5),
            variant=TextVariant(
                norm="after",
                hidden=text.count("intermediate_size", 4096),
                activation=text.choice("hidden_act", "gelu", ACTIVATIONS),
                token_types=text.count("type_vocab_size", 1),
                first_position=padding + 1,  # RoBERTa's row of the padding token comes before the first position
                mask="padding",
                padding=padding,
                head=text.count("project_dim", 768),
                head_norm=True,
            ),
        ),
        embed_dim=settings.count("projection_dim", 768),
        projections="always",
    ), positions - padding - 1


def _rows(model: ModelConfig, dialect: Mapping[str, str], has: Collection[str]) -> list[Row]:
    spelt_by_5 = any(name.startswith(_LAYERS_5) for name in has)  # of transformers; 4 and the published files: layers
    return [
        *image_rows(_LAYERS_5 if spelt_by_5 else _LAYERS),
        *bert_rows("text_model.roberta."),
        ("text.head_norm", "text_model.pre_LN", "layer"),
        ("text.head", "text_model.transformation", "linear"),
    ]


ALTCLIP = Family(
    "AltCLIP",
    _configure,
    _rows,
    tokenizer="xlm_roberta",
    preprocessing="clip",
    unused={"*.position_ids": POSITION_IDS, "text_model.roberta.pooler.*": "RoBERTa's pooler, which is not used"},
)
