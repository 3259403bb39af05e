"""Runs of a tagger over a source: ids, bad samples, interrupted runs, and the report."""

import base64
import json
import multiprocessing
import signal
import threading
import time

import numpy as np
import pytest
from tqdm import tqdm

from ernie_vil2.apps.tagging.extract import Journal, extract_tags
from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.samples import BadSample, Reason
from ernie_vil2.data.tags import TagsFile
from ernie_vil2.io.locks import OtherJob
from ernie_vil2.io.terminal import RunError
from tests.support.limits import PATIENCE
from tests.support.shapes import write_tar, write_tsv

BROKEN = b"broken"


class LengthTagger:
    """Tagger by the size of image files: files of one byte get no tag, and `BROKEN` is a bad sample."""

    def __init__(self, stop_at=None, name="length"):
        self.seen, self.stop_at, self.name = [], stop_at, name

    def describe(self):
        return {"name": self.name}

    def prepare(self, sample, name):
        if sample.image == BROKEN:
            raise BadSample(Reason.BROKEN_IMAGE, name)
        return name, len(sample.image)

    def tag(self, prepared):
        self.seen += [name for name, _ in prepared]
        if self.stop_at in self.seen:
            raise KeyboardInterrupt
        return [{} if length == 1 else {"": (f"{length} bytes",), "zh": ("字", "节")} for _, length in prepared]

    def make_remarks(self, id_hashes):
        return [f"{len(id_hashes)} ids"]


@pytest.fixture
def source(tmp_path):
    """Return 20 rows and a malformed one: a broken image and images of 1 to 12 bytes, seven of them twice."""
    rows = [(f"text {row}", f"id{row % 13}", bytes(row % 13) or BROKEN) for row in range(20)]
    path = write_tsv(tmp_path / "a.tsv", rows)
    path.write_text(path.read_text() + "no columns\n")
    return open_sources([str(path)])


EXPECTED = {f"id{size}": {"": (f"{size} bytes",), "zh": ("字", "节")} for size in range(2, 13)}


def read_tags(path):
    ids = [json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines()]
    file = TagsFile(path)
    return {name: file[name] for name in ids}


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (4, 3), (100, 2)])
def test_every_id_is_tagged_once_and_bad_rows_are_reported(source, tmp_path, batch_size, threads):
    tagger = LengthTagger()
    report = extract_tags(source, tagger, tmp_path / "tags.jsonl", batch_size=batch_size, threads=threads)
    assert read_tags(tmp_path / "tags.jsonl") == EXPECTED
    assert tagger.seen == [f"id{size}" for size in range(1, 13)]
    lines = [line.strip() for line in str(report).splitlines()]
    assert lines[0] == "11 of 12 ids have tags" and "ids without tags: 1 (id1)" in lines
    assert lines[-2:] == ["broken image: 1 (id0)", "malformed row: 1 (a.tsv:21)"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tsv", "tags.jsonl", "tags.jsonl.report.json"]


def test_interrupted_run_continues(source, tmp_path):
    expected, output = tmp_path / "expected.jsonl", tmp_path / "tags.jsonl"
    extract_tags(source, LengthTagger(), expected)
    with pytest.raises(KeyboardInterrupt):
        extract_tags(source, LengthTagger(stop_at="id7"), output, batch_size=3)
    assert not output.exists()
    with pytest.raises(OtherJob, match="other tagger"):
        extract_tags(source, LengthTagger(name="other"), output)
    partial = tmp_path / "tags.jsonl.partial"
    journal = partial.read_bytes()
    first, _, third = journal.splitlines(keepends=True)
    for version in (2, None):
        partial.write_bytes(json.dumps(json.loads(first) | {"version": version}).encode() + b"\n" + third)
        with pytest.raises(OtherJob, match=partial.name):
            extract_tags(source, LengthTagger(), output)
    for damage in (b"damage\n", b"{}\n"):
        partial.write_bytes(first + damage + third)
        with pytest.raises(RunError, match="damaged"):
            extract_tags(source, LengthTagger(), output)
    partial.write_bytes(journal + b'{"end": 9, "found": [["id8", {"": ["a line that was cut')
    tagger = LengthTagger()
    report = extract_tags(source, tagger, output, batch_size=5)
    assert tagger.seen == [f"id{size}" for size in range(6, 13)], "rows 0 to 5 are in the journal"
    assert output.read_bytes() == expected.read_bytes() and not partial.exists()
    assert report.as_dict() == extract_tags(source, LengthTagger(), expected).as_dict()


def test_interrupted_run_continues_where_paths_are_not_utf8(tmp_path):
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    source = open_sources([str(write_tsv(folder / "a.tsv", [("text", f"id{row}", bytes(row)) for row in (2, 3)]))])
    with pytest.raises(KeyboardInterrupt):
        extract_tags(source, LengthTagger(stop_at="id3"), folder / "tags.jsonl", batch_size=1)
    tagger = LengthTagger()
    extract_tags(source, tagger, folder / "tags.jsonl")
    assert tagger.seen == ["id3"]
    assert read_tags(folder / "tags.jsonl") == {"id2": EXPECTED["id2"], "id3": EXPECTED["id3"]}
    assert extract_tags(source, tagger, folder / "tags.jsonl").num_ids == 2


def test_finished_output_is_not_made_again(source, tmp_path):
    report = extract_tags(source, LengthTagger(), tmp_path / "tags.jsonl")
    tagger = LengthTagger()
    assert str(extract_tags(source, tagger, tmp_path / "tags.jsonl")) == str(report)
    assert tagger.seen == []
    with pytest.raises(OtherJob, match="tags.jsonl"):
        extract_tags(source, LengthTagger(name="other"), tmp_path / "tags.jsonl")
    with pytest.raises(OtherJob, match="tags.jsonl"):
        extract_tags(replace_image(tmp_path, 5, b"12345"), LengthTagger(), tmp_path / "tags.jsonl")


def test_output_with_a_report_of_another_form_is_refused(source, tmp_path):
    output, report = tmp_path / "tags.jsonl", tmp_path / "tags.jsonl.report.json"
    extract_tags(source, LengthTagger(), output)
    saved = json.loads(report.read_text())
    for content in ([], saved | {"untagged": []}, saved | {"samples": {"num_read": 1, "reasons": []}}):
        report.write_text(json.dumps(content))
        with pytest.raises(OtherJob, match=output.name):
            extract_tags(source, LengthTagger(), output)


def replace_image(tmp_path, row, image):
    """Replace the image of a row of the source, and return the source."""
    path = tmp_path / "a.tsv"
    lines = path.read_text().splitlines(keepends=True)
    lines[row] = f"text {row}\tid{row % 13}\t{base64.b64encode(image).decode()}\n"
    path.write_text("".join(lines))
    return open_sources([str(path)])


# Rows 0 to 5 are tagged when the run is interrupted; the later ones may change.
@pytest.mark.parametrize(("row", "is_refused"), [(0, True), (5, True), (6, False)])
def test_interrupted_run_refuses_changes_of_tagged_images(source, tmp_path, row, is_refused):
    with pytest.raises(KeyboardInterrupt):
        extract_tags(source, LengthTagger(stop_at="id7"), tmp_path / "tags.jsonl", batch_size=3)
    edited = replace_image(tmp_path, row, b"edited")
    if is_refused:
        with pytest.raises(OtherJob, match="partial was begun with other images"):
            extract_tags(edited, LengthTagger(), tmp_path / "tags.jsonl")
    else:
        extract_tags(edited, LengthTagger(), tmp_path / "tags.jsonl")
        extract_tags(edited, LengthTagger(), tmp_path / "whole.jsonl")
        assert (tmp_path / "tags.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_id_of_different_images_gets_no_tags(tmp_path, batch_size):
    # The keys of every shard start at 000: 000 is two different images, 001 is twice the same one.
    for shard, images in enumerate([(b"12", b"123"), (b"21", b"123", b"1234")]):
        members = []
        for key, image in enumerate(images):
            members += [(f"{key:03d}.jpg", image), (f"{key:03d}.txt", b"x")]
        write_tar(tmp_path / f"{shard}.tar", members)
    source = open_sources([str(tmp_path / "*.tar")])
    output = tmp_path / "tags.jsonl"
    with pytest.raises(KeyboardInterrupt):
        extract_tags(source, LengthTagger(stop_at="002"), output, batch_size=batch_size)
    report = extract_tags(source, LengthTagger(), output, batch_size=batch_size)
    assert read_tags(output).keys() == {"001", "002"}
    assert "several different images, left without tags: 1 (000)" in str(report)
    assert report.num_ids == 2 and str(extract_tags(source, LengthTagger(), output)) == str(report)


class SlowTagger(LengthTagger):
    def tag(self, prepared):
        time.sleep(0.05)
        return super().tag(prepared)


def extract_until_killed(source, output):
    # By default, all forked processes share a lock, which a killed one may leave locked.
    tqdm.set_lock(threading.RLock())
    extract_tags(source, SlowTagger(), output, batch_size=10, threads=2)


def test_run_that_is_killed_three_times_gives_the_same_output(tmp_path):
    rows = [(f"text {row}", f"id{row % 280}", bytes(row % 280 % 50)) for row in range(300)]
    source, output = open_sources([str(write_tsv(tmp_path / "a.tsv", rows))]), tmp_path / "tags.jsonl"
    journal = tmp_path / "tags.jsonl.partial"
    rng, journal_sizes = np.random.default_rng(0), [0]
    for _ in range(3):
        child = multiprocessing.get_context("fork").Process(target=extract_until_killed, args=(source, output))
        child.start()
        deadline = time.monotonic() + PATIENCE
        while not (journal.exists() and journal.stat().st_size > journal_sizes[-1]):
            assert child.is_alive() and time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))  # a random moment of the next batch, which takes 0.05 seconds
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL and not output.exists()
        journal_sizes.append(journal.stat().st_size)
    assert journal_sizes == sorted(set(journal_sizes)), "every run has added to the journal"
    extract_tags(source, LengthTagger(), output)
    extract_tags(source, LengthTagger(), tmp_path / "whole.jsonl")
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_journal_in_use_is_refused(tmp_path):
    path = tmp_path / "tags.jsonl.partial"
    for _ in range(2):  # twice, because the lock of a journal has to end with it
        with Journal.open(path, {"tagger": "a"}), pytest.raises(OtherJob, match=path.name):
            Journal.open(path, {"tagger": "a"}).__enter__()
