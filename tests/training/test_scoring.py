"""Evaluators of any kind in the course of a run: when they are due, what is best, and what fails."""

import json
import math
import time
from typing import ClassVar

import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paddle import nn

from ernie_vil2.config import load_config
from ernie_vil2.evaluation.scorer import Scorer
from ernie_vil2.io.terminal import LostRank
from ernie_vil2.tasks import MultiViewTask, ParameterGroup
from ernie_vil2.training import scoring
from ernie_vil2.training.run_log import Meter
from ernie_vil2.training.scoring import Metrics, Scores, as_lines, scored
from ernie_vil2.training.trainer import Trainer
from tests.support.limits import examples


class Fake:
    """An evaluator that returns, or raises, what it is made of."""

    data: ClassVar = {"nothing": "0 rows"}
    benchmarks = ()

    def __init__(self, *found, best_by="accuracy"):
        self.found, self.best_by = iter(found), best_by

    def __call__(self, model):
        assert not model.training and not paddle.is_grad_enabled()
        found = next(self.found)
        if isinstance(found, Exception):
            raise found
        return Metrics(found)


def scores(*changes, **evaluators):
    return Scores(evaluators, load_config(None, ["Schedule.warmup_steps=0", "Training.steps=10", *changes]))


def test_best_step_has_the_highest_number_and_is_never_the_first():
    values = [99.0, 1.0, 3.0, 3.0, 2.0, 4.0]
    run = scores(a=Fake(*[{"loss": -value} for value in values], best_by=None),
                 b=Fake(*[{"accuracy": value} for value in values]))  # fmt: skip
    improved = [run.improved(run.score(nn.Layer(), step)) for step in range(len(values))]
    assert improved == [False, True, True, False, False, True]
    assert run.best == {"step": 5, "metric": "accuracy", "value": 4.0} and run.evaluated == 5


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (RuntimeError(), "RuntimeError"),
        ({"accurracy": 1.0}, "no finite accuracy"),
        ({"accuracy": math.nan}, "no finite accuracy"),
        ({"accuracy": "much"}, "could not convert string to float"),
    ],
)
def test_what_fails_is_named_and_chooses_nothing(outcome, why):
    run = scores(mine=Fake(outcome))
    metrics = run.score(nn.Layer(), 1)
    (failure,) = metrics["mine"].failures.items()
    assert failure[0] == "mine" and why in failure[1]
    assert not run.improved(metrics) and run.best is None
    json.dumps(run.records(metrics), allow_nan=False)


def test_failure_of_one_evaluator_leaves_another_its_choice():
    run = scores(first=Fake({"accuracy": 5.0}), second=Fake(ValueError("a fault")))
    metrics = run.score(nn.Layer(), 1)
    assert run.improved(metrics) and metrics["second"].failures
    with pytest.raises(LostRank):
        scored("mine", Fake(LostRank("rank 1 has died")), nn.Layer())


@examples(25)
@given(every=st.integers(0, 12), at_start=st.booleans(), steps=st.integers(1, 12))
def test_evaluations_are_due_every_so_many_steps_and_at_the_end(every, at_start, steps):
    run = scores(f"Evaluation.every={every}", f"Evaluation.at_start={str(at_start).lower()}",
                 f"Training.steps={steps}", mine=Fake())  # fmt: skip
    due = [step for step in range(steps + 1) if run.due(step)]
    assert due == [0] * at_start + [step for step in range(1, steps + 1) if (every and not step % every) or
                                    (every and step == steps)]  # fmt: skip
    run.evaluated = steps
    assert not any(map(run.due, range(steps + 1)))


def test_a_best_number_of_another_name_is_not_compared_with():
    old = {"step": 4, "metric": "mean_recall", "value": 90.0}
    run = scores(mine=Fake({"accuracy": 1.0}))
    run.resume(4, old)
    assert run.best is None and run.improved(run.score(nn.Layer(), 6))
    for kept in (scores(), scores(mine=Fake(best_by=None)), scores(mine=Fake(best_by="mean_recall"))):
        kept.resume(4, old)  # nothing chooses any more, or the same number
        assert kept.best == old


def test_the_terminal_has_a_line_for_each_group():
    values = {"accuracy": 71.25, "accuracy/entailment": 70.0, "zh/image_to_text/R@1": 100.0, "zh/mR": 1 / 3, "x": 2}
    found = {"one": Metrics(values, [name for name in values if name != "x"]), "other": Metrics({"accuracy": 0.5})}
    assert as_lines(found) == [
        "accuracy 71.25", "accuracy: entailment 70", "zh: image_to_text/R@1 100, mR 0.3333", "accuracy 0.5",
    ]  # fmt: skip


def test_the_meter_leaves_out_pauses_and_counts_what_was_waited(monkeypatch):
    now, computed = 100.0, 7.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "process_time", lambda: computed)
    meter = Meter()
    with meter.waiting():
        now += 1
    meter.count(32)
    with meter.paused():
        now, computed = now + 60, computed + 30
    now, computed = now + 3, computed + 5
    assert meter.read() == {"samples_per_second": 8.0, "loader_wait": 0.25, "cpu_seconds": 5.0}
    meter.count(32)
    now, computed = now + 2, computed + 1.5
    assert meter.read() == {"samples_per_second": 16.0, "loader_wait": 0.0, "cpu_seconds": 1.5}


def test_trainer_takes_a_task_and_evaluators_of_no_registry(config):
    class TextOnly(MultiViewTask):
        def parameter_groups(self):
            return [ParameterGroup([name for name in group.names if name.startswith("text.")], group.decay)
                    for group in super().parameter_groups()]  # fmt: skip

    evaluators = {"mine": Fake(*({"accuracy": value} for value in (1.0, 3.0, 2.0)))}
    settings = config("Training.steps=3", "Evaluation.every=1")
    trainer = Trainer(settings, task=TextOnly, evaluators=lambda config, task: evaluators)
    before = {name: value.numpy() for name, value in trainer.model.state_dict().items()}
    assert trainer.fit() and trainer.best == {"step": 2, "metric": "accuracy", "value": 3.0}
    changed = {name for name, value in trainer.model.state_dict().items() if (value.numpy() != before[name]).any()}
    assert {name.split(".")[0] for name in changed} == {"text"}


def test_evaluators_encode_in_the_precision_of_training(monkeypatch):
    class Built(Exception):  # noqa: N818  -- named by what has happened
        pass

    def build(model, preprocessing, precision):
        raise Built(precision)

    monkeypatch.setattr(scoring, "Eager", build)
    config = load_config(None, ["Training.precision=bfloat16"])
    with pytest.raises(Built, match="bfloat16"):
        scoring.Scored(type("Nothing", (Scorer,), {})(), {}, config, None)(None)
