"""How ranks come together, wait for each other, count together, and notice that one of them is lost.

The ranks share Paddle's TCP store, which is in rank 0's process, on any backend: what goes by it asks no device. gloo
needs more care than other backends: it gives a rank up that comes to a collective 30 seconds after the first, in C++,
and fails to connect more than one group of three ranks and more.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paddle
import paddle.distributed as dist
from paddle.base import core
from paddle.distributed import fleet
from paddle.distributed.fleet.utils.log_util import set_log_level

from ernie_vil2.device.launch import LOOPBACK, STORE, end_with_parent, launched_rank
from ernie_vil2.io.terminal import LostRank

BEAT = 4.0
"""Seconds between two heartbeats of a rank."""
MISSED = 5
"""Missed heartbeats in a row that make a rank a lost one: it is named before gloo gives up, after 30 seconds."""
_DONE = 1 << 40  # added to a rank's pulse when it needs no watching any more
PATIENCE = 1800.0
"""Seconds that ranks wait for the slowest one before a collective, as long as it is alive."""
SIGNALS = signal.valid_signals()


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
    keep_store_on_loopback()
    with contextlib.redirect_stderr(io.StringIO()):  # a list of flags that Paddle itself has set
        dist.init_parallel_env()
        with one_group_of_all_ranks():
            fleet.init(is_collective=True, strategy=strategy, log_level="ERROR")
    return dist.get_rank(), ranks


def keep_store_on_loopback() -> None:
    """Lets rank 0 of ranks on this machine keep the store of all ranks where it can be reached from this machine alone.

    Paddle's own listens on all addresses, so that whoever can reach the machine can write into it.
    """
    host, port = store_address()
    if host == LOOPBACK and os.environ["PADDLE_TRAINER_ID"] == "0" and sys.platform == "linux":
        store = _store_on_loopback(port)
        core.create_or_get_global_tcp_store = lambda: store


def _store_on_loopback(port: int) -> core.TCPStore:
    """The store of all ranks, in this process.

    Its thread looks up the socket by its number before it waits again: behind that number comes a socket of ours, at
    the port that the ranks know. Until then, for some milliseconds, the first one listens at a port that nobody
    knows.
    """
    with socket.create_server((LOOPBACK, 0)) as free:
        other = free.getsockname()[1]
    paddle.set_flags({"FLAGS_tcp_store_using_libuv": False})  # whose event loop would keep the first socket
    with signals_blocked():  # from its thread for good: it takes an interrupted read for the end of a connection
        store = core.TCPStore(LOOPBACK, other, True, 1)
        inherited = os.environ.pop(STORE, None)
        with socket.socket(fileno=int(inherited)) if inherited else socket.create_server((LOOPBACK, port)) as server:
            for number, connection in _connections():
                accepts = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if accepts and connection.getsockname()[1:2] == (other,):
                    os.dup2(server.fileno(), number, inheritable=False)
        store.add("awake", 0)
    return store


class HostSums:
    """Sums over the ranks that ask no device: by counters in the store that all ranks share, on any backend."""

    def __init__(self) -> None:
        self._calls = 0
        self._totals: dict[str, int] = {}

    def __call__(self, *values: int) -> list[int]:
        """Each of some whole numbers, not negative, summed over the ranks. A collective: all give as many.

        Raises:
            LostRank: as `wait_for_all_ranks`.
        """
        if dist.get_world_size() == 1:
            return list(values)
        # Counters are read after all have added and before any adds again: a rank that is ahead has the other set.
        self._calls += 1
        keys = [f"sum/{self._calls % 2}/{number}" for number in range(len(values))]
        store = _counters()
        for key, value in zip(keys, values, strict=True):
            if value:
                store.add(key, value)
        wait_for_all_ranks("sums")
        before, now = self._totals, {key: store.add(key, 0) for key in keys}
        self._totals = before | now
        return [now[key] - before.get(key, 0) for key in keys]


def wait_for_all_ranks(counter: str) -> None:
    """Waits until every rank has come to a counter as often as this one. A collective.

    Raises:
        LostRank: not all came within `PATIENCE`, or rank 0 has ended.
    """
    ranks, store = dist.get_world_size(), _counters()
    come = store.add(counter, 1)
    # Nobody leaves a barrier before all have come, so that the count shows which one this is.
    needed = -(-come // ranks) * ranks
    since = time.monotonic()
    while come < needed:
        waited = time.monotonic() - since
        if waited > PATIENCE:
            raise LostRank(
                f"{needed - come} of {ranks} ranks did not come within {PATIENCE / 60:.0f} minutes to where rank "
                f"{dist.get_rank()} waits; look into their logs"
            )
        # Whoever sleeps on after the last has come makes that one wait in turn: a twentieth longer at most.
        time.sleep(min(max(1e-4, waited / 20), 0.02))
        come = store.add(counter, 0)


class SharedCounters:
    """A connection to counters that all ranks share; they live in rank 0's process. Not for two threads at once."""

    def __init__(self) -> None:
        host, port = store_address()
        # A world of its own: it has nobody to wait for.
        self._store = core.TCPStore(host, port, False, 1)
        _send_at_once(port)

    def add(self, key: str, amount: int) -> int:
        try:
            with signals_blocked():  # the store takes an interrupted read for the end of its connection
                return self._store.add(key, amount)
        except ValueError as error:
            raise LostRank("rank 0 has ended, to which all ranks are connected; look into its log") from error


@functools.cache
def _counters() -> SharedCounters:
    return SharedCounters()


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Signals wait until the block ends; threads that it starts get none."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _send_at_once(port: int) -> None:
    """Switches Nagle's algorithm off for this process's connections to a port.

    Paddle's store sends a request in several pieces; with Nagle's algorithm a call takes 44 ms instead of 0.05 ms.
    """
    for _, connection in _connections():
        with contextlib.suppress(OSError):  # some are not connected
            if connection.getpeername()[1:2] == (port,):  # of a socket within the machine, a name
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _connections() -> Iterator[tuple[int, socket.socket]]:
    """This process's sockets by the number of their descriptor; none elsewhere than on Linux."""
    for name in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():  # noqa: PTH208  -- the list is whole before another file is opened
        with contextlib.suppress(OSError):  # one is closed by now
            if str(Path(f"/proc/self/fd/{name}").readlink()).startswith("socket:"):
                with socket.fromfd(int(name), socket.AF_INET, socket.SOCK_STREAM) as connection:
                    yield int(name), connection


def store_address() -> tuple[str, int]:
    """Where Paddle keeps the store of all ranks: its launcher's choice, or the first rank's endpoint."""
    environ = os.environ
    if environ.get("MASTER_ADDR") and environ.get("MASTER_PORT"):
        return environ["MASTER_ADDR"], int(environ["MASTER_PORT"])
    host, _, port = (environ.get("PADDLE_MASTER") or environ["PADDLE_TRAINER_ENDPOINTS"].split(",")[0]).rpartition(":")
    return host, int(port)


@contextlib.contextmanager
def one_group_of_all_ranks() -> Iterator[None]:
    """Over gloo, groups of all ranks that are asked for within the block are the one that there is.

    fleet asks for more of them, and from three ranks on gloo often fails to connect the second ("Connection refused").
    """
    new_group = dist.new_group

    def shared(ranks: list[int] | None = None, *arguments: Any, **options: Any) -> Any:
        if dist.get_backend() == "GLOO" and (ranks is None or len(ranks) == dist.get_world_size()):
            return dist.get_group(0)
        return new_group(ranks, *arguments, **options)

    dist.new_group = shared
    try:
        yield
    finally:
        dist.new_group = new_group


def barrier() -> None:
    """Waits until every rank has come here as often as this one; a collective of its own.

    Before a collective of gloo: it gives a rank up that comes 30 seconds after the first, as one does that has written
    a checkpoint or scored a validation set for all. Other backends wait by themselves.

    Raises:
        LostRank: as `wait_for_all_ranks`.
    """
    if dist.get_world_size() > 1 and dist.get_backend() == "GLOO":
        wait_for_all_ranks("barrier")


@contextlib.contextmanager
def lost_ranks_named(find: Callable[[], None], wait: float) -> Iterator[None]:
    """Within the block, that gloo has lost a rank is a LostRank that says which.

    Args:
        find: ends this process, for where gloo fails in C++.
        wait: seconds before the error, so that a launcher finds the rank that has died before this one, and names it.
    """
    try:
        with _before_abort(find):
            yield
    except RuntimeError as error:
        # What gloo calls a time-out can also be a connection that the other side has closed.
        if "gloo/transport" not in str(error):
            raise
        time.sleep(wait)
        raise LostRank(
            f"{_peer(str(error))} has died, or did not answer rank {dist.get_rank()} for 30 seconds; look into its log"
        ) from error


@contextlib.contextmanager
def _before_abort(action: Callable[[], None]) -> Iterator[None]:
    """Within the block, `action` runs before C++ ends the process for an exception that nobody catches.

    So Paddle ends where gloo fails while data parallel averages gradients. Where there is no GNU C++ library, nothing.
    """
    try:
        set_terminate = ctypes.CDLL("libstdc++.so.6")["_ZSt13set_terminatePFvvE"]
    except (OSError, AttributeError):
        yield
        return
    handler = ctypes.CFUNCTYPE(None)(action)
    set_terminate.restype = ctypes.c_void_p
    before = set_terminate(handler)
    try:
        yield
    finally:
        set_terminate(ctypes.c_void_p(before))


def _peer(message: str) -> str:
    """The rank that gloo complains of; it does not always say which."""
    named = re.search(r"pair_rank = (\d+)", message)
    if named:
        return f"rank {named[1]}"
    return f"rank {1 - dist.get_rank()}" if dist.get_world_size() == 2 else "another rank"


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
        with lost_ranks_named(watch.find, BEAT):
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
        self._store = SharedCounters()
        self._pulses = dict.fromkeys(range(1, ranks), (0, 0))  # rank -> count, and how often it was found unchanged

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they are for the main thread
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
