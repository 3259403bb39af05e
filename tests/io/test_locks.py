"""Locks between processes: the holder is named, a forked process holds none, and running work is not disturbed."""

import os

import pytest

from ernie_vil2.data.prepare import Settings, prepare
from ernie_vil2.data.readers import open_sources
from ernie_vil2.io.locks import Locked, OtherJob, lock_exclusive, open_lock_file
from tests.support.shapes import write_tsv


def test_holder_is_named_until_the_file_is_closed(tmp_path):
    with open_lock_file(tmp_path / "lock"), pytest.raises(Locked, match=f"lock .* process {os.getpid()} on "):
        open_lock_file(tmp_path / "lock")
    open_lock_file(tmp_path / "lock").close()
    (tmp_path / "empty").touch()
    with (tmp_path / "empty").open() as first, (tmp_path / "empty").open() as second:
        lock_exclusive(first)
        with pytest.raises(Locked, match="empty"):
            lock_exclusive(second)


def test_forked_process_holds_no_lock(tmp_path):
    read_end, write_end = os.pipe()
    with (tmp_path / "lock").open("w") as file:
        lock_exclusive(file)
        child = os.fork()
        if not child:
            os.read(read_end, 1)
            os._exit(0)
    with (tmp_path / "lock").open() as file:
        lock_exclusive(file, wait=True)
    os.write(write_end, b"x")
    os.waitpid(child, 0)
    os.close(read_end)
    os.close(write_end)


def test_output_of_another_process_is_not_touched(tmp_path):
    source = open_sources([str(write_tsv(tmp_path / "a.tsv", [("text", "1", b"no image")]))])
    (tmp_path / "out" / ".prepare").mkdir(parents=True)
    lock = open_lock_file(tmp_path / "out" / ".prepare" / "lock")
    with lock, pytest.raises(OtherJob, match=f"out: process {os.getpid()} "):
        prepare(source, tmp_path / "out", Settings())
