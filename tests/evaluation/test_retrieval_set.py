import json

import numpy as np
import pytest

from ernie_vil2.data.sources import open_sources
from ernie_vil2.evaluation.examples import example_queries
from ernie_vil2.evaluation.pixel_baseline import pixel_baseline, pixel_embedding
from ernie_vil2.evaluation.retrieval_set import embed_source, evaluate_source
from tests.conftest import draw, png, write_tar, write_tsv


class ColourEncoder:
    """Stands in for a model: an image is its mean colour, a text the colour that it names."""

    COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}
    image_size, batch_size = 8, 2

    def encode_images(self, images):
        return unit(255 - images.reshape(len(images), -1, 3).mean(axis=1)) * -1

    def encode_texts(self, texts):
        return unit(np.array([self.COLOURS[text.split()[-1]] for text in texts], float) - 1.0)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def flat(colour):
    return png(np.full([8, 8, 3], np.array(colour) * 200 + 20, np.uint8))


RED, GREEN, BLUE = (flat(colour) for colour in ColourEncoder.COLOURS.values())


def test_several_texts_and_repeated_rows_of_an_image(tmp_path):
    rows = [("red", "r", RED), ("a red", "r", RED), ("green", "g", GREEN), ("green", "g", GREEN), ("blue", "b", BLUE)]
    benchmark = embed_source(ColourEncoder(), open_sources([str(write_tsv(tmp_path / "a.tsv", rows))]), "en")
    assert benchmark.images.shape == (3, 3) and benchmark.texts.shape == (4, 3)
    assert benchmark.captions == ["red", "a red", "green", "blue"]
    assert benchmark.pairs.tolist() == [[0, 0], [0, 1], [1, 2], [2, 3]]


def test_recall_of_all_and_of_some_queries(tmp_path):
    # Two red images have a wrong colour in their caption: they miss their text, and their texts miss them.
    kinds = [("red", RED, "plain"), ("green", GREEN, "plain"), ("x blue", RED, "odd"), ("blue", BLUE, "plain")]
    members = []
    for number, (caption, image, kind) in enumerate(kinds):
        members += [
            (f"{number}.png", image),
            (f"{number}.json", json.dumps({"caption": caption, "kind": kind}).encode()),
        ]
    source = open_sources([str(write_tar(tmp_path / "a.tar", members))])
    evaluation = evaluate_source(ColourEncoder(), source, "en")
    # Image 0 (red) ties with nothing; image 2 (red) finds both blue texts and green before its own.
    assert evaluation.result.image_ranks.tolist() == [1, 1, 4, 2]
    plain, odd = evaluation.of_queries("kind", "plain"), evaluation.of_queries("kind", "odd")
    assert plain.image_to_text["R@1"] == pytest.approx(200 / 3) and odd.image_to_text["R@1"] == 0
    assert odd.image_to_text["R@5"] == 100 and odd.chance["image_to_text"]["R@1"] == 25
    with pytest.raises(ValueError, match="no sample has kind = large; values here: odd, plain"):
        evaluation.of_queries("kind", "large")


def test_bad_rows_are_reported_and_nothing_but_bad_rows_is_an_error(tmp_path):
    rows = [("red", "r", RED), ("", "e", RED), ("green", "x", b"no image")]
    benchmark = embed_source(ColourEncoder(), open_sources([str(write_tsv(tmp_path / "a.tsv", rows))]), "en")
    assert benchmark.bad_samples.as_dict()["bad"] == 2 and len(benchmark.images) == 1
    with pytest.raises(ValueError, match="no sample could be used"):
        embed_source(ColourEncoder(), open_sources([str(write_tsv(tmp_path / "b.tsv", rows[1:]))]), "en")


def test_examples_mark_right_and_wrong_answers(tmp_path):
    rows = [("red", "r", RED), ("green", "g", GREEN), ("blue", "b", BLUE)]
    benchmark = embed_source(ColourEncoder(), open_sources([str(write_tsv(tmp_path / "a.tsv", rows))]), "en")
    queries = example_queries(benchmark, "en", 3, seed=0, answers=2)
    assert sorted(query["query"] for query in queries) == ["blue", "green", "red"]
    for query in queries:
        assert [answer["correct"] for answer in query["answers"]] == [True, False]
        assert query["answers"][0]["caption"] == query["query"]
    with pytest.raises(ValueError, match="4 queries asked for, but there are 3"):
        example_queries(benchmark, "en", 4, seed=0)


def test_pixel_baseline_by_hand(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {name: png(draw((0, 0, 0), name, rng)) for name in ("disc", "bar", "cross")}
    train = [(name, f"{name}-train", image) for name, image in shapes.items()]
    # The test's disc is the training disc; its "bar" looks like the cross; "square" has no training image.
    test = [("disc", "1", shapes["disc"]), ("bar", "2", shapes["cross"]), ("square", "3", shapes["disc"])]
    sources = [open_sources([str(write_tsv(tmp_path / f"{i}.tsv", rows))]) for i, rows in enumerate((train, test))]
    baseline = pixel_baseline(*sources, block=2)
    # Texts of the test: bar, disc, square; the cross takes no part, so a cross is nearest to bar or disc.
    similarity = [pixel_embedding(shapes["cross"]) @ pixel_embedding(shapes[name]) for name in ("bar", "disc")]
    assert baseline.ranks.tolist() == [1, 1 if similarity[0] > similarity[1] else 2, 3]
    assert baseline.of_queries()["image_to_text"]["R@5"] == 100
