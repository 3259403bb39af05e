"""Three ranks come together and meet."""

import sys

from ernie_vil2.launch import run_ranks
from ernie_vil2.parallel.ranks import join_ranks, meet, watched_ranks

RANK = """
import sys, time
import paddle, paddle.distributed as dist
from ernie_vil2.parallel.ranks import join_ranks, meet, watched_ranks
paddle.set_device("cpu")
rank, ranks = join_ranks()
assert (rank, ranks) == (dist.get_rank(), 3)
folder = sys.argv[1]
with watched_ranks():
    for turn in range(3):
        if rank == turn:
            time.sleep(0.5)
            open(f"{folder}/{turn}", "w")
        meet()
        open(f"{folder}/{turn}")  # nobody is past the meeting before the last one has come
    since = time.monotonic()
    for _ in range(50):
        meet()
    seconds = time.monotonic() - since
open(f"{folder}/seconds{rank}", "w").write(str(seconds))
"""


def test_ranks_wait_for_the_last_one_and_lose_little_time_by_it(tmp_path):
    assert run_ranks([sys.executable, "-c", RANK, str(tmp_path)], 3) == 0
    # A meeting takes a millisecond; were requests held back by Nagle's algorithm, it would take 90.
    assert all(float((tmp_path / f"seconds{rank}").read_text()) < 50 * 0.04 for rank in range(3))


def test_a_single_process_needs_no_others():
    assert join_ranks() == (0, 1)
    meet()
    with watched_ranks():
        pass
