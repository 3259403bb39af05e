"""Downloads from a server on this machine."""

import hashlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ernie_vil2.io import hub

CONTENT = bytes(range(256)) * 1000


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
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def broken_off(server, path, after=100_000):
    server.breaks_after = after
    with pytest.raises(OSError, match=f"broke off after {after} of 256000 bytes"):
        hub.download(server.url, path)
    server.breaks_after = None
    assert not path.exists()


def test_a_file_arrives_whole_with_progress(server, tmp_path, capsys):
    path = tmp_path / "new" / "model.pdparams"
    hub.download(server.url, path, hashlib.md5(CONTENT).hexdigest())  # noqa: S324  -- a number, not a secret
    assert path.read_bytes() == CONTENT and list(path.parent.iterdir()) == [path]
    assert "model.pdparams: 100%" in capsys.readouterr().out


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    path = tmp_path / "model.pdparams"
    broken_off(server, path)
    hub.download(server.url, path)
    assert path.read_bytes() == CONTENT and list(tmp_path.iterdir()) == [path]
    assert server.requests == [("HEAD", 0), ("GET", 0), ("HEAD", 0), ("GET", 100_000)]


def test_a_part_that_is_whole_is_not_fetched_again(server, tmp_path):
    path = tmp_path / "model.pdparams"
    broken_off(server, path)
    part = next(tmp_path.iterdir())
    part.write_bytes(CONTENT)
    server.requests.clear()
    hub.download(server.url, path)
    assert path.read_bytes() == CONTENT and server.requests == [("HEAD", 0)]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    path = tmp_path / "model.pdparams"
    broken_off(server, path)
    server.ranges = False
    hub.download(server.url, path)
    assert path.read_bytes() == CONTENT


def test_the_part_of_another_version_is_not_continued(server, tmp_path):
    path = tmp_path / "model.pdparams"
    broken_off(server, path)
    server.content, server.version = CONTENT[::-1], '"2"'
    hub.download(server.url, path)
    assert path.read_bytes() == CONTENT[::-1] and server.requests[-1] == ("GET", 0)


def test_a_file_with_another_checksum_is_refused_and_not_kept(server, tmp_path):
    with pytest.raises(ValueError, match="MD5 sum of what arrived is not 0123"):
        hub.download(server.url, tmp_path / "model.pdparams", "0123")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_gives_no_size_or_no_file_is_named(server, tmp_path):
    server.announces = False
    with pytest.raises(ValueError, match=f"{server.url}: the server does not say how large"):
        hub.download(server.url, tmp_path / "model.pdparams")
    server.status = 404
    with pytest.raises(OSError, match=f"{server.url}: the server answers 404"):
        hub.download(server.url, tmp_path / "model.pdparams")


def test_several_that_want_the_same_file_fetch_it_once(server, tmp_path):
    path = tmp_path / "model.pdparams"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: hub.download(server.url, path), range(4)))
    assert path.read_bytes() == CONTENT and list(tmp_path.iterdir()) == [path]
    assert [kind for kind, _ in server.requests].count("GET") == 1


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path))
    return tmp_path


def test_a_known_model_comes_from_its_address_once(server, cache, monkeypatch):
    digest = hashlib.md5(CONTENT).hexdigest()  # noqa: S324  -- a number, not a secret
    monkeypatch.setattr(
        hub, "MODELS", {"one": {"a.bin": (server.url, digest)}, "x/two": dict.fromkeys(("a", "b"), (server.url, None))}
    )
    assert hub.fetch("one") == cache / "one" / "a.bin"
    assert hub.fetch("x/two") == cache / "x" / "two"
    assert sorted(path.name for path in (cache / "x" / "two").iterdir()) == ["a", "b"]
    server.requests.clear()
    hub.fetch("one")
    assert server.requests == []


def test_without_a_connection_the_error_says_which_file_belongs_where(server, cache, monkeypatch):
    server.server_close()
    monkeypatch.setattr(hub, "MODELS", {"one": {"a.bin": (server.url, None)}})
    with pytest.raises(FileNotFoundError) as caught:
        hub.fetch("one")
    message = str(caught.value)
    assert f"fetch {server.url} elsewhere and put it at {cache / 'one' / 'a.bin'}" in message
    (cache / "one" / "a.bin").write_bytes(b"by hand")
    assert hub.fetch("one").read_bytes() == b"by hand"


def test_the_known_models_have_files_and_addresses():
    assert "ernie-vil-2.0-base-zh" in hub.MODELS
    for files in hub.MODELS.values():
        for name, (url, md5) in files.items():
            assert url.startswith("https://") and url.endswith(f"/{name}")
            assert md5 is None or re.fullmatch("[0-9a-f]{32}", md5)
