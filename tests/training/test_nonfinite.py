"""Losses, gradients and weights that are not finite: what is left out, what ends a run, and what is never saved."""

import json
import math

import numpy as np
import paddle
import paddle.distributed as dist
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from ernie_vil2.training import optimizer
from ernie_vil2.training.checkpoint import list_checkpoints, recover
from ernie_vil2.training.run_log import read_log
from ernie_vil2.training.step_agreement import MOST_NOT_FINITE, NotFinite
from ernie_vil2.training.trainer import Trainer
from tests.training.test_trainer import losses, weights

REPVGG = "Model.image={name: RepVGG, image_size: 32, width: 8, depth: 1}"
VALUES = {"gradient": math.nan, "infinite gradient": math.inf, "loss": math.nan}


def spoilt(trainer, what, steps):
    """Makes gradients or losses of some steps, counted from 0, not finite."""
    backward, forward = trainer.task._step.backward, trainer.task._step.forward

    def spoil_gradient():
        backward()
        if trainer.step in steps:
            trainer.model.text.parameters()[3].grad[0] = VALUES[what]

    def spoil_loss(*arguments):
        total, pairs = forward(*arguments)
        if trainer.step in steps:
            trainer.task._step._total = trainer.task._step._total * math.nan
            total = total * math.nan
            for statistic in trainer.update._statistics:  # as activations do that are NaN
                statistic.set_value(statistic * math.nan)
        return total, pairs

    if what == "loss":
        trainer.task._step.forward = spoil_loss
    else:
        trainer.task._step.backward = spoil_gradient
    return trainer


def make_nan(tensor):
    """Of a tensor's last value."""
    array = tensor.numpy()
    array.flat[-1] = math.nan
    tensor.set_value(array)


def norms(trainer):
    return [record["gradient_norm"] for record in read_log(trainer.run / "log.jsonl") if record["kind"] == "train"]


def state(trainer):
    return {name: value.numpy() for name, value in trainer.model.state_dict().items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("micro_batch", ["null", 3])
def test_the_norm_is_that_of_all_gradients_before_clipping(config, micro_batch):
    trainer = Trainer(config("Training.steps=3", f"Training.micro_batch={micro_batch}", "Optimizer.clip_norm=0.01"))
    backward, expected = trainer.task._step.backward, []

    def noted():
        backward()
        squares = [
            (p.grad.numpy().astype("float64") ** 2).sum() for p in trainer.model.parameters() if p.grad is not None
        ]
        expected.append(sum(squares) ** 0.5)

    trainer.task._step.backward = noted
    trainer.fit()
    assert norms(trainer) == pytest.approx(expected, rel=1e-5) and min(expected) > 0.1


@pytest.mark.parametrize(("what", "image", "micro_batch"), [
    ("gradient", [], "null"),
    pytest.param("infinite gradient", [REPVGG], 3, marks=pytest.mark.slow),
    ("loss", [REPVGG], "null"),
    ("loss", [], 3),
], ids=["gradient", "cached", "statistics", "loss"])  # fmt: skip
def test_a_run_stops_before_the_update_and_the_evidence_holds_the_last_good_weights(config, what, image, micro_batch):
    settings = [*image, "Training.checkpoint_every=2", f"Training.micro_batch={micro_batch}"]
    trainer = spoilt(Trainer(config(*settings)), what, {5})
    before, states = trainer._train_step, []

    def step(batch, rate):
        states.append(state(trainer))
        return before(batch, rate)

    trainer._train_step = step
    message = "the loss of step 6 is not finite .rank 0: loss nan, image_image [0-9]" if what == "loss" else (
        r"the gradient of step 6 is not finite \(text\.[a-z0-9_.]+\)")  # fmt: skip
    with pytest.raises(NotFinite, match=message + ".*-o Training.nonfinite=skip") as caught:
        trainer.fit()
    folder = trainer.run / "nonfinite_step_00000006"
    assert str(folder) in str(caught.value)
    assert len(states) == 6
    assert_equal(load_file(folder / "model.safetensors"), states[-1])
    batch = load_file(folder / "batch_rank0.safetensors")
    assert batch["image_1"].shape == (16, 32, 32, 3)
    about = json.loads((folder / "batch_rank0.json").read_text())
    assert len(about["names"]) == 16 and bool(about["gradients"])
    assert (about["losses"]["loss"] == "nan") == (what == "loss")
    # Good checkpoints are all there; going on comes to the same step, or passes it by.
    assert [path.name for path in list_checkpoints(trainer.run)] == ["step_00000002", "step_00000004"]
    with pytest.raises(NotFinite, match="step 6"):
        spoilt(Trainer(config(*settings), resume=True), what, {5}).fit()
    resumed = spoilt(Trainer(config(*settings, "Training.nonfinite=skip"), resume=True), what, {5})
    assert resumed.step == 4 and resumed.fit() and resumed.nonfinite.skipped == 1


@pytest.mark.parametrize(("what", "image"), [
    ("gradient", []), ("infinite gradient", [REPVGG]), ("loss", [REPVGG]),
], ids=["gradient", "infinite", "loss"])  # fmt: skip
def test_between_records_the_host_learns_of_it_a_step_later_and_nothing_has_changed(config, what, image):
    trainer = spoilt(Trainer(config(*image, "Training.log_every=100", "Training.checkpoint_every=4")), what, {5})
    step, states, names = trainer._train_step, [], []

    def noted(batch, rate):
        states.append(state(trainer))
        names.append(batch["names"])
        step(batch, rate)

    trainer._train_step = noted
    with pytest.raises(NotFinite, match="of step 6 is not finite"):
        trainer.fit()
    assert len(states) == 7 and trainer.step == 6  # in the next step, before its backward
    folder = trainer.run / "nonfinite_step_00000006"
    assert_equal(load_file(folder / "model.safetensors"), states[5])
    assert_equal(state(trainer), states[5])
    assert json.loads((folder / "batch_rank0.json").read_text())["names"] == names[5] != names[6]
    assert [path.name for path in list_checkpoints(trainer.run)] == ["step_00000004"]


@pytest.mark.parametrize("nonfinite", ["stop", "skip"])
def test_when_the_host_waits_for_the_device(config, monkeypatch, nonfinite):
    """A step is asked for its losses after the forward of the next one; at once where it may be left out."""
    calls = []
    monkeypatch.setattr("ernie_vil2.training.update.fetched", lambda values: lambda: calls.append("read") or values)
    trainer = Trainer(config("Training.log_every=100", "Training.steps=4", f"Training.nonfinite={nonfinite}"))
    forward, backward = trainer.task.forward, trainer.task.backward
    trainer.task.forward = lambda *arguments: calls.append("forward") or forward(*arguments)
    trainer.task.backward = lambda: calls.append("backward") or backward()
    trainer.fit()
    if nonfinite == "stop":
        assert calls == ["forward", "backward", *["forward", "read", "backward"] * 3, "read"]
    else:
        assert calls == ["forward", "backward", "read"] * 4


@pytest.mark.parametrize(("what", "image"), [("gradient", []), ("loss", [REPVGG])], ids=["gradient", "loss"])
def test_a_step_left_out_changes_nothing_and_is_counted_and_named(config, tmp_path, capsys, what, image):
    settings = [*image, "Training.nonfinite=skip"]
    trainer = spoilt(Trainer(config(*settings)), what, {2, 5})
    before, step = {}, trainer._train_step

    def noted(batch, rate):
        number, old = trainer.step, state(trainer)
        old |= {key: value.numpy() for key, value in trainer.optimizer.state_dict().items()
                if isinstance(value, paddle.Tensor)}  # fmt: skip
        found = step(batch, rate)
        new = {**state(trainer), **{key: value.numpy() for key, value in trainer.optimizer.state_dict().items()
                                    if isinstance(value, paddle.Tensor)}}  # fmt: skip
        before[number] = all(np.array_equal(old.get(name), value) for name, value in new.items())
        return found

    trainer._train_step = noted
    assert trainer.fit() and trainer.step == 8 and trainer.nonfinite.skipped == 2
    assert [number for number, same in before.items() if same] == [2, 5]
    records = read_log(trainer.run / "log.jsonl")
    assert [record["skipped_steps"] for record in records] == [0, 0, 1, 1, 1, 2, 2, 2]
    spoilt_name = "loss" if what == "loss" else "gradient_norm"
    assert [record["step"] for record in records if record[spoilt_name] is None] == [3, 6]
    assert "NaN" not in (trainer.run / "log.jsonl").read_text()
    assert all(np.isfinite(value).all() for value in weights(trainer).values())
    error = capsys.readouterr().err
    assert "of step 3 is not finite (" in error and "the step is left out (2 so far), names are in " in error
    assert error.rstrip().endswith("warning: 2 steps that were not finite were left out")
    for number in (3, 6):
        folder = trainer.run / f"nonfinite_step_{number:08d}"
        assert [path.name for path in folder.iterdir()] == ["batch_rank0.json"]
        assert len(json.loads((folder / "batch_rank0.json").read_text())["names"]) == 16
    # Interrupted in between, it is the same run.
    parts = [*settings, "Training.checkpoint_every=4", f"Training.output={tmp_path / 'parts'}"]
    stops = spoilt(Trainer(config(*parts)), what, {2, 5})
    original = stops._train_step

    def crash(batch, rate):
        if stops.step == 5:
            raise KeyboardInterrupt
        return original(batch, rate)

    stops._train_step = crash
    with pytest.raises(KeyboardInterrupt):
        stops.fit()
    again = spoilt(Trainer(config(*parts), resume=True), what, {2, 5})
    assert again.nonfinite.skipped == 1 and again.fit()
    assert losses(again) == losses(trainer) and again.nonfinite.skipped == 2
    assert_equal(weights(again), weights(trainer))


def test_too_many_steps_in_a_row_end_the_run(config):
    steps = MOST_NOT_FINITE + 4
    settings = ["Training.nonfinite=skip", f"Training.steps={steps}", "Training.checkpoint_every=1",
                "Training.keep_checkpoints=1"]  # fmt: skip
    trainer = spoilt(Trainer(config(*settings)), "gradient", set(range(steps)) - {0, 2})
    with pytest.raises(NotFinite, match=f"as those of the {MOST_NOT_FINITE - 1} before; batches and weights are in "):
        trainer.fit()
    assert (
        trainer.step == 2 + MOST_NOT_FINITE and (trainer.run / "nonfinite_step_00000013" / "model.safetensors").exists()
    )
    assert all(np.isfinite(value).all() for value in weights(trainer).values())


@pytest.mark.parametrize(("steps", "skipped", "allowed", "ends"), [
    (4, {0, 1, 2, 3}, 0.25, True),
    (4, {0, 1, 2}, 0.5, True),
    (4, {0, 1}, 0.5, False),
    (4, {0, 1, 2, 3}, 1.0, False),
])  # fmt: skip
def test_a_run_that_left_out_too_many_steps_ends_in_an_error(config, steps, skipped, allowed, ends):
    settings = ["Training.nonfinite=skip", f"Training.steps={steps}", f"Training.max_skipped_share={allowed}",
                "Evaluation.every=2"]  # fmt: skip
    trainer = spoilt(Trainer(config(*settings)), "gradient", skipped)
    if not ends:
        assert trainer.fit() and trainer.nonfinite.skipped == len(skipped)
        return
    message = f"{len(skipped)} of {steps} steps .* Training.max_skipped_share = {allowed}"
    with pytest.raises(NotFinite, match=message):
        trainer.fit()
    assert list_checkpoints(trainer.run)[-1].name == f"step_{steps:08d}"
    with pytest.raises(NotFinite, match=message):  # as a run that is finished
        Trainer(config(*settings), resume=True).fit()
    assert Trainer(config(*settings, "Training.max_skipped_share=1.0"), resume=True).fit()


def test_the_share_of_steps_left_out_ends_a_run_in_its_course(config, monkeypatch):
    """Every other step: judged from the fifth on, which is beyond a share of 0.4, as three of five are."""
    monkeypatch.setattr("ernie_vil2.training.step_agreement.STEPS_BEFORE_SHARE", 5)
    settings = ["Training.nonfinite=skip", "Training.steps=12", "Training.max_skipped_share=0.4"]
    trainer = spoilt(Trainer(config(*settings)), "gradient", set(range(0, 12, 2)))
    with pytest.raises(NotFinite, match="step 5 is not finite .*3 of 5 steps"):
        trainer.fit()
    assert (trainer.run / "nonfinite_step_00000005" / "model.safetensors").exists()


def test_weights_that_are_not_finite_are_not_saved_and_nothing_is_pruned(config):
    """Rows of the embedding of positions that no text reaches: neither loss nor gradient shows them."""
    trainer = Trainer(config("Training.checkpoint_every=2", "Training.keep_checkpoints=1"))
    step = trainer._train_step

    def spoil(batch, rate):
        found = step(batch, rate)
        if trainer.step == 3:
            make_nan(dict(trainer.model.named_parameters())["text.network.embeddings.position_embeddings.weight"])
        return found

    trainer._train_step = spoil
    with pytest.raises(NotFinite, match=r"the weights after step 4 are not finite \(text.*position.*not saved"):
        trainer.fit()
    [kept] = list_checkpoints(trainer.run)
    assert kept.name == "step_00000002" and recover(trainer.run) == kept
    assert not list((trainer.run / "checkpoints").glob(".*"))


class Scaler:
    """What Paddle's scaler does on a GPU, where it can be switched on; here in plain words."""

    def __init__(self, scale):
        self.factor, self.updates, self.found = scale, 0, False

    def is_enable(self):
        return True

    def scale(self, value):
        return value * paddle.to_tensor([self.factor])

    @paddle.no_grad()
    def step(self, optimizer):
        gradients = [p.grad for p in optimizer._parameter_list if p.grad is not None]
        for gradient in gradients:
            gradient.scale_(1 / self.factor)
        self.found = not all(bool(paddle.isfinite(gradient).all()) for gradient in gradients)
        if not self.found:
            optimizer.step()
            self.updates += 1

    def update(self):
        self.factor /= 1 + self.found

    def state_dict(self):
        return {"scale": np.array([self.factor], "float32")}


def test_steps_that_the_loss_scaler_leaves_out_are_not_failures_until_it_has_nothing_to_lower(config, tmp_path):
    plain = Trainer(config("Training.steps=3", f"Training.output={tmp_path / 'plain'}"))
    plain.fit()
    for steps, ends in (({1, 2}, None), ({1, 2, 3, 4}, 4)):
        trainer = Trainer(config(f"Training.output={tmp_path / str(ends)}"))
        trainer.scaler = trainer.task._step.scaler = trainer.update._scaler = Scaler(4.0)
        spoilt(trainer, "infinite gradient", steps)
        if ends:
            with pytest.raises(NotFinite, match=f"gradient of step {ends} is"):
                trainer.fit()
        else:
            assert trainer.fit() and trainer.nonfinite.skipped == 0 and trainer.scaler.updates == 6
            state = json.loads((list_checkpoints(trainer.run)[-1] / "state.json").read_text())
            assert state["scaler"] == {"scale": [1.0]}
        assert trainer.scaler.factor == 1.0
        assert norms(trainer)[0] == pytest.approx(norms(plain)[0], rel=1e-5)  # without the scale
        assert norms(trainer)[1:3] == [None, None]


@given(
    ranks=st.integers(1, 4),
    stage=st.sampled_from(["none", "stage2"]),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    data=st.data(),
)
def test_shares_of_the_ranks_add_up(ranks, stage, sizes, data):
    """Without sharding every rank has all averages; with stage2 each has the sums of its own parameters."""
    rng = np.random.default_rng(0)
    expected, parameters, owners = 0.0, [], {}
    for size in sizes:
        parameter = paddle.create_parameter([size], "float32")
        average = rng.normal(size=size).astype("float32")
        expected += (average.astype("float64") ** 2).sum()
        parameter.grad = paddle.to_tensor(average * (ranks if stage == "stage2" and ranks > 1 else 1))
        owners[parameter.name] = data.draw(st.integers(0, ranks - 1))
        parameters.append(parameter)

    class Optimizer:
        param2rank = owners

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "get_world_size", lambda: ranks)
        shares = []
        for rank in range(ranks):
            patch.setattr(dist, "get_rank", lambda rank=rank: rank)
            shares.append(float(optimizer.squared_gradient_norms(Optimizer(), parameters, stage)[1].sum()))
    assert sum(shares) == pytest.approx(expected, rel=1e-5)
