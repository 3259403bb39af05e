"""The training loop on a tiny model; golden_losses.json holds what it logged when it was last looked at."""

import json
import math
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ernie_vil2
from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.data.readers import open_sources
from ernie_vil2.device.runtime import check_precision
from ernie_vil2.losses import NoNegatives
from ernie_vil2.training.checkpoint import check_checkpoint, list_checkpoints
from ernie_vil2.training.optimizer import learning_rate, scaler_state, with_steps
from ernie_vil2.training.trainer import Trainer
from tests.support.shapes import draw, png, write_tsv
from tests.support.trainings import (
    REPVGG,
    assert_same_arrays,
    check_resume,
    crash_after,
    evaluation_records,
    fit,
    losses,
    tiny_run,
    train_records,
    weights,
)

GOLDEN = Path(__file__).with_name("golden_losses.json")


def test_steps_do_not_depend_on_when_the_host_waits(config, tmp_path):
    """Records, and steps that may be left out, make the host wait; otherwise it learns of a step in the next."""
    results = []
    for change in ("Training.log_every=100", "Training.log_every=1", "Training.nonfinite=skip"):
        output = f"Training.output={tmp_path / str(len(results))}"
        trainer = fit(config(REPVGG, "Tuning.ema=0.9", change, "Training.steps=3", output))
        results.append(weights(trainer))
    assert_same_arrays(results[1], results[0])
    assert_same_arrays(results[2], results[0])


def test_losses_are_golden_and_the_newest_checkpoints_kept(config):
    """A change that moves these numbers must be meant; then write the new ones: see the message."""
    settings = ["Model.text.vocabulary=null", "Training.checkpoint_every=2", "Training.keep_checkpoints=2"]
    trainer = fit(config(*settings))
    now, golden = np.array(losses(trainer)), np.array(json.loads(GOLDEN.read_text()))
    # Processors sum in different orders, and eight steps let that grow.
    assert np.allclose(now, golden, rtol=2e-3), f"if the change is meant, {GOLDEN.name} becomes\n{now.tolist()}"
    assert np.allclose(now[:, 0], now[:, 1:].sum(axis=1), rtol=1e-5)
    assert [path.name for path in list_checkpoints(trainer.run)] == ["step_00000006", "step_00000008"]
    assert not list(trainer.run.rglob("*.partial"))


def test_sigmoid_loss_learns_its_bias_and_resumes(config, tmp_path):
    changes = ["Loss.kind=sigmoid", "Loss.temperature=0.1"]
    trainer = check_resume(lambda *more: config(*changes, *more), tmp_path)
    assert {"logit_scale", "logit_bias"} <= train_records(trainer.run)[-1].keys()
    model = ernie_vil2.load_model(trainer.run)
    bias = model.backend.model.logit_bias.numpy()
    assert bias != -10
    np.testing.assert_array_equal(bias, weights(trainer)["logit_bias"])


def test_first_loss_is_that_of_chance(config):
    """With 16 concepts in random batches of 16, log 16 is what chance gives when duplicates do not count."""
    trainer = fit(config("Loss.duplicates=ignored", "Training.steps=1", "Loss.temperature=1.0"))
    assert losses(trainer)[0][3:] == pytest.approx([math.log(16)] * 2, rel=0.1)


RESUMED = ["Model.text.dropout=0.1", "Training.steps=6", "Training.checkpoint_every=2"]


@pytest.fixture(scope="module")
def crashed(shapes, tmp_path_factory):
    """A whole run of six steps, and the folder of one that crashed in the sixth."""
    folder = tmp_path_factory.mktemp("crashed")
    whole = fit(load_config(None, [*tiny_run(shapes, folder / "whole"), *RESUMED]))
    crash_after(Trainer(load_config(None, [*tiny_run(shapes, folder / "run"), *RESUMED])), 5)
    return whole, folder / "run"


@pytest.mark.parametrize("change", ["nothing", "damage", "moved data"])
def test_resume_after_crash_is_bit_equal(config, crashed, shapes, tmp_path, change, capsys):
    whole, folder = crashed
    shutil.copytree(folder, tmp_path / "run")
    newest, settings = list_checkpoints(tmp_path / "run")[-1], list(RESUMED)
    if change == "damage":
        (newest / "optimizer.safetensors").write_bytes(b"")
    elif change == "moved data":
        settings.append(f"Data.train=[{{data: [{shutil.copy(shapes['train'], tmp_path)}]}}]")
    paddle.seed(999)  # the state of the process must not matter

    resumed = Trainer(config(*settings), resume=True)
    assert resumed.step == (2 if change == "damage" else 4) and resumed.fit()
    assert losses(resumed) == losses(whole)
    assert_same_arrays(weights(resumed), weights(whole))
    check_checkpoint(newest)
    assert ("optimizer.safetensors" in capsys.readouterr().err) == (change == "damage")


def test_dropout_makes_the_two_text_views_differ(config, tmp_path):
    plain = fit(config("Training.steps=1"))
    dropped = fit(config("Training.steps=1", "Model.text.dropout=0.5", f"Training.output={tmp_path / 'dropped'}"))
    # Without dropout the second view equals the first, with it their loss is larger.
    assert losses(dropped)[0][2] > losses(plain)[0][2] + 0.1


def test_micro_batches_change_nothing(config, tmp_path):
    changes = ["Model.text.dropout=0.2", "Training.steps=4"]
    whole = fit(config(*changes))
    cut = fit(config(*changes, "Training.micro_batch=5", f"Training.output={tmp_path / 'cut'}"))
    assert np.allclose(losses(cut), losses(whole), rtol=1e-4)


def test_pairs_that_are_off_are_not_encoded(config):
    trainer = Trainer(config("Loss.weights={image_image: 0.0, text_text: 0.0}", "Training.steps=2"))
    encoded = []
    trainer.model.register_forward_pre_hook(lambda layer, inputs: encoded.append(set(inputs[0])))
    assert trainer.fit()
    assert encoded == [{"image_1", "text_1"}] * 2
    assert "image_image" not in train_records(trainer.run)[0]


def test_temperature_learns_and_stays_in_its_bounds(config):
    trainer = fit(config("Loss.max_logit_scale=14.5", "Optimizer.learning_rate=0.1", "Training.steps=4"))
    scales = [record["logit_scale"] for record in train_records(trainer.run)]
    assert max(scales) <= 14.5 * (1 + 1e-6) and len(set(scales)) > 1


def test_precision_that_the_device_lacks_is_refused(config, monkeypatch):
    """On CPU Paddle trains on in float32 and only warns; what it computes on GPUs is in test_step.py."""
    with pytest.raises(ValueError, match="bfloat16: .*Training.prec"):
        Trainer(config("Training.precision=bfloat16"))
    assert not Path(config().Training.output).exists()
    for precision in ("float32", "bfloat16", "float16"):
        monkeypatch.setattr(paddle.Tensor, "__matmul__", lambda one, other, to=precision: one.astype(to))
        check_precision(precision)


def test_state_of_a_loss_scaler_survives_json():
    """As GradScaler writes it where it is on; it reads the scale back as `state["scale"][0]`."""
    state = {"scale": np.array([1024.0], np.float32), "incr_count": 3, "use_dynamic_loss_scaling": True}
    again = json.loads(json.dumps(scaler_state(SimpleNamespace(state_dict=lambda: state))))
    assert again["scale"][0] == 1024.0 and again["incr_count"] == 3 and again["use_dynamic_loss_scaling"] is True


def test_best_evaluation_has_its_checkpoint(config):
    settings = ["Evaluation.every=1", "Training.checkpoint_every=100", "Training.keep_checkpoints=1"]
    trainer = fit(config(*settings, "Training.steps=5"))
    metrics = {record["step"]: record["metrics"] for record in evaluation_records(trainer.run)}
    recalls = {step: (values["zh/mR"] + values["en/mR"]) / 2 for step, values in metrics.items()}
    assert list(recalls) == list(range(1, 6))
    best = max(recalls, key=recalls.get)
    assert trainer.best == {"step": best, "metric": "mean_recall", "value": pytest.approx(recalls[best])}
    link = trainer.run / "checkpoints" / "best"
    state = json.loads((link / "state.json").read_text())
    if best == 5:  # saved before it was evaluated
        state |= json.loads((link / "evaluation.json").read_text())
    assert state["step"] == state["evaluated"] == best and state["best"] == trainer.best
    assert {path.name for path in list_checkpoints(trainer.run)} == {f"step_{best:08d}", "step_00000005"}


def test_run_does_not_go_on_with_other_data(config, tmp_path):
    image = png(draw((200, 0, 0), "disc", np.random.default_rng(0)))
    rows = [(f"text {number}", str(number), image) for number in range(20)]
    settings = config(f"Data.train=[{tmp_path}/train.tsv]", "Data.text_id=null", "Training.steps=1")
    write_tsv(tmp_path / "train.tsv", rows)
    fit(settings)
    write_tsv(tmp_path / "train.tsv", rows[:-1])
    with pytest.raises(ValueError, match="train.tsv .* 20 samples .* 19 samples"):
        Trainer(settings, resume=True)


def test_different_images_of_one_name_are_negatives(config, tmp_path, shapes):
    """Hugging Face's tables of embedded images keep the last part of a path: here it is the same one for all."""
    source = open_sources([str(shapes["train"])])
    rows = [
        {"image": {"path": "image.png", "bytes": source[row].image}, "caption_en": f"text {row}"} for row in range(64)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    settings = (f"Data.train=[{tmp_path}/train.parquet]", "Data.text_id=null", "Views.languages={en: 1.0}")
    trainer = fit(config(*settings, "Loss.duplicates=masked", "Training.steps=1"))
    assert min(losses(trainer)[0][3:]) > 1


def test_batch_without_negatives_ends_the_run(config, tmp_path, shapes):
    source = open_sources([str(shapes["train"])])
    write_tsv(tmp_path / "train.tsv", [("the same text", str(row), source[row].image) for row in range(32)])
    settings = (f"Data.train=[{tmp_path}/train.tsv]", "Data.text_id=null", "Views.languages={en: 1.0}")
    with pytest.raises(NoNegatives, match="^16 of the 16 rows .* 1 row, one text in 16"):
        Trainer(config(*settings, "Loss.duplicates=masked")).fit()


def test_run_folder_is_not_used_twice_by_accident(config):
    fit(config("Training.steps=1"))
    with pytest.raises(ConfigError, match="--resume"):
        Trainer(config("Training.steps=1"))
    with pytest.raises(ConfigError, match="Loss.weights.text_text, Optimizer.learning_rate"):
        Trainer(config("Training.steps=1", "Optimizer.learning_rate=1.0", "Loss.weights.text_text=2.0"), resume=True)
    finished = Trainer(config("Training.steps=1", "Data.workers=1"), resume=True)
    with pytest.raises(ConfigError, match=f"process {os.getpid()} "):
        Trainer(config("Training.steps=1"), resume=True)
    assert finished.fit() and finished.step == 1
    assert Trainer(config("Training.steps=1"), resume=True).fit()


def test_finished_run_is_extended_past_its_warm_up(config, tmp_path):
    """A run of four steps has a shorter warm-up; those that are added have the rates of the whole one."""
    settings = ["Training.checkpoint_every=2", "Schedule.warmup_steps=6"]
    short, long = [config(*settings, f"Training.steps={steps}") for steps in (4, 8)]
    first = fit(short)
    with pytest.raises(ConfigError, match="--resume --extend"):
        Trainer(long, resume=True)
    for change, key in (("Training.steps=3", "Training.steps"), ("Optimizer.beta1=0.5", "Optimizer.beta1")):
        with pytest.raises(ConfigError, match=f"other values of {key};"):
            Trainer(config(*settings, "Training.steps=8", change), resume=True, extend=True)
    copy = shutil.copytree(first.run, tmp_path / "copy")
    begun = losses(first)

    extended = Trainer(long, resume=True, extend=True)
    assert extended.step == 4 and extended.fit() and extended.step == 8
    rates = [record["learning_rate"] for record in train_records(extended.run)]
    fitted = with_steps(short, 128)
    assert rates == [learning_rate(step, fitted if step < 4 else long) for step in range(8)]
    assert rates[4:6] == pytest.approx([1e-3 * 5 / 6, 1e-3])
    assert losses(extended)[:4] == begun

    # It may be interrupted again, and is a run of eight steps then.
    long = config(*settings, "Training.steps=8", f"Training.output={copy}")
    crash_after(Trainer(long, resume=True, extend=True), 7)
    again = Trainer(long, resume=True)
    assert again.step == 6 and again.fit() and losses(again) == losses(extended)
    assert_same_arrays(weights(again), weights(extended))
