import pytest

from ernie_vil2.data.readers import open_benchmark
from tests.data.sources.published.conftest import image, pairs, problems, write

FOLDER = "ai_challenger_caption_validation_20170910"
ANNOTATIONS = f"{FOLDER}/caption_validation_annotations_20170910.json"
IMAGES = f"{FOLDER}/caption_validation_images_20170910"


def row(name, *captions):
    return {"url": f"http://img/{name}", "image_id": name, "caption": list(captions)}


FILES = {
    ANNOTATIONS: [row("b.jpg", "一", "二", "三", "四", "五"), row("a.jpg", "六", "七", "八", "九", "十")],
    f"{IMAGES}/a.jpg": image(1),
    f"{IMAGES}/b.jpg": image(2),
    "ai_challenger_caption_train_20170902/caption_train_annotations_20170902.json": [row("c.jpg", "天")],
    "ai_challenger_caption_train_20170902/caption_train_images_20170902/c.jpg": image(3),
}


@pytest.mark.parametrize("location", ["", FOLDER, ANNOTATIONS])
def test_validation_in_the_order_of_the_file(tmp_path, location):
    write(tmp_path, FILES)
    benchmark = open_benchmark(tmp_path / location)
    assert benchmark.name == "aic-icc-val"
    assert [one.id for one in benchmark.images] == ["b.jpg", "a.jpg"]
    assert [one.text for one in benchmark.texts] == list("一二三四五六七八九十")
    assert pairs(benchmark) == [(name, f"{name}#{n}") for name in ("b.jpg", "a.jpg") for n in range(5)]
    assert [one.read() for one in benchmark.images] == [image(2), image(1)]


def test_train_has_the_same_form(tmp_path):
    benchmark = open_benchmark(write(tmp_path, FILES), split="train")
    assert [one.read() for one in benchmark.images] == [image(3)]


def test_bad_rows_are_named(tmp_path):
    rows = [
        row("b.jpg", "一", " "),
        row("b.jpg", "一"),
        row("../a.jpg", "一"),
        row("/etc/passwd", "一"),
        {"image_id": "a.jpg", "caption": "一"},
        {"image_id": "a.jpg", "caption": [1]},
        {"caption": []},
        7,
    ]
    benchmark = open_benchmark(write(tmp_path, FILES | {ANNOTATIONS: rows}))
    file = "caption_validation_annotations_20170910.json"
    assert problems(benchmark) == {
        "empty text": ["b.jpg#1"],
        "repeated image id": ["b.jpg"],
        "image outside its folder": ["../a.jpg", "/etc/passwd"],
        "malformed row": [f"{file}, entry {number}" for number in (4, 5, 6, 7)],
    }
    assert pairs(benchmark) == [("b.jpg", "b.jpg#0")]


@pytest.mark.parametrize(
    ("content", "error"), [("[", "not a JSON file"), ("{}", "the top level is a dict"), ("[]", "no image")]
)
def test_a_file_that_is_not_the_list_is_named(tmp_path, content, error):
    with pytest.raises(ValueError, match=f"caption_validation_annotations_20170910.json.*{error}"):
        open_benchmark(write(tmp_path, FILES | {ANNOTATIONS: content}))
