"""The command line against the model called by hand, in each format, and by two processes against one."""

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2 import commands
from ernie_vil2.evaluation.embedding_files import read_embeddings
from tests.conftest import COLOURS, SHAPES, draw, png, untrained_checkpoint, write_tsv
from tests.training.conftest import run

TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "a", *COLOURS, *SHAPES]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return untrained_checkpoint(tmp_path_factory.mktemp("checkpoint"), TOKENS)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows (text, image id, file); one comes twice, one image shows two texts, one is broken."""
    rng = np.random.default_rng(0)
    files = {name: png(draw(rgb, "disc", rng)) for name, (rgb, _) in COLOURS.items()}
    rows = [(f"a {name} disc", name, files[name]) for name in files]
    rows[2:2] = [rows[0], ("a disc", "red", files["red"]), ("a torn disc", "torn", b"GIF89a")]
    return write_tsv(tmp_path_factory.mktemp("data") / "rows.tsv", rows), rows


@pytest.fixture
def extract():
    return lambda *arguments: commands.run("embed", ["--device", "cpu", *map(str, arguments)])


def test_official_format_has_a_row_a_tsv_row(checkpoint, rows, extract, tmp_path, capsys):
    path, content = rows
    usable = [row for row in content if row[1] != "torn"]
    assert extract("--checkpoint", checkpoint, "--data", path, "--format", "official", "--output", tmp_path / "o") == 0
    assert "broken image: 1 (torn)" in capsys.readouterr().out
    found = read_embeddings(tmp_path / "o")
    model = ernie_vil2.load_model(checkpoint)
    assert len(found.images) == 6
    np.testing.assert_allclose(found.images, model.encode_images([row[2] for row in usable]), atol=1e-6)
    np.testing.assert_allclose(found.texts, model.encode_texts([row[0] for row in usable]), atol=1e-6)


@pytest.mark.parametrize("layout", ["numpy", "chinese-clip"])
def test_other_formats_have_each_image_and_text_once(checkpoint, rows, extract, tmp_path, layout):
    assert extract("--checkpoint", checkpoint, "--data", rows[0], "--format", layout, "--output", tmp_path / "o") == 0
    found = read_embeddings(tmp_path / "o")
    texts = ["a red disc", "a green disc", "a disc", "a torn disc", "a blue disc", "a yellow disc"]
    assert [image.id for image in found.benchmark.images] == ["red", "green", "blue", "yellow"]
    assert [text.text for text in found.benchmark.texts] == texts
    assert found.benchmark.pairs.tolist() == [[0, 0], [1, 1], [0, 2], [2, 4], [3, 5]]
    np.testing.assert_allclose(found.texts, ernie_vil2.load_model(checkpoint).encode_texts(texts), atol=1e-6)


def test_two_processes_write_what_one_writes(checkpoint, rows, extract, tmp_path):
    """To 1e-6, since a rank has fewer threads, which changes the order of sums."""
    arguments = ["--checkpoint", checkpoint, "--data", rows[0], "--device", "cpu", "--cache", tmp_path / "cache"]
    two = run("tools/extract_embeddings.py", *arguments, "--processes", 2, "--output", tmp_path / "two")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("4 images and 6 texts") == 1, "one rank reports"
    assert extract("--checkpoint", checkpoint, "--data", rows[0], "--output", tmp_path / "one") == 0
    for name in ("images.jsonl", "texts.jsonl", "pairs.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    one, other = (read_embeddings(tmp_path / name) for name in ("one", "two"))
    np.testing.assert_allclose(one.images, other.images, atol=1e-6)
    np.testing.assert_allclose(one.texts, other.texts, atol=1e-6)
    assert len(list(tmp_path.glob("cache/*/*.safetensors"))) == 2


def test_what_is_missing_is_explained(checkpoint, rows, extract, tmp_path, capsys):
    assert extract("--checkpoint", checkpoint, "--data", tmp_path / "none.tsv", "--output", tmp_path) == 2
    assert "error: " in (error := capsys.readouterr().err) and "none.tsv" in error
    assert extract("--checkpoint", tmp_path / "none", "--data", rows[0], "--output", tmp_path) == 2
    assert "none" in capsys.readouterr().err
