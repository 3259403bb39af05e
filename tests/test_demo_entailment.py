"""demo_data/entailment.py: neither text nor images determine a label, and held-out concepts are held out."""

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests.support.processes import run_process

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("entailment")
    run_process([sys.executable, ROOT / "demo_data" / "entailment.py", "--output", path], check=True)
    return path


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def check_balance(rows, label, key):
    """Rows that are alike in `key` have each label equally often."""
    counts = defaultdict(Counter)
    for row in rows:
        counts[key(row)][row[label]] += 1
    labels = {row[label] for row in rows}
    assert all(found.keys() == labels and len(set(found.values())) == 1 for found in counts.values())


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_entailment(folder, split):
    found = rows(folder / "snli-ve" / f"snli_ve_{split}.jsonl")
    check_balance(found, "gold_label", lambda row: row["sentence2"])
    check_balance(found, "gold_label", lambda row: row["Flikr30kID"])


@pytest.mark.parametrize("split", ["train", "dev", "test1"])
def test_pairs(folder, split):
    found = rows(folder / "nlvr2" / "data" / f"{split}.json")
    check_balance(found, "label", lambda row: row["sentence"])
    check_balance(found, "label", lambda row: row["identifier"].rpartition("-")[0])


def test_concepts_are_held_out(folder):
    captions = [{row["sentence1"] for row in rows(folder / "snli-ve" / f"snli_ve_{split}.jsonl")}
                for split in ("train", "dev", "test")]  # fmt: skip
    concepts = [{row[side].split("/")[0] for row in rows(folder / "nlvr2" / "data" / f"{split}.json")
                 for side in ("left_url", "right_url")} for split in ("train", "dev", "test1")]  # fmt: skip
    for train, dev, test in (captions, concepts):
        assert not (train & dev or train & test or dev & test)
