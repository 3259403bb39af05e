"""Tests of other folders pass when Paddle takes the Python paths of a GPU build."""

import os
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.processes import run_process

pytestmark = pytest.mark.slow

PRINT_BUILD = """
import paddle
print(paddle.nn.functional.linear.__globals__["paddle"].is_compiled_with_cuda())
"""
# The first two groups include the slow tests, two minutes of CPU in all; those of tests/models would take six more.
TESTS = {
    "graphs": ["-m", "not browser", "tests/export", "tests/planning"],
    "steps": ["-m", "not browser", "tests/training/test_step.py", "tests/training/test_nonfinite.py"],
    "towers": ["tests/models", "tests/encoder/test_pretrained.py"],
    "training": [
        f"tests/training/test_{name}.py" for name in ("dropout", "freezing", "kept_tokens", "trainer", "tuning")
    ],
}


def make_environment():
    """Return the variables of a process in which Paddle's linear layers, and all others, compute as on a GPU.

    The package's own layers for CPUs are off, since they do not run on GPUs either.
    """
    folders = [str(Path(__file__).parent), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(folders), "ERNIE_VIL2_RUNTIME": "0"}


def test_child_process_is_like_a_gpu_build():
    command = [sys.executable, "-W", "ignore", "-c", PRINT_BUILD]
    process = run_process(command, env=make_environment(), capture_output=True, text=True)
    assert process.stdout.strip() == "True", process.stderr


@pytest.mark.parametrize("group", TESTS)
def test_tests_pass_as_in_a_gpu_build(group):
    # No cache of pytest, which the processes of two groups would share.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS[group]]
    process = run_process(command, cwd=ROOT, env=make_environment(), capture_output=True, text=True, timeout=3600)
    assert process.returncode == 0, process.stdout[-6000:]
