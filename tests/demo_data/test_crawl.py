"""demo_data/crawl.py plants the faults that its truth names, and a curation finds them."""

import functools
import itertools
import sys
from collections import Counter

import pytest

from benchmarks.curate_truth import Outcome, read_fates, read_truth
from ernie_vil2.apps.curation import curate, load_steps
from ernie_vil2.data.readers import open_sources
from tests.support.paths import DEMO_DATA, ROOT, import_demo_script
from tests.support.shapes import read_tar, write_tar

ROWS = 400


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """Return the script, which takes the thousand drawings of the validation split in place of the training ones."""
    folder = tmp_path_factory.mktemp("drawings")
    write_tar(folder / "emoji-train.tar", [])
    for split in ("val", "test"):
        (folder / f"emoji-{split}.tar").symlink_to(DEMO_DATA / f"emoji-{split}.tar")
    with pytest.MonkeyPatch.context() as patch:
        module = import_demo_script("crawl")
        patch.setattr(module, "HERE", folder)
        patch.setattr(module, "read_drawings", functools.cache(module.read_drawings))
        yield module


@pytest.fixture(scope="module")
def folder(script, tmp_path_factory):
    path = tmp_path_factory.mktemp("crawl")
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["--output", str(path), "--rows", str(ROWS), "--per-shard", "150"]
        patch.setattr(sys, "argv", ["crawl.py", *arguments])
        assert script.main() == 0
    return path


@pytest.fixture(scope="module")
def truth(folder):
    return read_truth(folder / "truth.csv")


def test_truth_has_every_key_and_the_count_of_every_kind(script, truth, folder):
    shards = sorted(folder.glob("*.tar"))
    names = itertools.chain.from_iterable(map(read_tar, shards))
    keys = [name.partition(".")[0] for name in names]
    assert list(truth) == list(dict.fromkeys(keys)) == [f"{number:09}" for number in range(ROWS)]
    assert len(shards) == 3 and len(keys) == 2 * ROWS
    counts = Counter(row["kind"] for row in truth.values())
    for kind, count in script.KINDS.items():
        assert kind == "good" or counts[kind] == round(count * ROWS / 20_000)
    assert counts["good"] + counts["twin"] == 120


def test_unseen_test_images_have_not_leaked(folder, truth):
    leaks = [row["of"] for row in truth.values() if row["kind"] == "leak"]
    test_names = set(read_tar(DEMO_DATA / "emoji-test.tar"))
    leaked_names = {name for name in test_names if name.rpartition(".")[0] in leaks}
    assert len(set(leaks)) == len(leaks) and len(leaked_names) == 2 * len(leaks)  # image and fields of each
    assert set(read_tar(folder / "unseen" / "test.tar")) == test_names - leaked_names


def test_curation_finds_planted_faults_and_keeps_good_rows(folder, truth, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    steps = load_steps("configs/curate/crawl.yaml", ["text_rules.images_of_a_caption=2"])
    curate(open_sources([str(folder)]), steps, tmp_path / "curated")
    outcome = Outcome(truth, read_fates(tmp_path / "curated", truth))

    def compute_recall(*kinds, excluded_detail="\0"):
        keys = [key for key, row in truth.items() if row["kind"] in kinds and excluded_detail not in row["detail"]]
        return sum(map(outcome.found, keys)) / len(keys)

    assert compute_recall("filename", "url", "markup", "phone", "placeholder", "language", "repeated", "length") > 0.98
    assert compute_recall("tiny", "blank", "banner", "broken") > 0.98
    assert compute_recall("copy", "resized", "recompressed", "bordered", "grey") >= 0.95
    # Crops of drawings are the hardest.
    assert compute_recall("cropped") >= 0.9
    assert compute_recall("leak", excluded_detail="cropped") >= 0.95
    lost_fates = [outcome.fates[key] for key in truth if outcome.lost(key)]
    assert len(lost_fates) <= 0.02 * sum(row["kind"] == "good" for row in truth.values()), lost_fates
