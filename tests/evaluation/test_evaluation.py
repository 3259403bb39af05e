"""Evaluations, pixel baselines and checks of small benchmarks equal values by hand; a layout chooses its scorer."""

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
from tests.support.encoding_model import normalise_rows
from tests.support.entailment_data import write_entailment_folder, write_nlvr2_folder
from tests.support.published_folders import write_karpathy
from tests.support.shapes import draw, encode_png, write_tar, write_tsv


class ColourModel:
    """A stand-in for a model that embeds an image as its mean colour, and a text as the colour that it names."""

    COLOURS: ClassVar = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}
    fingerprint = "colours"

    def preprocess(self, image, name="image"):
        return Preprocessing("ernie_vil2", 8, mean=(0, 0, 0), std=(1, 1, 1))(image, "image")

    def start_pixels(self, images):
        colours = np.stack(images).mean(axis=(1, 2))
        return lambda: -normalise_rows(255 - colours).astype(np.float32)

    def start_texts(self, texts):
        colours = np.array([self.COLOURS[text.split()[-1]] for text in texts], float)
        return lambda: normalise_rows(colours - 1.0).astype(np.float32)


def draw_square(colour):
    return encode_png(np.full([8, 8, 3], np.array(colour) * 200 + 20, np.uint8))


RED = draw_square(ColourModel.COLOURS["red"])
GREEN = draw_square(ColourModel.COLOURS["green"])
BLUE = draw_square(ColourModel.COLOURS["blue"])


@pytest.fixture
def kinds(tmp_path):
    """Return a benchmark where the third image is red but its caption says blue: neither finds the other first."""
    rows = [("red", RED, "plain"), ("green", GREEN, "plain"), ("x blue", RED, "odd"), ("blue", BLUE, "plain")]
    members = []
    for number, (caption, image, kind) in enumerate(rows):
        fields = json.dumps({"caption": caption, "kind": kind}).encode()
        members += [(f"{number}.png", image), (f"{number}.json", fields)]
    return open_benchmark(write_tar(tmp_path / "a.tar", members))


def test_mean_recall_is_the_mean_over_languages(kinds):
    chinese = encode_benchmark(ColourModel(), kinds)
    english = encode_benchmark(ColourModel(), kinds.select([0, 1], [0, 1]))  # without the wrong caption
    opened = ScorerInput(DataSpec(["a.tar"]), {"zh": chinese.benchmark, "en": english.benchmark})
    metrics = Retrieval().score(opened, {"zh": chinese, "en": english}, None).metrics
    assert metrics["en/mR"] == 100 > metrics["zh/mR"]
    assert metrics["mean_recall"] == pytest.approx((100 + metrics["zh/mR"]) / 2)


def test_protocol_that_is_named_twice_counts_once(kinds):
    encoded = encode_benchmark(ColourModel(), kinds)
    tables = []
    for names in (["coco-cn-test"], ["coco-cn-test", "coco-cn-test"]):
        report = Retrieval(names).score(ScorerInput(DataSpec(["a.tar"]), {"": encoded.benchmark}), {"": encoded}, None)
        tables.append(report.as_text())
    assert tables[0] == tables[1] and "published" in tables[0]


def test_recall_equals_that_by_hand_for_all_and_some_queries(kinds):
    evaluation = evaluate(ColourModel(), kinds, PROTOCOLS["pairs"])
    # Image 0 (red) ties with nothing; image 2 (red) finds both blue texts and green before its own.
    assert evaluation.results["image_to_text"].ranking.rank.tolist() == [1, 1, 4, 2]
    plain = evaluation.select_queries("kind", "plain").results["image_to_text"]
    odd = evaluation.select_queries("kind", "odd").results["image_to_text"]
    assert plain.recall["R@1"] == pytest.approx(200 / 3) and odd.recall["R@1"] == 0
    assert odd.recall["R@5"] == 100 and odd.chance["R@1"] == 25
    with pytest.raises(ValueError, match="kind = large"):
        evaluation.select_queries("kind", "large")


def remove_fields(benchmark, *sides):
    """Return the benchmark with no fields for its images ("image") or texts ("text")."""
    images, texts = benchmark.images, benchmark.texts
    if "image" in sides:
        images = [replace(image, fields={}) for image in images]
    if "text" in sides:
        texts = [replace(text, fields={}) for text in texts]
    return replace(benchmark, images=images, texts=texts)


@pytest.mark.parametrize("name", ["pairs", "official-rows"])
@pytest.mark.parametrize(("side", "direction", "empty_direction"), [
    ("image", "text_to_image", "image_to_text"), ("text", "image_to_text", "text_to_image"),
])  # fmt: skip
def test_subset_by_a_field_of_one_side_has_one_direction(kinds, name, side, direction, empty_direction):
    protocol = PROTOCOLS[name]
    expected = evaluate(ColourModel(), kinds, protocol).select_queries("kind", "plain").results[direction].recall
    evaluation = evaluate(ColourModel(), remove_fields(kinds, side), protocol)

    plain = evaluation.select_queries("kind", "plain")

    assert plain.results[direction].recall == expected and plain.results[empty_direction].recall == {}
    assert plain.as_dict()[empty_direction] == {} and plain.as_dict()["mR"] is None
    without_fields = evaluate(ColourModel(), remove_fields(kinds, "image", "text"), protocol)
    scorer = Retrieval(only=[("kind", "plain"), ("kind", "odd")])
    rows = scorer._make_rows({"a": evaluation, "b": without_fields}, [])
    plain_heading, odd_heading = [label for label, values in rows if values is None and "kind" in label]
    assert "0 to 3" in plain_heading and "0 to 1" in odd_heading
    with pytest.raises(ValueError, match="kind = large"):
        Retrieval(only=[("kind", "large")])._make_rows({"": without_fields}, [])


def test_rows_without_a_right_answer_do_not_fill_a_subset(kinds):
    pairs = np.array([(0, 0), (1, 1), (2, 3), (3, 3)])  # the odd image has another text, and the odd text no image
    odd = evaluate(ColourModel(), replace(kinds, pairs=pairs), PROTOCOLS["pairs"]).select_queries("kind", "odd")
    assert odd.empty_directions == ("text_to_image",) and odd.mean_recall is None
    pairs = pairs[[0, 1, 3]]
    with pytest.raises(ValueError, match="kind = odd; values here: plain$"):
        evaluate(ColourModel(), replace(kinds, pairs=pairs), PROTOCOLS["pairs"]).select_queries("kind", "odd")


def test_pixel_baseline_equals_that_by_hand(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {name: encode_png(draw((0, 0, 0), name, rng)) for name in ("disc", "bar", "cross")}
    train = [(name, f"{name}-train", image) for name, image in shapes.items()]
    # The test's disc is the training disc; its "bar" looks like the cross; "square" has no training image.
    test = [("disc", "1", shapes["disc"]), ("bar", "2", shapes["cross"]), ("square", "3", shapes["disc"])]
    train_source = open_sources([str(write_tsv(tmp_path / "train.tsv", train))])
    test_source = open_sources([str(write_tsv(tmp_path / "test.tsv", test))])
    baseline = compute_pixel_baseline(train_source, test_source, block=2)
    # No test text is "cross", so the training cross does not count: the second image, which looks like a cross, takes
    # the text of the bar or of the disc, whichever looks more like it.
    cross_to_bar = embed_pixels(shapes["cross"]) @ embed_pixels(shapes["bar"])
    cross_to_disc = embed_pixels(shapes["cross"]) @ embed_pixels(shapes["disc"])
    rank_of_bar = 1 if cross_to_bar > cross_to_disc else 2
    assert baseline.ranks.tolist() == [1, rank_of_bar, 3]
    assert baseline.select_queries()["image_to_text"]["R@5"] == 100


def test_pixel_baseline_finds_any_text_of_an_image(tmp_path):
    rng = np.random.default_rng(0)
    disc, bar = (encode_png(draw((0, 0, 0), name, rng)) for name in ("disc", "bar"))
    rows = [("disc", "1", disc), ("a disc", "1", disc), ("bar", "2", bar), ("a bar", "2", bar)]
    train = open_sources([str(write_tsv(tmp_path / "train.tsv", rows))])
    # The texts of an image score alike, but are no wrong answers to it.
    baseline = compute_pixel_baseline(train, train, block=1)
    assert baseline.ranks.tolist() == [1, 1] and [sample.image_name for sample in baseline.samples] == ["1", "2"]
    # Without a training image of its texts, a query ranks behind the two texts of the other one.
    train = open_sources([str(write_tsv(tmp_path / "bars.tsv", rows[2:]))])
    test = open_sources([str(tmp_path / "train.tsv")])
    assert compute_pixel_baseline(train, test).ranks.tolist() == [3, 1]


def test_pixel_baseline_counts_unusable_samples(tmp_path):
    image = encode_png(draw((0, 0, 0), "disc", np.random.default_rng(0)))
    train = [("disc", "1", image), ("disc", "2", image[:50]), ("", "3", image), ("bar", "4", b"not looked at")]
    test = [("disc", "5", image), ("disc", "6", b"x")]
    train_path, test_path = write_tsv(tmp_path / "train.tsv", train), write_tsv(tmp_path / "test.tsv", test)
    train_path.write_text(train_path.read_text() + "no columns\n")
    test_source = open_sources([str(test_path)])
    baseline = compute_pixel_baseline(open_sources([str(train_path)]), test_source)
    assert baseline.ranks.tolist() == [1] and len(baseline.samples) == 1
    assert baseline.bad_samples.counts == {"broken image": 2, "malformed row": 1} and baseline.bad_samples.num_read == 7
    with pytest.raises(ValueError, match="pixel baseline"):
        compute_pixel_baseline(open_sources([str(write_tsv(tmp_path / "bad.tsv", train[1:2]))]), test_source)


def write_class_folders(folder):
    for shape in ("disc", "bar"):
        (folder / "test" / shape).mkdir(parents=True)
        (folder / "test" / shape / "a.png").write_bytes(b"an image")


def write_several_layouts(folder):
    write_karpathy(folder, "coco", "")
    write_karpathy(folder, "flickr30k", "")


def make_empty_folder(folder):
    folder.mkdir()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (write_entailment_folder, "entailment"),
        (write_nlvr2_folder, "nlvr2"),
        (write_class_folders, "zero_shot"),
        (lambda folder: write_karpathy(folder, "coco", ""), "retrieval"),
        (write_several_layouts, "retrieval"),
        (make_empty_folder, "retrieval"),
    ],
)
def test_layout_chooses_the_scorer(tmp_path, make, name):
    make(tmp_path / "data")
    assert find_scorer(DataSpec([str(tmp_path / "data")])) == name


def test_registered_scorer_recognises_its_data(tmp_path, monkeypatch):
    class FolderNameScorer(Scorer):
        @classmethod
        def recognises(cls, path, layout):
            return path.name == "own"

    monkeypatch.setitem(SCORERS, "own", FolderNameScorer)
    for name in ("own", "other"):
        write_entailment_folder(tmp_path / name)
    assert find_scorer(DataSpec([str(tmp_path / "own")])) == "own"
    assert find_scorer(DataSpec([str(tmp_path / "other")])) == "entailment"


def test_scorer_is_chosen_by_name_or_import_path():
    path = "ernie_vil2.evaluation.scorers.retrieval:Retrieval"
    assert SCORERS.find("retrieval") is SCORERS.find(path) is Retrieval
    assert make_scorer(path, {"protocol": ["muge-val"]}).best_by == "mean_recall"
    with pytest.raises(ValueError, match="'recall'"):
        SCORERS.find("recall")
    with pytest.raises(ValueError, match="scorers.retrieval has no Nothing"):
        SCORERS.find("ernie_vil2.evaluation.scorers.retrieval:Nothing")
    with pytest.raises(ValueError, match="retrieval: templates"):
        make_scorer("retrieval", {"templates": {}})


@pytest.mark.parametrize(("name", "option", "value"), [
    ("retrieval", "protocol", "pairs"), ("retrieval", "only", "kind"), ("retrieval", "block", "abc"),
    ("retrieval", "block", 0), ("retrieval", "top_k", 0), ("cxc", "top_k", -1),
    ("zero_shot", "threshold", "high"), ("zero_shot", "names", "names.txt"),
])  # fmt: skip
def test_option_of_another_type_or_range_is_refused(name, option, value):
    with pytest.raises(ValueError, match=f"{name}: {option}"):
        make_scorer(name, {option: value})


def test_scorer_without_a_protocol_is_refused():
    with pytest.raises(ValueError, match="no protocol"):
        make_scorer("retrieval", {"protocol": []})


IMAGE = encode_png(draw((200, 30, 30), "disc", np.random.default_rng(0)))


def make_failing_reader(error):
    def read():
        raise error

    return read


def make_benchmark(*readers, num_texts=3, entry_report=None):
    images = [BenchmarkImage(f"i{n}", reader) for n, reader in enumerate(readers)]
    texts = [BenchmarkText(f"t{n}", f"text {n}") for n in range(num_texts)]
    pairs = np.array([[0, 0], [0, 1], [1, 2]], np.int64)
    return Benchmark("small", images, texts, pairs, entry_report or BadSampleReport())


def expect_counts(name="small-test", **counts):
    return replace(PROTOCOLS["pairs"], name=name, **counts)


def test_check_compares_counts_with_the_protocol():
    # i0 has the texts t0 and t1, i1 has t2; t3 has no image.
    data = make_benchmark(lambda: IMAGE, lambda: IMAGE, num_texts=4)
    report = check_benchmark(data, [expect_counts(num_images=2, num_texts=4)])
    assert report.is_good and "texts per image: 1 (1 image), 2 (1 image)" in str(report)
    assert "texts without an image, in the gallery only: 1 (t3)" in str(report)

    report = check_benchmark(data, [expect_counts(num_images=1000), expect_counts("other", num_texts=4)])
    assert not report.is_good
    assert "small-test expects 1,000 images" in str(report) and "other expects" not in str(report)


def test_broken_missing_and_unreadable_images_are_distinguished():
    entry_report = BadSampleReport()
    entry_report.add(4, [("unmatched image id", "t8")])
    missing = make_failing_reader(BadSample("missing image", "i3.jpg"))
    locked = make_failing_reader(PermissionError(13, "Permission denied"))
    changed = make_failing_reader(OSError("a.tar has changed while in use"))
    readers = [lambda: IMAGE, lambda: b"not an image", lambda: b"", missing, locked, changed]
    report = check_benchmark(make_benchmark(*readers, entry_report=entry_report))
    names = {line.strip() for line in str(report).splitlines() if line.startswith("  ")}
    assert not report.is_good and names == {
        "unmatched image id: 1 (t8)",
        "broken image: 2 (i1, i2)",
        "missing image: 1 (i3.jpg)",
        "unreadable image (Permission denied): 1 (i4)",
        "unreadable image (a.tar has changed while in use): 1 (i5)",
    }


def test_every_image_is_read_once_in_another_thread():
    num_images, progress, threads, numbers = CHUNK_SIZE + 3, [], set(), []

    def read(number):
        numbers.append(number)
        threads.add(threading.get_ident())
        return IMAGE

    readers = [partial(read, number) for number in range(num_images)]
    check_benchmark(make_benchmark(*readers), progress=progress.append)
    assert sorted(numbers) == list(range(num_images)) and progress == [CHUNK_SIZE, 3]
    assert threading.get_ident() not in threads
