"""Memory of this process, as Linux counts it."""

import re
import threading
from pathlib import Path

SAMPLING_SECONDS = 0.02  # shorter peaks are missed; reading the status takes well below a millisecond


def reset_peak() -> float:
    """Start to measure the peak: forget the one so far, and return the present resident memory in MiB."""
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to VmRSS, see proc(5)
    return _read_status("VmRSS")


def read_peak() -> float:
    """Return the peak of resident memory in MiB since `reset_peak`, or since the start of the process."""
    return _read_status("VmHWM")


class PeakMemory:
    """Samples the memory of this process while a block runs.

    Only anonymous memory counts: the pages of mapped files can be dropped at any time. Linux keeps no peak of it.

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
    return _read_status("RssAnon") * 2**20 / 1e9


def _read_status(key: str) -> float:
    """Return a figure of this process's status in MiB."""
    match = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if match is None:
        raise OSError(f"/proc/self/status has no {key}")
    return int(match[1]) / 1024
