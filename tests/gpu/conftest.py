"""Tests that need GPUs are skipped where there are too few. `make test-gpu` runs them and writes `gpu_report/`."""

import json
import os
from pathlib import Path

import paddle
import pytest

REPORT = Path(os.environ.get("ERNIE_VIL2_GPU_REPORT", "gpu_report"))


def count_gpus():
    return paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0


def pytest_collection_modifyitems(items):
    build = "" if paddle.is_compiled_with_cuda() else f", and Paddle {paddle.__version__} here is a build for CPUs"
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        marker = item.get_closest_marker("gpus")
        num_needed = marker.args[0] if marker else 1
        if count_gpus() < num_needed:
            plural = "s" if num_needed > 1 else ""
            reason = f"needs {num_needed} GPU{plural}, there are {count_gpus()}{build} (docs/gpu.md)"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def report(request):
    """Return `report(name=number, ...)`, which adds a line to `gpu_report/numbers.jsonl`."""

    def write(**numbers):
        REPORT.mkdir(exist_ok=True)
        with (REPORT / "numbers.jsonl").open("a") as file:
            file.write(json.dumps({"test": request.node.name, **numbers}) + "\n")

    return write
