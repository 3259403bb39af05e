"""Options, limits and fixtures that all tests share; what they import lies in tests/support."""

import ctypes
import gc
import os
import resource
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from ernie_vil2.device import runtime
from ernie_vil2.device.extras import LAST_PYTHON
from tests.support.shapes import draw_shape_members, write_tar

runtime.configure()  # before anything imports Paddle, as the command lines do

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", settings.get_profile("untimed"), max_examples=15)
settings.load_profile("untimed")

WHOLE_COMMANDS = {"commands", "demo_data", "encoder", "experiments", "export", "pages", "planning", "training"}
"""Folders of tests that run commands, trainings, pages and scripts, as do the tests that lie next to them."""
STARTS_A_PROCESS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
"""Python's audit events."""
GROWTH = 50 << 20
"""Bytes of memory by which a process grows before its garbage is collected."""
NOT_PUBLISHED = {module for module, last in LAST_PYTHON.items() if sys.version_info[:2] > last}
"""Packages that this Python has no release of."""


def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true", help="leave out whole commands, and what starts a process")


def pytest_ignore_collect(collection_path, config):
    """Test the parts alone with --fast: losses, readers, towers, metrics, the index, the configuration."""
    is_whole = collection_path.name in WHOLE_COMMANDS or collection_path.match("tests/test_*.py")
    return True if is_whole and config.getoption("fast") else None


class WithoutProcesses:
    """Skips a test, with --fast, when it starts a process, so that no list of such tests has to be kept."""

    def __init__(self):
        self._in_a_test = False
        sys.addaudithook(self._watch)

    def _watch(self, event, _):
        if self._in_a_test and event in STARTS_A_PROCESS:
            pytest.skip("starts a process")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self):
        self._in_a_test = True
        try:
            return (yield)
        finally:
            self._in_a_test = False


@contextmanager
def skipped_without_its_package():
    """Skip a test of PaddleNLP, PaddleClas or paddle2onnx with the reason where Python is too new for them."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in NOT_PUBLISHED:
            raise
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup():
    with skipped_without_its_package():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    with skipped_without_its_package():
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    """Name a test that failed at once: a run that is stopped prints no summary."""
    if report.failed and os.environ.get("PYTEST_XDIST_WORKER") is None:
        print(f"\n{report.nodeid}: {getattr(report.longrepr, 'reprcrash', None) or 'failed'}", flush=True)


def pytest_configure(config):
    if config.getoption("fast"):
        settings.load_profile("fast")
        config.pluginmanager.register(WithoutProcesses())
    if processes := config.getoption("numprocesses", None):
        share_cores(processes)


def share_cores(processes):
    """Give each of the processes that are about to be started, and theirs, its part of the cores.

    Threads of MKL and OpenBLAS wait for each other busily: with more of them than cores the same trainings took
    1.4 to 1.8 times the CPU time.
    """
    if os.environ.get("MKL_NUM_THREADS") == os.environ.get(runtime.INHERITED_THREADS):  # not the user's choice
        share = str(max(1, runtime.num_usable_cores() // processes))
        os.environ |= {"MKL_NUM_THREADS": share, "OPENBLAS_NUM_THREADS": share}


def pytest_collection_modifyitems(config, items):
    if config.getoption("fast"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("thorough")])
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]


def pytest_collection_finish():
    """Freeze what is imported, which lives as long as the process: no collection of garbage looks through it again."""
    give_back_memory()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def resident_memory():
    """The process's resident memory after the last collection, in bytes, in a list of its own."""
    return [0]


@pytest.fixture(autouse=True)
def collected(resident_memory):
    """Collect garbage after a test: trainers and towers lie in cycles, for which Python looks too seldom."""
    yield
    if sys.platform == "linux" and _resident() > resident_memory[0] + GROWTH:
        give_back_memory()
        resident_memory[0] = _resident()


def give_back_memory():
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # glibc would keep what is free


def _resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """Coloured shapes, 16 concepts in Chinese and English: a training shard of 128 and a validation shard of 16."""
    folder = tmp_path_factory.mktemp("shapes")
    return {
        "train": write_tar(folder / "train.tar", draw_shape_members(8, seed=1)),
        "val": write_tar(folder / "val.tar", draw_shape_members(1, seed=2)),
    }


@pytest.fixture
def overrides(shapes, tmp_path):
    """Overrides of a run of seconds, in `tmp_path / "run"`."""
    from tests.support.trainings import list_tiny_overrides  # imports Paddle

    return list_tiny_overrides(shapes, tmp_path / "run")


@pytest.fixture
def config(overrides):
    """`config("Section.key=value", ...)`: the tiny run with changes."""
    from ernie_vil2.config import load_config

    return lambda *changes: load_config(None, [*overrides, *changes])
