"""How fast a run goes, and what of its time the loader costs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Meter:
    """Counts samples and seconds between two readings."""

    def __init__(self):
        self._start()

    def _start(self) -> None:
        self._samples, self._waited, self._since = 0, 0.0, time.monotonic()

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
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began

    def read(self) -> dict[str, float]:
        """`samples_per_second` and `loader_wait`, a share of the time, since the last reading."""
        seconds = time.monotonic() - self._since
        found = {
            "samples_per_second": round(self._samples / seconds, 2),
            "loader_wait": round(self._waited / seconds, 4),
        }
        self._start()
        return found
