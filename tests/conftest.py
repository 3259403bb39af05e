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

# No deadlines: how long an example takes depends on how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", settings.get_profile("untimed"), max_examples=15)
settings.load_profile("untimed")

WHOLE_COMMANDS = {"commands", "demo_data", "encoder", "experiments", "export", "pages", "planning", "training"}
"""Folders of tests that run commands, trainings, pages and scripts, as do the tests that lie next to them."""
PROCESS_EVENTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
"""Python's audit events for the start of a process."""
MEMORY_GROWTH = 50 << 20
"""Bytes by which a process grows before its garbage is collected: less often costs memory, more often time."""
UNPUBLISHED_PACKAGES = {module for module, last in LAST_PYTHON.items() if sys.version_info[:2] > last}
"""Packages without a release for this Python."""


def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true", help="leave out whole commands, and what starts a process")


def pytest_ignore_collect(collection_path, config):
    """Leave out folders of whole commands with --fast: losses, readers, towers, metrics, the index remain."""
    runs_commands = collection_path.name in WHOLE_COMMANDS or collection_path.match("tests/test_*.py")
    if runs_commands and config.getoption("fast"):
        return True
    return None  # leaves the decision to the other plugins


class SkipProcessTests:
    """Plugin for --fast that skips a test when it starts a process, so that nobody has to list such tests."""

    def __init__(self):
        self._is_testing = False
        sys.addaudithook(self._watch)

    def _watch(self, event, _):
        if self._is_testing and event in PROCESS_EVENTS:
            pytest.skip("starts a process")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self):
        self._is_testing = True
        try:
            return (yield)
        finally:
            self._is_testing = False


@contextmanager
def skip_without_package():
    """Skip a test of PaddleNLP, PaddleClas or paddle2onnx, with the reason, where Python is too new for them."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in UNPUBLISHED_PACKAGES:
            raise
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup():
    with skip_without_package():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    with skip_without_package():
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    """Print the name of a failed test at once: a run that is stopped prints no summary."""
    if report.failed and os.environ.get("PYTEST_XDIST_WORKER") is None:
        crash = getattr(report.longrepr, "reprcrash", None)
        print(f"\n{report.nodeid}: {crash or 'failed'}", flush=True)


def pytest_configure(config):
    if config.getoption("fast"):
        settings.load_profile("fast")
        config.pluginmanager.register(SkipProcessTests())
    if processes := config.getoption("numprocesses", None):
        share_cores(processes)


def share_cores(processes):
    """Divide the cores among the processes that are about to be started, and among their children.

    Threads of MKL and OpenBLAS wait for each other busily: with more of them than cores the same trainings took
    1.4 to 1.8 times the CPU time.
    """
    # A number that differs from the inherited one was chosen by the user, and stays.
    if os.environ.get("MKL_NUM_THREADS") == os.environ.get(runtime.INHERITED_THREADS):
        share = str(max(1, runtime.num_usable_cores() // processes))
        os.environ |= {"MKL_NUM_THREADS": share, "OPENBLAS_NUM_THREADS": share}


def pytest_collection_modifyitems(config, items):
    if config.getoption("fast"):
        thorough_items = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=thorough_items)
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]


def pytest_collection_finish():
    """Freeze imported objects, which live as long as the process: garbage collection need not visit them again."""
    release_memory()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def resident_memory():
    """Return a list of the process's resident bytes after the last collection; a list, so that tests can change it."""
    return [0]


@pytest.fixture(autouse=True)
def collect_garbage(resident_memory):
    """Collect garbage after a test: trainers and towers lie in cycles, which Python collects too seldom."""
    yield
    if sys.platform == "linux" and measure_resident_bytes() > resident_memory[0] + MEMORY_GROWTH:
        release_memory()
        resident_memory[0] = measure_resident_bytes()


def release_memory():
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # glibc would keep free memory


def measure_resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """Write shards of coloured shapes, 16 concepts in Chinese and English: 128 for training, 16 for validation."""
    folder = tmp_path_factory.mktemp("shapes")
    return {
        "train": write_tar(folder / "train.tar", draw_shape_members(8, seed=1)),
        "val": write_tar(folder / "val.tar", draw_shape_members(1, seed=2)),
    }


@pytest.fixture
def overrides(shapes, tmp_path):
    """Return overrides of a run of seconds, in `tmp_path / "run"`."""
    from tests.support.trainings import list_tiny_overrides  # imports Paddle

    return list_tiny_overrides(shapes, tmp_path / "run")


@pytest.fixture
def config(overrides):
    """Return a function that loads the configuration of the tiny run with changes `"Section.key=value"`."""
    from ernie_vil2.config import load_config

    return lambda *changes: load_config(None, [*overrides, *changes])
