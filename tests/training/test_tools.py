"""The command lines as a user runs them, on a tiny model; two processes against one."""

import json

import numpy as np
import pytest

from ernie_vil2.config import load_config
from ernie_vil2.device.runtime import SWITCHES
from tests.support.commands import call
from tests.support.paths import ROOT
from tests.support.ranks import forked_ranks, train
from tests.support.trainings import as_arguments, evaluation_records, fit, run, train_records


def test_training_beats_chance_by_far_and_is_evaluated_and_shown(overrides, shapes, tmp_path):
    """16 concepts, unseen drawings: chance is 6 % R@1."""
    changes = ["Training.steps=80", "Training.global_batch=32", "Evaluation.every=40", "Training.log_every=10"]
    trained = call("train", *as_arguments([*overrides, *changes]))
    assert trained.returncode == 0, trained.stderr
    assert "finished: 80 steps" in trained.stdout and "all 2,560 samples read could be used" in trained.stdout
    folder = tmp_path / "run"
    files = {path.name for path in folder.iterdir()}
    assert files > {"config.yaml", "environment.json", "log.jsonl", "visualdl", "bad_samples.json", "curves.html"}
    switches = json.loads((folder / "environment.json").read_text())["runtime"]
    assert list(switches) == list(SWITCHES)

    evaluated = call("eval", "--checkpoint", folder, "--data", shapes["val"], "--only", "kind=disc",
                    "--pixel-baseline", shapes["train"])  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    name = f"{shapes['val'].parent.name}-val"
    record = json.loads((folder / "evaluation" / f"{name}.json").read_text())
    rows = dict(map(tuple, record["table"][:5]))
    assert rows["  chance"]["image_to_text"]["R@1"] == 100 / 16
    for language in ("zh", "en"):
        model = rows[f"  model, {language}"]
        assert model["images"] == model["texts"] == 16
        assert min(model["image_to_text"]["R@1"], model["text_to_image"]["R@1"]) > 50, record["table"]
        last = evaluation_records(folder)[-1]
        during = {f"R@{k}": last["metrics"][f"{language}/image_to_text/R@{k}"] for k in (1, 5, 10)}
        assert last["step"] == 80 and during == {name: model["image_to_text"][name] for name in during}

    reported = call("report", "--run", folder, "--data", shapes["val"], "--queries", 3)
    assert reported.returncode == 0, reported.stderr
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 3 and "色的" in page
    compared = call("report", "--run", folder, f"{folder}@best", "--output", tmp_path / "both.html")
    assert compared.returncode == 0, compared.stderr
    page = (tmp_path / "both.html").read_text(encoding="utf-8")
    for name in (str(folder), f"{folder}@best"):  # one run, so that the folder's name does not distinguish them
        assert f"{name}: model, zh" in page and f'<th scope="col" class="names">{name}</th>' in page


@pytest.mark.parametrize("start", [
    "forked",
    pytest.param("--processes", marks=pytest.mark.slow),
    pytest.param("Paddle's launcher", marks=pytest.mark.slow),
])  # fmt: skip
def test_two_processes_train_as_one(overrides, tmp_path, start):
    """The same global batches and dropout, gathered and averaged: losses equal to float32's precision, step by step."""
    dropout = ["Model.text.dropout=0.2", "Model.text.attention_dropout=0.2", "Model.image.drop_path=0.2"]
    settings = [*overrides, *dropout, "Training.steps=4", "Training.device=cpu"]
    fit(load_config(None, [*settings, f"Training.output={tmp_path / 'one'}"]))
    if start == "forked":
        forked_ranks(train, settings)
    else:
        options = {"launch": ["--nproc_per_node", "2", "--log_dir", tmp_path / "log"]} if start[0] == "P" else {}
        processes = [] if options else ["--processes", "2"]
        two = run("tools/train.py", *as_arguments(settings), *processes, **options)
        assert two.returncode == 0, two.stdout + two.stderr
        assert "all 64 samples read could be used" in two.stdout, two.stdout
    assert json.loads((tmp_path / "run" / "bad_samples.json").read_text())["read"] == 64
    for name in ("loss", "gradient_norm"):
        one, other = ([record[name] for record in train_records(tmp_path / folder)] for folder in ("one", "run"))
        assert len(one) == 4 and np.allclose(one, other, rtol=1e-4), (one, other)


def test_misspelt_key_and_missing_checkpoint_are_errors(tmp_path):
    result = call("train", "-c", ROOT / "configs" / "demo" / "emoji.yaml", "-o", "Loss.tempreture=1")
    assert result.returncode == 2 and result.stdout == ""
    assert "Loss.tempreture" in result.stderr and result.stderr.count("\n") == 1
    result = call("eval", "--checkpoint", tmp_path, "--data", "x.tar")
    assert result.returncode == 2 and str(tmp_path) in result.stderr
