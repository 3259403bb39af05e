"""Charts and templates of the result pages show plain data as they should."""

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
    write_page,
)
from ernie_vil2.pages.charts import MAX_POINTS
from tests.support.html_pages import Page, read_chart_lines
from tests.support.limits import limit_examples

PIXELS = np.zeros((4, 4, 3), np.uint8)
IMAGES = {kind: cv2.imencode(f".{kind}", PIXELS)[1].tobytes() for kind in ("png", "jpeg")}


def make_training_record(step, **changes):
    losses = {"image_image": 2.0, "text_text": 1.0, "image_text": 4.0, "text_image": 3.0}
    record = {"kind": "train", "step": step, "loss": 10.0, **losses, "learning_rate": 1e-4, "logit_scale": 14.0}
    return record | changes


def make_evaluation_record(step, language="en", evaluator="retrieval", **changes):
    metrics = {}
    for direction in ("image_to_text", "text_to_image"):
        metrics |= {f"{language}/{direction}/R@1": 10.0 + step, f"{language}/{direction}/R@10": 50.0}
    record = {"kind": "evaluation", "step": step, "evaluator": evaluator, "best_by": "mean_recall",
              "progress_metrics": list(metrics), "metrics": {**metrics, "mean_recall": 30.0}}  # fmt: skip
    return record | changes


def render_run(records, **changes):
    charts = {"training": make_training_charts(records), "speed": make_speed_charts(records)}
    data = {"title": "A run", "facts": {}, "bad_samples": BadSampleReport(), **charts}
    return render("run.html", **data | changes)


def render_report(**changes):
    data = {"title": "A report", "facts": {}, "comparison": None, "tables": {}, "training": [], "queries": {},
            "definitions": {}, "changes": [], "verdicts": [], "headlines": [], "thumbnails": {}}  # fmt: skip
    return render("report.html", **data | changes)


def render_dry_run(**changes):
    chart = make_line_chart("Rate", "", [Series("rate", [(1, 1.0), (2, 0.5)], 1)], Axis("rate"))
    data = {"title": "t", "summary": "s", "facts": {}, "plan": "", "schedule": chart, "bad_samples": BadSampleReport()}
    return render("dry_run.html", **data | changes)


def draw_line(points, is_logarithmic=True, **options):
    return make_line_chart("c", "", [Series("s", points, 1)], Axis("", is_logarithmic=is_logarithmic, **options))


def make_answer(is_correct, image=IMAGES["png"], caption="answer"):
    return {"image": image, "caption": caption, "score": 0.5, "is_correct": is_correct, "rank": None}


def make_card(answers, query="q", language="en", **changes):
    return {"query": query, "images": [], "language": language, "tags": [], "answers": answers} | changes


def make_table(rows):
    groups = [("image → text", 1), ("text → image", 1)]
    return Table(["R@1", "R@1", "mR"], rows, groups=groups, notes=["Percent."], kind="recalls")


@pytest.mark.parametrize("name", ["report", "evaluation", "run", "dry_run", "interpolation"])
def test_texts_of_users_are_no_markup(name):
    evil = "<script>alert('\"&')</script>"
    charts = make_training_charts(
        [make_training_record(1), make_evaluation_record(1, evil, evil), make_evaluation_record(2, evil, evil)]
    )
    line = make_line_chart(evil, evil, [Series(evil, [(1, 1), (2, 2)], 1)] * 2, Axis(evil))
    report = BadSampleReport()
    report.add(9, [(evil, evil)], [(evil, evil)])
    cards = {evil: [make_card([make_answer(True, caption=evil)], evil, evil, images=[IMAGES["png"]], tags=[evil])]}
    sample = {"images": {evil: IMAGES["png"]}, "texts": {"sample": evil, evil: evil}}
    recalls = replace(make_table([(evil, None), (evil, [evil])]), notes=[evil], groups=[(evil, 1)])
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


def test_ends_of_stages_are_marked_across_the_charts():
    records = [make_training_record(step, stage=1 + (step > 4)) for step in (2, 4, 6, 8)]
    for step in (4, 8):
        records.append(make_evaluation_record(step))
        records[-1]["metrics"]["mean_recall"] = 90.0 - step
    charts = make_training_charts(records)
    expected = (charts[0].left + charts[0].right) / 2  # step 4 of 8
    assert all(chart.borders == [expected] for chart in charts if chart.lines)
    # Only a model of the last stage is the best.
    assert [chart.best[1] for chart in charts if chart.best] == ["best: 8"]
    assert "stage" not in {chart.title.lower() for chart in charts}
    page = Page(render_run(records))
    assert len(page.find_all("line", **{"class": "border"})) == sum(bool(chart.lines) for chart in charts)


def test_chinese_is_marked_everywhere():
    html = render_report(
        title="题",
        facts={"数据": "训练"},
        tables={"测试": make_table([("全部", None), ("模型", ["1"])])},
        training=make_training_charts([make_training_record(1), make_evaluation_record(1, "中文")]),
        queries={"例": [make_card([make_answer(True, caption="苹果")], "红", "zh")]},
    )
    unmarked = re.sub(r'<span lang="zh">[^<]*</span>|<title>.*?</title>|(?:aria-label|title)="[^"]*"', "", html)
    assert not re.search("[\u4e00-\u9fff]", unmarked)


def test_unknown_tokens_are_marked_in_every_view():
    texts = {"sample": "1", "text, as tokens": "▁a <unk> </s>", "text_2, as tokens": "[CLS] [UNK]", "caption": "<unk>"}
    html = render_dry_run(
        sources=[{"name": "s", "note": "", "at_once": 6, "samples": [{"images": {}, "texts": texts}]}]
    )
    assert re.findall("<mark [^>]*>(.*?)</mark>", html) == ["&lt;unk&gt;", "[UNK]"]
    assert Page(html).text.count("<unk>") == 2 and "▁a" in html


def test_loss_lines_have_a_logarithmic_scale():
    lines = read_chart_lines(render_run([make_training_record(10), make_training_record(20)]), "Loss of each view pair")
    # The losses are 2, 1, 4 and 3; y points down.
    y_of_2, y_of_1, y_of_4, y_of_3 = [line[-1][1] for line in lines]
    assert y_of_4 < y_of_3 < y_of_2 < y_of_1
    # Equal factors are equal distances; positions are written with one decimal.
    assert y_of_1 - y_of_2 == pytest.approx(y_of_2 - y_of_4, abs=0.11)
    assert y_of_2 - y_of_3 == pytest.approx((y_of_1 - y_of_2) * math.log2(1.5), abs=0.11)


@limit_examples(20)
@given(low=st.floats(1e-4, 1e3), factor=st.floats(1, 1e4))
def test_logarithmic_ticks_enclose_the_data(low, factor):
    chart = draw_line([(1, low), (2, low * factor)])
    ticks = [float(label.replace(",", "")) for _, label in chart.y_ticks]
    assert ticks == sorted(set(ticks)) and 2 <= len(ticks) <= 12
    assert ticks[0] <= low * 1.001 and ticks[-1] >= low * factor * 0.999
    assert chart.y_ticks[0][0] == chart.bottom


@limit_examples(30)
@given(steps=st.integers(1, 10**6), points=st.integers(1, 400))
def test_last_tick_is_the_last_step(steps, points):
    numbers = np.unique(np.linspace(1, steps, points).astype(int)).tolist()
    chart = draw_line([(step, 1.0) for step in numbers])
    position, label = chart.x_ticks[-1]
    assert label.replace(",", "") == str(numbers[-1]) and position == chart.right
    for (x, label), (next_x, next_label) in zip(chart.x_ticks, chart.x_ticks[1:], strict=False):
        # A digit is about 6 units wide.
        assert next_x - x > 6 * (len(label) + len(next_label)) / 2, "the figures run into each other"


def test_values_without_a_logarithm_leave_a_gap():
    chart = draw_line([(1, 2.0), (2, 0.0), (3, 1.0)])
    assert chart.lines[0].path.count("M") == 2
    assert not draw_line([(1, 0.0)]).lines
    html = render_run([make_training_record(step, image_image=math.nan if step == 3 else 2.0) for step in range(1, 6)])
    path = re.search(r'<path class="line s1" d="([^"]*)"', html)[1]
    assert [segment.count("L") for segment in path.split("M")[1:]] == [1, 1]
    assert "NaN" not in path


def test_long_log_is_averaged_and_says_so():
    wave = [make_training_record(step, image_image=2.0 + (-1) ** step) for step in range(1, 4 * MAX_POINTS + 1)]
    html = render_run(wave)
    line = read_chart_lines(html, "Loss of each view pair")[0]
    assert len(line) == MAX_POINTS
    assert len({y for _, y in line}) == 1  # the mean of 1, 3, 1, 3 is 2 everywhere
    assert "mean of 4 log records" in html


def test_resumed_run_shows_the_later_record_of_a_step():
    first, interrupted = make_training_record(1), make_training_record(2, image_image=9.0)
    resumed = [make_training_record(2, image_image=1.5), make_training_record(3)]
    assert render_run([first, interrupted, *resumed]) == render_run([first, *resumed])


def test_recall_shows_cutoffs_directions_and_languages():
    records = []
    for step in (10, 20):
        zh, en = make_evaluation_record(step, "zh"), make_evaluation_record(step, "en")
        names = zh["progress_metrics"] + en["progress_metrics"]
        records.append(zh | {"progress_metrics": names, "metrics": zh["metrics"] | en["metrics"]})
    html = render_run([*records, make_evaluation_record(20, "fr", "another")])
    assert [len(line) for line in read_chart_lines(html, "Retrieval over time")] == [2] * 8
    assert len(read_chart_lines(html, "Another over time")) == 4
    for language in ("zh", "en"):
        for direction in ("image → text", "text → image"):
            assert f"{language} {direction} R@1 <b>30</b>" in html


def test_metrics_of_any_name_are_drawn():
    # The evaluator and the task are unknown to the pages; a metric that is missing or null leaves a gap.
    metrics = {"accuracy": 60.0, "accuracy/entailment": 70.0, "accuracy/neutral": None, "accuracy/contradiction": 50.0}
    scores = [
        make_evaluation_record(step, "", "snli_ve", best_by="accuracy", metrics=metrics, progress_metrics=None)
        for step in (1, 2)
    ]
    steps = [{"kind": "train", "step": step, "loss": 1.0, "train_accuracy": 30.0} for step in (1, 2)]
    html = render_run(
        [*steps, *scores, make_evaluation_record(3, "", "snli_ve", metrics={"accuracy": 61.0}, progress_metrics=None)]
    )
    assert [len(line) for line in read_chart_lines(html, "Snli ve over time")] == [3, 2, 2]
    for label in ("accuracy <b>61</b>", "accuracy entailment <b>70</b>", "accuracy contradiction <b>50</b>"):
        assert label in html
    assert len(read_chart_lines(html, "Loss")) == len(read_chart_lines(html, "Train accuracy")) == 1
    title = make_comparison_charts({"one": scores, "two": [*steps, make_evaluation_record(1, "zh")]})[1].title
    assert title == "Accuracy and mean recall over time"


@pytest.mark.parametrize(("maximum", "is_cut"), [(2.3, False), (1e4, True)])
def test_outlier_does_not_stretch_the_axis_of_the_loss(maximum, is_cut):
    values = [maximum, *(2.0 + 0.01 * step for step in range(30))]
    chart = draw_line(list(enumerate(values)), has_outliers=False)
    assert bool(chart.note) == is_cut
    assert float(chart.y_ticks[-1][1].replace(",", "")) < 4
    with_outliers = draw_line(list(enumerate(values)))
    assert float(with_outliers.y_ticks[-1][1].replace(",", "")) >= maximum and not with_outliers.note


def test_best_step_is_marked():
    recalls = {0: 90.0, 10: 40.0, 20: 50.0, 30: 45.0}
    records = [
        make_evaluation_record(step, progress_metrics=None, metrics={"mean_recall": value})
        for step, value in recalls.items()
    ]
    assert "best: 20" in render_run(records)  # step 0 is not a checkpoint


def test_table_for_a_terminal_keeps_long_and_chinese_cells_apart():
    table = Table(["中立", "loss"], [("蕴含", ["1,234,567", "1"]), ("none", None), ("a", ["2", "12,345,678"])])
    assert table.as_text().splitlines() == [
        "          中立       loss",
        "-------------------------",
        "蕴含 1,234,567          1",
        "none",
        "a            2 12,345,678",
    ]


@pytest.mark.parametrize("field", ["loss", "learning_rate", "gradient_norm", "samples_per_second", "m"])
@pytest.mark.parametrize("value", ["x", 5e-324, math.inf, -math.inf, math.nan])
def test_log_of_a_stranger_is_drawn_whatever_its_values(field, value):
    records = [{"kind": "train", "step": step, "loss": 1.0, field: value} for step in range(1, 400)]
    charts = make_training_charts(records) + make_speed_charts(records) + make_comparison_charts({"run": records})
    for line in (line for chart in charts for line in chart.lines):
        assert "nan" not in line.path and "inf" not in line.path


def test_page_shows_names_that_are_not_utf8_as_escapes(tmp_path):
    template = tmp_path / "page.html"
    template.write_text("{{ name }}")
    write_page(tmp_path / "report.html", template, name="图 \udcff <b>")
    assert (tmp_path / "report.html").read_text() == "图 \\udcff &lt;b&gt;"
