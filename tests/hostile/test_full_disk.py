"""Commands on full and read-only disks and under a quota: an error of one line, and no incomplete output."""

import errno
import os
import shutil
from contextlib import contextmanager

import pytest

from tests.support.command_examples import EXAMPLES, RESUMABLE_FILES
from tests.support.commands import mount_small_disk
from tests.support.processes import run_process

# Examples that write to OUT. Training on a full disk is tested by test_checkpoints.py, exports by test_bad_exports.py.
WRITING_EXAMPLES = [
    name
    for name, arguments in EXAMPLES.items()
    if "OUT" in "".join(map(str, arguments.values())) and name not in ("train", "export")
]
PAGE = 4096  # bytes in which a tmpfs is filled


@pytest.fixture
def disk(tmp_path):
    with mount_small_disk(tmp_path / "disk", "2m") as folder:
        yield folder


def read_outputs(folder):
    """Return the contents of the files below a folder, None for folders, without files from which a run continues."""
    contents = {}
    for path in folder.rglob("*"):
        if not RESUMABLE_FILES.search(str(path)):
            contents[path.relative_to(folder)] = path.read_bytes() if path.is_file() else None
    return contents


@contextmanager
def fill_disk(disk, pages):
    """Leave so many free pages on a disk within the block."""
    free = os.statvfs(disk).f_bavail
    (disk / "filler").write_bytes(bytes(max(0, free - pages) * PAGE))
    try:
        yield
    finally:
        (disk / "filler").unlink()


@pytest.mark.parametrize("step", [16, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("example", WRITING_EXAMPLES)
def test_full_disk_leaves_no_incomplete_output(command, disk, example, capsys, step):
    folder = disk / "output"
    folder.mkdir()
    # More room each time, until the command succeeds.
    for pages in range(0, 200, step):
        capsys.readouterr()
        with fill_disk(disk, pages):
            code = command(example, {}, folder)
        if code == 0:
            break
        errors = capsys.readouterr().err.splitlines()
        assert code == 2 and len(errors) == 1 and errors[0].startswith("error: "), errors
        # SQLite has another message for a full disk.
        assert "No space left on device" in errors[0] or "sqlite" in errors[0], errors
        outputs = read_outputs(folder)
        assert all(content is None for content in outputs.values()), outputs.keys()
    assert code == 0 and pages > 0
    assert "partial" not in " ".join(map(str, read_outputs(folder)))


@pytest.mark.parametrize("example", WRITING_EXAMPLES)
def test_exceeded_quota_leaves_no_incomplete_output(command, tmp_path, example, capsys, monkeypatch):
    # Some file systems report an exceeded quota only when a file is synchronised.
    def refuse(descriptor):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", refuse)
    (tmp_path / "out").mkdir()
    assert command(example, {}, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}/out/") and error.endswith(": Disk quota exceeded\n")
    assert not any(read_outputs(tmp_path / "out").values())


@pytest.mark.parametrize("example", WRITING_EXAMPLES)
def test_read_only_disk_is_named_before_any_work(command, disk, example, capsys):
    run_process(["mount", "-o", "remount,ro", disk], check=True)
    assert command(example, {}, disk) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: ") and f"{disk}/" in output.err
    assert output.out == "" and output.err.count("\n") == 1


def test_run_on_a_read_only_disk_is_evaluated_and_reported(command, inputs, disk, tmp_path, capsys):
    shutil.copytree(inputs / "run", disk / "run")
    run_process(["mount", "-o", "remount,ro", disk], check=True)
    assert command("eval", {"--checkpoint": f"{disk}/run"}) == 0
    assert command("report", {"--run": f"{disk}/run"}) == 0
    assert command("report", {"--run": f"{disk}/run", "--output": f"{disk}/run/report.html"}) == 2
    assert "report.html cannot be written" in capsys.readouterr().err
