import errno
import os
import sys

import pytest

from ernie_vil2.files import folder_written_whole, remove_partial, write_text, written_whole


def test_a_text_replaces_the_file_and_leaves_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "图片")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "图片"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), written_whole(tmp_path / "a.txt") as aside:
        aside.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(OSError) as caught, written_whole(tmp_path / "a.txt") as aside, open("/dev/full", "w") as full:
        aside.write_text("half")
        full.write("more than there is room for")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_seen_when_it_is_whole(tmp_path):
    with folder_written_whole(tmp_path / "runs" / "a") as aside:
        (aside / "one").write_text("1")
        assert not (tmp_path / "runs" / "a").exists()
    assert (tmp_path / "runs" / "a" / "one").read_text() == "1"
    with pytest.raises(RuntimeError), folder_written_whole(tmp_path / "runs" / "b") as aside:
        (aside / "one").write_text("1")
        raise RuntimeError
    with pytest.raises(OSError), folder_written_whole(tmp_path / "runs" / "a"):
        pass
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a"]
    assert (tmp_path / "runs" / "a" / "one").read_text() == "1"


def test_only_temporary_names_are_cleared_away(tmp_path):
    (tmp_path / "folder").mkdir()
    for name in (".a.partial", "b.partial", ".c", ".gone.partial"):
        (tmp_path / name).symlink_to("folder" if name != ".gone.partial" else "nowhere")
    remove_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".c", "b.partial", "folder"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for names in /proc")
def test_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []

    def note(function, name_of):
        original = getattr(os, function)

        def noted(*arguments):
            calls.append((function, name_of(arguments[0])))
            return original(*arguments)

        monkeypatch.setattr(os, function, noted)

    note("fsync", lambda descriptor: os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
    note("replace", os.path.basename)
    note("rename", os.path.basename)
    write_text(tmp_path / "a", "1")
    name = f".a.{os.getpid()}.partial"
    assert calls == [("fsync", name), ("replace", name)]
    calls.clear()
    with folder_written_whole(tmp_path / "b") as aside:
        for part in ("one", "two"):
            (aside / part).write_text(part)
    assert set(calls[:2]) == {("fsync", "one"), ("fsync", "two")}
    assert calls[2:] == [("fsync", ".b.partial"), ("rename", ".b.partial"), ("fsync", tmp_path.name)]
