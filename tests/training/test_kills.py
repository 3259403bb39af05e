"""Runs that are killed and resumed have the losses of the uninterrupted run, bit for bit."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from ernie_vil2.training.checkpoint import list_checkpoints
from ernie_vil2.training.run_log import read_log
from tests.support.kill_worker import train
from tests.support.limits import PATIENCE
from tests.support.ranks import make_fork_context
from tests.support.trainings import assert_same_arrays, find_rank_process, run_tool, start_tool, to_arguments

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
TIME_FIELDS = {"seconds", "samples_per_second", "loader_wait", "cpu_seconds"}


def read_records(folder):
    """Return the log of a run without its measured times."""
    read_records = read_log(folder / "log.jsonl")
    for record in read_records:
        for key in TIME_FIELDS & record.keys():
            del record[key]
    return read_records


def check_interrupted_run(folder, expected_records):
    """Check that a killed run logged each step once, as the uninterrupted run did; return its last step."""
    logged = read_records(folder)
    assert logged == expected_records[: len(logged)]
    return read_last_step(folder)


def check_finished_run(folder, expected_folder):
    assert read_records(folder) == read_records(expected_folder)
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert_same_arrays(
            load_file(list_checkpoints(folder)[-1] / name), load_file(list_checkpoints(expected_folder)[-1] / name)
        )
    best, expected_best = ((run / "checkpoints" / "best").resolve().name for run in (folder, expected_folder))
    assert best == expected_best
    assert not list((folder / "checkpoints").glob(".*"))


def read_last_step(folder):
    """Return the last step in a log that may still be written to; 0 if it is empty."""
    logged = read_records(folder)
    return logged[-1]["step"] if logged else 0


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)  # short, as the folder of an unfinished checkpoint exists only briefly


def test_killed_run_ends_like_the_uninterrupted_run(overrides, tmp_path):
    settings = ["Training.steps=20", "Training.checkpoint_every=3", "Evaluation.every=10", "Data.workers=1",
                "Model.text.dropout=0.1"]  # fmt: skip
    context = make_fork_context()

    def start_training(output="run", **options):
        # The uninterrupted run gets a process as well: earlier tests may have set another number of threads in this
        # one, which would then sum in another order.
        arguments = [*overrides, *settings, f"Training.output={tmp_path / output}"]
        process = context.Process(target=train, args=[arguments], kwargs=options)
        process.start()
        return process

    folder, whole_folder = tmp_path / "run", tmp_path / "whole"
    # A checkpoint has two files of arrays. That of step 6 has one when the process is killed, two steps later.
    process = start_training(killed_in="save_arrays", killing_call=4, killed_after=8)
    uninterrupted = start_training(output="whole")
    for started in (process, uninterrupted):
        started.join(PATIENCE)
    expected = read_records(whole_folder)
    assert (process.exitcode, uninterrupted.exitcode) == (-signal.SIGKILL, 0)
    assert check_interrupted_run(folder, expected) in (8, 9)  # the save of step 9 waits for that of step 6
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == [".step_00000006.partial", "step_00000003"]
    assert [path.name for path in (folder / "checkpoints" / names[0]).iterdir()] == ["model.safetensors"]

    process = start_training(pause=0.2)  # from step 3
    wait_until(lambda: len(read_records(folder)) > 10)
    time.sleep(random.uniform(0, 0.5))  # noqa: S311  -- no secret; the moment of the kill should differ each time
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL and 10 <= check_interrupted_run(folder, expected) < 20

    process = start_training(
        killed_in="remove_folder"
    )  # the new checkpoint is written, and the replaced one is not yet removed
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    assert check_interrupted_run(folder, expected) < 20 and len(list_checkpoints(folder)) == 3

    process = start_training()
    process.join(PATIENCE)
    assert process.exitcode == 0
    check_finished_run(folder, whole_folder)


@pytest.mark.slow
def test_twenty_kills_of_two_ranks_change_nothing(overrides, tmp_path):
    # The kill comes at a random moment of starting, training or saving, to rank 0, rank 1 or their launcher.
    rng = random.Random(seed := random.randrange(1 << 32))  # noqa: S311  -- no secret
    print(f"seed {seed}")
    settings = [*overrides, "Training.steps=300", "Training.checkpoint_every=3", "Evaluation.every=20",
                "Data.workers=1", "Model.text.dropout=0.1"]  # fmt: skip
    command = "tools/train.py", "--processes", 2, "--resume"
    whole_folder, folder = tmp_path / "whole", tmp_path / "run"
    process = run_tool(*command, *to_arguments([*settings, f"Training.output={whole_folder}"]), timeout=PATIENCE)
    assert process.returncode == 0, process.stderr
    expected = read_records(whole_folder)

    for kill in range(20):
        moment, victim = rng.choice(("starting", "training", "training", "saving")), rng.choice((None, 0, 1))
        first_step = check_interrupted_run(folder, expected) if folder.exists() else 0
        # The remaining kills share the remaining steps.
        target = first_step + rng.randint(1, (300 - first_step) // (21 - kill))
        with start_tool(*command, *to_arguments(settings)) as process:
            ranks = [find_rank_process(process.pid, rank) for rank in range(2)]
            if moment == "starting":
                time.sleep(rng.uniform(0, 8))  # the start includes the imports of all processes
            else:
                wait_until(lambda step=target: read_last_step(folder) >= step or process.poll() is not None)
            if moment == "training":
                time.sleep(rng.uniform(0, 0.2))
            if moment == "saving":
                wait_until(lambda: any((folder / "checkpoints").glob(".step_*.partial")) or process.poll() is not None)
            assert process.poll() is None, process.communicate()
            os.kill(process.pid if victim is None else ranks[victim], signal.SIGKILL)
            process.communicate(timeout=PATIENCE)
        wait_until(lambda pids=ranks: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        logged_step = check_interrupted_run(folder, expected) if folder.exists() else 0
        print(f"kill {kill + 1}: rank {victim}, {moment}, begun after step {first_step}, logged up to {logged_step}")

    process = run_tool(*command, *to_arguments(settings), timeout=PATIENCE)
    assert process.returncode == 0, process.stderr
    check_finished_run(folder, whole_folder)
