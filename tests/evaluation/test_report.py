import math
import re

import cv2
import numpy as np
import pytest

from ernie_vil2.evaluation.curves import MOST_POINTS
from ernie_vil2.evaluation.report import write_report
from tests.pages import Page, lines_of

PIXELS = np.zeros((4, 4, 3), np.uint8)
IMAGES = {kind: cv2.imencode(f".{kind}", PIXELS)[1].tobytes() for kind in ("webp", "png", "jpeg")}


def training(step, **changes):
    losses = {"image_image": 2.0, "text_text": 1.0, "image_text": 4.0, "text_image": 3.0}
    return {
        "kind": "train",
        "step": step,
        "loss": 10.0,
        **losses,
        "learning_rate": 1e-4,
        "logit_scale": 14.0,
        **changes,
    }


def evaluation(step, language, split="val"):
    way = {"R@1": 10.0 + step, "R@5": 30.0, "R@10": 50.0, "mR": 30.0}
    scores = {"image_to_text": way, "text_to_image": way}
    return {"kind": "evaluation", "step": step, "split": split, "language": language, **scores}


def answer(correct, image=IMAGES["webp"], caption="answer"):
    return {"image": image, "caption": caption, "score": 0.5, "correct": correct}


@pytest.fixture
def report(tmp_path):
    def write(**changes):
        parts = {"title": "A report", "facts": {}, "curves": [], "table_rows": [], "queries": []}
        write_report(tmp_path / "report.html", **{**parts, **changes})
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return write


def test_a_full_page_is_whole_and_loads_nothing(report, tmp_path):
    scores = {"image_to_text": {"R@1": 45.678, "R@5": 60.0, "R@10": 70.0, "mR": 58.0}}
    to_image, to_text = [answer(True), answer(False)], [answer(True, None, "wind chime")]
    html = report(
        facts={"model": "small"},
        curves=[training(1), training(2), evaluation(2, "zh"), evaluation(2, "en")],
        table_rows=[("all concepts", None), ("model, zh", scores)],
        queries=[
            {"query": "风铃", "query_image": None, "language": "zh", "answers": to_image},
            {"query": None, "query_image": IMAGES["png"], "language": "en", "answers": to_text},
        ],
    )
    page = Page(html)
    text = " ".join(page.text)
    for expected in ("A report", "small", "all concepts", "model, zh", "45.68", "风铃", "wind chime"):
        assert expected in text
    assert len(page.all("svg", role="img")) == 4
    assert page.all("script") == page.all("link") == []
    assert "@import" not in html and "url(" not in html
    assert not re.search(r"https?://|src=\"(?!data:)|href=", html)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_right_and_wrong_differ_by_more_than_colour(report):
    query = {"query": "q", "query_image": None, "language": "en", "answers": [answer(True), answer(False)]}
    html = report(queries=[query])
    right, wrong = re.findall(r'<li class="(?:right|wrong)">.*?</li>', html)
    assert '<li class="right">' in right and ">right</span>" in right
    assert '<li class="wrong">' in wrong and ">wrong</span>" in wrong
    marks = [re.search(r'class="mark".*?d="([^"]*)"', item).group(1) for item in (right, wrong)]
    assert marks[0] != marks[1]


def test_what_users_wrote_is_text_not_markup(report):
    evil = "<script>alert('\"&')</script>"
    answers = [answer(True, caption=evil)]
    query = {"query": evil, "query_image": IMAGES["webp"], "language": evil, "answers": answers}
    record = evaluation(1, evil, split=evil)
    rows = [(evil, None), (evil, {})]
    html = report(title=evil, facts={evil: evil}, curves=[record], table_rows=rows, queries=[query])
    page = Page(html)
    assert page.all("script") == []
    assert "".join(page.text).count(evil) >= 9
    assert page.all("img", alt=evil) and page.all("div", class_="caption", lang=evil)


@pytest.mark.parametrize("kind", IMAGES)
def test_image_type_is_read_from_the_bytes(report, kind):
    html = report(queries=[{"query": "q", "query_image": IMAGES[kind], "language": "en", "answers": []}])
    (found,) = Page(html).all("img")
    assert found["src"].startswith(f"data:image/{kind};base64,")


def test_an_unknown_image_is_named_and_leaves_the_old_report(report, tmp_path):
    before = report(title="the old one")
    bad = {"query": "q", "query_image": None, "language": "en", "answers": [answer(True, b"GIF89a")]}
    with pytest.raises(ValueError, match="query 1 is neither WebP, PNG nor JPEG"):
        report(queries=[bad])
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before
    assert len(list(tmp_path.iterdir())) == 1


def test_loss_lines_stand_in_the_order_of_their_values(report):
    lines = lines_of(report(curves=[training(10), training(20)]), "Loss of each view pair")
    heights = [line[-1][1] for line in lines]  # of the losses 2, 1, 4, 3; y points down
    assert sorted(range(4), key=lambda i: heights[i]) == [2, 3, 0, 1]
    assert heights[1] - heights[0] == pytest.approx(heights[0] - heights[3], abs=0.11)


def test_a_pair_that_is_off_has_no_line(report):
    curves = [{k: v for k, v in training(step).items() if k != "text_text"} for step in (1, 2)]
    html = report(curves=curves)
    assert len(lines_of(html, "Loss of each view pair")) == 3
    assert "text – text" not in html


def test_a_long_log_is_averaged_and_says_so(report):
    wave = [training(step, image_image=2.0 + (-1) ** step) for step in range(1, 4 * MOST_POINTS + 1)]
    html = report(curves=wave)
    line = lines_of(html, "Loss of each view pair")[0]
    assert len(line) == MOST_POINTS
    assert len({y for _, y in line}) == 1  # 1, 3, 1, 3 averages to 2 everywhere
    assert "mean of 4 log records" in html
    assert "Every log record is shown" in report(curves=wave[:MOST_POINTS])


def test_a_resumed_run_keeps_the_later_record_of_a_step(report):
    start, lost, rest = training(1), training(2, image_image=9.0), [training(2, image_image=1.5), training(3)]
    assert report(curves=[start, lost, *rest]) == report(curves=[start, *rest])


def test_a_loss_that_is_not_finite_leaves_a_gap(report):
    curves = [training(step, image_image=math.nan if step == 3 else 2.0) for step in range(1, 6)]
    html = report(curves=curves)
    path = re.search(r'<path class="line s1" d="([^"]*)"', html).group(1)
    assert [part.count("L") for part in path.split("M")[1:]] == [1, 1]
    assert "NaN" not in path


def test_recall_over_time_shows_both_cutoffs_directions_and_languages(report):
    records = [evaluation(step, language) for step in (10, 20) for language in ("zh", "en")]
    html = report(curves=[*records, evaluation(20, "zh", split="test")])
    lines = lines_of(html, "Recall over time")
    assert len(lines) == 8 and all(len(line) == 2 for line in lines)
    for language in ("zh", "en"):
        for way in ("image → text", "text → image"):
            assert f"{language} {way} R@1 <b>30</b>" in html
            assert f"{language} {way} R@10 <b>50</b>" in html
    assert "Scored on val" in html


def test_nothing_logged_is_said(report):
    assert report().count("Nothing logged") == 4
