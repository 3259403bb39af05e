"""The result pages' charts and templates, from plain data."""

import math
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.evaluation.report import Section
from ernie_vil2.evaluation.report_page import ChangeSummary, RankChange
from ernie_vil2.pages import (
    Axis,
    Series,
    Table,
    make_comparison_charts,
    make_line_chart,
    make_speed_charts,
    make_training_charts,
    render,
)
from ernie_vil2.pages.charts import MAX_POINTS
from tests.support.html_pages import Page, read_chart_lines
from tests.support.limits import limit_examples

PIXELS = np.zeros((4, 4, 3), np.uint8)
IMAGES = {kind: cv2.imencode(f".{kind}", PIXELS)[1].tobytes() for kind in ("png", "jpeg")}


def training(step, **changes):
    losses = {"image_image": 2.0, "text_text": 1.0, "image_text": 4.0, "text_image": 3.0}
    record = {"kind": "train", "step": step, "loss": 10.0, **losses, "learning_rate": 1e-4, "logit_scale": 14.0}
    return record | changes


def evaluation(step, language="en", evaluator="retrieval", **changes):
    metrics = {}
    for way in ("image_to_text", "text_to_image"):
        metrics |= {f"{language}/{way}/R@1": 10.0 + step, f"{language}/{way}/R@10": 50.0}
    record = {"kind": "evaluation", "step": step, "evaluator": evaluator, "best_by": "mean_recall",
              "progress_metrics": list(metrics), "metrics": {**metrics, "mean_recall": 30.0}}  # fmt: skip
    return record | changes


def run_page(records, **changes):
    charts = {"training": make_training_charts(records), "speed": make_speed_charts(records)}
    data = {"title": "A run", "facts": {}, "bad_samples": BadSampleReport(), **charts}
    return render("run.html", **data | changes)


def report_page(**changes):
    data = {"title": "A report", "facts": {}, "comparison": None, "tables": {}, "training": [], "queries": {},
            "definitions": {}, "changes": [], "verdicts": [], "headlines": [], "thumbnails": {}}  # fmt: skip
    return render("report.html", **data | changes)


def dry_run_page(**changes):
    chart = make_line_chart("Rate", "", [Series("rate", [(1, 1.0), (2, 0.5)], 1)], Axis("rate"))
    data = {"title": "t", "summary": "s", "facts": {}, "plan": "", "schedule": chart, "bad_samples": BadSampleReport()}
    return render("dry_run.html", **data | changes)


def chart_of(points, is_logarithmic=True, **options):
    return make_line_chart("c", "", [Series("s", points, 1)], Axis("", is_logarithmic=is_logarithmic, **options))


def answer(is_correct, image=IMAGES["png"], caption="answer"):
    return {"image": image, "caption": caption, "score": 0.5, "is_correct": is_correct, "rank": None}


def card(answers, query="q", language="en", **changes):
    return {"query": query, "images": [], "language": language, "tags": [], "answers": answers} | changes


def table(rows):
    groups = [("image → text", 1), ("text → image", 1)]
    return Table(["R@1", "R@1", "mR"], rows, groups=groups, notes=["Percent."], kind="recalls")


@pytest.mark.parametrize("name", ["report", "evaluation", "run", "dry_run", "interpolation"])
def test_what_users_wrote_is_text_not_markup(name):
    evil = "<script>alert('\"&')</script>"
    charts = make_training_charts([training(1), evaluation(1, evil, evil), evaluation(2, evil, evil)])
    line = make_line_chart(evil, evil, [Series(evil, [(1, 1), (2, 2)], 1)] * 2, Axis(evil))
    report = BadSampleReport()
    report.add(9, [(evil, evil)], [(evil, evil)])
    cards = {evil: [card([answer(True, caption=evil)], evil, evil, images=[IMAGES["png"]], tags=[evil])]}
    sample = {"images": {evil: IMAGES["png"]}, "texts": {"sample": evil, evil: evil}}
    recalls = replace(table([(evil, None), (evil, [evil])]), notes=[evil], groups=[(evil, 1)])
    words = Table([evil], [(evil, [evil])], corner=evil, text_columns=[0])
    matrix = Table([evil, evil], [(evil, ["1", "0"])], kind="matrix", shades=[[1.0, 0.0]])
    html = render(
        f"{name}.html",
        title=evil,
        facts={evil: evil},
        comparison={"runs": [evil], "rows": [(evil, [evil])]},
        tables={evil: recalls},
        sections=[Section(evil, evil, [recalls, words, matrix], cards[evil], [evil], {evil: evil})],
        training=charts,
        speed=charts,
        queries=cards,
        definitions={evil: evil},
        bad_samples=report,
        sources=[{"name": evil, "note": evil, "samples": [sample] * 2, "at_once": 1}],
        changes=[(evil, ChangeSummary(1, 1, 1, 1, [RankChange(evil, 2, 1, evil)], [RankChange(evil, 1, 2, evil)]))],
        verdicts=[evil],
        headlines=[evil],
        thumbnails={},
        charts=[line],
        columns=[evil, evil],
        rows=[{"mixture": evil, evil: 1.0}],
        chosen=evil,
        plan=evil,
        schedule=line,
    )
    page = Page(html)
    assert page.find_all("script") == page.find_all("link") == []
    assert not re.search(r"@import|url\(|https?://|src=\"(?!data:)|href=", html)  # nothing is loaded
    assert "".join(page.text).count(evil) >= 9
    assert page.find_all("svg", role="img") or name == "evaluation"


def test_chinese_in_every_part_of_a_page_is_marked():
    html = report_page(
        title="题",
        facts={"数据": "训练"},
        tables={"测试": table([("全部", None), ("模型", ["1"])])},
        training=make_training_charts([training(1), evaluation(1, "中文")]),
        queries={"例": [card([answer(True, caption="苹果")], "红", "zh")]},
    )
    unmarked = re.sub(r'<span lang="zh">[^<]*</span>|<title>.*?</title>|(?:aria-label|title)="[^"]*"', "", html)
    assert not re.search("[\u4e00-\u9fff]", unmarked)


def test_unknown_tokens_of_any_tokenizer_and_view_are_marked():
    texts = {"sample": "1", "text, as tokens": "▁a <unk> </s>", "text_2, as tokens": "[CLS] [UNK]", "caption": "<unk>"}
    html = dry_run_page(sources=[{"name": "s", "note": "", "at_once": 6, "samples": [{"images": {}, "texts": texts}]}])
    assert re.findall("<mark [^>]*>(.*?)</mark>", html) == ["&lt;unk&gt;", "[UNK]"]
    assert Page(html).text.count("<unk>") == 2 and "▁a" in html


def test_loss_lines_keep_order_and_their_factors_are_distances():
    lines = read_chart_lines(run_page([training(10), training(20)]), "Loss of each view pair")
    heights = [line[-1][1] for line in lines]  # of the losses 2, 1, 4, 3; y points down
    assert sorted(range(4), key=lambda i: heights[i]) == [2, 3, 0, 1]
    assert heights[1] - heights[0] == pytest.approx(heights[0] - heights[2], abs=0.11)
    assert heights[0] - heights[3] == pytest.approx((heights[1] - heights[0]) * math.log2(1.5), abs=0.11)


@limit_examples(20)
@given(low=st.floats(1e-4, 1e3), factor=st.floats(1, 1e4))
def test_logarithmic_ticks_enclose_the_data(low, factor):
    chart = chart_of([(1, low), (2, low * factor)])
    ticks = [float(label.replace(",", "")) for _, label in chart.y_ticks]
    assert ticks == sorted(set(ticks)) and 2 <= len(ticks) <= 12
    assert ticks[0] <= low * 1.001 and ticks[-1] >= low * factor * 0.999
    assert chart.y_ticks[0][0] == chart.bottom


@limit_examples(30)
@given(steps=st.integers(1, 10**6), points=st.integers(1, 400))
def test_the_last_tick_is_the_last_step(steps, points):
    numbers = np.unique(np.linspace(1, steps, points).astype(int)).tolist()
    chart = chart_of([(step, 1.0) for step in numbers])
    position, label = chart.x_ticks[-1]
    assert label.replace(",", "") == str(numbers[-1]) and position == chart.right
    for (left, label), (right, next_label) in zip(chart.x_ticks, chart.x_ticks[1:], strict=False):
        assert right - left > 6 * (len(label) + len(next_label)) / 2, "the figures run into each other"


def test_what_has_no_logarithm_or_is_not_finite_leaves_a_gap():
    chart = chart_of([(1, 2.0), (2, 0.0), (3, 1.0)])
    assert chart.lines[0].path.count("M") == 2
    assert not chart_of([(1, 0.0)]).lines
    html = run_page([training(step, image_image=math.nan if step == 3 else 2.0) for step in range(1, 6)])
    path = re.search(r'<path class="line s1" d="([^"]*)"', html)[1]
    assert [segment.count("L") for segment in path.split("M")[1:]] == [1, 1]
    assert "NaN" not in path


def test_a_long_log_is_averaged_and_says_so():
    wave = [training(step, image_image=2.0 + (-1) ** step) for step in range(1, 4 * MAX_POINTS + 1)]
    html = run_page(wave)
    line = read_chart_lines(html, "Loss of each view pair")[0]
    assert len(line) == MAX_POINTS
    assert len({y for _, y in line}) == 1  # 1, 3, 1, 3 averages to 2 everywhere
    assert "mean of 4 log records" in html


def test_a_resumed_run_keeps_the_later_record_of_a_step():
    start, lost, rest = training(1), training(2, image_image=9.0), [training(2, image_image=1.5), training(3)]
    assert run_page([start, lost, *rest]) == run_page([start, *rest])


def test_recall_shows_cutoffs_directions_and_languages():
    records = []
    for step in (10, 20):
        zh, en = evaluation(step, "zh"), evaluation(step, "en")
        names = zh["progress_metrics"] + en["progress_metrics"]
        records.append(zh | {"progress_metrics": names, "metrics": zh["metrics"] | en["metrics"]})
    html = run_page([*records, evaluation(20, "fr", "another")])
    assert [len(line) for line in read_chart_lines(html, "Retrieval over time")] == [2] * 8
    assert len(read_chart_lines(html, "Another over time")) == 4
    for language in ("zh", "en"):
        for way in ("image → text", "text → image"):
            assert f"{language} {way} R@1 <b>30</b>" in html


def test_numbers_of_any_name_are_drawn():
    """Of an evaluator and a task that nothing here knows; one that is missing or null leaves a gap."""
    metrics = {"accuracy": 60.0, "accuracy/entailment": 70.0, "accuracy/neutral": None, "accuracy/contradiction": 50.0}
    scores = [
        evaluation(step, "", "snli_ve", best_by="accuracy", metrics=metrics, progress_metrics=None) for step in (1, 2)
    ]
    steps = [{"kind": "train", "step": step, "loss": 1.0, "train_accuracy": 30.0} for step in (1, 2)]
    html = run_page([*steps, *scores, evaluation(3, "", "snli_ve", metrics={"accuracy": 61.0}, progress_metrics=None)])
    assert [len(line) for line in read_chart_lines(html, "Snli ve over time")] == [3, 2, 2]
    for label in ("accuracy <b>61</b>", "accuracy entailment <b>70</b>", "accuracy contradiction <b>50</b>"):
        assert label in html
    assert len(read_chart_lines(html, "Loss")) == len(read_chart_lines(html, "Train accuracy")) == 1
    title = make_comparison_charts({"one": scores, "two": [*steps, evaluation(1, "zh")]})[1].title
    assert title == "Accuracy and mean recall over time"


@pytest.mark.parametrize(("most", "is_cut"), [(2.3, False), (1e4, True)])
def test_an_outlier_does_not_rule_the_axis_of_the_loss(most, is_cut):
    values = [most, *(2.0 + 0.01 * step for step in range(30))]
    chart = chart_of(list(enumerate(values)), has_outliers=False)
    assert bool(chart.note) == is_cut
    assert float(chart.y_ticks[-1][1].replace(",", "")) < 4
    whole = chart_of(list(enumerate(values)))
    assert float(whole.y_ticks[-1][1].replace(",", "")) >= most and not whole.note


def test_the_best_step_is_marked():
    recalls = {0: 90.0, 10: 40.0, 20: 50.0, 30: 45.0}
    records = [
        evaluation(step, progress_metrics=None, metrics={"mean_recall": value}) for step, value in recalls.items()
    ]
    assert "best: 20" in run_page(records)  # step 0 is not a checkpoint
