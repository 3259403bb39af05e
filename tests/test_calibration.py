"""Thresholds and temperature against values worked out by hand and against a search over all of them."""

import dataclasses
import json

import numpy as np
import pytest

from ernie_vil2 import load_model
from ernie_vil2.encoder import _calibrated
from ernie_vil2.evaluation.calibrate import calibrate
from ernie_vil2.io.calibration import DIRECTIONS, Calibration, Threshold, read_calibration, write_calibration
from tests.support.checkpoints import untrained_checkpoint
from tests.support.shapes import SPECIAL_TOKENS


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
            others = [score for position, score in enumerate(scores[query]) if position not in own[query]]
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


def test_what_matches_perfectly_is_distinguished_perfectly():
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


def test_it_is_kept_next_to_its_model_alone(tmp_path):
    axes = unit(np.eye(3))
    found = calibrate(axes, axes, np.stack([np.arange(3)] * 2, axis=1), "abc", "made")
    path = write_calibration(found, tmp_path)
    assert read_calibration(tmp_path, "abc") == found
    assert read_calibration(tmp_path, "other") is None
    whole = json.loads(path.read_text())
    one_way = {"image_to_text": whole["thresholds"]["image_to_text"]}
    for damage in ("{", "[]", *(json.dumps(whole | {key: value}) for key, value in [
        ("thresholds", {"x": 1}), ("thresholds", one_way), ("logit_scale", 0), ("logit_scale", float("inf"))
    ])):  # fmt: skip
        path.write_text(damage)
        with pytest.raises(ValueError, match="calibration.json is damaged: remove it"):
            read_calibration(tmp_path, "abc")


def test_without_one_the_weights_are_not_read_for_it(tmp_path):
    class Model:
        calibration = None

        @property
        def fingerprint(self):
            raise AssertionError("asked for")

    assert _calibrated(Model(), tmp_path).calibration is None


def test_a_set_that_teaches_nothing_is_refused():
    axes = unit(np.eye(3))
    with pytest.raises(ValueError, match="nothing to calibrate on"):
        calibrate(axes, axes, np.zeros((0, 2), int), "f", "made")
    with pytest.raises(ValueError, match="everything belongs to one of the queries"):
        calibrate(axes[:1], axes[:1], np.array([[0, 0]]), "f", "made")


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "model"
    return untrained_checkpoint(folder, [*SPECIAL_TOKENS, "a", "red"])


def test_rank_by_a_calibration_by_hand(checkpoint, monkeypatch):
    fingerprint = load_model(checkpoint).fingerprint
    thresholds = {way: Threshold(0.5, 90.0, 80.0, 70.0) for way in DIRECTIONS}
    write_calibration(Calibration(fingerprint, "made", 2.0, thresholds), checkpoint)
    model = load_model(checkpoint)
    monkeypatch.setattr(model, "encode_images", lambda images: np.array([[1, 0], [0.6, 0.8], [-1, 0]], np.float32))
    monkeypatch.setattr(model, "encode_texts", lambda texts: np.array([[1, 0], [0, 1]], np.float32))
    scores, probabilities = model.rank(["a", "b", "c"], ["x", "y"])
    np.testing.assert_allclose(scores, model.logit_scale * np.array([[1, 0], [0.6, 0.8], [-1, 0]]), rtol=1e-6)
    right = 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(0.4)), 1 / (1 + np.exp(-0.4))
    np.testing.assert_allclose(probabilities, [[right[0], 0], [right[1], right[2]], [0, 0]], rtol=1e-5)


def test_the_command_and_what_search_and_tagging_make_of_it(tmp_path, shapes, checkpoint, capsys):
    from ernie_vil2.cli import run
    from ernie_vil2.search import open_index

    (tmp_path / "tags.txt").write_text("red\na\n")
    index, data, model = str(tmp_path / "index"), str(shapes["val"]), ["--checkpoint", str(checkpoint)]
    query = ["query", "--index", index, "red", "--threshold", "calibrated"]
    tag = ["lexicon", data, *model, "--words", f"en={tmp_path / 'tags.txt'}", "--output", str(tmp_path / "tags.jsonl"),
           "--threshold", "calibrated"]  # fmt: skip
    build = ["build", "--index", index, *model, "--data", data, "--texts", str(tmp_path / "tags.txt")]
    assert run("search", build) == 0
    for command, arguments in (("search", query), ("tag", tag)):
        assert run(command, arguments) == 2
        assert "has no calibration: run tools/calibrate.py, or give a number" in capsys.readouterr().err

    assert run("calibrate", [*model, "--data", data, "--language", "en"]) == 0
    assert "precision %" in capsys.readouterr().out
    found = load_model(checkpoint).calibration
    with open_index(index) as opened:
        bound = opened.threshold("image_to_text")
        (tags,) = opened.tags([np.zeros((32, 32, 3), np.uint8)])
        assert bound == found.thresholds["image_to_text"].cosine and all(hit.score >= bound for hit in tags)
    for command, arguments, direction in (("search", query, "text_to_image"), ("tag", tag, "image_to_text")):
        assert run(command, arguments) == 0
        assert found.described(direction) in capsys.readouterr().out
    assert "precision" in found.described("text_to_image")
    # An answer is none where the bound says so, to the word.
    above = dataclasses.replace(found, thresholds={way: Threshold(1.05, 0.0, 0.0, 100.0) for way in DIRECTIONS})
    write_calibration(above, checkpoint)
    assert run("search", query) == 0 and "nothing that is close enough" in capsys.readouterr().out
    assert run("tag", [*tag, "--output", str(tmp_path / "none.jsonl")]) == 0
    assert not any("tags_en" in json.loads(line) for line in (tmp_path / "none.jsonl").read_text().splitlines())
