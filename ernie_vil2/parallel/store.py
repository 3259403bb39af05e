"""The store of all ranks, which they have on any backend: out of reach of other machines, with counters and sums.

It is Paddle's TCP store, in rank 0's process. What goes by it asks no device.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import paddle
import paddle.distributed as dist
from paddle.base import core

from ernie_vil2.device.launch import LOOPBACK, STORE
from ernie_vil2.io.terminal import LostRank

PATIENCE = 1800.0
"""Seconds that ranks wait for the slowest one before a collective, as long as it is alive."""
SIGNALS = signal.valid_signals()


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
