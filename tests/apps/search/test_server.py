"""Operation of the server: hosts, tokens, proxies, log, metrics, workers that are killed, and an orderly end."""

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
from ernie_vil2.apps.search.batching import SearchBatcher
from ernie_vil2.apps.search.service import build_app
from ernie_vil2.apps.serving.metrics import Metrics
from ernie_vil2.apps.serving.middleware import LOOPBACK_HOSTS, Access, read_token
from ernie_vil2.apps.serving.server import MAX_PAUSE_SECONDS, Supervisor
from tests.support.limits import PATIENCE, wait_until
from tests.support.processes import read_memory, run_process
from tests.support.small_index import BlockedEncoder
from tests.support.sockets import RunningServer, make_request, reset_connection, serve_command

TOKEN = "0123456789abcdef"  # noqa: S105  -- of a server of the test


def make_client(index, *access, **options):
    return TestClient(build_app(index, access=Access(*access), **options), base_url="http://127.0.0.1:8000")


def test_unknown_host_is_refused_with_the_option_that_allows_it(index):
    refused = make_client(index, LOOPBACK_HOSTS).get("/health", headers={"host": "example.com:443"})
    assert refused.status_code == 400 and "--allowed-host example.com" in refused.json()["error"]["message"]
    allowed = make_client(index, (*LOOPBACK_HOSTS, "example.com", "*.example.org"))
    for host, code in (("example.com", 200), ("EXAMPLE.com:80", 200), ("a.example.org", 200), ("example.org", 400),
                       ("evilexample.org", 400), ("[::1]:8000", 200), ("[::2]", 400), ("localhost", 200),
                       ("", 400)):  # fmt: skip
        assert allowed.get("/health", headers={"host": host}).status_code == code, host
    assert make_client(index, LOOPBACK_HOSTS).get("/healthz", headers={"host": "10.0.0.1:80"}).status_code == 200


def test_all_paths_but_probes_need_the_token(index):
    server = make_client(index, ("*",), TOKEN)
    for path in ("/", "/v1/search?q=red", "/metrics", "/openapi.json", "/thumbnail?id=a", "/health"):
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
        assert make_client(index, ("*",), token).get("/health", headers=twice).status_code == 400


def test_invalid_token_files_are_refused(tmp_path):
    (tmp_path / "token").write_text(f"  {TOKEN}\n")
    assert read_token(tmp_path / "token") == TOKEN
    for content in ("", "short", "0123456789 \u7ea2 0123456789", "0123456789abc\ndef0123"):
        (tmp_path / "token").write_text(content)
        with pytest.raises(ValueError, match="token"):
            read_token(tmp_path / "token")


@pytest.mark.parametrize("prefix", ["", "/images"])
def test_proxy_may_strip_the_path_prefix_or_keep_it(index, prefix):
    server = make_client(index, ("*",), None, "/images/")
    assert server.get(f"{prefix}/health").json()["images"] == 16
    assert server.get(f"{prefix}/").status_code == 200
    assert server.get("/imagesque/health").status_code == 404


def test_log_shows_queries_only_on_request(index, capsys):
    for log_queries in (False, True):
        make_client(index, ("*",), None, "", True, log_queries).get("/v1/search", params={"q": "secret\nline"})
        (line,) = capsys.readouterr().out.splitlines()
        assert re.fullmatch(r'\S+ testclient "GET /v1/search\S*" 200 \d+ \d+\.\d ms', line), line
        assert ("secret" in line) is log_queries


def test_log_escapes_the_address_that_a_proxy_reports(index, capsys):
    app = build_app(index, access=Access(log_requests=True))
    TestClient(app, client=("\x1b[2J" + "a" * 1000, 0)).get("/health")
    line = capsys.readouterr().out
    assert "\x1b" not in line and "[2Ja" in line and len(line) < 300


def test_metrics_add_up_the_counts_of_all_workers(index):
    metrics = Metrics()
    # An array for the counts of two workers, which in operation lies in memory that the processes share.
    shared = (type(metrics._shared)._type_ * (2 * len(metrics._shared)))()
    worker_metrics = [Metrics(shared, number) for number in range(2)]
    servers = [
        TestClient(build_app(index, batcher=SearchBatcher(index, metrics=metrics))) for metrics in worker_metrics
    ]
    for server in (*servers, servers[0]):
        server.get("/v1/search", params={"q": "red"})
    servers[1].get("/nothing")
    servers[1].get("/v1/search", params={"q": " "})
    text = servers[1].get("/metrics").text
    for line in ('ernie_vil2_requests_total{path="/v1/search",status="200"} 3',
                 'ernie_vil2_requests_total{path="/v1/search",status="422"} 1',
                 'ernie_vil2_requests_total{path="other",status="404"} 1',
                 'ernie_vil2_request_seconds_bucket{le="+Inf"} 4', "ernie_vil2_request_seconds_count 4",
                 'ernie_vil2_batch_size_bucket{le="1"} 2', "ernie_vil2_batch_size_sum 2.000000",
                 "ernie_vil2_cached_answers_total 1", "ernie_vil2_inputs_in_progress 0",
                 'ernie_vil2_index_items{kind="images"} 16'):  # fmt: skip
        assert line in text.splitlines(), text
    generation = index.collection("images").version.generation
    assert f'ernie_vil2_index_generation{{kind="images"}} {generation}' in text
    assert len(re.findall(r'ernie_vil2_resident_bytes\{worker="[01]"\} \d{6,}', text)) == 2


def test_aborted_query_frees_its_place_in_the_queue(index, monkeypatch):
    blocked = BlockedEncoder(index, monkeypatch)
    batcher = SearchBatcher(index, max_queue=2, cache_size=0)
    with RunningServer(build_app(index, batcher=batcher)) as running:
        clients = [running.connect(make_request(path=f"/v1/search?q={word}")) for word in ("red", "green")]
        blocked.waiting.acquire()
        wait_until(lambda: batcher.num_in_progress == 2)
        answer = running.ask(make_request(path="/v1/search?q=blue"))
        assert b" 503 " in answer and b"retry-after: 1" in answer.lower()
        assert b" 200 " in running.ask(make_request(path="/health"))
        reset_connection(clients.pop())
        wait_until(lambda: batcher.num_in_progress == 1)
        clients.append(running.connect(make_request(path="/v1/search?q=blue")))
        wait_until(lambda: batcher.num_in_progress == 2)
        blocked.resume.set()
        for connection in clients:
            assert b" 200 " in connection.recv(1000)
            connection.close()
        wait_until(lambda: batcher.num_in_progress == 0)
    assert not running.tracebacks


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        return answer.read().decode()


def list_workers(pid):
    """Return the process ids of the workers of a server."""
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

    def measure_pause(self, number):
        """Return the pause after which a worker is started again, to half a second."""
        count, kill_time = len(self.starts), self.now
        while len(self.starts) == count:
            self.now += 0.5
            self.supervisor.check()
        assert self.starts[-1] == (number, self.now)
        return self.now - kill_time


def test_worker_killed_before_it_is_ready_is_started_again():
    workers = FakeWorkers()
    workers.ready[0] = True
    workers.supervisor.check()
    pauses = []
    for _ in range(9):
        workers.kill(1)
        assert workers.supervisor.exit_code is None and len(workers.supervisor.live_workers()) == 1
        pauses.append(workers.measure_pause(1))
    assert pauses == [min(2.0**n, MAX_PAUSE_SECONDS) for n in range(9)]
    workers.ready[1] = True
    workers.kill(1)
    assert workers.measure_pause(1) == 1
    # Now no worker is ready, but both were: the server goes on.
    workers.kill(0)
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


def test_killed_workers_are_replaced_and_the_server_ends_cleanly(shapes_index, checkpoint, tmp_path):
    log = tmp_path / "log"
    with serve_command(shapes_index, checkpoint, log, "--workers", "2", "--access-log") as (process, port):
        wait_until(lambda: len(re.findall("resident_bytes{", get(port, "/metrics"))) == 2)
        for number in range(40):  # over 40 connections, of which either worker accepts some
            assert len(json.loads(get(port, f"/v1/search?q=red+{number}"))["hits"]) == 16
        # A worker counts a request after its answer.
        total = 'ernie_vil2_requests_total{path="/v1/search",status="200"} 40'
        wait_until(lambda: total in get(port, "/metrics"))
        killed = set()
        for count in (1, 2):  # the second is the worker that was just started, while it loads
            wait_until(lambda: len(list_workers(process.pid) - killed) == 2)
            killed.add(max(list_workers(process.pid) - killed))
            os.kill(max(killed), signal.SIGKILL)
            wait_until(lambda count=count: log.read_text().count("is started again") == count)
        with (
            socket.create_connection(("127.0.0.1", port), PATIENCE) as slow,
            socket.create_connection(("127.0.0.1", port), PATIENCE) as uploading,
        ):
            slow.sendall(b"GET /health HT")
            uploading.sendall(make_request("POST", "/v1/search/image", b"a", length=2))
            time.sleep(0.5)  # for a worker to accept both connections
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)  # for the workers to begin their end, in which the upload is still answered
            uploading.sendall(b"a")
            assert b" 422 " in uploading.recv(1000)
            assert process.wait(PATIENCE) == 0
    assert not list_workers(process.pid) and not re.search("Traceback|ccache", log.read_text())


@pytest.mark.slow
def test_memory_is_flat_over_100_000_requests(index):
    with RunningServer(build_app(index, batcher=SearchBatcher(index, cache_size=batching.CACHE_SIZE))) as running:

        def send_queries(first, last):
            with running.connect() as connection:
                for number in range(first, last):
                    connection.sendall(make_request(path=f"/v1/search?q=red+{number}&count=5", close=False))
                    content = b""
                    while not content.endswith(b"}"):
                        content += connection.recv(65536)

        send_queries(0, 10_000)  # fills the caches
        initial = read_memory()
        send_queries(10_000, 110_000)
        assert read_memory() - initial < 20  # MiB; a leak of 210 bytes a request would be found
