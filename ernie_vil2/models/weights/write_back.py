"""Write a model in the layout of the folder that it came from, so that the authors' own code loads it.

The files of that folder are copied, and its weight file is written again with the arrays of the model in it. Arrays
that are not part of the model, such as another head, stay as they are. The result is read back and compared with the
model before the folder appears.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.config import ModelConfig, differences, load_config
from ernie_vil2.data.trimming import trim_files
from ernie_vil2.io.files import INTEGRITY, load_json, write_json, write_text
from ernie_vil2.io.run_folder import CONFIG, VOCABULARY
from ernie_vil2.io.terminal import make_printable
from ernie_vil2.models.weights.files import INDEX_SUFFIX, as_float32, get_folder, read_weights, write_torch_weights
from ernie_vil2.models.weights.format import (
    WORD_EMBEDDING,
    FamilyModel,
    GoldenEmbeddings,
    StoredModel,
    find_model,
    read_model,
    recognise_model,
)
from ernie_vil2.models.weights.integrity import TRAINING_FIELDS, write_model_integrity
from ernie_vil2.models.weights.name_table import NameTable
from ernie_vil2.models.weights.torch_files import BFLOAT16
from ernie_vil2.towers.base import ImageTowerConfig, TextVariant
from ernie_vil2.towers.transformer import NaFlex, get_text_variant

COPIED_SUFFIXES = {".json", ".txt", ".model", ".md", ".py", ".jinja", ".gz", ""}
DOCUMENT_SUFFIXES = {".md", ".py", ".jinja", ""}
"""Suffixes of copied files that change no embedding: model card, licence, and code, which is never run."""
MAX_COPIED_BYTES = 256 << 20  # of a file; the largest tokenizer.json, of MetaCLIP 2, has 60 million
MODEL_CONFIGS = "model_configs"  # folder of the settings in Chinese-CLIP's and EVA-CLIP's own layouts
PE_SETTINGS = "pe_config.json"  # settings in PE-Core's own layout

# Fields of `Model` about files and texts before they reach the towers. The model may differ from its origin in these.
_INPUT_FIELDS = {
    "Model.image.preprocessing",
    "Model.image.resize",
    "Model.image.interpolation",
    "Model.image.resized",
    "Model.image.most_patches",
    "Model.text.tokenizer",
}

# Keys by which the settings of all families name a size.
_IMAGE_SIZE_KEYS = (
    "image_size",
    "image_resolution",
    "size",
    "crop_size",
    "shortest_edge",
    "longest_edge",
    "height",
    "width",
)
_POSITION_KEYS = (
    "max_position_embeddings",
    "context_length",
    "text_max_position_embeddings",
    "longtext_len",
)
_LENGTH_KEYS = ("model_max_length",)
_PACKAGED_WORDS = {"openclip": "OpenCLIP", "pe-core": "PE-Core's own code", "eva-clip": "EVA-CLIP's own code"}
"""Who reads the vocabulary of a package instead of the folder's, by layout."""
# Array of the numbers 0 to n - 1 in older files. It has the old length; the authors' classes can make it themselves.
_POSITION_IDS = "position_ids"
# Arrays of EVA-CLIP with the angles for one image size. Its authors' code computes them by itself, too.
_ROTARY_TABLES = "rope.freqs_"
MAX_RUNS = 100  # between a model and its origin; without a bound, damaged folders could name each other in a circle


def find_origin(source: str | os.PathLike) -> Path | None:
    """Return the folder or file of another layout that a model came from.

    A run names what it began with, which may be another run. Without a run the model itself is the origin.

    Returns:
        The origin; None if the model came from none, or one of the models on the way no longer exists.
    """
    # Go back from run to run, until there is a folder without a config.yaml.
    for _ in range(MAX_RUNS):
        try:
            path = find_model(source)
        except FileNotFoundError:
            return None
        folder = get_folder(path)
        if not (folder / CONFIG).is_file():
            return path
        weights = load_config(folder / CONFIG, is_untrusted=True).Model.weights
        if not weights:
            return None
        source = weights
    return None


def find_layout(origin: Path) -> str:
    """Return the layout of a folder or file, as `ernie-vil2 convert --to` names it.

    Raises:
        FileNotFoundError, ValueError: see `recognise_model`.
    """
    return recognise_model(origin)[0].layout


def write_back(
    model: StoredModel,
    original: FamilyModel,
    weights: Path,
    origin: Path,
    folder: Path,
    golden: GoldenEmbeddings,
) -> list[str]:
    """Write a model of any layout into an empty folder, in the layout of the model that it came from.

    Args:
        model: the model to write.
        original: the model that it came from, or one with the same architecture; read in the same dialect.
        weights: weight file of `original`.
        origin: what the user called it, for messages.
        folder: the empty folder.
        golden: result of `compute_golden` for the model.

    Returns:
        Notes for the user, a line each.

    Raises:
        ValueError: the model and its origin do not go together; the message says why.
    """
    family, old_towers, new_towers = original.format, original.config.Model, model.config.Model
    old_arrays = read_weights(weights, keep_bfloat16=True)
    table = family.make_name_table(new_towers, original.dialect, old_arrays.keys())
    try:
        new_arrays = table.to_theirs(model.arrays)
    except ValueError as error:
        raise ValueError(
            f"{origin}: {error}; name an origin with a model of this architecture, or choose --to ernie_vil2"
        ) from None
    missing = [name for name in new_arrays if name not in old_arrays]
    if missing:
        raise ValueError(f"{weights} has no {make_printable(missing[0], max_length=100)}, which this model has")

    # A model whose word embedding has another size was trimmed.
    new_ids: dict[int, int] = {}
    is_trimmed = len(model.arrays[WORD_EMBEDDING]) != len(original.arrays[WORD_EMBEDDING])
    obstacle = family.explain_obstacle(old_towers, new_towers, is_trimmed)
    if obstacle:
        raise ValueError(f"{origin}: {obstacle}, so that this model cannot go back to it; choose --to ernie_vil2")
    if is_trimmed:
        new_ids = _map_token_ids(read_model(origin, dialect=original.dialect), model, origin, family.layout)

    # All weights keep the types of the file if these hold them exactly; otherwise all are written in float32.
    is_exact = all(_holds(old_arrays[name].dtype, new_arrays[name]) for name in new_arrays)
    dtypes: dict[str, np.dtype] = {}
    for name, array in old_arrays.items():
        is_unchanged = is_exact or name not in new_arrays
        dtypes[name] = array.dtype if is_unchanged else np.dtype("<f4")

    # Files, settings and weights.
    _copy_files(weights, folder)
    _update_sizes(folder, old_towers, new_towers)
    if old_towers.text.max_positions != new_towers.text.max_positions:
        old_arrays = {name: array for name, array in old_arrays.items() if not name.endswith(_POSITION_IDS)}
    if old_towers.image.image_size != new_towers.image.image_size:
        old_arrays = {name: array for name, array in old_arrays.items() if _ROTARY_TABLES not in name}
    if is_trimmed:
        trim_files(folder, new_ids, old_towers.text.tokenizer)
        _update_vocabulary_settings(folder, model)
    arrays = {name: _convert(new_arrays.get(name, array), dtypes[name]) for name, array in old_arrays.items()}
    # A scale is [] or [1], as the folder's settings say (nonscalar_logit_scale of OpenCLIP).
    for name, array in arrays.items():
        if array.size == old_arrays[name].size == 1:
            arrays[name] = array.reshape(old_arrays[name].shape)
    write_torch_weights(folder / weights.name.removesuffix(INDEX_SUFFIX), arrays)

    # Read it back. Whoever loads the folder without a dialect gets the default, so the integrity file describes that.
    written = read_model(folder, dialect=original.dialect)
    notes = compare_models(written, model, origin)
    is_default = not old_towers.dialect
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix not in DOCUMENT_SUFFIXES)
    config = written.config if is_default else read_model(folder).config
    write_model_integrity(folder, config, names, golden if is_default and not notes else None)

    if not is_default:
        notes.append(
            f"by default, load_model reads the folder in another way; for this model give it dialect={original.dialect}"
        )
    old_length, new_length = written.config.Data.max_length, model.config.Data.max_length
    if old_length != new_length:
        notes.append(
            f"texts are cut at {old_length} tokens there, at {new_length} here: embeddings of longer texts differ"
        )
    num_unchanged = len(old_arrays) - len(new_arrays)
    unchanged = f"; {num_unchanged} others are as in {origin}" if num_unchanged else ""
    # What most people want to know comes first.
    notes.insert(0, f"{len(new_arrays)} arrays are the model's{unchanged}")
    if not is_exact:
        narrow_types = sorted({_type_name(old_arrays[name].dtype) for name in new_arrays} - {"float32"})
        notes.append(
            f"weights are float32; those of {origin}, {' and '.join(narrow_types)}, cannot hold what training made"
        )
    return notes


def write_new(
    model: StoredModel,
    names: NameTable,
    weights: str,
    settings: Mapping[str, Any],
    folder: Path,
    golden: GoldenEmbeddings,
) -> list[str]:
    """Write a model into an empty folder of another family's layout without copying from an origin.

    Args:
        model: the model to write.
        names: the layout's table of names.
        weights: name of the weight file.
        settings: content of the layout's JSON files, by name.
        folder: the empty folder.
        golden: result of `compute_golden` for the model.

    Returns:
        Notes for the user: where embeddings will differ.
    """
    arrays = names.to_theirs(model.arrays)
    for name, content in settings.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_json(folder / name, content, indent=2)
    write_text(folder / VOCABULARY, "\n".join(model.tokens or []) + "\n")
    write_torch_weights(folder / weights, dict(arrays))

    # Read it back, since only that shows that the settings describe the model.
    written = read_model(folder)
    notes = compare_models(written, model, folder)
    file_names = sorted(path.name for path in folder.iterdir() if path.is_file())
    write_model_integrity(folder, written.config, file_names, None if notes else golden)
    return notes


def _type_name(dtype: np.dtype) -> str:
    return "bfloat16" if dtype == BFLOAT16 else dtype.name


def _holds(dtype: np.dtype, array: np.ndarray) -> bool:
    """Return whether a type of number holds the values of an array exactly."""
    return dtype == array.dtype or np.array_equal(as_float32(_convert(array, dtype)), array)


def _convert(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype != BFLOAT16 or array.dtype == BFLOAT16:
        return array.astype(dtype, copy=False)
    # The upper half of a float32. The lower one is zero wherever bfloat16 is written, see _holds.
    return (np.ascontiguousarray(array, "<f4").view("<u4") >> 16).astype("<u2").view(BFLOAT16).reshape(array.shape)


def _copy_files(weights: Path, folder: Path) -> None:
    """Copy all files next to the weights but the weights: settings, tokenizer, model card, licence and code."""
    model_configs = sorted((weights.parent / MODEL_CONFIGS).glob("*.json"))
    for path in [*sorted(weights.parent.iterdir()), *model_configs]:
        if not path.is_file() or path.suffix not in COPIED_SUFFIXES or path.name.startswith("."):
            continue
        if path.name == INTEGRITY or path.name.endswith(INDEX_SUFFIX) or path.stat().st_size > MAX_COPIED_BYTES:
            continue
        target = folder / path.relative_to(weights.parent)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def _update_sizes(folder: Path, old: ModelConfig, new: ModelConfig) -> None:
    """Change the settings in a folder for a model that was trained with larger images or longer texts."""
    image_sizes = old.image.image_size, new.image.image_size
    positions = old.text.max_positions, new.text.max_positions
    lengths = old.text.max_tokens, new.text.max_tokens
    if image_sizes[0] == image_sizes[1] and positions[0] == positions[1]:
        return
    changes: dict[str, tuple[int, int]] = {}
    for keys, sizes in ((_IMAGE_SIZE_KEYS, image_sizes), (_POSITION_KEYS, positions), (_LENGTH_KEYS, lengths)):
        changes |= dict.fromkeys(keys, sizes)
    if old.image.resized is not None:  # the short side before the crop, whose key was "size" before 2023
        changes["size"] = changes["shortest_edge"] = old.image.resized, new.image.resized or new.image.image_size

    main_file = folder / "config.json"
    names = (
        "tokenizer_config.json",
        "open_clip_config.json",
        "preprocessor_config.json",
        "processor_config.json",
        PE_SETTINGS,
    )
    for path in [main_file, *(folder / name for name in names), *(folder / MODEL_CONFIGS).glob("*.json")]:
        if not path.is_file():
            continue
        settings = load_json(path)
        changed_keys = _replace_sizes(settings, changes)
        if path == main_file and positions[0] != positions[1] and not changed_keys & set(_POSITION_KEYS):
            # The file left the number of positions to its default, which is no longer right.
            section = "text_config_dict" if settings.get("text_config_dict") else "text_config"
            settings[section] = {**(settings.get(section) or {}), "max_position_embeddings": positions[1]}
        if path == main_file and image_sizes[0] != image_sizes[1]:
            _update_image_grid(settings, new.image)
        write_json(path, settings, indent=2)


def _update_image_grid(settings: dict[str, Any], image: ImageTowerConfig) -> None:
    """Change an image size that settings in the layout of Transformers count in patches, or leave to its default."""
    for section in ("vision_config", "vision_config_dict"):
        vision = settings.get(section)
        if not isinstance(vision, dict):
            continue
        if isinstance(image, NaFlex):
            vision["num_patches"] = (image.image_size // image.patch_size) ** 2
        else:
            vision.setdefault("image_size", image.image_size)


def _replace_sizes(settings: Any, changes: Mapping[str, tuple[int, int]]) -> set[str]:
    """Replace sizes in a JSON object and the objects within it, in place; return the keys that were changed."""
    changed_keys: set[str] = set()
    if not isinstance(settings, dict):
        return changed_keys
    has_sides = settings.keys() >= {"height", "width"}
    for key, value in settings.items():
        if isinstance(value, dict):
            changed_keys |= _replace_sizes(value, changes)
        elif key == "width" and not has_sides:
            continue  # the width of a tower, which may be the same number
        elif key in changes:
            old, new = changes[key]
            if value in (old, [old, old]):
                settings[key] = new if value == old else [new, new]
                changed_keys.add(key)
    return changed_keys


def _map_token_ids(old: StoredModel, model: StoredModel, origin: Path, layout: str) -> dict[int, int]:
    """Return the new id of each token of the origin that a trimmed model still has, by its old id."""
    if layout in _PACKAGED_WORDS and old.config.Model.text.tokenizer == "open_clip":
        raise ValueError(
            f"{origin}: {_PACKAGED_WORDS[layout]} splits texts by the byte pairs of its package, whatever the folder "
            "holds, so that a trimmed model cannot go back to it; choose --to ernie_vil2"
        )
    old_ids = {token: old_id for old_id, token in enumerate(old.tokens or [])}
    new_ids = {old_ids[token]: new_id for new_id, token in enumerate(model.tokens or []) if token in old_ids}
    is_subset = len(new_ids) == len(model.arrays[WORD_EMBEDDING])
    if not is_subset or list(new_ids) != sorted(new_ids):  # trim_files keeps the order of the rows
        raise ValueError(f"the words of this model are not a part of those of {origin}, whose tokenizer it would get")
    return new_ids


def _update_vocabulary_settings(folder: Path, model: StoredModel) -> None:
    """Change the settings in a folder for a trimmed vocabulary: its size, and the ids of special tokens."""
    variant = get_text_variant(model.config.Model.text) or TextVariant()
    ids = {"pad": variant.padding}
    if variant.end is not None:
        ids["eos"] = variant.end
    size = {"vocab_size": len(model.arrays[WORD_EMBEDDING])}
    model_configs = (folder / MODEL_CONFIGS).glob("*.json")
    for path in [folder / "config.json", folder / "open_clip_config.json", *model_configs]:
        if not path.is_file():
            continue
        settings = load_json(path)
        if path.parent != folder and "vocab_size" in settings:  # Chinese-CLIP's own layout
            settings |= size
        elif path.name == "config.json":  # transformers
            changes = size | {f"{token}_token_id": token_id for token, token_id in ids.items()}
            # Both, if there are two: transformers reads the older text_config_dict first.
            sections = ["text_config"]
            if "text_config_dict" in settings:
                sections.append("text_config_dict")
            for section in sections:
                settings[section] = {**(settings.get(section) or {}), **changes}
        elif "model_cfg" in settings:  # OpenCLIP
            changes = size | {f"{token}_id": token_id for token, token_id in ids.items()}
            settings["model_cfg"]["text_cfg"] |= changes
        write_json(path, settings, indent=2)


def compare_models(written: StoredModel, model: StoredModel, origin: Path) -> list[str]:
    """Compare a model that was read back with the one that was written.

    Returns:
        A note for each difference in how files and texts are prepared for the towers.

    Raises:
        ValueError: vocabulary, towers or weights differ.
    """
    has_same_rules = written.config.Model.text.tokenizer == model.config.Model.text.tokenizer
    if has_same_rules and written.tokens and written.tokens != model.tokens:
        raise ValueError(f"the words of this model are others than those of {origin}, whose tokenizer it would get")
    notes = []
    written_settings = written.config.Model.model_dump(exclude=TRAINING_FIELDS)
    settings = model.config.Model.model_dump(exclude=TRAINING_FIELDS)
    for key, (written_value, value) in differences(written_settings, settings, prefix="Model."):
        difference = f"{key} is {value} in this model and {written_value} in {origin}"
        if key not in _INPUT_FIELDS:
            raise ValueError(f"{difference}, whose settings it would get")
        notes.append(f"{difference}: embeddings of files and strings differ where these do")
    for name, array in model.arrays.items():
        if name not in written.arrays or not np.array_equal(written.arrays[name], array):
            raise ValueError(f"{name} does not come back as it was written: {origin} is of another model")
    return notes
