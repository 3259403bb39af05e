"""Evaluators during a run: when they run, which result is the best, and what happens if they fail."""

import json
import math
import os
import shutil
import time
from pathlib import Path
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
from tests.support.ranks import run_ranks
from tests.support.trainings import fit


class Fake:
    """Evaluator that returns the given metrics one after the other, or raises them if they are exceptions."""

    data_sizes: ClassVar = {"nothing": "0 rows"}
    benchmarks = ()

    def __init__(self, *results, best_by="accuracy"):
        self.results, self.best_by = iter(results), best_by

    def __call__(self, model):
        assert not model.training and not paddle.is_grad_enabled()
        result = next(self.results)
        if isinstance(result, Exception):
            raise result
        return Metrics(result)


def make_evaluations(*changes, **evaluators):
    return Evaluations(evaluators, load_config(None, ["Schedule.warmup_steps=0", "Training.steps=10", *changes]))


@pytest.mark.parametrize("outcome", [RuntimeError(), {}, {"accuracy": math.nan}, {"accuracy": "much"}], ids=str)
def test_failed_evaluator_leaves_the_choice_to_another(outcome):
    alone = make_evaluations(mine=Fake(outcome))
    run = make_evaluations(first=Fake({"accuracy": 5.0}), mine=Fake(outcome))
    assert not alone.update_best(alone.evaluate(nn.Layer(), 1)) and alone.best is None
    metrics = run.evaluate(nn.Layer(), 1)
    assert list(metrics["mine"].failures) == ["mine"] and not metrics["first"].failures
    assert run.update_best(metrics) and run.best["value"] == 5
    json.dumps(run.make_records(metrics), allow_nan=False)
    with pytest.raises(LostRank):
        run_evaluator("mine", Fake(LostRank("rank 1 has died")), nn.Layer())


def test_best_value_of_another_metric_is_not_compared():
    old = {"step": 4, "metric": "mean_recall", "value": 90.0}
    run = make_evaluations(mine=Fake({"accuracy": 1.0}))
    run.resume(4, old)
    assert run.best is None and run.update_best(run.evaluate(nn.Layer(), 6))
    # The value stays if no evaluator chooses any more, or one by the same metric.
    for evaluators in ({}, {"mine": Fake(best_by=None)}, {"mine": Fake(best_by="mean_recall")}):
        unaffected = make_evaluations(**evaluators)
        unaffected.resume(4, old)
        assert unaffected.best == old


def test_meter_excludes_pauses_and_counts_waiting(monkeypatch):
    time_now, computed = 100.0, 7.0
    monkeypatch.setattr(time, "monotonic", lambda: time_now)
    monkeypatch.setattr(time, "process_time", lambda: computed)
    meter = Meter()
    with meter.measure_wait():
        time_now += 1
    meter.add_samples(32)
    with meter.pause():
        time_now, computed = time_now + 60, computed + 30
    time_now, computed = time_now + 3, computed + 5
    # 32 samples in 4 seconds, 1 of which was spent waiting.
    assert meter.read() == {"samples_per_second": 8.0, "loader_wait": 0.25, "cpu_seconds": 5.0}


def test_evaluators_encode_in_the_precision_of_training(monkeypatch):
    def build(model, preprocessing, precision):
        raise LookupError(precision)

    monkeypatch.setattr(scoring, "PaddleBackend", build)
    config = load_config(None, ["Training.precision=bfloat16"])
    with pytest.raises(LookupError, match="bfloat16"):
        scoring.ScorerEvaluator(type("Nothing", (Scorer,), {})(), ScorerInput(DataSpec([]), {}), config, None)(None)


class CustomTask(MultiViewTask):
    pass


def test_run_ends_without_improvement(config):
    settings = ["Tuning.patience=2", "Evaluation.every=1", "Training.steps=6", "Training.checkpoint_every=100"]

    def train_model(*changes, accuracies, resume=True):
        evaluator = Fake(*[{"accuracy": value} for value in accuracies])
        # Neither is in a registry.
        factories = {"make_task": CustomTask, "make_evaluators": lambda config, task: {"mine": evaluator}}
        trainer = Trainer(config(*settings, *changes), resume=resume, **factories)
        assert trainer.fit() and type(trainer.task) is CustomTask
        return trainer

    trainer = train_model(accuracies=[10.0, 30.0, 20.0, 30.0, 50.0], resume=False)
    assert trainer.step == 4 and trainer.best == {"step": 2, "metric": "accuracy", "value": 30.0}
    assert [folder.name for folder in list_checkpoints(trainer.run)] == ["step_00000002", "step_00000004"]
    assert train_model(accuracies=[]).step == 4
    assert train_model("Tuning.patience=5", accuracies=[1.0, 2.0]).step == 6
    with pytest.raises(ConfigError, match="Tuning.patience .*Evaluation.every"):
        config("Tuning.patience=2", "Evaluation.every=0")


def resume_on_own_machine(folder, overrides):
    """Resume the run of a rank's own folder, and write which evaluations the rank continues from."""
    home = folder / os.environ["PADDLE_TRAINER_ID"]
    os.chdir(home)
    trainer = Trainer(load_config(None, overrides), resume=True, make_evaluators=lambda *_: {"mine": Fake()})
    Path("evaluations.json").write_text(json.dumps([trainer.evaluations.evaluated_step, trainer.best]))


def test_ranks_continue_from_the_evaluations_of_rank_0(config, overrides, tmp_path):
    homes = [tmp_path / "0", tmp_path / "1"]
    changes = ["Training.steps=2", "Training.checkpoint_every=1", "Evaluation.every=1", "Loss.weights={text_text: 0}"]
    evaluators = {"mine": Fake({"accuracy": 30.0}, {"accuracy": 20.0})}
    trained = fit(config(*changes, f"Training.output={homes[0] / 'run'}"), make_evaluators=lambda *_: evaluators)
    # A copy from before the last evaluation, of the newest checkpoint alone
    shutil.copytree(trained.run, homes[1] / "run", symlinks=True)
    best, newest = list_checkpoints(homes[1] / "run")
    shutil.rmtree(best)
    (newest / "evaluation.json").unlink()
    run_ranks(resume_on_own_machine, tmp_path, [*overrides, *changes, "Training.output=run", "Training.device=cpu"])
    results = [json.loads((home / "evaluations.json").read_text()) for home in homes]
    assert results == [[2, trained.best]] * 2 and trained.best["step"] == 1
