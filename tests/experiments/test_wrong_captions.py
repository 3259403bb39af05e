"""Cross-scoring of wrong captions: its measures on figures that can be worked out, and a tiny run from end to end."""

import csv
import shutil

import numpy as np
import pytest

from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.selection import SelectedSamples
from experiments.wrong_captions import area, best, main, right, with_wrong_texts
from tests.support.paths import ROOT
from tests.support.trainings import to_arguments


@pytest.fixture(scope="module")
def drawings():
    source = open_sources([str(ROOT / "demo_data" / "emoji-val.tar")], text_id="id")
    return [source[row] for row in range(60)]


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_as_many_captions_are_wrong_as_asked(drawings, share):
    drawings = drawings + drawings[:10]  # a name twice: no swap between the two makes a caption wrong
    noisy = with_wrong_texts(drawings, share, seed=1)
    assert right(noisy).sum() == round((1 - share) * 70)
    assert sorted(one.text_name for one in noisy) == sorted(one.text_name for one in drawings)
    own = {one.text_name: one for one in drawings}
    for before, after in zip(drawings, noisy, strict=True):
        assert after.image == before.image and after.fields["drawn"] == before.text_name
        given = own[after.text_name]
        assert (after.captions, after.tags) == (given.captions, given.tags)
        assert after.fields["caption_zh"] == given.captions["zh"] and after.fields["style"] == before.fields["style"]
    assert [one.text_name for one in with_wrong_texts(drawings, share, seed=1)] == [one.text_name for one in noisy]


def test_area_and_best_are_those_of_their_definitions():
    rng = np.random.default_rng(0)
    scores, truth = rng.normal(size=200), rng.random(200) < 0.4
    pairs = scores[truth][:, None] > scores[~truth][None]
    assert area(scores, truth) == pytest.approx(pairs.mean())
    assert area(truth + rng.random(200) / 2, truth) == 1
    assert best(np.array([1.0, 4.0, 2.0, 3.0, 0.0]), 0.4).tolist() == [False, True, False, True, False]


@pytest.mark.slow
def test_two_rounds_end_in_shards_and_go_on_where_they_were(drawings, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = ["--data", "demo_data/emoji-val.tar", "--output", str(tmp_path)]
    arguments += to_arguments(["Training.steps=2", "Training.global_batch=16", "Schedule.warmup_steps=1",
                               "Training.checkpoint_every=2"])  # fmt: skip
    assert main(arguments) == 0
    noisy = open_sources([str(tmp_path / "noisy.tar")], text_id="id")
    assert len(noisy) == 1058 and right([noisy[row] for row in range(1058)]).sum() == 423
    folds = [open_sources([str(tmp_path / f"round-1-fold-{fold}.tar")], text_id="id") for fold in (0, 1)]
    folded = [fold[row].image_name for fold in folds for row in range(len(fold))]
    assert sorted(folded) == sorted(noisy[row].image_name for row in range(1058))
    rows = csv.DictReader((tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines())
    kept = {row["key"] for row in sorted(rows, key=lambda row: -float(row["score"]))[:423]}
    selected = SelectedSamples(tmp_path / "round-2", noisy)
    stay = {selected[row].image_name for row in range(len(selected))}  # the share of each language's
    assert abs(len(stay) - 423) <= 3 and len(stay & kept) >= 400
    before = (tmp_path / "scores.csv").read_bytes()
    (tmp_path / "scores.csv").unlink()
    shutil.rmtree(tmp_path / "round-2")
    assert main(arguments) == 0
    assert (tmp_path / "scores.csv").read_bytes() == before and (tmp_path / "round-2" / "curation.json").exists()
