"""Calibration finds the best thresholds and temperature, and is stored next to its model."""

import json

import numpy as np
import pytest

from ernie_vil2 import load_model
from ernie_vil2.data.readers import open_benchmarks
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
from tests.support.commands import call, succeed
from tests.support.encoding_model import normalise_rows
from tests.support.paths import FIXTURES
from tests.support.shapes import SPECIAL_TOKENS
from tests.support.trainings import run_tool


def pair_equal_numbers(count):
    """Return the pairs (0, 0), (1, 1), ... as an array `[count, 2]`."""
    return np.stack([np.arange(count)] * 2, axis=1)


def find_best_f1(queries, gallery, pairs):
    """Try every score as the threshold, and return its F1, -threshold, precision, recall and rejection."""
    # Float64 products, rounded: the threshold is compared with the same float32 scores as in the package.
    scores = (queries.astype(np.float64) @ gallery.T.astype(np.float64)).astype(np.float32)
    query_rows = sorted(set(pairs[:, 0].tolist()))
    partners = {query: set(pairs[pairs[:, 0] == query, 1].tolist()) for query in query_rows}
    results = []
    for bound in np.unique(scores):
        num_right = num_answered = num_refused = 0
        for query in query_rows:
            answer = int(scores[query].argmax())
            if scores[query, answer] >= bound:
                num_answered += 1
                num_right += answer in partners[query]
            # The same query without its partners in the gallery should be refused.
            wrong_scores = [score for row, score in enumerate(scores[query]) if row not in partners[query]]
            num_answered += max(wrong_scores) >= bound
            num_refused += max(wrong_scores) < bound
        f1 = 2 * num_right / (num_answered + len(query_rows))
        precision, recall = 100 * num_right / num_answered, 100 * num_right / len(query_rows)
        # Of equal F1 the lowest threshold wins, so the threshold is negated for `max`.
        results.append((f1, -bound, precision, recall, 100 * num_refused / len(query_rows)))
    return max(results)


@pytest.mark.parametrize("seed", range(3))
def test_threshold_has_the_best_f1(seed):
    rng = np.random.default_rng(seed)
    images = normalise_rows(rng.normal(size=(12, 4)))
    texts = normalise_rows(np.repeat(images, 2, axis=0) + 0.6 * rng.normal(size=(24, 4)))
    pairs = np.stack([np.repeat(np.arange(12), 2), np.arange(24)], axis=1)
    calibration = calibrate(images, texts, pairs, "f", "made")
    inputs_of = {"image_to_text": (images, texts, pairs), "text_to_image": (texts, images, pairs[:, ::-1])}
    for direction, inputs in inputs_of.items():
        threshold = calibration.thresholds[direction]
        expected_f1, _, *expected_shares = find_best_f1(*inputs)
        answers_per_query = threshold.recall / threshold.precision
        assert 2 * threshold.recall / 100 / (answers_per_query + 1) == pytest.approx(expected_f1)
        assert [threshold.precision, threshold.recall, threshold.rejection] == pytest.approx(expected_shares)


def test_temperature_minimises_the_loss():
    rng = np.random.default_rng(0)
    images = normalise_rows(rng.normal(size=(40, 8)))
    texts = normalise_rows(images + 0.5 * rng.normal(size=images.shape))
    scale = calibrate(images, texts, pair_equal_numbers(40), "f", "made").logit_scale

    def compute_loss(scale):
        logits = scale * images @ texts.T
        return -(np.diag(logits) - np.log(np.exp(logits).sum(axis=1))).mean()

    # The loss is convex in the scale: a minimum is lower than both of its neighbours.
    assert compute_loss(scale) <= min(compute_loss(scale * 0.98), compute_loss(scale * 1.02))


def test_calibration_is_read_only_for_its_model(tmp_path):
    axes = normalise_rows(np.eye(3))
    calibration = calibrate(axes, axes, pair_equal_numbers(3), "abc", "made")
    path = write_calibration(calibration, tmp_path)
    assert read_calibration(tmp_path, "abc") == calibration
    assert read_calibration(tmp_path, "other") is None
    record = json.loads(path.read_text())
    one_threshold = {"image_to_text": record["thresholds"]["image_to_text"]}
    for content in ("{", json.dumps(record | {"thresholds": one_threshold}), json.dumps(record | {"logit_scale": 0})):
        path.write_text(content)
        with pytest.raises(ValueError, match=f"{path.name} is damaged"):
            read_calibration(tmp_path, "abc")


def test_data_without_wrong_answers_are_refused():
    axes = normalise_rows(np.eye(3))
    with pytest.raises(ValueError, match="nothing to calibrate on"):
        calibrate(axes, axes, np.zeros((0, 2), int), "f", "made")
    with pytest.raises(ValueError, match="everything belongs to one of the queries"):
        calibrate(axes[:1], axes[:1], pair_equal_numbers(1), "f", "made")


@pytest.fixture
def checkpoint(tmp_path):
    return write_untrained_checkpoint(tmp_path / "model", [*SPECIAL_TOKENS, "a", "red"])


def test_probabilities_follow_the_calibration(checkpoint, monkeypatch):
    fingerprint = load_model(checkpoint).fingerprint
    thresholds = {direction: Threshold(0.5, 90.0, 80.0, 70.0) for direction in DIRECTIONS}
    write_calibration(Calibration(fingerprint, "made", 2.0, thresholds), checkpoint)
    model = load_model(checkpoint)
    images = np.array([[1, 0], [0.6, 0.8], [-1, 0]], np.float32)
    monkeypatch.setattr(model, "encode_images", lambda _: images)
    monkeypatch.setattr(model, "encode_texts", lambda _: np.eye(2, dtype=np.float32))
    scores, probabilities = model.rank(["a", "b", "c"], ["x", "y"])
    np.testing.assert_allclose(scores, model.logit_scale * images, rtol=1e-6)
    # Softmax of two logits with scale 2: cosines (1, 0) differ by 2, cosines (0.6, 0.8) by 0.4. Cosines below the
    # threshold of 0.5 have probability 0.
    clear_match, second_best, best = 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(0.4)), 1 / (1 + np.exp(-0.4))
    np.testing.assert_allclose(probabilities, [[clear_match, 0], [second_best, best], [0, 0]], rtol=1e-5)


def test_first_language_of_the_data_is_calibrated_by_default(shapes, checkpoint):
    (language, *_), data = open_benchmarks([str(shapes["val"])]), shapes["val"]
    succeed("calibrate", "--checkpoint", checkpoint, "--data", data, "--device", "cpu")
    assert json.loads((checkpoint / CALIBRATION).read_text())["data"] == f"{data} {language}"


@pytest.mark.thorough
def test_ranks_write_one_calibration_that_equals_that_of_one_process(shapes, checkpoint):
    arguments = ["--checkpoint", checkpoint, "--data", shapes["val"], "--language", "en", "--device", "cpu"]
    succeed("calibrate", *arguments)
    expected = json.loads((checkpoint / CALIBRATION).read_text())
    (checkpoint / CALIBRATION).unlink()

    process = run_tool("tools/calibrate.py", *arguments, "--processes", 2)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("written: ") == 1
    assert json.loads((checkpoint / CALIBRATION).read_text()) | {"date": expected["date"]} == expected


def test_calibrate_starts_the_processes(shapes, checkpoint, monkeypatch):
    monkeypatch.setattr("ernie_vil2.device.launch.run_ranks", lambda command, num_ranks: num_ranks)
    arguments = ["--checkpoint", checkpoint, "--data", shapes["val"], "--language", "en", "--device", "cpu"]
    assert call("calibrate", *arguments, "--processes", 3).returncode == 3
    assert not (checkpoint / CALIBRATION).exists()


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_calibration_of_another_version_is_refused(tmp_path, version):
    record = json.loads((FIXTURES / "shapes" / "model" / CALIBRATION).read_text())
    (tmp_path / CALIBRATION).write_text(json.dumps(record | {"version": version}))
    with pytest.raises(OtherVersion, match=CALIBRATION):
        read_calibration(tmp_path, record["fingerprint"])
