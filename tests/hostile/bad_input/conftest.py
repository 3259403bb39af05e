"""No input may take the machine: each test here runs within bounds of memory, and is measured."""

import re
import resource
from pathlib import Path

import pytest

MEBIBYTES = 1024  # more than before; pixels of the largest image that is decoded, twice
ADDRESSES = 6 * 2**30  # bytes beyond those of before: what a test that fails may ask for


@pytest.fixture(autouse=True)
def bounded_memory():
    """The most memory that a test took, beyond what the process had before it; far too much of it is refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(memory("VmSize") * 2**20) + ADDRESSES, hard))
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted again
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert memory("VmHWM") - before < MEBIBYTES


def memory(what):
    """A line of this process's status, in MiB."""
    return int(re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
