"""SIGINT, SIGTERM and SIGHUP end a run on all ranks, with a checkpoint and an exit code for each signal."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ernie_vil2.device.launch import CTRL_C_INTERVAL, CtrlCDetector
from ernie_vil2.training.checkpoint import check_checkpoint, list_checkpoints
from ernie_vil2.training.run_log import read_log
from ernie_vil2.training.trainer import Trainer
from ernie_vil2.training.update import StopSignals
from tests.support.limits import PATIENCE
from tests.support.trainings import (
    find_rank_process,
    fit,
    read_evaluation_records,
    start_tool,
    to_arguments,
    wait_for_steps,
)

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks for the ranks in /proc")


@pytest.fixture(autouse=True)
def restore_hangup_signal():
    """Let child processes receive SIGHUP, even if these tests run under nohup."""
    previous_handler = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, previous_handler)


def check_last_checkpoint(folder):
    """Check that the newest checkpoint is intact and of the last logged step."""
    newest = list_checkpoints(folder)[-1]
    check_checkpoint(newest)
    assert json.loads((newest / "state.json").read_text())["step"] == read_log(folder / "log.jsonl")[-1]["step"]


def signal_process(process, folder, number, rank=None):
    """Send a signal to a process or one of its ranks after some steps, and return its output and errors."""
    wait_for_steps(process, folder, 3)
    os.kill(process.pid if rank is None else find_rank_process(process.pid, rank), number)
    return process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize(("number", "code"), [
    (signal.SIGTERM, 75),
    pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    pytest.param(signal.SIGHUP, 75, marks=pytest.mark.slow),
])  # fmt: skip
def test_signal_saves_and_sets_the_exit_code(overrides, tmp_path, number, code):
    arguments = to_arguments([*overrides, "Training.steps=100000", "Data.workers=1"])
    with start_tool("tools/train.py", *arguments) as process:
        output, error = signal_process(process, tmp_path / "run", number)
    assert process.returncode == code and "--resume" in output, error
    check_last_checkpoint(tmp_path / "run")


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["--processes", "Paddle's"])
@pytest.mark.parametrize("rank", [None, 0, 1])
def test_signal_to_any_process_stops_all_ranks(overrides, tmp_path, launcher, rank):
    arguments, options = to_arguments([*overrides, "Training.steps=100000"]), {}
    if launcher == "--processes":
        arguments += ["--processes", 2]
    else:
        options["launch"] = ["--nproc_per_node", "2", "--log_dir", tmp_path / "log"]
    with start_tool("tools/train.py", *arguments, **options) as process:
        output, error = signal_process(process, tmp_path / "run", signal.SIGTERM, rank)
    if options:
        assert process.returncode == (75 if rank is not None else signal.SIGTERM), output + error
        output = (tmp_path / "log" / "workerlog.0").read_text()
    else:
        assert process.returncode == 75 and "ended with code" not in error, error
    assert "--resume" in output
    check_last_checkpoint(tmp_path / "run")


@needs_proc
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_second_ctrl_c_ends_a_hanging_run(overrides, tmp_path, processes):
    worker = ["tests/support/failing_rank.py", "stuck", *overrides, "Data.workers=1"]
    launcher = (
        "import sys; from ernie_vil2.device import launch; sys.exit(launch.run_ranks(sys.argv[2:], int(sys.argv[1])))"
    )
    with start_tool("-c", launcher, processes, sys.executable, *worker) as process:
        wait_for_steps(process, tmp_path / "run", 2)
        # The first ones may arrive before the run hangs, or before its handler is installed.
        for _ in range(60):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.2 * CTRL_C_INTERVAL)
                break
        error = process.communicate()[1]
    assert process.returncode == 130, error
    assert "Traceback" not in error and list_checkpoints(tmp_path / "run") == []
    assert not Path(f"/proc/{process.pid}").exists()


def test_hangup_ignored_under_nohup_stays_ignored():
    previous_handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not any(signals.count_requests())
    finally:
        signal.signal(signal.SIGHUP, previous_handler)


def test_copies_of_one_ctrl_c_count_once(monkeypatch):
    time_now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: time_now)
    detector = CtrlCDetector()
    assert not detector.detect_second(signal.SIGTERM) and not detector.detect_second(signal.SIGINT)
    time_now = 100.9
    assert not detector.detect_second(signal.SIGINT)
    time_now = 101.1
    assert not detector.detect_second(signal.SIGTERM) and detector.detect_second(signal.SIGINT)


def send_signal_in(trainer, owner, method, step):
    """Make a method send SIGTERM to this process when it is called after this many steps."""
    original = getattr(owner, method)

    def send_and_call(*arguments, **options):
        if trainer.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)

    setattr(owner, method, send_and_call)


@pytest.mark.parametrize("method", [
    "_evaluate", "_sum_over_ranks", *(pytest.param(name, marks=pytest.mark.slow) for name in ("_save", "decide"))
])  # fmt: skip
def test_signal_is_handled_at_any_time(config, method):
    # Ranks agree on stopping before each step and each evaluation; a later request waits for the next agreement.
    trainer = Trainer(config("Evaluation.every=2", "Training.checkpoint_every=2"))
    owner = {"decide": trainer.signals, "_sum_over_ranks": trainer.update}.get(method, trainer)
    send_signal_in(trainer, owner, method, 2)
    assert not trainer.fit()
    expected_step = 4 if method == "_sum_over_ranks" else 3
    assert trainer.signals.stop_signal == signal.SIGTERM and trainer.step == expected_step
    check_last_checkpoint(trainer.run)


def test_stopped_run_is_evaluated_after_resume(config, tmp_path):
    settings = "Evaluation.every=2", "Training.checkpoint_every=100", "Training.steps=6"
    uninterrupted = fit(config(*settings, f"Training.output={tmp_path / 'whole'}"))
    for step in (3, 5):  # `_sum_over_ranks` is called before the step is counted
        trainer = Trainer(config(*settings), resume=True)
        send_signal_in(trainer, trainer.update, "_sum_over_ranks", step)
        assert not trainer.fit() and trainer.step == step + 1 and trainer.evaluations.evaluated_step == step - 1
        assert list_checkpoints(trainer.run)[-1].name == f"step_{step + 1:08d}"
    resumed = Trainer(config(*settings), resume=True)
    assert resumed.fit() and resumed.best == uninterrupted.best
    evaluations = [(record["step"], record["metrics"]) for record in read_evaluation_records(resumed.run)]
    expected = [(record["step"], record["metrics"]) for record in read_evaluation_records(uninterrupted.run)]
    assert len(expected) == 3 and evaluations == expected
    assert (resumed.run / "checkpoints" / "best").resolve().name == f"step_{uninterrupted.best['step']:08d}"
