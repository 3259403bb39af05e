"""Evaluators of any kind in the course of a run: when they are due, what is best, and what fails."""

import json
import math
import time
from typing import ClassVar

import paddle
import pytest
from paddle import nn

from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.evaluation.scorer import Scorer, ScorerInput
from ernie_vil2.io.terminal import LostRank
from ernie_vil2.tasks.multi_view import MultiViewTask
from ernie_vil2.training import scoring
from ernie_vil2.training.checkpoint import list_checkpoints
from ernie_vil2.training.run_log import Meter
from ernie_vil2.training.scoring import Evaluations, Metrics, run_evaluator
from ernie_vil2.training.trainer import Trainer


class Fake:
    """An evaluator that returns, or raises, what it is made of."""

    data_sizes: ClassVar = {"nothing": "0 rows"}
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
    return Evaluations(evaluators, load_config(None, ["Schedule.warmup_steps=0", "Training.steps=10", *changes]))


@pytest.mark.parametrize("outcome", [RuntimeError(), {}, {"accuracy": math.nan}, {"accuracy": "much"}], ids=str)
def test_what_fails_is_named_and_leaves_another_its_choice(outcome):
    alone, run = scores(mine=Fake(outcome)), scores(first=Fake({"accuracy": 5.0}), mine=Fake(outcome))
    assert not alone.update_best(alone.evaluate(nn.Layer(), 1)) and alone.best is None
    metrics = run.evaluate(nn.Layer(), 1)
    assert list(metrics["mine"].failures) == ["mine"] and not metrics["first"].failures
    assert run.update_best(metrics) and run.best["value"] == 5
    json.dumps(run.make_records(metrics), allow_nan=False)
    with pytest.raises(LostRank):
        run_evaluator("mine", Fake(LostRank("rank 1 has died")), nn.Layer())


def test_a_best_number_of_another_name_is_not_compared_with():
    old = {"step": 4, "metric": "mean_recall", "value": 90.0}
    run = scores(mine=Fake({"accuracy": 1.0}))
    run.resume(4, old)
    assert run.best is None and run.update_best(run.evaluate(nn.Layer(), 6))
    for kept in (scores(), scores(mine=Fake(best_by=None)), scores(mine=Fake(best_by="mean_recall"))):
        kept.resume(4, old)  # nothing chooses any more, or the same number
        assert kept.best == old


def test_the_meter_leaves_out_pauses_and_counts_what_was_waited(monkeypatch):
    now, computed = 100.0, 7.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "process_time", lambda: computed)
    meter = Meter()
    with meter.measure_wait():
        now += 1
    meter.add_samples(32)
    with meter.pause():
        now, computed = now + 60, computed + 30
    now, computed = now + 3, computed + 5
    assert meter.read() == {"samples_per_second": 8.0, "loader_wait": 0.25, "cpu_seconds": 5.0}


def test_evaluators_encode_in_the_precision_of_training(monkeypatch):
    def build(model, preprocessing, precision):
        raise LookupError(precision)

    monkeypatch.setattr(scoring, "PaddleBackend", build)
    config = load_config(None, ["Training.precision=bfloat16"])
    with pytest.raises(LookupError, match="bfloat16"):
        scoring.ScorerEvaluator(type("Nothing", (Scorer,), {})(), ScorerInput(DataSpec([]), {}), config, None)(None)


class OwnTask(MultiViewTask):
    pass


def test_run_ends_when_nothing_gets_better(config):
    settings = ["Tuning.patience=2", "Evaluation.every=1", "Training.steps=6", "Training.checkpoint_every=100"]

    def trained(*changes, accuracies, resume=True):
        mine = Fake(*({"accuracy": value} for value in accuracies))
        factories = {"make_task": OwnTask, "make_evaluators": lambda config, task: {"mine": mine}}  # of no registry
        trainer = Trainer(config(*settings, *changes), resume=resume, **factories)
        assert trainer.fit() and type(trainer.task) is OwnTask
        return trainer

    trainer = trained(accuracies=[10.0, 30.0, 20.0, 30.0, 50.0], resume=False)
    assert trainer.step == 4 and trainer.best == {"step": 2, "metric": "accuracy", "value": 30.0}
    assert [folder.name for folder in list_checkpoints(trainer.run)] == ["step_00000002", "step_00000004"]
    assert trained(accuracies=[]).step == 4
    assert trained("Tuning.patience=5", accuracies=[1.0, 2.0]).step == 6
    with pytest.raises(ConfigError, match="Tuning.patience .*Evaluation.every"):
        config("Tuning.patience=2", "Evaluation.every=0")
