"""`report.html` of one run and of several."""

import re

from ernie_vil2.config import load_config
from ernie_vil2.evaluation.report_page import ReportedRun, result_tables, write_report
from tests.support.html_pages import Page

WAY = {"R@1": 10.0, "R@5": 20.0, "R@10": 30.0, "mR": 20.0}


def record(data, recall, protocol="pairs", differences=(), subset=None):
    scores = {"image_to_text": {**WAY, "R@1": recall}, "text_to_image": WAY}
    chance = {"image_to_text": WAY, "text_to_image": WAY}
    result = {
        "protocol": protocol,
        "definition": f"all of {protocol}",
        "tie_rule": "ties count",
        "differences": differences,
    }
    table = [["all queries", None], ["  model, zh", scores], ["  chance", chance]]
    table += [[subset, None], ["  model, zh", scores]] if subset else []
    return {"version": 1, "data": data, "results": {"model, zh": result}, "table": table}


def reported(name, evaluations, *overrides, records=()):
    config = load_config(None, [f"Training.output=runs/{name}", *overrides])
    return ReportedRun(name, config, {"Steps": f"9 of {name}"}, records, evaluations)


def page_of(path, runs, **changes):
    write_report(path, **{"title": "A report", "runs": runs, "queries": {}, "facts": {}} | changes)
    return path.read_text(encoding="utf-8")


def test_each_data_set_and_protocol_has_its_own_table(tmp_path):
    evaluations = [record(["a/test"], 41.0), record(["b/test"], 52.0), record(["a/test"], 63.0, "any-of", ["Fewer."])]
    html = page_of(tmp_path / "report.html", [reported("one", evaluations)])
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings == ["Retrieval: a/test, pairs", "Retrieval: b/test, pairs", "Retrieval: a/test, any-of", "Training",
                        "What the figures mean"]  # fmt: skip
    parts = re.split(r"<h2>", html)[1:]
    for part, recall in zip(parts, ("41.00", "52.00", "63.00"), strict=False):
        assert recall in part and sum(other in part for other in ("41.00", "52.00", "63.00")) == 1
    assert "Fewer." in parts[2] and "Fewer." not in parts[0] + parts[1]
    # What a protocol says is printed once, after the results.
    assert html.count("all of pairs") == 1 and html.index("all of pairs") > html.index("63.00")
    assert "9 of one" in html


def test_runs_are_compared_on_the_data_that_they_share(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = reported("first", [record(["a.tar"], 41.0, subset="kind = disc"), record(["b.tar"], 42.0)])
    second = reported(
        "second", [record([str(tmp_path / "a.tar")], 51.0)], "Training.steps=5000", "Loss.temperature=0.5"
    )
    tables = result_tables([first, second])
    assert list(tables) == ["a.tar, pairs", "b.tar, pairs"]
    rows = [(label, cells and cells[0]) for label, cells in tables["a.tar, pairs"].rows]
    assert rows == [
        ("all queries", None),
        ("  first: model, zh", "41.00"),
        ("  second: model, zh", "51.00"),
        ("  chance", "10.00"),
        ("kind = disc", None),
        ("  first: model, zh", "41.00"),
    ]
    text = " ".join(Page(page_of(tmp_path / "report.html", [first, second])).text)
    # The settings in which they differ, the name of the folder apart.
    assert "Training.steps" in text and "Loss.temperature" in text
    assert "Training.output" not in text and "Loss.tile" not in text
