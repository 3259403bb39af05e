import json

import pytest

from ernie_vil2.data.readers import open_benchmark, open_benchmarks
from tests.support.published_files import image, pairs, problems
from tests.support.shapes import write_tar, write_tsv


def test_bad_samples_are_named(tmp_path):
    rows = [("猫", "7", image(1)), ("狗", "7", image(2)), ("", "9", image(3))]
    path = write_tsv(tmp_path / "rows.tsv", rows)
    path.write_text(path.read_text() + "a\tb\n")
    benchmark = open_benchmark(path)
    assert problems(benchmark) == {"empty caption": ["9"], "malformed base64": ["rows.tsv:4"]}
    assert len(pairs(benchmark)) == 2 and benchmark.rows.read == 4


def test_different_images_of_one_name_are_kept_and_reported(tmp_path):
    """Keys begin again in each shard; in b.tar 1 is another image and 0 is the same one with another caption."""
    shards = {"a": [(1, "cat"), (2, "dog"), (2, "a dog")], "b": [(1, "a cat"), (3, "bird"), (2, "the dog")]}
    for name, rows in shards.items():
        members = [(f"{key}.{end}", content) for key, (number, words) in enumerate(rows)
                   for end, content in (("png", image(number)), ("txt", words.encode()))]  # fmt: skip
        write_tar(tmp_path / f"{name}.tar", members)
    benchmark = open_benchmark(tmp_path)
    other = f"1 ({tmp_path}/b.tar, 2)"
    assert pairs(benchmark) == [("0", "cat"), ("1", "dog"), ("2", "a dog"), ("0", "a cat"), (other, "bird"),
                                ("2", "the dog")]  # fmt: skip
    assert [one.read() for one in benchmark.images] == [image(1), image(2), image(2), image(3)]
    assert not benchmark.rows.counts and "name of an earlier, different image: 1 (1)" in str(benchmark.rows)


def bilingual(tmp_path):
    rows = [{"caption_zh": "猫", "caption_en": "a cat"}, {"caption_zh": "猫", "caption_en": "cat"}, {"caption": "x"}]
    members = [(f"{n}.{end}", content) for n, row in enumerate(rows)
               for end, content in (("png", image(n)), ("json", json.dumps(row).encode()))]  # fmt: skip
    return write_tar(tmp_path / "a.tar", members)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, {"zh": ["猫", "x"], "en": ["a cat", "cat", "x"], "": ["x"]}),
        ({"preferred": ["en", "zh", "fr"]}, {"en": ["a cat", "cat", "x"], "zh": ["猫", "x"]}),
        ({"preferred": ["fr"]}, {"zh": ["猫", "x"], "en": ["a cat", "cat", "x"], "": ["x"]}),
        ({"languages": ["en"]}, {"en": ["a cat", "cat", "x"]}),
        ({"languages": ["fr", "de", "zh"]}, {"fr, de": ["x"], "zh": ["猫", "x"]}),
    ],
)
def test_languages_are_those_of_captions_and_scored_once(tmp_path, asked, expected):
    found = open_benchmarks(bilingual(tmp_path), **asked)
    assert {language: [text.text for text in one.texts] for language, one in found.items()} == expected
    assert all([text.id for text in one.texts] == [text.text for text in one.texts] for one in found.values())


def test_one_benchmark_needs_one_language(tmp_path):
    with pytest.raises(ValueError, match="a.tar: there are captions in zh and en"):
        open_benchmark(bilingual(tmp_path))
    assert len(open_benchmark(bilingual(tmp_path), "zh").texts) == 2


@pytest.mark.parametrize("as_json", [False, True])
def test_lines_of_a_caption_are_texts_where_it_is_asked_for(tmp_path, as_json):
    captions = ["a cat\na kitten \n\n a cat\n", "a dog"]
    members = []
    for number, caption in enumerate(captions):
        content = json.dumps({"caption": caption, "text_id": number}) if as_json else caption
        members += [(f"{number}.png", image(number)), (f"{number}.{'json' if as_json else 'txt'}", content.encode())]
    path = write_tar(tmp_path / "a.tar", members)
    one_each = open_benchmark(path)
    assert [text.text for text in one_each.texts] == [captions[0].strip(), "a dog"]
    assert "several lines" in str(one_each.rows)
    lines = open_benchmark(path, caption_lines=True)
    assert "several lines" not in str(lines.rows)
    if as_json:
        assert pairs(lines) == [("0", "0"), ("0", "0#1"), ("0", "0#2"), ("1", "1")]
    else:
        assert pairs(lines) == [("0", "a cat"), ("0", "a kitten"), ("1", "a dog")]


def test_lists_folders_and_patterns_of_files(tmp_path):
    paths = [write_tsv(tmp_path / f"{name}.tsv", [(name, name, image(n))]) for n, name in enumerate(["b", "a[1]", "c"])]
    assert [one.id for one in open_benchmark(paths).images] == ["b", "a[1]", "c"]
    for position in (tmp_path, str(tmp_path / "*.tsv"), [tmp_path]):
        assert [one.id for one in open_benchmark(position).images] == ["a[1]", "b", "c"]


def test_a_sample_without_the_language_is_not_used(tmp_path):
    members = [("1.png", image(1)), ("1.json", b'{"caption_en": "cat"}')]
    with pytest.raises(ValueError, match="no caption in zh"):
        open_benchmark(write_tar(tmp_path / "a.tar", members), language="zh")
