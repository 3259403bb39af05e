"""Ranks that share the optimiser state train like one process that holds all of it."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle.distributed.fleet.meta_parallel.sharding.group_sharded_storage import ParamStorage
from safetensors.numpy import load_file

from ernie_vil2 import load_model
from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.models import save_weights
from ernie_vil2.planning.towers import Towers
from ernie_vil2.training.dry_run import dry_run
from ernie_vil2.training.optimizer import check_sharding
from ernie_vil2.training.scoring import build_run_encoder
from ernie_vil2.training.trainer import Trainer
from tests.support.copies import count_copied_bytes
from tests.support.ranks import run_ranks
from tests.support.trainings import REPVGG, SMOOTH_ADAM, check_same_checkpoints, fit, read_train_records

SMOOTH = [*SMOOTH_ADAM, "Training.checkpoint_every=2", "Training.steps=4"]


def train_rank(folder, overrides):
    """Train a run as a rank, and write the sizes of the moments that this rank holds."""
    trainer = Trainer(load_config(None, overrides), resume=True)
    trainer.fit()
    moments = {key: value.size for key, value in trainer.optimizer.state_dict().items() if "_moment" in key}
    (folder / f"rank_{trainer.rank}.json").write_text(json.dumps(moments))


def train_sharded(folder, overrides, ranks=2):
    """Train on several ranks, and return the sizes of the moments of each rank by Paddle's names."""
    settings = [*overrides, "Training.sharding=stage1", f"Training.output={folder / 'run'}", "Training.device=cpu"]
    run_ranks(train_rank, folder, settings, ranks=ranks)
    return [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in range(ranks)]


def train_alone(overrides, folder):
    return fit(load_config(None, [*overrides, f"Training.output={folder}"]), resume=True)


def test_two_ranks_share_the_state_and_train_as_one(overrides, tmp_path):
    overrides = [*overrides, *SMOOTH]
    trainer = train_alone(overrides, tmp_path / "alone")
    states = train_sharded(tmp_path, overrides)
    check_same_checkpoints(tmp_path / "run", tmp_path / "alone")
    norms = [record["gradient_norm"] for record in read_train_records(tmp_path / "run")]
    expected = [record["gradient_norm"] for record in read_train_records(tmp_path / "alone")]
    assert norms == pytest.approx(expected, rel=1e-4)
    load_model(tmp_path / "run", verify=True)

    trained = sum(parameter.size for parameter in trainer.model.parameters() if not parameter.stop_gradient)
    assert not states[0].keys() & states[1].keys()
    elements = [sum(moments.values()) for moments in states]
    assert sum(elements) == 2 * trained  # two moments
    assert max(elements) == 2 * Towers(trainer.config).largest_share(2)  # parameters are not divided; as a plan says

    # One process resumes from the checkpoint that two ranks wrote half-way.
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_00000004")
    train_alone(overrides, tmp_path / "run")
    check_same_checkpoints(tmp_path / "run", tmp_path / "alone")


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
def test_three_ranks_resume_a_run_of_one(overrides, tmp_path, changes):
    overrides = [*overrides, *SMOOTH, *changes, "Training.global_batch=15"]
    train_alone(overrides, tmp_path / "alone")
    checkpoints = Path("checkpoints", "step_00000002")
    shutil.copytree(tmp_path / "alone" / checkpoints, tmp_path / "run" / checkpoints)
    train_sharded(tmp_path, overrides, ranks=3)
    check_same_checkpoints(tmp_path / "run", tmp_path / "alone")


@pytest.mark.parametrize(("sharding", "ranks", "device", "is_refused"), [
    ("stage1", 1, "cpu", True), ("stage1", 2, "cpu", False), ("none", 1, "cpu", False),
    ("stage2", 2, "cpu", True), ("stage2", 2, "gpu:0", False), ("stage2", 1, "gpu:0", True),
])  # fmt: skip
def test_sharding_without_effect_is_refused(sharding, ranks, device, is_refused):
    with pytest.raises(ConfigError, match=sharding) if is_refused else contextlib.nullcontext():
        check_sharding(sharding, ranks, is_cpu=device == "cpu")


def test_fused_parameters_are_copied_without_their_buffer(config, tmp_path):
    # stage2 needs GPUs, but the buffer whose views it makes of the parameters can be made on CPU.
    trainer = Trainer(config("Tuning.ema=0.9"))
    model = trainer.model
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    parameters = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    buffer = ParamStorage(sum(parameter.size for parameter in parameters), paddle.float32, "cpu")
    buffer.add_rank_params(parameters, {parameter.name: 0 for parameter in parameters}, convert_gpu=False)
    num_bytes = sum(array.nbytes for array in weights.values())
    assert {parameter._holder_size() for parameter in parameters} == {buffer.buffer.size * 4}

    backend = build_run_encoder(model, trainer.task.tokenizer, trainer.config, "float32").backend
    for copy in (
        lambda: save_weights(model, tmp_path / "model.safetensors"),
        trainer.average.get_raw_weights,
        backend.digest,
        trainer.task.get_log_values,
    ):
        with count_copied_bytes() as sizes:
            copy()
        assert 0 < sum(sizes) <= num_bytes
    for name, array in load_file(tmp_path / "model.safetensors").items():
        np.testing.assert_array_equal(array, weights[name])


def test_refused_sharding_stops_run_and_dry_run(config):
    settings = config("Training.sharding=stage1")
    with pytest.raises(ConfigError, match="stage1"):
        Trainer(settings)
    preview = dry_run(settings)
    assert preview.would_stop and "Training.sharding=stage1" in preview.text
    with pytest.raises(ConfigError, match="stage2 .*micro_batch"):
        config("Training.sharding=stage2", "Training.micro_batch=8")
