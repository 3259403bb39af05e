"""The record of CPU minutes: its rows are the demo with few changes, and its table has the means over the seeds."""

from pathlib import Path

import pytest

from benchmarks import record
from benchmarks.record import ROWS, print_table
from ernie_vil2 import encoder
from ernie_vil2.config import load_config
from ernie_vil2.config.load import differences
from ernie_vil2.io.run_folder import resolve_checkpoint
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.paths import ROOT


def load_row(name):
    return load_config(ROOT / "configs" / ROWS[name].config).model_dump()


def test_rows_differ_from_the_first_in_the_recipe_only():
    first = load_row("demo")
    for name in ROWS:
        sections = {key.partition(".")[0] for key, _ in differences(first, load_row(name))}
        assert sections <= {"Loss", "Data", "Optimizer", "Schedule", "Training", "Tuning", "Evaluation"}
    assert load_row("half")["Training"]["steps"] * 2 == first["Training"]["steps"]


def test_table_has_the_means_over_the_seeds(capsys):
    records = []
    for seed, minutes in enumerate([10.0, 14.0]):
        test = {"zh": 70.0 + seed, "en": 72.0}
        best = {"step": 1, "metric": "mean_recall", "value": 60.0}
        records.append(
            {"row": "half", "seed": seed, "cpu_minutes": minutes, "wall_minutes": 6.0, "best": best} | {"test": test}
        )
    print_table(records)
    assert capsys.readouterr().out.splitlines()[2:] == ["| half | 2 | 12.00 | 6.00 | 60.00 | 70.50 | 72.00 |"]


def test_run_folder_is_relative_to_the_callers(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    commands = []
    monkeypatch.setattr(record.subprocess, "Popen", lambda command, **_: commands.append(command))
    record.start_training("half", 0, Path("runs/half-0"))
    assert f"Training.output={tmp_path / 'runs' / 'half-0'}" in commands[0]


def test_best_checkpoint_is_scored(monkeypatch, tmp_path):
    best, newest = (tmp_path / "checkpoints" / f"step_{step:08}" for step in (1, 2))
    for checkpoint in (best, newest):
        write_untrained_checkpoint(checkpoint)
    (tmp_path / "checkpoints" / "best").symlink_to(best.name)
    loaded = []
    monkeypatch.setattr(encoder, "load_model", lambda name: loaded.append(resolve_checkpoint(name)))
    monkeypatch.setattr("ernie_vil2.data.readers.open_benchmarks", lambda *_, **__: {})
    record.score(tmp_path)
    assert loaded == [best]


class InterruptedProcess:
    """Training that saves a checkpoint after Ctrl-C, and ends when it is waited for again."""

    is_interrupted = False

    def wait(self, timeout=None):
        if not self.is_interrupted:
            self.is_interrupted = True
            raise KeyboardInterrupt
        return 130


def test_interrupted_training_counts_its_usage(monkeypatch, tmp_path):
    cpu_seconds = iter([1.0, 4.0])
    monkeypatch.setattr(record, "start_training", lambda *_: InterruptedProcess())
    monkeypatch.setattr(record, "measure_children", lambda: next(cpu_seconds))
    with pytest.raises(KeyboardInterrupt):
        record.train("half", 0, tmp_path / "half-0", float("inf"))
    usage = record.read_usage(tmp_path / "half-0")
    assert (usage["cpu_seconds"], usage["starts"]) == (3.0, 1)
