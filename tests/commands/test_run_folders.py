"""Commands read RUN, RUN@best and checkpoints of run folders, also next to files of others."""

import json
import sys
from argparse import Namespace

import pytest

from ernie_vil2.cli.report import _make_thumbnails, _read_trained_texts, _score_initial_run
from ernie_vil2.config import load_config
from ernie_vil2.evaluation.report import RECORD_VERSION
from ernie_vil2.models.weights.files import read_weights, write_weights
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.commands import call


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run of two checkpoints, the first of which is the best, and a foreign folder next to them."""
    run = tmp_path_factory.mktemp("runs") / "run"
    for step in (1, 2):
        (folder := run / "checkpoints" / f"step_{step:08d}").mkdir(parents=True)
        write_untrained_checkpoint(folder)
        arrays = read_weights(folder / "model.safetensors")
        arrays["log_logit_scale"] = arrays["log_logit_scale"] + step
        write_weights(folder / "model.safetensors", arrays)
    (run / "checkpoints" / "best").symlink_to("step_00000001")
    (run / "checkpoints" / "step_keep").mkdir()
    return run


@pytest.mark.parametrize(("name", "step"), [("", 2), ("@best", 1), ("/checkpoints/best", 1)])
def test_evaluation_is_written_into_the_run_with_its_step(run, shapes, name, step):
    call("eval", "--checkpoint", f"{run}{name}", "--data", shapes["val"], "--language", "en", "--name", "val")
    model = f"{run}/checkpoints/step_0000000{step}"
    assert json.loads((run / "evaluation" / "val.json").read_text())["model"] == model


def test_unknown_names_of_runs_are_explained(run, tmp_path):
    (tmp_path / "new" / "checkpoints").mkdir(parents=True)
    for name in (f"{tmp_path}/new@best", f"{tmp_path}/new", f"{run}@worst"):
        result = call("convert", name, tmp_path / "converted", "--to", "ernie_vil2")
        assert result.returncode == 2 and name.partition("@")[0] in result.stderr


def test_report_skips_files_that_are_no_records(run, shapes):
    (run / "evaluation").mkdir(exist_ok=True)
    record = {"version": RECORD_VERSION, "model": "m", "table": [], "results": {}, "data": [], "paths": []}
    foreign = {"cut": '{"table": [', "other": '{"table": [["a", 1]], "results": {}}'}
    for name, value in {"model": None, "published": [{}], "table": [[1, None]]}.items():
        foreign[name] = json.dumps(record | {name: value})
    for name, content in foreign.items():
        (run / "evaluation" / f"{name}.json").write_text(content)
    (run / "log.jsonl").write_text("a note\n")
    result = call("report", "--run", f"{run}@best", "--data", shapes["val"], "--queries", 1)
    assert f"{run}/checkpoints/step_00000001" in result.stdout and (run / "report.html").exists()
    assert all(f"{name}.json" in result.stderr for name in foreign) and "log.jsonl: line 1" in result.stderr
    assert result.stderr.count("warning: ") == len(foreign) + 1


def test_report_shows_answers_of_the_checkpoint_that_was_scored(run, shapes):
    call("eval", "--checkpoint", f"{run}@best", "--data", shapes["val"], "--language", "en", "--name", "after")
    options = ("--data", shapes["val"], "--queries", 1)
    assert f"{run}/checkpoints/step_00000001" in call("report", "--run", run, *options).stdout
    assert f"{run}/checkpoints/step_00000002" in call("report", "--run", f"{run}@newest", *options).stdout


@pytest.mark.parametrize("content", [[], {"version": RECORD_VERSION, "model": 5}])
def test_damaged_result_after_training_is_named(run, content):
    path = run / "evaluation" / "after.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    result = call("report", "--run", run)
    path.unlink()
    assert result.returncode == 2 and str(path) in result.stderr


def test_configuration_of_initial_weights_is_not_trusted(tmp_path, capsys):
    (tmp_path / "other.yaml").touch()
    (tmp_path / "config.yaml").write_text("base: other.yaml\n")
    config = load_config(overrides=[f"Model.weights={tmp_path}"])
    assert _score_initial_run(Namespace(), tmp_path, config) == {}
    assert "unknown key base" in capsys.readouterr().err


def test_data_that_need_a_missing_package_are_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    config = load_config(overrides=[f"Data.{part}=[{tmp_path}/a.parquet]" for part in ("train", "test")])
    assert _read_trained_texts(config) is None and _make_thumbnails(config, {"a"}) == {}
    assert capsys.readouterr().err.count("needs pyarrow") == 2
