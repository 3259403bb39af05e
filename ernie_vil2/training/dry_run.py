"""What a run would do, without doing it: one batch of every source, the plan, the schedule."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np
import paddle
from tqdm import tqdm

from ernie_vil2.config import Config, ConfigError, dump_config
from ernie_vil2.data.loader import SampleRows, ShownRow, read_batch
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.device import runtime
from ernie_vil2.io.files import write_text
from ernie_vil2.io.run_folder import CONFIG, DRY_RUN, check_run_folder, list_checkpoints
from ernie_vil2.io.terminal import counted
from ernie_vil2.models.weights.initial import with_model_like
from ernie_vil2.pages import Chart, Series, line_chart, write_page
from ernie_vil2.planning.devices import DEVICES, recognise
from ernie_vil2.planning.text import headline, plan_run
from ernie_vil2.registry import import_named
from ernie_vil2.tasks import build_task
from ernie_vil2.training.optimizer import check_sharding, learning_rate, with_steps
from ernie_vil2.training.run_log import config_facts
from ernie_vil2.training.scoring import build_evaluators

MOST_ROWS = 512
"""Samples of a source that are read, where the batch of a rank is larger."""
SCHEDULE_POINTS = 200
NO_PLAN = "no plan: what a step of this task needs is not known before it is run"


@dataclass(frozen=True)
class DryRun:
    """What a dry run found.

    Attributes:
        folder: that holds `dry_run.html`, `plan.txt`, `config.yaml` and the bad samples.
        text: for the terminal.
        would_stop: training would, as more samples cannot be used than `Data.max_bad_share` allows, or as this device
            lacks what is configured.
    """

    folder: Path
    text: str
    would_stop: bool


def dry_run(config: Config, ranks: int = 1) -> DryRun:
    """Reads one batch of a rank from every source, plans the run, and writes both down in `<run>/dry_run/`.

    Nothing is trained, no weights are loaded, and whatever else the run folder holds stays as it is.

    Args:
        config: of the run.
        ranks: that the run is going to have.

    Raises:
        ConfigError: the ranks do not divide the batch, or the run folder holds something else.
        FileNotFoundError, ValueError: data or vocabulary cannot be used.
        WorkerError: a loader process failed or was killed.
    """
    import_named(config.names)
    config = with_model_like(config)
    training = config.Training
    run = Path(training.output)
    check_run_folder(run)
    if training.global_batch % ranks:
        raise ConfigError(f"Training.global_batch ({training.global_batch}) must be divisible by the {ranks} ranks")
    runtime.set_device(training.device)
    task = build_task(config)
    make = task.rows()
    stream = make.stream
    config = with_steps(config, stream.samples)
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
    plan, plan_line = _plan(config, ranks, read) if task.planned else (NO_PLAN, NO_PLAN)
    sources = _sources(stream, config, read)
    facts = {
        **config_facts(config),
        "Ranks": f"{ranks}",
        "Steps": f"{training.steps:,}",
        "Validation": "; ".join(
            f"{what}: {sizes}" for evaluator in evaluators.values() for what, sizes in evaluator.data.items()
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
            {"name": name, "note": line, "samples": [_shown(sample) for sample in each.samples]}
            for name, line, each in zip(stream.names, sources, read, strict=True)
        ],
        plan=plan,
        schedule=_schedule(config),
        bad_samples=bad_samples,
    )
    write_text(folder / "plan.txt", f"{plan}\n")
    lines = [f"{name}: {line}" for name, line in zip(stream.names, sources, strict=True)]
    lines += [f"the run would stop: {why}" for why in stops]
    return DryRun(folder, "\n".join([*lines, plan_line, str(bad_samples)]), bool(stops))


def _stops(config: Config, ranks: int, bad_samples: BadSampleReport) -> list[str]:
    """Why training would end with an error, on this device and with such data."""
    stops = []
    if bad_samples.counts.total() > config.Data.max_bad_share * bad_samples.read:
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
    return f"{run}, holds {checkpoints[-1].name}: go on with --resume, or choose another Training.output"


def _plan(config: Config, ranks: int, read: Sequence[Preview]) -> tuple[str, str]:
    """The plan for the device at hand and a line of it, or why there is none."""
    stored = [size for each in read for size in each.stored_bytes]
    try:
        device = DEVICES["cpu"]
        if paddle.get_device() != "cpu":
            found = paddle.device.cuda.get_device_properties(paddle.get_device())
            device = recognise(found.name, found.total_memory)
        text, plan, _ = plan_run(config, ranks, device, **({"sample_bytes": round(fmean(stored))} if stored else {}))
        return text, f"{headline(plan)} (plan.txt)"
    except (ConfigError, ValueError) as error:
        why = f"no plan: {error}; ernie-vil2 plan plans for any device"
        return why, why


def _sources(stream: SampleStream, config: Config, read: Sequence[Preview]) -> list[str]:
    """For each source its share and epochs, what reading it took, and how its texts fit."""
    training = config.Training
    contents = stream.state(training.steps * training.global_batch)["sources"]
    lines = []
    for share, content, each in zip(stream.shares, contents, read, strict=True):
        parts = [
            f"{counted(content['samples'], 'sample')} in {counted(content['shards'], 'shard')}, "
            f"{share:.2%} of the stream, {content['epochs']:,.1f} epochs",
            f"{each.read:,} read in {each.seconds:.1f} s (Data.workers: {config.Data.workers}), "
            f"{len(each.bad):,} unusable",
        ]
        lines.append("; ".join([*parts, *each.notes]))
    return lines


def _schedule(config: Config) -> Chart:
    steps = sorted({*np.linspace(0, config.Training.steps - 1, SCHEDULE_POINTS, dtype=int).tolist(),
                    max(0, config.Schedule.warmup_steps - 1)})  # fmt: skip
    points = [(step + 1, learning_rate(step, config)) for step in steps]
    note = (f"{config.Schedule.warmup_steps:,} steps up to {config.Optimizer.learning_rate:g}, "
            f"then a cosine down to {config.Schedule.floor:g}.")  # fmt: skip
    return line_chart("Learning rate", note, [Series("learning rate", points, 1)], y_label="learning rate")


def _shown(row: ShownRow) -> dict[str, dict]:
    """Images and texts by name, for the page."""
    return {"images": {name: _png(view) for name, view in row.images.items()}, "texts": dict(row.texts)}


def _png(view: np.ndarray) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(view, cv2.COLOR_RGB2BGR))[1].tobytes()


SHOWN = 6
"""Samples of a source that are looked at closely."""


@dataclass(frozen=True)
class Preview:
    """What one batch of one source says of it.

    Attributes:
        read: rows.
        bad: (reason, name) of those that could not be used.
        remarks: (remark, name) on others.
        seconds: that reading took, with the start of the loader's processes.
        notes: of the task, on all rows.
        samples: the first that could be used.
        stored_bytes: of these.
    """

    read: int
    bad: list[tuple[str, str]]
    remarks: list[tuple[str, str]]
    seconds: float
    notes: list[str]
    samples: list[ShownRow]
    stored_bytes: list[int]


def preview(make: SampleRows, config: Config, source: int, rows: int) -> Preview:
    """Reads the first samples of a source that training will see, as the task makes rows of them.

    Args:
        make: the task's rows, for a run of this configuration.
        source: number of the source.
        rows: samples to read.

    Raises:
        WorkerError: a loader process failed or was killed.
    """
    positions = make.stream.first_positions(source, rows)
    began = time.monotonic()
    batch = read_batch(make, config, positions)
    seconds = time.monotonic() - began
    shown = [positions[int(position)] for position in batch.get("positions", [])[:SHOWN]]
    return Preview(
        read=rows,
        bad=[tuple(each) for each in batch["bad"]],
        remarks=[tuple(each) for each in batch["remarks"]],
        seconds=seconds,
        notes=make.notes(batch),
        samples=[make.shown(batch, row, position) for row, position in enumerate(shown)],
        stored_bytes=[make.stream[position][1].stored_bytes for position in shown],
    )
