"""Thresholds and temperature against values worked out by hand and against a search over all of them."""

import json

import numpy as np
import pytest

from ernie_vil2.calibration import calibrate, read_calibration, write_calibration


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def best_f1(queries, gallery, pairs):
    """All thresholds tried one by one, query by query."""
    scores = (queries.astype(np.float64) @ gallery.T.astype(np.float64)).astype(np.float32)
    asked = sorted(set(pairs[:, 0].tolist()))
    own = {query: set(pairs[pairs[:, 0] == query, 1].tolist()) for query in asked}
    found = []
    for bound in np.unique(scores):
        right = given = refused = 0
        for query in asked:
            answer = int(scores[query].argmax())
            if scores[query, answer] >= bound:
                given += 1
                right += answer in own[query]
            others = [score for place, score in enumerate(scores[query]) if place not in own[query]]
            given += max(others) >= bound
            refused += max(others) < bound
        f1 = 2 * right / (given + len(asked))
        found.append((f1, -bound, 100 * right / given, 100 * right / len(asked), 100 * refused / len(asked)))
    return max(found)


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    images = unit(rng.normal(size=(12, 4)))
    texts = unit(np.repeat(images, 2, axis=0) + 0.6 * rng.normal(size=(24, 4)))
    pairs = np.stack([np.repeat(np.arange(12), 2), np.arange(24)], axis=1)
    found = calibrate(images, texts, pairs, "f", "made")
    for way, (queries, gallery, own) in {
        "image_to_text": (images, texts, pairs), "text_to_image": (texts, images, pairs[:, ::-1])
    }.items():  # fmt: skip
        threshold, (f1, _, *shares) = found.thresholds[way], best_f1(queries, gallery, own)
        assert 2 / (1 / threshold.precision + 1 / threshold.recall) > 0
        given = threshold.recall / threshold.precision
        assert 2 * threshold.recall / 100 / (given + 1) == pytest.approx(f1)
        assert [threshold.precision, threshold.recall, threshold.refused] == pytest.approx(shares)


def test_what_matches_perfectly_is_told_apart_perfectly():
    axes = unit(np.eye(6))
    found = calibrate(axes, axes, np.stack([np.arange(6)] * 2, axis=1), "f", "made")
    for one in found.thresholds.values():
        assert (one.precision, one.recall, one.refused) == (100, 100, 100) and 0 < one.cosine <= 1


def test_the_temperature_is_that_of_the_least_loss():
    rng = np.random.default_rng(0)
    images = unit(rng.normal(size=(40, 8)))
    texts = unit(images + 0.5 * rng.normal(size=images.shape))
    scale = calibrate(images, texts, np.stack([np.arange(40)] * 2, axis=1), "f", "made").logit_scale

    def loss(scale):
        logits = scale * images @ texts.T
        return -(np.diag(logits) - np.log(np.exp(logits).sum(axis=1))).mean()

    assert loss(scale) <= min(loss(scale * 0.98), loss(scale * 1.02))


def test_it_is_kept_beside_its_model_alone(tmp_path):
    axes = unit(np.eye(3))
    found = calibrate(axes, axes, np.stack([np.arange(3)] * 2, axis=1), "abc", "made")
    path = write_calibration(found, tmp_path)
    assert read_calibration(tmp_path, "abc") == found
    assert read_calibration(tmp_path, "other") is None and read_calibration(tmp_path / "none", "abc") is None
    for damage in ("{", "[]", json.dumps({"fingerprint": "abc", "data": "", "logit_scale": 1, "thresholds": {"x": 1}})):
        path.write_text(damage)
        with pytest.raises(ValueError, match="calibration.json is damaged: remove it"):
            read_calibration(tmp_path, "abc")


def test_a_set_that_teaches_nothing_is_refused():
    axes = unit(np.eye(3))
    with pytest.raises(ValueError, match="nothing to calibrate on"):
        calibrate(axes, axes, np.zeros((0, 2), int), "f", "made")
    with pytest.raises(ValueError, match="everything belongs to one of the queries"):
        calibrate(axes[:1], axes[:1], np.array([[0, 0]]), "f", "made")


def test_the_command_and_what_search_makes_of_it(tmp_path, shapes, capsys):
    from ernie_vil2.commands import run
    from ernie_vil2.search import open_index
    from tests.conftest import untrained_checkpoint

    (tmp_path / "model").mkdir()
    checkpoint = untrained_checkpoint(tmp_path / "model", ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "a", "red"])
    arguments = ["--checkpoint", str(checkpoint), "--data", str(shapes["val"]), "--language", "en"]
    assert run("calibrate", arguments) == 0
    assert "precision %" in capsys.readouterr().out
    index = tmp_path / "index"
    (tmp_path / "tags.txt").write_text("red\na\n")
    assert run("search", ["build", "--index", str(index), "--checkpoint", str(checkpoint), "--data", str(shapes["val"]),
                          "--texts", str(tmp_path / "tags.txt")]) == 0  # fmt: skip
    with open_index(index) as opened:
        bound = opened.threshold("image_to_text")
        (tags,) = opened.tags([np.zeros((32, 32, 3), np.uint8)])
        assert -1 <= bound <= 1 and all(hit.score >= bound for hit in tags)
