"""Opening of sources: rows of many shards, cached indexes, layouts, options without effect, and fingerprints."""

import itertools
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from ernie_vil2.data.prepare import Settings, prepare
from ernie_vil2.data.readers import TarSource, open_benchmark, open_benchmarks, open_sources
from ernie_vil2.data.readers.source import EXCERPT_BYTES, MAX_OPEN_SHARDS, ShardedSource, fingerprint
from ernie_vil2.data.readers.webdataset import FilesSource
from ernie_vil2.io import terminal
from tests.hostile.bad_input.case import without_privileges
from tests.support.published_files import make_image, read_all, write_files, write_img2dataset
from tests.support.shapes import write_tar, write_tsv
from tests.support.streams import record_opened_files


class Numbers(list):
    """A shard of numbers that remembers whether it is open."""

    name, open = "numbers", False

    def __getitem__(self, row):
        self.open = True
        return super().__getitem__(row)

    def release(self):
        self.open = False


def test_rows_are_read_with_few_shards_open():
    sizes = np.random.default_rng(0).integers(0, 4, 2 * MAX_OPEN_SHARDS).tolist()
    numbers = iter(range(sum(sizes)))
    shards = [Numbers(itertools.islice(numbers, size)) for size in sizes]
    source = ShardedSource(shards)
    for row in [*range(sum(sizes)), 0, 1, 0, sum(sizes) - 1]:
        assert source[row] == row and sum(shard.open for shard in shards) <= MAX_OPEN_SHARDS
    assert len(source) == sum(sizes) and source.shard_sizes.tolist() == sizes
    with pytest.raises(IndexError):
        source[sum(sizes)]


def test_threads_that_read_at_once_get_their_own_rows(tmp_path):
    for number in range(6):
        members = []
        for row in range(8):
            members += [(f"{number}-{row}.png", make_image(1)), (f"{number}-{row}.txt", b"red")]
        write_tar(tmp_path / f"{number}.tar", members)
    source = open_sources([str(tmp_path / "*.tar")])
    source.max_open_shards = 2  # of six: a thread closes the shards that another one reads
    rows = []
    for start in range(6):
        rows += range(start, len(source), 6)
    rows *= 10
    with ThreadPoolExecutor(8) as threads:
        names = list(threads.map(lambda row: source[row].image_name, rows))
    assert names == [f"{row // 8}-{row % 8}" for row in rows]


@pytest.fixture
def prepared(tmp_path):
    """Prepare two shards of four samples."""
    path = write_tsv(tmp_path / "a.tsv", [(f"text {number}", str(number), make_image(1)) for number in range(8)])
    prepare(open_sources([str(path)]), tmp_path / "prepared", Settings(samples_per_shard=4))
    return tmp_path / "prepared"


def change_index(**values):
    """Return a function that changes values of the second shard in the index of a folder."""

    def change(folder):
        content = json.loads((folder / "index.json").read_text())
        content["shards"][1] |= values
        (folder / "index.json").write_text(json.dumps(content))

    return change


ANOTHER_SAMPLE = [("1.png", make_image(1)), ("1.txt", b"x" * 99_999)]


@pytest.mark.parametrize(
    ("spoil", "sizes", "scanned"),
    [
        (lambda folder: None, [4, 4], set()),
        (lambda folder: write_tar(folder / "00001.tar", ANOTHER_SAMPLE), [4, 1], {"00001.tar"}),
        (lambda folder: (folder / "index.json").write_text('{"shards": [{}]}'), [4, 4], {"00000.tar", "00001.tar"}),
        (change_index(samples=-5), [4, 4], {"00000.tar", "00001.tar"}),
        (change_index(samples=math.inf), [4, 4], {"00000.tar", "00001.tar"}),
        (change_index(samples=10**30), [4, 4], {"00000.tar", "00001.tar"}),
    ],
    ids=["whole", "another shard", "bad index", "negative", "infinite", "too many"],
)
def test_prepared_shards_are_scanned_if_their_index_is_wrong(prepared, monkeypatch, spoil, sizes, scanned):
    spoil(prepared)
    opened_files = record_opened_files(monkeypatch)
    source = open_sources([str(prepared)])
    assert source.shard_sizes.tolist() == sizes and opened_files == scanned
    assert source[0].caption("") == "text 0" and opened_files == scanned | {"00000.tar"}


def test_cached_index_is_used_until_the_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ernie_vil2.data.readers.source.MIN_CACHED_SECONDS", -1)
    path = write_tar(tmp_path / "a.tar", [("1.png", make_image(1)), ("1.txt", b"x")])
    first = TarSource(path)
    with monkeypatch.context() as patch:
        patch.setattr(TarSource, "_scan", lambda self: pytest.fail("scanned again"))
        reopened = TarSource(path)
    assert len(reopened) == 1 and reopened[0] == first[0]
    write_tar(path, [("1.png", make_image(1)), ("1.txt", b"x"), ("2.png", make_image(1)), ("2.txt", b"y")])
    assert len(TarSource(path)) == 2
    for file in (tmp_path / "cache" / "indexes").iterdir():
        file.write_bytes(file.read_bytes()[:-1])  # a damaged index is made again
    assert len(TarSource(path)) == 2


@pytest.mark.parametrize("output_format", ["webdataset", "files", "parquet"])
def test_output_of_img2dataset_is_trained_on_and_scored(tmp_path, output_format):
    folder = str(write_img2dataset(tmp_path / "out", output_format))
    keys = ["000000000", "000000001", "000010000", "000010001"]
    expected = [(key, f"caption {key}", f"image {key}".encode()) for key in keys]
    source, benchmark = open_sources([folder]), open_benchmark(folder)
    samples = [source[row] for row in range(len(source))]
    assert [(sample.image_name, sample.caption("en"), sample.image) for sample in samples] == expected
    assert samples[3].fields["url"] == "https://example.org/000010001" and source.shard_sizes.tolist() == [2, 2]
    pairs = zip(benchmark.images, benchmark.texts, strict=True)
    assert [(image.id, text.text, image.read()) for image, text in pairs] == expected
    suffixes = {"webdataset": [".tar"] * 2, "files": [], "parquet": [".parquet"] * 2}
    assert [path.suffix for path in benchmark.files] == suffixes[output_format]


def test_folder_of_many_tables_is_searched_for_benchmarks_once(tmp_path, monkeypatch):
    row = {"image": "0.png", "text": "x"}
    tables = {f"{number}.jsonl": row for number in range(30)}
    write_files(tmp_path, {"0.png": make_image(1)} | tables)
    searches = []
    search = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: searches.append(pattern) or search(self, pattern))

    num_searches = []
    for pattern in ("0.jsonl", "{0..9}.jsonl", "*.jsonl"):
        searches.clear()
        open_sources([str(tmp_path / pattern)])
        num_searches.append(len(searches))

    assert num_searches[0] == num_searches[1] == num_searches[2]


class Listing:
    """Entries of a folder as `os.scandir` returns them, in an order of the test."""

    def __init__(self, entries):
        self._entries = iter(entries)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._entries)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_folder_that_lists_all_images_first_is_recognised(tmp_path, monkeypatch):
    # As tmpfs and XFS do, if the texts were written after the images.
    files = {f"{number}.jpg": b"" for number in range(1500)} | {f"{number}.txt": "x" for number in range(1500)}
    write_files(tmp_path, files)
    scan_folder = os.scandir

    def list_images_first(folder):
        with scan_folder(folder) as entries:
            return Listing(sorted(entries, key=lambda entry: entry.name.endswith(".txt")))

    monkeypatch.setattr(os, "scandir", list_images_first)
    assert len(open_sources([str(tmp_path)])) == 1500


def test_missing_files_of_a_sample_are_reported(tmp_path):
    source = FilesSource(write_files(tmp_path, {"1.jpg": b"", "2.txt": "x", "3.jpg": b"", "3.txt": "x"}))
    *problems, sample = read_all(source)
    assert problems == ["1: no caption", "2: no image member"] and sample.caption("") == "x"
    (tmp_path / "3.jpg").unlink()
    assert "missing file" in read_all(source)[2]


def test_folder_is_opened_as_its_shards(tmp_path):
    write_tsv(tmp_path / "a.tsv", [("x", "1", b"i")])
    assert open_sources([str(tmp_path)])[0].caption("") == "x"
    # Shards are preferred to the tables that they may be made of.
    write_tar(tmp_path / "b.tar", [("1.jpg", b"i"), ("1.txt", b"tar")])
    assert open_sources([str(tmp_path)])[0].caption("") == "tar"


def test_folder_of_another_user_in_the_data_is_ignored(monkeypatch):
    with TemporaryDirectory() as directory:
        folder = write_files(Path(directory), {"0.png": make_image(1), "train.csv": "image,text\n0.png,x\n"})
        folder.chmod(0o777)
        (folder / "lost+found").mkdir(mode=0)
        monkeypatch.setenv("ERNIE_VIL2_CACHE", str(folder / "cache"))
        with without_privileges():
            assert open_sources([directory])[0].caption("") == "x"


@pytest.mark.parametrize("name", ["", "train.jsonl"])
def test_file_of_another_user_next_to_the_data_is_ignored(name):
    with TemporaryDirectory() as directory:
        files = {"0.png": make_image(1), "train.jsonl": {"image": "0.png", "text": "x"}, "pair.txt": "0#zhm#0 x"}
        folder = write_files(Path(directory), files)
        folder.chmod(0o755)
        (folder / "pair.txt").chmod(0)
        with without_privileges():
            assert open_sources([str(folder / name)])[0].caption("") == "x"


def test_long_command_is_no_name_of_a_folder():
    with pytest.raises(ValueError, match="--allow-pipes"):
        open_sources([f"pipe:cat {'x' * 300}/a.tar | tee a.txt"])


@pytest.mark.parametrize("in_folder", [False, True])
def test_pipe_called_as_a_table_is_refused(tmp_path, in_folder):
    os.mkfifo(tmp_path / "a.tsv")
    with pytest.raises(OSError, match=r"a\.tsv: not an ordinary file"):
        open_sources([str(tmp_path if in_folder else tmp_path / "a.tsv")])


def test_error_on_an_unknown_source_lists_what_is_supported(tmp_path):
    with pytest.raises(ValueError, match="{split}_imgs.tsv"):
        open_sources([str(write_files(tmp_path, {"x_texts.jsonl": "{}\n"}) / "x_texts.jsonl")])
    with pytest.raises(ValueError, match="address"):
        open_sources(["memory://a.csv"])
    write_files(tmp_path / "two", {"a.jsonl": '{"image": "x", "text": "y"}\n', "b.csv": "image,text\nx,y\n"})
    with pytest.raises(ValueError, match="a split of a, b"):
        open_sources([str(tmp_path / "two")])


@pytest.fixture
def data(tmp_path):
    """Write the same pair as a table, as JSON lines, as a shard and as a TSV file."""
    terminal.print_once.cache_clear()  # notes are printed once in a process, which the tests share
    row = {"image": "0.png", "caption": "a cat", "id": "7"}
    write_files(
        tmp_path, {"0.png": make_image(1), "pairs.csv": "image,caption,id\n0.png,a cat,7\n", "pairs.jsonl": row}
    )
    write_tar(tmp_path / "a.tar", [("0.png", make_image(1)), ("0.json", b'{"caption": "a cat", "id": "7"}')])
    write_tsv(tmp_path / "rows.tsv", [("a cat", "7", make_image(1))])
    return tmp_path


OPTIONS = {"encoding": "gb18030", "text_id": "id", "columns": {"caption": "caption"}}
# File -> the options that have an effect on it; the others are ignored with a note.
SUPPORTED_OPTIONS = {
    "pairs.csv": {"encoding", "text_id", "columns"},
    "pairs.jsonl": {"text_id", "columns"},
    "a.tar": {"text_id"},
    "rows.tsv": set(),
}


@pytest.mark.parametrize("open_data", [open_sources, open_benchmarks])
@pytest.mark.parametrize("file", SUPPORTED_OPTIONS)
def test_option_without_effect_is_named(data, capsys, open_data, file):
    for option, value in OPTIONS.items():
        assert len(open_data([str(data / file)], **{option: value})) == 1
        error = capsys.readouterr().err
        assert (f"Data.{option}" in error and file in error) == (option not in SUPPORTED_OPTIONS[file])


def test_option_with_effect_on_one_of_the_files_is_not_named(data, capsys):
    open_sources([str(data / "a.tar"), str(data / "pairs.csv"), str(data / "rows.tsv")], text_id="id", encoding="utf-8")
    assert capsys.readouterr().err == ""


LENGTH = 10 * EXCERPT_BYTES


@pytest.fixture
def large_file(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(os.urandom(LENGTH))
    return path


@pytest.mark.parametrize("position", [0, EXCERPT_BYTES - 1, LENGTH // 2, LENGTH // 2 + EXCERPT_BYTES - 1, LENGTH - 1])
def test_changed_byte_of_an_excerpt_changes_the_fingerprint(large_file, position):
    old_fingerprint, content = fingerprint([large_file]), bytearray(large_file.read_bytes())
    content[position] ^= 1
    large_file.write_bytes(content)
    assert len(old_fingerprint) == 16 and fingerprint([large_file]) != old_fingerprint


def test_fingerprint_depends_on_the_size_and_not_on_the_name(tmp_path):
    (tmp_path / "a.tar").write_bytes(bytes(LENGTH))
    old_fingerprint = fingerprint([tmp_path / "a.tar"])
    assert fingerprint([(tmp_path / "a.tar").rename(tmp_path / "b.tar")]) == old_fingerprint
    (tmp_path / "b.tar").write_bytes(bytes(LENGTH + 1))
    assert fingerprint([tmp_path / "b.tar"]) != old_fingerprint


@pytest.mark.parametrize(("name", "content"), [("2.txt", b"B"), ("3.txt", b"bb"), ("4.txt", b"b")])
def test_fingerprint_of_a_folder_changes_with_its_files(tmp_path, name, content):
    for number in (1, 2, 3):
        (tmp_path / f"{number}.txt").write_bytes(b"b")
    old_fingerprint = fingerprint([tmp_path])
    (tmp_path / ".hidden").write_bytes(b"written by a file manager")
    assert fingerprint([tmp_path]) == old_fingerprint
    (tmp_path / name).write_bytes(content)
    assert fingerprint([tmp_path]) != old_fingerprint
