import pytest

from ernie_vil2.data.readers import open_benchmark
from tests.support.published_files import image, json_lines, pairs, problems, write

IMAGES = {"images/a.png": image(1), "images/sub/b.png": image(2)}


@pytest.mark.parametrize(("image_key", "text_key"), [("image_path", "caption"), ("file_name", "text")])
def test_rows_of_csv_share_images_and_texts(tmp_path, image_key, text_key):
    rows = 'a.png,cat,pet\nsub/b.png,"a dog, black",pet\na.png,a pet,\nsub/b.png,a pet,x\n'
    benchmark = open_benchmark(write(tmp_path / "pets", IMAGES | {"test.csv": f"{image_key},{text_key},kind\n{rows}"}))
    a, b = "a.png", "sub/b.png"
    assert benchmark.name == "pets-test"
    assert pairs(benchmark) == [(a, "cat"), (b, "a dog, black"), (a, "a pet"), (b, "a pet")]
    assert [one.read() for one in benchmark.images] == [image(1), image(2)]
    assert benchmark.images[0].fields == benchmark.texts[0].fields == {text_key: "cat", "kind": "pet"}


def test_rows_of_json_lines_with_ids(tmp_path):
    table = json_lines(
        {"image": "images/a.png", "caption": "猫", "image_id": 1, "text_id": 5},
        {"image": "images/a.png", "caption": " 小猫", "image_id": 1, "text_id": 0},
        {"image": "images/sub/b.png", "caption": "狗", "image_id": 2, "text_id": "d"},
        {"image": "images/a.png", "caption": "狗", "image_id": 1, "text_id": "d"},
    )
    benchmark = open_benchmark(write(tmp_path, IMAGES | {"metadata.jsonl": table}))
    assert pairs(benchmark) == [("1", "5"), ("1", "0"), ("2", "d"), ("1", "d")]
    assert [one.read() for one in benchmark.images] == [image(1), image(2)]


def test_bad_rows_are_named(tmp_path):
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
    benchmark = open_benchmark(write(tmp_path, IMAGES | {"test.jsonl": table}))
    assert problems(benchmark) == {
        "text id with different content": ["1"],
        "empty caption": ["3"],
        "no caption": ["test.jsonl:5"],
        "malformed caption": ["test.jsonl:6"],
        "malformed row": ["test.jsonl:7", "a.png, text_id"],
        "not Unicode text": ["\\ud800"],
    }
    # Of a row that cannot be used nothing stays, neither its image nor its text.
    assert pairs(benchmark) == [("1", "1"), (f"1 ({tmp_path}/test.jsonl, 2)", "2")]
    assert len(benchmark.images) == len(benchmark.texts) == 2


def test_a_table_is_chosen_by_its_name(tmp_path):
    table = "image,text\na.png,cat\n"
    write(tmp_path, IMAGES | {"one.csv": table, "two.csv": table, "notes.csv": "a,b\n1,2\n"})
    with pytest.raises(ValueError, match=r"\(one, two\)"):
        open_benchmark(tmp_path)
    assert open_benchmark(tmp_path, split="two").files == (tmp_path / "two.csv",)
    assert open_benchmark(tmp_path / "one.csv").files == (tmp_path / "one.csv",)
    write(tmp_path, {"val.csv": table})
    assert open_benchmark(tmp_path).files == (tmp_path / "val.csv",)
