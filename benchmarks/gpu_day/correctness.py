"""Step 2, correctness: the tests of tests/gpu in float32; those that are about TF32 and 16 bits choose them."""

import os
import sys
from collections import Counter
from typing import Any

from benchmarks.gpu_day.measuring import Measurement, Options, Results, make_measurement
from benchmarks.gpu_day.processes import ROOT

MESSAGE_LENGTH = 500  # characters of a failed test's message in the report; the log has all of it


def list_measurements(options: Options) -> list[Measurement]:
    # cuBLAS and cuDNN read this variable: 0 switches TF32 off, which the tests' tolerances of 1e-6 do not allow. The
    # limit is above the step's minutes, for the time that the step before has left.
    return [make_measurement("correctness", "tests", options, 900, NVIDIA_TF32_OVERRIDE="0")]


def measure(name: str, options: Options, results: Results) -> None:
    """Run the tests in this process, so that each result is written as soon as it is known."""
    import pytest

    os.chdir(ROOT)
    os.environ["ERNIE_VIL2_GPU_REPORT"] = str(options.output)  # where the tests write their figures
    junit = options.output / "results" / "correctness" / "junit.xml"
    # `throughput` measures what this test reports, and more of it.
    left_out = "--deselect=tests/gpu/test_one_gpu.py::test_step_reports_time_memory_wait_and_utilisation"
    arguments = ["tests/gpu", "-q", "-rs", left_out, f"--junitxml={junit}"]
    code = pytest.main(arguments, plugins=[OutcomeRecorder(results)])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        sys.exit(int(code))


class OutcomeRecorder:
    """Plugin of pytest that adds the outcome of each test to the results."""

    def __init__(self, results: Results):
        self._results = results
        self._tests: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note a test when it is over: after its call, or earlier if it is skipped or its fixtures fail."""
        if report.when != "call" and report.outcome == "passed":
            return
        message = ""
        if report.outcome == "failed":
            message = str(getattr(report.longrepr, "reprcrash", report.longrepr))
        elif report.outcome == "skipped":
            message = report.longrepr[2]
        self._tests.append({
            "test": report.nodeid,
            "outcome": report.outcome,
            "seconds": round(report.duration, 1),
            "message": message[:MESSAGE_LENGTH],
        })  # fmt: skip
        counts = Counter(test["outcome"] for test in self._tests)
        self._results.add(
            passed=counts["passed"], failed=counts["failed"], skipped=counts["skipped"], tests=self._tests
        )
