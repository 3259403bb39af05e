"""The step of statements: one definition of the loss for micro batches, ranks and precisions."""

import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import paddle
import pytest

from ernie_vil2.device.launch import run_ranks
from tests.support import entailment_rank
from tests.support.entailment_steps import CASES, TOLERANCES, batch, step_of
from tests.support.paths import ROOT
from tests.support.steps import OWN, ROWS, compute, default_dtype, errors


@pytest.mark.parametrize(("task", "head", "micro_batch"), [
    pytest.param(*case, rows, marks=() if rows == 3 else pytest.mark.slow)
    for case in CASES for rows in (1, 3, 10)
])  # fmt: skip
def test_cached_gradients_are_those_of_the_direct_step(task, head, micro_batch):
    with default_dtype("float64"):
        _, direct = step_of(task, head)
        _, cached = step_of(task, head, f"Training.micro_batch={micro_batch}")
        expected, found = compute(direct, batch(task, "float64")), compute(cached, batch(task, "float64"))
    assert expected[1].keys() >= {"head.classifier.0.weight", "image.norm.weight"}
    assert "log_logit_scale" not in expected[1]
    assert max(errors(found, expected)) < 1e-10


def test_the_loss_is_the_mean_cross_entropy():
    with default_dtype("float64"):
        made, step = step_of("entailment", "concatenation", "Head.dropout=0", "Model.text.dropout=0",
                             "Model.text.attention_dropout=0", "Model.image.drop_path=0")  # fmt: skip
        views, labels, rows = batch("entailment", "float64")
        total, shares = step.forward(views, labels, rows, 0)
        logits = made.model(views)[0]["logits"].numpy()
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    assert float(total) == pytest.approx(-np.log(probabilities[np.arange(ROWS), labels[:, 0]]).mean(), rel=1e-9)
    assert float(shares["accuracy"]) == pytest.approx((logits.argmax(axis=1) == labels[:, 0]).mean())


def test_a_loss_is_not_cut_off():
    """As Paddle's cross_entropy does at 64 on CPU."""
    made, step = step_of("entailment", "concatenation")
    made.model.head.classifier[-1].weight.set_value(made.model.head.classifier[-1].weight * 1e4)
    assert float(step.forward(*batch("entailment"), 0)[0]) > 200


@pytest.mark.slow
def test_two_ranks_of_unequal_rows_have_the_same_gradients(tmp_path, monkeypatch):
    """The average over the ranks, which data parallel takes, of all rows that could be used."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert run_ranks([sys.executable, str(Path(entailment_rank.__file__)), str(tmp_path)], 2) == 0
    ranks = [dict(np.load(tmp_path / f"{rank}.npz")) for rank in range(2)]
    for dtype, tolerance in TOLERANCES.items():
        for task, head in CASES:
            for micro_batch in ("null", "2"):
                with default_dtype(dtype):
                    _, step = step_of(task, head)
                    expected = compute(step, batch(task, dtype, np.concatenate(OWN)))
                case = f"{dtype}/{task}/{head}/{micro_batch}/"
                parts = [{key.removeprefix(case): value for key, value in rank.items() if key.startswith(case)}
                         for rank in ranks]  # fmt: skip
                losses = {name: sum(float(part[f"losses/{name}"]) for part in parts) for name in expected[0]}
                for part in parts:
                    gradients = {key.removeprefix("gradients/"): value for key, value in part.items()
                                 if key.startswith("gradients/")}  # fmt: skip
                    assert max(errors((losses, gradients), expected)) < tolerance, case


@pytest.mark.parametrize("head", ["concatenation", "interaction"])
def test_head_computes_in_float32_whatever_the_towers_do(monkeypatch, head):
    """On CPU autocast changes nothing, so that what is asked of it is looked at."""
    asked = []

    @contextmanager
    def recorded(enable=True, dtype="float16", **options):
        asked.append(dtype if enable else "float32")
        yield
        asked.pop()

    made, step = step_of("nlvr2", head, "Training.precision=bfloat16")
    seen = {}
    made.model.head.classifier[0].register_forward_pre_hook(lambda *_: seen.update(head=asked[-1]))
    made.model.image.blocks[0].register_forward_pre_hook(lambda *_: seen.update(image=asked[-1]))
    monkeypatch.setattr(paddle.amp, "auto_cast", recorded)
    step.forward(*batch("nlvr2"), 0)
    assert seen == {"image": "bfloat16", "head": "float32"}
