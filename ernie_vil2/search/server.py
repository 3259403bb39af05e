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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from ernie_vil2.device import runtime
from ernie_vil2.search import metrics
from ernie_vil2.search.batching import KEPT_ANSWERS, MOST_WAITING, Batcher
from ernie_vil2.search.index import Index
from ernie_vil2.search.metrics import Metrics
from ernie_vil2.search.middleware import Access
from ernie_vil2.search.service import about, build_app

MOST_CONNECTIONS = 2000  # at once; one more is closed as it is opened
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
PAUSE_SECONDS = 1.0  # before a process that has died is started again


@dataclass(frozen=True)
class Settings:
    """How an index is served.

    Attributes:
        threshold, roots, shown, writable: as for `build_app`.
        most_waiting, kept: as for `Batcher`, of each process.
    """

    host: str = "127.0.0.1"
    port: int = 8000  # 0: one that is free
    workers: int = 1  # processes
    access: Access = field(default_factory=Access)  # who may ask
    threshold: float | None = None
    roots: Sequence[str | Path] = ()
    most_waiting: int = MOST_WAITING
    kept: int = KEPT_ANSWERS
    shown: Sequence[str] = ()
    writable: bool = False


def serve(opening: Callable[[], Index], settings: Settings) -> int:
    """Serves an index until the process is interrupted or terminated, and some seconds longer.

    `opening` opens the index, once in each process; with several it must be one that can be pickled. OSError if the
    address is in use or not this machine's. The exit code is 0, or that of a process that could not begin.
    """
    listeners = listeners_at(settings.host, settings.port, settings.workers)
    if settings.workers == 1:
        _work(opening, settings, listeners[0])
        return 0
    share = str(max(1, runtime.threads() // settings.workers))
    os.environ |= {"OMP_NUM_THREADS": share, "MKL_NUM_THREADS": share}  # of the processes that are started from here
    return _supervise(opening, settings, listeners)


def _work(
    opening: Callable[[], Index],
    settings: Settings,
    listener: socket.socket,
    shared: Any = None,
    number: int = 0,
    parent: Connection | None = None,
) -> None:
    """One process; it ends when it is asked to, or when its parent has ended."""
    runtime.ignore_ccache_hint()  # a started process has none of the parent's filters
    counts = Metrics(shared, number)
    with opening() as index:
        batcher = Batcher(index, settings.most_waiting, settings.kept, counts)
        app = build_app(
            index, settings.threshold, settings.access, settings.roots, batcher, settings.shown, settings.writable
        )
        server = bounded(app)
        if parent is not None:
            threading.Thread(target=_end_with, args=[parent, server], daemon=True).start()
        if number == 0:
            address = authority(settings.host, listener.getsockname()[1])
            print(
                f"images in full: {', '.join(map(str, settings.roots))}"
                if settings.roots
                else "thumbnails alone; --root names folders whose images are served in full"
            )
            shown = f"http://{address}{settings.access.root_path}"
            print(f"{about(index)}\n{shown} (Ctrl-C ends it)", flush=True)
        counts.set(metrics.READY, 1)
        run(server, listener)


def _supervise(opening: Callable[[], Index], settings: Settings, listeners: Sequence[socket.socket]) -> int:
    """Starts a process for each listener, starts again those that die, and ends all of them; returns the exit code."""
    context = multiprocessing.get_context("spawn")  # a fork would take threads and locks of libraries along
    shared = context.RawArray("d", len(listeners) * metrics.LENGTH)
    ours, theirs = context.Pipe()  # who has theirs sees when we end, and ours with us
    signals: list[int] = []

    def started(number: int) -> multiprocessing.process.BaseProcess:
        shared[number * metrics.LENGTH + metrics.READY] = 0
        arguments = (opening, settings, listeners[number], shared, number, theirs)
        worker = context.Process(target=_work, args=arguments, name=f"search worker {number}")
        worker.start()
        return worker

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda number, _: signals.append(number))
    workers = [started(number) for number in range(len(listeners))]
    code = 0
    while not signals and not code:
        wait([worker.sentinel for worker in workers], timeout=0.5)
        for number, worker in enumerate(workers):
            if worker.is_alive() or signals:
                continue
            if not shared[number * metrics.LENGTH + metrics.READY]:
                code = worker.exitcode or 1  # it could not begin, and has printed why
                break
            print(f"worker {number} ended with {worker.exitcode} and is started again", file=sys.stderr, flush=True)
            time.sleep(PAUSE_SECONDS)
            workers[number] = started(number)
    for worker in workers:
        worker.terminate()
    due = time.monotonic() + END_SECONDS
    for worker in workers:
        worker.join(max(0.0, due - time.monotonic()))
        worker.kill()
        worker.join()
    ours.close()
    return code


class BoundedProtocol(H11Protocol):
    """HTTP as uvicorn speaks it through h11, which bounds the bytes of headers, with bounds on time."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._application, self.app = self.app, self._answer
        self._answering: asyncio.Task | None = None
        self._headers_due: asyncio.TimerHandle | None = None
        self._reading_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._headers_due = self._abort_after(HEADER_SECONDS)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is asked is given up when its client goes away, so that it takes no room of those that wait."""
        self._answering = asyncio.current_task()
        try:
            await self._application(scope, receive, send)
        except asyncio.CancelledError:
            if not self.transport.is_closing():
                raise
        finally:
            self._answering = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._headers_due = _cancelled(self._headers_due)
        elif self._headers_due is None:
            self._headers_due = self._abort_after(HEADER_SECONDS)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading_due = self._abort_after(READ_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
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
        if self._answering is not None:
            self._answering.cancel()
        self._headers_due = _cancelled(self._headers_due)
        self._reading_due = _cancelled(self._reading_due)

    def _abort_after(self, seconds: float) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, self.transport.abort)


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
        listener = socket.create_server(address, family=family, backlog=MOST_CONNECTIONS, reuse_port=shared)
        # Connections inherit it. Headers and content are two writes, and the second one would wait for 40 ms otherwise.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        advice = "--host" if isinstance(error, socket.gaierror) else "--port or --host"
        raise OSError(f"{authority(host, port)}: {error.strerror}; choose another {advice}") from error


def listeners_at(host: str, port: int, count: int) -> list[socket.socket]:
    """As `listening`, a socket for each of several processes; together they must not share it with another program."""
    with listening(host, port) as alone:
        if count == 1:
            return [alone.dup()]
        port = alone.getsockname()[1]
    return [listening(host, port, shared=True) for _ in range(count)]


def bounded(app: Callable) -> Server:
    """A server with these bounds."""
    return Server(
        uvicorn.Config(
            app,
            http=BoundedProtocol,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=KEPT_OPEN,
            timeout_graceful_shutdown=DRAIN_SECONDS + 2,
        )
    )


def run(server: Server, listener: socket.socket) -> None:
    """Serves until the process is interrupted or terminated, and at most some seconds longer."""
    _allow_files(2 * MOST_CONNECTIONS)
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
