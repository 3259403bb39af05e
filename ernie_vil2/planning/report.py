"""A plan as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from ernie_vil2.planning.advice import Advice
from ernie_vil2.planning.devices import GIB, Device
from ernie_vil2.planning.plan import Plan
from ernie_vil2.wording import counted

_WIDTH = 34


def show(title: str, plan: Plan, device: Device, advice: Advice | None, assumptions: str) -> str:
    """The plan with what it rests on, a figure a line, and what to change.

    Args:
        title: what is planned.
        advice: that goes with the plan.
        assumptions: one line on what was not known from the configuration.
    """
    lines = [title, *_run(plan), *_memory(plan, device), *_traffic(plan), *_loader(plan), *_time(plan)]
    return "\n".join([*lines, "", f"assumed: {assumptions}", *_advice(plan, advice)])


def headline(plan: Plan) -> str:
    """The plan on one line: whether it fits, and how long it takes."""
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    time = f"{plan.days:,.1f} days" if plan.days >= 1 else f"{24 * plan.days:.1f} hours"
    return (f"plan: {verdict}, {_size(plan.peak)} of {_size(plan.limit)} at most, {plan.seconds:,.3g} s a step, "
            f"{time}")  # fmt: skip


def _line(name: str, value: str, note: str = "") -> str:
    return f"  {name:<{_WIDTH}}{value:>14}  {note}".rstrip()


def _run(plan: Plan) -> Iterable[str]:
    views = " and ".join(counted(count, f"{kind} view") for kind, count in plan.views.items() if count)
    yield _line(
        "batch",
        f"{plan.global_batch:,}",
        f"{counted(plan.ranks, 'rank')} of {counted(plan.rows, 'row')}, {views} of each",
    )
    if plan.encoded < plan.rows:
        yield _line("micro batch", f"{plan.encoded:,}", "rows of a rank encoded at once, every row twice")
    yield _line("parameters", f"{plan.sizes.parameters / 1e6:,.1f} M",
                f"image {plan.sizes.image / 1e6:,.1f} M, text {plan.sizes.text / 1e6:,.1f} M")  # fmt: skip


def _memory(plan: Plan, device: Device) -> Iterable[str]:
    yield from ("", "memory of a rank")
    for name, size in plan.held.items():
        yield _line(name, _size(size))
    for phase, parts in plan.phases.items():
        inner = ", ".join(f"{name} {_size(size)}" for name, size in parts.items())
        yield _line(f"in the {phase}", _size(sum(parts.values())), inner)
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    yield _line("most at one time", _size(plan.peak), f"of {_size(plan.limit)} usable on {device.name}: {verdict}")


def _traffic(plan: Plan) -> Iterable[str]:
    yield from ("", "sent by a rank in a step")
    for transfer in plan.transfers:
        calls = f"{transfer.calls} x " if transfer.calls > 1 else ""
        hidden = ", while the step computes" if transfer.hidden else ""
        yield _line(transfer.what, _size(transfer.sent), f"{calls}{transfer.collective}{hidden}")
    if not plan.transfers:
        yield _line("nothing", "")


def _loader(plan: Plan) -> Iterable[str]:
    rate = plan.samples_per_second
    yield from ("", "loader")
    yield _line("samples a second", f"{rate:,.0f}", f"{rate / plan.ranks:,.1f} a rank")
    stored = rate * plan.sample_bytes
    yield _line("read a second", _size(stored), f"{_size(stored / plan.ranks)} a rank")
    yield _line("to the device a second", _size(rate * plan.device_bytes / plan.ranks), "a rank")


def _time(plan: Plan) -> Iterable[str]:
    yield from ("", "time")
    yield _line("operations of a step", _count(plan.flops, "FLOP"), f"{_count(plan.flops / plan.ranks, 'FLOP')} a rank")
    sending = (
        f"computing {plan.compute:.3g} s, sending {plan.transfer:.2g} s and {plan.hidden_transfer:.2g} s beside it"
    )
    yield _line("step", f"{plan.seconds:,.3g} s", sending)
    pairs = plan.steps * plan.global_batch
    pairs = counted(pairs, "pair") if pairs < 1e6 else f"{pairs / 1e6:,.0f} M pairs"
    yield _line("schedule", f"{plan.days:,.1f} days",
                f"{counted(plan.steps, 'step')}, {pairs}, "
                f"{plan.days * 24 * plan.ranks:,.0f} device hours")  # fmt: skip


def _advice(plan: Plan, advice: Advice | None) -> Iterable[str]:
    if advice:
        changes = " ".join(f"-o {override}" for override in advice.overrides)
        what = "to make it faster" if plan.fits else "to make it fit"
        yield f"{what}: {changes}"
        yield (f"  then {_size(advice.plan.peak)} of {_size(plan.limit)} at most, step {advice.plan.seconds:.3g} s, "
               f"schedule {advice.plan.days:,.1f} days")  # fmt: skip
    elif not plan.fits:
        yield "nothing in the configuration that leaves the objective as it is makes it fit: plan for more ranks"


def _size(count: float) -> str:
    for unit, size in (("GiB", GIB), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:,.0f} B"


def _count(count: float, unit: str) -> str:
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {prefix}{unit}"
    return f"{count:,.0f} {unit}"
