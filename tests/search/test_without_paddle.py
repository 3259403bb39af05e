"""An index whose model has an ONNX export is queried and served where Paddle is not installed."""

import json
import sys

import numpy as np
import pytest

from ernie_vil2.encoder import load_model
from ernie_vil2.export import export
from ernie_vil2.search import open_index
from ernie_vil2.search.fill import add_images, add_texts, images_in
from tests.support.limits import PATIENCE
from tests.support.paths import ROOT
from tests.support.shapes import draw, png

WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("paddle", "paddlenlp", "paddleclas", "scipy", "sklearn", "visualdl", "onnx"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""


@pytest.fixture(scope="module", params=["the export", "a checkpoint that has it"])
def built(request, tmp_path_factory, checkpoint):
    folder = tmp_path_factory.mktemp("without")
    weights = checkpoint.parent if checkpoint.is_file() else checkpoint
    target = folder / "export" if request.param == "the export" else weights / "onnx-float32"
    model = load_model(checkpoint)
    if not target.exists():
        images = [np.full([32, 32, 3], 40 * n, np.uint8) for n in range(4)]
        export(model, target, "onnx", "float32", images, ["red", "a green disc", "bar", "cross"], "test")
    source = target if request.param == "the export" else weights
    with open_index(folder / "index", str(source), writable=True) as index:
        (folder / "photos").mkdir()
        for number, colour in enumerate([(200, 30, 30), (30, 200, 30), (30, 30, 200)]):
            content = png(draw(colour, "disc", np.random.default_rng(number)))
            (folder / "photos" / f"{number}.png").write_bytes(content)
        add_images(index, images_in([str(folder / "photos")]))
        add_texts(index, ["red disc", "green square"])
        expected = [hit.id for hit in index.search(texts=["red"], count=3)[0]]
    return folder, expected


def run(script, *arguments):
    command = [sys.executable, "-c", WITHOUT + script, *map(str, arguments)]
    done = run_process(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_command_answers(built):
    folder, expected = built
    script = "from ernie_vil2.cli import run; sys.exit(run('search', sys.argv[1:]))"
    line = run(script, "query", "--index", folder / "index", "--json", "red", "--image", folder / "photos" / "0.png")
    first, second = map(json.loads, line.splitlines())
    assert [hit["id"] for hit in first["hits"]] == expected and second["hits"][0]["id"] == "0.png"
    assert "no damage found" in run(script, "check", "--index", folder / "index")


def test_the_server_answers(built):
    folder, expected = built
    answer = run(
        "from fastapi.testclient import TestClient\n"
        "from ernie_vil2.search import open_index, server\n"
        "from ernie_vil2.search.service import build_app\n"
        "index = open_index(sys.argv[1])\n"
        "client = TestClient(build_app(index, writable=True))\n"
        "sent = client.post('/api/v1/search/image', content=open(sys.argv[2], 'rb').read()).json()\n"
        "assert sent['hits'][0]['id'] == '0.png' and 'paddle' not in sys.modules, sent\n"
        "print(client.get('/api/v1/search?q=red').text)\n",
        folder / "index",
        folder / "photos" / "0.png",
    )
    assert [hit["id"] for hit in json.loads(answer)["hits"]] == expected
