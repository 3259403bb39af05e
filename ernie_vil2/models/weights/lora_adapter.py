"""Write only what LoRA has learned in a run, in the layout of `peft`.

`adapter_model.safetensors` holds the factors of LoRA by the names of the layers in transformers, and
`adapter_config.json` their rank and alpha. `PeftModel.from_pretrained(model, FOLDER)` adds them to the model.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ernie_vil2.config import Config
from ernie_vil2.io.files import atomic_folder, write_json
from ernie_vil2.models.heads import HEAD_PREFIX
from ernie_vil2.models.lora import LORA_A, LORA_B, LORA_NAMES, merge_lora
from ernie_vil2.models.weights.families.family import Family
from ernie_vil2.models.weights.files import read_weights, write_torch_weights
from ernie_vil2.models.weights.format import recognise_model
from ernie_vil2.models.weights.integrity import check_model_files
from ernie_vil2.models.weights.name_table import NameTable

SCALARS = ("log_logit_scale", "logit_bias")  # trained next to LoRA; an adapter cannot hold them


def write_adapter(weights: Path, config: Config, origin: Path, folder: Path) -> list[str]:
    """Write the LoRA of a run into a new folder.

    Args:
        weights: weight file of the run, in which LoRA is not merged.
        config: configuration of the run.
        origin: folder of transformers that the run began with.
        folder: folder to make.

    Returns:
        Notes for the user, a line each.

    Raises:
        ValueError: the run has no LoRA, trained more than LoRA, or is damaged; or its origin is in another layout, or
            has no layer for one of the changes.
    """
    check_model_files(weights)
    arrays, lora = read_weights(weights), config.Tuning.lora
    layers = [name.removesuffix(f".{LORA_A}") for name in arrays if name.endswith(f".{LORA_A}")]
    if lora is None or not layers:
        raise ValueError(f"{weights.parent} has no LoRA to write separately; leave --lora out")
    try:
        merge_lora(arrays)
    except ValueError as error:  # a factor is missing or does not fit
        raise ValueError(f"{weights}: {error}") from None
    family, files = recognise_model(origin)
    if not isinstance(family, Family) or family.layout != "hf":
        raise ValueError(
            f"{origin}: peft adds to models of transformers only; merge LoRA into this one (--lora merged)"
        )
    original = family.read_towers(files.weights, config.Model.dialect)
    _check_unchanged(arrays, original.arrays, origin)

    names = family.make_name_table(config.Model, original.dialect, original.array_names)
    # peft prefixes all names with those of its own wrappers, base_model and model.
    factors: dict[str, np.ndarray] = {}
    for layer in layers:
        factors |= _translate_layer(names, layer, arrays[f"{layer}.{LORA_A}"], arrays[f"{layer}.{LORA_B}"])
    adapter = {f"base_model.model.{name}": np.ascontiguousarray(array) for name, array in factors.items()}
    settings = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": str(origin),
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": sorted({name.partition(".lora_")[0] for name in factors}),
    }
    with atomic_folder(folder) as temporary_folder:
        write_torch_weights(temporary_folder / "adapter_model.safetensors", adapter)
        write_json(temporary_folder / "adapter_config.json", settings, indent=2)

    # LoRA freezes the towers, but not the scalars.
    changed = []
    for name in SCALARS:
        if name not in arrays:
            continue
        # A run with the sigmoid loss has a bias that its origin may lack.
        if name not in original.arrays or not np.array_equal(arrays[name], original.arrays[name]):
            changed.append(name)
    notes = []
    if changed:
        notes.append(
            f"an adapter cannot hold {' and '.join(changed)}, which training changed, too: scores differ by that"
        )
    if any(name.startswith(HEAD_PREFIX) for name in arrays):
        notes.append("an adapter cannot hold the classification head, which is left out")
    return notes


def _check_unchanged(arrays: Mapping[str, np.ndarray], original: Mapping[str, np.ndarray], origin: Path) -> None:
    for name, array in arrays.items():
        if name.rpartition(".")[2] in LORA_NAMES or name in SCALARS or name.startswith(HEAD_PREFIX):
            continue
        if name not in original or not np.array_equal(array, original[name].astype(array.dtype)):
            raise ValueError(
                f"{name} differs from {origin}, to which an adapter would be added: merge LoRA into this model "
                "(--lora merged)"
            )


def _translate_layer(names: NameTable, layer: str, a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    """Return the factors of a layer by the names of the other implementation.

    If that has several layers for one of ours, such as query, key and value, they share A and get their rows of B.
    """
    weights = names.translate(f"{layer}.weight")
    if not all(name.endswith(".weight") for name in weights):
        raise ValueError(
            f"{layer} is a part of their {weights[0]}, to which peft's LoRA does not apply: merge it (--lora merged)"
        )
    if a.ndim == 2:
        a, b = a.T, b.T  # [in, rank] and [rank, out]; linear layers of PyTorch are transposed
    arrays = {}
    for name, rows in zip(weights, np.split(b, len(weights)), strict=True):
        arrays[f"{name.removesuffix('.weight')}.lora_A.weight"] = a
        arrays[f"{name.removesuffix('.weight')}.lora_B.weight"] = rows
    return arrays
