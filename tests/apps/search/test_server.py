"""What operations expects: processes, health, counts, a token, a proxy, a log, and an end that loses nothing."""

import base64
import json
import os
import re
import signal
import socket
import time
import urllib.request

import pytest
from fastapi.testclient import TestClient

from ernie_vil2.apps.search import batching
from ernie_vil2.apps.search.batching import Batcher
from ernie_vil2.apps.search.metrics import Metrics
from ernie_vil2.apps.search.middleware import LOOPBACK_HOSTS, Access, read_token
from ernie_vil2.apps.search.server import MAX_PAUSE_SECONDS, Supervisor
from ernie_vil2.apps.search.service import build_app
from tests.support.limits import PATIENCE, wait_until
from tests.support.processes import run_process
from tests.support.small_index import BlockedEncoder
from tests.support.sockets import RunningServer, make_request, measure_memory, reset_connection, serve_command

TOKEN = "0123456789abcdef"  # noqa: S105  -- of a server of the test


def client(index, *access, **options):
    return TestClient(build_app(index, access=Access(*access), **options), base_url="http://127.0.0.1:8000")


def test_a_refused_host_is_named_and_can_be_allowed(index):
    refused = client(index, LOOPBACK_HOSTS).get("/health", headers={"host": "example.com:443"})
    assert refused.status_code == 400 and "--allowed-host example.com" in refused.json()["detail"]
    allowed = client(index, (*LOOPBACK_HOSTS, "example.com", "*.example.org"))
    for host, code in (("example.com", 200), ("EXAMPLE.com:80", 200), ("a.example.org", 200), ("example.org", 400),
                       ("evilexample.org", 400), ("[::1]:8000", 200), ("[::2]", 400), ("localhost", 200),
                       ("", 400)):  # fmt: skip
        assert allowed.get("/health", headers={"host": host}).status_code == code, host
    assert client(index, LOOPBACK_HOSTS).get("/healthz", headers={"host": "10.0.0.1:80"}).status_code == 200


def test_a_token_is_asked_for_except_by_probes(index):
    server = client(index, ("*",), TOKEN)
    for path in ("/", "/api/v1/search?q=red", "/metrics", "/openapi.json", "/thumbnail?id=a", "/health"):
        answer = server.get(path)
        assert answer.status_code == 401 and "Basic" in answer.headers["www-authenticate"], path
    assert [server.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
    basic = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    for header, code in ((f"Bearer {TOKEN}", 200), (f"bearer  {TOKEN}", 200), (f"Basic {basic}", 200),
                         (f"Bearer {TOKEN}0", 401), ("Bearer", 401), ("Basic ####", 401), (f"Digest {TOKEN}", 401),
                         (TOKEN, 401)):  # fmt: skip
        assert server.get("/health", headers={"authorization": header}).status_code == code, header
    for token in (None, TOKEN):
        twice = [("authorization", f"Bearer {TOKEN}")] * 2
        assert client(index, ("*",), token).get("/health", headers=twice).status_code == 400


def test_a_file_without_a_secret_holds_no_token(tmp_path):
    (tmp_path / "token").write_text(f"  {TOKEN}\n")
    assert read_token(tmp_path / "token") == TOKEN
    for content in ("", "short", "0123456789 \u7ea2 0123456789", "0123456789abc\ndef0123"):
        (tmp_path / "token").write_text(content)
        with pytest.raises(ValueError, match="token"):
            read_token(tmp_path / "token")


@pytest.mark.parametrize("prefix", ["", "/images"])
def test_a_proxy_may_take_its_path_off_or_leave_it(index, prefix):
    server = client(index, ("*",), None, "/images/")
    assert server.get(f"{prefix}/health").json()["images"] == 16
    assert server.get(f"{prefix}/").status_code == 200
    assert server.get("/imagesque/health").status_code == 404


def test_the_log_names_requests_and_queries_only_if_asked(index, capsys):
    for queries in (False, True):
        client(index, ("*",), None, "", True, queries).get("/api/v1/search", params={"q": "secret\nline"})
        (line,) = capsys.readouterr().out.splitlines()
        assert re.fullmatch(r'\S+ testclient "GET /api/v1/search\S*" 200 \d+ \d+\.\d ms', line), line
        assert ("secret" in line) is queries


def test_counts_of_all_processes_are_added_up(index):
    metrics = Metrics()
    shared = (type(metrics._shared)._type_ * (2 * len(metrics._shared)))()
    counts = [Metrics(shared, number) for number in range(2)]
    servers = [TestClient(build_app(index, batcher=Batcher(index, metrics=counter))) for counter in counts]
    for server in (*servers, servers[0]):
        server.get("/api/v1/search", params={"q": "red"})
    servers[1].get("/nothing")
    servers[1].get("/api/v1/search", params={"q": " "})
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


def test_a_client_that_goes_away_frees_its_slot(index, monkeypatch):
    blocked = BlockedEncoder(index, monkeypatch)
    batcher = Batcher(index, max_queue=2, cache_size=0)
    with RunningServer(build_app(index, batcher=batcher)) as running:
        clients = [running.connect(make_request(path=f"/api/v1/search?q={word}")) for word in ("red", "green")]
        blocked.waiting.acquire()
        wait_until(lambda: batcher.num_waiting == 2)
        refused = running.ask(make_request(path="/api/v1/search?q=blue"))
        assert b" 503 " in refused and b"retry-after: 1" in refused.lower()
        assert b" 200 " in running.ask(make_request(path="/health"))
        reset_connection(clients.pop())
        wait_until(lambda: batcher.num_waiting == 1)
        clients.append(running.connect(make_request(path="/api/v1/search?q=blue")))
        wait_until(lambda: batcher.num_waiting == 2)
        blocked.resume.set()
        for connection in clients:
            assert b" 200 " in connection.recv(1000)
            connection.close()
        wait_until(lambda: batcher.num_waiting == 0)
    assert not running.tracebacks


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        return answer.read().decode()


def children(pid):
    listing = run_process(["pgrep", "-P", f"{pid}", "-f", "spawn_main"], capture_output=True, text=True)
    return {int(line) for line in listing.stdout.split()}


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
        """Return the pause after which a worker is started again, to half a second."""
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
        assert workers.supervisor.exit_code is None and len(workers.supervisor.live_workers()) == 1
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
    error = capsys.readouterr().err
    assert "SIGKILL" in error and "worker 0 ended with 2" in error


def test_workers_are_started_again_and_end_with_0(shapes_index, checkpoint, tmp_path):
    log = tmp_path / "log"
    with serve_command(shapes_index, checkpoint, log, "--workers", "2", "--access-log") as (process, port):
        wait_until(lambda: len(re.findall("resident_bytes{", get(port, "/metrics"))) == 2)
        for number in range(40):  # each over a connection of its own, which goes to either
            assert len(json.loads(get(port, f"/api/v1/search?q=red+{number}"))["hits"]) == 16
        assert 'ernie_vil2_requests_total{path="/api/v1/search",status="200"} 40' in get(port, "/metrics")
        killed = set()
        for count in (1, 2):  # the second, which has just been started, while it loads
            wait_until(lambda: len(children(process.pid) - killed) == 2)
            killed.add(max(children(process.pid) - killed))
            os.kill(max(killed), signal.SIGKILL)
            wait_until(lambda count=count: log.read_text().count("is started again") == count)
        with (
            socket.create_connection(("127.0.0.1", port), PATIENCE) as slow,
            socket.create_connection(("127.0.0.1", port), PATIENCE) as uploading,
        ):
            slow.sendall(b"GET /health HT")
            uploading.sendall(make_request("POST", "/api/v1/search/image", b"a", length=2))
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            uploading.sendall(b"a")
            assert b" 422 " in uploading.recv(1000)
            assert process.wait(PATIENCE) == 0
    assert not children(process.pid) and not re.search("Traceback|ccache", log.read_text())


@pytest.mark.slow
def test_memory_is_flat_over_100_000_requests(index):
    with RunningServer(build_app(index, batcher=Batcher(index, cache_size=batching.CACHE_SIZE))) as running:

        def ask(first, last):
            with running.connect() as connection:
                for number in range(first, last):
                    connection.sendall(make_request(path=f"/api/v1/search?q=red+{number}&count=5", close=False))
                    content = b""
                    while not content.endswith(b"}"):
                        content += connection.recv(65536)

        ask(0, 10_000)  # the caches are full
        before = measure_memory()
        ask(10_000, 110_000)
        assert measure_memory() - before < 20
