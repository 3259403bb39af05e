"""What people see of a run: bar and warnings while it goes on; configuration, log, curves and their page afterwards."""

import json
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from statistics import fmean, median
from typing import Any

from tqdm import tqdm

from ernie_vil2.config import Config, dump_config
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.device.extras import EXTRAS, install_command, installed
from ernie_vil2.device.runtime import environment
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
from ernie_vil2.io.run_folder import CONFIG, CURVES, ENVIRONMENT, LOG
from ernie_vil2.pages import make_speed_charts, make_training_charts, write_page
from ernie_vil2.parallel import collectives
from ernie_vil2.parallel.collectives import errors_on_all_ranks

VERSION = 1  # of a run folder's layout, and of the records of its log
DAMAGED = "damaged_log.jsonl"
_FIELDS: dict[str, dict[str, Any]] = {
    "train": {"loss": Real | None, "samples_per_second": Real, "loader_wait": Real},
    "evaluation": {"evaluator": str, "best_by": str | None, "shown": list | None, "metrics": dict},
}
"""By its kind what every record has, and pages rely on."""
_WRITTEN = (CONFIG, ENVIRONMENT, LOG, "bad_samples.json", "bad_samples.txt", CURVES)


def check_run_version(run: Path) -> None:
    """Raise OtherVersion if a run folder is of another layout; one without a readable `environment.json` passes."""
    try:
        found = load_json(run / ENVIRONMENT)
    except (OSError, ValueError):  # the run has not begun, or a copy has cut the file: it is written again
        return
    version = found.get("version") if isinstance(found, dict) else None
    check_version(version, VERSION, run / ENVIRONMENT, "choose another folder, -o Training.output=...")


class RunLog:
    """Writes a run's records to `log.jsonl`, and where VisualDL is installed to its curves as well.

    Of an interrupted run, records of steps after `first_step` and of evaluations after `evaluated` are dropped. Lines
    of the log that are not records go into `damaged_log.jsonl`, with a warning.
    """

    def __init__(self, run: Path, config: Config, first_step: int = 0, evaluated: int = 0):
        run.mkdir(parents=True, exist_ok=True)
        remove_partial(run, "|".join(map(re.escape, _WRITTEN)))
        write_text(run / CONFIG, dump_config(config))
        check_run_version(run)
        write_json(run / ENVIRONMENT, {"version": VERSION, **environment()})
        path = run / LOG
        done = {"train": first_step, "evaluation": evaluated}
        records, damaged = _read(path)
        if damaged:
            with (run / DAMAGED).open("ab") as aside:
                aside.writelines(damaged.values())
            _warn(path, damaged, f"now in {DAMAGED}")
        kept = [record for record in records if record["step"] <= done[record["kind"]]]
        write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))
        self._file = path.open("a", encoding="utf-8")
        self._curves = _visualdl(run / "visualdl")
        self._start = time.monotonic() - (kept[-1]["seconds"] if kept else 0)

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Appends one record; numbers, nested ones too, become VisualDL curves."""
        seconds = round(time.monotonic() - self._start, 2)
        record = json.dumps({"kind": kind, "step": step, "seconds": seconds, **values}, ensure_ascii=False)
        with add_path_to_errors(self._file.name):
            self._file.write(record + "\n")
            self._file.flush()
        if self._curves is None:
            return
        for name, value in _numbers(values.get("metrics", values), kind):
            self._curves.add_scalar(tag=name, step=step, value=value)

    def close(self) -> None:
        self._file.close()
        if self._curves is not None:
            self._curves.close()


def _visualdl(folder: Path) -> Any:
    """VisualDL's writer; None, and a line that says so, where it is not installed."""
    if not installed("visualdl"):
        command = install_command(EXTRAS["visualdl"])
        print(f"VisualDL is not installed: {LOG} and {CURVES} have the curves ({command} for its own)", file=sys.stderr)
        return None
    from visualdl import LogWriter

    return LogWriter(logdir=str(folder))


def _numbers(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}/{name}")
        elif isinstance(value, int | float):
            yield f"{prefix}/{name}", value


def read_log(path: Path) -> list[dict[str, Any]]:
    """Records of a `log.jsonl`, oldest first; lines that are none are left out with a warning.

    A last line cut short by a crash is left out without one.

    Raises:
        OSError: it cannot be read, or it is not an ordinary file.
    """
    records, damaged = _read(path)
    if damaged:
        _warn(path, damaged, "left out")
    return records


def _read(path: Path) -> tuple[list[dict[str, Any]], dict[int, bytes]]:
    """The records, and by their number the lines that are none."""
    records, damaged = list[dict[str, Any]](), dict[int, bytes]()
    if not path.exists():
        return records, damaged
    stat_regular_file(path)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            record = _record(line)
            if record is not None:
                records.append(record)
            elif line.endswith(b"\n"):
                damaged[number] = line
    return records, damaged


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = parse_json(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    if not isinstance(record, dict) or record.get("kind") not in list(_FIELDS):
        return None
    fields = {"step": int, "seconds": Real, **_FIELDS[record["kind"]]}
    if not all(isinstance(record.get(name), kind) for name, kind in fields.items()):
        return None
    numbers = [*record["metrics"].values()] if "metrics" in fields else []
    if not all(isinstance(number, Real | None) for number in numbers):
        return None
    whole = [value for value in (*record.values(), *numbers) if isinstance(value, int)]
    return record if all(abs(value) <= MAX_NUMBER for value in whole) else None  # digits that no float can hold


def _warn(path: Path, damaged: dict[int, bytes], what: str) -> None:
    first = next(iter(damaged))
    others = f" and {len(damaged) - 1} others" * (len(damaged) > 1)
    print(f"warning: {path}: line {first}{others} no record of a run, {what}", file=sys.stderr)


def in_a_sentence(records: Sequence[Mapping[str, Any]], steps: int) -> str:
    """How far a run came, its last loss, and the best value of the first scorer's metric; "" before both."""
    parts = []
    trained = [record for record in records if record.get("kind") == "train" and record.get("loss") is not None]
    if trained:
        parts.append(f"step {trained[-1]['step']:,} of {steps:,} with a loss of {trained[-1]['loss']:.3f}")
    best_by = next((str(record["best_by"]) for record in records if record.get("best_by")), "")
    scored = [(record.get("metrics") or {}, record["step"]) for record in records if record.get("best_by") == best_by]
    values = [(metrics[best_by], step) for metrics, step in scored if metrics.get(best_by) is not None]
    if values:
        value, step = max(values, key=lambda one: one[0])
        parts.append(f"best {best_by.replace('_', ' ')} {value:.2f} at step {step:,}")
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}." if sentence else ""


def write_run_page(run: Path, config: Config, bad_samples: BadSampleReport) -> None:
    """Writes `curves.html` from the run's log: facts, losses, scores, schedule, speed, and what could not be used.

    Args:
        run: the run folder, with its `log.jsonl` and `environment.json`.
        config: the resolved configuration.
        bad_samples: of all ranks.
    """
    records = read_log(run / LOG)
    check_run_version(run)
    machine = load_json(run / ENVIRONMENT)
    facts = {
        **config_facts(config),
        **progress_facts(config, records),
        "Versions": ", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
        "Git revision": machine["git"] or "not a checkout",
    }
    write_page(
        run / CURVES,
        "run.html",
        title=f"ERNIE-ViL 2.0: {run.name}",
        summary=in_a_sentence(records, config.Training.steps),
        facts=facts,
        training=make_training_charts(records),
        speed=make_speed_charts(records),
        bad_samples=bad_samples,
    )


def config_facts(config: Config) -> dict[str, str]:
    """Names and values of what a run trains, for the head of a page."""
    return {
        "Task": config.Training.task.replace("_", " "),
        "Towers": f"{config.Model.image.name} ({config.Model.image.image_size} px), {config.Model.text.name}",
        "Training data": ", ".join(source.name for source in config.Data.sources),
        "Languages": ", ".join(config.Views.languages),
        "Global batch": f"{config.Training.global_batch:,} samples",
    }


def progress_facts(config: Config, records: Sequence[Mapping]) -> dict[str, str]:
    """How far a run has come and how fast; empty before its first log record."""
    train = [record for record in records if record["kind"] == "train"]
    if not train:
        return {}
    return {
        "Steps": f"{train[-1]['step']:,} of {config.Training.steps:,}",
        "Training time": f"{train[-1]['seconds'] / 60:.1f} minutes",
        "Throughput": f"{median(record['samples_per_second'] for record in train):,.0f} samples a second (median)",
        "Loader wait": f"{fmean(record['loader_wait'] for record in train):.1%} of the time",
    }


class BestEffort:
    """Lets a run continue when such work fails: every failure is a warning on standard error, and is counted."""

    def __init__(self) -> None:
        self.failures = Counter[str]()  # by what was attempted

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Ends the block at its first error, and no more than the block. There must be no collective in it."""
        try:
            yield
        except Exception as error:
            self.failed(what, str(error) or type(error).__name__)

    def failed(self, what: str, why: str) -> None:
        """Warns of a failure that has been caught elsewhere."""
        self.failures[what] += 1
        tqdm.write(f"warning: {what}: {why}; the run continues without it (failure {self.failures[what]})", sys.stderr)


class Meter:
    """Counts samples and seconds between two readings."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._samples, self._waited, self._since, self._computed = 0, 0.0, time.monotonic(), time.process_time()

    def count(self, samples: int) -> None:
        """So many samples have been trained on, by all ranks."""
        self._samples += samples

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The block waits for the loader; one that ends by an error counts nothing."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The block is left out."""
        began, computed = time.monotonic(), time.process_time()
        yield
        self._since += time.monotonic() - began
        self._computed += time.process_time() - computed

    def read(self) -> dict[str, float]:
        """What was measured since the last reading.

        `samples_per_second`; `loader_wait`, a share of the time; `cpu_seconds` of this process, all its threads, to
        which other load and a process that is stopped add nothing.
        """
        seconds = time.monotonic() - self._since
        found = {
            "samples_per_second": round(self._samples / seconds, 2),
            "loader_wait": round(self._waited / seconds, 4),
            "cpu_seconds": round(time.process_time() - self._computed, 3),
        }
        self._start()
        return found


class Progress:
    """Shows and writes on rank 0; every rank calls its methods, which are collectives but for `say`.

    Attributes:
        meter: of the steps since the last record, from `shown` on.
    """

    def __init__(self, config: Config, rank: int, bad_samples: BadSampleReport, best_effort: BestEffort):
        self._run, self._config = Path(config.Training.output), config
        self._rank, self._bad_samples, self._best_effort = rank, bad_samples, best_effort

    def say(self, lines: Iterable[str]) -> None:
        """Prints lines on rank 0."""
        if self._rank == 0:
            for line in lines:
                print(line)

    @contextmanager
    def shown(self, step: int, evaluated: int) -> Iterator[None]:
        """Opens log and bar at a step; `evaluated` is that of the last evaluation."""
        with errors_on_all_ranks():
            self._log = RunLog(self._run, self._config, step, evaluated) if self._rank == 0 else None
        self._bar = tqdm(
            total=self._config.Training.steps, initial=step, unit="step", disable=self._rank != 0, file=sys.stdout,
            dynamic_ncols=True, mininterval=1.0,
        )  # fmt: skip
        self.meter = Meter()
        with self._bar:
            yield
        if self._log:
            self._log.close()

    def due(self, step: int) -> bool:
        """Whether a record of a step is due."""
        training = self._config.Training
        return step == training.steps or step % training.log_every == 0

    def step(self, step: int, losses: Mapping[str, float], rate: float, more: Callable[[], dict[str, Any]]) -> None:
        """Shows a step that is done, with the newest losses that are known, and logs it where a record is due.

        Args:
            more: what else a record holds.
        """
        self.meter.count(self._config.Training.global_batch)
        loss = f"loss {losses['loss']:.3f}, " if losses else ""
        self._bar.set_postfix_str(f"{loss}lr {rate:.2e}", refresh=False)
        self._bar.update()
        if not self.due(step):
            return
        record = {
            **{name: value if math.isfinite(value) else None for name, value in losses.items()},
            "learning_rate": rate,
            **self.meter.read(),
            "bad_samples": self._bad_samples.counts.total(),
            **more(),
        }
        with errors_on_all_ranks():
            if self._log:
                self._log.write("train", step, record)

    def evaluation(self, step: int, records: Iterable[Mapping[str, Any]], lines: Iterable[str]) -> None:
        """Logs what evaluators found at a step, and shows it as lines."""
        with errors_on_all_ranks():
            if self._log:
                for record in records:
                    self._log.write("evaluation", step, record)
                for line in lines:
                    self._bar.write(f"step {step}, {line}", sys.stdout)

    def joined_bad_samples(self) -> BadSampleReport:
        """Those of all ranks."""
        joined = BadSampleReport()
        for report in collectives.all_gather_object(self._bad_samples.as_dict()):
            joined.merge(report)
        return joined

    def write_reports(self) -> None:
        """The report of bad samples and the page of curves."""
        report = self.joined_bad_samples()
        if self._rank == 0:
            with self._best_effort.attempt("report of bad samples"):
                report.write(self._run)
            with self._best_effort.attempt(CURVES):
                write_run_page(self._run, self._config, report)

    def end(self, ended: str | None, skipped: int) -> None:
        """Says what was left out over the run.

        Args:
            ended: why it is over before its last step, if that is so.
            skipped: steps that were not finite.
        """
        self.say([str(self.joined_bad_samples()), *filter(None, [ended])])
        lost = [f"{skipped} steps that were not finite were left out"] * bool(skipped)
        failures = ", ".join(f"{count} x {what}" for what, count in self._best_effort.failures.items())
        lost += [f"left out after failures: {failures}"] * bool(failures)
        for line in lost if self._rank == 0 else ():
            print(f"warning: {line}", file=sys.stderr)
