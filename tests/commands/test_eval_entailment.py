"""The eval command scores statements about images, in the form of the published files."""

import csv
import json

import pytest

from ernie_vil2 import cli as commands
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.entailment_data import TOKENS, write_entailment_folder, write_nlvr2_folder
from tests.support.html_pages import Page

TASKS = {"entailment": (write_entailment_folder, "test", 48), "nlvr2": (write_nlvr2_folder, "test1", 64)}


@pytest.fixture(scope="module")
def task_inputs(tmp_path_factory):
    """Return the folder of the data and a checkpoint of each task."""
    inputs = {}
    for task, (make_data, _, _) in TASKS.items():
        folder = tmp_path_factory.mktemp(task)
        inputs[task] = make_data(folder / "data"), write_untrained_checkpoint(folder / "model", TOKENS, task)
    return inputs


@pytest.fixture
def evaluate(task_inputs, tmp_path, capsys):
    """Return a function that evaluates a task, and returns exit code, standard output and standard error."""

    def evaluate(task, *arguments, data=None):
        own_data, checkpoint = task_inputs[task]
        options = ["--checkpoint", checkpoint, "--data", data or own_data, "--output", tmp_path, "--device", "cpu"]
        code = commands.run("eval", list(map(str, [*options, *arguments])))
        return code, *capsys.readouterr()

    return evaluate


@pytest.mark.parametrize("task", TASKS)
def test_record_csv_and_page_agree(evaluate, tmp_path, task):
    _, split, count = TASKS[task]
    code, printed, _ = evaluate(task, "--split", split, "--name", "result")
    assert code == 0
    record = json.loads((tmp_path / "result.json").read_text())
    predictions = list(csv.DictReader((tmp_path / "result.csv").read_text().splitlines()))
    assert record["scored"] == len(predictions) == count == sum(map(sum, record["confusion"]))
    num_right = sum(row["predicted"] == row["label"] for row in predictions)
    assert record["values"]["accuracy"] == pytest.approx(100 * num_right / count)
    assert f"{record['values']['accuracy']:.2f}" in printed
    page = Page((tmp_path / "result.html").read_text())
    page_text = " ".join(page.text)
    images_per_statement = 2 if task == "nlvr2" else 1
    assert len(page.find_all("img")) >= 12 * images_per_statement
    # The page shows the most confident mistake.
    wrong = [row for row in predictions if row["predicted"] != row["label"]]
    surest = min(wrong, key=lambda row: float(row[f"probability of {row['label']}"]))
    assert surest["id"] in page_text and surest["text"] in page_text
    if task == "nlvr2":
        assert record["values"]["consistency"] == pytest.approx(compute_official_consistency(predictions))
        assert {"accuracy/balanced", "accuracy/unbalanced"} <= record["values"].keys()


def compute_official_consistency(predictions):
    """Return consistency as NLVR2's metrics.py does: an identifier without its pair of images is that of a sentence."""
    consistent = {}
    for row in predictions:
        split, number, _, sentence = row["id"].split("-")
        key = split, number, sentence
        consistent[key] = consistent.get(key, True) and row["predicted"].lower() == row["label"].lower()
    return 100 * sum(consistent.values()) / len(consistent)


def test_models_with_other_labels_are_refused(evaluate, task_inputs, tmp_path):
    for checkpoint in (task_inputs["nlvr2"][1], write_untrained_checkpoint(tmp_path / "plain", TOKENS)):
        code, _, printed = evaluate("entailment", "--checkpoint", checkpoint)
        assert code == 2 and printed.startswith("error: ") and str(checkpoint) in printed


def test_statements_without_an_image_are_counted(evaluate, task_inputs, tmp_path):
    data = write_entailment_folder(tmp_path / "data")
    (data / "flickr30k-images" / "2003.jpg").unlink()
    (data / "flickr30k-images" / "2005.jpg").write_bytes(b"\x89PNG\r\n\x1a\n")
    with (data / "snli_ve_test.jsonl").open("a") as file:
        file.write('{"Flikr30kID": "2000", "sentence2": "a", "gold_label": "-"}\n')
    code, printed, _ = evaluate("entailment", "--split", "test", data=data)
    assert code == 0 and "snli-ve test: 42 of 48 statements scored" in printed
    for reason in ("(snli_ve_test.jsonl:49)", "missing image: 1 (2003)", "broken image: 1 (2005)"):
        assert reason in printed


@pytest.mark.parametrize("task", TASKS)
def test_check_compares_with_the_published_counts(task_inputs, capsys, task):
    data = task_inputs[task][0]
    assert commands.run("eval", ["--check", "--data", str(data)]) == 1
    printed = capsys.readouterr().out
    line = {"entailment": "snli-ve train has 176,932 entailment", "nlvr2": "nlvr2 test1 has 6,967 statements"}[task]
    assert line in printed and "occur in train" not in printed


def test_check_finds_statements_shared_with_train(tmp_path, capsys):
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
