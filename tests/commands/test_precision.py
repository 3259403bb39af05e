"""--precision reaches the towers of every command, and is refused where the device lacks it."""

import pytest

from ernie_vil2.device import runtime
from ernie_vil2.encoder import PaddleBackend
from ernie_vil2.models.weights import integrity
from tests.support.command_examples import run_example

ENCODING = ["eval", "eval_classification", "eval entailment", "embed", "calibrate", "interpolate", "search build",
            "search query", "tag lexicon", "report"]  # fmt: skip
BFLOAT16 = {"--precision": "bfloat16"}
FAST_CHOICE = ("eval", "embed", "search build")  # a command of each kind; all others run with the slow tests
NAMES = [pytest.param(name, marks=() if name in FAST_CHOICE else pytest.mark.slow) for name in ENCODING]


@pytest.mark.parametrize("name", NAMES)
def test_precision_that_the_device_lacks_is_refused(name, inputs, tmp_path, capsys):
    assert run_example(name, BFLOAT16, inputs, tmp_path) in (1, 2)
    printed = capsys.readouterr().err
    assert "precision=bfloat16: on cpu" in printed and printed.count("\n") == 1


@pytest.mark.parametrize("name", [name for name in NAMES if "search query" not in name.values])
def test_towers_compute_in_the_precision(name, inputs, tmp_path, monkeypatch):
    # A CPU shows only that every batch is encoded by a backend of this precision.
    monkeypatch.setattr(runtime, "check_precision", lambda *_: None)
    precisions = []
    for method in ("start_pixels", "start_ids"):
        original = getattr(PaddleBackend, method)

        def record_precision(backend, rows, original=original):
            precisions.append(backend.precision)
            return original(backend, rows)

        monkeypatch.setattr(PaddleBackend, method, record_precision)
    # A model that is written is always checked in float32, which would be recorded as well.
    monkeypatch.setattr(integrity, "compute_golden", lambda encoder: None)
    assert run_example(name, BFLOAT16, inputs, tmp_path) == 0
    assert set(precisions) == {"bfloat16"}
