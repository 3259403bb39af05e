"""Checkpoints contain golden embeddings of their weights, and computing these does not change the run."""

import contextlib
import json
from itertools import pairwise

import pytest

from ernie_vil2 import load_model
from ernie_vil2.cli import run as call
from ernie_vil2.models.weights.integrity import IntegrityError, MissingGoldenError, check_golden
from ernie_vil2.training import trainer as module
from ernie_vil2.training.checkpoint import list_checkpoints
from tests.support.trainings import REPVGG, fit, read_losses

SETTINGS = ["Training.steps=4", "Training.checkpoint_every=3", "Training.keep_checkpoints=9"]
RUNS = {
    "average": ["Tuning.ema=0.9", "Model.text.dropout=0.3", REPVGG],
    "lora": ["Tuning.lora={rank: 4}", "Tuning.ema=0.5"],
    "widths": ["Loss.widths=[16, 32]", "Model.embed_dim=32", "Training.recompute=true", "Training.micro_batch=8"],
}


def read_card(folder):
    return json.loads((folder / "integrity.json").read_text())


def check_checkpoints(run_folder):
    """Check that each checkpoint of a run has golden embeddings, and that they are those of its weights."""
    folders = list_checkpoints(run_folder)
    assert folders
    for folder in folders:
        assert check_golden(folder, load_model(folder, verify=True)) < 2e-6, folder
    for previous, folder in pairwise(folders):
        with pytest.raises(IntegrityError, match="golden text embeddings are up to"):
            check_golden(folder, load_model(previous))
    return folders


@pytest.mark.parametrize("name", ["average", pytest.param("lora", marks=pytest.mark.slow), "widths"])
def test_golden_embeddings_match_their_checkpoint(config, tmp_path, monkeypatch, name, capsys):
    # A run without them is the same byte by byte, so computing them changes no random state, statistic or mode.
    changes = [*RUNS[name], *SETTINGS]
    trainer = fit(config(*changes, "Evaluation.every=2", f"Training.output={tmp_path / 'with'}"))
    assert len(check_checkpoints(trainer.run)) >= 2
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
