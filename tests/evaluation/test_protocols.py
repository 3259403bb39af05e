"""Each protocol against figures worked out by hand, on benchmarks small enough to draw."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.examples import list_ranks
from ernie_vil2.evaluation.protocol import (
    CONVENTIONS,
    PROTOCOLS,
    Protocol,
    choose_protocols,
    find_protocol,
    make_conventions,
    score_embeddings,
)
from ernie_vil2.evaluation.published import read_published
from ernie_vil2.evaluation.retrieval import COLUMNS, DIRECTIONS, Matching
from ernie_vil2.evaluation.scorer import find_scorer
from ernie_vil2.evaluation.scorers.sugar_crepe import KINDS, SugarCrepe
from ernie_vil2.registry import UnknownName, import_user_modules
from tests.support.embedded_pairs import make_noisy_benchmark
from tests.support.limits import limit_examples
from tests.support.published_files import make_image, write_files


def benchmark(images, texts, pairs):
    return Benchmark(
        "small",
        [BenchmarkImage(f"i{row}", lambda: b"") for row in range(images)],
        [BenchmarkText(f"t{row}", f"text {row}") for row in range(texts)],
        np.array(pairs, np.int64).reshape(-1, 2),
        BadSampleReport(),
    )


def facing(*columns, width):
    """Rows that look like one axis each: the score of two rows is 1 where they face the same axis, else 0."""
    return np.eye(width, dtype=np.float32)[list(columns)]


def evaluated(scoring, images, texts, pairs, block=1024):
    encoded = EncodedBenchmark(benchmark(len(images), len(texts), pairs), images, texts, BadSampleReport())
    return score_embeddings(encoded, scoring, block)


def ranks(scored):
    return tuple(result.ranking.rank.tolist() for result in scored.results.values())


def several_texts(images, texts_each):
    """`texts_each` texts for every image, in the order of the images."""
    return [(row // texts_each, row) for row in range(images * texts_each)]


@pytest.mark.parametrize("name", ["pairs", "coco-cn-test", "aic-icc-val-10k", "flickr30k-test", "mscoco-5k"])
def test_any_of_several_texts_counts(name):
    # Image 0 has texts 0 and 1. Text 0 looks like image 1, text 1 like image 0, text 2 like image 2.
    # Image 0: text 1 scores 1, no other does: rank 1. Image 1: its text 2 scores 0, and so do texts 1 and 3, while
    # text 0 scores 1: rank 4. Image 2: text 2 scores 1, its own text 3 scores 0 and ties with 0 and 1: rank 4.
    # Text 0: image 1 scores 1, images 0 and 2 tie at 0: rank 3. Text 1: rank 1. Text 2: image 2 first, its own image 1
    # ties with image 0: rank 3. Text 3 looks like nothing: all images tie, rank 3.
    images = facing(0, 1, 2, width=4)
    texts = facing(1, 0, 2, 3, width=4)
    pairs = np.array([[0, 0], [0, 1], [1, 2], [2, 3]])
    scored = evaluated(PROTOCOLS[name], images, texts, pairs)
    assert ranks(scored) == ([1, 4, 4], [3, 1, 3, 3])
    assert scored.results["image_to_text"].recall["R@1"] == pytest.approx(100 / 3)
    assert scored.results["text_to_image"].recall == {"R@1": 25, "R@5": 100, "R@10": 100, "mR": 75}
    assert scored.mean_recall == pytest.approx((100 * (1 / 3 + 1 + 1) / 3 + 75) / 2)


def test_a_text_is_left_out_only_with_all_its_images():
    first_two = replace(PROTOCOLS["aic-icc-val-10k"], max_images=2)
    # Text 1 belongs to images 1 and 2, text 2 to image 2 alone, text 3 to none.
    chosen = first_two.select(benchmark(3, 4, [(0, 0), (1, 1), (2, 1), (2, 2)]))
    assert [image.id for image in chosen.images] == ["i0", "i1"]
    assert [text.id for text in chosen.texts] == ["t0", "t1", "t3"]
    assert chosen.pairs.tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("name", ["mscoco-5k", "mscoco-1k", "flickr30k-test", "flickr30k-cn-test"])
def test_only_the_first_five_texts_of_an_image_count(name):
    # Seven texts of image 0, two of image 1, in mixed order: texts 7 and 8 are the sixth and seventh of image 0.
    owners = [0, 0, 1, 0, 0, 1, 0, 0, 0]
    chosen = PROTOCOLS[name].select(benchmark(2, 9, [(owner, text) for text, owner in enumerate(owners)]))
    assert [text.id for text in chosen.texts] == ["t0", "t1", "t2", "t3", "t4", "t5", "t6"]
    assert chosen.pairs[:, 0].tolist() == owners[:7]


def test_mscoco_1k_is_the_mean_of_folds_apart():
    folds = replace(PROTOCOLS["mscoco-1k"], fold_size=2)
    # Texts 0 to 3 belong to images 0 to 3 in another order of rows; text 0 looks like image 2, which is of the other
    # fold. Within fold 1 (images 0, 1; texts 2, 1) all score 0 but image 1 with its text: text 2 ties with image 1's
    # competitor, none scores more. By hand, rows = images 0, 1 and columns = texts 1 (of image 1), 2 (of image 0):
    #   image 0: 0, 0 -> own text ties with the other: rank 2.   image 1: 1, 0 -> rank 1.
    #   text 1 (of image 1): image 1 alone scores: rank 1.       text 2 (of image 0): 0, 0 -> tie, rank 2.
    # Fold 2 (images 2, 3; texts 0, 3), each text facing its own image: all rank 1.
    images = facing(0, 1, 2, 3, width=5)
    texts = facing(3, 1, 2, 2, width=5)
    pairs = np.array([[3, 0], [1, 1], [0, 2], [2, 3]])
    scored = evaluated(folds, images, texts, pairs)
    found = scored.results["image_to_text"]
    assert [found.matching.right[texts].tolist() for _, texts in found.folds] == [[1, 2], [0, 3]]
    assert ranks(scored) == ([2, 1, 1, 1], [1, 2, 1, 1])
    assert scored.results["image_to_text"].recall["R@1"] == (50 + 100) / 2
    assert found.chance["R@1"] == 50
    # In one gallery of four, text 2 looks like image 2 and ranks its own last.
    whole = evaluated(replace(folds, fold_size=None), images, texts, pairs)
    assert ranks(whole)[1] == [1, 1, 4, 1]


def test_muge_scores_texts_alone():
    # Text 0 asks for images 0 and 2, text 1 for none. Image 1, which nothing asks for, looks like text 0 as well:
    # it ties with the better of its two images, and a tie is lost.
    scored = evaluated(
        PROTOCOLS["muge-val"], facing(0, 0, 1, width=2), facing(0, 1, width=2), np.array([[0, 0], [2, 0]])
    )
    assert ranks(scored) == ([2, 0],)
    assert list(scored.results) == ["text_to_image"]
    assert scored.results["text_to_image"].recall == {"R@1": 0, "R@5": 100, "R@10": 100, "mR": pytest.approx(200 / 3)}
    assert scored.mean_recall == pytest.approx(200 / 3)


@limit_examples(50)
@given(st.integers(1, 23), st.integers(0, 2**32 - 1))
def test_official_rows_equals_its_evaluators_arithmetic(rows, seed):
    """Whole score matrix, strict comparison with the diagonal; small integers, so that ties are frequent."""
    rng = np.random.default_rng(seed)
    images, texts = (rng.integers(-1, 2, (rows, 2)).astype(np.float32) for _ in range(2))
    scores = texts @ images.T
    better = [(matrix > np.diag(matrix)[:, None]).sum(axis=1) for matrix in (scores, scores.T)]
    scored = evaluated(PROTOCOLS["official-rows"], images, texts, np.stack([np.arange(rows)] * 2, axis=1), block=4)
    values = scored.as_dict()
    for found, position in ((values["text_to_image"], better[0]), (values["image_to_text"], better[1])):
        assert found["R@1"] == pytest.approx(100 * np.mean(position < 1))
        assert found["R@10"] == pytest.approx(100 * np.mean(position < 10))
        assert found["MRR"] == pytest.approx(100 * np.mean(1 / (1 + position)))


def test_the_conventions_disagree_on_the_same_embeddings():
    # Image 0 has texts 0 and 1; text 0 looks like nothing, text 1 like image 0; image 1 has text 2, which fits.
    images, texts = facing(0, 1, width=3), facing(2, 0, 1, width=3)
    pairs = np.array([[0, 0], [0, 1], [1, 2]])
    first_ranks = {
        convention: evaluated(scoring, images, texts, pairs).results["image_to_text"].recall["R@1"]
        for convention, scoring in make_conventions().items()
    }
    # Any of: both images right. First text: image 0 ties its text 0 with text 2. Row label: of rows (0, 0), (0, 1),
    # (1, 2), the first has text 1 above its own.
    assert first_ranks == {"any-of": 100, "first-text": 50, "row-label": pytest.approx(200 / 3)}
    assert list(first_ranks) == list(CONVENTIONS)


def test_conventions_on_the_rows_of_a_protocol():
    first_two = replace(PROTOCOLS["aic-icc-val-10k"], max_images=2, max_texts_per_image=2)
    pairs = np.array([(0, 0), (0, 1), (0, 2), (1, 3), (2, 4)])
    sizes = {
        convention: [len(rows) for rows in scoring.make_matchings(benchmark(3, 5, pairs))[0][:3]]
        for convention, scoring in make_conventions(first_two).items()
    }
    # Images 0 and 1 with texts 0, 1 and 3.
    assert sizes == {"any-of": [2, 3, 3], "first-text": [2, 2, 2], "row-label": [3, 3, 3]}


@limit_examples(40)
@given(st.sampled_from([name for name in PROTOCOLS if not name.startswith("cxc")]), st.integers(0, 2**32 - 1))
def test_selecting_first_changes_no_figure(name, seed):
    """Scoring a whole benchmark and scoring its selected part are the same, since galleries choose the same rows."""
    rng = np.random.default_rng(seed)
    small = replace(
        PROTOCOLS[name],
        max_images=PROTOCOLS[name].max_images and 4,
        max_texts_per_image=PROTOCOLS[name].max_texts_per_image and min(2, PROTOCOLS[name].max_texts_per_image),
        fold_size=PROTOCOLS[name].fold_size and 2,
    )
    owners = rng.integers(0, 6, 12)
    owners[:6] = np.arange(6)
    pairs = rng.permutation(np.stack([owners, rng.permutation(12)], axis=1))
    whole = benchmark(6, 12, pairs)
    images, texts = (rng.integers(-1, 2, (rows, 2)).astype(np.float32) for rows in (6, 12))
    chosen = small.select(whole)
    rows = [[int(item.id[1:]) for item in side] for side in (chosen.images, chosen.texts)]
    of_part = evaluated(small, images[rows[0]], texts[rows[1]], chosen.pairs)
    assert ranks(of_part) == ranks(evaluated(small, images, texts, whole.pairs))
    assert of_part.as_dict() == evaluated(small, images, texts, whole.pairs).as_dict()


def test_an_unknown_protocol_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="'coco_cn_test'.* coco-cn-test"):
        find_protocol("coco_cn_test")
    import_user_modules(["os:system"])
    with pytest.raises(UnknownName, match="os:system"):
        choose_protocols(["os:system"])


def test_nothing_to_score_is_an_error_unless_no_answer_is_needed():
    for name in ("pairs", "mscoco-1k", "official-rows"):
        with pytest.raises(ValueError, match=f"small: .*{name}"):
            evaluated(PROTOCOLS[name], np.eye(2), np.eye(2), [])
    encoded = EncodedBenchmark(benchmark(2, 2, []), np.eye(2), np.eye(2), BadSampleReport())
    unknown = score_embeddings(encoded, PROTOCOLS["muge-val"], needs_answers=False)
    assert unknown.mean_recall is None and unknown.as_dict()["text_to_image"] == {}
    assert unknown.results["text_to_image"].find_best_answers(encoded.embeddings, np.arange(2), 2)[0].tolist() == [
        [0, 1],
        [1, 0],
    ]


class Paraphrases(Protocol):
    """Texts that ask for texts of the same image, and never for themselves."""

    def make_matchings(self, benchmark):
        texts = np.arange(len(benchmark.texts))
        owner = dict(benchmark.pairs[:, ::-1].tolist())
        right = [(q, g) for q in texts for g in texts if q != g and owner[q] == owner[g]]
        return [Matching(texts, texts, np.array(right), ("text", "text"), np.stack([texts, texts], axis=1))]


def test_a_protocol_may_ask_one_side_for_itself():
    # Texts 0, 1 and 2 are image 0's, text 3 image 1's. Text 0 faces the axis of 3 and scores 0 with its own: rank 2
    # behind 3. Text 1 and 2 face one axis: rank 1 each. Text 3 has no text of its image: no query.
    paraphrases = Paraphrases("paraphrases", "By hand.", directions=("text_to_text",))
    pairs = [(0, 0), (0, 1), (0, 2), (1, 3)]
    scored = evaluated(paraphrases, np.eye(2), facing(0, 1, 1, 0, width=2), pairs)
    assert ranks(scored) == ([2, 1, 1, 0],)
    assert scored.results["text_to_text"].recall["R@1"] == pytest.approx(200 / 3)
    assert scored.sizes == "4 texts, 6 pairs"
    assert [row[1:5] for row in list_ranks({"": scored})] == [
        ["text_to_text", f"t{n}", f"text {n}", rank] for n, rank in enumerate((2, 1, 1))
    ]


def score_captions(similarity, per_image, k):
    """FG-CLIP 2's loops: of image i the texts n i to n i + n - 1 are right, any of them among the first k counts."""
    best = np.argsort(similarity, axis=1)[:, -k:]
    to_text = np.mean([any(per_image * i + j in best[i] for j in range(per_image)) for i in range(len(similarity))])
    best = np.argsort(similarity.T, axis=1)[:, -k:]
    to_image = np.mean([i // per_image in best[i] for i in range(similarity.shape[1])])
    return 100 * to_text, 100 * to_image


@pytest.mark.parametrize(
    ("name", "per_image"),
    [
        ("flickr30k-cna-test", 5),
        ("coco-cn-translated", 5),
        ("xm3600", 3),
        ("lit-cn", 1),
        ("dci-cn", 1),
        ("docci-cn", 1),
    ],
)
def test_captions_of_an_image_are_scored_as_fg_clip_2_does(name, per_image):
    made = make_noisy_benchmark(40, per_image, noise=1.5, width=6)
    results = score_embeddings(made, find_protocol(name)).results
    for k in (1, 5, 10):
        found = [results[way].recall[f"R@{k}"] for way in ("image_to_text", "text_to_image")]
        assert found == pytest.approx(score_captions(made.image_embeddings @ made.text_embeddings.T, per_image, k))


ITEMS = {
    "swap_obj": [("1.jpg", "a cat on a mat", "a mat on a cat"), ("2.jpg", "a man and a dog", "a dog and a man")],
    "replace_rel": [("1.jpg", "a cat on a mat", "a cat under a mat"), ("3.jpg", "one", "two"), ("2.jpg", "x", "x y")],
}


def crepe(folder):
    files = {f"val2017/{number}.jpg": make_image(number) for number in (1, 2, 3)}
    for kind, items in ITEMS.items():
        files[f"{kind}.json"] = {str(n): dict(zip(("filename", "caption", "negative_caption"), item, strict=True))
                                 for n, item in enumerate(items)}  # fmt: skip
    return write_files(folder, files)


def test_sugar_crepe_is_scored_as_its_authors_do(tmp_path):
    folder, scorer = crepe(tmp_path), SugarCrepe()
    assert find_scorer(DataSpec([str(folder)])) == "sugar_crepe"
    opened = scorer.open(DataSpec([str(folder)]))
    (benchmark,) = opened.benchmarks.values()
    random = np.random.default_rng(3)
    sides = [random.normal(size=[len(side), 5]).astype(np.float32) for side in (benchmark.images, benchmark.texts)]
    position = {text.id: row for row, text in enumerate(benchmark.texts)}
    sides[1][position["two"]] = sides[1][position["one"]]  # equal scores are wrong
    report = scorer.score(opened, {"": EncodedBenchmark(benchmark, *sides, BadSampleReport())}, None)
    names = [one.id for one in benchmark.images]
    expected = {}
    for kind, items in ITEMS.items():
        right = [float(sides[1][position[caption]] @ sides[0][names.index(file)])
                 > float(sides[1][position[negative]] @ sides[0][names.index(file)])
                 for file, caption, negative in items]  # fmt: skip
        expected[kind] = 100 * sum(right) / len(right)
    assert {kind: report.metrics[kind] for kind in ITEMS} == pytest.approx(expected)
    assert report.metrics["mean"] == pytest.approx(sum(expected.values()) / 2)
    (found,) = report.make_outcomes().values()
    assert found.estimate("mean").mean == pytest.approx(report.metrics["mean"])
    assert found.estimate("swap_obj").mean == pytest.approx(expected["swap_obj"])
    row = {name: number for number, name in enumerate(found.query_ids)}
    clusters = [found.clusters[row[name]] for name in ("swap_obj/0", "replace_rel/0", "swap_obj/1", "replace_rel/2")]
    assert clusters[0] == clusters[1] != clusters[2] == clusters[3]  # 1.jpg and 2.jpg
    (card,) = found.make_cards([row["swap_obj/0"]])
    assert {answer.caption for answer in card.answers} == {"a cat on a mat", "a mat on a cat"}
    assert len(list(report.csv_rows)) == 5 and set(report.metrics) == {*ITEMS, "mean"} <= {*KINDS, "mean"}


def test_a_scorer_scores_what_was_opened_before_other_data(tmp_path):
    first, second = crepe(tmp_path / "first"), crepe(tmp_path / "second")
    (second / "swap_obj.json").unlink()
    scorer = SugarCrepe()
    opened, other = (scorer.open(DataSpec([str(folder)])) for folder in (first, second))
    (benchmark,) = opened.benchmarks.values()
    sides = [np.ones([len(side), 2], np.float32) for side in (benchmark.images, benchmark.texts)]

    report = scorer.score(opened, {"": EncodedBenchmark(benchmark, *sides, BadSampleReport())}, None)

    assert set(report.metrics) == {"swap_obj", "replace_rel", "mean"} and len(other.context) == 3


def test_items_of_sugar_crepe_that_cannot_be_used_are_counted(tmp_path):
    folder = crepe(tmp_path)
    rows = json.loads((folder / "swap_obj.json").read_text()) | {"9": {"filename": "1.jpg"}, "10": []}
    (folder / "swap_obj.json").write_text(json.dumps(rows))
    opened = SugarCrepe().open(DataSpec([str(folder)]))
    (benchmark,) = opened.benchmarks.values()
    assert len(opened.context) == 5 and benchmark.entry_report.counts == {"malformed row": 2}
    with pytest.raises(ValueError, match="SugarCrepe"):
        SugarCrepe().open(DataSpec([str(folder / "val2017")]))


@pytest.mark.parametrize(
    "row", [row for row in read_published() if "mR" in row.values and row.model != "ablation"
            and all({*COLUMNS} <= values.keys() for way, values in row.values.items() if way in DIRECTIONS)
            and row.values.keys() & {*DIRECTIONS}]
)  # fmt: skip
def test_the_published_mean_is_that_of_the_published_recalls(row):
    recalls = [row.values[way][column] for way in DIRECTIONS if way in row.values for column in COLUMNS]
    rounded = 0.101 if row.model == "other" else 0.051 if "Table 3" in row.source else 0.006  # recalls, mean, neither
    assert row.values["mR"] == pytest.approx(sum(recalls) / len(recalls), abs=rounded)


@pytest.mark.parametrize("row", read_published(), ids=lambda row: f"{row.protocol}, {row.label}")
def test_a_published_row_is_of_a_protocol_and_rises(row):
    assert row.protocol in {*PROTOCOLS, "snli-ve", "nlvr2"} and row.source.startswith("https://")
    for direction in DIRECTIONS:
        columns = row.values.get(direction, {})
        recalls = [columns[column] for column in COLUMNS if column in columns]
        assert recalls == sorted(recalls) and all(0 < value <= 100 for value in recalls)
