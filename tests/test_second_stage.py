"""What the second stage left, tests/fixtures/second_stage: runs, indexes, exports and a study answer as they did."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.config import load_config
from ernie_vil2.device.extras import require
from ernie_vil2.search.checking import check_index
from ernie_vil2.search.fill import add_images, build, images_in
from ernie_vil2.training.run_log import read_log
from ernie_vil2.training.trainer import Trainer
from tests.support.shapes import shape_members
from tests.training.conftest import ROOT
from tests.training.conftest import run as run_tool

FIXTURE = Path("tests/fixtures/second_stage")
EXPECTED = json.loads((ROOT / FIXTURE / "expected.json").read_text(encoding="utf-8"))
QUERIES = ["a red disc", "黄色的十字", "a blue bar"]
INDEXES = ("exact", "ivf", "hnsw", pytest.param("milvus.db", marks=pytest.mark.slow))
EXPORTS = {"paddle-inference-float32": 1e-5, "paddle-inference-bfloat16": 2e-2, "onnx-float32": 1e-5, "onnx-int8": 1e-3}


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.chdir(ROOT)  # to which the paths in the files are relative


@pytest.fixture(scope="module")
def expected():
    with np.load(ROOT / FIXTURE / "expected.npz") as arrays:
        return dict(arrays)


def assert_encodes(model, expected, name, tolerance=1e-5):
    members = list(shape_members(1, 1))
    images = [content for member, content in members if member.endswith(".png")]
    texts = [json.loads(content)["caption_zh"] for member, content in members if member.endswith(".json")]
    assert np.allclose(model.encode_images(images), expected[f"{name}/images"], atol=tolerance)
    assert np.allclose(model.encode_texts(texts), expected[f"{name}/texts"], atol=tolerance)


@pytest.mark.parametrize(("name", "whose"), [("run", "its own"), ("frozen", "its own"), ("frozen", "a user's")])
def test_a_run_encodes_as_then_and_goes_on_to_where_the_whole_run_ended(name, whose, expected, tmp_path):
    """Its frozen batch norms follow the batches, as they did, also where a user's own file says no version."""
    run = shutil.copytree(FIXTURE / name, tmp_path / "run", symlinks=True)
    assert_encodes(ernie_vil2.load_model(run), expected, name)
    file = tmp_path / "config.yaml"
    text = (run / "config.yaml").read_text(encoding="utf-8")
    file.write_text(text if whose == "its own" else text.replace("version: 2\n", ""), encoding="utf-8")
    require("a run that was begun with their towers", "paddleclas", "paddlenlp")
    trainer = Trainer(load_config(file, [f"Training.output={run}"]), resume=True)
    assert (trainer.step, trainer.position) == (6, 48) and trainer.fit() and not trainer.best_effort.failures
    finished = run / "checkpoints/step_00000008"
    assert json.loads((finished / "state.json").read_text(encoding="utf-8"))["data"]["position"] == 64
    assert load_config(finished / "config.yaml").Tuning.moving_statistics
    records = list(read_log(run / "log.jsonl"))
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    assert losses[:6] == EXPECTED[name]["losses"][:6]  # the log of then
    assert losses == pytest.approx(EXPECTED[name]["losses"], rel=1e-4)
    recalls = {record["step"]: record["metrics"] for record in records if record["kind"] == "evaluation"}
    for step, metrics in EXPECTED[name]["recalls"]:
        assert recalls[step] == pytest.approx(metrics), step
    assert_encodes(ernie_vil2.load_model(run), expected, f"{name}/finished")


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_answers_as_then_and_recognises_its_images(name, tmp_path):
    folder = shutil.copytree(FIXTURE / "indexes" / name, tmp_path / name)
    model = ernie_vil2.load_model(FIXTURE / "run")
    with ernie_vil2.open_index(folder, model) as index:
        assert len(index.collection("images")) == EXPECTED[name]["count"]
        for among, count in (("images", 5), ("texts", 10)):
            found = index.search(texts=QUERIES, count=count, among=among)
            for hits, then in zip(found, EXPECTED[name][among], strict=True):
                assert [hit.score for hit in hits] == pytest.approx([score for _, score in then], abs=2e-3)
                assert {hit.id for hit in hits} == {one for one, _ in then}
    with ernie_vil2.open_index(folder, model, writable=True) as index:
        filled = add_images(index, images_in([f"{FIXTURE}/{one}" for one in ("train.tar", "val.tar", "shop")]))
        assert (filled.added, filled.unchanged) == (0, EXPECTED[name]["count"])


@pytest.mark.parametrize("named", [None, "hnsw"])
def test_an_index_with_an_index_type_of_then_that_is_gone_is_searched_exactly_and_rebuilt(named, tmp_path, capsys):
    folder = shutil.copytree(FIXTURE / "indexes" / "hnsw", tmp_path / "index")
    assert check_index(folder).damage == []
    with ernie_vil2.open_index(folder, ernie_vil2.load_model(FIXTURE / "run"), writable=True) as index:
        assert index.collection("images").index_type["name"] == "exact"
        build(index, "images", named, 0.98)
        assert index.collection("images").index_type["name"] == "ivf"
    assert ("hnsw is no longer built" in capsys.readouterr().out) == (named is not None)
    assert [path.name[:4] for path in folder.glob("images/index_type/*.faiss")] == ["ivf-"]


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_encodes_as_then(name, expected):
    assert_encodes(ernie_vil2.load_model(FIXTURE / "exports" / name), expected, name, EXPORTS[name])


def test_a_study_is_reported_as_then(tmp_path):
    result = run_tool("tools/study.py", FIXTURE / "study" / "study.yaml", "--report", "--output", tmp_path)
    assert result.returncode == 0, result.stderr
    then = FIXTURE / "study" / "runs"
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads((then / "results.json").read_text())
    tables = (then / "tables.md").read_text()
    for earlier, word in {"Beside the": "Next to the", "a picture": "an image", "pictures": "images"}.items():
        tables = tables.replace(earlier, word)  # reworded since
    assert (tmp_path / "tables.md").read_text() == tables
