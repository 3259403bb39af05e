"""The changes of a run with LoRA alone, in the layout of `peft`.

It keeps the changes of a model of transformers in `adapter_model.safetensors`, each by the name of its layer, and their
rank and alpha in `adapter_config.json`; `PeftModel.from_pretrained(model, FOLDER)` adds them to the model.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ernie_vil2.config import Config
from ernie_vil2.io.files import atomic_folder, write_json
from ernie_vil2.models.heads import HEAD_PREFIX
from ernie_vil2.models.lora import LORA_A, LORA_B, LORA_NAMES
from ernie_vil2.models.weights.families.family import Family
from ernie_vil2.models.weights.files import read_weights, write_torch_weights
from ernie_vil2.models.weights.format import recognise_model
from ernie_vil2.models.weights.name_table import NameTable

SCALARS = ("log_logit_scale", "logit_bias")


def write_adapter(weights: Path, config: Config, origin: Path, folder: Path) -> list[str]:
    """Write the LoRA of a run into a new folder.

    Args:
        weights: file of the run's weights, in which the changes are not merged.
        origin: the folder of transformers that the run began with.

    Returns:
        What a person should know, a line each.

    Raises:
        ValueError: the run has no LoRA, or trained more than that; its origin is of another layout, or has no layer
            for one of the changes.
    """
    arrays, lora = read_weights(weights), config.Tuning.lora
    layers = [name.removesuffix(f".{LORA_A}") for name in arrays if name.endswith(f".{LORA_A}")]
    if lora is None or not layers:
        raise ValueError(f"{weights.parent} has no LoRA to keep apart; leave --lora out")
    family, files = recognise_model(origin)
    if not isinstance(family, Family) or family.layout != "hf":
        raise ValueError(
            f"{origin}: peft adds to models of transformers only; merge LoRA into this one (--lora merged)"
        )
    was = family.read_towers(files.weights, config.Model.dialect)
    _check_untouched(arrays, was.arrays, origin)
    names = family.make_name_table(config.Model, was.dialect, was.array_names)
    changes: dict[str, np.ndarray] = {}
    for layer in layers:
        changes |= _of_layer(names, layer, arrays[f"{layer}.{LORA_A}"], arrays[f"{layer}.{LORA_B}"])
    with atomic_folder(folder) as aside:
        write_torch_weights(
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
        if name.rpartition(".")[2] in LORA_NAMES or name in SCALARS or name.startswith(HEAD_PREFIX):
            continue
        if name not in before or not np.array_equal(array, before[name].astype(array.dtype)):
            raise ValueError(
                f"{name} is not as in {origin}, to which an adapter would be added: merge LoRA into this "
                "model (--lora merged)"
            )


def _of_layer(names: NameTable, layer: str, a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    """Return the change of one layer of ours by their names.

    The changes of several layers that ours has as one share their first half.
    """
    theirs = names.translate(f"{layer}.weight")
    if not all(name.endswith(".weight") for name in theirs):
        raise ValueError(
            f"{layer} is a part of their {theirs[0]}, to which peft's LoRA does not apply: merge it (--lora merged)"
        )
    if a.ndim == 2:  # [in, rank] and [rank, out]; PyTorch's layers have them turned
        a, b = a.T, b.T
    arrays = {}
    for name, rows in zip(theirs, np.split(b, len(theirs)), strict=True):
        arrays[f"{name.removesuffix('.weight')}.lora_A.weight"] = a
        arrays[f"{name.removesuffix('.weight')}.lora_B.weight"] = rows
    return arrays
