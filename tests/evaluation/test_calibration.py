"""Thresholds and temperature against values worked out by hand and against a search over all of them."""

import json

import numpy as np
import pytest

from ernie_vil2 import load_model
from ernie_vil2.evaluation.calibrate import calibrate
from ernie_vil2.io.calibration import (
    CALIBRATION,
    DIRECTIONS,
    Calibration,
    Threshold,
    read_calibration,
    write_calibration,
)
from ernie_vil2.io.files import OtherVersion
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.encoding_model import normalise_rows
from tests.support.paths import FIXTURES
from tests.support.shapes import SPECIAL_TOKENS


def matches(count):
    """Return the pairs of images and texts where each belongs to the one of its number."""
    return np.stack([np.arange(count)] * 2, axis=1)


def best_f1(queries, gallery, pairs):
    """Try all thresholds one by one, query by query."""
    scores = (queries.astype(np.float64) @ gallery.T.astype(np.float64)).astype(np.float32)
    asked = sorted(set(pairs[:, 0].tolist()))
    partners = {query: set(pairs[pairs[:, 0] == query, 1].tolist()) for query in asked}
    results = []
    for bound in np.unique(scores):
        right = answered = refused = 0
        for query in asked:
            answer = int(scores[query].argmax())
            if scores[query, answer] >= bound:
                answered += 1
                right += answer in partners[query]
            others = [score for position, score in enumerate(scores[query]) if position not in partners[query]]
            answered += max(others) >= bound
            refused += max(others) < bound
        f1 = 2 * right / (answered + len(asked))
        results.append((f1, -bound, 100 * right / answered, 100 * right / len(asked), 100 * refused / len(asked)))
    return max(results)


@pytest.mark.parametrize("seed", range(3))
def test_the_threshold_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    images = normalise_rows(rng.normal(size=(12, 4)))
    texts = normalise_rows(np.repeat(images, 2, axis=0) + 0.6 * rng.normal(size=(24, 4)))
    pairs = np.stack([np.repeat(np.arange(12), 2), np.arange(24)], axis=1)
    calibration = calibrate(images, texts, pairs, "f", "made")
    for direction, inputs in {
        "image_to_text": (images, texts, pairs), "text_to_image": (texts, images, pairs[:, ::-1])
    }.items():  # fmt: skip
        threshold, (f1, _, *shares) = calibration.thresholds[direction], best_f1(*inputs)
        answered = threshold.recall / threshold.precision
        assert 2 * threshold.recall / 100 / (answered + 1) == pytest.approx(f1)
        assert [threshold.precision, threshold.recall, threshold.rejection] == pytest.approx(shares)


def test_the_temperature_is_that_of_the_least_loss():
    rng = np.random.default_rng(0)
    images = normalise_rows(rng.normal(size=(40, 8)))
    texts = normalise_rows(images + 0.5 * rng.normal(size=images.shape))
    scale = calibrate(images, texts, matches(40), "f", "made").logit_scale

    def loss(scale):
        logits = scale * images @ texts.T
        return -(np.diag(logits) - np.log(np.exp(logits).sum(axis=1))).mean()

    assert loss(scale) <= min(loss(scale * 0.98), loss(scale * 1.02))


def test_it_is_kept_next_to_its_model_alone(tmp_path):
    axes = normalise_rows(np.eye(3))
    calibration = calibrate(axes, axes, matches(3), "abc", "made")
    path = write_calibration(calibration, tmp_path)
    assert read_calibration(tmp_path, "abc") == calibration
    assert read_calibration(tmp_path, "other") is None
    record = json.loads(path.read_text())
    one_way = {"image_to_text": record["thresholds"]["image_to_text"]}
    for damage in ("{", json.dumps(record | {"thresholds": one_way}), json.dumps(record | {"logit_scale": 0})):
        path.write_text(damage)
        with pytest.raises(ValueError, match=f"{path.name} is damaged"):
            read_calibration(tmp_path, "abc")


def test_a_set_that_teaches_nothing_is_refused():
    axes = normalise_rows(np.eye(3))
    with pytest.raises(ValueError, match="nothing to calibrate on"):
        calibrate(axes, axes, np.zeros((0, 2), int), "f", "made")
    with pytest.raises(ValueError, match="everything belongs to one of the queries"):
        calibrate(axes[:1], axes[:1], matches(1), "f", "made")


@pytest.fixture
def checkpoint(tmp_path):
    return write_untrained_checkpoint(tmp_path / "model", [*SPECIAL_TOKENS, "a", "red"])


def test_rank_by_a_calibration_by_hand(checkpoint, monkeypatch):
    fingerprint = load_model(checkpoint).fingerprint
    thresholds = {direction: Threshold(0.5, 90.0, 80.0, 70.0) for direction in DIRECTIONS}
    write_calibration(Calibration(fingerprint, "made", 2.0, thresholds), checkpoint)
    model = load_model(checkpoint)
    images = np.array([[1, 0], [0.6, 0.8], [-1, 0]], np.float32)
    monkeypatch.setattr(model, "encode_images", lambda _: images)
    monkeypatch.setattr(model, "encode_texts", lambda _: np.eye(2, dtype=np.float32))
    scores, probabilities = model.rank(["a", "b", "c"], ["x", "y"])
    np.testing.assert_allclose(scores, model.logit_scale * images, rtol=1e-6)
    right = 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(0.4)), 1 / (1 + np.exp(-0.4))
    np.testing.assert_allclose(probabilities, [[right[0], 0], [right[1], right[2]], [0, 0]], rtol=1e-5)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_a_calibration_of_another_version_is_refused(tmp_path, version):
    record = json.loads((FIXTURES / "shapes" / "model" / CALIBRATION).read_text())
    (tmp_path / CALIBRATION).write_text(json.dumps(record | {"version": version}))
    with pytest.raises(OtherVersion, match=CALIBRATION):
        read_calibration(tmp_path, record["fingerprint"])
