"""The JSON files next to a release's weights: what they say about the model, and how they are written for one.

Whatever the release's own code would obey is read, or refused by name where our towers cannot do the same: two models
of equal weights may differ in nothing else. Sizes are those of the weights, with which the files must agree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.config import Config, DataConfig, ModelConfig, ViewsConfig
from ernie_vil2.io.files import write_text
from ernie_vil2.models.weights.releases import WORDS, WeightFormat, architecture
from ernie_vil2.models.weights.settings import Settings

OFFICIAL_LENGTH = 48
"""Tokens of a text in the official release's configuration."""
_OFFICIAL_NAMES = ("ernie_config.json", "ernie_config.base.json")  # the first is also what is written
# The official code fixes the image tower's heads; this key, which it ignores, keeps those of other models.
_IMAGE_HEADS = "image_num_attention_heads"
_SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
# What our towers compute. The text tower's layer_norm_eps is not in it: PaddleNLP's code sets 1e-12 whatever it says.
_TEXT_FACTS = {"hidden_act": "gelu", "type_vocab_size": 0, "use_task_id": False, "pad_token_id": 0}
_VISION_FACTS = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-6, "num_channels": 3}
_PROCESSOR_FACTS = {
    **dict.fromkeys(("do_center_crop", "do_convert_rgb", "do_normalize", "do_rescale", "do_resize"), True),
    "resample": 3,
    "image_processor_type": "ErnieViLImageProcessor",
}
_TOKENIZER_FACTS = {"do_lower_case": True, "tokenizer_class": "ErnieViLTokenizer"}


def read_official(weights: Path, arrays: Mapping[str, np.ndarray], heads: tuple[int, int] | None) -> Config:
    """The configuration of an official model, from its arrays by our names and the JSON file of its text tower, which
    may be missing: then heads are `heads`, or width / 64.

    Raises:
        ValueError: the file and the weights do not belong together, or to a model of another kind.
    """
    found = [path for path in map(weights.with_name, _OFFICIAL_NAMES) if path.is_file()]
    settings = Settings.read(found[0]) if found else Settings(weights, {})
    settings.check_facts({"hidden_act": "gelu", "has_pooler": True})
    heads_in_file = settings.count(_IMAGE_HEADS, None), settings.count("num_attention_heads", None)
    model = _architecture(weights, arrays, heads or heads_in_file, "official")
    settings.check_sizes(_text_sizes(model, len(arrays[WORDS])), {})
    return _config(_with_dropout(model, settings), OFFICIAL_LENGTH)


def read_paddlenlp(weights: Path, arrays: Mapping[str, np.ndarray], heads: tuple[int, int] | None) -> Config:
    """The configuration of a PaddleNLP folder, from its arrays by our names and its JSON files.

    Raises:
        ValueError: a file is missing, or they and the weights do not belong together, or to a model of another kind.
    """
    paths = [weights.with_name(f"{name}config.json") for name in ("", "preprocessor_", "tokenizer_")]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"{weights.parent}: {', '.join(missing)} missing next to PaddleNLP's weights; without that it "
                         "is another model: copy the whole folder")  # fmt: skip
    whole, processor, tokenizer = map(Settings.read, paths)
    text, vision = whole.within("text_config"), whole.within("vision_config")
    heads_in_file = vision.count("num_attention_heads", 12), text.count("num_attention_heads", 12)
    model = _architecture(weights, arrays, heads or heads_in_file, "paddlenlp")
    text.check_facts(_TEXT_FACTS)
    vision.check_facts(_VISION_FACTS)
    defaults = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}
    text_sizes = _text_sizes(model, len(arrays[WORDS])) | {"intermediate_size": 4 * model.text.sizes["width"]}
    text.check_sizes(text_sizes, defaults | {"vocab_size": 40_000, "max_position_embeddings": 2048})
    vision.check_sizes(_vision_sizes(model), defaults | {"image_size": 224, "patch_size": 16})
    tokenizer.check_facts(_TOKENIZER_FACTS)
    longest = tokenizer.count("model_max_length", model.text.max_positions, least=3)
    return _config(_with_dropout(_with_preprocessing(model, processor), text), longest)


def official_files(config: Config, vocab_size: int) -> dict[str, dict[str, Any]]:
    """The JSON files that go with a model of this configuration in the official format, by name."""
    model = config.Model
    text = {**_text_settings(model, vocab_size), "sent_type_vocab_size": 4, _IMAGE_HEADS: model.image.heads}
    return {_OFFICIAL_NAMES[0]: dict(sorted(text.items()))}


def paddlenlp_files(config: Config, vocab_size: int) -> dict[str, dict[str, Any]]:
    """The JSON files that go with a model of this configuration in PaddleNLP's format, by name."""
    model, size = config.Model, config.Model.image.image_size
    text = {
        **_text_settings(model, vocab_size),
        **_TEXT_FACTS,
        "intermediate_size": 4 * model.text.sizes["width"],
        "layer_norm_eps": 1e-12,
        "model_type": "ernie_vil_text_model",
    }
    vision = {
        **_vision_sizes(model),
        **_VISION_FACTS,
        "model_type": "ernie_vil_vision_model",
        "num_attention_heads": model.image.heads,
    }
    return {
        "config.json": {
            "architectures": ["ErnieViLModel"],
            "model_type": "ernie_vil",
            "text_config": text,
            "vision_config": vision,
        },
        "preprocessor_config.json": {
            **_PROCESSOR_FACTS,
            "crop_size": {"height": size, "width": size},
            "image_mean": model.image.mean,
            "image_std": model.image.std,
            "rescale_factor": 1 / 255,
            "size": {"shortest_edge": size},
        },
        "tokenizer_config.json": {**_TOKENIZER_FACTS, "model_max_length": config.Data.max_length, **_SPECIAL_TOKENS},
        "special_tokens_map.json": _SPECIAL_TOKENS,
    }


def write_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes JSON files by their name."""
    for name, content in files.items():
        write_text(folder / name, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def _architecture(
    weights: Path, arrays: Mapping[str, np.ndarray], heads: tuple[int | None, int | None], layout: WeightFormat
) -> ModelConfig:
    try:
        return architecture(arrays, heads, layout)
    except ValueError as error:
        raise ValueError(f"{weights}: {error}") from None


def _text_sizes(model: ModelConfig, vocab_size: int) -> dict[str, int]:
    return {
        "hidden_size": model.text.sizes["width"],
        "max_position_embeddings": model.text.max_positions,
        "num_hidden_layers": model.text.sizes["depth"],
        "vocab_size": vocab_size,
    }


def _text_settings(model: ModelConfig, vocab_size: int) -> dict[str, Any]:
    return {
        **_text_sizes(model, vocab_size),
        "attention_probs_dropout_prob": model.text.attention_dropout,
        "hidden_act": "gelu",
        "hidden_dropout_prob": model.text.dropout,
        "initializer_range": 0.02,
        "num_attention_heads": model.text.heads,
        "task_type_vocab_size": 3,
    }


def _vision_sizes(model: ModelConfig) -> dict[str, int]:
    sizes = model.image.sizes
    return {
        "hidden_size": sizes["width"],
        "image_size": model.image.image_size,
        "intermediate_size": 4 * sizes["width"],
        "num_hidden_layers": sizes["depth"],
        "patch_size": sizes["patch_size"],
    }


def _with_dropout(model: ModelConfig, text: Settings) -> ModelConfig:
    shares = {
        "dropout": text.share("hidden_dropout_prob", 0.1),
        "attention_dropout": text.share("attention_probs_dropout_prob", 0.1),
    }
    return model.model_copy(update={"text": model.text.model_copy(update=shares)})


def _with_preprocessing(model: ModelConfig, processor: Settings) -> ModelConfig:
    """The model with the mean and deviation of PaddleNLP's image processor."""
    processor.check_facts(_PROCESSOR_FACTS)
    factor = processor.values.get("rescale_factor", 1 / 255)
    if type(factor) not in (int, float) or abs(255 * factor - 1) > 1e-6:
        raise processor.refusal("rescale_factor", "only 1 / 255 is read")
    side = model.image.image_size
    for key, shapes in {
        "size": (side, {"shortest_edge": side}), "crop_size": (side, {"height": side, "width": side})
    }.items():  # fmt: skip
        if processor.values.get(key, 224) not in shapes:
            raise processor.refusal(key, f"the model takes {side} pixels")
    image = model.image
    mean = processor.numbers("image_mean", image.mean)
    std = processor.numbers("image_std", image.std, positive=True)
    return model.model_copy(update={"image": image.model_copy(update={"mean": mean, "std": std})})


def _config(model: ModelConfig, longest: int) -> Config:
    return Config(
        Model=model,
        Views=ViewsConfig(resize=max(model.image.image_size, ViewsConfig().resize)),
        Data=DataConfig(max_length=min(longest, model.text.max_positions)),
    )
