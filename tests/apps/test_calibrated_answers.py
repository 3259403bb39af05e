"""Search and tagging with the thresholds of a calibration."""

import dataclasses
import json

import numpy as np
import pytest

from ernie_vil2 import load_model
from ernie_vil2.apps.search import open_index
from ernie_vil2.cli import run
from ernie_vil2.io.calibration import DIRECTIONS, Threshold, write_calibration
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.shapes import SPECIAL_TOKENS


@pytest.fixture
def checkpoint(tmp_path):
    return write_untrained_checkpoint(tmp_path / "model", [*SPECIAL_TOKENS, "a", "red"])


@pytest.mark.thorough
def test_search_and_tagging_use_calibrated_thresholds(tmp_path, shapes, checkpoint, capsys):
    words, output = tmp_path / "tags.txt", tmp_path / "tags.jsonl"
    words.write_text("red\na\n")
    index, data, model = str(tmp_path / "index"), str(shapes["val"]), ["--checkpoint", str(checkpoint)]
    # Images that have the words of a query are found whatever their cosine is.
    query = ["query", "--index", index, "red", "--no-words", "--threshold", "calibrated"]
    tag = ["lexicon", data, *model, "--words", f"en={words}", "--threshold", "calibrated", "--output"]
    assert run("search", ["build", "--index", index, *model, "--data", data, "--texts", str(words)]) == 0
    for command, arguments in (("search", query), ("tag", [*tag, str(output)])):
        assert run(command, arguments) == 2
        assert "has no calibration" in capsys.readouterr().err

    assert run("calibrate", [*model, "--data", data, "--language", "en"]) == 0
    calibration = load_model(checkpoint).calibration
    with open_index(index) as index_reader:
        threshold = index_reader.threshold("image_to_text")
        (tags,) = index_reader.tags([np.zeros((32, 32, 3), np.uint8)])
        assert threshold == calibration.thresholds["image_to_text"].cosine and all(
            hit.score >= threshold for hit in tags
        )
    for command, arguments, direction in (
        ("search", query, "text_to_image"), ("tag", [*tag, str(output)], "image_to_text"),
    ):  # fmt: skip
        assert run(command, arguments) == 0
        assert calibration.describe(direction) in capsys.readouterr().out

    # No cosine reaches 1.05, so that neither command answers anything.
    thresholds = {direction: Threshold(1.05, 0.0, 0.0, 100.0) for direction in DIRECTIONS}
    write_calibration(dataclasses.replace(calibration, thresholds=thresholds), checkpoint)
    assert run("search", query) == 0 and "close enough" in capsys.readouterr().out
    assert run("tag", [*tag, str(tmp_path / "none.jsonl")]) == 0
    assert not any("tags_en" in json.loads(line) for line in (tmp_path / "none.jsonl").read_text().splitlines())
