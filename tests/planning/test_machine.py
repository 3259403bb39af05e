"""Speed and free memory of a machine, without its clock."""

import paddle
import pytest

from ernie_vil2.planning import machine
from ernie_vil2.planning.machine import Machine, find_free_memory, measure_machine

GIB = 2**30
MEMINFO = f"MemTotal:       {64 * 2**20} kB\nMemFree:        1024 kB\nMemAvailable:   {20 * 2**20} kB\n"


def write_system(folder, limit=None):
    """Write the files of Linux for 20 GiB of free memory; with a limit, as in a container that uses 3 GiB."""
    (folder / "proc").mkdir()
    (folder / "proc/meminfo").write_text(MEMINFO)
    if limit is not None:
        group = folder / "sys/fs/cgroup"
        group.mkdir(parents=True)
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.stat").write_text(f"anon {3 * GIB}\nfile {5 * GIB}\n")
    return folder


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, 20 * GIB), ("max", 20 * GIB), (8 * GIB, 5 * GIB), (2 * GIB, 0), (99 * GIB, 20 * GIB)]
)
def test_free_memory_is_read_from_files_of_linux(tmp_path, limit, expected):
    assert find_free_memory(write_system(tmp_path, limit)) == expected


def test_free_memory_is_assumed_without_these_files(tmp_path):
    assert find_free_memory(tmp_path) == 16 * GIB


def test_speed_is_that_of_the_best_measurement(monkeypatch):
    # Products take 4, 1, 2 and 3 seconds, draws 8, 5, 6 and 7.
    times = iter([0, 4, 10, 11, 20, 22, 30, 33, 40, 48, 50, 55, 60, 66, 70, 77])
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(times))
    speed = measure_machine()
    assert speed.flops == 2 * 1024**3 and speed.draws == 2**20 / 5
    assert 0 < speed.memory < 2**50


def test_memory_that_others_use_on_a_gpu_is_not_free(monkeypatch):
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:1")
    monkeypatch.setattr(paddle.cuda, "mem_get_info", {"gpu:1": (3 * GIB, 80 * GIB)}.__getitem__)
    assert 2.5 * GIB < measure_machine().memory <= 3 * GIB


def test_products_and_draws_take_their_time():
    assert Machine(memory=1.0, flops=10.0, draws=4.0).least_seconds(flops=30, num_parameters=8) == 5
