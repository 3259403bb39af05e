"""Checkpoints are written in a thread while training goes on, with the bytes of the step that they are of."""

import errno
import os
import signal
import threading
from unittest import mock

import pytest

from ernie_vil2.config import load_config
from ernie_vil2.training import checkpoint as checkpoint_module
from ernie_vil2.training import checkpoint_writer as module
from ernie_vil2.training.checkpoint import FullDisk, check_checkpoint, list_checkpoints, save_checkpoint
from ernie_vil2.training.checkpoint_writer import CheckpointWriter
from ernie_vil2.training.trainer import Trainer
from tests.support.limits import PATIENCE, wait_until
from tests.support.ranks import run_ranks
from tests.support.trainings import REPVGG, crash_after, fit

SETTINGS = ["Training.steps=8", "Training.checkpoint_every=3", "Training.keep_checkpoints=9", "Evaluation.every=4",
            "Model.text.dropout=0.1"]  # fmt: skip


class HeldWrites:
    """Writes of checkpoints that begin only when the trainer waits for them, after the steps in between.

    Attributes:
        steps: for each checkpoint, its step and how many steps the trainer had done when it was written.
    """

    def __init__(self, trainer):
        self.steps = []
        self._trainer, self._can_write = trainer, threading.Event()
        start, wait = trainer.checkpoint_writer.start, trainer.checkpoint_writer.wait

        def start_held(checkpoint):
            self._can_write.clear()
            start(checkpoint)

        def release_and_wait():
            self._can_write.set()
            wait()

        trainer.checkpoint_writer.start, trainer.checkpoint_writer.wait = start_held, release_and_wait

    def save(self, run, checkpoint):
        """Save a checkpoint in place of `save_checkpoint`."""
        assert self._can_write.wait(PATIENCE)
        self.steps.append((checkpoint.state["step"], self._trainer.step))
        return save_checkpoint(run, checkpoint)


def save_at_once(trainer):
    """Let a trainer write its checkpoints as part of the step."""
    trainer.checkpoint_writer.start = lambda checkpoint: save_checkpoint(trainer.run, checkpoint)


def train(overrides, is_held):
    """Train with writes that are held, or that are part of the step."""
    trainer = Trainer(load_config(None, overrides))
    if not is_held:
        save_at_once(trainer)
        assert trainer.fit()
        return
    writes = HeldWrites(trainer)
    with mock.patch.object(module, "save_checkpoint", writes.save):
        assert trainer.fit()
    if trainer.rank == 0:
        # The evaluation after step 4 waits for the checkpoint of step 3, and saves step 4 as the best. The others are
        # waited for by the next checkpoint, and by the end.
        assert writes.steps == [(3, 4), (4, 6), (6, 8), (8, 8)]


def read_files(run):
    """Return the bytes of all files of a run's checkpoints."""
    contents = {}
    for folder in list_checkpoints(run):
        check_checkpoint(folder)
        contents |= {(folder.name, path.name): path.read_bytes() for path in folder.iterdir()}
    return contents


def check_same_files(overrides, tmp_path, start):
    """Check that both ways of writing give the same files, in the same run folder."""
    start([*overrides, *SETTINGS], True)
    (tmp_path / "run").rename(tmp_path / "held")
    start([*overrides, *SETTINGS], False)
    actual, expected = read_files(tmp_path / "held"), read_files(tmp_path / "run")
    assert actual == expected and len(expected) > 4 * 6


@pytest.mark.parametrize("changes", [[], ["Tuning.ema=0.9", REPVGG]], ids=["plain", "average"])
def test_later_steps_do_not_change_what_is_written(overrides, tmp_path, changes):
    check_same_files([*overrides, *changes], tmp_path, train)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "stage1"])
def test_two_ranks_write_the_same_next_to_steps(overrides, tmp_path, sharding):
    overrides = [*overrides, f"Training.sharding={sharding}", "Training.device=cpu"]
    check_same_files(overrides, tmp_path, lambda *arguments: run_ranks(train, *arguments))


def test_second_checkpoint_waits_for_the_first(config):
    trainer, events, is_waited_for = Trainer(config("Training.steps=2", "Training.checkpoint_every=1")), [], []

    def save_slowly(run, checkpoint):
        step = checkpoint.state["step"]
        events.append(f"write {step}")
        # The first write goes on until the trainer wants to save the second checkpoint.
        wait_until(lambda: len(is_waited_for) > step)
        events.append(f"written {step}")
        return save_checkpoint(run, checkpoint)

    wait = trainer.checkpoint_writer.wait

    def count_and_wait():
        is_waited_for.append(trainer.step)
        wait()

    trainer.checkpoint_writer.wait = count_and_wait
    with mock.patch.object(module, "save_checkpoint", save_slowly):
        assert trainer.fit()
    assert events == ["write 1", "written 1", "write 2", "written 2"]
    assert is_waited_for == [1, 2, 2]  # before both copies, and at the end


def raise_full_disk_in(trainer, monkeypatch, step):
    """Let the disk be full when the checkpoint of a step is written."""

    def write_or_raise(path, arrays):
        if f"step_{step:08d}" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save_arrays(path, arrays)

    save_arrays = checkpoint_module.save_arrays
    monkeypatch.setattr(checkpoint_module, "save_arrays", write_or_raise)


@pytest.mark.parametrize("last_step", [4, 6])
def test_full_disk_ends_the_run_before_the_next_step(config, monkeypatch, last_step):
    settings = config(f"Training.steps={last_step}", "Training.checkpoint_every=2")
    trainer = Trainer(settings)
    with monkeypatch.context() as patch:
        raise_full_disk_in(trainer, patch, 4)
        save_and_evaluate = trainer._save_and_evaluate

        def save_and_wait():
            save_and_evaluate()
            if trainer.step == 4:
                wait_until(lambda: trainer.checkpoint_writer.get_error() is not None)

        trainer._save_and_evaluate = save_and_wait
        with pytest.raises(FullDisk, match=str(trainer.run)):
            trainer.fit()
    assert trainer.step == 4 and [path.name for path in list_checkpoints(trainer.run)] == ["step_00000002"]
    check_checkpoint(list_checkpoints(trainer.run)[0])
    assert fit(settings, resume=True).step == last_step


@pytest.mark.parametrize("is_disk_full", [False, True])
def test_crash_of_a_step_leaves_the_checkpoint_before_it(config, monkeypatch, capsys, is_disk_full):
    trainer, has_crashed = Trainer(config("Training.checkpoint_every=2")), threading.Event()
    end_context = CheckpointWriter.__exit__

    def note_and_end(*arguments):
        has_crashed.set()
        end_context(*arguments)

    def save_after_crash(run, checkpoint):
        assert has_crashed.wait(PATIENCE)
        return save_checkpoint(run, checkpoint)

    monkeypatch.setattr(CheckpointWriter, "__exit__", note_and_end)
    monkeypatch.setattr(module, "save_checkpoint", save_after_crash)
    if is_disk_full:
        raise_full_disk_in(trainer, monkeypatch, 2)
    crash_after(trainer, 3)
    assert len(list_checkpoints(trainer.run)) == (0 if is_disk_full else 1)
    assert ("no room for a checkpoint" in capsys.readouterr().err) == is_disk_full


def test_signals_are_left_to_the_main_thread(config, monkeypatch):
    masks = []

    def save_and_note(run, checkpoint):
        assert threading.current_thread() is not threading.main_thread()
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        return save_checkpoint(run, checkpoint)

    monkeypatch.setattr(module, "save_checkpoint", save_and_note)
    fit(config("Training.steps=1"))
    assert {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} <= masks[0]
