"""Two GPUs over NCCL: the same as one, sharded state, and ranks that are lost or late."""

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from ernie_vil2.io.run_folder import list_checkpoints
from tests.support.trainings import (
    find_rank_process,
    read_train_records,
    run_tool,
    start_tool,
    to_arguments,
    wait_for_steps,
)

pytestmark = pytest.mark.gpus(2)


def launch(ranks, folder):
    return ["--gpus", ",".join(map(str, range(ranks))), "--log_dir", str(folder)]


def trained(ranks, tmp_path, settings, *flags):
    """Return the run folder of some steps on as many GPUs, and the records of its log."""
    folder = tmp_path / f"run_{ranks}"
    settings = [*settings, f"Training.output={folder}", "Training.device=gpu"]
    done = run_tool(
        "tools/train.py", *to_arguments(settings), *flags, launch=launch(ranks, tmp_path / "logs"), timeout=1200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, read_train_records(folder)


def assert_same(one, two):
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose([each[name] for each in two], [each[name] for each in one], rtol=1e-3)


@pytest.mark.parametrize("changes", [[], ["Training.micro_batch=4"], ["Loss.kind=sigmoid"]])
def test_two_ranks_learn_what_one_does(overrides, tmp_path, changes):
    """Losses and gradient norms of eight steps, each after the updates before it."""
    one, two = (trained(ranks, tmp_path, [*overrides, *changes])[1] for ranks in (1, 2))
    assert_same(one, two)


def test_efficientnet_with_synchronised_norms(overrides, tmp_path, report):
    image = "Model.image={name: EfficientNetB0, image_size: 32}"
    one, two = (trained(ranks, tmp_path, [*overrides, image])[1] for ranks in (1, 2))
    report(one=[each["loss"] for each in one], two=[each["loss"] for each in two])
    np.testing.assert_allclose(two[0]["loss"], one[0]["loss"], rtol=1e-3)
    assert np.isfinite([each["loss"] for each in two]).all()


@pytest.mark.parametrize("sharding", ["stage1", "stage2"])
def test_sharded_state_is_saved_and_resumed(overrides, tmp_path, sharding, report):
    settings = [*overrides, "Training.checkpoint_every=4"]
    _, plain = trained(2, tmp_path / "none", settings)
    sharded = [*settings, f"Training.sharding={sharding}"]
    folder, found = trained(2, tmp_path / sharding, sharded)
    assert_same(plain, found)
    for path in list_checkpoints(folder):
        if path.name != "step_00000004":
            shutil.rmtree(path)
    _, again = trained(2, tmp_path / sharding, sharded, "--resume")
    assert_same(plain, again[-8:])
    report(sharding=sharding, logs=[path.read_text()[-2000:] for path in (tmp_path / sharding / "logs").iterdir()])


def test_a_rank_that_is_killed_ends_the_run_and_is_named(overrides, tmp_path):
    folder = tmp_path / "run"
    settings = [*overrides, "Training.steps=100000", f"Training.output={folder}", "Training.device=gpu"]
    with start_tool("tools/train.py", *to_arguments(settings), launch=launch(2, tmp_path / "logs")) as process:
        wait_for_steps(process, folder, 3)
        os.kill(find_rank_process(process.pid, 1), signal.SIGKILL)
        process.communicate(timeout=300)
    assert process.returncode
    assert "rank 1" in "".join(path.read_text() for path in Path(tmp_path / "logs").iterdir())


def test_a_rank_0_that_is_paused_for_a_minute_goes_on(overrides, tmp_path):
    folder = tmp_path / "run"
    settings = [*overrides, "Training.steps=300", f"Training.output={folder}", "Training.device=gpu"]
    with start_tool("tools/train.py", *to_arguments(settings), launch=launch(2, tmp_path / "logs")) as process:
        wait_for_steps(process, folder, 3)
        first = find_rank_process(process.pid, 0)
        os.kill(first, signal.SIGSTOP)
        time.sleep(60)
        os.kill(first, signal.SIGCONT)
        process.communicate(timeout=1200)
    assert process.returncode == 0
