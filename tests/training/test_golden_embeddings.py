"""Checkpoints of evaluated steps and of a run's end have golden embeddings, and computing them changes nothing else."""

import contextlib
import json
import os
import signal
from itertools import pairwise

import pytest

from ernie_vil2 import load_model
from ernie_vil2.cli import run as call
from ernie_vil2.io.run_folder import checkpoint_folder, checkpoint_step, list_checkpoints
from ernie_vil2.models.weights.integrity import IntegrityError, MissingGoldenError, check_golden
from ernie_vil2.training import trainer as module
from ernie_vil2.training.trainer import Trainer
from tests.support.trainings import REPVGG, fit, read_losses

KEEP_ALL = ["Training.keep_checkpoints=9"]
SETTINGS = ["Training.steps=4", "Training.checkpoint_every=3", *KEEP_ALL]
RUNS = {
    "average": ["Tuning.ema=0.9", "Model.text.dropout=0.3", REPVGG],
    "lora": ["Tuning.lora={rank: 4}", "Tuning.ema=0.5"],
    "widths": ["Loss.widths=[16, 32]", "Model.embed_dim=32", "Training.recompute=true", "Training.micro_batch=8"],
}


def read_card(folder):
    return json.loads((folder / "integrity.json").read_text())


def list_golden_steps(run_folder):
    """Return the steps whose checkpoints have golden embeddings."""
    return [checkpoint_step(folder) for folder in list_checkpoints(run_folder) if read_card(folder)["golden"]]


def check_checkpoints(run_folder, steps):
    """Check that the checkpoints of these steps have golden embeddings, and that they are those of their weights."""
    assert list_golden_steps(run_folder) == steps
    folders = [checkpoint_folder(run_folder, step) for step in steps]
    for folder in folders:
        assert check_golden(folder, load_model(folder, verify=True)) < 2e-6, folder
    for previous, folder in pairwise(folders):
        with pytest.raises(IntegrityError, match="golden text embeddings are up to"):
            check_golden(folder, load_model(previous))


@pytest.mark.parametrize("name", ["average", pytest.param("lora", marks=pytest.mark.slow), "widths"])
def test_golden_embeddings_match_their_checkpoint(config, tmp_path, monkeypatch, name, capsys):
    # A run without them is the same byte by byte, so computing them changes no random state, statistic or mode.
    changes = [*RUNS[name], *SETTINGS]
    trainer = fit(config(*changes, "Evaluation.every=2", f"Training.output={tmp_path / 'with'}"))
    check_checkpoints(trainer.run, [2, 4])
    assert call("doctor", [str(trainer.run)]) == 0 and "ok   golden" in capsys.readouterr().out
    if name == "widths":
        return

    monkeypatch.setattr(module.Trainer, "_compute_golden", lambda trainer: None)
    plain_trainer = fit(config(*changes, f"Training.output={tmp_path / 'without'}"))
    assert read_losses(plain_trainer) == read_losses(trainer)
    for folder in list_checkpoints(plain_trainer.run):
        assert read_card(folder)["golden"] is None
        for file in ("model.safetensors", "optimizer.safetensors"):
            assert (folder / file).read_bytes() == (trainer.run / "checkpoints" / folder.name / file).read_bytes()


def test_steps_do_not_wait_for_golden_embeddings(config, monkeypatch):
    # Saving runs a tower only where training pauses: steps 3 and 6 are evaluated, step 8 is the last.
    trainer = Trainer(config("Training.steps=8", "Training.checkpoint_every=2", "Evaluation.every=3", *KEEP_ALL))
    runs_of_tower, steps_that_waited = [], set()
    trainer.model.image.register_forward_pre_hook(lambda *_: runs_of_tower.append(trainer.step))
    save = trainer._save

    def save_and_compare(**options):
        num_runs = len(runs_of_tower)
        save(**options)
        if len(runs_of_tower) > num_runs:
            steps_that_waited.add(trainer.step)

    monkeypatch.setattr(trainer, "_save", save_and_compare)
    assert trainer.fit()
    assert list_golden_steps(trainer.run) == [3, 6, 8] and steps_that_waited == {3, 6, 8}
    assert [checkpoint_step(folder) for folder in list_checkpoints(trainer.run)] == [2, 3, 4, 6, 8]


def test_stage_ends_with_golden_embeddings_of_its_sizes(config):
    stages = "Training.stages=[{until: 0.5, image_size: 16, max_length: 8}, {until: 1}]"
    run = fit(config(stages, "Training.steps=6", "Training.checkpoint_every=2", *KEEP_ALL)).run
    assert list_golden_steps(run) == [3, 6]
    load_model(checkpoint_folder(run, 3), verify=True)


def test_stopped_run_ends_with_golden_embeddings(config):
    trainer = Trainer(config("Training.steps=8", *KEEP_ALL))
    train_step = trainer._train_step

    def train_step_and_stop(batch, rate):
        train_step(batch, rate)
        if trainer.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer._train_step = train_step_and_stop
    assert not trainer.fit()
    check_checkpoints(trainer.run, [trainer.step])


def test_golden_embeddings_of_a_gpu_have_wider_tolerance(config):
    # Results differ more between devices than on one; the card names the device of its embeddings.
    (checkpoint,) = list_checkpoints(fit(config("Training.steps=1")).run)
    values = read_card(checkpoint)
    assert values["golden"].pop("device") == "cpu"
    values["golden"]["text_embeddings"][0][0] += 5e-4
    for device, is_refused in (({"device": "gpu:0"}, False), ({"device": "cpu"}, True), ({}, True)):
        changed = values | {"golden": values["golden"] | device}
        (checkpoint / "integrity.json").write_text(json.dumps(changed))
        with pytest.raises(IntegrityError, match="2e-05") if is_refused else contextlib.nullcontext():
            load_model(checkpoint, verify=True)


def test_checkpoint_without_golden_embeddings_loads_and_resumes(config, monkeypatch, capsys):
    # If the embeddings cannot be computed, the checkpoint is saved without them.

    def raise_error(encoder):
        raise ValueError("they are infinite")

    with monkeypatch.context() as patch:
        patch.setattr(module, "compute_golden", raise_error)
        trainer = fit(config("Training.steps=1"))
    assert "golden embeddings: they are infinite" in capsys.readouterr().err
    (folder,) = list_checkpoints(trainer.run)
    assert read_card(folder)["golden"] is None
    with pytest.raises(MissingGoldenError):
        load_model(trainer.run, verify=True)
    fit(config("Training.steps=2"), resume=True, can_extend=True)
    load_model(trainer.run, verify=True)
