"""Step 2, correctness: the tests of tests/gpu."""

import os
import sys
from collections import Counter
from typing import Any

from benchmarks.gpu_day.measuring import Measurement, Options, Results, make_measurement
from benchmarks.gpu_day.processes import ROOT

MESSAGE_LENGTH = 500  # characters of a failed test's message in the report; the log has all of it


def list_measurements(options: Options) -> list[Measurement]:
    # TF32 is off, as with `make test-gpu`: the tests compare float32 numbers. One of them switches it on for itself.
    return [make_measurement("correctness", "tests", options, 600, NVIDIA_TF32_OVERRIDE="0")]


def measure(name: str, options: Options, results: Results) -> None:
    """Run the tests in this process, so that each result is written as soon as it is known."""
    import pytest

    os.chdir(ROOT)
    junit = options.output / "results" / "correctness" / "junit.xml"
    code = pytest.main(["tests/gpu", "-q", "-rs", f"--junitxml={junit}"], plugins=[OutcomeRecorder(results)])
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
