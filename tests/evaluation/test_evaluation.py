"""Evaluations with a stand-in for a model, checks of benchmarks, and the scorer that a layout asks for."""

import json
import threading
from dataclasses import replace
from functools import partial
from typing import ClassVar

import numpy as np
import pytest

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText
from ernie_vil2.data.preprocessing import Preprocessing
from ernie_vil2.data.readers import open_benchmark, open_sources
from ernie_vil2.data.samples import BadSample, BadSampleReport
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.evaluation.check import CHUNK_SIZE, check_benchmark
from ernie_vil2.evaluation.encoded import encode_benchmark
from ernie_vil2.evaluation.pixel_baseline import compute_pixel_baseline, embed_pixels
from ernie_vil2.evaluation.protocol import PROTOCOLS, evaluate
from ernie_vil2.evaluation.scorer import SCORERS, Scorer, ScorerInput, find_scorer, make_scorer
from ernie_vil2.evaluation.scorers.retrieval import Retrieval
from tests.support.entailment_data import write_entailment_folder, write_nlvr2_folder
from tests.support.published_folders import write_karpathy
from tests.support.shapes import draw, encode_png, write_tar, write_tsv


class ColourModel:
    """A stand-in for a model: an image is its mean colour, a text the colour that it names."""

    COLOURS: ClassVar = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}
    fingerprint = "colours"

    def preprocess(self, image):
        return Preprocessing("ernie_vil2", 8, mean=(0, 0, 0), std=(1, 1, 1))(image, "image")

    def encode_pixels(self, images):
        return unit(255 - images.reshape(len(images), -1, 3).mean(axis=1)) * -1

    def encode_texts(self, texts):
        return unit(np.array([self.COLOURS[text.split()[-1]] for text in texts], float) - 1.0)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def flat(colour):
    return encode_png(np.full([8, 8, 3], np.array(colour) * 200 + 20, np.uint8))


RED, GREEN, BLUE = (flat(colour) for colour in ColourModel.COLOURS.values())


@pytest.fixture
def kinds(tmp_path):
    """Two red images of which one has the wrong colour in its caption: it misses its text, and its text misses it."""
    rows = [("red", RED, "plain"), ("green", GREEN, "plain"), ("x blue", RED, "odd"), ("blue", BLUE, "plain")]
    members = []
    for number, (caption, image, kind) in enumerate(rows):
        members += [
            (f"{number}.png", image),
            (f"{number}.json", json.dumps({"caption": caption, "kind": kind}).encode()),
        ]
    return open_benchmark(write_tar(tmp_path / "a.tar", members))


def test_mean_recall_is_the_mean_over_languages(kinds):
    whole = encode_benchmark(ColourModel(), kinds)
    part = encode_benchmark(ColourModel(), kinds.select([0, 1], [0, 1]))  # without a wrong caption: all are found
    opened = ScorerInput(DataSpec(["a.tar"]), {"zh": whole.benchmark, "en": part.benchmark})
    metrics = Retrieval().score(opened, {"zh": whole, "en": part}, None).metrics
    assert metrics["en/mR"] == 100 > metrics["zh/mR"]
    assert metrics["mean_recall"] == pytest.approx((100 + metrics["zh/mR"]) / 2)


def test_recall_of_all_and_of_some_queries(kinds):
    evaluation = evaluate(ColourModel(), kinds, PROTOCOLS["pairs"])
    # Image 0 (red) ties with nothing; image 2 (red) finds both blue texts and green before its own.
    assert evaluation.results["image_to_text"].ranking.rank.tolist() == [1, 1, 4, 2]
    plain, odd = evaluation.select_queries("kind", "plain"), evaluation.select_queries("kind", "odd")
    plain, odd = plain.results["image_to_text"], odd.results["image_to_text"]
    assert plain.recall["R@1"] == pytest.approx(200 / 3) and odd.recall["R@1"] == 0
    assert odd.recall["R@5"] == 100 and odd.chance["R@1"] == 25
    with pytest.raises(ValueError, match="kind = large"):
        evaluation.select_queries("kind", "large")


def without_fields(benchmark, *sides):
    """The benchmark as one whose images, or texts, have no fields."""
    images, texts = benchmark.images, benchmark.texts
    if "image" in sides:
        images = [replace(image, fields={}) for image in images]
    if "text" in sides:
        texts = [replace(text, fields={}) for text in texts]
    return replace(benchmark, images=images, texts=texts)


@pytest.mark.parametrize("name", ["pairs", "official-rows"])
@pytest.mark.parametrize(("side", "asking", "other"), [("image", "text_to_image", "image_to_text"),
                                                       ("text", "image_to_text", "text_to_image")])  # fmt: skip
def test_queries_of_a_field_that_one_side_alone_has(kinds, name, side, asking, other):
    scoring = PROTOCOLS[name]
    expected = evaluate(ColourModel(), kinds, scoring).select_queries("kind", "plain").results[asking].recall
    evaluation = evaluate(ColourModel(), without_fields(kinds, side), scoring)

    plain = evaluation.select_queries("kind", "plain")

    assert plain.results[asking].recall == expected and plain.results[other].recall == {}
    assert plain.as_dict()[other] == {} and plain.as_dict()["mR"] is None
    scorer = Retrieval(only=[("kind", "plain"), ("kind", "odd")])
    both = {"a": evaluation, "b": evaluate(ColourModel(), without_fields(kinds, "image", "text"), scoring)}
    headings = [label for label, values in scorer._make_rows(both, []) if values is None and "kind" in label]
    assert len(headings) == 2 and "0 to 3" in headings[0] and "0 to 1" in headings[1]
    neither = {"": evaluate(ColourModel(), without_fields(kinds, "image", "text"), scoring)}
    with pytest.raises(ValueError, match="kind = large"):
        Retrieval(only=[("kind", "large")])._make_rows(neither, [])


def test_pixel_baseline_by_hand(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {name: encode_png(draw((0, 0, 0), name, rng)) for name in ("disc", "bar", "cross")}
    train = [(name, f"{name}-train", image) for name, image in shapes.items()]
    # The test's disc is the training disc; its "bar" looks like the cross; "square" has no training image.
    test = [("disc", "1", shapes["disc"]), ("bar", "2", shapes["cross"]), ("square", "3", shapes["disc"])]
    sources = [open_sources([str(write_tsv(tmp_path / f"{i}.tsv", rows))]) for i, rows in enumerate((train, test))]
    baseline = compute_pixel_baseline(*sources, block=2)
    # Texts of the test: bar, disc, square; the cross takes no part, so a cross is nearest to bar or disc.
    similarity = [embed_pixels(shapes["cross"]) @ embed_pixels(shapes[name]) for name in ("bar", "disc")]
    assert baseline.ranks.tolist() == [1, 1 if similarity[0] > similarity[1] else 2, 3]
    assert baseline.select_queries()["image_to_text"]["R@5"] == 100


def test_pixel_baseline_counts_what_it_cannot_use(tmp_path):
    image = encode_png(draw((0, 0, 0), "disc", np.random.default_rng(0)))
    train = [("disc", "1", image), ("disc", "2", image[:50]), ("", "3", image), ("bar", "4", b"not looked at")]
    test = [("disc", "5", image), ("disc", "6", b"x")]
    paths = [write_tsv(tmp_path / f"{name}.tsv", rows) for name, rows in (("train", train), ("test", test))]
    paths[0].write_text(paths[0].read_text() + "no columns\n")
    sources = [open_sources([str(path)]) for path in paths]
    baseline = compute_pixel_baseline(*sources)
    assert baseline.ranks.tolist() == [1] and len(baseline.samples) == 1
    assert baseline.bad_samples.counts == {"broken image": 2, "malformed row": 1} and baseline.bad_samples.num_read == 7
    with pytest.raises(ValueError, match="pixel baseline"):
        compute_pixel_baseline(open_sources([str(write_tsv(tmp_path / "bad.tsv", train[1:2]))]), sources[1])


def class_folders(folder):
    for shape in ("disc", "bar"):
        (folder / "test" / shape).mkdir(parents=True)
        (folder / "test" / shape / "a.png").write_bytes(b"an image")


def several_layouts(folder):
    write_karpathy(folder, "coco", "")
    write_karpathy(folder, "flickr30k", "")


def empty(folder):
    folder.mkdir()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (write_entailment_folder, "entailment"),
        (write_nlvr2_folder, "nlvr2"),
        (class_folders, "zero_shot"),
        (lambda folder: write_karpathy(folder, "coco", ""), "retrieval"),
        (several_layouts, "retrieval"),
        (empty, "retrieval"),
    ],
)
def test_the_layout_says_what_is_scored(tmp_path, make, name):
    make(tmp_path / "data")
    assert find_scorer(DataSpec([str(tmp_path / "data")])) == name


def test_a_registered_scorer_is_found_by_its_data(tmp_path, monkeypatch):
    class Own(Scorer):
        @classmethod
        def recognises(cls, path, layout):
            return path.name == "own"

    monkeypatch.setitem(SCORERS, "own", Own)
    for name in ("own", "other"):
        write_entailment_folder(tmp_path / name)
    assert find_scorer(DataSpec([str(tmp_path / "own")])) == "own"
    assert find_scorer(DataSpec([str(tmp_path / "other")])) == "entailment"


def test_a_scorer_is_a_name_or_an_import_path():
    path = "ernie_vil2.evaluation.scorers.retrieval:Retrieval"
    assert SCORERS.find("retrieval") is SCORERS.find(path) is Retrieval
    assert make_scorer(path, {"protocol": ["muge-val"]}).best_by == "mean_recall"
    with pytest.raises(ValueError, match="'recall'"):
        SCORERS.find("recall")
    with pytest.raises(ValueError, match="scorers.retrieval has no Nothing"):
        SCORERS.find("ernie_vil2.evaluation.scorers.retrieval:Nothing")
    with pytest.raises(ValueError, match="retrieval: templates"):
        make_scorer("retrieval", {"templates": {}})


IMAGE = encode_png(draw((200, 30, 30), "disc", np.random.default_rng(0)))


def raising(error):
    def read():
        raise error

    return read


def benchmark(*reads, texts=3, pairs=((0, 0), (0, 1), (1, 2)), rows=None):
    images = [BenchmarkImage(f"i{n}", read) for n, read in enumerate(reads)]
    names = [BenchmarkText(f"t{n}", f"text {n}") for n in range(texts)]
    return Benchmark("small", images, names, np.array(pairs, np.int64).reshape(-1, 2), rows or BadSampleReport())


def expecting(name="small-test", **counts):
    return replace(PROTOCOLS["pairs"], name=name, **counts)


def test_counts_are_compared_with_those_of_the_protocol():
    # i0 has the texts t0 and t1, i1 has t2; t3 has no image.
    data = benchmark(lambda: IMAGE, lambda: IMAGE, texts=4)
    report = check_benchmark(data, [expecting(num_images=2, num_texts=4)])
    assert report.is_good and "texts per image: 1 (1 image), 2 (1 image)" in str(report)
    assert "texts without an image, in the gallery only: 1 (t3)" in str(report)

    report = check_benchmark(data, [expecting(num_images=1000), expecting("other", num_texts=4)])
    assert (
        not report.is_good and "small-test expects 1,000 images" in str(report) and "other expects" not in str(report)
    )


def test_broken_missing_and_unreadable_images_are_distinguished():
    rows = BadSampleReport()
    rows.add(4, [("unmatched image id", "t8")])
    missing, locked = BadSample("missing image", "i3.jpg"), PermissionError(13, "Permission denied")
    reads = [lambda: IMAGE, lambda: b"not an image", lambda: b"", raising(missing), raising(locked)]
    report = check_benchmark(benchmark(*reads, rows=rows))
    names = {line.strip() for line in str(report).splitlines() if line.startswith("  ")}
    assert not report.is_good and names == {
        "unmatched image id: 1 (t8)",
        "broken image: 2 (i1, i2)",
        "missing image: 1 (i3.jpg)",
        "unreadable image (Permission denied): 1 (i4)",
    }


def test_every_image_is_read_once_in_threads():
    count, done, threads, reads = CHUNK_SIZE + 3, [], set(), []

    def read(number):
        reads.append(number)
        threads.add(threading.get_ident())
        return IMAGE

    check_benchmark(benchmark(*(partial(read, number) for number in range(count))), progress=done.append)
    assert sorted(reads) == list(range(count)) and done == [CHUNK_SIZE, 3]
    assert threading.get_ident() not in threads
