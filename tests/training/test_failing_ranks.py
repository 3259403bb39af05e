"""Two ranks of which one fails: both end, soon, and which one and why is reported."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ernie_vil2.device.launch import run_ranks
from ernie_vil2.io.run_folder import owned
from tests.support import failing_rank
from tests.support.limits import PATIENCE
from tests.support.paths import ROOT
from tests.support.trainings import as_arguments, rank_process, start, train_records, wait_for_steps

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for the ranks in /proc")


def ends(process):
    """Wait for the end of a process; print how long it took, which is long before a collective operation gives up."""
    since = time.monotonic()
    output, error = process.communicate(timeout=PATIENCE)
    print(f"ended after {time.monotonic() - since:.1f} s with code {process.returncode}", error, sep="\n")
    return output, error


def run_two(monkeypatch, fault, overrides):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    worker = Path(failing_rank.__file__)
    return run_ranks([sys.executable, str(worker), fault, *overrides], 2)


def test_a_killed_rank_ends_the_other_and_is_named(overrides, tmp_path):
    arguments = as_arguments([*overrides, "Training.steps=100000"])
    with start("tools/train.py", "--processes", 2, *arguments) as process:
        wait_for_steps(process, tmp_path / "run", 2)
        os.kill(rank_process(process.pid, 1), signal.SIGKILL)
        _, error = ends(process)
    assert process.returncode == 128 + signal.SIGKILL
    assert "rank 1 of 2 ended with code -9 (SIGKILL)" in error and "rank 0 of 2 ended" not in error


@pytest.mark.slow
def test_loss_of_one_rank_that_is_not_finite_stops_both(overrides, tmp_path, monkeypatch, capfd):
    assert run_two(monkeypatch, "nan", overrides) == 2
    printed = capfd.readouterr().out
    assert printed.count("NotFinite: the loss of step 2 is not finite (rank 1: loss nan, ") == 2
    assert "rank 0: loss" not in printed
    check_evidence(tmp_path / "run" / "nonfinite_step_00000002")


def check_evidence(folder):
    batches = [load_file(folder / f"batch_rank{rank}.safetensors") for rank in range(2)]
    assert [batch["ids"].shape for batch in batches] == [(8, 2), (8, 2)]
    assert not np.array_equal(batches[0]["image_1"], batches[1]["image_1"])
    assert all(np.isfinite(value).all() for value in load_file(folder / "model.safetensors").values())


@pytest.mark.slow
@pytest.mark.parametrize("changes", [[], ["Training.sharding=stage1"], ["Training.micro_batch=3"]],
                         ids=["direct", "stage1", "cached"])  # fmt: skip
def test_gradient_of_one_rank_is_left_out_or_stops_both(overrides, tmp_path, monkeypatch, capfd, changes):
    overrides = [*overrides, *changes]
    assert run_two(monkeypatch, "gradient", overrides) == 2
    assert capfd.readouterr().out.count("NotFinite: the gradient of step 2 is not finite (text.") == 2
    check_evidence(tmp_path / "run" / "nonfinite_step_00000002")

    output = tmp_path / "skips"
    settings = [*overrides, "Training.nonfinite=skip", f"Training.output={output}"]
    assert run_two(monkeypatch, "gradient", settings) == 0
    printed = capfd.readouterr()
    assert all(f"rank {rank} finished: True" in printed.out for rank in range(2))
    assert printed.err.count("the step is left out") == 2
    norms = [record["gradient_norm"] for record in train_records(output)]
    assert [step for step, norm in enumerate(norms) if norm is None] == [1, 4]
    assert {path.name for path in output.glob("nonfinite_*/*")} == {"batch_rank0.json", "batch_rank1.json"}


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "rank", "cause"), [
    ("bad samples", 1, "TooManyBadSamples: 0 of 8 samples could not be used, more than Data.max_bad_share"),
    ("data", 1, "FullDisk: no room for it"),
    ("disk", 0, "FullDisk: no room for it"),
])  # fmt: skip
def test_an_error_of_one_rank_ends_both_with_its_cause(overrides, tmp_path, monkeypatch, capfd, fault, rank, cause):
    assert run_two(monkeypatch, fault, overrides) == 2
    printed = capfd.readouterr().out
    assert f"rank {rank} ends with {cause}" in printed
    assert f"rank {1 - rank} ends with FailedRank: rank {rank}: {cause.partition(': ')[2]}" in printed
    if fault == "bad samples":
        assert (tmp_path / "run" / "bad_samples.txt").exists()


@pytest.mark.slow
def test_an_evaluation_that_fails_on_one_rank_ends_none(overrides, tmp_path, monkeypatch, capfd):
    settings = [*overrides, "Evaluation.every=4"]
    assert run_two(monkeypatch, "evaluation", settings) == 0
    printed = capfd.readouterr()
    assert all(f"rank {rank} finished: True" in printed.out for rank in range(2))
    assert "warning: evaluation on val, zh: rank 1: no room for it" in printed.err
    assert "warning: left out after failures: 2 x evaluation on val, zh, 2 x evaluation on val, en" in printed.err


def test_ranks_that_were_started_with_other_values_say_which(overrides, tmp_path, monkeypatch, capfd):
    other = "import os, sys; sys.argv += ['-o', 'Optimizer.beta1=0.5'] * (os.environ['PADDLE_TRAINER_ID'] == '1')"
    tool = f"{other}; import runpy; runpy.run_path('tools/train.py', run_name='__main__')"
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT)
    assert run_ranks([sys.executable, "-c", tool, *as_arguments(overrides)], 2) == 2
    error = capfd.readouterr().err
    line = "; Optimizer.beta1: rank 1 has 0.5; rank 0 has 0.9\n"
    assert error.count(line) >= 2  # each rank reported it
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.lock"]


@pytest.mark.slow
def test_a_folder_in_use_ends_all_ranks_with_that_reason(overrides, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT)
    with owned(tmp_path / "run"):
        assert run_ranks([sys.executable, "tools/train.py", *as_arguments(overrides)], 2) == 2
    error = capfd.readouterr().err
    reason = f"{tmp_path}/run is in use: process {os.getpid()} on "
    assert f"error: {reason}" in error and f"error: rank 0: {reason}" in error
    assert "look into its log" not in error and "Traceback" not in error


@pytest.mark.slow
def test_a_rank_killed_under_paddles_launcher_is_in_its_log(overrides, tmp_path):
    launch = ["--nproc_per_node", "2", "--log_dir", tmp_path / "log"]
    with start("tools/train.py", *as_arguments([*overrides, "Training.steps=100000"]), launch=launch) as process:
        wait_for_steps(process, tmp_path / "run", 2)
        os.kill(rank_process(process.pid, 1), signal.SIGKILL)
        output, error = ends(process)
    assert process.returncode != 0
    log = (tmp_path / "log" / "workerlog.0").read_text()
    # Noticed in a collective of ours, or in data parallel's, of which no exception comes.
    assert "rank 1 has died, or did not answer rank 0" in log or "rank 0 has lost another rank" in log, log
    assert "Container rank 1 status failed" in output + error


@pytest.mark.slow
def test_when_paddles_launcher_is_killed_its_ranks_end(overrides, tmp_path):
    launch = ["--nproc_per_node", "2", "--log_dir", tmp_path / "log"]
    with start("tools/train.py", *as_arguments([*overrides, "Training.steps=100000"]), launch=launch) as process:
        wait_for_steps(process, tmp_path / "run", 2)
        ranks = [rank_process(process.pid, rank) for rank in range(2)]
        process.kill()
        deadline = time.monotonic() + PATIENCE
        while any(Path(f"/proc/{rank}").exists() for rank in ranks):
            assert time.monotonic() < deadline
            time.sleep(0.5)


@pytest.mark.slow
def test_a_rank_that_hangs_ends_all(overrides, tmp_path):
    arguments = as_arguments([*overrides, "Training.steps=100000"])
    with start("tools/train.py", "--processes", 2, *arguments) as process:
        wait_for_steps(process, tmp_path / "run", 2)
        os.kill(rank_process(process.pid, 1), signal.SIGSTOP)
        _, error = ends(process)
    assert process.returncode != 0
    assert "rank 1 has given no sign of life for 20 seconds" in error


@pytest.mark.slow
def test_ranks_wait_for_one_that_is_late(overrides, monkeypatch, capfd):
    """Longer than the 30 seconds after which gloo alone gives a rank up."""
    assert run_two(monkeypatch, "late", [*overrides, "Training.steps=4", "Training.checkpoint_every=2"]) == 0
    assert "rank 0 finished: True" in capfd.readouterr().out
