"""Images with classes: folders, tables, samples."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie_vil2.data.readers.labelled import assign_class_names, open_labelled, read_list
from tests.support.published_files import write_files
from tests.support.shapes import COLOURS, draw, encode_png

IMAGES = {name: encode_png(draw(rgb, "disc", np.random.default_rng(0))) for name, (rgb, _) in COLOURS.items()}


def folders(root, **classes):
    """A folder for each class with so many images."""
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}.png").write_bytes(IMAGES["red"])
    return root


def shown(labelled):
    """Names of the classes, and of each image its classes."""
    own = {image.id: [] for image in labelled.images}
    for image, one in labelled.pairs.tolist():
        own[labelled.images[image].id].append(labelled.texts[one].id)
    return {one.id: dict(one.fields) for one in labelled.texts}, own


def test_a_folder_per_class(tmp_path):
    folders(tmp_path / "set", sea_lion=2, dog=1, none=0)
    (tmp_path / "set" / "dog" / "deep").mkdir()
    (tmp_path / "set" / "dog" / "deep" / "9.jpg").write_bytes(IMAGES["red"])
    (tmp_path / "set" / "loose.png").write_bytes(IMAGES["red"])
    labelled = open_labelled([tmp_path / "set"])
    names, own = shown(labelled)
    assert names == {"dog": {"en": "dog"}, "none": {"en": "none"}, "sea_lion": {"en": "sea lion"}}
    assert own == {"dog/0.png": ["dog"], "dog/deep/9.jpg": ["dog"], "sea_lion/0.png": ["sea_lion"],
                   "sea_lion/1.png": ["sea_lion"]}  # fmt: skip
    assert labelled.entry_report.counts == {"no label": 1} and labelled.entry_report.num_read == 5
    assert labelled.name == "set" and labelled.images[0].read() == IMAGES["red"]
    with pytest.raises(ValueError, match="no splits"):
        open_labelled([tmp_path / "set"], split="test")


def test_the_layout_of_chinese_clip(tmp_path):
    folders(tmp_path / "cifar" / "test", **{"000": 1, "011": 1})
    folders(tmp_path / "cifar" / "train", **{"000": 2})
    (tmp_path / "cifar" / "label_cn.txt").write_text("".join(f"类{number}\n" for number in range(12)), encoding="utf-8")
    for path in (tmp_path / "cifar", tmp_path / "cifar" / "test"):
        names, own = shown(open_labelled([path]))
        assert list(names) == [f"{number:03d}" for number in range(12)] and names["011"] == {"zh": "类11"}
        assert own == {"000/0.png": ["000"], "011/0.png": ["011"]}
    train = open_labelled([tmp_path / "cifar"], default_split="train")
    assert train.name == "cifar-train" and len(train.images) == 2
    with pytest.raises(ValueError, match="no split val"):
        open_labelled([tmp_path / "cifar"], split="val")


def table(folder, kind, rows):
    path = folder / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([{**row, "image": IMAGES[row["image"][:-4]]} for row in rows]), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        lines = [",".join([row["image"], "|".join(row["label"]), row["image_id"]]) for row in rows]
        path.write_text("\n".join(["image,label,image_id", *lines]) + "\n", encoding="utf-8")
    for name, content in IMAGES.items():
        (folder / f"{name}.png").write_bytes(content)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_without_captions_and_with_several_labels(tmp_path, kind):
    rows = [
        {"image": "red.png", "label": ["猫"], "image_id": "1"},
        {"image": "blue.png", "label": ["狗", "猫"], "image_id": "2"},
    ]
    labelled = open_labelled([table(tmp_path, kind, rows)])
    names, own = shown(labelled)
    assert names == {"狗": {"zh": "狗"}, "猫": {"zh": "猫"}} and own == {"1": ["猫"], "2": ["狗", "猫"]}
    assert [image.read() for image in labelled.images] == [IMAGES["red"], IMAGES["blue"]]
    assert not labelled.entry_report.counts


def test_rows_that_cannot_be_used_are_counted_and_named(tmp_path):
    rows = [
        {"image": "red.png", "species": "cat"}, {"image": "blue.png", "species": 7},
        {"image": "green.png"}, {"image": "yellow.png", "species": ""},
        {"image": "red.png", "species": "dog"}, {"image": "../red.png", "species": "cat"},
        {"image": "x.png", "species": [1.5]}, {"species": "cat"}, {"image": "y.png", "species": "fish"},
    ]  # fmt: skip
    (tmp_path / "names.txt").write_text("cat\tCat\n7\tSeven\ndog\tDog\n")
    labelled = open_labelled([table(tmp_path, "jsonl", rows)], {"en": str(tmp_path / "names.txt")}, label="species")
    names, classes = shown(labelled)
    assert names["dog"] == {"en": "Dog"} and classes == {"red.png": ["cat"], "blue.png": ["7"]}
    assert labelled.entry_report.counts == {
        "no label": 2, "repeated image id": 1, "image outside its folder": 1, "malformed row": 1, "no image": 1,
        "unknown label": 1,
    }  # fmt: skip


def test_a_field_of_samples(shapes):
    labelled = open_labelled([shapes["val"]], label="kind")
    names, own = shown(labelled)
    assert set(names) == {"disc", "square", "bar", "cross"} and len(own) == 16
    assert all(kind in name for name, (kind,) in own.items())
    several, _ = shown(open_labelled([shapes["val"]], label="tags_en"))
    assert set(several) == {*names, *COLOURS}


def test_names_in_two_languages(tmp_path):
    folders(tmp_path / "set", cat=1, dog=1)
    (tmp_path / "zh.txt").write_text("猫\n狗\n", encoding="utf-8")
    (tmp_path / "en.txt").write_text("dog\ta dog\ncat\ta cat\n")
    locations = {"zh": str(tmp_path / "zh.txt"), "en": str(tmp_path / "en.txt")}
    names, _ = shown(open_labelled([tmp_path / "set"], locations))
    assert names == {"cat": {"zh": "猫", "en": "a cat"}, "dog": {"zh": "狗", "en": "a dog"}}
    (tmp_path / "en.txt").write_text("dog\ta dog\n")
    with pytest.raises(ValueError, match="class cat"):
        open_labelled([tmp_path / "set"], locations)


@pytest.mark.parametrize(
    ("name", "content", "location", "expected"),
    [
        ("n.txt", "\ufeffa cat \r\n狗\r\n\r\n", "n.txt", ["a cat", "狗"]),
        ("n.txt", "1\t猫\n0\t狗\n", "n.txt", {"1": "猫", "0": "狗"}),
        ("n.json", ["cat", "dog"], "n.json", ["cat", "dog"]),
        ("n.json", {"0": "cat", "1": "dog"}, "n.json", {"0": "cat", "1": "dog"}),
        ("n.json", {"cifar": ["cat", "dog"], "food": ["pie"]}, "n.json@food", ["pie"]),
        ("a@b.txt", "猫\n狗\n", "a@b.txt", ["猫", "狗"]),
    ],
)
def test_names_are_read_from_what_others_have(tmp_path, name, content, location, expected):
    write_files(tmp_path, {name: content})
    assert read_list(str(tmp_path / location)) == expected


@pytest.mark.parametrize(
    ("name", "content", "location", "error"),
    [
        ("n.txt", "猫\n\n狗\n", "n.txt", "entry 2"),
        ("n.txt", "cat\t猫\ncat\t狗\n", "n.txt", "line 2: cat"),
        ("n.json", ["cat", 7], "n.json", "a list of texts"),
        ("n.json", ["cat"], "n.json@x", "it holds none"),
    ],
)
def test_what_names_nothing_is_explained(tmp_path, name, content, location, error):
    path = write_files(tmp_path, {name: content}) / name
    with pytest.raises(ValueError, match=f"{path}.*{error}"):
        read_list(str(tmp_path / location))


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (["dog", "cat"], ["猫", "狗"], {"cat": "猫", "dog": "狗"}),  # in the order of the sorted labels
        (["000", "002"], ["猫", "狗", "鸟"], {"000": "猫", "001": "狗", "002": "鸟"}),  # numbers name their line
        (["2", "10"], list("abcdefghijk"), {str(number): name for number, name in enumerate("abcdefghijk")}),
        (["狗"], ["猫", "狗"], {"猫": "猫", "狗": "狗"}),  # labels that are names
        (["dog"], {"dog": "狗", "cat": "猫"}, {"dog": "狗", "cat": "猫"}),
    ],
)
def test_whose_a_name_is(labels, names, expected):
    assert list(assign_class_names(labels, names, "n.txt").items()) == list(expected.items())


@pytest.mark.parametrize("labels", [["a", "b", "c"], ["1", "2"]])
def test_names_that_do_not_go_up_are_refused(labels):
    with pytest.raises(ValueError, match="n.txt: 2 names"):
        assign_class_names(labels, ["x", "y"], "n.txt")
