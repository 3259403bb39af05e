"""The eval-retrieval command writes the same results as eval, and scores retrieval whatever the layout of the data."""

import json

import numpy as np
import pytest

from ernie_vil2 import cli as commands
from ernie_vil2.evaluation.embedding_files import write_numpy
from tests.support.embedded_pairs import make_encoded_benchmark
from tests.support.published_files import write_files
from tests.support.shapes import draw, encode_png


def score(command, *arguments):
    return commands.run(command, [*map(str, arguments), "--device", "cpu"])


def test_both_commands_write_the_same_result(model, shapes, tmp_path):
    arguments = ["--checkpoint", model, "--data", shapes["val"], "--language", "en", "--name", "scores", "--protocol"]
    arguments += ["pairs", "first-text", "--only", "kind=disc", "--top-k", 3, "--no-cache", "--output"]
    results, files = [], []
    for command in ("eval", "eval_retrieval"):
        assert score(command, *arguments, tmp_path / command) == 0
        contents = {path.name: path.read_bytes() for path in (tmp_path / command).iterdir()}
        # The records also describe the run, so only their results are compared.
        results.append(json.loads(contents.pop("scores.json"))["results"])
        files.append(contents)
    assert results[0] == results[1] and files[0] == files[1]
    assert len([name for name in files[0] if name.endswith(".html")]) == 2  # a page for each protocol


def test_recall_is_that_of_the_embeddings(tmp_path):
    # Three pairs on three axes: of the three texts, two are exchanged and do not find their images.
    axes = np.eye(3, dtype=np.float32)
    np.save(tmp_path / "image_embeddings.npy", axes)
    np.save(tmp_path / "text_embeddings.npy", axes[[1, 0, 2]])
    rows = {
        "images": [{"image_id": row} for row in range(3)],
        "texts": [{"text_id": row, "text": f"text {row}"} for row in range(3)],
        "pairs": [{"image_id": row, "text_id": row} for row in range(3)],
    }
    for name, entries in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert score("eval_retrieval", "--embeddings", tmp_path, "--output", tmp_path / "out", "--name", "scores") == 0
    result = json.loads((tmp_path / "out" / "scores.json").read_text())["results"]["model"]["result"]
    for direction in ("image_to_text", "text_to_image"):
        assert result[direction]["R@1"] == pytest.approx(100 / 3)


@pytest.mark.parametrize("option", [
    ["--width", 8], ["--check"], ["--language", "zh"], ["--text-id", "id"], ["--caption-lines"],
])  # fmt: skip
def test_embeddings_refuse_options_of_models_and_data(tmp_path, capsys, option):
    write_numpy(tmp_path / "embeddings", make_encoded_benchmark())
    arguments = ["--embeddings", tmp_path / "embeddings", "--output", tmp_path / "out"]
    assert score("eval_retrieval", *arguments, *option) == 2
    assert option[0] in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_folder_of_classes_is_refused(model, tmp_path, capsys):
    for name in ("bar", "disc"):
        write_files(
            tmp_path / "classes", {f"{name}/0.png": encode_png(draw((9, 9, 9), name, np.random.default_rng(0)))}
        )
    arguments = ["--checkpoint", model, "--data", tmp_path / "classes", "--output", tmp_path / "out"]
    assert score("eval_retrieval", *arguments) == 2
    assert "classes" in capsys.readouterr().err and not (tmp_path / "out").exists()
