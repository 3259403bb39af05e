"""Downloads from a server on this machine."""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ernie_vil2.io import hub
from tests.support.misbehaving_server import start_serving

CONTENT = bytes(range(256)) * 1000
DIGEST = hashlib.md5(CONTENT).hexdigest()  # noqa: S324 - the sums that the releases publish


class Server(ThreadingHTTPServer):
    """Serves one file; its attributes say how well, `requests` what was asked for."""

    content, version, announces, ranges, breaks_after, status = CONTENT, '"1"', True, True, None, 200

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
        server, asked = self.server, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        server.requests.append((self.command, int(asked[1]) if asked else 0))
        start = int(asked[1]) if asked and server.ranges else 0
        body = server.content[start:]
        self.send_response(206 if asked and server.ranges and server.status == 200 else server.status)
        if server.announces:
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
def interrupted(server, path):
    """A server whose first answer broke off in the middle."""
    server.breaks_after = 100_000
    with pytest.raises(OSError, match=r"100000 of 256000 bytes"):
        hub.download(server.url, path)
    assert not path.exists()
    server.breaks_after = None
    server.requests.clear()
    return server


def test_a_file_arrives_once_with_progress(server, path, capsys):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: hub.download(server.url, path, DIGEST), range(4)))
    assert path.read_bytes() == CONTENT and list(path.parent.iterdir()) == [path]
    assert [kind for kind, _ in server.requests].count("GET") == 1
    assert "model.pdparams: 100%" in capsys.readouterr().out


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on_where_it_stopped(interrupted, path, ranges):
    interrupted.ranges = ranges
    hub.download(interrupted.url, path)
    assert path.read_bytes() == CONTENT and list(path.parent.iterdir()) == [path]
    assert interrupted.requests == [("HEAD", 0), ("GET", 100_000)]


def test_a_part_that_is_whole_is_not_fetched_again(interrupted, path):
    (part,) = path.parent.iterdir()
    part.write_bytes(CONTENT)
    hub.download(interrupted.url, path)
    assert path.read_bytes() == CONTENT and interrupted.requests == [("HEAD", 0)]


def test_the_part_of_another_version_is_not_continued(interrupted, path):
    interrupted.content, interrupted.version = CONTENT[::-1], '"2"'
    hub.download(interrupted.url, path)
    assert path.read_bytes() == CONTENT[::-1] and interrupted.requests[-1] == ("GET", 0)


def test_a_file_with_another_checksum_is_not_kept(server, path):
    with pytest.raises(ValueError, match="MD5 sum of what arrived is not 0123"):
        hub.download(server.url, path, "0123")
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(("attribute", "value", "reason"), [("announces", False, "how large"), ("status", 404, "404")])
def test_a_server_without_size_or_file_is_named(server, path, attribute, value, reason):
    setattr(server, attribute, value)
    with pytest.raises((OSError, ValueError), match=f"{server.url}.*{reason}"):
        hub.download(server.url, path)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path))
    return tmp_path


def test_a_known_model_comes_from_its_address_once(server, cache, monkeypatch):
    two = dict.fromkeys(("a", "b"), (server.url, None))
    monkeypatch.setattr(hub, "MODELS", {"one": {"a.bin": (server.url, DIGEST)}, "x/two": two})
    assert hub.fetch_known_model("one") == cache / "one" / "a.bin"
    assert hub.fetch_known_model("x/two") == cache / "x" / "two"
    assert sorted(path.name for path in (cache / "x" / "two").iterdir()) == ["a", "b"]
    server.requests.clear()
    hub.fetch_known_model("one")
    assert server.requests == []


def test_without_a_connection_the_file_and_its_place_are_named(server, cache, monkeypatch):
    server.server_close()
    monkeypatch.setattr(hub, "MODELS", {"one": {"a.bin": (server.url, None)}})
    with pytest.raises(FileNotFoundError) as caught:
        hub.fetch_known_model("one")
    message = str(caught.value)
    assert server.url in message and str(cache / "one" / "a.bin") in message and "\n" not in message
    (cache / "one" / "a.bin").write_bytes(b"by hand")
    assert hub.fetch_known_model("one").read_bytes() == b"by hand"
