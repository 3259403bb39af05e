"""Stages of a run: what changes at a border and from which step on, and that a resume across it is exact."""

import os
import shutil
import signal
import weakref

import cv2
import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.config.stages import enter_stage, find_borders, resolve_stages
from ernie_vil2.encoder import load_model
from ernie_vil2.training.checkpoint import list_checkpoints
from ernie_vil2.training.optimizer import compute_learning_rate
from ernie_vil2.training.stages import check_folder
from ernie_vil2.training.trainer import Trainer
from tests.support.ranks import run_ranks
from tests.support.trainings import (
    REPVGG,
    SMOOTH_ADAM,
    assert_same_arrays,
    call_before_steps,
    check_same_checkpoints,
    crash_after,
    fit,
    read_evaluation_records,
    read_last_weights,
    read_losses,
    read_train_records,
)

# Steps 1 to 3 see 2 x 2 patches, of which 2 are kept, and 5 to 6 see 4 x 4.
STAGES = [
    "Training.stages=[{until: 0.5, image_size: 16, keep_tokens: 0.5, max_length: 8, learning_rate: 2e-3}, {until: 1}]",
    "Training.steps=6",
]
POSITIONS = "image.pos_embed"


def read_optimizer(trainer, number=-1):
    return load_file(list_checkpoints(trainer.run)[number] / "optimizer.safetensors")


def record_batches(trainer):
    """Record the arrays of each step's batch and the positions of images before it."""
    records = []

    def record(batch):
        arrays = {name: batch[name].numpy() for name in ("image_1", "image_2", "text")}
        records.append({**arrays, POSITIONS: trainer.model.image.pos_embed.numpy()})

    call_before_steps(trainer, record)
    return records


def resize_grid(array, side, interpolation):
    """Resize positions `[1, 1 + patches, width]` by OpenCV, which takes up to four channels at once."""
    old_side = round((array.shape[1] - 1) ** 0.5)
    grid = array[0, 1:].reshape(old_side, old_side, -1)
    channels = [
        cv2.resize(grid[:, :, channel], (side, side), interpolation=interpolation) for channel in range(grid.shape[2])
    ]
    patches = np.stack(channels, axis=-1).reshape(side * side, -1)
    return np.concatenate([array[0, :1], patches])[None]


def test_one_stage_is_the_run_without_stages(config, tmp_path):
    settings = ["Model.image.keep_tokens=0.5", "Training.steps=3"]
    plain = fit(config(*settings, f"Training.output={tmp_path / 'plain'}"))
    staged = fit(config(*settings, "Training.stages=[{until: 1}]"))
    assert read_losses(staged) == read_losses(plain)
    assert_same_arrays(read_last_weights(staged), read_last_weights(plain))
    assert_same_arrays(read_optimizer(staged), read_optimizer(plain))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_change_size_exactly_at_the_border(config, tmp_path, workers):
    dropout = [f"Data.workers={workers}", "Views.jitter=1"]
    whole = Trainer(config(*dropout, "Training.steps=6", f"Training.output={tmp_path / 'whole'}"))
    expected = record_batches(whole)
    assert whole.fit()
    staged = Trainer(config(*dropout, *STAGES))
    batches = record_batches(staged)
    assert staged.fit()
    assert [batch["image_1"].shape[1:3] for batch in batches] == 3 * [(16, 16)] + 3 * [(32, 32)]
    assert all(batch["text"].shape[1] <= 8 for batch in batches[:3])
    assert max(batch["text"].shape[1] for batch in expected[3:]) > 8
    # A view depends on its seed, step and position, and not on the stages before.
    for batch, expected_batch in zip(batches[3:], expected[3:], strict=True):
        for name in ("image_1", "image_2", "text"):
            np.testing.assert_array_equal(batch[name], expected_batch[name])


def test_model_of_a_stage_is_released_at_its_end(config):
    trainer = Trainer(config(*STAGES))
    model, is_released = weakref.ref(trainer.model), []
    call_before_steps(trainer, lambda batch: is_released.append(model() is None))
    assert trainer.fit() and is_released == 3 * [False] + 3 * [True]


def test_stop_in_the_last_step_of_a_stage_is_obeyed(config, tmp_path):
    whole = fit(config(*STAGES, f"Training.output={tmp_path / 'whole'}"))
    stopped = Trainer(config(*STAGES))
    # The run finishes the step after the one in which the signal comes.
    call_before_steps(stopped, lambda batch: stopped.step == 1 and os.kill(os.getpid(), signal.SIGTERM))
    assert not stopped.fit() and stopped.step == 3
    resumed = fit(config(*STAGES), resume=True)
    assert_same_arrays(read_last_weights(resumed), read_last_weights(whole))


def test_positions_are_resized_at_the_border(config):
    trainer = Trainer(config(*STAGES, "Tuning.ema=0.9", "Training.checkpoint_every=1", "Training.keep_checkpoints=9"))
    batches, moments, averages = record_batches(trainer), [], []

    def record_state(batch):
        name = trainer.model.image.pos_embed.name
        state = trainer.optimizer.state_dict()
        moments.append({kind: state[f"{name}_{kind}_0"].numpy() for kind in ("moment1", "moment2") if trainer.step})
        averages.append(trainer.average._averages[POSITIONS].numpy())

    call_before_steps(trainer, record_state)
    assert trainer.fit()
    border = list_checkpoints(trainer.run)[2]
    saved = load_file(border / "optimizer.safetensors")
    expected = resize_grid(saved[f"{POSITIONS}/raw"], 4, cv2.INTER_CUBIC)
    np.testing.assert_allclose(batches[3][POSITIONS], expected, atol=1e-6)
    expected = resize_grid(load_file(border / "model.safetensors")[POSITIONS], 4, cv2.INTER_CUBIC)
    np.testing.assert_allclose(averages[3], expected, atol=1e-6)
    for kind in ("moment1", "moment2"):
        expected = resize_grid(saved[f"{POSITIONS}/{kind}_0"], 4, cv2.INTER_LINEAR)
        np.testing.assert_allclose(moments[3][kind], expected, rtol=1e-4, atol=1e-9)
        assert moments[3]["moment2"].min() >= 0


RESUMED = {
    "average and dropout": ["Tuning.ema=0.9", "Model.text.dropout=0.2", "Model.image.drop_path=0.2"],
    "micro batches": ["Training.micro_batch=5", "Model.text.dropout=0.2"],
    "recomputation": ["Training.recompute=true", "Data.workers=2"],
    "LoRA": ["Tuning.lora={rank: 2}", "Tuning.freeze=[image.embeddings]"],
    "convolutions": [REPVGG],
}


@pytest.mark.parametrize("name", RESUMED)
def test_resume_around_a_border_is_bit_equal(config, tmp_path, name):
    settings = [*STAGES, *RESUMED[name], "Training.checkpoint_every=1"]
    if name == "convolutions":
        settings[0] = settings[0].replace("keep_tokens: 0.5, ", "")
    whole = fit(config(*settings, f"Training.output={tmp_path / 'whole'}"))
    # Before the border, at it, and after it; which of them makes no difference to the other settings.
    for crash_step in (2, 3, 4) if name == "average and dropout" else (2,):
        run = config(*settings, f"Training.output={tmp_path / f'crashed {crash_step}'}")
        crash_after(Trainer(run), crash_step)
        resumed = Trainer(run, resume=True)
        assert resumed.step == crash_step and resumed.fit() and resumed.step == 6
        assert read_losses(resumed) == read_losses(whole)
        assert_same_arrays(read_last_weights(resumed), read_last_weights(whole))
        assert_same_arrays(read_optimizer(resumed), read_optimizer(whole))


def test_checkpoint_is_a_model_of_the_size_of_its_stage(config):
    settings = [*STAGES, "Evaluation.every=2", "Training.checkpoint_every=3", "Training.keep_checkpoints=9"]
    trainer = fit(config(*settings))
    sizes = {path.name: load_model(path) for path in list_checkpoints(trainer.run)}
    shapes = {name: (model.preprocessing.size, model.tokenizer.max_length) for name, model in sizes.items()}
    assert shapes["step_00000003"] == (16, 8) and shapes["step_00000006"] == (32, 24)
    assert [record["stage"] for record in read_train_records(trainer.run)] == [1, 1, 1, 2, 2, 2]
    # Every evaluation has the size of its stage, and only those of the last stage choose the best model.
    records = read_evaluation_records(trainer.run)
    assert [record["step"] for record in records] == [2, 4, 6]
    assert trainer.best["step"] in (4, 6)


@pytest.mark.parametrize("kind", ["cosine", "constant"])
def test_rate_of_a_stage_is_that_of_a_run_with_its_peak(config, kind):
    schedule = [f"Schedule.kind={kind}", "Schedule.warmup_steps=2"]
    if kind == "constant":
        schedule.append("Schedule.cooldown=0.34")
    trainer = fit(config(*STAGES, *schedule))
    expected = []
    for step in range(6):
        plain = config("Training.steps=6", *schedule, f"Optimizer.learning_rate={2e-3 if step < 3 else 1e-3}")
        expected.append(compute_learning_rate(step, plain))
    assert [record["learning_rate"] for record in read_train_records(trainer.run)] == expected


def test_run_is_extended_if_its_borders_stay(config, tmp_path):
    constant = ["Schedule.kind=constant", "Training.checkpoint_every=2"]

    def choose(steps, until, folder):
        stages = STAGES[0].replace("until: 0.5", f"until: {until}")
        return config(*constant, stages, f"Training.steps={steps}", f"Training.output={tmp_path / folder}")

    fit(choose(6, 0.5, "run"))
    with pytest.raises(ConfigError, match=r"3 \(until: 0\.25\)"):
        Trainer(choose(12, 0.5, "run"), resume=True, can_extend=True)
    extended, longer = choose(12, 0.25, "run"), fit(choose(12, 0.25, "longer"))
    with pytest.raises(ConfigError, match=r"Training\.stages"):
        Trainer(choose(6, 0.34, "run"), resume=True)
    extended = fit(extended, resume=True, can_extend=True)
    assert read_losses(extended) == read_losses(longer)
    assert_same_arrays(read_last_weights(extended), read_last_weights(longer))


def resume_rank(overrides):
    """Resume a run as a rank, or begin it."""
    assert Trainer(load_config(None, overrides), resume=True).fit()


@pytest.mark.parametrize("sharding", ["stage1", pytest.param("none", marks=pytest.mark.slow)])
def test_two_ranks_enter_stages_as_one(config, overrides, tmp_path, sharding):
    settings = [*STAGES, *SMOOTH_ADAM, "Training.checkpoint_every=1", "Training.keep_checkpoints=9"]
    alone = fit(config(*settings, f"Training.output={tmp_path / 'alone'}"))
    settings += ["Training.device=cpu", f"Training.sharding={sharding}"]
    run_ranks(resume_rank, [*overrides, *settings])
    check_same_checkpoints(tmp_path / "run", alone.run)

    # These are the files after a kill before the border.
    interrupted = shutil.copytree(tmp_path / "run", tmp_path / "interrupted", symlinks=True)
    for checkpoint in list_checkpoints(interrupted)[2:]:
        shutil.rmtree(checkpoint)
    run_ranks(resume_rank, [*overrides, *settings, f"Training.output={interrupted}"])
    for name in ("model.safetensors", "optimizer.safetensors"):
        resumed, whole = (list_checkpoints(run)[-1] / name for run in (interrupted, tmp_path / "run"))
        assert_same_arrays(load_file(resumed), load_file(whole))


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        (["Training.stages=[{until: 0.5}]"], "until"),
        (["Training.stages=[{until: 0.5}, {until: 0.5}, {until: 1}]"], "until"),
        ([STAGES[0], "Tuning.patience=2", "Evaluation.every=1"], "Tuning.patience"),
        ([STAGES[0], "Tuning.initial_share=0.5"], "Tuning.initial_share"),
    ],
)
def test_contradicting_settings_are_refused_at_once(config, changes, culprit):
    with pytest.raises(ConfigError, match=culprit):
        config(*changes)


NAFLEX = (
    "Model.image={name: NaFlex, image_size: 32, patch_size: 8, width: 64, depth: 1, heads: 2, "
    "variant: {class_token: false, pooling: mean}}"
)


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ([REPVGG, "Training.stages=[{until: 0.5, keep_tokens: 0.5}, {until: 1}]"], "RepVGG.*"),
        ([NAFLEX, "Training.stages=[{until: 0.5, image_size: 16}, {until: 1}]"], "NaFlex"),
        (["Training.stages=[{until: 0.5}, {until: 1, max_length: 25}]"], "stage 2.*max_length"),
        (["Training.stages=[{until: 0.5}, {until: 1, image_size: 4}]"], "stage 2.*image_size"),
        (["Training.stages=[{until: 0.01}, {until: 1}]"], "stage 1"),
    ],
)
def test_stage_that_could_not_begin_is_refused_before_the_first(config, changes, culprit):
    with pytest.raises(ConfigError, match=culprit):
        Trainer(config(*changes))


class FlatTower(paddle.nn.Layer):
    """An image tower with a weight for every pixel."""

    def __init__(self, config):
        super().__init__()
        self.width, self.layer = 8, paddle.nn.Linear(3 * config.image_size**2, 8)

    def forward(self, images):
        return self.layer(images.flatten(1))


def test_tower_whose_weights_depend_on_the_size_is_refused(config):
    tower = f"Model.image={{name: '{__name__}:FlatTower', image_size: 32}}"
    with pytest.raises(ConfigError, match=r"layer\.weight.*FlatTower.*stage 2"):
        Trainer(config(tower, "Training.stages=[{until: 0.5, image_size: 16}, {until: 1}]"))


def test_rank_without_the_run_folder_is_named(tmp_path):
    check_folder(tmp_path, rank=1)
    with pytest.raises(ConfigError, match="rank 1"):
        check_folder(tmp_path / "elsewhere", rank=1)


def test_windows_scale_with_the_images_of_a_stage(config):
    changes = ["Views.crop_area=null", "Views.resize=40", *STAGES]
    resolved = resolve_stages(config(*changes))
    assert [enter_stage(resolved, number).Views.resize for number in (0, 1)] == [20, 40]
    assert find_borders(resolved) == [3, 6]
    assert resolve_stages(resolved) == resolved
    assert enter_stage(resolved, 0).Training.stages == resolved.Training.stages
    with pytest.raises(ConfigError, match=r"Training\.stages"):
        load_config(None, ["Training.stages=[{image_size: 16}]"])
