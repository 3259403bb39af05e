"""What a training starts from: the architecture of another model (`Model.like`), and initial weights, of the whole
model, or of a tower from what others have pretrained.

Names are matched and reported as everywhere. What is done to arrays before is noted in the report:

- word embeddings are matched by token where the source has a vocabulary file, so that its rows may be in another
  order, or be more;
- position embeddings of images are resized to another grid, those of texts cut or stretched;
- what ERNIE adds to every token alike, token type 0 and task type 0, goes into the position embeddings, because the
  text tower of the released models, and ours, has neither.
"""

import math
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from ernie_vil2.config import Config, ConfigError, ModelConfig, validated
from ernie_vil2.data.tokenizer import ERNIE_VOCABULARY
from ernie_vil2.data.tokenizer_files import open_tokenizer, read_tokens
from ernie_vil2.io import hub
from ernie_vil2.io.run_folder import CONFIG, named_checkpoint
from ernie_vil2.models.dual_encoder import DualEncoder
from ernie_vil2.models.heads import HEAD_PREFIX
from ernie_vil2.models.lora import merge_lora
from ernie_vil2.models.weights.files import WeightMismatch, WeightReport, detect_format, set_weights
from ernie_vil2.models.weights.format import (
    ERNIE_VIL_LAYOUTS,
    ModelFiles,
    find_model,
    find_vocabulary,
    read_model,
    recognise_model,
)
from ernie_vil2.models.weights.formats.official import find_arrays, to_ours
from ernie_vil2.models.weights.integrity import check_model_files
from ernie_vil2.towers.base import ImageTowerConfig, TextTowerConfig, TowerConfig, without_suite
from ernie_vil2.towers.layers.suite import SuiteVit, imported, paddleclas
from ernie_vil2.towers.layers.transformer import VisionTransformer

WEIGHTS = "weights"  # in `Model.like`: the model that `Model.weights` names
SIGMOID_SCALE = 1000.0  # bound of the logit scale in training by the sigmoid loss, for which its authors set none
SMALL_WIDTH = 512  # of the states of a text tower: narrower ones are of small models, such as the demo's


def with_model_like(config: Config) -> Config:
    """The configuration with what `Model.like` names put in: towers and joint space, vocabulary and rules of the
    tokeniser, preprocessing of images, the length of texts, and the loss that its scalars belong to. What the
    configuration sets itself stays; where its `Data.max_length` is beyond the model's positions, these are more.

    Raises:
        ConfigError: there is no model, it brings no vocabulary or a tower of a module of its own, or what it has and
            what the configuration sets do not go together.
    """
    like = config.Model.like
    if like is None:
        return config
    if like == WEIGHTS:
        if config.Model.weights is None:
            raise ConfigError("Model.like=weights takes the towers from Model.weights, which names no model: set "
                              "-o Model.weights=... to the model that training starts from")  # fmt: skip
        like = config.Model.weights
    taken, longest, loss = deepcopy(_read_like(like, tuple(config.Model.dialect.items())))
    tree, own = config.model_dump(), config.model_dump(exclude_unset=True)
    rows = own.get("Data", {}).get("max_length", 0) + (taken["text"].get("variant") or {}).get("first_position", 0)
    taken["text"]["max_positions"] = max(taken["text"]["max_positions"], rows)
    bases: dict[str, type[TowerConfig]] = {"image": ImageTowerConfig, "text": TextTowerConfig}
    for tower, base in bases.items():
        given = own["Model"].pop(tower, {})
        if without_suite(given.get("name", taken[tower]["name"])) != without_suite(taken[tower]["name"]):
            if taken[tower]["name"] == "transformer":
                taken[tower] = {}  # pooling, variant and tokenizer are of its family
            taken[tower] = {key: value for key, value in taken[tower].items() if key in base.model_fields}
        elif base.find_kind(taken[tower]["name"]).is_own and "name" not in given:
            raise ConfigError(f"Model.like={like}: its {tower} tower {taken[tower]['name']} is of a module of its own; "
                              f"to have that imported, name it yourself in Model.{tower}.name")  # fmt: skip
        taken[tower] |= given
    tree["Model"] = {**taken, **own["Model"], "like": None}
    if "max_length" not in own.get("Data", {}):
        tree["Data"]["max_length"] = longest
    if "resize" not in own.get("Views", {}):
        tree["Views"]["resize"] = max(tree["Views"]["resize"], taken["image"]["image_size"])
    if config.Tuning.by_size:
        for section, key, value in recipe_of(taken):
            if key not in own.get(section, {}):
                tree[section][key] = value
    if "kind" not in own.get("Loss", {}):
        tree["Loss"]["kind"] = loss
    if tree["Loss"]["kind"] == "sigmoid" and "max_logit_scale" not in own.get("Loss", {}):
        tree["Loss"]["max_logit_scale"] = SIGMOID_SCALE
    return validated(tree, f"Model.like={like}")


def recipe_of(model: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """Rate and batches of a fine-tuning by the size of the model, and what it keeps of it, as section, key and value.

    Those of small towers were measured on sets of 200, 600 and 936 images (docs/own_data.md), which ask for the same;
    those of released ones are the rate that Chinese-CLIP and PaddleNLP fine-tune with, and PaddleNLP's batch.
    """
    width = model["text"].get("width")
    small = width is not None and width < SMALL_WIDTH
    rate, batch, micro_batch, share = (2e-3, 64, None, 0.3) if small else (5e-5, 256, 64, 0.0)
    return [
        ("Optimizer", "learning_rate", rate),
        ("Training", "global_batch", batch),
        ("Training", "micro_batch", micro_batch),
        ("Tuning", "initial_share", share),
        ("Tuning", "freeze_norms", small and model["image"].get("name") == "RepVGG"),
    ]


@lru_cache(maxsize=1)  # a plan asks again for every piece of advice
def _read_like(like: str, dialect: tuple[tuple[str, str], ...]) -> tuple[dict[str, Any], int, str]:
    """A model's part of a configuration without its initial weights, tokens of a text, and the kind of its loss."""
    try:
        stored = read_model(like, dialect=dict(dialect))
    except (OSError, ValueError) as error:
        raise ConfigError(f"Model.like: {error}") from None
    if stored.tokens is None:
        raise ConfigError(f"Model.like: {like}: no vocab.txt next to it, without which its words have no ids")
    weights: dict[str, Any] = {"weights": True, "image": {"weights"}, "text": {"weights"}, "allow": True}
    model = stored.config.Model.model_dump(exclude=weights)
    model["text"]["vocabulary"] = None if stored.vocabulary_path == ERNIE_VOCABULARY else str(stored.vocabulary_path)
    return model, stored.config.Data.max_length, stored.config.Loss.kind


_PADDLECLAS_VITS = {"ViT-B/16": "CLIP_vit_base_patch16_224", "ViT-L/14": "CLIP_vit_large_patch14_224"}
_VIT_HEADS = ["head.*", "proj"]
_HEADS = [f"{HEAD_PREFIX}*", "logit_bias"]  # the bias is the sigmoid loss's, and a model may change its loss
_TEXT_HEADS = ["network.cls.*", "network.classifier.*"]
_WORDS = "embeddings.word_embeddings.weight"
_POSITIONS = "embeddings.position_embeddings.weight"
_TYPES = "embeddings.token_type_embeddings.weight"
_TASKS = "embeddings.task_type_embeddings.weight"


@dataclass
class _Source:
    """Arrays by their names in the part that they are for."""

    arrays: dict[str, np.ndarray]
    tokens: list[str] | None = None
    heads: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def load_initial_weights(model: DualEncoder, config: ModelConfig) -> list[WeightReport]:
    """Sets what `config.weights`, `config.image.weights` and `config.text.weights` name, in this order.

    A classifier or another head of a pretrained tower is left out; every other difference is an error that
    `config.allow` does not cover.

    Returns:
        A report for each source that is named; the first of its notes says which.

    Raises:
        FileNotFoundError: a source is neither a file or folder nor a name known to those who publish it.
        ValueError: weights that do not fit the model.
    """
    reports = []
    for key, source, part in (
        ("Model.weights", config.weights, model),
        ("Model.image.weights", config.image.weights, model.image),
        ("Model.text.weights", config.text.weights, model.text),
    ):
        if source is None:
            continue
        try:
            if part is model.image:
                found = _image_source(source, without_suite(config.image.name), model.image)
            elif part is model.text:
                found = _text_source(source, config.text.family)
            else:
                found = _whole(source, config.dialect)
            tokens = open_tokenizer(config.text.vocabulary, config.text.max_positions, config.text.tokenizer).tokens
            _fit(found, part, tokens, config.text.first_position)
            report = set_weights(part, found.arrays, [*config.allow, *found.heads], [f"{key}: {source}", *found.notes])
        except WeightMismatch as error:
            raise WeightMismatch(f"{key}: {source}: {error}; what may differ must be named in Model.allow, and "
                                 f"Model.like={source} takes the sizes of a whole model from it") from None  # fmt: skip
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{key}: {error}") from None
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
        reports.append(report)
    return reports


def _whole(source: str, dialect: Mapping[str, str]) -> _Source:
    layout, files = recognise_model(find_model(source))
    is_run = (files.folder / CONFIG).is_file()  # which has read its own in the way of the dialect
    if layout.layout in ERNIE_VIL_LAYOUTS and (is_run or not dialect):
        found = _read(files.weights, "", files=files)
    else:
        stored = read_model(source, dialect=dialect)
        found = _Source(dict(stored.arrays), stored.tokens, notes=[str(stored.family)])
    found.heads = _HEADS
    return found


def _read(path: Path, tower: str, vocabulary: Path | None = None, files: ModelFiles | None = None) -> _Source:
    """A weight file; of an ERNIE-ViL 2.0 the arrays whose names start with `tower`, without it."""
    check_model_files(path)
    arrays = merge_lora((files or ModelFiles(path)).read(path))
    try:
        arrays = to_ours(arrays, detect_format(arrays))
    except ValueError:
        if not tower:
            raise
    else:
        arrays = {name.removeprefix(tower): array for name, array in arrays.items() if name.startswith(tower)}
    words = next((array for name, array in arrays.items() if name.endswith(_WORDS)), None)
    vocabulary = vocabulary or find_vocabulary(path, words)
    return _Source(arrays, read_tokens(vocabulary) if vocabulary and words is not None else None)


def _tower_weights(source: str) -> Path:
    """Return the file of a tower's weights: of a whole model, or of a tower alone, which is in no format."""
    path = find_model(source)
    return find_arrays(path) or recognise_model(path)[1].weights


def _image_source(source: str, name: str, tower: nn.Layer) -> _Source:
    found = _read(_from_paddleclas(name) if source == "paddleclas" else _tower_weights(source), "image.")
    if isinstance(tower, VisionTransformer | SuiteVit):
        found.heads = _VIT_HEADS
        return found
    found.arrays = _in_network(found.arrays, "")
    # The tower has an Identity instead of the classifier.
    found.heads = [f"{path}.*" for path, layer in tower.named_sublayers() if isinstance(layer, nn.Identity)]
    return found


def _text_source(source: str, family: str) -> _Source:
    if Path(source).exists() or named_checkpoint(source) or source in hub.MODELS:
        found = _read(_tower_weights(source), "text.")
    else:
        found = _read(*_from_paddlenlp(source, family))
    found.arrays = _in_network(found.arrays, f"{family}.")
    found.heads = _TEXT_HEADS
    return found


def _in_network(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """A library's names as the tower around its network has them."""
    return {f"network.{name.removeprefix('network.').removeprefix(prefix)}": array for name, array in arrays.items()}


def _from_paddleclas(name: str) -> Path:
    """The file that PaddleClas publishes for a backbone, from its cache or its server."""
    task = "Model.image.weights=paddleclas"
    backbone, download = paddleclas(task), imported("paddleclas.ppcls.utils.download", task)
    name = _PADDLECLAS_VITS.get(name, name)
    module = sys.modules.get(getattr(getattr(backbone, name, None), "__module__", ""))
    url = getattr(module, "MODEL_URLS", {}).get(name)
    if not url:
        raise ValueError(f"PaddleClas publishes no weights for {name}; give a file in Model.image.weights")
    try:
        return Path(download.get_weights_path_from_url(url))
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(f"{url} could not be fetched ({error}); give a file in Model.image.weights") from None


def _from_paddlenlp(name: str, family: str) -> tuple[Path, str, Path]:
    """What `_read` takes for the model that PaddleNLP has under a name, from its cache or its server."""
    task = f"Model.text.weights={name}, a name that PaddleNLP knows,"
    transformers, download = imported("paddlenlp.transformers", task), imported("paddlenlp.utils.download", task)
    model, tokenizer = (getattr(transformers, f"{family.title()}{kind}") for kind in ("Model", "Tokenizer"))
    weights = model.pretrained_resource_files_map["model_state"].get(name, "model_state.pdparams")
    vocabulary = tokenizer.pretrained_resource_files_map["vocab_file"].get(name, "vocab.txt")
    try:
        paths = [download.resolve_file_path(name, file) for file in (weights, vocabulary)]
    except OSError as error:
        raise FileNotFoundError(f"{name}: no such file or folder, and PaddleNLP could not fetch a model of that name "
                                f"({error}); give a folder in Model.text.weights") from None  # fmt: skip
    if None in paths:
        raise FileNotFoundError(f"{name}: no such file or folder, and PaddleNLP has no model of that name")
    return Path(paths[0]), "text.", Path(paths[1])


def _fit(found: _Source, part: nn.Layer, tokens: list[str], first: int) -> None:
    """Adapts embeddings to the sizes of `part`, whose first token has the position `first`; what cannot be adapted is
    left for the report."""
    state = part.state_dict()
    for name in [name for name in found.arrays if name.endswith((_TYPES, _TASKS)) and name not in state]:
        _fold(found, name)
    for name, array in found.arrays.items():
        if name not in state or array.ndim != state[name].ndim or array.shape[-1] != state[name].shape[-1]:
            continue
        value, rows = state[name].numpy(), state[name].shape[0]
        if name.endswith(_WORDS) and found.tokens is not None and (found.tokens != tokens or len(array) != rows):
            found.arrays[name] = _matched_words(found, array, value, tokens)
        elif name.endswith("pos_embed") and array.shape != value.shape:
            found.arrays[name] = _resized_positions(found, array, value.shape[1])
        elif name.endswith(_POSITIONS) and len(array) > rows:
            found.arrays[name] = array[:rows]
            found.notes.append(f"{name}: the first {rows} of {len(array)} positions")
        elif name.endswith(_POSITIONS) and len(array) < rows:
            found.arrays[name] = stretched_positions(array, rows, first)
            found.notes.append(f"{name}: stretched from {len(array) - first} to {rows - first} positions, of which the "
                               f"first {_kept(array, first) - first} stay as they are")  # fmt: skip
        elif name.endswith(_TYPES) and len(array) != rows:
            found.arrays[name] = np.concatenate([array[:rows], value[len(array) :]])
            found.notes.append(f"{name}: {min(len(array), rows)} of {rows} types; the model uses type 0")


def _fold(found: _Source, name: str) -> None:
    positions = name.removesuffix(_TYPES).removesuffix(_TASKS) + _POSITIONS
    if positions in found.arrays:
        found.arrays[positions] = found.arrays[positions] + found.arrays.pop(name)[0]
        found.notes.append(f"{name}: type 0 was added to the positions, which has the same effect")


def _matched_words(found: _Source, array: np.ndarray, value: np.ndarray, tokens: list[str]) -> np.ndarray:
    """The model's rows, with those of `array` for the tokens that the source has too."""
    rows = {token: row for row, token in enumerate(found.tokens or [])}
    known = [number for number, token in enumerate(tokens) if rows.get(token, len(array)) < len(array)]
    value[known] = array[[rows[tokens[number]] for number in known]]
    found.notes.append(f"word embeddings: {len(known)} of {len(tokens)} tokens found in the source's vocabulary")
    return value


def stretched_positions(array: np.ndarray, rows: int, first: int = 0) -> np.ndarray:
    """Position embeddings of texts `[old, width]` for longer ones, `[rows, width]`.

    The first 20 positions stay, because they are trained best and short texts need them; position 20 + i becomes
    20 + r i, those between are interpolated by straight lines, and the line of the last two goes on behind the last.
    With r = 4 this makes 248 of 77 positions, as in Long-CLIP (Zhang et al. 2024, arXiv 2403.15378), and 196 of 64, as
    in FG-CLIP 2. Of fewer than 40 positions the first half stays, and so do the rows before that of the first token.
    """
    array = array.astype(np.result_type(array, np.float32))
    kept = _kept(array, first)
    step = (len(array) - kept) / (rows - kept)
    positions = np.concatenate([np.arange(kept), kept + np.arange(rows - kept) * step])
    below = np.minimum(positions.astype(np.int64), len(array) - 2)
    share = (positions - below).astype(array.dtype)[:, None]
    return array[below] * (1 - share) + array[below + 1] * share


def _kept(array: np.ndarray, first: int) -> int:
    return first + min(20, (len(array) - first) // 2)


def _resized_positions(found: _Source, array: np.ndarray, length: int) -> np.ndarray:
    """A square grid of position embeddings `[1, tokens, width]` at another size, bicubic; class tokens stay."""
    for extra in (1, 0, 2):
        old, new = math.isqrt(array.shape[1] - extra), math.isqrt(length - extra)
        if old * old + extra == array.shape[1] and new * new + extra == length:
            grid = paddle.to_tensor(array[:, extra:].reshape(1, old, old, -1).transpose(0, 3, 1, 2))
            resized = F.interpolate(grid, size=[new, new], mode="bicubic", align_corners=False).numpy()
            found.notes.append(f"position embeddings: from a grid of {old} x {old} to {new} x {new}, bicubic")
            patches = resized.transpose(0, 2, 3, 1).reshape(1, new * new, -1)
            return np.concatenate([array[:, :extra], patches], axis=1)
    return array
