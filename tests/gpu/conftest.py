"""What needs a GPU: skipped with the reason where there is none. `make test-gpu` runs it and leaves `gpu_report/`."""

import json
from pathlib import Path

import paddle
import pytest

REPORT = Path("gpu_report")


def gpus():
    return paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0


def pytest_collection_modifyitems(items):
    build = "" if paddle.is_compiled_with_cuda() else f", and Paddle {paddle.__version__} here is a build for CPUs"
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        marker = item.get_closest_marker("gpus")
        needed = marker.args[0] if marker else 1
        if gpus() < needed:
            reason = f"needs {needed} GPU{'s' * (needed > 1)}, there are {gpus()}{build} (docs/gpu.md)"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def report(request):
    """`report(name=number, ...)` adds a line to `gpu_report/numbers.jsonl`."""

    def write(**numbers):
        REPORT.mkdir(exist_ok=True)
        with (REPORT / "numbers.jsonl").open("a") as file:
            file.write(json.dumps({"test": request.node.name, **numbers}) + "\n")

    return write
