"""Queries won and lost between two results, from their files of ranks, and the report of several runs."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from ernie_vil2.config import load_config
from ernie_vil2.evaluation.examples import CSV_COLUMNS
from ernie_vil2.evaluation.report import escape_cell
from ernie_vil2.evaluation.report_page import (
    ReportedRun,
    compare_rank_files,
    find_trained_queries,
    make_headline,
    make_result_tables,
    read_changes,
    read_outcomes,
    write_run_report,
)
from tests.support.html_pages import Page


def ranks(path, label, rows):
    """rows of (direction, id, query, rank), and perhaps the best right answer"""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for way, key, query, rank, *answer in rows:
            writer.writerow([label, way, key, escape_cell(query), rank, *(answer or ["x"]), 0.5, "y", 0.6])
    return path


def test_a_query_is_won_or_lost_with_the_first_rank(tmp_path):
    way = "image_to_text"
    before = ranks(tmp_path / "b.csv", "before", [(way, "a", "=A", 1), (way, "b", "B", 9), (way, "c", "C", 1),
                                                  (way, "d", "D", 7), (way, "e", "E", 3), (way, "gone", "F", 1),
                                                  ("text_to_image", "a", "猫", 2)])  # fmt: skip
    after = ranks(tmp_path / "a.csv", "after", [(way, "a", "=A", 4), (way, "b", "B", 1), (way, "c", "C", 1),
                                                (way, "d", "D", 2), (way, "e", "E", 1), (way, "new", "G", 1),
                                                ("text_to_image", "a", "猫", 1)])  # fmt: skip
    found = read_changes(before, after)
    images = found["image → text"]
    assert (images.num_kept, images.num_won, images.num_lost, images.num_missed) == (1, 2, 1, 1)
    # An image query is about itself, a text query about its best right answer.
    assert images.largest_gains == [("B", 9, 1, "b"), ("E", 3, 1, "e")]
    assert images.largest_losses == [("=A", 1, 4, "a")] and images.image_ids == {"a", "b", "e"}
    assert found["text → image"].largest_gains == [("猫", 2, 1, "x")]


def test_a_file_that_holds_no_ranks_is_named(tmp_path):
    good = ranks(tmp_path / "b.csv", "before", [("image_to_text", "a", "A", 1)])
    other = tmp_path / "other.csv"
    other.write_text(",".join(CSV_COLUMNS) + "\nbefore,image_to_text,a,A,first,,,,\n")
    with pytest.raises(ValueError, match="other.csv"):
        read_changes(good, other)


def test_two_files_of_ranks_give_a_verdict_by_images(tmp_path):
    rows = [(way, str(number), f"q{number}", 1 + number % 3)
            for way in ("image_to_text", "text_to_image") for number in range(60)]  # fmt: skip
    before = ranks(tmp_path / "b.csv", "before, zh", rows)
    after = ranks(tmp_path / "a.csv", "after, zh", [(*row[:3], 1) for row in rows])
    (verdict,) = compare_rank_files({"before": before, "after": after}).verdicts
    assert verdict.word == "better" and verdict.difference.mean == pytest.approx(200 / 9)
    found = read_outcomes(before)["zh"]
    assert (
        found.query_ids[60] == "text_to_image 0"
        and len({*found.clusters[:60]}) == 60
        and len({*found.clusters[60:]}) == 1
    )
    assert compare_rank_files({"before": before, "after": ranks(tmp_path / "c.csv", "c, zh", rows[:50])}) is None
    assert compare_rank_files({"before": before, "after": ranks(tmp_path / "d.csv", "d, en", rows)}) is None


def recall(ranks):
    """Mean of R@1, R@5 and R@10 in percent."""
    return 100 * np.mean([[rank <= cutoff for rank in ranks] for cutoff in (1, 5, 10)])


def test_the_headline_tells_trained_texts_from_others(tmp_path):
    """Image n has text n; every third text is a caption of the training data, written otherwise there."""
    random = np.random.default_rng(0)
    queries = [(way, number) for way in ("image_to_text", "text_to_image") for number in range(60)]
    before, after = {}, {}
    for way, number in queries:
        before[way, number] = int(random.integers(1, 20))
        after[way, number] = 1 if number % 3 == 0 else int(random.integers(1, 20))

    def written(name, found):
        rows = [
            (way, f"{'i' if way.startswith('image') else 't'}{number}", f"Text  {number}", rank,
             f"{'t' if way.startswith('image') else 'i'}{number}")
            for (way, number), rank in found.items()
        ]  # fmt: skip
        return ranks(tmp_path / f"{name}.csv", name, rows)

    paths = {"before": written("before", before), "after": written("after", after)}
    trained = find_trained_queries(paths["before"], {f"text {number}" for number in range(0, 60, 3)} | {"another"})
    assert (trained[""].num_texts, trained[""].num_trained, len(trained[""].ids)) == (60, 20, 40)
    sentence = make_headline(compare_rank_files(paths), trained_queries=trained)
    gains = re.search(r"; 20 of the 60 test texts .* gain ([+-][\d.]+), .* the others ([+-][\d.]+), ", sentence)
    for gain, is_trained in zip(gains.groups(), (True, False), strict=True):
        chosen = [query for query in queries if (query[1] % 3 == 0) == is_trained]
        expected = recall([after[query] for query in chosen]) - recall([before[query] for query in chosen])
        assert float(gain) == pytest.approx(expected, abs=0.051)


WAY = {"R@1": 10.0, "R@5": 20.0, "R@10": 30.0, "mR": 20.0}


def record(data, recall, subset=None):
    scores = {"image_to_text": {**WAY, "R@1": recall}, "text_to_image": WAY}
    chance = {"image_to_text": WAY, "text_to_image": WAY}
    result = {"protocol": "pairs", "definition": "all", "tie_rule": "ties count", "notes": []}
    table = [["all queries", None], ["  model, zh", scores], ["  chance", chance]]
    table += [[subset, None], ["  model, zh", scores]] if subset else []
    paths = [str(Path(path).resolve()) for path in data]
    return {"version": 1, "data": data, "paths": paths, "results": {"model, zh": result}, "table": table}


def reported(name, evaluations, *overrides):
    config = load_config(None, [f"Training.output=runs/{name}", *overrides])
    return ReportedRun(name, config, {"Steps": f"9 of {name}"}, (), evaluations)


def test_runs_are_compared_on_the_data_that_they_share(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = reported("first", [record(["a.tar"], 41.0, subset="kind = disc"), record(["b.tar"], 42.0)])
    changes = "Training.steps=5000", "Loss.temperature=0.5"
    second = reported("second", [record([str(tmp_path / "a.tar")], 51.0)], *changes)
    tables = make_result_tables([first, second])
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
    write_run_report(tmp_path / "report.html", title="A report", runs=[first, second], queries={}, facts={})
    text = " ".join(Page((tmp_path / "report.html").read_text(encoding="utf-8")).text)
    # The settings in which they differ, the name of the folder apart.
    assert "Training.steps" in text and "Loss.temperature" in text
    assert "Training.output" not in text and "Loss.tile" not in text
