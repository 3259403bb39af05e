"""What a training starts from: an architecture like that of another model, and initial weights.

`Model.like` names a model whose architecture is taken over. `Model.weights` names the initial weights of the whole
model, `Model.image.weights` and `Model.text.weights` those of a pretrained tower. Weights have to match by name and
shape; before they are compared, they are adapted, and the report has a note of each change:

- Word embeddings are matched by token if the source has a vocabulary. The source may then have more tokens, or the same
  tokens in another order.
- Position embeddings of images are resized to another grid, those of texts cut or stretched.
- ERNIE adds its embeddings of token type 0 and task type 0 to every token. Our text tower has neither, like those of
  the released models, so they are added to the position embeddings.

`Model.dialect` chooses between the ways in which the weights of another family can be used, such as
`{activation: gelu}` (docs/models.md).
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn

from ernie_vil2.config import Config, ConfigError, ModelConfig, validate_config
from ernie_vil2.data.tokenizer import ERNIE_VOCABULARY, open_tokenizer, read_tokens
from ernie_vil2.io import hub
from ernie_vil2.io.run_folder import CONFIG, resolve_checkpoint
from ernie_vil2.models.dual_encoder import DualEncoder
from ernie_vil2.models.heads import HEAD_PREFIX
from ernie_vil2.models.lora import merge_lora
from ernie_vil2.models.weights.files import (
    WeightMismatch,
    WeightReport,
    check_finite,
    detect_format,
    get_folder,
    set_weights,
)
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
from ernie_vil2.models.weights.positions import IMAGE_POSITIONS, find_grids, resize_positions
from ernie_vil2.towers.base import ImageTowerConfig, TextTowerConfig, TowerConfig, strip_suite_prefix
from ernie_vil2.towers.layers.suite import SuiteVit, import_paddleclas, import_suite
from ernie_vil2.towers.layers.transformer import VisionTransformer

FROM_WEIGHTS = "weights"  # value of `Model.like`: the model that `Model.weights` names
SIGMOID_MAX_LOGIT_SCALE = 1000.0  # bound of the scale under the sigmoid loss; its authors set none
# A model is small if its text tower is narrower than this. The demo's models have 192, CLIP B/32 has 512.
SMALL_WIDTH = 512


def resolve_model_like(config: Config) -> Config:
    """Return the configuration with the settings of the model that `Model.like` names.

    The model gives its towers and joint space, the vocabulary and rules of its tokenizer, the preprocessing of images,
    the length of texts, and the loss that it was trained with. Whatever the configuration sets explicitly stays. If its
    `Data.max_length` is larger than the model's number of positions, the number of positions grows.

    Raises:
        ConfigError: the model does not exist, has no vocabulary, or has a user-defined tower that the configuration
            does not name; or its settings contradict those of the configuration.
    """
    like = config.Model.like
    if like is None:
        return config
    if like == FROM_WEIGHTS:
        if config.Model.weights is None:
            raise ConfigError(
                "Model.like=weights takes the towers from Model.weights, which names no model: set "
                "-o Model.weights=... to the model that training starts from"
            )
        like = config.Model.weights
    # A copy, because the cached result must not change.
    model, text_length, loss_kind = deepcopy(_read_like(like, config.Model.dialect))
    tree = config.model_dump()
    explicit = config.model_dump(exclude_unset=True)
    explicit_data, explicit_loss = explicit.get("Data", {}), explicit.get("Loss", {})

    # Longer texts need more positions. RoBERTa does not use the first rows of its position embedding.
    first_position = (model["text"].get("variant") or {}).get("first_position", 0)
    min_positions = explicit_data.get("max_length", 0) + first_position
    model["text"]["max_positions"] = max(model["text"]["max_positions"], min_positions)

    # Towers of the model, with the values that the configuration sets.
    bases: dict[str, type[TowerConfig]] = {"image": ImageTowerConfig, "text": TextTowerConfig}
    for kind, base in bases.items():
        tower, explicit_tower = model[kind], explicit["Model"].pop(kind, {})
        name = tower["name"]
        if strip_suite_prefix(explicit_tower.get("name", name)) != strip_suite_prefix(name):
            # The configuration names another architecture. From the model's tower it takes over only the fields that
            # all towers have, such as preprocessing and image size. It takes over nothing if the model's tower is a
            # `transformer`, which is of another family: its pooling and tokenizer would not fit.
            shared_fields = base.model_fields if name != "transformer" else ()
            tower = {key: value for key, value in tower.items() if key in shared_fields}
        elif base.find_kind(name).is_user_defined and "name" not in explicit_tower:
            # Importing a module runs its code, so a module is imported only if the user has named it.
            raise ConfigError(
                f"Model.like={like}: its {kind} tower {name} is defined in a module outside this package; to have the "
                f"module imported, set Model.{kind}.name yourself"
            )
        model[kind] = {**tower, **explicit_tower}
        # The short side before the crop grows with the image size: otherwise the crop would get a black border.
        if tower.get("resized") and "resized" not in explicit_tower:
            scale = model[kind]["image_size"] / tower["image_size"]
            model[kind]["resized"] = round(scale * tower["resized"])
    tree["Model"] = {**model, **explicit["Model"], "like": None}

    # Settings of other sections that the configuration does not set.
    if "max_length" not in explicit_data:
        tree["Data"]["max_length"] = text_length
    if "resize" not in explicit.get("Views", {}):
        tree["Views"]["resize"] = max(tree["Views"]["resize"], model["image"]["image_size"])
    if config.Tuning.by_size:
        for section, key, value in choose_recipe(model):
            if key not in explicit.get(section, {}):
                tree[section][key] = value
    if "kind" not in explicit_loss:
        tree["Loss"]["kind"] = loss_kind
    if tree["Loss"]["kind"] == "sigmoid" and "max_logit_scale" not in explicit_loss:
        tree["Loss"]["max_logit_scale"] = SIGMOID_MAX_LOGIT_SCALE
    return validate_config(tree, f"Model.like={like}")


def choose_recipe(model: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """Return the learning rate and other settings for fine-tuning a model of this size.

    The other settings are the batches, the share of the initial weights in the final ones, and whether batch norms are
    frozen. A small model keeps a share of its initial weights, and a small RepVGG its batch norms: it then learns a
    little less of the new task and forgets much less (docs/own_data.md).

    The values for small towers were measured on sets of 200, 600 and 936 images, which all have the same optimum
    (docs/own_data.md). Those for released models are the rate of Chinese-CLIP and PaddleNLP and the batch of PaddleNLP.

    Args:
        model: the section `Model` of a configuration.

    Returns:
        Section, key and value of each setting.
    """
    width = model["text"].get("width")
    is_small = width is not None and width < SMALL_WIDTH
    if is_small:
        rate, global_batch, micro_batch, initial_share = 2e-3, 64, None, 0.3
    else:
        rate, global_batch, micro_batch, initial_share = 5e-5, 256, 64, 0.0
    return [
        ("Optimizer", "learning_rate", rate),
        ("Training", "global_batch", global_batch),
        ("Training", "micro_batch", micro_batch),
        ("Tuning", "initial_share", initial_share),
        ("Tuning", "freeze_norms", is_small and model["image"].get("name") == "RepVGG"),
    ]


def _read_like(like: str, dialect: Mapping[str, str]) -> tuple[dict[str, Any], int, str]:
    """Return the section `Model` of a model without its weights, its text length in tokens and the kind of its loss."""
    try:
        folder = get_folder(find_model(like)).resolve()
        return _read_like_once(like, tuple(dialect.items()), folder, _stat_files(folder))
    except (OSError, ValueError) as error:
        raise ConfigError(f"Model.like: {error}") from None


def _stat_files(folder: Path) -> frozenset[tuple[str, int, int]]:
    """Return name, size and time of the last change of each entry of a folder."""
    entries = set()
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # removed since, or a link to nothing
            status = path.stat()
            entries.add((path.name, status.st_size, status.st_mtime_ns))
    return frozenset(entries)


# Cached, because `ernie-vil2 plan` resolves the same model again for every change that it tries. Folder and files tell
# a model from another one that has been written under its name since.
@lru_cache(maxsize=1)
def _read_like_once(
    like: str, dialect: tuple[tuple[str, str], ...], folder: Path, files: frozenset[tuple[str, int, int]]
) -> tuple[dict[str, Any], int, str]:
    stored = read_model(like, dialect=dict(dialect))
    if stored.tokens is None:
        raise ValueError(f"{like}: no vocab.txt next to it, without which its words have no ids")
    weight_fields: dict[str, Any] = {"weights": True, "image": {"weights"}, "text": {"weights"}, "allow": True}
    model = stored.config.Model.model_dump(exclude=weight_fields)
    model["text"]["vocabulary"] = None  # the packaged one
    if stored.vocabulary_path != ERNIE_VOCABULARY:
        model["text"]["vocabulary"] = str(stored.vocabulary_path)
    return model, stored.config.Data.max_length, stored.config.Loss.kind


# Names of ViTs under which PaddleClas publishes weights.
_PADDLECLAS_VITS = {"ViT-B/16": "CLIP_vit_base_patch16_224", "ViT-L/14": "CLIP_vit_large_patch14_224"}

# Glob patterns of arrays that a source may have and a model need not: heads of a pretraining, and the bias of the
# sigmoid loss, because a training may choose another loss.
_MODEL_EXTRAS = [f"{HEAD_PREFIX}*", "logit_bias"]
_VIT_EXTRAS = ["head.*", "proj"]
_TEXT_EXTRAS = ["network.cls.*", "network.classifier.*"]

# Endings of the names of embeddings.
_WORDS = "embeddings.word_embeddings.weight"
_POSITIONS = "embeddings.position_embeddings.weight"
_TYPES = "embeddings.token_type_embeddings.weight"
_TASKS = "embeddings.task_type_embeddings.weight"

# Text positions that stay when others are stretched: they are trained best, and short texts need no more.
NUM_FIXED_POSITIONS = 20


@dataclass
class _Source:
    """Initial weights of a model or a tower, and what their report says about them.

    Attributes:
        arrays: arrays by their names in the model or tower.
        tokens: vocabulary of the word embedding; None: not known.
        extras: glob patterns of arrays that the model need not have.
        notes: lines for the report, each on a change of the arrays.
        has_library_names: whether the arrays have the names of PaddleClas's or PaddleNLP's network, not those of our
            tower.
    """

    arrays: dict[str, np.ndarray]
    tokens: list[str] | None = None
    extras: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    has_library_names: bool = False


def load_initial_weights(model: DualEncoder, config: ModelConfig) -> list[WeightReport]:
    """Set a model's weights from the sources that its configuration names.

    Heads of pretrained towers are left out. Any other difference is an error unless `config.allow` covers it.

    Returns:
        A report for each source; its first note names the source.

    Raises:
        FileNotFoundError: a source is neither a file or folder nor the name of a published model.
        ValueError: weights do not fit the model, or are not finite.
    """
    tokens_of_model: list[str] | None = None
    reports = []
    # Towers come last, so that their weights replace those of the whole model.
    for key, name, target in (
        ("Model.weights", config.weights, model),
        ("Model.image.weights", config.image.weights, model.image),
        ("Model.text.weights", config.text.weights, model.text),
    ):
        if name is None:
            continue
        try:
            if target is model.image:
                source = _read_image_tower(name, strip_suite_prefix(config.image.name), model.image)
            elif target is model.text:
                source = _read_text_tower(name, config.text.family)
            else:
                source = _read_whole_model(name, config.dialect)
            if tokens_of_model is None:
                text = config.text
                tokens_of_model = open_tokenizer(text.vocabulary, text.max_positions, text.tokenizer).tokens
            _adapt_embeddings(source, target, tokens_of_model, config.text.first_position)
            notes = [f"{key}: {name}", *source.notes]
            report = set_weights(target, source.arrays, [*config.allow, *source.extras], notes)
            check_finite(target)  # the weights may come from a training that failed
        except WeightMismatch as error:
            raise WeightMismatch(
                f"{key}: {name}: {error}; list what may differ in Model.allow, or set Model.like={name} to take over "
                "the sizes of a whole model"
            ) from None
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{key}: {error}") from None
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
        reports.append(report)
    return reports


def _read_whole_model(name: str, dialect: Mapping[str, str]) -> _Source:
    model_format, files = recognise_model(find_model(name))
    # The weights of a run were converted when the run began; the dialect that its configuration still names does not
    # concern them. Other weights in our layouts have no dialects: if one is given, `read_model` raises the error.
    is_run = (files.folder / CONFIG).is_file()
    if model_format.layout in ERNIE_VIL_LAYOUTS and (is_run or not dialect):
        source = _read_arrays(files.weights, "", files=files)
    else:
        stored = read_model(name, dialect=dialect)
        # As a text, the family is a note on its name and conventions.
        source = _Source(dict(stored.arrays), stored.tokens, notes=[str(stored.family)])
    source.extras = _MODEL_EXTRAS
    return source


def _read_image_tower(name: str, tower_name: str, tower: nn.Layer) -> _Source:
    """Read weights for an image tower from a file, a folder, or PaddleClas ("paddleclas")."""
    if name == "paddleclas":
        path = _fetch_from_paddleclas(tower_name)
    else:
        path = _find_tower_weights(name)
    source = _read_arrays(path, "image.")
    if isinstance(tower, VisionTransformer | SuiteVit):
        source.extras = _VIT_EXTRAS
        return source
    # A backbone of PaddleClas lies in `network` of our tower, with an Identity instead of its classifier.
    if source.has_library_names:
        source.arrays = _put_in_network(source.arrays, "")
    source.extras = [f"{key}.*" for key, layer in tower.named_sublayers() if isinstance(layer, nn.Identity)]
    return source


def _read_text_tower(name: str, family: str) -> _Source:
    """Read weights for a text tower from a file, a folder, or PaddleNLP, which knows some by name."""
    if Path(name).exists() or resolve_checkpoint(name) or name in hub.MODELS:
        source = _read_arrays(_find_tower_weights(name), "text.")
    else:
        weights, vocabulary = _fetch_from_paddlenlp(name, family)
        source = _read_arrays(weights, "text.", vocabulary)
    if source.has_library_names:
        source.arrays = _put_in_network(source.arrays, f"{family}.")
    source.extras = _TEXT_EXTRAS
    return source


def _read_arrays(path: Path, prefix: str, vocabulary: Path | None = None, files: ModelFiles | None = None) -> _Source:
    """Read a weight file and the vocabulary next to it.

    Args:
        path: the file.
        prefix: "image." or "text.": if the file holds a whole ERNIE-ViL 2.0, keep only the arrays whose names start
            with this prefix, and remove it from the names. "": keep all arrays; the file must hold an ERNIE-ViL 2.0.
        vocabulary: vocabulary to use instead of the one next to the file.
        files: files of the model, if they have been read already.
    """
    # First, so that a damaged file gives no misleading error.
    check_model_files(path)
    arrays = merge_lora((files or ModelFiles(path)).read(path))
    has_library_names = False
    try:
        arrays = to_ours(arrays, detect_format(arrays))
    except ValueError:
        if not prefix:
            raise
        has_library_names = True  # a tower alone
    else:
        arrays = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

    word_embedding = next((array for name, array in arrays.items() if name.endswith(_WORDS)), None)
    vocabulary = vocabulary or find_vocabulary(path, word_embedding)
    if vocabulary is None or word_embedding is None:
        return _Source(arrays, has_library_names=has_library_names)
    return _Source(arrays, read_tokens(vocabulary), has_library_names=has_library_names)


def _find_tower_weights(name: str) -> Path:
    path = find_model(name)
    # The file of a single tower may have any names, so any weight file at the path will do. Only if there is none, the
    # path must be that of a whole model.
    return find_arrays(path) or recognise_model(path)[1].weights


def _put_in_network(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Rename the arrays of a library's network to those of our tower, which holds it as `network`."""
    return {f"network.{name.removeprefix('network.').removeprefix(prefix)}": array for name, array in arrays.items()}


def _fetch_from_paddleclas(name: str) -> Path:
    """Return the weights that PaddleClas publishes for a backbone, from its cache or its server."""
    setting = "Model.image.weights=paddleclas"
    backbones, download = import_paddleclas(setting), import_suite("paddleclas.ppcls.utils.download", setting)
    name = _PADDLECLAS_VITS.get(name, name)
    # Each module of backbones has a table of addresses, MODEL_URLS, which the package does not export.
    build_backbone = getattr(backbones, name, None)
    module = sys.modules.get(getattr(build_backbone, "__module__", ""))
    url = getattr(module, "MODEL_URLS", {}).get(name)
    if not url:
        raise ValueError(f"PaddleClas publishes no weights for {name}; give a file in Model.image.weights")
    try:
        return Path(download.get_weights_path_from_url(url))
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(f"{url} could not be fetched ({error}); give a file in Model.image.weights") from None


def _fetch_from_paddlenlp(name: str, family: str) -> tuple[Path, Path]:
    """Return weights and vocabulary of the model that PaddleNLP has under a name, from its cache or its server."""
    setting = f"Model.text.weights={name}, a name that PaddleNLP knows,"
    transformers = import_suite("paddlenlp.transformers", setting)
    download = import_suite("paddlenlp.utils.download", setting)
    model = getattr(transformers, f"{family.title()}Model")
    tokenizer = getattr(transformers, f"{family.title()}Tokenizer")
    # A name that is not in the tables may be that of a contributed model, whose files have these fixed names.
    weights = model.pretrained_resource_files_map["model_state"].get(name, "model_state.pdparams")
    vocabulary = tokenizer.pretrained_resource_files_map["vocab_file"].get(name, "vocab.txt")
    try:
        paths = [download.resolve_file_path(name, file) for file in (weights, vocabulary)]
    except OSError as error:
        raise FileNotFoundError(
            f"{name}: no such file or folder, and PaddleNLP could not fetch a model of that name ({error}); give a "
            "folder in Model.text.weights"
        ) from None
    if None in paths:
        raise FileNotFoundError(f"{name}: no such file or folder, and PaddleNLP has no model of that name")
    return Path(paths[0]), Path(paths[1])


def _adapt_embeddings(source: _Source, target: nn.Layer, tokens: list[str], first_position: int) -> None:
    """Bring the embeddings of a source to the sizes of a model or tower, in place, where that is possible.

    Args:
        source: arrays to adapt.
        target: the model or tower.
        tokens: vocabulary of the target.
        first_position: row of the position embedding that belongs to the first token of a text.
    """
    state = target.state_dict()
    for name in list(source.arrays):
        if name.endswith((_TYPES, _TASKS)) and name not in state:
            _add_to_positions(source, name)

    for name, array in source.arrays.items():
        if name not in state or not _is_adaptable(array, state[name].shape):
            continue
        initial, rows = state[name].numpy(), state[name].shape[0]
        if name.endswith(_WORDS) and source.tokens is not None:
            if source.tokens != tokens or len(array) != rows:
                source.arrays[name] = _match_words(source, array, initial, tokens)
        elif name.endswith(IMAGE_POSITIONS) and len(array) == 1 and array.shape != initial.shape:
            source.arrays[name] = resize_positions(array, initial.shape[1])
            grids = find_grids(array.shape[1], initial.shape[1])
            if grids:
                _, old_side, new_side = grids
                source.notes.append(
                    f"position embeddings: from a grid of {old_side} x {old_side} to {new_side} x {new_side}, bicubic"
                )
        elif name.endswith(_POSITIONS) and len(array) > rows:
            source.arrays[name] = array[:rows]
            source.notes.append(f"{name}: the first {rows} of {len(array)} positions")
        elif name.endswith(_POSITIONS) and first_position < len(array) < rows:
            source.arrays[name] = stretch_positions(array, rows, first_position)
            num_fixed = _count_fixed_rows(len(array), first_position) - first_position
            source.notes.append(
                f"{name}: stretched from {len(array) - first_position} to {rows - first_position} positions; the first "
                f"{num_fixed} stay as they are"
            )
        elif name.endswith(_TYPES) and len(array) != rows:
            # Surplus types are cut off, missing ones keep their random values.
            source.arrays[name] = np.concatenate([array[:rows], initial[len(array) :]])
            source.notes.append(f"{name}: {min(len(array), rows)} of {rows} types; the model uses type 0")


def _is_adaptable(array: np.ndarray, shape: Sequence[int]) -> bool:
    """Return whether an array may be brought to a shape; if not, and it differs, `set_weights` reports it."""
    has_width = array.ndim == len(shape) > 0 and array.shape[-1] == shape[-1]
    return has_width and array.size > 0 and array.dtype.kind == "f"


def _add_to_positions(source: _Source, name: str) -> None:
    """Add row 0 of an embedding of types to every position embedding, where it has the same effect."""
    positions_name = name.removesuffix(_TYPES).removesuffix(_TASKS) + _POSITIONS
    if positions_name not in source.arrays:
        return
    types, positions = source.arrays[name], source.arrays[positions_name]
    # Arrays that do not fit together stay, and set_weights reports them.
    if types.ndim == positions.ndim == 2 and len(types) and types.shape[1] == positions.shape[1]:
        source.arrays[positions_name] = positions + source.arrays.pop(name)[0]
        source.notes.append(f"{name}: type 0 was added to the positions, which has the same effect")


def _match_words(source: _Source, array: np.ndarray, initial: np.ndarray, tokens: list[str]) -> np.ndarray:
    """Return the initial word embedding in which the tokens that the source has get their rows of `array`."""
    # A vocabulary may have more tokens than its word embedding has rows.
    source_row_of = {token: row for row, token in enumerate(source.tokens or [])}
    rows, source_rows = [], []
    for row, token in enumerate(tokens):
        source_row = source_row_of.get(token)
        if source_row is not None and source_row < len(array):
            rows.append(row)
            source_rows.append(source_row)
    initial[rows] = array[source_rows]
    source.notes.append(f"word embeddings: {len(rows)} of {len(tokens)} tokens found in the source's vocabulary")
    return initial


def stretch_positions(array: np.ndarray, rows: int, first_position: int = 0) -> np.ndarray:
    """Stretch position embeddings of texts `[num_rows, width]` to more rows, `[rows, width]`.

    The first 20 positions stay. With the stretch factor r, position 20 + i moves to 20 + r * i. The positions in
    between are interpolated linearly, and positions after the last one are extrapolated from the last two. With r = 4
    this turns 77 positions into 248, as in Long-CLIP (Zhang et al. 2024, arXiv 2403.15378), and 64 into 196, as in
    FG-CLIP 2. If there are fewer than 40 positions, the first half stays.

    Args:
        array: rows before `first_position` stay, too.
        rows: number of rows of the result.
        first_position: row of the first token.
    """
    array = array.astype(np.result_type(array, np.float32))
    num_fixed = _count_fixed_rows(len(array), first_position)
    step = (len(array) - num_fixed) / (rows - num_fixed)
    # `positions` says where in `array` each row of the result lies, as a fraction between two rows.
    positions = np.concatenate([np.arange(num_fixed), num_fixed + np.arange(rows - num_fixed) * step])
    lower_rows = np.minimum(positions.astype(np.int64), len(array) - 2)
    upper_share = (positions - lower_rows).astype(array.dtype)[:, None]
    return array[lower_rows] * (1 - upper_share) + array[lower_rows + 1] * upper_share


def _count_fixed_rows(num_rows: int, first_position: int) -> int:
    return first_position + min(NUM_FIXED_POSITIONS, (num_rows - first_position) // 2)
