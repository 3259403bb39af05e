"""Evaluation in the course of a run: by every protocol, and where it fails."""

import json
import os
import shutil
import signal

import pytest

from ernie_vil2.config import load_config
from ernie_vil2.evaluation import cxc_ratings
from ernie_vil2.evaluation.protocols import PROTOCOLS, protocol
from ernie_vil2.training import run_log, scoring
from ernie_vil2.training import trainer as training
from ernie_vil2.training.checkpoint import check_checkpoint, list_checkpoints
from ernie_vil2.training.trainer import Trainer
from tests.support.cxc_ratings import rated_folder, write_images  # noqa: F401  -- a fixture
from tests.support.html_pages import lines_of
from tests.support.limits import PATIENCE
from tests.support.ranks import server
from tests.support.trainings import crash_after, evaluation_records, fit, losses

ONE_OF_A_KIND = ("xm3600", "muge-val", "cxc-correlation")
"""Of the protocols: one direction, ratings, and one without a best."""
DIRECTION_NAMES = ("image_to_text", "text_to_image", "text_to_text", "image_to_image")


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in ONE_OF_A_KIND else pytest.mark.slow) for name in PROTOCOLS
])  # fmt: skip
def test_run_is_evaluated_by_every_protocol_and_resumes(config, folder, monkeypatch, name):
    settings = [f"Evaluation.protocol={name}", "Evaluation.every=1", "Training.checkpoint_every=1", "Training.steps=2"]
    scoring, languages = protocol(name), 2
    if name.startswith("cxc"):  # of MSCOCO alone, with its ratings, in one language
        write_images(folder, scoring.split)
        for kind in ("sts", "sis", "sits"):
            shutil.copy(folder / f"{kind}_test.csv", folder / f"{kind}_val.csv")
            monkeypatch.setitem(cxc_ratings.ROWS, (kind, "val"), cxc_ratings.ROWS[kind, "test"])
        settings.append(f"Data.val=[{folder}]")
        languages = 1
    settings = config(*settings)
    crash_after(Trainer(settings), 1)
    trainer = Trainer(settings, resume=True)
    assert trainer.step == trainer.scores.evaluated == 1 and trainer.fit() and not trainer.best_effort.failures
    assert [record["step"] for record in evaluation_records(trainer.run)] == [1, 2]
    names = {name for record in evaluation_records(trainer.run) for name in record["metrics"]}
    scored = {way for way in DIRECTION_NAMES if any(f"/{way}/" in name for name in names)}
    assert scored == set(scoring.directions)
    assert (trainer.best is None) == (not scored)
    page = (trainer.run / "curves.html").read_text(encoding="utf-8")
    # R@1 and R@10 of each language and direction, and the mean recall, or what else is measured, at two steps.
    lines = [len(line) for line in lines_of(page, "Retrieval over time")]
    assert lines == [2] * len(evaluation_records(trainer.run)[0]["shown"])
    assert not scored or len(lines) == 2 * languages * len(scored) + 1


def test_validation_data_that_become_unreadable_end_no_run(config, shapes, tmp_path, capsys):
    """From the second evaluation on; the run is then as if they had not been asked for."""
    every = "Evaluation.every=1", "Training.steps=3"
    whole = fit(config(*every, f"Training.output={tmp_path / 'whole'}"))
    shard = shutil.copy(shapes["val"], tmp_path / "val.tar")
    trainer = Trainer(config(*every, f"Data.val=[{shard}]"))
    original = trainer._train_step

    def step(batch, rate):
        if trainer.step == 1:
            os.truncate(shard, 0)
        return original(batch, rate)

    trainer._train_step = step
    assert trainer.fit() and losses(trainer) == losses(whole)
    assert trainer.best_effort.failures == {"evaluation on val, zh": 2, "evaluation on val, en": 2}
    assert [len(record["metrics"]) > 0 for record in evaluation_records(trainer.run)] == [True, False, False]
    assert trainer.best["step"] == 1
    error = capsys.readouterr().err
    assert "evaluation on val, zh: val: nothing to score" in error
    assert error.rstrip().endswith("2 x evaluation on val, zh, 2 x evaluation on val, en")


def test_missing_validation_data_end_a_run_before_its_first_step(config, shapes, tmp_path, capsys):
    shard = shutil.copy(shapes["val"], tmp_path / "val.tar")
    settings = config("Evaluation.every=1", "Training.steps=3", "Training.checkpoint_every=1", f"Data.val=[{shard}]")
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="val.tar"):
        Trainer(settings)
    shutil.copy(shapes["val"], shard)
    crash_after(Trainer(settings), 1)
    shard.unlink()
    resumed = Trainer(settings, resume=True)
    assert resumed.step == 1 and resumed.fit() and resumed.step == 3
    assert resumed.best_effort.failures == {"validation data": 1}
    assert "warning: validation data: " in capsys.readouterr().err
    assert [record["step"] for record in evaluation_records(resumed.run)] == [1] and resumed.best["step"] == 1


@pytest.mark.parametrize("part", ["write_run_page", "note_evaluation", "validate"])
def test_best_effort_that_fails_ends_no_run(config, monkeypatch, capsys, part):
    def fails(*arguments):
        raise RuntimeError("a fault in it")

    if part != "validate":
        monkeypatch.setattr(run_log if part == "write_run_page" else training, part, fails)
    else:
        monkeypatch.setattr("ernie_vil2.evaluation.scorers.retrieval.score", fails)
    settings = config("Evaluation.every=2", "Training.checkpoint_every=2", "Training.steps=4")
    trainer = fit(settings)
    # Retrieval is validated in two languages.
    num_failures = 4 if part == "validate" else 2
    assert sum(trainer.best_effort.failures.values()) == num_failures
    assert "a fault in it" in capsys.readouterr().err
    assert [path.name for path in list_checkpoints(trainer.run)] == ["step_00000002", "step_00000004"]
    monkeypatch.undo()
    again = Trainer(settings, resume=True)
    assert again.fit() and not again.best_effort.failures
    assert again.scores.evaluated == 4  # what had failed is made up for
    assert "mean_recall" in evaluation_records(again.run)[-1]["metrics"]


def killed_in_evaluation(overrides):
    scoring.scored = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
    Trainer(load_config(None, overrides)).fit()


def test_due_checkpoint_is_written_before_the_evaluation(overrides, tmp_path):
    """Where the evaluation takes the process with it, as one that needs too much memory does."""
    settings = [*overrides, "Evaluation.every=2", "Training.checkpoint_every=2", "Training.steps=4"]
    process = server().Process(target=killed_in_evaluation, args=(settings,))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    [checkpoint] = list_checkpoints(tmp_path / "run")
    check_checkpoint(checkpoint)
    assert json.loads((checkpoint / "state.json").read_text())["step"] == 2
    second = Trainer(load_config(None, settings), resume=True)
    assert second.fit() and [record["step"] for record in evaluation_records(second.run)] == [2, 4]
