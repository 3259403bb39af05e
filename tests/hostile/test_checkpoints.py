"""Checkpoints on disks without enough bytes or inodes, and under a limit on the size of files."""

import resource

import pytest

from ernie_vil2.training import checkpoint as module
from ernie_vil2.training.checkpoint import FullDisk, check_checkpoint, list_checkpoints
from tests.support.commands import mount_small_disk
from tests.support.small_run import SmallRun, small_run  # noqa: F401  -- a fixture


def test_limit_on_the_size_of_files_is_named(run):
    checkpoint = run.save(1)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, unlimited[1]))
    try:
        with pytest.raises(FullDisk, match=r"ulimit -f allows 10,000"):
            run.save(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    check_checkpoint(checkpoint)
    assert run.names() == ["step_00000001"]


def test_full_disk_keeps_the_earlier_checkpoints(tmp_path, monkeypatch):
    with mount_small_disk(tmp_path / "disk", "256k") as disk:  # enough for a few checkpoints of `SmallRun`
        run = SmallRun(disk)
        steps = 0
        with pytest.raises(FullDisk, match=f"{run.folder}/checkpoints"):  # noqa: PT012  -- one of the checkpoints fills the disk
            for steps in range(20):
                run.save(steps, keep=20)
        # The same where the disk seems to have room until it is written to, as under a quota.
        usage = type("Usage", (), {"free": 1 << 40})()
        monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(FullDisk, match=f"{run.folder}/checkpoints"):
            run.save(steps, keep=20)
        assert steps and run.names() == [f"step_{step:08d}" for step in range(steps)]
        for folder in list_checkpoints(run.folder):
            check_checkpoint(folder)


@pytest.mark.parametrize("inodes", [3, 5, 8])
def test_disk_without_free_inodes_is_full(tmp_path, inodes):
    with mount_small_disk(tmp_path / "disk", f"1m,nr_inodes={inodes}") as disk:
        run = SmallRun(disk)
        (run.folder / "checkpoints").mkdir()
        # The root of the disk and `checkpoints` take two inodes.
        with pytest.raises(FullDisk, match=rf"{inodes - 2} of {inodes} are free"):
            run.save(1)
        assert run.names() == []


def test_disk_with_just_enough_inodes_lacks_bytes(tmp_path):
    with mount_small_disk(tmp_path / "disk", "16k,nr_inodes=10") as disk:
        run = SmallRun(disk)
        (run.folder / "checkpoints").mkdir()
        with pytest.raises(FullDisk, match="bytes, .* are free"):
            run.save(1)
