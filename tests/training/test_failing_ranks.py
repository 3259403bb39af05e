"""If one of two ranks fails, both end soon, and the failing rank and the cause are reported."""

import contextlib
import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ernie_vil2.device.launch import run_ranks
from ernie_vil2.io.run_folder import lock_run_folder
from tests.support import failing_rank
from tests.support.limits import PATIENCE
from tests.support.paths import ROOT
from tests.support.trainings import find_rank_process, read_train_records, start_tool, to_arguments, wait_for_steps

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for the ranks in /proc")


def run_two_ranks(monkeypatch, fault, overrides):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    worker = Path(failing_rank.__file__)
    return run_ranks([sys.executable, str(worker), fault, *overrides], 2)


@pytest.mark.parametrize(("number", "reason"), [
    (signal.SIGKILL, "rank 1 of 2 ended with code -9"),
    # Rank 1 is not named if it stops in the middle of a request to the store.
    pytest.param(signal.SIGSTOP, "has given no sign of life", marks=pytest.mark.slow),
])  # fmt: skip
def test_killed_or_hanging_rank_ends_the_other(overrides, tmp_path, number, reason):
    arguments = to_arguments([*overrides, "Training.steps=100000"])
    with start_tool("tools/train.py", "--processes", 2, *arguments) as process:
        wait_for_steps(process, tmp_path / "run", 2)
        os.kill(find_rank_process(process.pid, 1), number)
        error = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode and reason in error
    if number == signal.SIGKILL:
        assert process.returncode == 128 + signal.SIGKILL and "rank 0 of 2 ended" not in error


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["rank 1", "launcher"])
def test_ranks_end_under_paddles_launcher(overrides, tmp_path, victim):
    launch = ["--nproc_per_node", "2", "--log_dir", tmp_path / "log"]
    with start_tool("tools/train.py", *to_arguments([*overrides, "Training.steps=100000"]), launch=launch) as process:
        wait_for_steps(process, tmp_path / "run", 2)
        ranks = [find_rank_process(process.pid, rank) for rank in range(2)]
        os.kill(ranks[1] if victim == "rank 1" else process.pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while any(Path(f"/proc/{rank}").exists() for rank in ranks):
            process.poll()
            assert time.monotonic() < deadline
            time.sleep(0.5)  # between two looks into /proc
    assert process.returncode != 0
    if victim == "rank 1":
        log = (tmp_path / "log" / "workerlog.0").read_text()
        # The death is noticed in one of our collectives, or in one of data parallel, which raises no exception.
        assert "rank 1 has died, or did not answer rank 0" in log or "rank 0 has lost another rank" in log, log


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "changes", "culprit"), [
    ("nan", [], r"loss of step 2 .*\(rank 1: "),
    ("gradient", [], r"gradient of step 2 .*\(text\."),
    ("gradient", ["Training.sharding=stage1"], r"gradient of step 2 .*\(text\."),
    ("gradient", ["Training.micro_batch=3"], r"gradient of step 2 .*\(text\."),
])  # fmt: skip
def test_nonfinite_values_of_one_rank_are_skipped_or_stop_both(
    overrides, tmp_path, monkeypatch, capfd, fault, changes, culprit
):
    overrides = [*overrides, *changes]
    assert run_two_ranks(monkeypatch, fault, overrides) == 2
    assert len(re.findall(f"NotFinite: the {culprit}", capfd.readouterr().out)) == 2
    folder = tmp_path / "run" / "nonfinite_step_00000002"
    batches = [load_file(folder / f"batch_rank{rank}.safetensors") for rank in range(2)]
    assert not np.array_equal(batches[0]["image_1"], batches[1]["image_1"])
    for name, value in load_file(folder / "model.safetensors").items():
        assert np.isfinite(value).all(), name

    output = tmp_path / "skips"
    settings = [*overrides, "Training.nonfinite=skip", f"Training.output={output}"]
    assert run_two_ranks(monkeypatch, fault, settings) == 0
    printed = capfd.readouterr()
    assert all(f"rank {rank} finished: True" in printed.out for rank in range(2))
    skipped_steps = [record["step"] for record in read_train_records(output) if record["gradient_norm"] is None]
    assert skipped_steps == ([2] if fault == "nan" else [2, 5])
    assert {path.name for path in output.glob("nonfinite_*/*")} == {"batch_rank0.json", "batch_rank1.json"}


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "rank", "cause"), [
    ("bad samples", 1, "TooManyBadSamples: 0 of 8 samples"), ("data", 1, "FullDisk: "), ("disk", 0, "FullDisk: "),
    ("folder in use", 0, "ConfigError: "),
])  # fmt: skip
def test_error_of_one_rank_ends_both_with_its_cause(overrides, tmp_path, monkeypatch, capfd, fault, rank, cause):
    with lock_run_folder(tmp_path / "run") if fault == "folder in use" else contextlib.nullcontext():
        assert run_two_ranks(monkeypatch, fault, [*overrides, "Training.checkpoint_every=2"]) == 2
    printed = capfd.readouterr().out
    assert f"rank {rank} ends with {cause}" in printed
    assert f"rank {1 - rank} ends with FailedRank: rank {rank}: {cause.partition(': ')[2]}" in printed
    if fault == "bad samples":
        assert (tmp_path / "run" / "bad_samples.txt").exists()


@pytest.mark.slow
def test_failed_evaluation_on_one_rank_ends_no_rank(overrides, monkeypatch, capfd):
    assert run_two_ranks(monkeypatch, "evaluation", [*overrides, "Evaluation.every=4"]) == 0
    printed = capfd.readouterr()
    assert all(f"rank {rank} finished: True" in printed.out for rank in range(2))
    assert "evaluation on val, zh: rank 1: no room for it" in printed.err


def test_different_settings_of_ranks_are_reported(overrides, tmp_path, monkeypatch, capfd):
    # Rank 1 gets another beta1.
    tool = (
        "import os, runpy, sys\n"
        "if os.environ['PADDLE_TRAINER_ID'] == '1':\n"
        "    sys.argv += ['-o', 'Optimizer.beta1=0.5']\n"
        "runpy.run_path('tools/train.py', run_name='__main__')"
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT)
    assert run_ranks([sys.executable, "-c", tool, *to_arguments(overrides)], 2) == 2
    line = "; Optimizer.beta1: rank 1 has 0.5; rank 0 has 0.9\n"
    assert capfd.readouterr().err.count(line) >= 2  # each rank reported it
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.lock"]


@pytest.mark.slow
def test_ranks_wait_for_a_late_rank(overrides, monkeypatch, capfd):
    # The delay is longer than the 30 seconds after which gloo by default gives up on a rank.
    assert run_two_ranks(monkeypatch, "late", [*overrides, "Training.steps=4", "Training.checkpoint_every=2"]) == 0
    assert "rank 0 finished: True" in capfd.readouterr().out
