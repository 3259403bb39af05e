"""The blocks of docs/extending.md are run, and what they define is used."""

import re
import sys
import types
from pathlib import Path

import numpy as np
import paddle
import pytest

from ernie_vil2 import evaluators, losses, tasks
from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.evaluators import build_evaluators
from ernie_vil2.losses import MultiViewLoss
from ernie_vil2.models import build_image_tower
from ernie_vil2.search import index_types as engines
from ernie_vil2.tasks import build_task
from ernie_vil2.training.run_log import read_log
from ernie_vil2.training.trainer import Trainer
from tests.pages import lines_of

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


@pytest.fixture(scope="module")
def parts():
    """What the page defines; the registries are as before afterwards."""
    registries = [losses.PAIR_LOSSES, tasks.TASKS, evaluators.EVALUATORS, engines.ENGINES]
    before = [dict(registry) for registry in registries]
    module = types.ModuleType("my_towers")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), vars(module))
    sys.modules["my_towers"] = module
    yield module
    del sys.modules["my_towers"]
    for registry, names in zip(registries, before, strict=True):
        registry.clear()
        registry.update(names)


def test_the_tower(parts):
    config = load_config(None, ["Model.image={name: 'my_towers:MeanColour', width: 8}"]).Model.image
    assert build_image_tower(config)(paddle.zeros([2, 3, 4, 4])).shape == [2, 8]


def test_the_loss(parts):
    views = {"image_1": paddle.eye(3), "text_1": paddle.eye(3)[[1, 0, 2]]}
    total, _ = MultiViewLoss({"image_text": 1.0}, kind="squared_distance")(views, views, {})
    assert float(total) == pytest.approx(4 / 3)


def run(shapes, tmp_path, *changes):
    return Trainer(load_config(None, [
        "Model.image={name: ViT, image_size: 32, patch_size: 16, width: 32, depth: 1, heads: 1}",
        "Model.text={name: ernie, width: 32, depth: 1, heads: 1, max_positions: 16}", "Data.max_length=16",
        f"Data.train=[{shapes['train']}]", "Data.workers=0", "Views.languages={en: 1.0}", "Schedule.warmup_steps=1",
        "Training.steps=2", "Training.global_batch=8", f"Training.output={tmp_path / 'run'}", *changes,
    ]))  # fmt: skip


def test_the_task(parts, shapes, tmp_path):
    trainer = run(shapes, tmp_path, "Training.task=image_tower_only")
    before = {name: value.numpy().copy() for name, value in trainer.model.named_parameters()}
    trainer.fit()
    changed = {name for name, value in trainer.model.named_parameters() if (value.numpy() != before[name]).any()}
    assert changed and all(name.startswith("image.") for name in changed)


def test_the_evaluator(parts, shapes, tmp_path, capsys):
    """Its numbers, of names that nothing else knows, are in the log, the curves, the terminal and the checkpoint."""
    trainer = run(shapes, tmp_path, "Evaluation.evaluators=[temperature, retrieval]", "Evaluation.every=1",
                  "Evaluation.at_start=true", f"Data.val=[{shapes['val']}]")  # fmt: skip
    assert trainer.fit() and not trainer.side_work.failures
    records = [record for record in read_log(trainer.run / "log.jsonl") if record["kind"] == "evaluation"]
    assert [(record["step"], record["evaluator"]) for record in records] == [
        (step, name) for step in (0, 1, 2) for name in ("temperature", "retrieval")
    ]
    scales = [record["metrics"]["logit_scale"] for record in records[::2]]
    assert scales[0] == pytest.approx(1 / 0.07) and records[0]["metrics"]["logit_scale/share"] == scales[0] / 100
    best = 1 + scales[1:].index(max(scales[1:]))
    assert trainer.best == {"step": best, "metric": "logit_scale", "value": scales[best]}
    page = (trainer.run / "curves.html").read_text(encoding="utf-8")
    assert [len(line) for line in lines_of(page, "Temperature over time")] == [3, 3]
    assert f"step 2, logit_scale {scales[2]:.4g}" in capsys.readouterr().out


def test_the_search_engine(parts, tmp_path):
    rows = np.eye(5, dtype=np.float16)
    engine = engines.ENGINES["rounded"].build(rows, lambda: rows, 1.0, tmp_path, print)
    assert engine.candidates(np.eye(5, dtype=np.float32)[:2], 1).tolist() == [[0], [1]]


def test_an_evaluator_that_is_not_there_is_named():
    config = load_config(None, ["Evaluation.evaluators=[recall]"])
    with pytest.raises(ConfigError, match="Evaluation.evaluators: recall: no such evaluator; known: retrieval"):
        build_evaluators(config, build_task(config))


def test_a_task_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="Training.task=fine_tuning: no such task; known: multi_view"):
        build_task(load_config(None, ["Training.task=fine_tuning"]))
