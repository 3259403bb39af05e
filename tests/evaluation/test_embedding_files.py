"""Each format there and back, a file written by hand, and every kind of bad row."""

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


def assert_same(found, expected, pairs=PAIRS):
    assert np.array_equal(found.image_embeddings, expected.image_embeddings) and np.array_equal(
        found.text_embeddings, expected.text_embeddings
    )
    for side in ("images", "texts"):
        assert [row.id for row in getattr(found.benchmark, side)] == [
            row.id for row in getattr(expected.benchmark, side)
        ]
    assert [row.text for row in found.benchmark.texts] == [row.text for row in expected.benchmark.texts]
    assert found.benchmark.pairs.tolist() == pairs
    assert found.image_embeddings.dtype == found.text_embeddings.dtype == np.float32


def test_numpy_there_and_back(tmp_path):
    write_numpy(tmp_path / "out", make_encoded_benchmark())
    found = read_embeddings(tmp_path / "out")
    assert_same(found, make_encoded_benchmark())
    assert isinstance(found.image_embeddings, np.memmap), "an array larger than memory can be scored"
    lines = (tmp_path / "out" / "texts.jsonl").read_text(encoding="utf-8")
    assert lines.startswith('{"text_id": "猫", "text": "一只猫"}\n')
    with pytest.raises(BadSample, match="1076345: only its embedding is known"):
        found.benchmark.images[0].read()


def test_chinese_clip_there_and_back(tmp_path):
    write_chinese_clip(tmp_path, make_encoded_benchmark(), split="valid")
    lines = [json.loads(line) for line in (tmp_path / "valid_imgs.img_feat.jsonl").read_text().splitlines()]
    assert [(line["image_id"], line["name"]) for line in lines] == [(0, "1076345"), (1, "007")]  # not both are numbers
    assert_same(read_embeddings(tmp_path), make_encoded_benchmark(), pairs=[[0, 0], [1, 1], [1, 2], [0, 2]])  # by text


DIGITS = st.integers(0, 10**20).map(str)


@limit_examples(15)
@given(ids=st.lists(DIGITS, min_size=1, unique=True) | st.lists(DIGITS | st.text(min_size=1), min_size=1, unique=True))
def test_ids_are_numbers_for_chinese_clip_each_its_own(ids):
    numbers = number_ids([BenchmarkText(name, "") for name in ids])
    assert all(type(number) is int for number in numbers) and len(set(numbers)) == len(ids)
    if all(name.isascii() and name.isdecimal() and str(int(name)) == name and int(name) < 10**18 for name in ids):
        assert list(map(str, numbers)) == ids
    else:
        assert numbers == list(range(len(ids)))


def test_chinese_clip_by_hand(tmp_path):
    """Texts in another order than their features, one without images; annotations elsewhere, with a byte order mark."""
    (tmp_path / "a").mkdir()
    features = {
        "test_imgs.img_feat.jsonl": [{"image_id": 5, "feature": [1, 0]}, {"image_id": 4, "feature": [0.5, -0.5]}],
        "test_texts.txt_feat.jsonl": [{"text_id": n, "feature": [n, 0.25]} for n in (1, 2, 3)],
        "valid_imgs.img_feat.jsonl": [],
    }
    for name, rows in features.items():
        (tmp_path / "a" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [(3, "drei", []), (2, "zwei", [4, 5]), (1, "eins", [5])]
    rows = [json.dumps({"text_id": n, "text": text, "image_ids": images}) for n, text, images in rows]
    (tmp_path / "texts.jsonl").write_text("\n".join(rows), encoding="utf-8-sig")
    found = read_embeddings(tmp_path / "a", tmp_path / "texts.jsonl", split="test")
    assert found.image_embeddings.tolist() == [[1, 0], [0.5, -0.5]] and found.text_embeddings.tolist() == [
        [1, 0.25],
        [2, 0.25],
        [3, 0.25],
    ]
    assert [text.text for text in found.benchmark.texts] == ["eins", "zwei", "drei"]
    assert found.benchmark.pairs.tolist() == [[1, 1], [0, 1], [0, 0]]
    with pytest.raises(ValueError, match="splits test, valid; choose one"):
        read_embeddings(tmp_path / "a")


def test_official_row_by_row(tmp_path):
    path = tmp_path / "cross_modal_embeddings.out"
    write_official(path, make_encoded_benchmark())
    # 0.6 in float32 is printed as 0.6; 9.9e-5 as the shortest number that float32 reads back.
    assert path.read_bytes() == (
        b"0.0 1.0\t0.6 0.8\t1\n0.1 9.9e-05\t1.0 0.0\t1\n-0.6 0.8\t1.0 0.0\t1\n0.1 9.9e-05\t0.6 0.8\t1\n"
    )
    found = read_embeddings(tmp_path)
    assert np.array_equal(found.text_embeddings, make_encoded_benchmark().text_embeddings[[0, 2, 1, 2]])
    assert np.array_equal(found.image_embeddings, make_encoded_benchmark().image_embeddings[[0, 1, 1, 0]])
    assert found.benchmark.pairs.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert [image.id for image in found.benchmark.images] == ["1", "2", "3", "4"]


@limit_examples(30)
@given(NUMBERS, NUMBERS)
def test_official_numbers_come_back_exactly(tmp_path_factory, images, texts):
    path = tmp_path_factory.getbasetemp() / "rows.out"
    texts = np.resize(texts, images.shape)
    write_official(path, make_encoded_benchmark(images, texts), np.array([[0, 0], [1, 1], [2, 2]]))
    found = read_official(path)
    assert np.array_equal(found.image_embeddings, images) and np.array_equal(found.text_embeddings, texts)


def test_official_rows_with_the_tsv(tmp_path):
    """A row a TSV row: pairs that come twice stay, rows that could not be used are left out."""
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
    chosen = read_official_rows([tsv, tsv], benchmark)
    assert chosen.tolist() == [[0, 0], [0, 1], [0, 0], [1, 0]] * 2

    images, texts = np.eye(2, dtype=np.float32), np.array([[3, 4], [5, 6]], np.float32)
    whole = EncodedBenchmark(benchmark, images, texts, BadSampleReport())
    write_official(tmp_path / "four.out", whole, chosen[:4])
    four = write_tsv(tmp_path / "four.tsv", [(text, image, b"image") for text, image in rows if image != "broken"])
    found = read_embeddings(tmp_path / "four.out", four)
    assert_same(found, whole, pairs=[[0, 0], [0, 1], [1, 0]])

    for name, others, culprit in (
        ("short", rows[:3], "four.out:4: .*short.tsv"),
        ("long", rows, "long.tsv"),
        ("other", [("a", "x"), ("b", "y"), ("a", "y"), ("a", "x")], "four.out:4: image 'x'"),
    ):
        other = write_tsv(tmp_path / f"{name}.tsv", [(text, image, b"image") for text, image in others])
        with pytest.raises(ValueError, match=culprit):
            read_official(tmp_path / "four.out", other)


def test_a_folder_without_embeddings_says_what_is_wanted(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match="image_embeddings.npy"):
            read_embeddings(path)


def test_arrays_that_are_pickled_are_refused(tmp_path):
    write_numpy(tmp_path, make_encoded_benchmark())
    np.save(tmp_path / "text_embeddings.npy", np.array([[Path("unpickled")]]), allow_pickle=True)
    with pytest.raises(ValueError, match="text_embeddings.npy"):
        read_embeddings(tmp_path)
