"""What a run needs on given devices, computed from its configuration and the cost of a row, and what would make it fit.

docs/notes/plan_formulas.md has the formulas. Modules that import Paddle are imported in the functions that use them:
the command line reads `DEVICES` for its help, which should not take the seconds that Paddle's import takes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from ernie_vil2.config import Config, ConfigError, LossConfig, apply_overrides
from ernie_vil2.config.stages import enter_stage, find_borders, resolve_stages
from ernie_vil2.io.terminal import pluralize

if TYPE_CHECKING:
    from ernie_vil2.planning.towers import Towers

GIB = 2**30
# Share of a device's memory that tensors can use; the driver, Paddle's kernels and fragmentation take the rest. With a
# larger share, a run that the plan says fits may run out of memory.
USABLE_SHARE = 0.92
# Float32 matrices of logits in the loss without tiles: those that each view pair saves for backward, and those in use
# besides.
SAVED_LOGIT_MATRICES, WORKING_LOGIT_MATRICES = 3, 3
# Float32 tiles in use at once in the tiled loss when duplicates count as positives, its largest case.
WORKING_TILES = 12
GRADIENT_BUCKET = 25 * 2**20  # bytes; default of `comm_buffer_size` in paddle.DataParallel (Paddle 3.3.1)
# Advise trimming the vocabulary if the word embedding has more parameters than this and more than a quarter of all.
# Models of one language are below (ERNIE base: 31 million), multilingual ones above (SigLIP 2 B: 197 million).
LARGE_WORD_EMBEDDING = 50_000_000
DURATION_UNITS = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0))
MEASUREMENT_OPTIONS = "-o Training.steps=20 -o Schedule.warmup_steps=1"
HOW_TO_MEASURE = f"to plan the duration, measure a step: ernie-vil2 train {MEASUREMENT_OPTIONS}, then --measured RUN"


@dataclass(frozen=True)
class DataSheet:
    """Memory and speed of the device of one rank; docs/plan.md has the sources.

    Attributes:
        name: name on the command line.
        memory: bytes.
        flops: peak operations per second by precision, dense and with float32 accumulation; only the precisions that
            the device supports. A training reaches an unknown share of them, so they only rank the precisions.
    """

    name: str
    memory: int
    flops: Mapping[str, float]


def _data_sheet(name: str, gib: int, float32: float, bfloat16: float = 0, float16: float = 0) -> DataSheet:
    """Return a data sheet from GiB and TFLOP/s; 0: the device does not support the precision."""
    speeds = {"float32": float32, "bfloat16": bfloat16, "float16": float16}
    return DataSheet(name, gib * GIB, {precision: 1e12 * speed for precision, speed in speeds.items() if speed})


_SHEETS = (
    _data_sheet("a100-40g", 40, 19.5, 312, 312),
    _data_sheet("a100-80g", 80, 19.5, 312, 312),
    _data_sheet("h100-80g", 80, 67, 989, 989),
    _data_sheet("h200-141g", 141, 67, 989, 989),
    _data_sheet("v100-32g", 32, 15.7, 0, 125),
    _data_sheet("rtx-4090", 24, 82.6, 165.2, 165.2),
    _data_sheet("cpu", 16, 0.1),  # rough: no data sheet covers all CPUs
)
DEVICES = {sheet.name: sheet for sheet in _SHEETS}


def recognise_device(name: str, memory: float) -> DataSheet:
    """Return the data sheet of a GPU.

    Args:
        name: name that the driver reports, such as "NVIDIA A100-SXM4-80GB".
        memory: bytes that the driver reports, a little less than the GPU has.

    Raises:
        ValueError: there is no data sheet for this GPU.
    """
    for device in DEVICES.values():
        model = device.name.removeprefix("rtx-").partition("-")[0]
        # The memory tells the 40 and the 80 GB models apart; drivers keep a few per cent of it.
        if model in name.lower() and 0.9 < memory / device.memory < 1.05:
            return device
    raise ValueError(
        f"{name} with {memory / GIB:.0f} GiB: there is no data sheet for this device; known: {', '.join(DEVICES)}"
    )


def check_run(config: Config, ranks: int, device: DataSheet) -> None:
    """Raise ConfigError if `ranks` devices of this kind cannot run the configuration at all."""
    batch, precision = config.Training.global_batch, config.Training.precision
    if batch % ranks:
        divisors = [number for number in range(1, batch + 1) if batch % number == 0]
        fewer = max(number for number in divisors if number < ranks)
        more = [number for number in divisors if number > ranks]
        ranks_text = f"{fewer} or {more[0]}" if more else f"{fewer}"
        lower = batch // ranks * ranks or ranks
        raise ConfigError(
            f"{ranks} ranks do not divide Training.global_batch ({batch}): plan for --ranks {ranks_text}, or set "
            f"-o Training.global_batch={lower} or {lower + ranks}"
        )
    if precision not in device.flops:
        raise ConfigError(
            f"{device.name} does not compute in {precision}: set -o Training.precision={' or '.join(device.flops)}"
        )


class Transfer(NamedTuple):
    """One kind of message that a rank sends in a step.

    Attributes:
        name: content of the message.
        collective: collective operation, as in `count_sent_bytes`.
        num_calls: calls in a step.
        payload: bytes that the rank puts in, over all calls.
        sent: bytes that leave the rank if the ranks form a ring.
        is_overlapped: whether it runs while the step computes.
    """

    name: str
    collective: str
    num_calls: int
    payload: int
    sent: float
    is_overlapped: bool


class Plan:
    """Memory, traffic and operations of a run.

    Args:
        config: configuration of the run, which `check_run` accepts.
        towers: towers of `config.Model`.
        ranks: devices, one rank on each.
        device: kind of the devices.
        sample_bytes: stored bytes of a sample.
        step_seconds: measured time of a step; None: not measured, the plan gives no times.
        steps: number of steps, fewer than the run's in a plan of one stage; None: `Training.steps`.

    Attributes:
        rows_per_rank: rows of the batch on each rank.
        num_pairs: view pairs of the loss.
        num_views: number of views of a row by kind, "image" and "text".
        uses_micro_batches: whether rows are encoded in micro batches, twice each: first without saving for backward.
        rows_at_once: rows that a rank encodes at once, saving activations for backward.
        parameters: parameters by tower, "image" and "text", and "all", with LoRA's.
        num_trained: number of parameters that are trained.
        sample_bytes_on_device: bytes of a sample that the loader copies to the device.
        num_batches: batches on the device: the previous one, which stays until its losses have been checked, the
            current one, and on a GPU the prefetched one.
        transfers: messages that a rank sends in a step.
        usable_memory: bytes of the device that tensors can use.
    """

    def __init__(
        self,
        config: Config,
        towers: Towers,
        ranks: int,
        device: DataSheet,
        sample_bytes: int = 50_000,
        step_seconds: float | None = None,
        steps: int | None = None,
    ):
        from ernie_vil2.losses import build_loss

        self.config, self.towers = config, towers
        self.ranks, self.device = ranks, device
        self.sample_bytes, self.step_seconds = sample_bytes, step_seconds
        loss, training = build_loss(config.Loss), config.Training

        self.global_batch, self.steps = training.global_batch, steps or training.steps
        self.rows_per_rank = self.global_batch // ranks
        self.num_pairs = len(loss.weights)
        # The loss names only the views that it needs; others are not made.
        self.num_views = {kind: sum(view.startswith(kind) for view in loss.views) for kind in ("image", "text")}

        self.uses_micro_batches = training.uses_micro_batches(ranks)
        # Micro batches have equal sizes: micro batches of 5 divide 16 rows into four of 4.
        self.num_micro_batches = 1
        if training.micro_batch:
            self.num_micro_batches = math.ceil(self.rows_per_rank / training.micro_batch)
        self.rows_at_once = math.ceil(self.rows_per_rank / self.num_micro_batches)

        self.parameters = {**towers.tower_parameters, "all": towers.num_parameters}
        self.num_trained = sum(towers.parameter_sizes)
        self.sharding = training.sharding if ranks > 1 else "none"
        self._row_costs = {
            kind: towers.row_cost(kind, training.precision, training.recompute, training.residual)
            for kind, number in self.num_views.items()
            if number
        }

        # Images reach the device as uint8, ids as int64; a row also has two ids of 8 bytes.
        self._image_bytes = self.num_views["image"] * 3 * config.Model.image.image_size**2
        # Two text views encode the same ids, unless the second one is the long caption.
        num_texts = self.num_views["text"]
        if not config.Views.long_caption:
            num_texts = min(1, num_texts)
        self.sample_bytes_on_device = self._image_bytes + 8 * num_texts * config.Data.max_length + 16
        self.num_batches = 2 if device.name == "cpu" else 3
        self._embedding_bytes = self.rows_per_rank * sum(self.num_views.values()) * towers.embed_dim * 4
        self.transfers = list(self._transfers()) if ranks > 1 else []
        self.usable_memory = USABLE_SHARE * device.memory

    @cached_property
    def permanent_memory(self) -> dict[str, float]:
        """Bytes in use from the first step to the last, by what they hold."""
        num_parameters = self.parameters["all"]
        # A sharded optimiser holds its state for the parameters that the rank owns.
        num_owned = self.num_trained
        if self.sharding != "none":
            num_owned = self.towers.largest_share(self.ranks)
        permanent = {
            "weights": 4 * (num_parameters + 2 * sum(self.towers.norm_channels)),  # with means and variances of norms
            "gradients": 4 * (num_owned if self.sharding == "stage2" else self.num_trained),
            "optimiser state": 8 * num_owned,  # two moments
            "images of the batches": self.num_batches * self.rows_per_rank * self._image_bytes,
        }
        # A moving average of the weights, and the initial weights that are mixed into it; every rank has them. Frozen
        # weights have none.
        has_average = self.config.Tuning.ema is not None or self.config.Tuning.initial_share > 0
        if has_average:
            num_copies = 2 if self.config.Tuning.initial_share else 1
            average = permanent["weights"] - 4 * (num_parameters - self.num_trained)
            permanent["average of the weights"] = num_copies * average
        # A checkpoint is written from a copy on the host. Rank 0 gathers the state of all ranks.
        if self.device.name == "cpu":
            permanent["copy for a checkpoint"] = permanent["weights"] + 8 * self.num_trained
            if has_average:  # a checkpoint has both the averages and the weights themselves
                permanent["copy for a checkpoint"] += average
        return permanent

    @cached_property
    def phase_memory(self) -> dict[str, dict[str, float]]:
        """Bytes in use beyond `permanent_memory`, by phase of a step and what they hold."""
        # Activations: tensors that forward saves for backward. Work space: the largest of both towers, as they run one
        # after the other.
        rows = {kind: self.rows_at_once * self.num_views[kind] for kind in self._row_costs}
        activations = sum(rows[kind] * cost.saved for kind, cost in self._row_costs.items())
        work_space = max(rows[kind] * cost.work for kind, cost in self._row_costs.items())
        if self.config.Training.precision != "float32":
            activations += 2 * self.parameters["all"]  # copies of the weights in 16 bits

        # A rank holds its own embeddings and all gathered ones, both with gradients. A single process gathers nothing.
        num_copies = 1 + self.ranks if self.ranks > 1 else 1
        embeddings = 2 * self._embedding_bytes * num_copies

        if not self._is_loss_tiled:
            num_matrices = SAVED_LOGIT_MATRICES * self.num_pairs + WORKING_LOGIT_MATRICES
            logits = num_matrices * self.rows_per_rank * self.global_batch * 4
        else:
            tile = self._tile or self.global_batch
            logits = WORKING_TILES * min(tile, self.rows_per_rank) * min(tile, self.global_batch) * 4

        loss: dict[str, float] = {"embeddings": embeddings, "logits": logits}
        if not self.uses_micro_batches:
            loss["activations"] = activations
        backward = {"activations": activations, "work space": work_space, "embeddings": embeddings}
        phases = {"loss": loss, "backward": backward}
        if self.ranks > 1 and self.sharding == "none":
            backward["buckets of gradients"] = 4 * self.num_trained
        # With sharding, fleet clips gradients in place.
        if self.config.Optimizer.clip_norm is not None and self.sharding == "none":
            phases["optimiser"] = {"clipped gradients": 4 * self.num_trained}
        return phases

    @property
    def _tile(self) -> int | None:
        """Rows and columns of a tile of the loss; None: all logits at once, as on GPUs if they are few."""
        from ernie_vil2.losses.tiles import MAX_UNTILED_BYTES

        if self.device.name != "cpu" and 4 * self.rows_per_rank * self.global_batch <= MAX_UNTILED_BYTES:
            return None
        return self.config.Loss.tile

    @property
    def _is_loss_tiled(self) -> bool:
        """Whether the loss is computed in tiles, as it always is for several widths of the embeddings."""
        return self._tile is not None or bool(self.config.Loss.widths)

    @property
    def peak_memory(self) -> float:
        """Bytes in use in the phase that needs the most."""
        largest_phase = max(sum(phase.values()) for phase in self.phase_memory.values())
        return sum(self.permanent_memory.values()) + largest_phase

    @property
    def fits(self) -> bool:
        """Whether the peak is within the usable memory."""
        return self.peak_memory <= self.usable_memory

    def _transfers(self) -> Iterator[Transfer]:
        from ernie_vil2.parallel.collectives import BUCKET_BYTES, count_sent_bytes, split_into_buckets

        def transfer(
            name: str, collective: str, payload: int, num_calls: int = 1, is_overlapped: bool = False
        ) -> Transfer:
            sent = count_sent_bytes(collective, payload, self.ranks)
            return Transfer(name, collective, num_calls, payload, sent, is_overlapped)

        # The loss needs the embeddings, and the ids of image and text, which mark duplicates. Gradients come back.
        yield transfer("ids of the rows", "all_gather", self.rows_per_rank * 2 * 8)
        yield transfer("embeddings", "all_gather", self._embedding_bytes)
        yield transfer("gradients of the embeddings", "reduce_scatter", self.ranks * self._embedding_bytes)
        # The total loss, the loss of each pair, and the norm of the gradient.
        yield transfer("losses", "all_reduce", (1 + self.num_pairs + 1) * 4)

        # Paddle's data parallel reduces buckets during backward. With sharding each gradient goes to its owner, and the
        # owner sends the parameter back when it is updated.
        parameter_bytes = 4 * self.num_trained
        if self.sharding == "none":
            num_buckets = math.ceil(parameter_bytes / GRADIENT_BUCKET)
            yield transfer(
                "gradients of the parameters", "all_reduce", parameter_bytes, num_buckets, is_overlapped=True
            )
        else:
            # Stage 2 is fleet's own (Paddle 3.3.1): it sends gradients during backward, in the worst case one by one,
            # and the parameters of a rank in one piece. Stage 1 sends both in buckets, after backward.
            is_overlapped = self.sharding == "stage2"
            num_reduces, num_broadcasts = len(self.towers.parameter_sizes), self.ranks
            if self.sharding == "stage1":
                num_buckets = 0
                for share in self.towers.divide_parameters(self.ranks):
                    num_buckets += len(split_into_buckets([4 * size for size in share], BUCKET_BYTES))
                num_reduces = num_broadcasts = num_buckets
            yield transfer("gradients of the parameters", "reduce", parameter_bytes, num_reduces, is_overlapped)
            yield transfer("updated parameters", "broadcast", parameter_bytes, num_broadcasts)

        num_norms, num_channels = len(self.towers.norm_channels), sum(self.towers.norm_channels)
        if num_norms and self.num_views["image"] and self.config.Training.sync_norms:
            num_forwards = self.num_micro_batches * self._forwards_per_row
            # Forward gathers means, variances and the number of elements; backward sums two gradients.
            statistics = (2 * num_channels + num_norms) * 4 * num_forwards
            gradients = 2 * num_channels * 4 * self.num_micro_batches
            yield transfer("statistics of batch norms", "all_gather", statistics, num_norms * num_forwards)
            yield transfer("gradients of these", "all_reduce", gradients, num_norms * self.num_micro_batches)

    @property
    def _forwards_per_row(self) -> int:
        """Forward passes of a row: micro batches and recomputation each add one."""
        return 1 + self.uses_micro_batches + self.config.Training.recompute

    @property
    def flops(self) -> float:
        """Operations of a step over all ranks."""
        row_flops = sum(self.num_views[kind] * cost.flops for kind, cost in self._row_costs.items())
        # Backward takes twice the operations of a forward.
        encoding = self.global_batch * (self._forwards_per_row + 2) * row_flops
        # The loss multiplies the embeddings of the two views of each pair: once in forward and twice for the gradients.
        # With tiles, forward is computed again in backward.
        num_products = 4 if self._is_loss_tiled else 3
        width = sum(self.config.Loss.widths) or self.towers.embed_dim
        return encoding + self.num_pairs * num_products * 2.0 * self.global_batch**2 * width

    @property
    def cost(self) -> tuple[float, float]:
        """Sort key of plans, fastest first: operations over the device's peak, then bytes sent without overlap."""
        peak_flops = self.device.flops[self.config.Training.precision]
        waiting_bytes = sum(transfer.sent for transfer in self.transfers if not transfer.is_overlapped)
        return self.flops / peak_flops, waiting_bytes

    @property
    def days(self) -> float | None:
        """Days of all steps, or None if no step was measured."""
        return None if self.step_seconds is None else self.steps * self.step_seconds / 86400

    @property
    def samples_per_second(self) -> float | None:
        """Samples that the loaders of all ranks must deliver, or None if no step was measured."""
        return None if self.step_seconds is None else self.global_batch / self.step_seconds

    def as_dict(self) -> dict[str, Any]:
        """Return all figures for JSON; times are None if no step was measured."""
        names = (
            "ranks", "rows_per_rank", "global_batch", "rows_at_once", "num_views", "parameters", "permanent_memory",
            "phase_memory", "peak_memory", "usable_memory", "fits", "flops", "step_seconds", "steps", "days",
            "samples_per_second", "sample_bytes",
        )  # fmt: skip
        figures = {name: getattr(self, name) for name in names}
        return figures | {"transfers": [transfer._asdict() for transfer in self.transfers]}


Advice = tuple[tuple[str, ...], Plan]  # `Section.key=value` overrides, and the plan with them


class RunPlan(NamedTuple):
    """Plan of a run.

    Attributes:
        text: the plan, the stages and the advice, for people.
        plan: the plan; of several stages, that of the one which needs the most memory.
        advice: changes to `plan`; None: there is nothing to advise.
        stages: plans of the stages, if there are several.
    """

    text: str
    plan: Plan
    advice: Advice | None
    stages: Sequence[Plan]


def plan_run(
    config: Config,
    ranks: int,
    device: DataSheet,
    sample_bytes: int = 50_000,
    step_seconds: Sequence[float | None] = (),
) -> RunPlan:
    """Plan a run and look for changes that make it fit or faster; arguments are those of `Plan`.

    Args:
        config: configuration of the run, with `Model.like` resolved.
        ranks: as for `Plan`.
        device: as for `Plan`.
        sample_bytes: as for `Plan`.
        step_seconds: measured time of a step in each stage; (): not measured.

    Raises:
        ConfigError: the devices cannot run this configuration, or its model cannot be built.
    """
    from ernie_vil2.planning.towers import Towers

    check_run(config, ranks, device)
    config = resolve_stages(config)
    borders = find_borders(config)
    plans: list[Plan] = []
    for number, (start, end) in enumerate(itertools.pairwise([0, *borders])):
        stage_config = enter_stage(config, number)
        # Measuring a row takes seconds, and a stage may have another learning rate only.
        if plans and (plans[-1].config.Model, plans[-1].config.Data) == (stage_config.Model, stage_config.Data):
            towers = plans[-1].towers
        else:
            towers = Towers(stage_config)
        seconds = step_seconds[number] if step_seconds else None
        plans.append(Plan(stage_config, towers, ranks, device, sample_bytes, seconds, end - start))
    plan = max(plans, key=lambda plan: plan.peak_memory)

    def replan(overrides: tuple[str, ...]) -> Plan:
        # The step was measured without the overrides, so its time does not hold for this plan.
        changed_config = apply_overrides(plan.config, overrides)
        return Plan(changed_config, plan.towers, ranks, device, sample_bytes, steps=plan.steps)

    advice = advise(plan, replan)
    model = config.Model
    lines = [f"{model.image.name} and {model.text.name}, {ranks} x {device.name}, {config.Training.precision}"]
    if len(plans) > 1:
        lines.append(f"stage {plans.index(plan) + 1} of {len(plans)}, which needs the most memory:")
    lines += describe(plan)
    if len(plans) > 1:
        lines += ["", *_describe_stages(plans)]
    lines += ["", *_describe_advice(plan, advice)]
    lines += advise_on_word_embedding(plan.towers.num_word_embedding_parameters, plan.parameters["all"])
    return RunPlan("\n".join(lines).rstrip(), plan, advice, plans if len(plans) > 1 else [])


def advise(plan: Plan, replan: Callable[[tuple[str, ...]], Plan]) -> Advice | None:
    """Return the cheapest changes, by `Plan.cost`, that make a run fit; among equally cheap ones, the fewest changes.

    A run that fits may only be advised to use another, faster precision.

    Args:
        plan: the plan without changes.
        replan: returns the plan with `Section.key=value` overrides; raises ConfigError if they contradict settings.

    Returns:
        The overrides and the plan with them; None if no change helps.
    """
    training, tile = plan.config.Training, plan.config.Loss.tile
    precisions = [precision for precision in plan.device.flops if precision != "float32"]
    # Setting -> its present value and alternatives. All of them leave the objective as it is.
    options: dict[str, tuple[object, Sequence[object]]] = {"Training.precision": (training.precision, precisions)}
    if not plan.fits:
        # Without tiles, try the default tile; otherwise keep the present one.
        options["Loss.tile"] = (tile, [tile or LossConfig().tile])
        options["Training.recompute"] = (training.recompute, [True])
        if plan.ranks > 1:
            options["Training.sharding"] = (training.sharding, ["stage1"])
        micro_batches = [2**power for power in range(16) if 2**power < plan.rows_per_rank]
        options["Training.micro_batch"] = (training.micro_batch, micro_batches)

    # All combinations are planned, which is quick: the cost of a row is measured only once.
    # For each setting, the choice is no override, or one of its alternatives.
    choices: list[list[tuple[str, ...]]] = []
    for key, (present, alternatives) in options.items():
        overrides = [(f"{key}={str(value).lower()}",) for value in alternatives if value != present]
        choices.append([(), *overrides])

    candidates: list[Advice] = []
    for combination in itertools.product(*choices):
        changes = tuple(itertools.chain(*combination))
        if not changes:
            continue
        try:
            candidate = replan(changes)
        except ConfigError:
            continue  # some settings exclude each other, such as stage2 and micro batches
        if candidate.fits and (not plan.fits or candidate.cost < plan.cost):
            candidates.append((changes, candidate))
    # Among equals, choose the plan that uses the most memory: a device is faster with large micro batches.
    return min(candidates, key=lambda advice: (advice[1].cost, len(advice[0]), -advice[1].peak_memory), default=None)


def headline(plan: Plan) -> str:
    """Return on one line whether the plan fits."""
    return f"plan: {_verdict(plan)}, {describe_bytes(plan.peak_memory)} of {describe_bytes(plan.usable_memory)} at most"


def describe(plan: Plan) -> Iterator[str]:
    """Yield the lines that describe a plan, one figure on each."""
    views = " and ".join(pluralize(number, f"{kind} view") for kind, number in plan.num_views.items() if number)
    rows = f"{pluralize(plan.ranks, 'rank')} of {pluralize(plan.rows_per_rank, 'row')}, {views} of each"
    yield _format_line("batch", f"{plan.global_batch:,}", rows)
    if plan.rows_at_once < plan.rows_per_rank:
        yield _format_line("micro batch", f"{plan.rows_at_once:,}", "rows of a rank encoded at once, every row twice")
    millions = {tower: f"{number / 1e6:,.1f} M" for tower, number in plan.parameters.items()}
    yield _format_line("parameters", millions["all"], f"image {millions['image']}, text {millions['text']}")
    if plan.num_trained < plan.parameters["all"]:
        yield _format_line("trained", f"{plan.num_trained / 1e6:,.1f} M", "operations are those of training all")

    yield from ("", "memory of a rank")
    for name, size in plan.permanent_memory.items():
        yield _format_line(name, describe_bytes(size))
    for phase, sizes in plan.phase_memory.items():
        contents = ", ".join(f"{name} {describe_bytes(size)}" for name, size in sizes.items())
        yield _format_line(f"in the {phase}", describe_bytes(sum(sizes.values())), contents)
    usable = f"of {describe_bytes(plan.usable_memory)} usable on {plan.device.name}: {_verdict(plan)}"
    yield _format_line("most at one time", describe_bytes(plan.peak_memory), usable)

    yield from ("", "sent by a rank in a step")
    for transfer in plan.transfers:
        calls = f"{transfer.num_calls} x " if transfer.num_calls > 1 else ""
        overlap = ", while the step computes" if transfer.is_overlapped else ""
        yield _format_line(transfer.name, describe_bytes(transfer.sent), f"{calls}{transfer.collective}{overlap}")
    if not plan.transfers:
        yield _format_line("nothing", "")

    num_samples = plan.steps * plan.global_batch
    pairs = f"{num_samples / 1e6:,.0f} M pairs"
    if num_samples < 1e6:
        pairs = pluralize(num_samples, "pair")
    yield from ("", "schedule")
    yield _format_line("steps", f"{plan.steps:,}", pairs)
    per_rank = f"{_format_flops(plan.flops / plan.ranks)} per rank"
    yield _format_line("operations of a step", _format_flops(plan.flops), per_rank)
    # Times, and the load on the data loader, need a measured step.
    rate = plan.samples_per_second
    if plan.step_seconds is None or plan.days is None or rate is None:
        yield f"  {HOW_TO_MEASURE}"
        return
    unit, length = duration(86400 * plan.days)
    # Device time is given in hours or less, never in days.
    device_unit, device_length = duration(86400 * plan.ranks * plan.days, DURATION_UNITS[1:])
    note = f"{plan.step_seconds:,.3g} s a step, {device_length:,.1f} device {device_unit}"
    yield _format_line(unit, f"{length:,.1f}", note)

    read_rate = rate * plan.sample_bytes
    yield from ("", "loader")
    yield _format_line("samples a second", f"{rate:,.0f}", f"{rate / plan.ranks:,.1f} per rank")
    per_rank = f"{describe_bytes(read_rate / plan.ranks)} per rank, {plan.sample_bytes / 1000:g} kB a sample"
    yield _format_line("read a second", describe_bytes(read_rate), per_rank)
    yield _format_line(
        "to the device a second", describe_bytes(rate * plan.sample_bytes_on_device / plan.ranks), "per rank"
    )


def _describe_stages(plans: Sequence[Plan]) -> Iterator[str]:
    """Yield a line for each stage, and one for their sum."""
    yield "stages"
    total_seconds: float | None = 0.0
    for number, plan in enumerate(plans, start=1):
        sizes = f"{plan.config.Model.image.image_size} px"
        keep_tokens = getattr(plan.config.Model.image, "keep_tokens", 1)
        if keep_tokens < 1:
            sizes += f", {keep_tokens:g} of patches"
        facts = [
            f"{pluralize(plan.steps, 'step')} of {_format_flops(plan.flops)}",
            f"together {_format_flops(plan.steps * plan.flops)}",
        ]
        if plan.days is None:
            total_seconds = None
        else:
            facts.append(_format_duration(86400 * plan.days))
            total_seconds = None if total_seconds is None else total_seconds + 86400 * plan.days
        name = f"{number}: {sizes}, {plan.config.Data.max_length} tokens"
        yield _format_line(name, describe_bytes(plan.peak_memory), ", ".join(facts))
    facts = [f"together {_format_flops(sum(plan.steps * plan.flops for plan in plans))}"]
    if total_seconds is not None:
        facts.append(_format_duration(total_seconds))
    peak = describe_bytes(max(plan.peak_memory for plan in plans))
    steps = pluralize(sum(plan.steps for plan in plans), "step")
    yield _format_line("all", peak, ", ".join([steps, *facts]))


def _format_duration(seconds: float) -> str:
    unit, length = duration(seconds)
    return f"{length:,.1f} {unit}"


def duration(seconds: float, units: Sequence[tuple[str, float]] = DURATION_UNITS) -> tuple[str, float]:
    """Return a time as a unit and a number: the largest unit that the time reaches, otherwise seconds."""
    for name, unit_seconds in units:
        if seconds >= unit_seconds:
            return name, seconds / unit_seconds
    return "seconds", seconds


def _describe_advice(plan: Plan, advice: Advice | None) -> Iterator[str]:
    if advice:
        overrides, changed_plan = advice
        purpose = "to make it faster" if plan.fits else "to make it fit"
        yield f"{purpose}: {' '.join(f'-o {override}' for override in overrides)}"
        yield f"  then {describe_bytes(changed_plan.peak_memory)} of {describe_bytes(plan.usable_memory)} at most"
    elif not plan.fits:
        yield "no change of the configuration that keeps the objective makes it fit: plan for more ranks"


def advise_on_word_embedding(num_word_embedding_parameters: int, num_parameters: float) -> Iterator[str]:
    """Yield the advice to trim the vocabulary, if the word embedding is large."""
    if num_word_embedding_parameters > LARGE_WORD_EMBEDDING and num_word_embedding_parameters > num_parameters / 4:
        millions, all_millions = num_word_embedding_parameters / 1e6, num_parameters / 1e6
        yield (
            f"the word embedding has {millions:,.0f} of {all_millions:,.0f} million parameters: ernie-vil2 trim "
            "removes the words that your languages or texts never use"
        )


def _verdict(plan: Plan) -> str:
    return "fits" if plan.fits else "DOES NOT FIT"


def _format_line(name: str, value: str, note: str = "") -> str:
    return f"  {name:<34}{value:>14}  {note}".rstrip()


def describe_bytes(number: float) -> str:
    """Return a number of bytes as text, with a unit from B to GiB."""
    return _format_with_unit(number, 1024, ("B", "KiB", "MiB", "GiB"))


def _format_flops(number: float) -> str:
    return _format_with_unit(number, 1000, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"))


def _format_with_unit(number: float, step: int, units: Sequence[str]) -> str:
    power = 0
    while power < len(units) - 1 and number >= step ** (power + 1):
        power += 1
    decimals = 1 if power else 0
    return f"{number / step**power:,.{decimals}f} {units[power]}"
