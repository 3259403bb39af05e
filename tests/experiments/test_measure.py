"""What is measured, against a second way: SciPy's intervals, sums over all pairs, rankings by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments.ablation import measure
from experiments.ablation.tables import _read_at
from tests.support.embedded_pairs import make_normalised_benchmark


def test_a_curve_is_read_between_its_points():
    assert _read_at({"runs": [{"group": "main", "model": "A", "seed": 7, "curve": []}]}, "main", "A", 1) == {}
    runs = [{"group": "main", "model": "A", "seed": 7, "curve": [[1, 2.0, 10.0], [2, 4.0, 11.0], [3, None, 12.0]]}]
    found = [_read_at({"runs": runs}, "main", "A", seconds)[7] for seconds in (1, 2, 3, 5)]
    assert found == [5, 10, 10.5, 11], "from zero on, and at the last one where it lies before"


def test_alignment_and_uniformity_are_their_definitions():
    rng = np.random.default_rng(0)
    made = make_normalised_benchmark(
        rng.normal(size=[5, 3]), rng.normal(size=[4, 3]), [(0, 0), (1, 1), (2, 1), (3, 2), (4, 3)]
    )
    found = measure.alignment_and_uniformity(made)
    gaps = [np.sum((made.image_embeddings[i] - made.text_embeddings[t]) ** 2) for i, t in made.benchmark.pairs]
    assert found["alignment"] == pytest.approx(np.mean(gaps), rel=1e-5)
    for side, rows in (("image", made.image_embeddings), ("text", made.text_embeddings)):
        potential = [np.exp(-2 * np.sum((rows[a] - rows[b]) ** 2)) for a in range(len(rows)) for b in range(a)]
        assert found[f"{side}_uniformity"] == pytest.approx(np.log(np.mean(potential)), rel=1e-5)


AXES = np.eye(4)


def test_images_ask_for_those_of_other_teams_by_the_same_name():
    # In degrees of one plane: cup 0, key 90, cup 6; the other team's Cup 50, key 79.
    one = make_normalised_benchmark(
        [AXES[0], AXES[1], [1, 0.1, 0, 0]], AXES[:3], [(0, 0), (1, 1), (2, 0)], ["cup", "key", "x"]
    )
    two = make_normalised_benchmark([[1, 1.2, 0, 0], [0.2, 1, 0, 0]], AXES[:2], [(0, 0), (1, 1)], ["Cup", "key"])
    found = measure._images([one, two])
    assert found["image_to_image/queries"] == 5
    # The cups skip each other, being of one team; to Cup the key of its own team is nearer than a cup.
    assert found["image_to_image/R@1"] == pytest.approx(100 * 4 / 5)
    assert found["image_to_image/R@5"] == 100


def test_names_in_the_second_language_ask_for_images():
    made = make_normalised_benchmark(AXES[:3], AXES[:3], [(0, 0), (1, 1), (2, 2)], ["cup", "Key", "unknown"])
    of = {"cup": AXES[0], "Key": AXES[1], "杯": AXES[0], "钥匙": AXES[2], "home": AXES[0]}
    encoder = SimpleNamespace(encode_texts=lambda texts: np.array([of[text] for text in texts], np.float32))
    found = measure._second_language(encoder, made, {"cup": "杯", "key": "钥匙"})
    assert (found["second/queries"], found["first/R@1"], found["second/R@1"]) == (2, 100, 50)
    named = make_normalised_benchmark(AXES[:2], AXES[:2], [(0, 0), (1, 1)], ["house", "key"], [["home"], []])
    assert measure._aliases(encoder, [named])["text_to_text/R@1"] == 100


def test_names_count_by_query_and_other_figures_by_test():
    figures = {"a/mR": 10.0, "b/mR": 20.0, "a/second/R@1": 10.0, "b/second/R@1": 50.0, "a/second/queries": 3,
               "b/second/queries": 1, "a/alone": 1.0}  # fmt: skip
    assert measure._means(figures, ["a", "b"]) == {"all/mR": 15, "all/second/R@1": 20, "all/second/queries": 4}
