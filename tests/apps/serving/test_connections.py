"""Connections that are slow, unfinished or aborted, of a server whose application only answers."""

import logging
import socket
import time
from asyncio import Protocol
from contextlib import ExitStack
from ipaddress import ip_network

import pytest
from uvicorn.protocols.websockets import auto

from ernie_vil2.apps.serving import connections, server
from ernie_vil2.apps.serving.connections import Connections, client_group
from tests.support.limits import wait_until
from tests.support.sockets import RunningServer, make_request, read_answer, receive_all

LARGE = 64 * 2**20


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/body":
        while (await receive()).get("more_body"):
            pass
    body = bytes(LARGE) if scope["path"] == "/large" else b"answer"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def running():
    with RunningServer(app) as running:
        yield running
    assert not running.tracebacks


@pytest.mark.parametrize("content", [b"", b"G", b"GET /health HTTP/1.1\r\nHost: a\r\nX", b"POST / HTTP/1.1\r\n"])
def test_connection_with_half_a_request_is_closed(running, monkeypatch, content):
    with running.connect(make_request(close=False)) as client:
        read_answer(client)
        monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)
        client.sendall(content or b"P")
        assert receive_all(client) == b""
    assert running.ask(content) == b""  # also if the connection has had no answer before
    wait_until(lambda: not running.server.server_state.connections)


@pytest.mark.parametrize(
    "start",
    [b"GET /health HTTP/1.1\r\n", make_request(length=10**9, close=False)],
    ids=["headers", "what comes after the answer"],
)
def test_trickling_bytes_do_not_keep_a_connection_open(running, monkeypatch, start):
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)
    with running.connect(start) as client, pytest.raises(ConnectionError):  # noqa: PT012  -- any of the writes may raise
        for _ in range(1000):
            client.sendall(b"a")
            time.sleep(0.03)
    wait_until(lambda: not running.server.server_state.connections)


def test_slow_body_of_a_request_is_read_to_its_end(running, monkeypatch):
    monkeypatch.setattr(server, "HEADER_SECONDS", 1)
    with running.connect(make_request("POST", "/body", length=2)) as client:
        for _ in range(2):
            time.sleep(0.7)  # twice this is longer than HEADER_SECONDS
            client.sendall(b"a")
        assert receive_all(client).endswith(b"answer")


def test_answer_that_no_client_reads_is_aborted(running, monkeypatch):
    monkeypatch.setattr(server, "READ_SECONDS", 0.3)
    with running.connect(make_request(path="/large")) as client:
        wait_until(lambda: running.server.server_state.connections)
        wait_until(lambda: not running.server.server_state.connections)
        assert len(receive_all(client)) < LARGE


def is_open(client):
    """Return whether the server has left a connection open on which it sends nothing."""
    client.setblocking(False)
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@pytest.mark.parametrize("state", ["half-open", "idle"])
def test_new_connection_closes_the_oldest_waiting_one(running, monkeypatch, state):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    clients = []
    for number in range(3):
        clients.append(running.connect(make_request(close=False) if state == "idle" else b"GET /"))
        if state == "idle":
            read_answer(clients[-1])
        wait_until(lambda number=number: len(running.server.server_state.connections) == number + 1)
    assert running.ask(make_request()).endswith(b"answer")
    wait_until(lambda: not is_open(clients[0]))
    assert [is_open(client) for client in clients] == [False, True, True]
    for client in clients:
        client.close()


def test_only_probes_are_answered_when_all_connections_are_busy(running, monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(connections, "NUM_RESERVED", 1)
    uploads = [running.connect(make_request("POST", "/body", b"a", length=2)) for _ in range(2)]
    wait_until(lambda: len(running.server.server_state.tasks) == 2)
    for path in ("/healthz", "/readyz"):
        assert running.ask(make_request(path=path)).endswith(b"answer")
    answer = running.ask(make_request(path="/health"))
    assert answer.startswith(b"HTTP/1.1 503") and b"retry-after: 5" in answer
    wait_until(lambda: len(running.server.server_state.connections) == 2)
    for client in uploads:
        client.sendall(b"a")
        assert receive_all(client).endswith(b"answer")
        client.close()
    assert running.ask(make_request()).endswith(b"answer")


@pytest.mark.parametrize(("trusted", "num_closed"), [("192.0.2.0/24", 3), ("127.0.0.0/8", 0)])
def test_half_open_connections_of_an_address_are_limited(monkeypatch, trusted, num_closed):
    monkeypatch.setattr(connections, "MAX_HALF_OPEN", 2)
    monkeypatch.setattr(server, "GRACE_SECONDS", 0)
    with RunningServer(app, trusted_proxies=[ip_network(trusted)]) as running, ExitStack() as stack:
        clients = [stack.enter_context(running.connect(b"GET / HTTP/1.1\r\n")) for _ in range(5)]
        wait_until(lambda: sum(map(is_open, clients)) == 5 - num_closed)
        # A long grace, so that the next request is not closed while it is sent. When it is answered, all closing
        # that was due before has been done.
        monkeypatch.setattr(server, "GRACE_SECONDS", 60)
        assert running.ask(make_request()).endswith(b"answer")
        assert list(map(is_open, clients)) == [False] * num_closed + [True] * (5 - num_closed)


class FakeConnection:
    """A connection that only records that it is closed."""

    def __init__(self, address):
        self.address, self.is_aborted = address, False

    def abort(self):
        self.is_aborted = True


def test_address_with_most_half_open_connections_makes_room(monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 5)
    registry = Connections([ip_network("10.0.0.0/8")])
    addresses = ["10.0.0.1", "192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"]
    clients = [FakeConnection(address) for address in addresses]
    assert all(map(registry.open, clients))
    registry.set_busy(clients[3])
    registry.set_idle(clients[3])
    closed_addresses = []
    for _ in range(5):
        newcomer = FakeConnection("198.51.100.1")
        assert registry.open(newcomer)
        registry.set_busy(newcomer)
        for client in clients:
            if client.is_aborted and client.address not in closed_addresses:
                closed_addresses.append(client.address)
    # First one of the two of a network of IPv6. Then every client has one half-open connection, and the oldest is
    # closed first. Then the one that had an answer, and the one of the trusted proxy last.
    assert closed_addresses == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "10.0.0.1"]
    assert not registry.open(FakeConnection("198.51.100.1")) and len(registry) == 6


def test_client_is_an_ipv4_address_or_an_ipv6_network():
    hosts = ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1", "fe80::1%eth0", ""]
    groups = [client_group(host) for host in hosts]
    assert groups[0] == groups[1] and groups[2] == groups[3] and len(set(groups)) == 5
    assert Connections([ip_network("192.0.2.0/24")]).is_trusted("::ffff:192.0.2.9")


@pytest.mark.parametrize(
    "content",
    [b"GET /he", make_request("POST", "/body", b"abc", length=1000), make_request(path="/large")],
    ids=["half a request", "an upload", "an answer that is not read"],
)
def test_server_ends_whatever_its_client_does(monkeypatch, content):
    monkeypatch.setattr(server, "DRAIN_SECONDS", 0.5)
    with RunningServer(app) as running:
        client = running.connect(content)
        wait_until(lambda: running.server.server_state.connections)
    assert not running.tracebacks
    client.close()


def test_server_answers_pending_requests_before_it_ends():
    with RunningServer(app) as running:
        client = running.connect(make_request("POST", "/body", b"a", length=2))
        wait_until(lambda: running.server.server_state.tasks)
        running.server.should_exit = True
        wait_until(lambda: not running.server.servers[0].is_serving())
        client.sendall(b"a")
        assert receive_all(client).endswith(b"answer")


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_request_to_upgrade_is_answered_over_http(monkeypatch, protocol):
    # With a library for WebSockets uvicorn would hand the connection over to this class.
    monkeypatch.setattr(auto, "AutoWebSocketsProtocol", Protocol)
    request = f"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
    with RunningServer(app) as running:
        warnings = []
        monkeypatch.setattr(logging.getLogger("uvicorn.error"), "warning", warnings.append)
        with running.connect(request.encode()) as client:
            client.settimeout(5)
            read_answer(client)
    assert not warnings and not running.tracebacks


def test_data_that_is_not_http_is_refused(running):
    assert running.ask(b"\x16\x03\x01\x00\xa5\r\n\r\n").startswith(b"HTTP/1.1 400")
    with running.connect(b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n") as client:
        read_answer(client)
        client.sendall(b"no chunk\r\n")
        assert receive_all(client) == b""


def test_server_listens_on_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with RunningServer(app, "::1") as running:
        assert running.ask(make_request(host="[::1]")).endswith(b"answer")
    assert server.format_authority("::1", 80) == "[::1]:80"
    assert server.format_authority("localhost", 80) == "localhost:80"


def test_address_that_cannot_be_bound_is_named():
    with server.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
            server.listen("127.0.0.1", port)
    for host in ("no-such.invalid", "127.0.0..1", "a" * 70):
        with pytest.raises(OSError, match=f"{host}:80.*--host"):
            server.listen(host, 80)
    with pytest.raises(OSError, match=r"\[2001:db8::1\]:80"):
        server.listen("2001:db8::1", 80)


def test_connections_send_small_packets_at_once(running):
    with running.connect(make_request(close=False)) as client:
        read_answer(client)
        (connection,) = running.server.server_state.connections
        server_socket = connection.transport.get_extra_info("socket")
        # Otherwise the content of an answer would wait until the client has acknowledged its headers.
        assert server_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
