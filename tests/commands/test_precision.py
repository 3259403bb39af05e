"""--precision: what a device lacks is refused, what it has reaches the towers; ranks are joined once a command."""

import pytest

from ernie_vil2.device import runtime
from ernie_vil2.encoder import PaddleBackend
from ernie_vil2.models.weights import integrity
from tests.support.command_examples import run_example

ENCODING = ["eval", "eval_classification", "eval entailment", "embed", "calibrate", "interpolate", "search build",
            "search query", "tag lexicon", "report"]  # fmt: skip
BFLOAT16 = {"--precision": "bfloat16"}
ONE_OF_A_KIND = ("eval", "embed", "search build")
NAMES = [pytest.param(name, marks=() if name in ONE_OF_A_KIND else pytest.mark.slow) for name in ENCODING]


@pytest.mark.parametrize("name", NAMES)
def test_a_precision_that_the_device_lacks_is_refused(name, inputs, tmp_path, capsys):
    assert run_example(name, BFLOAT16, inputs, tmp_path) in (1, 2)
    printed = capsys.readouterr().err
    assert "precision=bfloat16: on cpu" in printed and printed.count("\n") == 1


@pytest.mark.parametrize("name", [name for name in NAMES if "search query" not in name.values])
def test_the_towers_compute_in_it(name, inputs, tmp_path, monkeypatch):
    """As far as a CPU shows: every batch is encoded by a backend of this precision."""
    monkeypatch.setattr(runtime, "check_precision", lambda *_: None)
    found = []
    for method in ("encode_pixels", "encode_ids"):
        original = getattr(PaddleBackend, method)

        def noted(backend, rows, original=original):
            found.append(backend.precision)
            return original(backend, rows)

        monkeypatch.setattr(PaddleBackend, method, noted)
    monkeypatch.setattr(integrity, "compute_golden", lambda encoder: None)  # of what is written, always float32
    assert run_example(name, BFLOAT16, inputs, tmp_path) == 0
    assert set(found) == {"bfloat16"}
