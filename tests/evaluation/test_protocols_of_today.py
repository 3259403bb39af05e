"""Protocols of recent benchmarks against what their authors' evaluations compute, written here with NumPy alone."""

import json

import numpy as np
import pytest

from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.protocol import score
from ernie_vil2.evaluation.protocols import protocol
from ernie_vil2.evaluation.published import read_published
from ernie_vil2.evaluation.retrieval import COLUMNS, DIRECTIONS
from ernie_vil2.evaluation.scorer import Data, scorer_of
from ernie_vil2.evaluation.scorers.sugar_crepe import KINDS, SugarCrepe
from tests.support.embedded_pairs import noisy_pairs
from tests.support.published_files import image, write


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
    made = noisy_pairs(40, per_image, noise=1.5, width=6)
    results = score(made, protocol(name)).results
    for k in (1, 5, 10):
        found = [results[way].recall[f"R@{k}"] for way in ("image_to_text", "text_to_image")]
        assert found == pytest.approx(score_captions(made.images @ made.texts.T, per_image, k))


ITEMS = {
    "swap_obj": [("1.jpg", "a cat on a mat", "a mat on a cat"), ("2.jpg", "a man and a dog", "a dog and a man")],
    "replace_rel": [("1.jpg", "a cat on a mat", "a cat under a mat"), ("3.jpg", "one", "two"), ("2.jpg", "x", "x y")],
}


def crepe(folder):
    files = {f"val2017/{number}.jpg": image(number) for number in (1, 2, 3)}
    for kind, items in ITEMS.items():
        files[f"{kind}.json"] = {str(n): dict(zip(("filename", "caption", "negative_caption"), item, strict=True))
                                 for n, item in enumerate(items)}  # fmt: skip
    return write(folder, files)


def test_sugar_crepe_is_scored_as_its_authors_do(tmp_path):
    folder, scorer = crepe(tmp_path), SugarCrepe()
    assert scorer_of(Data([str(folder)])) == "sugar_crepe"
    (benchmark,) = scorer.open(Data([str(folder)])).values()
    random = np.random.default_rng(3)
    sides = [random.normal(size=[len(side), 5]).astype(np.float32) for side in (benchmark.images, benchmark.texts)]
    position = {text.id: row for row, text in enumerate(benchmark.texts)}
    sides[1][position["two"]] = sides[1][position["one"]]  # equal scores are wrong
    report = scorer.score({"": EncodedBenchmark(benchmark, *sides, BadSampleReport())}, None)
    names = [one.id for one in benchmark.images]
    expected = {}
    for kind, items in ITEMS.items():
        right = [float(sides[1][position[caption]] @ sides[0][names.index(file)])
                 > float(sides[1][position[negative]] @ sides[0][names.index(file)])
                 for file, caption, negative in items]  # fmt: skip
        expected[kind] = 100 * sum(right) / len(right)
    assert {kind: report.metrics[kind] for kind in ITEMS} == pytest.approx(expected)
    assert report.metrics["mean"] == pytest.approx(sum(expected.values()) / 2)
    (found,) = report.outcomes().values()
    assert found.level("mean").mean == pytest.approx(report.metrics["mean"])
    assert found.level("swap_obj").mean == pytest.approx(expected["swap_obj"])
    row = {name: number for number, name in enumerate(found.ids)}
    clusters = [found.clusters[row[name]] for name in ("swap_obj/0", "replace_rel/0", "swap_obj/1", "replace_rel/2")]
    assert clusters[0] == clusters[1] != clusters[2] == clusters[3]  # 1.jpg and 2.jpg
    (card,) = found.cards([row["swap_obj/0"]])
    assert {answer.caption for answer in card.answers} == {"a cat on a mat", "a mat on a cat"}
    assert len(list(report.rows)) == 5 and set(report.metrics) == {*ITEMS, "mean"} <= {*KINDS, "mean"}


def test_items_of_sugar_crepe_that_cannot_be_used_are_counted(tmp_path):
    folder = crepe(tmp_path)
    rows = json.loads((folder / "swap_obj.json").read_text()) | {"9": {"filename": "1.jpg"}, "10": []}
    (folder / "swap_obj.json").write_text(json.dumps(rows))
    scorer = SugarCrepe()
    (benchmark,) = scorer.open(Data([str(folder)])).values()
    assert len(scorer.items) == 5 and benchmark.rows.counts == {"malformed row": 2}
    with pytest.raises(ValueError, match="SugarCrepe"):
        SugarCrepe().open(Data([str(folder / "val2017")]))


@pytest.mark.parametrize(
    "row", [row for row in read_published() if "mR" in row.values and row.model != "ablation"
            and all({*COLUMNS} <= values.keys() for way, values in row.values.items() if way in DIRECTIONS)
            and row.values.keys() & {*DIRECTIONS}]
)  # fmt: skip
def test_the_published_mean_is_that_of_the_published_recalls(row):
    recalls = [row.values[way][column] for way in DIRECTIONS if way in row.values for column in COLUMNS]
    rounded = 0.101 if row.model == "other" else 0.051 if "Table 3" in row.source else 0.006  # recalls, mean, neither
    assert row.values["mR"] == pytest.approx(sum(recalls) / len(recalls), abs=rounded)
