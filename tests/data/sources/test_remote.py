"""Shards behind pipes and addresses: fetched once, asked for again where that helps, kept in a bounded cache."""

import json
import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pytest
from aiohttp import ClientResponseError

from ernie_vil2.data.readers import open_sources, remote, source
from ernie_vil2.data.readers.locations import pipes_allowed
from ernie_vil2.data.readers.remote import FetchError, PipeOutput, RemoteFile, cache_bytes
from tests.hostile.bad_input.case import make_member
from tests.support.misbehaving_server import MisbehavingServer
from tests.support.shapes import write_tar

MEMBERS = [("1.png", b"image"), ("1.txt", b"x")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "RETRY_PAUSE", 0)
    monkeypatch.setattr(source, "RETRY_SECONDS", 0)
    with pipes_allowed():
        yield tmp_path / "cache" / "shards"


def list_cached(cache):
    return [path for path in cache.iterdir() if path.is_file()]


def read_captions(*patterns):
    samples = open_sources(patterns)
    return [samples[row].caption("") for row in range(len(samples))]


def store(name, content):
    """Store a file in memory and return its address."""
    fsspec.filesystem("memory").pipe(f"/{name}", content)
    return f"memory://{name}"


def test_pipe_runs_once(tmp_path, cache):
    write_tar(tmp_path / "a.tar", MEMBERS)
    command = f"pipe:echo run >> {tmp_path}/runs; cat {tmp_path}/a.tar"
    assert read_captions(command) == read_captions(command) == ["x"]
    assert (tmp_path / "runs").read_text() == "run\n" and len(list_cached(cache)) == 1


@pytest.mark.parametrize("output", ["", "<html>Try again later</html>"])
def test_output_that_is_no_shard_is_not_kept(tmp_path, cache, output):
    path = tmp_path / "a.tar"
    path.write_text(output)
    with pytest.raises(ValueError, match="not a tar shard"):
        read_captions(f"pipe:cat {path}")
    assert list_cached(cache) == []
    write_tar(path, MEMBERS)
    assert read_captions(f"pipe:cat {path}") == ["x"]


@pytest.mark.parametrize("command", ["echo oh no >&2; exit 3", "(echo oh no >&2; exit 3) | cat"])
def test_error_of_a_failed_command_quotes_its_output(cache, command):
    with pytest.raises(OSError, match="status 3: oh no"):
        PipeOutput(command).open()
    assert list_cached(cache) == []


def test_file_at_an_address_is_fetched_once_until_it_changes(tmp_path, cache):
    content = write_tar(tmp_path / "a.tar", MEMBERS).read_bytes()
    for number in range(3):
        store(f"{number:02d}.tar", content)
    assert read_captions("memory://{00..02}.tar") == read_captions("memory://0?.tar") == ["x"] * 3
    assert len(list_cached(cache)) == 3
    store("01.tar", write_tar(tmp_path / "b.tar", [*MEMBERS, ("2.png", b""), ("2.txt", b"y")]).read_bytes())
    assert read_captions("memory://01.tar") == ["x", "y"]


class QuietHandler(SimpleHTTPRequestHandler):
    """Handler of Python's own server, which sends Last-Modified and no ETag."""

    def log_message(self, *_):
        pass


def test_file_of_equal_size_is_fetched_again_if_its_date_has_changed(tmp_path):
    path = tmp_path / "a.bin"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=tmp_path)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        contents = []
        for content, date in ((b"old", 10**9), (b"new", 10**9 + 1)):
            path.write_bytes(content)
            os.utime(path, (date, date))
            with RemoteFile(f"http://127.0.0.1:{server.server_port}/a.bin").open() as file:
                contents.append(file.read())
        server.shutdown()
    assert contents == [b"old", b"new"]


@pytest.mark.parametrize("suffix", ["", "?x.tar", "/*.tar"])
def test_code_in_a_file_of_references_does_not_run(tmp_path, suffix):
    code = f"{{{{ cycler.__init__.__globals__.os.mkdir('{tmp_path}/harm') }}}}"
    references = {"version": 1, "refs": {}, "gen": [{"key": code, "url": "", "dimensions": {"i": [1]}}]}
    (tmp_path / "a.tar").write_text(json.dumps(references))
    address = f"reference::file://{tmp_path}/a.tar{suffix}"
    (tmp_path / "list.txt").write_text(address)
    for location in (address, str(tmp_path / "list.txt")):
        with pytest.raises(ValueError, match="chain of addresses"):
            open_sources([location])
    assert not (tmp_path / "harm").exists()


SHARD = b"".join(make_member(f"{row}.png", b"image") + make_member(f"{row}.txt", b"x") for row in range(50)) + bytes(
    1024
)
THREE_ATTEMPTS = ".*attempts made: 3"


@pytest.mark.parametrize(("manner", "fault", "num_requests"), [
    ("404", "404", 1),
    ("302", "circle", 10),  # one attempt follows ten times
    ("429", "429" + THREE_ATTEMPTS, 3),
    ("garbage", "400", 1),
    ("half", "broke off" + THREE_ATTEMPTS, 3),
    ("503-then-3", "503" + THREE_ATTEMPTS, 3),
    ("503-then-2", None, 3),
    ("half-then-2", None, 3),
    ("unannounced", None, 2),  # one of them for the size
])  # fmt: skip
def test_request_is_repeated_only_where_that_helps(cache, manner, fault, num_requests):
    with MisbehavingServer(a_tar=SHARD) as server:
        file = RemoteFile(f"{server.address}/{manner}/a.tar?signature=secret")
        if fault:
            # The signature is a secret: it is not printed.
            with pytest.raises(FetchError, match=f"^{server.address}/{manner}/a.tar: .*{fault}"):
                file.open()
            assert not cache.exists() or list_cached(cache) == []
        else:
            with file.open() as opened:
                assert opened.read() == SHARD
    assert max(count for (_, path), count in server.request_counts.items() if path == manner) == num_requests


@pytest.mark.parametrize("query", ["?download=1", "?name=a.tar", "?signature=secret/secret"])
def test_query_of_an_address_does_not_hide_the_layout(cache, query):
    with MisbehavingServer(a_tar=SHARD, a_csv=b"") as server:
        assert read_captions(f"{server.address}/well/a.tar{query}") == ["x"] * 50
        (cached_file,) = list_cached(cache)
        assert cached_file.name.endswith("-a.tar")  # without the signature
        with pytest.raises(ValueError, match="no known layout") as error:
            read_captions(f"{server.address}/well/a.csv?signature=secret")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("manner", ["endless", "unannounced"])
def test_download_stops_at_the_size_of_the_cache(cache, monkeypatch, manner):
    monkeypatch.setenv("ERNIE_VIL2_SHARD_CACHE_GIB", str(10_000 / 2**30))
    with MisbehavingServer(a_tar=SHARD) as server, pytest.raises(OSError, match="10000 bytes"):
        RemoteFile(f"{server.address}/{manner}/a.tar").open()
    assert list_cached(cache) == []


def test_request_is_not_repeated_after_the_deadline(monkeypatch):
    monkeypatch.setattr(remote, "REQUEST_DEADLINE", -1)
    with MisbehavingServer(a_tar=SHARD) as server, pytest.raises(FetchError, match="503 .*attempts made: 1"):
        RemoteFile(f"{server.address}/503/a.tar").open()
    assert server.request_counts["GET", "503"] == 1


def test_short_download_is_repeated_and_then_reported(cache, monkeypatch):
    lengths = [4, 4, 8, 4, 4, 4]  # of the downloads: the third of a.bin is whole, none of b.bin

    def write_some_bytes(self, source, target, **_):
        Path(target).write_bytes(b"12345678"[: lengths.pop(0)])

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "get_file", write_some_bytes)
    with RemoteFile(store("a.bin", b"12345678")).open() as file:
        assert file.read() == b"12345678"
    with pytest.raises(OSError, match="4 of 8 bytes"):
        RemoteFile(store("b.bin", b"12345678")).open()
    assert not lengths and len(list_cached(cache)) == 1


def test_full_cache_drops_the_least_recently_used_file(cache, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_SHARD_CACHE_GIB", str(2500 / 2**30))  # two files of 1,000 bytes
    files = [RemoteFile(store(f"{name}.bin", name.encode() * 1000)) for name in "abc"]
    opened = [file.open() for file in files[:2]]
    for position, path in enumerate(sorted(list_cached(cache), key=lambda path: path.name[-5:])):
        os.utime(path, (position, position))
    files[0].open().close()  # b is now the least recently used one
    opened.append(files[2].open())
    assert sorted(path.name[-5:] for path in list_cached(cache)) == ["a.bin", "c.bin"]
    assert [file.read() for file in opened] == [b"a" * 1000, b"b" * 1000, b"c" * 1000]
    with files[1].open() as reopened:
        assert reopened.read() == b"b" * 1000
    with pytest.raises(OSError, match="2500 bytes; raise ERNIE_VIL2_SHARD_CACHE_GIB"):
        RemoteFile(store("d.bin", bytes(3000))).open()


def test_open_files_make_room_after_unused_ones_are_gone(cache, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_SHARD_CACHE_GIB", str(3500 / 2**30))
    files = [RemoteFile(store(f"{name}.bin", name.encode() * 1000)) for name in "fgh"]
    files[0].open().close()
    opened = [file.open() for file in files[1:]]
    sizes_of_others = []

    def fetch(path):
        sizes_of_others.extend(file.stat().st_size for file in list_cached(cache) if file.suffix == ".bin")
        path.write_bytes(bytes(3000))

    opened.append(remote.open_cached("large", "large.bin", fetch, 3000))
    assert sum(sizes_of_others) + 3000 <= 3500
    for file in opened:
        file.close()


def test_answer_without_a_reason_is_quoted_by_its_number():
    def refuse():
        raise FileNotFoundError from ClientResponseError(None, (), status=404, message="")

    with pytest.raises(FetchError, match=r"\(404\)"):
        remote.ask_server("http://127.0.0.1/a.tar", refuse)


@pytest.mark.parametrize("value", ["much", "0", "nan"])
def test_invalid_size_of_the_cache_is_refused(monkeypatch, value):
    monkeypatch.setenv("ERNIE_VIL2_SHARD_CACHE_GIB", value)
    with pytest.raises(ValueError, match=f"ERNIE_VIL2_SHARD_CACHE_GIB={value}"):
        cache_bytes()


def test_partial_files_of_killed_processes_take_no_room(cache, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_SHARD_CACHE_GIB", str(2500 / 2**30))
    files = [RemoteFile(store(f"{name}.bin", name.encode() * 1000)) for name in "ij"]
    files[0].open().close()
    # Of a file that nobody asks for any more, such as one whose signed address has expired.
    (cache / ".old.bin.999.partial").write_bytes(bytes(2000))
    (cache / ".old.bin.reserved").write_bytes(bytes(3000))
    files[1].open().close()
    assert sorted(path.name[-5:] for path in list_cached(cache)) == ["i.bin", "j.bin"]


@pytest.mark.parametrize("name", ["e.bin", "e[1].bin", "e**.bin", "图" * 80 + ".bin"])
def test_partial_file_of_a_killed_process_is_removed(cache, name):
    file = RemoteFile(store(name, b"12"))
    file.open().close()
    (cached_file,) = list_cached(cache)
    cached_file.unlink()
    (cache / f".{cached_file.name}.999.partial").write_bytes(b"1")
    file.open().close()
    assert list_cached(cache) == [cached_file]
