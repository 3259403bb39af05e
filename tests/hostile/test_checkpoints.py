"""Checkpoints with any file damaged in any way, and on disks that are too small in any way."""

import errno
import os
import resource

import pytest

from ernie_vil2.io.run_folder import CHECKPOINT_FILES
from ernie_vil2.training import checkpoint as module
from ernie_vil2.training.checkpoint import FullDisk, check_checkpoint, list_checkpoints
from tests.support.processes import run_process
from tests.support.small_run import (
    SmallRun,
    check_damage_is_found,
    cut_off,
    flip_bit,
    remove,
    small_run,  # noqa: F401  -- a fixture
)

REASONS = {cut_off: "bytes instead of", flip_bit: "SHA-256", remove: "is missing"}
# It has no checksum of its own: unreadable, or in disagreement with a file.
REASONS_OF_CHECKSUMS = {cut_off: "cannot be read", flip_bit: "", remove: "is missing"}


@pytest.mark.parametrize("damage", REASONS, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", [*CHECKPOINT_FILES, "checksums.json"])
def test_damage_is_reported_and_the_one_before_used(run, capsys, name, damage):
    reasons = REASONS_OF_CHECKSUMS if name == "checksums.json" else REASONS
    check_damage_is_found(run, capsys, name, damage, reasons[damage])


@pytest.mark.parametrize(("code", "reason"), [
    (errno.EDQUOT, "this user's quota is used up"),
    (errno.EFBIG, "its largest file needs .* bytes, this file system allows less"),
])  # fmt: skip
def test_other_kinds_of_full_disk_are_named(run, monkeypatch, code, reason):
    before = run.save(1)

    def full(path, arrays):
        path.write_bytes(b"half")
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module, "save_arrays", full)
    with pytest.raises(FullDisk, match=f"{before.parent}: .*{reason}"):
        run.save(2)
    check_checkpoint(before)
    assert run.names() == ["step_00000001"]


def test_limit_on_the_size_of_files_is_named(run):
    before = run.save(1)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, unlimited[1]))
    try:
        with pytest.raises(FullDisk, match=r"ulimit -f allows 10,000"):
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


def test_small_disk_is_full_and_keeps_what_it_has(disk, monkeypatch):
    """Of 256 KiB, which a few checkpoints of `SmallRun` fit into."""
    run = SmallRun(disk("size=256k"))
    steps = 0
    with pytest.raises(FullDisk, match=f"{run.folder}/checkpoints"):  # noqa: PT012  -- what comes before the error belongs to it
        for steps in range(20):
            run.save(steps, keep=20)
    # The same where the lack shows only in writing, as under a quota.
    usage = type("Usage", (), {"free": 1 << 40})()
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FullDisk, match=f"{run.folder}/checkpoints"):
        run.save(steps, keep=20)
    assert steps and run.names() == [f"step_{step:08d}" for step in range(steps)]
    for folder in list_checkpoints(run.folder):
        check_checkpoint(folder)


@pytest.mark.parametrize("inodes", range(3, 9))
def test_disk_without_inodes_says_so(disk, inodes):
    """Wherever they end: two are taken by the disk and `checkpoints`."""
    run = SmallRun(disk(f"nr_inodes={inodes}"))
    (run.folder / "checkpoints").mkdir()
    with pytest.raises(FullDisk, match=rf"8 inodes, {inodes - 2} of {inodes} are free \(df -i\)"):
        run.save(1)
    assert run.names() == []
