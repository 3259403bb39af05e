"""A disk that is full or read-only, a quota: an error of one line, nothing half done."""

import errno
import os
import shutil
from contextlib import contextmanager

import pytest

from tests.support.command_examples import EXAMPLES, RESUMABLE_FILES
from tests.support.commands import mount_small_disk
from tests.support.processes import run_process

WRITING = [name for name, arguments in EXAMPLES.items() if "OUT" in "".join(map(str, arguments.values()))
           and name not in ("train", "export")]  # fmt: skip  # test_bad_exports.py tries the disk of an export
PAGE = 4096


@pytest.fixture
def disk(tmp_path):
    with mount_small_disk(tmp_path / "disk", "2m") as folder:
        yield folder


def finished(folder):
    """What lies there but for what a command needs to go on."""
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
            if not RESUMABLE_FILES.search(str(path))}  # fmt: skip


@contextmanager
def filled(disk, pages):
    """Leave so many free pages on a disk."""
    free = os.statvfs(disk).f_bavail
    (disk / "filler").write_bytes(bytes(max(0, free - pages) * PAGE))
    try:
        yield
    finally:
        (disk / "filler").unlink()


@pytest.mark.parametrize("step", [16, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("example", WRITING)
def test_a_full_disk(command, disk, example, capsys, step):
    """With so many pages more each time, until it succeeds; every run before that leaves nothing half done."""
    folder = disk / "there"
    folder.mkdir()
    for pages in range(0, 200, step):
        capsys.readouterr()
        with filled(disk, pages):
            code = command(example, {}, folder)
        if code == 0:
            break
        errors = capsys.readouterr().err.splitlines()
        assert code == 2 and len(errors) == 1 and errors[0].startswith("error: "), errors
        assert "No space left on device" in errors[0] or "sqlite" in errors[0], errors  # a database has its own words
        left = finished(folder)
        assert all(content is None for content in left.values()), left.keys()
    assert code == 0 and pages > 0
    assert "partial" not in " ".join(map(str, finished(folder)))


@pytest.mark.parametrize("example", WRITING)
def test_a_quota_that_shows_when_a_file_is_synchronised(command, tmp_path, example, capsys, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", refuse)
    (tmp_path / "out").mkdir()
    assert command(example, {}, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}/out/") and error.endswith(": Disk quota exceeded\n")
    assert not any(finished(tmp_path / "out").values())


@pytest.mark.parametrize("example", WRITING)
def test_a_disk_that_is_read_only_is_seen_before_the_work(command, disk, example, capsys):
    run_process(["mount", "-o", "remount,ro", disk], check=True)
    assert command(example, {}, disk) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and f"{disk}/" in printed.err
    assert printed.out == "" and printed.err.count("\n") == 1


def test_a_run_on_a_read_only_disk_is_shown_elsewhere(command, inputs, disk, tmp_path, capsys):
    shutil.copytree(inputs / "run", disk / "run")
    run_process(["mount", "-o", "remount,ro", disk], check=True)
    assert command("eval", {"--checkpoint": f"{disk}/run"}) == command("report", {"--run": f"{disk}/run"}) == 0
    assert command("report", {"--run": f"{disk}/run", "--output": f"{disk}/run/report.html"}) == 2
    assert "report.html cannot be written" in capsys.readouterr().err
