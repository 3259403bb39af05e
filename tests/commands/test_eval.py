"""The eval command checks benchmarks by protocol, and writes the best answers of a model."""

import csv
import json

import numpy as np
import pytest

from ernie_vil2 import cli as commands
from tests.support.commands import call
from tests.support.published_files import write_clip_files, write_files
from tests.support.shapes import COLOURS, SHAPES, draw, encode_png


def write_flickr(folder, shapes=("disc", "square")):
    """Write a folder in the layout of Flickr30K with a test image of two texts for each shape."""
    images, files = [], {}
    for number, shape in enumerate(shapes):
        sentence = {"raw": f"a red {shape}", "imgid": number}
        sentences = [sentence | {"sentid": 2 * number}, sentence | {"sentid": 2 * number + 1}]
        images.append({"filename": f"{number}.png", "split": "test", "imgid": number, "sentences": sentences})
        files[f"flickr30k-images/{number}.png"] = encode_png(draw((200, 30, 30), shape, np.random.default_rng(number)))
    return write_files(folder, files | {"dataset_flickr30k.json": {"images": images}})


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def evaluate(*arguments):
    return commands.run("eval", [*map(str, arguments), "--device", "cpu"])


def test_check_compares_with_every_protocol(tmp_path, capsys):
    data = write_flickr(tmp_path / "flickr30k")
    assert evaluate("--check", "--data", data, "--protocol", "all-conventions") == 0
    text = capsys.readouterr().out
    for line in ("pairs: 2 images, 4 texts", "first-text: 2 images, 2 texts", "official-rows: 2 images"):
        assert f"protocol {line}" in text
    assert evaluate("--check", "--data", data, "--protocol", "first-text", "flickr30k-test") == 1
    assert "flickr30k-test expects 1,000 images" in capsys.readouterr().out
    assert evaluate("--check", "--data", data, "--protocol", "flickr30k-tset") == 2
    assert "did you mean flickr30k-test" in capsys.readouterr().err


def test_top_k_writes_answers_and_muges_submission(tmp_path, model, capsys):
    random = np.random.default_rng(0)
    images = {1000 + n: encode_png(draw(rgb, "disc", random)) for n, (rgb, _) in enumerate(COLOURS.values())}
    texts = [(7 + n, f"a {colour} disc", []) for n, colour in enumerate(COLOURS)]
    data = write_clip_files(tmp_path / "MUGE", "test", images, texts).parent
    arguments = ["--checkpoint", model, "--data", data, "--split", "test", "--output", tmp_path]
    arguments += ["--protocol", "muge-val"]
    assert evaluate(*arguments) == 2
    assert "--top-k 10" in capsys.readouterr().err
    assert evaluate(*arguments, "--top-k", 3) == 0
    name = f"{tmp_path.name}-MUGE-test-muge-val"
    answers = read_lines(tmp_path / f"{name}.answers.jsonl")
    predictions = read_lines(tmp_path / f"{name}.predictions.jsonl")
    assert [entry["text_id"] for entry in predictions] == [7, 8, 9, 10]
    for entry, prediction in zip(answers, predictions, strict=True):
        assert (entry["direction"], entry["query_id"]) == ("text_to_image", str(prediction["text_id"]))
        scores = [answer["score"] for answer in entry["answers"]]
        assert scores == sorted(scores, reverse=True) and len(set(prediction["image_ids"])) == 3
        assert [str(name) for name in prediction["image_ids"]] == [answer["id"] for answer in entry["answers"]]
        assert set(prediction["image_ids"]) <= set(images)
    # There is nothing by which models could be compared.
    arguments[:2] = [model, f"second={model}"]
    result = call("compare", *arguments, "--option", "top_k=3", "--device", "cpu")
    assert result.returncode == 2 and "no others can be compared" in result.stderr


def test_top_k_answers_agree_with_the_ranks(tmp_path, model):
    data = write_flickr(tmp_path / "flickr30k", SHAPES)
    assert evaluate("--checkpoint", model, "--data", data, "--top-k", 10, "--output", tmp_path, "--name", "x") == 0
    lines = read_lines(tmp_path / "x.answers.jsonl")
    answers_of = {(line["direction"], line["query_id"]): line["answers"] for line in lines}
    ranks = list(csv.DictReader((tmp_path / "x.csv").read_text().splitlines()))
    assert len(lines) == len(ranks) == 4 + 8
    for row in ranks:
        answers = answers_of[row["direction"], row["query_id"]]
        gallery_size = 8 if row["direction"] == "image_to_text" else 4  # fewer than the ten that are asked for
        assert len(answers) == gallery_size
        assert answers[0]["id"] == row["top_id"] and answers[0]["score"] == pytest.approx(float(row["top_score"]))
        assert row["best_positive_id"] in [answer["id"] for answer in answers]
    # Chinese-CLIP's evaluation reads integers only.
    for prediction in read_lines(tmp_path / "x.predictions.jsonl"):
        assert type(prediction["text_id"]) is int and all(type(number) is int for number in prediction["image_ids"])
        answers = answers_of["text_to_image", prediction.get("name", str(prediction["text_id"]))]
        assert prediction["image_names"] == [answer["id"] for answer in answers]
