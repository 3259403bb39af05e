"""Scores of pairs, their thresholds, and the share of wrong pairs as estimated from mismatched ones."""

import json
from itertools import product

import numpy as np
import pytest
from pyarrow import parquet

from ernie_vil2.apps.curation.mismatches import EmbeddedPairs, Peers, calibrate_threshold, estimate_wrong_share
from ernie_vil2.apps.curation.steps import score
from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.selection import read_selection
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.crawled_pairs import make_distinct_image, write_pair_shard
from tests.support.embedding_servers import serve_model
from tests.support.image_formats import encode_image
from tests.support.page_commands import PAGES, list_blocks
from tests.support.shapes import TOKENS


def draw_scores(rng, num_pairs, wrong):
    """Return sorted scores of pairs, which of the pairs are wrong, and sorted scores of mismatched pairs."""
    is_wrong = rng.random(num_pairs) < wrong
    scores = np.where(is_wrong, rng.normal(0, 1, num_pairs), rng.normal(3.0, 1, num_pairs))
    order = np.argsort(scores)
    return scores[order], is_wrong[order], np.sort(rng.normal(0, 1, 10 * num_pairs))


@pytest.mark.parametrize("wrong", [0.0, 0.3, 0.6])
def test_share_of_wrong_pairs_is_estimated(wrong):
    scores, is_wrong, null = draw_scores(np.random.default_rng(1), 20_000, wrong)
    assert estimate_wrong_share(scores, null) == pytest.approx(is_wrong.mean(), abs=0.03)


@pytest.mark.parametrize("tolerance", [0.02, 0.1])
def test_threshold_admits_the_tolerated_share_of_wrong_pairs(tolerance):
    scores, is_wrong, null = draw_scores(np.random.default_rng(2), 20_000, 0.4)
    threshold = calibrate_threshold(scores, null, tolerance)
    is_kept = scores >= threshold.score
    assert is_wrong[is_kept].mean() == pytest.approx(tolerance, abs=0.012)
    assert threshold.wrong_share <= tolerance and threshold.kept_share == pytest.approx(is_kept.mean(), abs=1e-6)
    # Most of the right pairs stay: the threshold is not merely too high.
    assert (~is_wrong[is_kept]).sum() > 0.85 * (~is_wrong).sum()


def test_scores_without_information_give_a_high_share_of_wrong_pairs():
    rng = np.random.default_rng(3)
    scores, null = np.sort(rng.normal(size=5000)), np.sort(rng.normal(size=50_000))
    assert estimate_wrong_share(scores, null) > 0.9
    assert calibrate_threshold(scores, null, 0.1).wrong_share > 0.5


def normalize(values):
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def embedded():
    """Return 200 pairs of 160 captions; the first text of a pair resembles its image, the second one does not."""
    rng = np.random.default_rng(4)
    images = rng.normal(size=(200, 8))
    texts = np.stack([images + 0.1 * rng.normal(size=(200, 8)), rng.normal(size=(200, 8)) + 0.5], axis=1)
    return EmbeddedPairs(np.arange(200), np.arange(200) % 160, normalize(images), normalize(texts))


def test_scores_are_deviations_of_mismatched_pairs(embedded):
    cosines = np.einsum("nd,mtd->nmt", embedded.images, embedded.texts)
    mismatched = cosines[~np.eye(200, dtype=bool)]
    matched = np.einsum("nnt->nt", cosines)
    mean, deviation = mismatched.mean(axis=0), mismatched.std(axis=0)
    expected = ((matched - mean) / deviation).mean(axis=1)
    null = ((mismatched - mean) / deviation).mean(axis=1)
    peers = Peers(embedded)
    # The scores use a sample of the mismatched pairs, the expected ones all of them.
    assert peers.score(embedded) == pytest.approx(expected / null.std(), abs=0.25)
    assert peers.mismatched_scores.std() == pytest.approx(1, abs=1e-4)
    assert peers.mismatched_scores.mean() == pytest.approx(0, abs=1e-5)
    assert np.median(peers.score(embedded)) > np.quantile(peers.mismatched_scores, 0.95)


def mean_of_largest(cosines, is_comparable, count):
    """Return the mean of the largest comparable cosines of each row."""
    return np.array([np.sort(row[mask])[-count:].mean() for row, mask in zip(cosines, is_comparable, strict=True)])


def test_scores_with_neighbours_follow_their_definition(embedded):
    count = 10
    rows = np.arange(200)
    mismatched_pairs = [(rows, (rows + shift) % 200) for shift in range(1, 11)]

    def take_mismatched(values):
        return np.concatenate([values[pairs] for pairs in mismatched_pairs])

    # First term: twice the cosine less the mean cosines of the nearest others, standardised for each of the two texts.
    is_other_caption = embedded.captions[:, None] != embedded.captions
    fit = np.zeros((200, 200))
    for text in (0, 1):
        cosines = embedded.images @ embedded.texts[:, text].T
        near_image = mean_of_largest(cosines, is_other_caption, count)
        near_text = mean_of_largest(cosines.T, is_other_caption, count)
        text_fit = 2 * cosines - near_image[:, None] - near_text
        fit += (text_fit - take_mismatched(text_fit).mean()) / take_mismatched(text_fit).std() / 2

    # Second term: similarity of a text to the texts of the images that look alike.
    joined_texts = normalize(embedded.texts.mean(axis=1))
    agreement = np.zeros((200, 200))
    for image in range(200):
        similarity = embedded.images @ embedded.images[image]
        similarity[image] = -np.inf
        nearest = np.argsort(-similarity)[:count]
        agreement[image] = joined_texts @ (joined_texts[nearest].mean(axis=0) - joined_texts.mean(axis=0))

    # Their mean after both are standardised, in deviations of mismatched pairs.
    scores = np.zeros((200, 200))
    for term in (fit, agreement):
        scores += (term - take_mismatched(term).mean()) / take_mismatched(term).std() / 2
    scores /= take_mismatched(scores).std()
    peers = Peers(embedded, count)
    assert peers.score(embedded) == pytest.approx(scores.diagonal(), abs=1e-3)
    assert peers.mismatched_scores == pytest.approx(np.sort(take_mismatched(scores)), abs=1e-3)


def test_texts_of_similar_images_expose_a_wrong_caption():
    rng = np.random.default_rng(0)
    images, texts = np.repeat(np.eye(3), 12, axis=0) + 0.01 * rng.normal(size=(36, 3)), np.repeat(np.eye(3), 12, axis=0)
    # The caption of another kind of image, which to the model resembles this image as well.
    texts[0] = texts[12]
    images[0] += 0.6 * texts[12]
    embedded = EmbeddedPairs(np.arange(36), np.arange(36), normalize(images), normalize(texts)[:, None])
    assert Peers(embedded, 10).score(embedded).argmin() == 0


def test_single_pair_has_the_score_0():
    single = EmbeddedPairs(np.arange(1), np.arange(1), np.ones((1, 1), np.float32), np.ones((1, 1, 1), np.float32))
    assert Peers(single).score(single) == pytest.approx([0])
    assert Peers(single, 10).score(single) == pytest.approx([0])


CAPTIONS = [f"a {colour} {shape}" for colour, shape in product(("red", "green", "blue", "yellow"),
                                                               ("disc", "bar", "cross"))]  # fmt: skip


@pytest.fixture
def pairs(tmp_path):
    rows = [
        (encode_image(make_distinct_image(number)), {"en": caption, "zh": "红色圆"})
        for number, caption in enumerate(CAPTIONS)
    ]
    rows += [(encode_image(make_distinct_image(20)), "IMG_0001.JPG"), (b"broken", "a red cross")]
    return write_pair_shard(tmp_path / "crawl.tar", rows)


def test_scores_are_cosines_and_the_best_share_is_kept(tmp_path, pairs, curated):
    from ernie_vil2 import load_model

    model = write_untrained_checkpoint(tmp_path / "model")
    text = f"text_rules: {{han: 1, words: 1}}\nscore: {{model: {model}, by: quantile, keep: 0.25, device: cpu}}"
    rows = list(curated([pairs], text).values())
    assert [row["score"] is None for row in rows] == [False] * 12 + [True] * 2
    assert [row["reason"] for row in rows[12:]] == ["file name", "broken image"]
    encoder = load_model(model, device="cpu")
    images = encoder.encode_images([encode_image(make_distinct_image(number)) for number in range(12)])
    texts = encoder.encode_texts(CAPTIONS)
    assert [row["cosine_en"] for row in rows[:12]] == pytest.approx((images * texts).sum(axis=1), abs=1e-3)
    assert all(row["cosine_zh"] is not None and row["cosine_other"] is None for row in rows[:12])
    kept_scores = [row["score"] for row in rows[:12] if row["is_kept"]]
    dropped_scores = [row["score"] for row in rows[:12] if not row["is_kept"]]
    assert len(kept_scores) == 3 and min(kept_scores) > max(dropped_scores)
    assert {row["reason"] for row in rows[:12] if not row["is_kept"]} == {"image and caption do not fit"}


def test_scores_do_not_depend_on_how_many_are_computed_at_once(tmp_path, pairs, curated, monkeypatch):
    model = write_untrained_checkpoint(tmp_path / "model")
    text = f"score: {{model: {model}, by: quantile, keep: 0.5, neighbours: 3, device: cpu}}"
    expected = curated([pairs], text)
    monkeypatch.setattr(score, "SCORE_BATCH", 5)
    for key, row in curated([pairs], text).items():
        assert row["score"] == pytest.approx(expected[key]["score"], abs=1e-4)


def test_model_on_a_server_gives_the_scores_of_the_model_here(tmp_path, pairs, curated, monkeypatch):
    from ernie_vil2 import load_model

    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path / "cache"))
    model = write_untrained_checkpoint(tmp_path / "model")
    rules = "score: {{model: {}, by: quantile, keep: 0.5, device: cpu}}"
    expected = curated([pairs], rules.format(model), "here")
    with serve_model(load_model(model, device="cpu")) as address:
        table = curated([pairs], rules.format(address), "there")
    for key, row in table.items():
        assert row["cosine_en"] == pytest.approx(expected[key]["cosine_en"], abs=1e-5)
        assert row["is_kept"] == expected[key]["is_kept"]


@pytest.mark.thorough
def test_each_of_several_models_scores_its_fold(tmp_path, pairs, curated):
    models = [
        write_untrained_checkpoint(tmp_path / "first"),
        write_untrained_checkpoint(tmp_path / "second", tokens=[*TOKENS[:5], *reversed(TOKENS[5:])]),
    ]
    single = [curated([pairs], f"score: {{model: {model}, by: quantile, keep: 0.5, device: cpu}}", f"of {number}")
              for number, model in enumerate(models)]  # fmt: skip
    folds = curated([pairs], f"score: {{model: [{', '.join(map(str, models))}], by: quantile, keep: 0.5, device: cpu}}")
    assert {row["id"] % 2 for row in folds.values()} == {0, 1}
    assert any(row["cosine_en"] != single[1][key]["cosine_en"] for key, row in single[0].items() if row["cosine_en"])
    for key, row in folds.items():
        if row["step"] == "unreadable":
            continue
        assert row["cosine_en"] == pytest.approx(single[row["id"] % 2][key]["cosine_en"], abs=1e-5)


def test_page_divides_the_pairs_that_stay_by_id(tmp_path, pairs, curated, monkeypatch):
    [divide] = [text for language, text in list_blocks(PAGES["curation.md"]) if language == "python"]
    kept_ids = {row["id"] for row in curated([pairs], "text_rules: {}").values() if row["is_kept"]}
    monkeypatch.chdir(tmp_path)
    exec(compile(divide, "curation.md", "exec"), {})  # noqa: S102  -- the page is ours
    source = open_sources([str(pairs)])
    for name, remainder in (("even", 0), ("odd", 1)):
        ids = read_selection(f"curated-{name}", source).ids.tolist()
        assert sorted(ids) == sorted(pair_id for pair_id in kept_ids if pair_id % 2 == remainder) != []


@pytest.mark.thorough
def test_tags_are_scored_in_the_sentences_of_training(tmp_path, curated):
    from ernie_vil2 import load_model

    model = write_untrained_checkpoint(tmp_path / "model")
    tags = [["red", "disc"], ["green", "bar"], [], ["blue", "cross"]]
    path = write_pair_shard(
        tmp_path / "tagged.tar",
        [
            (encode_image(make_distinct_image(number)), {"en": f"a red disc {number}", "zh": "红色圆"})
            for number in range(4)
        ],
        [{"tags_en": words, "tags_zh": ["红"] if words else []} for words in tags],
    )

    def score(use_tags, neighbours):
        settings = f"model: {model}, by: quantile, keep: 1.0, device: cpu, tags: {use_tags}, neighbours: {neighbours}"
        return [row["score"] for row in curated([path], f"score: {{{settings}}}").values()]

    without_tags, with_tags = score("false", 0), score("true", 0)
    assert without_tags != with_tags and all(np.isfinite(with_tags))
    assert all(np.isfinite(score("true", 10)))
    files = (tmp_path / "curated" / ".curate" / "measures").glob("*-embeddings.parquet")
    [file_with_tags] = [file for file in files if "tags_en" in parquet.read_schema(file).names]
    rows = parquet.read_table(file_with_tags).to_pylist()
    assert [row["tags_zh"] is None for row in rows] == [False, False, True, False] and rows[2]["tags_en"] is None
    expected = load_model(model, device="cpu").encode_texts(["The picture contains green, bar"])[0]
    assert np.frombuffer(rows[1]["tags_en"], np.float16) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("cosine", "num_kept"), [(1.0, 0), (-1.0, 12)])
def test_least_cosines_report_no_threshold_of_the_score(tmp_path, pairs, curated, cosine, num_kept):
    model = write_untrained_checkpoint(tmp_path / "model")
    text = f"text_rules: {{}}\nscore: {{model: {model}, by: value, cosine: {{en: {cosine}}}, device: cpu}}"
    rows = curated([pairs], text)
    assert sum(row["is_kept"] for row in rows.values()) == num_kept
    about = json.loads((tmp_path / "curated" / "curation.json").read_text())
    assert "threshold" not in about["figures"]["score"]["en zh"]
    assert "threshold" not in "".join(about["facts"]["score"])


def test_least_cosine_of_no_language_is_refused_before_any_work(pairs, curated):
    with pytest.raises(ValueError, match=r"score\.cosine"):
        curated([pairs], "score: {model: nowhere, by: value, cosine: {}}")


def test_missing_model_of_the_score_is_named(pairs, curated):
    with pytest.raises(ValueError, match="score.model"):
        curated([pairs], "score: {}")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        curated([pairs], "score: {model: nowhere/at/all}")


@pytest.mark.thorough
def test_near_duplicates_may_also_need_similar_embeddings(tmp_path, curated):
    model = write_untrained_checkpoint(tmp_path / "model")
    rows = [(encode_image(make_distinct_image(1, size)), "a red disc") for size in (64, 80)]
    path = write_pair_shard(tmp_path / "two.tar", rows)
    score = f"score: {{model: {model}, by: quantile, keep: 1.0, device: cpu}}\n"
    for threshold, num_kept in ((0.5, 1), (1.0, 2)):
        rules = score + f"near_duplicates: {{likeness: 0.9, embedding: {threshold}}}"
        table = curated([path], rules, f"at {threshold}")
        assert sum(row["is_kept"] for row in table.values()) == num_kept
    with pytest.raises(ValueError, match="near_duplicates.embedding"):
        curated([path], "near_duplicates: {likeness: 0.9, embedding: 0.5}", "alone")
    assert not (tmp_path / "alone").exists()  # the missing score is an error before any work
