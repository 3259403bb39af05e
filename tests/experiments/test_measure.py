"""Measures of the ablation equal their definitions: sums over all pairs, and rankings by hand."""

import tracemalloc
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.ablation import measure
from experiments.ablation.tables import interpolate_scores
from tests.support.embedded_pairs import make_normalised_benchmark


def test_curve_is_read_between_its_points():
    assert interpolate_scores({"runs": [{"group": "main", "model": "A", "seed": 7, "curve": []}]}, "main", "A", 1) == {}
    runs = [{"group": "main", "model": "A", "seed": 7, "curve": [[1, 2.0, 10.0], [2, 4.0, 11.0], [3, None, 12.0]]}]
    values = [interpolate_scores({"runs": runs}, "main", "A", seconds)[7] for seconds in (1, 2, 3, 5)]
    # The curve begins at zero, and stays at its last value.
    assert values == [5, 10, 10.5, 11]


def test_alignment_and_uniformity_equal_their_definitions(monkeypatch):
    monkeypatch.setattr(measure, "BLOCK_ROWS", 2)
    rng = np.random.default_rng(0)
    pairs = [(0, 0), (1, 1), (2, 1), (3, 2), (4, 3)]
    encoded = make_normalised_benchmark(rng.normal(size=[5, 3]), rng.normal(size=[4, 3]), pairs)
    images, texts = encoded.image_embeddings, encoded.text_embeddings
    measures = measure.score_alignment_and_uniformity(encoded)
    distances = [np.sum((images[image] - texts[text]) ** 2) for image, text in pairs]
    assert measures["alignment"] == pytest.approx(np.mean(distances), rel=1e-5)
    for side, rows in (("image", images), ("text", texts)):
        potentials = [np.exp(-2 * np.sum((a - b) ** 2)) for a, b in combinations(rows, 2)]
        assert measures[f"{side}_uniformity"] == pytest.approx(np.log(np.mean(potentials)), rel=1e-5)


def test_uniformity_needs_no_matrix_of_all_pairs():
    rows = make_normalised_benchmark(np.random.default_rng(0).normal(size=[4000, 3]), np.eye(3), [(0, 0)])
    tracemalloc.start()
    measure.score_alignment_and_uniformity(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4000**2 * 8 / 2


AXES = np.eye(4)


def test_images_find_equal_names_of_other_teams():
    # Angles in a plane: the first team has a cup at 0, a key at 90 and a cup at 6 degrees; the second a Cup at 50 and a
    # key at 79 degrees.
    first = make_normalised_benchmark(
        [AXES[0], AXES[1], [1, 0.1, 0, 0]], AXES[:3], [(0, 0), (1, 1), (2, 0)], ["cup", "key", "x"]
    )
    second = make_normalised_benchmark([[1, 1.2, 0, 0], [0.2, 1, 0, 0]], AXES[:2], [(0, 0), (1, 1)], ["Cup", "key"])
    figures = measure.score_image_to_image([first, second])
    assert figures["image_to_image/queries"] == 5
    # Cups of the same team skip each other; the Cup is nearer to the key of its team than to any cup.
    assert figures["image_to_image/R@1"] == pytest.approx(100 * 4 / 5)
    assert figures["image_to_image/R@5"] == 100


def test_names_in_the_second_language_find_images():
    encoded = make_normalised_benchmark(AXES[:3], AXES[:3], [(0, 0), (1, 1), (2, 2)], ["cup", "Key", "unknown"])
    vectors = {"cup": AXES[0], "Key": AXES[1], "杯": AXES[0], "钥匙": AXES[2], "home": AXES[0]}
    encoder = SimpleNamespace(encode_texts=lambda texts: np.array([vectors[text] for text in texts], np.float32))
    figures = measure.score_second_language(encoder, encoded, {"cup": "杯", "key": "钥匙"})
    assert (figures["second/queries"], figures["first/R@1"], figures["second/R@1"]) == (2, 100, 50)
    with_aliases = make_normalised_benchmark(AXES[:2], AXES[:2], [(0, 0), (1, 1)], ["house", "key"], [["home"], []])
    assert measure.score_text_to_text(encoder, [with_aliases])["text_to_text/R@1"] == 100


def test_means_weight_names_by_query_and_recalls_by_test():
    figures = {"a/mR": 10.0, "b/mR": 20.0, "a/second/R@1": 10.0, "b/second/R@1": 50.0, "a/second/queries": 3,
               "b/second/queries": 1, "a/alone": 1.0}  # fmt: skip
    assert measure.average_over_tests(figures, ["a", "b"]) == {
        "all/mR": 15,
        "all/second/R@1": 20,
        "all/second/queries": 4,
    }
