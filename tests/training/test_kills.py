"""Runs that are killed and go on: every loss is the one of the uninterrupted run, bit for bit."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ernie_vil2.training.checkpoint import list_checkpoints
from ernie_vil2.training.run_log import read_log
from tests.support.kill_worker import train
from tests.support.limits import PATIENCE
from tests.support.ranks import make_fork_context
from tests.support.trainings import find_rank_process, run_tool, start_tool, to_arguments

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
TIMES = {"seconds", "samples_per_second", "loader_wait", "cpu_seconds"}


def records(folder):
    """Return what a run has logged, without what says how long it took."""
    return [
        {key: value for key, value in record.items() if key not in TIMES} for record in read_log(folder / "log.jsonl")
    ]


def check_part(folder, whole):
    """Check that a killed run did its steps as the uninterrupted one did, each once; return the last one."""
    logged = records(folder)
    assert logged == whole[: len(logged)]
    return last_step(folder)


def check_end(folder, other):
    assert records(folder) == records(other)
    for name in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = (load_file(list_checkpoints(run)[-1] / name) for run in (folder, other))
        assert ours.keys() == theirs.keys() and all(np.array_equal(ours[key], theirs[key]) for key in ours)
    assert len({(run / "checkpoints" / "best").resolve().name for run in (folder, other)}) == 1
    assert not list((folder / "checkpoints").glob(".*"))


def last_step(folder):
    """Return the last step in a log, which may be about to be written."""
    logged = records(folder)
    return logged[-1]["step"] if logged else 0


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_killed_run_ends_where_the_whole_one_ends(overrides, tmp_path):
    settings = ["Training.steps=20", "Training.checkpoint_every=3", "Evaluation.every=10", "Data.workers=1",
                "Model.text.dropout=0.1"]  # fmt: skip
    context = make_fork_context()

    def starts(killed_in=None, output="run", pause=0.0):
        # The whole run as well: threads that an earlier test has set in this process would sum in another order.
        arguments = [*overrides, *settings, f"Training.output={tmp_path / output}"]
        process = context.Process(target=train, args=(arguments, killed_in, pause))
        process.start()
        return process

    folder, whole = tmp_path / "run", tmp_path / "whole"
    process, uninterrupted = starts(killed_in="save_arrays"), starts(output="whole")
    for started in (process, uninterrupted):
        started.join(PATIENCE)
    expected = records(whole)
    assert (process.exitcode, uninterrupted.exitcode) == (-signal.SIGKILL, 0) and check_part(folder, expected) == 3
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [".step_00000003.partial"]

    process = starts(pause=0.2)
    wait_until(lambda: len(records(folder)) > 8)
    time.sleep(random.uniform(0, 0.5))  # noqa: S311  -- no secret
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL and 8 < check_part(folder, expected) < 20

    process = starts(killed_in="remove_folder")  # the new checkpoint is there, the one that it replaces as well
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    assert check_part(folder, expected) < 20 and len(list_checkpoints(folder)) == 3

    process = starts()
    process.join(PATIENCE)
    assert process.exitcode == 0
    check_end(folder, whole)


@pytest.mark.slow
def test_twenty_kills_of_two_ranks_change_nothing(overrides, tmp_path):
    """At random moments, while it starts, trains or saves: rank 0, rank 1, or the process that started them."""
    rng = random.Random(seed := random.randrange(1 << 32))  # noqa: S311  -- no secret
    print(f"seed {seed}")
    settings = [*overrides, "Training.steps=300", "Training.checkpoint_every=3", "Evaluation.every=20",
                "Data.workers=1", "Model.text.dropout=0.1"]  # fmt: skip
    command = "tools/train.py", "--processes", 2, "--resume"
    whole, folder = tmp_path / "whole", tmp_path / "run"
    done = run_tool(*command, *to_arguments([*settings, f"Training.output={whole}"]), timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    expected = records(whole)

    for kill in range(20):
        moment, victim = rng.choice(("starting", "training", "training", "saving")), rng.choice((None, 0, 1))
        before = check_part(folder, expected) if folder.exists() else 0
        target = before + rng.randint(1, (300 - before) // (21 - kill))
        with start_tool(*command, *to_arguments(settings)) as process:
            ranks = [find_rank_process(process.pid, rank) for rank in range(2)]
            if moment == "starting":
                time.sleep(rng.uniform(0, 8))
            else:
                wait_until(lambda at=target: last_step(folder) >= at or process.poll() is not None)
            if moment == "training":
                time.sleep(rng.uniform(0, 0.2))
            if moment == "saving":
                wait_until(lambda: any((folder / "checkpoints").glob(".step_*.partial")) or process.poll() is not None)
            assert process.poll() is None, process.communicate()
            os.kill(process.pid if victim is None else ranks[victim], signal.SIGKILL)
            process.communicate(timeout=PATIENCE)
        wait_until(lambda pids=ranks: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        at = check_part(folder, expected) if folder.exists() else 0
        print(f"kill {kill + 1}: rank {victim}, {moment}, begun after step {before}, logged up to {at}")

    done = run_tool(*command, *to_arguments(settings), timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    check_end(folder, whole)
