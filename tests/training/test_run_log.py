"""The log of a run: what is damaged in it is named and set aside, the rest counts."""

import json
import sys

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ernie_vil2.config import Config
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.training.run_log import RunLog, in_a_sentence, read_log, write_run_page


def record(step, kind="train", **values):
    return {
        "kind": kind,
        "step": step,
        "seconds": 0.5,
        "loss": 1.0,
        "samples_per_second": 1.0,
        "loader_wait": 0,
        **values,
    }


def line(*arguments, **values):
    return json.dumps(record(*arguments, **values), ensure_ascii=False).encode() + b"\n"


BAD = [
    b"\n",
    b"no JSON\n",
    b"\xff\xfe\n",
    b"[" * 100_000 + b"\n",
    b"[]\n",
    b"1\n",
    b'{"kind": "train", "step": 1}\n',
    b'{"kind": {}, "step": 1, "seconds": 1}\n',
    line(1, loss="low"),
    line(1, "evaluation"),
    line(1, "evaluation", evaluator="mine", best_by=None, metrics=[1.0]),
    line(1, "evaluation", evaluator="mine", best_by=None, metrics={"accuracy": "high"}),
    line(1, "evaluation", evaluator="mine", best_by=None, metrics={"accuracy": 1.0}, shown="accuracy"),
    b'{"kind": "train", "step": "1", "seconds": 1}\n',
    b'{"kind": "note", "step": 1, "seconds": 1}\n',
    b'{"kind": "train", "step": ' + b"1" * 5000 + b', "seconds": 1}\n',
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_bad_line_is_named_and_set_aside(tmp_path, capsys, bad):
    (tmp_path / "log.jsonl").write_bytes(line(1) + bad + line(2) + bad + line(3))
    assert read_log(tmp_path / "log.jsonl") == [record(step) for step in (1, 2, 3)]
    assert "log.jsonl: line 2 and 1 others no record of a run, left out" in capsys.readouterr().err

    log = RunLog(tmp_path, Config(), first_step=2)
    assert "log.jsonl: line 2 and 1 others no record of a run, now in damaged_log.jsonl" in capsys.readouterr().err
    log.write("train", 3, {"loss": 1.0, "samples_per_second": 9.5, "loader_wait": 0.5})
    log.close()
    assert (tmp_path / "damaged_log.jsonl").read_bytes() == bad + bad
    assert [entry["step"] for entry in read_log(tmp_path / "log.jsonl")] == [1, 2, 3]
    RunLog(tmp_path, Config(), first_step=3).close()
    assert capsys.readouterr().err == ""  # reported once


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@example(text="\u2028 ends a line for Python and not for JSON, as do \x85 and \x1c")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back(tmp_path, text):
    (tmp_path / "log.jsonl").write_bytes(line(1, name=text) + line(2) + line(3)[:-5])
    assert read_log(tmp_path / "log.jsonl") == [record(1, name=text), record(2)]


def test_an_evaluator_is_read_by_its_name_of_today(tmp_path):
    one = {"kind": "evaluation", "step": 2, "seconds": 1.0, "best_by": "accuracy", "shown": None, "metrics": {}}
    (tmp_path / "log.jsonl").write_text(json.dumps(one | {"evaluator": "statements"}) + "\n")
    assert read_log(tmp_path / "log.jsonl") == [one | {"evaluator": "entailment"}]


def test_records_of_a_language_each_become_one_of_an_evaluator(tmp_path):
    """As runs wrote them before there were evaluators; curves and resumed runs go on with them."""
    way = {"R@1": 10.0, "R@5": 20.0, "R@10": 30.0, "mR": 20.0}

    def old(step, language, mean):
        return {
            **{"kind": "evaluation", "step": step, "seconds": 9.0, "split": "val", "language": language},
            **{"images": 4, "texts": 4, "pairs": 4, "image_to_text": way, "text_to_image": {}, "mR": mean},
            **{
                "chance": {"image_to_text": way},
                "measures": {"STS": 5.0} if mean else 7,
                "tie_rule": "against the model",
            },
        }

    records = [record(4), old(4, "zh", 20.0), old(4, "en", 30.0), record(8), old(8, "zh", None)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    first, second = [each for each in read_log(tmp_path / "log.jsonl") if each["kind"] == "evaluation"]
    recalls = {f"{language}/image_to_text/{name}": v for language in ("zh", "en") for name, v in way.items()}
    others = {"zh/mR": 20.0, "en/mR": 30.0, "zh/STS": 5.0, "en/STS": 5.0, "mean_recall": 25.0}
    assert first["metrics"] == recalls | others and first["best_by"] == "mean_recall" and first["step"] == 4
    assert "zh/image_to_text/R@5" not in first["shown"] and {"zh/STS", "en/image_to_text/R@1"} <= {*first["shown"]}
    assert "mean_recall" not in second["metrics"]
    RunLog(tmp_path, Config(), first_step=4, evaluated=4).close()
    assert read_log(tmp_path / "log.jsonl") == [record(4), first]


def test_what_strangers_write_into_a_run_stays(tmp_path):
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


def test_a_run_in_a_sentence_before_and_after_its_first_records():
    """Losses that were not finite and scorers that choose nothing are left out."""
    assert in_a_sentence([], 10) == ""
    score = {"kind": "evaluation", "step": 0, "best_by": "mean_recall", "metrics": {"mean_recall": 12.5}}
    assert in_a_sentence([score], 10) == "Best mean recall 12.50 at step 0."
    records = [
        score,
        {"kind": "train", "step": 1, "loss": 2.0},
        {"kind": "train", "step": 2, "loss": None},
        {"kind": "evaluation", "step": 2, "best_by": "accuracy", "metrics": {"accuracy": 90.0}},
        {"kind": "evaluation", "step": 2, "best_by": None, "metrics": {"loss": 1.0}},
        score | {"step": 2, "metrics": {"mean_recall": None}},
    ]
    assert in_a_sentence(records, 10) == "Step 1 of 10 with a loss of 2.000; best mean recall 12.50 at step 0."
