"""Trainings of a tiny model on coloured shapes, in this process and as commands, and the files that they write."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from ernie_vil2.config import load_config
from ernie_vil2.models.weights.initial import resolve_model_like
from ernie_vil2.tasks import build_task
from ernie_vil2.training.checkpoint import list_checkpoints
from ernie_vil2.training.run_log import read_log
from ernie_vil2.training.trainer import Trainer
from tests.support.limits import PATIENCE
from tests.support.other_families import FOLDERS
from tests.support.paths import ROOT
from tests.support.processes import start_process

PAIRS = ("image_image", "text_text", "image_text", "text_image")
REPVGG = "Model.image={name: RepVGG, image_size: 32, width: 8, depth: 1}"
# Adam divides a gradient by its size. Without a large epsilon, a gradient that is only rounding would become a step.
SMOOTH_ADAM = ["Optimizer.epsilon=1e-3", "Optimizer.weight_decay=0.1"]
# It has the words of the shapes, and a seventh of the tokens of the packaged vocabulary.
VOCABULARY = ROOT / "demo_data" / "vocabulary.txt"


def list_tiny_overrides(shapes, folder):
    """Return overrides of a run of seconds: ViT 32/8 and ERNIE, width 64, one block each."""
    return [
        "Model.image={name: ViT, image_size: 32, patch_size: 8, width: 64, depth: 1, heads: 2}",
        "Model.text={name: ernie, width: 64, depth: 1, heads: 2, max_positions: 24, dropout: 0.1, "
        f"attention_dropout: 0.0, vocabulary: {VOCABULARY}}}",
        "Views.crop_area=[0.6, 1.0]",
        "Views.grayscale=0.0",
        "Views.hue=0.0",
        "Views.languages={zh: 1.0, en: 1.0}",
        "Loss.duplicates=positives",
        f"Data.train=[{shapes['train']}]",
        f"Data.val=[{shapes['val']}]",
        "Data.text_id=id",
        "Data.max_length=24",
        "Data.workers=0",
        "Optimizer.learning_rate=1e-3",
        "Schedule.warmup_steps=2",
        "Training.steps=8",
        "Training.global_batch=16",
        "Training.log_every=1",
        "Evaluation.every=0",
        f"Training.output={folder}",
    ]


def begin_with(overrides, name, *changes):
    """Return overrides of the tiny run that starts from the folder of another family's model."""
    remaining = [change for change in overrides if not change.startswith(("Model.", "Data.max_length"))]
    model = ["Model.like=weights", f"Model.weights={FOLDERS[name]}", "Model.text.dropout=0.1"]
    return [*model, *remaining, *changes]


def resolve_like_folder(name, *changes):
    """Return the resolved configuration of a training that starts from the folder of another family's model."""
    return resolve_model_like(load_config(None, ["Model.like=weights", f"Model.weights={FOLDERS[name]}", *changes]))


def build_seeded_task(config, initialize=True):
    """Return the task of a configuration with its model, whose weights are the same each time."""
    paddle.seed(0)
    task = build_task(config)
    task.build(initialize=initialize)
    return task


def fit(config, **options):
    """Train to the end, with options of the trainer."""
    trainer = Trainer(config, **options)
    assert trainer.fit()
    return trainer


def read_train_records(folder):
    return [record for record in read_log(folder / "log.jsonl") if record["kind"] == "train"]


def read_evaluation_records(folder):
    return [record for record in read_log(folder / "log.jsonl") if record["kind"] == "evaluation"]


def read_logged_losses(folder):
    return [record["loss"] for record in read_train_records(folder)]


def read_losses(trainer):
    """Return the loss and the losses of the view pairs of each step, exactly as they were logged."""
    losses = []
    for record in read_train_records(trainer.run):
        losses.append([record["loss"]] + [record.get(pair) for pair in PAIRS])
    return losses


def read_last_weights(trainer):
    """Return the arrays of a run's last checkpoint."""
    return load_file(list_checkpoints(trainer.run)[-1] / "model.safetensors")


def assert_same_arrays(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def check_same_checkpoints(run, expected_run):
    """Check that the last checkpoints of two runs have the same weights and optimiser state."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        actual = load_file(sorted(run.glob("checkpoints/step_*"))[-1] / name)
        expected = load_file(sorted(expected_run.glob("checkpoints/step_*"))[-1] / name)
        assert actual.keys() == expected.keys() and len(actual) > 20
        for key, value in expected.items():
            if "k_proj.bias" in key:  # this bias cancels in the softmax, so its gradient is only rounding
                continue
            scale = np.abs(value).max()
            np.testing.assert_allclose(actual[key], value, rtol=1e-4, atol=1e-4 * scale, err_msg=f"{name}, {key}")


def call_before_steps(trainer, action):
    """Call a function with the batch of each step before the step is computed."""
    original_step = trainer._train_step

    def call_and_step(batch, rate):
        action(batch)
        return original_step(batch, rate)

    trainer._train_step = call_and_step


def crash_after(trainer, steps):
    """Train this many steps and end like a crash: without a checkpoint of the last step."""

    def crash(batch):
        if trainer.step == steps:
            raise KeyboardInterrupt

    call_before_steps(trainer, crash)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()


def check_resume(make_config, folder):
    """Check that a run that resumes from a checkpoint ends with the bits of the uninterrupted run.

    Args:
        make_config: function that returns the configuration of the run with further overrides.
        folder: an empty folder for both runs.

    Returns:
        The trainer of the uninterrupted run, of four steps.
    """
    settings = ["Training.steps=4", "Training.checkpoint_every=3"]
    uninterrupted = fit(make_config(*settings, f"Training.output={folder / 'whole'}"))
    # These are the files after a kill in the last step, but for the log, which a resumed run cuts in any case.
    interrupted_run = shutil.copytree(uninterrupted.run, folder / "interrupted", symlinks=True)
    shutil.rmtree(list_checkpoints(interrupted_run)[-1])

    paddle.seed(999)  # the state of the process must not matter
    resumed = Trainer(make_config(*settings, f"Training.output={interrupted_run}"), resume=True)
    assert resumed.step == 3 and resumed.fit() and resumed.step == 4
    assert read_losses(resumed) == read_losses(uninterrupted)
    assert_same_arrays(read_last_weights(resumed), read_last_weights(uninterrupted))
    return uninterrupted


def start_tool(*arguments, launch=None, **options):
    """Start a tool from the repository's root.

    Args:
        launch: arguments for Paddle's launcher; without them it is not used.
        options: options of subprocess.Popen.
    """
    launcher = ["-m", "paddle.distributed.launch", *launch] if launch else []
    return start_process(
        [sys.executable, *map(str, [*launcher, *arguments])],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
    )


def run_tool(*arguments, launch=None, timeout=PATIENCE):
    """Run a tool to its end; the result has `returncode`, `stdout` and `stderr`."""
    with start_tool(*arguments, launch=launch) as process:
        try:
            output, error = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, error)


def to_arguments(overrides):
    arguments = []
    for override in overrides:
        arguments += ["-o", override]
    return arguments


def find_rank_process(launcher, rank):
    """Wait for the process of a rank to start, and return its id; `launcher` is the id of the launcher's process."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
            if f"PADDLE_TRAINER_ID={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                return int(child)
        time.sleep(0.1)
    raise AssertionError(f"no rank {rank} under process {launcher}")


def wait_for_steps(process, folder, steps):
    deadline = time.monotonic() + PATIENCE
    while not (folder / "log.jsonl").exists() or len((folder / "log.jsonl").read_text().splitlines()) < steps:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
