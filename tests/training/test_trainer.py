"""The training loop on a tiny model; golden_losses.json holds what it logged when it was last looked at."""

import json
import math
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

import ernie_vil2
from ernie_vil2.config import ConfigError
from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.samples import TooManyBadSamples
from ernie_vil2.device.runtime import check_precision
from ernie_vil2.losses import NoNegatives
from ernie_vil2.training.checkpoint import changed_settings, check_checkpoint, list_checkpoints
from ernie_vil2.training.optimizer import learning_rate, scaler_state
from ernie_vil2.training.run_log import read_log
from ernie_vil2.training.trainer import Trainer
from tests.support.shapes import draw, png, write_tsv

GOLDEN = Path(__file__).with_name("golden_losses.json")
PAIRS = ("image_image", "text_text", "image_text", "text_image")

REPVGG = "Model.image={name: RepVGG, image_size: 32, width: 8, depth: 1}"


def losses(trainer):
    records = read_log(trainer.run / "log.jsonl")
    return [[record["loss"], *(record[pair] for pair in PAIRS)] for record in records if record["kind"] == "train"]


def weights(trainer):
    return load_file(list_checkpoints(trainer.run)[-1] / "model.safetensors")


@pytest.mark.parametrize("what", [["Tuning.ema=0.9"], [REPVGG]], ids=["average", "norms"])
def test_how_often_a_step_is_waited_for_changes_nothing(config, tmp_path, what):
    """Records, and steps that may be left out, make the host wait; otherwise it learns of a step in the next."""
    found = []
    for changes in (["Training.log_every=100"], ["Training.log_every=1"], ["Training.nonfinite=skip"]):
        output = f"Training.output={tmp_path / str(len(found))}"
        trainer = Trainer(config(*what, *changes, "Training.steps=4", output))
        assert trainer.fit()
        found.append(weights(trainer))
    for other in found[1:]:
        for name, value in found[0].items():
            np.testing.assert_array_equal(other[name], value, err_msg=name)


def crash_after(trainer, steps):
    """Trains so many steps and ends as a crash does: with no checkpoint but those on the way."""
    original = trainer._train_step

    def step(batch, rate):
        if trainer.step == steps:
            raise KeyboardInterrupt
        return original(batch, rate)

    trainer._train_step = step
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()


def test_losses_are_the_golden_ones(config):
    """A change that moves these numbers must be meant; then write the new ones: see the message."""
    trainer = Trainer(config("Model.text.vocabulary=null"))
    trainer.fit()
    now, golden = np.array(losses(trainer)), np.array(json.loads(GOLDEN.read_text()))
    # Processors sum in different orders, and eight steps let that grow.
    assert np.allclose(now, golden, rtol=2e-3), f"if the change is meant, {GOLDEN.name} becomes\n{now.tolist()}"
    assert np.allclose(now[:, 0], now[:, 1:].sum(axis=1), rtol=1e-5)


def test_the_sigmoid_loss_learns_its_bias_and_resumes(config):
    changes = ["Loss.kind=sigmoid", "Loss.temperature=0.1", "Training.checkpoint_every=4"]
    trainer = Trainer(config(*changes))
    crash_after(trainer, 6)
    resumed = Trainer(config(*changes), resume=True)
    assert resumed.step == 4 and resumed.model.logit_bias.item() != -10
    resumed.fit()
    records = [record for record in read_log(resumed.run / "log.jsonl") if record["kind"] == "train"]
    assert {"logit_scale", "logit_bias"} <= records[-1].keys()
    assert records[-1]["loss"] < records[0]["loss"]
    model = ernie_vil2.load_model(resumed.run)
    np.testing.assert_array_equal(model.backend.model.logit_bias.numpy(), weights(resumed)["logit_bias"])


def test_first_losses_are_those_of_an_untrained_model(config):
    """With 16 concepts in random batches of 16, log 16 is what chance gives when duplicates do not count."""
    trainer = Trainer(config("Loss.duplicates=ignored", "Training.steps=3", "Loss.temperature=1.0"))
    trainer.fit()
    assert losses(trainer)[0][3:] == pytest.approx([math.log(16)] * 2, rel=0.1)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_resumed_run_ends_where_the_whole_one_ends(config, tmp_path, dropout):
    changes = [f"Model.text.dropout={dropout}", "Training.steps=6"]
    whole = Trainer(config(*changes, f"Training.output={tmp_path / 'whole'}"))
    assert whole.fit()

    first = Trainer(config(*changes, "Training.checkpoint_every=5"))
    crash_after(first, 5)
    paddle.seed(999)  # the state of the process must not matter
    second = Trainer(config(*changes, "Training.checkpoint_every=5"), resume=True)
    assert second.step == 5 and second.fit()
    assert losses(second) == losses(whole)
    for name, value in weights(whole).items():
        assert np.array_equal(value, weights(second)[name]), name


def test_dropout_makes_the_two_text_views_differ(config):
    plain = Trainer(config("Training.steps=3"))
    plain.fit()
    dropped = Trainer(config("Training.steps=3", "Model.text.dropout=0.5", "Training.output=" + str(plain.run) + "2"))
    dropped.fit()
    # Without dropout the second view equals the first, with it their loss is larger.
    assert losses(dropped)[0][2] > losses(plain)[0][2] + 0.1


def test_micro_batches_change_nothing(config, tmp_path):
    dropped = "Model.text.dropout=0.2"
    whole = Trainer(config(dropped))
    whole.fit()
    parts = Trainer(config(dropped, "Training.micro_batch=5", f"Training.output={tmp_path / 'parts'}"))
    parts.fit()
    assert np.allclose(losses(parts), losses(whole), rtol=1e-4)


def test_pairs_that_are_off_are_not_encoded(config):
    trainer = Trainer(config("Loss.weights={image_image: 0.0, text_text: 0.0}", "Training.steps=3"))
    encoded = []
    trainer.model.register_forward_pre_hook(lambda layer, inputs: encoded.append(set(inputs[0])))
    trainer.fit()
    assert all(views == {"image_1", "text_1"} for views in encoded) and len(encoded) == 3
    assert "image_image" not in read_log(trainer.run / "log.jsonl")[0]


def test_the_temperature_learns_and_stays_in_its_bounds(config):
    trainer = Trainer(config("Loss.max_logit_scale=14.5", "Optimizer.learning_rate=0.1"))
    trainer.fit()
    scales = [record["logit_scale"] for record in read_log(trainer.run / "log.jsonl")]
    assert max(scales) <= 14.5 * (1 + 1e-6) and len(set(scales)) > 1


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_precision_that_the_device_does_not_compute_in_is_refused(config, precision):
    """On CPU Paddle trains on in float32 and only warns; what it computes on GPUs is in test_step.py."""
    with pytest.raises(ValueError, match=f"{precision}: on cpu Paddle would compute in float32; set -o Training.prec"):
        Trainer(config(f"Training.precision={precision}"))
    assert not Path(config().Training.output).exists()


def test_a_run_may_go_on_in_another_precision(config):
    """As one that was configured so on CPU must, which has trained in float32 in truth."""
    assert changed_settings(config("Training.precision=bfloat16"), config()) == []


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_precision_that_the_device_computes_in_is_not(monkeypatch, precision):
    monkeypatch.setattr(paddle.Tensor, "__matmul__", lambda one, other: one.astype(precision))
    check_precision(precision)


def test_the_state_of_a_loss_scaler_survives_json():
    """As GradScaler writes it where it is on; it reads the scale back as `state["scale"][0]`."""
    state = {"scale": np.array([1024.0], np.float32), "incr_count": 3, "use_dynamic_loss_scaling": True}
    again = json.loads(json.dumps(scaler_state(SimpleNamespace(state_dict=lambda: state))))
    assert again["scale"][0] == 1024.0 and again["incr_count"] == 3 and again["use_dynamic_loss_scaling"] is True


def test_only_the_newest_checkpoints_are_kept(config):
    trainer = Trainer(config("Training.checkpoint_every=2", "Training.keep_checkpoints=2"))
    trainer.fit()
    assert [path.name for path in list_checkpoints(trainer.run)] == ["step_00000006", "step_00000008"]
    assert not list(trainer.run.rglob("*.partial"))


def test_the_best_evaluation_has_its_checkpoint(config):
    trainer = Trainer(config("Evaluation.every=1", "Training.checkpoint_every=100", "Training.keep_checkpoints=1"))
    trainer.fit()
    metrics = {
        record["step"]: record["metrics"]
        for record in read_log(trainer.run / "log.jsonl")
        if record["kind"] == "evaluation"
    }
    recalls = {step: (values["zh/mR"] + values["en/mR"]) / 2 for step, values in metrics.items()}
    assert list(recalls) == list(range(1, 9))
    best = max(recalls, key=recalls.get)
    assert trainer.best == {"step": best, "metric": "mean_recall", "value": pytest.approx(recalls[best])}
    kept = trainer.run / "checkpoints" / "best"
    state = json.loads((kept / "state.json").read_text())
    if best == 8:  # saved before it was evaluated
        state |= json.loads((kept / "evaluation.json").read_text())
    assert state["step"] == state["evaluated"] == best and state["best"] == trainer.best
    assert {path.name for path in list_checkpoints(trainer.run)} == {f"step_{best:08d}", "step_00000008"}


def test_a_damaged_checkpoint_costs_no_more_than_its_steps(config, tmp_path, capsys):
    whole = Trainer(config(f"Training.output={tmp_path / 'whole'}"))
    assert whole.fit()
    crash_after(Trainer(config("Training.checkpoint_every=2")), 7)
    newest = tmp_path / "run" / "checkpoints" / "step_00000006"
    (newest / "optimizer.safetensors").write_bytes(b"")
    second = Trainer(config("Training.checkpoint_every=2"), resume=True)
    assert "damaged: optimizer.safetensors has 0 bytes instead of" in capsys.readouterr().err
    assert second.step == 4 and second.fit() and losses(second) == losses(whole)
    check_checkpoint(newest)  # written again


def test_a_run_goes_on_with_its_data_in_another_folder(config, shapes, tmp_path):
    whole = Trainer(config(f"Training.output={tmp_path / 'whole'}"))
    whole.fit()
    crash_after(Trainer(config("Training.checkpoint_every=5")), 5)
    copy = shutil.copy(shapes["train"], tmp_path)
    second = Trainer(config("Training.checkpoint_every=5", f"Data.train=[{{data: [{copy}]}}]"), resume=True)
    assert second.fit() and losses(second) == losses(whole)


def test_a_run_does_not_go_on_with_other_data(config, tmp_path):
    image = png(draw((200, 0, 0), "disc", np.random.default_rng(0)))
    rows = [(f"text {number}", str(number), image) for number in range(20)]
    settings = config(f"Data.train=[{tmp_path}/train.tsv]", "Data.text_id=null", "Training.steps=3")
    write_tsv(tmp_path / "train.tsv", rows)
    Trainer(settings).fit()
    write_tsv(tmp_path / "train.tsv", rows[:-1])
    with pytest.raises(ValueError, match="train.tsv has changed since the checkpoint: 20 samples .* 19 samples"):
        Trainer(settings, resume=True)


def test_different_images_of_one_name_are_negatives_of_each_other(config, tmp_path, shapes):
    """Hugging Face's tables of embedded images keep the last part of a path: here it is the same one for all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = open_sources([str(shapes["train"])])
    rows = [
        {"image": {"path": "image.png", "bytes": source[row].image}, "caption_en": f"text {row}"} for row in range(64)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    settings = (f"Data.train=[{tmp_path}/train.parquet]", "Data.text_id=null", "Views.languages={en: 1.0}")
    run = Trainer(config(*settings, "Loss.duplicates=masked", "Training.steps=3"))
    assert run.fit() and all(pair > 1 for step in losses(run) for pair in step[3:])


def test_a_batch_whose_rows_have_no_negatives_ends_the_run_and_says_why(config, tmp_path, shapes):
    source = open_sources([str(shapes["train"])])
    write_tsv(tmp_path / "train.tsv", [("the same text", str(row), source[row].image) for row in range(32)])
    settings = (f"Data.train=[{tmp_path}/train.tsv]", "Data.text_id=null", "Views.languages={en: 1.0}")
    with pytest.raises(NoNegatives, match="^16 of the 16 rows .* one image is in 1 row, one text in 16"):
        Trainer(config(*settings, "Loss.duplicates=masked")).fit()
    assert Trainer(config(*settings, "Loss.duplicates=ignored", "Training.steps=3")).fit()


def test_a_run_folder_is_not_used_twice_by_accident(config):
    Trainer(config("Training.steps=3")).fit()
    with pytest.raises(ConfigError, match="already holds a run; continue with --resume"):
        Trainer(config("Training.steps=3"))
    with pytest.raises(ConfigError, match="other values of Loss.weights.text_text, Optimizer.learning_rate"):
        Trainer(config("Training.steps=3", "Optimizer.learning_rate=1.0", "Loss.weights.text_text=2.0"), resume=True)
    finished = Trainer(config("Training.steps=3", "Data.workers=1"), resume=True)
    with pytest.raises(ConfigError, match=f"run is in use: process {os.getpid()} on "):
        Trainer(config("Training.steps=3"), resume=True)
    assert finished.fit() and finished.step == 3
    assert Trainer(config("Training.steps=3"), resume=True).fit()


def test_a_finished_run_is_extended_and_may_be_interrupted_again(config, tmp_path):
    short, long = [config("Training.checkpoint_every=2", f"Training.steps={steps}") for steps in (4, 10)]
    first = Trainer(short)
    assert first.fit()
    with pytest.raises(ConfigError, match="is of a run of 4 Training.steps: --resume --extend makes them 10, with"):
        Trainer(long, resume=True)
    copy = shutil.copytree(first.run, tmp_path / "copy")
    extended = Trainer(long, resume=True, extend=True)
    assert extended.step == 4 and extended.fit() and extended.step == 10
    rates = [record["learning_rate"] for record in read_log(extended.run / "log.jsonl")]
    assert rates == [learning_rate(step, short if step < 4 else long) for step in range(10)]
    assert losses(extended)[:4] == losses(first)[:4] and rates[4] > rates[3]

    long = config("Training.checkpoint_every=2", "Training.steps=10", f"Training.output={copy}")
    crash_after(Trainer(long, resume=True, extend=True), 7)
    again = Trainer(long, resume=True)  # it is a run of ten now
    assert again.step == 6 and again.fit() and losses(again) == losses(extended)
    for name, value in weights(extended).items():
        assert np.array_equal(value, weights(again)[name]), name


def test_a_run_is_not_shortened_and_nothing_else_changes_with_its_steps(config):
    Trainer(config("Training.steps=4")).fit()
    with pytest.raises(ConfigError, match="trained with other values of Training.steps; resume"):
        Trainer(config("Training.steps=3"), resume=True, extend=True)
    with pytest.raises(ConfigError, match="trained with other values of Optimizer.beta1; resume"):
        Trainer(config("Training.steps=6", "Optimizer.beta1=0.5"), resume=True, extend=True)


def test_bad_samples_are_skipped_reported_and_stop_a_run_when_they_are_many(config, tmp_path, shapes):
    from ernie_vil2.data.readers import TarSource

    source = TarSource(shapes["train"])
    rows = [(source[row].caption("en"), source[row].image_name, source[row].image) for row in range(60)]
    rows += [("", "no-text", rows[0][2]), ("broken", "no-image", b"\xff\xd8")]
    data = f"Data.train=[{write_tsv(tmp_path / 'some.tsv', rows)}]"
    trainer = Trainer(config(data, "Data.max_bad_share=0.1", "Views.languages={en: 1.0}", "Data.text_id=null"))
    assert trainer.fit()
    report = json.loads((trainer.run / "bad_samples.json").read_text())
    assert report["read"] == 8 * 16 and set(report["reasons"]) == {"empty caption", "broken image"}
    assert report["reasons"]["broken image"]["names"] == ["no-image"]
    assert "  broken image: " in (trainer.run / "bad_samples.txt").read_text()

    output = f"Training.output={tmp_path / 'second'}"
    with pytest.raises(TooManyBadSamples, match="Data.max_bad_share"):
        Trainer(config(data, output, "Data.max_bad_share=0.001", "Views.languages={en: 1.0}")).fit()
    assert json.loads((tmp_path / "second" / "bad_samples.json").read_text())["bad"] >= 1
