"""What to change in a configuration that does not fit, or that could be faster."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ernie_vil2.config import Config, LossConfig
from ernie_vil2.planning.devices import Device
from ernie_vil2.planning.plan import Plan

DEFAULT_TILE = LossConfig().tile


@dataclass(frozen=True)
class Advice:
    """A changed configuration.

    Attributes:
        overrides: `Section.key=value` for the command line.
        plan: of the run with these.
    """

    overrides: tuple[str, ...]
    plan: Plan


def advise(config: Config, plan: Plan, device: Device, replan: Callable[[tuple[str, ...]], Plan]) -> Advice | None:
    """The changes that make a run fit in the least time, and among these the fewest.

    Args:
        config: of the run.
        plan: of the run as it is.
        device: that the ranks run on.
        replan: the plan with overrides.

    Returns:
        None where nothing needs to change, or where nothing that can be changed is enough.
    """
    if plan.fits:
        return None
    fitting = [
        Advice(overrides, changed)
        for overrides in _changes(config, plan, device)
        if (changed := replan(overrides)).fits
    ]
    return min(fitting, key=lambda advice: (advice.plan.seconds, len(advice.overrides)), default=None)


def _changes(config: Config, plan: Plan, device: Device) -> Iterator[tuple[str, ...]]:
    """All combinations of what spares memory without another objective."""
    training = config.Training
    precisions = {training.precision, *(name for name in ("bfloat16", "float16") if name in device.flops)}
    choices = (
        _options("Training.precision", training.precision, sorted(precisions)),
        _options("Loss.tile", config.Loss.tile, [config.Loss.tile or DEFAULT_TILE]),
    )
    for combination in itertools.product(*choices):
        yield tuple(override for override in combination if override)


def _options(key: str, now: object, values: list) -> list[str]:
    """The overrides that set `key` to `values`; "" for the one that it has."""
    return ["", *(f"{key}={value}" for value in values if value != now)]
