"""Scores, their thresholds, and what mismatched pairs say of a crawl."""

import numpy as np
import pytest
from pyarrow import parquet

from ernie_vil2.apps.curation.mismatches import EmbeddedPairs, Peers, calibrate_threshold, estimate_wrong_share
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.crawled_pairs import make_distinct_image, write_pair_shard
from tests.support.image_formats import encode_image
from tests.support.shapes import TOKENS


def crawl(rng, pairs, wrong):
    """Scores of pairs of which a share is wrong, which they are, and scores of mismatched pairs."""
    is_wrong = rng.random(pairs) < wrong
    scores = np.where(is_wrong, rng.normal(0, 1, pairs), rng.normal(3.0, 1, pairs))
    order = np.argsort(scores)
    return scores[order], is_wrong[order], np.sort(rng.normal(0, 1, 10 * pairs))


@pytest.mark.parametrize("wrong", [0.0, 0.3, 0.6])
def test_the_share_of_wrong_pairs_is_estimated(wrong):
    scores, is_wrong, null = crawl(np.random.default_rng(1), 20_000, wrong)
    assert estimate_wrong_share(scores, null) == pytest.approx(is_wrong.mean(), abs=0.03)


@pytest.mark.parametrize("tolerated", [0.02, 0.1])
def test_a_threshold_keeps_the_tolerated_share_of_wrong_pairs(tolerated):
    scores, is_wrong, null = crawl(np.random.default_rng(2), 20_000, 0.4)
    found = calibrate_threshold(scores, null, tolerated)
    kept = scores >= found.score
    assert is_wrong[kept].mean() == pytest.approx(tolerated, abs=0.012)
    assert found.wrong_share <= tolerated and found.kept_share == pytest.approx(kept.mean(), abs=1e-6)
    assert (~is_wrong[kept]).sum() > 0.85 * (~is_wrong).sum()


def test_where_scores_say_nothing_the_threshold_says_so():
    rng = np.random.default_rng(3)
    scores, null = np.sort(rng.normal(size=5000)), np.sort(rng.normal(size=50_000))
    assert estimate_wrong_share(scores, null) > 0.9
    assert calibrate_threshold(scores, null, 0.1).wrong_share > 0.5


def unit(values):
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def embedded():
    """200 pairs, with a text that shows the image and one that does not; 160 captions, some of them twice."""
    rng = np.random.default_rng(4)
    images = rng.normal(size=(200, 8))
    texts = np.stack([images + 0.1 * rng.normal(size=(200, 8)), rng.normal(size=(200, 8)) + 0.5], axis=1)
    return EmbeddedPairs(np.arange(200), np.arange(200) % 160, unit(images), unit(texts))


def test_a_score_is_in_deviations_of_mismatched_pairs(embedded):
    every = np.einsum("nd,mtd->nmt", embedded.images, embedded.texts)
    others = every[~np.eye(200, dtype=bool)]
    own = np.einsum("nnt->nt", every)
    by_hand, null = (((values - others.mean(axis=0)) / others.std(axis=0)).mean(axis=1) for values in (own, others))
    peers = Peers(embedded)
    assert peers.score(embedded) == pytest.approx(by_hand / null.std(), abs=0.25)
    assert peers.mismatched_scores.std() == pytest.approx(
        1, abs=1e-4
    ) and peers.mismatched_scores.mean() == pytest.approx(0, abs=1e-5)
    assert np.median(peers.score(embedded)) > np.quantile(peers.mismatched_scores, 0.95)


def test_neighbours_are_those_of_the_definition(embedded):
    """Twice the cosine less the means of the nearest others, and the texts of like images, as loops have them."""
    count, null = 10, range(1, 11)
    cosines = np.einsum("nd,mtd->tnm", embedded.images, embedded.texts)
    other = embedded.captions[:, None] != embedded.captions
    joined = unit(embedded.texts.mean(axis=1))
    fits, alike = np.zeros((200, 200, 2)), np.zeros((200, 200))
    for image in range(200):
        around = sorted(set(range(200)) - {image}, key=lambda row: -embedded.images[image] @ embedded.images[row])[
            :count
        ]
        alike[image] = joined @ (joined[around].mean(axis=0) - joined.mean(axis=0))
    for text in (0, 1):
        near = [np.mean([sorted(row[there])[-count:] for row, there in zip(side, other, strict=True)], axis=1)
                for side in (cosines[text], cosines[text].T)]  # fmt: skip
        fits[:, :, text] = 2 * cosines[text] - near[0][:, None] - near[1]
    rows = np.arange(200)
    mismatched = [(rows, (rows + shift) % 200) for shift in null]
    fit = [np.concatenate([fits[..., text][pairs] for pairs in mismatched]) for text in (0, 1)]
    means, deviations = [values.mean() for values in fit], [values.std() for values in fit]
    scaled = np.mean([(fits[..., text] - means[text]) / deviations[text] for text in (0, 1)], axis=0)
    scaled /= np.concatenate([scaled[pairs] for pairs in mismatched]).std()
    terms = []
    for term in (scaled, alike):
        values = np.concatenate([term[pairs] for pairs in mismatched])
        terms.append((term - values.mean()) / values.std())
    both = np.mean(terms, axis=0)
    null = np.concatenate([both[pairs] for pairs in mismatched])
    peers = Peers(embedded, count)
    assert peers.score(embedded) == pytest.approx(both.diagonal() / null.std(), abs=1e-3)
    assert peers.mismatched_scores == pytest.approx(np.sort(null / null.std()), abs=1e-3)


def test_images_that_look_alike_vote_with_their_texts():
    rng = np.random.default_rng(0)
    images, texts = np.repeat(np.eye(3), 12, axis=0) + 0.01 * rng.normal(size=(36, 3)), np.repeat(np.eye(3), 12, axis=0)
    texts[0] = texts[12]  # the caption of another, which the model takes for its own
    images[0] += 0.6 * texts[12]
    embedded = EmbeddedPairs(np.arange(36), np.arange(36), unit(images), unit(texts)[:, None])
    assert Peers(embedded, 10).score(embedded).argmin() == 0


def test_one_pair_alone_has_a_score():
    alone = EmbeddedPairs(np.arange(1), np.arange(1), np.ones((1, 1), np.float32), np.ones((1, 1, 1), np.float32))
    assert Peers(alone).score(alone) == pytest.approx([0]) == Peers(alone, 10).score(alone)


@pytest.fixture
def pairs(tmp_path):
    words = [f"{colour} {shape}" for colour in ("red", "green", "blue", "yellow") for shape in ("disc", "bar", "cross")]
    rows = [
        (encode_image(make_distinct_image(number)), {"en": f"a {word}", "zh": "红色圆"})
        for number, word in enumerate(words)
    ]
    rows += [(encode_image(make_distinct_image(20)), "IMG_0001.JPG"), (b"broken", "a red cross")]
    return write_pair_shard(tmp_path / "crawl.tar", rows)


def test_scores_are_cosines_and_the_best_share_stays(tmp_path, pairs, curated):
    from ernie_vil2 import load_model

    model = write_untrained_checkpoint(tmp_path / "model")
    text = f"text_rules: {{han: 1, words: 1}}\nscore: {{model: {model}, by: quantile, keep: 0.25, device: cpu}}"
    rows = list(curated([pairs], text).values())
    assert [row["score"] is None for row in rows] == [False] * 12 + [True] * 2
    assert [row["reason"] for row in rows[12:]] == ["file name", "broken image"]
    loaded = load_model(model, device="cpu")
    images = loaded.encode_images([encode_image(make_distinct_image(number)) for number in range(12)])
    english = loaded.encode_texts([f"a {colour} {shape}" for colour in ("red", "green", "blue", "yellow")
                                   for shape in ("disc", "bar", "cross")])  # fmt: skip
    assert [row["cosine_en"] for row in rows[:12]] == pytest.approx((images * english).sum(axis=1), abs=1e-3)
    assert all(row["cosine_zh"] is not None and row["cosine_other"] is None for row in rows[:12])
    kept = [row["score"] for row in rows[:12] if row["is_kept"]]
    gone = [row["score"] for row in rows[:12] if not row["is_kept"]]
    assert len(kept) == 3 and min(kept) > max(gone)
    assert {row["reason"] for row in rows[:12] if not row["is_kept"]} == {"image and caption do not fit"}


@pytest.mark.thorough
def test_of_several_models_each_scores_its_own_fold(tmp_path, pairs, curated):
    models = [
        write_untrained_checkpoint(tmp_path / "first"),
        write_untrained_checkpoint(tmp_path / "second", tokens=[*TOKENS[:5], *reversed(TOKENS[5:])]),
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


@pytest.mark.thorough
def test_tags_count_as_training_has_them(tmp_path, curated):
    from ernie_vil2 import load_model

    model = write_untrained_checkpoint(tmp_path / "model")
    tags = [["red", "disc"], ["green", "bar"], [], ["blue", "cross"]]
    path = write_pair_shard(
        tmp_path / "tagged.tar",
        [
            (encode_image(make_distinct_image(number)), {"en": f"a red disc {number}", "zh": "红色圆"})
            for number in range(4)
        ],
        [{"tags_en": own, "tags_zh": ["红"] * bool(own)} for own in tags],
    )
    score = f"score: {{model: {model}, by: quantile, keep: 1.0, device: cpu, tags: %s, neighbours: %s}}"
    without, with_tags = (
        [row["score"] for row in curated([path], score % values).values()] for values in (("false", 0), ("true", 0))
    )
    assert without != with_tags and all(np.isfinite(with_tags))
    assert all(np.isfinite([row["score"] for row in curated([path], score % ("true", 10)).values()]))
    [part] = [part for part in (tmp_path / "curated" / ".curate" / "measures").glob("*-embeddings.parquet")
              if "tags_en" in parquet.read_schema(part).names]  # fmt: skip
    rows = parquet.read_table(part).to_pylist()
    assert [row["tags_zh"] is None for row in rows] == [False, False, True, False] and rows[2]["tags_en"] is None
    expected = load_model(model, device="cpu").encode_texts(["The picture contains green, bar"])[0]
    assert np.frombuffer(rows[1]["tags_en"], np.float16) == pytest.approx(expected, abs=1e-3)


def test_a_step_without_its_model_says_so(pairs, curated):
    with pytest.raises(ValueError, match="score.model"):
        curated([pairs], "score: {}")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        curated([pairs], "score: {model: nowhere/at/all}")


@pytest.mark.thorough
def test_embeddings_can_have_a_word_in_near_duplicates(tmp_path, curated):
    model = write_untrained_checkpoint(tmp_path / "model")
    rows = [(encode_image(make_distinct_image(1, size)), f"a red disc {size}") for size in (64, 80)]
    path = write_pair_shard(tmp_path / "two.tar", rows)
    score = f"score: {{model: {model}, by: quantile, keep: 1.0, device: cpu}}\n"
    for least, kept in ((0.5, 1), (1.0, 2)):
        found = curated([path], score + f"near_duplicates: {{likeness: 0.9, embedding: {least}}}", f"at {least}")
        assert sum(row["is_kept"] for row in found.values()) == kept
    with pytest.raises(ValueError, match="near_duplicates.embedding"):
        curated([path], "near_duplicates: {likeness: 0.9, embedding: 0.5}", "alone")
    assert not (tmp_path / "alone").exists()  # it is seen at once, whether or not images are alike
