"""Checkpoints against damage, crashes and full disks."""

import errno
import hashlib
import json
import os
import resource
import shutil

import numpy as np
import paddle
import pytest

from ernie_vil2.config import load_config, with_overrides
from ernie_vil2.data.tokenizer import Tokenizer
from ernie_vil2.io.run_folder import CHECKPOINT_FILES
from ernie_vil2.io.versions import OtherVersion
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.tasks import decay_groups
from ernie_vil2.training import checkpoint as module
from ernie_vil2.training.checkpoint import (
    Checkpoint,
    DamagedCheckpoint,
    FullDisk,
    check_checkpoint,
    list_checkpoints,
    load_checkpoint,
    note_evaluation,
    recover,
    save_checkpoint,
)
from ernie_vil2.training.optimizer import build_optimizer, optimizer_arrays
from tests.support.processes import run_process

TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"token{number}" for number in range(16))]


class Run:
    """A small model in training, whose checkpoints lie in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.config = load_config(
            None,
            [
                "Model.image={name: ViT, image_size: 16, patch_size: 8, width: 16, depth: 1, heads: 2}",
                "Model.text={name: bert, width: 16, depth: 1, heads: 2, max_positions: 16}",
                "Data.max_length=9",
            ],
        )
        self.model = build_dual_encoder(self.config.Model, len(TOKENS))
        self.optimizer = build_optimizer(self.model, decay_groups(self.model), self.config.Optimizer)

    def train(self):
        for parameter in self.model.parameters():
            parameter.grad = paddle.randn(parameter.shape)
        self.optimizer.step()

    def save(self, step, keep=2, best=None):
        state = {"step": step, "seed": 0, "best": best and {"step": best}}
        arrays = optimizer_arrays(self.optimizer, self.model)
        config = with_overrides(self.config, [f"Training.keep_checkpoints={keep}"])
        return save_checkpoint(self.folder, Checkpoint(state, self.model, arrays, config, Tokenizer(TOKENS)))

    def arrays(self):
        state = {**self.model.state_dict(), **self.optimizer.state_dict()}
        return [value.numpy() for value in state.values() if isinstance(value, paddle.Tensor)]

    def names(self):
        return sorted(path.name for path in (self.folder / "checkpoints").iterdir())


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


def test_a_checkpoint_brings_weights_and_optimiser_back(run):
    run.train()
    folder = run.save(3)
    saved = run.arrays()
    run.train()
    assert not all(map(np.array_equal, run.arrays(), saved))
    assert load_checkpoint(folder, run.model, run.optimizer) == {"step": 3, "seed": 0, "best": None}
    assert all(map(np.array_equal, run.arrays(), saved))


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_a_state_of_another_version_is_refused(run, version):
    folder = run.save(1)
    state = json.loads((folder / "state.json").read_text())
    assert state["version"] == 1
    (folder / "state.json").write_text(json.dumps(state | {"version": version}))
    with pytest.raises(OtherVersion, match="step_00000001/state.json names"):
        load_checkpoint(folder, run.model, run.optimizer)


def test_a_rank_that_shards_the_optimiser_takes_its_own_state_alone(run, tmp_path):
    run.train()
    folder, other = run.save(3), Run(tmp_path / "other")
    own = other.model.log_logit_scale.name
    load_checkpoint(folder, other.model, other.optimizer, own={own})
    assert len(other.optimizer.state_dict()) == 4  # two moments and two powers of the betas
    assert all(key.startswith(f"{own}_") for key in other.optimizer.state_dict())


def test_checksums_are_those_of_the_files(run):
    folder = run.save(1)
    sums = json.loads((folder / "checksums.json").read_text())
    assert sorted([*sums, "checksums.json", "contract.json"]) == sorted(path.name for path in folder.iterdir())
    for name, entry in sums.items():
        content = (folder / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


def change(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(path):
    path.unlink()


@pytest.mark.parametrize(("damage", "reason"), [(cut, "bytes instead of"), (change, "SHA-256"), (remove, "is missing")])
@pytest.mark.parametrize("name", [*CHECKPOINT_FILES, "checksums.json"])
def test_damage_is_reported_and_the_checkpoint_before_is_used(run, capsys, name, damage, reason):
    whole, newest = run.save(1), run.save(2)
    damage(newest / name)
    if name == "checksums.json":  # has no checksum of its own: unreadable, or in disagreement with a file
        reason = {cut: "cannot be read", change: "", remove: "is missing"}[damage]
    assert recover(run.folder) == whole
    error = capsys.readouterr().err
    assert f"checkpoint {newest} is damaged: " in error and reason in error
    assert "now damaged_step_00000002; going on from step_00000001" in error
    assert name in error or damage is change
    assert run.names() == ["damaged_step_00000002", "step_00000001"]
    assert recover(run.folder) == whole and capsys.readouterr().err == ""  # reported once


def test_without_a_whole_checkpoint_all_stay_and_the_error_says_why(run):
    for step, name in ((1, "state.json"), (2, "vocab.txt")):
        remove(run.save(step) / name)
    with pytest.raises(DamagedCheckpoint, match="is whole .step_00000002: vocab.txt is missing; step_00000001: state"):
        recover(run.folder)
    assert run.names() == ["step_00000001", "step_00000002"]


def test_a_run_without_checkpoints_has_none_to_recover(run):
    assert recover(run.folder) is None


def test_what_killed_processes_left_is_removed(run):
    whole = run.save(1)
    for name in (".step_00000002.partial", ".step_00000000.partial"):
        (whole.parent / name).mkdir()
        (whole.parent / name / "model.safetensors").write_bytes(b"half")
    (whole.parent / ".best.123.partial").symlink_to(whole.name)
    assert recover(run.folder) == whole and run.names() == ["step_00000001"]


def test_the_newest_and_the_best_are_kept(run):
    for step, best in ((1, None), (2, 2), (3, 2), (4, 2), (5, 2)):
        run.save(step, best=best)
    assert run.names() == ["best", "step_00000002", "step_00000004", "step_00000005"]
    link = run.folder / "checkpoints" / "best"
    assert link.resolve().name == "step_00000002"
    check_checkpoint(link)
    run.save(6, best=6)
    assert run.names() == ["best", "step_00000005", "step_00000006"] and link.resolve().name == "step_00000006"


def test_what_is_not_ours_stays_as_it_is(run):
    """A copy that somebody keeps, notes, and what another tool is writing."""
    newest = run.save(2)
    (newest.parent / "step_00000001").symlink_to(shutil.copytree(newest, run.folder / "elsewhere"))
    theirs = ["step_keep", "step_00000009_copy", ".backup.partial"]
    for name in theirs:
        shutil.copytree(newest, newest.parent / name)
    (newest.parent / "step_notes.txt").write_text("")
    theirs.append("step_notes.txt")
    assert recover(run.folder) == newest
    run.save(3, keep=1, best=3)
    assert run.names() == sorted([*theirs, "best", "step_00000003"])
    check_checkpoint(run.folder / "elsewhere")


def test_a_best_that_copying_has_made_a_folder_is_set_aside(run, capsys):
    run.save(1, best=1)
    link = run.folder / "checkpoints" / "best"
    link.unlink()
    shutil.copytree(link.with_name("step_00000001"), link)
    run.save(2, best=2)
    assert link.is_symlink() and link.resolve().name == "step_00000002"
    assert run.names() == ["best", "damaged_best", "step_00000001", "step_00000002"]
    assert "best is damaged: it is a folder and no link. It is now damaged_best" in capsys.readouterr().err


def test_a_disk_that_is_too_small_is_found_before_anything_is_written(run, monkeypatch):
    before = run.save(1)
    size = sum((before / name).stat().st_size for name in CHECKPOINT_FILES)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: _Usage(1000))
    with pytest.raises(FullDisk) as caught:
        run.save(2)
    message = str(caught.value)
    assert str(before.parent) in message and "1,000 are free" in message
    needed = int(message.split("it needs ")[1].split(" bytes")[0].replace(",", ""))
    assert needed == pytest.approx(size, rel=0.2)
    assert run.names() == ["step_00000001"]


class _Usage:
    def __init__(self, free):
        self.free = free


WHY = {
    errno.ENOSPC: "it needs .* bytes, .* are free",
    errno.EDQUOT: "are free, but this user's quota is used up",
    errno.EFBIG: "its largest file needs .* bytes, this file system allows less",
}


@pytest.mark.parametrize("code", WHY)
def test_a_disk_that_fills_up_on_the_way_leaves_the_checkpoint_before(run, monkeypatch, code):
    before = run.save(1)

    def full(path, arrays):
        path.write_bytes(b"half")
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module, "save_arrays", full)
    with pytest.raises(FullDisk, match=f"no room for a checkpoint in {before.parent}: .*{WHY[code]}"):
        run.save(2)
    check_checkpoint(before)
    assert run.names() == ["step_00000001"]


def test_a_limit_on_the_size_of_files_is_named(run):
    before = run.save(1)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, unlimited[1]))
    try:
        with pytest.raises(FullDisk, match=r"its largest file needs [\d,]+ bytes, ulimit -f allows 10,000\. Make room"):
            run.save(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    check_checkpoint(before)
    assert run.names() == ["step_00000001"]


@pytest.fixture
def disk(tmp_path):
    """Mounts a disk with an option of tmpfs."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(option):
        if run_process(["mount", "-t", "tmpfs", "-o", option, "tmpfs", folder], capture_output=True).returncode:
            pytest.skip("mounting a small disk takes root")
        return folder

    yield mount
    run_process(["umount", folder], capture_output=True)


def test_a_small_disk_is_full_and_keeps_what_it_has(disk, monkeypatch):
    """Of 256 KiB, which a checkpoint of `Run` fits into twice but not three times."""
    run = Run(disk("size=256k"))
    steps = 0
    with pytest.raises(FullDisk, match=f"checkpoint in {run.folder}/checkpoints"):  # noqa: PT012  -- what comes before the error belongs to it
        for steps in range(20):
            run.save(steps, keep=20)
    # The same where the lack shows only in writing, as under a quota.
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: _Usage(1 << 40))
    with pytest.raises(FullDisk, match=f"checkpoint in {run.folder}/checkpoints"):
        run.save(steps, keep=20)
    assert steps and run.names() == [f"step_{step:08d}" for step in range(steps)]
    for folder in list_checkpoints(run.folder):
        check_checkpoint(folder)


@pytest.mark.parametrize("inodes", range(3, 9))
def test_a_disk_without_inodes_says_so(disk, inodes):
    """Wherever they end: two are taken by the disk and `checkpoints`."""
    run = Run(disk(f"nr_inodes={inodes}"))
    (run.folder / "checkpoints").mkdir()
    with pytest.raises(FullDisk, match=rf"it needs 8 inodes, {inodes - 2} of {inodes} are free \(df -i\)\. Make room"):
        run.save(1)
    assert run.names() == []


def test_a_damaged_note_of_an_evaluation_is_left_out(run, capsys):
    folder = run.save(1)
    best = {"step": 1, "metric": "mean_recall", "value": 9.0}
    note_evaluation(run.folder, 1, best)
    assert load_checkpoint(folder, run.model, run.optimizer)["best"] == best
    (folder / "evaluation.json").write_text('{"evaluated": ')
    assert load_checkpoint(folder, run.model, run.optimizer) == {"step": 1, "seed": 0, "best": None}
    assert "evaluation.json is damaged and left out" in capsys.readouterr().err
