"""Runs, checkpoints, exports, indexes and curations that earlier releases wrote are read, and give the same results."""

import json
import shutil

import numpy as np
import pytest

from ernie_vil2.config import load_config
from ernie_vil2.evaluation.report_page import read_evaluations, read_outcomes
from ernie_vil2.training.run_log import read_log
from ernie_vil2.training.trainer import Trainer
from tests.fixtures.releases.make import EXPORTS, RELEASE, SHAPES, compute_embeddings, search_index, select_rows

RESULTS = json.loads((RELEASE / "results.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("model", ["run", *EXPORTS.values()])
def test_models_of_a_release_embed_as_before(model):
    if model == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    embeddings = compute_embeddings(str(RELEASE / model))
    with np.load(RELEASE / "embeddings.npz") as expected:
        for side, values in embeddings.items():
            # Other kernels round otherwise.
            np.testing.assert_allclose(values, expected[side], atol=1e-4, err_msg=side)


def test_index_of_a_release_finds_as_before(tmp_path):
    folder = shutil.copytree(RELEASE / "index", tmp_path / "index")  # opening takes a lock
    for hits, expected in zip(search_index(folder, RELEASE / "run"), RESULTS["hits"], strict=True):
        assert [item_id for item_id, _ in hits] == [item_id for item_id, _ in expected]
        assert [score for _, score in hits] == pytest.approx([score for _, score in expected], abs=1e-3)


def test_run_of_a_release_resumes_as_before(tmp_path, monkeypatch):
    for name in ("train.tar", "val.tar", "model"):
        (tmp_path / name).symlink_to(SHAPES / name)
    run = shutil.copytree(RELEASE / "run", tmp_path / "run", symlinks=True)
    shutil.rmtree(run / "checkpoints" / "step_00000006")
    monkeypatch.chdir(tmp_path)
    trainer = Trainer(load_config(run / "config.yaml"), resume=True)
    assert trainer.step == 3 and trainer.fit()
    losses = [
        [record["loss"] for record in read_log(folder / "log.jsonl") if record["kind"] == "train"]
        for folder in (run, RELEASE / "run")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_results_of_a_release_are_read():
    (record,) = read_evaluations(RELEASE / "run" / "evaluation")
    outcomes = read_outcomes(record["rank_file"])["zh"]
    rows = [values for label, values in record["table"] if label.strip() in record["results"]]
    assert outcomes.estimate("mR", resamples=10).mean == pytest.approx(rows[0]["mR"])


def test_curation_of_a_release_selects_as_before():
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    assert select_rows(RELEASE / "curated") == RESULTS["rows"]
