"""Labelled images: classes from folders, tables and fields of samples, and the names of classes."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie_vil2.data.readers.labelled import assign_class_names, open_labelled, read_list
from tests.support.published_files import write_files
from tests.support.shapes import COLOURS, draw, encode_png

IMAGES = {name: encode_png(draw(rgb, "disc", np.random.default_rng(0))) for name, (rgb, _) in COLOURS.items()}


def write_class_folders(root, **image_counts):
    """Write a folder for each class with so many images."""
    for name, count in image_counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}.png").write_bytes(IMAGES["red"])
    return root


def read_classes(labelled):
    """Return the names of each class by language, and the classes of each image."""
    classes_of_images = {image.id: [] for image in labelled.images}
    for image_index, class_index in labelled.pairs.tolist():
        classes_of_images[labelled.images[image_index].id].append(labelled.texts[class_index].id)
    return {text.id: dict(text.fields) for text in labelled.texts}, classes_of_images


def test_folders_are_classes(tmp_path):
    write_class_folders(tmp_path / "set", sea_lion=2, dog=1, none=0)
    (tmp_path / "set" / "dog" / "deep").mkdir()
    (tmp_path / "set" / "dog" / "deep" / "9.jpg").write_bytes(IMAGES["red"])
    (tmp_path / "set" / "loose.png").write_bytes(IMAGES["red"])
    labelled = open_labelled([tmp_path / "set"])
    names, classes = read_classes(labelled)
    assert names == {"dog": {"en": "dog"}, "none": {"en": "none"}, "sea_lion": {"en": "sea lion"}}
    assert classes == {
        "dog/0.png": ["dog"],
        "dog/deep/9.jpg": ["dog"],
        "sea_lion/0.png": ["sea_lion"],
        "sea_lion/1.png": ["sea_lion"],
    }
    assert labelled.entry_report.counts == {"no label": 1} and labelled.entry_report.num_read == 5
    assert labelled.name == "set" and labelled.images[0].read() == IMAGES["red"]
    with pytest.raises(ValueError, match="no splits"):
        open_labelled([tmp_path / "set"], split="test")


def test_folders_and_files_need_not_be_named_in_utf8(tmp_path):
    file, folder = os.fsdecode(b"caf\xe9.png"), os.fsdecode("汽车".encode("gbk"))
    write_class_folders(tmp_path / "set", dog=1, 汽车=1, **{folder: 2})
    (tmp_path / "set" / "dog" / file).write_bytes(IMAGES["green"])
    labelled = open_labelled([tmp_path / "set"])
    assert read_classes(labelled) == (
        {"dog": {"zh": "dog"}, "汽车": {"zh": "汽车"}},
        {"dog/0.png": ["dog"], "dog/caf\\xe9.png": ["dog"], "汽车/0.png": ["汽车"], "汽车/1.png": ["汽车"]},
    )
    assert labelled.images[1].read() == IMAGES["green"]
    assert labelled.entry_report.names == {"repeated image id": ["汽车/0.png"]}


def test_layout_of_chinese_clip_has_numbered_classes_and_splits(tmp_path):
    write_class_folders(tmp_path / "cifar" / "test", **{"000": 1, "011": 1})
    write_class_folders(tmp_path / "cifar" / "train", **{"000": 2})
    (tmp_path / "cifar" / "label_cn.txt").write_text("".join(f"类{number}\n" for number in range(12)), encoding="utf-8")
    for path in (tmp_path / "cifar", tmp_path / "cifar" / "test"):
        names, classes = read_classes(open_labelled([path]))
        assert list(names) == [f"{number:03d}" for number in range(12)] and names["011"] == {"zh": "类11"}
        assert classes == {"000/0.png": ["000"], "011/0.png": ["011"]}
    train = open_labelled([tmp_path / "cifar"], default_split="train")
    assert train.name == "cifar-train" and len(train.images) == 2
    with pytest.raises(ValueError, match="no split val"):
        open_labelled([tmp_path / "cifar"], split="val")


def write_table(folder, kind, rows):
    path = folder / f"a.{kind}"
    if kind == "parquet":
        rows = [{**row, "image": IMAGES[row["image"].removesuffix(".png")]} for row in rows]
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        lines = [",".join([row["image"], "|".join(row["label"]), row["image_id"]]) for row in rows]
        path.write_text("\n".join(["image,label,image_id", *lines]) + "\n", encoding="utf-8")
    for name, content in IMAGES.items():
        (folder / f"{name}.png").write_bytes(content)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_rows_of_tables_may_have_several_labels(tmp_path, kind):
    rows = [
        {"image": "red.png", "label": ["猫"], "image_id": "1"},
        {"image": "blue.png", "label": ["狗", "猫"], "image_id": "2"},
    ]
    labelled = open_labelled([write_table(tmp_path, kind, rows)])
    names, classes = read_classes(labelled)
    assert names == {"狗": {"zh": "狗"}, "猫": {"zh": "猫"}} and classes == {"1": ["猫"], "2": ["狗", "猫"]}
    assert [image.read() for image in labelled.images] == [IMAGES["red"], IMAGES["blue"]]
    assert not labelled.entry_report.counts


def test_spaces_around_the_image_file_of_a_row_are_ignored(tmp_path):
    write_files(tmp_path, {f"{name}.png": content for name, content in IMAGES.items()})
    (tmp_path / "a.csv").write_text("image,label\nred.png ,cat\nblue.png ,dog\n")
    labelled = open_labelled(tmp_path / "a.csv")
    assert [image.read() for image in labelled.images] == [IMAGES["red"], IMAGES["blue"]]


def test_different_images_of_one_name_in_parquet_are_all_scored(tmp_path):
    # Hugging Face keeps only the last component of `cat/1.png` and `dog/1.png`.
    labels = {"red": "cat", "blue": "dog", "green": "dog"}
    for number, colours in enumerate((["red", "blue"], ["green", "red"])):
        rows = [{"image": {"path": "1.png", "bytes": IMAGES[name]}, "label": labels[name]} for name in colours]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{number}.parquet")

    labelled = open_labelled(tmp_path / "*.parquet")

    _, classes = read_classes(labelled)
    second, third = f"1.png ({tmp_path}/0.parquet, 2)", f"1.png ({tmp_path}/1.parquet, 1)"
    assert classes == {"1.png": ["cat"], second: ["dog"], third: ["dog"]}
    assert [image.read() for image in labelled.images] == [IMAGES[name] for name in labels]
    assert labelled.entry_report.counts == {"repeated image id": 1}  # the same image again


def test_bad_rows_are_counted_by_reason(tmp_path):
    rows = [
        {"image": "red.png", "species": "cat"}, {"image": "blue.png", "species": 7},
        {"image": "green.png"}, {"image": "yellow.png", "species": ""},
        {"image": "red.png", "species": "dog"}, {"image": "../red.png", "species": "cat"},
        {"image": "x.png", "species": [1.5]}, {"species": "cat"}, {"image": "y.png", "species": "fish"},
    ]  # fmt: skip
    (tmp_path / "names.txt").write_text("cat\tCat\n7\tSeven\ndog\tDog\n")
    labelled = open_labelled(
        [write_table(tmp_path, "jsonl", rows)], {"en": str(tmp_path / "names.txt")}, label="species"
    )
    names, classes = read_classes(labelled)
    assert names["dog"] == {"en": "Dog"} and classes == {"red.png": ["cat"], "blue.png": ["7"]}
    assert labelled.entry_report.counts == {
        "no label": 2, "repeated image id": 1, "image outside its folder": 1, "malformed row": 1, "no image": 1,
        "unknown label": 1,
    }  # fmt: skip


def test_error_says_why_no_image_can_be_used(tmp_path):
    table = write_table(tmp_path, "jsonl", [{"image": "red.png", "label": True}, {"image": "blue.png", "label": False}])
    with pytest.raises(ValueError, match=f"{table}: no label .*\n.*\n.*malformed row: 2"):
        open_labelled([table])
    (tmp_path / "names.txt").write_text("bird\tBird\nfish\tFish\n")
    with pytest.raises(ValueError, match="^set: no image .*\n.*\n.*unknown label: 2"):
        open_labelled(write_class_folders(tmp_path / "set", cat=1, dog=1), {"en": str(tmp_path / "names.txt")})


@pytest.mark.parametrize("label", ["标题", "标题 ", "caption_zh"])
def test_label_is_found_by_its_header_or_its_name(tmp_path, label):
    write_files(tmp_path, {f"{name}.png": content for name, content in IMAGES.items()})
    (tmp_path / "a.csv").write_text("image,标题\nred.png,猫\nblue.png,狗\n", encoding="utf-8")
    expected = {"red.png": ["猫"], "blue.png": ["狗"]}

    _, classes_of_table = read_classes(open_labelled(tmp_path / "a.csv", label=label))
    _, classes_of_samples = read_classes(open_labelled(tmp_path, label=label))

    assert classes_of_table == classes_of_samples == expected


def test_layout_says_that_folders_are_no_classes(tmp_path):
    for name, folder in (("red", "00000"), ("blue", "00000"), ("green", "00001")):
        description = json.dumps({"kind": "warm" if name == "red" else "cold"}).encode()
        write_files(tmp_path / folder, {f"{name}.png": IMAGES[name], f"{name}.txt": b"x", f"{name}.json": description})
    assert read_classes(open_labelled(tmp_path))[1]["00000/red.png"] == ["00000"]
    classes = read_classes(open_labelled(tmp_path, layout="files", label="kind"))[1]
    assert classes == {"red": ["warm"], "blue": ["cold"], "green": ["cold"]}


def test_folder_of_a_split_is_named_if_there_are_two(tmp_path):
    write_class_folders(tmp_path / "set" / "val", cat=1, dog=1)
    write_class_folders(tmp_path / "set" / "valid", cat=2, dog=2)
    for split, num_images in (("val", 2), ("valid", 4)):
        assert len(open_labelled(tmp_path / "set", split=split).images) == num_images
    for split in (None, "validation"):
        with pytest.raises(ValueError, match="val, valid"):
            open_labelled(tmp_path / "set", split=split)


def test_tables_may_be_named_by_a_pattern(tmp_path):
    write_files(tmp_path, {f"{name}.png": content for name, content in IMAGES.items()})
    (tmp_path / "a1.csv").write_text("image,label\nred.png,cat\n")
    (tmp_path / "a2.csv").write_text("image,label\nblue.png,dog\n")
    for pattern in ("a*.csv", "a{1..2}.csv"):
        labelled = open_labelled(tmp_path / pattern)
        assert read_classes(labelled)[1] == {"red.png": ["cat"], "blue.png": ["dog"]}
        assert labelled.files == (tmp_path / "a1.csv", tmp_path / "a2.csv")
    with pytest.raises(ValueError, match=r"https://x\.org/a\.csv"):
        open_labelled("https://x.org/a.csv")


def test_whole_numbers_are_labels_as_integers_are(tmp_path):
    labels = [float(number) for number in range(11)]
    table = pa.table({"image": [b"%d" % number for number in range(13)], "label": [*labels, 0.5, float("nan")]})
    pq.write_table(table, tmp_path / "a.parquet")
    names = [f"name {number}" for number in range(11)]
    (tmp_path / "names.txt").write_text("\n".join(names))

    labelled = open_labelled([tmp_path / "a.parquet"])
    assert {text.id for text in labelled.texts} == {*map(str, range(11)), "0.5"}
    assert labelled.entry_report.counts == {"no label": 1}

    pq.write_table(table.slice(0, 11), tmp_path / "a.parquet")
    labelled = open_labelled([tmp_path / "a.parquet"], {"en": str(tmp_path / "names.txt")})
    assert {text.id: text.text for text in labelled.texts} == {str(number): names[number] for number in range(11)}


def test_classes_are_values_of_a_field_of_samples(shapes):
    labelled = open_labelled([shapes["val"]], label="kind")
    names, classes = read_classes(labelled)
    assert set(names) == {"disc", "square", "bar", "cross"} and len(classes) == 16
    assert all(kind in name for name, (kind,) in classes.items())
    names_of_tags, _ = read_classes(open_labelled([shapes["val"]], label="tags_en"))
    assert set(names_of_tags) == {*names, *COLOURS}


def test_names_are_read_in_two_languages(tmp_path):
    write_class_folders(tmp_path / "set", cat=1, dog=1)
    (tmp_path / "zh.txt").write_text("猫\n狗\n", encoding="utf-8")
    (tmp_path / "en.txt").write_text("dog\ta dog\ncat\ta cat\n")
    locations = {"zh": str(tmp_path / "zh.txt"), "en": str(tmp_path / "en.txt")}
    names, _ = read_classes(open_labelled([tmp_path / "set"], locations))
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
        ("n.JSON", {"0": "cat", "1": "dog"}, "n.JSON", {"0": "cat", "1": "dog"}),
        ("n.json", {"cifar": ["cat", "dog"], "food": ["pie"]}, "n.json@food", ["pie"]),
        ("a@b.txt", "猫\n狗\n", "a@b.txt", ["猫", "狗"]),
    ],
)
def test_names_are_read_from_lists_of_many_formats(tmp_path, name, content, location, expected):
    write_files(tmp_path, {name: content})
    assert read_list(str(tmp_path / location)) == expected


@pytest.mark.parametrize(
    ("name", "content", "location", "error"),
    [
        ("n.txt", "猫\n\n狗\n", "n.txt", "entry 2"),
        ("n.txt", "cat\t猫\ncat\t狗\n", "n.txt", "line 2: cat"),
        ("n.json", ["cat", 7], "n.json", "a list of texts"),
        ("n.txt", "cat\t猫\ndog 狗\n", "n.txt", "line 2: there is no tab"),
        ("n.txt", "cat\t猫\ndog\t\n", "n.txt", "class dog has no name"),
        ("n.txt", "猫\n狗\n", "n.txt@food", "leave out @food"),
        ("n.json", ["cat"], "n.json@x", "it holds none"),
    ],
)
def test_error_names_the_bad_entry_of_a_list_of_names(tmp_path, name, content, location, error):
    path = write_files(tmp_path, {name: content}) / name
    with pytest.raises(ValueError, match=f"{path}.*{error}"):
        read_list(str(tmp_path / location))


def test_error_names_a_missing_list_in_a_folder_with_the_mark(tmp_path):
    path = tmp_path / "user@host" / "names.txt"
    with pytest.raises(FileNotFoundError, match=str(path)):
        read_list(str(path))


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
def test_names_are_assigned_to_labels(labels, names, expected):
    assert list(assign_class_names(labels, names, "n.txt").items()) == list(expected.items())


@pytest.mark.parametrize("labels", [["a", "b", "c"], ["1", "2"]])
def test_names_that_do_not_fit_the_labels_are_refused(labels):
    with pytest.raises(ValueError, match="n.txt: 2 names"):
        assign_class_names(labels, ["x", "y"], "n.txt")
