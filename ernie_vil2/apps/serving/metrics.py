"""Counters of a server, summed over its processes, in the text format of Prometheus.

Each process writes its own slice of a shared array, and any of them can add up all slices.
"""

import ctypes
import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

# Other paths and statuses are counted together as "other": clients can ask for any number of paths.
PATHS = (
    "/v1/search",
    "/v1/search/image",
    "/v1/search/batch",
    "/v1/similar",
    "/v1/tags",
    "/v1/facets",
    "/v1/items",
    "/v1/embeddings",
    "/v1/rerank",
    "/v1/classify",
    "/v1/models",
    "/thumbnail",
    "/image",
    "/health",
    "/healthz",
    "/readyz",
    "/metrics",
    "/",
    "other",
)
STATUSES = ("200", "304", "400", "401", "403", "404", "408", "413", "415", "422", "499", "500", "503", "other")
# Upper bounds of the histograms: seconds of a request, and texts and images of a batch. One more bucket holds larger
# values.
LATENCY_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BATCH_SIZE_BOUNDS = (1, 2, 4, 8, 16, 32, 64)

# Offset of each metric in the slice of a process. A histogram takes len(bounds) + 2 numbers: its buckets, one for
# larger values, and the sum of all values.
REQUESTS = 0
LATENCY = REQUESTS + len(PATHS) * len(STATUSES)
BATCH_SIZE = LATENCY + len(LATENCY_BOUNDS) + 2
CACHED_ANSWERS = BATCH_SIZE + len(BATCH_SIZE_BOUNDS) + 2
INPUTS_IN_PROGRESS = CACHED_ANSWERS + 1
PID = INPUTS_IN_PROGRESS + 1
IS_READY = PID + 1
SLICE_LENGTH = IS_READY + 1


class Metrics:
    """Counters of one process.

    Args:
        shared: array of `SLICE_LENGTH` numbers for each process; None: this process is the only one.
        process_index: index of this process among those that share the array, from 0.
    """

    def __init__(self, shared: Any = None, process_index: int = 0):
        self._shared = (ctypes.c_double * SLICE_LENGTH)() if shared is None else shared
        self._start = process_index * SLICE_LENGTH
        self._shared[self._start + PID] = os.getpid()
        self._shared[self._start + INPUTS_IN_PROGRESS] = 0  # those of a predecessor that has died are gone

    def add(self, position: int, value: float = 1) -> None:
        self._shared[self._start + position] += value

    def set(self, position: int, value: float) -> None:
        self._shared[self._start + position] = value

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered, and for the API its latency."""
        path = path if path in PATHS else "other"
        status_name = str(status) if str(status) in STATUSES else "other"
        self.add(REQUESTS + PATHS.index(path) * len(STATUSES) + STATUSES.index(status_name))
        if path.startswith("/v1/"):
            self._observe(LATENCY, LATENCY_BOUNDS, seconds)

    def count_batch(self, size: int) -> None:
        """Count texts and images that were encoded together."""
        self._observe(BATCH_SIZE, BATCH_SIZE_BOUNDS, size)

    def _observe(self, offset: int, bounds: Sequence[float], value: float) -> None:
        # A value that equals a bound belongs to its bucket, as Prometheus defines `le`.
        self.add(offset + bisect_left(bounds, value))
        self.add(offset + len(bounds) + 1, value)

    def format(self, index_gauges: Mapping[str, Mapping[str, float]] | None = None) -> str:
        """Return all metrics as text.

        Args:
            index_gauges: values of an index by name of the metric, then by kind of items; None: there is no index.
        """
        return "\n".join([*self._format_lines(index_gauges or {}), ""])

    def _format_lines(self, index_gauges: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
        # The sums over the slices of all processes.
        starts = range(0, len(self._shared), SLICE_LENGTH)
        totals = []
        for position in range(SLICE_LENGTH):
            totals.append(sum(self._shared[start + position] for start in starts))

        yield "# TYPE ernie_vil2_requests_total counter"
        for row, path in enumerate(PATHS):
            for column, status in enumerate(STATUSES):
                count = totals[REQUESTS + row * len(STATUSES) + column]
                if count:
                    yield f'ernie_vil2_requests_total{{path="{path}",status="{status}"}} {count:.0f}'
        yield from _format_histogram("ernie_vil2_request_seconds", LATENCY_BOUNDS, totals[LATENCY:])
        yield from _format_histogram("ernie_vil2_batch_size", BATCH_SIZE_BOUNDS, totals[BATCH_SIZE:])
        yield "# TYPE ernie_vil2_cached_answers_total counter"
        yield f"ernie_vil2_cached_answers_total {totals[CACHED_ANSWERS]:.0f}"
        yield "# TYPE ernie_vil2_inputs_in_progress gauge"
        yield f"ernie_vil2_inputs_in_progress {totals[INPUTS_IN_PROGRESS]:.0f}"

        for name, values in index_gauges.items():
            yield f"# TYPE ernie_vil2_index_{name} gauge"
            for kind, value in values.items():
                yield f'ernie_vil2_index_{name}{{kind="{kind}"}} {value}'

        yield "# TYPE ernie_vil2_resident_bytes gauge"
        for number, start in enumerate(starts):
            pid = int(self._shared[start + PID])
            with suppress(OSError), Path(f"/proc/{pid}/statm").open() as file:  # a worker may have died
                resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                yield f'ernie_vil2_resident_bytes{{worker="{number}"}} {resident}'


def _format_histogram(name: str, bounds: Sequence[float], values: Sequence[float]) -> Iterator[str]:
    """Yield the lines of a histogram; `values` start with its buckets and sum, and what follows is ignored."""
    counts = values[: len(bounds) + 1]
    yield f"# TYPE {name} histogram"
    labels = [f"{bound:g}" for bound in bounds] + ["+Inf"]
    for label, cumulative_count in zip(labels, accumulate(counts), strict=True):
        yield f'{name}_bucket{{le="{label}"}} {cumulative_count:.0f}'
    yield f"{name}_sum {values[len(bounds) + 1]:.6f}"
    yield f"{name}_count {sum(counts):.0f}"
