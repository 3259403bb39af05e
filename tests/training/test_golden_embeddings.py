"""Checkpoints hold golden embeddings of the model that loading them gives, and computing these moves nothing."""

import json
import shutil

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from ernie_vil2 import load_model
from ernie_vil2.cli import run as call
from ernie_vil2.config import load_config
from ernie_vil2.io.files import write_checksums
from ernie_vil2.io.run_folder import MODEL_FILES
from ernie_vil2.models.weights.contract import Broken, NoGolden, _sample, check_golden
from ernie_vil2.training import trainer as module
from ernie_vil2.training.checkpoint import list_checkpoints
from tests.support.ranks import forked_ranks, train
from tests.support.trainings import REPVGG, begin_with, fit, losses, tiny_run

SETTINGS = ["Training.steps=4", "Training.checkpoint_every=3", "Training.keep_checkpoints=9"]
RUNS = {
    "plain": ["Model.text.dropout=0.1"],
    "average": ["Tuning.ema=0.9", REPVGG],
    "lora": ["Tuning.lora={rank: 4}", "Tuning.ema=0.5"],
    "widths": ["Loss.widths=[16, 32]", "Model.embed_dim=32", "Training.recompute=true", "Training.micro_batch=8"],
}


def card(folder):
    return json.loads((folder / "contract.json").read_text())


def check_all(run_folder):
    """Check that every checkpoint of a run has golden embeddings, of its own weights."""
    folders = list_checkpoints(run_folder)
    for folder in folders:
        assert check_golden(folder, load_model(folder, verify=True)) < 2e-6, folder
    for folder, other in zip(folders[1:], folders, strict=False):
        with pytest.raises(Broken, match="golden text embeddings are up to"):
            check_golden(folder, load_model(other))
    return folders


@pytest.mark.parametrize("name", RUNS)
def test_golden_embeddings_are_of_their_checkpoint(config, tmp_path, monkeypatch, name, capsys):
    """Without them a run is the same, byte by byte: no random state, statistic or mode is moved by computing them."""
    changes = [*RUNS[name], *SETTINGS]
    with_them = fit(config(*changes, "Evaluation.every=2", f"Training.output={tmp_path / 'with'}"))
    folders = check_all(with_them.run)
    assert {folder.name for folder in folders} >= {"step_00000003", "step_00000004"}
    assert call("doctor", [str(with_them.run)]) == 0 and "ok   golden" in capsys.readouterr().out
    if name == "widths":
        return

    monkeypatch.setattr(module.Trainer, "_golden", lambda trainer: None)
    without = fit(config(*changes, f"Training.output={tmp_path / 'without'}"))
    assert losses(without) == losses(with_them)
    for folder in list_checkpoints(without.run):
        assert card(folder)["golden"] is None
        for file in ("model.safetensors", "optimizer.safetensors"):
            assert (folder / file).read_bytes() == (with_them.run / "checkpoints" / folder.name / file).read_bytes()


@pytest.mark.parametrize("name", ["hf_clip", "hf_siglip"])
def test_training_of_another_familys_folder_has_them(overrides, name):
    trainer = fit(load_config(None, begin_with(overrides, name, "Training.steps=1", "Tuning.lora={rank: 2}")))
    check_all(trainer.run)


def test_computing_them_leaves_modes_and_random_state(config):
    trainer = fit(config("Training.steps=1", REPVGG, "Model.text.dropout=0.3"))
    for mode in (True, False):
        trainer.model.train() if mode else trainer.model.eval()
        before = {name: value.numpy() for name, value in trainer.model.state_dict().items()}
        drawn = []
        for is_computed in (False, True):
            paddle.seed(7)
            if is_computed:
                assert trainer._golden() == trainer._golden()
            drawn.append(paddle.rand([4]).tolist())
        assert drawn[0] == drawn[1]
        assert all(layer.training == mode for layer in trainer.model.sublayers(include_self=True))
        assert all(np.array_equal(value.numpy(), before[name]) for name, value in trainer.model.state_dict().items())


def test_two_ranks_write_them_once(overrides, tmp_path):
    changes = [*overrides, REPVGG, "Tuning.ema=0.9", *SETTINGS, "Training.device=cpu"]
    forked_ranks(train, changes)
    assert len(check_all(tmp_path / "run")) == 2


@pytest.fixture(scope="module")
def trained(shapes, tmp_path_factory):
    """The folder of a run of one step."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    return fit(load_config(None, [*tiny_run(shapes, folder), "Training.steps=1"])).run


@pytest.fixture
def checkpoint(trained, tmp_path):
    """A copy of its checkpoint."""
    return shutil.copytree(list_checkpoints(trained)[-1], tmp_path / "checkpoint")


def test_changed_weight_is_found_in_spite_of_its_checksums(checkpoint):
    arrays = load_file(checkpoint / "model.safetensors")
    arrays["image.blocks.0.mlp.fc2.bias"][0] += np.float32(1e-3)
    save_file(arrays, checkpoint / "model.safetensors")
    files = ["model.safetensors", "optimizer.safetensors", "state.json", "config.yaml", "vocab.txt"]
    write_checksums(checkpoint, files)
    values = card(checkpoint)
    values["files"] = {name: _sample(checkpoint / name) for name in MODEL_FILES}
    (checkpoint / "contract.json").write_text(json.dumps(values))
    load_model(checkpoint)
    with pytest.raises(Broken, match="golden image embeddings"):
        load_model(checkpoint, verify=True)
    assert call("doctor", [str(checkpoint)]) == 1


def test_those_of_a_gpu_are_compared_as_such(checkpoint):
    """The same numbers are farther apart on another device; a card says where its own were computed."""
    values = card(checkpoint)
    assert values["golden"].pop("device") == "cpu"
    values["golden"]["text_embeddings"][0][0] += 5e-4
    for device, is_refused in (({"device": "gpu:0"}, False), ({"device": "cpu"}, True), ({}, True)):
        changed = values | {"golden": values["golden"] | device}
        (checkpoint / "contract.json").write_text(json.dumps(changed))
        if is_refused:
            with pytest.raises(Broken, match="at most 2e-05"):
                load_model(checkpoint, verify=True)
        else:
            load_model(checkpoint, verify=True)


def test_checkpoint_without_them_loads_and_resumes(config, monkeypatch, capsys):
    """A model that computes none costs no checkpoint."""

    def fails(encoder):
        raise ValueError("the model's text embeddings are NaN or infinite")

    with monkeypatch.context() as patch:
        patch.setattr(module, "golden", fails)
        trainer = fit(config("Training.steps=1"))
    assert "golden embeddings: the model's text embeddings are NaN" in capsys.readouterr().err
    (folder,) = list_checkpoints(trainer.run)
    assert card(folder)["golden"] is None
    load_model(trainer.run)
    with pytest.raises(NoGolden, match="no golden embeddings"):
        load_model(trainer.run, verify=True)
    (folder / "contract.json").unlink()
    load_model(trainer.run)
    fit(config("Training.steps=2"), resume=True, extend=True)
    load_model(trainer.run, verify=True)
