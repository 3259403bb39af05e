"""Shards at an address: checked against their index, fetched before they are read, in a cache of bounded size."""

import fcntl
import hashlib
import itertools
import json
import threading
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
from tests.hostile.bad_input.case import make_member
from tests.support.limits import wait_until
from tests.support.misbehaving_server import MisbehavingServer


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "RETRY_PAUSE", 0)
    monkeypatch.setattr(source, "RETRY_PAUSES", (0.01, 0.1))
    return tmp_path / "cache" / "shards"


def make_shard(number):
    """Return a shard of four samples."""
    data = b""
    for row in range(4):
        data += make_member(f"{number}-{row}.png", b"image") + make_member(f"{number}-{row}.txt", b"x")
    return data + bytes(1024)


def make_index(files):
    """Return the index that the preparation writes next to these shards."""
    shards = []
    for name, data in files.items():
        checksum = hashlib.sha256(data).hexdigest()
        shards.append({"name": name, "samples": 4, "bytes": len(data), "sha256": checksum})
    return json.dumps({"shards": shards}).encode()


@contextmanager
def serve_shards(num_shards):
    files = {f"{number}.tar": make_shard(number) for number in range(num_shards)}
    with MisbehavingServer() as server:
        server.files = {**files, "index.json": make_index(files)}
        yield server


def list_cached(cache):
    return sorted(path.name[-5:] for path in cache.glob("[!.]*.tar"))


def test_index_counts_samples_without_a_request_per_shard(cache):
    with serve_shards(50) as server:
        samples = open_sources([f"{server.address}/well/{{0..49}}.tar"])
        assert len(samples) == 200
        assert sum(server.request_counts.values()) <= 2  # for the size of the index, and the index
        assert samples[4 * 7 + 1].image_name == "7-1" and list_cached(cache) == ["7.tar"]


@pytest.mark.parametrize(("manner", "fault"), [("well", "differs from its SHA-256 checksum"), ("half", "broke off")])
def test_shard_that_differs_from_its_index_is_not_used(monkeypatch, manner, fault):
    monkeypatch.setattr(source, "RETRY_SECONDS", 0)
    with serve_shards(1) as server:
        samples = open_sources([f"{server.address}/well/0.tar"])
        server.files["0.tar"], server.manners["0.tar"] = make_shard(0).replace(b"image", b"imagf"), manner
        with pytest.raises(BadSample, match=rf"0\.tar: .*{fault}"):
            samples[0]


def test_sample_is_read_late_when_the_server_fails_for_a_while():
    with serve_shards(1) as server:
        samples = open_sources([f"{server.address}/well/0.tar"])
        server.manners["0.tar"] = "503-then-9"
        with collect_remarks() as remarks:
            assert samples[0].image_name == "0-0"
        assert remarks == [source.LATE_REMARK] and server.request_counts["GET", "503-then-9"] == 10
        with collect_remarks() as remarks:
            assert samples[1].image_name == "0-1"
        assert remarks == []


def test_shards_are_fetched_ahead_and_once_for_all_readers(cache):
    with serve_shards(6) as server:
        readers = [open_sources([f"{server.address}/well/{{0..5}}.tar"]) for _ in range(3)]
        for samples in readers:
            samples.fetch_ahead(0, [2, 3], [5])
            samples.fetch_ahead(1, [0], [])
        wait_until(lambda: all(len(samples._prefetcher._open_files) == 4 for samples in readers))
        assert list_cached(cache) == ["0.tar", "2.tar", "3.tar", "5.tar"]
        num_requests = sum(server.request_counts.values())
        for samples in readers:
            assert [samples[4 * number].image_name for number in (0, 2, 3, 5)] == ["0-0", "2-0", "3-0", "5-0"]
        # Four shards, and the index with its size for each of three readers.
        assert sum(server.request_counts.values()) == num_requests
        assert server.request_counts["GET", "well"] <= 4 + 2 * 3


def test_stream_fetches_its_window_and_the_next_one(cache):
    with serve_shards(8) as server:
        data = f"Data.train=['{server.address}/well/{{0..7}}.tar']"
        stream = SampleStream(load_config(None, [data, "Data.shuffle_buffer=16", "Data.groups=2",
                                                 "Training.global_batch=4"]))  # fmt: skip
        assert not stream.is_local(0)
        # Group 1 reads the last two positions of a batch of four; two windows of 16 positions begin at 16.
        locations = [stream.describe_location(position) for position in range(16, 48) if position % 4 >= 2]
        expected = {location.split("/")[-1][:5] for location in locations}
        stream.fetch_ahead(18)
        wait_until(lambda: set(list_cached(cache)) == expected)
        assert len(expected) == 4


def limit_cache(monkeypatch, num_shards):
    monkeypatch.setenv("ERNIE_VIL2_SHARD_CACHE_GIB", str((num_shards + 0.5) * len(make_shard(0)) / 2**30))


def test_prefetch_never_evicts_open_files(cache, monkeypatch):
    limit_cache(monkeypatch, 2)
    with serve_shards(5) as server:
        files = [RemoteFile(f"{server.address}/well/{number}.tar") for number in range(5)]
        first = files[0].open()
        files[1].open().close()
        second = files[2].open(is_prefetch=True)  # evicts 1, though 0 was used before it
        assert list_cached(cache) == ["0.tar", "2.tar"]
        with pytest.raises(CacheFull):
            files[3].open(is_prefetch=True)
        assert list_cached(cache) == ["0.tar", "2.tar"]
        files[4].open().close()
        assert list_cached(cache) == ["2.tar", "4.tar"]
        assert first.read() == make_shard(0) and second.read() == make_shard(2)


def test_prefetch_stays_within_the_size_of_the_cache(cache, monkeypatch):
    limit_cache(monkeypatch, 3)
    monkeypatch.setattr(Prefetcher, "PAUSE", 0.01)
    with serve_shards(8) as server:
        samples = open_sources([f"{server.address}/well/{{0..7}}.tar"])
        assert samples[0].image_name == "0-0"  # closed, and evicted, when the others are fetched
        samples.fetch_ahead(0, [1, 2], [3, 4, 5, 6, 7])
        wait_until(lambda: len(samples._prefetcher._open_files) == 3)
        assert len(list_cached(cache)) == 3 and "0.tar" not in list_cached(cache)
        assert [samples[4 * number].image_name for number in (1, 2, 7)] == ["1-0", "2-0", "7-0"]
        samples.fetch_ahead(0, [6], [])
        wait_until(lambda: "6.tar" in list_cached(cache))
        wait_until(lambda: len(list_cached(cache)) <= 3)


def test_space_reserved_by_a_killed_process_is_free_again(cache, monkeypatch):
    limit_cache(monkeypatch, 2)
    with serve_shards(3) as server:
        files = [RemoteFile(f"{server.address}/well/{number}.tar") for number in range(3)]
        files[0].open().close()
        (shard,) = cache.glob("[!.]*.tar")
        reserved = cache / f".{shard.name}.reserved"
        reserved.write_bytes(bytes(2 * len(make_shard(0))))
        with reserved.open("rb") as shared:
            fcntl.flock(shared, fcntl.LOCK_SH)
            with pytest.raises(CacheFull):
                files[1].open(is_prefetch=True)
            assert list_cached(cache) == []
        with files[1].open(is_prefetch=True), files[2].open(is_prefetch=True):
            assert list_cached(cache) == ["1.tar", "2.tar"] and not list(cache.glob(".*"))


def test_epoch_from_a_faulty_server_holds_every_sample_once(cache, monkeypatch):
    limit_cache(monkeypatch, 8)  # a third of the shards
    faults = itertools.cycle(["well", "503-then-2", "half-then-1", "half-then-5"])
    with serve_shards(24) as server:
        server.manners = {f"{number}.tar": next(faults) for number in range(24)}
        config = load_config(None, [f"Data.train=['{server.address}/well/{{0..23}}.tar']", "Data.shuffle_buffer=12",
                                    "Training.global_batch=8", "Data.workers=2"])  # fmt: skip
        batches = load_batches(Names(SampleStream(config)), config)
        epoch = list(itertools.islice(batches, 12))
        batches.close()
    names, remarks, expected_names = [], set(), []
    for batch in epoch:
        names += batch["names"]
        remarks.update(remark for remark, _ in batch["remarks"])
    for number in range(24):
        expected_names += [f"{number}-{row}" for row in range(4)]
    assert sorted(names) == sorted(expected_names) and remarks == {source.LATE_REMARK}


class Names(SampleRows):
    """Rows that only read the name of their sample."""

    layout: ClassVar = {"row": ((), np.int8)}

    def fill(self, position, row):
        return self.stream[position][1].image_name


def test_failed_prefetch_is_an_error_only_of_the_reader(monkeypatch):
    monkeypatch.setattr(source, "RETRY_SECONDS", 0)
    threads_before = threading.active_count()
    with serve_shards(2) as server:
        samples = open_sources([f"{server.address}/well/{{0..1}}.tar"])
        samples.max_open_shards = 1
        shard = server.files.pop("0.tar")
        samples.fetch_ahead(0, [0, 1], [])
        wait_until(lambda: samples._prefetcher._num_threads == 0)
        with pytest.raises(BadSample, match="no such file"):
            samples[0]
        server.files["0.tar"] = shard
        with pytest.raises(BadSample, match="file not fetched"):
            samples[1]
        # The shard is fetched again when it is opened after another one.
        with collect_remarks():
            assert samples[4].image_name == "1-0" and samples[0].image_name == "0-0"
    assert threading.active_count() < threads_before + 10
