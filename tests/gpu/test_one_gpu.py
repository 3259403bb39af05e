"""One GPU: the tests of CPUs, reduced precision, and time and memory of a step."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import paddle
import pytest

from ernie_vil2 import cli as commands
from ernie_vil2.data.augment import ImageNormalization
from ernie_vil2.data.preprocessing import normalize_images
from ernie_vil2.training.trainer import Trainer
from tests.support.paths import ROOT
from tests.support.processes import run_process, start_process
from tests.support.trainings import fit, read_logged_losses, read_train_records, to_arguments

TEXT = ["Model.text.dropout=0.1", "Model.text.attention_dropout=0.1"]
STEPS = ["Training.steps=20", "Training.device=gpu"]
BASE_SETTINGS = [
    "Model.image={name: ViT-B/16}",
    "Model.text={name: ernie-base}",
    "Data.max_length=48",
    "Views.resize=256",
    "Data.workers=8",
    "Training.precision=bfloat16",
    "Training.global_batch=256",
    "Training.steps=30",
    "Training.log_every=30",
    "Training.device=gpu",
]


@pytest.mark.parametrize("tests", [
    "losses", "models", "training/test_crossings.py", "training/test_dropout.py", "training/test_nonfinite.py",
    "training/test_step.py", "views",
])  # fmt: skip
def test_cpu_tests_pass_on_the_gpu(tests):
    # The tests run in another process, where the device is Paddle's default: the GPU.
    command = [sys.executable, "-m", "pytest", "-q", f"tests/{tests}"]
    process = run_process(command, cwd=ROOT, capture_output=True, text=True, timeout=3600)
    assert process.returncode == 0, process.stdout[-4000:]


def train_and_read_losses(config):
    return read_logged_losses(fit(config).run)


def test_twenty_steps_of_bfloat16_are_near_those_of_float32(config, tmp_path, report):
    losses = {}
    for precision in ("float32", "bfloat16"):
        output = f"Training.output={tmp_path / precision}"
        losses[precision] = train_and_read_losses(config(*TEXT, *STEPS, f"Training.precision={precision}", output))
    report(**losses)
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.03)


@pytest.mark.parametrize("changes", [
    # Backbones with stochastic depth.
    ["Training.precision=float16", "Model.image={name: CvT_13_224, image_size: 224}", "Views.resize=224"],
    ["Training.precision=float16", "Model.image={name: DSNet_tiny, image_size: 224}", "Views.resize=224"],
    # The fused kernels of attention take bfloat16, and draw the dropout of attention weights themselves.
    ["Training.precision=bfloat16", "Training.dropout=native", *TEXT],
], ids=["CvT", "DSNet", "fused"])  # fmt: skip
def test_losses_fall_in_a_narrow_type(config, changes, report):
    losses = train_and_read_losses(config(*STEPS, *changes))
    report(losses=losses)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


@pytest.mark.parametrize(("dtype", "spacing"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_pixels_are_normalised_in_one_pass_in_a_narrow_type(dtype, spacing):
    pixels = paddle.randint(0, 256, [4, 32, 32, 3]).astype("uint8")
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    actual = ImageNormalization(mean, std, dtype)(pixels).astype("float32")
    np.testing.assert_allclose(actual.numpy(), normalize_images(pixels, mean, std).numpy(), rtol=spacing, atol=1e-6)


def test_commands_encode_in_bfloat16(config, shapes, tmp_path, report):
    # The report compares the recall of a trained model in bfloat16 and float32.
    fit(config(*STEPS))
    results = {}
    for precision in ("float32", "bfloat16"):
        output = tmp_path / precision
        arguments = ["--checkpoint", tmp_path / "run", "--data", shapes["val"], "--language", "en", "--output", output]
        assert commands.run("eval", [*map(str, arguments), "--precision", precision, "--name", "scores"]) == 0
        results[precision] = json.loads((output / "scores.json").read_text())["results"]
    report(**results)


@pytest.mark.parametrize("changes", [[], ["Training.micro_batch=64"], ["Training.recompute=true"]],
                         ids=["direct", "cached", "recomputed"])  # fmt: skip
def test_step_reports_time_memory_wait_and_utilisation(config, changes, report):
    # The report also contains the plan of `tools/plan.py` for the same configuration, to compare the memory.
    trainer = Trainer(config(*BASE_SETTINGS, *changes))
    query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader", "--loop-ms=500"]
    with start_process(query, stdout=subprocess.PIPE, text=True) as watch:
        start = time.monotonic()
        trainer.fit()
        seconds = time.monotonic() - start
        watch.terminate()
        samples = watch.communicate()[0].splitlines()
    record = read_train_records(trainer.run)[0]
    plan = run_process(
        [sys.executable, "tools/plan.py", *to_arguments([*BASE_SETTINGS, *changes])],
        cwd=ROOT, capture_output=True, text=True, env=os.environ,
    ).stdout  # fmt: skip
    report(
        seconds=seconds,
        samples_per_second=record["samples_per_second"],
        loader_wait=record["loader_wait"],
        peak_bytes=paddle.device.cuda.max_memory_allocated(),
        nvidia_smi=samples,
        plan=plan,
    )
    assert record["samples_per_second"] > 0
