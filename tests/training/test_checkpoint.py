"""Checkpoints survive damage, crashes and full disks; tests/hostile/test_checkpoints.py has more cases."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from ernie_vil2.io.files import OtherVersion
from ernie_vil2.io.run_folder import CHECKPOINT_FILES
from ernie_vil2.training import checkpoint as module
from ernie_vil2.training.checkpoint import (
    DamagedCheckpoint,
    FullDisk,
    check_checkpoint,
    load_checkpoint,
    recover_checkpoint,
    save_evaluation,
)
from tests.support.small_run import (
    SmallRun,
    flip_bit,
    remove_file,
    small_run,  # noqa: F401  -- a fixture
    truncate_file,
)


def test_checkpoint_restores_weights_and_optimiser(run, tmp_path):
    run.train()
    folder = run.save(3)
    saved = run.arrays()
    run.train()
    assert not all(map(np.array_equal, run.arrays(), saved))
    assert load_checkpoint(folder, run.model, run.optimizer) == {"step": 3, "seed": 0, "best": None}
    assert all(map(np.array_equal, run.arrays(), saved))
    sums = json.loads((folder / "integrity.json").read_text())["files"]
    assert sorted([*sums, "integrity.json"]) == sorted(path.name for path in folder.iterdir())
    for name, entry in sums.items():
        assert entry["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest(), name

    # A rank that shards the optimiser loads only the state of its own parameters. For one parameter these are four
    # arrays: two moments and two powers of the betas.
    sharded_rank = SmallRun(tmp_path / "sharded")
    name = sharded_rank.model.log_logit_scale.name
    load_checkpoint(folder, sharded_rank.model, sharded_rank.optimizer, local_names={name})
    assert len(sharded_rank.optimizer.state_dict()) == 4
    assert all(key.startswith(f"{name}_") for key in sharded_rank.optimizer.state_dict())


def test_state_of_another_version_is_refused(run):
    folder = run.save(1)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"version": 2}))
    with pytest.raises(OtherVersion, match="step_00000001/state.json"):
        load_checkpoint(folder, run.model, run.optimizer)


@pytest.mark.parametrize(("name", "damage", "reason"), [
    ("model.safetensors", flip_bit, "SHA-256"),
    ("optimizer.safetensors", truncate_file, "bytes instead of"),
    ("vocab.txt", remove_file, "is missing"),
    ("integrity.json", truncate_file, "cannot be read"),
])  # fmt: skip
def test_damage_is_reported_and_previous_checkpoint_used(run, capsys, name, damage, reason):
    previous, newest = run.save(1), run.save(2)
    damage(newest / name)
    assert recover_checkpoint(run.folder) == previous
    error = capsys.readouterr().err
    assert f"checkpoint {newest} is damaged: " in error and reason in error
    assert name in error or damage is flip_bit
    assert run.names() == ["damaged_step_00000002", "step_00000001"]
    assert recover_checkpoint(run.folder) == previous and capsys.readouterr().err == ""


def test_damaged_checkpoints_stay_if_none_is_intact(run):
    for step, name in ((1, "state.json"), (2, "vocab.txt")):
        remove_file(run.save(step) / name)
    with pytest.raises(DamagedCheckpoint, match="step_00000002: vocab.txt .*step_00000001: state"):
        recover_checkpoint(run.folder)
    assert run.names() == ["step_00000001", "step_00000002"]


def test_leftovers_of_killed_processes_are_removed(run):
    assert recover_checkpoint(run.folder) is None
    checkpoint = run.save(1)
    for name in (".step_00000002.partial", ".step_00000000.partial"):
        (checkpoint.parent / name).mkdir()
        (checkpoint.parent / name / "model.safetensors").write_bytes(b"half")
    (checkpoint.parent / ".best.123.partial").symlink_to(checkpoint.name)
    assert recover_checkpoint(run.folder) == checkpoint and run.names() == ["step_00000001"]


def test_newest_and_best_are_kept(run):
    for step, best in ((1, None), (2, 2), (3, 2), (4, 2), (5, 2)):
        run.save(step, best=best)
    assert run.names() == ["best", "step_00000002", "step_00000004", "step_00000005"]
    link = run.folder / "checkpoints" / "best"
    assert link.resolve().name == "step_00000002"
    check_checkpoint(link)
    run.save(6, best=6)
    assert run.names() == ["best", "step_00000005", "step_00000006"] and link.resolve().name == "step_00000006"


def test_foreign_files_stay_unchanged(run):
    # The user keeps a copy and notes in the folder, and another tool is writing a backup.
    newest = run.save(2)
    (newest.parent / "step_00000001").symlink_to(shutil.copytree(newest, run.folder / "elsewhere"))
    foreign_names = ["step_keep", "step_00000009_copy", ".backup.partial"]
    for name in foreign_names:
        shutil.copytree(newest, newest.parent / name)
    (newest.parent / "step_notes.txt").write_text("")
    foreign_names.append("step_notes.txt")
    assert recover_checkpoint(run.folder) == newest
    run.save(3, keep=1, best=3)
    assert run.names() == sorted([*foreign_names, "best", "step_00000003"])
    check_checkpoint(run.folder / "elsewhere")


def test_best_that_is_a_folder_is_set_aside(run, capsys):
    run.save(1, best=1)
    link = run.folder / "checkpoints" / "best"
    link.unlink()
    shutil.copytree(link.with_name("step_00000001"), link)  # as tools that follow links copy a run
    run.save(2, best=2)
    assert link.is_symlink() and link.resolve().name == "step_00000002"
    assert run.names() == ["best", "damaged_best", "step_00000001", "step_00000002"]
    assert "damaged_best" in capsys.readouterr().err


@pytest.mark.parametrize(("share", "fits"), [(0.8, False), (1.2, True)])
def test_too_small_disk_is_detected_before_writing(run, monkeypatch, share, fits):
    run.train()
    previous = run.save(1)
    size = sum((previous / name).stat().st_size for name in CHECKPOINT_FILES)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=int(share * size)))
    with contextlib.nullcontext() if fits else pytest.raises(FullDisk, match=str(previous.parent)):
        run.save(2)
    expected = ["step_00000001", "step_00000002"] if fits else ["step_00000001"]
    assert run.names() == expected


@pytest.mark.parametrize(("number", "reason"), [(errno.ENOSPC, ""), (errno.EDQUOT, "quota")])
def test_full_disk_leaves_the_previous_checkpoint(run, monkeypatch, number, reason):
    previous = run.save(1)

    def write_half(path, arrays):
        path.write_bytes(b"half")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "save_arrays", write_half)
    with pytest.raises(FullDisk, match=f"{previous.parent}.*{reason}"):
        run.save(2)
    check_checkpoint(previous)
    assert run.names() == ["step_00000001"]


def test_damaged_evaluation_record_is_ignored(run, capsys):
    folder = run.save(1)
    best = {"step": 1, "metric": "mean_recall", "value": 9.0}
    save_evaluation(run.folder, 1, best)
    assert load_checkpoint(folder, run.model, run.optimizer)["best"] == best
    (folder / "evaluation.json").write_text('{"evaluated_step": ')
    assert load_checkpoint(folder, run.model, run.optimizer) == {"step": 1, "seed": 0, "best": None}
    assert "evaluation.json is damaged" in capsys.readouterr().err
