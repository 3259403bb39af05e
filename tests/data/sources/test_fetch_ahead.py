"""Shards at an address: counted by their index and compared with it, fetched before they are read, within a bound."""

import fcntl
import hashlib
import itertools
import json
import threading
import time
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import pytest

from ernie_vil2.config import load_config
from ernie_vil2.data.decoding import collect_remarks
from ernie_vil2.data.loader import SampleRows, load_batches
from ernie_vil2.data.readers import open_sources, remote, source
from ernie_vil2.data.readers.remote import CacheFull, Prefetcher, RemoteFile
from ernie_vil2.data.samples import BadSample
from ernie_vil2.data.stream import SampleStream
from tests.hostile.bad_input.case import member
from tests.support.limits import PATIENCE
from tests.support.misbehaving_server import MisbehavingServer


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "RETRY_PAUSE", 0)
    monkeypatch.setattr(source, "RETRY_PAUSES", (0.01, 0.1))
    return tmp_path / "cache" / "shards"


def content(number, samples=4):
    rows = [member(f"{number}-{row}.png", b"image") + member(f"{number}-{row}.txt", b"x") for row in range(samples)]
    return b"".join(rows) + bytes(1024)


def index(files, samples=4):
    """What `tools/prepare.py` writes next to these shards."""
    shards = [
        {"name": name, "samples": samples, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    ]
    return json.dumps({"shards": shards}).encode()


@contextmanager
def store(shards, **more):
    files = {f"{number}.tar": content(number) for number in range(shards)}
    with MisbehavingServer() as server:
        server.files = {**files, "index.json": index(files), **more}
        yield server


def cached(cache):
    return sorted(path.name[-5:] for path in cache.glob("[!.]*.tar"))


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_index_counts_shards_without_a_request_for_each(cache):
    with store(50) as server:
        samples = open_sources([f"{server.address}/well/{{0..49}}.tar"])
        assert len(samples) == 200 and sum(server.request_counts.values()) <= 2  # for the index, and its size
        assert samples[4 * 7 + 1].image_name == "7-1" and cached(cache) == ["7.tar"]


@pytest.mark.parametrize(("manner", "fault"), [("well", "differs from its SHA-256 checksum"), ("half", "broke off")])
def test_a_shard_unlike_its_index_is_asked_again_and_not_used(monkeypatch, manner, fault):
    monkeypatch.setattr(source, "RETRY_SECONDS", 0)
    with store(1) as server:
        samples = open_sources([f"{server.address}/well/0.tar"])
        server.files["0.tar"], server.manners["0.tar"] = content(0).replace(b"image", b"imagf"), manner
        with pytest.raises(BadSample, match=rf"0\.tar: .*{fault}"):
            samples[0]


def test_a_store_that_fails_for_a_while_costs_no_sample():
    with store(1) as server:
        samples = open_sources([f"{server.address}/well/0.tar"])
        server.manners["0.tar"] = "503-then-9"
        with collect_remarks() as found:
            assert samples[0].image_name == "0-0"
        assert found == [source.LATE_REMARK] and server.request_counts["GET", "503-then-9"] == 10
        with collect_remarks() as found:
            assert samples[1].image_name == "0-1"
        assert found == []


def test_shards_are_fetched_once_for_all_before_they_are_read(cache):
    with store(6) as server:
        readers = [open_sources([f"{server.address}/well/{{0..5}}.tar"]) for _ in range(3)]
        for samples in readers:
            samples.fetch_ahead(0, [2, 3], [5])
            samples.fetch_ahead(1, [0], [])
        wait_for(lambda: all(len(samples._prefetcher._open_files) == 4 for samples in readers))
        assert cached(cache) == ["0.tar", "2.tar", "3.tar", "5.tar"]
        asked = sum(server.request_counts.values())
        for samples in readers:
            assert [samples[4 * number].image_name for number in (0, 2, 3, 5)] == ["0-0", "2-0", "3-0", "5-0"]
        assert (
            sum(server.request_counts.values()) == asked and server.request_counts["GET", "well"] <= 4 + 2 * 3
        )  # and the indexes


def test_the_stream_names_the_window_that_is_read_and_the_next(cache):
    with store(8) as server:
        data = f"Data.train=['{server.address}/well/{{0..7}}.tar']"
        stream = SampleStream(load_config(None, [data, "Data.shuffle_buffer=16", "Data.groups=2",
                                                 "Training.global_batch=4"]))  # fmt: skip
        assert not stream.is_local(0)
        locations = [stream.describe_location(row) for row in range(16, 48) if row % 4 >= 2]
        expected = {location.split("/")[-1][:5] for location in locations}
        stream.fetch_ahead(18)
        wait_for(lambda: set(cached(cache)) == expected)
        assert len(expected) == 4


def bounded(monkeypatch, shards):
    monkeypatch.setenv("ERNIE_VIL2_SHARD_CACHE_GIB", str((shards + 0.5) * len(content(0)) / 2**30))


def test_open_files_leave_the_cache_last_and_not_for_prefetch(cache, monkeypatch):
    bounded(monkeypatch, 2)
    with store(5) as server:
        files = [RemoteFile(f"{server.address}/well/{number}.tar") for number in range(5)]
        first = files[0].open()
        files[1].open().close()
        second = files[2].open(is_prefetch=True)  # evicts 1, though 0 was used before it
        assert cached(cache) == ["0.tar", "2.tar"]
        with pytest.raises(CacheFull):
            files[3].open(is_prefetch=True)
        assert cached(cache) == ["0.tar", "2.tar"]
        files[4].open().close()
        assert cached(cache) == ["2.tar", "4.tar"]
        assert first.read() == content(0) and second.read() == content(2)


def test_prefetch_stays_within_the_bound_of_the_cache(cache, monkeypatch):
    bounded(monkeypatch, 3)
    monkeypatch.setattr(Prefetcher, "PAUSE", 0.01)
    with store(8) as server:
        samples = open_sources([f"{server.address}/well/{{0..7}}.tar"])
        assert samples[0].image_name == "0-0"  # not open any more when others are read
        samples.fetch_ahead(0, [1, 2], [3, 4, 5, 6, 7])
        wait_for(lambda: len(samples._prefetcher._open_files) == 3)
        assert len(cached(cache)) == 3 and "0.tar" not in cached(cache)
        assert [samples[4 * number].image_name for number in (1, 2, 7)] == ["1-0", "2-0", "7-0"]
        samples.fetch_ahead(0, [6], [])
        wait_for(lambda: "6.tar" in cached(cache))
        wait_for(lambda: len(cached(cache)) <= 3)


def test_room_that_a_killed_process_had_reserved_is_free_again(cache, monkeypatch):
    bounded(monkeypatch, 2)
    with store(3) as server:
        files = [RemoteFile(f"{server.address}/well/{number}.tar") for number in range(3)]
        files[0].open().close()
        (kept,) = cache.glob("[!.]*.tar")
        reserved = cache / f".{kept.name}.reserved"
        reserved.write_bytes(bytes(2 * len(content(0))))
        with reserved.open("rb") as shared:
            fcntl.flock(shared, fcntl.LOCK_SH)
            with pytest.raises(CacheFull):
                files[1].open(is_prefetch=True)
            assert cached(cache) == []
        with files[1].open(is_prefetch=True), files[2].open(is_prefetch=True):
            assert cached(cache) == ["1.tar", "2.tar"] and not list(cache.glob(".*"))


def test_an_epoch_from_a_faulty_store_holds_every_sample_once(cache, monkeypatch):
    """Through two loader processes, with room for a third of the shards in the cache."""
    bounded(monkeypatch, 8)
    faults = itertools.cycle(["well", "503-then-2", "half-then-1", "half-then-5"])
    with store(24) as server:
        server.manners = {f"{number}.tar": next(faults) for number in range(24)}
        config = load_config(None, [f"Data.train=['{server.address}/well/{{0..23}}.tar']", "Data.shuffle_buffer=12",
                                    "Training.global_batch=8", "Data.workers=2"])  # fmt: skip
        batches = load_batches(Names(SampleStream(config)), config)
        epoch = list(itertools.islice(batches, 12))
        batches.close()
    names = [name for batch in epoch for name in batch["names"]]
    assert sorted(names) == sorted(f"{number}-{row}" for number in range(24) for row in range(4))
    assert {remark for batch in epoch for remark, _ in batch["remarks"]} == {source.LATE_REMARK}


class Names(SampleRows):
    """Rows of which only the name counts."""

    layout: ClassVar = {"row": ((), np.int8)}

    def fill(self, position, row):
        return self.stream[position][1].image_name


def test_what_fails_ahead_is_left_to_who_reads_it(monkeypatch):
    """It is tried again when the shard is opened another time."""
    monkeypatch.setattr(source, "RETRY_SECONDS", 0)
    before = threading.active_count()
    with store(2) as server:
        samples = open_sources([f"{server.address}/well/{{0..1}}.tar"])
        samples.max_open_shards = 1
        gone = server.files.pop("0.tar")
        samples.fetch_ahead(0, [0, 1], [])
        wait_for(lambda: samples._prefetcher._num_threads == 0)
        with pytest.raises(BadSample, match="no such file"):
            samples[0]
        server.files["0.tar"] = gone
        with pytest.raises(BadSample, match="file not fetched"):
            samples[1]
        with collect_remarks():
            assert samples[4].image_name == "1-0" and samples[0].image_name == "0-0"
    assert threading.active_count() < before + 10
