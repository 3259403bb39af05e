"""Checkpoints: a folder each, written aside and renamed, of safetensors and JSON only.

<run>/checkpoints/step_00000500/
    model.safetensors      parameters and buffers by their name in the model
    optimizer.safetensors  optimiser state as <parameter>/<kind>
    state.json             step, seed (every random state follows from these two), counters, loss scaler
    config.yaml            the resolved configuration
    vocab.txt              the tokens in the order of their ids, so that the folder stands alone
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from safetensors.numpy import load_file, save_file

from ernie_vil2.config import Config, dump_config
from ernie_vil2.models import load_weights, save_weights

FOLDER = "checkpoints"


def save_checkpoint(
    run: Path,
    step: int,
    model: paddle.nn.Layer,
    optimizer: Mapping[str, np.ndarray],
    config: Config,
    tokens: Sequence[str],
    state: dict[str, Any],
    keep: int,
) -> Path:
    """Writes the checkpoint of `step` optimiser steps and removes all but the newest `keep`.

    The folder appears under its name only when it is whole.

    Args:
        optimizer: as `sharding.optimizer_arrays` gives it.

    Returns:
        The checkpoint's folder.
    """
    final = run / FOLDER / f"step_{step:08d}"
    aside = final.with_name(f".{final.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_weights(model, aside / "model.safetensors")
    save_file(dict(optimizer), aside / "optimizer.safetensors")
    (aside / "state.json").write_text(json.dumps({"step": step, **state}, ensure_ascii=False, indent=1))
    (aside / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    (aside / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    os.replace(aside, final)
    for old in list_checkpoints(run)[:-keep]:
        shutil.rmtree(old)
    return final


def list_checkpoints(run: Path) -> list[Path]:
    """The run's whole checkpoints, oldest first."""
    return sorted(path for path in (run / FOLDER).glob("step_*") if (path / "state.json").is_file())


def load_checkpoint(folder: Path, model: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer) -> dict[str, Any]:
    """Restores model and optimiser in place.

    Returns:
        What `state.json` holds.

    Raises:
        ValueError: the weights are not those of this model.
    """
    load_weights(model, folder / "model.safetensors")
    names = {name: parameter.name for name, parameter in model.named_parameters()}
    state = {}
    for key, array in load_file(folder / "optimizer.safetensors").items():
        name, _, kind = key.rpartition("/")
        state[f"{names[name]}_{kind}"] = paddle.to_tensor(array)
    optimizer.set_state_dict(state)
    return json.loads((folder / "state.json").read_text())
