"""Downloads of files and known models, from a server on this machine."""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event

import pytest

from ernie_vil2.io import hub, progress
from ernie_vil2.io.locks import lock_exclusive
from tests.support.misbehaving_server import start_serving

CONTENT = bytes(range(256)) * 1000
DIGEST = hashlib.md5(CONTENT).hexdigest()  # noqa: S324 - the sums that the releases publish


class Server(ThreadingHTTPServer):
    """Server of one file whose attributes say how it misbehaves; `requests` lists the methods and first bytes."""

    content = CONTENT
    version = '"1"'  # sent as ETag
    announces_size = True
    supports_ranges = True
    breaks_after = None  # bytes after which the connection ends
    status = 200

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []
        self.url = f"http://127.0.0.1:{self.server_port}/model.pdparams"


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        body = self.answer()
        self.wfile.write(body[: self.server.breaks_after])
        self.close_connection = True

    def answer(self):
        server = self.server
        requested_range = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        requested_start = int(requested_range[1]) if requested_range else 0
        server.requests.append((self.command, requested_start))
        start = requested_start if server.supports_ranges else 0
        body = server.content[start:]
        is_partial = requested_range and server.supports_ranges and server.status == 200
        self.send_response(206 if is_partial else server.status)
        if server.announces_size:
            self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("ETag", server.version)
        self.end_headers()
        return body

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        start_serving(server)
        yield server
        server.shutdown()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "model.pdparams"


@pytest.fixture
def interrupted_server(server, path):
    """Return a server whose first answer broke off in the middle."""
    server.breaks_after = 100_000
    with pytest.raises(OSError, match=r"100000 of 256000 bytes"):
        hub.download(server.url, path)
    assert not path.exists()
    server.breaks_after = None
    server.requests.clear()
    return server


def test_file_is_downloaded_once_with_progress(server, path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_INTERVAL", 1e-9)  # a line for every update
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: hub.download(server.url, path, DIGEST), range(4)))
    assert path.read_bytes() == CONTENT and list(path.parent.iterdir()) == [path]
    assert [kind for kind, _ in server.requests].count("GET") == 1
    assert "model.pdparams: 250k of 250k B" in capsys.readouterr().out


@pytest.mark.parametrize("supports_ranges", [True, False])
def test_interrupted_download_resumes_where_it_stopped(interrupted_server, path, supports_ranges):
    interrupted_server.supports_ranges = supports_ranges
    hub.download(interrupted_server.url, path)
    assert path.read_bytes() == CONTENT and list(path.parent.iterdir()) == [path]
    assert interrupted_server.requests == [("HEAD", 0), ("GET", 100_000)]


def test_complete_partial_file_is_not_downloaded_again(interrupted_server, path):
    (partial_file,) = path.parent.iterdir()
    partial_file.write_bytes(CONTENT)
    hub.download(interrupted_server.url, path)
    assert path.read_bytes() == CONTENT and interrupted_server.requests == [("HEAD", 0)]


def test_partial_file_of_another_version_is_not_continued(interrupted_server, path):
    interrupted_server.content, interrupted_server.version = CONTENT[::-1], '"2"'
    hub.download(interrupted_server.url, path)
    assert path.read_bytes() == CONTENT[::-1] and interrupted_server.requests[-1] == ("GET", 0)


def test_file_with_another_checksum_is_removed(server, path):
    with pytest.raises(ValueError, match="MD5 sum of what arrived is not 0123"):
        hub.download(server.url, path, "0123")
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("attribute", "value", "reason"), [("announces_size", False, "how large"), ("status", 404, "404")]
)
def test_error_names_a_server_without_size_or_file(server, path, attribute, value, reason):
    setattr(server, attribute, value)
    with pytest.raises((OSError, ValueError), match=f"{server.url}.*{reason}"):
        hub.download(server.url, path)


def test_file_longer_than_announced_is_removed(server, path):
    with pytest.raises(ValueError, match="more than the 256000 bytes"):
        download_from(LongAnswers, server, path)
    assert list(path.parent.iterdir()) == []


class LongAnswers(Handler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(CONTENT + b"more")
        self.close_connection = True


class BrokenChunks(Handler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"1000\r\nfewer bytes")
        self.close_connection = True


class NoHttp(Handler):
    def do_GET(self):
        self.wfile.write(b"\x1b[2J" * 999 + b"\r\n")
        self.close_connection = True


def download_from(handler, server, path, md5=None):
    server.RequestHandlerClass = handler
    hub.download(server.url, path, md5)


@pytest.mark.parametrize(("handler", "reason"), [(BrokenChunks, "broke off"), (NoHttp, "not HTTP")])
def test_answer_that_is_no_whole_http_is_an_os_error(server, path, handler, reason):
    with pytest.raises(OSError, match=f"{server.url}: .*{reason}") as caught:
        download_from(handler, server, path)
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()


@pytest.mark.parametrize("md5", [None, DIGEST])
def test_waiting_download_goes_on_after_the_first_one_fails(interrupted_server, path, monkeypatch, md5):
    # The first download breaks off after further bytes, or gets wrong ones; the second one waits for it from the start.
    server, is_waiting = interrupted_server, Event()

    class FailingOnce(Handler):
        def do_GET(self):
            body = self.answer()
            if [kind for kind, _ in server.requests].count("GET") == 1:
                assert is_waiting.wait(30)
                body = bytes(len(body)) if md5 else body[:50_000]
            self.wfile.write(body)
            self.close_connection = True

    def lock(file, wait):
        locked_files.append(file)
        if len(locked_files) == 2:
            is_waiting.set()
        lock_exclusive(file, wait)

    locked_files = []
    monkeypatch.setattr(hub, "lock_exclusive", lock)
    with ThreadPoolExecutor(2) as pool:
        downloads = [pool.submit(download_from, FailingOnce, server, path, md5) for _ in range(2)]
        errors = [download.exception() for download in downloads]
    assert sorted(error is None for error in errors) == [False, True]
    assert path.read_bytes() == CONTENT and list(path.parent.iterdir()) == [path]
    assert server.requests[-1] == ("GET", 0 if md5 else 150_000)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path))
    return tmp_path


def test_known_model_is_downloaded_once(server, cache, monkeypatch):
    two = dict.fromkeys(("a", "b"), (server.url, None))
    monkeypatch.setattr(hub, "MODELS", {"one": {"a.bin": (server.url, DIGEST)}, "x/two": two})
    assert hub.fetch_known_model("one") == cache / "one" / "a.bin"
    assert hub.fetch_known_model("x/two") == cache / "x" / "two"
    assert sorted(path.name for path in (cache / "x" / "two").iterdir()) == ["a", "b"]
    server.requests.clear()
    hub.fetch_known_model("one")
    assert server.requests == []


def test_error_without_a_connection_names_the_file_and_its_path(server, cache, monkeypatch):
    server.server_close()
    monkeypatch.setattr(hub, "MODELS", {"one": {"a.bin": (server.url, None)}})
    with pytest.raises(FileNotFoundError) as caught:
        hub.fetch_known_model("one")
    message = str(caught.value)
    assert server.url in message and str(cache / "one" / "a.bin") in message and "\n" not in message
    (cache / "one" / "a.bin").write_bytes(b"by hand")
    assert hub.fetch_known_model("one").read_bytes() == b"by hand"
