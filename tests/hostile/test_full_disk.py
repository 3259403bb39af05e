"""A disk that is full or read-only, a quota, a limit on the size of files: an error of one line, nothing half done."""

import errno
import os
import resource
import shutil

import pytest

from tests.support.command_examples import EXAMPLES, RESUMABLE
from tests.support.processes import run_process

WRITING = [name for name, arguments in EXAMPLES.items() if "OUT" in "".join(map(str, arguments.values()))
           and name not in ("train", "export")]  # fmt: skip  # tests/export tries the disks of an export
PAGE = 4096


def mounted(folder, *options):
    """Mounts a disk of 2 MiB; skips the test where that is not allowed."""
    folder.mkdir(exist_ok=True)
    mounted = run_process(["mount", "-t", "tmpfs", "-o", ",".join(["size=2m", *options]), "tmpfs", folder],
                             capture_output=True, text=True)  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")


@pytest.fixture
def disk(tmp_path):
    mounted(tmp_path / "disk")
    yield tmp_path / "disk"
    run_process(["umount", tmp_path / "disk"], check=True)


def finished(folder):
    """What lies there but for what a command needs to go on."""
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
            if not RESUMABLE.search(str(path))}  # fmt: skip


def check_refusals(command, example, capsys, out, limit, printed, step=1):
    """Runs an example with more and more room until it succeeds; every run before that leaves nothing half done."""
    folder = out / "there"
    folder.mkdir()
    for room in range(0, 200, step):
        capsys.readouterr()
        with limit(room):
            code = command(example, {}, folder)
        if code == 0:
            break
        errors = capsys.readouterr().err.splitlines()
        assert code == 2 and len(errors) == 1 and errors[0].startswith("error: "), errors
        assert printed in errors[0] or "sqlite" in errors[0], errors  # a database has its own words
        left = finished(folder)
        assert all(content is None for content in left.values()), left.keys()
    assert code == 0 and room > 0
    assert "partial" not in " ".join(map(str, finished(folder)))


class Filled:
    def __init__(self, disk):
        self.disk = disk

    def __call__(self, pages):
        self.pages = pages
        return self

    def __enter__(self):
        free = os.statvfs(self.disk).f_bavail
        with (self.disk / "filler").open("wb") as file:
            file.write(bytes(max(0, free - self.pages) * PAGE))

    def __exit__(self, *error):
        (self.disk / "filler").unlink()


class Limited:
    """Limits the size of files."""

    def __call__(self, steps):
        self.size = 64 * 2**steps - 64
        return self

    def __enter__(self):
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *error):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def steps(quick):
    """Steps of the room: every page or size is tried with the slow tests."""
    return pytest.mark.parametrize("step", [quick, pytest.param(1, marks=pytest.mark.slow)])


@steps(8)
@pytest.mark.parametrize("example", WRITING)
def test_a_full_disk(command, disk, example, capsys, step):
    check_refusals(command, example, capsys, disk, Filled(disk), "No space left on device", step)


@steps(3)
@pytest.mark.parametrize("example", WRITING)
def test_a_limit_on_the_size_of_files(command, tmp_path, example, capsys, step):
    (tmp_path / "out").mkdir()
    check_refusals(command, example, capsys, tmp_path / "out", Limited(), "File too large", step)


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
