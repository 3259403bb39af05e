"""What a run needs by its configuration and the cost of a row, in figures and in words, and what makes it fit.

docs/plan.md has the formulas.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from ernie_vil2.config import Config, LossConfig, with_overrides
from ernie_vil2.io.terminal import counted
from ernie_vil2.losses import build_loss
from ernie_vil2.parallel.collectives import sent_bytes
from ernie_vil2.planning.devices import DataSheet, check
from ernie_vil2.planning.towers import Towers

USABLE = 0.92  # share of a device's memory that tensors can have: the rest is the driver's and lost between blocks
LOGITS_SAVED, LOGITS_AT_WORK = 3, 3
"""Float32 matrices of logits that the plain loss saves for each view pair, and has in use beyond these."""
TILES_AT_WORK = 12  # tiles' worth of float32 that the tiled loss has in use, where duplicates are positives
BUCKET = 25 * 2**20  # bytes of gradients that Paddle's data parallel reduces at once
MEASURE = "-o Training.steps=20 -o Schedule.warmup_steps=1"
MANY_WORDS = 50_000_000  # parameters of a word embedding from which on a plan advises to trim it
UNITS = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0))
HOW_TO_MEASURE = f"for days, measure a step: ernie-vil2 train {MEASURE}, then --measured RUN"


class Transfer(NamedTuple):
    """One kind of message that a rank sends in a step."""

    what: str
    collective: str  # as in `sent_bytes`
    calls: int  # of it in a step
    payload: int  # bytes that a rank puts in over all calls
    sent: float  # bytes that leave a rank in a ring
    hidden: bool  # whether it runs while the step computes


@dataclass
class Plan:
    """Figures of a run of `config` on `ranks` devices, which `check` lets through; memory is a rank's, in bytes."""

    config: Config  # of the run
    towers: Towers  # those of `config.Model`
    ranks: int
    device: DataSheet
    sample_bytes: int = 50_000  # stored bytes of one sample
    seconds: float | None = None  # that a step was measured to take; None: it was not measured, and no time is given

    def __post_init__(self) -> None:
        loss, training = build_loss(self.config.Loss), self.config.Training
        self.global_batch, self.steps = training.global_batch, training.steps
        self.rows = self.global_batch // self.ranks
        self.pairs = len(loss.weights)
        self.views = {kind: sum(view.startswith(kind) for view in loss.views) for kind in ("image", "text")}
        self.cached = training.micro_batch is not None
        self.parts = -(-self.rows // training.micro_batch) if training.micro_batch else 1
        self.encoded = -(-self.rows // self.parts)
        """Rows of a rank that are encoded at once, with what is saved for backward."""
        self.parameters = {**self.towers.of_tower, "all": sum(self.towers.parameters)}
        self.sharding = training.sharding if self.ranks > 1 else "none"
        self._costs = {kind: self.towers.cost(kind, training.precision, training.recompute)
                       for kind, count in self.views.items() if count}  # fmt: skip
        self._image_bytes = self.views["image"] * 3 * self.config.Model.image.image_size**2
        texts = self.views["text"] if self.config.Views.long_caption else min(1, self.views["text"])
        self.device_bytes = self._image_bytes + 8 * texts * self.config.Data.max_length + 16
        """Bytes of a sample that the loader hands to the device."""
        self.batches = 2 if self.device.name == "cpu" else 3
        """That the device holds: the last one, until it is known to be finite, this one, and on a GPU the next."""
        self._embeddings = self.rows * sum(self.views.values()) * self.towers.embed_dim * 4
        self.transfers = list(self._transfers()) if self.ranks > 1 else []  # what a rank sends in a step
        self.limit = USABLE * self.device.memory  # what tensors can have of the device

    @cached_property
    def resident(self) -> dict[str, float]:
        """What is in memory from the first step to the last."""
        trained = self.parameters["all"]
        owned = trained if self.sharding == "none" else self.towers.largest_share(self.ranks)
        return {
            "weights": 4 * (trained + 2 * sum(self.towers.norm_channels)),
            "gradients": 4 * (owned if self.sharding == "stage2" else trained),
            "optimiser state": 8 * owned,
            "images of the batches": self.batches * self.rows * self._image_bytes,
        }

    @cached_property
    def phases(self) -> dict[str, dict[str, float]]:
        """What each part of a step needs beyond `resident`."""
        training, loss_of = self.config.Training, self.config.Loss
        rows = {kind: self.encoded * self.views[kind] for kind in self._costs}
        activations: float = sum(rows[kind] * cost.saved for kind, cost in self._costs.items())
        work = max(rows[kind] * cost.work for kind, cost in self._costs.items())
        if training.precision != "float32":
            activations += 2 * self.parameters["all"]  # the weights in 16 bits
        # The rank's own and all ranks', each with its gradient; in one process these are the same.
        embeddings = 2 * self._embeddings * (1 + (self.ranks if self.ranks > 1 else 0))
        tile = loss_of.tile or self.global_batch
        if loss_of.tile is None and not loss_of.widths:
            logits = (LOGITS_SAVED * self.pairs + LOGITS_AT_WORK) * self.rows * self.global_batch * 4
        else:
            logits = TILES_AT_WORK * min(tile, self.rows) * min(tile, self.global_batch) * 4
        loss: dict[str, float] = {"embeddings": embeddings, "logits": logits}
        backward: dict[str, float] = {"activations": activations, "work space": work, "embeddings": embeddings}
        phases = {"loss": loss if self.cached else {**loss, "activations": activations}, "backward": backward}
        if self.ranks > 1 and self.sharding == "none":
            backward["buckets of gradients"] = 4 * self.parameters["all"]
        if self.config.Optimizer.clip_norm is not None and self.sharding == "none":  # fleet's stages clip in place
            phases["optimiser"] = {"clipped gradients": 4 * self.parameters["all"]}
        return phases

    @property
    def peak(self) -> float:
        """In the part of the step that needs the most."""
        return sum(self.resident.values()) + max(sum(phase.values()) for phase in self.phases.values())

    @property
    def fits(self) -> bool:
        """Whether `peak` is within `limit`."""
        return self.peak <= self.limit

    def _transfers(self) -> Iterator[Transfer]:
        def sent(what: str, collective: str, payload: int, calls: int = 1, hidden: bool = False) -> Transfer:
            return Transfer(what, collective, calls, payload, sent_bytes(collective, payload, self.ranks), hidden)

        yield sent("ids of the rows", "all_gather", self.rows * 2 * 8)
        yield sent("embeddings", "all_gather", self._embeddings)
        yield sent("gradients of the embeddings", "reduce_scatter", self.ranks * self._embeddings)
        # The sum, that of each pair, and the norm of the gradient.
        yield sent("losses", "all_reduce", (1 + self.pairs + 1) * 4)
        size, tensors = 4 * self.parameters["all"], len(self.towers.parameters)
        if self.sharding == "none":
            yield sent("gradients of the parameters", "all_reduce", size, math.ceil(size / BUCKET), hidden=True)
        else:
            yield sent("gradients of the parameters", "reduce", size, tensors, hidden=self.sharding == "stage2")
            yield sent("updated parameters", "broadcast", size, tensors)
        norms, channels = len(self.towers.norm_channels), sum(self.towers.norm_channels)
        if norms and self.views["image"] and self.config.Training.sync_norms:
            forwards = self.parts * (1 + self.cached + self.config.Training.recompute)
            # Means, variances and the number of elements; then two sums.
            statistics = (2 * channels + norms) * 4 * forwards
            yield sent("statistics of batch norms", "all_gather", statistics, norms * forwards)
            yield sent("gradients of these", "all_reduce", 2 * channels * 4 * self.parts, norms * self.parts)

    @property
    def flops(self) -> float:
        """Operations of a step over all ranks."""
        encoding = self.global_batch * sum(self.views[kind] * cost.flops for kind, cost in self._costs.items())
        # Tiles are computed twice: the products of forward, these again, and two for the gradients.
        widths, tile = self.config.Loss.widths, self.config.Loss.tile
        products = 3 if tile is None and not widths else 4
        scoring = self.pairs * products * 2.0 * self.global_batch**2 * (sum(widths) or self.towers.embed_dim)
        return (3 + self.cached + self.config.Training.recompute) * encoding + scoring

    @property
    def cost(self) -> tuple[float, float]:
        """What orders plans by speed: operations over the device's peak, then bytes that are sent while it computes
        nothing."""
        peak = self.device.flops[self.config.Training.precision]
        return self.flops / peak, sum(transfer.sent for transfer in self.transfers if not transfer.hidden)

    @property
    def days(self) -> float | None:
        """Of the whole schedule, where a step was measured."""
        return None if self.seconds is None else self.steps * self.seconds / 86400

    @property
    def samples_per_second(self) -> float | None:
        """Pairs that the loaders of all ranks must deliver, likewise."""
        return None if self.seconds is None else self.global_batch / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """All figures, for JSON; those of time are null where no step was measured."""
        names = ("ranks rows global_batch encoded views parameters resident phases peak limit fits flops "
                 "seconds steps days samples_per_second sample_bytes")  # fmt: skip
        figures = {name: getattr(self, name) for name in names.split()}
        return figures | {"transfers": [transfer._asdict() for transfer in self.transfers]}


Advice = tuple[tuple[str, ...], Plan]  # `Section.key=value` overrides, and the plan with them


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

    A run that fits as it is may be faster in another precision, and is offered that only. None if nothing is of use;
    `replan` gives the plan with `Section.key=value` overrides.
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
