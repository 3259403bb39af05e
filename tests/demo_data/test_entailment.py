"""demo_data/entailment.py: neither text nor images determine a label, and held-out concepts are held out."""

import json
import sys
from collections import Counter, defaultdict

import pytest

from tests.support.paths import DEMO_DATA
from tests.support.processes import run_process

pytestmark = pytest.mark.slow
# Task: file of a split, label, and what rows may be alike in.
TASKS = {
    "entailment": ("snli-ve/snli_ve_{}.jsonl", "gold_label", [lambda row: row["sentence2"],
                                                               lambda row: row["Flikr30kID"]]),
    "nlvr2": ("nlvr2/data/{}.json", "label", [lambda row: row["sentence"],
                                              lambda row: row["identifier"].rpartition("-")[0]]),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("entailment")
    run_process([sys.executable, DEMO_DATA / "entailment.py", "--output", path], check=True)
    return path


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


SPLITS = {"entailment": ("train", "dev", "test"), "nlvr2": ("train", "dev", "test1")}


@pytest.mark.parametrize(("task", "split"), [(task, split) for task in TASKS for split in SPLITS[task]])
def test_rows_that_are_alike_have_each_label_equally_often(folder, task, split):
    name, label, keys = TASKS[task]
    rows = read_rows(folder / name.format(split))
    labels = {row[label] for row in rows}
    for key in keys:
        counts = defaultdict(Counter)
        for row in rows:
            counts[key(row)][row[label]] += 1
        for alike in counts.values():
            assert alike.keys() == labels and len(set(alike.values())) == 1


def test_concepts_are_held_out(folder):
    captions = [{row["sentence1"] for row in read_rows(folder / "snli-ve" / f"snli_ve_{split}.jsonl")}
                for split in ("train", "dev", "test")]  # fmt: skip
    concepts = [{row[side].split("/")[0] for row in read_rows(folder / "nlvr2" / "data" / f"{split}.json")
                 for side in ("left_url", "right_url")} for split in ("train", "dev", "test1")]  # fmt: skip
    for train, dev, test in (captions, concepts):
        assert not (train & dev or train & test or dev & test)
