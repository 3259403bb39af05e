"""Scoring statements from the command line, in the published files' form."""

import csv
import json

import pytest

from ernie_vil2 import cli as commands
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.entailment_data import TOKENS, write_entailment_folder, write_nlvr2_folder
from tests.support.html_pages import Page

TASKS = {"entailment": (write_entailment_folder, "test", 48), "nlvr2": (write_nlvr2_folder, "test1", 64)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """For each task the folder of its data and a checkpoint."""
    found = {}
    for task, (make, _, _) in TASKS.items():
        folder = tmp_path_factory.mktemp(task)
        found[task] = make(folder / "data"), write_untrained_checkpoint(folder / "model", TOKENS, task)
    return found


@pytest.fixture
def score(made, tmp_path, capsys):
    """`score(task, *arguments)`: exit code, standard output and error."""

    def score(task, *arguments):
        data, checkpoint = made[task]
        given = ["--checkpoint", checkpoint, "--data", data, "--output", tmp_path, "--device", "cpu"]
        code = commands.run("eval", list(map(str, [*given, *arguments])))
        return code, *capsys.readouterr()

    return score


@pytest.mark.parametrize("task", TASKS)
def test_what_is_written_is_one(score, tmp_path, task):
    _, split, count = TASKS[task]
    code, printed, _ = score(task, "--split", split, "--name", "result")
    assert code == 0
    record = json.loads((tmp_path / "result.json").read_text())
    predictions = list(csv.DictReader((tmp_path / "result.csv").read_text().splitlines()))
    assert record["scored"] == len(predictions) == count == sum(map(sum, record["confusion"]))
    right = [row["predicted"] == row["label"] for row in predictions]
    assert record["values"]["accuracy"] == pytest.approx(100 * sum(right) / count)
    assert f"{record['values']['accuracy']:.2f}" in printed
    page = Page((tmp_path / "result.html").read_text())
    shown = " ".join(page.text)
    assert len(page.find_all("img")) >= 12 * (2 if task == "nlvr2" else 1)
    wrong = [row for row in predictions if row["predicted"] != row["label"]]
    surest = min(wrong, key=lambda row: float(row[f"probability of {row['label']}"]))
    assert surest["id"] in shown and surest["text"] in shown
    if task == "nlvr2":
        assert record["values"]["consistency"] == pytest.approx(official_consistency(predictions))
        assert {"accuracy/balanced", "accuracy/unbalanced"} <= record["values"].keys()


def official_consistency(predictions):
    """As NLVR2's metrics.py computes it: the identifier without the pair is the sentence's."""
    consistent = {}
    for row in predictions:
        split, number, _, sentence = row["id"].split("-")
        key = split, number, sentence
        consistent[key] = consistent.get(key, True) and row["predicted"].lower() == row["label"].lower()
    return 100 * sum(consistent.values()) / len(consistent)


def test_models_that_predict_other_labels_are_refused(score, made, tmp_path):
    for checkpoint in (made["nlvr2"][1], write_untrained_checkpoint(tmp_path / "plain", TOKENS)):
        code, _, printed = score("entailment", "--checkpoint", checkpoint)
        assert code == 2 and printed.startswith("error: ") and str(checkpoint) in printed


def test_statements_without_an_image_are_left_out_and_counted(score, made, tmp_path):
    data = write_entailment_folder(tmp_path / "data")
    (data / "flickr30k-images" / "2003.jpg").unlink()
    (data / "flickr30k-images" / "2005.jpg").write_bytes(b"\x89PNG\r\n\x1a\n")
    with (data / "snli_ve_test.jsonl").open("a") as file:
        file.write('{"Flikr30kID": "2000", "sentence2": "a", "gold_label": "-"}\n')
    code, printed, _ = score("entailment", "--data", data, "--split", "test")
    assert code == 0 and "snli-ve test: 42 of 48 statements scored" in printed
    for reason in ("(snli_ve_test.jsonl:49)", "missing image: 1 (2003)", "broken image: 1 (2005)"):
        assert reason in printed


@pytest.mark.parametrize("task", TASKS)
def test_check_compares_with_the_published_counts(made, capsys, task):
    data = made[task][0]
    assert commands.run("eval", ["--check", "--data", str(data)]) == 1
    printed = capsys.readouterr().out
    line = {"entailment": "snli-ve train has 176,932 entailment", "nlvr2": "nlvr2 test1 has 6,967 statements"}[task]
    assert line in printed and "occur in train" not in printed


def test_check_finds_what_a_split_shares_with_train(tmp_path, capsys):
    data = write_entailment_folder(tmp_path / "snli")
    lines = (data / "snli_ve_train.jsonl").read_text().splitlines(keepends=True)
    with (data / "snli_ve_test.jsonl").open("a") as file:
        file.write(lines[0])
    commands.run("eval", ["--check", "--data", str(data)])
    assert "images of test that occur in train: 1 (0)" in capsys.readouterr().out

    data = write_nlvr2_folder(tmp_path / "nlvr2")
    path = data / "data" / "dev.json"
    path.write_text(path.read_text().replace("https://example.com/dev-0-0-left", "https://example.com/train-3-0-right"))
    commands.run("eval", ["--check", "--data", str(data)])
    assert "images of dev that occur in train: 1 (https://example.com/train-3-0-right)" in capsys.readouterr().out
