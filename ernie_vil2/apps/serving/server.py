"""Serves an application with one process, or with several that share a port.

uvicorn limits the size of headers and the time between two requests of a connection. This module limits what uvicorn
would wait for forever: headers that are never finished, answers that are never read, and clients that are in the middle
of a request when the server is to end.
"""

import asyncio
import contextlib
import json
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import h11
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from ernie_vil2.apps.serving import metrics
from ernie_vil2.apps.serving.connections import GRACE_SECONDS, MAX_CONNECTIONS, NUM_RESERVED, Connections, Network
from ernie_vil2.apps.serving.errors import RETRY_SECONDS, make_error
from ernie_vil2.apps.serving.metrics import Metrics
from ernie_vil2.apps.serving.middleware import PROBE_PATHS, Access
from ernie_vil2.device import runtime
from ernie_vil2.io.terminal import print_error

BACKLOG = 1000  # connections that the system holds ready, and that are accepted at once
NUM_OTHER_FILES = 500  # open files besides connections: the index, the model, libraries
# From opening a connection, or from the first byte of a later request, until its headers are complete. Also for bytes
# that still arrive after the answer, such as those of an image that was too large.
HEADER_SECONDS = 10
READ_SECONDS = 120  # until a client has read what was written to it
# For so long an idle connection stays open. If it is closed just as a client sends a request, the client sees an error;
# most clients and proxies close it earlier themselves.
KEEP_ALIVE_SECONDS = 75
# After so long a thread lets another one run (5 ms by default). The encoder waits for its turn many times, behind all
# threads that answer.
SWITCH_SECONDS = 0.0005
DRAIN_SECONDS = 3  # after the signal to end, requests without an answer are cut off
END_SECONDS = 8  # after the signal to end, processes that still run are killed
PAUSE_SECONDS = 1.0  # before a dead process is started again; doubles each time that it dies before it is ready
MAX_PAUSE_SECONDS = 60.0
SUPERVISION_SECONDS = 0.5  # between two looks at the processes


@dataclass(frozen=True)
class Settings:
    """Settings of a server.

    Attributes:
        host: name or address to listen at.
        port: 0: a free one.
        workers: number of processes.
        access: who may send requests.
        trusted_proxies: proxies whose slow connections are not counted, and whose X-Forwarded-For is believed.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    access: Access = field(default_factory=Access)
    trusted_proxies: Sequence[Network] = ()


class Application(NamedTuple):
    """What a server serves: the application, and lines that describe it when it is ready."""

    app: ASGIApp
    summary: str


OpenApplication = Callable[[Metrics, Access], AbstractContextManager[Application]]
"""Opens the application in a process, given the counters of this process and who may ask."""


def serve(open_application: OpenApplication, settings: Settings) -> int:
    """Serve an application until the process is interrupted or terminated, and some seconds longer.

    Args:
        open_application: is called once in each process; with several processes it must be picklable.
        settings: of the server.

    Returns:
        The exit code: 0, or that of a worker if none was ever ready.

    Raises:
        OSError: the address is in use, or not one of this machine.
    """
    if settings.workers == 1:
        _run_worker(open_application, settings, listen(settings.host, settings.port))
        return 0
    # The processes that are started from here read these variables when they load the libraries.
    num_threads = str(max(1, runtime.num_threads() // settings.workers))
    os.environ |= {"OMP_NUM_THREADS": num_threads, "MKL_NUM_THREADS": num_threads}
    with reserve_address(settings.host, settings.port) as reservation:
        return _supervise(open_application, replace(settings, port=reservation.getsockname()[1]))


def _run_worker(
    open_application: OpenApplication,
    settings: Settings,
    listener: socket.socket | None = None,
    shared_metrics: Any = None,
    number: int = 0,
    supervisor: Connection | None = None,
) -> None:
    """Serve in this process until it is asked to end, or its supervisor has ended.

    One of several workers has no `listener` and opens one when it is ready. The system distributes connections over all
    sockets that listen, and those of a worker that has died, or has not loaded its model yet, would wait for it.
    """
    runtime.ignore_ccache_hint()  # a started process does not inherit the filters of warnings
    worker_metrics = Metrics(shared_metrics, number)
    with open_application(worker_metrics, settings.access) as application:
        server = make_server(application.app, settings.trusted_proxies, settings.access.root_path)
        if supervisor is not None:
            threading.Thread(target=_end_with_supervisor, args=[supervisor, server], daemon=True).start()
        if listener is None:
            listener = listen(settings.host, settings.port, is_shared=True)
        if number == 0:  # one of the workers speaks for all
            address = format_authority(settings.host, listener.getsockname()[1])
            url = f"http://{address}{settings.access.root_path}"
            print(f"{application.summary}\n{url} (Ctrl-C ends it)", flush=True)
        worker_metrics.set(metrics.IS_READY, 1)
        run_server(server, listener)


def _supervise(open_application: OpenApplication, settings: Settings) -> int:
    """Start the workers, restart those that die, and end all of them; return the exit code."""
    context = multiprocessing.get_context("spawn")  # a fork would copy threads and locks of libraries
    shared_metrics = context.RawArray("d", settings.workers * metrics.SLICE_LENGTH)
    # The workers hold `worker_end`. When this process ends, even if it is killed, reading from it fails there.
    supervisor_end, worker_end = context.Pipe()
    signals: list[int] = []

    def start_worker(number: int) -> multiprocessing.process.BaseProcess:
        shared_metrics[number * metrics.SLICE_LENGTH + metrics.IS_READY] = 0
        arguments = (open_application, settings, None, shared_metrics, number, worker_end)
        worker = context.Process(target=_run_worker, args=arguments, name=f"worker {number}")
        # Ctrl-C in a terminal reaches the workers, too, and those that still load would end with a traceback each. They
        # inherit that it is ignored until they serve, and are ended by this process.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            worker.start()
        finally:
            signal.signal(signal.SIGINT, handler)
        return worker

    def is_ready(number: int) -> bool:
        return bool(shared_metrics[number * metrics.SLICE_LENGTH + metrics.IS_READY])

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda number, _: signals.append(number))
    supervisor = Supervisor(settings.workers, start_worker, is_ready)
    while not signals and supervisor.exit_code is None:
        wait([worker.sentinel for worker in supervisor.live_workers()], timeout=SUPERVISION_SECONDS)
        if not signals:
            supervisor.check()

    # Workers answer the requests in progress for some seconds; those that do not end then are killed.
    workers = supervisor.live_workers()
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + END_SECONDS
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        worker.kill()
        worker.join()
    supervisor_end.close()
    return supervisor.exit_code or 0


class Supervisor:
    """Starts workers, and restarts those that die after a pause, which grows while they die before they are ready.

    Args:
        num_workers: number of workers.
        start: starts the worker with a number and returns its process.
        is_ready: returns whether the worker with a number has been ready since it was started.
        clock: returns seconds that only grow.

    Attributes:
        exit_code: that of a worker if all of them have died and none was ever ready; else None.
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
        self._restart_times: dict[int, float] = {}  # of dead workers, by number
        self._failures: dict[int, str] = {}  # how workers died before they were ready, by number
        self._was_any_ready = False
        self.exit_code: int | None = None

    def live_workers(self) -> list[Any]:
        """Return the workers that were started and have not been seen to die."""
        return [worker for number, worker in enumerate(self._workers) if number not in self._restart_times]

    def check(self) -> None:
        """Check all workers once, and restart those whose pause is over."""
        for number, worker in enumerate(self._workers):
            self._was_any_ready = self._was_any_ready or self._is_ready(number)
            if number in self._restart_times:
                if self._clock() >= self._restart_times[number]:
                    del self._restart_times[number]
                    self._workers[number] = self._start(number)
            elif not worker.is_alive():
                self._handle_death(number, worker.exitcode)
                if self.exit_code is not None:
                    return

    def _handle_death(self, number: int, exit_code: int) -> None:
        death = describe_exit(exit_code)
        if self._is_ready(number):
            self._pauses[number] = PAUSE_SECONDS
        else:
            death += " before it was ready"
            self._failures[number] = death

        # If no worker can start, starting them again will not help: a file or an option is wrong.
        if not self._was_any_ready and len(self._failures) == len(self._workers):
            self.exit_code = max(1, exit_code)  # that of a signal is negative
            reasons = "; ".join(f"worker {failed} {reason}" for failed, reason in sorted(self._failures.items()))
            print_error(f"no worker was ever ready: {reasons}")
            return

        pause = self._pauses[number]
        print(f"worker {number} {death} and is started again in {pause:g} s", file=sys.stderr, flush=True)
        if not self._is_ready(number):
            self._pauses[number] = min(2 * pause, MAX_PAUSE_SECONDS)
        self._restart_times[number] = self._clock() + pause


def describe_exit(exit_code: int) -> str:
    """Return how a process ended, by its exit code in multiprocessing: negative for a signal."""
    if exit_code >= 0:
        return f"ended with {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    hint = ", as the system does when memory runs out," if exit_code == -signal.SIGKILL else ""
    return f"was ended by {name}{hint}"


class BoundedProtocol(H11Protocol):
    """The HTTP protocol of uvicorn with h11, which limits the bytes of headers, with limits on time added.

    Args:
        args: of uvicorn's protocol.
        open_connections: all connections of the server, with their states; uvicorn's `connections` have none.
        probe_paths: paths that are answered even if there are too many connections.
        options: of uvicorn's protocol.
    """

    def __init__(
        self, *args: Any, open_connections: Connections, probe_paths: Collection[str] = PROBE_PATHS, **options: Any
    ):
        super().__init__(*args, **options)
        self._open_connections, self._probe_paths, self.address = open_connections, probe_paths, ""
        self._may_ask_anything = True
        self._application, self.app = self.app, self._answer
        self._answer_task: asyncio.Task | None = None
        self._slow_timer: asyncio.TimerHandle | None = None
        self._header_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.address = (transport.get_extra_info("peername") or ("",))[0]
        self._may_ask_anything = self._open_connections.open(self)
        if not transport.is_closing():
            self._begin_headers()

    def abort(self) -> None:
        """Close the connection at once, and drop what has not been sent."""
        self.transport.abort()

    def _begin_headers(self) -> None:
        self._header_timer = self._abort_after(HEADER_SECONDS)
        self._slow_timer = self.loop.call_later(GRACE_SECONDS, self._open_connections.set_slow, self)

    def _end_headers(self) -> None:
        _cancel_timer(self._header_timer)
        _cancel_timer(self._slow_timer)
        self._header_timer = None  # the next bytes begin a new request

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The task is cancelled when the client disconnects, so that its query takes no place in the queue any more.
        self._answer_task = asyncio.current_task()
        try:
            is_full = not self._may_ask_anything and self._open_connections.are_too_many()
            if is_full and scope["path"] not in self._probe_paths:
                await _refuse(send)
            else:
                await self._application(scope, receive, send)
        except asyncio.CancelledError:
            if not self.transport.is_closing():
                raise
        finally:
            self._answer_task = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # With complete headers there is a cycle of request and response; without one a request is half-open.
        if self.cycle is not None and not self.cycle.response_complete:
            self._end_headers()
            self._open_connections.set_busy(self)
        elif self._header_timer is None:
            self._open_connections.set_half_open(self)
            self._begin_headers()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # otherwise the next request had arrived already
            self._open_connections.set_idle(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._open_connections.set_unread(self)
        self._read_timer = self._abort_after(READ_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.cycle is not None and not self.cycle.response_complete:
            self._open_connections.set_busy(self)
        _cancel_timer(self._read_timer)

    def _should_upgrade(self) -> bool:
        # uvicorn's own method would log two lines for each request to upgrade, and advise to install a library.
        return False

    def send_400_response(self, msg: str) -> None:
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # the answer has begun already, or may have no content, such as that of HEAD
            self.transport.close()
        if self.cycle is not None:
            self.cycle.disconnected = True  # otherwise the application might still answer

    def shutdown(self) -> None:
        super().shutdown()
        self._abort_after(DRAIN_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._open_connections.close(self)
        if self._answer_task is not None:
            self._answer_task.cancel()
        self._end_headers()
        _cancel_timer(self._read_timer)

    def _abort_after(self, seconds: float) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, self.transport.abort)


async def _refuse(send: Send) -> None:
    headers = [
        (b"retry-after", b"%d" % RETRY_SECONDS),
        (b"connection", b"close"),
        (b"content-type", b"application/json"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    body = json.dumps(make_error(503, "too many connections; try again")).encode()
    await send({"type": "http.response.body", "body": body})


def _cancel_timer(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


class Server(uvicorn.Server):
    """A server of uvicorn that ends normally when the process is interrupted or terminated.

    uvicorn itself would raise the signal again at the end, so that the process would seem to have failed.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signums = (signal.SIGINT, signal.SIGTERM)
        previous_handlers = {signum: signal.signal(signum, self.handle_exit) for signum in signums}
        try:
            yield
        finally:
            for signum, handler in previous_handlers.items():
                signal.signal(signum, handler)


def _end_with_supervisor(supervisor: Connection, server: Server) -> None:
    try:
        supervisor.recv()  # nothing is ever sent
    except EOFError:
        server.should_exit = True


def listen(host: str, port: int, is_shared: bool = False) -> socket.socket:
    """Return a socket that listens at an address.

    Args:
        host: a name, or an address of IPv4 or IPv6; for a name with both kinds of addresses, IPv4 is taken.
        port: 0: a free one.
        is_shared: other processes of this program may listen there too; the system distributes connections over them.

    Raises:
        OSError: the address is in use, or not one of this machine.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(addresses)
        listener = socket.create_server(address, family=family, backlog=BACKLOG, reuse_port=is_shared)
        # Connections inherit it. Headers and content are two writes, and without it the second would wait for 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        options = "--host" if isinstance(error, socket.gaierror) else "--port or --host"
        raise OSError(f"{format_authority(host, port)}: {error.strerror}; choose another {options}") from error
    except UnicodeError:  # of a label that is empty or too long
        raise OSError(f"{format_authority(host, port)}: not a name of a host; choose another --host") from None


@contextlib.contextmanager
def reserve_address(host: str, port: int) -> Iterator[socket.socket]:
    """Reserve an address for the processes of this program, and yield the socket that does."""
    # Not shared at first, which fails if another program listens there.
    with listen(host, port) as listener:
        family, address = listener.family, listener.getsockname()
    with socket.socket(family) as reservation:
        # It is bound but does not listen, so that the system gives it no connections.
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            reservation.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        reservation.bind(address)
        yield reservation


def make_server(app: Callable, trusted_proxies: Sequence[Network] = (), root_path: str = "") -> Server:
    """Return a server of an application, with the limits of this module."""
    probe_paths = {*PROBE_PATHS, *(root_path + path for path in PROBE_PATHS)}
    protocol: Any = partial(BoundedProtocol, open_connections=Connections(trusted_proxies), probe_paths=probe_paths)
    return Server(
        uvicorn.Config(
            app,
            http=protocol,
            ws="none",  # otherwise, with a library for it, connections would be handed over and escape our limits
            backlog=BACKLOG,
            forwarded_allow_ips=["127.0.0.1", *map(str, trusted_proxies)],
            log_level="warning",
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS + 2,  # after the connections have been cut off
        )
    )


def run_server(server: Server, listener: socket.socket) -> None:
    """Serve until the process is interrupted or terminated, and at most some seconds longer."""
    _allow_open_files(MAX_CONNECTIONS + NUM_RESERVED + BACKLOG + NUM_OTHER_FILES)
    sys.setswitchinterval(SWITCH_SECONDS)
    server.run(sockets=[listener])


def format_authority(host: str, port: int) -> str:
    """Return host and port as a URL writes them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _allow_open_files(count: int) -> None:
    """Raise the limit of open files to `count`, or as far as the system allows; each connection is a file."""
    soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = count if hard_limit == resource.RLIM_INFINITY else min(count, hard_limit)
    if soft_limit != resource.RLIM_INFINITY and soft_limit < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard_limit))
