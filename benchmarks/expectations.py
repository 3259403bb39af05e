"""Expected speeds of GPUs, calculated in `benchmarks/expectations.yaml`."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

FILE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class ExpectedStep:
    """Expected speed of a training step on one device.

    Attributes:
        change: name of the row in the file, which is the last change that the code has.
        seconds: time of a step of 1,024 rows.
        samples_per_second: image-text pairs that one GPU trains on per second.
        share_of_peak: operations of the model, without recomputation, per second, as a share of the device's peak in
            bfloat16.
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
    """Return the expected speeds on a device, in the order of the changes of the code; empty for an unknown device.

    Args:
        device: name of a device in `planning.plan`, such as "a100-80g".
    """
    steps = []
    for row in read_expectations()["steps"]:
        figures = row.get(_find_model(device))
        if figures:
            steps.append(ExpectedStep(row["change"], **figures))
    return steps


def expect_step(device: str, code: Literal["present", "suite"] = "present") -> ExpectedStep | None:
    """Return the expected speed of this code on a device; None for an unknown device.

    Args:
        device: as for `list_expected_steps`.
        code: "present" has the towers of this package, "suite" those of PaddleClas and PaddleNLP.

    Raises:
        ValueError: the file names a row for this code that it does not have.
    """
    expectations = read_expectations()
    change = expectations[code]
    if change not in [row["change"] for row in expectations["steps"]]:
        raise ValueError(f"{FILE}: no step is named {change!r}")
    for step in list_expected_steps(device):
        if step.change == change:
            return step
    return None


def assume_speeds(device: str) -> dict[str, Any]:
    """Return the assumed speeds of products, copies and collectives; empty for an unknown device.

    Args:
        device: as for `list_expected_steps`.
    """
    return read_expectations()["assumed"].get(_find_model(device), {})


def _find_model(device: str) -> str:
    """Return the key of a device in the file: "a100" for "a100-80g"."""
    return device.partition("-")[0]
