"""What a run would do, without doing it: one batch of every source, the plan, the schedule."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import paddle

from ernie_vil2.config import Config, ConfigError, differences, dump_config
from ernie_vil2.config.stages import enter_stage, find_borders, resolve_stages
from ernie_vil2.data.decoding import EncodedImage
from ernie_vil2.data.loader import RowPreview, SampleRows, load_batches, read_batch
from ernie_vil2.data.samples import BadSample, BadSampleReport, Sample
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.device import runtime
from ernie_vil2.device.launch import launched_rank
from ernie_vil2.io.files import write_text
from ernie_vil2.io.model_address import is_address
from ernie_vil2.io.progress import progress_bar
from ernie_vil2.io.run_folder import CONFIG, DRY_RUN, check_run_folder, list_checkpoints
from ernie_vil2.io.terminal import pluralize
from ernie_vil2.models.weights.initial import resolve_model_like
from ernie_vil2.pages import Axis, Chart, Series, make_line_chart, write_page
from ernie_vil2.planning.machine import Machine, find_device, measure_machine
from ernie_vil2.planning.plan import (
    DataSheet,
    Plan,
    check_run,
    describe_bytes,
    duration,
    headline,
    plan_run,
)
from ernie_vil2.registry import import_user_modules
from ernie_vil2.tasks import build_task
from ernie_vil2.training.optimizer import check_sharding, compute_cooldown_start, compute_learning_rate, resolve_steps
from ernie_vil2.training.run_log import describe_config
from ernie_vil2.training.scoring import build_evaluators
from ernie_vil2.training.stages import check_towers
from ernie_vil2.training.trainer import Trainer

# Samples read of a source, if the batch of a rank is larger: enough to judge the data in seconds.
MAX_ROWS = 512
# Samples of a source on the page, and how many of them are visible at once.
MAX_PREVIEWS, MAX_VISIBLE_PREVIEWS = 24, 6
SCHEDULE_POINTS = 200  # of the chart
MAX_CHANGES = 20  # listed settings that differ from the configuration file
TIMED_STEPS = 3  # the first one warms up
# Rows of a timed step. With few rows, the fixed cost of a step counts for every row: multiplied from 16 rows, the demo
# seemed to take seven times as long as it does. Large models are timed on 16, so that a step fits into memory.
MIN_TIMED_ROWS, MAX_TIMED_ROWS = 16, 256
# Seconds that these steps and the initial weights may take if the machine does nothing but products. ViT-B/16 and ERNIE
# base took 1.1 times as long on a CPU, towers of two million parameters five times, which is still a second.
MAX_TIMING_SECONDS = 15
MAX_EXTRA_SECONDS = 3  # the same if more than `MIN_TIMED_ROWS` are timed
NO_PLAN = "no plan: what a step of this task needs is not known before it is run"


@dataclass(frozen=True)
class DryRun:
    """Result of a dry run."""

    folder: Path  # has `dry_run.html`, `plan.txt`, `config.yaml` and the bad samples
    text: str  # for the terminal
    would_stop: bool  # because of bad samples above `Data.max_bad_share`, or settings that this device lacks


@dataclass(frozen=True)
class SourcePreview:
    """Result of reading one batch of a source."""

    num_read: int
    bad: list[tuple[str, str]]  # (reason, name) of samples that could not be used
    remarks: list[tuple[str, str]]  # (remark, name) on other samples
    seconds: float  # for reading, with the start of the loader's processes
    notes: list[str]  # of the task, on all rows
    rows: list[RowPreview]  # the first samples that could be used
    stored_bytes: list[int]  # sizes of these samples


def dry_run(
    config: Config, ranks: int = 1, base: tuple[str, Config] | None = None, device: DataSheet | None = None
) -> DryRun:
    """Read one batch of a rank from every source, plan the run, and write the results to `<run>/dry_run/`.

    If they take seconds only, a few steps are timed in a temporary folder, with random weights unless the task needs a
    model's weights. Nothing else is trained, and everything else in the run folder stays unchanged.

    Args:
        config: configuration of the run.
        ranks: number of ranks that the run will have.
        base: name and configuration of a file with which the run is compared.
        device: kind of the devices that the run will have; None: that of this machine.

    Raises:
        ConfigError: the ranks do not divide the batch, or the run folder holds something else.
        FileNotFoundError: data or vocabulary do not exist.
        ValueError: data or vocabulary cannot be used.
        WorkerError: a loader process failed or was killed.
    """
    import_user_modules(config.component_names)
    changes = _list_changes(base[1], config) if base else ""
    config = resolve_stages(resolve_model_like(config))
    training = config.Training
    run = Path(training.output)
    check_run_folder(run)
    if training.global_batch % ranks:
        raise ConfigError(f"Training.global_batch ({training.global_batch}) must be divisible by the {ranks} ranks")
    try:
        runtime.set_device(training.device)
    except ValueError:
        if device is None:
            raise
        # The machine of the run has the device that the configuration names; this one need not have it.
        runtime.set_device("auto")
    check_towers(config)
    # A server would have to embed the whole training data first.
    teacher = config.Tuning.teacher
    has_teacher_server = teacher is not None and is_address(teacher.embeddings)
    tuning = config.Tuning.model_copy(update={"teacher": None}) if has_teacher_server else config.Tuning
    # The rows of the first stage are shown.
    first_stage = enter_stage(config, 0).model_copy(update={"Tuning": tuning})
    task = build_task(first_stage)
    rows = task.open_rows()
    stream = rows.stream
    config = resolve_steps(config, stream.num_samples)
    training = config.Training
    evaluators = build_evaluators(first_stage, task)

    # Read a batch of every source.
    num_rows = min(training.global_batch // ranks, MAX_ROWS)
    previews, bad_samples = [], BadSampleReport()
    for source in progress_bar(range(len(stream.names)), "reading", unit="source", delay=2):
        source_preview = preview_source(rows, first_stage, source, num_rows)
        previews.append(source_preview)
        bad_samples.add(source_preview.num_read, source_preview.bad, source_preview.remarks)

    folder = run / DRY_RUN
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CONFIG, dump_config(config))
    bad_samples.write(folder)
    obstacles = _find_obstacles(config, ranks, device, bad_samples)
    plans: Sequence[Plan] = ()
    plan_text, plan_line, weights = NO_PLAN, NO_PLAN, config.Model.weights
    if task.has_plan:
        plan_text, plan_line, plans = _make_plan(config, ranks, device, previews)
        weights = None
    if device and not _is_present(device):
        timing = f"no step was timed: this machine is no {device.name}"
    else:
        timing = _time_stages(config.model_copy(update={"Tuning": tuning}), ranks, weights, plans)
    plan_text = f"{plan_text}\n\n{timing}"
    source_lines = _describe_sources(stream, config, previews)

    sizes = []
    for evaluator in evaluators.values():
        sizes += [f"{name}: {size}" for name, size in evaluator.data_sizes.items()]
    facts = {**describe_config(config), "Ranks": f"{ranks}", "Steps": f"{training.steps:,}"}
    if base and changes:
        facts[f"Changed from {base[0]}"] = changes
    facts |= {"Validation": "; ".join(sizes) or "none", "Run folder": _describe_run_folder(run)}
    summary = f"The run can start; {plan_line}."
    if obstacles:
        summary = f"The run would stop: {'; '.join(obstacles)}."
    sources = []
    for name, line, source_preview in zip(stream.names, source_lines, previews, strict=True):
        samples = [_encode_views(row) for row in source_preview.rows]
        sources.append({"name": name, "note": line, "samples": samples, "at_once": MAX_VISIBLE_PREVIEWS})
    write_page(
        folder / "dry_run.html",
        "dry_run.html",
        title=f"ERNIE-ViL 2.0: dry run of {run.name}",
        summary=summary,
        facts=facts,
        sources=sources,
        plan=plan_text,
        schedule=_draw_schedule(config),
        bad_samples=bad_samples,
    )
    write_text(folder / "plan.txt", f"{plan_text}\n")

    lines = [f"{name}: {line}" for name, line in zip(stream.names, source_lines, strict=True)]
    if base and changes:
        lines.append(f"changed from {base[0]}: {changes}")
    lines += config.Data.warnings
    if has_teacher_server:
        lines.append("left out: the teacher of Tuning.teacher.embeddings, whose server a training asks first")
    lines += [f"the run would stop: {obstacle}" for obstacle in obstacles]
    lines += [plan_line, timing, str(bad_samples)]
    return DryRun(folder, "\n".join(lines), bool(obstacles))


def _list_changes(base: Config, config: Config) -> str:
    """Return the settings in which a run differs from its file, with both values."""
    changes = []
    for key, (base_value, value) in differences(base.model_dump(), config.model_dump()):
        changes.append(f"{key}: {base_value} → {value}")
    text = "; ".join(changes[:MAX_CHANGES])
    return f"{text}; ..." if len(changes) > MAX_CHANGES else text


def _time_stages(config: Config, ranks: int, weights: str | None, plans: Sequence[Plan]) -> str:
    """Return a sentence about the time of a step for each stage; arguments are those of `time_step`."""
    sentences = []
    for number, (start, end) in enumerate(pairwise([0, *find_borders(config)])):
        plan = plans[number] if plans else None
        sentence = time_step(enter_stage(config, number), ranks, weights, plan, end - start)
        sentences.append(f"stage {number + 1}: {sentence}" if len(config.Training.stages) > 1 else sentence)
    return "\n".join(sentences)


def time_step(
    config: Config, ranks: int, weights: str | None = None, plan: Plan | None = None, steps: int | None = None
) -> str:
    """Return a sentence about the time of a step on this machine, and how much of it is waiting for data.

    Some steps are run on up to `MAX_TIMED_ROWS` samples, fewer if these take long. If even `MIN_TIMED_ROWS` would take
    minutes or more memory than there is, or if the steps fail, the sentence says so.

    Args:
        config: configuration of the run.
        ranks: number of ranks that the run will have.
        weights: weights of the model if the task needs them; None: random ones, which take as long.
        plan: plan of the run; None: the steps are run whatever they need.
        steps: number of steps of the run; None: `Training.steps`.
    """
    training, steps = config.Training, steps or config.Training.steps
    max_rows = MAX_TIMED_ROWS if plan else MIN_TIMED_ROWS
    num_rows = min(training.global_batch // ranks, training.micro_batch or max_rows, max_rows)
    if launched_rank()[1] > 1:
        return "no step was timed: ranks take one together"
    with TemporaryDirectory() as folder:
        timed_config = _shorten_run(config, num_rows, weights, f"{folder}/run")
        obstacle = None
        if plan:
            machine = measure_machine()
            obstacle = _find_timing_obstacle(Plan(timed_config, plan.towers, 1, plan.device), machine)
            while obstacle and num_rows > MIN_TIMED_ROWS:
                num_rows = max(num_rows // 2, MIN_TIMED_ROWS)
                timed_config = _shorten_run(config, num_rows, weights, f"{folder}/run")
                obstacle = _find_timing_obstacle(Plan(timed_config, plan.towers, 1, plan.device), machine)
        if obstacle:
            return f"no step was timed: {obstacle}"
        try:
            step_seconds, wait_seconds = _run_steps(timed_config)
        except Exception as error:  # whatever a step of this model, on so little data, runs into
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            return f"no step was timed: {reason}"

    # The first step includes the start of the loader.
    seconds, wait = fmean(step_seconds[1:]), fmean(wait_seconds[1:])
    rows_of_rank = training.global_batch // ranks
    length = _describe_duration(seconds * rows_of_rank / num_rows * steps)
    return (
        f"a step of {pluralize(num_rows, 'sample')} takes {seconds:.2g} s on this machine, {wait:.2g} s of it waiting "
        f"for data to be read and decoded; {steps:,} steps of {rows_of_rank:,} take about {length}, without "
        "evaluations"
    )


def _shorten_run(config: Config, num_rows: int, weights: str | None, output: str) -> Config:
    """Return the configuration of a run of `TIMED_STEPS` steps in one process."""
    model = config.Model
    model_changes: dict[str, Any] = {"weights": weights, "like": None}
    for tower in ("image", "text"):
        model_changes[tower] = getattr(model, tower).model_copy(update={"weights": None})
    training_changes = {
        "output": output,
        "steps": TIMED_STEPS,
        "stages": [],
        "global_batch": num_rows,
        "log_every": 1,
        "micro_batch": None,
        "checkpoint_every": 10**9,  # never
        "sharding": "none",
    }
    changes = {
        "Model": model.model_copy(update=model_changes),
        "Training": config.Training.model_copy(update=training_changes),
        "Tuning": config.Tuning.model_copy(update={"base_batch": None}),
    }
    return config.model_copy(update=changes)


def _find_timing_obstacle(timed_plan: Plan, machine: Machine) -> str | None:
    """Return why the steps of a short run are not run on this machine; None if they take seconds and fit."""
    rows = pluralize(timed_plan.global_batch, "sample")
    if timed_plan.peak_memory > machine.memory:
        needed, free = describe_bytes(timed_plan.peak_memory), describe_bytes(machine.memory)
        return f"a step of {rows} needs {needed}, and this machine has {free} left"
    seconds = machine.least_seconds(TIMED_STEPS * timed_plan.flops, timed_plan.parameters["all"])
    max_seconds = MAX_TIMING_SECONDS if timed_plan.global_batch <= MIN_TIMED_ROWS else MAX_EXTRA_SECONDS
    if seconds > max_seconds:
        return f"{TIMED_STEPS} steps of {rows} take at least {_describe_duration(seconds)} on this machine"
    return None


def _run_steps(config: Config) -> tuple[list[float], list[float]]:
    """Run the steps of a short run; return the seconds of each, and how many of them it waits for data."""
    step_seconds, wait_seconds = [], []
    # The trainer's output is hidden, because it is about its own short run.
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        trainer = Trainer(config, make_evaluators=lambda *_: {}, should_score_test=False)
        with trainer.folder_lock, closing(load_batches(trainer.sample_rows, config)) as batches:
            for step in range(TIMED_STEPS):
                start = time.monotonic()
                batch = next(batches)
                wait_seconds.append(time.monotonic() - start)
                trainer.update(batch, step, 0.0)
                trainer.update.finish_pending()
                step_seconds.append(time.monotonic() - start)
    return step_seconds, wait_seconds


def _describe_duration(seconds: float) -> str:
    unit, count = duration(seconds)
    return pluralize(round(count), unit[:-1])


def _find_obstacles(config: Config, ranks: int, device: DataSheet | None, bad_samples: BadSampleReport) -> list[str]:
    """Return the reasons why training would end with an error, on such devices and with such data."""
    obstacles = []
    if bad_samples.counts.total() > config.Data.max_bad_share * bad_samples.num_read:
        obstacles.append(f"more samples cannot be used than Data.max_bad_share = {config.Data.max_bad_share} allows")
    try:
        if device:
            check_run(config, ranks, device)
        else:
            runtime.check_precision(config.Training.precision)
    except ValueError as error:
        obstacle = str(error)
        if device is None:
            obstacle += ", or name the devices of the run: --ranks N --device KIND"
        obstacles.append(obstacle)
    device_name = device.name if device else paddle.get_device()
    try:
        check_sharding(config.Training.sharding, ranks, is_cpu=device_name == "cpu")
    except ValueError as error:
        obstacles.append(str(error))
    return obstacles


def _describe_run_folder(run: Path) -> str:
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        return f"{run}, no checkpoint yet"
    return f"{run}, holds {checkpoints[-1].name}: continue with --resume, or choose another Training.output"


def _make_plan(
    config: Config, ranks: int, device: DataSheet | None, previews: Sequence[SourcePreview]
) -> tuple[str, str, Sequence[Plan]]:
    """Return the plan as text, its headline, and the plan of each stage; without a plan, twice the reason, and none.

    Args:
        config: configuration of the run.
        ranks: number of ranks that the run will have.
        device: kind of the devices; None: that of this machine.
        previews: what was read of the sources; the plan assumes the mean stored size of these samples.
    """
    options: dict[str, Any] = {}
    stored_bytes = [size for preview in previews for size in preview.stored_bytes]
    if stored_bytes:
        options["sample_bytes"] = round(fmean(stored_bytes))
    try:
        text, plan, _, stages = plan_run(config, ranks, device or find_device(), **options)
    except (ConfigError, ValueError) as error:
        reason = f"no plan: {error}; --device names another device"
        return reason, reason, ()
    return text, f"{headline(plan)} (plan.txt)", stages or [plan]


def _is_present(device: DataSheet) -> bool:
    """Return whether this machine has such a device."""
    try:
        return find_device() is device
    except ValueError:  # a device without a data sheet
        return False


def _describe_sources(stream: SampleStream, config: Config, previews: Sequence[SourcePreview]) -> list[str]:
    """Return a line for each source with its share and epochs, the time of reading it, and how its texts fit."""
    training = config.Training
    contents = stream.state(training.steps * training.global_batch)["sources"]
    lines = []
    for share, content, preview in zip(stream.shares, contents, previews, strict=True):
        size = f"{pluralize(content['samples'], 'sample')} in {pluralize(content['shards'], 'shard')}, "
        facts = [
            f"{size}{share:.2%} of the stream, {content['epochs']:,.1f} epochs",
            f"{preview.num_read:,} read in {preview.seconds:.1f} s (Data.workers: {config.Data.workers}), "
            f"{len(preview.bad):,} unusable",
        ]
        lines.append("; ".join([*facts, *preview.notes]))
    return lines


def _draw_schedule(config: Config) -> Chart:
    schedule, cooldown_start, borders = config.Schedule, compute_cooldown_start(config), find_borders(config)
    steps = set(np.linspace(0, config.Training.steps - 1, SCHEDULE_POINTS, dtype=int).tolist())
    # The corners of the curve.
    steps.update((max(0, schedule.warmup_steps - 1), max(0, cooldown_start - 1)))
    for border in borders[:-1]:
        steps.update((border - 1, border))
    points = []
    for number, (start, end) in enumerate(pairwise([0, *borders])):
        stage_config = enter_stage(config, number)
        for step in sorted(step for step in steps if start <= step < end):
            points.append((step + 1, compute_learning_rate(step, stage_config)))
    peaks = [config.Optimizer.learning_rate]
    if config.Training.stages:
        peaks = [stage.learning_rate or 0.0 for stage in config.Training.stages]
    peak = ", ".join(f"{rate:g}" for rate in peaks)
    note = f"{schedule.warmup_steps:,} steps up to {peak}, then "
    if len(peaks) > 1:
        note = f"Peaks of the stages: {peak}; a warm-up of {schedule.warmup_steps:,} steps, then "
    num_cooldown_steps = config.Training.steps - cooldown_start
    floor = min(schedule.floor, peaks[-1])
    if schedule.kind == "cosine":
        note += f"a cosine down to {floor:g}."
    elif num_cooldown_steps:
        note += f"constant, and in the last {pluralize(num_cooldown_steps, 'step')} down to {floor:g}."
    else:
        note += "constant."
    series = [Series("learning rate", points, 1)]
    return make_line_chart("Learning rate", note, series, Axis("learning rate"), x=Axis("step", borders=borders[:-1]))


def _encode_views(row: RowPreview) -> dict[str, dict]:
    """Return images, as PNG files, and texts by name, for the page."""
    images = {}
    for name, view in row.images.items():
        images[name] = cv2.imencode(".png", cv2.cvtColor(view, cv2.COLOR_RGB2BGR))[1].tobytes()
    return {"images": images, "texts": dict(row.texts)}


def preview_source(rows: SampleRows, config: Config, source: int, num_rows: int) -> SourcePreview:
    """Read the first samples of a source that training will see, as the task makes rows of them.

    Raises:
        WorkerError: a loader process failed or was killed.
    """
    positions = rows.stream.first_positions(source, num_rows)
    start = time.monotonic()
    batch = read_batch(rows, config, positions)
    seconds = time.monotonic() - start
    shown_positions = [positions[int(index)] for index in batch.get("positions", [])[:MAX_PREVIEWS]]
    samples = [rows.stream[position][1] for position in shown_positions]
    notes = rows.summarize(batch)
    size = config.Model.image.image_size
    num_small = sum(_get_short_side(sample) < size for sample in samples)
    if num_small:
        images = pluralize(len(samples), "image")
        notes = [*notes, f"{num_small} of {images} looked at are smaller than {size} pixels and are scaled up"]
    return SourcePreview(
        num_read=num_rows,
        bad=list(map(tuple, batch["bad"])),
        remarks=list(map(tuple, batch["remarks"])),
        seconds=seconds,
        notes=notes,
        rows=[rows.preview(batch, row, position) for row, position in enumerate(shown_positions)],
        stored_bytes=[sample.stored_bytes for sample in samples],
    )


def _get_short_side(sample: Sample) -> float:
    try:
        image = EncodedImage(sample.image, sample.image_name)
    except BadSample:
        return math.inf
    return min(image.height, image.width)
