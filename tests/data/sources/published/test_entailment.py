"""NLVR2 and SNLI-VE as they are published: rows, images, splits, and what cannot be used."""

import pytest

from ernie_vil2.data.readers import open_benchmark, open_sources
from ernie_vil2.data.readers.entailment import read_nlvr2_subsets
from tests.support.published_files import json_lines, make_image, read_all, write_files

SENTENCE = "One image shows exactly two brown acorns."


def row(identifier, label="True", **changes):
    """A line as it is published."""
    pair = identifier.rpartition("-")[0]
    return {
        "validation": {"9": label}, "sentence": SENTENCE, "left_url": f"https://example.com/{pair}/left.jpg",
        "writer": "9", "label": label, "right_url": f"https://example.com/{pair}/right.jpg", "synset": "acorn",
        "query": "two acorns3", "identifier": identifier, "extra_validations": {"12": label},
    } | changes  # fmt: skip


def images(*pairs, folder=""):
    return {
        f"{folder}{pair}-img{side}.png": make_image(2 * n + side) for n, pair in enumerate(pairs) for side in (0, 1)
    }


TEST = {
    "test1.json": json_lines(row("test1-0-1-0"), row("test1-0-0-0", "False")),
    **images("test1-0-1", "test1-0-0", folder="test1/"),
}


def test_a_row_of_nlvr2_is_two_images_a_sentence_and_a_label(tmp_path):
    first, second = read_all(open_sources([str(write_files(tmp_path, TEST))], split="test1"))
    assert (first.image, first.right, first.text, first.label) == (make_image(0), make_image(1), SENTENCE, "True")
    assert (second.image, second.right, second.label) == (make_image(2), make_image(3), "False")
    row = open_sources([str(tmp_path)], split="test1").shards[0].read_row(0)
    assert (row.id, row.group, len(row.origins)) == ("test1-0-1-0", "test1-0-0", 2)


@pytest.mark.parametrize("folder", ["train/63/", "images/train/", "images/", ""])
def test_the_images_of_train_lie_in_directories_or_not(tmp_path, folder):
    """As the authors hand them out, and as their script downloads them."""
    rows = {"data/train.json": json_lines(row("train-10171-0-0", directory=63))}
    sources = open_sources([str(write_files(tmp_path, rows | images("train-10171-0", folder=folder)))])
    assert read_all(sources)[0].right == make_image(1)


def test_labels_are_texts_or_truth_values_and_bad_rows_are_named(tmp_path):
    rows = [
        row("test1-0-1-0", True), row("test1-0-1-1", False), row("test1-0-1-2", "true"), row("test1-0-1-3", "-"),
        row("test1-0-1"), row("test1-9-9-0"), row("../test1-0-1-0"), row("test1-0-1-0", sentence=""),
        row("test1-0-1-0", label=1), row("test1-0-1-0", directory=[]), row("test1-0-1-0", directory="../x"),
    ]  # fmt: skip
    folder = str(write_files(tmp_path, TEST | {"test1.json": json_lines(*rows)}))
    first, second, *problems = read_all(open_sources([folder], split="test1"))
    assert (first.label, second.label) == ("True", "False")
    assert problems == [
        "test1.json:3: unknown label",
        "test1.json:4: no gold label",
        "test1.json:5, identifier test1-0-1: no id",
        "test1-9-9-img0.png: missing image",
        "test1.json:7, identifier ../test1-0-1-0: no id",
        "test1.json:8: empty text",
        "test1.json:9, label: missing field",
        "test1.json:10, directory: malformed row",
        "../x/test1-0-1-img0.png: image outside its folder",
    ]


def test_the_published_subsets(tmp_path):
    write_files(tmp_path, TEST | {"balanced/balanced_test1.json": json_lines(row("test1-0-1-0"))})
    assert read_nlvr2_subsets(tmp_path / "test1.json") == {"balanced": {"test1-0-1-0"}}
    (tmp_path / "balanced/balanced_test1.json").write_text("{")
    with pytest.raises(ValueError, match="balanced_test1.json:1: malformed JSON"):
        read_nlvr2_subsets(tmp_path / "test1.json")


HYPOTHESIS = "Two men are outside."


def snli_row(number, label="entailment", key="Flikr30kID", **changes):
    """A line as it is distributed."""
    return {
        "annotator_labels": [label], "captionID": f"{number}.jpg#2", key: str(number), "gold_label": label,
        "pairID": f"{number}.jpg#2r1e", "sentence1": "Two men cook at a grill.", "sentence2": HYPOTHESIS,
    } | changes  # fmt: skip


def snli_files(*rows, split="test"):
    return {f"snli_ve_{split}.jsonl": json_lines(*rows), "flickr30k-images/36979.jpg": make_image(1)}


@pytest.mark.parametrize(
    ("key", "name"), [("Flikr30kID", "36979"), ("Flickr30K_ID", "36979"), ("Flikr30kID", "36979.jpg")]
)
def test_a_row_of_snli_ve_is_an_image_a_hypothesis_and_a_label(tmp_path, key, name):
    folder = write_files(tmp_path, snli_files(snli_row(36979, "neutral", key, **{key: name})))
    (sample,) = read_all(open_sources([folder], split="test"))
    assert (sample.image, sample.text, sample.label) == (make_image(1), HYPOTHESIS, "neutral")
    assert sample.right is None and "grill" not in repr(sample)


def test_rows_without_a_gold_label_and_others_are_named(tmp_path):
    rows = [
        snli_row(36979), snli_row(36979, "-"), snli_row(36979, "maybe"), snli_row(1), snli_row(36979, sentence2=" "),
        snli_row(36979, gold_label=None), snli_row(36979, Flikr30kID=None), snli_row("../36979"),
        snli_row(36979, Flikr30kID=[]), snli_row(36979, pairID=[]),
    ]  # fmt: skip
    location = "snli_ve_test.jsonl"
    first, *others = read_all(open_sources([write_files(tmp_path, snli_files(*rows))], split="test"))
    assert first.label == "entailment"
    assert others == [
        f"{location}:2: no gold label",
        f"{location}:3: unknown label",
        "1.jpg: missing image",
        f"{location}:5: empty text",
        f"{location}:6, gold_label: missing field",
        f"{location}:7: no image",
        "../36979.jpg: image outside its folder",
        f"{location}:9: malformed image id",
        f"{location}:10: no id",
    ]


def test_splits_of_snli_ve_and_a_file_by_its_name(tmp_path):
    write_files(
        tmp_path, snli_files(snli_row(36979), split="train") | snli_files(snli_row(36979, "neutral"), split="dev")
    )
    named, images = tmp_path / "snli_ve_train.jsonl", tmp_path / "flickr30k-images"
    for data, options in ((tmp_path, {}), (named, {}), (named, {"images": images})):
        assert read_all(open_sources([str(data)], **options))[0].label == "entailment"
    assert read_all(open_sources([str(tmp_path)], split="val"))[0].label == "neutral"
    with pytest.raises(ValueError, match="no split test"):
        open_sources([str(tmp_path)], split="test")


def test_statements_are_not_captions(tmp_path):
    """A contradiction must not become a positive pair because somebody chose the wrong task."""
    with pytest.raises(ValueError, match="(?s)statement with a label, no caption: 1"):
        open_benchmark(write_files(tmp_path, snli_files(snli_row(36979, "contradiction"))), split="test")
