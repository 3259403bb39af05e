"""Peak resident memory of this process, as Linux counts it."""

import re
from pathlib import Path


def reset_peak() -> float:
    """Start to measure the peak: forget the one so far, and return the present resident memory in MiB."""
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to VmRSS, see proc(5)
    return _read_status("VmRSS")


def read_peak() -> float:
    """Return the peak of resident memory in MiB since `reset_peak`, or since the start of the process."""
    return _read_status("VmHWM")


def _read_status(key: str) -> float:
    match = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if match is None:
        raise OSError(f"/proc/self/status has no {key}")
    return int(match[1]) / 1024
