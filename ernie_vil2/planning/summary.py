"""A plan with its advice, as people read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ernie_vil2.config import Config
from ernie_vil2.planning.advice import Advice, advise
from ernie_vil2.planning.devices import Device
from ernie_vil2.planning.plan import Plan, make_plan
from ernie_vil2.planning.report import show
from ernie_vil2.planning.towers import Towers


def plan_run(
    load: Callable[[Sequence[str]], Config],
    ranks: int,
    device: Device,
    utilisation: float = 0.35,
    sample_bytes: int = 50_000,
    bandwidth: float | None = None,
) -> tuple[str, Plan, Advice | None]:
    """Plans a run, looks for what would make it fit or faster, and puts both into words.

    Args:
        load: the run's configuration with further `Section.key=value` overrides.
        ranks, device, utilisation, sample_bytes, bandwidth: as `make_plan` takes them.

    Returns:
        The text, the plan and the advice.

    Raises:
        ConfigError: as `make_plan`.
        ValueError: as `build_dual_encoder`.
    """
    config = load(())
    towers = Towers(config, on_cpu=device.name == "cpu")

    def plan(overrides: Sequence[str] = ()) -> Plan:
        return make_plan(load(overrides), towers, ranks, device, utilisation, sample_bytes, bandwidth)

    made = plan()
    advice = advise(config, made, device, plan)
    model = config.Model
    title = f"{model.image.name} and {model.text.name}, {ranks} x {device.name}, {config.Training.precision}"
    assumed = (f"{utilisation:.0%} of the device's peak speed, {sample_bytes / 1000:g} kB a sample; "
               "docs/plan.md says how each figure is computed")  # fmt: skip
    return show(title, made, device, advice, assumed), made, advice
