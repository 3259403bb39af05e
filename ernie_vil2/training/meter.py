"""How fast a run goes, what of its time the loader costs, and what it costs the processor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Meter:
    """Counts samples and seconds between two readings."""

    def __init__(self):
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
        """What was met since the last reading.

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
