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
from tests.support.limits import PATIENCE
from tests.support.processes import start_process

LAYOUT = {"square": ((2,), np.int64), "small": ((), np.uint8)}
ROOT = Path(__file__).parents[2]


def fill(position, arrays, row):
    arrays["square"][row] = position, position**2
    arrays["small"][row] = position % 256
    return f"row of {position}"


def positions(rows, first=0):
    return (range(start, start + rows) for start in itertools.count(first, rows))


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("rows", "workers"), [(5, 0), (5, 3), (2, 5)])
def test_batches_are_those_of_their_positions_in_order(rows, workers):
    batches = fill_batches(fill, LAYOUT, rows, itertools.islice(positions(rows, first=300), 7), workers)
    count = 0
    for number, (arrays, reports) in enumerate(batches):
        expected = np.arange(rows) + 300 + number * rows
        assert np.array_equal(arrays["square"], np.stack([expected, expected**2], axis=1))
        assert np.array_equal(arrays["small"], expected % 256)
        assert reports == [f"row of {position}" for position in expected]
        count += 1
    assert count == 7


def test_workers_share_the_rows_and_end_with_their_reader_alone():
    batches = fill_batches(lambda *_: os.getpid(), LAYOUT, 6, positions(6), num_workers=3)
    pids = next(batches)[1]
    assert len(set(pids[:3])) == 3 and pids[:3] == pids[3:] and os.getpid() not in pids
    for pid in pids[:3]:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    assert [next(batches)[1] for _ in range(5)] == [pids] * 5
    batches.close()
    assert not any(map(alive, pids))


def fail():
    raise EOFError("a shard ends")


def be_killed():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("happens", "report"), [(fail, "EOFError: a shard ends"), (be_killed, "signal 9")])
def test_what_fails_in_a_worker_is_reported_with_its_position(happens, report):
    batches = fill_batches(lambda position, *_: happens() if position == 13 else position, LAYOUT, 4, positions(4), 3)
    assert [next(batches)[1] for _ in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(WorkerError, match=f"(?s)position 13 .*{report}"):
        next(batches)


def hangs_at(*stuck):
    """Return what makes rows that are their position, but for those that never come, as of a network disk gone."""
    return lambda position, *_: time.sleep(3600) if position in stuck else position


def test_a_row_that_never_comes_is_left_out_and_the_others_come():
    left_out = "position {}".format
    batches = fill_batches(hangs_at(0, 13), LAYOUT, 5, positions(5), 3, patience=1, report_stuck=left_out)
    reports = [report for _, batch in itertools.islice(batches, 8) for report in batch]
    assert reports == [left_out(position) if position in (0, 13) else position for position in range(40)]
    batches.close()


def test_a_second_row_that_never_comes_is_an_error_of_both():
    batches = fill_batches(hangs_at(5, 6), LAYOUT, 4, positions(4), 2, patience=1, report_stuck="a.tar, {}".format)
    assert next(batches)[1] == [0, 1, 2, 3]
    with pytest.raises(WorkerError, match=r"\(a.tar, [56]; a.tar, [56]\)"):
        next(batches)


def test_rows_that_take_long_together_are_not_given_up():
    """Patience is for a row; a whole batch may take any time."""
    batches = fill_batches(lambda position, *_: time.sleep(0.3) or position, LAYOUT, 5, positions(5), 1, patience=1)
    assert next(batches)[1] == list(range(5))
    batches.close()


PARENT = """
import itertools, os, time
import numpy as np
from ernie_vil2.data.loader_workers import fill_batches

def slow(position, arrays, row):
    time.sleep(0.01 if position < 4 else {then})
    return os.getpid()

def start():
    positions = (range(start, start + 4) for start in itertools.count(0, 4))
    return fill_batches(slow, {{"x": ((), np.int64)}}, 4, positions, num_workers=2)

# Workers of a second loader are born with the first one's pipes.
readers = [start(), start()]
print(*{{pid for reader in readers for pid in next(reader)[1]}}, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("then", [0.01, 3600], ids=["busy", "hanging"])
def test_a_parent_that_is_killed_leaves_no_workers(then):
    code = PARENT.format(then=then)
    parent = start_process([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 4 and all(map(alive, pids))
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + PATIENCE
    while any(map(alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
