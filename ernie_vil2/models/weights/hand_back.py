"""A model in the layout of the folder that it came from, where the authors' own code loads it.

The files of that folder are copied, and its weights written again with the arrays of the model in them. What is not a
part of the model, as another head, stays as it is. What was written is read back and compared before it appears.

Of a run with LoRA the changes can be handed back alone, in the layout of `peft`, which keeps those of a model of
transformers in `adapter_model.safetensors`, each by the name of its layer, and their rank and alpha in
`adapter_config.json`; `PeftModel.from_pretrained(model, FOLDER)` adds them to the model.
"""

import os
import shutil
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.config import Config, ModelConfig, differences, load_config
from ernie_vil2.data.trimming import trim_files
from ernie_vil2.io.files import INTEGRITY, atomic_folder, load_json, write_json
from ernie_vil2.io.run_folder import CONFIG
from ernie_vil2.io.terminal import printable
from ernie_vil2.models.heads import HEAD
from ernie_vil2.models.lora import PARTS, A, B
from ernie_vil2.models.weights.families import Family, FamilyModel, find_family
from ernie_vil2.models.weights.families.family import OF_ARRAYS
from ernie_vil2.models.weights.files import INDEX, read_weights, write_theirs
from ernie_vil2.models.weights.integrity import OF_TRAINING, write_model_integrity
from ernie_vil2.models.weights.names import Names
from ernie_vil2.models.weights.releases import WORDS
from ernie_vil2.models.weights.stored import StoredModel, find_model, read_model
from ernie_vil2.models.weights.torch_files import BFLOAT16, as_float32
from ernie_vil2.towers.base import TextVariant
from ernie_vil2.towers.text import text_variant

COPIED = {".json", ".txt", ".model", ".md", ".py", ".jinja", ".gz", ""}  # endings of the files that are copied
FOR_PEOPLE = {".md", ".py", ".jinja", ""}
"""Of these, those that no number depends on: model card, licence, and code that is never run."""
LARGEST_COPY = 256 << 20  # bytes; MetaCLIP 2's tokenizer.json has 60 million
SCALARS = ("log_logit_scale", "logit_bias")
SIZES = "model_configs"  # the folder in which Chinese-CLIP's own files have their sizes
_BEFORE_TOWERS = {f"Model.image.{key}" for key in ("preprocessing", "resize", "interpolation", "resized")}
_BEFORE_TOWERS |= {"Model.image.most_patches", "Model.text.tokenizer"}
_IMAGE_SIZE = ("image_size", "image_resolution")
_TEXT_SIZE = ("max_position_embeddings", "context_length", "text_max_position_embeddings", "longtext_len")
_LENGTH = ("model_max_length",)
_POSITIONS = "position_ids"  # the numbers 0 to n - 1 in older files, which the authors' classes count by themselves
_SIDES = ("size", "crop_size", "shortest_edge", "longest_edge", "height", "width")


def origin_of(source: str | os.PathLike) -> Path | None:
    """The folder or file of another layout that a model came from: itself, or what its run began with, and the runs
    before that. None: it came from none, or what is on the way is not there any more."""
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
    """The layout of a folder or file, as `ernie-vil2 convert --to` names it."""
    found = find_family(origin)
    return found[0].layout if found else read_model(origin).layout


def hand_back(
    model: StoredModel, origin: Path, folder: Path, layout: str, golden: Mapping[str, Any] | None = None
) -> list[str]:
    """Writes a model of any layout into a new folder as the one that it came from; returns what a person should know, a
    line each.

    Args:
        origin: the folder or file that it came from, or one alike.
        layout: that is expected of `origin`.
        golden: for the integrity file, as `compute_golden` gives it.

    Raises:
        ValueError: the model and its origin do not go together; the message says in what.
    """
    found = find_family(origin)
    if found is None or found[0].layout != layout:
        what = f"of the layout {found[0].layout}" if found else "not the folder of another family"
        raise ValueError(
            f"{origin} is {what}: settings and tokenizer of {layout} are taken from a folder of that "
            "layout with a model of this architecture; name one with --origin"
        )
    family, weights = found
    was = _read_alike(family, weights, model.config.Model)
    before = read_weights(weights, exact=True)
    theirs = family.names(model.config.Model, was.dialect, before.keys()).to_theirs(model.arrays)
    lacking = [name for name in theirs if name not in before]
    if lacking:
        raise ValueError(f"{weights} has no {printable(lacking[0], longest=100)}, which this model has")
    trimmed = len(model.arrays[WORDS]) != len(was.arrays[WORDS])
    positions = _positions(read_model(origin, dialect=was.dialect), model, origin, layout) if trimmed else {}
    exact = all(_fits(theirs[name], before[name].dtype) for name in theirs)
    types = {name: array.dtype if exact or name not in theirs else np.dtype("<f4") for name, array in before.items()}
    with atomic_folder(folder) as aside:
        _copy_files(weights, aside)
        _resize(aside, was.config.Model, model.config.Model)
        same = was.config.Model.text.max_positions == model.config.Model.text.max_positions
        before = {name: array for name, array in before.items() if same or not name.endswith(_POSITIONS)}
        if trimmed:
            trim_files(aside, positions, was.config.Model.text.tokenizer)
            _renumber(aside, model)
        arrays = {name: _as(theirs.get(name, array), types[name]) for name, array in before.items()}
        write_theirs(aside / weights.name.removesuffix(INDEX), arrays)
        written = read_model(aside, dialect=was.dialect)
        notes = checked(written, model, origin)
        plain = not was.config.Model.dialect  # what loading without a dialect gives
        files = sorted(path.name for path in aside.iterdir() if path.is_file() and path.suffix not in FOR_PEOPLE)
        read = written if plain else read_model(aside)
        write_model_integrity(aside, read.config, files, golden if plain and not notes else None)
    if not plain:
        notes.append(f"load_model takes its default there; this model is read with dialect={was.dialect}")
    kept = len(before) - len(theirs)
    was_cut, cut = written.config.Data.max_length, model.config.Data.max_length
    if was_cut != cut:
        notes.append(f"texts are read up to {was_cut} tokens there, up to {cut} here: longer ones are cut elsewhere")
    notes.insert(0, f"{len(theirs)} arrays are the model's" + (f", {kept} others are as in {origin}" if kept else ""))
    if not exact:
        narrow = sorted({_name(before[name].dtype) for name in theirs} - {"float32"})
        notes.append(f"weights are float32; those of {origin}, {' and '.join(narrow)}, cannot hold what training made")
    return notes


def _read_alike(family: Family, weights: Path, model: ModelConfig) -> FamilyModel:
    """The origin, its texts read in the way in which the model reads them, where there is more than one (FG-CLIP 2); of
    ways of computing with the same arrays it keeps its own."""
    ways = {
        key: (model.dialect.get(key, known[0]), *known) for key, known in family.dialects.items() if key in OF_ARRAYS
    }
    for chosen in product(*ways.values()):
        found = family.read(weights, dict(zip(ways, chosen, strict=True)))
        if found.config.Model.text.max_positions == model.text.max_positions:
            return found
    return family.read(weights, {key: known[0] for key, known in ways.items()})


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
    """All but weights: settings, tokenizer, model card, licence, and code, which is only copied."""
    sizes = sorted((weights.parent / SIZES).glob("*.json"))
    for path in [*sorted(weights.parent.iterdir()), *sizes]:
        plain = path.is_file() and path.suffix in COPIED and not path.name.startswith(".")
        if plain and path.name != INTEGRITY and not path.name.endswith(INDEX) and path.stat().st_size <= LARGEST_COPY:
            target = folder / path.relative_to(weights.parent)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)


def _resize(folder: Path, was: ModelConfig, now: ModelConfig) -> None:
    """Brings the settings of a folder to the images and texts of a model that was trained on larger or longer ones."""
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
    """The new id of each token of the origin that a trimmed model has."""
    if (layout, was.config.Model.text.tokenizer) == ("openclip", "open_clip"):
        raise ValueError(
            f"{origin}: OpenCLIP splits texts by the byte pairs of its package, whatever the folder holds, so that a "
            "trimmed model does not go back to it; choose --to ernie_vil2"
        )
    old = {token: number for number, token in enumerate(was.tokens or [])}
    positions = {old[token]: number for number, token in enumerate(model.tokens or []) if token in old}
    if len(positions) != len(model.arrays[WORDS]) or list(positions) != sorted(positions):
        raise ValueError(f"the words of this model are not a part of those of {origin}, whose tokenizer it would get")
    return positions


def _renumber(folder: Path, model: StoredModel) -> None:
    """Brings what settings say of words to a trimmed vocabulary."""
    variant = text_variant(model.config.Model.text) or TextVariant()
    ids = {"pad": variant.padding} | ({} if variant.end is None else {"eos": variant.end})
    size = {"vocab_size": len(model.arrays[WORDS])}
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
    """ValueError if what was written is not the model; what it does otherwise before its towers is returned."""
    notes = []
    ways = [each.config.Model.text.tokenizer for each in (written, model)]
    if ways[0] == ways[1] and written.tokens and written.tokens != model.tokens:
        raise ValueError(f"the words of this model are others than those of {origin}, whose tokenizer it would get")
    forms = [each.config.Model.model_dump(exclude=OF_TRAINING) for each in (written, model)]
    for key, (theirs, ours) in differences(*forms, prefix="Model."):
        what = f"{key} is {ours} in this model and {theirs} in {origin}"
        if key not in _BEFORE_TOWERS:
            raise ValueError(f"{what}, whose settings it would get")
        notes.append(f"{what}: embeddings of files and strings differ where these do")
    for name, array in model.arrays.items():
        if name not in written.arrays or not np.array_equal(written.arrays[name], array):
            raise ValueError(f"{name} does not come back as it was written: {origin} is of another model")
    return notes


def write_adapter(weights: Path, config: Config, origin: Path, folder: Path) -> list[str]:
    """Writes the LoRA of a run into a new folder; returns what a person should know, a line each.

    `weights` is the file of the run's weights, in which the changes are not merged, and `origin` the folder of
    transformers that it began with.

    Raises:
        ValueError: the run has no LoRA, or trained more than that; its origin is of another layout, or has no layer
            for one of the changes.
    """
    arrays, lora = read_weights(weights), config.Tuning.lora
    layers = [name.removesuffix(f".{A}") for name in arrays if name.endswith(f".{A}")]
    if lora is None or not layers:
        raise ValueError(f"{weights.parent} has no LoRA to keep apart; leave --lora out")
    found = find_family(origin)
    if found is None or found[0].layout != "hf":
        raise ValueError(
            f"{origin}: peft adds to models of transformers only; merge LoRA into this one (--lora merged)"
        )
    family, path = found
    was = family.read(path, config.Model.dialect)
    _check_untouched(arrays, was.arrays, origin)
    names = family.names(config.Model, was.dialect, was.names)
    changes: dict[str, np.ndarray] = {}
    for layer in layers:
        changes |= _of_layer(names, layer, arrays[f"{layer}.{A}"], arrays[f"{layer}.{B}"])
    with atomic_folder(folder) as aside:
        write_theirs(
            aside / "adapter_model.safetensors",
            {f"base_model.model.{name}": np.ascontiguousarray(array) for name, array in changes.items()},
        )
        write_json(
            aside / "adapter_config.json",
            {
                "peft_type": "LORA",
                "task_type": None,
                "base_model_name_or_path": str(origin),
                "r": lora.rank,
                "lora_alpha": lora.alpha,
                "lora_dropout": 0.0,
                "bias": "none",
                "inference_mode": True,
                "target_modules": sorted({name.partition(".lora_")[0] for name in changes}),
            },
            indent=2,
        )
    moved = [name for name in SCALARS if name in arrays and not np.array_equal(arrays[name], was.arrays[name])]
    return [f"{' and '.join(moved)} learned too, and an adapter has no such: scores differ by that"] if moved else []


def _check_untouched(arrays: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray], origin: Path) -> None:
    for name, array in arrays.items():
        if name.rpartition(".")[2] in PARTS or name in SCALARS or name.startswith(HEAD):
            continue
        if name not in before or not np.array_equal(array, before[name].astype(array.dtype)):
            raise ValueError(
                f"{name} is not as in {origin}, to which an adapter would be added: merge LoRA into this "
                "model (--lora merged)"
            )


def _of_layer(names: Names, layer: str, a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    """The change of one layer of ours by their names; the changes of several that ours has as one share their first
    half."""
    theirs = names.all_theirs(f"{layer}.weight")
    if not all(name.endswith(".weight") for name in theirs):
        raise ValueError(
            f"{layer} is a part of their {theirs[0]}, to which peft's LoRA does not apply: merge it (--lora merged)"
        )
    if a.ndim == 2:  # [in, rank] and [rank, out]; PyTorch's layers have them turned
        a, b = a.T, b.T
    found = {}
    for name, part in zip(theirs, np.split(b, len(theirs)), strict=True):
        found[f"{name.removesuffix('.weight')}.lora_A.weight"] = a
        found[f"{name.removesuffix('.weight')}.lora_B.weight"] = part
    return found
