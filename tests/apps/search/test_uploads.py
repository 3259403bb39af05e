"""Uploads of images, finished or aborted: they are bounded and answered, and leave no memory behind."""

import gc
import json
import socket
import tracemalloc
from contextlib import suppress

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ernie_vil2.apps.search import open_index
from ernie_vil2.apps.search.batching import SearchBatcher
from ernie_vil2.apps.search.service import build_app
from ernie_vil2.apps.serving import middleware
from ernie_vil2.data.samples import BadSample
from tests.support.image_formats import encode_data_url
from tests.support.limits import wait_until
from tests.support.processes import read_memory
from tests.support.small_index import IMAGE, BlockedEncoder
from tests.support.sockets import (
    RunningServer,
    disable_garbage_collection,
    make_request,
    receive_all,
    reset_connection,
)

MIB = 2**20
SEARCH = "/v1/search/image"
POST = make_request("POST", SEARCH, IMAGE)
PATHS = (SEARCH, "/v1/tags")


@pytest.fixture(scope="module")
def running(shapes_index, model):
    with open_index(shapes_index, model) as index, RunningServer(build_app(index)) as running:
        yield running
        assert not running.tracebacks


def parse_status(answer):
    return int(answer.split(b" ", 2)[1]) if answer else None


def accepts_uploads(running):
    """Return whether an upload is answered. With limits that admit a single one, all former uploads have then ended."""
    return parse_status(running.ask(POST)) == 200


def is_idle(running):
    return not running.server.server_state.connections and not running.server.server_state.tasks


@st.composite
def aborted_requests(draw):
    """Draw the bytes of a request that a client sends, often not all of them, and how it then ends the connection."""
    method = draw(st.sampled_from(["POST", "POST", "GET", "HEAD", "PUT"]))
    path = draw(st.sampled_from([*PATHS, *PATHS, "/health", "/v1/search?q=red", "/", "/nothing"]))
    content = draw(st.one_of(st.just(IMAGE), st.binary(max_size=200), st.integers(0, 3 * MIB).map(bytes)))
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if draw(st.booleans()):
        length = draw(st.one_of(st.just(len(content)), st.integers(0, 30 * MIB)))
        request = f"{head}Content-Length: {length}\r\n\r\n".encode() + content
    else:
        size = draw(st.one_of(st.just(f"{len(content):x}"), st.sampled_from(["zz", "-1", "ffffffffff", ""])))
        request = f"{head}Transfer-Encoding: chunked\r\n\r\n{size}\r\n".encode() + content + b"\r\n0\r\n\r\n"
    size = len(request)
    length = draw(st.one_of(st.integers(0, min(size, 400)), st.integers(0, size), st.just(size)))
    return request[:length], draw(st.sampled_from(["close", "reset", "half", "read"]))


@pytest.mark.thorough
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(aborted_requests(), min_size=1, max_size=4))
def test_aborted_requests_leave_no_connection_and_no_upload(running, requests):
    clients = []
    for content, _ in requests:
        client = socket.create_connection(running.address, 30)
        clients.append(client)
        with suppress(ConnectionError):  # the server closes a connection over which it gets no HTTP
            client.sendall(content)
    for client, (_, end) in zip(clients, requests, strict=True):
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
        wait_until(lambda: accepts_uploads(running))
    wait_until(lambda: is_idle(running))
    assert not running.tracebacks


@pytest.mark.thorough
def test_memory_of_aborted_uploads_is_released(running):
    content = make_request("POST", SEARCH, bytes(19 * MIB), length=20 * MIB)
    assert accepts_uploads(running)
    with disable_garbage_collection():
        initial = read_memory()
        for _ in range(16):
            running.connect(content).close()
        wait_until(lambda: is_idle(running))
        assert accepts_uploads(running)
        assert read_memory() - initial < 8 * 19  # less than half of the 16 uploads


def test_images_are_not_decoded_while_the_queue_is_full(index, monkeypatch):
    batcher = SearchBatcher(index, max_queue=2)
    client = TestClient(build_app(index, batcher=batcher, writable=True))
    image = encode_data_url(IMAGE)
    contents = dict.fromkeys(PATHS, IMAGE)
    contents["/v1/search/batch"] = json.dumps({"queries": [{"text": "red"}, {"image": image}]})
    contents["/v1/items"] = json.dumps({"items": [{"image": image}]})
    contents["/v1/embeddings"] = json.dumps({"input": image})

    def fail(*_):
        raise AssertionError("an image was decoded")

    with batcher.reserve(2):
        monkeypatch.setattr(type(index.model.preprocessing), "decode", fail)
        assert {client.post(path, content=content).status_code for path, content in contents.items()} == {503}
    monkeypatch.undo()
    # Texts and images of one request are answered together, and give their places back.
    answer = client.post("/v1/search/batch", content=contents["/v1/search/batch"]).json()
    texts = client.post("/v1/search/batch", json={"queries": [{"text": "red"}]}).json()
    images = client.post(SEARCH, content=IMAGE).json()
    assert answer["results"] == [*texts["results"], images["hits"][:10]] and batcher.num_in_progress == 0


@pytest.fixture
def traced_memory():
    """Count what Python's objects and arrays take: the resident memory has what glibc keeps for each thread, too."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.thorough
@pytest.mark.parametrize("path", [SEARCH, "/v1/embeddings"])
@pytest.mark.usefixtures("traced_memory")
def test_uploads_leave_no_memory_while_they_wait_for_the_encoder(index, monkeypatch, path):
    content = IMAGE + bytes(9 * MIB)
    if path != SEARCH:
        content = json.dumps({"input": encode_data_url(content)}).encode()
    blocked = BlockedEncoder(index, monkeypatch)
    batcher = SearchBatcher(index)
    with RunningServer(build_app(index, batcher=batcher)) as running:
        clients = []
        for number in range(14):
            clients.append(running.connect(make_request("POST", path, content)))
            wait_until(lambda number=number: batcher.num_in_progress == number + 1)
            if number == 3:
                initial, _ = tracemalloc.get_traced_memory()
        # Of 90 MiB or more that were sent since.
        wait_until(lambda: tracemalloc.get_traced_memory()[0] - initial < 40 * MIB)
        blocked.resume.set()
        for client in clients:
            assert parse_status(receive_all(client)) == 200
            client.close()


@pytest.mark.parametrize("path", PATHS)
def test_errors_of_bad_uploads_are_not_kept_alive(running, path):
    def count_errors():
        return sum(isinstance(value, BadSample) for value in gc.get_objects())

    with disable_garbage_collection():
        initial = count_errors()
        for content in (b"<svg/>", IMAGE[:60], b"GIF89a" + bytes(100)):
            assert parse_status(running.ask(make_request("POST", path, content))) == 422
        # The client may have its answer before a thread of the server drops the error.
        wait_until(lambda: not running.server.server_state.tasks and count_errors() == initial)


def test_uploads_above_the_limit_get_503(running, monkeypatch):
    monkeypatch.setattr(middleware, "MAX_UPLOADS", 2)
    uploads = [running.connect(make_request("POST", path, b"a", length=100)) for path in PATHS]
    wait_until(lambda: len(running.server.server_state.tasks) == 2)
    for path in PATHS:
        answer = running.ask(make_request("POST", path, IMAGE))
        assert parse_status(answer) == 503 and b"retry-after: 5" in answer.lower()
    uploads.pop().close()
    wait_until(lambda: accepts_uploads(running))
    uploads.pop().close()


def test_bytes_of_all_uploads_together_are_bounded(running, monkeypatch):
    monkeypatch.setattr(middleware, "MAX_PENDING_BYTES", len(IMAGE) + 100)
    with running.connect(make_request("POST", SEARCH, bytes(101), length=200)):
        wait_until(lambda: parse_status(running.ask(POST)) == 503)
    wait_until(lambda: accepts_uploads(running))


def test_slow_upload_gets_408_and_is_closed(running, monkeypatch):
    monkeypatch.setattr(middleware, "MAX_UPLOAD_SECONDS", 0.3)
    with running.connect(make_request("POST", SEARCH, b"a", length=100, close=False)) as client:
        # `receive_all` returns only when the server has closed the connection.
        assert parse_status(receive_all(client)) == 408


CHUNK = b"1000\r\n" + bytes(4096) + b"\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        make_request("POST", SEARCH, length=4097),
        f"POST {SEARCH} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + 2 * CHUNK,
    ],
    ids=["declared", "chunked"],
)
def test_too_large_upload_is_refused_before_its_end(running, monkeypatch, request_bytes):
    monkeypatch.setattr(middleware, "MAX_UPLOAD_BYTES", 4096)
    with running.connect(request_bytes) as client:  # which waits, with the rest unsent
        assert parse_status(client.recv(1000)) == 413
    assert accepts_uploads(running)


def test_upload_of_the_largest_size_is_read(running, monkeypatch):
    monkeypatch.setattr(middleware, "MAX_UPLOAD_BYTES", len(IMAGE))
    assert accepts_uploads(running)
    assert parse_status(running.ask(make_request("POST", SEARCH, IMAGE + b"a"))) == 413
