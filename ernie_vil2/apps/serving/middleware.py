"""Check, count and log every request, add security headers to every answer, and receive uploads.

`Middleware` passes the messages of a request on as they come. Starlette's BaseHTTPMiddleware would copy bodies, and
keep exceptions alive together with the frames of their requests.
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

from ernie_vil2.apps.serving.errors import CLIENT_CLOSED_REQUEST, INTERNAL_ERROR, RETRY_SECONDS, make_error_response
from ernie_vil2.apps.serving.metrics import Metrics
from ernie_vil2.io.files import read_text
from ernie_vil2.io.terminal import make_printable

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1", "[::1]")  # this machine, as options and as URLs write it
# These are answered under any host name and without a token, because whatever supervises the server asks for them.
PROBE_PATHS = ("/healthz", "/readyz")
MIN_TOKEN_LENGTH = 16  # characters; a shorter secret can be guessed
MAX_UPLOAD_BYTES = 20 * 2**20  # of one upload, an image or a JSON body
# Bounds on all uploads in progress, from the first byte until they are parsed or decoded: their number and their bytes.
MAX_UPLOADS = 128
MAX_PENDING_BYTES = 8 * MAX_UPLOAD_BYTES
MAX_UPLOAD_SECONDS = 60  # until an upload is complete: enough for 20 MiB at 2.8 Mbit/s
MAX_HOST_IN_MESSAGE = 100  # characters
MAX_URL_IN_LOG = 2000  # characters; a query with its filter may be longer than a line should be
SECURITY_HEADERS = [
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


@dataclass(frozen=True)
class Access:
    """Who may send requests, and what is logged about them.

    Attributes:
        hosts: names by which the server may be addressed, so that a foreign page cannot point a name of its own to it;
            `*` means any name, `*.example.com` any name below example.com.
        token: every request must have it, as `Authorization: Bearer TOKEN` or as the password of a browser; None: no
            token is needed.
        root_path: path under which a proxy shows the server, such as `/images`; the proxy may remove it or keep it.
        log_requests: whether to log a line for each request.
        log_queries: whether that line has the query.
    """

    hosts: Sequence[str] = ("*",)
    token: str | None = None
    root_path: str = ""
    log_requests: bool = False
    log_queries: bool = False


class Middleware:
    """The middleware of the server, for requests over HTTP. It also answers HEAD, like GET without the content.

    Args:
        app: the application behind the middleware.
        access: who may send requests, and what is logged about them.
        metrics: counts the requests.
    """

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics):
        self.app, self.access, self.metrics = app, access, metrics
        self._root_path = access.root_path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # Status and size of the answer, for the log. The status stays if the client leaves before there is an answer.
        start, status, num_bytes = time.perf_counter(), CLIENT_CLOSED_REQUEST, 0
        path = scope["path"]
        if path.startswith(f"{self._root_path}/"):
            path = path.removeprefix(self._root_path)
        is_head = scope["method"] == "HEAD"

        async def send_with_headers(message: Message) -> None:
            nonlocal status, num_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *SECURITY_HEADERS]
            elif message["type"] == "http.response.body":
                if is_head:
                    message = {**message, "body": b""}
                num_bytes += len(message.get("body", b""))
            await send(message)

        # The application gets the proxy's path exactly once, whether the proxy has removed it or not.
        app_scope = {**scope, "root_path": self._root_path, "path": self._root_path + path}
        if is_head:
            app_scope["method"] = "GET"
        try:
            refusal = self._refuse(path, scope["headers"])
            if refusal is None:
                await self.app(app_scope, receive, send_with_headers)
            else:
                await refusal(app_scope, receive, send_with_headers)
        except Exception:
            # Starlette's outermost layer answers with this status, unless an answer has begun.
            if status == CLIENT_CLOSED_REQUEST:
                status = INTERNAL_ERROR
            raise
        finally:
            seconds = time.perf_counter() - start
            self.metrics.count_request(path, status, seconds)
            if self.access.log_requests:
                self._log(scope, status, num_bytes, seconds)

    def _refuse(self, path: str, headers: Sequence[tuple[bytes, bytes]]) -> JSONResponse | None:
        """Return the answer to a request that is not allowed, or None."""
        if path in PROBE_PATHS:
            return None
        num_credentials = sum(name == b"authorization" for name, _ in headers)
        if num_credentials > 1:
            # A proxy may check one of them and this server the other.
            return make_error_response(400, "two Authorization headers: send one")

        values = dict(headers)
        host = _remove_port(values.get(b"host", b"").decode("latin-1"))
        if not self._is_known_host(host):
            name = make_printable(host, max_length=MAX_HOST_IN_MESSAGE)
            return make_error_response(
                400,
                f"this server is not called {name}: start it with --allowed-host {name}, or let the proxy send a Host "
                "that it knows",
            )

        token = self.access.token
        # In constant time: how long a comparison takes must not tell how many characters are right.
        if token and not hmac.compare_digest(_parse_credentials(values.get(b"authorization", b"")), token.encode()):
            # A browser asks its user for a password only if it is offered Basic.
            challenge = {"WWW-Authenticate": 'Basic realm="ernie-vil2", charset="UTF-8"'}
            message = "a token is needed: Authorization: Bearer TOKEN"
            return make_error_response(401, message, code="invalid_api_key", headers=challenge)
        return None

    def _is_known_host(self, host: str) -> bool:
        for name in self.access.hosts:
            if name in ("*", host) or (name.startswith("*.") and host.endswith(name[1:])):
                return True
        return False

    def _log(self, scope: Scope, status: int, num_bytes: int, seconds: float) -> None:
        client = (scope.get("client") or ("-",))[0]
        client = make_printable(client, max_length=MAX_HOST_IN_MESSAGE)  # X-Forwarded-For may hold anything
        url = scope["path"]
        query = scope["query_string"].decode("latin-1")
        if self.access.log_queries and query:
            url += f"?{query}"
        url = make_printable(url, max_length=MAX_URL_IN_LOG)
        timestamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        sys.stdout.write(
            f'{timestamp} {client} "{scope["method"]} {url}" {status} {num_bytes} {1000 * seconds:.1f} ms\n'
        )
        sys.stdout.flush()


def read_token(path: str | Path) -> str:
    """Return the token in a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the token is too short to be a secret, or has characters that a header cannot hold.
    """
    token = read_text(path).strip()
    if len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable():
        raise ValueError(
            f"{path} holds no token: write {MIN_TOKEN_LENGTH} or more printable ASCII characters into it, "
            "for example from: openssl rand -hex 32"
        )
    return token


def _remove_port(host: str) -> str:
    """Return the name in a Host header, in lower case."""
    name, _, port = host.rpartition(":")
    return (name if name and port.isdecimal() else host).lower()


def _parse_credentials(header: bytes) -> bytes:
    """Return the token of `Bearer TOKEN`, or the password of `Basic ...`; empty if there is none."""
    scheme, _, value = header.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() != b"basic":
        return b""
    try:
        _, _, password = base64.b64decode(value, validate=True).partition(b":")
    except binascii.Error:
        return b""
    return password


class Uploads:
    """The uploads in progress of one server; for one event loop.

    While it arrives, an upload is stored in a memory mapping of its own, which is returned to the system even if the
    client leaves. A buffer of Python would live as long as the frames that refer to it: an exception that holds them
    in a cycle keeps 20 MiB until the next full garbage collection, which hardly ever runs in a process with Paddle.

    Attributes:
        num_uploads: number of uploads in progress.
        num_bytes: number of bytes that they have sent so far.
    """

    def __init__(self) -> None:
        self.num_uploads, self.num_bytes = 0, 0

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the body of a request; it counts as in progress until the block ends.

        Raises:
            HTTPException: 413 for a body that is too large, 408 for one that is too slow, 503 for one too many.
            ClientDisconnect: the client has left.
        """
        if self.num_uploads >= MAX_UPLOADS:
            raise _busy_error()
        # The upload counts only once it has its memory, which the system may refuse.
        with mmap.mmap(-1, MAX_UPLOAD_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as content:
            self.num_uploads += 1
            try:
                await self._read_body(request, content)
                # A copy: the mapping cannot be closed as long as anybody holds a view of it.
                yield content[: content.tell()]
            finally:
                self.num_uploads -= 1
                self.num_bytes -= content.tell()

    async def _read_body(self, request: Request, content: mmap.mmap) -> None:
        """Write the body of a request into a mapping, whose position is then the length of the body."""
        declared_length = request.headers.get("content-length", "")
        if declared_length.isdecimal() and int(declared_length) > len(content):
            raise _size_error()
        try:
            async with asyncio.timeout(MAX_UPLOAD_SECONDS):
                async for chunk in request.stream():
                    if content.tell() + len(chunk) > len(content):  # a chunked body declares no length
                        raise _size_error()
                    if self.num_bytes + len(chunk) > MAX_PENDING_BYTES:
                        raise _busy_error()
                    self.num_bytes += content.write(chunk)
        except TimeoutError:
            close = {"Connection": "close"}
            raise HTTPException(408, f"an upload may take {MAX_UPLOAD_SECONDS} seconds", close) from None


def _size_error() -> HTTPException:
    return HTTPException(413, f"a request may have {MAX_UPLOAD_BYTES // 2**20} MiB")


def _busy_error() -> HTTPException:
    return HTTPException(503, "too many uploads at once; try again", {"Retry-After": str(RETRY_SECONDS)})
