"""A plan as people read it, with what to change where the run does not fit or could be faster."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from ernie_vil2.config import Config, LossConfig, with_overrides
from ernie_vil2.io.terminal import counted
from ernie_vil2.planning.devices import DataSheet, check
from ernie_vil2.planning.plan import Plan
from ernie_vil2.planning.towers import Towers

Advice = tuple[tuple[str, ...], Plan]
"""`Section.key=value` overrides, and the plan with them."""
MEASURE = "-o Training.steps=20 -o Schedule.warmup_steps=1"
MANY_WORDS = 50_000_000
"""Parameters of a word embedding from which on a plan advises to trim it."""
UNITS = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0))
HOW_TO_MEASURE = f"for days, measure a step: train.py {MEASURE}, then --measured RUN"


def plan_run(
    config: Config, ranks: int, device: DataSheet, sample_bytes: int = 50_000, seconds: float | None = None
) -> tuple[str, Plan, Advice | None]:
    """Plans a run, looks for what would make it fit or faster, and puts both into words.

    Arguments are as `Plan` takes them, errors as of `Plan` and `build_dual_encoder`.
    """
    check(config, ranks, device)
    towers = Towers(config)
    made = Plan(config, towers, ranks, device, sample_bytes, seconds)
    # Of a run with changes no step was measured.
    advice = advise(made, lambda changes: Plan(with_overrides(config, changes), towers, ranks, device, sample_bytes))
    model = config.Model
    title = f"{model.image.name} and {model.text.name}, {ranks} x {device.name}, {config.Training.precision}"
    lines = [title, *_lines(made), "", *_advice(made, advice), *_words(towers.words, made.parameters["all"])]
    return "\n".join(lines).rstrip(), made, advice


def advise(plan: Plan, replan: Callable[[tuple[str, ...]], Plan]) -> Advice | None:
    """The changes that make a run fit at the least cost, see `Plan.cost`, and among these the fewest.

    A run that fits as it is may be faster in another precision, and is offered that only.

    Args:
        plan: of the run as it is.
        replan: the plan with `Section.key=value` overrides.

    Returns:
        None where nothing that can be changed is of use.
    """
    training, tile = plan.config.Training, plan.config.Loss.tile
    precisions = [name for name in plan.device.flops if name != "float32"]
    options: dict[str, tuple[object, Sequence[object]]] = {"Training.precision": (training.precision, precisions)}
    if not plan.fits:  # what spares memory without another objective
        options |= {
            "Loss.tile": (tile, [tile or LossConfig().tile]),
            "Training.recompute": (training.recompute, [True]),
            "Training.sharding": (training.sharding, ["stage1"] if plan.ranks > 1 else []),
            "Training.micro_batch": (training.micro_batch, [2**n for n in range(16) if 2**n < plan.rows]),
        }
    choices = [
        [(), *((f"{key}={str(value).lower()}",) for value in values if value != now)]
        for key, (now, values) in options.items()
    ]
    changes = filter(None, (tuple(itertools.chain(*each)) for each in itertools.product(*choices)))
    plans = [(overrides, replan(overrides)) for overrides in changes]
    useful = [each for each in plans if each[1].fits and (not plan.fits or each[1].cost < plan.cost)]
    # Of equals the one that uses the most memory: a device is faster with large micro batches.
    return min(useful, key=lambda each: (each[1].cost, len(each[0]), -each[1].peak), default=None)


def headline(plan: Plan) -> str:
    """On one line whether the plan fits."""
    return f"plan: {_verdict(plan)}, {_size(plan.peak)} of {_size(plan.limit)} at most"


def _lines(plan: Plan) -> Iterator[str]:
    """The plan, a figure per line."""
    views = " and ".join(counted(count, f"{kind} view") for kind, count in plan.views.items() if count)
    each = f"{counted(plan.ranks, 'rank')} of {counted(plan.rows, 'row')}, {views} of each"
    yield _line("batch", f"{plan.global_batch:,}", each)
    if plan.encoded < plan.rows:
        yield _line("micro batch", f"{plan.encoded:,}", "rows of a rank encoded at once, every row twice")
    millions = {name: f"{count / 1e6:,.1f} M" for name, count in plan.parameters.items()}
    yield _line("parameters", millions["all"], f"image {millions['image']}, text {millions['text']}")

    yield from ("", "memory of a rank")
    for name, size in plan.resident.items():
        yield _line(name, _size(size))
    for phase, parts in plan.phases.items():
        inner = ", ".join(f"{name} {_size(size)}" for name, size in parts.items())
        yield _line(f"in the {phase}", _size(sum(parts.values())), inner)
    usable = f"of {_size(plan.limit)} usable on {plan.device.name}: {_verdict(plan)}"
    yield _line("most at one time", _size(plan.peak), usable)

    yield from ("", "sent by a rank in a step")
    for transfer in plan.transfers:
        calls = f"{transfer.calls} x " if transfer.calls > 1 else ""
        hidden = ", while the step computes" if transfer.hidden else ""
        yield _line(transfer.what, _size(transfer.sent), f"{calls}{transfer.collective}{hidden}")
    if not plan.transfers:
        yield _line("nothing", "")

    pairs = plan.steps * plan.global_batch
    shown = counted(pairs, "pair") if pairs < 1e6 else f"{pairs / 1e6:,.0f} M pairs"
    yield from ("", "schedule")
    yield _line("steps", f"{plan.steps:,}", shown)
    yield _line("operations of a step", _flops(plan.flops), f"{_flops(plan.flops / plan.ranks)} per rank")
    rate = plan.samples_per_second
    if plan.seconds is None or plan.days is None or rate is None:
        yield f"  {HOW_TO_MEASURE}"
        return
    unit, count = duration(86400 * plan.days)
    device_unit, device_count = duration(86400 * plan.ranks * plan.days, UNITS[1:])
    note = f"{plan.seconds:,.3g} s a step, {device_count:,.1f} device {device_unit}"
    yield _line(unit, f"{count:,.1f}", note)

    stored = rate * plan.sample_bytes
    yield from ("", "loader")
    yield _line("samples a second", f"{rate:,.0f}", f"{rate / plan.ranks:,.1f} per rank")
    each = f"{_size(stored / plan.ranks)} per rank, {plan.sample_bytes / 1000:g} kB a sample"
    yield _line("read a second", _size(stored), each)
    yield _line("to the device a second", _size(rate * plan.device_bytes / plan.ranks), "per rank")


def duration(seconds: float, units: Sequence[tuple[str, float]] = UNITS) -> tuple[str, float]:
    """A time in the largest unit in which it is at least one, otherwise in the smallest."""
    return next(((name, seconds / size) for name, size in units if seconds >= size), ("seconds", seconds))


def _advice(plan: Plan, advice: Advice | None) -> Iterator[str]:
    if advice:
        overrides, better = advice
        what = "to make it faster" if plan.fits else "to make it fit"
        yield f"{what}: {' '.join(f'-o {override}' for override in overrides)}"
        yield f"  then {_size(better.peak)} of {_size(plan.limit)} at most"
    elif not plan.fits:
        yield "nothing in the configuration that leaves the objective as it is makes it fit: plan for more ranks"


def _words(words: int, parameters: float) -> Iterator[str]:
    """A model of many languages can do without most of its words."""
    if words > MANY_WORDS and words > parameters / 4:
        yield (
            f"words are {words / 1e6:,.0f} of {parameters / 1e6:,.0f} million parameters: ernie-vil2 trim leaves "
            "out those that your languages or texts never use"
        )


def _verdict(plan: Plan) -> str:
    return "fits" if plan.fits else "DOES NOT FIT"


def _line(name: str, value: str, note: str = "") -> str:
    return f"  {name:<34}{value:>14}  {note}".rstrip()


def _size(count: float, step: float = 1024, units: Sequence[str] = ("B", "KiB", "MiB", "GiB")) -> str:
    power = max(number for number in range(len(units)) if number == 0 or count >= step**number)
    return f"{count / step**power:,.{int(power > 0)}f} {units[power]}"


def _flops(count: float) -> str:
    return _size(count, 1000, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"))
