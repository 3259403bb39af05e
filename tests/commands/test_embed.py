"""The embed command writes the embeddings of the model, in every format."""

import json

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.evaluation.embedding_files import read_embeddings
from tests.support.commands import call, succeed
from tests.support.embedding_servers import serve_model
from tests.support.published_files import make_image, write_files
from tests.support.shapes import COLOURS, draw, encode_png, write_tsv


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Return a file of rows, and the rows (text, image id, file).

    A row is repeated, an image has two texts, and an image is broken.
    """
    rng = np.random.default_rng(0)
    files = {name: encode_png(draw(rgb, "disc", rng)) for name, (rgb, _) in COLOURS.items()}
    rows = [(f"a {name} disc", name, files[name]) for name in files]
    rows[2:2] = [rows[0], ("a disc", "red", files["red"]), ("a torn disc", "torn", b"GIF89a")]
    return write_tsv(tmp_path_factory.mktemp("data") / "rows.tsv", rows), rows


@pytest.fixture
def embed(model, tmp_path):
    """Return a function that runs the command and returns the printed output; embeddings go to `tmp_path / "o"`."""

    def embed(*arguments):
        return succeed("embed", "--checkpoint", model, "--output", tmp_path / "o", "--device", "cpu", *arguments)

    return embed


def test_official_format_has_a_row_for_each_usable_tsv_row(model, rows, embed, tmp_path):
    path, content = rows
    usable = [row for row in content if row[1] != "torn"]
    printed = embed("--data", path, "--format", "official")
    assert "broken image: 1 (torn)" in printed
    assert f"1 ({path}, 5)" in printed  # its rows have no ids: later ones have other numbers than in the TSV
    embeddings = read_embeddings(tmp_path / "o")
    loaded = ernie_vil2.load_model(model)
    assert len(embeddings.image_embeddings) == 6
    # The command encodes other batches, which changes the order of float32 sums.
    expected_images = loaded.encode_images([row[2] for row in usable])
    np.testing.assert_allclose(embeddings.image_embeddings, expected_images, atol=1e-6)
    expected_texts = loaded.encode_texts([row[0] for row in usable])
    np.testing.assert_allclose(embeddings.text_embeddings, expected_texts, atol=1e-6)


def test_official_format_holds_the_pairs_of_a_table(embed, tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(encode_png(draw((200, 30, 30), "disc", np.random.default_rng(number))))
    (tmp_path / "titles.tsv").write_text("image\ttext\n0.png\ta disc\n1.png\ta red disc\n")
    embed("--data", tmp_path / "titles.tsv", "--format", "official")
    assert len(read_embeddings(tmp_path / "o").benchmark.pairs) == 2


def test_official_format_holds_the_pairs_of_a_shard_that_is_fetched(shapes, embed, tmp_path):
    embed("--data", f"pipe:cat {shapes['val']}", "--allow-pipes", "--language", "en", "--format", "official")
    assert len(read_embeddings(tmp_path / "o").benchmark.pairs) == 16
    options = ["--data", "http://127.0.0.1:9/rows.tsv", "--format", "official", "--output", tmp_path]
    result = call("embed", "--checkpoint", "none", *options)
    assert result.returncode == 2 and "rows.tsv: the official format" in result.stderr


@pytest.mark.parametrize("layout", ["numpy", "chinese-clip"])
def test_other_formats_have_every_image_and_text_once(model, rows, embed, tmp_path, layout):
    embed("--data", rows[0], "--format", layout)
    embeddings = read_embeddings(tmp_path / "o")
    texts = ["a red disc", "a green disc", "a disc", "a torn disc", "a blue disc", "a yellow disc"]
    assert [image.id for image in embeddings.benchmark.images] == ["red", "green", "blue", "yellow"]
    assert [text.text for text in embeddings.benchmark.texts] == texts
    assert embeddings.benchmark.pairs.tolist() == [[0, 0], [1, 1], [0, 2], [2, 4], [3, 5]]
    np.testing.assert_allclose(embeddings.text_embeddings, ernie_vil2.load_model(model).encode_texts(texts), atol=1e-6)


def test_folder_of_images_is_embedded(model, embed, tmp_path):
    # Images lie in subfolders too, an image is broken, and some files are no images.
    images = {name: make_image(number) for number, name in enumerate(("b.png", "a/2.PNG", "a/10.png"))}
    files = {"torn.gif": b"GIF89a", "notes.txt": b"none", ".hidden/c.png": b""}
    photos = write_files(tmp_path / "photos", images | files)
    assert "broken image: 1 (torn.gif)" in embed("--images", photos)
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["image_embeddings.npy", "images.jsonl"]
    names = [json.loads(line)["image_id"] for line in (tmp_path / "o/images.jsonl").read_text().splitlines()]
    assert names == ["b.png", "a/10.png", "a/2.PNG"]
    expected = ernie_vil2.load_model(model).encode_images([photos / name for name in names])
    np.testing.assert_allclose(np.load(tmp_path / "o/image_embeddings.npy"), expected, atol=1e-6)


def test_server_embeds_in_place_of_a_model_here(model, rows, embed, tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path / "cache"))
    with serve_model(ernie_vil2.load_model(model, device="cpu")) as address:
        printed = succeed("embed", "--checkpoint", address, "--data", rows[0], "--output", tmp_path / "remote")
    assert "broken image: 1 (torn)" in printed
    embed("--data", rows[0])
    embeddings, expected = read_embeddings(tmp_path / "remote"), read_embeddings(tmp_path / "o")
    assert embeddings.benchmark.pairs.tolist() == expected.benchmark.pairs.tolist()
    np.testing.assert_allclose(embeddings.image_embeddings, expected.image_embeddings, atol=1e-6)
    np.testing.assert_allclose(embeddings.text_embeddings, expected.text_embeddings, atol=1e-6)


@pytest.mark.parametrize("layout", ["numpy", "chinese-clip"])
def test_lines_of_text_are_embedded(model, embed, tmp_path, layout):
    lines = tmp_path / "lines.txt"
    lines.write_bytes("\ufeffa red disc\r\n\n a disc \na red disc\n".encode() + b"\xff\xfe\n")
    assert "not UTF-8: 1 (lines.txt:5)" in embed("--texts", lines, "--format", layout)
    expected = ernie_vil2.load_model(model).encode_texts(["a red disc", "a disc", "a red disc"])
    if layout == "numpy":
        names = [json.loads(line) for line in (tmp_path / "o/texts.jsonl").read_text().splitlines()]
        assert names == [{"text_id": "1", "text": "a red disc"}, {"text_id": "3", "text": "a disc"},
                         {"text_id": "4", "text": "a red disc"}]  # fmt: skip
        embeddings = np.load(tmp_path / "o/text_embeddings.npy")
    else:
        features = (tmp_path / "o/test_texts.txt_feat.jsonl").read_text().splitlines()
        embeddings = np.array([json.loads(line)["feature"] for line in features])
        assert not list((tmp_path / "o").glob("*_imgs*"))
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)
