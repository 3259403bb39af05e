"""The training loop on a tiny model: schedule, optimiser, resuming and extending a run, and the command."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import paddle
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.data.readers import open_sources
from ernie_vil2.device.runtime import SWITCHES, check_precision
from ernie_vil2.encoder import load_model
from ernie_vil2.losses import NoNegatives
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.tasks import decay_groups
from ernie_vil2.training.checkpoint import check_checkpoint, list_checkpoints
from ernie_vil2.training.optimizer import build_optimizer, compute_learning_rate, resolve_steps
from ernie_vil2.training.trainer import Trainer
from tests.support.commands import succeed
from tests.support.trainings import (
    REPVGG,
    assert_same_arrays,
    crash_after,
    fit,
    list_tiny_overrides,
    read_evaluation_records,
    read_last_weights,
    read_losses,
    read_train_records,
    run_tool,
    to_arguments,
)


def test_steps_do_not_depend_on_when_the_host_waits(config, tmp_path):
    # The host waits for a step that is logged or may be skipped. Otherwise it reads the result in the next step.
    results = []
    for change in ("Training.log_every=100", "Training.log_every=1", "Training.nonfinite=skip"):
        output = f"Training.output={tmp_path / str(len(results))}"
        trainer = fit(config(REPVGG, "Tuning.ema=0.9", change, "Training.steps=3", output))
        results.append(read_last_weights(trainer))
    assert_same_arrays(results[1], results[0])
    assert_same_arrays(results[2], results[0])


RESUMED = ["Model.text.dropout=0.1", "Training.steps=6", "Training.checkpoint_every=2"]


@pytest.fixture(scope="module")
def crashed(shapes, tmp_path_factory):
    """Return an uninterrupted run of six steps, and the folder of one that crashed in the sixth step."""
    folder = tmp_path_factory.mktemp("crashed")
    uninterrupted = fit(load_config(None, [*list_tiny_overrides(shapes, folder / "whole"), *RESUMED]))
    crash_after(Trainer(load_config(None, [*list_tiny_overrides(shapes, folder / "run"), *RESUMED])), 5)
    return uninterrupted, folder / "run"


@pytest.mark.parametrize("change", [pytest.param("nothing", marks=pytest.mark.slow), "damage", "moved data"])
def test_resume_after_crash_is_bit_equal(config, crashed, shapes, tmp_path, change, capsys):
    uninterrupted, folder = crashed
    shutil.copytree(folder, tmp_path / "run")
    newest, settings = list_checkpoints(tmp_path / "run")[-1], list(RESUMED)
    if change == "damage":
        (newest / "optimizer.safetensors").write_bytes(b"")
    elif change == "moved data":
        settings.append(f"Data.train=[{{data: [{shutil.copy(shapes['train'], tmp_path)}]}}]")
    paddle.seed(999)  # the state of the process must not matter

    resumed = Trainer(config(*settings), resume=True)
    assert resumed.step == (2 if change == "damage" else 4) and resumed.fit()
    assert read_losses(resumed) == read_losses(uninterrupted)
    assert_same_arrays(read_last_weights(resumed), read_last_weights(uninterrupted))
    check_checkpoint(newest)
    assert ("optimizer.safetensors" in capsys.readouterr().err) == (change == "damage")


def test_temperature_learns_and_stays_in_its_bounds(config):
    trainer = fit(config("Loss.max_logit_scale=14.5", "Optimizer.learning_rate=0.1", "Training.steps=4"))
    scales = [record["logit_scale"] for record in read_train_records(trainer.run)]
    assert max(scales) <= 14.5 * (1 + 1e-6) and len(set(scales)) > 1


def test_unsupported_precision_is_refused(config, monkeypatch):
    # On a CPU, Paddle trains in float32 and only warns. test_step.py checks the types of products.
    with pytest.raises(ValueError, match="bfloat16: .*Training.prec"):
        Trainer(config("Training.precision=bfloat16"))
    assert not Path(config().Training.output).exists()
    for precision in ("float32", "bfloat16", "float16"):
        monkeypatch.setattr(paddle.Tensor, "__matmul__", lambda matrix, factor, dtype=precision: matrix.astype(dtype))
        check_precision(precision)


def test_equal_names_are_negatives_and_equal_texts_are_not(config, tmp_path, shapes):
    # Hugging Face's tables of embedded images contain only file names, and here all files have the same name.
    source = open_sources([str(shapes["train"])])
    images = [{"image": {"path": "image.png", "bytes": source[row].image}} for row in range(32)]
    settings = [f"Data.train=[{tmp_path}/train.parquet]", "Data.text_id=null", "Views.languages={en: 1.0}",
                "Loss.duplicates=masked", "Training.steps=1"]  # fmt: skip
    rows = [image | {"caption_en": f"text {number}"} for number, image in enumerate(images)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    assert min(read_losses(fit(config(*settings)))[0][3:]) > 1

    rows = [image | {"caption_en": "the same text"} for image in images]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    with pytest.raises(NoNegatives, match="^16 of the 16 rows"):
        Trainer(config(*settings, f"Training.output={tmp_path / 'same'}")).fit()


def test_run_folder_is_not_reused_by_accident(config, shapes):
    fit(config("Training.steps=1"))
    with pytest.raises(ConfigError, match="--resume"):
        Trainer(config("Training.steps=1"))
    with pytest.raises(ConfigError, match="Loss.weights.text_text, Optimizer.learning_rate"):
        Trainer(config("Training.steps=1", "Optimizer.learning_rate=1.0", "Loss.weights.text_text=2.0"), resume=True)
    with pytest.raises(ValueError, match="128 samples .* 16 samples"):
        Trainer(config("Training.steps=1", f"Data.train=[{shapes['val']}]"), resume=True)
    finished = Trainer(config("Training.steps=1", "Data.workers=1"), resume=True)
    with pytest.raises(ConfigError, match=f"process {os.getpid()} "):
        Trainer(config("Training.steps=1"), resume=True)
    assert finished.fit() and finished.step == 1
    assert Trainer(config("Training.steps=1"), resume=True).fit()


def test_finished_run_is_extended_past_its_warm_up(config, tmp_path):
    # A run of four steps has a shorter warm-up. The steps that are added have the rates of a run of eight steps.
    settings = ["Training.checkpoint_every=2", "Schedule.warmup_steps=6"]
    short, long = config(*settings, "Training.steps=4"), config(*settings, "Training.steps=8")
    first = fit(short)
    for change, key in (("Training.steps=3", "Training.steps"), ("Optimizer.beta1=0.5", "Optimizer.beta1")):
        with pytest.raises(ConfigError, match=f"other values of {key};"):
            Trainer(config(*settings, "Training.steps=8", change), resume=True, can_extend=True)
    copy = shutil.copytree(first.run, tmp_path / "copy")
    first_losses = read_losses(first)

    extended = Trainer(long, resume=True, can_extend=True)
    assert extended.step == 4 and extended.fit() and extended.step == 8
    rates = [record["learning_rate"] for record in read_train_records(extended.run)]
    fitted = resolve_steps(short, 128)
    assert rates == [compute_learning_rate(step, fitted if step < 4 else long) for step in range(8)]
    assert rates[4:6] == pytest.approx([1e-3 * 5 / 6, 1e-3])
    assert read_losses(extended)[:4] == first_losses

    # If the extended run is interrupted, it resumes as a run of eight steps.
    long = config(*settings, "Training.steps=8", f"Training.output={copy}")
    crash_after(Trainer(long, resume=True, can_extend=True), 7)
    resumed = Trainer(long, resume=True)
    assert resumed.step == 6 and resumed.fit() and read_losses(resumed) == read_losses(extended)
    assert_same_arrays(read_last_weights(resumed), read_last_weights(extended))


CONSTANT = ["Schedule.kind=constant", "Training.checkpoint_every=4", "Training.keep_checkpoints=1"]


@pytest.mark.parametrize(("short_cooldown", "last_step"), [(0.5, 3), (0.0, 6)])
def test_extended_constant_run_equals_a_longer_run(config, tmp_path, short_cooldown, last_step):
    # Three steps of warm-up and peak and three of cooldown, or six without one. The longer run has seven and seven.
    long_settings = [*CONSTANT, "Training.steps=14", "Schedule.cooldown=0.5"]
    longer = fit(config(*long_settings, f"Training.output={tmp_path / 'longer'}"))
    first = fit(config(*CONSTANT, "Training.steps=6", f"Schedule.cooldown={short_cooldown}"))
    first_weights = read_last_weights(first)
    with pytest.raises(ConfigError, match="Training.steps"):
        Trainer(config(*long_settings), resume=True)

    crashed = Trainer(config(*long_settings), resume=True, can_extend=True)
    assert crashed.step == last_step
    crash_after(crashed, 9)
    extended = Trainer(config(*long_settings), resume=True)
    assert extended.step == 8 and extended.fit()
    assert read_losses(extended) == read_losses(longer)
    assert_same_arrays(read_last_weights(extended), read_last_weights(longer))
    assert [path.name for path in list_checkpoints(extended.run)] == ["step_00000007", "step_00000014"]
    # Extended once more to the same length, the finished run stays as it is.
    assert Trainer(config(*long_settings), resume=True, can_extend=True).step == 14

    if short_cooldown:
        cooled = extended.run / "checkpoints" / "step_00000006_of_6"
        assert_same_arrays(load_file(cooled / "model.safetensors"), first_weights)
        assert load_model(cooled).encode_texts(["a disc"]).shape == (1, 64)


@pytest.mark.slow
def test_two_ranks_extend_a_constant_rate_exactly(overrides, tmp_path):
    def train(folder, steps, *options):
        settings = [*overrides, *CONSTANT, "Schedule.cooldown=0.5", f"Training.steps={steps}"]
        arguments = to_arguments([*settings, f"Training.output={tmp_path / folder}"])
        process = run_tool("tools/train.py", *arguments, "--processes", 2, *options)
        assert process.returncode == 0, process.stdout + process.stderr

    train("run", 6)
    train("run", 10, "--resume", "--extend")
    train("longer", 10)
    records, expected = read_train_records(tmp_path / "run"), read_train_records(tmp_path / "longer")
    assert len(records) == 10
    assert [record["loss"] for record in records] == [record["loss"] for record in expected]
    assert (tmp_path / "run" / "checkpoints" / "step_00000006_of_6").is_dir()
    extended, longer = (list_checkpoints(tmp_path / folder)[-1] for folder in ("run", "longer"))
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert_same_arrays(load_file(extended / name), load_file(longer / name))


def test_extension_that_would_change_steps_is_refused(config):
    first = fit(config(*CONSTANT, "Schedule.warmup_steps=40", "Training.steps=20", "Schedule.cooldown=0.5"))

    def extend(*changes):
        return Trainer(config(*CONSTANT, "Training.steps=30", *changes), resume=True, can_extend=True)

    # The warm-up was cut to 2 steps, and would be 3 now.
    with pytest.raises(ConfigError, match="-o Schedule.warmup_steps=2$"):
        extend("Schedule.warmup_steps=40", "Schedule.cooldown=0.5")
    # The longer cooldown would begin after step 6.
    with pytest.raises(ConfigError, match="step_00000006"):
        extend("Schedule.cooldown=0.8")
    checkpoint = first.run / "checkpoints" / "step_00000010"
    checkpoint.rename(first.run / "moved")
    with pytest.raises(ConfigError, match=checkpoint.name):
        extend("Schedule.cooldown=0.5")
    (first.run / "moved").rename(checkpoint)
    assert extend("Schedule.cooldown=0.5").step == 10


def test_extension_of_a_run_that_only_cools_is_refused(config):
    settings = [*CONSTANT, "Schedule.warmup_steps=0", "Schedule.cooldown=1.0"]
    fit(config(*settings, "Training.steps=2"))
    with pytest.raises(ConfigError, match="Schedule.cooldown") as caught:
        Trainer(config(*settings, "Training.steps=4"), resume=True, can_extend=True)
    assert "step_0" not in str(caught.value)  # there never was a checkpoint to put back


@pytest.mark.parametrize(
    ("steps", "cooldown", "expected"),
    [
        (10, 0.4, [0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]),
        (5, 0, [0.5, 1, 1, 1, 1]),
        (6, 1, [0.5, 1, 0.8, 0.6, 0.4, 0.2]),  # a cooldown begins after the warm-up
    ],
)
def test_constant_rate_matches_its_formula(steps, cooldown, expected):
    schedule = f"Schedule={{kind: constant, warmup_steps: 2, cooldown: {cooldown}, floor: 0.2}}"
    config = load_config(None, ["Optimizer.learning_rate=1.0", f"Training.steps={steps}", schedule])
    assert [compute_learning_rate(step, config) for step in range(steps)] == pytest.approx(expected)


@pytest.mark.parametrize(("changes", "factor"), [([], 1), (["Tuning.base_batch=256"], 4)])
def test_schedule_matches_its_formula(changes, factor):
    settings = ["Optimizer.learning_rate=1.0", "Schedule={warmup_steps: 4, floor: 0.2}", "Training.steps=8"]
    config = load_config(None, [*settings, "Training.global_batch=1024", *changes])
    rates = [compute_learning_rate(step, config) / factor for step in range(8)]
    half = (1 - 0.2) / 2
    # The cosine of 45, 90, 135 and 180 degrees, from 1 down to the floor.
    cosine = [0.2 + half * (1 + c) for c in (np.sqrt(0.5), 0.0, -np.sqrt(0.5), -1.0)]
    assert np.allclose(rates, [0.25, 0.5, 0.75, 1.0, *cosine])
    # Without warm-up the cosine starts at once.
    config = load_config(None, ["Schedule={warmup_steps: 0, floor: 0.0}", "Training.steps=2"])
    assert [compute_learning_rate(step, config) for step in (0, 1)] == pytest.approx([0.5e-4, 0])


@pytest.mark.parametrize("schedule", ["{warmup_steps: 2}", "{kind: constant, warmup_steps: 2, cooldown: 0.5}"])
def test_rate_does_not_rise_to_a_floor_above_its_peak(schedule):
    overrides = ["Optimizer.learning_rate=1e-7", f"Schedule={schedule}", "Training.steps=8"]
    config = load_config(None, overrides)
    rates = [compute_learning_rate(step, config) for step in range(8)]
    assert rates == pytest.approx([0.5e-7, *[1e-7] * 7])


def test_only_matrices_decay(config):
    # With gradients of zero Adam changes nothing, so only weight decay shrinks a parameter.
    model = build_dual_encoder(config().Model, 100)
    settings = config("Optimizer.weight_decay=0.1", "Optimizer.learning_rate=1.0").Optimizer
    optimizer = build_optimizer(model, decay_groups(model), settings)
    for parameter in model.parameters():
        parameter.set_value(paddle.ones_like(parameter))
        parameter.grad = paddle.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        decays = parameter.ndim > 1 and not any(word in name for word in ("pos", "cls_token"))
        assert np.allclose(parameter.numpy(), 0.9 if decays else 1.0), name


def test_adam_step_and_clipping_match_their_formulas():
    config = load_config(None, ["Optimizer={learning_rate: 0.1, weight_decay: 0.0, clip_norm: 1.0, epsilon: 1e-3}"])
    layer = paddle.nn.Linear(2, 1, bias_attr=False)
    layer.weight.set_value(np.zeros([2, 1], np.float32))
    optimizer = build_optimizer(layer, decay_groups(layer), config.Optimizer)
    (layer.weight * paddle.to_tensor([[3.0], [4.0]])).sum().backward()  # norm 5, clipped to [0.6, 0.8]
    optimizer.step()
    gradient = np.array([0.6, 0.8])
    assert np.allclose(layer.weight.numpy().ravel(), -0.1 * gradient / (gradient + 1e-3), rtol=1e-4)


def test_training_beats_chance_and_is_evaluated_and_shown(overrides, shapes, tmp_path):
    # There are 16 concepts, and the drawings are new: chance is 6 % R@1.
    changes = [
        "Training.steps=160",
        "Training.global_batch=32",
        "Evaluation.every=40",
        "Training.log_every=10",
        "Loss.weights.text_text=0.3",
    ]
    printed = succeed("train", *to_arguments([*overrides, *changes]))
    assert "all 5,120 samples read could be used" in printed
    folder = tmp_path / "run"
    switches = json.loads((folder / "environment.json").read_text())["runtime"]
    assert list(switches) == list(SWITCHES)

    succeed("eval", "--checkpoint", folder, "--data", shapes["val"], "--pixel-baseline", shapes["train"])
    name = f"{shapes['val'].parent.name}-val"
    record = json.loads((folder / "evaluation" / f"{name}.json").read_text())
    rows = dict(map(tuple, record["table"][:5]))
    assert rows["  chance"]["image_to_text"]["R@1"] == 100 / 16
    for language in ("zh", "en"):
        model = rows[f"  model, {language}"]
        assert model["images"] == model["texts"] == 16
        assert min(model["image_to_text"]["R@1"], model["text_to_image"]["R@1"]) > 50, record["table"]
        last = read_evaluation_records(folder)[-1]
        during = {f"R@{k}": last["metrics"][f"{language}/image_to_text/R@{k}"] for k in (1, 5, 10)}
        assert last["step"] == 160 and during == {name: model["image_to_text"][name] for name in during}

    data = ["--data", shapes["val"], "--queries", 3]
    succeed("report", "--run", folder, f"{folder}@best", *data, "--output", tmp_path / "both.html")
    page = (tmp_path / "both.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 3 and "色的" in page
    # Both are of one run, so the name of the folder alone would not distinguish them.
    for name in (str(folder), f"{folder}@best"):
        assert f"{name}: model, zh" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    "launch", [None, ["--nproc_per_node", "2", "--log_dir"]], ids=["--processes", "Paddle's launcher"]
)
def test_two_processes_train_as_one(overrides, tmp_path, launch):
    # Global batches and dropout are the same, so losses are equal up to rounding in float32, step by step.
    dropout = ["Model.text.dropout=0.2", "Model.text.attention_dropout=0.2", "Model.image.drop_path=0.2"]
    settings = [*overrides, *dropout, "Training.steps=4", "Training.device=cpu"]
    fit(load_config(None, [*settings, f"Training.output={tmp_path / 'single'}"]))
    if launch:
        process = run_tool("tools/train.py", *to_arguments(settings), launch=[*launch, tmp_path / "log"])
    else:
        process = run_tool("tools/train.py", *to_arguments(settings), "--processes", 2)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "all 64 samples read could be used" in process.stdout
    for name in ("loss", "gradient_norm"):
        single = [record[name] for record in read_train_records(tmp_path / "single")]
        double = [record[name] for record in read_train_records(tmp_path / "run")]
        # Two ranks add the same float32 numbers in another order.
        assert len(single) == 4 and np.allclose(single, double, rtol=1e-4), (single, double)
