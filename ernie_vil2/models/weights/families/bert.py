"""CLIP's image tower with a BERT or a RoBERTa, as transformers stores them: Chinese-CLIP and AltCLIP.

Yang et al. 2022, arXiv 2211.01335; Chen et al. 2022, arXiv 2211.06679.
"""

from collections.abc import Collection, Mapping
from typing import Any

from ernie_vil2.config import ModelConfig
from ernie_vil2.models.weights.families.clip import (
    POSITION_IDS,
    find_activation_name,
    make_image_rows,
    open_section,
    read_image_tower,
    read_mlp,
    read_sizes,
)
from ernie_vil2.models.weights.families.family import Dialect, Family, Folder, Towers, count_words
from ernie_vil2.models.weights.format import StoredModel
from ernie_vil2.models.weights.name_table import Row
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.towers.base import Pooling, TextTowerConfig, TextVariant
from ernie_vil2.towers.transformer import Transformer, Vit, get_image_variant, get_text_variant

TEXT_LENGTH = 52  # tokens of the texts that Chinese-CLIP was trained on; its position embedding has 512 rows
# Prefix of the blocks of AltCLIP's image tower: in transformers 4 and the published files, and in transformers 5.
_BLOCKS_4, _BLOCKS_5 = "vision_model.encoder.layers.", "vision_model.encoder.layer."
NO_POOLER = "BERT's pooler, which the family does not use: its features are the [CLS] state"  # why it is unused


def make_bert_rows(theirs: str) -> list[Row]:
    """Return the rows of a BERT whose names begin with `theirs`."""
    layers, network = f"{theirs}encoder.layer.N.", "text.network."
    ours = f"{network}encoder.layers.N."
    return [
        (f"{network}embeddings.word_embeddings.weight", f"{theirs}embeddings.word_embeddings.weight", "equal"),
        (f"{network}embeddings.position_embeddings.weight", f"{theirs}embeddings.position_embeddings.weight", "equal"),
        (
            f"{network}embeddings.token_type_embeddings.weight",
            f"{theirs}embeddings.token_type_embeddings.weight",
            "equal",
        ),
        (f"{network}embeddings.layer_norm", f"{theirs}embeddings.LayerNorm", "weight_bias"),
        (f"{ours}self_attn.q_proj", f"{layers}attention.self.query", "linear"),
        (f"{ours}self_attn.k_proj", f"{layers}attention.self.key", "linear"),
        (f"{ours}self_attn.v_proj", f"{layers}attention.self.value", "linear"),
        (f"{ours}self_attn.out_proj", f"{layers}attention.output.dense", "linear"),
        (f"{ours}norm1", f"{layers}attention.output.LayerNorm", "weight_bias"),
        (f"{ours}linear1", f"{layers}intermediate.dense", "linear"),
        (f"{ours}linear2", f"{layers}output.dense", "linear"),
        (f"{ours}norm2", f"{layers}output.LayerNorm", "weight_bias"),
    ]


def read_text_tower(
    text: Settings,
    sizes: Mapping[str, Any],
    positions: int,
    epsilon: float,
    pooling: Pooling = "first",
    **variant: Any,
) -> TextTowerConfig:
    """Read the tower of a BERT or a RoBERTa from its section of a config.json.

    Args:
        text: the section.
        sizes: width, depth and heads.
        positions: rows of the position embedding.
        epsilon: default of the LayerNorms' epsilon.
        pooling: how the features are chosen.
        variant: further fields of the `TextVariant`.
    """
    text.check_values(position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
    return Transformer(
        name="transformer",
        **sizes,
        max_positions=positions,
        pooling=pooling,
        # Dropout changes nothing until the model is trained.
        dropout=text.read_probability("hidden_dropout_prob", 0.1),
        attention_dropout=text.read_probability("attention_probs_dropout_prob", 0.1),
        epsilon=text.read_epsilon("layer_norm_eps", epsilon),
        variant=TextVariant(norm="after", mask="padding", **variant),
    )


def _configure_chinese_clip(folder: Folder) -> Towers:
    settings, text = folder.settings, open_section(folder.settings, "text_config")
    positions = text.read_int("max_position_embeddings", 512)
    model = ModelConfig(
        image=read_image_tower(open_section(settings, "vision_config")),
        text=read_text_tower(
            text,
            read_sizes(text, 768, 12, 12),
            positions,
            1e-12,
            **read_mlp(text, 3072, "gelu"),
            token_types=text.read_int("type_vocab_size", 2),
            padding=text.read_token_id("pad_token_id", 0, count_words(folder)),
        ),
        embed_dim=settings.read_int("projection_dim", 512),
        projections="both",
    )
    return Towers(model, min(TEXT_LENGTH, positions))


def _configure_altclip(folder: Folder) -> Towers:
    settings, text = folder.settings, open_section(folder.settings, "text_config")
    # RoBERTa counts positions from the row after that of the padding token.
    padding = text.read_token_id("pad_token_id", 1, count_words(folder))
    first_position = padding + 1
    positions = text.read_int("max_position_embeddings", 514, minimum=first_position + 1)
    model = ModelConfig(
        image=read_image_tower(open_section(settings, "vision_config")),
        text=read_text_tower(
            text,
            read_sizes(text, 1024, 24, 16),
            positions,
            1e-5,
            **read_mlp(text, 4096, "gelu"),
            token_types=text.read_int("type_vocab_size", 1),
            first_position=first_position,
            padding=padding,
            head=text.read_int("project_dim", 768),
            head_norm=True,
        ),
        embed_dim=settings.read_int("projection_dim", 768),
        projections="both",
    )
    return Towers(model, positions - first_position)


def check_vit(model: StoredModel, layout: str) -> None:
    """Raise ValueError if a Chinese-CLIP has no ViT or no vocabulary, and its settings cannot be written."""
    image = model.config.Model.image
    if not isinstance(image, Vit) or model.tokens is None:
        raise ValueError(
            f"the layout {layout} of Chinese-CLIP takes a ViT and a vocabulary; this model has an image "
            f"tower {image.name} and {'a' if model.tokens else 'no'} vocabulary"
        )


def describe_text_tower(config: ModelConfig) -> dict[str, Any]:
    """Return the settings of the text tower that both layouts of Chinese-CLIP share."""
    text = config.text
    variant = get_text_variant(text)
    if variant is None:
        raise ValueError(f"{text.name}: a tower without a variant has no settings in this layout")
    sizes = text.sizes
    return {
        "hidden_size": sizes["width"],
        "num_hidden_layers": sizes["depth"],
        "num_attention_heads": sizes["heads"],
        "intermediate_size": variant.hidden,
        "hidden_act": find_activation_name(variant.activation),
        "hidden_dropout_prob": text.dropout,
        "attention_probs_dropout_prob": text.attention_dropout,
        "max_position_embeddings": text.max_positions,
        "type_vocab_size": variant.token_types,
    }


def _make_settings(model: StoredModel) -> dict[str, Any]:
    """Return the JSON files of a Chinese-CLIP for transformers, by name."""
    check_vit(model, "hf")
    config = model.config.Model
    image, text, size = config.image, config.text, config.image.image_size
    sizes = image.sizes
    image_options, text_options = get_image_variant(image), get_text_variant(text)
    if image_options is None or text_options is None:
        raise ValueError(f"{image.name}, {text.name}: a tower without a variant has no settings in this layout")
    text_config = {
        "model_type": "chinese_clip_text_model",
        "vocab_size": model.vocab_size,
        **describe_text_tower(config),
        "layer_norm_eps": text.epsilon,
        "pad_token_id": text_options.padding,
    }
    vision_config = {
        "model_type": "chinese_clip_vision_model",
        "hidden_size": sizes["width"],
        "num_hidden_layers": sizes["depth"],
        "num_attention_heads": sizes["heads"],
        "intermediate_size": image_options.hidden,
        "hidden_act": find_activation_name(image_options.activation),
        "image_size": size,
        "patch_size": sizes["patch_size"],
        "layer_norm_eps": image_options.epsilon,
        "projection_dim": config.embed_dim,
    }
    settings = {
        "model_type": "chinese_clip",
        "architectures": ["ChineseCLIPModel"],
        "projection_dim": config.embed_dim,
        "text_config": text_config,
        "vision_config": vision_config,
    }
    processor = {
        "image_processor_type": "ChineseCLIPImageProcessor",
        "processor_class": "ChineseCLIPProcessor",
        **dict.fromkeys(("do_convert_rgb", "do_resize", "do_rescale", "do_normalize"), True),
        "do_center_crop": False,
        "size": {"height": size, "width": size},
        "resample": 3,
        "rescale_factor": 1 / 255,
        "image_mean": image.mean,
        "image_std": image.std,
    }
    return {"config.json": settings, "preprocessor_config.json": processor}


def _make_chinese_clip_rows(model: ModelConfig, dialect: Dialect, array_names: Collection[str]) -> list[Row]:
    return [*make_image_rows(), *make_bert_rows("text_model.")]


def _make_altclip_rows(model: ModelConfig, dialect: Dialect, array_names: Collection[str]) -> list[Row]:
    is_version_5 = any(name.startswith(_BLOCKS_5) for name in array_names)
    return [
        *make_image_rows(_BLOCKS_5 if is_version_5 else _BLOCKS_4),
        *make_bert_rows("text_model.roberta."),
        ("text.head_norm", "text_model.pre_LN", "weight_bias"),
        ("text.head", "text_model.transformation", "linear"),
    ]


CHINESE_CLIP = Family(
    "Chinese-CLIP",
    _configure_chinese_clip,
    _make_chinese_clip_rows,
    tokenizer="bert",
    preprocessing="square",
    dialects={"tokenizer": ("stored", "cn_clip"), "preprocessing": ("stored", "open_clip")},
    make_settings=_make_settings,
    twin_format="cn_clip",
    unused={"*.position_ids": POSITION_IDS, "text_model.pooler.*": NO_POOLER},
)
ALTCLIP = Family(
    "AltCLIP",
    _configure_altclip,
    _make_altclip_rows,
    tokenizer="xlm_roberta",
    preprocessing="clip",
    unused={"*.position_ids": POSITION_IDS, "text_model.roberta.pooler.*": "RoBERTa's pooler, which is not used"},
)
