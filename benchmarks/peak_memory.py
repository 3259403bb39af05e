"""Peak memory of a block of code, for the benchmarks of curation."""

import threading
from pathlib import Path

SAMPLING_SECONDS = 0.02  # shorter peaks are missed; reading the status takes well below a millisecond


class PeakMemory:
    """Samples the memory of this process while a block runs.

    Only anonymous memory counts (RssAnon): the pages of mapped files can be dropped at any time.

    Attributes:
        initial: memory at the start of the block, in GB.
        peak: largest memory in the block, in GB.
    """

    def __enter__(self) -> "PeakMemory":
        self.initial = self.peak = _read_anonymous_memory()
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample)
        self._sampler.start()
        return self

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLING_SECONDS):
            self.peak = max(self.peak, _read_anonymous_memory())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._sampler.join()


def _read_anonymous_memory() -> float:
    """Return the anonymous memory of this process in GB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1e6
    raise OSError("/proc/self/status has no RssAnon")
