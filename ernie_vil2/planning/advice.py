"""What to change in a configuration that does not fit, or that could be faster."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
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

    A run that fits as it is may be faster in another precision, and is offered that only.

    Args:
        config: of the run.
        plan: of the run as it is.
        device: that the ranks run on.
        replan: the plan with overrides.

    Returns:
        None where nothing that can be changed is of use.
    """
    changes = _precisions(config, device) if plan.fits else _changes(config, plan, device)
    advice = [Advice(overrides, replan(overrides)) for overrides in changes if overrides]
    useful = [each for each in advice if each.plan.fits and (not plan.fits or each.plan.seconds < plan.seconds)]
    # Of equals the one that uses the most memory: a device is faster with large micro batches.
    return min(useful, key=lambda each: (each.plan.seconds, len(each.overrides), -each.plan.peak), default=None)


def _changes(config: Config, plan: Plan, device: Device) -> Iterator[tuple[str, ...]]:
    """All combinations of what spares memory without another objective."""
    training = config.Training
    micro_batches = [2**power for power in range(16) if 2**power < plan.rows]
    choices = (
        _precisions(config, device),
        _options("Loss.tile", config.Loss.tile, [config.Loss.tile or DEFAULT_TILE]),
        _options("Training.recompute", training.recompute, [True]),
        _options("Training.sharding", training.sharding, ["stage1"] if plan.ranks > 1 else []),
        _options("Training.micro_batch", training.micro_batch, micro_batches),
    )
    for combination in itertools.product(*choices):
        yield tuple(itertools.chain(*combination))


def _precisions(config: Config, device: Device) -> list[tuple[str, ...]]:
    reduced = [name for name in ("bfloat16", "float16") if name in device.flops]
    return _options("Training.precision", config.Training.precision, reduced)


def _options(key: str, now: object, values: Iterable[object]) -> list[tuple[str, ...]]:
    """None, or the override that sets `key` to one of `values` other than `now`."""
    return [(), *((f"{key}={str(value).lower()}",) for value in values if value != now)]
