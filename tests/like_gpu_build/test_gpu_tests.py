"""The tests that need a GPU start existing tests and tools; nobody would notice otherwise before the first GPU day."""

import re
import sys

import pytest

from tests.gpu.test_one_gpu import BASE_SETTINGS, CPU_TESTS, plan_on_one_gpu
from tests.support.paths import ROOT
from tests.support.processes import run_process


def test_paths_in_the_gpu_tests_exist():
    paths = []
    for file in (ROOT / "tests" / "gpu").glob("*.py"):
        paths += re.findall(r'"((?:configs|tests|tools)/[\w./-]+)"', file.read_text())
    assert {*CPU_TESTS, "tools/train.py"} <= set(paths)
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.slow
def test_paths_in_the_gpu_tests_hold_tests():
    paths = [*CPU_TESTS, "tests/gpu"]
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", *paths]
    process = run_process(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout
    test_names = process.stdout.splitlines()
    for path in paths:
        assert any(name.startswith(path) for name in test_names), path


@pytest.mark.slow
def test_planned_figures_of_the_gpu_tests(tmp_path):
    plan = plan_on_one_gpu(BASE_SETTINGS, tmp_path / "plan.json")
    assert plan["rows_per_rank"] == 256 and plan["peak_memory"] > 0
    # Of the images alone: backward costs two forward passes, 256 rows have two views, and a view costs 35 GFLOP.
    assert plan["flops"] > 3 * 256 * 2 * 35e9
