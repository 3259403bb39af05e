"""Cross-scoring of wrong captions has measures that equal those by hand, and runs from end to end."""

import csv
import shutil

import numpy as np
import pytest

from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.selection import SelectedSamples
from experiments.wrong_captions import choose_best, compute_auc, exchange_texts, find_right, main, write_shard
from tests.support.paths import ROOT
from tests.support.trainings import to_arguments


@pytest.fixture(scope="module")
def drawings():
    source = open_sources([str(ROOT / "demo_data" / "emoji-val.tar")], text_id="id")
    return [source[row] for row in range(60)]


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_share_of_captions_is_wrong(drawings, share):
    drawings = drawings + drawings[:10]  # a swap between drawings of the same name makes no caption wrong
    noisy = exchange_texts(drawings, share, seed=1)
    assert find_right(noisy).sum() == round((1 - share) * 70)
    noisy_names = [sample.text_name for sample in noisy]
    assert sorted(noisy_names) == sorted(drawing.text_name for drawing in drawings)
    drawing_of = {drawing.text_name: drawing for drawing in drawings}
    for drawing, sample in zip(drawings, noisy, strict=True):
        assert sample.image == drawing.image and sample.fields["drawn"] == drawing.text_name
        text_source = drawing_of[sample.text_name]
        assert (sample.captions, sample.tags) == (text_source.captions, text_source.tags)
        assert sample.fields["caption_zh"] == text_source.captions["zh"]
        assert sample.fields["style"] == drawing.fields["style"]
    assert [sample.text_name for sample in exchange_texts(drawings, share, seed=1)] == noisy_names


@pytest.mark.parametrize("share", [0.02, 1.0])
def test_samples_of_one_concept_cannot_exchange_texts(drawings, share):
    with pytest.raises(ValueError, match="too few"):
        exchange_texts([drawings[0]] * 60, share, seed=1)


def test_folder_of_another_share_is_refused(drawings, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    write_shard(tmp_path / "noisy.tar", exchange_texts(drawings, 0.6, seed=1))
    with pytest.raises(SystemExit, match=r"36 wrong pairs of 60, .*--wrong 0.3: .*--output"):
        main(["--output", str(tmp_path), "--wrong", "0.3"])


def test_area_and_best_equal_their_definitions():
    rng = np.random.default_rng(0)
    scores, truth = rng.normal(size=200), rng.random(200) < 0.4
    # The area under the ROC curve is the share of pairs of a right and a wrong sample in the right order.
    is_ordered = scores[truth][:, None] > scores[~truth][None]
    assert compute_auc(scores, truth) == pytest.approx(is_ordered.mean())
    assert compute_auc(truth + rng.random(200) / 2, truth) == 1
    assert choose_best(np.array([1.0, 4.0, 2.0, 3.0, 0.0]), 0.4).tolist() == [False, True, False, True, False]


@pytest.mark.slow
def test_two_rounds_write_shards_and_can_be_resumed(drawings, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = ["--data", "demo_data/emoji-val.tar", "--output", str(tmp_path)]
    arguments += to_arguments(["Training.steps=2", "Training.global_batch=16", "Schedule.warmup_steps=1",
                               "Training.checkpoint_every=2"])  # fmt: skip
    assert main(arguments) == 0
    noisy = open_sources([str(tmp_path / "noisy.tar")], text_id="id")
    assert len(noisy) == 1058 and find_right([noisy[row] for row in range(1058)]).sum() == 423
    folds = [open_sources([str(tmp_path / f"round-1-fold-{fold}.tar")], text_id="id") for fold in (0, 1)]
    names = []
    for fold in folds:
        names += [fold[row].image_name for row in range(len(fold))]
    assert sorted(names) == sorted(noisy[row].image_name for row in range(1058))
    rows = csv.DictReader((tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines())
    best_names = {row["key"] for row in sorted(rows, key=lambda row: -float(row["score"]))[:423]}
    selected = SelectedSamples(tmp_path / "round-2", noisy)
    # The second round selects the same share, but within each language.
    selected_names = {selected[row].image_name for row in range(len(selected))}
    assert abs(len(selected_names) - 423) <= 3 and len(selected_names & best_names) >= 400
    scores = (tmp_path / "scores.csv").read_bytes()
    (tmp_path / "scores.csv").unlink()
    shutil.rmtree(tmp_path / "round-2")
    assert main(arguments) == 0
    assert (tmp_path / "scores.csv").read_bytes() == scores and (tmp_path / "round-2" / "curation.json").exists()
