"""The blocks of docs/extending.md are run, and what they define is used."""

import csv
import json
import math
import os
import re
import sys
import types
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from ernie_vil2 import cli, losses, tasks
from ernie_vil2.config import load_config
from ernie_vil2.data.readers import LAYOUTS, open_sources
from ernie_vil2.evaluation.scorer import SCORERS, make_scorer
from ernie_vil2.io.run_folder import MODEL, list_checkpoints
from ernie_vil2.losses import MultiViewLoss, build_loss
from ernie_vil2.models import build_image_tower
from ernie_vil2.search import index_types
from ernie_vil2.tasks import build_task
from ernie_vil2.training.run_log import read_log
from ernie_vil2.training.trainer import Trainer
from tests.support.html_pages import lines_of
from tests.support.processes import run_process
from tests.support.ranks import forked_ranks, train

SMALL = [
    "Model.image={name: ViT, image_size: 32, patch_size: 16, width: 32, depth: 1, heads: 1}",
    "Model.text={name: ernie, width: 32, depth: 1, heads: 1, max_positions: 16}", "Data.max_length=16",
    "Data.workers=0", "Views.languages={en: 1.0}", "Schedule.warmup_steps=1", "Training.steps=2",
    "Training.global_batch=8",
]  # fmt: skip
PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
FIXTURE = Path(__file__).parent / "fixtures" / "shapes"


def blocks():
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture(scope="module")
def parts():
    """What the page defines; the registries are as before afterwards."""
    registries = [losses.PAIR_LOSSES, LAYOUTS, tasks.TASKS, SCORERS, index_types.INDEX_TYPES]
    before = [dict(registry) for registry in registries]
    module = types.ModuleType("my_parts")
    assert len(blocks()) == 6
    for block in blocks():
        exec(compile(block, str(PAGE), "exec"), vars(module))  # noqa: S102  -- code of our own pages
    sys.modules["my_parts"] = module
    yield module
    del sys.modules["my_parts"]
    for registry, names in zip(registries, before, strict=True):
        registry.clear()
        registry.update(names)


def test_the_tower(parts):
    config = load_config(None, ["Model.image={name: 'my_parts:MeanColour', width: 8}"]).Model.image
    assert build_image_tower(config)(paddle.zeros([2, 3, 4, 4])).shape == [2, 8]


def test_the_loss(parts):
    views = {"image_1": paddle.eye(3), "text_1": paddle.eye(3)[[1, 0, 2]]}
    total, _ = MultiViewLoss({"image_text": 1.0}, kind="squared_distance")(views, views, {})
    assert float(total) == pytest.approx(4 / 3)
    both = {"image_text": 1.0, "text_image": 1.0}
    total, _ = MultiViewLoss(both, kind="my_parts:SquaredDistance", options={"factor": 0.5})(views, views, {})
    assert float(total) == pytest.approx(4 / 3)


def run(shapes, tmp_path, *changes):
    output = f"Training.output={tmp_path / 'run'}"
    return Trainer(load_config(None, [*SMALL, f"Data.train=[{shapes['train']}]", output, *changes]))


def test_the_task(parts, shapes, tmp_path):
    trainer = run(shapes, tmp_path, "Training.task=image_tower_only")
    before = {name: value.numpy().copy() for name, value in trainer.model.named_parameters()}
    trainer.fit()
    changed = {name for name, value in trainer.model.named_parameters() if (value.numpy() != before[name]).any()}
    assert changed and all(name.startswith("image.") for name in changed)


def test_the_scorer_in_training(parts, shapes, tmp_path, capsys):
    """Its metrics, of names that nothing else knows, are in the log, the curves, the terminal and the checkpoint."""
    trainer = run(shapes, tmp_path, "Evaluation.evaluators=[{margin: {scale: 9}}, retrieval]", "Evaluation.every=1",
                  "Evaluation.at_start=true", f"Data.val=[{shapes['val']}]")  # fmt: skip
    assert trainer.scores.evaluators["margin"].scorer.scale == 9
    assert trainer.fit() and not trainer.best_effort.failures
    records = [record for record in read_log(trainer.run / "log.jsonl") if record["kind"] == "evaluation"]
    assert [(record["step"], record["evaluator"]) for record in records] == [
        (step, name) for step in (0, 1, 2) for name in ("margin", "retrieval")
    ]
    margins = [record["metrics"]["margin"] for record in records[::2]]
    best = 1 + margins[1:].index(max(margins[1:]))
    assert trainer.best == {"step": best, "metric": "margin", "value": margins[best]}
    page = (trainer.run / "curves.html").read_text(encoding="utf-8")
    assert [len(line) for line in lines_of(page, "Margin over time")] == [3, 3]
    assert f"margin {margins[2]:.4g}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["margin", "my_parts:Margin"])
def test_the_scorer_from_the_command_line(parts, tmp_path, capsys, name):
    arguments = [
        "--checkpoint",
        f"{FIXTURE}/model",
        "--data",
        f"{FIXTURE}/val.tar",
        "--output",
        str(tmp_path),
        "--name",
        "a",
    ]
    assert cli.run("eval", [*arguments, "--no-cache", "--scorer", name, "--option", "scale=100"]) == 0
    metrics = json.loads((tmp_path / "a.json").read_text())["metrics"]
    rows = list(csv.DictReader((tmp_path / "a.csv").open(newline="")))
    for language in ("zh", "en"):
        own = [float(row["margin"]) for row in rows if row["language"] == language]
        assert metrics[f"{language}/margin"] == pytest.approx(np.mean(own), rel=1e-5)
    printed = capsys.readouterr().out
    assert f"{metrics['margin']:.2f}" in printed and f"{metrics['margin']:.2f}" in (tmp_path / "a.html").read_text()
    unnamed = [argument for argument in arguments if argument not in ("--name", "a")]
    assert cli.run("eval", [*unnamed, "--no-cache"]) == cli.run("eval", [*unnamed, "--no-cache", "--scorer", name]) == 0
    written = {path.stem for path in tmp_path.glob("*.json")}
    assert len(written) == 3 and any(stem.endswith(f"-{name.rpartition(':')[2]}") for stem in written)  # none replaced
    assert cli.run("eval", [*arguments, "--scorer", name, "--option", "size=1"]) == 2
    assert "size: no such option; known: scale" in capsys.readouterr().err


def test_the_index_type(parts, tmp_path):
    rows = np.eye(5, dtype=np.float16)
    built = index_types.INDEX_TYPES["rounded"].build(rows, lambda: rows, 1.0, tmp_path, print)
    assert built.candidates(np.eye(5, dtype=np.float32)[:2], 1).tolist() == [[0], [1]]


def test_a_loss_and_a_dataset_from_the_command_line_alone(shapes, tmp_path):
    """Neither a script nor a change to the package: by import path, and by names that an imported module registers."""
    (tmp_path / "my_parts.py").write_text("\n".join(blocks()), encoding="utf-8")
    lines = [f"{number:02x}{number:02x}ff\ta shade {number}\n" for number in range(16)]
    (tmp_path / "train.colours").write_text("".join(lines), encoding="utf-8")
    arguments, losses = [f"-o{setting}" for setting in (*SMALL, f"Data.train=[{tmp_path / 'train.colours'}]")], []
    for kind, factor in (("my_parts:SquaredDistance", 1), ("squared_distance", 2)):
        output = tmp_path / kind[-16:].replace(":", "_")
        command = [sys.executable, "tools/train.py", "--import", "my_parts", *arguments, f"-oLoss.kind={kind}",
                   f"-oLoss.options={{factor: {factor}}}", "-oTraining.log_every=1",
                   f"-oTraining.output={output}"]  # fmt: skip
        path = os.pathsep.join([str(tmp_path), str(PAGE.parents[1])])
        done = run_process(command, env=os.environ | {"PYTHONPATH": path}, cwd=PAGE.parents[1], text=True,
                              capture_output=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        first, second = (record for record in read_log(output / "log.jsonl") if record["kind"] == "train")
        assert (first["step"], second["step"]) == (1, 2)
        losses.append(first["loss"] / factor)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


ROWS_ALONE = """
class RowsAlone(SquaredDistance):
    def __call__(self, rows, columns, scalars, offset, row_ids, column_ids):
        return super().__call__(rows, columns.detach(), scalars, offset, row_ids, column_ids)
"""
"""A loss that leaves more unused than the temperature: all of the tower of the columns."""


def train_with(folder, overrides):
    """As a rank: a whole run with the modules of a folder."""
    sys.path.insert(0, str(folder))
    train(overrides)


@pytest.mark.parametrize("micro_batch", ["null", 3])
@pytest.mark.parametrize("kind", ["SquaredDistance", "RowsAlone"])
def test_a_loss_trains_on_two_ranks_as_on_one(shapes, tmp_path, monkeypatch, kind, micro_batch):
    """Although no gradient reaches the temperature, whose parameter data parallel waits for."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "parts_of_ranks.py").write_text("\n".join(blocks()) + ROWS_ALONE, encoding="utf-8")
    settings = [*SMALL, f"Data.train=[{shapes['train']}]", "Loss.kind=parts_of_ranks:" + kind, "Training.steps=3",
                "Loss.weights={image_image: 0, text_text: 0, text_image: 0}", "Optimizer.learning_rate=1e-3",
                f"Training.micro_batch={micro_batch}", "Training.device=cpu"]  # fmt: skip
    forked_ranks(train_with, folder, [*settings, f"Training.output={tmp_path / 'ranks'}"])
    monkeypatch.syspath_prepend(folder)
    train([*settings, f"Training.output={tmp_path / 'alone'}"])
    of_one, of_ranks = (load_file(list_checkpoints(tmp_path / name)[-1] / MODEL) for name in ("alone", "ranks"))
    assert of_one.keys() == of_ranks.keys()
    for name, value in of_one.items():
        np.testing.assert_allclose(of_ranks[name], value, rtol=2e-3, atol=2e-5, err_msg=name)
    assert of_one["log_logit_scale"] == pytest.approx([-math.log(0.07)])  # it stays where it began


@pytest.mark.parametrize("workers", [0, 1])
def test_a_field_of_a_sample_that_is_forgotten_is_named(tmp_path, workers):
    """In a sentence, whichever process reads: no traceback."""
    forgetful = blocks()[2].replace("text_name=caption, ", "")
    assert forgetful != blocks()[2]
    (tmp_path / "my_parts.py").write_text(forgetful, encoding="utf-8")
    (tmp_path / "train.colours").write_text("0000ff\ta shade\n" * 8, encoding="utf-8")
    settings = [*SMALL, f"Data.train=[{tmp_path / 'train.colours'}]", f"Training.output={tmp_path / 'run'}"]
    command = [sys.executable, "tools/train.py", "--import", "my_parts", *(f"-o{setting}" for setting in settings),
               f"-oData.workers={workers}"]  # fmt: skip
    path = os.pathsep.join([str(tmp_path), str(PAGE.parents[1])])
    done = run_process(command, env=os.environ | {"PYTHONPATH": path}, cwd=PAGE.parents[1], text=True,
                          capture_output=True)  # fmt: skip
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.search(rf"{tmp_path}/train.colours, \d: my_parts.Colours raised TypeError: ", line)
    assert "missing 1 required positional argument: 'text_name'; docs/extending.md" in line


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("Loss.kind=squared_distanse", "there is no loss 'squared_distanse'; did you mean squared_distance"),
        ("Training.task=fine_tuning", "Training.task: there is no task 'fine_tuning'; known: multi_view"),
        ("Evaluation.evaluators=[recall]", "Evaluation.evaluators: there is no scorer 'recall'; known: retrieval"),
        ("Evaluation.evaluators=[{margin: {size: 1}}]", "evaluators: margin: size: no such option; known: scale"),
        ("Loss.options={margin: 1}", "Loss.options does not fit Loss.kind=info_nce: .* unexpected .* 'margin'"),
        ("Loss.kind=my_parts:Missing", "the module my_parts has no Missing"),
        ("Loss.kind=no_such_module:Loss", "no_such_module:Loss: .*; is the folder of no_such_module in PYTHONPATH"),
    ],
)
def test_a_part_that_is_not_there_is_named(parts, shapes, tmp_path, setting, message):
    with pytest.raises(ValueError, match=message):
        run(shapes, tmp_path, setting)


def test_an_index_type_by_its_import_path(parts, shapes, tmp_path, monkeypatch, capsys):
    """An index of it is opened where its module is imported, and otherwise nobody is sent to remove what is whole."""
    index = str(tmp_path / "index")
    build = ["build", "--index", index, "--checkpoint", f"{FIXTURE}/model", "--data", str(shapes["val"])]
    assert cli.run("search", [*build, "--index-type", "rouned"]) == 2
    assert "there is no index type 'rouned'; did you mean rounded" in capsys.readouterr().err
    assert not (tmp_path / "index").exists()
    assert cli.run("search", [*build, "--index-type", "my_parts:Rounded"]) == 0
    assert cli.run("search", ["check", "--index", index]) == 0
    monkeypatch.delitem(sys.modules, "my_parts")
    capsys.readouterr()
    assert cli.run("search", ["check", "--index", index]) == 1
    found = capsys.readouterr().out
    assert "import my_parts first, or pass --import my_parts" in found and found.count("build the index again") == 1
    (tmp_path / "my_parts.py").write_text("\n".join(blocks()), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert cli.run("search", ["check", "--index", index, "--import", "my_parts"]) == 0


@pytest.mark.parametrize(("find", "message"), [
    (lambda: make_scorer("json:dumps", {}), "json:dumps has no of_run, open, check, score, which a scorer has"),
    (lambda: build_task(load_config(None, ["Training.task=json:dumps"])), "json:dumps has no rows, build"),
    (lambda: open_sources([str(FIXTURE)], layout="json:dumps"), "json:dumps has no find, fits, open, read"),
    (lambda: build_loss(load_config(None, ["Loss.kind=json:dumps"]).Loss), "does not take what a loss is made of"),
])  # fmt: skip
def test_what_is_not_such_a_part_is_named(find, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        find()
