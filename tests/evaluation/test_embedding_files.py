"""Embedding files of every format are read as they were written, and bad files and rows are named."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText
from ernie_vil2.data.samples import BadSample, BadSampleReport
from ernie_vil2.evaluation.embedding_files import (
    number_ids,
    read_benchmark_embeddings,
    read_embeddings,
    read_official,
    read_official_rows,
    write_chinese_clip,
    write_numpy,
    write_official,
)
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from tests.support.embedded_pairs import PAIRS, make_encoded_benchmark
from tests.support.limits import limit_examples
from tests.support.shapes import write_tsv

NUMBERS = arrays(np.float32, st.tuples(st.just(3), st.integers(1, 5)), elements=st.floats(width=32, allow_nan=False,
                 allow_infinity=False))  # fmt: skip


def assert_same_embeddings(actual, expected, pairs=PAIRS):
    assert np.array_equal(actual.image_embeddings, expected.image_embeddings)
    assert np.array_equal(actual.text_embeddings, expected.text_embeddings)
    assert [image.id for image in actual.benchmark.images] == [image.id for image in expected.benchmark.images]
    actual_texts = [(text.id, text.text) for text in actual.benchmark.texts]
    assert actual_texts == [(text.id, text.text) for text in expected.benchmark.texts]
    assert actual.benchmark.pairs.tolist() == pairs
    assert actual.image_embeddings.dtype == actual.text_embeddings.dtype == np.float32


def test_numpy_files_are_read_as_written(tmp_path):
    write_numpy(tmp_path / "out", make_encoded_benchmark())
    result = read_embeddings(tmp_path / "out")
    assert_same_embeddings(result, make_encoded_benchmark())
    assert isinstance(result.image_embeddings, np.memmap), "an array larger than memory can be scored"
    lines = (tmp_path / "out" / "texts.jsonl").read_text(encoding="utf-8")
    assert lines.startswith('{"text_id": "猫", "text": "一只猫"}\n')
    with pytest.raises(BadSample, match="1076345: only its embedding is known"):
        result.benchmark.images[0].read()


def test_chinese_clip_files_are_read_as_written(tmp_path):
    write_chinese_clip(tmp_path, make_encoded_benchmark(), split="valid")
    lines = [json.loads(line) for line in (tmp_path / "valid_imgs.img_feat.jsonl").read_text().splitlines()]
    # 007 is not how a number is written, so all images are numbered by row.
    assert [(line["image_id"], line["name"]) for line in lines] == [(0, "1076345"), (1, "007")]
    # The format lists images by text, which is the order of the pairs.
    assert_same_embeddings(read_embeddings(tmp_path), make_encoded_benchmark(), pairs=[[0, 0], [1, 1], [1, 2], [0, 2]])


DIGITS = st.integers(0, 10**20).map(str)


@pytest.mark.parametrize("names", ["0\n1\n", "1\n7\n"])
def test_texts_that_look_like_ids_are_matched_as_texts(tmp_path, names):
    images, texts = [BenchmarkImage("a", bytes)], [BenchmarkText("0", "1"), BenchmarkText("1", "7")]
    benchmark = Benchmark("small", images, texts, np.array([[0, 0]]), BadSampleReport())
    for kind, content, count in (("image", "a\n", 1), ("text", names, 2)):
        np.save(tmp_path / f"{kind}_embeddings.npy", np.eye(count, 2, dtype=np.float32))
        (tmp_path / f"{kind}s.txt").write_text(content)
    encoded, _ = read_benchmark_embeddings(tmp_path, benchmark)
    assert encoded.text_embeddings.tolist() == [[1, 0], [0, 1]]


def is_plain_number(name):
    """Return whether a name is a decimal number as Python prints it, below 10^18."""
    return name.isascii() and name.isdecimal() and str(int(name)) == name and int(name) < 10**18


@limit_examples(15)
@given(ids=st.lists(DIGITS, min_size=1, unique=True) | st.lists(DIGITS | st.text(min_size=1), min_size=1, unique=True))
def test_ids_become_unique_numbers_for_chinese_clip(ids):
    numbers = number_ids([BenchmarkText(name, "") for name in ids])
    assert all(type(number) is int for number in numbers) and len(set(numbers)) == len(ids)
    if all(map(is_plain_number, ids)):
        assert list(map(str, numbers)) == ids
    else:
        assert numbers == list(range(len(ids)))


def test_handwritten_chinese_clip_files_are_read(tmp_path):
    # The texts are in another order than their features and one has no image; the annotations are in another folder
    # and begin with a byte order mark.
    (tmp_path / "a").mkdir()
    features = {
        "test_imgs.img_feat.jsonl": [{"image_id": 5, "feature": [1, 0]}, {"image_id": 4, "feature": [0.5, -0.5]}],
        "test_texts.txt_feat.jsonl": [{"text_id": n, "feature": [n, 0.25]} for n in (1, 2, 3)],
        "valid_imgs.img_feat.jsonl": [],
    }
    for name, rows in features.items():
        (tmp_path / "a" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    annotations = [
        {"text_id": 3, "text": "drei", "image_ids": []},
        {"text_id": 2, "text": "zwei", "image_ids": [4, 5]},
        {"text_id": 1, "text": "eins", "image_ids": [5]},
    ]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, annotations)), encoding="utf-8-sig")
    result = read_embeddings(tmp_path / "a", tmp_path / "texts.jsonl", split="test")
    assert result.image_embeddings.tolist() == [[1, 0], [0.5, -0.5]]
    assert result.text_embeddings.tolist() == [[1, 0.25], [2, 0.25], [3, 0.25]]
    assert [text.text for text in result.benchmark.texts] == ["eins", "zwei", "drei"]
    assert result.benchmark.pairs.tolist() == [[1, 1], [0, 1], [0, 0]]
    with pytest.raises(ValueError, match="splits test, valid; choose one"):
        read_embeddings(tmp_path / "a")


def test_official_file_has_a_row_for_each_pair(tmp_path):
    path = tmp_path / "cross_modal_embeddings.out"
    write_official(path, make_encoded_benchmark())
    # 0.6 in float32 is printed as 0.6; 9.9e-5 as the shortest number that float32 reads back.
    assert path.read_bytes() == (
        b"0.0 1.0\t0.6 0.8\t1\n0.1 9.9e-05\t1.0 0.0\t1\n-0.6 0.8\t1.0 0.0\t1\n0.1 9.9e-05\t0.6 0.8\t1\n"
    )
    result = read_embeddings(tmp_path)
    assert np.array_equal(result.text_embeddings, make_encoded_benchmark().text_embeddings[[0, 2, 1, 2]])
    assert np.array_equal(result.image_embeddings, make_encoded_benchmark().image_embeddings[[0, 1, 1, 0]])
    assert result.benchmark.pairs.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert [image.id for image in result.benchmark.images] == ["1", "2", "3", "4"]


@limit_examples(30)
@given(NUMBERS, NUMBERS)
def test_official_numbers_are_read_exactly(tmp_path_factory, images, texts):
    path = tmp_path_factory.getbasetemp() / "rows.out"
    texts = np.resize(texts, images.shape)
    write_official(path, make_encoded_benchmark(images, texts), np.array([[0, 0], [1, 1], [2, 2]]))
    result = read_official(path)
    assert np.array_equal(result.image_embeddings, images) and np.array_equal(result.text_embeddings, texts)


def test_official_rows_follow_their_tsv(tmp_path):
    # Each row belongs to a row of the TSV file: repeated pairs stay, rows that could not be used are missing.
    rows = [("a", "x"), ("b", "x"), ("a", "x"), ("a", "broken"), ("a", "y")]
    tsv = write_tsv(tmp_path / "rows.tsv", [(text, image, b"image") for text, image in rows])
    tsv.write_bytes(tsv.read_bytes() + b"no columns\n")
    benchmark = Benchmark(
        "rows",
        [BenchmarkImage(name, lambda: b"") for name in "xy"],
        [BenchmarkText(name, name) for name in "ab"],
        np.array([[0, 0], [0, 1], [1, 0]]),
        BadSampleReport(),
    )
    chosen, left_out = read_official_rows([tsv, tsv], benchmark)
    assert left_out == [f"{tsv}, 4", f"{tsv}, 6"] * 2
    assert chosen.tolist() == [[0, 0], [0, 1], [0, 0], [1, 0]] * 2

    images, texts = np.eye(2, dtype=np.float32), np.array([[3, 4], [5, 6]], np.float32)
    encoded_rows = EncodedBenchmark(benchmark, images, texts, BadSampleReport())
    write_official(tmp_path / "four.out", encoded_rows, chosen[:4])
    usable_rows = [(text, image, b"image") for text, image in rows if image != "broken"]
    four = write_tsv(tmp_path / "four.tsv", usable_rows)
    assert_same_embeddings(read_embeddings(tmp_path / "four.out", four), encoded_rows, pairs=[[0, 0], [0, 1], [1, 0]])

    for name, wrong_rows, culprit in (
        ("short", rows[:3], "four.out:4: .*short.tsv"),
        ("long", rows, "long.tsv"),
        ("other", [("a", "x"), ("b", "y"), ("a", "y"), ("a", "x")], "four.out:4: image 'x'"),
    ):
        wrong_tsv = write_tsv(tmp_path / f"{name}.tsv", [(text, image, b"image") for text, image in wrong_rows])
        with pytest.raises(ValueError, match=culprit):
            read_official(tmp_path / "four.out", wrong_tsv)


def test_folder_without_embeddings_names_the_missing_file(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match="image_embeddings.npy"):
            read_embeddings(path)


def test_annotations_of_a_folder_with_names_are_refused(tmp_path):
    write_numpy(tmp_path, make_encoded_benchmark())
    with pytest.raises(ValueError, match=r"other\.tsv"):
        read_embeddings(tmp_path, tmp_path / "other.tsv")


def test_pickled_arrays_are_refused(tmp_path):
    write_numpy(tmp_path, make_encoded_benchmark())
    np.save(tmp_path / "text_embeddings.npy", np.array([[Path("unpickled")]]), allow_pickle=True)
    with pytest.raises(ValueError, match="text_embeddings.npy"):
        read_embeddings(tmp_path)
