"""SIGINT and SIGTERM end a run with a checkpoint, on all ranks, with an exit code each."""

import json
import os
import signal
import sys

import pytest

from ernie_vil2.training.checkpoint import check_checkpoint, list_checkpoints
from ernie_vil2.training.engine import Trainer
from ernie_vil2.training.run_log import read_log
from tests.training.conftest import MINUTE, as_arguments, rank_process, start, wait_for_steps

in_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks for the ranks in /proc")


def check_saved(folder):
    """The newest checkpoint is whole and of the last step that was logged."""
    newest = list_checkpoints(folder)[-1]
    check_checkpoint(newest)
    assert json.loads((newest / "state.json").read_text())["step"] == read_log(folder / "log.jsonl")[-1]["step"]


def stopped(process, folder, number, rank=None):
    """Sends a signal after some steps, to the process itself or one of its ranks; output and errors."""
    wait_for_steps(process, folder, 3)
    os.kill(process.pid if rank is None else rank_process(process.pid, rank), number)
    return process.communicate(timeout=MINUTE)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_saves_and_has_its_exit_code(overrides, tmp_path, number, code):
    arguments = as_arguments([*overrides, "Training.steps=100000", "Data.workers=1"])
    with start("tools/train.py", *arguments) as process:
        output, error = stopped(process, tmp_path / "run", number)
    assert process.returncode == code, error
    assert "go on with the same command and --resume" in output
    check_saved(tmp_path / "run")


@in_proc
@pytest.mark.slow
@pytest.mark.parametrize("rank", [None, 0, 1])
def test_all_ranks_stop_whoever_of_them_is_told(overrides, tmp_path, rank):
    arguments = as_arguments([*overrides, "Training.steps=100000"])
    with start("tools/train.py", "--processes", 2, *arguments) as process:
        output, error = stopped(process, tmp_path / "run", signal.SIGTERM, rank)
    assert process.returncode == 75, error
    assert "go on with the same command and --resume" in output and "ended with code" not in error
    check_saved(tmp_path / "run")


@in_proc
@pytest.mark.slow
@pytest.mark.parametrize("rank, code", [(None, signal.SIGTERM), (0, 75), (1, 75)])
def test_under_paddles_launcher_all_ranks_stop(overrides, tmp_path, rank, code):
    launch = ["--nproc_per_node", "2", "--log_dir", tmp_path / "log"]
    with start("tools/train.py", *as_arguments([*overrides, "Training.steps=100000"]), launch=launch) as process:
        output, error = stopped(process, tmp_path / "run", signal.SIGTERM, rank)
    assert process.returncode == code, output + error
    assert "go on with the same command and --resume" in (tmp_path / "log" / "workerlog.0").read_text()
    check_saved(tmp_path / "run")


def signalled_in(trainer, owner, method, step):
    """Lets SIGTERM arrive within a method, once the run has done so many steps."""
    original = getattr(owner, method)

    def with_signal(*arguments, **options):
        if trainer.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)

    setattr(owner, method, with_signal)


@pytest.mark.parametrize("method", ["_evaluate", "_save", "_over_ranks", "grant"])
def test_a_signal_is_heard_at_any_time(config, method):
    """Ranks agree in the course of a step; a wish that comes between two agreements waits for the next."""
    trainer = Trainer(config("Evaluation.every=4", "Training.checkpoint_every=4"))
    signalled_in(trainer, trainer.signals if method == "grant" else trainer, method, 4)
    assert not trainer.fit()
    assert trainer.signals.granted == signal.SIGTERM and trainer.step == (6 if method == "grant" else 5)
    check_saved(trainer.run)


def test_a_stopped_run_saves_first_and_is_evaluated_when_it_goes_on(config, tmp_path):
    settings = "Evaluation.every=2", "Training.checkpoint_every=100"
    whole = Trainer(config(*settings, f"Training.output={tmp_path / 'whole'}"))
    assert whole.fit()
    for step in (3, 7):  # `_over_ranks` is called before the step is counted
        stopped = Trainer(config(*settings), resume=True)
        signalled_in(stopped, stopped, "_over_ranks", step)
        assert not stopped.fit() and stopped.step == step + 1 and stopped.evaluated == step - 1
        assert list_checkpoints(stopped.run)[-1].name == f"step_{step + 1:08d}"
    last = Trainer(config(*settings), resume=True)
    assert last.fit() and last.best == whole.best

    def evaluations(trainer):
        records = [record for record in read_log(trainer.run / "log.jsonl") if record["kind"] == "evaluation"]
        return [{key: value for key, value in record.items() if key != "seconds"} for record in records]

    assert len(evaluations(whole)) == 8 and evaluations(last) == evaluations(whole)
    assert (last.run / "checkpoints" / "best").resolve().name == f"step_{whole.best['step']:08d}"
