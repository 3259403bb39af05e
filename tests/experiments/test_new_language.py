"""Chinese for models of icons: recalls worked out by hand, what is learnt and held out, and the table."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from ernie_vil2.evaluation.retrieval import evaluate_retrieval
from experiments import new_language, widths
from experiments.new_language import FORMS, LEARNT, STUDENTS, is_held_out, recalls, tables, write_texts
from tests.support.embedded_pairs import make_normalised_benchmark
from tests.support.loss_reference import draw_unit_rows


def test_a_third_of_the_words_is_held_out(tmp_path):
    words = [f"word {number}" for number in range(3000)]
    assert 0.3 < np.mean([is_held_out(word) for word in words]) < 0.37
    write_texts(tmp_path / "texts.csv", {"alarm clock": "闹钟"})
    rows = (tmp_path / "texts.csv").read_text(encoding="utf-8").splitlines()
    assert rows[:3] == ["caption_en,caption_zh", "alarm clock,闹钟", "the alarm clock,这个闹钟"]
    assert len(rows) == 2 + len(LEARNT) and not set(FORMS.values()) & set(LEARNT)


def test_recalls_are_by_kind_of_word_and_language(monkeypatch):
    monkeypatch.setattr(new_language, "is_held_out", lambda word: word == "key")
    monkeypatch.setattr(new_language, "FORMS", {"word": ("{}", "{}")})
    eye = np.eye(24)
    # The first test has twelve images of other things before a cup and a key, the second a cup alone.
    one = make_normalised_benchmark(eye[:14], eye[:14], [(row, row) for row in range(14)],
                  [*(f"thing {row}" for row in range(12)), "Cup", "key"])  # fmt: skip
    two = make_normalised_benchmark(eye[12:13], eye[12:13], [(0, 0)], ["cup"])
    far = eye[:12].sum(axis=0) / 12**0.5
    of = {"cup": eye[12], "key": eye[13], "杯": far, "钥匙": eye[13]}
    encoder = SimpleNamespace(encode_texts=lambda texts: np.array([of[text] for text in texts], np.float32))
    found = recalls(encoder, [one, two], {"cup": "杯", "key": "钥匙", "tree": "树"})
    assert found == {
        "en/learnt/word": 100, "en/held out/word": 100, "en/all/word": 100,
        # Twelve images are nearer to the Chinese cup in the first test; in the second there is no other image.
        "zh/learnt/word": 50, "zh/held out/word": 100, "zh/all/word": pytest.approx(200 / 3),
    }  # fmt: skip


def test_a_table_has_differences_to_the_teacher_by_seed():
    keys = ["/".join(names) for names in product(("zh", "en"), ("learnt", "held out", "all"), FORMS)]
    base = {seed: dict.fromkeys(keys, 5.0 + seed) for seed in (0, 1, 2)}
    found = {seed: {"E": of, **{name: {key: value + 3 for key, value in of.items()} for name in STUDENTS}}
             for seed, of in base.items()}  # fmt: skip
    word, sentence = tables(found)
    assert [row[0] for row in word.rows] == ["E", *STUDENTS] and word.rows[0][1:4] == ["6.0", "6.0", "–"]
    assert word.rows[1][1:4] == ["9.0", "9.0", "+3.0 [+3.0, +3.0] *"] and sentence.rows == word.rows


def sides(seed, images=60, texts=40, width=8):
    """Images and texts, and pairs; every text belongs to one or two images."""
    rng = np.random.default_rng(seed)
    pairs = [(image, image % texts) for image in range(images)]
    return (draw_unit_rows(rng, images, width), draw_unit_rows(rng, texts, width)), np.array(pairs)


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
