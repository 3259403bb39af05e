"""demo_data/crawl.py in small: every planted fault is what the truth says, and the good rows have none."""

import functools
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


def test_every_key_has_a_row_and_every_kind_its_count(script, truth, folder):
    shards = sorted(folder.glob("*.tar"))
    keys = [name.partition(".")[0] for shard in shards for name in read_tar(shard)]
    assert list(truth) == list(dict.fromkeys(keys)) == [f"{number:09}" for number in range(ROWS)]
    assert len(shards) == 3 and len(keys) == 2 * ROWS
    counts = Counter(row["kind"] for row in truth.values())
    for kind, count in script.KINDS.items():
        assert kind == "good" or counts[kind] == round(count * ROWS / 20_000)
    assert counts["good"] + counts["twin"] == 120


def test_what_has_not_leaked_is_unseen(folder, truth):
    leaks = [row["of"] for row in truth.values() if row["kind"] == "leak"]
    test, unseen = (set(read_tar(path)) for path in (DEMO_DATA / "emoji-test.tar", folder / "unseen" / "test.tar"))
    leaked = {name for name in test if name.rpartition(".")[0] in leaks}
    assert len(set(leaks)) == len(leaks) and len(leaked) == 2 * len(leaks) and unseen == test - leaked


def test_a_curation_finds_what_was_planted_and_keeps_the_good(folder, truth, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    steps = load_steps("configs/curate/crawl.yaml", ["text_rules.images_of_a_caption=2"])
    curate(open_sources([str(folder)]), steps, tmp_path / "curated")
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
