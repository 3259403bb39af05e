"""Recalls of models of icons that learn Chinese, and the tables of the experiment, equal those by hand."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from ernie_vil2.evaluation.retrieval import evaluate_retrieval
from ernie_vil2.io.run_folder import list_checkpoints
from experiments import new_language, widths
from experiments.new_language import (
    LEARNT_SENTENCES,
    QUERY_FORMS,
    STUDENTS,
    is_held_out,
    make_tables,
    measure_recalls,
    write_texts,
)
from tests.support.embedded_pairs import make_normalised_benchmark
from tests.support.loss_reference import draw_unit_rows

KEYS = ["/".join(names) for names in product(("zh", "en"), ("learnt", "held out", "all"), QUERY_FORMS)]


def test_about_a_third_of_words_is_held_out(tmp_path):
    words = [f"word {number}" for number in range(3000)]
    assert 0.3 < np.mean([is_held_out(word) for word in words]) < 0.37
    write_texts(tmp_path / "texts.csv", {"alarm clock": "闹钟"})
    rows = (tmp_path / "texts.csv").read_text(encoding="utf-8").splitlines()
    assert rows[:3] == ["caption_en,caption_zh", "alarm clock,闹钟", "the alarm clock,这个闹钟"]
    assert len(rows) == 2 + len(LEARNT_SENTENCES) and not set(QUERY_FORMS.values()) & set(LEARNT_SENTENCES)


def test_recalls_are_grouped_by_language_and_kind_of_word(monkeypatch):
    monkeypatch.setattr(new_language, "is_held_out", lambda word: word == "key")
    monkeypatch.setattr(new_language, "QUERY_FORMS", {"word": ("{}", "{}")})
    eye = np.eye(24)
    # The first test has images of twelve things, a cup and a key, the second only a cup.
    names = [*(f"thing {row}" for row in range(12)), "Cup", "key"]
    first = make_normalised_benchmark(eye[:14], eye[:14], [(row, row) for row in range(14)], names)
    second = make_normalised_benchmark(eye[12:13], eye[12:13], [(0, 0)], ["cup"])
    mean_of_things = eye[:12].sum(axis=0) / 12**0.5
    vectors = {"cup": eye[12], "key": eye[13], "杯": mean_of_things, "钥匙": eye[13]}
    encoder = SimpleNamespace(encode_texts=lambda texts: np.array([vectors[text] for text in texts], np.float32))
    assert measure_recalls(encoder, [first, second], {"cup": "杯", "key": "钥匙", "tree": "树"}) == {
        "en/learnt/word": 100, "en/held out/word": 100, "en/all/word": 100,
        # Twelve images are nearer to the Chinese cup in the first test; the second has no other image.
        "zh/learnt/word": 50, "zh/held out/word": 100, "zh/all/word": pytest.approx(200 / 3),
    }  # fmt: skip


def test_folder_of_other_settings_is_refused(tmp_path, monkeypatch):
    recalls = {model: dict.fromkeys(KEYS, 1.0) for model in ("E", *STUDENTS)}
    monkeypatch.setattr(new_language, "get_recalls", lambda *_, **__: recalls)
    command = ["--output", str(tmp_path), "-o", "Training.steps=4"]
    assert new_language.main(command) == new_language.main(command) == 0
    with pytest.raises(SystemExit, match="other -o: .*--output"):
        new_language.main(command[:2])
    assert new_language.main([*command[:2], "--report"]) == 0


def test_tables_have_differences_to_the_teacher_by_seed():
    results = {}
    for seed in (0, 1, 2):
        results[seed] = {"E": dict.fromkeys(KEYS, 5.0 + seed)}
        results[seed] |= {name: dict.fromkeys(KEYS, 8.0 + seed) for name in STUDENTS}
    word, sentence = make_tables(results)
    assert [row[0] for row in word.rows] == ["E", *STUDENTS] and word.rows[0][1:4] == ["6.0", "6.0", "–"]
    assert word.rows[1][1:4] == ["9.0", "9.0", "+3.0 [+3.0, +3.0] *"] and sentence.rows == word.rows


def draw_sides(seed, images=60, texts=40, width=8):
    """Return embeddings of images and texts, and pairs; every text belongs to one or two images."""
    rng = np.random.default_rng(seed)
    pairs = [(image, image % texts) for image in range(images)]
    sides = widths.Sides(draw_unit_rows(rng, images, width), draw_unit_rows(rng, texts, width))
    return sides, np.array(pairs)


def test_recall_equals_that_of_the_evaluation():
    sides, pairs = draw_sides(0)
    expected = evaluate_retrieval(*sides, pairs)["text_to_image"].recall["R@10"]
    assert 10 < expected < 90
    assert widths.compute_recall(sides, sides, pairs) == pytest.approx(expected)


def test_candidates_are_ranked_by_full_vectors():
    sides, pairs = draw_sides(1)
    prefixes = widths.Sides(sides.images[:, :2], sides.texts[:, :2])
    # With all images as candidates full vectors alone decide; with ten, R@10 does not depend on their order.
    assert widths.compute_recall(sides, prefixes, pairs, num_candidates=60) == widths.compute_recall(
        sides, sides, pairs
    )
    assert widths.compute_recall(sides, prefixes, pairs, num_candidates=10) == widths.compute_recall(
        sides, prefixes, pairs
    )
    images_of_text = {text: set() for text in range(40)}
    for image, text in pairs.tolist():
        images_of_text[text].add(image)
    num_hits = 0
    for text, images in images_of_text.items():
        candidates = np.argsort(-(prefixes[0] @ prefixes[1][text]))[:20]
        order = np.argsort(-(sides[0][candidates] @ sides[1][text]))
        num_hits += not images.isdisjoint(candidates[order][:10].tolist())
    assert widths.compute_recall(sides, prefixes, pairs, num_candidates=20) == pytest.approx(100 * num_hits / 40)


def test_pca_finds_the_plane_of_all_vectors():
    rng = np.random.default_rng(2)
    plane = np.linalg.qr(rng.normal(size=(6, 2)))[0].T
    directions = widths.fit_pca(widths.Sides(rng.normal(size=(50, 2)) @ plane, rng.normal(size=(50, 2)) @ plane))
    np.testing.assert_allclose(directions @ directions.T, np.eye(6), atol=1e-12)
    # Projections onto a plane are equal whatever its basis.
    np.testing.assert_allclose(directions[:2].T @ directions[:2], plane.T @ plane, atol=1e-9)


def test_table_has_means_and_paired_differences():
    first = {"W, prefix": 10.0, "E, PCA": 12.0, "E, prefix": 5.0}
    second = {"W, prefix": 11.0, "E, PCA": 14.0, "E, prefix": 6.0}
    row = widths.format_report({widths.Setting(32, True): {0: first, 1: second}}).splitlines()[-1]
    half = 12.706 * 0.5  # Student's t of one degree of freedom; the standard error of -2 and -3
    assert row == f"| 32 | whole vectors | 10.5 | 13.0 | 5.5 | -2.5 [{-2.5 - half:+.1f}, {-2.5 + half:+.1f}] |"


def test_embeddings_of_other_icons_or_steps_are_not_taken(trained_study):
    study, _ = trained_study
    first, last = list_checkpoints(study.find_run("main/A/0").folder)
    assert [len(widths.embed_tests(last, study, number)["train/images"]) for number in (5, 7)] == [5, 7]
    assert not np.array_equal(*[widths.embed_tests(step, study, 5)["train/texts"] for step in (first, last)])
