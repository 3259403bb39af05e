import json

import pytest

from ernie_vil2.data.readers import open_benchmark, open_benchmarks
from tests.support.published_files import image, pairs
from tests.support.shapes import write_tar


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
        ({"languages": ["fr", "de", "zh"]}, {"fr, de": ["x"], "zh": ["猫", "x"]}),
    ],
)
def test_languages_are_those_of_captions_and_scored_once(tmp_path, asked, expected):
    found = open_benchmarks(bilingual(tmp_path), **asked)
    assert {language: [text.text for text in one.texts] for language, one in found.items()} == expected
    assert all([text.id for text in one.texts] == [text.text for text in one.texts] for one in found.values())


def test_one_benchmark_needs_one_language(tmp_path):
    with pytest.raises(ValueError, match=r"a\.tar: .* zh and en"):
        open_benchmark(bilingual(tmp_path))
    assert len(open_benchmark(bilingual(tmp_path), "zh").texts) == 2


LINES = {"json": ["0", "0#1", "0#2", "1"], "txt": ["a cat", "a kitten", "a dog"]}


@pytest.mark.parametrize("suffix", LINES)
def test_lines_of_a_caption_are_texts_where_it_is_asked_for(tmp_path, suffix):
    captions = ["a cat\na kitten \n\n a cat\n", "a dog"]
    members = []
    for number, caption in enumerate(captions):
        content = json.dumps({"caption": caption, "text_id": number}) if suffix == "json" else caption
        members += [(f"{number}.png", image(number)), (f"{number}.{suffix}", content.encode())]
    path = write_tar(tmp_path / "a.tar", members)
    whole = open_benchmark(path)
    assert [text.text for text in whole.texts] == [captions[0].strip(), "a dog"] and "several lines" in str(whole.rows)
    lines = open_benchmark(path, caption_lines=True)
    assert [text.id for text in lines.texts] == LINES[suffix] and "several lines" not in str(lines.rows)
