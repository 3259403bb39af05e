"""Workers that fill batches: the order of rows, and what happens when one fails, hangs or loses its parent."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ernie_vil2.data.loader_workers import WorkerError, fill_batches
from tests.support.limits import wait_until
from tests.support.paths import ROOT
from tests.support.processes import start_process

LAYOUT = {"square": ((2,), np.int64), "small": ((), np.uint8)}


def fill(position, arrays, row):
    arrays["square"][row] = position, position**2
    arrays["small"][row] = position % 256
    return f"row of {position}"


def positions_of_batches(rows, first=0):
    """Yield the positions of each batch, without end."""
    for start in itertools.count(first, rows):
        yield range(start, start + rows)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("rows", "workers"), [(5, 0), (5, 3), (2, 5)])
def test_batches_hold_the_rows_of_their_positions_in_order(rows, workers):
    batches = fill_batches(fill, LAYOUT, rows, itertools.islice(positions_of_batches(rows, first=300), 7), workers)
    count = 0
    for number, (arrays, reports) in enumerate(batches):
        expected = np.arange(rows) + 300 + number * rows
        assert np.array_equal(arrays["square"], np.stack([expected, expected**2], axis=1))
        assert np.array_equal(arrays["small"], expected % 256)
        assert reports == [f"row of {position}" for position in expected]
        count += 1
    assert count == 7


def test_workers_share_the_rows_and_ignore_signals():
    batches = fill_batches(lambda *_: os.getpid(), LAYOUT, 6, positions_of_batches(6), num_workers=3)
    pids = next(batches)[1]
    assert len(set(pids[:3])) == 3 and pids[:3] == pids[3:] and os.getpid() not in pids
    for pid in pids[:3]:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    assert [next(batches)[1] for _ in range(5)] == [pids] * 5  # they end with their reader, not by a signal
    batches.close()
    assert not any(map(is_alive, pids))


def fail():
    raise EOFError("a shard ends")


def kill_this_process():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("break_down", "report"), [(fail, "EOFError: a shard ends"), (kill_this_process, "signal 9")])
def test_failure_in_a_worker_is_reported_with_its_position(break_down, report):
    def fill_or_fail(position, *_):
        return break_down() if position == 13 else position

    batches = fill_batches(fill_or_fail, LAYOUT, 4, positions_of_batches(4), 3)
    assert [next(batches)[1] for _ in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(WorkerError, match=f"(?s)position 13 .*{report}"):
        next(batches)


def hang_at(*positions):
    """Return a function that fills rows, but hangs at some positions, as on a network disk that is gone."""
    return lambda position, *_: time.sleep(3600) if position in positions else position


def list_children():
    """Return the processes that this one has started and not waited for."""
    return [path.read_text() for path in sorted(Path("/proc/self/task").glob("*/children"))]


def test_hanging_row_is_left_out_of_its_batch():
    children_before, describe = list_children(), "position {}".format
    batches = fill_batches(hang_at(0, 13), LAYOUT, 5, positions_of_batches(5), 3, patience=1, report_stuck=describe)
    reports = []
    for _, reports_of_batch in itertools.islice(batches, 8):
        reports += reports_of_batch
    assert reports == [describe(position) if position in (0, 13) else position for position in range(40)]
    batches.close()
    assert list_children() == children_before, "every process was waited for"


def test_error_names_both_rows_when_a_second_one_hangs():
    batches = fill_batches(
        hang_at(5, 6), LAYOUT, 4, positions_of_batches(4), 2, patience=1, report_stuck="a.tar, {}".format
    )
    assert next(batches)[1] == [0, 1, 2, 3]
    with pytest.raises(WorkerError, match=r"\(a.tar, [56]; a.tar, [56]\)"):
        next(batches)


def test_patience_is_for_a_row_and_not_for_a_batch():
    def fill_slowly(position, *_):
        time.sleep(0.3)  # a row is ready within the second of patience, the batch of five is not
        return position

    batches = fill_batches(fill_slowly, LAYOUT, 5, positions_of_batches(5), 1, patience=1)
    assert next(batches)[1] == list(range(5))
    batches.close()


PARENT = """
import itertools, os, time
import numpy as np
from ernie_vil2.data.loader_workers import fill_batches

def slow(position, arrays, row):
    time.sleep(0.01 if position < 4 else {seconds})
    return os.getpid()

def start():
    positions = (range(start, start + 4) for start in itertools.count(0, 4))
    return fill_batches(slow, {{"x": ((), np.int64)}}, 4, positions, num_workers=2)

# Workers of a second loader inherit the pipes of the first one.
readers = [start(), start()]
print(*{{pid for reader in readers for pid in next(reader)[1]}}, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("seconds", [0.01, 3600], ids=["busy", "hanging"])
def test_workers_end_when_their_parent_is_killed(seconds):
    code = PARENT.format(seconds=seconds)
    parent = start_process([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 4 and all(map(is_alive, pids))
    parent.kill()
    parent.communicate()
    wait_until(lambda: not any(map(is_alive, pids)))
