"""demo_data/crawl.py in small: every planted fault is what the truth says, and the good rows have none."""

import csv
import importlib
import json
import re
import sys
import tarfile
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.curate_truth import Outcome, read_fates, read_truth
from ernie_vil2.curation import curate, load_steps
from ernie_vil2.data.readers import open_sources
from tests.support.shapes import write_tar

DEMO = Path(__file__).resolve().parents[1] / "demo_data"
ROWS = 400


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The script, which draws from the thousand drawings of the validation part, and not from those for training."""
    here = tmp_path_factory.mktemp("drawings")
    write_tar(here / "emoji-train.tar", [])
    for split in ("val", "test"):
        (here / f"emoji-{split}.tar").symlink_to(DEMO / f"emoji-{split}.tar")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DEMO)
        module = importlib.import_module("crawl")
        patch.setattr(module, "HERE", here)
        yield module


@pytest.fixture(scope="module")
def folder(script, tmp_path_factory):
    path = tmp_path_factory.mktemp("crawl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["crawl.py", "--output", str(path), "--rows", str(ROWS), "--per-shard", "150"])
        assert script.main() == 0
    return path


@pytest.fixture(scope="module")
def truth(folder):
    with (folder / "truth.csv").open(encoding="utf-8", newline="") as file:
        return {row["key"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def files(folder):
    """By key the caption and the bytes of the image."""
    found = defaultdict(dict)
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as archive:
            for member in archive:
                key, suffix = member.name.split(".")
                found[key]["caption" if suffix == "json" else "image"] = archive.extractfile(member).read()
    return {key: (json.loads(one["caption"])["caption"], one["image"]) for key, one in found.items()}


def pixels(content):
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None


def of_kind(truth, files, kind):
    return [(row, *files[key]) for key, row in truth.items() if row["kind"] == kind]


def difference(one, other):
    """Mean absolute difference of levels, at the size of the first."""
    size = one.shape[1::-1]
    return np.abs(one.astype(float) - cv2.resize(other, size, interpolation=cv2.INTER_AREA)).mean()


def test_there_is_a_row_for_every_key_and_as_many_of_a_kind_as_are_asked_for(script, truth, files, folder):
    assert list(truth) == list(files) == [f"{number:09}" for number in range(ROWS)]
    assert len(list(folder.glob("*.tar"))) == 3
    found = Counter(row["kind"] for row in truth.values())
    for kind, count in script.KINDS.items():
        assert kind == "good" or found[kind] == round(count * ROWS / 20_000)
    assert found["good"] + found["twin"] == 120
    assert sum(script.KINDS.values()) == 20_000


def test_the_same_arguments_give_the_same_bytes(script, folder, tmp_path, monkeypatch):
    arguments = ["crawl.py", "--output", str(tmp_path), "--rows", str(ROWS), "--per-shard", "150"]
    monkeypatch.setattr(sys, "argv", arguments)
    script.main()
    for path in folder.glob("*.*"):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_copies_are_of_good_rows_and_show_what_those_show(truth, files):
    for kind in ("copy", "resized", "recompressed", "cropped", "bordered", "mirrored", "grey"):
        for row, caption, image in of_kind(truth, files, kind):
            assert truth[row["of"]]["kind"] == "good"
            assert ("other caption" in row["detail"]) == (caption != files[row["of"]][0])
            copy, original = pixels(image), pixels(files[row["of"]][1])
            height, width = original.shape[:2]
            if kind == "copy":
                assert image == files[row["of"]][1]
            elif kind == "bordered":
                edge = int(row["detail"].split()[0])
                assert copy.shape == (height + 2 * edge, width + 2 * edge, 3)
                assert difference(copy[edge:-edge, edge:-edge], original) < 12
            elif kind == "cropped":
                left, top = map(int, re.findall(r"\d+", row["detail"])[:2])
                assert copy.shape == (height - height // 10, width - width // 10, 3)
                part = original[top : top + copy.shape[0], left : left + copy.shape[1]]
                assert difference(copy, part) < 12
            elif kind == "grey":
                grey = cv2.cvtColor(cv2.cvtColor(original, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
                assert difference(copy, grey) < 12
            else:
                assert difference(copy, original[:, ::-1] if kind == "mirrored" else original) < 12
            assert (kind == "resized") == (kind not in ("bordered", "cropped") and copy.shape != original.shape)


def test_leaks_show_the_test_drawing_that_they_name(script, truth, files):
    test = {drawing.name: drawing.pixels[..., ::-1] for drawing in script.drawings(DEMO / "emoji-test.tar")}
    leaks = of_kind(truth, files, "leak")
    for row, _, image in leaks:
        if row["detail"].startswith(("as it is", "resized", "recompressed")):
            assert difference(test[row["of"]], pixels(image)) < 12
    assert len({row["of"] for row, *_ in leaks}) == len(leaks)


def test_the_other_test_drawings_are_a_shard_of_their_own(script, truth, folder):
    leaked = {row["of"] for row in truth.values() if row["kind"] == "leak"}
    unseen = {drawing.name for drawing in script.drawings(folder / "unseen" / "test.tar")}
    assert unseen == {drawing.name for drawing in script.drawings(DEMO / "emoji-test.tar")} - leaked


def test_images_of_no_use_and_good_ones(truth, files):
    for row, _, image in of_kind(truth, files, "tiny"):
        assert max(pixels(image).shape[:2]) < 40, row
    for row, _, image in of_kind(truth, files, "banner"):
        short, long = sorted(pixels(image).shape[:2])
        assert long > 4 * short, row
    for row, _, image in of_kind(truth, files, "blank"):
        assert pixels(image).std(axis=(0, 1)).max() < 4, row
    for _, _, image in of_kind(truth, files, "broken"):
        assert len(image) < 20_000 and not image.endswith((b"\xff\xd9", b"IEND\xaeB`\x82"))
    seen = set()
    for row, _, image in of_kind(truth, files, "good"):
        short, long = sorted(pixels(image).shape[:2])
        assert short >= 100 and long < 3 * short and pixels(image).std() > 4, row
        assert image not in seen
        seen.add(image)


def test_captions(script, truth, files):
    captions = {kind: [caption for _, caption, _ in of_kind(truth, files, kind)] for kind in script.KINDS}
    assert all(re.search(r"https?://|www\.|example\.com", text) for text in captions["url"])
    assert all(len(text) <= 3 or len(text) > 1000 for text in captions["length"])
    assert not any(mark in text for kind in ("filename", "phone") for text in captions[kind] for mark in "#@{")
    assert all(re.search(r"\d[\d\s()-]{6,}\d", text) for text in captions["phone"])
    assert max(Counter(captions["repeated"]).values()) >= 3
    for text in captions["good"]:
        assert 6 <= len(text) < 200 and not re.search(r"https?:|<|\.jpg", text)
    names = {drawing.name: drawing for drawing in script.drawings(DEMO / "emoji-val.tar")}
    for row, caption, _ in of_kind(truth, files, "wrong"):
        other = names[row["detail"]]
        assert any(name in caption for name in other.names.values())


def test_twins_have_equal_pixels_and_lookalikes_are_named(script):
    pool = script.drawings(DEMO / "emoji-val.tar")
    alike = script.lookalikes(pool)
    position = {drawing.name: number for number, drawing in enumerate(pool)}
    seen = defaultdict(list)
    for drawing in pool:
        seen[drawing.pixels.tobytes()].append(drawing.name)
    twins = {name for names in seen.values() for name in names[1:]}
    assert twins and {name for name, (_, equal) in alike.items() if equal} == twins
    assert all(position[earlier] < position[name] for name, (earlier, _) in alike.items())


def test_a_size_that_is_out_of_range_is_refused(script, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["crawl.py", "--rows", "5", "--output", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match="--rows is 100 to 20,000, got 5"):
        script.main()
    assert not (tmp_path / "none").exists()


def test_a_curation_finds_what_was_planted_and_keeps_the_good(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(DEMO.parent)
    steps = load_steps("configs/curate/crawl.yaml", ["text_rules.images_of_a_caption=2"])
    curate(open_sources([str(folder)]), steps, tmp_path / "curated")
    truth = read_truth(folder / "truth.csv")
    outcome = Outcome(truth, read_fates(tmp_path / "curated", truth))

    def found(*kinds, apart=""):
        keys = [key for key, row in truth.items() if row["kind"] in kinds and not (apart and apart in row["detail"])]
        return sum(map(outcome.found, keys)) / len(keys)

    assert found("filename", "url", "markup", "phone", "placeholder", "language", "repeated", "length") > 0.98
    assert found("tiny", "blank", "banner", "broken") > 0.98
    assert found("copy", "resized", "recompressed", "bordered", "grey") >= 0.95
    assert found("cropped") >= 0.9
    assert found("leak", apart="cropped") >= 0.95  # crops of drawings are the hardest
    lost = [key for key in truth if outcome.lost(key)]
    assert len(lost) <= 0.02 * sum(row["kind"] == "good" for row in truth.values()), [
        outcome.fates[key] for key in lost
    ]
