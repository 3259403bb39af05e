"""Weights as safetensors files: arrays and their names, nothing that could be executed."""

from __future__ import annotations

from pathlib import Path

import paddle
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ernie_vil2.files import written_whole


def save_weights(model: paddle.nn.Layer, path: str | Path) -> None:
    """Writes parameters and buffers by their name in the model."""
    with written_whole(path) as aside:
        save_file({name: value.numpy() for name, value in model.state_dict().items()}, aside)


def load_weights(model: paddle.nn.Layer, path: str | Path) -> None:
    """Sets parameters and buffers from a file that `save_weights` wrote.

    Raises:
        ValueError: the file is not a safetensors file, or its names or shapes are not the model's.
    """
    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from error
    state = model.state_dict()
    problems = []
    for title, names in (("missing", state.keys() - arrays.keys()), ("unexpected", arrays.keys() - state.keys())):
        if names:
            problems.append(f"{len(names)} {title} ({', '.join(sorted(names)[:5])})")
    shapes = [
        f"{name}: file {list(arrays[name].shape)}, model {list(state[name].shape)}"
        for name in sorted(state.keys() & arrays.keys())
        if list(arrays[name].shape) != list(state[name].shape)
    ]
    if shapes:
        problems.append(f"{len(shapes)} of another shape ({'; '.join(shapes[:5])})")
    if problems:
        raise ValueError(f"{path}: not the weights of this model: {', '.join(problems)}")
    for name, value in state.items():
        value.set_value(arrays[name])
