"""Preparation of shards: what they hold, what their index counts, and that an interrupted run is completed."""

import gc
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import nullcontext, suppress

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.prepare import Settings, check, prepare
from ernie_vil2.data.readers import ShardedSource, open_sources
from ernie_vil2.data.samples import MAX_TEXT_BYTES, SEVERAL_LINES
from ernie_vil2.data.tags import TagsFile
from ernie_vil2.io.locks import OtherJob
from tests.support.commands import call
from tests.support.paths import ROOT
from tests.support.processes import start_process
from tests.support.published_files import read_all
from tests.support.shapes import draw, encode_png, write_tar, write_tsv


def make_disc(number, size=32):
    return draw((number * 9 % 256, 30, 200), "disc", np.random.default_rng(number), size)


@pytest.fixture
def rows(tmp_path):
    """Write 25 rows: row 3 without a caption, row 7 without an image, rows 11 and 24 equal to row 2."""
    rows = [(f"text {number}", f"id{number % 20}", encode_png(make_disc(number % 20))) for number in range(25)]
    rows[3] = ("", "id3", encode_png(make_disc(3)))
    rows[7] = ("text 7", "id7", b"no image")
    rows[11] = rows[2]
    rows[24] = rows[2]
    return open_sources([str(write_tsv(tmp_path / "a.tsv", rows))])


def read_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".tar", ".json", ".txt")}


SMALL = {"samples_per_shard": 4}


def test_samples_keep_order_images_and_texts(rows, tmp_path):
    index = prepare(rows, tmp_path / "out", Settings(**SMALL), processes=2)
    assert (index.total("samples"), index.bad_samples.counts) == (23, {"empty caption": 1, "broken image": 1})
    samples = read_all(open_sources([str(tmp_path / "out")]))
    good_rows = [row for row in range(25) if row not in (3, 7)]
    for sample, row in zip(samples, good_rows, strict=True):
        assert (sample.image_name, sample.image) == (rows[row].image_name, rows[row].image)
        assert sample.caption("zh") == rows[row].caption("zh")


def test_index_counts_samples_and_has_their_checksums(rows, tmp_path):
    settings = Settings(drop_duplicates=True, short_side=16, **SMALL)
    paths = sorted(tmp_path.rglob("*"))
    check_result = check(rows, settings, processes=2)
    assert sorted(tmp_path.rglob("*")) == paths  # a check writes nothing
    assert [check_result.total(count) for count in ("samples", "duplicates", "bytes")] == [21, 2, 0]

    prepare(rows, tmp_path / "out", settings, processes=1)
    prepare(rows, tmp_path / "parallel", settings, processes=3)
    assert read_files(tmp_path / "out") == read_files(tmp_path / "parallel")
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert (index["samples"], index["num_read"], index["duplicates"]) == (21, 25, 2)
    # Row 24 would be the only one of a seventh shard, but it is a duplicate.
    assert [shard["samples"] for shard in index["shards"]] == [3, 3, 3, 4, 4, 4]
    assert len(read_files(tmp_path / "out")) == 6 + 2
    for shard in index["shards"]:
        path = tmp_path / "out" / shard["name"]
        assert shard["bytes"] == path.stat().st_size
        assert shard["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        with tarfile.open(path) as archive:
            assert len(archive.getnames()) == 2 * shard["samples"]
    assert index["bad_samples"] == check_result.bad_samples.as_dict()
    assert index["bad_samples"]["reasons"]["broken image"] == {"count": 1, "names": ["id7"]}
    report = (tmp_path / "out" / "report.txt").read_text()
    assert "21 samples in 6 shards" in report and "2 duplicates" in report and "broken image: 1 (id7)" in report


def test_images_are_shrunk_and_converted_onto_the_background(tmp_path):
    background = np.array((0, 200, 40))
    pixels = cv2.GaussianBlur(make_disc(1, 60), (0, 0), 2)[:, :40]
    empty = np.zeros((60, 40, 4), np.uint8)
    small, clear = encode_png(make_disc(1, 20)), cv2.imencode(".webp", empty[:20, :20])[1].tobytes()
    images = [
        ("png", encode_png(pixels)),
        ("png", small),
        ("png", cv2.imencode(".png", empty)[1].tobytes()),
        ("webp", clear),
        ("tiff", cv2.imencode(".tiff", empty)[1].tobytes()),
    ]
    members = [(f"{number}.{suffix}", content) for number, (suffix, content) in enumerate(images)]
    members += [(f"{number}.txt", b"x") for number in range(5)]
    source = open_sources([str(write_tar(tmp_path / "a.tar", members))])
    prepare(source, tmp_path / "out", Settings(short_side=20, background=tuple(background.tolist())))
    contents = [sample.image for sample in read_all(open_sources([str(tmp_path / "out")]))]
    assert contents[1] == small and contents[3] == clear  # never enlarged
    with tarfile.open(tmp_path / "out" / "00000.tar") as archive:
        names = [name[8:] for name in archive.getnames() if not name.endswith("json")]
    assert names == ["0.jpg", "1.png", "2.jpg", "3.webp", "4.jpg"]
    # From 60 x 40 to 30 x 20: each pixel is the mean of 2 x 2 pixels, but for what JPEG loses.
    means = pixels.reshape(30, 2, 20, 2, 3).mean((1, 3))
    assert np.abs(decode_image(contents[0], "").astype(float) - means).mean() < 3
    # Transparent images that become a JPEG, because they are larger or a TIFF, show the background.
    for content in (contents[2], contents[4]):
        assert content[:2] == b"\xff\xd8" and np.abs(decode_image(content, "").astype(int) - background).max() <= 3


def test_fields_captions_and_tags_stay_and_new_tags_are_joined(tmp_path):
    fields = {"caption_zh": "猫", "caption_en": " ", "tags_en": ["old"], "tags_zh": ["旧"], "id": "c7", "url": "u"}
    members = [("d/1.png", encode_png(make_disc(1))), ("d/1.json", json.dumps(fields).encode())]
    source = open_sources([str(write_tar(tmp_path / "a.tar", members))])
    (tmp_path / "tags.jsonl").write_text('{"id": "c7", "tags_en": ["cat"]}\n{"id": "d/1", "tags_en": ["other"]}\n')
    for key, expected in (("id", ("cat",)), (None, ("other",))):
        out = tmp_path / str(key)
        index = prepare(source, out, Settings(tags_id=key), [TagsFile(tmp_path / "tags.jsonl")])
        sample = open_sources([str(out)], text_id="id")[0]
        assert sample.image_name == "d/1" and sample.text_name == "c7" and sample.fields["url"] == "u"
        assert sample.captions == {"zh": "猫"}
        assert sample.tags == {"en": expected, "zh": ("旧",)} and index.total("tagged") == 1


def test_only_equal_image_and_caption_are_duplicates(tmp_path):
    first, second = encode_png(make_disc(1)), encode_png(make_disc(2))
    path = write_tsv(tmp_path / "a.tsv", [("x", "1", first), ("y", "2", first), ("x", "3", second), ("x", "4", first)])
    prepare(open_sources([str(path)]), tmp_path / "out", Settings(drop_duplicates=True))
    assert [sample.image_name for sample in read_all(open_sources([str(tmp_path / "out")]))] == ["1", "2", "3"]


def test_duplicate_of_a_sample_without_tags_id_is_kept(tmp_path):
    members = []
    for key, fields in enumerate(({"caption": "x"}, {"caption": "x", "key": 7}, {"caption": "x", "key": 8})):
        members += [(f"{key}.png", encode_png(make_disc(1))), (f"{key}.json", json.dumps(fields).encode())]
    write_tar(tmp_path / "a.tar", members)
    (tmp_path / "tags.jsonl").write_text('{"id": 7, "tags": ["disc"]}\n')
    job = Settings(tags_id="key", drop_duplicates=True)
    index = prepare(open_sources([str(tmp_path / "a.tar")]), tmp_path / "out", job, [TagsFile(tmp_path / "tags.jsonl")])
    assert index.bad_samples.counts == {"missing field": 1} and index.total("duplicates") == 1
    (sample,) = read_all(open_sources([str(tmp_path / "out")]))
    assert sample.image_name == "1" and sample.tags == {"": ("disc",)}


def test_sample_whose_texts_no_reader_takes_is_left_out(tmp_path):
    table = pa.table({
        "image": [encode_png(make_disc(number)) for number in range(2)],
        "caption": ["a", "b"],
        "page": ["x" * MAX_TEXT_BYTES, "y"],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    index = prepare(open_sources([str(tmp_path / "a.parquet")]), tmp_path / "out", Settings())
    assert index.bad_samples.counts == {"more than 4 MiB of text": 1}
    (sample,) = read_all(open_sources([str(tmp_path / "out")]))
    assert sample.fields["page"] == "y"


def test_number_that_json_does_not_have_becomes_null(tmp_path):
    table = {
        "image": [encode_png(make_disc(0))],
        "caption": ["猫"],
        "price": [float("nan")],
        "sizes": [[1.5, float("inf")]],
        "day": pa.array([0], "date32"),
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    prepare(open_sources([str(tmp_path / "a.parquet")]), tmp_path / "out", Settings())
    with tarfile.open(tmp_path / "out" / "00000.tar") as shard:
        text = shard.extractfile("000000000.json").read().decode()
    fields = json.loads(text, parse_constant=pytest.fail)
    assert (fields["price"], fields["sizes"], fields["day"], fields["caption"]) == (
        None,
        [1.5, None],
        "1970-01-01",
        "猫",
    )


def test_check_counts_shared_names_and_captions_of_lines(tmp_path):
    # Keys begin again in each shard: 0 and 3 name two images each, 1 and 2 one each.
    for shard, numbers in (("a", [1, 2, 3, 5]), ("b", [4, 2]), ("c", [1, 2, 3, 6])):
        members = []
        for key, number in enumerate(numbers):
            members += [(f"{key}.png", encode_png(make_disc(number))), (f"{key}.txt", f"{number}\n\n{shard}".encode())]
        write_tar(tmp_path / f"{shard}.tar", members)
    result = check(open_sources([str(tmp_path / "*.tar")]), Settings(samples_per_shard=2), processes=2)
    assert result.shared_names == (2, ["0", "3"]) and result.bad_samples.remarks == {SEVERAL_LINES: 10}


def test_damaged_shards_of_a_finished_output_are_written_again(rows, tmp_path):
    out, settings = tmp_path / "out", Settings(drop_duplicates=True, **SMALL)
    prepare(rows, out, settings)
    expected = read_files(out)
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    (out / "00001.tar").write_bytes(b"damaged")
    (out / "00002.tar").unlink()
    (out / ".00003.tar.1.partial").write_bytes(b"written by a killed run")
    (out / ".1.partial").mkdir()  # where a killed run was writing index and report
    (out / ".1.partial" / "report.txt").write_text("written by a killed run")
    prepare(rows, out, settings, processes=2)
    assert read_files(out) == expected and not list(out.glob(".*.partial"))
    rewritten = {path.name for path, old_time in times.items() if path.stat().st_mtime_ns != old_time}
    assert rewritten == {"00001.tar", "00002.tar"}


class FailingSource(ShardedSource):
    """Source whose row `failing_row` cannot be read."""

    failing_row = None

    def __getitem__(self, index):
        if index == self.failing_row:
            raise RuntimeError("the run ends here")
        return super().__getitem__(index)


class EditedData:
    """TSV file of twelve pairs and a file of their tags; edits change contents, not the number of rows or names."""

    def __init__(self, folder):
        self.folder = folder
        self.texts = {
            "tags": [f"tags{row:02d}" for row in range(12)],
            "caption": [f"caption{row:02d}" for row in range(12)],
        }
        self.images = list(range(12))

    def edit(self, field, row):
        if field == "image":
            self.images[row] = row + 12
        else:
            self.texts[field][row] = self.texts[field][row].upper()

    def run_prepare(self, output, failing_row=None, **options):
        """Prepare the data as they are now, failing at a row unless it is None, and return the files written."""
        rows, tag_lines = [], ["id\ttags\n"]
        for row in range(12):
            rows.append((self.texts["caption"][row], f"id{row}", encode_png(make_disc(self.images[row]))))
            tag_lines.append(f"id{row}\t{self.texts['tags'][row]}\n")
        write_tsv(self.folder / "a.tsv", rows)
        (self.folder / "tags.tsv").write_text("".join(tag_lines))
        source = FailingSource(open_sources([str(self.folder / "a.tsv")]).shards)
        source.failing_row = failing_row
        settings = Settings(samples_per_shard=3, **options)
        with nullcontext() if failing_row is None else suppress(RuntimeError):
            prepare(source, self.folder / output, settings, [TagsFile(self.folder / "tags.tsv")])
        return read_files(self.folder / output)


# Row where a run fails, if it does; then the field and the row that are edited.
EDITS = st.tuples(st.none() | st.integers(0, 11), st.sampled_from(["tags", "caption", "image"]), st.integers(0, 11))


@settings(max_examples=6, phases=[Phase.explicit, Phase.generate])
@given(drop_duplicates=st.booleans(), edits=st.lists(EDITS, min_size=1, max_size=3))
def test_output_of_edited_data_equals_a_fresh_one(tmp_path_factory, drop_duplicates, edits):
    data = EditedData(tmp_path_factory.mktemp("edited"))
    for failing_row, field, row in edits:
        files = data.run_prepare("out", failing_row, drop_duplicates=drop_duplicates)
        if "index.json" in files:  # an index never lists the checksum of another shard
            for shard in json.loads(files["index.json"])["shards"]:
                assert hashlib.sha256(files[shard["name"]]).hexdigest() == shard["sha256"]
        data.edit(field, row)
    completed = data.run_prepare("out", drop_duplicates=drop_duplicates)
    fresh = data.run_prepare("fresh", drop_duplicates=drop_duplicates)
    assert completed == fresh


def test_folder_with_other_files_or_settings_is_refused(rows, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("x")
    with pytest.raises(OtherJob, match="out holds other files"):
        prepare(rows, out, Settings())
    (out / "mine.txt").unlink()
    prepare(rows, out, Settings(**SMALL))
    with pytest.raises(OtherJob, match="other settings"):
        prepare(rows, out, Settings())
    path = out / ".prepare" / "job.json"
    job = json.loads(path.read_text())
    path.write_text(json.dumps(job | {"version": job["version"] + 1}))
    with pytest.raises(OtherJob, match="out names version 2"):
        prepare(rows, out, Settings(**SMALL))


def test_bad_samples_fail_a_check_and_a_run_without_good_ones(tmp_path):
    path = write_tsv(tmp_path / "a.tsv", [("x", "1", encode_png(make_disc(1))), ("y", "2", b"no image")])
    result = call("prepare", path, "--check")
    assert result.returncode == 1 and "broken image: 1 (2)" in result.stdout and result.stderr == ""
    write_tsv(path, [("y", "2", b"no image")])
    with pytest.raises(ValueError, match="(?s)no sample.*broken image: 1"):
        prepare(open_sources([str(path)]), tmp_path / "out", Settings())
    assert not (tmp_path / "out" / "index.json").exists()


def test_killed_run_resumes_and_writes_the_same_bytes(tmp_path):
    gc.collect()  # a file that another test has not closed would be a remark
    image = encode_png(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))  # slow enough to be killed
    members = []
    for number in range(60):
        members += [(f"{number}.png", image), (f"{number}.txt", b"x")]
    options = [write_tar(tmp_path / "a.tar", members), "--short-side", 128, "--samples-per-shard", 4, "--output"]
    assert call("prepare", *options, tmp_path / "whole").returncode == 0
    expected, killed = read_files(tmp_path / "whole"), tmp_path / "killed"
    command = list(map(str, [sys.executable, ROOT / "tools/prepare.py", *options, killed, "--processes", 2]))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = start_process(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(killed.glob("*.tar"))) < 3:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (killed / "index.json").exists()
    for path in killed.glob("*.tar"):
        assert path.read_bytes() == expected[path.name]
    assert call("prepare", *options, killed).returncode == 0
    assert read_files(killed) == expected and len(expected) == 15 + 2
