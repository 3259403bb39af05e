"""What a run would do, without doing it: one batch of every source, the plan, the schedule."""

from __future__ import annotations

import io
import math
import sys
import time
from collections.abc import Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import paddle
from tqdm import tqdm

from ernie_vil2.config import Config, ConfigError, differences, dump_config
from ernie_vil2.data.decoding import EncodedImage
from ernie_vil2.data.loader import RowPreview, SampleRows, load_batches, read_batch
from ernie_vil2.data.samples import BadSample, BadSampleReport, Sample
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.device import runtime
from ernie_vil2.device.launch import launched_rank
from ernie_vil2.io.files import write_text
from ernie_vil2.io.run_folder import CONFIG, DRY_RUN, check_run_folder, list_checkpoints
from ernie_vil2.io.terminal import pluralize
from ernie_vil2.models.weights.initial import resolve_model_like
from ernie_vil2.pages import Axis, Chart, Series, make_line_chart, write_page
from ernie_vil2.planning.plan import DEVICES, duration, headline, plan_run, recognise_device
from ernie_vil2.registry import import_user_modules
from ernie_vil2.tasks import build_task
from ernie_vil2.training.optimizer import check_sharding, compute_learning_rate, resolve_steps
from ernie_vil2.training.run_log import describe_config
from ernie_vil2.training.scoring import build_evaluators
from ernie_vil2.training.trainer import Trainer

MOST_ROWS = 512
"""Samples of a source that are read, where the batch of a rank is larger."""
SCHEDULE_POINTS = 200
MOST_CHANGES = 20
TIMED_ROWS, TIMED_STEPS = 16, 3
NO_PLAN = "no plan: what a step of this task needs is not known before it is run"


@dataclass(frozen=True)
class DryRun:
    """What a dry run found."""

    folder: Path  # that holds `dry_run.html`, `plan.txt`, `config.yaml` and the bad samples
    text: str  # for the terminal
    would_stop: bool  # for bad samples above `Data.max_bad_share`, or as this device lacks what is configured


def dry_run(config: Config, ranks: int = 1, base: tuple[str, Config] | None = None) -> DryRun:
    """Reads one batch of a rank from every source, plans the run, and writes both down in `<run>/dry_run/`.

    A few steps are timed in a folder of their own, on random weights unless the task needs those of a model. Nothing
    else is trained, and whatever else the run folder holds stays as it is.

    Args:
        config: of the run.
        ranks: that the run is going to have.
        base: a file by its name, and its configuration, to which the run is compared.

    Raises:
        ConfigError: the ranks do not divide the batch, or the run folder holds something else.
        FileNotFoundError, ValueError: data or vocabulary cannot be used.
        WorkerError: a loader process failed or was killed.
    """
    import_user_modules(config.names)
    changed = _changed(base[1], config) if base else ""
    config = resolve_model_like(config)
    training = config.Training
    run = Path(training.output)
    check_run_folder(run)
    if training.global_batch % ranks:
        raise ConfigError(f"Training.global_batch ({training.global_batch}) must be divisible by the {ranks} ranks")
    runtime.set_device(training.device)
    task = build_task(config)
    make = task.open_rows()
    stream = make.stream
    config = resolve_steps(config, stream.num_samples)
    training = config.Training
    evaluators = build_evaluators(config, task)
    rows = min(training.global_batch // ranks, MOST_ROWS)
    read = [
        preview(make, config, source, rows)
        for source in tqdm(range(len(stream.names)), "reading", unit="source", delay=2, file=sys.stdout)
    ]
    bad_samples = BadSampleReport()
    for each in read:
        bad_samples.add(each.read, each.bad, each.remarks)

    folder = run / DRY_RUN
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CONFIG, dump_config(config))
    bad_samples.write(folder)
    stops = _stops(config, ranks, bad_samples)
    plan, plan_line = _plan(config, ranks, read) if task.has_plan else (NO_PLAN, NO_PLAN)
    timed = timed_step(config, ranks, None if task.has_plan else config.Model.weights)
    plan = f"{plan}\n\n{timed}"
    sources = _sources(stream, config, read)
    facts = {
        **describe_config(config),
        "Ranks": f"{ranks}",
        "Steps": f"{training.steps:,}",
        **({"Changed from " + base[0]: changed} if base and changed else {}),
        "Validation": "; ".join(
            f"{what}: {sizes}" for evaluator in evaluators.values() for what, sizes in evaluator.data_sizes.items()
        ) or "none",
        "Run folder": _state(run),
    }  # fmt: skip
    write_page(
        folder / "dry_run.html",
        "dry_run.html",
        title=f"ERNIE-ViL 2.0: dry run of {run.name}",
        summary=f"The run would stop: {'; '.join(stops)}." if stops else f"The run can start; {plan_line}.",
        facts=facts,
        sources=[
            {
                "name": name,
                "note": line,
                "samples": [_shown(sample) for sample in each.samples],
                "at_once": SHOWN_AT_ONCE,
            }
            for name, line, each in zip(stream.names, sources, read, strict=True)
        ],
        plan=plan,
        schedule=_schedule(config),
        bad_samples=bad_samples,
    )
    write_text(folder / "plan.txt", f"{plan}\n")
    lines = [f"{name}: {line}" for name, line in zip(stream.names, sources, strict=True)]
    if base and changed:
        lines.append(f"changed from {base[0]}: {changed}")
    lines += config.Data.unscored
    lines += [f"the run would stop: {why}" for why in stops]
    return DryRun(folder, "\n".join([*lines, plan_line, timed, str(bad_samples)]), bool(stops))


def _changed(base: Config, config: Config) -> str:
    """In which keys a run differs from its file, with both values."""
    found = [f"{key}: {values[0]} → {values[1]}" for key, values in differences(base.model_dump(), config.model_dump())]
    return "; ".join(found[:MOST_CHANGES]) + "; ..." * (len(found) > MOST_CHANGES)


def timed_step(config: Config, ranks: int, weights: str | None = None) -> str:
    """What a step takes on this machine and how much of that is waiting for data, as a sentence; or why it does not
    say so.

    The second and third step of a run are timed, on no more than `TIMED_ROWS` samples.

    Args:
        weights: of the model, where the task may need them; None: random ones, which take as long.
    """
    training = config.Training
    rows = min(training.global_batch // ranks, training.micro_batch or TIMED_ROWS, TIMED_ROWS)
    if launched_rank()[1] > 1:
        return "no step was timed: ranks take one together"
    unweighted = {
        tower: getattr(config.Model, tower).model_copy(update={"weights": None}) for tower in ("image", "text")
    }
    with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        changes = {
            "output": f"{folder}/run",
            "steps": TIMED_STEPS,
            "global_batch": rows,
            "log_every": 1,
            "micro_batch": None,
            "checkpoint_every": 10**9,
            "sharding": "none",
        }
        short = config.model_copy(
            update={
                "Model": config.Model.model_copy(update={"weights": weights, "like": None, **unweighted}),
                "Training": training.model_copy(update=changes),
                "Tuning": config.Tuning.model_copy(update={"base_batch": None}),
            }
        )
        try:
            trainer = Trainer(short, make_evaluators=lambda *_: {}, should_compare=False)
            seconds, waited = [], []
            with trainer.folder_lock, closing(load_batches(trainer.rows, short)) as batches:
                for step in range(TIMED_STEPS):
                    began = time.monotonic()
                    batch = next(batches)
                    waited.append(time.monotonic() - began)
                    trainer.update(batch, step, 0.0)
                    trainer.update.finish_pending()
                    seconds.append(time.monotonic() - began)
        except Exception as error:  # whatever a step of this model, on so little data, runs into
            return f"no step was timed: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    taken, wait = fmean(seconds[1:]), fmean(waited[1:])
    share = training.global_batch // ranks
    unit, count = duration(taken * share / rows * training.steps)
    return (
        f"a step of {pluralize(rows, 'sample')} takes {taken:.2g} s on this machine, {wait:.2g} s of it waiting for "
        f"data to be read and decoded; {training.steps:,} steps of {share:,} take about "
        f"{pluralize(round(count), unit[:-1])}, without evaluations"
    )


def _stops(config: Config, ranks: int, bad_samples: BadSampleReport) -> list[str]:
    """Why training would end with an error, on this device and with such data."""
    stops = []
    if bad_samples.counts.total() > config.Data.max_bad_share * bad_samples.num_read:
        stops.append(f"more samples cannot be used than Data.max_bad_share = {config.Data.max_bad_share} allows")
    for check, arguments in (
        (runtime.check_precision, (config.Training.precision,)),
        (check_sharding, (config.Training.sharding, ranks)),
    ):
        try:
            check(*arguments)
        except ValueError as error:
            stops.append(str(error))
    return stops


def _state(run: Path) -> str:
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        return f"{run}, no checkpoint yet"
    return f"{run}, holds {checkpoints[-1].name}: continue with --resume, or choose another Training.output"


def _plan(config: Config, ranks: int, read: Sequence[Preview]) -> tuple[str, str]:
    """The plan for the device at hand and a line of it, or why there is none."""
    stored = [size for each in read for size in each.stored_bytes]
    try:
        device = DEVICES["cpu"]
        if paddle.get_device() != "cpu":
            found = paddle.device.cuda.get_device_properties(paddle.get_device())
            device = recognise_device(found.name, found.total_memory)
        text, plan, _ = plan_run(config, ranks, device, **({"sample_bytes": round(fmean(stored))} if stored else {}))
        return text, f"{headline(plan)} (plan.txt)"
    except (ConfigError, ValueError) as error:
        why = f"no plan: {error}; the command plan plans for any device"
        return why, why


def _sources(stream: SampleStream, config: Config, read: Sequence[Preview]) -> list[str]:
    """For each source its share and epochs, what reading it took, and how its texts fit."""
    training = config.Training
    contents = stream.state(training.steps * training.global_batch)["sources"]
    lines = []
    for share, content, each in zip(stream.shares, contents, read, strict=True):
        parts = [
            f"{pluralize(content['samples'], 'sample')} in {pluralize(content['shards'], 'shard')}, "
            f"{share:.2%} of the stream, {content['epochs']:,.1f} epochs",
            f"{each.read:,} read in {each.seconds:.1f} s (Data.workers: {config.Data.workers}), "
            f"{len(each.bad):,} unusable",
        ]
        lines.append("; ".join([*parts, *each.notes]))
    return lines


def _schedule(config: Config) -> Chart:
    steps = sorted({*np.linspace(0, config.Training.steps - 1, SCHEDULE_POINTS, dtype=int).tolist(),
                    max(0, config.Schedule.warmup_steps - 1)})  # fmt: skip
    points = [(step + 1, compute_learning_rate(step, config)) for step in steps]
    note = (f"{config.Schedule.warmup_steps:,} steps up to {config.Optimizer.learning_rate:g}, "
            f"then a cosine down to {config.Schedule.floor:g}.")  # fmt: skip
    return make_line_chart("Learning rate", note, [Series("learning rate", points, 1)], Axis("learning rate"))


def _shown(row: RowPreview) -> dict[str, dict]:
    """Images, as PNG files, and texts by name, for the page."""
    made = {
        name: cv2.imencode(".png", cv2.cvtColor(view, cv2.COLOR_RGB2BGR))[1].tobytes()
        for name, view in row.images.items()
    }
    return {"images": made, "texts": dict(row.texts)}


SHOWN, SHOWN_AT_ONCE = 24, 6
"""Samples of a source that are looked at closely, and those of them that the page shows at once."""


@dataclass(frozen=True)
class Preview:
    """What one batch of one source says of it."""

    read: int
    bad: list[tuple[str, str]]  # (reason, name) of those that could not be used
    remarks: list[tuple[str, str]]  # (remark, name) on others
    seconds: float  # that reading took, with the start of the loader's processes
    notes: list[str]  # of the task, on all rows
    samples: list[RowPreview]  # the first that could be used
    stored_bytes: list[int]  # of these


def preview(make: SampleRows, config: Config, source: int, rows: int) -> Preview:
    """Reads so many first samples of a source that training will see, as the task makes rows of them.

    Raises:
        WorkerError: a loader process failed or was killed.
    """
    positions = make.stream.first_positions(source, rows)
    began = time.monotonic()
    batch = read_batch(make, config, positions)
    seconds = time.monotonic() - began
    shown = [positions[int(position)] for position in batch.get("positions", [])[:SHOWN]]
    samples = [make.stream[position][1] for position in shown]
    side = config.Model.image.image_size
    small = sum(_short_side(sample) < side for sample in samples)
    scaled = [
        f"{small} of {pluralize(len(samples), 'image')} looked at are smaller than {side} pixels and are scaled up"
    ]
    return Preview(
        read=rows,
        bad=[tuple(each) for each in batch["bad"]],
        remarks=[tuple(each) for each in batch["remarks"]],
        seconds=seconds,
        notes=[*make.summarize(batch), *(scaled if small else [])],
        samples=[make.preview(batch, row, position) for row, position in enumerate(shown)],
        stored_bytes=[sample.stored_bytes for sample in samples],
    )


def _short_side(sample: Sample) -> float:
    try:
        image = EncodedImage(sample.image, sample.image_name)
    except BadSample:
        return math.inf
    return min(image.height, image.width)
