"""NLVR2 and SNLI-VE in their published layouts: rows, images, splits, and bad rows."""

import pytest

from ernie_vil2.data.readers import open_benchmark, open_sources
from ernie_vil2.data.readers.entailment import read_nlvr2_subsets
from tests.support.published_files import json_lines, make_image, read_all, write_files

SENTENCE = "One image shows exactly two brown acorns."


def make_nlvr2_row(identifier, label="True", **changes):
    """Return a published row, with some fields changed."""
    pair = identifier.rpartition("-")[0]
    return {
        "validation": {"9": label}, "sentence": SENTENCE, "left_url": f"https://example.com/{pair}/left.jpg",
        "writer": "9", "label": label, "right_url": f"https://example.com/{pair}/right.jpg", "synset": "acorn",
        "query": "two acorns3", "identifier": identifier, "extra_validations": {"12": label},
    } | changes  # fmt: skip


def make_image_files(*pairs, folder=""):
    """Return the left and right images of pairs, numbered from 0."""
    files = {}
    for number, pair in enumerate(pairs):
        files[f"{folder}{pair}-img0.png"] = make_image(2 * number)
        files[f"{folder}{pair}-img1.png"] = make_image(2 * number + 1)
    return files


TEST = {
    "test1.json": json_lines(make_nlvr2_row("test1-0-1-0"), make_nlvr2_row("test1-0-0-0", "False")),
    **make_image_files("test1-0-1", "test1-0-0", folder="test1/"),
}


def test_row_of_nlvr2_has_two_images_a_sentence_and_a_label(tmp_path):
    first, second = read_all(open_sources([str(write_files(tmp_path, TEST))], split="test1"))
    assert (first.image, first.right, first.text, first.label) == (make_image(0), make_image(1), SENTENCE, "True")
    assert (second.image, second.right, second.label) == (make_image(2), make_image(3), "False")
    row = open_sources([str(tmp_path)], split="test1").shards[0].read_row(0)
    assert (row.id, row.group, len(row.origins)) == ("test1-0-1-0", "test1-0-0", 2)


@pytest.mark.parametrize("folder", ["train/63/", "images/train/", "images/", ""])
def test_images_of_train_may_be_in_numbered_directories(tmp_path, folder):
    # The authors hand the images out in numbered directories; their script downloads them into one folder.
    rows = {"data/train.json": json_lines(make_nlvr2_row("train-10171-0-0", directory=63))}
    sources = open_sources([str(write_files(tmp_path, rows | make_image_files("train-10171-0", folder=folder)))])
    assert read_all(sources)[0].right == make_image(1)


def test_labels_may_be_booleans_and_bad_rows_are_named(tmp_path):
    rows = [
        make_nlvr2_row("test1-0-1-0", True),
        make_nlvr2_row("test1-0-1-1", False),
        make_nlvr2_row("test1-0-1-2", "true"),
        make_nlvr2_row("test1-0-1-3", "-"),
        make_nlvr2_row("test1-0-1"),
        make_nlvr2_row("test1-9-9-0"),
        make_nlvr2_row("../test1-0-1-0"),
        make_nlvr2_row("test1-0-1-0", sentence=""),
        make_nlvr2_row("test1-0-1-0", label=1),
        make_nlvr2_row("test1-0-1-0", directory=[]),
        make_nlvr2_row("test1-0-1-0", directory="../x"),
    ]
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


def test_subsets_are_read_from_the_files_of_the_release(tmp_path):
    write_files(tmp_path, TEST | {"balanced/balanced_test1.json": json_lines(make_nlvr2_row("test1-0-1-0"))})
    assert read_nlvr2_subsets(tmp_path / "test1.json") == {"balanced": {"test1-0-1-0"}}
    (tmp_path / "balanced/balanced_test1.json").write_text("{")
    with pytest.raises(ValueError, match="balanced_test1.json:1: malformed JSON"):
        read_nlvr2_subsets(tmp_path / "test1.json")


HYPOTHESIS = "Two men are outside."


def make_snli_row(number, label="entailment", key="Flikr30kID", **changes):
    """Return a row as it is distributed, with some fields changed."""
    return {
        "annotator_labels": [label], "captionID": f"{number}.jpg#2", key: str(number), "gold_label": label,
        "pairID": f"{number}.jpg#2r1e", "sentence1": "Two men cook at a grill.", "sentence2": HYPOTHESIS,
    } | changes  # fmt: skip


def make_snli_files(*rows, split="test"):
    return {f"snli_ve_{split}.jsonl": json_lines(*rows), "flickr30k-images/36979.jpg": make_image(1)}


@pytest.mark.parametrize(
    ("key", "name"), [("Flikr30kID", "36979"), ("Flickr30K_ID", "36979"), ("Flikr30kID", "36979.jpg")]
)
def test_row_of_snli_ve_has_an_image_a_hypothesis_and_a_label(tmp_path, key, name):
    folder = write_files(tmp_path, make_snli_files(make_snli_row(36979, "neutral", key, **{key: name})))
    (sample,) = read_all(open_sources([folder], split="test"))
    assert (sample.image, sample.text, sample.label) == (make_image(1), HYPOTHESIS, "neutral")
    assert sample.right is None and "grill" not in repr(sample)


def test_bad_rows_of_snli_ve_are_named(tmp_path):
    rows = [
        make_snli_row(36979),
        make_snli_row(36979, "-"),
        make_snli_row(36979, "maybe"),
        make_snli_row(1),
        make_snli_row(36979, sentence2=" "),
        make_snli_row(36979, gold_label=None),
        make_snli_row(36979, Flikr30kID=None),
        make_snli_row("../36979"),
        make_snli_row(36979, Flikr30kID=[]),
        make_snli_row(36979, pairID=[]),
    ]
    location = "snli_ve_test.jsonl"
    sample, *problems = read_all(open_sources([write_files(tmp_path, make_snli_files(*rows))], split="test"))
    assert sample.label == "entailment"
    assert problems == [
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


def test_file_of_bad_rows_alone_is_opened_and_its_rows_are_named(tmp_path):
    files = {"snli_ve_test.jsonl": json_lines({"image": "1", "hypothesis": "x", "label": "neutral"})}
    assert read_all(open_sources([write_files(tmp_path, files)], split="test")) == ["snli_ve_test.jsonl:1: no image"]


def test_snli_ve_is_opened_by_split_or_file(tmp_path):
    write_files(
        tmp_path,
        make_snli_files(make_snli_row(36979), split="train")
        | make_snli_files(make_snli_row(36979, "neutral"), split="dev"),
    )
    train_file, images = tmp_path / "snli_ve_train.jsonl", tmp_path / "flickr30k-images"
    for data, options in ((tmp_path, {}), (train_file, {}), (train_file, {"images": images})):
        assert read_all(open_sources([str(data)], **options))[0].label == "entailment"
    assert read_all(open_sources([str(tmp_path)], split="val"))[0].label == "neutral"
    with pytest.raises(ValueError, match="no split test"):
        open_sources([str(tmp_path)], split="test")


def test_statements_with_labels_are_refused_as_captions(tmp_path):
    # A contradiction must not become a positive pair because a user chose the wrong task.
    with pytest.raises(ValueError, match="(?s)statement with a label, no caption: 1"):
        open_benchmark(write_files(tmp_path, make_snli_files(make_snli_row(36979, "contradiction"))), split="test")
