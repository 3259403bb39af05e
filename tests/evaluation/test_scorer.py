"""Scorers by name, by import path and by the layout of the data."""

import pytest

from ernie_vil2.evaluation.scorer import SCORERS, Data, make_scorer, scorer_of
from ernie_vil2.evaluation.scorers.retrieval import Retrieval
from tests.support.entailment_data import entailment_folder, nlvr2_folder
from tests.support.published_folders import karpathy


def class_folders(folder):
    for shape in ("disc", "bar"):
        (folder / "test" / shape).mkdir(parents=True)
        (folder / "test" / shape / "a.png").write_bytes(b"an image")


def several_layouts(folder):
    karpathy(folder, "coco", "")
    karpathy(folder, "flickr30k", "")


def empty(folder):
    folder.mkdir()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (entailment_folder, "entailment"),
        (nlvr2_folder, "nlvr2"),
        (class_folders, "zero_shot"),
        (lambda folder: karpathy(folder, "coco", ""), "retrieval"),
        (several_layouts, "retrieval"),
        (empty, "retrieval"),
    ],
)
def test_the_layout_says_what_is_scored(tmp_path, make, name):
    make(tmp_path / "data")
    assert scorer_of(Data([str(tmp_path / "data")])) == name


def test_a_scorer_is_a_name_or_an_import_path():
    path = "ernie_vil2.evaluation.scorers.retrieval:Retrieval"
    assert SCORERS.find("retrieval") is SCORERS.find(path) is Retrieval
    assert make_scorer(path, {"protocol": ["muge-val"]}).best_by == "mean_recall"
    with pytest.raises(ValueError, match="'recall'"):
        SCORERS.find("recall")
    with pytest.raises(ValueError, match="scorers.retrieval has no Nothing"):
        SCORERS.find("ernie_vil2.evaluation.scorers.retrieval:Nothing")
    with pytest.raises(ValueError, match="retrieval: templates"):
        make_scorer("retrieval", {"templates": {}})
