"""A model in the layout of the folder that it came from, where the authors' own code loads it.

The files of that folder are copied, and its weights written again with the arrays of the model in them. What is not a
part of the model, as another head, stays as it is. What was written is read back and compared before it appears.
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
from ernie_vil2.io.terminal import printable
from ernie_vil2.models.weights.files import INDEX_SUFFIX, read_weights, write_torch_weights
from ernie_vil2.models.weights.format import (
    WORD_EMBEDDING,
    FamilyModel,
    Golden,
    StoredModel,
    find_model,
    read_model,
    recognise_model,
)
from ernie_vil2.models.weights.integrity import TRAINING_FIELDS, write_model_integrity
from ernie_vil2.models.weights.name_table import NameTable
from ernie_vil2.models.weights.torch_files import BFLOAT16, as_float32
from ernie_vil2.towers.base import TextVariant
from ernie_vil2.towers.transformer import text_variant

COPIED = {".json", ".txt", ".model", ".md", ".py", ".jinja", ".gz", ""}  # endings of the files that are copied
FOR_PEOPLE = {".md", ".py", ".jinja", ""}
"""Of these, those that no number depends on: model card, licence, and code that is never run."""
LARGEST_COPY = 256 << 20  # bytes; MetaCLIP 2's tokenizer.json has 60 million
SIZES = "model_configs"  # the folder in which Chinese-CLIP's own files have their sizes
_BEFORE_TOWERS = {f"Model.image.{key}" for key in ("preprocessing", "resize", "interpolation", "resized")}
_BEFORE_TOWERS |= {"Model.image.most_patches", "Model.text.tokenizer"}
_IMAGE_SIZE = ("image_size", "image_resolution")
_TEXT_SIZE = ("max_position_embeddings", "context_length", "text_max_position_embeddings", "longtext_len")
_LENGTH = ("model_max_length",)
_POSITIONS = "position_ids"  # the numbers 0 to n - 1 in older files, which the authors' classes count by themselves
_SIDES = ("size", "crop_size", "shortest_edge", "longest_edge", "height", "width")


def origin_of(source: str | os.PathLike) -> Path | None:
    """Return the folder or file of another layout that a model came from.

    That is itself, or what its run began with, and the runs before that; None if it came from none, or what is on the
    way is not there any more.
    """
    for _ in range(100):  # folders may name each other
        try:
            path = find_model(source)
        except FileNotFoundError:
            return None
        folder = path if path.is_dir() else path.parent
        if not (folder / CONFIG).is_file():
            return path
        if (source := load_config(folder / CONFIG, is_strangers=True).Model.weights or "") == "":
            return None
    return None


def layout_of(origin: Path) -> str:
    """Return the layout of a folder or file, as `ernie-vil2 convert --to` names it."""
    return recognise_model(origin)[0].layout


def hand_back(
    model: StoredModel,
    before: FamilyModel,
    weights: Path,
    origin: Path,
    folder: Path,
    golden: Golden,
) -> list[str]:
    """Write a model of any layout into an empty folder as the one that it came from.

    Args:
        before: the model that it came from, or one alike, its texts read in the same way.
        weights: file of the weights of `before`.
        origin: what a person named, for messages.
        golden: for the integrity file, as `compute_golden` gives it.

    Returns:
        What a person should know, a line each.

    Raises:
        ValueError: the model and its origin do not go together; the message says in what.
    """
    family, was = before.format, before.config.Model
    arrays_before = read_weights(weights, keep_bfloat16=True)
    theirs = family.make_name_table(model.config.Model, before.dialect, arrays_before.keys()).to_theirs(model.arrays)
    lacking = [name for name in theirs if name not in arrays_before]
    if lacking:
        raise ValueError(f"{weights} has no {printable(lacking[0], longest=100)}, which this model has")
    is_trimmed = len(model.arrays[WORD_EMBEDDING]) != len(before.arrays[WORD_EMBEDDING])
    positions = {}
    if is_trimmed:
        positions = _positions(read_model(origin, dialect=before.dialect), model, origin, family.layout)

    # Weights are written in the type of the file's if that holds all of them, else in float32.
    is_exact = all(_fits(theirs[name], arrays_before[name].dtype) for name in theirs)
    types = {}
    for name, array in arrays_before.items():
        types[name] = array.dtype if is_exact or name not in theirs else np.dtype("<f4")

    _copy_files(weights, folder)
    _resize(folder, was, model.config.Model)
    if was.text.max_positions != model.config.Model.text.max_positions:
        arrays_before = {name: array for name, array in arrays_before.items() if not name.endswith(_POSITIONS)}
    if is_trimmed:
        trim_files(folder, positions, was.text.tokenizer)
        _renumber(folder, model)
    arrays = {name: _as(theirs.get(name, array), types[name]) for name, array in arrays_before.items()}
    write_torch_weights(folder / weights.name.removesuffix(INDEX_SUFFIX), arrays)

    written = read_model(folder, dialect=before.dialect)
    notes = checked(written, model, origin)
    is_default = not was.dialect  # whether loading without a dialect gives the model
    files = sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix not in FOR_PEOPLE)
    config = written.config if is_default else read_model(folder).config
    write_model_integrity(folder, config, files, golden if is_default and not notes else None)

    if not is_default:
        notes.append(f"load_model takes its default there; this model is read with dialect={before.dialect}")
    cut_there, cut_here = written.config.Data.max_length, model.config.Data.max_length
    if cut_there != cut_here:
        notes.append(
            f"texts are read up to {cut_there} tokens there, up to {cut_here} here: longer ones are cut elsewhere"
        )
    others = len(arrays_before) - len(theirs)
    rest = f", {others} others are as in {origin}" if others else ""
    notes.insert(0, f"{len(theirs)} arrays are the model's{rest}")
    if not is_exact:
        narrow = sorted({_name(arrays_before[name].dtype) for name in theirs} - {"float32"})
        notes.append(f"weights are float32; those of {origin}, {' and '.join(narrow)}, cannot hold what training made")
    return notes


def write_anew(
    model: StoredModel,
    names: NameTable,
    weights: str,
    settings: Mapping[str, Any],
    folder: Path,
    golden: Golden,
) -> list[str]:
    """Write a model into an empty folder of a layout of which it says all; return in what it computes otherwise there.

    Args:
        names: the layout's table of names.
        weights: name of the file of the weights.
        settings: the layout's JSON files by name.
    """
    theirs = names.to_theirs(model.arrays)
    for name, content in settings.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_json(folder / name, content, indent=2)
    write_text(folder / VOCABULARY, "\n".join(model.tokens or []) + "\n")
    write_torch_weights(folder / weights, dict(theirs))

    written = read_model(folder)
    notes = checked(written, model, folder)
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    write_model_integrity(folder, written.config, files, None if notes else golden)
    return notes


def _name(dtype: np.dtype) -> str:
    return "bfloat16" if dtype == BFLOAT16 else dtype.name


def _fits(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether a type of number holds an array's values."""
    return dtype == array.dtype or np.array_equal(as_float32(_as(array, dtype)), array)


def _as(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype != BFLOAT16 or array.dtype == BFLOAT16:
        return array.astype(dtype, copy=False)
    return (np.ascontiguousarray(array, "<f4").view("<u4") >> 16).astype("<u2").view(BFLOAT16).reshape(array.shape)


def _copy_files(weights: Path, folder: Path) -> None:
    """Copy all but weights: settings, tokenizer, model card, licence, and code, which is never run."""
    sizes = sorted((weights.parent / SIZES).glob("*.json"))
    for path in [*sorted(weights.parent.iterdir()), *sizes]:
        plain = path.is_file() and path.suffix in COPIED and not path.name.startswith(".")
        if (
            plain
            and path.name != INTEGRITY
            and not path.name.endswith(INDEX_SUFFIX)
            and path.stat().st_size <= LARGEST_COPY
        ):
            target = folder / path.relative_to(weights.parent)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)


def _resize(folder: Path, was: ModelConfig, now: ModelConfig) -> None:
    """Bring the settings of a folder to the images and texts of a model that was trained on larger or longer ones."""
    sides = was.image.image_size, now.image.image_size
    rows = was.text.max_positions, now.text.max_positions
    lengths = was.text.longest, now.text.longest
    found = set()

    def changed(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {name: changed(part, name) for name, part in value.items()}
        for keys, (old, new) in (((*_IMAGE_SIZE, *_SIDES), sides), (_TEXT_SIZE, rows), (_LENGTH, lengths)):
            if key in keys and value == old:
                found.add(keys)
                return new
        return value

    if sides[0] == sides[1] and rows[0] == rows[1]:
        return
    names = [
        "config.json",
        "tokenizer_config.json",
        "open_clip_config.json",
        "preprocessor_config.json",
        "processor_config.json",
    ]
    for path in [*(folder / name for name in names), *(folder / SIZES).glob("*.json")]:
        if path.is_file():
            settings = changed(load_json(path), "")
            if path.name == names[0] and rows[0] != rows[1] and _TEXT_SIZE not in found:  # as by default
                part = "text_config_dict" if settings.get("text_config_dict") else "text_config"
                settings[part] = {**settings.get(part, {}), _TEXT_SIZE[0]: rows[1]}
            write_json(path, settings, indent=2)


def _positions(was: StoredModel, model: StoredModel, origin: Path, layout: str) -> dict[int, int]:
    """Return the new id of each token of the origin that a trimmed model has."""
    if (layout, was.config.Model.text.tokenizer) == ("openclip", "open_clip"):
        raise ValueError(
            f"{origin}: OpenCLIP splits texts by the byte pairs of its package, whatever the folder holds, so that a "
            "trimmed model does not go back to it; choose --to ernie_vil2"
        )
    old = {token: number for number, token in enumerate(was.tokens or [])}
    positions = {old[token]: number for number, token in enumerate(model.tokens or []) if token in old}
    if len(positions) != len(model.arrays[WORD_EMBEDDING]) or list(positions) != sorted(positions):
        raise ValueError(f"the words of this model are not a part of those of {origin}, whose tokenizer it would get")
    return positions


def _renumber(folder: Path, model: StoredModel) -> None:
    """Bring what settings say of words to a trimmed vocabulary."""
    variant = text_variant(model.config.Model.text) or TextVariant()
    ids = {"pad": variant.padding} | ({} if variant.end is None else {"eos": variant.end})
    size = {"vocab_size": len(model.arrays[WORD_EMBEDDING])}
    for path in [folder / "config.json", folder / "open_clip_config.json", *(folder / SIZES).glob("*.json")]:
        if not path.is_file():
            continue
        settings = load_json(path)
        if path.parent != folder and "vocab_size" in settings:
            settings |= size
        elif path.name == "config.json":
            for section in {"text_config", *({"text_config_dict"} & settings.keys())}:
                numbers = {f"{key}_token_id": number for key, number in ids.items()}
                settings[section] = {**(settings.get(section) or {}), **size, **numbers}
        elif "model_cfg" in settings:
            settings["model_cfg"]["text_cfg"] |= size | {f"{key}_id": number for key, number in ids.items()}
        write_json(path, settings, indent=2)


def checked(written: StoredModel, model: StoredModel, origin: Path) -> list[str]:
    """Return what a written model does otherwise before its towers; raise ValueError if it is not the model."""
    notes = []
    ways = [each.config.Model.text.tokenizer for each in (written, model)]
    if ways[0] == ways[1] and written.tokens and written.tokens != model.tokens:
        raise ValueError(f"the words of this model are others than those of {origin}, whose tokenizer it would get")
    forms = [each.config.Model.model_dump(exclude=TRAINING_FIELDS) for each in (written, model)]
    for key, (theirs, ours) in differences(*forms, prefix="Model."):
        what = f"{key} is {ours} in this model and {theirs} in {origin}"
        if key not in _BEFORE_TOWERS:
            raise ValueError(f"{what}, whose settings it would get")
        notes.append(f"{what}: embeddings of files and strings differ where these do")
    for name, array in model.arrays.items():
        if name not in written.arrays or not np.array_equal(written.arrays[name], array):
            raise ValueError(f"{name} does not come back as it was written: {origin} is of another model")
    return notes
