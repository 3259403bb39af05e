"""Two GPUs over NCCL: they train like one, share optimiser state, and handle killed and late ranks."""

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from ernie_vil2.io.run_folder import list_checkpoints
from tests.support.processes import run_process
from tests.support.trainings import (
    find_rank_process,
    read_train_records,
    run_tool,
    start_tool,
    to_arguments,
    wait_for_steps,
)

pytestmark = pytest.mark.gpus(2)


def list_launcher_arguments(ranks, folder):
    return ["--gpus", ",".join(map(str, range(ranks))), "--log_dir", str(folder)]


def train_on_gpus(ranks, tmp_path, settings, *flags):
    """Train on this many GPUs, and return the run folder and the records of its steps."""
    folder = tmp_path / f"run_{ranks}"
    settings = [*settings, f"Training.output={folder}", "Training.device=gpu"]
    process = run_tool(
        "tools/train.py",
        *to_arguments(settings),
        *flags,
        launch=list_launcher_arguments(ranks, tmp_path / "logs"),
        timeout=1200,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return folder, read_train_records(folder)


def list_values(records, name):
    return [record[name] for record in records]


def check_same_records(actual, expected):
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(list_values(actual, name), list_values(expected, name), rtol=1e-3)


@pytest.mark.parametrize("changes", [[], ["Training.micro_batch=4"], ["Loss.kind=sigmoid"]])
def test_two_ranks_match_one(overrides, tmp_path, changes):
    # Eight steps: from the second on, losses and gradient norms also depend on the updates.
    _, expected = train_on_gpus(1, tmp_path, [*overrides, *changes])
    _, actual = train_on_gpus(2, tmp_path, [*overrides, *changes])
    check_same_records(actual, expected)


def test_efficientnet_trains_with_synchronised_norms(overrides, tmp_path, report):
    image = "Model.image={name: EfficientNetB0, image_size: 32}"
    losses = {}
    for ranks, name in ((1, "one"), (2, "two")):
        _, records = train_on_gpus(ranks, tmp_path, [*overrides, image])
        losses[name] = list_values(records, "loss")
    report(**losses)
    np.testing.assert_allclose(losses["two"][0], losses["one"][0], rtol=1e-3)
    assert np.isfinite(losses["two"]).all()


@pytest.mark.parametrize("sharding", ["stage1", "stage2"])
def test_sharded_state_is_saved_and_resumed(overrides, tmp_path, sharding, report):
    settings = [*overrides, "Training.checkpoint_every=4"]
    _, plain = train_on_gpus(2, tmp_path / "none", settings)
    sharded = [*settings, f"Training.sharding={sharding}"]
    folder, records = train_on_gpus(2, tmp_path / sharding, sharded)
    check_same_records(records, plain)
    for path in list_checkpoints(folder):
        if path.name != "step_00000004":
            shutil.rmtree(path)
    _, resumed = train_on_gpus(2, tmp_path / sharding, sharded, "--resume")
    check_same_records(resumed[-8:], plain)
    report(sharding=sharding, logs=[path.read_text()[-2000:] for path in (tmp_path / sharding / "logs").iterdir()])


def list_compute_processes():
    """Return [GPU, process] of each CUDA context on this machine."""
    query = ["nvidia-smi", "--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader"]
    lines = run_process(query, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    return [line.split(", ") for line in lines]


def test_each_rank_has_a_context_on_its_own_gpu_only(overrides, tmp_path):
    folder = tmp_path / "run"
    settings = [*overrides, "Training.steps=100000", f"Training.output={folder}", "Training.device=gpu"]
    contexts_of_others = list_compute_processes()
    with start_tool(
        "tools/train.py", *to_arguments(settings), launch=list_launcher_arguments(2, tmp_path / "logs")
    ) as process:
        wait_for_steps(process, folder, 3)
        contexts = [context for context in list_compute_processes() if context not in contexts_of_others]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=300)
    assert len(contexts) == 2
    assert len({gpu for gpu, _ in contexts}) == len({pid for _, pid in contexts}) == 2


def test_killed_rank_ends_the_run_and_is_reported(overrides, tmp_path):
    folder = tmp_path / "run"
    settings = [*overrides, "Training.steps=100000", f"Training.output={folder}", "Training.device=gpu"]
    with start_tool(
        "tools/train.py", *to_arguments(settings), launch=list_launcher_arguments(2, tmp_path / "logs")
    ) as process:
        wait_for_steps(process, folder, 3)
        os.kill(find_rank_process(process.pid, 1), signal.SIGKILL)
        process.communicate(timeout=300)
    assert process.returncode
    assert "rank 1" in "".join(path.read_text() for path in Path(tmp_path / "logs").iterdir())


def test_rank_0_resumes_after_a_pause_of_a_minute(overrides, tmp_path):
    folder = tmp_path / "run"
    settings = [*overrides, "Training.steps=300", f"Training.output={folder}", "Training.device=gpu"]
    with start_tool(
        "tools/train.py", *to_arguments(settings), launch=list_launcher_arguments(2, tmp_path / "logs")
    ) as process:
        wait_for_steps(process, folder, 3)
        first = find_rank_process(process.pid, 0)
        os.kill(first, signal.SIGSTOP)
        time.sleep(60)
        os.kill(first, signal.SIGCONT)
        process.communicate(timeout=1200)
    assert process.returncode == 0
