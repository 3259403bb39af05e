"""Help texts, results of evaluations, keys of files and losses are those in tests/golden.

    ERNIE_VIL2_GOLDEN=write python -m pytest tests/test_golden.py

writes the folder anew. Users and scripts notice a difference in it: commit it separately.
"""

import contextlib
import json
import os
import re
import sqlite3
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open

from ernie_vil2.cli import COMMANDS, make_parser, run
from ernie_vil2.config import load_config
from ernie_vil2.training.run_log import read_log
from ernie_vil2.training.trainer import Trainer
from experiments.ablation import command as study
from tests.support.checkpoints import SMALLEST_MODEL, write_untrained_checkpoint
from tests.support.entailment_data import TOKENS, write_entailment_folder, write_nlvr2_folder
from tests.support.paths import ROOT
from tests.support.published_folders import write_cxc, write_karpathy
from tests.support.shapes import COLOURS

GOLDEN = ROOT / "tests" / "golden"
FIXTURE = Path("tests/fixtures/shapes")
SHOULD_WRITE = os.environ.get("ERNIE_VIL2_GOLDEN") == "write"
NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]\d+)?")
SMALL = [*SMALLEST_MODEL, "Model.text.dropout=0.0", "Data.workers=0"]
TRAINING = ["Training.steps=4", "Training.global_batch=8", "Training.log_every=1", "Training.checkpoint_every=4",
            "Schedule.warmup_steps=1", "Training.device=cpu", "Evaluation.every=4"]  # fmt: skip


def assert_golden(name, text):
    """Compare a text with a golden file: numbers with a point to a ten-thousandth, everything else exactly."""
    path = GOLDEN / name
    if SHOULD_WRITE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    golden = path.read_text(encoding="utf-8")
    assert NUMBER.sub("#", text) == NUMBER.sub("#", golden)
    numbers, expected = (list(map(float, NUMBER.findall(content))) for content in (text, golden))
    assert numbers == pytest.approx(expected, rel=1e-4, abs=1e-4)


def mask(text, *folders):
    """Replace folders, checksums and descriptions of the machine, which differ between runs."""
    if text.startswith("{"):
        record = json.loads(text)
        record |= dict.fromkeys(record.keys() & {"versions", "git", "runtime", "command", "paths"}, "...")
        text = json.dumps(record, ensure_ascii=False, indent=1)
    for folder in folders:
        text = text.replace(str(folder), "FOLDER")
    return re.sub(r"\b[0-9a-f]{32,}\b", "CHECKSUM", text)


@pytest.fixture(autouse=True)
def use_repository_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.mark.parametrize("command", [*COMMANDS, "study"])
def test_help_is_golden(command):
    name = command.replace("_", "-")
    parser = make_parser(study, "study.py") if command == "study" else make_parser(command, f"ernie-vil2 {name}")
    texts = [parser.format_help()]
    if parser._subparsers:
        for action in parser._subparsers._group_actions:
            texts += [subparser.format_help() for subparser in action.choices.values()]
    assert_golden(f"help/{command}.txt", "\n".join(texts))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Return a folder of benchmarks in their published layouts, and of untrained models for statements."""
    folder = tmp_path_factory.mktemp("published")
    write_karpathy(folder / "coco", "coco", "")
    write_cxc(folder / "coco", "val")
    write_entailment_folder(folder / "snli-ve")
    write_nlvr2_folder(folder / "nlvr2")
    for task in ("entailment", "nlvr2"):
        write_untrained_checkpoint(folder / task, TOKENS, task)
    return folder


EVALUATIONS = {
    "retrieval": ["eval", "--checkpoint", f"{FIXTURE}/model", "--data", f"{FIXTURE}/val.tar", "--language", "zh", "en",
                  "--protocol", "pairs", "first-text", "--only", "kind=disc"],
    "classes": ["eval_classification", "--checkpoint", f"{FIXTURE}/model", "--data", f"{FIXTURE}/val.tar",
                "--label", "kind"],
    "cxc": ["eval", "--checkpoint", f"{FIXTURE}/model", "--data", "PUBLISHED/coco", "--protocol", "cxc-val"],
    "entailment": ["eval", "--checkpoint", "PUBLISHED/entailment", "--data", "PUBLISHED/snli-ve",
                   "--split", "dev"],
    "nlvr2": ["eval", "--checkpoint", "PUBLISHED/nlvr2", "--data", "PUBLISHED/nlvr2", "--split", "dev"],
}  # fmt: skip


@pytest.mark.parametrize("name", EVALUATIONS)
def test_evaluation_output_is_golden(name, published, tmp_path, capsys):
    command, *arguments = [argument.replace("PUBLISHED", str(published)) for argument in EVALUATIONS[name]]
    capsys.readouterr()
    code = run(command, [*arguments, "--output", str(tmp_path), "--name", name, "--no-cache"], command)
    printed = capsys.readouterr()
    assert code == 0, printed.err
    # The table follows an empty line, which may be the first one.
    output = f"\n{printed.out}"
    table = output[output.index("\n\n") :]
    assert_golden(f"{name}/printed.txt", mask(table, tmp_path, published))
    for path in sorted(path for path in tmp_path.rglob("*") if path.suffix in (".json", ".csv", ".txt")):
        assert_golden(f"{name}/{path.name}", mask(path.read_text(encoding="utf-8"), tmp_path, published))


TRAININGS = {
    "multi_view": [*SMALL, f"Data.train=[{FIXTURE}/train.tar]", f"Data.val=[{FIXTURE}/val.tar]", "Views.resize=36",
                   "Views.languages={zh: 1.0, en: 1.0}", "Loss.duplicates=positives", "Data.text_id=id",
                   "Model.text.vocabulary=PUBLISHED/entailment/vocab.txt"],
    "entailment": [*SMALL, "Data.train=[PUBLISHED/snli-ve]", "Data.val=[PUBLISHED/snli-ve]", "Views.resize=36",
                   "Model.text.vocabulary=PUBLISHED/entailment/vocab.txt"],
    "nlvr2": [*SMALL, "Data.train=[PUBLISHED/nlvr2]", "Data.val=[PUBLISHED/nlvr2]", "Views.resize=36",
              "Model.text.vocabulary=PUBLISHED/nlvr2/vocab.txt"],
    # The student has the model of its teacher.
    "new_language": ["Data.train=[PUBLISHED/parallel.csv]", "Data.columns={caption_en: en, caption_zh: zh}",
                     "Model.like=weights", f"Model.weights={FIXTURE}/model", "Views.languages={en: 1.0}",
                     "Views.tag_probability=0",
                     "Loss.weights={image_image: 0, image_text: 0, text_image: 0, text_text: 0}"],
}  # fmt: skip


@pytest.fixture(scope="module")
def get_trained_run(published, tmp_path_factory):
    """Return a function that trains a task for four steps, once, and returns the run folder."""
    folders = {}
    pairs = [f"a {colour} square,{chinese}的方块" for colour, (_, chinese) in COLOURS.items()]
    (published / "parallel.csv").write_text("\n".join(["en,zh", *pairs]), encoding="utf-8")

    def train(task):
        if task not in folders:
            folder = tmp_path_factory.mktemp("runs") / task
            settings = [setting.replace("PUBLISHED", str(published)) for setting in TRAININGS[task]]
            settings += [*TRAINING, f"Training.task={task}", f"Training.output={folder}"]
            Trainer(load_config(None, settings)).fit()
            folders[task] = folder  # after training: a skipped run must be skipped in the next test, too
        return folders[task]

    return train


@pytest.mark.parametrize("task", TRAININGS)
def test_losses_and_keys_of_a_run_are_golden(task, get_trained_run, published):
    losses = [record["loss"] for record in read_log(get_trained_run(task) / "log.jsonl") if record["kind"] == "train"]
    assert_golden(f"losses/{task}.txt", "".join(f"{loss:.5f}\n" for loss in losses))
    assert_golden(f"keys/run-{task}.txt", mask(describe_folder(get_trained_run(task)), published))


def list_keys(value, name=""):
    """Return the paths of a tree's keys; a list has those of its first entry, and the machine's details are omitted."""
    if isinstance(value, dict) and value and not name.endswith((".runtime", ".versions")):
        paths = []
        for key, entry in value.items():
            paths += list_keys(entry, f"{name}.{key}")
        return paths
    if isinstance(value, list) and value:
        return list_keys(value[0], f"{name}[]")
    return [name]


def describe_file(path):
    """Return the keys of a file that has some."""
    if path.suffix == ".json" and "image.json" not in path.name and "text.json" not in path.name:
        return list_keys(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".jsonl":
        records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        last_records = {record["kind"]: record for record in records}
        keys = []
        for kind, record in last_records.items():
            keys += [f"{kind}{key}" for key in list_keys(record)]
        return keys
    if path.suffix == ".yaml":
        return list_keys(yaml.safe_load(path.read_text(encoding="utf-8")))
    if path.suffix == ".safetensors":
        with safe_open(path, "numpy") as file:
            return [f"{key} {file.get_slice(key).get_shape()}" for key in sorted(file.keys())]
    if path.suffix == ".sqlite":
        with contextlib.closing(sqlite3.connect(path)) as database:
            tables = [" ".join(sql.split()) for (sql,) in database.execute("SELECT sql FROM sqlite_master") if sql]
            return tables + [f"state {key}" for (key,) in database.execute("SELECT key FROM state ORDER BY key")]
    return []


def describe_folder(folder):
    """Return lines with the files of a folder and their keys."""
    lines = []
    for path in sorted(folder.rglob("*")):
        name = re.sub(r"[0-9a-f]{8}(?=[.]faiss)", "#", str(path.relative_to(folder)))
        if (path.is_dir() and not path.is_symlink()) or name == "run.lock" or "visualdl" in name:
            continue
        lines.append(name)
        lines += [f"  {key}" for key in describe_file(path)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("target", ["paddle-inference", "onnx"])
def test_keys_of_an_export_are_golden(target, tmp_path):
    arguments = [f"{FIXTURE}/model", str(tmp_path / "made"), "--to", target, "--data", f"{FIXTURE}/val.tar"]
    assert run("export", arguments, "export") == 0
    assert_golden(f"keys/export-{target}.txt", describe_folder(tmp_path / "made"))


@pytest.mark.parametrize("index_type", ["exact", "ivf"])
def test_keys_of_an_index_are_golden(index_type, tmp_path):
    arguments = ["build", "--index", str(tmp_path / "made"), "--checkpoint", f"{FIXTURE}/model",
                 "--index-type", index_type, "--data", f"{FIXTURE}/val.tar",
                 "--texts", f"{FIXTURE}/val.tar"]  # fmt: skip
    assert run("search", arguments, "search") == 0
    assert_golden(f"keys/index-{index_type}.txt", describe_folder(tmp_path / "made"))
