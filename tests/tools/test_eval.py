"""What tools/eval_retrieval.py takes and leaves, with an untrained model."""

import json

import numpy as np
import pytest

from ernie_vil2 import commands
from tests.conftest import COLOURS, SHAPES, draw, png, untrained_checkpoint
from tests.data.sources.published.conftest import write

TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "a", *COLOURS, *SHAPES]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return untrained_checkpoint(folder, TOKENS)


def flickr(folder, shapes=("disc", "square"), texts=2):
    """A folder as Flickr30K's, its test split of a picture for each shape."""
    images, files = [], {}
    for number, shape in enumerate(shapes):
        sentences = [{"raw": f"a red {shape}", "sentid": number * texts + n, "imgid": number} for n in range(texts)]
        images.append({"filename": f"{number}.png", "split": "test", "imgid": number, "sentences": sentences})
        files[f"flickr30k-images/{number}.png"] = png(draw((200, 30, 30), shape, np.random.default_rng(number)))
    return write(folder, files | {"dataset_flickr30k.json": {"images": images}})


def evaluate(*arguments):
    return commands.run("eval", [*map(str, arguments), "--device", "cpu"])


def test_check_looks_at_every_protocol_that_is_named(tmp_path, capsys):
    data = flickr(tmp_path / "flickr30k")
    assert evaluate("--check", "--data", data, "--protocol", "all-conventions") == 0
    printed = capsys.readouterr().out
    for name, counts in (
        ("pairs", "4 texts, 4 pairs"),
        ("first-text", "2 texts, 2 pairs"),
        ("official-rows", "4 texts"),
    ):
        assert f"protocol {name}: 2 images, {counts}" in printed
    assert evaluate("--check", "--data", data, "--protocol", "first-text", "flickr30k-test") == 1
    printed = capsys.readouterr().out
    assert "protocol first-text: 2 images, 2 texts, 2 pairs\n" in printed
    assert "\nflickr30k-test expects 1,000 images; here are 2, 998 fewer." in printed
    assert evaluate("--check", "--data", data, "--protocol", "flickr30k-tset") == 2
    assert "did you mean flickr30k-test" in capsys.readouterr().err


def test_two_folders_of_one_name_leave_two_results(tmp_path, model):
    for name in ("a", "b"):
        data = write(
            tmp_path / name / "test",
            {
                "test.csv": "image,text\n1.png,a red disc\n",
                "1.png": png(draw((1, 2, 3), "disc", np.random.default_rng(0))),
            },
        )
        assert evaluate("--checkpoint", model, "--data", data, "--output", tmp_path / "results") == 0
    records = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "results").glob("*.json")}
    assert {name: record["data"] for name, record in records.items()} == {
        f"{name}-test": [str(tmp_path / name / "test")] for name in ("a", "b")
    }
