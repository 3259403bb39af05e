"""Release in PaddleNLP: a folder that `from_pretrained` of ErnieViLModel and ErnieViLProcessor reads.

It holds model_state.pdparams or model.safetensors, or their shards with an index, and config.json, vocab.txt (lines
`token`), and the JSON files of the tokenizer and of the image processor.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.config import Config, ModelConfig
from ernie_vil2.models.weights.format import ERNIE_VIL_TYPE, WORD_EMBEDDING
from ernie_vil2.models.weights.formats.official import (
    Release,
    describe_text_sizes,
    describe_text_tower,
    make_config,
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
# Settings with the only values that our towers compute. The text tower's layer_norm_eps is not among them: PaddleNLP's
# code sets 1e-12, whatever the file says.
_TEXT_VALUES = {"hidden_act": "gelu", "type_vocab_size": 0, "use_task_id": False, "pad_token_id": 0}
_VISION_VALUES = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-6, "num_channels": 3}
_PROCESSOR_VALUES = {
    **dict.fromkeys(("do_center_crop", "do_convert_rgb", "do_normalize", "do_rescale", "do_resize"), True),
    "resample": 3,
    "image_processor_type": "ErnieViLImageProcessor",
}
_TOKENIZER_VALUES = {"do_lower_case": True, "tokenizer_class": "ErnieViLTokenizer"}


class PaddleNlp(Release):
    """Arrays with the names of ErnieViLModel."""

    title = layout = "paddlenlp"
    settings_file = "config.json"
    weights = "model_state.pdparams"

    def configure(self, weights: Path, arrays: Mapping[str, np.ndarray], heads: tuple[int, int] | None) -> Config:
        """Return the configuration of a folder from its arrays and its JSON files, which must all exist."""
        paths = [weights.with_name(f"{prefix}config.json") for prefix in ("", "preprocessor_", "tokenizer_")]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise ValueError(
                f"{weights.parent}: {', '.join(missing)} missing next to PaddleNLP's weights; without that it "
                "is another model: copy the whole folder"
            )
        settings, processor, tokenizer = map(Settings.from_file, paths)
        text, vision = settings.open_section("text_config"), settings.open_section("vision_config")
        stored_heads = vision.read_int("num_attention_heads", 12), text.read_int("num_attention_heads", 12)
        model = self.infer_architecture(weights, arrays, heads or stored_heads)
        text.check_values(**_TEXT_VALUES)
        vision.check_values(**_VISION_VALUES)

        # The files may leave out sizes that are PaddleNLP's defaults.
        defaults = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}
        sizes = describe_text_sizes(model, len(arrays[WORD_EMBEDDING]))
        sizes["intermediate_size"] = 4 * model.text.sizes["width"]
        text.check_sizes(sizes, defaults | {"vocab_size": 40_000, "max_position_embeddings": 2048})
        model = _with_image_size(model, vision.read_int("image_size", 224))
        vision.check_sizes(_describe_image_sizes(model), defaults | {"image_size": 224, "patch_size": 16})

        tokenizer.check_values(**_TOKENIZER_VALUES)
        text_length = tokenizer.read_int("model_max_length", model.text.max_positions, minimum=3)
        return make_config(with_dropout(_with_normalisation(model, processor), text), text_length)

    def make_settings(self, config: Config, vocab_size: int) -> dict[str, dict[str, Any]]:
        model, size = config.Model, config.Model.image.image_size
        text = {
            **describe_text_tower(model, vocab_size),
            **_TEXT_VALUES,
            "intermediate_size": 4 * model.text.sizes["width"],
            "layer_norm_eps": 1e-12,
            "model_type": "ernie_vil_text_model",
        }
        vision = {
            **_describe_image_sizes(model),
            **_VISION_VALUES,
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
                **_PROCESSOR_VALUES,
                "crop_size": {"height": size, "width": size},
                "image_mean": model.image.mean,
                "image_std": model.image.std,
                "rescale_factor": 1 / 255,
                "size": {"shortest_edge": size},
            },
            "tokenizer_config.json": {
                **_TOKENIZER_VALUES,
                "model_max_length": config.Data.max_length,
                **_SPECIAL_TOKENS,
            },
            "special_tokens_map.json": _SPECIAL_TOKENS,
        }

    def find_changes(self, config: Config) -> list[str]:
        return [
            *super().find_changes(config),
            f"this model cuts texts at {config.Data.max_length} tokens; PaddleNLP's tokenizer does when it is called "
            "with truncation=True",
        ]


def _describe_image_sizes(model: ModelConfig) -> dict[str, int]:
    sizes = model.image.sizes
    return {
        "hidden_size": sizes["width"],
        "image_size": model.image.image_size,
        "intermediate_size": 4 * sizes["width"],
        "num_hidden_layers": sizes["depth"],
        "patch_size": sizes["patch_size"],
    }


def _with_image_size(model: ModelConfig, size: int) -> ModelConfig:
    """Return the model for images of this size, if they have as many whole patches as the weights have positions."""
    patch_size = model.image.sizes["patch_size"]
    if size // patch_size != model.image.image_size // patch_size:
        return model
    return model.model_copy(update={"image": model.image.model_copy(update={"image_size": size})})


def _with_normalisation(model: ModelConfig, processor: Settings) -> ModelConfig:
    """Return the model with the mean and standard deviation of PaddleNLP's image processor."""
    processor.check_values(**_PROCESSOR_VALUES)
    image, size = model.image, model.image.image_size
    normalisation = processor.read_normalisation(image.mean, image.std)
    allowed_values = {
        "size": (size, {"shortest_edge": size}),
        "crop_size": (size, {"height": size, "width": size}),
    }
    for key, allowed in allowed_values.items():
        if processor.values.get(key, 224) not in allowed:
            raise processor.make_error(key, f"the model takes {size} pixels")
    return model.model_copy(update={"image": image.model_copy(update=normalisation)})


PADDLENLP = PaddleNlp()
