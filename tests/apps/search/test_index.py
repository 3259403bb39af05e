"""An index from files to answers, with bad files, interrupted builds, damage and wrong arguments."""

import io
import json
import re
import shutil
from functools import partial
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from ernie_vil2.apps.search import BusyIndex, DamagedIndex, add_items, open_index
from ernie_vil2.apps.search.add_items import add_images, add_texts, list_images, optimize_collection
from ernie_vil2.apps.search.collection import Item
from ernie_vil2.apps.search.store import FolderStore, open_store
from tests.support.commands import call
from tests.support.shapes import draw, encode_png
from tests.support.small_index import IMAGE, interrupt_call

WORDS = ["red disc", "green square", "blue bar", "yellow cross", "红色的圆", "", "red disc"]


@pytest.fixture(scope="module")
def template_index(tmp_path_factory, checkpoint, shapes):
    with open_index(tmp_path_factory.mktemp("template_index") / "index", str(checkpoint), writable=True) as index:
        add_images(index, list_images([str(shapes["val"])]))
        add_texts(index, WORDS)
        for kind in ("images", "texts"):
            optimize_collection(index, kind, None, 0.98, lambda line: None)
    return index.folder


@pytest.fixture
def folder(tmp_path, template_index):
    """Return an index of 16 images and 5 texts, which a test may change."""
    return shutil.copytree(template_index, tmp_path / "index")


@pytest.fixture
def search(model, monkeypatch):
    """Return the search command, which uses the model of this module in place of loading one."""
    monkeypatch.setattr("ernie_vil2.apps.search.index.load_model", lambda source, **_: model)
    return partial(call, "search")


def test_answers_rank_by_the_product_of_embeddings(folder, model, shapes):
    images = list_images([str(shapes["val"])])
    loaded_images = [image.load() for image in images]
    names, contents = [image.name for image in loaded_images], [image.content for image in loaded_images]
    captions = {image.fields["caption_en"] for image in loaded_images}
    embeddings = model.encode_images(contents).astype(np.float16).astype(np.float32)  # as the index stores them
    with open_index(folder, model) as index:
        (by_text,) = index.search(texts=["red disc"], count=16)
        scores = embeddings @ model.encode_texts(["red disc"])[0]
        assert [hit.id for hit in by_text] == [names[row] for row in np.argsort(-scores)]
        np.testing.assert_allclose([hit.score for hit in by_text], np.sort(scores)[::-1], atol=2e-3)
        assert by_text[0].fields["caption_en"] in captions

        (by_image,) = index.search(images=[contents[3]], count=1)
        assert by_image[0].id == names[3] and by_image[0].score == pytest.approx(1, abs=2e-3)
        assert names[3] not in [hit.id for hit in index.similar(names[3], count=16)]
        (words,) = index.search(images=[contents[3]], count=2, among="texts")
        assert len(words) == 2 and {hit.id for hit in words} <= set(WORDS)
        assert index.search(images=[contents[3]], among="texts", threshold=1.0) == [[]]

        combined = index.combined([(1, contents[3]), (1, "red"), (-1, "bar")], count=16)
        vector = embeddings[3] + model.encode_texts(["red"])[0] - model.encode_texts(["bar"])[0]
        expected_scores = embeddings @ (vector / np.linalg.norm(vector))
        assert [hit.id for hit in combined] == [names[row] for row in np.argsort(-expected_scores)]
        with pytest.raises(KeyError):
            index.similar("not there")


def test_bad_images_are_counted_and_the_rest_is_indexed(tmp_path, model):
    rng = np.random.default_rng(0)
    bomb = b"\x89PNG\r\n\x1a\n" + bytes.fromhex("0000000d49484452000100000001000008020000")
    wide = encode_png(rng.integers(0, 255, (100, 400, 3), np.uint8))
    files = {
        "a.png": IMAGE, "b.jpg": b"<html>not found</html>", "c.png": bomb, "sub/d.png": wide, "notes.txt": b"no image",
        ".hidden/e.png": IMAGE,
    }  # fmt: skip
    for name, content in files.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with open_index(tmp_path / "index", model, writable=True) as index:
        result = add_images(index, list_images([str(tmp_path / "photos")]))
        # notes.txt and the hidden file are not read at all; b.jpg and c.png are the bad ones.
        assert (result.num_added, result.num_unchanged) == (2, 0)
        assert (result.bad_samples.counts.total(), result.bad_samples.num_read) == (2, 4)
        assert {hit.id for hit in index.search(texts=["red"])[0]} == {"a.png", "sub/d.png"}
        # A PNG that is small enough is stored as its own thumbnail.
        assert index.collection("images").get("a.png").thumbnail == IMAGE
        thumbnail = index.collection("images").get("sub/d.png").thumbnail
        assert thumbnail.startswith(b"RIFF") and Image.open(io.BytesIO(thumbnail)).size == (160, 40)
        (tmp_path / "photos" / "a.png").write_bytes(encode_png(draw((30, 200, 30), "cross", rng)))
        result = add_images(index, list_images([str(tmp_path / "photos")]))
        assert (result.num_added, result.num_unchanged) == (1, 1)
        assert len(index.collection("images")) == 2


def test_interrupted_build_continues(tmp_path, model, shapes, monkeypatch):
    monkeypatch.setattr(add_items, "CHUNK_SIZE", 32)
    images = list_images([str(shapes["train"])])
    assert len(images) == 128
    monkeypatch.setattr(model, "encode_pixels", interrupt_call(model.encode_pixels, 3))
    with pytest.raises(KeyboardInterrupt), open_index(tmp_path / "index", model, writable=True) as index:
        add_images(index, images)
    monkeypatch.undo()
    with (tmp_path / "index" / "images" / "rows.f16").open("ab") as file:
        file.write(b"rows that were written and not committed")
    with open_index(tmp_path / "index", model, writable=True) as index:
        assert len(index.collection("images")) == 64
        result = add_images(index, images)
        assert (result.num_added, result.num_unchanged) == (64, 64)
        names = [image.load().name for image in images]
        for name in names[:5]:
            assert index.similar(name, count=1, among="images")[0].id != name
        assert len(index.collection("images")) == 128
        expected = model.encode_images([images[100].load().content])[0]
        np.testing.assert_allclose(index.collection("images").get_embedding(names[100]), expected, atol=2e-3)


def test_second_writer_is_refused_and_readers_see_changes(folder, model):
    writer = open_index(folder, model, writable=True)
    with pytest.raises(BusyIndex, match=r"process \d+ on "):
        open_index(folder, model, writable=True)
    with open_index(folder, model) as reader:
        num_images = len(reader.collection("images"))
        writer.collection("images").remove([reader.search(texts=["red"])[0][0].id])
        assert len(reader.collection("images")) == num_images - 1
        optimize_collection(writer, "images", "ivf", 0.9, lambda line: None)
        assert reader.collection("images").index_type["name"] == "ivf"
        assert len(reader.search(texts=["red"], count=50)[0]) == num_images - 1
    writer.close()
    open_index(folder, model, writable=True).close()


def test_interrupted_build_of_an_index_type_changes_nothing(folder, model):
    answers = []

    def search_index():
        with open_index(folder, model) as reader:
            hits = reader.search(texts=["red"], count=5)[0]
            answers.append((reader.collection("images").index_type["name"], len(hits)))

    def interrupt_tuning(line):
        if "cells per query" in line:
            search_index()
            raise KeyboardInterrupt

    with open_index(folder, model, writable=True) as writer:
        optimize_collection(writer, "images", "exact", 0.9, lambda line: None)
        with pytest.raises(KeyboardInterrupt):
            optimize_collection(writer, "images", "ivf", 0.9, interrupt_tuning)
    search_index()
    assert answers == [("exact", 5)] * 2


@pytest.mark.parametrize("name", ["images/rows.f16", "images/items.sqlite", "index.json",
                                  "images/index_type/index_type.json"])  # fmt: skip
def test_damaged_file_is_named_and_the_advice_works(folder, model, shapes, name):
    (folder / name).unlink()
    if "sqlite" not in name:
        (folder / name).write_bytes(b"{")
    with pytest.raises(DamagedIndex, match="index_type|" + name) as error, open_index(folder, model) as index:
        index.search(texts=["red"])
    advice = re.search("(?:remove (.+) and )?build the index again$", str(error.value))
    if advice[1]:
        shutil.rmtree(advice[1])
    with open_index(folder, model, writable=True) as index:
        add_images(index, list_images([str(shapes["val"])]))
        assert len(index.search(texts=["red"], count=20)[0]) == 16


@pytest.mark.parametrize(("options", "culprit"), [
    ({"texts": ["红" * 100_000]}, "100,000 characters"),
    ({"count": 0}, "count is 0"),
    ({"where": {'a"b': 1}}, "no field"),
    ({"where": {"kind": 2**70}}, "64 bits"),
    ({"where": {"kind": None}}, "kind"),
    *(({"where": {"price": bounds}}, "bound") for bounds in ({}, {"=": 3}, {"<": "cheap"}, {"<": True},
                                                             {">": float("inf")}, {">": "99-1-1"})),
])  # fmt: skip
def test_invalid_query_is_refused(index, options, culprit):
    with pytest.raises(ValueError, match=culprit):
        index.search(**{"texts": ["red"]} | options)


def test_invalid_embeddings_of_queries_are_refused(index):
    width = index.model.embed_dim
    for shape in ([4, width // 2], [2, 2 * width], [width]):
        with pytest.raises(ValueError, match=re.escape(str(shape))):
            index.search_embeddings(np.ones(shape, np.float32))
    with pytest.raises(ValueError, match="not finite") as caught:
        index.search_embeddings(np.full([1, width], np.nan))
    assert not isinstance(caught.value, DamagedIndex)


def test_folder_without_an_index_is_named(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        open_index(tmp_path / "nothing", model)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(NotADirectoryError, match=r"mine\.txt is a file"):
        open_index(tmp_path / "mine.txt", model)
    with pytest.raises(ValueError, match=r"mine\.txt"):
        open_index(tmp_path, model, writable=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_refused_index_can_be_opened_when_it_is_mended(folder, model):
    metadata = (folder / "index.json").read_bytes()
    (folder / "index.json").write_bytes(b"{}")
    # The exception is kept, as a notebook keeps the last one.
    with pytest.raises(DamagedIndex) as caught:
        open_index(folder, model, writable=True)
    (folder / "index.json").write_bytes(metadata)
    open_index(folder, model, writable=True).close()
    assert caught.value


def test_queries_of_a_file_are_encoded_in_batches(folder, search, model, monkeypatch, tmp_path):
    monkeypatch.setattr("ernie_vil2.apps.search.command.BATCH_SIZE", 4)
    encode = Mock(wraps=model.encode_texts)
    monkeypatch.setattr(model, "encode_texts", encode)
    lines = ["red disc", "红色的圆", "blue", "a bar", "a cross"]
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    result = search("query", "--index", folder, "--json", "--minus", "green", "--file", tmp_path / "lines.txt")
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["query"] for answer in answers] == [f"{line} - green" for line in lines]
    # "green", which is subtracted from all queries, then five lines in batches of four.
    assert [len(call.args[0]) for call in encode.mock_calls] == [1, 4, 1]
    with open_index(folder, model) as index:
        for line, answer in zip(lines, answers, strict=True):
            expected = [hit.score for hit in index.combined([(1, line), (-1, "green")])]
            np.testing.assert_allclose([hit["score"] for hit in answer["hits"]], expected, atol=1e-4)


def test_command_queries_removes_and_does_not_wait_for_a_lock(folder, search, shapes):
    index = ["--index", folder]
    answer = json.loads(search("query", *index, "--plus", "red", "--plus", "disc", "--json", "--count", 3).stdout)
    assert answer["query"] == "+ red + disc" and len(answer["hits"]) == 3
    result = search("remove", *index, answer["hits"][0]["id"], "nobody")
    assert result.returncode == 1 and "1 of 2 removed" in result.stdout
    with open_index(folder, writable=True):
        result = search("build", *index, "--data", shapes["val"])
        assert result.returncode == 2 and "process" in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["a/b", "my-index", "x?y=z"])
def test_name_that_milvus_does_not_take_is_refused(name):
    pytest.importorskip("pymilvus", reason="pymilvus is not installed")
    with pytest.raises(ValueError, match=re.escape(repr(name))):
        open_store(f"http://127.0.0.1:1/{name}", writable=True)


def test_id_that_is_named_twice_is_removed_once(folder, model, search):
    with open_index(folder, model) as index:
        item_id = index.collection("images").sample_items(1)[0].id
    result = search("remove", "--index", folder, item_id, item_id)
    assert result.returncode == 0 and "1 of 1 removed" in result.stdout


def test_command_finds_the_words_of_a_sentence(folder, model, search):
    item = Item("shoe", b"", {"caption_zh": "红鞋", "number": "A1-B"})
    with open_index(folder, model, writable=True) as index:
        index.collection("images").add([item], model.encode_texts(["blue bar"]))
    options = ["--index", folder, "--json", "--count", 2]
    for query in (["a1-b"], ["A1-B 红"], ["A1-B", "--threshold", 0.99], ["--plus", "红鞋", "--words"]):
        first = json.loads(search("query", *options, *query).stdout)["hits"][0]
        assert first["id"] == "shoe" and first["words"] is True
    for query in (["purple", "--minus", "a1-b", "--words"], ["a1-b", "--no-words"], ["--plus", "红鞋"]):
        answer = json.loads(search("query", *options, *query).stdout)
        assert not any("words" in hit for hit in answer["hits"])
    assert search("query", *options, "red", "--word-weight", -1).returncode == 2


def test_command_adds_the_texts_in_images(folder, shapes, search, tmp_path):
    name = list_images([str(shapes["val"])])[0].load().name
    content = {"input_path": f"photos/{name}", "rec_texts": ["全场五折"], "rec_scores": [0.9]}
    (tmp_path / "0_res.json").write_text(json.dumps(content))
    result = search("add", "--index", folder, "--data", shapes["val"], "--ocr", tmp_path / "0_res.json")
    assert result.returncode == 0 and "1 refreshed" in result.stdout and "1 of 1" in result.stdout
    answer = json.loads(search("query", "--index", folder, "--json", "五折").stdout)
    assert [hit["id"] for hit in answer["hits"] if "words" in hit] == [name]
    assert search("add", "--index", folder, "--texts", tmp_path, "--ocr", tmp_path).returncode == 2


@pytest.mark.parametrize(("arguments", "culprit"), [
    (["query", "--index", "index"], "nothing to search for"),
    (["build", "--index", "new"], "model"),
    *((["query", "--index", "index", "x", *conditions], culprit) for conditions, culprit in (
        (["--where", "<3"], "FIELD=VALUE"),
        (["--where", "kind>=disc"], "a number, or a date"),
        (["--where", "kind=a", "--where", "kind<3"], "values and bounds"),
        (["--where", "kind<3", "--where", "kind<5"], "kind has two bounds"),
        (["--where", "kinds=3"], "kinds"),
    )),
])  # fmt: skip
def test_wrong_argument_is_an_error_of_one_line(folder, search, monkeypatch, arguments, culprit):
    monkeypatch.chdir(folder.parent)
    result = search(*arguments)
    assert result.returncode == 2 and culprit in result.stderr and len(result.stderr.splitlines()) == 1


def test_filters_of_the_command_line_match_texts_and_numbers(tmp_path, checkpoint, search):
    for number, name in enumerate("ab"):
        (tmp_path / f"{name}.png").write_bytes(encode_png(draw((200, 30, 30), "disc", np.random.default_rng(number))))
    (tmp_path / "table.csv").write_text("image,caption,price,sku,size\na.png,red,3,00123,3.50\nb.png,blue,4,00124,4\n")
    index = ["--index", tmp_path / "index"]
    assert search("build", *index, "--checkpoint", checkpoint, "--data", tmp_path / "table.csv").returncode == 0

    def query(condition, *options):
        """Return the ids of the hits, or the message of the error."""
        result = search("query", *index, "red", "--json", "--where", condition, *options)
        if result.returncode != 0:
            return result.stderr
        return [hit["id"] for hit in json.loads(result.stdout)["hits"]]

    for condition in ("price=3", "price=3.0", "sku=00123", "size=3.50", "price<4"):
        assert query(condition) == ["a.png"], condition
    for condition in ("price=5", f"price={'9' * 40}", f"sku={'[' * 900}", "price=null", "sku=NaN", "price>=2025-01-01"):
        assert query(condition) == [], condition
    assert query("price>3", "--where", "price<=4") == ["b.png"]
    (tmp_path / "texts.txt").write_text("a red disc\n")
    assert search("add", *index, "--texts", tmp_path / "texts.txt").returncode == 0
    assert "field price" in query("price=3", "--among", "texts")
    assert search("remove", *index, "a.png", "b.png").returncode == 0
    assert "no images" in query("price=3")


def test_build_without_usable_data_leaves_no_index(tmp_path, checkpoint, model, shapes, search):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no image")
    (tmp_path / "blank.txt").write_text("\n \n")
    arguments = ["--index", tmp_path / "index", "--checkpoint", checkpoint]
    for data in (["--data", tmp_path / "bad"], ["--texts", tmp_path / "blank.txt"]):
        for action in ("build", "add"):
            assert search(action, *arguments, *data).returncode == 1 and not (tmp_path / "index").exists()
    assert (
        search("build", *arguments, "--data", tmp_path / "nowhere").returncode == 2
        and not (tmp_path / "index").exists()
    )
    (tmp_path / "index").mkdir()
    assert search("build", *arguments, "--data", tmp_path / "bad").returncode == 1
    assert not list((tmp_path / "index").iterdir())  # the folder existed before, so it is not removed
    assert search("build", *arguments, "--data", shapes["val"]).returncode == 0
    assert search("add", *arguments, "--data", tmp_path / "bad").returncode == 1
    with open_index(tmp_path / "index", model) as index:
        assert len(index.collection("images")) == 16


def test_missing_model_of_an_index_is_named_with_the_option(folder, tmp_path):
    store = FolderStore(folder, writable=True)
    store.write_metadata(store.metadata | {"model": str(tmp_path / "gone")})
    store.close()
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}/gone.*--checkpoint"):
        open_index(folder)
    with pytest.raises(FileNotFoundError, match="^(?!.*names its model)"):
        open_index(folder, str(tmp_path / "elsewhere"))
