"""What people see of a run: bar and warnings while it goes on; configuration, log, curves and their page afterwards."""

import json
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from numbers import Real
from pathlib import Path
from statistics import fmean, median
from typing import Any

from tqdm import tqdm

from ernie_vil2.config import Config, dump_config
from ernie_vil2.config.stages import describe_stage, find_borders
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.device.extras import EXTRAS, install_command, is_installed
from ernie_vil2.device.runtime import describe_environment
from ernie_vil2.io.files import (
    MAX_NUMBER,
    add_path_to_errors,
    check_version,
    load_json,
    parse_json,
    remove_partial,
    stat_regular_file,
    write_json,
    write_text,
)
from ernie_vil2.io.progress import progress_bar
from ernie_vil2.io.run_folder import CONFIG, CURVES, ENVIRONMENT, LOG
from ernie_vil2.pages import list_borders, make_speed_charts, make_training_charts, write_page
from ernie_vil2.parallel import collectives
from ernie_vil2.parallel.collectives import errors_on_all_ranks

VERSION = 1  # of a run folder's layout, and of the records of its log
DAMAGED_LOG = "damaged_log.jsonl"
# Fields that every record of a kind has; pages rely on them.
_FIELDS: dict[str, dict[str, Any]] = {
    "train": {"loss": Real | None, "samples_per_second": Real, "loader_wait": Real},
    "evaluation": {"evaluator": str, "best_by": str | None, "progress_metrics": list | None, "metrics": dict},
}
# Files that a killed run may have left half-written.
_WRITTEN_FILES = (CONFIG, ENVIRONMENT, LOG, "bad_samples.json", "bad_samples.txt", CURVES)


def check_run_version(run: Path) -> None:
    """Raise OtherVersion if a run folder has another layout; one without a readable `environment.json` passes."""
    try:
        environment_record = load_json(run / ENVIRONMENT)
    except (OSError, ValueError):  # the run has not begun, or a copy has cut the file, which is written again
        return
    version = environment_record.get("version") if isinstance(environment_record, dict) else None
    check_version(version, VERSION, run / ENVIRONMENT, "choose another folder, -o Training.output=...")


class RunLog:
    """Log of a run: writes records to `log.jsonl`, and to VisualDL's curves if it is installed.

    When a run resumes, records of later steps and evaluations are dropped, because they are written again. Lines that
    are not records are moved to `damaged_log.jsonl`, with a warning.

    Args:
        run: the run folder.
        config: configuration of the run.
        first_step: step at which the run resumes.
        evaluated_step: step of the last evaluation at which it resumes.
    """

    def __init__(self, run: Path, config: Config, first_step: int = 0, evaluated_step: int = 0):
        run.mkdir(parents=True, exist_ok=True)
        remove_partial(run, "|".join(map(re.escape, _WRITTEN_FILES)))
        check_run_version(run)
        write_text(run / CONFIG, dump_config(config))
        write_json(run / ENVIRONMENT, {"version": VERSION, **describe_environment()})

        path = run / LOG
        records, damaged_lines = _read_records(path)
        if damaged_lines:
            with (run / DAMAGED_LOG).open("ab") as damaged_log:
                damaged_log.writelines(damaged_lines.values())
            _warn_of_damage(path, damaged_lines, f"now in {DAMAGED_LOG}")
        last_steps = {"train": first_step, "evaluation": evaluated_step}
        records = [record for record in records if record["step"] <= last_steps[record["kind"]]]
        write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
        self._file = path.open("a", encoding="utf-8")
        self._curves = _open_visualdl(run / "visualdl")
        # The clock of a resumed run continues where its last record stopped.
        self._start = time.monotonic() - (records[-1]["seconds"] if records else 0)

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append a record; its numbers, also nested ones, become VisualDL curves."""
        seconds = round(time.monotonic() - self._start, 2)
        record = json.dumps({"kind": kind, "step": step, "seconds": seconds, **values}, ensure_ascii=False)
        with add_path_to_errors(self._file.name):
            self._file.write(record + "\n")
            self._file.flush()  # a killed run keeps its records
        if self._curves is None:
            return
        for name, value in _flatten_numbers(values.get("metrics", values), kind):
            self._curves.add_scalar(tag=name, step=step, value=value)

    def close(self) -> None:
        self._file.close()
        if self._curves is not None:
            self._curves.close()


def _open_visualdl(folder: Path) -> Any:
    """Return VisualDL's writer; if it is not installed, print a line that says so and return None."""
    if not is_installed("visualdl"):
        command = install_command(EXTRAS["visualdl"])
        print(f"VisualDL is not installed: {LOG} and {CURVES} have the curves ({command} for its own)", file=sys.stderr)
        return None
    from visualdl import LogWriter

    return LogWriter(logdir=str(folder))


def _flatten_numbers(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """Yield the numbers of nested mappings, named by their path."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten_numbers(value, f"{prefix}/{name}")
        elif isinstance(value, int | float):
            yield f"{prefix}/{name}", value


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the records of a `log.jsonl`, oldest first; other lines are left out with a warning.

    A last line that a crash has cut short is left out without a warning.

    Raises:
        OSError: it cannot be read, or it is not an ordinary file.
    """
    records, damaged_lines = _read_records(path)
    if damaged_lines:
        _warn_of_damage(path, damaged_lines, "left out")
    return records


def _read_records(path: Path) -> tuple[list[dict[str, Any]], dict[int, bytes]]:
    """Return the records, and the lines that are not records by their numbers."""
    records, damaged_lines = list[dict[str, Any]](), dict[int, bytes]()
    if not path.exists():
        return records, damaged_lines
    stat_regular_file(path)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            record = _parse_record(line)
            if record is not None:
                records.append(record)
            elif line.endswith(b"\n"):
                damaged_lines[number] = line
    return records, damaged_lines


def _parse_record(line: bytes) -> dict[str, Any] | None:
    """Return the record in a line, or None if the line has no record with all fields of its kind."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = parse_json(line)
    except ValueError:
        return None
    # A list, because what a damaged line has for a kind may have no hash.
    if not isinstance(record, dict) or record.get("kind") not in list(_FIELDS):
        return None
    fields = {"step": int, "seconds": Real, **_FIELDS[record["kind"]]}
    if not all(isinstance(record.get(name), kind) for name, kind in fields.items()):
        return None
    metrics: list[Any] = []
    if record["kind"] == "evaluation":
        metrics = list(record["metrics"].values())
        progress_names = record.get("progress_metrics") or []
        if "best_by" not in record or not all(isinstance(name, str) for name in progress_names):
            return None
    if not all(isinstance(metric, Real | None) for metric in metrics):
        return None
    # JSON allows integers of more digits than a float can hold, and axes need the differences of numbers.
    for value in (*record.values(), *metrics):
        if isinstance(value, int | float) and abs(value) > MAX_NUMBER:
            return None
    return record


def _warn_of_damage(path: Path, damaged_lines: dict[int, bytes], consequence: str) -> None:
    numbers = str(next(iter(damaged_lines)))
    if len(damaged_lines) > 1:
        numbers += f" and {len(damaged_lines) - 1} others"
    print(f"warning: {path}: line {numbers} no record of a run, {consequence}", file=sys.stderr)


def summarize_run(records: Sequence[Mapping[str, Any]], steps: int) -> str:
    """Return a sentence with a run's last step and loss, and the best value of its first metric; "" without records.

    Args:
        records: records of the log.
        steps: `Training.steps`.
    """
    sentences = []
    trained = [record for record in records if record.get("kind") == "train" and record.get("loss") is not None]
    if trained:
        sentences.append(f"step {trained[-1]['step']:,} of {steps:,} with a loss of {trained[-1]['loss']:.3f}")
    evaluations = [record for record in records if record.get("kind") == "evaluation"]
    best_by = next((record["best_by"] for record in evaluations if record["best_by"]), "")
    values = []  # of this metric in the current stage, with their steps
    last_border = max(list_borders(records), default=-1)
    for record in evaluations:
        metrics = record["metrics"]
        if record["step"] > last_border and record["best_by"] == best_by and metrics.get(best_by) is not None:
            values.append((metrics[best_by], record["step"]))
    if values:
        value, step = max(values, key=lambda pair: pair[0])
        sentences.append(f"best {best_by.replace('_', ' ')} {value:.2f} at step {step:,}")
    text = "; ".join(sentences)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def write_run_page(run: Path, config: Config, bad_samples: BadSampleReport) -> None:
    """Write `curves.html` from the run's log: facts, losses, scores, schedule, speed and bad samples.

    Args:
        run: the run folder, with its `log.jsonl` and `environment.json`.
        config: the resolved configuration.
        bad_samples: bad samples of all ranks.
    """
    records = read_log(run / LOG)
    check_run_version(run)
    machine = load_json(run / ENVIRONMENT)
    facts = {
        **describe_config(config),
        **describe_progress(config, records),
        "Versions": ", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
        "Git revision": machine["git"] or "not a checkout",
    }
    write_page(
        run / CURVES,
        "run.html",
        title=f"ERNIE-ViL 2.0: {run.name}",
        summary=summarize_run(records, config.Training.steps),
        facts=facts,
        training=make_training_charts(records),
        speed=make_speed_charts(records),
        bad_samples=bad_samples,
    )


def describe_config(config: Config) -> dict[str, str]:
    """Return facts about what a run trains, for the head of a page."""
    facts = {
        "Task": config.Training.task.replace("_", " "),
        "Towers": f"{config.Model.image.name} ({config.Model.image.image_size} px), {config.Model.text.name}",
        "Training data": ", ".join(source.name for source in config.Data.sources),
        "Languages": ", ".join(config.Views.languages),
        "Global batch": f"{config.Training.global_batch:,} samples",
    }
    if config.Training.stages:
        stages = [describe_stage(config, number) for number in range(len(config.Training.stages))]
        facts["Stages"] = "; ".join(stages)
    return facts


def describe_progress(config: Config, records: Sequence[Mapping]) -> dict[str, str]:
    """Return facts about progress and speed of a run; empty before its first log record."""
    train_records = [record for record in records if record["kind"] == "train"]
    if not train_records:
        return {}
    newest = train_records[-1]
    throughput = median(record["samples_per_second"] for record in train_records)
    return {
        "Steps": f"{newest['step']:,} of {config.Training.steps:,}",
        "Training time": f"{newest['seconds'] / 60:.1f} minutes",
        "Throughput": f"{throughput:,.0f} samples a second (median)",
        "Loader wait": f"{fmean(record['loader_wait'] for record in train_records):.1%} of the time",
    }


class BestEffort:
    """Lets a run continue when optional work fails: every failure is counted, with a warning on standard error."""

    def __init__(self) -> None:
        self.failures = Counter[str]()  # by the name of the work

    @contextmanager
    def attempt(self, work: str) -> Iterator[None]:
        """Run the block up to its first error, which only ends the block. It must not contain a collective."""
        try:
            yield
        except Exception as error:
            self.report_failure(work, str(error) or type(error).__name__)

    def report_failure(self, work: str, reason: str) -> None:
        """Count a failure that has been caught elsewhere, and warn of it."""
        self.failures[work] += 1
        count = self.failures[work]
        tqdm.write(f"warning: {work}: {reason}; the run continues without it (failure {count})", sys.stderr)


class Meter:
    """Counts samples and seconds between two readings."""

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._num_samples, self._waited = 0, 0.0
        self._start, self._cpu_start = time.monotonic(), time.process_time()

    def add_samples(self, num_samples: int) -> None:
        """Add the samples that all ranks have trained on in a step."""
        self._num_samples += num_samples

    @contextmanager
    def measure_wait(self) -> Iterator[None]:
        """Count the time of the block as waiting for the loader, unless it ends by an error."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Leave the time of the block out."""
        start, cpu_start = time.monotonic(), time.process_time()
        yield
        self._start += time.monotonic() - start
        self._cpu_start += time.process_time() - cpu_start

    def read(self) -> dict[str, float]:
        """Return what was measured since the last reading, and restart.

        Returns:
            `samples_per_second`; `loader_wait`, a share of the time; `cpu_seconds` of this process with all its
            threads, which neither other load on the machine nor a suspended process increases.
        """
        seconds = time.monotonic() - self._start
        reading = {
            "samples_per_second": round(self._num_samples / seconds, 2),
            "loader_wait": round(self._waited / seconds, 4),
            "cpu_seconds": round(time.process_time() - self._cpu_start, 3),
        }
        self._restart()
        return reading


class Progress:
    """Output of a run on rank 0. Every rank calls its methods: all but `print_lines` are collectives.

    Args:
        config: configuration of the run.
        rank: rank of this process.
        bad_samples: bad samples of this rank.
        best_effort: runs the work whose failure does not end the run.

    Attributes:
        meter: speed of the steps since the last record; available within `open`.
    """

    def __init__(self, config: Config, rank: int, bad_samples: BadSampleReport, best_effort: BestEffort):
        self._run, self._config = Path(config.Training.output), config
        self._borders = find_borders(config)
        self._rank, self._bad_samples, self._best_effort = rank, bad_samples, best_effort

    def print_lines(self, lines: Iterable[str]) -> None:
        """Print lines on rank 0."""
        if self._rank == 0:
            for line in lines:
                print(line)

    @contextmanager
    def open(self, step: int, evaluated_step: int) -> Iterator[None]:
        """Open log and bar for the block.

        Args:
            step: step at which the run begins or resumes.
            evaluated_step: step of the last evaluation.
        """
        with errors_on_all_ranks():
            self._log = RunLog(self._run, self._config, step, evaluated_step) if self._rank == 0 else None
        self._bar = progress_bar(
            unit="step", total=self._config.Training.steps, initial=step, is_shown=self._rank == 0, mininterval=1.0
        )
        self.meter = Meter()
        with self._bar, closing(self._log) if self._log else nullcontext():
            yield

    def is_record_due(self, step: int) -> bool:
        """Return whether a step is to be logged."""
        return step in self._borders or step % self._config.Training.log_every == 0

    def finish_step(
        self, step: int, losses: Mapping[str, float], rate: float, get_state: Callable[[], dict[str, Any]]
    ) -> None:
        """Show that a step is finished, and log it if a record is due.

        Args:
            step: number of the step, from 1.
            losses: the newest losses that are known.
            rate: learning rate of the step.
            get_state: returns further fields of the record.
        """
        self.meter.add_samples(self._config.Training.global_batch)
        loss = f"loss {losses['loss']:.3f}, " if losses else ""
        self._bar.set_postfix_str(f"{loss}lr {rate:.2e}", refresh=False)
        self._bar.update()
        if not self.is_record_due(step):
            return
        record = {
            **{name: value if math.isfinite(value) else None for name, value in losses.items()},
            "learning_rate": rate,
            **self.meter.read(),
            "bad_samples": self._bad_samples.counts.total(),
            **get_state(),
        }
        with errors_on_all_ranks():
            if self._log:
                self._log.write("train", step, record)

    def record_evaluation(self, step: int, records: Iterable[Mapping[str, Any]], lines: Iterable[str]) -> None:
        """Log the records of an evaluation, and show it as lines."""
        with errors_on_all_ranks():
            if self._log:
                for record in records:
                    self._log.write("evaluation", step, record)
                for line in lines:
                    self._bar.write(f"step {step}, {line}", sys.stdout)

    def gather_bad_samples(self) -> BadSampleReport:
        """Return the bad samples of all ranks."""
        report = BadSampleReport()
        for rank_report in collectives.all_gather_object(self._bad_samples.as_dict()):
            report.merge(rank_report)
        return report

    def write_reports(self) -> None:
        """Write the report of bad samples and the page of curves."""
        report = self.gather_bad_samples()
        if self._rank == 0:
            with self._best_effort.attempt("report of bad samples"):
                report.write(self._run)
            with self._best_effort.attempt(CURVES):
                write_run_page(self._run, self._config, report)

    def print_summary(self, reason: str | None, num_skipped: int) -> None:
        """Print what the run has left out.

        Args:
            reason: why the run ends before its last step; None: it does not.
            num_skipped: steps that were not finite.
        """
        lines = [str(self.gather_bad_samples())]
        if reason:
            lines.append(reason)
        self.print_lines(lines)
        if self._rank != 0:
            return
        if num_skipped:
            print(f"warning: {num_skipped} steps that were not finite were left out", file=sys.stderr)
        failures = ", ".join(f"{count} x {work}" for work, count in self._best_effort.failures.items())
        if failures:
            print(f"warning: left out after failures: {failures}", file=sys.stderr)
