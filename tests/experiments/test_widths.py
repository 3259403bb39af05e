"""Retrieval by short vectors: recalls against the evaluation's own, PCA against a case that is known, the table."""

import numpy as np
import pytest

from ernie_vil2.evaluation.retrieval import evaluate_retrieval
from experiments import widths
from tests.support.loss_reference import normalised


def sides(seed, images=60, texts=40, width=8):
    """Images and texts, and pairs; every text belongs to one or two images."""
    rng = np.random.default_rng(seed)
    pairs = [(image, image % texts) for image in range(images)]
    return (normalised(rng, images, width), normalised(rng, texts, width)), np.array(pairs)


def test_recall_is_that_of_the_evaluation():
    whole, pairs = sides(0)
    expected = evaluate_retrieval(*whole, pairs)["text_to_image"].recall["R@10"]
    assert 10 < expected < 90
    assert widths.recall(whole, whole, pairs) == pytest.approx(expected)


def test_candidates_are_ranked_by_whole_vectors():
    whole, pairs = sides(1)
    short = whole[0][:, :2], whole[1][:, :2]
    assert widths.recall(whole, short, pairs, candidates=60) == widths.recall(whole, whole, pairs)  # all are candidates
    assert widths.recall(whole, short, pairs, candidates=10) == widths.recall(whole, short, pairs)  # order is all alike
    expected = 0
    for text, (query, cut) in enumerate(zip(whole[1], short[1], strict=True)):
        found = sorted(range(60), key=lambda image: -(short[0][image] @ cut))[:20]
        ten = sorted(found, key=lambda image: -(whole[0][image] @ query))[:10]
        expected += bool({image for image, own in pairs.tolist() if own == text} & set(ten))
    assert widths.recall(whole, short, pairs, candidates=20) == pytest.approx(100 * expected / 40)


def test_pca_finds_the_plane_that_holds_everything():
    rng = np.random.default_rng(2)
    plane = np.linalg.qr(rng.normal(size=(6, 2)))[0].T
    found = widths.directions(rng.normal(size=(50, 2)) @ plane, rng.normal(size=(50, 2)) @ plane)
    np.testing.assert_allclose(found @ found.T, np.eye(6), atol=1e-12)
    np.testing.assert_allclose(found[:2].T @ found[:2], plane.T @ plane, atol=1e-9)


def test_the_table_has_means_and_paired_differences():
    first = {"W, prefix": 10.0, "E, PCA": 12.0, "E, prefix": 5.0}
    second = {"W, prefix": 11.0, "E, PCA": 14.0, "E, prefix": 6.0}
    row = widths.report({(32, True): {0: first, 1: second}}).splitlines()[-1]
    half = 12.706 * 0.5  # Student's t of one degree of freedom; the standard error of -2 and -3
    assert row == f"| 32 | whole vectors | 10.5 | 13.0 | 5.5 | -2.5 [{-2.5 - half:+.1f}, {-2.5 + half:+.1f}] |"
