"""What a server counts, of all its processes together, in the text format of Prometheus.

Each process writes into its own part of one shared array; any of them can add up all parts.
"""

import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

PATHS = (
    "/api/v1/search",
    "/api/v1/search/image",
    "/api/v1/search/batch",
    "/api/v1/similar",
    "/api/v1/tags",
    "/api/v1/facets",
    "/api/v1/embeddings",
    "/api/v1/items",
    "/thumbnail",
    "/image",
    "/health",
    "/healthz",
    "/readyz",
    "/metrics",
    "/",
    "other",
)
STATUSES = ("200", "304", "400", "401", "403", "404", "408", "413", "415", "422", "499", "503", "other")
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Bounds of the histogram of latencies; one more holds what takes longer."""
SIZES = (1, 2, 4, 8, 16, 32)  # bounds of the histogram of batches
REQUESTS = 0
LATENCY = REQUESTS + len(PATHS) * len(STATUSES)  # the buckets, then the sum
BATCHES = LATENCY + len(SECONDS) + 2
CACHED, WAITING, PID, READY = range(BATCHES + len(SIZES) + 2, BATCHES + len(SIZES) + 6)
LENGTH = READY + 1  # numbers of one process


class Metrics:
    """The counts of one process, `number` among those that share an array of `LENGTH` numbers each, if any."""

    def __init__(self, shared: Any = None, number: int = 0):
        self._shared = (ctypes.c_double * LENGTH)() if shared is None else shared
        self._first = number * LENGTH
        self._shared[self._first + PID] = os.getpid()

    def add(self, what: int, by: float = 1) -> None:
        self._shared[self._first + what] += by

    def set(self, what: int, value: float) -> None:
        self._shared[self._first + what] = value

    def request(self, path: str, status: int, seconds: float) -> None:
        """Counts an answered request, and how long the answer of an API took."""
        name, code = path if path in PATHS else "other", str(status)
        self.add(REQUESTS + PATHS.index(name) * len(STATUSES) + STATUSES.index(code if code in STATUSES else "other"))
        if name.startswith("/api"):
            self._observe(LATENCY, SECONDS, seconds)

    def batch(self, size: int) -> None:
        """Counts queries that were encoded together."""
        self._observe(BATCHES, SIZES, size)

    def _observe(self, first: int, bounds: Sequence[float], value: float) -> None:
        self.add(first + next((number for number, bound in enumerate(bounds) if value <= bound), len(bounds)))
        self.add(first + len(bounds) + 1, value)

    def text(self, index: Mapping[str, Mapping[str, float]]) -> str:
        """All of it for Prometheus, with gauges of the index, by their name and the kind of items."""
        return "\n".join([*self._lines(index), ""])

    def _lines(self, index: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
        parts = range(0, len(self._shared), LENGTH)
        total = [sum(self._shared[first + what] for first in parts) for what in range(LENGTH)]
        yield "# TYPE ernie_vil2_requests_total counter"
        for row, path in enumerate(PATHS):
            for column, status in enumerate(STATUSES):
                if count := total[REQUESTS + row * len(STATUSES) + column]:
                    yield f'ernie_vil2_requests_total{{path="{path}",status="{status}"}} {count:.0f}'
        yield from _histogram("ernie_vil2_request_seconds", SECONDS, total[LATENCY:])
        yield from _histogram("ernie_vil2_batch_size", SIZES, total[BATCHES:])
        yield "# TYPE ernie_vil2_cached_answers_total counter"
        yield f"ernie_vil2_cached_answers_total {total[CACHED]:.0f}"
        yield "# TYPE ernie_vil2_waiting_queries gauge"
        yield f"ernie_vil2_waiting_queries {total[WAITING]:.0f}"
        for name, kinds in index.items():
            yield f"# TYPE ernie_vil2_index_{name} gauge"
            yield from (f'ernie_vil2_index_{name}{{kind="{kind}"}} {count}' for kind, count in kinds.items())
        yield "# TYPE ernie_vil2_resident_bytes gauge"
        for number, first in enumerate(parts):
            with suppress(OSError), Path(f"/proc/{int(self._shared[first + PID])}/statm").open() as file:
                resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                yield f'ernie_vil2_resident_bytes{{worker="{number}"}} {resident}'


def _histogram(name: str, bounds: Sequence[float], counts: Sequence[float]) -> Iterator[str]:
    yield f"# TYPE {name} histogram"
    labels = [*(f"{bound:g}" for bound in bounds), "+Inf"]
    for label, count in zip(labels, accumulate(counts[: len(bounds) + 1]), strict=True):
        yield f'{name}_bucket{{le="{label}"}} {count:.0f}'
    yield f"{name}_sum {counts[len(bounds) + 1]:.6f}"
    yield f"{name}_count {sum(counts[: len(bounds) + 1]):.0f}"
