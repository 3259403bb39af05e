"""`eval_retrieval`: what it shares with `eval`, and what it scores whatever the layout of the data."""

import json

import numpy as np
import pytest

from ernie_vil2 import cli as commands
from tests.support.published_files import write_files
from tests.support.shapes import draw, encode_png


def score(command, *arguments):
    return commands.run(command, [*map(str, arguments), "--device", "cpu"])


def test_both_commands_write_the_same_result(model, shapes, tmp_path):
    arguments = ["--checkpoint", model, "--data", shapes["val"], "--language", "en", "--name", "scores", "--protocol"]
    arguments += ["pairs", "first-text", "--only", "kind=disc", "--top-k", 3, "--no-cache", "--output"]
    for command in ("eval", "eval_retrieval"):
        assert score(command, *arguments, tmp_path / command) == 0
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / command).iterdir()}
        for command in ("eval", "eval_retrieval")
    )
    record, other = json.loads(first.pop("scores.json")), json.loads(second.pop("scores.json"))
    assert record["results"] == other["results"] and first == second
    assert len([name for name in first if name.endswith(".html")]) == 2  # a page for each protocol


def test_recall_is_that_of_the_embeddings(tmp_path):
    """Three pairs on three axes: each text finds its image but for the two that are exchanged."""
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


def test_a_folder_of_classes_is_not_classified(model, tmp_path, capsys):
    for name in ("bar", "disc"):
        write_files(
            tmp_path / "classes", {f"{name}/0.png": encode_png(draw((9, 9, 9), name, np.random.default_rng(0)))}
        )
    arguments = ["--checkpoint", model, "--data", tmp_path / "classes", "--output", tmp_path / "out"]
    assert score("eval_retrieval", *arguments) == 2
    assert "classes" in capsys.readouterr().err and not (tmp_path / "out").exists()
