"""Processes that tests start, and the memory of this one."""

import re
import subprocess
from pathlib import Path


def run_process(command, **options):
    """Run a command to its end, with the options of subprocess.run."""
    return subprocess.run(command, **options)  # noqa: S603  -- tests write their commands themselves


def start_process(command, **options):
    """Start a command, with the options of subprocess.Popen."""
    return subprocess.Popen(command, **options)  # noqa: S603  -- tests write their commands themselves


def read_memory(entry="VmRSS"):
    """Return an entry of memory in the status of this process, by default its resident memory, in MiB."""
    return int(re.search(rf"^{entry}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)[1]) / 1024
