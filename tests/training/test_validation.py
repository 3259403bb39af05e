"""Evaluation in the course of a run: by every protocol, and where it fails."""

import json
import os
import shutil
import signal
from multiprocessing import get_context

import pytest

from ernie_vil2.config import load_config
from ernie_vil2.evaluation import cxc_ratings
from ernie_vil2.evaluation.protocols import PROTOCOLS, protocol
from ernie_vil2.training import run_log, scoring
from ernie_vil2.training import trainer as training
from ernie_vil2.training.checkpoint import check_checkpoint, list_checkpoints
from ernie_vil2.training.run_log import read_log
from ernie_vil2.training.trainer import Trainer
from tests.support.cxc_ratings import rated_folder, write_images  # noqa: F401 - a fixture
from tests.support.html_pages import lines_of
from tests.support.limits import PATIENCE
from tests.training.test_trainer import crash_after, losses

ONE_OF_A_KIND = ("pairs", "mscoco-1k", "xm3600", "muge-val", "cxc", "cxc-correlation")
"""Of the protocols: other numbers of texts an image, one direction, folds, ratings, and one without a best."""
DIRECTION_NAMES = ("image_to_text", "text_to_image", "text_to_text", "image_to_image")


def evaluations(trainer):
    return [record for record in read_log(trainer.run / "log.jsonl") if record["kind"] == "evaluation"]


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in ONE_OF_A_KIND else pytest.mark.slow) for name in PROTOCOLS
])  # fmt: skip
def test_a_run_is_evaluated_by_every_protocol_and_goes_on_from_there(config, folder, monkeypatch, name):
    settings = [f"Evaluation.protocol={name}", "Evaluation.every=2", "Training.checkpoint_every=2", "Training.steps=4"]
    scoring, languages = protocol(name), 2
    if name.startswith("cxc"):  # of MSCOCO alone, with its ratings, in one language
        write_images(folder, scoring.split)
        for kind in ("sts", "sis", "sits"):
            shutil.copy(folder / f"{kind}_test.csv", folder / f"{kind}_val.csv")
            monkeypatch.setitem(cxc_ratings.ROWS, (kind, "val"), cxc_ratings.ROWS[kind, "test"])
        settings.append(f"Data.val=[{folder}]")
        languages = 1
    settings = config(*settings)
    crash_after(Trainer(settings), 3)
    trainer = Trainer(settings, resume=True)
    assert trainer.step == trainer.scores.evaluated == 2 and trainer.fit() and not trainer.best_effort.failures
    assert [record["step"] for record in evaluations(trainer)] == [2, 4]
    names = {name for record in evaluations(trainer) for name in record["metrics"]}
    scored = {way for way in DIRECTION_NAMES if any(f"/{way}/" in name for name in names)}
    assert scored == set(scoring.directions)
    assert (trainer.best is None) == (not scored)
    page = (trainer.run / "curves.html").read_text(encoding="utf-8")
    # R@1 and R@10 of each language and direction, and the mean recall, or what else is measured, at two steps.
    lines = [len(line) for line in lines_of(page, "Retrieval over time")]
    assert lines == [2] * len(evaluations(trainer)[0]["shown"])
    assert not scored or len(lines) == 2 * languages * len(scored) + 1


def test_validation_data_that_become_unreadable_end_no_run(config, shapes, tmp_path, capsys):
    """From the second evaluation on; the run is then as if they had not been asked for."""
    every = "Evaluation.every=2", "Training.steps=6"
    whole = Trainer(config(*every, f"Training.output={tmp_path / 'whole'}"))
    assert whole.fit()
    shard = shutil.copy(shapes["val"], tmp_path / "val.tar")
    trainer = Trainer(config(*every, f"Data.val=[{shard}]"))
    original = trainer._train_step

    def step(batch, rate):
        if trainer.step == 3:
            os.truncate(shard, 0)
        return original(batch, rate)

    trainer._train_step = step
    assert trainer.fit() and losses(trainer) == losses(whole)
    assert trainer.best_effort.failures == {"evaluation on val, zh": 2, "evaluation on val, en": 2}
    assert [len(record["metrics"]) > 0 for record in evaluations(trainer)] == [True, False, False]
    assert trainer.best["step"] == 2
    error = capsys.readouterr().err
    assert "warning: evaluation on val, zh: val: nothing to score" in error and "the run continues without it" in error
    assert error.rstrip().endswith(
        "warning: left out after failures: 2 x evaluation on val, zh, 2 x evaluation on val, en"
    )


def test_validation_data_that_are_gone_are_an_error_before_the_first_step_alone(config, shapes, tmp_path, capsys):
    shard = shutil.copy(shapes["val"], tmp_path / "val.tar")
    settings = config("Evaluation.every=2", "Training.steps=6", "Training.checkpoint_every=2", f"Data.val=[{shard}]")
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="val.tar"):
        Trainer(settings)
    shutil.copy(shapes["val"], shard)
    crash_after(Trainer(settings), 3)
    shard.unlink()
    resumed = Trainer(settings, resume=True)
    assert resumed.step == 2 and resumed.fit() and resumed.step == 6
    assert resumed.best_effort.failures == {"validation data": 1}
    assert "warning: validation data: " in capsys.readouterr().err
    assert [record["step"] for record in evaluations(resumed)] == [2] and resumed.best["step"] == 2


@pytest.mark.parametrize("part", ["write_run_page", "note_evaluation", "validate"])
def test_best_effort_that_fails_ends_no_run(config, monkeypatch, capsys, part):
    def fails(*arguments):
        raise RuntimeError("a fault in it")

    if part != "validate":
        monkeypatch.setattr(run_log if part == "write_run_page" else training, part, fails)
    else:
        monkeypatch.setattr("ernie_vil2.evaluation.scorers.retrieval.score", fails)
    trainer = Trainer(config("Evaluation.every=4", "Training.checkpoint_every=4"))
    assert trainer.fit()
    assert (
        sum(trainer.best_effort.failures.values()) == {"write_run_page": 2, "note_evaluation": 2, "validate": 4}[part]
    )
    assert "a fault in it" in capsys.readouterr().err
    assert [path.name for path in list_checkpoints(trainer.run)] == ["step_00000004", "step_00000008"]
    monkeypatch.undo()
    again = Trainer(config("Evaluation.every=4", "Training.checkpoint_every=4"), resume=True)
    assert again.fit() and not again.best_effort.failures
    assert again.scores.evaluated == 8  # what had failed is made up for
    assert "mean_recall" in evaluations(again)[-1]["metrics"]


def killed_in_evaluation(overrides):
    scoring.scored = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
    Trainer(load_config(None, overrides)).fit()


def test_a_due_checkpoint_is_written_before_the_evaluation(overrides, config, tmp_path):
    """Where the evaluation takes the process with it, as one that needs too much memory does."""
    settings = [*overrides, "Evaluation.every=4", "Training.checkpoint_every=4"]
    process = get_context("spawn").Process(target=killed_in_evaluation, args=(settings,))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    [checkpoint] = list_checkpoints(tmp_path / "run")
    check_checkpoint(checkpoint)
    assert json.loads((checkpoint / "state.json").read_text())["step"] == 4
    second = Trainer(load_config(None, settings), resume=True)
    assert second.fit() and [record["step"] for record in evaluations(second)] == [4, 8]
