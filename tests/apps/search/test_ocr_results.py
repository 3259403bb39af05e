"""Texts that PaddleOCR has recognised in images: which image has which, and what they are as fields."""

import json
import os
from unittest.mock import Mock

import numpy as np
import pytest

from ernie_vil2.apps.search.add_items import TEXT_FIELD, add_images, add_recognized_texts, list_images, sync_images
from ernie_vil2.apps.search.collection import WordQueries
from ernie_vil2.apps.search.ocr_results import RecognizedTexts
from ernie_vil2.data.spec import DataSpec
from tests.support.small_index import WIDTH, list_items, open_number_index


def make_result(path, *lines, page=None):
    """Return a result as PaddleX writes it; lines are texts, or pairs of a text and a score."""
    pairs = [(line, 0.99) if isinstance(line, str) else line for line in lines]
    return {"input_path": str(path), "page_index": page, "model_settings": {"use_textline_orientation": False},
            "dt_polys": [[[0, 0], [9, 0], [9, 9], [0, 9]] for _ in pairs], "text_rec_score_thresh": 0.0,
            "rec_texts": [text for text, _ in pairs], "rec_scores": [score for _, score in pairs]}  # fmt: skip


def write_result(folder, name, content):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder / name


@pytest.fixture
def photos(tmp_path):
    """Return a folder of five images of numbers, two of them with the same file name."""
    for number, name in enumerate(("1.png", "2.png", "a/3.png", "b/3.png", "4.png"), 1):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
    return tmp_path / "photos"


def test_results_of_all_forms_belong_to_their_images(tmp_path, photos, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "output"
    write_result(folder, "1_res.json", make_result("photos/1.png", "全场五折", ("模糊", 0.3), "A1-B"))
    write_result(folder, "a_res.json", {"res": make_result(r"D:\shop\a\3.png", "春季")})
    pages = [make_result("/elsewhere/2.png", "first", page=0), make_result("/elsewhere/2.png", "second", page=1)]
    write_result(folder, "pages.json", pages)
    lines = [make_result("x/4.png", "four"), make_result("y/4.png", "five"), make_result("9.png", "nine")]
    (folder / "rest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    texts = RecognizedTexts([folder])
    with open_number_index(tmp_path) as index:
        add_images(index, add_recognized_texts(list_images([str(photos)]), texts))
        fields = {item_id: item.fields.get(TEXT_FIELD) for item_id, item in list_items(index).items()}
    # Two results end with 4.png, so that neither is known to be that of photos/4.png.
    assert fields == {
        "1.png": "全场五折\nA1-B",
        "2.png": "first\nsecond",
        "a/3.png": "春季",
        "b/3.png": None,
        "4.png": None,
    }
    assert len(texts.used_paths) == 3 and len(texts) == 6


def test_images_of_a_table_have_the_results_of_their_paths(tmp_path, photos):
    (photos / "a" / "table.csv").write_text("image,caption\n3.png,red disc\n")
    results = [make_result(photos / folder / "3.png", folder) for folder in ("a", "b")]
    write_result(tmp_path, "results.json", results)
    texts = RecognizedTexts([tmp_path / "results.json"])
    (image,) = add_recognized_texts(list_images([str(photos / "a" / "table.csv")]), texts)
    assert image.load().extra_fields == {TEXT_FIELD: "a"}


def test_text_in_an_image_is_found_and_updated(tmp_path, photos):
    write_result(tmp_path / "output", "1_res.json", make_result(photos / "1.png", "全场五折"))
    with open_number_index(tmp_path) as index:
        add_images(index, list_images([str(photos)]))
        num_encoded = index.model.encoded
        for text in ("全场五折", "新品"):
            write_result(tmp_path / "output", "1_res.json", make_result(photos / "1.png", text))
            result = sync_images(index, [str(photos)], texts=RecognizedTexts([tmp_path / "output" / "1_res.json"]))
            assert result.num_refreshed == 1 and index.model.encoded == num_encoded
            assert index.collection("images").get("1.png").fields == {"file": "1.png", TEXT_FIELD: text}
        # A folder has no fields, so that the text stays without the results.
        assert sync_images(index, [str(photos)]).num_unchanged == 5
        answers = index.collection("images").search(np.ones([2, WIDTH]), 5, words=WordQueries(["五折", "新品"]))
        ids = [[hit.id for hit in hits if hit.has_words] for hits in answers]
        assert ids == [[], ["1.png"]]


def test_results_of_one_file_name_are_not_all_looked_at(tmp_path, monkeypatch):
    write_result(tmp_path, "all.json", [make_result(f"/scans/{number}/page.png", f"{number}") for number in range(200)])
    texts = RecognizedTexts([tmp_path / "all.json"])
    abspath = Mock(wraps=os.path.abspath)
    monkeypatch.setattr(os.path, "abspath", abspath)
    for number in range(200):
        for path in (f"/scans/{number}/page.png", "/elsewhere"):
            assert texts.find(path, f"{number}/page.png") == f"{number}"
    assert texts.find("/elsewhere", "page.png") is None
    assert abspath.call_count <= 400


@pytest.mark.parametrize("is_table_first", [False, True])
def test_text_of_a_folder_joins_the_fields_of_a_table(tmp_path, photos, is_table_first):
    (tmp_path / "table.csv").write_text("image,caption\n1.png,red disc\n2.png,blue disc\n")
    texts = RecognizedTexts([write_result(tmp_path / "output", "1_res.json", make_result("1.png", "five"))])
    table = add_recognized_texts(list_images(DataSpec([str(tmp_path / "table.csv")], images=photos)), texts)
    folder = add_recognized_texts(list_images([str(photos)]), texts)
    with open_number_index(tmp_path) as index:
        for images in (table + folder if is_table_first else folder + table, folder):
            add_images(index, images)
            fields = {item_id: item.fields for item_id, item in list_items(index).items()}
            assert fields["1.png"] == {"caption": "red disc", TEXT_FIELD: "five"}
            assert fields["2.png"] == {"caption": "blue disc"}


@pytest.mark.parametrize("content", [
    [1], {"res": 1}, {}, make_result("", "a"), make_result("a.png") | {"rec_texts": [1], "rec_scores": [1]},
    make_result("a.png", "a") | {"rec_scores": []}, make_result("a.png", ("a", "high")), make_result("a.png", ("a", 2)),
])  # fmt: skip
def test_file_of_another_form_is_named(tmp_path, content):
    write_result(tmp_path, "a_res.json", content)
    with pytest.raises(ValueError, match=r"a_res\.json"):
        RecognizedTexts([tmp_path])


def test_text_may_hold_a_line_separator_of_unicode(tmp_path):
    lines = [json.dumps(make_result(f"{name}.png", "two\u2028lines"), ensure_ascii=False) for name in "ab"]
    (tmp_path / "all.jsonl").write_text("\n".join(lines), encoding="utf-8")
    texts = RecognizedTexts([tmp_path / "all.jsonl"])
    assert texts.find("/a.png", "a.png") == texts.find("/b.png", "b.png") == "two\u2028lines"


@pytest.mark.parametrize("line", ['{"input_path": ', "[1]", "{}"])
def test_damaged_line_is_named(tmp_path, line):
    (tmp_path / "all.jsonl").write_text(f"{json.dumps(make_result('a.png', 'a'))}\n{line}\n")
    with pytest.raises(ValueError, match=r"all\.jsonl:2"):
        RecognizedTexts([tmp_path / "all.jsonl"])


def test_folder_without_results_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="save_to_json"):
        RecognizedTexts([tmp_path])
