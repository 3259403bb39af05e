"""A server of an index: one process, or several that share a port and, by memory map, the index.

uvicorn has a limit for the size of headers and one for connections between two requests. What it waits for without end
is bounded here: headers that are never finished, answers that are never read, and clients that are in the middle of
something when the server shall end.
"""

import asyncio
import contextlib
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from ernie_vil2.apps.search import metrics
from ernie_vil2.apps.search.batching import CACHE_SIZE, MAX_QUEUE, Batcher
from ernie_vil2.apps.search.connections import GRACE_SECONDS, MOST_CONNECTIONS, NUM_RESERVED, Connections, Network
from ernie_vil2.apps.search.index import Index
from ernie_vil2.apps.search.metrics import Metrics
from ernie_vil2.apps.search.middleware import OPEN, RETRY_SECONDS, Access
from ernie_vil2.apps.search.service import about, build_app
from ernie_vil2.device import runtime

BACKLOG = 1000  # connections that the system holds ready, and that are accepted at once
NUM_OWN_FILES = 500  # besides those of connections
HEADER_SECONDS = 10
"""Until the headers of a request are complete, from when a connection is opened or the first byte of a later request
comes; also for what still comes after the answer, as of an image that was too large."""
READ_SECONDS = 120  # until a client has read what was written to it
KEPT_OPEN = 75
"""Seconds that a connection without a question stays open; one that is closed just as it is used is an error there."""
SWITCH_SECONDS = 0.0005
"""After which a thread lets another one run: encoding waits for its turn many times, behind all that answers."""
DRAIN_SECONDS = 3  # from the signal to end: requests that are not answered by then are cut off
END_SECONDS = 8  # from the signal to end until processes that still run are killed
PAUSE_SECONDS = 1.0  # before a process that has died is started again, doubled each time that it was not ready
MAX_PAUSE_SECONDS = 60.0


@dataclass(frozen=True)
class Settings:
    """How an index is served.

    Attributes:
        threshold, roots, shown, writable: as for `build_app`.
        max_queue, cache_size: as for `Batcher`, of each process.
    """

    host: str = "127.0.0.1"
    port: int = 8000  # 0: one that is free
    workers: int = 1  # processes
    access: Access = field(default_factory=Access)  # who may ask
    trusted_proxies: Sequence[Network] = ()  # whose slow connections are not counted, and whose X-Forwarded-For counts
    threshold: float | None = None
    roots: Sequence[str | Path] = ()
    max_queue: int = MAX_QUEUE
    cache_size: int = CACHE_SIZE
    shown: Sequence[str] = ()
    writable: bool = False


def serve(opening: Callable[[], Index], settings: Settings) -> int:
    """Serves an index until the process is interrupted or terminated, and some seconds longer.

    `opening` opens the index, once in each process; with several it must be one that can be pickled. OSError if the
    address is in use or not this machine's. The exit code is 0, or that of a process if none was ever ready.
    """
    if settings.workers == 1:
        _work(opening, settings, listening(settings.host, settings.port))
        return 0
    share = str(max(1, runtime.threads() // settings.workers))
    os.environ |= {"OMP_NUM_THREADS": share, "MKL_NUM_THREADS": share}  # of the processes that are started from here
    with reserved(settings.host, settings.port) as reservation:
        return _supervise(opening, replace(settings, port=reservation.getsockname()[1]))


def _work(
    opening: Callable[[], Index],
    settings: Settings,
    listener: socket.socket | None = None,
    shared: Any = None,
    number: int = 0,
    parent: Connection | None = None,
) -> None:
    """One process; it ends when it is asked to, or when its parent has ended.

    One of several opens its `listener` when it is ready: the system deals connections out to all that listen, and those
    dealt to a process that has died, or has not loaded its model yet, would wait for it.
    """
    runtime.ignore_ccache_hint()  # a started process has none of the parent's filters
    counts = Metrics(shared, number)
    with opening() as index:
        batcher = Batcher(index, settings.max_queue, settings.cache_size, counts)
        app = build_app(
            index, settings.threshold, settings.access, settings.roots, batcher, settings.shown, settings.writable
        )
        server = bounded(app, settings.trusted_proxies, settings.access.root_path)
        if parent is not None:
            threading.Thread(target=_end_with, args=[parent, server], daemon=True).start()
        if listener is None:
            listener = listening(settings.host, settings.port, shared=True)
        if number == 0:
            address = authority(settings.host, listener.getsockname()[1])
            print(
                f"images in full: {', '.join(map(str, settings.roots))}"
                if settings.roots
                else "thumbnails alone; --root names folders whose images are served in full"
            )
            shown = f"http://{address}{settings.access.root_path}"
            print(f"{about(index)}\n{shown} (Ctrl-C ends it)", flush=True)
        counts.set(metrics.IS_READY, 1)
        run(server, listener)


def _supervise(opening: Callable[[], Index], settings: Settings) -> int:
    """Start the processes, start again those that die, and end all of them; return the exit code."""
    context = multiprocessing.get_context("spawn")  # a fork would take threads and locks of libraries along
    shared = context.RawArray("d", settings.workers * metrics.SLICE_LENGTH)
    ours, theirs = context.Pipe()  # who has theirs sees when we end, and ours with us
    signals: list[int] = []

    def start(number: int) -> multiprocessing.process.BaseProcess:
        shared[number * metrics.SLICE_LENGTH + metrics.IS_READY] = 0
        arguments = (opening, settings, None, shared, number, theirs)
        worker = context.Process(target=_work, args=arguments, name=f"search worker {number}")
        worker.start()
        return worker

    def is_ready(number: int) -> bool:
        return bool(shared[number * metrics.SLICE_LENGTH + metrics.IS_READY])

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda number, _: signals.append(number))
    supervisor = Supervisor(settings.workers, start, is_ready)
    while not signals and supervisor.exit_code is None:
        wait([worker.sentinel for worker in supervisor.alive()], timeout=0.5)
        if not signals:
            supervisor.check()

    workers = supervisor.alive()
    for worker in workers:
        worker.terminate()
    due = time.monotonic() + END_SECONDS
    for worker in workers:
        worker.join(max(0.0, due - time.monotonic()))
        worker.kill()
        worker.join()
    ours.close()
    return supervisor.exit_code or 0


class Supervisor:
    """Starts workers, and again those that die, after a pause that grows while they are not ready before they do.

    Args:
        start: starts the worker of a number, as a process.
        is_ready: says whether the worker of a number has been ready since it was started.
        clock: seconds that only grow.

    Attributes:
        exit_code: that of a worker if each of them has died and none was ever ready; else None.
    """

    def __init__(
        self,
        num_workers: int,
        start: Callable[[int], Any],
        is_ready: Callable[[int], bool],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._start, self._is_ready, self._clock = start, is_ready, clock
        self._workers: list[Any] = [start(number) for number in range(num_workers)]
        self._pauses = [PAUSE_SECONDS] * num_workers
        self._due: dict[int, float] = {}  # when the worker of a number is started again
        self._failures: dict[int, str] = {}
        self._was_ready = False
        self.exit_code: int | None = None

    def alive(self) -> list[Any]:
        """Return the workers that were started and have not been seen to die."""
        return [worker for number, worker in enumerate(self._workers) if number not in self._due]

    def check(self) -> None:
        """Look after all workers once."""
        for number, worker in enumerate(self._workers):
            self._was_ready = self._was_ready or self._is_ready(number)
            if number in self._due:
                if self._clock() >= self._due[number]:
                    del self._due[number]
                    self._workers[number] = self._start(number)
            elif not worker.is_alive():
                self._handle_death(number, worker.exitcode)
                if self.exit_code is not None:
                    return

    def _handle_death(self, number: int, code: int) -> None:
        how = describe_exit(code)
        if self._is_ready(number):
            self._pauses[number] = PAUSE_SECONDS
        else:
            how += " before it was ready"
            self._failures[number] = how
        if not self._was_ready and len(self._failures) == len(self._workers):
            self.exit_code = max(1, code)  # that of a signal is negative
            reasons = "; ".join(f"worker {failed} {reason}" for failed, reason in sorted(self._failures.items()))
            print(f"error: no worker was ever ready: {reasons}", file=sys.stderr, flush=True)
            return
        pause = self._pauses[number]
        print(f"worker {number} {how} and is started again in {pause:g} s", file=sys.stderr, flush=True)
        if not self._is_ready(number):
            self._pauses[number] = min(2 * pause, MAX_PAUSE_SECONDS)
        self._due[number] = self._clock() + pause


def describe_exit(code: int) -> str:
    """Return how a process ended, by its exit code as multiprocessing gives it."""
    if code >= 0:
        return f"ended with {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    advice = ", as the system does when memory runs out," if code == -signal.SIGKILL else ""
    return f"was ended by {name}{advice}"


class BoundedProtocol(H11Protocol):
    """HTTP as uvicorn speaks it through h11, which bounds the bytes of headers, with bounds on time.

    Args:
        open_connections: all of the server.
        open_paths: that are answered where there are too many connections.
    """

    def __init__(self, *args: Any, open_connections: Connections, open_paths: Collection[str] = OPEN, **options: Any):
        super().__init__(*args, **options)
        self._open_connections, self._open_paths, self.address = open_connections, open_paths, ""
        self._may_ask_anything = True
        self._grace: asyncio.TimerHandle | None = None
        self._application, self.app = self.app, self._answer
        self._answering: asyncio.Task | None = None
        self._headers_due: asyncio.TimerHandle | None = None
        self._reading_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.address = (transport.get_extra_info("peername") or ("",))[0]
        self._may_ask_anything = self._open_connections.open(self)
        if not transport.is_closing():
            self._begin_headers()

    def abort(self) -> None:
        """Close the connection at once, whatever has not been sent."""
        self.transport.abort()

    def _begin_headers(self) -> None:
        self._headers_due = self._abort_after(HEADER_SECONDS)
        self._grace = self.loop.call_later(GRACE_SECONDS, self._open_connections.set_slow, self)

    def _end_headers(self) -> None:
        self._headers_due = _cancelled(self._headers_due)
        self._grace = _cancelled(self._grace)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is asked is given up when its client goes away, so that it takes no room of those that wait."""
        self._answering = asyncio.current_task()
        try:
            is_full = not self._may_ask_anything and self._open_connections.are_too_many()
            if is_full and scope["path"] not in self._open_paths:
                await _refuse(send)
            else:
                await self._application(scope, receive, send)
        except asyncio.CancelledError:
            if not self.transport.is_closing():
                raise
        finally:
            self._answering = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._end_headers()
            self._open_connections.set_busy(self)
        elif self._headers_due is None:
            self._open_connections.set_half_open(self)
            self._begin_headers()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # else the next request had come already
            self._open_connections.set_idle(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._open_connections.set_unread(self)
        self._reading_due = self._abort_after(READ_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.cycle is not None and not self.cycle.response_complete:
            self._open_connections.set_busy(self)
        self._reading_due = _cancelled(self._reading_due)

    def send_400_response(self, msg: str) -> None:
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # an answer has begun already, or none may have content, as that of HEAD
            self.transport.close()
        if self.cycle is not None:
            self.cycle.disconnected = True  # the application may be about to answer

    def shutdown(self) -> None:
        super().shutdown()
        self._abort_after(DRAIN_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._open_connections.close(self)
        if self._answering is not None:
            self._answering.cancel()
        self._end_headers()
        self._reading_due = _cancelled(self._reading_due)

    def _abort_after(self, seconds: float) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, self.transport.abort)


async def _refuse(send: Send) -> None:
    headers = [
        (b"retry-after", b"%d" % RETRY_SECONDS),
        (b"connection", b"close"),
        (b"content-type", b"application/json"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"detail":"too many connections; try again"}'})


class Server(uvicorn.Server):
    """Ends when the process is interrupted or terminated, as one that has done its work."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {signum: signal.signal(signum, self.handle_exit) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


def _end_with(parent: Connection, server: Server) -> None:
    try:
        parent.recv()
    except EOFError:
        server.should_exit = True


def listening(host: str, port: int, shared: bool = False) -> socket.socket:
    """A socket that listens at an address: a name, or a number of IPv4 or IPv6; of a name with both, that of IPv4.

    Others of this program may listen at a shared one, among which the system deals connections out.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found)
        listener = socket.create_server(address, family=family, backlog=BACKLOG, reuse_port=shared)
        # Connections inherit it. Headers and content are two writes, and the second one would wait for 40 ms otherwise.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        advice = "--host" if isinstance(error, socket.gaierror) else "--port or --host"
        raise OSError(f"{authority(host, port)}: {error.strerror}; choose another {advice}") from error


@contextlib.contextmanager
def reserved(host: str, port: int) -> Iterator[socket.socket]:
    """Keep an address for processes of this program, which listen at it as shared; it is no other program's."""
    with listening(host, port) as alone:
        family, address = alone.family, alone.getsockname()
    with socket.socket(family) as reservation:
        # Without listening: the system deals no connections out to it.
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            reservation.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        reservation.bind(address)
        yield reservation


def bounded(app: Callable, trusted_proxies: Sequence[Network] = (), root_path: str = "") -> Server:
    """Return a server with these bounds."""
    open_paths = {prefix + path for prefix in ("", root_path) for path in OPEN}
    protocol: Any = partial(BoundedProtocol, open_connections=Connections(trusted_proxies), open_paths=open_paths)
    return Server(
        uvicorn.Config(
            app,
            http=protocol,
            backlog=BACKLOG,
            forwarded_allow_ips=["127.0.0.1", *map(str, trusted_proxies)],
            log_level="warning",
            access_log=False,
            timeout_keep_alive=KEPT_OPEN,
            timeout_graceful_shutdown=DRAIN_SECONDS + 2,
        )
    )


def run(server: Server, listener: socket.socket) -> None:
    """Serves until the process is interrupted or terminated, and at most some seconds longer."""
    _allow_files(MOST_CONNECTIONS + NUM_RESERVED + BACKLOG + NUM_OWN_FILES)
    sys.setswitchinterval(SWITCH_SECONDS)
    server.run(sockets=[listener])


def authority(host: str, port: int) -> str:
    """Host and port as a URL writes them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _allow_files(count: int) -> None:
    """Lets the process open as many files, where the system allows it: a connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _cancelled(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    if timer is not None:
        timer.cancel()
    return None
