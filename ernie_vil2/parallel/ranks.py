"""How ranks come together, and notice that one of them is lost.

`store` has what they share on any backend, `gloo` what gloo alone needs.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import paddle.distributed as dist
from paddle.distributed import fleet
from paddle.distributed.fleet.utils.log_util import set_log_level

from ernie_vil2.device.launch import end_with_parent, launched_rank
from ernie_vil2.io.terminal import LostRank
from ernie_vil2.parallel import gloo, store

BEAT = 4.0
"""Seconds between two heartbeats of a rank."""
MISSED = 5
"""Missed heartbeats in a row that make a rank a lost one: it is named before gloo gives up, after 30 seconds."""
_DONE = 1 << 40  # added to a rank's pulse when it needs no watching any more


def join_ranks(sharded_optimizer: bool = False) -> tuple[int, int]:
    """Joins the ranks that a launcher has started; 0 and 1 where there is no launcher.

    Args:
        sharded_optimizer: whether what fleet distributes has its optimiser state divided among the ranks.

    Returns:
        This process's rank, and their number.

    Raises:
        LostRank: the others did not come.
    """
    # Paddle's own handler, set on import, would print a page about "fatal" for what only asks a process to end.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _, ranks = launched_rank()
    if ranks == 1:
        return 0, 1
    end_with_parent()
    set_log_level("ERROR")
    strategy = fleet.DistributedStrategy()
    if sharded_optimizer:
        strategy.hybrid_configs = {"sharding_degree": ranks, "dp_degree": 1}
    store.keep_store_on_loopback()
    with contextlib.redirect_stderr(io.StringIO()):  # a list of flags that Paddle itself has set
        dist.init_parallel_env()
        with gloo.one_group_of_all_ranks():
            fleet.init(is_collective=True, strategy=strategy, log_level="ERROR")
    return dist.get_rank(), ranks


@contextlib.contextmanager
def watched_ranks() -> Iterator[None]:
    """Within the block, a rank that is lost ends this process too: with its number, within a minute, on any launcher.

    A collective: every rank enters the block, and leaves it when no collective is left to do.

    Raises:
        LostRank: a collective of gloo broke off.
    """
    if dist.get_world_size() == 1:
        yield
        return
    watch = _Watch(dist.get_rank(), dist.get_world_size())
    watch.start()
    try:
        with gloo.lost_ranks_named(watch.find, BEAT):
            yield
            watch.done()
    finally:
        watch.stop()


class _Watch(threading.Thread):
    """Counts up this rank's pulse in the store; rank 0 looks at those of all others.

    That rank 0 has ended the others notice by losing the connection.
    """

    def __init__(self, rank: int, ranks: int):
        super().__init__(daemon=True)
        self._rank, self._ranks = rank, ranks
        self._stopped = threading.Event()
        self._store = store.SharedCounters()
        self._pulses = dict.fromkeys(range(1, ranks), (0, 0))  # rank -> count, and how often it was found unchanged

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, store.SIGNALS)  # they are for the main thread
        while not self._stopped.wait(BEAT):
            try:
                self._store.add(f"pulse/{self._rank}", 1)
                lost = self._missing() if self._rank == 0 else self._store.add("lost", 0)
            except LostRank as error:
                self._end(str(error))
            else:
                if lost:
                    self._end(
                        f"rank {lost} has given no sign of life for {BEAT * MISSED:.0f} seconds; look into its log",
                        # The others read from this process which rank it is.
                        delay=2 * BEAT if self._rank == 0 else 0.0,
                    )

    def find(self) -> None:
        """For a process that cannot go on and does not know why: waits until it is known which rank is lost, and ends.

        Meanwhile a launcher finds the rank that has died, and names it.
        """
        print(f"error: rank {self._rank} has lost another rank; looking for which", file=sys.stderr, flush=True)
        self._stopped.wait(BEAT * (MISSED + 3))
        self._end("another rank has died, or did not answer for 30 seconds; look into the logs")

    def done(self) -> None:
        """Lets the others know that this rank may end now. Rank 0, who has the store, waits for them a while."""
        self.stop()
        self.join()
        self._store.add(f"pulse/{self._rank}", _DONE)
        until = time.monotonic() + BEAT * MISSED
        while self._rank == 0 and time.monotonic() < until:
            if all(self._store.add(f"pulse/{rank}", 0) >= _DONE for rank in self._pulses):
                return
            time.sleep(0.05)

    def stop(self) -> None:
        self._stopped.set()

    def _missing(self) -> int:
        """A rank that has missed too many beats, or 0; the others learn of it."""
        for rank, (before, missed) in self._pulses.items():
            count = self._store.add(f"pulse/{rank}", 0)
            # Beats, not seconds: when the whole run is suspended for a while, nobody misses more than one.
            self._pulses[rank] = count, missed + 1 if count == before < _DONE else 0
            if self._pulses[rank][1] == MISSED:
                self._store.add("lost", rank)
                return rank
        return 0

    def _end(self, why: str, delay: float = 0.0) -> None:
        if self._stopped.is_set():
            return
        print(f"error: {why}, then continue with --resume; rank {self._rank} of {self._ranks} ends", file=sys.stderr)
        sys.stderr.flush()
        sys.stdout.flush()
        self._stopped.wait(delay)
        os._exit(1)  # the main thread may wait in a collective that never ends
