"""Scores, their thresholds, and what mismatched pairs say of a crawl."""

import numpy as np
import pytest

from ernie_vil2.curation.mismatches import calibrated, mismatched, wrong_share
from tests.conftest import TOKENS, untrained_checkpoint
from tests.curation.conftest import encoded, picture, write_tar


def crawl(rng, pairs, wrong):
    """Scores of pairs of which a share is wrong, which they are, and scores of mismatched pairs."""
    is_wrong = rng.random(pairs) < wrong
    scores = np.where(is_wrong, rng.normal(0, 1, pairs), rng.normal(3.0, 1, pairs))
    order = np.argsort(scores)
    return scores[order], is_wrong[order], np.sort(rng.normal(0, 1, 10 * pairs))


@pytest.mark.parametrize("wrong", [0.0, 0.1, 0.3, 0.6])
def test_the_share_of_wrong_pairs_is_estimated_from_mismatched_ones(wrong):
    scores, is_wrong, null = crawl(np.random.default_rng(1), 20_000, wrong)
    assert wrong_share(scores, null) == pytest.approx(is_wrong.mean(), abs=0.03)


@pytest.mark.parametrize("tolerated", [0.02, 0.05, 0.1])
def test_a_calibrated_threshold_keeps_the_tolerated_share_of_wrong_pairs(tolerated):
    scores, is_wrong, null = crawl(np.random.default_rng(2), 20_000, 0.4)
    found = calibrated(scores, null, tolerated)
    kept = scores >= found.score
    assert is_wrong[kept].mean() == pytest.approx(tolerated, abs=0.012)
    assert found.wrong <= tolerated and found.kept == pytest.approx(kept.mean(), abs=1e-6)
    assert (~is_wrong[kept]).sum() > 0.85 * (~is_wrong).sum()


def test_where_scores_say_nothing_the_threshold_says_so():
    rng = np.random.default_rng(3)
    scores, null = np.sort(rng.normal(size=5000)), np.sort(rng.normal(size=50_000))
    assert wrong_share(scores, null) > 0.9
    assert calibrated(scores, null, 0.1).wrong > 0.5


def test_mismatched_scores_are_those_of_other_captions():
    rng = np.random.default_rng(4)
    images = rng.normal(size=(200, 8))
    texts = np.stack([images + 0.1 * rng.normal(size=(200, 8)), rng.normal(size=(200, 8)) + 0.5])
    images, texts = (values / np.linalg.norm(values, axis=-1, keepdims=True) for values in (images, texts))
    found = mismatched(images, texts)
    every = np.stack([images @ text.T for text in texts], axis=-1)[~np.eye(200, dtype=bool)]
    assert found.means == pytest.approx(every.mean(axis=0), abs=0.05)
    assert found.deviations == pytest.approx(every.std(axis=0), rel=0.1)
    own = np.stack([(images * text).sum(axis=1) for text in texts], axis=-1)
    by_hand = ((own - found.means) / found.deviations).mean(axis=1)
    assert found.score(own) == pytest.approx(by_hand)
    assert np.median(found.score(own)) > np.quantile(found.scores, 0.95)


@pytest.fixture
def pairs(tmp_path):
    words = [f"{colour} {shape}" for colour in ("red", "green", "blue", "yellow") for shape in ("disc", "bar", "cross")]
    rows = [(encoded(picture(number)), {"en": f"a {word}", "zh": "红色圆"}) for number, word in enumerate(words)]
    rows += [(encoded(picture(20)), "IMG_0001.JPG"), (b"broken", "a red cross")]
    return write_tar(tmp_path / "crawl.tar", rows)


def test_scores_are_cosines_in_units_of_mismatched_ones_and_the_best_share_stays(tmp_path, pairs, curated):
    from ernie_vil2 import load_model

    model = untrained_checkpoint(tmp_path / "model")
    text = f"text_rules: {{han: 1, words: 1}}\nscore: {{model: {model}, by: quantile, keep: 0.25, device: cpu}}"
    rows = list(curated([pairs], text).values())
    assert [row["score"] is None for row in rows] == [False] * 12 + [True] * 2
    assert [row["reason"] for row in rows[12:]] == ["file name", "broken image"]
    loaded = load_model(model, device="cpu")
    images = loaded.encode_images([encoded(picture(number)) for number in range(12)])
    english = loaded.encode_texts([f"a {colour} {shape}" for colour in ("red", "green", "blue", "yellow")
                                   for shape in ("disc", "bar", "cross")])  # fmt: skip
    assert [row["cosine_en"] for row in rows[:12]] == pytest.approx((images * english).sum(axis=1), abs=1e-3)
    assert all(row["cosine_zh"] is not None and row["cosine_other"] is None for row in rows[:12])
    kept = [row["score"] for row in rows[:12] if row["kept"]]
    gone = [row["score"] for row in rows[:12] if not row["kept"]]
    assert len(kept) == 3 and min(kept) > max(gone)
    assert {row["reason"] for row in rows[:12] if not row["kept"]} == {"image and caption do not fit"}


def test_of_several_models_each_scores_its_own_fold(tmp_path, pairs, curated):
    models = [
        untrained_checkpoint(tmp_path / "first"),
        untrained_checkpoint(tmp_path / "second", tokens=[*TOKENS[:5], *reversed(TOKENS[5:])]),
    ]
    single = [curated([pairs], f"score: {{model: {model}, by: quantile, keep: 0.5, device: cpu}}", f"of {number}")
              for number, model in enumerate(models)]  # fmt: skip
    both = curated([pairs], f"score: {{model: [{', '.join(map(str, models))}], by: quantile, keep: 0.5, device: cpu}}")
    assert {row["id"] % 2 for row in both.values()} == {0, 1}
    assert any(row["cosine_en"] != single[1][key]["cosine_en"] for key, row in single[0].items() if row["cosine_en"])
    for key, row in both.items():
        if row["step"] == "unreadable":
            continue
        assert row["cosine_en"] == pytest.approx(single[row["id"] % 2][key]["cosine_en"], abs=1e-5)


def test_a_step_without_its_model_says_so(pairs, curated):
    with pytest.raises(ValueError, match="score needs a model: -o score.model=MODEL, or leave the step out"):
        curated([pairs], "score: {}")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        curated([pairs], "score: {model: nowhere/at/all}")


def test_embeddings_can_have_a_word_in_near_duplicates(tmp_path, curated):
    model = untrained_checkpoint(tmp_path / "model")
    rows = [(encoded(picture(1, size)), f"a red disc {size}") for size in (64, 80)]
    path = write_tar(tmp_path / "two.tar", rows)
    score = f"score: {{model: {model}, by: quantile, keep: 1.0, device: cpu}}\n"
    for least, kept in ((0.5, 1), (1.0, 2)):
        found = curated([path], score + f"near_duplicates: {{likeness: 0.9, embedding: {least}}}", f"at {least}")
        assert sum(row["kept"] for row in found.values()) == kept
    with pytest.raises(ValueError, match="near_duplicates.embedding needs the embeddings of score"):
        curated([path], "near_duplicates: {likeness: 0.9, embedding: 0.5}", "alone")
