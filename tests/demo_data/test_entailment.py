"""demo_data/entailment.py writes statements whose labels follow from neither text nor images alone."""

import json
import sys
from collections import Counter, defaultdict

import pytest

from tests.support.paths import DEMO_DATA
from tests.support.processes import run_process

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("entailment")
    run_process([sys.executable, DEMO_DATA / "entailment.py", "--output", path], check=True)
    return path


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def parse_row(row):
    """Return the label, the text, the images and their concepts of a row of either task."""
    if "gold_label" in row:
        return row["gold_label"], row["sentence2"], row["Flikr30kID"], {row["sentence1"]}
    concepts = {row[side].split("/")[0] for side in ("left_url", "right_url")}
    return row["label"], row["sentence"], row["identifier"].rpartition("-")[0], concepts


@pytest.mark.parametrize("files", [[f"snli-ve/snli_ve_{split}.jsonl" for split in ("train", "dev", "test")],
                                   [f"nlvr2/data/{split}.json" for split in ("train", "dev", "test1")]])  # fmt: skip
def test_labels_are_balanced_and_concepts_held_out(folder, files):
    # Rows with the same text, and rows with the same image, have each label equally often.
    concepts_of_earlier_splits = set()
    for file in files:
        counts, concepts = defaultdict(Counter), set()
        for label, text, image, row_concepts in map(parse_row, read_rows(folder / file)):
            counts[text][label] += 1
            counts[image][label] += 1
            concepts |= row_concepts
        labels = set().union(*counts.values())
        for label_counts in counts.values():
            assert label_counts.keys() == labels and len(set(label_counts.values())) == 1
        assert not concepts & concepts_of_earlier_splits
        concepts_of_earlier_splits |= concepts
