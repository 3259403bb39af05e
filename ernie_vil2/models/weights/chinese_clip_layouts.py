"""Chinese-CLIP from one of its layouts to the other: the folder of transformers, and its authors' own `.pt`.

The settings files say what the model's configuration does; the vocabulary is the same in both.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ernie_vil2.config import ModelConfig
from ernie_vil2.io.files import atomic_folder, write_json, write_text
from ernie_vil2.io.run_folder import VOCABULARY
from ernie_vil2.models.weights.families import FAMILIES
from ernie_vil2.models.weights.files import write_theirs
from ernie_vil2.models.weights.hand_back import SIZES, checked
from ernie_vil2.models.weights.integrity import write_model_integrity
from ernie_vil2.models.weights.stored import StoredModel, read_model
from ernie_vil2.towers.text import text_variant
from ernie_vil2.towers.vit import Vit, image_variant

WEIGHTS = {"hf": "model.safetensors", "chinese-clip": "clip_cn.pt"}
FAMILY = {"hf": "chinese_clip", "chinese-clip": "cn_clip"}


def rewrite(model: StoredModel, folder: Path, layout: str, golden: Mapping[str, Any] | None = None) -> list[str]:
    """Writes a Chinese-CLIP whose images a ViT encodes into a new folder of the other layout; returns what it does
    otherwise there, a line each. `golden` is as of `hand_back`; ValueError if the layout cannot hold the model.
    """
    config = model.config.Model
    if not isinstance(config.image, Vit) or model.tokens is None:
        raise ValueError(
            f"the layout {layout} of Chinese-CLIP takes a ViT and a vocabulary; this model has an image "
            f"tower {config.image.name} and {'a' if model.tokens else 'no'} vocabulary"
        )
    hidden = config.image.variant.hidden if config.image.variant else None
    if layout == "chinese-clip" and hidden not in (None, 4 * config.image.width):
        raise ValueError(
            f"Chinese-CLIP's own code makes the image tower's MLPs four times as wide as the tower; this "
            f"model's are {hidden} wide, its tower {config.image.width}"
        )
    theirs = FAMILIES.find(FAMILY[layout]).names(config, {}).to_theirs(model.arrays)
    files = _of_transformers(config, model.vocab_size) if layout == "hf" else _of_authors(config, model.vocab_size)
    with atomic_folder(folder) as aside:
        for name, settings in files.items():
            (aside / name).parent.mkdir(exist_ok=True)
            write_json(aside / name, settings, indent=2)
        write_text(aside / VOCABULARY, "\n".join(model.tokens) + "\n")
        write_theirs(aside / WEIGHTS[layout], dict(theirs))
        written = read_model(aside)
        notes = checked(written, model, folder)
        names = sorted(path.name for path in aside.iterdir() if path.is_file())
        write_model_integrity(aside, written.config, names, None if notes else golden)
    return notes


def _text_settings(config: ModelConfig) -> dict[str, Any]:
    """What both layouts say of the text tower."""
    text = config.text
    variant = text_variant(text)
    if variant is None:
        raise ValueError(f"{text.name}: a tower without a variant has no settings in this layout")
    sizes = text.sizes
    return {
        "hidden_size": sizes["width"],
        "num_hidden_layers": sizes["depth"],
        "num_attention_heads": sizes["heads"],
        "intermediate_size": variant.hidden,
        "hidden_act": variant.activation,
        "hidden_dropout_prob": text.dropout,
        "attention_probs_dropout_prob": text.attention_dropout,
        "max_position_embeddings": text.max_positions,
        "type_vocab_size": variant.token_types,
    }


def _of_transformers(config: ModelConfig, words: int) -> dict[str, Any]:
    image, text, size = config.image, config.text, config.image.image_size
    sizes = image.sizes
    of_image, of_words = image_variant(image), text_variant(text)
    if of_image is None or of_words is None:
        raise ValueError(f"{image.name}, {text.name}: a tower without a variant has no settings in this layout")
    of_text = {
        "model_type": "chinese_clip_text_model",
        "vocab_size": words,
        **_text_settings(config),
        "layer_norm_eps": text.epsilon,
        "pad_token_id": of_words.padding,
    }
    of_images = {
        "model_type": "chinese_clip_vision_model",
        "hidden_size": sizes["width"],
        "num_hidden_layers": sizes["depth"],
        "num_attention_heads": sizes["heads"],
        "intermediate_size": of_image.hidden,
        "hidden_act": of_image.activation,
        "image_size": size,
        "patch_size": sizes["patch_size"],
        "layer_norm_eps": of_image.epsilon,
        "projection_dim": config.embed_dim,
    }
    whole = {
        "model_type": "chinese_clip",
        "architectures": ["ChineseCLIPModel"],
        "projection_dim": config.embed_dim,
        "text_config": of_text,
        "vision_config": of_images,
    }
    prepared = {
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
    return {"config.json": whole, "preprocessor_config.json": prepared}


def _of_authors(config: ModelConfig, words: int) -> dict[str, Any]:
    sizes = config.image.sizes
    of_text = {f"text_{key}": value for key, value in _text_settings(config).items()}
    of_images = {
        "embed_dim": config.embed_dim,
        "image_resolution": config.image.image_size,
        "vision_layers": sizes["depth"],
        "vision_width": sizes["width"],
        "vision_head_width": sizes["width"] // sizes["heads"],
        "vision_patch_size": sizes["patch_size"],
    }
    return {
        f"{SIZES}/ViT.json": of_images,
        f"{SIZES}/RoBERTa.json": {"vocab_size": words, "text_initializer_range": 0.02, **of_text},
    }
