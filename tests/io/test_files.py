"""Files and folders are written completely or not at all, also through links and pipes."""

import errno
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ernie_vil2.io.files import atomic_files, atomic_folder, atomic_write, remove_folder, remove_partial, write_text
from tests.support.commands import mount_small_disk
from tests.support.processes import run_process


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


def fail_while_writing(path):
    """Write half of a file, then raise RuntimeError."""
    with atomic_write(path) as temporary_path:
        temporary_path.write_text("half")
        raise RuntimeError


def test_failed_write_keeps_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "图片")
    with pytest.raises(RuntimeError):
        fail_while_writing(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "图片"
    assert list_names(tmp_path) == ["a.txt"]


def test_threads_that_write_one_file_do_not_mix(tmp_path):
    barrier = threading.Barrier(2)

    def write(letter):
        with atomic_write(tmp_path / "a.txt") as temporary_path, temporary_path.open("w") as file:
            barrier.wait()
            file.write(letter * 1000)
            file.flush()
            barrier.wait()
        return (tmp_path / "a.txt").read_text()

    with ThreadPoolExecutor(2) as threads:
        contents = list(threads.map(write, "ab"))
    assert set(contents) <= {"a" * 1000, "b" * 1000}
    assert list_names(tmp_path) == ["a.txt"]


def test_error_on_a_full_disk_names_the_file(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(OSError, match="a.txt") as caught, atomic_write(path), Path("/dev/full").open("w") as full:
        full.write("more than there is room for")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert list_names(tmp_path) == []


def test_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "real").write_text("old")
    (tmp_path / "data" / "link").symlink_to("real")
    (tmp_path / "link").symlink_to(tmp_path / "data" / "link")
    (tmp_path / "dangling").symlink_to("data/new")
    with (tmp_path / "data" / "real").open() as reader:
        write_text(tmp_path / "link", "text")
        write_text(tmp_path / "dangling", "text")
        assert reader.read() == "old", "whoever has the old file open reads it to its end"
    assert (tmp_path / "link").is_symlink() and (tmp_path / "data" / "link").is_symlink()
    assert (tmp_path / "data" / "real").read_text() == (tmp_path / "data" / "new").read_text() == "text"
    assert {path.name for path in tmp_path.rglob("*")} == {"data", "real", "link", "dangling", "new"}


def test_pipe_receives_the_content_when_it_is_complete(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(RuntimeError):
        fail_while_writing(tmp_path / "pipe")
    write_text(tmp_path / "link", "whole")
    assert os.read(reader, 100) == b"whole"
    os.close(reader)
    assert list_names(tmp_path) == ["link", "pipe"] and (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["link", "missing/file", "loop"])
def test_error_names_the_path_that_cannot_be_written(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "loop").symlink_to("loop")
    paths = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match=name) as caught:
        write_text(tmp_path / name, "text")
    assert caught.value.filename == str(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == paths


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path):
    file, folder = tmp_path / ("图" * 85), tmp_path / ("a" * 255)  # a character of Chinese has three bytes
    write_text(file, "text")
    with atomic_folder(folder) as temporary_folder:
        (temporary_folder / "file").write_text("text")
    assert file.read_text() == "text" and list_names(folder) == ["file"]
    assert set(tmp_path.iterdir()) == {file, folder}


def test_error_on_a_read_only_disk_names_the_path(tmp_path):
    with mount_small_disk(tmp_path / "disk", "1m") as disk:
        run_process(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(OSError, match="Read-only") as caught:
            write_text(disk / "file", "text")
        assert caught.value.filename == str(disk / "file")


def test_folder_appears_when_it_is_complete(tmp_path):
    with atomic_folder(tmp_path / "runs" / "a") as temporary_path:
        (temporary_path / "one").write_text("1")
        assert not (tmp_path / "runs" / "a").exists()
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "runs" / "b"):
        raise RuntimeError
    with pytest.raises(OSError, match="a"), atomic_folder(tmp_path / "runs" / "a"):
        pass
    assert list_names(tmp_path / "runs") == ["a"]
    assert (tmp_path / "runs" / "a" / "one").read_text() == "1"


def test_draft_of_a_killed_process_of_the_same_number_is_removed(tmp_path):
    draft_folder = tmp_path / f".{threading.get_native_id()}.partial"
    draft_folder.mkdir()
    (draft_folder / "old").write_text("half")
    with atomic_files(tmp_path) as temporary_path:
        (temporary_path / "new").write_text("whole")
    assert list_names(tmp_path) == ["new"]


def test_only_temporary_names_of_the_package_are_removed(tmp_path):
    (tmp_path / "folder").mkdir()
    temporary_names = [".a.partial", ".a.123.partial", ".step_12.partial"]
    other_names = ["b.partial", ".c", ".b.partial", ".a.old.partial", ".step_keep.partial", ".a.partial.partial"]
    for name in temporary_names + other_names:
        (tmp_path / name).symlink_to("folder")
    remove_partial(tmp_path, r"a|step_\d+")
    assert list_names(tmp_path) == sorted([*other_names, "folder"])
    remove_folder(tmp_path / ".c")
    other_names.remove(".c")  # the link is removed, not the folder that it leads to
    assert list_names(tmp_path) == sorted([*other_names, "folder"])


@pytest.mark.skipif(sys.platform != "linux", reason="looks for names in /proc")
def test_content_is_on_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    calls = []

    def record_calls(function_name, read_name):
        original = getattr(os, function_name)

        def call_and_record(*arguments):
            calls.append((function_name, read_name(arguments[0])))
            return original(*arguments)

        monkeypatch.setattr(os, function_name, call_and_record)

    record_calls("fsync", lambda descriptor: Path(f"/proc/self/fd/{descriptor}").readlink().name)
    record_calls("replace", os.path.basename)
    record_calls("rename", os.path.basename)
    write_text(tmp_path / "a", "1")
    name = f".a.{os.getpid()}.partial"
    assert calls == [("fsync", name), ("replace", name)]
    calls.clear()
    with atomic_folder(tmp_path / "b") as temporary_path:
        (temporary_path / "one").touch()
        (temporary_path / "two").touch()
    assert set(calls[:2]) == {("fsync", "one"), ("fsync", "two")}
    assert calls[2:] == [("fsync", ".b.partial"), ("rename", ".b.partial"), ("fsync", tmp_path.name)]
