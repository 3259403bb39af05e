"""Images that clients send, or begin to send: bounded, answered, and forgotten."""

import gc
import socket
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ernie_vil2.apps.search import middleware, open_index
from ernie_vil2.apps.search.service import build_app
from ernie_vil2.data.samples import BadSample
from tests.support.limits import wait_until
from tests.support.small_index import IMAGE
from tests.support.sockets import (
    RunningServer,
    disable_garbage_collection,
    make_request,
    measure_memory,
    receive_all,
    reset_connection,
)

MIB = 2**20
SEARCH = "/api/v1/search/image"
POST = make_request("POST", SEARCH, IMAGE)
PATHS = (SEARCH, "/api/v1/tags")


@pytest.fixture(scope="module")
def running(shapes_index, model):
    with open_index(shapes_index, model) as index, RunningServer(build_app(index)) as running:
        yield running
        assert not running.tracebacks


def status(answer):
    return int(answer.split(b" ", 2)[1]) if answer else None


def is_free(running):
    """Whether an upload is answered: all that was under way before has an end, or there would be one too many."""
    return status(running.ask(POST)) == 200


@st.composite
def aborted(draw):
    """A request and how much of it is sent before its client goes away; some are sent whole."""
    method = draw(st.sampled_from(["POST", "POST", "GET", "HEAD", "PUT"]))
    path = draw(st.sampled_from([*PATHS, *PATHS, "/health", "/api/v1/search?q=red", "/", "/nothing"]))
    content = draw(st.one_of(st.just(IMAGE), st.binary(max_size=200), st.integers(0, 3 * MIB).map(bytes)))
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if draw(st.booleans()):
        length = draw(st.one_of(st.just(len(content)), st.integers(0, 30 * MIB)))
        sent = f"{head}Content-Length: {length}\r\n\r\n".encode() + content
    else:
        size = draw(st.one_of(st.just(f"{len(content):x}"), st.sampled_from(["zz", "-1", "ffffffffff", ""])))
        sent = f"{head}Transfer-Encoding: chunked\r\n\r\n{size}\r\n".encode() + content + b"\r\n0\r\n\r\n"
    cut = draw(st.one_of(st.integers(0, min(len(sent), 400)), st.integers(0, len(sent)), st.just(len(sent))))
    return sent[:cut], draw(st.sampled_from(["close", "reset", "half", "read"]))


@pytest.mark.thorough
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(aborted(), min_size=1, max_size=4))
def test_a_client_that_goes_away_leaves_nothing_behind(running, sent):
    clients = []
    for content, _ in sent:
        client = socket.create_connection(running.address, 30)
        clients.append(client)
        with suppress(ConnectionError):  # the server closes what is not a HTTP
            client.sendall(content)
    for client, (_, end) in zip(clients, sent, strict=True):
        if end == "reset":
            reset_connection(client)
        elif end == "half":
            with suppress(OSError):
                client.shutdown(socket.SHUT_WR)
        elif end == "read":
            client.settimeout(0.01)
            with suppress(TimeoutError):
                receive_all(client)
        client.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(middleware, "MAX_UPLOADS", 1)
        patch.setattr(middleware, "MAX_PENDING_BYTES", len(IMAGE))
        wait_until(lambda: is_free(running))
    wait_until(lambda: not running.server.server_state.connections and not running.server.server_state.tasks)
    assert not running.tracebacks


@pytest.mark.thorough
def test_the_memory_of_aborted_uploads_is_given_back(running):
    content = make_request("POST", SEARCH, bytes(19 * MIB), length=20 * MIB)
    assert is_free(running)
    with disable_garbage_collection():
        before = measure_memory()
        for _ in range(16):
            running.connect(content).close()
        wait_until(lambda: not running.server.server_state.connections and not running.server.server_state.tasks)
        assert is_free(running)
        assert measure_memory() - before < 8 * 19


@pytest.mark.parametrize("path", PATHS)
def test_an_error_keeps_no_image(running, path):
    def count_errors():
        return sum(isinstance(value, BadSample) for value in gc.get_objects())

    with disable_garbage_collection():
        before = count_errors()
        for content in (b"<svg/>", IMAGE[:60], b"GIF89a" + bytes(100)):
            assert status(running.ask(make_request("POST", path, content))) == 422
        # A thread may be about to let go.
        wait_until(lambda: not running.server.server_state.tasks and count_errors() == before)


def test_one_upload_too_many_is_sent_away(running, monkeypatch):
    monkeypatch.setattr(middleware, "MAX_UPLOADS", 2)
    slow = [running.connect(make_request("POST", path, b"a", length=100)) for path in PATHS]
    wait_until(lambda: len(running.server.server_state.tasks) == 2)
    for path in PATHS:
        answer = running.ask(make_request("POST", path, IMAGE))
        assert status(answer) == 503 and b"retry-after: 5" in answer.lower()
    slow.pop().close()
    wait_until(lambda: is_free(running))
    slow.pop().close()


def test_the_bytes_of_all_uploads_are_bounded(running, monkeypatch):
    monkeypatch.setattr(middleware, "MAX_PENDING_BYTES", len(IMAGE) + 100)
    with running.connect(make_request("POST", SEARCH, bytes(101), length=200)):
        wait_until(lambda: status(running.ask(POST)) == 503)
    wait_until(lambda: is_free(running))


def test_an_upload_has_its_time(running, monkeypatch):
    monkeypatch.setattr(middleware, "MAX_UPLOAD_SECONDS", 0.3)
    with running.connect(make_request("POST", SEARCH, b"a", length=100, close=False)) as client:
        assert status(receive_all(client)) == 408  # to the end: the connection is closed


CHUNK = b"1000\r\n" + bytes(4096) + b"\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        make_request("POST", SEARCH, length=4097),
        f"POST {SEARCH} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + 2 * CHUNK,
    ],
    ids=["declared", "chunked"],
)
def test_an_upload_too_large_is_refused_before_it_is_read(running, monkeypatch, sent):
    monkeypatch.setattr(middleware, "MAX_UPLOAD_BYTES", 4096)
    with running.connect(sent) as client:
        assert status(client.recv(1000)) == 413
    assert is_free(running)


def test_the_largest_upload_there_may_be_is_read(running, monkeypatch):
    monkeypatch.setattr(middleware, "MAX_UPLOAD_BYTES", len(IMAGE))
    assert is_free(running)
    assert status(running.ask(make_request("POST", SEARCH, IMAGE + b"a"))) == 413
