"""A client of an API of JSON over HTTP: patient with a busy server, and bounded in what it reads."""

import email.utils
import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import Any, cast

from ernie_vil2.io.files import parse_json
from ernie_vil2.io.terminal import make_printable, pluralize
from ernie_vil2.version import __version__

TOKEN_VARIABLE = "OPENAI_API_KEY"  # noqa: S105  -- the name of the variable, as OpenAI's clients have it
# Seconds of silence after which a request is given up, and seconds that a whole answer may take. A server without GPU
# may take half a minute for a batch of images by a large model, and has other clients.
TIMEOUT, MAX_SECONDS = 120, 300
MAX_ATTEMPTS = 8
# Seconds between two attempts: they double from the first to the largest, so that eight attempts take about a minute,
# in which a server can be restarted. A server may ask for longer, up to the last number.
FIRST_DELAY, MAX_DELAY, MAX_REQUESTED_DELAY = 0.5, 30.0, 300.0
# Statuses of a server that may answer later: timeouts, too many requests, and errors of proxies and servers.
RETRIED_STATUSES = (408, 425, 429, 500, 502, 503, 504)
MAX_ERROR_BYTES = 2**16  # of an answer that reports an error
MAX_REASON_LENGTH = 500  # characters of such an answer that a message quotes
_BLOCK_SIZE = 2**16  # bytes


class ServerError(OSError):
    """A server cannot be used; the message names its address and what to do."""


class RefusedRequest(ServerError):  # noqa: N818  -- named by what has happened
    """A server refuses a request, and would again.

    Attributes:
        status: the status of its answer.
    """

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it could lead the token to another server."""

    def redirect_request(self, *_: Any) -> None:
        return None


class JsonClient:
    """Sends requests to the paths below an address, from any number of threads.

    The token in the environment variable OPENAI_API_KEY, if it is set, is sent with every request. Requests that fail
    for a reason that may pass are repeated after a time that doubles, or after the time that the server asks for in
    `Retry-After`, if that is longer.

    Args:
        address: beginning of all addresses, without a slash at its end.

    Raises:
        ServerError: the token cannot be one.
    """

    def __init__(self, address: str):
        self.address = address
        self._headers = {"Content-Type": "application/json", "User-Agent": f"ernie_vil2/{__version__}"}
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if token:
            # Checked here, because the error of the library would show the token.
            if not token.isascii() or not token.isprintable():
                raise ServerError(f"{TOKEN_VARIABLE} holds characters that no token has: set it again")
            self._headers["Authorization"] = f"Bearer {token}"
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._stopped = threading.Event()  # for the requests in progress; `stop` makes another for later ones
        self._is_ending = False
        self._has_answered = False  # whether any answer was JSON
        # A program that ends, such as by Ctrl-C, waits for its threads: none should go on to ask a server that is away.
        # The function is private; concurrent.futures uses it from Python 3.9 on. `atexit` is called after that wait.
        threading._register_atexit(self._end)  # type: ignore[attr-defined]

    def get(self, path: str, max_bytes: int) -> Any:
        """Return the answer to a GET; arguments and errors as for `post`."""
        return self._ask(path, None, max_bytes)

    def post(self, path: str, body: Any, max_bytes: int) -> Any:
        """Return the answer to a POST.

        Args:
            path: path below the address, with a slash at its beginning.
            body: the body, which is sent as JSON.
            max_bytes: limit of the answer.

        Raises:
            RefusedRequest: the server refuses the request.
            ServerError: there is no usable answer, also after several attempts; or the client is stopped.
        """
        return self._ask(path, json.dumps(body, ensure_ascii=False).encode(), max_bytes)

    def stop(self) -> None:
        """End all waiting for another attempt; later requests wait again."""
        stopped, self._stopped = self._stopped, threading.Event()
        stopped.set()

    def _end(self) -> None:
        self._is_ending = True
        self.stop()

    def _ask(self, path: str, content: bytes | None, max_bytes: int) -> Any:
        url = self.address + path
        stopped = self._stopped
        for attempt in range(1, MAX_ATTEMPTS + 1):
            requested_delay, answer_content = None, b""
            request = urllib.request.Request(url, content, self._headers)  # noqa: S310  -- http or https, see `RemoteEncoder`
            try:
                with self._opener.open(request, timeout=TIMEOUT) as response:
                    answer_content = _read_answer(response, url, max_bytes)
                answer = parse_json(answer_content)
                self._has_answered = True
                return answer
            except urllib.error.HTTPError as error:
                with error:
                    reason = _describe_refusal(error)
                    if error.code not in RETRIED_STATUSES:
                        raise RefusedRequest(f"{url}: {reason}", error.code) from None
                    requested_delay = _parse_delay(error.headers.get("Retry-After", ""))
            except ServerError:
                raise
            except (OSError, HTTPException) as error:
                reason = f"no answer: {getattr(error, 'reason', None) or str(error) or type(error).__name__}"
            except ValueError:
                # Many web servers answer any path with a page.
                if not self._has_answered and answer_content.lstrip().startswith(b"<"):
                    raise RefusedRequest(
                        f"{url}: the answer is a web page; is this the address of an API, as http://host/v1?",
                        response.status,
                    ) from None
                # Half an answer, or the page of a proxy; the server itself may answer the next time.
                reason = "the answer is not JSON"
            if attempt < MAX_ATTEMPTS and not self._is_ending:
                delay = min(FIRST_DELAY * 2 ** (attempt - 1), MAX_DELAY)
                delay *= random.uniform(0.5, 1)  # noqa: S311  -- requests that failed together return at different times
                # Never shorter: a busy server may ask for a second each time, and need a minute.
                self._pause(max(delay, requested_delay or 0.0), stopped)
            if stopped.is_set() or self._is_ending:
                break
        reason = make_printable(reason, max_length=MAX_REASON_LENGTH)
        attempts = pluralize(attempt, "attempt")
        raise ServerError(
            f"{url}: {reason} ({attempts}); check address and server, and run the command again: it continues"
        )

    def _pause(self, seconds: float, stopped: threading.Event) -> None:
        stopped.wait(seconds)


def _read_answer(response: HTTPResponse, url: str, max_bytes: int) -> bytes:
    """Return the body of an answer; ServerError if it is too large, OSError or HTTPException if it does not end."""
    deadline = time.monotonic() + MAX_SECONDS
    blocks, num_bytes = [], 0
    while block := response.read1(_BLOCK_SIZE):
        blocks.append(block)
        num_bytes += len(block)
        if num_bytes > max_bytes:
            raise ServerError(f"{url}: the answer has more than {max_bytes:,} bytes; is this the address of an API?")
        if time.monotonic() > deadline:
            raise TimeoutError(f"the answer was not complete after {MAX_SECONDS} seconds")
    content = b"".join(blocks)
    if response.length:  # bytes that were announced and did not come
        raise IncompleteRead(content, response.length)
    return content


def _describe_refusal(error: urllib.error.HTTPError) -> str:
    """Return status and message of an answer that reports an error, and what to do."""
    status = f"status {error.code}"
    if 300 <= error.code < 400:
        target = make_printable(error.headers.get("Location", "another address"), max_length=MAX_REASON_LENGTH)
        return f"{status}, redirects to {target}, which is not followed; name the final address"
    try:
        # `fp` is the whole answer, which a server may send as slowly as any other.
        message = _find_message(_read_answer(cast(HTTPResponse, error.fp), error.url, MAX_ERROR_BYTES))
    except (OSError, HTTPException):
        message = ""
    reason = make_printable(message.strip() or error.reason, max_length=MAX_REASON_LENGTH)
    if error.code in (401, 403):
        return f"{status}, {reason}; set {TOKEN_VARIABLE} to the token of this server"
    return f"{status}, {reason}"


def _find_message(content: bytes) -> str:
    """Return the message of an error report, or the whole report if it has none of the known forms."""
    try:
        report = parse_json(content)
    except ValueError:
        return content.decode("utf-8", "replace")
    # {"error": {"message": ...}} of OpenAI, {"error": ...} of text-embeddings-inference, {"detail": ...} of FastAPI.
    for key in ("error", "message", "detail"):
        if isinstance(report, dict) and report.get(key):
            report = report[key]
    return str(report)


def _parse_delay(header: str) -> float | None:
    """Return the seconds of a `Retry-After`, a number or a date, within bounds; None if there is none."""
    if header.strip().isdecimal():
        return min(float(header), MAX_REQUESTED_DELAY)
    try:
        seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_REQUESTED_DELAY)
