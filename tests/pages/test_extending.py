"""The blocks of docs/extending.md run, and everything that they define works in a run or a command."""

import csv
import json
import math
import os
import re
import sys
import types

import numpy as np
import paddle
import pytest

from ernie_vil2 import losses, tasks
from ernie_vil2.apps.search import index_types
from ernie_vil2.cli import COMMANDS
from ernie_vil2.config import load_config
from ernie_vil2.data.readers import LAYOUTS, open_benchmark
from ernie_vil2.evaluation.scorer import SCORERS
from ernie_vil2.losses import MultiViewLoss
from ernie_vil2.models.weights.files import read_weights, write_torch_weights
from ernie_vil2.models.weights.format import FORMATS, read_model, write_model
from ernie_vil2.training.run_log import read_log
from ernie_vil2.training.trainer import Trainer
from tests.support import page_commands
from tests.support.checkpoints import SMALLEST_MODEL
from tests.support.commands import call
from tests.support.html_pages import read_chart_lines
from tests.support.other_families import FAMILY_FIXTURES, copy_folder
from tests.support.paths import FIXTURES, ROOT
from tests.support.processes import run_process
from tests.support.ranks import run_ranks, train
from tests.support.shapes import encode_png
from tests.support.towers import assert_same_bits
from tests.support.trainings import read_logged_losses

SMALL = [*SMALLEST_MODEL, "Data.workers=0", "Views.languages={en: 1.0}", "Schedule.warmup_steps=1", "Training.steps=2",
         "Training.global_batch=8"]  # fmt: skip
BLOCKS = [text for language, text in page_commands.list_blocks(ROOT / "docs" / "extending.md") if language == "python"]
FIXTURE = FIXTURES / "shapes"


@pytest.fixture(scope="module")
def extensions():
    """Return a module with the definitions of the page, and restore the registries afterwards."""
    registries = [losses.PAIR_LOSSES, LAYOUTS, tasks.TASKS, SCORERS, index_types.INDEX_TYPES, FORMATS]
    original_names = [dict(registry) for registry in registries]
    module = types.ModuleType("my_parts")
    assert len(BLOCKS) == 8
    exec(compile("\n".join(BLOCKS), "extending.md", "exec"), vars(module))  # noqa: S102 - the page is ours
    sys.modules["my_parts"] = module
    yield module
    del sys.modules["my_parts"]
    for registry, names in zip(registries, original_names, strict=True):
        registry.clear()
        registry.update(names)


@pytest.fixture
def make_trainer(shapes, tmp_path):
    """Return a function that makes the trainer of a short run with further settings."""
    common_settings = [*SMALL, f"Data.train=[{shapes['train']}]", f"Training.output={tmp_path / 'run'}"]
    return lambda *settings: Trainer(load_config(None, [*common_settings, *settings]))


def run_training(folder, blocks, *settings):
    """Train in a process that imports the page's blocks as my_parts, on colours."""
    (folder / "my_parts.py").write_text("\n".join(blocks), encoding="utf-8")
    colours = "".join(f"{number:02x}{number:02x}ff\ta shade {number}\n" for number in range(16))
    (folder / "train.colours").write_text(colours, encoding="utf-8")
    settings = [f"-o{setting}" for setting in (*SMALL, f"Data.train=[{folder / 'train.colours'}]", *settings)]
    path = os.pathsep.join([str(folder), str(ROOT)])
    return run_process([sys.executable, "tools/train.py", "--import", "my_parts", *settings], text=True, cwd=ROOT,
                          env=os.environ | {"PYTHONPATH": path}, capture_output=True)  # fmt: skip


def test_tower_embeds_images(extensions):
    config = load_config(None, ["Model.image={name: 'my_parts:MeanColour', width: 8}"]).Model.image
    assert config.build()(paddle.zeros([2, 3, 4, 4])).shape == [2, 8]


def test_loss_has_its_value_by_name_and_path(extensions):
    views = {"image_1": paddle.eye(3), "text_1": paddle.eye(3)[[1, 0, 2]]}
    total, _ = MultiViewLoss({"image_text": 1.0}, kind="squared_distance")(views, views, {})
    assert float(total) == pytest.approx(4 / 3)
    both = {"image_text": 1.0, "text_image": 1.0}
    total, _ = MultiViewLoss(both, kind="my_parts:SquaredDistance", options={"factor": 0.5})(views, views, {})
    assert float(total) == pytest.approx(4 / 3)


def test_layout_reads_a_published_benchmark(extensions, tmp_path):
    rows = [{"file": f"{number}.png", "captions": [f"bird {number}", "a bird"]} for number in range(3)]
    (tmp_path / "birds_test.json").write_text(json.dumps([*rows, {"file": "../4.png", "captions": ["outside"]}]))
    (tmp_path / "photos").mkdir()
    for row in rows:
        (tmp_path / "photos" / row["file"]).write_bytes(encode_png(np.zeros([8, 8, 3], np.uint8)))
    benchmark = open_benchmark(tmp_path)
    assert benchmark.name == "birds-test" and benchmark.entry_report.counts.total() == 1
    assert [image.id for image in benchmark.images] == ["0.png", "1.png", "2.png"]
    assert benchmark.pairs.tolist() == [[0, 0], [0, 1], [1, 2], [1, 3], [2, 4], [2, 5]]


def test_task_trains_only_its_tower(extensions, make_trainer):
    trainer = make_trainer("Training.task=image_tower_only")
    initial = {name: value.numpy().copy() for name, value in trainer.model.named_parameters()}
    trainer.fit()
    changed = {name for name, value in trainer.model.named_parameters() if (value.numpy() != initial[name]).any()}
    assert changed and all(name.startswith("image.") for name in changed)


def test_scorer_reaches_log_curves_and_checkpoint(extensions, make_trainer, shapes, capsys):
    # The names of its metrics appear nowhere else in the package.
    run = make_trainer("Evaluation.evaluators=[{margin: {scale: 9}}, retrieval]", "Evaluation.every=1",
                  "Evaluation.at_start=true", f"Data.val=[{shapes['val']}]")  # fmt: skip
    assert run.evaluations.evaluators["margin"].scorer.scale == 9
    assert run.fit() and not run.best_effort.failures
    records = [record for record in read_log(run.run / "log.jsonl") if record["kind"] == "evaluation"]
    expected = [(0, "margin"), (0, "retrieval"), (1, "margin"), (1, "retrieval"), (2, "margin"), (2, "retrieval")]
    assert [(record["step"], record["evaluator"]) for record in records] == expected
    margins = [record["metrics"]["margin"] for record in records[::2]]
    best = 1 + margins[1:].index(max(margins[1:]))
    assert run.best == {"step": best, "metric": "margin", "value": margins[best]}
    page = (run.run / "curves.html").read_text(encoding="utf-8")
    assert [len(line) for line in read_chart_lines(page, "Margin over time")] == [3, 3]
    assert f"margin {margins[2]:.4g}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["margin", "my_parts:Margin"])
def test_scorer_works_from_the_command_line(extensions, tmp_path, name):
    arguments = ["--checkpoint", f"{FIXTURE}/model", "--data", f"{FIXTURE}/val.tar", "--output", tmp_path]
    command = ["eval", *arguments, "--name", "a", "--no-cache", "--scorer", name, "--option"]
    printed = call(*command, "scale=100").stdout
    metrics = json.loads((tmp_path / "a.json").read_text())["metrics"]
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    for language in ("zh", "en"):
        margins = [float(row["margin"]) for row in rows if row["language"] == language]
        assert metrics[f"{language}/margin"] == pytest.approx(np.mean(margins), rel=1e-5)
    assert f"{metrics['margin']:.2f}" in printed and f"{metrics['margin']:.2f}" in (tmp_path / "a.html").read_text()
    for scorer in ([], ["--scorer", name]):
        assert call("eval", *arguments, "--no-cache", *scorer).returncode == 0
    stems = {path.stem for path in tmp_path.glob("*.json")}
    # The result of each scorer has a name of its own, so that none replaces another.
    assert len(stems) == 3 and any(stem.endswith(f"-{name.rpartition(':')[2]}") for stem in stems)
    refused = call(*command, "size=1")
    assert refused.returncode == 2 and "size: " in refused.stderr


def test_loss_and_dataset_work_from_the_command_line(extensions, tmp_path):
    # By its path in a process that imports its module, and by its name here: without a script or a changed package.
    settings = ["Training.log_every=1", "Loss.kind=my_parts:SquaredDistance"]
    result = run_training(tmp_path, BLOCKS, *settings, f"Training.output={tmp_path / 'path'}")
    assert result.returncode == 0, result.stderr
    settings = [*SMALL, f"Data.train=[{tmp_path / 'train.colours'}]", "Training.log_every=1",
                "Loss.kind=squared_distance", "Loss.options={factor: 2}"]  # fmt: skip
    Trainer(load_config(None, [*settings, f"Training.output={tmp_path / 'name'}"])).fit()
    by_path, by_name = read_logged_losses(tmp_path / "path"), read_logged_losses(tmp_path / "name")
    assert len(by_path) == len(by_name) == 2 and by_path[0] == pytest.approx(by_name[0] / 2, rel=1e-5)


ROWS_ALONE = """
class RowsAlone(SquaredDistance):
    def __call__(self, rows, columns, scalars, offset, row_ids, column_ids):
        return super().__call__(rows, columns.detach(), scalars, offset, row_ids, column_ids)
"""
"""A loss that leaves the temperature and the tower of the columns without gradients."""


def train_with(folder, overrides):
    """Train as a rank, with the modules of a folder."""
    sys.path.insert(0, str(folder))
    train(overrides)


@pytest.mark.parametrize("micro_batch", ["null", pytest.param(3, marks=pytest.mark.slow)])
def test_loss_trains_on_two_ranks_as_on_a_single_one(shapes, tmp_path, monkeypatch, micro_batch):
    # Data parallel waits for the gradient of every parameter, and none reaches the temperature.
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "parts_of_ranks.py").write_text("\n".join(BLOCKS) + ROWS_ALONE, encoding="utf-8")
    settings = [*SMALL, f"Data.train=[{shapes['train']}]", "Loss.kind=parts_of_ranks:RowsAlone", "Training.steps=3",
                "Loss.weights={image_image: 0, text_text: 0, text_image: 0}", "Optimizer.learning_rate=1e-3",
                f"Training.micro_batch={micro_batch}", "Training.device=cpu"]  # fmt: skip
    run_ranks(train_with, folder, [*settings, f"Training.output={tmp_path / 'ranks'}"])
    monkeypatch.syspath_prepend(folder)
    train([*settings, f"Training.output={tmp_path / 'alone'}"])
    expected, actual = read_model(tmp_path / "alone").arrays, read_model(tmp_path / "ranks").arrays
    for name, value in expected.items():
        # Three steps with a rate of 1e-3 change a parameter by up to 3e-3.
        np.testing.assert_allclose(actual[name], value, rtol=2e-3, atol=2e-5, err_msg=name)
    assert expected["log_logit_scale"] == pytest.approx([-math.log(0.07)])  # its initial value


def test_missing_field_of_a_sample_is_named(tmp_path):
    # A worker process reads the sample; its error is printed as a sentence, without a traceback.
    block = BLOCKS[2].replace("text_name=caption, ", "")
    assert block != BLOCKS[2]
    result = run_training(tmp_path, [block], f"Training.output={tmp_path / 'run'}", "Data.workers=1")
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert re.search(rf"{tmp_path}/train.colours, \d+: my_parts.Colours .*'text_name'; docs/extending.md", line)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("Loss.kind=squared_distanse", "did you mean squared_distance"),
        ("Training.task=fine_tuning", "'fine_tuning'; known: multi_view"),
        ("Evaluation.evaluators=[recall]", "'recall'; known: retrieval"),
        ("Evaluation.evaluators=[{margin: {size: 1}}]", "margin: size"),
        ("Loss.options={margin: 1}", "Loss.options .* 'margin'"),
        ("Loss.kind=my_parts:Missing", "my_parts has no Missing"),
        ("Loss.kind=no_such_module:Loss", "no_such_module:Loss: "),
        ("Loss.kind=json:dumps", "json:dumps"),
        ("Training.task=json:dumps", "json:dumps has no open_rows, build"),
        ("Evaluation.evaluators=['json:dumps']", "json:dumps has no from_config, recognises, open"),
        ("Data.train=[{data: [.], layout: 'json:dumps'}]", "json:dumps has no find, accepts, open, read"),
    ],
)
def test_unknown_extension_is_named(extensions, make_trainer, setting, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(setting)


def test_index_type_is_loaded_by_its_import_path(extensions, shapes, tmp_path, monkeypatch):
    # Where the module is not imported, the message asks to import it, not to build the intact index again.
    index = tmp_path / "index"
    build = ["build", "--index", index, "--checkpoint", f"{FIXTURE}/model", "--data", shapes["val"], "--index-type"]
    check = ["search", "check", "--index", index]
    refused = call("search", *build, "rouned")
    assert refused.returncode == 2 and "did you mean rounded" in refused.stderr and not index.exists()
    assert call("search", *build, "my_parts:Rounded").returncode == 0
    assert call(*check).returncode == 0
    monkeypatch.delitem(sys.modules, "my_parts")
    unknown = call(*check)
    assert unknown.returncode == 1 and "--import my_parts" in unknown.stdout
    assert unknown.stdout.count("build the index again") == 1
    (tmp_path / "my_parts.py").write_text("\n".join(BLOCKS), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert call(*check, "--import", "my_parts").returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_imports_a_users_module(command):
    subcommand = {"search": ["build"], "tag": ["file"]}.get(command, [])
    assert "--import MODULE" in call(command, *subcommand, "--help").stdout


def test_family_is_recognised_by_its_model_type(extensions, tmp_path):
    folder = copy_folder(
        FAMILY_FIXTURES / "hf_chinese_clip_bin", tmp_path / "wrapped", "config.json", model_type="wrapped_clip"
    )
    arrays = read_weights(folder / "pytorch_model.bin")
    write_torch_weights(folder / "pytorch_model.bin", {f"wrapped.{name}": array for name, array in arrays.items()})
    model = read_model(folder)
    assert model.layout == "Wrapped CLIP"
    assert_same_bits(model.arrays, read_model(FAMILY_FIXTURES / "hf_chinese_clip_bin").arrays)
    write_model(model, tmp_path / "back", "hf", origin=folder)
    assert_same_bits(read_weights(tmp_path / "back" / "pytorch_model.bin"), read_weights(folder / "pytorch_model.bin"))
