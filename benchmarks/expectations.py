"""The speeds that are expected of GPUs, calculated in `benchmarks/expectations.yaml`."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class ExpectedStep:
    """What is expected of a training step on one device.

    Attributes:
        change: the row of the file: the last of the changes that the code has.
        seconds: time of a step of 1,024 rows.
        samples_per_second: samples of one GPU.
        share_of_peak: useful work over the time and the device's peak in bfloat16.
    """

    change: str
    seconds: float
    samples_per_second: float
    share_of_peak: float


@cache
def read_expectations() -> dict[str, Any]:
    """Return the content of the file."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def list_expected_steps(device: str) -> list[ExpectedStep]:
    """Return what is expected on a device of the code before and after each change; empty if nothing is known of it.

    Args:
        device: name of a data sheet of `planning.plan`, such as "a100-80g".
    """
    steps = []
    for row in read_expectations()["steps"]:
        figures = row.get(_model_of(device))
        if figures:
            steps.append(ExpectedStep(row["change"], **figures))
    return steps


def expect_step(device: str) -> ExpectedStep | None:
    """Return what is expected of the code as it is now on a device; None if nothing is known of it.

    Args:
        device: as for `list_expected_steps`.

    Raises:
        ValueError: no row of the file has the name of the present one.
    """
    expectations = read_expectations()
    present = expectations["present"]
    if present not in [row["change"] for row in expectations["steps"]]:
        raise ValueError(f"{FILE}: no step is named {present!r}")
    for step in list_expected_steps(device):
        if step.change == present:
            return step
    return None


def assume_speeds(device: str) -> dict[str, Any]:
    """Return the speeds of a device's parts that the calculation assumes; empty if nothing is known of it."""
    return read_expectations()["assumed"].get(_model_of(device), {})


def _model_of(device: str) -> str:
    return device.partition("-")[0]
