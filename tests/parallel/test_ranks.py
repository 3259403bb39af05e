"""Three ranks join, wait for each other at barriers, and listen only to their machine."""

import itertools
import os
import queue
import socket
import sys
import threading

import pytest

from ernie_vil2.device.launch import run_ranks
from ernie_vil2.parallel import ranks
from ernie_vil2.parallel.ranks import _list_sockets

RANK = """
import os, sys, time
import paddle, paddle.distributed as dist
from ernie_vil2.parallel.ranks import barrier
from ernie_vil2.parallel.ranks import join_ranks, watch_ranks
paddle.set_device("cpu")
rank, ranks = join_ranks()
assert (rank, ranks) == (dist.get_rank(), 3)
folder = sys.argv[1]
dist.all_reduce(paddle.ones([1]))
dist.new_group([0, 1])
barrier()
if sys.platform == "linux":
    links = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)]
    with open(f"{folder}/addresses{rank}", "w") as file:
        for line in [*open("/proc/net/tcp"), *open("/proc/net/tcp6")]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in links:  # 0A: listening
                print(fields[1], file=file)
barrier()
with watch_ranks():
    for turn in range(3):
        if rank == turn:
            time.sleep(0.5)
            open(f"{folder}/{turn}", "w")
        barrier()
        open(f"{folder}/{turn}")  # no rank passes the barrier before the last one has arrived
    start = time.monotonic()
    for _ in range(50):
        barrier()
    seconds = time.monotonic() - start
open(f"{folder}/seconds{rank}", "w").write(str(seconds))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of the files of three ranks, started as by a user."""
    folder = tmp_path_factory.mktemp("ranks")
    assert run_ranks([sys.executable, "-c", RANK, str(folder)], 3) == 0
    return folder


def test_barrier_waits_for_the_last_rank_and_is_fast(folder):
    # A barrier takes a millisecond; were requests delayed by Nagle's algorithm, it would take 90.
    assert all(float((folder / f"seconds{rank}").read_text()) < 50 * 0.04 for rank in range(3))


@pytest.mark.skipif(sys.platform != "linux", reason="looks for sockets in /proc")
def test_ranks_of_a_machine_listen_only_to_it(folder):
    addresses = [(folder / f"addresses{rank}").read_text().split() for rank in range(3)]
    assert len(addresses[0]) == 1  # the store, to which all ranks are connected
    for address in itertools.chain(*addresses):
        assert address.startswith("0100007F:"), addresses  # 127.0.0.1


@pytest.mark.skipif(sys.platform != "linux", reason="looks for sockets in /proc")
def test_listing_sockets_opens_no_descriptor(tmp_path):
    # A copy of the descriptor of a lock or a pipe would hold it as long as this process lives.
    with (tmp_path / "lock").open("w"), socket.create_server(("127.0.0.1", 0)) as server:
        descriptors = os.listdir("/proc/self/fd")  # noqa: PTH208  -- the list is whole before another file is opened
        assert server.fileno() in [number for number, _ in _list_sockets()]
        assert os.listdir("/proc/self/fd") == descriptors  # noqa: PTH208  -- the list is whole before another file is opened


def test_store_that_does_not_answer_ends_the_rank(monkeypatch):
    is_released, reasons = threading.Event(), queue.Queue()

    class BlockedCounters:
        def add(self, key, amount):
            is_released.wait()
            return 0

    monkeypatch.setattr(ranks, "SharedCounters", BlockedCounters)
    monkeypatch.setattr(ranks, "BEAT_SECONDS", 0.01)
    watcher = ranks._RankWatcher(0, 2)
    monkeypatch.setattr(watcher, "_end_process", lambda reason, delay=0.0: reasons.put(reason))
    watcher.start()
    assert "no sign of life" in reasons.get(timeout=60)
    watcher.stop()
    is_released.set()
    watcher.join()
