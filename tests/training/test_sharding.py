"""Optimiser state divided among two ranks, against one process that holds all of it."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from ernie_vil2 import load_model
from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.planning.towers import Towers
from ernie_vil2.training.dry_run import dry_run
from ernie_vil2.training.optimizer import check_sharding
from ernie_vil2.training.trainer import Trainer
from tests.support.ranks import run_ranks
from tests.support.trainings import REPVGG, fit, read_train_records

# A large epsilon: Adam divides by the size of a gradient, and with none it would make rounding of zero a step.
SMOOTH = ["Optimizer.epsilon=1e-3", "Optimizer.weight_decay=0.1", "Training.checkpoint_every=2",
          "Training.steps=4"]  # fmt: skip


def rank_of_a_run(folder, overrides):
    """Train a whole run as a rank, and write what it holds of the optimiser state."""
    trainer = Trainer(load_config(None, overrides), resume=True)
    trainer.fit()
    moments = {key: value.size for key, value in trainer.optimizer.state_dict().items() if "_moment" in key}
    (folder / f"rank_{trainer.rank}.json").write_text(json.dumps(moments))


def sharded(folder, overrides, ranks=2):
    """Train on several ranks; return the elements of the moments that each of them holds, by Paddle's names."""
    settings = [*overrides, "Training.sharding=stage1", f"Training.output={folder / 'run'}", "Training.device=cpu"]
    run_ranks(rank_of_a_run, folder, settings, ranks=ranks)
    return [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in range(ranks)]


def alone(overrides, folder):
    return fit(load_config(None, [*overrides, f"Training.output={folder}"]), resume=True)


def assert_alike(run, other):
    """Weights and optimiser state after the last step."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        found, expected = (load_file(sorted(folder.glob("checkpoints/step_*"))[-1] / name) for folder in (run, other))
        assert found.keys() == expected.keys() and len(found) > 20
        for key, value in expected.items():
            if "k_proj.bias" in key:  # cancels in the softmax: what it gets is rounding
                continue
            scale = np.abs(value).max()
            np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-4 * scale, err_msg=f"{name}, {key}")


def test_two_ranks_share_the_state_and_train_and_save_as_one(overrides, tmp_path):
    overrides = [*overrides, *SMOOTH]
    whole = alone(overrides, tmp_path / "alone")
    states = sharded(tmp_path, overrides)
    assert_alike(tmp_path / "run", tmp_path / "alone")
    norms, expected = ([record["gradient_norm"] for record in read_train_records(tmp_path / name)]
                       for name in ("run", "alone"))  # fmt: skip
    assert norms == pytest.approx(expected, rel=1e-4)
    load_model(tmp_path / "run", verify=True)

    trained = sum(parameter.size for parameter in whole.model.parameters() if not parameter.stop_gradient)
    assert not states[0].keys() & states[1].keys()
    elements = [sum(moments.values()) for moments in states]
    assert sum(elements) == 2 * trained
    assert max(elements) == 2 * Towers(whole.config).largest_share(2)  # as a plan says; whole parameters have owners

    # What two ranks have saved half-way, one goes on with.
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_00000004")
    alone(overrides, tmp_path / "run")
    assert_alike(tmp_path / "run", tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        ["Loss.weights={image_image: 0, image_text: 0, text_image: 0}"],  # the image tower has no gradient
        [REPVGG],  # parameters that do not train
        ["Training.micro_batch=3", "Model.text.dropout=0.2"],
    ],
    ids=["text", "RepVGG", "cached"],
)
def test_three_ranks_go_on_where_one_has_stopped(overrides, tmp_path, changes):
    overrides = [*overrides, *SMOOTH, *changes, "Training.global_batch=15"]
    alone(overrides, tmp_path / "alone")
    checkpoints = Path("checkpoints", "step_00000002")
    shutil.copytree(tmp_path / "alone" / checkpoints, tmp_path / "run" / checkpoints)
    sharded(tmp_path, overrides, ranks=3)
    assert_alike(tmp_path / "run", tmp_path / "alone")


@pytest.mark.parametrize(("sharding", "ranks", "device", "is_refused"), [
    ("stage1", 1, "cpu", True), ("stage1", 2, "cpu", False), ("none", 1, "cpu", False),
    ("stage2", 2, "cpu", True), ("stage2", 2, "gpu:0", False), ("stage2", 1, "gpu:0", True),
])  # fmt: skip
def test_what_would_not_be_divided_is_refused(monkeypatch, sharding, ranks, device, is_refused):
    monkeypatch.setattr(paddle, "get_device", lambda: device)
    with pytest.raises(ConfigError, match=sharding) if is_refused else contextlib.nullcontext():
        check_sharding(sharding, ranks)


def test_sharding_that_is_refused_stops_a_run_and_its_preview(config):
    settings = config("Training.sharding=stage1")
    with pytest.raises(ConfigError, match="stage1"):
        Trainer(settings)
    preview = dry_run(settings)
    assert preview.would_stop and "Training.sharding=stage1" in preview.text
    with pytest.raises(ConfigError, match="stage2 .*micro_batch"):
        config("Training.sharding=stage2", "Training.micro_batch=8")
