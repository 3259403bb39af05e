"""The release in PaddleNLP: a folder as `from_pretrained` of ErnieViLModel and ErnieViLProcessor read it.

It has model_state.pdparams or model.safetensors, or an index.json of its shards, config.json, vocab.txt (`token`
lines), and the JSON files of its tokenizer and image processor.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.config import Config, ModelConfig
from ernie_vil2.models.weights.format import ERNIE_VIL_TYPE, WORD_EMBEDDING
from ernie_vil2.models.weights.formats.official import (
    Release,
    architecture_of,
    release_config,
    text_settings,
    text_sizes,
    with_dropout,
)
from ernie_vil2.models.weights.settings import Settings

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


class PaddleNlp(Release):
    """Arrays with the names of ErnieViLModel."""

    title = layout = "paddlenlp"
    settings = "config.json"
    weights = "model_state.pdparams"

    def configure(self, weights: Path, arrays: Mapping[str, np.ndarray], heads: tuple[int, int] | None) -> Config:
        """Return the configuration of a folder from its arrays and its JSON files, none of which may be missing."""
        paths = [weights.with_name(f"{name}config.json") for name in ("", "preprocessor_", "tokenizer_")]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise ValueError(
                f"{weights.parent}: {', '.join(missing)} missing next to PaddleNLP's weights; without that it "
                "is another model: copy the whole folder"
            )
        whole, processor, tokenizer = map(Settings.from_file, paths)
        text, vision = whole.open_section("text_config"), whole.open_section("vision_config")
        heads_in_file = vision.read_count("num_attention_heads", 12), text.read_count("num_attention_heads", 12)
        model = architecture_of(weights, arrays, heads or heads_in_file, self.layout)
        text.check_values(**_TEXT_FACTS)
        vision.check_values(**_VISION_FACTS)

        defaults = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}
        sizes = text_sizes(model, len(arrays[WORD_EMBEDDING])) | {"intermediate_size": 4 * model.text.sizes["width"]}
        text.check_sizes(sizes, defaults | {"vocab_size": 40_000, "max_position_embeddings": 2048})
        model = _with_image_size(model, vision.read_count("image_size", 224))
        vision.check_sizes(_vision_sizes(model), defaults | {"image_size": 224, "patch_size": 16})

        tokenizer.check_values(**_TOKENIZER_FACTS)
        longest = tokenizer.read_count("model_max_length", model.text.max_positions, minimum=3)
        return release_config(with_dropout(_with_preprocessing(model, processor), text), longest)

    def settings_files(self, config: Config, vocab_size: int) -> dict[str, dict[str, Any]]:
        model, size = config.Model, config.Model.image.image_size
        text = {
            **text_settings(model, vocab_size),
            **_TEXT_FACTS,
            "intermediate_size": 4 * model.text.sizes["width"],
            "layer_norm_eps": 1e-12,
            "model_type": "ernie_vil_text_model",
        }
        vision = {
            **_vision_sizes(model),
            **_VISION_FACTS,
            "model_type": "ernie_vil_vision_model",
            "num_attention_heads": model.image.sizes["heads"],
        }
        return {
            "config.json": {
                "architectures": ["ErnieViLModel"],
                "model_type": ERNIE_VIL_TYPE,
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
            "tokenizer_config.json": {
                **_TOKENIZER_FACTS,
                "model_max_length": config.Data.max_length,
                **_SPECIAL_TOKENS,
            },
            "special_tokens_map.json": _SPECIAL_TOKENS,
        }

    def changes(self, config: Config) -> list[str]:
        return [
            *super().changes(config),
            f"this model cuts texts at {config.Data.max_length} tokens; PaddleNLP's tokenizer does when it is called "
            "with truncation=True",
        ]


def _vision_sizes(model: ModelConfig) -> dict[str, int]:
    sizes = model.image.sizes
    return {
        "hidden_size": sizes["width"],
        "image_size": model.image.image_size,
        "intermediate_size": 4 * sizes["width"],
        "num_hidden_layers": sizes["depth"],
        "patch_size": sizes["patch_size"],
    }


def _with_image_size(model: ModelConfig, size: int) -> ModelConfig:
    """Return the model for images of that size, if they have as many whole patches as its weights say."""
    patch = model.image.sizes["patch_size"]
    if size // patch != model.image.image_size // patch:
        return model
    return model.model_copy(update={"image": model.image.model_copy(update={"image_size": size})})


def _with_preprocessing(model: ModelConfig, processor: Settings) -> ModelConfig:
    """Return the model with the mean and deviation of PaddleNLP's image processor."""
    processor.check_values(**_PROCESSOR_FACTS)
    side, image = model.image.image_size, model.image
    normalisation = processor.read_normalisation(image.mean, image.std)
    expected = {"size": (side, {"shortest_edge": side}), "crop_size": (side, {"height": side, "width": side})}
    for key, shapes in expected.items():
        if processor.values.get(key, 224) not in shapes:
            raise processor.make_error(key, f"the model takes {side} pixels")
    return model.model_copy(update={"image": image.model_copy(update=normalisation)})


PADDLENLP = PaddleNlp()
