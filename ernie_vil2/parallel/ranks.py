"""How ranks join, wait for each other, add up numbers, and notice that one of them is lost.

The ranks of any backend share Paddle's TCP store, which lives in the process of rank 0; using it does not involve the
device. gloo needs more care than other backends: it gives up, in C++, on a rank that reaches a collective 30 seconds
after the first one, and often fails to connect a second group of three or more ranks.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import math
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

from ernie_vil2.device.launch import LOOPBACK, STORE_VARIABLE, exit_when_parent_dies, launched_rank
from ernie_vil2.io.terminal import LostRank, print_error

# Every rank beats once every 4 seconds, and is lost when it misses 5 heartbeats. These 20 seconds leave time to name
# the lost rank before gloo gives up after 30 seconds. With fewer beats, a rank that is only busy would count as lost.
BEAT_SECONDS = 4.0
MAX_MISSED_BEATS = 5
# The store answers one request after the other, and waits for the rest of one that has begun. A rank that is frozen in
# the middle of a request, or rank 0 itself, blocks it for all. Twice the time, because the store may merely be slow.
MAX_UNANSWERED_BEATS = 2 * MAX_MISSED_BEATS
# Added to a rank's heartbeat counter when the rank has finished and need not be watched; above any count of beats.
_FINISHED = 1 << 40
# How long ranks wait before a collective for the slowest rank, if it is alive: time for one rank to evaluate or to
# write a checkpoint. It is also how long a run hangs if a rank is alive but stuck.
MAX_WAIT_SECONDS = 1800.0
ALL_SIGNALS = signal.valid_signals()


def join_ranks(sharded_optimizer: bool = False) -> tuple[int, int]:
    """Join the ranks that a launcher has started.

    Args:
        sharded_optimizer: whether the ranks divide the optimiser's state among them (ZeRO stage 1).

    Returns:
        This process's rank and the number of ranks; 0 and 1 without a launcher.

    Raises:
        LostRank: the other ranks did not come.
    """
    # Paddle's own handler, set on import, would print a page about a fatal error when SIGTERM asks a process to end.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _, ranks = launched_rank()
    if ranks == 1:
        return 0, 1
    exit_when_parent_dies()
    set_log_level("ERROR")
    strategy = fleet.DistributedStrategy()
    if sharded_optimizer:
        strategy.hybrid_configs = {"sharding_degree": ranks, "dp_degree": 1}
    restrict_store_to_loopback()
    # Paddle prints a list of flags that it has set itself.
    with contextlib.redirect_stderr(io.StringIO()):
        dist.init_parallel_env()
        with share_gloo_group():
            fleet.init(is_collective=True, strategy=strategy, log_level="ERROR")
    return dist.get_rank(), ranks


def restrict_store_to_loopback() -> None:
    """Make the store of rank 0 reachable from this machine alone, if all ranks run on it.

    Paddle's own store listens on all addresses, so that whoever reaches the machine can write into it.
    """
    host, port = find_store_address()
    if host == LOOPBACK and os.environ["PADDLE_TRAINER_ID"] == "0" and sys.platform == "linux":
        store = _open_store_on_loopback(port)
        # `init_parallel_env` calls this function of Paddle 3.3.1; replaced, it gets our store.
        core.create_or_get_global_tcp_store = lambda: store


def _open_store_on_loopback(port: int) -> core.TCPStore:
    """Open the store of all ranks in this process, listening on the loopback address.

    Paddle gives no choice of the address, so this replaces the socket. The store's thread waits on the same file
    descriptor each time, and `dup2` can put our own socket in its place, at the port that the ranks know. Until then,
    for some milliseconds, Paddle's socket listens on all addresses, at a port that nobody knows.
    """
    with socket.create_server((LOOPBACK, 0)) as server:
        temporary_port = server.getsockname()[1]
    # The event loop of libuv would keep using the first socket.
    paddle.set_flags({"FLAGS_tcp_store_using_libuv": False})
    # Signals are blocked while the store's thread starts, and the thread inherits that. A signal would interrupt one of
    # its reads, and it would treat the connection as closed.
    with block_signals():
        store = core.TCPStore(LOOPBACK, temporary_port, True, 1)
        # `run_ranks` has opened the socket already, so that no other process can take the port.
        inherited = os.environ.pop(STORE_VARIABLE, None)
        if inherited:
            server = socket.socket(fileno=int(inherited))
        else:
            server = socket.create_server((LOOPBACK, port))
        with server:
            for descriptor, candidate in _list_sockets():
                is_listening = candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if is_listening and _get_port(candidate.getsockname()) == temporary_port:
                    os.dup2(server.fileno(), descriptor, inheritable=False)
        # This call wakes the thread, which then waits on our socket.
        store.add("awake", 0)
    return store


class HostSums:
    """Sums over the ranks of any backend by counters in the shared store, without the device."""

    def __init__(self) -> None:
        self._num_calls = 0
        self._totals: dict[str, int] = {}  # what the counters held when they were last read

    def __call__(self, *values: int) -> list[int]:
        """Return the sum over the ranks of each value. A collective: all ranks pass equally many values.

        Args:
            values: whole numbers, not negative.

        Raises:
            LostRank: see `wait_for_all_ranks`.
        """
        if dist.get_world_size() == 1:
            return list(values)
        # Calls use two sets of counters in turn: a rank that is ahead adds to the next set while a slow rank still
        # reads the current one.
        self._num_calls += 1
        keys = [f"sum/{self._num_calls % 2}/{number}" for number in range(len(values))]
        counters = _get_counters()
        for key, value in zip(keys, values, strict=True):
            if value:
                counters.add(key, value)
        wait_for_all_ranks("sums")
        # Counters are never reset, so the sum is the increase since this set was last used, two calls ago.
        totals = {key: counters.add(key, 0) for key in keys}
        sums = [totals[key] - self._totals.get(key, 0) for key in keys]
        self._totals |= totals
        return sums


def wait_for_all_ranks(barrier_name: str) -> None:
    """Wait until every rank has called this with the same name as often as this rank has. A collective.

    Args:
        barrier_name: name of the barrier, and of its counter of arrivals.

    Raises:
        LostRank: not all ranks came within `MAX_WAIT_SECONDS`, or rank 0 has ended.
    """
    ranks, counters = dist.get_world_size(), _get_counters()
    num_arrivals = counters.add(barrier_name, 1)
    # No rank leaves a barrier before all have come, so this barrier is complete at the next multiple of their number.
    num_expected = math.ceil(num_arrivals / ranks) * ranks
    start = time.monotonic()
    while num_arrivals < num_expected:
        waited = time.monotonic() - start
        if waited > MAX_WAIT_SECONDS:
            raise LostRank(
                f"{num_expected - num_arrivals} of {ranks} ranks did not come within {MAX_WAIT_SECONDS / 60:.0f} "
                f"minutes to where rank {dist.get_rank()} waits; look into their logs"
            )
        # Sleeping delays the step after the last rank has come: by at most 5 % of the wait, and never more than 20 ms.
        time.sleep(min(max(1e-4, waited / 20), 0.02))
        num_arrivals = counters.add(barrier_name, 0)


def barrier() -> None:
    """Wait until every rank has called this as often as this rank has; to be called before a collective.

    Only gloo needs it: it gives up on a rank that comes more than 30 seconds after the first one, for example because
    the rank has written a checkpoint or scored a validation set. Other backends wait by themselves.

    Raises:
        LostRank: see `wait_for_all_ranks`.
    """
    if dist.get_world_size() > 1 and dist.get_backend() == "GLOO":
        wait_for_all_ranks("barrier")


class SharedCounters:
    """A connection to counters in rank 0's process that all ranks share; not for two threads at once."""

    def __init__(self) -> None:
        host, port = find_store_address()
        # A world of size 1: the connection waits for no other rank.
        self._store = core.TCPStore(host, port, False, 1)
        _disable_nagle(port)

    def add(self, key: str, amount: int) -> int:
        """Add to a counter and return its new value.

        Raises:
            LostRank: rank 0 has ended.
        """
        try:
            # The store treats a read that a signal interrupts as a closed connection.
            with block_signals():
                return self._store.add(key, amount)
        except ValueError as error:
            raise LostRank("rank 0, to which all ranks are connected, has ended; look into its log") from error


@functools.cache
def _get_counters() -> SharedCounters:
    return SharedCounters()


@contextlib.contextmanager
def block_signals() -> Iterator[None]:
    """Hold signals back until the block ends; threads that are started in it never get any."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _disable_nagle(port: int) -> None:
    """Switch off Nagle's algorithm for this process's connections to a port.

    Paddle's store sends a request in several pieces; with Nagle's algorithm a call takes 44 ms instead of 0.05 ms.
    """
    for _, connection in _list_sockets():
        with contextlib.suppress(OSError):  # some are not connected
            if _get_port(connection.getpeername()) == port:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _get_port(address: tuple | str | bytes) -> int | None:
    """Return the port of a socket's address; None for a Unix socket, whose address is a string."""
    return address[1] if isinstance(address, tuple) else None


def _list_sockets() -> Iterator[tuple[int, socket.socket]]:
    """Yield this process's sockets with their file descriptors; nothing on systems other than Linux."""
    if sys.platform != "linux":
        return
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  -- complete before another file is opened; iterdir may not be
        with contextlib.suppress(OSError):  # closed meanwhile
            if str(Path(f"/proc/self/fd/{name}").readlink()).startswith("socket:"):
                with socket.fromfd(int(name), socket.AF_INET, socket.SOCK_STREAM) as duplicate:
                    yield int(name), duplicate


def find_store_address() -> tuple[str, int]:
    """Return host and port of the store of all ranks: the launcher's choice, or the first rank's endpoint."""
    environ = os.environ
    if environ.get("MASTER_ADDR") and environ.get("MASTER_PORT"):
        return environ["MASTER_ADDR"], int(environ["MASTER_PORT"])
    address = environ.get("PADDLE_MASTER") or environ["PADDLE_TRAINER_ENDPOINTS"].split(",")[0]
    host, _, port = address.rpartition(":")
    return host, int(port)


@contextlib.contextmanager
def share_gloo_group() -> Iterator[None]:
    """Within the block, let `dist.new_group` return the default gloo group for every request for a group of all ranks.

    fleet requests more such groups, and with three or more ranks gloo often fails to connect the second one
    ("Connection refused").
    """
    new_group = dist.new_group

    def get_group(ranks: list[int] | None = None, *arguments: Any, **options: Any) -> Any:
        if dist.get_backend() == "GLOO" and (ranks is None or len(ranks) == dist.get_world_size()):
            return dist.get_group(0)
        return new_group(ranks, *arguments, **options)

    dist.new_group = get_group
    try:
        yield
    finally:
        dist.new_group = new_group


@contextlib.contextmanager
def watch_ranks() -> Iterator[None]:
    """End this process within a minute, with the number of the lost rank, if a rank is lost during the block.

    This works with any launcher. A collective: every rank enters the block, and leaves it after its last collective.

    Raises:
        LostRank: a collective of gloo failed.
    """
    if dist.get_world_size() == 1:
        yield
        return
    watcher = _RankWatcher(dist.get_rank(), dist.get_world_size())
    watcher.start()
    try:
        with translate_gloo_errors(watcher.end_with_lost_rank, BEAT_SECONDS):
            yield
            watcher.finish()
    finally:
        watcher.stop()


class _RankWatcher(threading.Thread):
    """Thread that counts up this rank's heartbeat counter in the store; rank 0 also checks those of all other ranks.

    When rank 0 ends, the other ranks notice it by the lost connection. A second thread notices when the store hangs,
    which blocks this thread as well.
    """

    def __init__(self, rank: int, ranks: int):
        super().__init__(daemon=True)
        self._rank, self._ranks = rank, ranks
        self._stop_event = threading.Event()
        self._counters = SharedCounters()
        self._num_beats = 0  # that the store has answered
        # Rank -> its heartbeat counter, and how many beats it has missed.
        self._heartbeats = dict.fromkeys(range(1, ranks), (0, 0))

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)  # signals are handled by the main thread
        threading.Thread(target=self._watch_store, daemon=True).start()  # inherits the mask
        while not self._stop_event.wait(BEAT_SECONDS):
            try:
                self._counters.add(f"heartbeat/{self._rank}", 1)
                lost_rank = self._find_lost_rank() if self._rank == 0 else self._counters.add("lost", 0)
            except LostRank as error:
                self._end_process(str(error))
            else:
                self._num_beats += 1
                if lost_rank:
                    silence = f"has given no sign of life for {BEAT_SECONDS * MAX_MISSED_BEATS:.0f} seconds"
                    # Rank 0 ends later, because the others read the lost rank's number from its process.
                    delay = 2 * BEAT_SECONDS if self._rank == 0 else 0.0
                    self._end_process(f"rank {lost_rank} {silence}; look into its log", delay)

    def _watch_store(self) -> None:
        """End this process if the store answers none of its beats for a while."""
        last_beat = num_unanswered = 0
        while not self._stop_event.wait(BEAT_SECONDS):
            num_unanswered = num_unanswered + 1 if self._num_beats == last_beat else 0
            last_beat = self._num_beats
            if num_unanswered == MAX_UNANSWERED_BEATS:
                silence = f"has given no sign of life for {BEAT_SECONDS * MAX_UNANSWERED_BEATS:.0f} seconds"
                self._end_process(
                    f"a rank {silence}, and blocks the store of rank 0 for all; look into the logs for the frozen one"
                )

    def end_with_lost_rank(self) -> None:
        """Wait until it is known which rank is lost, and end this process.

        This is called when gloo has failed and the cause is not known. While this waits, a launcher can find the rank
        that has died, and name it.
        """
        print_error(f"rank {self._rank} has lost another rank; looking for which")
        self._stop_event.wait(BEAT_SECONDS * (MAX_MISSED_BEATS + 3))
        self._end_process("another rank has died, or did not answer for 30 seconds; look into the logs")

    def finish(self) -> None:
        """Tell the other ranks that this one may end now. Rank 0, whose process has the store, first waits for them."""
        self.stop()
        self.join()
        self._counters.add(f"heartbeat/{self._rank}", _FINISHED)
        deadline = time.monotonic() + BEAT_SECONDS * MAX_MISSED_BEATS
        while self._rank == 0 and time.monotonic() < deadline:
            if all(self._counters.add(f"heartbeat/{rank}", 0) >= _FINISHED for rank in self._heartbeats):
                return
            time.sleep(0.05)

    def stop(self) -> None:
        self._stop_event.set()

    def _find_lost_rank(self) -> int:
        """Return a rank that has missed too many beats, and publish it to the others; 0 if there is none."""
        for rank, (previous_count, num_missed) in self._heartbeats.items():
            count = self._counters.add(f"heartbeat/{rank}", 0)
            # Beats are counted, not seconds: when the whole run is suspended for a while, no rank misses more than one.
            is_missed = count == previous_count and count < _FINISHED
            num_missed = num_missed + 1 if is_missed else 0
            self._heartbeats[rank] = count, num_missed
            if num_missed == MAX_MISSED_BEATS:
                self._counters.add("lost", rank)
                return rank
        return 0

    def _end_process(self, reason: str, delay: float = 0.0) -> None:
        if self._stop_event.is_set():
            return
        print_error(f"{reason}, then continue with --resume; rank {self._rank} of {self._ranks} ends")
        sys.stdout.flush()
        self._stop_event.wait(delay)
        os._exit(1)  # the main thread may wait in a collective that never ends


@contextlib.contextmanager
def translate_gloo_errors(end_process: Callable[[], None], delay: float) -> Iterator[None]:
    """Turn gloo's connection errors in the block into LostRank with the number of the rank.

    Args:
        end_process: ends this process; called where gloo fails in C++.
        delay: seconds before the error is raised, so that a launcher finds the rank that died first, and names it.
    """
    try:
        with _run_before_abort(end_process):
            yield
    except RuntimeError as error:
        # gloo reports a connection that the other side has closed as a time-out, too.
        if "gloo/transport" not in str(error):
            raise
        time.sleep(delay)
        lost_rank = _find_rank_in_error(str(error))
        raise LostRank(
            f"{lost_rank} has died, or did not answer rank {dist.get_rank()} for 30 seconds; look into its log"
        ) from error


@contextlib.contextmanager
def _run_before_abort(action: Callable[[], None]) -> Iterator[None]:
    """Run an action before C++ ends the process because of an exception that nothing catches within the block.

    This happens when gloo fails while data parallel averages gradients. Without the GNU C++ library, do nothing.
    """
    try:
        # std::set_terminate(void (*)()), by its mangled name
        set_terminate = ctypes.CDLL("libstdc++.so.6")["_ZSt13set_terminatePFvvE"]
    except (OSError, AttributeError):
        yield
        return
    handler = ctypes.CFUNCTYPE(None)(action)
    set_terminate.restype = ctypes.c_void_p
    previous_handler = set_terminate(handler)
    try:
        yield
    finally:
        set_terminate(ctypes.c_void_p(previous_handler))


def _find_rank_in_error(message: str) -> str:
    """Return the rank that a message of gloo is about; gloo does not always say which."""
    match = re.search(r"pair_rank = (\d+)", message)
    if match:
        return f"rank {match[1]}"
    return f"rank {1 - dist.get_rank()}" if dist.get_world_size() == 2 else "another rank"
