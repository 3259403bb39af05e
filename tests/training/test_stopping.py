"""SIGINT, SIGTERM and SIGHUP end a run with a checkpoint, on all ranks, with an exit code each."""

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

in_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks for the ranks in /proc")


@pytest.fixture(autouse=True)
def hangups_count():
    """Runs that are started hear SIGHUP, even where these tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def check_saved(folder):
    """Check that the newest checkpoint is whole and of the last step that was logged."""
    newest = list_checkpoints(folder)[-1]
    check_checkpoint(newest)
    assert json.loads((newest / "state.json").read_text())["step"] == read_log(folder / "log.jsonl")[-1]["step"]


def stopped(process, folder, number, rank=None):
    """Send a signal after some steps, to the process or one of its ranks; return output and errors."""
    wait_for_steps(process, folder, 3)
    os.kill(process.pid if rank is None else find_rank_process(process.pid, rank), number)
    return process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize(("number", "code"), [
    (signal.SIGTERM, 75),
    pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    pytest.param(signal.SIGHUP, 75, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_signal_saves_and_has_its_exit_code(overrides, tmp_path, number, code):
    arguments = to_arguments([*overrides, "Training.steps=100000", "Data.workers=1"])
    with start_tool("tools/train.py", *arguments) as process:
        output, error = stopped(process, tmp_path / "run", number)
    assert process.returncode == code and "--resume" in output, error
    check_saved(tmp_path / "run")


@in_proc
@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["--processes", "Paddle's"])
@pytest.mark.parametrize("rank", [None, 0, 1])
def test_all_ranks_stop_whoever_of_them_is_signalled(overrides, tmp_path, launcher, rank):
    arguments, options = to_arguments([*overrides, "Training.steps=100000"]), {}
    if launcher == "--processes":
        arguments += ["--processes", 2]
    else:
        options["launch"] = ["--nproc_per_node", "2", "--log_dir", tmp_path / "log"]
    with start_tool("tools/train.py", *arguments, **options) as process:
        output, error = stopped(process, tmp_path / "run", signal.SIGTERM, rank)
    if options:
        assert process.returncode == (75 if rank is not None else signal.SIGTERM), output + error
        output = (tmp_path / "log" / "workerlog.0").read_text()
    else:
        assert process.returncode == 75 and "ended with code" not in error, error
    assert "--resume" in output
    check_saved(tmp_path / "run")


@in_proc
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_second_ctrl_c_ends_a_run_that_hangs(overrides, tmp_path, processes):
    worker = ["tests/support/failing_rank.py", "stuck", *overrides, "Data.workers=1"]
    launcher = (
        "import sys; from ernie_vil2.device import launch; sys.exit(launch.run_ranks(sys.argv[2:], int(sys.argv[1])))"
    )
    with start_tool("-c", launcher, processes, sys.executable, *worker) as process:
        wait_for_steps(process, tmp_path / "run", 2)
        for _ in range(60):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.2 * CTRL_C_INTERVAL)
                break
        error = process.communicate()[1]
    assert process.returncode == 130, error
    assert "Traceback" not in error and list_checkpoints(tmp_path / "run") == []
    assert not Path(f"/proc/{process.pid}").exists()


def test_what_nohup_lets_be_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not any(signals.count_requests())
    finally:
        signal.signal(signal.SIGHUP, before)


def test_copies_of_one_ctrl_c_are_not_a_second_one(monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    detector = CtrlCDetector()
    assert not detector.detect_second(signal.SIGTERM) and not detector.detect_second(signal.SIGINT)
    now = 100.9
    assert not detector.detect_second(signal.SIGINT)
    now = 101.1
    assert not detector.detect_second(signal.SIGTERM) and detector.detect_second(signal.SIGINT)


def signalled_in(trainer, owner, method, step):
    """Let SIGTERM arrive within a method, once the run has done so many steps."""
    original = getattr(owner, method)

    def with_signal(*arguments, **options):
        if trainer.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)

    setattr(owner, method, with_signal)


@pytest.mark.parametrize("method", [
    "_evaluate", "_sum_over_ranks", *(pytest.param(name, marks=pytest.mark.slow) for name in ("_save", "decide"))
])  # fmt: skip
def test_a_signal_is_heard_at_any_time(config, method):
    """Ranks agree before a step and before an evaluation; a request that comes later waits for the next."""
    trainer = Trainer(config("Evaluation.every=2", "Training.checkpoint_every=2"))
    owner = {"decide": trainer.signals, "_sum_over_ranks": trainer.update}.get(method, trainer)
    signalled_in(trainer, owner, method, 2)
    assert not trainer.fit()
    assert trainer.signals.stop_signal == signal.SIGTERM and trainer.step == (4 if method == "_sum_over_ranks" else 3)
    check_saved(trainer.run)


def test_stopped_run_is_evaluated_when_it_goes_on(config, tmp_path):
    settings = "Evaluation.every=2", "Training.checkpoint_every=100", "Training.steps=6"
    whole = fit(config(*settings, f"Training.output={tmp_path / 'whole'}"))
    for step in (3, 5):  # `_sum_over_ranks` is called before the step is counted
        stopped = Trainer(config(*settings), resume=True)
        signalled_in(stopped, stopped.update, "_sum_over_ranks", step)
        assert not stopped.fit() and stopped.step == step + 1 and stopped.evaluations.evaluated_step == step - 1
        assert list_checkpoints(stopped.run)[-1].name == f"step_{step + 1:08d}"
    last = Trainer(config(*settings), resume=True)
    assert last.fit() and last.best == whole.best
    evaluations = [[(record["step"], record["metrics"]) for record in read_evaluation_records(trainer.run)]
                   for trainer in (whole, last)]  # fmt: skip
    assert len(evaluations[0]) == 3 and evaluations[0] == evaluations[1]
    assert (last.run / "checkpoints" / "best").resolve().name == f"step_{whole.best['step']:08d}"
