"""What a device offers: memory and speed, from its maker's data sheet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ernie_vil2.config import Config

GIB = 2**30


@dataclass(frozen=True)
class DataSheet:
    """The device of one rank. docs/plan.md says where each figure is from.

    Attributes:
        flops: operations a second by precision, dense and with float32 accumulation, of what it can compute in. What a
            training reaches of them nobody knows before it runs: they only order the precisions.
    """

    name: str  # as the command line takes it
    memory: int  # bytes
    flops: Mapping[str, float]


# GiB; TFLOP/s in float32, bfloat16 and float16, 0 for a precision that the device lacks.
_SHEETS = {
    "a100-40g": (40, 19.5, 312, 312),
    "a100-80g": (80, 19.5, 312, 312),
    "h100-80g": (80, 67, 989, 989),
    "h200-141g": (141, 67, 989, 989),
    "v100-32g": (32, 15.7, 0, 125),
    "rtx-4090": (24, 82.6, 165.2, 165.2),
    "cpu": (16, 0.1, 0, 0),
}
_PRECISIONS = ("float32", "bfloat16", "float16")
DEVICES = {
    name: DataSheet(name, gib * GIB, {kind: speed * 1e12 for kind, speed in zip(_PRECISIONS, speeds, strict=True)
                                      if speed})
    for name, (gib, *speeds) in _SHEETS.items()
}  # fmt: skip


def recognise(name: str, memory: float) -> DataSheet:
    """The known device that a GPU is, by its name ("NVIDIA A100-SXM4-80GB") and bytes; ValueError if there is none.

    Drivers keep some of the memory for themselves.
    """
    for device in DEVICES.values():
        model = device.name.removeprefix("rtx-").partition("-")[0]
        if model in name.lower() and 0.9 < memory / device.memory < 1.05:
            return device
    raise ValueError(f"{name} with {memory / GIB:.0f} GiB is not a device with figures; known: {', '.join(DEVICES)}")


def check(config: Config, ranks: int, device: DataSheet) -> None:
    """Whether `ranks` of this device can run `config` at all; ConfigError if not."""
    from ernie_vil2.config import ConfigError

    batch, precision = config.Training.global_batch, config.Training.precision
    if batch % ranks:
        fewer = max(number for number in range(1, min(ranks, batch) + 1) if batch % number == 0)
        more = min((number for number in range(ranks, batch + 1) if batch % number == 0), default=batch)
        lower = batch // ranks * ranks or ranks
        raise ConfigError(f"{ranks} ranks do not divide Training.global_batch ({batch}): plan for --ranks {fewer} or "
                          f"{more}, or set -o Training.global_batch={lower} or {lower + ranks}")  # fmt: skip
    if precision not in device.flops:
        raise ConfigError(f"{device.name} does not compute in {precision}: "
                          f"set -o Training.precision={' or '.join(device.flops)}")  # fmt: skip
