"""Crisscrossed Captions equals brute force in NumPy and `eccv_caption`, and has the published counts at full size."""

import csv
import gzip
import os
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.examples import CardMaker, list_ranks
from ernie_vil2.evaluation.protocol import find_protocol, score_embeddings
from ernie_vil2.evaluation.scorers import cxc
from ernie_vil2.evaluation.scorers.cxc import compute_correlations, read_ratings
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.commands import succeed
from tests.support.cxc_ratings import (
    IMAGES,
    TEXTS_PER_IMAGE,
    make_caption_id,
    make_image_id,
    rated_folder,  # noqa: F401 - a fixture
    write_images,
)
from tests.support.encoding_model import normalise_rows
from tests.support.shapes import SPECIAL_TOKENS

WIDTH = 8
PUBLISHED = Path(os.environ.get("ERNIE_VIL2_FIXTURES", "none")).parent / "cxc"


def draw_benchmark(folder, images, captions, width=WIDTH, seed=0):
    """Return random embeddings of images with these numbers, and of captions {number: row of the image}."""
    rng = np.random.default_rng(seed)
    pairs = np.array([(image, row) for row, image in enumerate(captions.values())])
    benchmark = Benchmark(
        "mscoco-test",
        [BenchmarkImage(make_image_id(number), lambda: b"") for number in images],
        [BenchmarkText(str(number), "x") for number in captions],
        pairs[np.argsort(pairs[:, 0], kind="stable")],
        BadSampleReport(),
        (folder / "dataset_coco.json",),
    )
    image_rows = rng.normal(size=(len(images), width)).astype(np.float32)
    text_rows = rng.normal(size=(len(captions), width)).astype(np.float32)
    text_rows += image_rows[[*captions.values()]]  # captions are somewhere near their images
    return EncodedBenchmark(benchmark, normalise_rows(image_rows), normalise_rows(text_rows), BadSampleReport())


def draw_small_benchmark(folder):
    captions = {number: number // TEXTS_PER_IMAGE for number in range(IMAGES * TEXTS_PER_IMAGE)}
    return draw_benchmark(folder, range(IMAGES), captions)


def rank_by_brute_force(queries, gallery, positives, excludes_itself=False):
    """Return any-of recall and the number of queries from the full matrix; rows without positives are no queries."""
    scores = queries @ gallery.T
    if excludes_itself:
        np.fill_diagonal(scores, -np.inf)
    order = np.argsort(-scores, axis=1)
    hits = []
    for query, right_rows in positives.items():
        if right_rows:
            hits.append([not right_rows.isdisjoint(order[query, :k].tolist()) for k in (1, 5, 10)])
    return dict(zip(("R@1", "R@5", "R@10"), 100 * np.mean(hits, axis=0), strict=True)), len(hits)


def parse_number(name):
    """Return the number of a caption or an image."""
    return int(name.split(":")[-1].removeprefix("COCO_val2014_").removesuffix(".jpg"))


def read_similar_pairs(folder, kind, min_rating):
    """Yield the numbers of pairs that are rated at least so similar."""
    with (folder / f"{kind}_test.csv").open() as file:
        for row in list(csv.reader(file))[1:]:
            if float(row[2]) >= min_rating:
                yield parse_number(row[0]), parse_number(row[1])


def check_direction(result, expected, num_queries):
    assert {name: result.recall[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert np.count_nonzero(result.ranking.rank) == num_queries


@pytest.mark.parametrize("name", ["cxc", "cxc-directed", "cxc-without-co-captions"])
def test_four_directions_equal_brute_force(folder, name):
    data = draw_small_benchmark(folder)
    results = score_embeddings(data, find_protocol(name)).results
    images, texts = data.image_embeddings, data.text_embeddings
    captions_of = {image: set() for image in range(IMAGES)}
    images_of = {caption: set() for caption in range(IMAGES * TEXTS_PER_IMAGE)}
    for caption, image in read_similar_pairs(folder, "sits", 3.0):
        captions_of[image].add(caption)
        images_of[caption].add(image)
    check_direction(results["image_to_text"], *rank_by_brute_force(images, texts, captions_of))
    check_direction(results["text_to_image"], *rank_by_brute_force(texts, images, images_of))

    similar_captions = {caption: set() for caption in images_of}
    if name != "cxc-without-co-captions":
        for caption in similar_captions:
            first = caption - caption % TEXTS_PER_IMAGE  # of the same image
            similar_captions[caption] = set(range(first, first + TEXTS_PER_IMAGE)) - {caption}
    for a, b in read_similar_pairs(folder, "sts", 3.0):
        similar_captions[a].add(b)
        similar_captions[b].add(a)
    expected = rank_by_brute_force(texts, texts, similar_captions, excludes_itself=True)
    check_direction(results["text_to_text"], *expected)

    similar_images = {image: set() for image in captions_of}
    for a, b in read_similar_pairs(folder, "sis", 2.5):
        similar_images[a].add(b)
        if name != "cxc-directed":
            similar_images[b].add(a)
    expected = rank_by_brute_force(images, images, similar_images, excludes_itself=True)
    check_direction(results["image_to_image"], *expected)


def test_eccv_caption_receives_answers_by_number(folder, monkeypatch):
    """Replace its package, which knows the images and captions of MSCOCO by the last number of their names."""
    received = {}

    class Metrics:
        def compute_all_metrics(self, i2t, t2i, target_metrics, Ks):  # noqa: N803  -- a name of the official code
            received.update(i2t=i2t, t2i=t2i)
            return {name: {"i2t": 0.25, "t2i": 0.5} for name in target_metrics}

    monkeypatch.setitem(sys.modules, "eccv_caption", types.SimpleNamespace(Metrics=Metrics))
    data, protocol = draw_small_benchmark(folder), find_protocol("cxc")
    small_protocol = replace(protocol, num_images=IMAGES, num_texts=IMAGES * TEXTS_PER_IMAGE)
    measures = score_embeddings(data, small_protocol).measures
    assert measures["ECCV mAP@R, image to text"] == 25 and measures["ECCV mAP@R, text to image"] == 50
    cosines = data.image_embeddings @ data.text_embeddings.T
    best_captions = {image: answers[0] for image, answers in received["i2t"].items()}
    best_images = {caption: answers[0] for caption, answers in received["t2i"].items()}
    assert best_captions == dict(enumerate(cosines.argmax(axis=1)))
    assert best_images == dict(enumerate(cosines.argmax(axis=0)))


def test_captions_without_images_count_only_in_their_protocol(folder):
    data = draw_small_benchmark(folder)
    answerable = score_embeddings(data, find_protocol("cxc")).results["text_to_image"]
    every_caption = score_embeddings(data, find_protocol("cxc-every-caption")).results["text_to_image"]
    num_answerable, num_captions = np.count_nonzero(answerable.ranking.rank), IMAGES * TEXTS_PER_IMAGE
    assert num_answerable < num_captions == np.count_nonzero(every_caption.ranking.rank)
    for name in ("R@1", "R@5", "R@10"):
        # A caption without an image is never answered rightly.
        expected = answerable.recall[name] * num_answerable / num_captions
        assert every_caption.recall[name] == pytest.approx(expected)


def test_caption_that_counts_as_a_miss_has_no_right_answer(folder):
    evaluation = score_embeddings(draw_small_benchmark(folder), find_protocol("cxc-every-caption"))
    positives = {row[2]: row[5:7] for row in list_ranks({"": evaluation}) if row[1] == "text_to_image"}
    result = evaluation.results["text_to_image"]
    misses = np.flatnonzero(result.ranking.rank > IMAGES)
    assert misses.size and [positives[str(caption)] for caption in misses] == [["", ""]] * misses.size
    (card,) = CardMaker(evaluation).make_cards("text_to_image", misses[:1])
    assert not any(answer.is_correct for answer in card.answers)


def test_correlations_equal_ranks_in_numpy():
    rng = np.random.default_rng(0)
    cosines, scores, queries = rng.normal(size=200), rng.integers(0, 6, 200) / 1.0, rng.integers(0, 40, 200)

    def compute_ranks(values):
        return np.array([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values])

    correlation, draws = compute_correlations(cosines, scores, queries, num_draws=50)
    assert correlation == pytest.approx(np.corrcoef(compute_ranks(cosines), compute_ranks(scores))[0, 1])
    assert len(draws) == 50 and draws.std() > 0
    _, repeated_draws = compute_correlations(cosines, scores, queries, num_draws=50)
    np.testing.assert_array_equal(draws, repeated_draws)
    # With one pair for each query there is nothing to draw: every draw holds all pairs.
    rows = np.array([np.flatnonzero(queries == query)[-1] for query in np.unique(queries)])
    correlation, draws = compute_correlations(cosines[rows], scores[rows], queries[rows], num_draws=1)
    assert draws[0] == pytest.approx(correlation)
    correlation, draws = compute_correlations(cosines, scores, np.arange(200), num_draws=2)
    np.testing.assert_allclose(draws, correlation)


def test_sixth_caption_of_an_image_is_not_scored(folder):
    protocol = find_protocol("cxc")
    captions = {number: number // TEXTS_PER_IMAGE for number in range(IMAGES * TEXTS_PER_IMAGE)}
    five = score_embeddings(draw_benchmark(folder, range(IMAGES), captions), protocol)
    sixth_caption = {IMAGES * TEXTS_PER_IMAGE: 0}
    six = score_embeddings(draw_benchmark(folder, range(IMAGES), captions | sixth_caption), protocol)
    assert [result.recall for result in five.results.values()] == [result.recall for result in six.results.values()]


def test_draw_has_one_partner_of_every_query():
    # All partners of a query are equal here, so that it does not matter which of them is drawn.
    rng = np.random.default_rng(1)
    queries = np.concatenate([np.arange(30), rng.integers(0, 30, 70)])
    cosines, scores = rng.normal(size=30), rng.integers(0, 6, 30) / 1.0
    expected, _ = compute_correlations(cosines, scores, np.arange(30), num_draws=1)
    correlation, draws = compute_correlations(cosines[queries], scores[queries], queries, num_draws=20)
    np.testing.assert_allclose(draws, expected)
    assert abs(correlation - expected) > 1e-3  # over all pairs, a query counts as often as it was rated


@pytest.mark.parametrize(
    "row",
    ["a,b,3.0", f"{make_caption_id(1)},{make_caption_id(2)},5.01", f"{make_caption_id(1)},{make_caption_id(2)},nan"],
)
def test_row_that_is_no_rating_is_named(tmp_path, row):
    (tmp_path / "sts_test.csv").write_text(f"caption1,caption2,agg_score,sampling_method\n{row},x\n")
    with pytest.raises(ValueError, match="sts_test.csv, line 2"):
        read_ratings(tmp_path, "sts", "test")
    with pytest.raises(FileNotFoundError, match="sis_test.csv"):
        read_ratings(tmp_path, "sis", "test")


@pytest.mark.parametrize("name", ["cxc", "cxc-correlation"])
def test_ratings_of_other_images_are_refused(folder, name):
    captions = {1000 + number: number // TEXTS_PER_IMAGE for number in range(IMAGES * TEXTS_PER_IMAGE)}
    unrated_data = draw_benchmark(folder, range(100, 100 + IMAGES), captions)
    with pytest.raises(ValueError, match=r"s\w+_test.csv"):
        score_embeddings(unrated_data, find_protocol(name))


def test_published_numbers_of_pairs_add_up():
    assert sum(cxc.NUM_RATINGS.values()) == 267_095


@pytest.mark.slow  # a minute, and 3 GB for 25,000 captions
@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published ratings are not next to the fixtures")
def test_published_ratings_give_the_papers_counts():
    eccv_caption = pytest.importorskip("eccv_caption", reason="pip install eccv_caption==0.1.0")
    with gzip.open(PUBLISHED / "sits_test.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["sampling_method"] == "c2i_original"]
    images = sorted({int(row["image"][13:25]) for row in rows})
    position = {number: row for row, number in enumerate(images)}
    captions = {int(row["caption"].split(":")[-1]): position[int(row["image"][13:25])] for row in rows}
    data = draw_benchmark(PUBLISHED, images, captions, width=32)
    evaluation = score_embeddings(data, find_protocol("cxc"))
    results = evaluation.results
    num_queries = {direction: int(np.count_nonzero(result.ranking.rank)) for direction, result in results.items()}
    assert num_queries == {
        "image_to_text": 5000,
        "text_to_image": 24972,
        "text_to_text": 25000,
        "image_to_image": 4791,
    }
    assert len(results["image_to_text"].matching.positives) == 35585
    assert len(results["image_to_image"].matching.positives) == 40492
    directed = find_protocol("cxc-directed").make_matchings(data.benchmark)[2]
    assert len(directed.positives) == 21816 and len(np.unique(directed.positives[:, 0])) == 4471
    assert not find_protocol("cxc").list_notes(data.benchmark)

    scores = data.image_embeddings @ data.text_embeddings.T
    numbers = np.array([*captions])
    # More than the ten answers that R@10 looks at.
    best_texts, best_images = np.argsort(-scores, axis=1)[:, :50], np.argsort(-scores.T, axis=1)[:, :50]
    retrieved = {
        "i2t": dict(zip(images, numbers[best_texts].tolist(), strict=True)),
        "t2i": dict(zip(numbers.tolist(), np.array(images)[best_images].tolist(), strict=True)),
    }
    metrics = eccv_caption.Metrics()
    for k in (1, 5, 10):
        expected = metrics.cxc_recalls(retrieved, "all", K=k)
        assert evaluation.results["image_to_text"].recall[f"R@{k}"] == pytest.approx(100 * expected["i2t"], abs=1e-6)
        assert evaluation.results["text_to_image"].recall[f"R@{k}"] == pytest.approx(100 * expected["t2i"], abs=1e-6)
    assert {name.split(",")[0] for name in evaluation.measures} == {"ECCV mAP@R", "ECCV R-Precision"}


@pytest.mark.thorough
def test_command_prints_published_figures_and_correlations(folder, tmp_path):
    """Evaluate a folder in the layout of MSCOCO's authors and Karpathy, with the ratings next to the JSON."""
    write_images(folder)
    checkpoint = write_untrained_checkpoint(tmp_path / "checkpoint", [*SPECIAL_TOKENS, "a", "1"])
    for name in ("cxc", "cxc-correlation"):
        printed = succeed("eval", "--checkpoint", checkpoint, "--data", folder, "--protocol", name,
                          "--output", tmp_path / name, "--name", "found")  # fmt: skip
        record = (tmp_path / name / "found.json").read_text()
        if name == "cxc":
            (line,) = [line for line in printed.splitlines() if "published: ERNIE-ViL 2.0, fine-tuned (paper)" in line]
            # The published figures of several columns, counted from the right.
            assert [line.split()[-n] for n in (1, 2, 6, 10, 14)] == ["76.53", "72.40", "64.70", "79.00", "90.00"]
            assert "text_to_text" in record
        else:
            assert all(f"{kind}, drawn, standard deviation" in record for kind in ("STS", "SIS", "SITS"))
