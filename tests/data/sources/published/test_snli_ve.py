import pytest

from ernie_vil2.data.readers import open_benchmark, open_sources
from tests.support.published_files import image, json_lines, read_all, write

HYPOTHESIS = "Two men are outside."


def row(number, label="entailment", key="Flikr30kID", **changes):
    """A line as it is distributed."""
    return {
        "annotator_labels": [label], "captionID": f"{number}.jpg#2", key: str(number), "gold_label": label,
        "pairID": f"{number}.jpg#2r1e", "sentence1": "Two men cook at a grill.", "sentence2": HYPOTHESIS,
    } | changes  # fmt: skip


def files(*rows, split="test"):
    return {f"snli_ve_{split}.jsonl": json_lines(*rows), "flickr30k-images/36979.jpg": image(1)}


@pytest.mark.parametrize(
    ("key", "name"), [("Flikr30kID", "36979"), ("Flickr30K_ID", "36979"), ("Flikr30kID", "36979.jpg")]
)
def test_a_row_is_an_image_a_hypothesis_and_a_label(tmp_path, key, name):
    folder = write(tmp_path, files(row(36979, "neutral", key, **{key: name})))
    (sample,) = read_all(open_sources([folder], split="test"))
    assert (sample.image, sample.text, sample.label) == (image(1), HYPOTHESIS, "neutral")
    assert sample.right is None and "grill" not in repr(sample)


def test_rows_without_a_gold_label_and_others_are_named(tmp_path):
    rows = [
        row(36979), row(36979, "-"), row(36979, "maybe"), row(1), row(36979, sentence2=" "),
        row(36979, gold_label=None), row(36979, Flikr30kID=None), row("../36979"), row(36979, Flikr30kID=[]),
        row(36979, pairID=[]),
    ]  # fmt: skip
    location = "snli_ve_test.jsonl"
    first, *others = read_all(open_sources([write(tmp_path, files(*rows))], split="test"))
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


def test_splits_and_a_file_by_its_name(tmp_path):
    write(tmp_path, files(row(36979), split="train") | files(row(36979, "neutral"), split="dev"))
    named, images = tmp_path / "snli_ve_train.jsonl", tmp_path / "flickr30k-images"
    for data, options in ((tmp_path, {}), (named, {}), (named, {"images": images})):
        assert read_all(open_sources([str(data)], **options))[0].label == "entailment"
    assert read_all(open_sources([str(tmp_path)], split="val"))[0].label == "neutral"
    with pytest.raises(ValueError, match="no split test"):
        open_sources([str(tmp_path)], split="test")


def test_statements_are_not_captions(tmp_path):
    """A contradiction must not become a positive pair because somebody chose the wrong task."""
    with pytest.raises(ValueError, match="(?s)statement with a label, no caption: 1"):
        open_benchmark(write(tmp_path, files(row(36979, "contradiction"))), split="test")
