from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ernie_vil2.data.prepare import prepare
from ernie_vil2.data.prepare_shards import Settings
from ernie_vil2.data.readers import TarSource, open_sources
from ernie_vil2.data.readers.shard_files import LocalFile
from ernie_vil2.data.readers.source import OPEN_SHARDS, ShardedSource
from ernie_vil2.data.samples import BadSample
from tests.support.shapes import draw, png, write_tar, write_tsv

IMAGE = png(draw((200, 30, 30), "disc", np.random.default_rng(0)))


class Numbers(list):
    """A shard of numbers that remembers whether it is open."""

    name, open = "numbers", False

    def __getitem__(self, row):
        self.open = True
        return super().__getitem__(row)

    def release(self):
        self.open = False


def test_shards_of_random_sizes_find_every_row():
    rng = np.random.default_rng(0)
    parts = [rng.random(rng.integers(4)).tolist() for _ in range(20)]
    source = ShardedSource([Numbers(part) for part in parts])
    assert [source[i] for i in range(len(source))] == [value for part in parts for value in part]
    with pytest.raises(IndexError):
        source[len(source)]
    assert source.shard_sizes.tolist() == [len(part) for part in parts]


def test_a_bounded_number_of_shards_is_open_at_once():
    shards = [Numbers([number]) for number in range(2 * OPEN_SHARDS)]
    source = ShardedSource(shards)
    for order in (range(len(source)), [0, 1, 0, len(source) - 1]):
        for index in order:
            assert source[index] == index and shards[index].open
            assert sum(shard.open for shard in shards) <= OPEN_SHARDS


def test_threads_that_read_at_once_get_their_own_rows(tmp_path):
    """Of more shards than may be open, so that each thread lets go of what another reads."""
    for number in range(6):
        members = []
        for row in range(8):
            members += [(f"{number}-{row}.png", IMAGE), (f"{number}-{row}.txt", b"red")]
        write_tar(tmp_path / f"{number}.tar", members)
    source = open_sources([str(tmp_path / "*.tar")])
    source.most_open = 2
    rows = [row for start in range(6) for row in range(start, len(source), 6)] * 10
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda row: source[row].image_name, rows))
    assert read == [f"{row // 8}-{row % 8}" for row in rows]


@pytest.fixture
def prepared(tmp_path):
    """Two shards of four samples as `tools/prepare.py` leaves them."""
    path = write_tsv(tmp_path / "a.tsv", [(f"text {number}", str(number), IMAGE) for number in range(8)])
    prepare(open_sources([str(path)]), tmp_path / "prepared", Settings(samples_per_shard=4))
    return tmp_path / "prepared"


OTHER = [("1.png", IMAGE), ("1.txt", b"x" * 99_999)]


@pytest.mark.parametrize(
    ("spoil", "sizes", "scanned"),
    [
        (lambda folder: None, [4, 4], set()),
        (lambda folder: write_tar(folder / "00001.tar", OTHER), [4, 1], {"00001.tar"}),
        (lambda folder: (folder / "index.json").write_text('{"shards": [{}]}'), [4, 4], {"00000.tar", "00001.tar"}),
    ],
    ids=["whole", "another shard", "bad index"],
)
def test_prepared_shards_are_scanned_where_their_index_is_wrong(prepared, monkeypatch, spoil, sizes, scanned):
    spoil(prepared)
    names, read = set(), LocalFile.open
    monkeypatch.setattr(LocalFile, "open", lambda self: names.add(self.name.rpartition("/")[2]) or read(self))
    source = open_sources([str(prepared)])
    assert source.shard_sizes.tolist() == sizes and names == scanned
    assert source[0].caption("") == "text 0" and names == scanned | {"00000.tar"}


def test_a_shard_unlike_its_index_makes_bad_samples(prepared):
    shard = prepared / "00000.tar"
    shard.write_bytes(b"-" * shard.stat().st_size)
    source = open_sources([str(prepared)])
    with pytest.raises(BadSample, match="00000.tar.*unreadable file"):
        source[0]
    assert source[4].caption("") == "text 4"


def test_an_index_that_took_long_is_kept_until_the_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ernie_vil2.data.readers.indexed_file.WORTH_KEEPING", -1)
    path = write_tar(tmp_path / "a.tar", [("1.png", IMAGE), ("1.txt", b"x")])
    first = TarSource(path)
    with monkeypatch.context() as patch:
        patch.setattr(TarSource, "_scan", lambda self: pytest.fail("scanned again"))
        again = TarSource(path)
    assert len(again) == 1 and again[0] == first[0]
    write_tar(path, [("1.png", IMAGE), ("1.txt", b"x"), ("2.png", IMAGE), ("2.txt", b"y")])
    assert len(TarSource(path)) == 2
    for stored in (tmp_path / "cache" / "indexes").iterdir():
        stored.write_bytes(stored.read_bytes()[:-1])
    assert len(TarSource(path)) == 2
