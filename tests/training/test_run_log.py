"""The log of a run: damaged lines are reported and set aside, and the others are read."""

import json
import sys

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ernie_vil2.config import Config, load_config
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.io.files import OtherVersion
from ernie_vil2.pages import make_speed_charts, make_training_charts
from ernie_vil2.training.run_log import (
    BestEffort,
    Progress,
    RunLog,
    describe_progress,
    read_log,
    summarize_run,
    write_run_page,
)


def record(step, kind="train", **values):
    fields = {"seconds": 0.5, "loss": 1.0, "samples_per_second": 1.0, "loader_wait": 0}
    return {"kind": kind, "step": step, **fields, **values}


def line(*arguments, **values):
    return json.dumps(record(*arguments, **values), ensure_ascii=False).encode() + b"\n"


BAD = [
    b"no JSON\n",
    b"[" * 100_000 + b"\n",
    b"\xff\xfe\n",
    b"[]\n",
    b'{"kind": "train", "step": 1}\n',
    b'{"kind": {}, "step": 1, "seconds": 1}\n',
    b'{"kind": "train", "step": ' + b"1" * 5000 + b', "seconds": 1}\n',
    line(1, loss="low"),
    line(1, "evaluation", evaluator="mine", best_by=None, metrics={"accuracy": "high"}),
    line(1, "evaluation", evaluator="mine", best_by=None, metrics=[1.0]),
    line(1, "evaluation", evaluator="mine", best_by=None, metrics={"accuracy": 1.0}, progress_metrics="accuracy"),
    line(1, "evaluation", evaluator="mine", metrics={"accuracy": 1.0}),
    line(1, "evaluation", evaluator="mine", best_by=None, metrics={"accuracy": 1.0}, progress_metrics=[{}]),
    line(1, "evaluation", evaluator="mine", best_by=None, metrics={"accuracy": 1e308}),
    line(1, loss=-1e308),
    line(1, "note"),
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_bad_lines_are_reported_and_set_aside(tmp_path, capsys, bad):
    (tmp_path / "log.jsonl").write_bytes(line(1) + bad + line(2) + bad + line(3))
    assert read_log(tmp_path / "log.jsonl") == [record(step) for step in (1, 2, 3)]
    assert "log.jsonl: line 2 and 1 others" in capsys.readouterr().err

    log = RunLog(tmp_path, Config(), first_step=2)
    assert "damaged_log.jsonl" in capsys.readouterr().err
    log.write("train", 3, {"loss": 1.0, "samples_per_second": 9.5, "loader_wait": 0.5})
    log.close()
    assert (tmp_path / "damaged_log.jsonl").read_bytes() == bad + bad
    assert [entry["step"] for entry in read_log(tmp_path / "log.jsonl")] == [1, 2, 3]
    RunLog(tmp_path, Config(), first_step=3).close()
    assert capsys.readouterr().err == ""  # reported once


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@example(text="\u2028 ends a line for Python and not for JSON, as do \x85 and \x1c")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_any_text_is_read_back(tmp_path, text):
    (tmp_path / "log.jsonl").write_bytes(line(1, name=text) + line(2) + line(3)[:-5])
    assert read_log(tmp_path / "log.jsonl") == [record(1, name=text), record(2)]


@pytest.mark.parametrize("fields", [
    {"gradient_norm": ["a", {}]}, {"learning_rate": "high"}, {"evaluator": []}, {"metrics": "none"}, {"epochs": 3},
    {"logit_scale": -1e300},
])  # fmt: skip
def test_log_of_a_stranger_is_drawn(tmp_path, fields):
    # The pages rely on some fields; in the others a stranger's log may have anything.
    (tmp_path / "log.jsonl").write_bytes(line(1) + line(2, **fields) + line(3))
    records = read_log(tmp_path / "log.jsonl")
    assert len(records) == 3
    assert make_training_charts(records)[0].lines and make_speed_charts(records)
    assert "step 3 of 10" in summarize_run(records, 10).lower()


def test_run_folder_of_another_version_is_refused(tmp_path):
    RunLog(tmp_path, Config()).close()
    environment = json.loads((tmp_path / "environment.json").read_text())
    (tmp_path / "environment.json").write_text(json.dumps(environment | {"version": 2}))
    (tmp_path / "config.yaml").write_text("its: own")
    with pytest.raises(OtherVersion, match=r"environment\.json"):
        RunLog(tmp_path, Config())
    assert (tmp_path / "config.yaml").read_text() == "its: own"
    (tmp_path / "environment.json").write_text('{"version": ')  # as a full disk leaves it
    RunLog(tmp_path, Config()).close()


def test_foreign_files_in_a_run_stay(tmp_path):
    for name in (".config.yaml.123.partial", ".report.html.77.partial", ".mine.partial"):
        (tmp_path / name).write_text("")
    RunLog(tmp_path, Config()).close()
    assert {path.name for path in tmp_path.glob(".*")} == {".report.html.77.partial", ".mine.partial"}


def test_without_visualdl_log_and_pages_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "visualdl", None)
    log = RunLog(tmp_path, Config())
    log.write("train", 1, {"loss": 1.0, "samples_per_second": 1.0, "loader_wait": 0.0})
    log.close()
    write_run_page(tmp_path, Config(), BadSampleReport())
    assert [record["loss"] for record in read_log(tmp_path / "log.jsonl")] == [1.0]
    assert (tmp_path / "curves.html").exists() and not (tmp_path / "visualdl").exists()
    assert "VisualDL is not installed" in capsys.readouterr().err


def test_log_of_a_failed_run_is_closed(tmp_path):
    progress = Progress(load_config(None, [f"Training.output={tmp_path}"]), 0, BadSampleReport(), BestEffort())
    with pytest.raises(FloatingPointError), progress.open(step=0, evaluated_step=0):
        raise FloatingPointError
    with pytest.raises(ValueError, match="closed"):
        progress._log.write("train", 1, {})


def test_progress_is_computed_from_the_log():
    # three minutes with a median of 30 samples per second and a mean wait of 20 %
    rates = ((1, 10.0, 0.0), (2, 30.0, 0.1), (3, 50.0, 0.5))
    records = [record(step, seconds=60.0 * step, samples_per_second=rate, loader_wait=wait)
               for step, rate, wait in rates]  # fmt: skip
    facts = " ".join(describe_progress(Config(), records).values())
    assert all(figure in facts for figure in ("3 of ", "3.0 minutes", "30 samples", "20.0%"))
    assert describe_progress(Config(), []) == {}


def test_summary_skips_nonfinite_and_irrelevant_metrics():
    records = [
        {"kind": "evaluation", "step": 0, "best_by": "mean_recall", "metrics": {"mean_recall": 12.5}},
        {"kind": "train", "step": 1, "loss": 2.0},
        {"kind": "train", "step": 2, "loss": None},
        {"kind": "evaluation", "step": 2, "best_by": None, "metrics": {"loss": 1.0}},
        {"kind": "evaluation", "step": 2, "best_by": "mean_recall", "metrics": {"mean_recall": None}},
    ]
    sentence = summarize_run(records, 10)
    assert summarize_run([], 10) == "" and "2.000" in sentence and "12.50 at step 0" in sentence
