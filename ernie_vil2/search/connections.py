"""The server's connections: how many there may be, how long each may take, and how they end.

uvicorn has a limit for the size of headers and one for connections between two requests. What it waits for without end
is bounded here: headers that are never finished, answers that are never read, and clients that are in the middle of
something when the server shall end.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 2000
"""At once; one more is closed as it is opened."""
HEADER_SECONDS = 10
"""Until the headers of a request are complete, from when a connection is opened or the first byte of a later request
comes; also for what still comes after the answer, as of an image that was too large."""
READ_SECONDS = 120
"""Until a client has read what was written to it."""
KEPT_OPEN = 75
"""Seconds that a connection without a question stays open; one that is closed just as it is used is an error there."""
SWITCH_SECONDS = 0.0005
"""After which a thread lets another one run: encoding waits for its turn many times, behind all that answers."""
DRAIN_SECONDS = 3
"""From the signal to end: requests that are not answered by then are cut off."""


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


def listening(host: str, port: int, shared: bool = False) -> socket.socket:
    """A socket that listens at an address: a name, or a number of IPv4 or IPv6; of a name with both, that of IPv4.

    Args:
        shared: whether others of this program may listen there too; the system deals connections out among them.

    Raises:
        OSError: the address is in use, or not this machine's.
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


def listeners(host: str, port: int, count: int) -> list[socket.socket]:
    """As `listening`, a socket for each of several processes; together they must not share it with another program."""
    with listening(host, port) as alone:
        if count == 1:
            return [alone.dup()]
        port = alone.getsockname()[1]
    return [listening(host, port, shared=True) for _ in range(count)]


def server(app: Callable) -> Server:
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
