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
from tests.support.published_files import read_all
from tests.support.shapes import draw, encode_png, write_tar, write_tsv

ROOT = Path(__file__).parents[3]


def image(number, size=32):
    return draw((number * 9 % 256, 30, 200), "disc", np.random.default_rng(number), size)


@pytest.fixture
def rows(tmp_path):
    """25 rows of a TSV, some of them bad, some twice."""
    rows = [(f"text {number}", f"id{number % 20}", encode_png(image(number % 20))) for number in range(25)]
    rows[3] = ("", "id3", encode_png(image(3)))
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
    read = read_all(open_sources([str(tmp_path / "out")]))
    for sample, row in zip(read, [row for row in range(25) if row not in (3, 7)], strict=True):
        assert (sample.image_name, sample.image) == (rows[row].image_name, rows[row].image)
        assert sample.caption("zh") == rows[row].caption("zh")


def test_the_index_counts_and_sums_what_is_there(rows, tmp_path):
    settings = Settings(drop_duplicates=True, short_side=16, **SMALL)
    before = sorted(tmp_path.rglob("*"))
    checked = check(rows, settings, processes=2)
    assert sorted(tmp_path.rglob("*")) == before  # a check writes nothing
    assert [checked.total(count) for count in ("samples", "duplicates", "bytes")] == [21, 2, 0]
    for name, processes in (("out", 1), ("again", 3)):
        prepare(rows, tmp_path / name, settings, processes=processes)
    assert files(tmp_path / "out") == files(tmp_path / "again")
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert (index["samples"], index["num_read"], index["duplicates"]) == (21, 25, 2)
    # Row 24, the only one of a seventh shard, is a duplicate: there is no such shard.
    assert [shard["samples"] for shard in index["shards"]] == [3, 3, 3, 4, 4, 4]
    assert len(files(tmp_path / "out")) == 6 + 2
    for shard in index["shards"]:
        path = tmp_path / "out" / shard["name"]
        assert shard["bytes"] == path.stat().st_size
        assert shard["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        with tarfile.open(path) as archive:
            assert len(archive.getnames()) == 2 * shard["samples"]
    assert index["bad_samples"] == checked.bad_samples.as_dict()
    assert index["bad_samples"]["reasons"]["broken image"] == {"count": 1, "names": ["id7"]}
    report = (tmp_path / "out" / "report.txt").read_text()
    assert "21 samples in 6 shards" in report and "2 duplicates" in report and "broken image: 1 (id7)" in report


def test_an_image_is_made_smaller_never_larger(tmp_path):
    """What becomes a JPEG, as it is smaller or of another format, is put on the background."""
    background = np.array((0, 200, 40))
    pixels = cv2.GaussianBlur(image(1, 60), (0, 0), 2)[:, :40]
    empty = np.zeros((60, 40, 4), np.uint8)
    small, clear = encode_png(image(1, 20)), cv2.imencode(".webp", empty[:20, :20])[1].tobytes()
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
    made = [sample.image for sample in read_all(open_sources([str(tmp_path / "out")]))]
    assert made[1] == small and made[3] == clear
    with tarfile.open(tmp_path / "out" / "00000.tar") as archive:
        names = [name[8:] for name in archive.getnames() if not name.endswith("json")]
    assert names == ["0.jpg", "1.png", "2.jpg", "3.webp", "4.jpg"]
    # 60 x 40 to 30 x 20 by areas is the mean of 2 x 2 pixels.
    mean = pixels.reshape(30, 2, 20, 2, 3).mean((1, 3))
    assert np.abs(decode_image(made[0], "").astype(float) - mean).mean() < 3
    for content in (made[2], made[4]):
        assert content[:2] == b"\xff\xd8" and np.abs(decode_image(content, "").astype(int) - background).max() <= 3


def test_fields_captions_and_tags_stay_and_tags_are_joined(tmp_path):
    fields = {"caption_zh": "猫", "caption_en": " ", "tags_en": ["old"], "tags_zh": ["旧"], "id": "c7", "url": "u"}
    members = [("d/1.png", encode_png(image(1))), ("d/1.json", json.dumps(fields).encode())]
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
    first, second = encode_png(image(1)), encode_png(image(2))
    path = write_tsv(tmp_path / "a.tsv", [("x", "1", first), ("y", "2", first), ("x", "3", second), ("x", "4", first)])
    prepare(open_sources([str(path)]), tmp_path / "out", Settings(drop_duplicates=True))
    assert [sample.image_name for sample in read_all(open_sources([str(tmp_path / "out")]))] == ["1", "2", "3"]


def test_check_counts_shared_names_and_captions_of_lines(tmp_path):
    """Keys begin again in each shard: 0 and 3 are two images, 1 twice the same one, and 2 one alone."""
    for shard, numbers in (("a", [1, 2, 3, 5]), ("b", [4, 2]), ("c", [1, 2, 3, 6])):
        members = []
        for key, number in enumerate(numbers):
            members += [(f"{key}.png", encode_png(image(number))), (f"{key}.txt", f"{number}\n\n{shard}".encode())]
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


class FailingSources(ShardedSource):
    fails_at = None

    def __getitem__(self, index):
        if index == self.fails_at:
            raise RuntimeError("the run ends here")
        return super().__getitem__(index)


class Edited:
    """A TSV of twelve pairs and a file of tags, whose rows change and whose numbers and names do not."""

    def __init__(self, folder):
        self.folder = folder
        self.texts = {what: [f"{what}{row:02d}" for row in range(12)] for what in ("tags", "caption")}
        self.images = list(range(12))

    def edit(self, what, row):
        if what == "image":
            self.images[row] = row + 12
        else:
            self.texts[what][row] = self.texts[what][row].upper()

    def prepared(self, output, fails_at=None, **options):
        """Return the files that a run leaves; it fails at a row, if one is given."""
        rows = zip(self.texts["caption"], self.images, strict=True)
        write_tsv(
            self.folder / "a.tsv", [(text, f"id{row}", encode_png(image(n))) for row, (text, n) in enumerate(rows)]
        )
        lines = [f"id{row}\t{tag}\n" for row, tag in enumerate(self.texts["tags"])]
        (self.folder / "tags.tsv").write_text("id\ttags\n" + "".join(lines))
        source = FailingSources(open_sources([str(self.folder / "a.tsv")]).shards)
        source.fails_at = fails_at
        settings = Settings(samples_per_shard=3, **options)
        with nullcontext() if fails_at is None else suppress(RuntimeError):
            prepare(source, self.folder / output, settings, [TagsFile(self.folder / "tags.tsv")])
        return files(self.folder / output)


EDITS = st.tuples(st.none() | st.integers(0, 11), st.sampled_from(["tags", "caption", "image"]), st.integers(0, 11))


@settings(max_examples=6, phases=[Phase.explicit, Phase.generate])
@given(drop_duplicates=st.booleans(), edits=st.lists(EDITS, min_size=1, max_size=3))
def test_what_was_edited_is_made_again_also_after_a_stop(tmp_path_factory, drop_duplicates, edits):
    data = Edited(tmp_path_factory.mktemp("edited"))
    for fails_at, what, row in edits:
        left = data.prepared("out", fails_at, drop_duplicates=drop_duplicates)
        if "index.json" in left:  # then the shards are those that it names
            for shard in json.loads(left["index.json"])["shards"]:
                assert hashlib.sha256(left[shard["name"]]).hexdigest() == shard["sha256"]
        data.edit(what, row)
    out, fresh = (data.prepared(name, drop_duplicates=drop_duplicates) for name in ("out", "fresh"))
    assert out == fresh


def test_a_folder_of_something_else_is_left_alone(rows, tmp_path):
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


def test_bad_samples_fail_a_check_and_a_run_without_others(tmp_path):
    path = write_tsv(tmp_path / "a.tsv", [("x", "1", encode_png(image(1))), ("y", "2", b"no image")])
    checked = call("prepare", path, "--check")
    assert checked.returncode == 1 and "broken image: 1 (2)" in checked.stdout and checked.stderr == ""
    write_tsv(path, [("y", "2", b"no image")])
    with pytest.raises(ValueError, match="(?s)no sample.*broken image: 1"):
        prepare(open_sources([str(path)]), tmp_path / "out", Settings())
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path):
    gc.collect()  # a file that another test has left open would be a remark
    large = encode_png(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))
    members = [(f"{n}.{kind}", content) for n in range(60) for kind, content in (("png", large), ("txt", b"x"))]
    options = [write_tar(tmp_path / "a.tar", members), "--short-side", 128, "--samples-per-shard", 4, "--output"]
    assert call("prepare", *options, tmp_path / "whole").returncode == 0
    whole, killed = files(tmp_path / "whole"), tmp_path / "killed"
    command = list(map(str, [sys.executable, ROOT / "tools/prepare.py", *options, killed, "--processes", 2]))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = start_process(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(killed.glob("*.tar"))) < 3:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (killed / "index.json").exists()
    for path in killed.glob("*.tar"):
        assert path.read_bytes() == whole[path.name]
    assert call("prepare", *options, killed).returncode == 0
    assert files(killed) == whole and len(whole) == 15 + 2
