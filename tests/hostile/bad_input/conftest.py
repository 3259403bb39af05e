"""Bounds of memory for all tests of this folder."""

import resource
from pathlib import Path

import pytest

from tests.support.processes import read_memory

MAX_MEBIBYTES = 1024  # that a test may take: twice the pixels of the largest image that is decoded
MAX_ADDRESSES = 6 * 2**30  # bytes that a failing test may request before the system refuses, to protect the machine


@pytest.fixture(autouse=True)
def bounded_memory():
    """Check that the memory of the process grows by less than `MAX_MEBIBYTES` in a test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(read_memory("VmSize") * 2**20) + MAX_ADDRESSES, hard))
    initial = read_memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, VmHWM
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert read_memory("VmHWM") - initial < MAX_MEBIBYTES
