"""Weights of a model in and out: arrays by their name in the model, and a report of what fits and what does not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import paddle

from ernie_vil2.io.terminal import printable
from ernie_vil2.models.weights.files import read_weights, write_weights


class WeightMismatch(ValueError):
    """Arrays that are not those of the model, in names that nobody has allowed to differ."""


@dataclass(frozen=True)
class WeightReport:
    """How arrays fit a model, by name.

    Attributes:
        matched: in both, of one shape and kind of number.
        missing: in the model only.
        unexpected: among the arrays only.
        differing: in both, with what differs: `array [3, 4], model [3, 5]`.
        notes: what was done to the arrays before, for a person.
    """

    matched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    differing: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def mismatches(self, allow: Sequence[str] = ()) -> list[str]:
        """The names that do not fit and that no glob pattern of `allow` covers."""
        names = [*self.missing, *self.unexpected, *self.differing]
        return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in allow)]

    def __str__(self) -> str:
        lines = [*self.notes, f"{len(self.matched)} matched"]
        for title, names in (("missing", self.missing), ("unexpected", self.unexpected)):
            lines.append(f"{len(names)} {title}" + (": " if names else "") + _first(names, most=50))
        differing = [f"{printable(name, longest=100)}: {what}" for name, what in self.differing.items()]
        lines.append(f"{len(differing)} of another shape" + (": " if differing else "") + _first(differing, "; ", 50))
        return "\n".join(f"  {printable(line)}" for line in lines)


def compare_weights(
    model: paddle.nn.Layer, arrays: Mapping[str, np.ndarray], notes: Sequence[str] = ()
) -> WeightReport:
    """How `arrays` fit the parameters and buffers of `model`; changes nothing."""
    state = model.state_dict()
    common = [name for name in state if name in arrays]
    differing = {name: what for name in common if (what := _difference(arrays[name], state[name]))}
    return WeightReport(
        matched=tuple(name for name in common if name not in differing),
        missing=tuple(name for name in state if name not in arrays),
        unexpected=tuple(name for name in arrays if name not in state),
        differing=differing,
        notes=tuple(notes),
    )


def set_weights(
    model: paddle.nn.Layer, arrays: Mapping[str, np.ndarray], allow: Sequence[str] = (), notes: Sequence[str] = ()
) -> WeightReport:
    """Sets the parameters and buffers of `model` that match; the others keep their values.

    Args:
        allow: glob patterns of the names that need not match.
        notes: for the report.

    Raises:
        WeightMismatch: a name or shape that does not match and is not allowed; then nothing was set.
    """
    report = compare_weights(model, arrays, notes)
    bad = report.mismatches(allow)
    if bad:
        raise WeightMismatch(f"not the weights of this model: {_explained(report, bad)}")
    state = model.state_dict()
    for name in report.matched:
        value = state[name]
        value.set_value(np.asarray(arrays[name], dtype=_numpy_type(value)))
    return report


def save_weights(model: paddle.nn.Layer, path: str | Path) -> None:
    """Writes parameters and buffers by their name in the model, as safetensors or `.pdparams`."""
    write_weights(path, {name: value.numpy() for name, value in model.state_dict().items()})


def load_weights(model: paddle.nn.Layer, path: str | Path) -> None:
    """Sets parameters and buffers from a file that `save_weights` wrote.

    Raises:
        ValueError: the file is not a whole weight file, or its names or shapes are not the model's.
    """
    arrays = read_weights(path)
    try:
        set_weights(model, arrays)
    except WeightMismatch as error:
        raise WeightMismatch(f"{path}: {error}") from None


def _explained(report: WeightReport, bad: Collection[str]) -> str:
    parts = []
    for title, names in (("missing", report.missing), ("unexpected", report.unexpected)):
        chosen = [name for name in names if name in bad]
        if chosen:
            parts.append(f"{len(chosen)} {title} ({_first(chosen)})")
    chosen = [f"{printable(name, longest=100)}: {what}" for name, what in report.differing.items() if name in bad]
    if chosen:
        parts.append(f"{len(chosen)} of another shape ({_first(chosen, '; ')})")
    return ", ".join(parts)


def _first(items: Sequence[str], separator: str = ", ", most: int = 5) -> str:
    shown = [printable(item, longest=200) for item in items[:most]]
    return separator.join([*shown, *(["..."] if len(items) > most else [])])


def _difference(array: np.ndarray, value: paddle.Tensor) -> str | None:
    ours, theirs = np.dtype(_numpy_type(value)), array.dtype
    kinds = "" if ours.kind == theirs.kind else f"{theirs} "
    if not kinds and list(array.shape) == list(value.shape):
        return None
    return f"array {kinds}{list(array.shape)}, model {f'{ours} ' if kinds else ''}{list(value.shape)}"


def _numpy_type(value: paddle.Tensor) -> str:
    return str(value.dtype).removeprefix("paddle.")
