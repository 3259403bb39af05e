"""demo_data/crawl.py in small: every planted fault is what the truth says, and the good rows have none."""

import functools
import json
import re
import sys
from collections import Counter, defaultdict

import cv2
import numpy as np
import pytest

from benchmarks.curate_truth import Outcome, read_fates, read_truth
from ernie_vil2.apps.curation import curate, load_steps
from ernie_vil2.data.readers import open_sources
from tests.support.paths import DEMO_DATA, ROOT, import_demo_script
from tests.support.shapes import read_tar, write_tar

ROWS = 400
COPIES = ("copy", "resized", "recompressed", "cropped", "bordered", "mirrored", "grey")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The script, which draws from the thousand drawings of the validation part, and not from those for training."""
    here = tmp_path_factory.mktemp("drawings")
    write_tar(here / "emoji-train.tar", [])
    for split in ("val", "test"):
        (here / f"emoji-{split}.tar").symlink_to(DEMO_DATA / f"emoji-{split}.tar")
    with pytest.MonkeyPatch.context() as patch:
        module = import_demo_script("crawl")
        patch.setattr(module, "HERE", here)
        patch.setattr(module, "drawings", functools.cache(module.drawings))
        yield module


def run(script, output, rows):
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["--output", str(output), "--rows", str(rows), "--per-shard", "150"]
        patch.setattr(sys, "argv", ["crawl.py", *arguments])
        assert script.main() == 0


@pytest.fixture(scope="module")
def folder(script, tmp_path_factory):
    path = tmp_path_factory.mktemp("crawl")
    run(script, path, ROWS)
    return path


@pytest.fixture(scope="module")
def truth(folder):
    return read_truth(folder / "truth.csv")


@pytest.fixture(scope="module")
def files(folder):
    """By key the caption and the bytes of the image."""
    samples = defaultdict(dict)
    for shard in sorted(folder.glob("*.tar")):
        for name, content in read_tar(shard).items():
            key, suffix = name.split(".")
            samples[key]["caption" if suffix == "json" else "image"] = content
    return {key: (json.loads(sample["caption"])["caption"], sample["image"]) for key, sample in samples.items()}


@pytest.fixture
def of_kind(truth, files):
    """`of_kind(kind)`: row of the truth, caption and image of each."""
    return lambda kind: [(row, *files[key]) for key, row in truth.items() if row["kind"] == kind]


def pixels(content):
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def difference(image, other):
    """Return the mean absolute difference of levels, at the size of the first."""
    size = image.shape[1::-1]
    return np.abs(image.astype(float) - cv2.resize(other, size, interpolation=cv2.INTER_AREA)).mean()


def test_every_key_has_a_row_and_every_kind_its_count(script, truth, files, folder):
    assert list(truth) == list(files) == [f"{number:09}" for number in range(ROWS)]
    assert len(list(folder.glob("*.tar"))) == 3
    counts = Counter(row["kind"] for row in truth.values())
    for kind, count in script.KINDS.items():
        assert kind == "good" or counts[kind] == round(count * ROWS / 20_000)
    assert counts["good"] + counts["twin"] == 120


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_of_good_rows_and_show_what_those_show(truth, files, of_kind, kind):
    for row, caption, image in of_kind(kind):
        assert truth[row["of"]]["kind"] == "good"
        assert ("other caption" in row["detail"]) == (caption != files[row["of"]][0])
        copy, original = pixels(image), pixels(files[row["of"]][1])
        height, width = original.shape[:2]
        if kind == "bordered":
            edge = int(row["detail"].split()[0])
            assert copy.shape == (height + 2 * edge, width + 2 * edge, 3)
            copy = copy[edge:-edge, edge:-edge]
        elif kind == "cropped":
            left, top = map(int, re.findall(r"\d+", row["detail"])[:2])
            assert copy.shape == (height - height // 10, width - width // 10, 3)
            original = original[top : top + copy.shape[0], left : left + copy.shape[1]]
        elif kind == "grey":
            original = cv2.cvtColor(cv2.cvtColor(original, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        elif kind == "mirrored":
            original = original[:, ::-1]
        assert difference(copy, original) < 12
        assert (kind == "resized") == (copy.shape != original.shape)


def test_leaks_show_the_test_drawing_that_they_name(script, folder, of_kind):
    test = {drawing.name: drawing.pixels[..., ::-1] for drawing in script.drawings(DEMO_DATA / "emoji-test.tar")}
    leaks = of_kind("leak")
    for row, _, image in leaks:
        if row["detail"].startswith(("as it is", "resized", "recompressed")):
            assert difference(test[row["of"]], pixels(image)) < 12
    leaked = {row["of"] for row, *_ in leaks}
    assert len(leaked) == len(leaks)
    unseen = {drawing.name for drawing in script.drawings(folder / "unseen" / "test.tar")}
    assert unseen == set(test) - leaked


def test_a_curation_finds_what_was_planted_and_keeps_the_good(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    steps = load_steps("configs/curate/crawl.yaml", ["text_rules.images_of_a_caption=2"])
    curate(open_sources([str(folder)]), steps, tmp_path / "curated")
    truth = read_truth(folder / "truth.csv")
    outcome = Outcome(truth, read_fates(tmp_path / "curated", truth))

    def found_share(*kinds, without="\0"):
        keys = [key for key, row in truth.items() if row["kind"] in kinds and without not in row["detail"]]
        return sum(map(outcome.found, keys)) / len(keys)

    assert found_share("filename", "url", "markup", "phone", "placeholder", "language", "repeated", "length") > 0.98
    assert found_share("tiny", "blank", "banner", "broken") > 0.98
    assert found_share("copy", "resized", "recompressed", "bordered", "grey") >= 0.95
    assert found_share("cropped") >= 0.9
    assert found_share("leak", without="cropped") >= 0.95  # crops of drawings are the hardest
    lost = [outcome.fates[key] for key in truth if outcome.lost(key)]
    assert len(lost) <= 0.02 * sum(row["kind"] == "good" for row in truth.values()), lost
