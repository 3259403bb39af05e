import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.prepare import Settings, check, prepare
from ernie_vil2.data.readers import ShardedSource, open_sources
from ernie_vil2.data.samples import SEVERAL_LINES
from ernie_vil2.data.tags import TagsFile
from ernie_vil2.io.locks import OtherJob
from tests.support.commands import call
from tests.support.processes import start_process
from tests.support.shapes import draw, png, write_tar, write_tsv

ROOT = Path(__file__).parents[3]


def jpeg(pixels):
    return cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()


def image(number, size=32):
    return draw((number * 9 % 256, 30, 200), "disc", np.random.default_rng(number), size)


@pytest.fixture
def rows(tmp_path):
    """25 rows of a TSV, some of them bad, some twice."""
    rows = [(f"text {number}", f"id{number % 20}", png(image(number % 20))) for number in range(25)]
    rows[3] = ("", "id3", png(image(3)))
    rows[7] = ("text 7", "id7", b"no image")
    rows[11] = rows[2]
    rows[24] = rows[2]
    return open_sources([str(write_tsv(tmp_path / "a.tsv", rows))])


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".tar", ".json", ".txt")}


SMALL = {"samples_per_shard": 4}


def test_samples_keep_order_images_and_texts(rows, tmp_path):
    index = prepare(rows, tmp_path / "out", Settings(**SMALL), processes=2)
    assert (index.total("samples"), index.bad_samples.counts) == (23, {"empty caption": 1, "broken image": 1})
    read = open_sources([str(tmp_path / "out")])
    good = [row for row in range(25) if row not in (3, 7)]
    assert [(s.image_name, s.image, s.caption("zh")) for s in map(read.__getitem__, range(len(read)))] == [
        (s.image_name, s.image, s.caption("zh")) for s in map(rows.__getitem__, good)
    ]


def test_the_output_does_not_depend_on_the_number_of_processes(rows, tmp_path):
    settings = Settings(short_side=16, drop_duplicates=True, **SMALL)
    for processes in (1, 3):
        prepare(rows, tmp_path / str(processes), settings, processes=processes)
    one, three = files(tmp_path / "1"), files(tmp_path / "3")
    assert one == three and len(one) == 6 + 2


def test_the_index_counts_and_sums_what_is_there(rows, tmp_path):
    prepare(rows, tmp_path / "out", Settings(drop_duplicates=True, **SMALL))
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert (index["samples"], index["read"], index["duplicates"]) == (21, 25, 2)
    assert [shard["samples"] for shard in index["shards"]] == [3, 3, 3, 4, 4, 4]
    for shard in index["shards"]:
        path = tmp_path / "out" / shard["name"]
        assert shard["bytes"] == path.stat().st_size
        assert shard["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        with tarfile.open(path) as archive:
            assert len(archive.getnames()) == 2 * shard["samples"]
    # Row 24, the only one of the last shard, is a duplicate: there is no such shard.
    assert not (tmp_path / "out" / "00006.tar").exists()
    assert index["bad_samples"]["reasons"]["broken image"] == {"count": 1, "names": ["id7"]}
    report = (tmp_path / "out" / "report.txt").read_text()
    assert "21 samples in 6 shards" in report and "2 duplicates dropped" in report and "broken image: 1 (id7)" in report


def test_an_image_is_made_smaller_never_larger(tmp_path):
    pixels = cv2.GaussianBlur(image(1, 60), (0, 0), 2)[:, :40]
    members = [("big.png", png(pixels)), ("big.txt", b"x"), ("small.png", png(image(1, 20))), ("small.txt", b"y")]
    members += [("tiff.jpg", cv2.imencode(".tiff", pixels)[1].tobytes()), ("tiff.txt", b"z")]
    prepare(open_sources([str(write_tar(tmp_path / "a.tar", members))]), tmp_path / "out", Settings(short_side=20))
    big, small, tiff = map(open_sources([str(tmp_path / "out")]).__getitem__, range(3))
    assert decode_image(big.image, "").shape == (30, 20, 3) and big.image[:2] == b"\xff\xd8"
    # 60 x 40 to 30 x 20 by areas is the mean of 2 x 2 pixels.
    mean = pixels.reshape(30, 2, 20, 2, 3).mean((1, 3))
    assert np.abs(decode_image(big.image, "").astype(float) - mean).mean() < 3
    assert small.image == png(image(1, 20)) and decode_image(tiff.image, "").shape == (30, 20, 3)
    with tarfile.open(tmp_path / "out" / "00000.tar") as archive:
        assert [name for name in archive.getnames() if not name.endswith("json")] == [
            "000000000.jpg", "000000001.png", "000000002.jpg",
        ]  # fmt: skip


def test_what_becomes_jpeg_is_put_on_the_background(tmp_path):
    """Made smaller, or of a format that a shard does not hold; what keeps its bytes keeps its transparency."""
    background = (0, 200, 40)
    empty = np.zeros((40, 60, 4), np.uint8)
    members = []
    for number, suffix in enumerate(("png", "webp", "tiff")):
        content = cv2.imencode(f".{suffix}", empty[:20, :20] if suffix == "webp" else empty)[1].tobytes()
        members += [(f"{number}.{suffix}", content), (f"{number}.txt", b"x")]
    source = open_sources([str(write_tar(tmp_path / "a.tar", members))])
    prepare(source, tmp_path / "out", Settings(short_side=20, background=background))
    png_, webp, tiff = map(open_sources([str(tmp_path / "out")]).__getitem__, range(3))
    for made in (png_, tiff):
        assert made.image[:2] == b"\xff\xd8"
        assert np.abs(decode_image(made.image, "").astype(int) - background).max() <= 3
    assert webp.image == source[1].image


def test_fields_captions_and_tags_stay_and_tags_are_joined(tmp_path):
    fields = {"caption_zh": "猫", "caption_en": " ", "tags_en": ["old"], "tags_zh": ["旧"], "id": "c7", "url": "u"}
    members = [("d/1.png", png(image(1))), ("d/1.json", json.dumps(fields).encode())]
    source = open_sources([str(write_tar(tmp_path / "a.tar", members))])
    (tmp_path / "tags.jsonl").write_text('{"id": "c7", "tags_en": ["cat"]}\n{"id": "d/1", "tags_en": ["other"]}\n')
    for key, expected in (("id", ("cat",)), (None, ("other",))):
        out = tmp_path / str(key)
        index = prepare(source, out, Settings(tags_id=key), [TagsFile(tmp_path / "tags.jsonl")])
        sample = open_sources([str(out)], "id")[0]
        assert sample.image_name == "d/1" and sample.text_name == "c7" and sample.fields["url"] == "u"
        assert sample.captions == {"zh": "猫"}
        assert sample.tags == {"en": expected, "zh": ("旧",)} and index.total("tagged") == 1


def test_only_equal_image_and_caption_are_duplicates(tmp_path):
    one, two = png(image(1)), png(image(2))
    rows = [("x", "1", one), ("y", "2", one), ("x", "3", two), ("x", "4", one)]
    prepare(open_sources([str(write_tsv(tmp_path / "a.tsv", rows))]), tmp_path / "out", Settings(drop_duplicates=True))
    read = open_sources([str(tmp_path / "out")])
    assert [read[row].image_name for row in range(len(read))] == ["1", "2", "3"]


def test_check_writes_nothing_and_reports_the_same(rows, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    found = check(rows, Settings(drop_duplicates=True, **SMALL), processes=2)
    assert sorted(tmp_path.rglob("*")) == before
    made = prepare(rows, tmp_path / "out", Settings(drop_duplicates=True, **SMALL))
    assert found.bad_samples.as_dict() == made.bad_samples.as_dict()
    assert [found.total(count) for count in ("samples", "duplicates", "bytes")] == [21, 2, 0]


def test_check_counts_shared_names_and_captions_of_lines(tmp_path):
    """Keys begin again in each shard: 0 and 3 are two images, 1 twice the same one, and 2 one alone."""
    for shard, numbers in (("a", [1, 2, 3, 5]), ("b", [4, 2]), ("c", [1, 2, 3, 6])):
        members = []
        for key, number in enumerate(numbers):
            members += [(f"{key}.png", png(image(number))), (f"{key}.txt", f"{number}\n\n{shard}".encode())]
        write_tar(tmp_path / f"{shard}.tar", members)
    found = check(open_sources([str(tmp_path / "*.tar")]), Settings(samples_per_shard=2), processes=2)
    assert found.shared_names == (2, ["0", "3"]) and found.bad_samples.remarks == {SEVERAL_LINES: 10}


def test_a_finished_output_is_verified_and_damage_made_again(rows, tmp_path):
    out, settings = tmp_path / "out", Settings(drop_duplicates=True, **SMALL)
    prepare(rows, out, settings)
    whole = files(out)
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    (out / "00001.tar").write_bytes(b"damaged")
    (out / "00002.tar").unlink()
    (out / ".00003.tar.1.partial").write_bytes(b"left by a killed run")
    prepare(rows, out, settings, processes=2)
    assert files(out) == whole and not list(out.glob(".*.partial"))
    rewritten = {path.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert rewritten == {"00001.tar", "00002.tar"}


class Edited:
    """A TSV of twelve pairs and a file of tags, whose rows change and whose numbers and names do not."""

    def __init__(self, folder):
        self.folder = folder
        self.rows = [(f"text {number:02d}", f"id{number}", png(image(number))) for number in range(12)]
        self.tags = [f"tag{number:02d}" for number in range(12)]

    def edit(self, what, row):
        text, name, _ = self.rows[row]
        if what == "tags":
            self.tags[row] = self.tags[row].upper()
        elif what == "caption":
            self.rows[row] = (text.upper(), *self.rows[row][1:])
        else:
            self.rows[row] = (text, name, png(image(row + 12)))

    def prepared(self, output, fails_at=None, **options):
        """The files that a run leaves; it fails at a row, if one is given."""
        write_tsv(self.folder / "a.tsv", self.rows)
        lines = [f"id{row}\t{tag}\n" for row, tag in enumerate(self.tags)]
        (self.folder / "tags.tsv").write_text("id\ttags\n" + "".join(lines))
        source = FailingSources(open_sources([str(self.folder / "a.tsv")]).shards)
        source.fails_at = fails_at
        how = Settings(samples_per_shard=3, **options)
        try:
            prepare(source, self.folder / output, how, [TagsFile(self.folder / "tags.tsv")])
        except RuntimeError:
            assert fails_at is not None
        return files(self.folder / output)


class FailingSources(ShardedSource):
    def __getitem__(self, index):
        if index == self.fails_at:
            raise RuntimeError("the run ends here")
        return super().__getitem__(index)


@settings(max_examples=6, phases=[Phase.explicit, Phase.generate])
@given(
    st.booleans(),
    st.lists(
        st.tuples(st.none() | st.integers(0, 11), st.sampled_from(["tags", "caption", "image"]), st.integers(0, 11)),
        min_size=1,
        max_size=3,
    ),
)
def test_what_was_edited_is_made_again_also_after_a_stop(tmp_path_factory, drop_duplicates, edits):
    input = Edited(tmp_path_factory.mktemp("edited"))
    for fails_at, what, row in edits:
        left = input.prepared("out", fails_at, drop_duplicates=drop_duplicates)
        if "index.json" in left:  # then the shards are those that it names
            for shard in json.loads(left["index.json"])["shards"]:
                assert hashlib.sha256(left[shard["name"]]).hexdigest() == shard["sha256"]
        input.edit(what, row)
    out, again = (input.prepared(name, drop_duplicates=drop_duplicates) for name in ("out", "again"))
    assert out == again


def test_only_shards_whose_input_was_edited_are_made_again(tmp_path):
    input = Edited(tmp_path)
    before = input.prepared("out")
    input.edit("caption", 4)
    after = input.prepared("out")
    assert [name for name in sorted(before) if before[name] != after[name]] == ["00001.tar", "index.json"]


def test_a_folder_of_another_version_is_left_alone(rows, tmp_path):
    prepare(rows, tmp_path / "out", Settings())
    path = tmp_path / "out" / ".prepare" / "job.json"
    job = json.loads(path.read_text())
    assert job["version"] == 1
    path.write_text(json.dumps(job | {"version": 2}))
    with pytest.raises(OtherJob, match="out names version 2"):
        prepare(rows, tmp_path / "out", Settings())


def test_a_folder_of_something_else_is_left_alone(rows, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(OtherJob, match="out holds other files"):
        prepare(rows, tmp_path / "out", Settings())
    prepare(rows, tmp_path / "new", Settings(**SMALL))
    with pytest.raises(OtherJob, match="new was begun with other settings"):
        prepare(rows, tmp_path / "new", Settings())


def test_when_nothing_can_be_used_it_is_an_error(tmp_path):
    source = open_sources([str(write_tsv(tmp_path / "a.tsv", [("x", "1", b"no image")]))])
    with pytest.raises(ValueError, match="(?s)no sample could be used.*broken image: 1"):
        prepare(source, tmp_path / "out", Settings())
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path):
    rng = np.random.default_rng(0)
    members = []
    for number in range(60):
        members += [(f"{number}.jpg", jpeg(rng.integers(0, 256, (300, 300, 3), np.uint8))), (f"{number}.txt", b"x")]
    write_tar(tmp_path / "a.tar", members)
    options = ["--short-side", 128, "--samples-per-shard", 4, "--processes", 2]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start(name):
        command = [sys.executable, ROOT / "tools/prepare.py", tmp_path / "a.tar", "--output", tmp_path / name, *options]
        return start_process(
            list(map(str, command)), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    assert call("prepare", tmp_path / "a.tar", "--output", tmp_path / "whole", *options).returncode == 0
    kills = 0
    for shards in (1, 6):
        process = start("killed")
        while process.poll() is None and len(list((tmp_path / "killed").glob("*.tar"))) < shards:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        for path in (tmp_path / "killed").glob("*.tar"):
            assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()
    assert kills and start("killed").wait() == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole") and len(files(tmp_path / "whole")) == 15 + 2


def test_the_command_line(tmp_path):
    rows = [("x", "1", png(image(1))), ("y", "2", b"no image")]
    path = write_tsv(tmp_path / "a.tsv", rows)
    checked = call("prepare", path, "--check")
    assert checked.returncode == 1 and "broken image: 1 (2)" in checked.stdout and checked.stderr == ""
    written = call("prepare", path, "--output", tmp_path / "out")
    assert written.returncode == 0 and "1 sample in 1 shard, " in written.stdout
    missing = call("prepare", tmp_path / "b.tsv", "--check")
    assert missing.returncode == 2 and "b.tsv" in missing.stderr
