"""The day: runs measurements one after the other and records what comes of them. Nothing that fails stops the rest."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.gpu_day.measuring import RESULTS_VARIABLE, SECONDS_VARIABLE, Measurement, Options, read_json
from benchmarks.gpu_day.processes import run_limited
from ernie_vil2.io.files import write_json

# Minutes of each step in a day of 60; a step is a module of this package. One that ends early leaves its time to the
# next.
STEP_MINUTES = {
    "machine": 3,
    "correctness": 10,
    "ceilings": 3,
    "throughput": 20,
    "scaling": 9,
    "failures": 7,
    "accuracy": 8,
}
# With less time a measurement is not begun: importing Paddle alone takes this long.
MIN_SECONDS = 5.0
# Characters of a failed measurement's log that are repeated in the report; the whole log is in the archive.
REASON_LENGTH = 1500

Status = str  # "ok", "failed", "timed out" or "left out"


@dataclass(frozen=True)
class Record:
    """Outcome of a measurement.

    Attributes:
        step: its step.
        name: its name.
        status: "ok"; "failed": its process ended with an error; "timed out"; "left out".
        code: exit code; None if it was ended or not begun.
        seconds: time that it took.
        limit_seconds: time that it was given.
        figures: figures that it has measured; if it has failed, those before.
        reason: why it is not "ok".
    """

    step: str
    name: str
    status: Status
    code: int | None = None
    seconds: float = 0.0
    limit_seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Step:
    """A step of the day.

    Attributes:
        name: its name.
        minutes: its share of the day's time, relative to the other steps.
        measurements: its processes, the important ones first: the time may not suffice for all.
    """

    name: str
    minutes: float
    measurements: Sequence[Measurement]


def list_steps(options: Options) -> list[Step]:
    """Return the seven steps of the day."""
    steps = []
    for name, minutes in STEP_MINUTES.items():
        module = import_module(f"benchmarks.gpu_day.{name}")
        steps.append(Step(name, minutes, module.list_measurements(options)))
    return steps


class Day:
    """Runs measurements within a number of minutes; `report.json` always has what was measured so far.

    Args:
        options: options of the day.
        minutes: time for all steps.
        header: facts about the day for the report.
        after_record: called with the report after each measurement.
    """

    def __init__(
        self,
        options: Options,
        minutes: float,
        header: Mapping[str, Any],
        after_record: Callable[[dict[str, Any]], None] = lambda report: None,
    ):
        self._options, self._minutes = options, minutes
        self._header, self._after_record = dict(header), after_record
        self.records: list[Record] = []

    @property
    def report(self) -> dict[str, Any]:
        """Content of `report.json`."""
        return {**self._header, "minutes": self._minutes, "measurements": [asdict(record) for record in self.records]}

    def run(self, steps: Sequence[Step]) -> None:
        """Run the steps; each must end within the sum of the minutes up to its own."""
        seconds_per_minute = 60 * self._minutes / sum(step.minutes for step in steps)
        deadline = time.monotonic()
        for step in steps:
            deadline += seconds_per_minute * step.minutes
            for measurement in step.measurements:
                limit = min(measurement.seconds * self._minutes / 60, deadline - time.monotonic())
                self._record(self._run_measurement(step.name, measurement, limit))

    def _run_measurement(self, step: str, measurement: Measurement, limit: float) -> Record:
        name = measurement.name
        if limit < MIN_SECONDS:
            return Record(step, name, "left out", reason="the time of this step was over")
        results = self._options.results_file(step, name)
        log = self._options.output / "logs" / f"{step}_{name}.log"
        for path in (results, log):
            path.parent.mkdir(parents=True, exist_ok=True)
        variables = {
            **dict(measurement.variables),
            RESULTS_VARIABLE: str(results),
            SECONDS_VARIABLE: f"{limit:.1f}",
        }
        try:
            code, seconds = run_limited(measurement.command, variables, log, limit)
        except OSError as error:  # for example, the program does not exist
            return Record(step, name, "failed", limit_seconds=limit, reason=str(error))

        figures = read_json(results)
        reason = ""
        if code is None:
            status = "timed out"
        elif code:
            status = "failed"
        elif "left_out" in figures:
            status, reason = "left out", str(figures.pop("left_out"))
        else:
            status = "ok"
        if status in ("failed", "timed out"):
            reason = _read_end(log)
        return Record(step, name, status, code, round(seconds, 1), round(limit, 1), figures, reason)

    def _record(self, record: Record) -> None:
        self.records.append(record)
        write_json(self._options.output / "report.json", self.report)
        self._after_record(self.report)


def _read_end(log: Path) -> str:
    """Return the last lines of a log."""
    text = log.read_text(encoding="utf-8", errors="replace")
    # A progress bar writes many states of one line.
    lines = [line.rpartition("\r")[2] for line in text.splitlines()]
    return "\n".join(line for line in lines if line.strip())[-REASON_LENGTH:]
