import json

import pytest

from ernie_vil2.data.sources import TarSource, open_benchmark, open_sources
from tests.conftest import write_tar, write_tsv
from tests.data.sources.published.conftest import image, pairs, problems


def expected(source, language):
    """Image names, text names and pairs of the samples with a caption, each once, in order."""
    samples = [source[row] for row in range(len(source))]
    return (
        list(dict.fromkeys(sample.image_name for sample in samples)),
        list(dict.fromkeys(sample.text_name for sample in samples)),
        list(dict.fromkeys((sample.image_name, sample.text_name) for sample in samples)),
        list(dict.fromkeys(sample.caption(language) for sample in samples)),
    )


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_shard_has_the_ids_of_its_samples(shapes, language):
    benchmark = open_benchmark(shapes["val"], language=language, text_id="id")
    images, texts, matches, captions = expected(open_sources([str(shapes["val"])], "id"), language)
    assert [one.id for one in benchmark.images] == images and [one.id for one in benchmark.texts] == texts
    assert pairs(benchmark) == matches and [one.text for one in benchmark.texts] == captions
    source = TarSource(shapes["val"])
    assert [one.read() for one in benchmark.images] == [source[row].image for row in range(len(source))]
    assert benchmark.images[0].fields["kind"] == benchmark.texts[0].fields["kind"] == "disc"
    assert benchmark.files == (shapes["val"],) and benchmark.name == "val"


def test_rows_of_the_official_tsv_share_images_and_texts(tmp_path):
    rows = [
        ("猫", "7", image(1)),
        ("狗", "8", image(2)),
        ("小猫", "7", image(1)),
        ("猫", "8", image(2)),
        ("猫", "7", image(1)),
    ]
    benchmark = open_benchmark(write_tsv(tmp_path / "rows.tsv", rows))
    assert pairs(benchmark) == [("7", "猫"), ("8", "狗"), ("7", "小猫"), ("8", "猫")]
    assert [one.read() for one in benchmark.images] == [image(1), image(2)]


def test_bad_samples_are_named(tmp_path):
    rows = [("猫", "7", image(1)), ("狗", "7", image(2)), ("", "9", image(3))]
    path = write_tsv(tmp_path / "rows.tsv", rows)
    path.write_text(path.read_text() + "a\tb\n")
    benchmark = open_benchmark(path)
    assert problems(benchmark) == {
        "image id with different content": ["7"],
        "empty caption": ["9"],
        "malformed row": ["rows.tsv:4"],
    }
    assert pairs(benchmark) == [("7", "猫")] and benchmark.rows.read == 4


def test_a_text_name_with_another_text_is_bad(tmp_path):
    members = [
        (f"{n}.{kind}", content)
        for n, words in enumerate(["cat", "dog"])
        for kind, content in (("png", image(n)), ("json", json.dumps({"id": 1, "caption": words}).encode()))
    ]
    benchmark = open_benchmark(write_tar(tmp_path / "a.tar", members), text_id="id")
    assert problems(benchmark) == {"text id with different content": ["1"]} and len(benchmark.images) == 1


def test_lists_folders_and_patterns_of_files(tmp_path):
    paths = [write_tsv(tmp_path / f"{name}.tsv", [(name, name, image(n))]) for n, name in enumerate(["b", "a[1]", "c"])]
    assert [one.id for one in open_benchmark(paths).images] == ["b", "a[1]", "c"]
    for place in (tmp_path, str(tmp_path / "*.tsv"), [tmp_path]):
        assert [one.id for one in open_benchmark(place).images] == ["a[1]", "b", "c"]


def test_a_sample_without_the_language_is_not_used(tmp_path):
    members = [("1.png", image(1)), ("1.json", b'{"caption_en": "cat"}')]
    with pytest.raises(ValueError, match=r"a.tar: no image could be used\n.*\n  empty caption: 1 \(1\)"):
        open_benchmark(write_tar(tmp_path / "a.tar", members), language="zh")
