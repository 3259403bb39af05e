"""Files of ratings and of embeddings that are damaged, wrong row by row, or written by strangers."""

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
from ernie_vil2.evaluation.embedding_files import read_chinese_clip, read_embeddings, write_numpy
from ernie_vil2.evaluation.encoded import encode_benchmark
from ernie_vil2.evaluation.scorers import cxc
from ernie_vil2.evaluation.scorers.cxc import read_ratings
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.cxc_ratings import write_ratings
from tests.support.embedded_pairs import make_encoded_benchmark
from tests.support.encoding_model import ProjectionEncoder, make_benchmark, make_noise_image
from tests.support.shapes import draw, encode_png


@given(st.data())
def test_a_compressed_file_that_is_damaged_anywhere_is_named(tmp_path_factory, data):
    """Cut, changed or longer, it gives the ratings that were written, or an error."""
    folder = tmp_path_factory.mktemp("damaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cxc.NUM_RATINGS, ("sts", "test"), 60)
        path = write_ratings(folder, 60, ".gz")
        cxc._read_ratings_file.cache_clear()
        whole, content = read_ratings(folder, "sts", "test"), path.read_bytes()
        position = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["cut", "changed", "longer"]))
        changed = (
            content[:position] + bytes([content[position] ^ data.draw(st.integers(1, 255))]) + content[position + 1 :]
        )
        path.write_bytes({"cut": content[:position], "changed": changed, "longer": content + content[:position]}[kind])
        cxc._read_ratings_file.cache_clear()
        try:
            found = read_ratings(folder, "sts", "test")
        except ValueError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)  # noqa: PT017  -- there may be no error
        else:
            assert found.first_ids == whole.first_ids and (found.scores == whole.scores).all()


@pytest.mark.thorough
def test_a_long_compressed_line_does_not_fill_the_memory(tmp_path):
    """128 MiB in 130 kB of gzip, most of which is never decompressed."""
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
    ([{"image_id": 1.5, "feature": [1]}], [TEXT], [ROW], "img_feat.jsonl:1: no image_id"),
    ([IMAGE], [{"text_id": 2, "feature": [[1, 2]]}], [ROW], "txt_feat.jsonl:1: .*text '2'"),
    ([IMAGE], [{"text_id": 2, "feature": [1, 2, 3]}], [ROW], "image embeddings are 2 wide"),
    ([IMAGE, [1]], [TEXT], [ROW], "img_feat.jsonl:2: malformed JSON"),
    ([IMAGE], [TEXT], [{**ROW, "text_id": 3}], "test_texts.jsonl:1: .*text '3'"),
    ([IMAGE], [TEXT], [{**ROW, "image_ids": [7]}], "test_texts.jsonl:1: .*image '7'"),
    ([IMAGE], [TEXT], [{**ROW, "text": 5}], "test_texts.jsonl:1: no text"),
    ([{**IMAGE, "name": "a"}, {**IMAGE, "image_id": 9, "name": "a"}], [TEXT], [ROW], "one name"),
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
    ("texts.jsonl", b'{"text_id": "1"}\n' * 3, "texts.jsonl:1: no text"),
    ("pairs.jsonl", b'{"image_id": "9", "text_id": "12"}\n', "pairs.jsonl:1: .*image '9'"),
])  # fmt: skip
def test_a_bad_numpy_folder_is_named(tmp_path, name, content, culprit):
    write_numpy(tmp_path, make_encoded_benchmark())
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.save(tmp_path / name, np.array(content))
    with pytest.raises(ValueError, match=culprit):
        read_embeddings(tmp_path)


def test_texts_and_names_are_escaped_on_the_page_of_compare(tmp_path):
    model = write_untrained_checkpoint(tmp_path / "model")
    shutil.copytree(model, tmp_path / "<b>bold")
    rows = "".join(f"{number}.png,</script><img src=x onerror=alert({number})>\n" for number in range(3))
    (tmp_path / "bad.csv").write_text(f"image,text\n{rows}", encoding="utf-8")
    for number in range(3):
        drawing = draw((200, 30 * number, 30), "disc", np.random.default_rng(number))
        (tmp_path / f"{number}.png").write_bytes(encode_png(drawing))
    given = [model, tmp_path / "<b>bold", "--data", tmp_path / "bad.csv", "--output", tmp_path, "--name", "x",
             "--resamples", 20, "--device", "cpu"]  # fmt: skip
    assert commands.run("compare", list(map(str, given))) == 0
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page and "<b>bold" not in page and page.count("</script>") == 1


@pytest.mark.parametrize(("rows", "ending", "reason"), [
    (59, ".gz", "59 of the 60"), (60, "", "all 60 ratings are 2.5"), (61, "", "more than the 60"),
])  # fmt: skip
def test_other_than_the_published_ratings_are_an_error(tmp_path, monkeypatch, rows, ending, reason):
    """Sixty are as many as were published, and here all alike."""
    monkeypatch.setitem(cxc.NUM_RATINGS, ("sts", "test"), 60)
    path = write_ratings(tmp_path, rows, ending, scores=["2.5"] * rows if rows == 60 else None)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: {reason}"):
        read_ratings(tmp_path, "sts", "test")


DAMAGE = {
    "cut": lambda content, _: content[:-5],
    "one bit": lambda content, _: content[:-1] + bytes([content[-1] ^ 1]),
    "other rows": lambda _, other: other,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_wrong_file_in_the_cache_of_embeddings_is_noticed(tmp_path, damage):
    rows = make_benchmark({f"i{n}": make_noise_image(n) for n in range(7)}, ["a", "b", "c", "d"])
    whole = encode_benchmark(ProjectionEncoder(), rows, tmp_path, chunk_rows=3)
    for side in ("images", "texts"):
        path, other, *_ = sorted(tmp_path.glob(f"*/{side}-*.safetensors"), key=lambda path: -path.stat().st_size)
        path.write_bytes(DAMAGE[damage](path.read_bytes(), other.read_bytes()))
    for rows_encoded in (3, 0):  # once again, and then the damage is mended
        model = ProjectionEncoder()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            again = encode_benchmark(model, rows, tmp_path, chunk_rows=3)
        assert np.array_equal(whole.image_embeddings, again.image_embeddings) and np.array_equal(
            whole.text_embeddings, again.text_embeddings
        )
        assert model.rows["images"] == model.rows["texts"] == rows_encoded
        assert damage == "other rows" or len(caught) == (2 if rows_encoded else 0)
