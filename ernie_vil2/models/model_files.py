"""Whole models on disk in any of the three formats: an official file, a PaddleNLP folder, or a folder of ours.

official      model.pdparams, vocab.txt (`token<TAB>id` lines), ernie_config.json (the text tower's sizes)
paddlenlp     model_state.pdparams or model.safetensors, config.json, vocab.txt (`token` lines), and the JSON files of
              its tokenizer and image processor, as `from_pretrained` of ErnieViLModel and ErnieViLProcessor read them
ernie_vil2    model.safetensors, config.yaml, vocab.txt; a training checkpoint is such a folder
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.config import Config, DataConfig, ModelConfig, ViewsConfig, dump_config, load_config
from ernie_vil2.data.tokenizer import ERNIE_VOCABULARY, read_vocabulary
from ernie_vil2.files import folder_written_whole, write_text
from ernie_vil2.models.released import TEXT_EPSILON, WORDS, Layout, architecture, detect_format, from_ours, to_ours
from ernie_vil2.models.weight_files import read_weights, write_weights
from ernie_vil2.run_folder import named_checkpoint

OFFICIAL_WEIGHTS = "model.pdparams"
PADDLENLP_WEIGHTS = "model_state.pdparams"
OWN_WEIGHTS = "model.safetensors"
ERNIE_ROWS = 40_000
"""Rows of the word embedding of ERNIE 3.0; its vocabulary, packaged here, has 39,980 tokens."""
_OFFICIAL_LENGTH = 48
"""Tokens of a text in the official release's configuration."""
_SPECIAL_TOKENS = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
# What our towers compute and PaddleNLP's configuration could say otherwise; absent means its default, which is this.
_TEXT_FACTS = {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "type_vocab_size": 0, "use_task_id": False}
_VISION_FACTS = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-6}


@dataclass(frozen=True)
class StoredModel:
    """A model as it was found on disk.

    Attributes:
        layout: the format it was in.
        arrays: its weights by our names, unchanged; what our model has no counterpart for keeps its name.
        config: its architecture, preprocessing and text length; for a run of ours the run's whole configuration.
        tokens: its vocabulary in the order of the ids; None: none was found.
    """

    layout: Layout
    arrays: dict[str, np.ndarray]
    config: Config
    tokens: list[str] | None

    @property
    def vocab_size(self) -> int:
        """Rows of the word embedding, to build the model with: at least the number of tokens.

        ValueError: the weights have none.
        """
        if WORDS not in self.arrays:
            raise ValueError(f"the weights are not whole: {WORDS} is missing")
        return len(self.arrays[WORDS])


def model_folder(path: str | Path) -> Path:
    """The folder with `model.safetensors` and `config.yaml` that `path` names.

    Args:
        path: the folder itself, or a name of `named_checkpoint`: a run folder is its newest checkpoint.

    Raises:
        FileNotFoundError: there is none.
    """
    folder = named_checkpoint(path) or Path(path)
    if (folder / OWN_WEIGHTS).is_file() and (folder / "config.yaml").is_file():
        return folder
    raise FileNotFoundError(f"{path}: no model here; give an official .pdparams file, a PaddleNLP folder with "
                            "config.json, or a run or checkpoint folder with config.yaml")  # fmt: skip


def changed_ways(config: ModelConfig, layout: Layout) -> list[str]:
    """What a model does otherwise once it is in a release's format, which fixes it; one sentence each."""
    if layout == "ernie_vil2":
        return []
    changes = []
    if config.text.epsilon != TEXT_EPSILON[layout]:
        changes.append(f"the {layout} code computes the text tower's LayerNorms with epsilon {TEXT_EPSILON[layout]:g}, "
                       f"this model has {config.text.epsilon:g}: embeddings change slightly")  # fmt: skip
    if config.image.preprocessing != layout:
        changes.append(f"the {layout} code prepares images in its own way, this model's is "
                       f"{config.image.preprocessing}: pixels change slightly")  # fmt: skip
    return changes


def weights_path(path: str | Path) -> Path:
    """The weight file of the model at `path`: a file, a folder or a checkpoint's name as `model_folder` takes it.

    FileNotFoundError if there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    names = [PADDLENLP_WEIGHTS, OFFICIAL_WEIGHTS]
    if (path / "config.json").is_file():
        names.append(OWN_WEIGHTS)
    for name in names:
        if (path / name).is_file():
            return path / name
    return model_folder(path) / OWN_WEIGHTS


def vocabulary_beside(path: Path, words: np.ndarray | None) -> Path | None:
    """The vocabulary of a weight file: `vocab.txt` beside it, else for 40,000 rows of words that of ERNIE 3.0."""
    beside = path.with_name("vocab.txt")
    if beside.is_file():
        return beside
    return ERNIE_VOCABULARY if words is not None and len(words) == ERNIE_ROWS else None


def read_model(
    path: str | Path, vocabulary: str | Path | None = None, heads: tuple[int, int] | None = None
) -> StoredModel:
    """A model in any of the three formats.

    Args:
        path: as `weights_path` takes it.
        vocabulary: None: the `vocab.txt` beside the weights, else the one that a run's configuration names, else for
            40,000 rows of words the packaged one of ERNIE 3.0.
        heads: attention heads of the image and of the text tower; None: what a PaddleNLP folder or a configuration
            says, else width / 64.

    Raises:
        FileNotFoundError: there is no model at `path`.
        ValueError: its files are damaged, do not belong together, or describe a model of another kind.
    """
    path = weights_path(path)
    arrays = read_weights(path)
    layout = detect_format(arrays)
    ours = to_ours(arrays, layout)
    if layout == "ernie_vil2":
        config = load_config(path.parent / "config.yaml")
        own = config.Model.text.vocabulary or ERNIE_VOCABULARY
    else:
        settings = _json(path.with_name("config.json")) if layout == "paddlenlp" else {}
        model = architecture(ours, heads or _heads_of(settings), layout)
        if layout == "paddlenlp":
            _check_facts(path.with_name("config.json"), settings)
            model = _with_preprocessing(model, path.with_name("preprocessor_config.json"))
            longest = _json(path.with_name("tokenizer_config.json")).get("model_max_length")
        else:
            longest = _OFFICIAL_LENGTH
        config = _config(model, longest)
        own = None
    source = vocabulary or vocabulary_beside(path, ours.get(WORDS)) or own
    tokens = read_vocabulary(source) if source else None
    if tokens and len(tokens) > len(ours.get(WORDS, tokens)):
        raise ValueError(f"{path}: {len(ours[WORDS])} rows of words, but {source} has {len(tokens)} tokens")
    return StoredModel(layout, ours, config, tokens)


def write_model(model: StoredModel, folder: str | Path, layout: Layout) -> None:
    """Writes the files of a format into a new folder.

    Raises:
        FileExistsError: the folder holds files already.
        ValueError: the format cannot hold this model, or the model has no vocabulary.
    """
    folder = Path(folder)
    if model.tokens is None:
        raise ValueError("the model has no vocabulary beside it: name its vocabulary file")
    if layout != "ernie_vil2" and model.config.Model.text.pooling != "cls":
        raise ValueError(f"the {layout} format pools texts by their [CLS] state, this model by their mean")
    arrays = from_ours(model.arrays, layout)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists already; name another folder")
    lines = model.tokens if layout != "official" else [f"{token}\t{i}" for i, token in enumerate(model.tokens)]
    sizes = model.config.Model
    with folder_written_whole(folder) as aside:
        write_text(aside / "vocab.txt", "\n".join(lines) + "\n")
        if layout == "official":
            write_weights(aside / OFFICIAL_WEIGHTS, arrays)
            _write_json(aside / "ernie_config.json", _text_settings(sizes, model.vocab_size))
        elif layout == "paddlenlp":
            write_weights(aside / PADDLENLP_WEIGHTS, arrays)
            _write_json(aside / "config.json", _paddlenlp_settings(sizes, model.vocab_size))
            _write_json(aside / "preprocessor_config.json", _processor_settings(sizes))
            tokenizer = {"do_lower_case": True, "model_max_length": model.config.Data.max_length, **_SPECIAL_TOKENS}
            _write_json(aside / "tokenizer_config.json", {**tokenizer, "tokenizer_class": "ErnieViLTokenizer"})
            _write_json(aside / "special_tokens_map.json", _SPECIAL_TOKENS)
        else:
            write_weights(aside / OWN_WEIGHTS, arrays)
            write_text(aside / "config.yaml", dump_config(model.config))


def _config(model: ModelConfig, longest: int | None) -> Config:
    positions = model.text.max_positions
    return Config(
        Model=model,
        Views=ViewsConfig(resize=max(model.image.image_size, ViewsConfig().resize)),
        Data=DataConfig(max_length=min(longest, positions) if isinstance(longest, int) else positions),
    )


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a JSON object")
    return content


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = settings.get(name)
    return section if isinstance(section, Mapping) else {}


def _heads_of(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    heads = [_section(settings, name).get("num_attention_heads") for name in ("vision_config", "text_config")]
    return tuple(heads) if all(isinstance(count, int) for count in heads) else None


def _check_facts(path: Path, settings: Mapping[str, Any]) -> None:
    for name, facts in (("text_config", _TEXT_FACTS), ("vision_config", _VISION_FACTS)):
        for key, expected in facts.items():
            given = _section(settings, name).get(key, expected)
            if given != expected:
                raise ValueError(f"{path}: {name}.{key} is {given!r}; only models with {expected!r} are read")


def _with_preprocessing(model: ModelConfig, path: Path) -> ModelConfig:
    """The model with the mean and deviation of PaddleNLP's preprocessor file; without one, PaddleNLP's defaults."""
    settings, image = _json(path), model.image
    size, crop = settings.get("size"), settings.get("crop_size")
    steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
    for key, expected in {**dict.fromkeys(steps, True), "resample": 3}.items():
        if settings.get(key, expected) != expected:
            raise ValueError(f"{path}: {key} is {settings[key]!r}; only bicubic resizing, centre crop and "
                             "normalisation are read")  # fmt: skip
    sides = [size.get("shortest_edge") if isinstance(size, Mapping) else size]
    sides += [crop.get("height"), crop.get("width")] if isinstance(crop, Mapping) else [crop]
    if any(side not in (None, image.image_size) for side in sides):
        raise ValueError(f"{path}: size {size!r} and crop_size {crop!r}; the model takes {image.image_size} pixels")
    values = {key: settings[f"image_{key}"] for key in ("mean", "std") if settings.get(f"image_{key}")}
    return model.model_validate({**model.model_dump(), "image": {**image.model_dump(), **values}})


def _text_settings(model: ModelConfig, vocab_size: int) -> dict[str, Any]:
    """The text tower's sizes as the official release names them."""
    return {
        "attention_probs_dropout_prob": model.text.attention_dropout,
        "hidden_act": "gelu",
        "hidden_dropout_prob": model.text.dropout,
        "hidden_size": model.text.width,
        "initializer_range": 0.02,
        "max_position_embeddings": model.text.max_positions,
        "num_attention_heads": model.text.heads,
        "num_hidden_layers": model.text.depth,
        "sent_type_vocab_size": 4,
        "task_type_vocab_size": 3,
        "vocab_size": vocab_size,
    }


def _paddlenlp_settings(model: ModelConfig, vocab_size: int) -> dict[str, Any]:
    text, image = _text_settings(model, vocab_size), model.image
    del text["sent_type_vocab_size"]
    return {
        "architectures": ["ErnieViLModel"],
        "model_type": "ernie_vil",
        "text_config": {
            **text,
            **_TEXT_FACTS,
            "intermediate_size": 4 * model.text.width,
            "model_type": "ernie_vil_text_model",
            "pad_token_id": 0,
        },
        "vision_config": {
            **_VISION_FACTS,
            "hidden_size": image.width,
            "image_size": image.image_size,
            "intermediate_size": 4 * image.width,
            "model_type": "ernie_vil_vision_model",
            "num_attention_heads": image.heads,
            "num_channels": 3,
            "num_hidden_layers": image.depth,
            "patch_size": image.patch_size,
        },
    }


def _processor_settings(model: ModelConfig) -> dict[str, Any]:
    size = model.image.image_size
    return {
        "crop_size": {"height": size, "width": size},
        **dict.fromkeys(("do_center_crop", "do_convert_rgb", "do_normalize", "do_rescale", "do_resize"), True),
        "image_mean": model.image.mean,
        "image_processor_type": "ErnieViLImageProcessor",
        "image_std": model.image.std,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": size},
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
