import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.data.readers import open_benchmark
from ernie_vil2.data.samples import BadSample
from tests.data.sources.published.conftest import image, pairs, problems, write
from tests.support.limits import examples


def tsv(*rows, encode=base64.b64encode):
    return "".join(f"{name}\t{encode(content).decode()}\n" for name, content in rows)


def lines(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def text(text_id, words, *image_ids):
    return {"text_id": text_id, "text": words, "image_ids": list(image_ids)}


FILES = {
    "valid_imgs.tsv": tsv((1076345, image(1)), (517602, image(2)), (9, image(3))),
    "valid_texts.jsonl": lines(text(8428, "托特包", 1076345, 517602), text(7, "帽子 ", 1076345), text(6, "靴子")),
    "test_imgs.tsv": tsv((11, image(4))),
    "test_texts.jsonl": lines(text(12, "裙子")),
}


def test_an_image_file_without_its_texts_is_named(tmp_path):
    folder = write(tmp_path, {"test_imgs.tsv": FILES["test_imgs.tsv"]})
    with pytest.raises(FileNotFoundError, match="test_imgs.tsv: the texts are missing; put .*test_texts.jsonl"):
        open_benchmark(folder / "test_imgs.tsv")


def test_texts_have_several_images_and_images_several_texts(tmp_path):
    benchmark = open_benchmark(write(tmp_path / "MUGE", FILES))
    assert benchmark.name == "MUGE-valid"
    assert [one.id for one in benchmark.images] == ["1076345", "517602", "9"]
    assert [(one.id, one.text) for one in benchmark.texts] == [("8428", "托特包"), ("7", "帽子"), ("6", "靴子")]
    assert pairs(benchmark) == [("1076345", "8428"), ("517602", "8428"), ("1076345", "7")]
    assert [one.read() for one in benchmark.images] == [image(1), image(2), image(3)]
    assert benchmark.rows.counts.total() == 0 and benchmark.rows.read == 6


def test_a_split_without_answers_is_opened_when_it_is_named(tmp_path):
    benchmark = open_benchmark(write(tmp_path, FILES), split="test")
    assert len(benchmark.images) == len(benchmark.texts) == 1 and benchmark.pairs.shape == (0, 2)


def test_test_comes_before_validation_where_it_has_answers(tmp_path):
    write(tmp_path / "Flickr30k-CN", FILES | {"test_texts.jsonl": lines(text(12, "裙子", 11))})
    assert open_benchmark(tmp_path / "Flickr30k-CN").name == "Flickr30k-CN-test"
    assert open_benchmark(tmp_path / "Flickr30k-CN", split="val").name == "Flickr30k-CN-valid"
    assert open_benchmark(tmp_path / "Flickr30k-CN" / "valid_imgs.tsv").name == "Flickr30k-CN-valid"


def test_muge_as_its_authors_publish_it(tmp_path):
    queries = lines(
        {"query_id": 8426, "query_text": "长裤", "item_ids": [42967]},
        {"query_id": 8427, "query_text": "女衬衫", "item_ids": [63397, 42967]},
    )
    files = {
        "MR_valid_imgs.tsv": tsv((42967, image(1)), (63397, image(2)), encode=base64.urlsafe_b64encode),
        "MR_valid_queries.jsonl": queries,
        "MR_test_imgs.tsv": tsv((5, image(3))),
        "MR_test_queries.jsonl": lines({"query_id": 352962, "query_text": "帆布鞋女"}),
        "example_pred.jsonl": lines({"query_id": 352962, "item_ids": [5]}),
        "README.txt": "",
    }
    benchmark = open_benchmark(write(tmp_path / "Multimodal_Retrieval", files))
    assert benchmark.name == "Multimodal_Retrieval-valid"
    assert pairs(benchmark) == [("42967", "8426"), ("63397", "8427"), ("42967", "8427")]


def test_bad_rows_are_named(tmp_path):
    images = tsv((1, image(1)), (2, image(2)), (1, image(1)), (2, image(3))) + "no tab\n\n3\tAAAA\tAAAA\n4\t!!!!\n"
    texts = lines(
        text(10, "一", 1, 99),
        text(11, "二", 98),
        text(10, "一", 1),
        text(10, "三", 1),
        text(12, " ", 1),
        {"text_id": 13, "text": "四", "image_ids": 1},
        {"text": "四", "image_ids": [1]},
        text(14, 5, 1),
        text(15, "四", [1]),
        [1],
    )
    write(tmp_path, {"test_imgs.tsv": images, "test_texts.jsonl": texts + "{\n"})
    benchmark = open_benchmark(tmp_path)
    assert problems(benchmark) == {
        "repeated image id": ["test_imgs.tsv:3, 1"],
        "image id with different content": ["test_imgs.tsv:4, 2"],
        "malformed row": [
            *(f"test_imgs.tsv:{number}" for number in (5, 6, 7)),
            *(f"test_texts.jsonl:{number}" for number in (6, 7, 8, 9)),
        ],
        "unmatched image id": ["test_texts.jsonl:1, 99", "test_texts.jsonl:2, 98"],
        "repeated text id": ["10"],
        "text id with different content": ["10"],
        "empty text": ["12"],
        "malformed JSON": ["test_texts.jsonl:10", "test_texts.jsonl:11"],
    }
    assert pairs(benchmark) == [("1", "10")]
    with pytest.raises(BadSample, match="test_imgs.tsv:8: malformed base64"):
        benchmark.images[2].read()


def test_a_third_column_behind_a_long_image_is_noticed_when_it_is_read(tmp_path):
    files = {"test_imgs.tsv": f"1\t{'A' * 400}\tAAAA\n", "test_texts.jsonl": lines(text(1, "一", 1))}
    benchmark = open_benchmark(write(tmp_path, files))
    with pytest.raises(BadSample, match="test_imgs.tsv:1: malformed row"):
        benchmark.images[0].read()


def test_images_elsewhere_are_not_looked_for(tmp_path):
    with pytest.raises(ValueError, match="layout chinese-clip holds its images; leave out images"):
        open_benchmark(write(tmp_path, FILES), images=tmp_path)


@examples(60)
@given(
    contents=st.lists(st.binary(max_size=300), min_size=1, max_size=4),
    urlsafe=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_images_come_back_from_either_alphabet(tmp_path_factory, contents, urlsafe, end):
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    rows = tsv(*enumerate(contents), encode=encode).replace("\n", end)
    files = {"test_imgs.tsv": rows, "test_texts.jsonl": lines(text(1, "一", 0))}
    benchmark = open_benchmark(write(tmp_path_factory.mktemp("clip"), files))
    assert [one.read() for one in benchmark.images] == contents


@examples(60)
@given(images=st.binary(max_size=80), texts=st.binary(max_size=80))
def test_whatever_the_files_hold_every_row_is_counted(tmp_path_factory, images, texts):
    files = {
        "test_imgs.tsv": tsv((1, image(1))).encode() + images,
        "test_texts.jsonl": lines(text(1, "一", 1)).encode() + texts,
    }
    benchmark = open_benchmark(write(tmp_path_factory.mktemp("clip"), files))
    assert ("1", "1") in pairs(benchmark)
    used = len(benchmark.images) + len(benchmark.texts)
    assert benchmark.rows.read == used + benchmark.rows.counts.total()
