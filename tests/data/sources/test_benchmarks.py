"""Benchmarks from users' own data: ids, languages, lines of captions, bad rows, and which file is opened."""

import json
import os
import re

import pytest

from ernie_vil2.data.benchmark import read_unpaired
from ernie_vil2.data.readers import LAYOUTS, open_benchmark, open_benchmarks
from tests.support.published_files import json_lines, list_pairs, list_problems, make_image, write_files
from tests.support.shapes import write_tar, write_tsv


def test_different_images_with_equal_names_are_both_scored(tmp_path):
    # Keys begin again in each shard; in b.tar 1 is another image and 0 is the same one with another caption.
    shards = {"a": [(1, "cat"), (2, "dog"), (2, "a dog")], "b": [(1, "a cat"), (3, "bird"), (2, "the dog")]}
    for name, rows in shards.items():
        members = []
        for key, (number, caption) in enumerate(rows):
            members += [(f"{key}.png", make_image(number)), (f"{key}.txt", caption.encode())]
        write_tar(tmp_path / f"{name}.tar", members)
    benchmark = open_benchmark(tmp_path)
    second_1 = f"1 ({tmp_path}/b.tar, 2)"
    assert list_pairs(benchmark) == [
        ("0", "cat"), ("1", "dog"), ("2", "a dog"), ("0", "a cat"), (second_1, "bird"), ("2", "the dog"),
    ]  # fmt: skip
    assert [image.read() for image in benchmark.images] == [make_image(number) for number in (1, 2, 2, 3)]
    assert not benchmark.entry_report.counts
    assert "name of an earlier, different image: 1 (1)" in str(benchmark.entry_report)


def write_bilingual_shard(tmp_path):
    rows = [{"caption_zh": "猫", "caption_en": "a cat"}, {"caption_zh": "猫", "caption_en": "cat"}, {"caption": "x"}]
    members = []
    for number, row in enumerate(rows):
        members += [(f"{number}.png", make_image(number)), (f"{number}.json", json.dumps(row).encode())]
    return write_tar(tmp_path / "a.tar", members)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"zh": ["猫", "x"], "en": ["a cat", "cat", "x"], "": ["x"]}),
        ({"preferred_languages": ["en", "zh", "fr"]}, {"en": ["a cat", "cat", "x"], "zh": ["猫", "x"]}),
        ({"languages": ["fr", "de", "zh"]}, {"fr, de": ["x"], "zh": ["猫", "x"]}),
    ],
)
def test_benchmarks_are_in_the_languages_of_captions(tmp_path, options, expected):
    benchmarks = open_benchmarks(write_bilingual_shard(tmp_path), **options)
    texts = {language: [text.text for text in benchmark.texts] for language, benchmark in benchmarks.items()}
    ids = {language: [text.id for text in benchmark.texts] for language, benchmark in benchmarks.items()}
    assert texts == ids == expected  # texts without ids are identified by their words


def test_error_names_the_languages_of_two_benchmarks(tmp_path):
    with pytest.raises(ValueError, match=r"a\.tar: .* zh and en"):
        open_benchmark(write_bilingual_shard(tmp_path))
    assert len(open_benchmark(write_bilingual_shard(tmp_path), "zh").texts) == 2


# Ids of the lines: with ids of texts also the equal third line is a text of its own.
IDS_OF_LINES = {"json": ["0", "0#1", "0#2", "1"], "txt": ["a cat", "a kitten", "a dog"]}


@pytest.mark.parametrize("suffix", IDS_OF_LINES)
def test_caption_lines_split_captions_into_texts(tmp_path, suffix):
    captions = ["a cat\na kitten \n\n a cat\n", "a dog"]
    members = []
    for number, caption in enumerate(captions):
        content = json.dumps({"caption": caption, "text_id": number}) if suffix == "json" else caption
        members += [(f"{number}.png", make_image(number)), (f"{number}.{suffix}", content.encode())]
    path = write_tar(tmp_path / "a.tar", members)
    benchmark = open_benchmark(path)
    assert [text.text for text in benchmark.texts] == [captions[0].strip(), "a dog"]
    assert "several lines" in str(benchmark.entry_report)
    benchmark = open_benchmark(path, caption_lines=True)
    assert [text.id for text in benchmark.texts] == IDS_OF_LINES[suffix]
    assert "several lines" not in str(benchmark.entry_report)


IMAGES = {"images/a.png": make_image(1), "images/sub/b.png": make_image(2)}


def test_bad_rows_of_a_table_are_named(tmp_path):
    table = json_lines(
        {"image": "a.png", "text": "cat", "image_id": 1, "text_id": 1},
        {"image": "sub/b.png", "text": "dog", "image_id": 1, "text_id": 2},
        {"image": "sub/b.png", "text": "dog", "image_id": 2, "text_id": 1},
        {"image": "sub/b.png", "text": "", "image_id": 3},
        {"image": "a.png"},
        {"image": "a.png", "text": ["cat"]},
        {"image": "a.png", "text": "cat", "image_id": [1]},
        {"image": "\ud800", "text": "cat"},
        {"image": "a.png", "text": "cat", "text_id": []},
    ).replace("\ud800", "\\ud800")
    benchmark = open_benchmark(write_files(tmp_path, IMAGES | {"test.jsonl": table}))
    assert list_problems(benchmark) == {
        "text id with different content": ["1"],
        "empty caption": ["3"],
        "no caption": ["test.jsonl:5"],
        "malformed caption": ["test.jsonl:6"],
        "malformed row": ["test.jsonl:7", "a.png, text_id"],
        "not Unicode text": ["\\ud800"],
    }
    # Neither the image nor the text of a bad row is scored.
    assert list_pairs(benchmark) == [("1", "1"), (f"1 ({tmp_path}/test.jsonl, 2)", "2")]
    assert len(benchmark.images) == len(benchmark.texts) == 2


def test_table_is_opened_by_split_or_file(tmp_path):
    table = "image,text\na.png,cat\n"
    write_files(tmp_path, IMAGES | {"one.csv": table, "two.csv": table, "notes.csv": "a,b\n1,2\n"})
    with pytest.raises(ValueError, match=r"\(one, two\)"):
        open_benchmark(tmp_path)
    assert open_benchmark(tmp_path, split="two").files == (tmp_path / "two.csv",)
    assert open_benchmark(tmp_path / "one.csv").files == (tmp_path / "one.csv",)
    write_files(tmp_path, {"val.csv": table})
    assert open_benchmark(tmp_path).files == (tmp_path / "val.csv",)


def test_error_on_an_unknown_folder_lists_known_layouts(tmp_path):
    write_files(tmp_path, {"notes.txt": "", "photos/1.jpg": make_image(1)})
    with pytest.raises(ValueError, match="notes.txt, photos; ") as error:
        open_benchmark(tmp_path)
    listed_names = re.search(r"known layouts: (.*) \(docs", str(error.value))[1].split(", ")
    assert sorted(listed_names) == sorted(layout.name for layout in LAYOUTS.load_all() if layout.is_detectable)


@pytest.mark.parametrize(
    ("name", "options", "culprit"),
    [
        ("", {"layout": "coco-cn"}, "coco-cn is recognised by"),
        ("", {"layout": "coco"}, "no layout 'coco'"),
        ("a.tsv", {"split": "test"}, "no splits"),
        ("a.tsv", {"images": "photos"}, "leave out images"),
        ("x.zip", {}, "x.zip"),
        ("nowhere/*.tsv", {"layout": "tsv"}, "nowhere"),
    ],
)
def test_error_names_the_option_that_does_not_fit_the_files(tmp_path, name, options, culprit):
    write_tsv(tmp_path / "a.tsv", [("a", "1", make_image(1))])
    (tmp_path / "x.zip").touch()
    with pytest.raises((ValueError, FileNotFoundError), match=culprit):
        open_benchmark(tmp_path / name, **options)


def test_folder_with_two_copies_of_a_data_set_is_refused(tmp_path):
    rows = '{"images": []}'
    write_files(tmp_path, {"a/dataset_coco.json": rows, "b/dataset_coco.json": rows})
    with pytest.raises(ValueError, match="dataset_coco.json"):
        open_benchmark(tmp_path)


def test_table_next_to_a_benchmark_is_ignored(tmp_path):
    images = [{"filename": "1.jpg", "split": "test", "imgid": 0, "sentences": [{"raw": "cat", "sentid": 0}]}]
    files = {
        "dataset_flickr30k.json": {"images": images},
        "results.csv": "image,text\n1.jpg,cat\n",
        "1.jpg": make_image(1),
    }
    assert open_benchmark(write_files(tmp_path, files)).name == "flickr30k-test"


def test_images_of_a_folder_have_ids_that_can_be_written(tmp_path):
    name = "商品.png".encode("gbk")  # as an archive from Windows holds it
    write_files(tmp_path, {"a/1.png": make_image(1), os.fsdecode(name): make_image(2)})
    images = read_unpaired(tmp_path, None).images
    assert {image.id: image.read() for image in images} == {"商品.png": make_image(2), "a/1.png": make_image(1)}


def test_name_in_two_encodings_is_one_image(tmp_path):
    name = "商品.png"
    write_files(tmp_path, {name: make_image(1), os.fsdecode(name.encode("gbk")): make_image(2), "b.png": make_image(3)})
    benchmark = read_unpaired(tmp_path, None)
    assert sorted(image.id for image in benchmark.images) == ["b.png", name]
    assert benchmark.entry_report.counts == {"repeated image id": 1} and benchmark.entry_report.num_read == 3


def test_hidden_files_and_folders_are_no_images(tmp_path):
    write_files(tmp_path, {"b/1.PNG": b"", "b/._1.PNG": b"", ".cache/2.png": b"", "3.jpeg": b"", "4.txt": b""})
    assert [image.id for image in read_unpaired(tmp_path, None).images] == ["3.jpeg", "b/1.PNG"]


def test_lines_without_a_visible_character_are_no_texts(tmp_path):
    (tmp_path / "a.txt").write_text("a cat\n \n\u3000\n\u200b\n dog\n", encoding="utf-8")
    benchmark = read_unpaired(None, tmp_path / "a.txt")
    assert [(text.id, text.text) for text in benchmark.texts] == [("1", "a cat"), ("5", "dog")]
    assert benchmark.entry_report.counts == {"empty text": 2}
