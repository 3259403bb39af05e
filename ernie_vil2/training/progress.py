"""What people see of a run while it goes on: bar, log, page of curves, speed, bad samples, and work that failed."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ernie_vil2.config import Config
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.io.run_folder import CURVES
from ernie_vil2.parallel import collectives
from ernie_vil2.parallel.collectives import agreed_errors
from ernie_vil2.training.run_log import RunLog, write_run_page


class BestEffort:
    """Lets a run continue when such work fails: every failure is a warning on standard error, and is counted.

    Attributes:
        failures: by what was attempted, how often it failed.
    """

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()

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

    def __str__(self) -> str:
        failures = ", ".join(f"{count} x {what}" for what, count in self.failures.items())
        return f"left out after failures: {failures}"


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

    Args:
        config: the run's.
        rank, ranks: number of this process, and how many there are.
        bad_samples: that this rank reads.
        best_effort: what may fail without an end of the run.

    Attributes:
        meter: of the steps since the last record, from `shown` on.
    """

    def __init__(self, config: Config, rank: int, ranks: int, bad_samples: BadSampleReport, best_effort: BestEffort):
        self._run, self._config = Path(config.Training.output), config
        self._rank, self._ranks = rank, ranks
        self._bad_samples, self._best_effort = bad_samples, best_effort

    def say(self, lines: Iterable[str]) -> None:
        """Prints lines on rank 0."""
        if self._rank == 0:
            for line in lines:
                print(line)

    @contextmanager
    def shown(self, step: int, evaluated: int) -> Iterator[None]:
        """Opens log and bar at a step; `evaluated` is that of the last evaluation."""
        with agreed_errors():
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
        with agreed_errors():
            if self._log:
                self._log.write("train", step, record)

    def evaluation(self, step: int, records: Iterable[Mapping[str, Any]], lines: Iterable[str]) -> None:
        """Logs what evaluators found at a step, and shows it as lines."""
        with agreed_errors():
            if self._log:
                for record in records:
                    self._log.write("evaluation", step, record)
                for line in lines:
                    self._bar.write(f"step {step}, {line}", sys.stdout)

    def joined_bad_samples(self) -> BadSampleReport:
        """Those of all ranks."""
        if self._ranks == 1:
            return self._bad_samples
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
        if self._rank == 0 and skipped:
            print(f"warning: {skipped} steps that were not finite were left out", file=sys.stderr)
        if self._rank == 0 and self._best_effort.failures:
            print(f"warning: {self._best_effort}", file=sys.stderr)
