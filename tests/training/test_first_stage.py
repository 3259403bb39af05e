"""A run folder of version 1, tests/fixtures/first_stage: loaded, scored, resumed and reported like one of now."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.config import load_config
from ernie_vil2.data.readers import open_benchmarks
from ernie_vil2.device.extras import require
from ernie_vil2.evaluation.protocol import evaluate
from ernie_vil2.evaluation.protocols import protocol
from ernie_vil2.training.run_log import read_log
from ernie_vil2.training.trainer import Trainer
from tests.support.html_pages import lines_of
from tests.training.conftest import ROOT
from tests.training.conftest import run as run_tool

FIXTURE = Path("tests/fixtures/first_stage")
EXPECTED = json.loads((ROOT / FIXTURE / "expected.json").read_text())
RECALLS = {(step, language): recall for step, language, recall in EXPECTED["recalls"]}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # to which the paths in its configuration are relative
    return shutil.copytree(FIXTURE / "run", tmp_path / "run", symlinks=True)


def recalls(trainer):
    records = [record for record in read_log(trainer.run / "log.jsonl") if record["kind"] == "evaluation"]
    languages = ("zh", "en")
    return {(record["step"], name): record["metrics"][f"{name}/mR"] for record in records for name in languages}


def test_its_embeddings_are_those_of_then(run):
    model = ernie_vil2.load_model(run)
    expected = np.load(FIXTURE / "expected.npz")
    benchmark = open_benchmarks([str(FIXTURE / "val.tar")], preferred=["zh"])["zh"]
    images = model.encode_images([image.read() for image in benchmark.images])
    assert np.allclose(images, expected["images"], atol=1e-5)
    texts = model.encode_texts([text.text for text in benchmark.texts])
    assert np.allclose(texts, expected["texts"], atol=1e-5)


@pytest.mark.parametrize(("which", "step"), [("newest", 6), ("best", 4)])
def test_it_is_scored_as_then(run, which, step):
    model = ernie_vil2.load_model(f"{run}@{which}")
    for language, benchmark in open_benchmarks([str(FIXTURE / "val.tar")], preferred=["zh", "en"]).items():
        assert evaluate(model, benchmark, protocol("pairs")).mean_recall == pytest.approx(RECALLS[step, language])


def test_it_goes_on_to_where_the_whole_run_ended(run):
    require("a run that was begun with their towers", "paddleclas", "paddlenlp")
    trainer = Trainer(load_config(run / "config.yaml", [f"Training.output={run}"]), resume=True)
    best = {"step": 4, "metric": "mean_recall", "value": pytest.approx((RECALLS[4, "zh"] + RECALLS[4, "en"]) / 2)}
    assert trainer.step == 6 and trainer.best == best and trainer.fit() and not trainer.best_effort.failures
    losses = [record["loss"] for record in read_log(run / "log.jsonl") if record["kind"] == "train"]
    assert losses[:6] == EXPECTED["losses"][:6]  # the log of then
    assert losses == pytest.approx(EXPECTED["losses"], rel=1e-4)
    assert recalls(trainer) == pytest.approx(RECALLS)
    assert trainer.best == best and (run / "checkpoints" / "best").resolve().name == "step_00000004"
    page = (run / "curves.html").read_text(encoding="utf-8")
    assert [len(line) for line in lines_of(page, "Retrieval over time")] == [4] * 9
    assert len(lines_of(page, "Loss of each view pair")[0]) == 8
    again = Trainer(load_config(run / "config.yaml"), resume=True)
    assert again.step == 8 and again.best == best and again.fit()


def test_it_is_reported(run):
    result = run_tool("tools/report.py", "--run", run)
    assert result.returncode == 0, result.stderr
    page = (run / "report.html").read_text(encoding="utf-8")
    assert [len(line) for line in lines_of(page, "Retrieval over time")] == [3] * 9
