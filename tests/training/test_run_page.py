"""The page that a run leaves."""

import pytest

from ernie_vil2.config import load_config
from ernie_vil2.io.run_folder import CURVES
from ernie_vil2.pages import speed_charts
from ernie_vil2.training.run_log import progress_facts
from ernie_vil2.training.trainer import Trainer
from tests.support.html_pages import Page, lines_of
from tests.support.trainings import crash_after, fit

CHARTS = {
    "Loss of each view pair": 4,
    "Retrieval over time": 9,
    "Learning rate": 1,
    "Logit scale": 1,
    "Gradient norm": 1,
    "Throughput": 1,
    "Loader wait": 1,
}


def page_of(trainer):
    return (trainer.run / CURVES).read_text(encoding="utf-8")


def test_the_curves_of_a_resumed_run_are_those_of_the_whole_one(config, tmp_path):
    every = ["Training.checkpoint_every=2", "Evaluation.every=2", "Training.steps=4"]
    whole = fit(config(*every, f"Training.output={tmp_path / 'whole' / 'run'}"))
    first = Trainer(config(*every))
    crash_after(first, 3)
    assert len(lines_of(page_of(first), "Loss of each view pair")[0]) == 2, "the page was not there before the end"
    (first.run / f".{CURVES}.1.partial").write_text("<!DOCTYPE")  # as kill -9 leaves it
    second = fit(config(*every), resume=True)

    assert not list(second.run.glob(".*"))
    html = page_of(second)
    for chart, lines in CHARTS.items():
        assert len(lines_of(html, chart)) == lines, chart
    for chart in list(CHARTS)[:5]:  # the others depend on the clock
        assert lines_of(html, chart) == lines_of(page_of(whole), chart), chart
    assert [len(line) for line in lines_of(html, "Throughput")] == [4]
    assert [len(line) for line in lines_of(html, "Retrieval over time")] == [2] * 9

    # It needs no other file, and says what was run.
    page = Page(html)
    assert page.all("script") == page.all("link") == page.all("img") == []
    assert "http" not in html and "url(" not in html and "@import" not in html
    text = " ".join(page.text)
    for expected in ("4 of 4", "16 samples", "paddlepaddle ", "All 64 samples"):
        assert expected in text, expected


def test_progress_is_counted_from_the_log():
    records = [
        {"kind": "train", "step": step, "seconds": 60.0 * step, "samples_per_second": rate, "loader_wait": wait}
        for step, rate, wait in ((1, 10.0, 0.0), (2, 30.0, 0.1), (3, 50.0, 0.5))
    ]
    facts = progress_facts(load_config(None, ["Training.steps=5000"]), records)
    assert facts == {
        "Steps": "3 of 5,000",
        "Training time": "3.0 minutes",
        "Throughput": "30 samples a second (median)",
        "Loader wait": "20.0% of the time",
    }
    assert progress_facts(load_config(None), []) == {}
    throughput, waits = speed_charts(records)
    assert waits.y_ticks[-1][1] == "50" and throughput.y_ticks[-1][1] == "50"  # in percent
    heights = [float(y) for _, y in waits.lines[0].marks]
    assert heights[0] - heights[1] == pytest.approx((heights[0] - heights[2]) / 5, abs=0.11)
