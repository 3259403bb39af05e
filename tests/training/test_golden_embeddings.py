"""Checkpoints hold golden embeddings of the model that loading them gives, and computing these moves nothing."""

import json

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
from ernie_vil2.training.trainer import Trainer
from tests.support.other_families import FOLDERS
from tests.support.ranks import forked_ranks, train
from tests.training.test_trainer import REPVGG, losses

EVALUATED = ["Training.steps=5", "Evaluation.every=2", "Training.checkpoint_every=3", "Training.keep_checkpoints=9"]
RUNS = {
    "plain": ["Model.text.dropout=0.1"],
    "average": ["Tuning.ema=0.9", REPVGG],
    "lora": ["Tuning.lora={rank: 4}", "Tuning.ema=0.5"],
    "widths": ["Loss.widths=[16, 32]", "Model.embed_dim=32", "Training.recompute=true", "Training.micro_batch=8"],
}


def card(folder):
    return json.loads((folder / "contract.json").read_text())


def check_all(run_folder):
    """Every checkpoint of a run has golden embeddings, of its own weights."""
    folders = list_checkpoints(run_folder)
    for folder in folders:
        assert check_golden(folder, load_model(folder, verify=True)) < 2e-6, folder
    for folder, other in zip(folders[1:], folders, strict=False):
        with pytest.raises(Broken, match="golden text embeddings are up to"):
            check_golden(folder, load_model(other))
    return folders


@pytest.mark.parametrize("name", RUNS)
def test_every_checkpoint_has_those_of_the_weights_that_it_holds(config, name, capsys):
    trainer = Trainer(config(*RUNS[name], *EVALUATED))
    assert trainer.fit()
    folders = check_all(trainer.run)
    assert {folder.name for folder in folders} >= {"step_00000003", "step_00000005", f"step_{trainer.best['step']:08d}"}
    assert call("doctor", [str(trainer.run)]) == 0 and "ok   golden" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["hf_clip", "hf_siglip"])
def test_of_a_training_that_began_with_another_familys_folder(overrides, name):
    kept = [change for change in overrides if not change.startswith(("Model.", "Data.max_length"))]
    changes = ["Model.like=weights", f"Model.weights={FOLDERS[name]}", "Model.text.dropout=0.1", "Training.steps=3"]
    trainer = Trainer(load_config(None, [*kept, *changes, "Tuning.lora={rank: 2}"]))
    assert trainer.fit()
    check_all(trainer.run)


@pytest.mark.parametrize("name", ["plain", "average", "lora"])
def test_a_run_is_the_same_with_and_without_them(config, tmp_path, monkeypatch, name):
    """Every byte of weights and optimiser, and every loss: no random state, statistic or mode is moved."""
    changes = [*RUNS[name], "Training.steps=5", "Training.checkpoint_every=2", "Training.keep_checkpoints=9"]
    with_them = Trainer(config(*changes, f"Training.output={tmp_path / 'with'}"))
    assert with_them.fit()
    monkeypatch.setattr(module.Trainer, "_golden", lambda trainer: None)
    without = Trainer(config(*changes, f"Training.output={tmp_path / 'without'}"))
    assert without.fit() and losses(without) == losses(with_them)
    for one, other in zip(list_checkpoints(with_them.run), list_checkpoints(without.run), strict=True):
        assert card(one)["golden"] and card(other)["golden"] is None
        for file in ("model.safetensors", "optimizer.safetensors"):
            assert (one / file).read_bytes() == (other / file).read_bytes()


def test_computing_them_leaves_modes_and_random_state(config):
    trainer = Trainer(config("Training.steps=3", REPVGG, "Model.text.dropout=0.3"))
    assert trainer.fit()
    for mode in (True, False):
        trainer.model.train() if mode else trainer.model.eval()
        before = {name: value.numpy() for name, value in trainer.model.state_dict().items()}
        drawn = []
        for computed in (False, True):
            paddle.seed(7)
            assert not computed or trainer._golden() == trainer._golden()
            drawn.append(paddle.rand([4]).tolist())
        assert drawn[0] == drawn[1]
        assert all(layer.training == mode for layer in trainer.model.sublayers(include_self=True))
        assert all(np.array_equal(value.numpy(), before[name]) for name, value in trainer.model.state_dict().items())


def test_two_ranks_write_them_once(overrides, tmp_path):
    changes = [*overrides, REPVGG, "Tuning.ema=0.9", "Training.checkpoint_every=4", "Training.device=cpu"]
    forked_ranks(train, changes)
    assert len(check_all(tmp_path / "run")) == 2


def test_a_changed_weight_is_found_though_its_checksums_are_right(config):
    trainer = Trainer(config("Training.steps=3"))
    assert trainer.fit()
    (folder,) = list_checkpoints(trainer.run)
    arrays = load_file(folder / "model.safetensors")
    arrays["image.blocks.0.mlp.fc2.bias"][0] += np.float32(1e-3)
    save_file(arrays, folder / "model.safetensors")
    write_checksums(folder, ["model.safetensors", "optimizer.safetensors", "state.json", "config.yaml", "vocab.txt"])
    values = card(folder)
    values["files"] = {name: _sample(folder / name) for name in MODEL_FILES}
    (folder / "contract.json").write_text(json.dumps(values))
    load_model(folder)
    with pytest.raises(Broken, match="golden image embeddings are up to"):
        load_model(folder, verify=True)
    assert call("doctor", [str(folder)]) == 1


def test_a_checkpoint_of_before_loads_and_resumes(config):
    settings = ["Training.checkpoint_every=4"]
    trainer = Trainer(config(*settings))
    assert trainer.fit()
    for folder in list_checkpoints(trainer.run):
        (folder / "contract.json").write_text(json.dumps(card(folder) | {"golden": None}))
    load_model(trainer.run)
    with pytest.raises(NoGolden, match="no golden embeddings"):
        load_model(trainer.run, verify=True)
    (list_checkpoints(trainer.run)[-1] / "contract.json").unlink()
    load_model(trainer.run)
    longer = Trainer(config(*settings, "Training.steps=9"), resume=True, extend=True)
    assert longer.fit()
    load_model(trainer.run, verify=True)


def test_a_model_that_computes_none_costs_no_checkpoint(config, monkeypatch, capsys):
    def fails(encoder):
        raise ValueError("the model's text embeddings are NaN or infinite")

    monkeypatch.setattr(module, "golden", fails)
    trainer = Trainer(config("Training.steps=3"))
    assert trainer.fit() and card(list_checkpoints(trainer.run)[-1])["golden"] is None
    assert "golden embeddings: the model's text embeddings are NaN" in capsys.readouterr().err


def test_those_of_a_gpu_are_compared_as_such(config):
    """The same numbers are farther apart on another device; a card says where its own were computed."""
    trainer = Trainer(config("Training.steps=3"))
    assert trainer.fit()
    (folder,) = list_checkpoints(trainer.run)
    values = card(folder)
    assert values["golden"]["device"] == "cpu"
    values["golden"]["text_embeddings"][0][0] += 5e-4
    for device, refused in (("gpu:0", False), ("cpu", True), (None, True)):
        values["golden"] |= {"device": device}
        if device is None:
            del values["golden"]["device"]
        (folder / "contract.json").write_text(json.dumps(values))
        if refused:
            with pytest.raises(Broken, match="at most 2e-05 is rounding"):
                load_model(folder, verify=True)
        else:
            load_model(folder, verify=True)
