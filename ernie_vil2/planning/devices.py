"""What a device offers: memory, speed and links, from its maker's data sheet."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from ernie_vil2.config import Config, ConfigError

GIB = 2**30


@dataclass(frozen=True)
class Device:
    """A device that one rank runs on. docs/plan.md says where each figure stands.

    Attributes:
        name: as the command line takes it.
        memory: bytes.
        flops: operations a second by precision, dense and with float32 accumulation; a precision that it lacks is
            missing.
        link: bytes a second that leave the device towards others in its machine.
        network: bytes a second that leave it towards other machines, in the maker's own server.
    """

    name: str
    memory: int
    flops: Mapping[str, float]
    link: float
    network: float


def _device(
    name: str, gib: int, link: float, network: float, float32: float, bfloat16: float = 0, float16: float = 0
) -> Device:
    """Sizes in GiB, GB/s and TFLOP/s; a speed of 0 is a precision that the device lacks."""
    speeds = {"float32": float32, "bfloat16": bfloat16, "float16": float16}
    flops = {precision: speed * 1e12 for precision, speed in speeds.items() if speed}
    return Device(name, gib * GIB, flops, link * 1e9, network * 1e9)


DEVICES = {
    device.name: device
    for device in (
        _device("a100-40g", 40, link=300, network=25, float32=19.5, bfloat16=312, float16=312),
        _device("a100-80g", 80, link=300, network=25, float32=19.5, bfloat16=312, float16=312),
        _device("h100-80g", 80, link=450, network=50, float32=67, bfloat16=989, float16=989),
        _device("h200-141g", 141, link=450, network=50, float32=67, bfloat16=989, float16=989),
        _device("v100-32g", 32, link=150, network=6.25, float32=15.7, float16=125),
        _device("rtx-4090", 24, link=32, network=1.25, float32=82.6, bfloat16=165.2, float16=165.2),
        _device("cpu", 16, link=10, network=1.25, float32=0.1),
    )
}


def find_device(name: str) -> Device:
    """The device of this name.

    Raises:
        ValueError: there is none; the message lists the known ones.
    """
    if name in DEVICES:
        return DEVICES[name]
    near = difflib.get_close_matches(name, DEVICES, n=1)
    meant = f"; did you mean {near[0]}?" if near else "."
    raise ValueError(f"no device is called {name!r}{meant} Known: {', '.join(DEVICES)}")


def recognise(name: str, memory: float) -> Device:
    """The known device that a GPU is.

    Args:
        name: as its driver gives it, for example "NVIDIA A100-SXM4-80GB".
        memory: its bytes, by which versions of one model are told apart; drivers keep some for themselves.

    Raises:
        ValueError: it is none of `DEVICES`.
    """
    for device in DEVICES.values():
        model = device.name.removeprefix("rtx-").partition("-")[0]
        if model in name.lower() and 0.9 < memory / device.memory < 1.05:
            return device
    raise ValueError(f"{name} with {memory / GIB:.0f} GiB is not a device with figures; known: {', '.join(DEVICES)}")


def check(config: Config, ranks: int, device: Device) -> None:
    """Whether `ranks` of this device can run `config` at all.

    Raises:
        ConfigError: the ranks do not divide the batch, or the device lacks the precision.
    """
    batch, precision = config.Training.global_batch, config.Training.precision
    if batch % ranks:
        fewer = max(number for number in range(1, min(ranks, batch) + 1) if batch % number == 0)
        more = min((number for number in range(ranks, batch + 1) if batch % number == 0), default=batch)
        lower = batch // ranks * ranks or ranks
        raise ConfigError(
            f"{ranks} ranks do not divide Training.global_batch ({batch}): plan for --ranks {fewer} or {more}, or set "
            f"-o Training.global_batch={lower} or {lower + ranks}"
        )
    if precision not in device.flops:
        raise ConfigError(
            f"{device.name} does not compute in {precision}: set -o Training.precision={' or '.join(device.flops)}"
        )
