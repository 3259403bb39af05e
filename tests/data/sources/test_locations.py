import http.server
import os
import threading
from functools import partial

import fsspec
import pytest

from ernie_vil2.data.sources import open_sources
from ernie_vil2.data.sources.fetching import cache_bytes
from ernie_vil2.data.sources.locations import LocalFile, PipeOutput, RemoteFile
from tests.conftest import write_tar

MEMBERS = [("1.png", b"image"), ("1.txt", b"x")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ernie_vil2.data.sources.locations.PAUSE", 0)
    return tmp_path / "cache" / "shards"


def fetched(cache):
    return [path for path in cache.iterdir() if path.is_file()]


def captions(*patterns):
    source = open_sources(patterns)
    return [source[row].caption("") for row in range(len(source))]


def remote(name, content):
    fsspec.filesystem("memory").pipe(f"/{name}", content)
    return f"memory://{name}"


def test_a_pipe_runs_once(tmp_path, cache):
    write_tar(tmp_path / "a.tar", MEMBERS)
    command = f"pipe:echo run >> {tmp_path}/runs; cat {tmp_path}/a.tar"
    assert captions(command) == captions(command) == ["x"]
    assert (tmp_path / "runs").read_text() == "run\n" and len(fetched(cache)) == 1


def test_a_range_in_a_pipe_is_a_command_each(tmp_path):
    for number in range(3):
        write_tar(tmp_path / f"{number}.tar", [("1.png", b"image"), ("1.txt", b"%d" % number)])
    assert captions(f"pipe:cat {tmp_path}/{{0..2}}.tar") == ["0", "1", "2"]


@pytest.mark.parametrize("command", ["echo oh no >&2; exit 3", "(echo oh no >&2; exit 3) | cat"])
def test_a_command_that_fails_is_told_with_what_it_said(cache, command):
    with pytest.raises(OSError, match="status 3: oh no"):
        PipeOutput(command).open()
    assert fetched(cache) == []


def test_an_address_is_fetched_once(tmp_path, cache):
    content = write_tar(tmp_path / "a.tar", MEMBERS).read_bytes()
    for number in range(3):
        remote(f"{number:02d}.tar", content)
    assert captions("memory://{00..02}.tar") == captions("memory://0?.tar") == ["x"] * 3
    assert len(fetched(cache)) == 3


def test_an_address_over_http(tmp_path, cache):
    write_tar(tmp_path / "a.tar", MEMBERS)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert captions(f"{address}/a.tar") == ["x"]
        with pytest.raises(FileNotFoundError, match="b.tar: no such file"):
            open_sources([f"{address}/b.tar"])
        server.shutdown()
    assert len(fetched(cache)) == 1


def test_an_address_that_changes_is_fetched_again(tmp_path):
    address = remote("a.tar", write_tar(tmp_path / "a.tar", MEMBERS).read_bytes())
    assert captions(address) == ["x"]
    remote("a.tar", write_tar(tmp_path / "b.tar", [*MEMBERS, ("2.png", b""), ("2.txt", b"y")]).read_bytes())
    assert captions(address) == ["x", "y"]


def test_too_few_bytes_are_asked_for_again_and_then_told(cache, monkeypatch):
    address = remote("a.bin", b"12345678")
    asked = []

    def cut(times, self, source, target, **_):
        asked.append(source)
        with open(target, "wb") as file:
            file.write(b"12345678"[: 4 if len(asked) <= times else 8])

    system = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(system, "get_file", lambda *a, **k: cut(2, *a, **k))
    with RemoteFile(address).open() as file:
        assert file.read() == b"12345678" and len(asked) == 3
    asked.clear()
    monkeypatch.setattr(system, "get_file", lambda *a, **k: cut(9, *a, **k))
    with pytest.raises(OSError, match="4 of 8 bytes arrived"):
        RemoteFile(remote("b.bin", b"12345678")).open()
    assert len(asked) == 3 and len(fetched(cache)) == 1


def test_the_cache_is_bounded_and_the_oldest_goes_first(cache, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_SHARD_CACHE_GIB", str(2500 / 2**30))
    files = [RemoteFile(remote(f"{name}.bin", name.encode() * 1000)) for name in "abc"]
    opened = [file.open() for file in files[:2]]
    for place, path in enumerate(sorted(fetched(cache), key=lambda path: path.name[-5:])):
        os.utime(path, (place, place))
    files[0].open().close()  # so that b is the one that was not used for longest
    opened.append(files[2].open())
    assert sorted(path.name[-5:] for path in fetched(cache)) == ["a.bin", "c.bin"]
    assert [file.read() for file in opened] == [b"a" * 1000, b"b" * 1000, b"c" * 1000]
    with files[1].open() as again:
        assert again.read() == b"b" * 1000
    with pytest.raises(OSError, match="do not fit into the cache of 2500 bytes; raise ERNIE_VIL2_SHARD_CACHE_GIB"):
        RemoteFile(remote("d.bin", bytes(3000))).open()


@pytest.mark.parametrize("value", ["much", "0", "-1", "inf", "nan"])
def test_a_bound_that_is_none_is_refused(monkeypatch, value):
    monkeypatch.setenv("ERNIE_VIL2_SHARD_CACHE_GIB", value)
    with pytest.raises(ValueError, match=f"ERNIE_VIL2_SHARD_CACHE_GIB={value}"):
        cache_bytes()


def test_what_is_not_installed_is_told():
    with pytest.raises(ValueError, match="nowhere://a.tar: fsspec cannot open it"):
        open_sources(["nowhere://a.tar"])


def test_what_a_killed_process_left_is_removed(cache):
    file = RemoteFile(remote("e.bin", b"12"))
    file.open().close()
    (whole,) = fetched(cache)
    whole.unlink()
    (cache / f".{whole.name}.999.partial").write_bytes(b"1")
    file.open().close()
    assert fetched(cache) == [whole]


def test_a_local_file_is_another_when_it_changes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1")
    before = LocalFile(path).identity()
    path.write_bytes(b"12")
    assert LocalFile(path).identity() != before
