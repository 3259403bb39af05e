"""Files of ratings and embeddings that are damaged, have bad rows, or hold hostile texts."""

import gzip
import json
import re
import shutil
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2 import cli as commands
from ernie_vil2.evaluation.embedding_files import (
    read_benchmark_embeddings,
    read_chinese_clip,
    read_embeddings,
    write_numpy,
)
from ernie_vil2.evaluation.encoded import encode_benchmark
from ernie_vil2.evaluation.scorers import cxc
from ernie_vil2.evaluation.scorers.cxc import read_ratings
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.cxc_ratings import write_ratings
from tests.support.embedded_pairs import make_encoded_benchmark
from tests.support.encoding_model import ProjectionEncoder, make_benchmark, make_noise_image
from tests.support.shapes import draw, encode_png


@given(st.data())
def test_damaged_compressed_ratings_are_right_or_named(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cxc.NUM_RATINGS, ("sts", "test"), 60)
        path = write_ratings(folder, 60, ".gz")
        cxc._read_ratings_file.cache_clear()
        expected, content = read_ratings(folder, "sts", "test"), path.read_bytes()
        position = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["cut", "changed", "longer"]))
        byte = content[position] ^ data.draw(st.integers(1, 255))
        changed = content[:position] + bytes([byte]) + content[position + 1 :]
        path.write_bytes({"cut": content[:position], "changed": changed, "longer": content + content[:position]}[kind])
        cxc._read_ratings_file.cache_clear()
        try:
            ratings = read_ratings(folder, "sts", "test")
        except ValueError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)  # noqa: PT017  -- there may be no error
        else:
            assert ratings.first_ids == expected.first_ids and (ratings.scores == expected.scores).all()


@pytest.mark.thorough
def test_long_compressed_line_does_not_fill_the_memory(tmp_path):
    # 128 MiB in 130 kB of gzip, which must not be decompressed to its end.
    with gzip.open(tmp_path / "sts_test.csv.gz", "wb") as file:
        for _ in range(8):
            file.write(b"x" * 2**24)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"sts_test.csv.gz: damaged \(a line is too long for a rating\)"):
            read_ratings(tmp_path, "sts", "test")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("rows", "culprit"), [
    ("1 0\t0 1\t1\n1 0\t0 1\n", "rows.out:2: a row"),
    ("1 é\t0 1\t1\n", "rows.out:1: malformed"),
    ("1 0\t0 nan\t1\n", "rows.out:1: .*image '1' is not finite"),
    ("1 0\t0 1\t1\n1 0\t0 1 2\t1\n", "rows.out:2: .*image '2' is 3 wide"),
    ("1 0\t0 1 2\t1\n", "image embeddings are 3 wide"),
    ("\t0 1\t1\n", "rows.out:1: .*text '1' is not a row"),
    ("", "no pair"),
])  # fmt: skip
def test_bad_official_rows_are_named(tmp_path, rows, culprit):
    path = tmp_path / "rows.out"
    path.write_text(rows, encoding="utf-8")
    with pytest.raises(ValueError, match=culprit):
        read_embeddings(path)


IMAGE = {"image_id": 1, "feature": [1, 0]}
TEXT = {"text_id": 2, "feature": [0, 1]}
ROW = {"text_id": 2, "text": "t", "image_ids": [1]}


@pytest.mark.parametrize(("images", "texts", "rows", "culprit"), [
    ([IMAGE, IMAGE], [TEXT], [ROW], "img_feat.jsonl:2: image '1'"),
    ([{"image_id": 1.5, "feature": [1]}], [TEXT], [ROW], "img_feat.jsonl:1: image_id is missing"),
    ([IMAGE], [{"text_id": 2, "feature": [[1, 2]]}], [ROW], "txt_feat.jsonl:1: .*text '2'"),
    ([IMAGE], [{"text_id": 2, "feature": [1, 2, 3]}], [ROW], "image embeddings are 2 wide"),
    ([IMAGE], [{"text_id": 2, "feature": [10**400, 2]}], [ROW], "txt_feat.jsonl:1: malformed"),
    ([IMAGE, [1]], [TEXT], [ROW], "img_feat.jsonl:2: malformed JSON"),
    ([IMAGE], [TEXT], [{**ROW, "text_id": 3}], "test_texts.jsonl:1: .*text '3'"),
    ([IMAGE], [TEXT], [{**ROW, "image_ids": [7]}], "test_texts.jsonl:1: .*image '7'"),
    ([IMAGE], [TEXT], [ROW, {**ROW, "text": "u"}], "test_texts.jsonl:2: text '2'"),
    ([IMAGE], [TEXT], [{**ROW, "text": 5}], "test_texts.jsonl:1: text is missing"),
    ([{**IMAGE, "name": "a"}, {**IMAGE, "image_id": 9, "name": "a"}], [TEXT], [ROW], "the same name"),
    ([IMAGE], [TEXT, {**TEXT, "text_id": 4}], [ROW], "text '4'"),
])  # fmt: skip
def test_bad_chinese_clip_rows_are_named(tmp_path, images, texts, rows, culprit):
    for name, lines in (("imgs.img_feat", images), ("texts.txt_feat", texts), ("texts", rows)):
        (tmp_path / f"test_{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=culprit):
        read_chinese_clip(tmp_path)


@pytest.mark.parametrize(("name", "content", "culprit"), [
    ("image_embeddings.npy", [[1.0, 2.0]], "images.jsonl: 2 rows for 1"),
    ("image_embeddings.npy", [1.0, 2.0], "shape .2,."),
    ("image_embeddings.npy", [[1, 2], [3, 4]], "int64"),
    ("image_embeddings.npy", [[1.0, 2.0], [np.inf, 0.0]], "images.jsonl:2: .*image '007'"),
    ("image_embeddings.npy", b"", "image_embeddings.npy: not a whole .npy file"),
    ("images.jsonl", b'{"image_id": "1"}\n{"image_id": "1"}\n', "images.jsonl:2: image '1'"),
    ("texts.jsonl", b'{"text_id": "1"}\n' * 3, "texts.jsonl:1: text is missing"),
    ("pairs.jsonl", b'{"image_id": "9", "text_id": "12"}\n', "pairs.jsonl:1: .*image '9'"),
])  # fmt: skip
def test_bad_file_of_a_numpy_folder_is_named(tmp_path, name, content, culprit):
    write_numpy(tmp_path, make_encoded_benchmark())
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.save(tmp_path / name, np.array(content))
    with pytest.raises(ValueError, match=culprit):
        read_embeddings(tmp_path)


@pytest.mark.parametrize(("text", "scale", "culprit"), [
    (["a"], 1, "texts.jsonl:1: text is missing or not a string"),
    ("a", 1e30, "one of the images is zero or not finite"),  # the square of 1e30 is more than float32 holds
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:overflow")
def test_bad_embeddings_of_another_library_are_named(tmp_path, text, scale, culprit):
    encoded = make_encoded_benchmark()
    write_numpy(tmp_path, encoded)
    np.save(tmp_path / "image_embeddings.npy", encoded.image_embeddings * np.float32(scale))
    lines = [json.dumps({"text_id": entry.id, "text": text}) for entry in encoded.benchmark.texts]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=culprit):
        read_benchmark_embeddings(tmp_path, encoded.benchmark)


def test_page_of_compare_escapes_texts_and_names(tmp_path):
    model = write_untrained_checkpoint(tmp_path / "model")
    shutil.copytree(model, tmp_path / "<b>bold")
    rows = "".join(f"{number}.png,</script><img src=x onerror=alert({number})>\n" for number in range(3))
    (tmp_path / "bad.csv").write_text(f"image,text\n{rows}", encoding="utf-8")
    for number in range(3):
        drawing = draw((200, 30 * number, 30), "disc", np.random.default_rng(number))
        (tmp_path / f"{number}.png").write_bytes(encode_png(drawing))
    models, data = [model, tmp_path / "<b>bold"], ["--data", tmp_path / "bad.csv"]
    options = ["--output", tmp_path, "--name", "x", "--resamples", 20, "--device", "cpu"]
    assert commands.run("compare", list(map(str, models + data + options))) == 0
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page and "<b>bold" not in page and page.count("</script>") == 1


@pytest.mark.parametrize(("rows", "ending", "reason"), [
    (59, ".gz", "59 of the 60"), (60, "", "all 60 ratings are 2.5"), (61, "", "more than the 60"),
])  # fmt: skip
def test_ratings_other_than_the_published_ones_are_refused(tmp_path, monkeypatch, rows, ending, reason):
    monkeypatch.setitem(cxc.NUM_RATINGS, ("sts", "test"), 60)  # as if 60 had been published
    path = write_ratings(tmp_path, rows, ending, scores=["2.5"] * rows if rows == 60 else None)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: {reason}"):
        read_ratings(tmp_path, "sts", "test")


DAMAGE = {
    "cut": lambda content, _: content[:-5],
    "one bit": lambda content, _: content[:-1] + bytes([content[-1] ^ 1]),
    "other rows": lambda _, other_content: other_content,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_wrong_file_in_the_cache_of_embeddings_is_encoded_again(tmp_path, damage):
    rows = make_benchmark({f"i{n}": make_noise_image(n) for n in range(7)}, ["a", "b", "c", "d"])
    expected = encode_benchmark(ProjectionEncoder(), rows, tmp_path, chunk_rows=3)
    for side in ("images", "texts"):
        # Of the chunks of three rows, the first becomes damaged, or gets the content of the second.
        path, second, *_ = sorted(tmp_path.glob(f"*/{side}-*.safetensors"), key=lambda path: -path.stat().st_size)
        path.write_bytes(DAMAGE[damage](path.read_bytes(), second.read_bytes()))
    # The damaged chunk is encoded and stored again, with a warning; then nothing is left to do.
    for num_encoded, num_warnings in ((3, 2), (0, 0)):
        model = ProjectionEncoder()
        with warnings.catch_warnings(record=True) as records:
            warnings.simplefilter("always")
            actual = encode_benchmark(model, rows, tmp_path, chunk_rows=3)
        assert np.array_equal(expected.image_embeddings, actual.image_embeddings)
        assert np.array_equal(expected.text_embeddings, actual.text_embeddings)
        assert model.rows["images"] == model.rows["texts"] == num_encoded
        assert damage == "other rows" or len(records) == num_warnings
