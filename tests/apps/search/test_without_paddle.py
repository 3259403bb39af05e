"""An index whose model has an ONNX export is queried and served where Paddle is not installed."""

import json
import shutil
import sys

import numpy as np
import pytest

from ernie_vil2.apps.search import open_index
from ernie_vil2.apps.search.add_items import add_images, add_texts, list_images
from ernie_vil2.encoder import load_model
from ernie_vil2.export import export
from tests.support.limits import PATIENCE
from tests.support.paths import ROOT
from tests.support.processes import run_process
from tests.support.shapes import draw, encode_png
from tests.support.small_index import TEXTS

COMMANDS = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("paddle", "paddlenlp", "paddleclas", "scipy", "sklearn", "visualdl", "onnx"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
from ernie_vil2.cli import run
index, image = sys.argv[1:]
assert run("search", ["query", "--index", index, "--json", "red", "--image", image]) == 0
assert run("search", ["check", "--index", index]) == 0
"""
SERVER = """
from fastapi.testclient import TestClient
from ernie_vil2.apps.search import open_index
from ernie_vil2.apps.search.service import build_app
client = TestClient(build_app(open_index(index), writable=True))
print(client.post("/v1/search/image", content=open(image, "rb").read()).text)
print(client.get("/v1/search?q=red").text)
assert "paddle" not in sys.modules
"""


@pytest.fixture(scope="module")
def checkpoint_with_export(tmp_path_factory, checkpoint):
    """Return the folder of a checkpoint that contains its ONNX export."""
    folder = shutil.copytree(checkpoint, tmp_path_factory.mktemp("exported") / "checkpoint")
    images = [np.full([32, 32, 3], 40 * n, np.uint8) for n in range(4)]
    texts = ["red", "a green disc", "bar", "cross"]
    export(load_model(folder), folder / "onnx-float32", "onnx", "float32", (images, texts), "test")
    return folder


def test_commands_and_server_answer_without_paddle(checkpoint_with_export, tmp_path):
    (tmp_path / "photos").mkdir()
    for number, colour in enumerate([(200, 30, 30), (30, 200, 30), (30, 30, 200)]):
        content = encode_png(draw(colour, "disc", np.random.default_rng(number)))
        (tmp_path / "photos" / f"{number}.png").write_bytes(content)
    with open_index(tmp_path / "index", str(checkpoint_with_export), writable=True) as index:
        add_images(index, list_images([str(tmp_path / "photos")]))
        add_texts(index, TEXTS)
        expected = [hit.id for hit in index.search(texts=["red"], count=3)[0]]

    command = [sys.executable, "-c", COMMANDS + SERVER, str(tmp_path / "index"), str(tmp_path / "photos" / "0.png")]
    result = run_process(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr[-3000:]
    answers = [json.loads(line)["hits"] for line in result.stdout.splitlines() if line.startswith("{")]
    command_by_text, command_by_image, server_by_image, server_by_text = answers
    assert [hit["id"] for hit in command_by_text] == [hit["id"] for hit in server_by_text] == expected
    assert command_by_image[0]["id"] == server_by_image[0]["id"] == "0.png"
