"""What every request passes: who may ask and under which name, headers for browsers, counts, and a line in the log.

Also how large, how many and how slow the images may be that clients send.

Messages are passed on as they come. A middleware of Starlette would copy bodies, and keep exceptions with the frames of
the requests in which they were raised.
"""

import asyncio
import base64
import binascii
import hmac
import mmap
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ernie_vil2.apps.search.metrics import Metrics
from ernie_vil2.io.files import read_text
from ernie_vil2.io.terminal import printable

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")  # this machine's own addresses, as options and as URLs write them
OPEN = ("/healthz", "/readyz")  # paths that need neither a name nor a token: those of who restarts the server
SHORTEST_TOKEN = 16
MOST_BYTES = 20 * 2**20  # of an uploaded image
MOST_UPLOADS = 128  # in progress at once, from the first byte to the answer
MOST_BYTES_AT_ONCE = 8 * MOST_BYTES  # of all uploads in progress
MOST_SECONDS = 60  # until an upload is complete: 20 MiB at 2.8 Mbit/s
RETRY_SECONDS = 5  # after which a client that was sent away may ask again
HEADERS = [
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


@dataclass(frozen=True)
class Access:
    """Who may send requests, and what is logged of them.

    Attributes:
        hosts: names by which the server may be addressed, so that a page of elsewhere cannot make a name lead here;
            `*` is any, `*.example.com` any below example.com.
        token: that every request must bear, `Authorization: Bearer TOKEN` or as the password of a browser; None: none.
        root_path: under which a proxy shows the server, as `/images`; whether it takes that off or not.
        log: whether there is a line for each request; `log_queries`: with what was asked.
    """

    hosts: Sequence[str] = ("*",)
    token: str | None = None
    root_path: str = ""
    log: bool = False
    log_queries: bool = False


class Middleware:
    """See the module; HEAD is answered as GET without its content."""

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics):
        self.app, self.access, self.metrics = app, access, metrics
        self._root = access.root_path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, size = time.perf_counter(), 499, 0
        path = scope["path"].removeprefix(self._root) if scope["path"].startswith(f"{self._root}/") else scope["path"]
        head = scope["method"] == "HEAD"

        async def sent(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *HEADERS]
            elif message["type"] == "http.response.body":
                if head:
                    message = {**message, "body": b""}
                size += len(message.get("body", b""))
            await send(message)

        inner = {**scope, "root_path": self._root, "path": self._root + path}
        if head:
            inner["method"] = "GET"
        try:
            await (self._refusal(path, scope["headers"]) or self.app)(inner, receive, sent)
        finally:
            seconds = time.perf_counter() - start
            self.metrics.count_request(path, status, seconds)
            if self.access.log:
                self._log(scope, status, size, seconds)

    def _refusal(self, path: str, headers: Sequence[tuple[bytes, bytes]]) -> JSONResponse | None:
        """The answer to a request that is not let in."""
        if path in OPEN:
            return None
        if sum(name == b"authorization" for name, _ in headers) > 1:
            # A proxy may look at one of them and this server at the other.
            return JSONResponse({"detail": "two Authorization headers: send one"}, 400)
        given = dict(headers)
        host = _name(given.get(b"host", b"").decode("latin-1"))
        if not any(one in ("*", host) or (one[:2] == "*." and host.endswith(one[1:])) for one in self.access.hosts):
            shown = printable(host, longest=100)
            return JSONResponse(
                {
                    "detail": f"this server is not called {shown}: start it with --allowed-host {shown}, "
                    "or let the proxy send a Host that it knows"
                },
                400,
            )
        token = self.access.token
        if token and not hmac.compare_digest(_credentials(given.get(b"authorization", b"")), token.encode()):
            challenge = {"WWW-Authenticate": 'Basic realm="search", charset="UTF-8"'}
            return JSONResponse({"detail": "a token is needed: Authorization: Bearer TOKEN"}, 401, challenge)
        return None

    def _log(self, scope: Scope, status: int, size: int, seconds: float) -> None:
        client = (scope.get("client") or ("-",))[0]
        query = scope["query_string"].decode("latin-1") if self.access.log_queries else ""
        asked = printable(f"{scope['path']}{'?' * bool(query)}{query}", longest=2000)
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        sys.stdout.write(f'{now} {client} "{scope["method"]} {asked}" {status} {size} {1000 * seconds:.1f} ms\n')
        sys.stdout.flush()


def read_token(path: str | Path) -> str:
    """The token in a file; OSError if that cannot be read, ValueError if none in it is long enough to be a secret."""
    token = read_text(path).strip()
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise ValueError(
            f"{path} holds no token: write {SHORTEST_TOKEN} or more printable ASCII characters into it, "
            "for example from: openssl rand -hex 32"
        )
    return token


def _name(host: str) -> str:
    """A Host header without its port."""
    name, _, port = host.rpartition(":")
    return (name if name and port.isdecimal() else host).lower()


def _credentials(header: bytes) -> bytes:
    """The token of `Bearer TOKEN`, or the password of `Basic ...`; empty where there is none."""
    scheme, _, value = header.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    try:
        return base64.b64decode(value, validate=True).partition(b":")[2] if scheme.lower() == b"basic" else b""
    except binascii.Error:
        return b""


class Uploads:
    """The uploads in progress of one server; for one event loop.

    What arrives is kept in a mapping of its own, which goes back to the system when the question is answered or the
    client has gone. A buffer of Python would wait for the frames that refer to it: an exception that keeps them in a
    cycle keeps 20 MiB until the next full garbage collection, which a process with Paddle in it hardly ever sees.
    """

    def __init__(self) -> None:
        self.count, self.bytes = 0, 0

    @asynccontextmanager
    async def received(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request; its bytes count as in progress until the block ends.

        Raises:
            HTTPException: 413 for a body that is too large, 408 for one that is too slow, 503 for one too many.
            ClientDisconnect: the client has gone.
        """
        if self.count >= MOST_UPLOADS:
            raise _busy()
        self.count += 1
        content = mmap.mmap(-1, MOST_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            try:
                async with asyncio.timeout(MOST_SECONDS):
                    await self._read(request, content)
            except TimeoutError:
                close = {"Connection": "close"}
                raise HTTPException(408, f"an upload may take {MOST_SECONDS} seconds", close) from None
            yield content[: content.tell()]
        finally:
            self.count -= 1
            self.bytes -= content.tell()
            content.close()

    async def _read(self, request: Request, content: mmap.mmap) -> None:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > len(content):
            raise _too_large()
        async for part in request.stream():
            if content.tell() + len(part) > len(content):
                raise _too_large()
            if self.bytes + len(part) > MOST_BYTES_AT_ONCE:
                raise _busy()
            self.bytes += content.write(part)


def _too_large() -> HTTPException:
    return HTTPException(413, f"an image may have {MOST_BYTES // 2**20} MiB")


def _busy() -> HTTPException:
    return HTTPException(503, "too many uploads at once; try again", {"Retry-After": str(RETRY_SECONDS)})
