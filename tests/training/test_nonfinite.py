"""Steps with values that are not finite are skipped or end the run, and such weights are never saved."""

import json
import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import paddle
import paddle.distributed as dist
import pytest
from safetensors.numpy import load_file

from ernie_vil2.training.checkpoint import list_checkpoints, recover_checkpoint
from ernie_vil2.training.optimizer import compute_squared_gradient_norms
from ernie_vil2.training.trainer import Trainer
from ernie_vil2.training.update import MAX_NONFINITE_STEPS, NotFinite
from tests.support.trainings import (
    REPVGG,
    assert_same_arrays,
    call_before_steps,
    crash_after,
    fit,
    read_last_weights,
    read_losses,
    read_train_records,
)

VALUES = {"gradient": math.nan, "infinite gradient": math.inf, "loss": math.nan}


def spoil_steps(trainer, fault, steps):
    """Make gradients or losses of some steps, counted from 0, not finite."""
    backward, forward = trainer.task._step.backward, trainer.task._step.forward

    def spoil_gradient():
        backward()
        if trainer.step in steps:
            # Paddle's own layers, which compute on GPUs, return gradients that may not be written outside no_grad.
            with paddle.no_grad():
                trainer.model.text.parameters()[3].grad[0] = VALUES[fault]

    def spoil_loss(*arguments):
        total, pairs = forward(*arguments)
        if trainer.step in steps:
            trainer.task._step._total = trainer.task._step._total * math.nan
            total = total * math.nan
            for statistic in trainer.update._statistics:  # as activations that are NaN would do
                statistic.set_value(statistic * math.nan)
        return total, pairs

    if fault == "loss":
        trainer.task._step.forward = spoil_loss
    else:
        trainer.task._step.backward = spoil_gradient
    return trainer


def read_norms(trainer):
    return [record["gradient_norm"] for record in read_train_records(trainer.run)]


def read_weights(trainer):
    return {name: value.numpy() for name, value in trainer.model.state_dict().items()}


@pytest.mark.parametrize("micro_batch", ["null", 3])
def test_norm_counts_all_gradients_before_clipping(config, micro_batch):
    trainer = Trainer(config("Training.steps=2", f"Training.micro_batch={micro_batch}", "Optimizer.clip_norm=0.01"))
    backward, expected = trainer.task._step.backward, []

    def record_norm():
        backward()
        squared_norm = 0.0
        for parameter in trainer.model.parameters():
            if parameter.grad is not None:
                squared_norm += (parameter.grad.numpy().astype("float64") ** 2).sum()
        expected.append(squared_norm**0.5)

    trainer.task._step.backward = record_norm
    trainer.fit()
    assert read_norms(trainer) == pytest.approx(expected, rel=1e-5) and min(expected) > 0.1


@pytest.mark.parametrize(("fault", "image", "micro_batch", "log_every"), [
    ("gradient", [], "null", 1),
    ("infinite gradient", [REPVGG], 3, 100),
    pytest.param("loss", [REPVGG], "null", 100, marks=pytest.mark.slow),
    pytest.param("loss", [], 3, 1, marks=pytest.mark.slow),
])  # fmt: skip
def test_evidence_of_a_stop_has_the_last_finite_weights(config, fault, image, micro_batch, log_every):
    # In steps that are not logged, the host learns of a bad step only after the forward of the next one. Until then
    # the weights have not changed.
    settings = [*image, "Training.checkpoint_every=2", "Training.steps=6", f"Training.micro_batch={micro_batch}",
                f"Training.log_every={log_every}"]  # fmt: skip
    trainer = spoil_steps(Trainer(config(*settings)), fault, {4})
    states, names = [], []

    def record_step(batch):
        states.append(read_weights(trainer))
        names.append(batch["names"])

    call_before_steps(trainer, record_step)
    culprit = "loss of step 5 .*rank 0" if fault == "loss" else "gradient of step 5 .*text"
    with pytest.raises(NotFinite, match=culprit):
        trainer.fit()
    folder = trainer.run / "nonfinite_step_00000005"
    assert len(states) == (5 if log_every == 1 else 6)
    assert_same_arrays(load_file(folder / "model.safetensors"), states[4])
    if log_every > 1:
        assert_same_arrays(read_weights(trainer), states[4])
    assert load_file(folder / "batch_rank0.safetensors")["image_1"].shape == (16, 32, 32, 3)
    about = json.loads((folder / "batch_rank0.json").read_text())
    assert about["names"] == names[4] and len(names[4]) == 16 and bool(about["gradients"])
    assert (about["losses"]["loss"] == "nan") == (fault == "loss")
    # All checkpoints before the bad step exist, and a run that skips such steps resumes from the last one.
    assert [path.name for path in list_checkpoints(trainer.run)] == ["step_00000002", "step_00000004"]
    resumed = spoil_steps(Trainer(config(*settings, "Training.nonfinite=skip"), resume=True), fault, {4})
    assert resumed.step == 4 and resumed.fit() and resumed.nonfinite_steps.num_skipped == 1


@pytest.mark.parametrize("nonfinite", ["stop", "skip"])
def test_host_waits_for_the_device_as_late_as_possible(config, monkeypatch, nonfinite):
    # The losses of a step are read after the forward of the next one; at once if the step may be skipped.
    calls = []
    monkeypatch.setattr(
        "ernie_vil2.training.update.start_host_copy", lambda values: lambda: calls.append("read") or values
    )
    trainer = Trainer(config("Training.log_every=100", "Training.steps=3", f"Training.nonfinite={nonfinite}"))
    forward, backward = trainer.task.forward, trainer.task.backward
    trainer.task.forward = lambda *arguments: calls.append("forward") or forward(*arguments)
    trainer.task.backward = lambda: calls.append("backward") or backward()
    trainer.fit()
    if nonfinite == "stop":
        assert calls == ["forward", "backward", *["forward", "read", "backward"] * 2, "read"]
    else:
        assert calls == ["forward", "backward", "read"] * 3


def read_step_state(trainer):
    """Return all arrays that a step may change: weights, statistics and the state of the optimiser."""
    moments = trainer.optimizer.state_dict().items()
    return read_weights(trainer) | {key: value.numpy() for key, value in moments if isinstance(value, paddle.Tensor)}


@pytest.mark.parametrize(("fault", "image"), [
    pytest.param("gradient", [], marks=pytest.mark.slow), ("loss", [REPVGG])
], ids=["gradient", "loss"])  # fmt: skip
def test_skipped_step_changes_nothing_and_is_counted(config, tmp_path, capsys, fault, image):
    settings = [*image, "Training.nonfinite=skip", "Training.max_skipped_share=0.5", "Training.steps=5"]
    trainer = spoil_steps(Trainer(config(*settings)), fault, {1, 3})
    states = []
    call_before_steps(trainer, lambda batch: states.append(read_step_state(trainer)))
    assert trainer.fit() and trainer.step == 5 and trainer.nonfinite_steps.num_skipped == 2
    states.append(read_step_state(trainer))
    for number, (previous, current) in enumerate(pairwise(states)):
        is_same = all(np.array_equal(previous.get(name), value) for name, value in current.items())
        assert is_same == (number in (1, 3)), number
    records = read_train_records(trainer.run)
    assert [record["skipped_steps"] for record in records] == [0, 1, 1, 2, 2]
    field = "loss" if fault == "loss" else "gradient_norm"
    assert [record["step"] for record in records if record[field] is None] == [2, 4]
    assert "of step 2 is not finite (" in capsys.readouterr().err
    for number in (2, 4):
        folder = trainer.run / f"nonfinite_step_{number:08d}"
        assert [path.name for path in folder.iterdir()] == ["batch_rank0.json"]
        assert len(json.loads((folder / "batch_rank0.json").read_text())["names"]) == 16
    # A run that is interrupted between the two bad steps ends the same.
    interrupted = config(*settings, "Training.checkpoint_every=2", f"Training.output={tmp_path / 'interrupted'}")
    crash_after(spoil_steps(Trainer(interrupted), fault, {1, 3}), 3)
    resumed = spoil_steps(Trainer(interrupted, resume=True), fault, {1, 3})
    assert resumed.nonfinite_steps.num_skipped == 1 and resumed.fit()
    assert read_losses(resumed) == read_losses(trainer) and resumed.nonfinite_steps.num_skipped == 2
    assert_same_arrays(read_last_weights(resumed), read_last_weights(trainer))


@pytest.mark.parametrize(("share", "finite_steps", "last"), [
    (1.0, {0, 2}, 3 + MAX_NONFINITE_STEPS),
    (0.4, set(range(1, 12, 2)), 5),  # every other step is skipped; the share is checked from step 5 on: 3 of 5
], ids=["in a row", "share"])  # fmt: skip
def test_too_many_skipped_steps_end_a_run_early(config, monkeypatch, share, finite_steps, last):
    monkeypatch.setattr("ernie_vil2.training.update.MIN_STEPS_FOR_SHARE", 5)
    settings = ["Training.nonfinite=skip", "Training.steps=16", "Training.checkpoint_every=1",
                "Training.keep_checkpoints=1", f"Training.max_skipped_share={share}"]  # fmt: skip
    trainer = spoil_steps(Trainer(config(*settings)), "gradient", set(range(16)) - finite_steps)
    with pytest.raises(NotFinite, match=f"step {last} is"):
        trainer.fit()
    assert (trainer.run / f"nonfinite_step_{last:08d}" / "model.safetensors").exists()
    for name, value in read_last_weights(trainer).items():
        assert np.isfinite(value).all(), name


def test_too_many_skipped_steps_fail_a_finished_run(config):
    settings = ["Training.nonfinite=skip", "Training.steps=4", "Evaluation.every=2"]
    trainer = spoil_steps(Trainer(config(*settings, "Training.max_skipped_share=0.7")), "gradient", {0, 1, 2})
    with pytest.raises(NotFinite, match="3 of 4 steps .*Training.max_skipped_share"):
        trainer.fit()
    assert list_checkpoints(trainer.run)[-1].name == "step_00000004"
    with pytest.raises(NotFinite, match="3 of 4 steps"):
        Trainer(config(*settings, "Training.max_skipped_share=0.7"), resume=True).fit()
    assert Trainer(config(*settings, "Training.max_skipped_share=0.75"), resume=True).fit()


def test_nonfinite_weights_are_not_saved(config):
    # The last position embedding is used by no text, so neither loss nor gradients show that it is not finite.
    trainer = Trainer(config("Training.checkpoint_every=2", "Training.keep_checkpoints=1"))
    positions = trainer.model.text.network.embeddings.position_embeddings.weight

    @paddle.no_grad()
    def spoil(batch):
        if trainer.step == 3:
            positions[-1, -1] = math.nan

    call_before_steps(trainer, spoil)
    with pytest.raises(NotFinite, match=r"weights after step 4 .*\(text.*position"):
        trainer.fit()
    [checkpoint] = list_checkpoints(trainer.run)
    assert checkpoint.name == "step_00000002" and recover_checkpoint(trainer.run) == checkpoint


class Scaler:
    """Simple implementation of Paddle's loss scaler, which works only on a GPU."""

    def __init__(self, scale):
        self.factor, self.is_overflow = scale, False

    def is_enable(self):
        return True

    def scale(self, value):
        return value * paddle.to_tensor([self.factor])

    @paddle.no_grad()
    def step(self, optimizer):
        gradients = [p.grad for p in optimizer._parameter_list if p.grad is not None]
        for gradient in gradients:
            gradient.scale_(1 / self.factor)
        self.is_overflow = any(not paddle.isfinite(gradient).all() for gradient in gradients)
        if not self.is_overflow:
            optimizer.step()

    def update(self):
        if self.is_overflow:
            self.factor /= 2

    def state_dict(self):
        return {"scale": np.array([self.factor], "float32")}


def test_loss_scaler_skips_steps_down_to_scale_one(config, tmp_path):
    plain = fit(config("Training.steps=1", f"Training.output={tmp_path / 'plain'}"))
    for steps, last_step in (({1, 2}, None), ({1, 2, 3, 4}, 4)):
        trainer = Trainer(config(f"Training.output={tmp_path / str(last_step)}"))
        trainer.scaler = trainer.task._step.scaler = trainer.update._scaler = Scaler(4.0)
        spoil_steps(trainer, "infinite gradient", steps)
        if last_step:
            with pytest.raises(NotFinite, match=f"gradient of step {last_step} is"):
                trainer.fit()
        else:
            assert trainer.fit() and trainer.nonfinite_steps.num_skipped == 0
            checkpoint = list_checkpoints(trainer.run)[-1]
            assert json.loads((checkpoint / "state.json").read_text())["scaler"] == {"scale": [1.0]}
        assert trainer.scaler.factor == 1.0
        assert read_norms(trainer)[0] == pytest.approx(read_norms(plain)[0], rel=1e-5)  # without the scale
        assert read_norms(trainer)[1:3] == [None, None]


@pytest.mark.parametrize(("ranks", "stage"), [(1, "stage2"), (3, "none"), (3, "stage2")])
def test_squared_norms_of_the_ranks_add_up(monkeypatch, ranks, stage):
    # Without sharding, each rank has the averages of all gradients; with stage2, the sums of those it owns.
    rng = np.random.default_rng(0)
    averages = [rng.normal(size=size) for size in (1, 9, 4, 4)]
    parameters = [paddle.create_parameter(average.shape, "float32") for average in averages]
    for parameter, average in zip(parameters, averages, strict=True):
        parameter.grad = paddle.to_tensor(average * (ranks if stage == "stage2" else 1), "float32")
    owners = {parameter.name: number % ranks for number, parameter in enumerate(parameters)}
    monkeypatch.setattr(dist, "get_world_size", lambda: ranks)
    total = 0.0
    for rank in range(ranks):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        optimizer = SimpleNamespace(param2rank=owners)
        total += float(compute_squared_gradient_norms(optimizer, parameters, stage)[1].sum())
    assert total == pytest.approx(sum((average**2).sum() for average in averages), rel=1e-5)
