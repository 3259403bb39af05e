"""Crisscrossed Captions against brute force in NumPy, against `eccv_caption`, and at its real size."""

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
from tests.support.shapes import SPECIAL_TOKENS

WIDTH = 8
PUBLISHED = Path(os.environ.get("ERNIE_VIL2_FIXTURES", "none")).parent / "cxc"


def encoded(folder, images, captions, width=WIDTH, seed=0):
    """Random embeddings of images with these numbers and of captions {number: image's position}."""
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
    sides = [rng.normal(size=(len(rows), width)).astype(np.float32) for rows in (images, captions)]
    sides[1] += sides[0][[*captions.values()]]  # captions are somewhere near their images
    sides = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    return EncodedBenchmark(benchmark, *sides, BadSampleReport())


def small(folder):
    return encoded(
        folder, range(IMAGES), {number: number // TEXTS_PER_IMAGE for number in range(IMAGES * TEXTS_PER_IMAGE)}
    )


def brute_force(queries, gallery, positives, itself=False):
    """Any-of recall and number of queries, from the full matrix; those without `positives` are not queries."""
    scores = queries @ gallery.T
    if itself:
        np.fill_diagonal(scores, -np.inf)
    order = np.argsort(-scores, axis=1)
    found = [[set(order[query, :k].tolist()) & own != set() for k in (1, 5, 10)]
             for query, own in positives.items() if own]  # fmt: skip
    return dict(zip(("R@1", "R@5", "R@10"), 100 * np.mean(found, axis=0), strict=True)), len(found)


def rated(folder, kind, least):
    with (folder / f"{kind}_test.csv").open() as file:
        for row in list(csv.reader(file))[1:]:
            if float(row[2]) >= least:
                yield int(row[0].split(":")[-1].removeprefix("COCO_val2014_").removesuffix(".jpg")), int(
                    row[1].split(":")[-1].removeprefix("COCO_val2014_").removesuffix(".jpg"))  # fmt: skip


def check(result, expected, queries):
    assert {name: result.recall[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert np.count_nonzero(result.ranking.rank) == queries


@pytest.mark.parametrize("name", ["cxc", "cxc-directed", "cxc-without-co-captions"])
def test_four_directions_equal_brute_force(folder, name):
    data = small(folder)
    found = score_embeddings(data, find_protocol(name)).results
    captions, images = range(IMAGES * TEXTS_PER_IMAGE), range(IMAGES)
    of_image, of_caption = {image: set() for image in images}, {caption: set() for caption in captions}
    for caption, image in rated(folder, "sits", 3.0):
        of_image[image].add(caption)
        of_caption[caption].add(image)
    check(found["image_to_text"], *brute_force(data.image_embeddings, data.text_embeddings, of_image))
    check(found["text_to_image"], *brute_force(data.text_embeddings, data.image_embeddings, of_caption))
    similar = {caption: set() for caption in captions}
    if name != "cxc-without-co-captions":
        similar = {one: set(range(one - one % 5, one - one % 5 + 5)) - {one} for one in captions}
    for a, b in rated(folder, "sts", 3.0):
        similar[a].add(b)
        similar[b].add(a)
    check(found["text_to_text"], *brute_force(data.text_embeddings, data.text_embeddings, similar, itself=True))
    alike = {image: set() for image in images}
    for a, b in rated(folder, "sis", 2.5):
        alike[a].add(b)
        if name != "cxc-directed":
            alike[b].add(a)
    check(found["image_to_image"], *brute_force(data.image_embeddings, data.image_embeddings, alike, itself=True))


def test_eccv_caption_is_given_the_first_answers_by_number(folder, monkeypatch):
    """Its package, which knows the images and captions of MSCOCO by the last number of their names, is a stand-in."""
    given_to_it = {}

    class Metrics:
        def compute_all_metrics(self, i2t, t2i, target_metrics, Ks):  # noqa: N803  -- a name of the official code
            given_to_it.update(i2t=i2t, t2i=t2i)
            return {name: {"i2t": 0.25, "t2i": 0.5} for name in target_metrics}

    monkeypatch.setitem(sys.modules, "eccv_caption", types.SimpleNamespace(Metrics=Metrics))
    data, named = small(folder), find_protocol("cxc")
    found = score_embeddings(data, replace(named, num_images=IMAGES, num_texts=IMAGES * TEXTS_PER_IMAGE)).measures
    assert found["ECCV mAP@R, image to text"] == 25 and found["ECCV mAP@R, text to image"] == 50
    cosines = data.image_embeddings @ data.text_embeddings.T
    assert {image: answers[0] for image, answers in given_to_it["i2t"].items()} == dict(enumerate(cosines.argmax(1)))
    assert {caption: answers[0] for caption, answers in given_to_it["t2i"].items()} == dict(
        enumerate(cosines.argmax(0))
    )


def test_a_caption_without_an_image_counts_only_where_asked(folder):
    data = small(folder)
    some = score_embeddings(data, find_protocol("cxc")).results["text_to_image"]
    every = score_embeddings(data, find_protocol("cxc-every-caption")).results["text_to_image"]
    asked = np.count_nonzero(some.ranking.rank)
    assert asked < IMAGES * TEXTS_PER_IMAGE == np.count_nonzero(every.ranking.rank)
    for name in ("R@1", "R@5", "R@10"):
        assert every.recall[name] == pytest.approx(some.recall[name] * asked / (IMAGES * TEXTS_PER_IMAGE))


def test_correlations_equal_ranks_in_numpy():
    rng = np.random.default_rng(0)
    cosines, scores, queries = rng.normal(size=200), rng.integers(0, 6, 200) / 1.0, rng.integers(0, 40, 200)

    def ranks(values):
        return np.array([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values])

    whole, drawn = compute_correlations(cosines, scores, queries, num_draws=50)
    assert whole == pytest.approx(np.corrcoef(ranks(cosines), ranks(scores))[0, 1])
    assert len(drawn) == 50 and drawn.std() > 0
    np.testing.assert_array_equal(drawn, compute_correlations(cosines, scores, queries, num_draws=50)[1])  # seeded
    rows = np.array([np.flatnonzero(queries == query)[-1] for query in np.unique(queries)])
    last, same = compute_correlations(cosines[rows], scores[rows], queries[rows], num_draws=1)
    assert same[0] == pytest.approx(last)  # a draw has all queries, not a part of them
    once, same = compute_correlations(cosines, scores, np.arange(200), num_draws=2)
    np.testing.assert_allclose(same, once)  # every query has one partner: each draw is the whole


def test_the_sixth_caption_of_an_image_is_not_scored(folder):
    captions = {number: number // TEXTS_PER_IMAGE for number in range(IMAGES * TEXTS_PER_IMAGE)}
    five, six = (score_embeddings(encoded(folder, range(IMAGES), captions | more), find_protocol("cxc"))
                 for more in ({}, {IMAGES * TEXTS_PER_IMAGE: 0}))  # fmt: skip
    assert [result.recall for result in five.results.values()] == [result.recall for result in six.results.values()]


def test_a_draw_has_one_partner_of_every_query():
    """Partners of a query are equal here, so that it does not matter which of them is drawn."""
    rng = np.random.default_rng(1)
    queries = np.concatenate([np.arange(30), rng.integers(0, 30, 70)])
    cosines, scores = rng.normal(size=30), rng.integers(0, 6, 30) / 1.0
    once, _ = compute_correlations(cosines, scores, np.arange(30), num_draws=1)
    whole, drawn = compute_correlations(cosines[queries], scores[queries], queries, num_draws=20)
    np.testing.assert_allclose(drawn, once)
    assert abs(whole - once) > 1e-3  # over all pairs, a query counts as often as it was rated


@pytest.mark.parametrize(
    "row",
    ["a,b,3.0", f"{make_caption_id(1)},{make_caption_id(2)},5.01", f"{make_caption_id(1)},{make_caption_id(2)},nan"],
)
def test_a_row_that_is_no_rating_is_named(tmp_path, row):
    (tmp_path / "sts_test.csv").write_text(f"caption1,caption2,agg_score,sampling_method\n{row},x\n")
    with pytest.raises(ValueError, match="sts_test.csv, line 2"):
        read_ratings(tmp_path, "sts", "test")
    with pytest.raises(FileNotFoundError, match="sis_test.csv"):
        read_ratings(tmp_path, "sis", "test")


@pytest.mark.parametrize("name", ["cxc", "cxc-correlation"])
def test_ratings_of_other_images_are_an_error(folder, name):
    others = encoded(
        folder, range(100, 100 + IMAGES), {1000 + n: n // TEXTS_PER_IMAGE for n in range(IMAGES * TEXTS_PER_IMAGE)}
    )
    with pytest.raises(ValueError, match=r"s\w+_test.csv"):
        score_embeddings(others, find_protocol(name))


def test_the_published_numbers_of_pairs_add_up():
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
    data = encoded(PUBLISHED, images, captions, width=32)
    evaluation = score_embeddings(data, find_protocol("cxc"))
    queries = {way: int(np.count_nonzero(result.ranking.rank)) for way, result in evaluation.results.items()}
    assert queries == {"image_to_text": 5000, "text_to_image": 24972, "text_to_text": 25000, "image_to_image": 4791}
    pairs = {way: len(result.matching.positives) for way, result in evaluation.results.items()}
    assert pairs["image_to_text"] == 35585 and pairs["image_to_image"] == 40492
    directed = find_protocol("cxc-directed").make_matchings(data.benchmark)[2]
    assert len(directed.positives) == 21816 and len(np.unique(directed.positives[:, 0])) == 4471
    assert not find_protocol("cxc").list_notes(data.benchmark)

    scores = data.image_embeddings @ data.text_embeddings.T
    numbers = np.array([*captions])
    texts_of, images_of = (np.argsort(-each, axis=1)[:, :50] for each in (scores, scores.T))
    retrieved = {
        "i2t": dict(zip(images, numbers[texts_of].tolist(), strict=True)),
        "t2i": dict(zip(numbers.tolist(), np.array(images)[images_of].tolist(), strict=True)),
    }
    metrics = eccv_caption.Metrics()
    for k in (1, 5, 10):
        expected = metrics.cxc_recalls(retrieved, "all", K=k)
        assert evaluation.results["image_to_text"].recall[f"R@{k}"] == pytest.approx(100 * expected["i2t"], abs=1e-6)
        assert evaluation.results["text_to_image"].recall[f"R@{k}"] == pytest.approx(100 * expected["t2i"], abs=1e-6)
    assert {name.split(",")[0] for name in evaluation.measures} == {"ECCV mAP@R", "ECCV R-Precision"}


@pytest.mark.thorough
def test_the_command_prints_four_directions_next_to_the_papers(folder, tmp_path):
    """From a folder as MSCOCO's authors and Karpathy lay it out, with the ratings next to the JSON."""
    write_images(folder)
    checkpoint = write_untrained_checkpoint(tmp_path / "checkpoint", [*SPECIAL_TOKENS, "a", "1"])
    for name in ("cxc", "cxc-correlation"):
        printed = succeed("eval", "--checkpoint", checkpoint, "--data", folder, "--protocol", name,
                          "--output", tmp_path / name, "--name", "found")  # fmt: skip
        record = (tmp_path / name / "found.json").read_text()
        if name == "cxc":
            (line,) = [line for line in printed.splitlines() if "published: ERNIE-ViL 2.0, fine-tuned (paper)" in line]
            assert [line.split()[-n] for n in (1, 2, 6, 10, 14)] == ["76.53", "72.40", "64.70", "79.00", "90.00"]
            assert "text_to_text" in record
        else:
            assert all(f"{kind}, drawn, standard deviation" in record for kind in ("STS", "SIS", "SITS"))
