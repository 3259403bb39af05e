"""Checkpoints hold golden embeddings of the model that loading them gives, and computing these moves nothing."""

import contextlib
import json

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


def card(folder):
    return json.loads((folder / "integrity.json").read_text())


def check_all(run_folder):
    """Check that every checkpoint of a run has golden embeddings, of its own weights."""
    folders = list_checkpoints(run_folder)
    assert folders
    for folder in folders:
        assert check_golden(folder, load_model(folder, verify=True)) < 2e-6, folder
    for folder, other in zip(folders[1:], folders, strict=False):
        with pytest.raises(IntegrityError, match="golden text embeddings are up to"):
            check_golden(folder, load_model(other))
    return folders


@pytest.mark.parametrize("name", ["average", pytest.param("lora", marks=pytest.mark.slow), "widths"])
def test_golden_embeddings_are_of_their_checkpoint(config, tmp_path, monkeypatch, name, capsys):
    """Without them a run is the same, byte by byte: no random state, statistic or mode is moved by computing them."""
    changes = [*RUNS[name], *SETTINGS]
    with_them = fit(config(*changes, "Evaluation.every=2", f"Training.output={tmp_path / 'with'}"))
    assert len(check_all(with_them.run)) >= 2
    assert call("doctor", [str(with_them.run)]) == 0 and "ok   golden" in capsys.readouterr().out
    if name == "widths":
        return

    monkeypatch.setattr(module.Trainer, "_compute_golden", lambda trainer: None)
    without = fit(config(*changes, f"Training.output={tmp_path / 'without'}"))
    assert read_losses(without) == read_losses(with_them)
    for folder in list_checkpoints(without.run):
        assert card(folder)["golden"] is None
        for file in ("model.safetensors", "optimizer.safetensors"):
            assert (folder / file).read_bytes() == (with_them.run / "checkpoints" / folder.name / file).read_bytes()


def test_those_of_a_gpu_are_compared_as_such(config):
    """The same numbers are farther apart on another device; a card says where its own were computed."""
    (checkpoint,) = list_checkpoints(fit(config("Training.steps=1")).run)
    values = card(checkpoint)
    assert values["golden"].pop("device") == "cpu"
    values["golden"]["text_embeddings"][0][0] += 5e-4
    for device, is_refused in (({"device": "gpu:0"}, False), ({"device": "cpu"}, True), ({}, True)):
        changed = values | {"golden": values["golden"] | device}
        (checkpoint / "integrity.json").write_text(json.dumps(changed))
        with pytest.raises(IntegrityError, match="2e-05") if is_refused else contextlib.nullcontext():
            load_model(checkpoint, verify=True)


def test_checkpoint_without_them_loads_and_resumes(config, monkeypatch, capsys):
    """A model that computes none costs no checkpoint."""

    def fails(encoder):
        raise ValueError("they are infinite")

    with monkeypatch.context() as patch:
        patch.setattr(module, "compute_golden", fails)
        trainer = fit(config("Training.steps=1"))
    assert "golden embeddings: they are infinite" in capsys.readouterr().err
    (folder,) = list_checkpoints(trainer.run)
    assert card(folder)["golden"] is None
    with pytest.raises(MissingGoldenError):
        load_model(trainer.run, verify=True)
    fit(config("Training.steps=2"), resume=True, can_extend=True)
    load_model(trainer.run, verify=True)
