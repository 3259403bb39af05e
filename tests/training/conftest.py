"""A tiny model on coloured shapes, and a way to run the tools as a user does."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ernie_vil2.config import load_config
from tests.support.limits import PATIENCE
from tests.support.processes import start_process

ROOT = Path(__file__).parents[2]
VOCABULARY = ROOT / "demo_data" / "vocabulary.txt"
"""Has the words of the shapes, and a seventh of the tokens of the packaged one."""


@pytest.fixture
def overrides(shapes, tmp_path):
    """Overrides of a run of seconds: ViT 32/8 and ERNIE, width 64, one block each, without dropout."""
    return [
        "Model.image={name: ViT, image_size: 32, patch_size: 8, width: 64, depth: 1, heads: 2}",
        "Model.text={name: ernie, width: 64, depth: 1, heads: 2, max_positions: 24, dropout: 0.0, "
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
        f"Training.output={tmp_path / 'run'}",
    ]


@pytest.fixture
def config(overrides):
    """`config("Section.key=value", ...)`: the tiny run with changes."""
    return lambda *changes: load_config(None, [*overrides, *changes])


def start(*arguments, launch=None, **options):
    """Starts a tool from the repository's root; `launch` are arguments for Paddle's launcher, `options` for Popen."""
    launcher = ["-m", "paddle.distributed.launch", *launch] if launch else []
    return start_process(
        [sys.executable, *map(str, [*launcher, *arguments])],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
    )


def run(*arguments, launch=None, timeout=PATIENCE):
    """Runs a tool to its end; the result has `returncode`, `stdout` and `stderr`."""
    with start(*arguments, launch=launch) as process:
        try:
            output, error = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, error)


def as_arguments(overrides):
    return [argument for override in overrides for argument in ("-o", override)]


def rank_process(launcher, rank):
    """The process of a rank by its launcher's, once it is there."""
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
