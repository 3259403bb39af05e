import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from ernie_vil2.io.files import atomic_folder, atomic_write, remove_folder, remove_partial, write_text


def test_a_text_replaces_the_file_and_leaves_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "图片")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "图片"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "a.txt") as aside:  # noqa: PT012  -- what comes before the error belongs to it
        aside.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    with (  # noqa: PT012  -- what comes before the error belongs to it
        pytest.raises(OSError, match="No space left") as caught,
        atomic_write(tmp_path / "a.txt") as aside,
        Path("/dev/full").open("w") as full,
    ):
        aside.write_text("half")
        full.write("more than there is room for")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "real").write_text("old")
    (tmp_path / "data" / "link").symlink_to("real")
    (tmp_path / "link").symlink_to(tmp_path / "data" / "link")
    (tmp_path / "dangling").symlink_to("data/new")
    before = (tmp_path / "data" / "real").open()
    write_text(tmp_path / "link", "text")
    write_text(tmp_path / "dangling", "text")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "data" / "link").is_symlink()
    assert (tmp_path / "data" / "real").read_text() == (tmp_path / "data" / "new").read_text() == "text"
    assert before.read() == "old", "whoever has the old file open reads it to its end"
    assert {path.name for path in tmp_path.rglob("*")} == {"data", "real", "link", "dangling", "new"}


def test_a_pipe_stays_and_gets_the_content_once_it_is_whole(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "pipe") as aside:  # noqa: PT012  -- what comes before the error belongs to it
        aside.write_text("half")
        raise RuntimeError
    write_text(tmp_path / "link", "whole")
    assert os.read(reader, 100) == b"whole"
    os.close(reader)
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "link"} and (tmp_path / "pipe").is_fifo()


def test_a_device_stays(tmp_path):
    null = tmp_path / "null"
    try:
        os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        write_text(null, "gone")
    except PermissionError:
        pytest.skip("only root may make a device node, and open it where the file system allows that")
    assert null.is_char_device() and null.read_bytes() == b""
    null.unlink()
    os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 7))  # /dev/full
    with pytest.raises(OSError, match="No space left") as caught:
        write_text(null, "text")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(null) and null.is_char_device()


@pytest.mark.parametrize("name", ["folder", "link", "missing/file", "file/below", "loop"])
def test_what_cannot_be_written_is_an_error_that_names_it(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError) as caught:  # noqa: PT011  -- what it names is compared below
        write_text(tmp_path / name, "text")
    assert caught.value.filename == str(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "loop").is_symlink()


def test_a_folder_is_seen_when_it_is_whole(tmp_path):
    with atomic_folder(tmp_path / "runs" / "a") as aside:
        (aside / "one").write_text("1")
        assert not (tmp_path / "runs" / "a").exists()
    assert (tmp_path / "runs" / "a" / "one").read_text() == "1"
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "runs" / "b") as aside:  # noqa: PT012  -- what comes before the error belongs to it
        (aside / "one").write_text("1")
        raise RuntimeError
    with pytest.raises(OSError, match="not empty"), atomic_folder(tmp_path / "runs" / "a"):
        pass
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a"]
    assert (tmp_path / "runs" / "a" / "one").read_text() == "1"


def test_only_temporary_names_of_ours_are_cleared_away(tmp_path):
    (tmp_path / "folder").mkdir()
    ours = [".a.partial", ".a.123.partial", ".step_12.partial"]
    theirs = ["b.partial", ".c", ".b.partial", ".a.old.partial", ".step_keep.partial", ".a.partial.partial"]
    for name in ours + theirs:
        (tmp_path / name).symlink_to("folder" if name != ".a.123.partial" else "nowhere")
    remove_partial(tmp_path, r"a|step_\d+")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*theirs, "folder"])


def test_of_a_link_the_link_is_removed(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    remove_folder(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    remove_folder(tmp_path / "folder")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="looks for names in /proc")
def test_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []

    def note(function, name_of):
        original = getattr(os, function)

        def noted(*arguments):
            calls.append((function, name_of(arguments[0])))
            return original(*arguments)

        monkeypatch.setattr(os, function, noted)

    note("fsync", lambda descriptor: Path(f"/proc/self/fd/{descriptor}").readlink().name)
    note("replace", os.path.basename)
    note("rename", os.path.basename)
    write_text(tmp_path / "a", "1")
    name = f".a.{os.getpid()}.partial"
    assert calls == [("fsync", name), ("replace", name)]
    calls.clear()
    with atomic_folder(tmp_path / "b") as aside:
        for part in ("one", "two"):
            (aside / part).write_text(part)
    assert set(calls[:2]) == {("fsync", "one"), ("fsync", "two")}
    assert calls[2:] == [("fsync", ".b.partial"), ("rename", ".b.partial"), ("fsync", tmp_path.name)]
