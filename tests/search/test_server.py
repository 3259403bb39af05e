"""What operations expects: processes, health, counts, a token, a proxy, a log, and an end that loses nothing."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from ipaddress import ip_network

import pytest
from fastapi.testclient import TestClient

from ernie_vil2.search import batching, open_index
from ernie_vil2.search.batching import Batcher
from ernie_vil2.search.fill import add_images, add_texts, images_in
from ernie_vil2.search.metrics import Metrics
from ernie_vil2.search.middleware import LOOPBACK, Access, read_token
from ernie_vil2.search.server import MAX_PAUSE_SECONDS, Supervisor, _allow_files
from ernie_vil2.search.service import build_app
from tests.search.test_batching import Blocked
from tests.support.limits import PATIENCE
from tests.support.paths import ROOT
from tests.support.sockets import Running, request, reset, until

TOKEN = "0123456789abcdef"  # noqa: S105  -- of a server of the test


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model, shapes):
    folder = tmp_path_factory.mktemp("server") / "index"
    with open_index(folder, model, writable=True) as index:
        add_images(index, images_in([str(shapes["val"])]))
        add_texts(index, ["red disc", "green square"])
    return folder


@pytest.fixture
def index(folder, model):
    with open_index(folder, model) as index:
        yield index


def client(index, *access, **options):
    return TestClient(build_app(index, access=Access(*access), **options), base_url="http://127.0.0.1:8000")


def test_a_host_that_a_proxy_passes_is_named_in_the_answer_and_can_be_allowed(index):
    refused = client(index, LOOPBACK).get("/health", headers={"host": "example.com:443"})
    assert refused.status_code == 400 and "--allowed-host example.com" in refused.json()["detail"]
    allowed = client(index, (*LOOPBACK, "example.com", "*.example.org"))
    for host, code in (("example.com", 200), ("EXAMPLE.com:80", 200), ("a.example.org", 200), ("example.org", 400),
                       ("evilexample.org", 400), ("[::1]:8000", 200), ("localhost", 200), ("", 400)):  # fmt: skip
        assert allowed.get("/health", headers={"host": host}).status_code == code, host
    assert client(index, LOOPBACK).get("/healthz", headers={"host": "10.0.0.1:80"}).status_code == 200


def test_a_token_is_asked_for_everywhere_but_of_who_restarts_the_server(index):
    server = client(index, ("*",), TOKEN)
    for path in ("/", "/api/v1/search?q=red", "/metrics", "/openapi.json", "/thumbnail?id=a", "/health"):
        answer = server.get(path)
        assert answer.status_code == 401 and "Basic" in answer.headers["www-authenticate"], path
    assert [server.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
    basic = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    for given, code in ((f"Bearer {TOKEN}", 200), (f"bearer  {TOKEN}", 200), (f"Basic {basic}", 200),
                        (f"Bearer {TOKEN}0", 401), ("Bearer", 401), ("Basic ####", 401), (f"Digest {TOKEN}", 401),
                        (TOKEN, 401)):  # fmt: skip
        assert server.get("/health", headers={"authorization": given}).status_code == code, given


def test_two_authorization_headers_are_refused(index):
    for token in (None, TOKEN):
        server = client(index, ("*",), token)
        headers = [("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {TOKEN}")]
        assert server.get("/health", headers=headers).status_code == 400
        assert server.get("/healthz", headers=headers).status_code == 200


def test_a_file_without_a_secret_holds_no_token(tmp_path):
    (tmp_path / "token").write_text(f"  {TOKEN}\n")
    assert read_token(tmp_path / "token") == TOKEN
    for content in ("", "short", "0123456789 \u7ea2 0123456789", "0123456789abc\ndef0123"):
        (tmp_path / "token").write_text(content)
        with pytest.raises(ValueError, match="holds no token: write 16 or more"):
            read_token(tmp_path / "token")


@pytest.mark.parametrize("prefix", ["", "/images"])
def test_a_proxy_may_take_its_path_off_or_leave_it(index, prefix):
    server = client(index, ("*",), None, "/images/")
    assert server.get(f"{prefix}/health").json()["images"] == 16
    assert server.get(f"{prefix}/").status_code == 200
    assert server.get("/imagesque/health").status_code == 404


def test_the_log_has_a_line_for_a_request_and_no_query_unless_asked(index, capsys):
    for queries in (False, True):
        client(index, ("*",), None, "", True, queries).get("/api/v1/search", params={"q": "secret\nline"})
        (line,) = capsys.readouterr().out.splitlines()
        assert re.fullmatch(r'\S+ testclient "GET /api/v1/search\S*" 200 \d+ \d+\.\d ms', line), line
        assert ("secret" in line) is queries


def test_counts_of_all_processes_are_added_up(index):
    metrics = Metrics()
    shared = (type(metrics._shared)._type_ * (2 * len(metrics._shared)))()
    counts = [Metrics(shared, number) for number in range(2)]
    servers = [TestClient(build_app(index, batcher=Batcher(index, counts=one))) for one in counts]
    for server in (*servers, servers[0]):
        server.get("/api/v1/search", params={"q": "red"})
    servers[1].get("/nothing"), servers[1].get("/api/v1/search", params={"q": " "})
    text = servers[1].get("/metrics").text
    for line in ('ernie_vil2_requests_total{path="/api/v1/search",status="200"} 3',
                 'ernie_vil2_requests_total{path="/api/v1/search",status="422"} 1',
                 'ernie_vil2_requests_total{path="other",status="404"} 1',
                 'ernie_vil2_request_seconds_bucket{le="+Inf"} 4', "ernie_vil2_request_seconds_count 4",
                 'ernie_vil2_batch_size_bucket{le="1"} 2', "ernie_vil2_batch_size_sum 2.000000",
                 "ernie_vil2_cached_answers_total 1", "ernie_vil2_waiting_queries 0",
                 'ernie_vil2_index_items{kind="images"} 16'):  # fmt: skip
        assert line in text.splitlines(), text
    generation = index.collection("images").version.generation
    assert f'ernie_vil2_index_generation{{kind="images"}} {generation}' in text
    assert len(re.findall(r'ernie_vil2_resident_bytes\{worker="[01]"\} \d{6,}', text)) == 2


def test_an_index_that_cannot_be_read_is_alive_and_not_ready(tmp_path, model, shapes):
    with open_index(tmp_path / "index", model, writable=True) as index:
        add_images(index, images_in([str(shapes["val"])]))
    with open_index(tmp_path / "index", model) as index:
        server = client(index)
        assert server.get("/readyz").json() == {"status": "ok"}
        (tmp_path / "index/index.json").write_text("{")
        assert [server.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 503]


def test_a_client_that_goes_away_frees_its_slot(index, monkeypatch):
    blocked = Blocked(index, monkeypatch)
    batcher = Batcher(index, most_waiting=2, kept=0)
    with Running(build_app(index, batcher=batcher)) as running:
        clients = [running.connect(request(path=f"/api/v1/search?q={word}")) for word in ("red", "green")]
        blocked.begun.acquire()
        until(lambda: batcher.waiting == 2)
        assert b" 503 " in running.ask(request(path="/api/v1/search?q=blue"))
        reset(clients.pop())
        until(lambda: batcher.waiting == 1)
        clients.append(running.connect(request(path="/api/v1/search?q=blue")))
        until(lambda: batcher.waiting == 2)
        blocked.go.set()
        for one in clients:
            assert b" 200 " in one.recv(1000)
            one.close()
        until(lambda: batcher.waiting == 0)
    assert not running.tracebacks


def test_a_thousand_connections_stay_open(index):
    _allow_files(4000)
    with Running(build_app(index), trusted_proxies=[ip_network("127.0.0.1")]) as running:
        clients = [running.connect() for _ in range(1000)]
        until(lambda: len(running.server.server_state.connections) == 1000)
        assert b" 200 " in running.ask(request(path="/api/v1/search?q=red"))
        for one in (clients[0], clients[500], clients[-1]):
            one.sendall(request(path="/healthz"))
            assert b" 200 " in one.recv(1000)
        for one in clients:
            one.close()


@contextmanager
def served(folder, checkpoint, log, *options):
    """The command in a process of its own, and its port."""
    command = [sys.executable, "tools/search.py", "serve", "--index", folder, "--checkpoint", checkpoint, "--port", "0"]
    with log.open("wb") as file:
        process = start_process([*command, *options], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
                                   stdout=file, stderr=subprocess.STDOUT)  # fmt: skip
    try:
        start = time.monotonic()
        while b"Ctrl-C ends it" not in log.read_bytes():
            assert process.poll() is None and time.monotonic() - start < PATIENCE, log.read_text()
            time.sleep(0.1)
        yield process, int(re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())[1])
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        process.kill()
        process.wait()


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        return answer.read().decode()


def children(pid):
    return [int(one) for one in run_process(["pgrep", "-P", f"{pid}", "-f", "spawn_main"], capture_output=True,
                                               text=True).stdout.split()]  # fmt: skip


class FakeWorker:
    """A process that ends when the test says so."""

    def __init__(self):
        self.exitcode = None

    def is_alive(self):
        return self.exitcode is None


class FakeWorkers:
    """Two supervised workers, and a clock that the test moves."""

    def __init__(self):
        self.now, self.ready, self.starts = 0.0, [False, False], []
        self.supervisor = Supervisor(2, self.start, self.ready.__getitem__, lambda: self.now)

    def start(self, number):
        self.ready[number] = False
        self.starts.append((number, self.now))
        return FakeWorker()

    def kill(self, number, code=-signal.SIGKILL):
        self.supervisor._workers[number].exitcode = code
        self.supervisor.check()

    def starts_after(self, number):
        """The pause after which a worker is started again, to half a second."""
        count, begin = len(self.starts), self.now
        while len(self.starts) == count:
            self.now += 0.5
            self.supervisor.check()
        assert self.starts[-1] == (number, self.now)
        return self.now - begin


def test_worker_killed_before_it_is_ready_is_started_again():
    workers = FakeWorkers()
    workers.ready[0] = True
    workers.supervisor.check()
    pauses = []
    for _ in range(9):
        workers.kill(1)
        assert workers.supervisor.exit_code is None and len(workers.supervisor.alive()) == 1
        pauses.append(workers.starts_after(1))
    assert pauses == [min(2.0**n, MAX_PAUSE_SECONDS) for n in range(9)]
    workers.ready[1] = True
    workers.kill(1)
    assert workers.starts_after(1) == 1
    workers.kill(0)  # which is ready no more, but was
    workers.kill(1)
    assert workers.supervisor.exit_code is None


def test_server_ends_if_no_worker_was_ever_ready(capsys):
    workers = FakeWorkers()
    workers.kill(1)
    assert workers.supervisor.exit_code is None
    workers.kill(0, 2)
    assert workers.supervisor.exit_code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "no worker was ever ready" in error and "SIGKILL" in error and "worker 0 ended with 2" in error


def test_worker_killed_while_it_loads_does_not_end_the_server(folder, checkpoint, tmp_path):
    log = tmp_path / "log"
    with served(folder, checkpoint, log, "--workers", "2") as (process, port):
        until(lambda: len(re.findall("resident_bytes{", get(port, "/metrics"))) == 2)
        killed = set()
        for count in (1, 2):
            until(lambda: len(set(children(process.pid)) - killed) == 2)
            killed.add(max(set(children(process.pid)) - killed))  # the younger, which has just been started
            os.kill(max(killed), signal.SIGKILL)
            until(lambda count=count: log.read_text().count("is started again") == count)
        assert len(json.loads(get(port, "/api/search?q=red"))["hits"]) == 16
        assert process.poll() is None


def test_processes_share_a_port_are_started_again_and_end_with_0(folder, checkpoint, tmp_path):
    log = tmp_path / "log"
    with served(folder, checkpoint, log, "--workers", "2", "--access-log") as (process, port):
        until(lambda: len(re.findall("resident_bytes{", get(port, "/metrics"))) == 2)
        for number in range(40):  # each over a connection of its own, which goes to either
            assert len(json.loads(get(port, f"/api/v1/search?q=red+{number}"))["hits"]) == 16
        text = get(port, "/metrics")
        assert 'ernie_vil2_requests_total{path="/api/v1/search",status="200"} 40' in text
        first = children(process.pid)
        assert len(first) == 2
        os.kill(first[1], signal.SIGKILL)
        until(lambda: "is started again" in log.read_text())
        until(lambda: len(set(children(process.pid)) - {first[1]}) == 2)
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as slow:
            slow.sendall(b"GET /health HT")
            start = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        assert time.monotonic() - start < 30
    assert not children(process.pid) and not re.search("Traceback|ccache", log.read_text())


def test_what_is_asked_when_the_process_is_terminated_is_answered(folder, checkpoint, tmp_path):
    log = tmp_path / "log"
    with served(folder, checkpoint, log) as (process, port):
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as asking:
            asking.sendall(b"POST /api/v1/search/image HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\na")
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            asking.sendall(b"a")
            assert b" 422 " in asking.recv(1000)
        assert process.wait(PATIENCE) == 0
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_memory_is_flat_over_100_000_requests(index):
    from tests.support.sockets import resident

    with Running(build_app(index, batcher=Batcher(index, kept=batching.KEPT_ANSWERS))) as running:

        def ask(first, last):
            with running.connect() as one:
                for number in range(first, last):
                    one.sendall(request(path=f"/api/v1/search?q=red+{number}&count=5", close=False))
                    content = b""
                    while not content.endswith(b"}"):
                        content += one.recv(65536)

        ask(0, 10_000)  # the caches are full
        before = resident()
        ask(10_000, 110_000)
        assert resident() - before < 20
