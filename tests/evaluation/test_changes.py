"""Files of ranks show which queries two results win and lose, and several runs are compared in a report."""

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


def write_ranks(path, label, rows):
    """Write rows of (direction, id, query, rank), and optionally the best right answer, as a file of ranks."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for direction, key, query, rank, *answer in rows:
            cells = [label, direction, key, query, rank, *(answer or ["x"]), 0.5, "y", 0.6]
            writer.writerow(map(escape_cell, cells))
    return path


def test_queries_are_won_and_lost_by_first_rank(tmp_path):
    direction = "image_to_text"
    earlier_file = write_ranks(
        tmp_path / "b.csv", "before",
        [(direction, "a", "=A", 1), (direction, "b", "B", 9), (direction, "c", "C", 1), (direction, "d", "D", 7),
         (direction, "e", "E", 3), (direction, "gone", "F", 1), ("text_to_image", "a", "猫", 2)],
    )  # fmt: skip
    later_file = write_ranks(
        tmp_path / "a.csv", "after",
        [(direction, "a", "=A", 4), (direction, "b", "B", 1), (direction, "c", "C", 1), (direction, "d", "D", 2),
         (direction, "e", "E", 1), (direction, "new", "G", 1), ("text_to_image", "a", "猫", 1)],
    )  # fmt: skip
    changes = read_changes(earlier_file, later_file)
    images = changes["image → text"]
    assert (images.num_kept, images.num_won, images.num_lost, images.num_missed) == (1, 2, 1, 1)
    # An image query is about itself, a text query about its best right answer.
    assert images.largest_gains == [("B", 9, 1, "b"), ("E", 3, 1, "e")]
    assert images.largest_losses == [("=A", 1, 4, "a")] and images.image_ids == {"a", "b", "e"}
    assert changes["text → image"].largest_gains == [("猫", 2, 1, "x")]


def test_won_images_are_shown_with_their_right_text(tmp_path):
    # A name that a spreadsheet would compute is escaped in the file.
    rows = [("image_to_text", "-red.jpg", "-red.jpg", 5, "7"), ("text_to_image", "7", "红苹果", 1, "-red.jpg")]
    earlier_file = write_ranks(tmp_path / "b.csv", "before, zh", rows)
    later_file = write_ranks(tmp_path / "a.csv", "after, zh", [(*row[:3], 1, row[4]) for row in rows])
    changes = read_changes(earlier_file, later_file)
    assert changes["zh, image → text"].largest_gains == [("红苹果", 5, 1, "-red.jpg")]


@pytest.mark.parametrize("row", ["before,image_to_text,a,A,first,,,,\n", "before,image_to_text,a", "before"])
def test_damaged_file_of_ranks_is_named(tmp_path, row):
    valid_file = write_ranks(tmp_path / "b.csv", "before", [("image_to_text", "a", "A", 1)])
    invalid_file = tmp_path / "other.csv"
    invalid_file.write_text(",".join(CSV_COLUMNS) + "\n" + row)
    with pytest.raises(ValueError, match="other.csv"):
        read_changes(valid_file, invalid_file)


def test_rank_files_give_a_verdict_clustered_by_image(tmp_path):
    rows = []
    for direction in ("image_to_text", "text_to_image"):
        rows += [(direction, str(number), f"q{number}", 1 + number % 3) for number in range(60)]
    earlier_file = write_ranks(tmp_path / "b.csv", "before, zh", rows)
    later_file = write_ranks(tmp_path / "a.csv", "after, zh", [(*row[:3], 1) for row in rows])
    (verdict,) = compare_rank_files({"before": earlier_file, "after": later_file}).verdicts
    # Of R@1, R@5 and R@10 only R@1 changes, from 1/3 to 1: 2/3 of a third.
    assert verdict.word == "better" and verdict.difference.mean == pytest.approx(200 / 9)
    outcomes = read_outcomes(earlier_file)["zh"]
    assert outcomes.query_ids[60] == "text_to_image 0"
    # Every text has the same best answer, so all of them belong to one image.
    assert len({*outcomes.clusters[:60]}) == 60 and len({*outcomes.clusters[60:]}) == 1
    fewer_queries = write_ranks(tmp_path / "c.csv", "c, zh", rows[:50])
    assert compare_rank_files({"before": earlier_file, "after": fewer_queries}) is None
    another_language = write_ranks(tmp_path / "d.csv", "d, en", rows)
    assert compare_rank_files({"before": earlier_file, "after": another_language}) is None


def compute_mean_recall(ranks):
    """Return the mean of R@1, R@5 and R@10 in percent."""
    ranks = np.array(ranks)
    return 100 * np.mean([np.mean(ranks <= cutoff) for cutoff in (1, 5, 10)])


def test_headline_tells_trained_texts_from_new_ones(tmp_path):
    # Image n has text n; every third text is a caption of the training data, with other case and spaces there.
    random = np.random.default_rng(0)
    queries = [("image_to_text", number) for number in range(60)] + [("text_to_image", number) for number in range(60)]
    earlier_ranks, later_ranks = {}, {}
    for query in queries:
        earlier_ranks[query] = int(random.integers(1, 20))
        later_ranks[query] = 1 if query[1] % 3 == 0 else int(random.integers(1, 20))

    def write(name, ranks):
        rows = []
        for (direction, number), rank in ranks.items():
            image, text = f"i{number}", f"t{number}"
            query, answer = (image, text) if direction == "image_to_text" else (text, image)
            rows.append((direction, query, f"Text  {number}", rank, answer))
        return write_ranks(tmp_path / f"{name}.csv", name, rows)

    paths = {"before": write("before", earlier_ranks), "after": write("after", later_ranks)}
    trained = find_trained_queries(paths["before"], {f"text {number}" for number in range(0, 60, 3)} | {"another"})
    assert (trained[""].num_texts, trained[""].num_trained, len(trained[""].ids)) == (60, 20, 40)
    sentence = make_headline(compare_rank_files(paths), trained_queries=trained)
    gains = re.search(r"; 20 of the 60 test texts .* gain ([+-][\d.]+), .* the others ([+-][\d.]+), ", sentence)
    for gain, is_trained in zip(gains.groups(), (True, False), strict=True):
        chosen = [query for query in queries if (query[1] % 3 == 0) == is_trained]
        recall_before = compute_mean_recall([earlier_ranks[query] for query in chosen])
        recall_after = compute_mean_recall([later_ranks[query] for query in chosen])
        assert float(gain) == pytest.approx(recall_after - recall_before, abs=0.051)  # printed with one decimal


RECALLS = {"R@1": 10.0, "R@5": 20.0, "R@10": 30.0, "mR": 20.0}


def make_record(data, recall, subset=None):
    scores = {"image_to_text": {**RECALLS, "R@1": recall}, "text_to_image": RECALLS}
    chance = {"image_to_text": RECALLS, "text_to_image": RECALLS}
    result = {"protocol": "pairs", "definition": "all", "tie_rule": "ties count", "notes": []}
    table = [["all queries", None], ["  model, zh", scores], ["  chance", chance]]
    if subset:
        table += [[subset, None], ["  model, zh", scores]]
    paths = [str(Path(path).resolve()) for path in data]
    return {
        "version": 1,
        "model": "runs/first/checkpoints/step_00000189",
        "data": data,
        "paths": paths,
        "results": {"model, zh": result},
        "table": table,
    }


def make_run(name, evaluations, *overrides):
    config = load_config(None, [f"Training.output=runs/{name}", *overrides])
    return ReportedRun(name, config, {"Steps": f"9 of {name}"}, (), evaluations)


def test_runs_are_compared_on_shared_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = make_run("first", [make_record(["a.tar"], 41.0, subset="kind = disc"), make_record(["b.tar"], 42.0)])
    changes = "Training.steps=5000", "Loss.temperature=0.5"
    second = make_run("second", [make_record([str(tmp_path / "a.tar")], 51.0)], *changes)
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
    # Each table names the checkpoints whose figures it shows.
    assert "Figures of first: step_00000189, second: step_00000189." in text
    # The page lists the settings in which the runs differ, except for the output folder.
    assert "Training.steps" in text and "Loss.temperature" in text
    assert "Training.output" not in text and "Loss.tile" not in text


def test_other_data_of_the_same_name_have_a_table_of_their_own(tmp_path):
    first = make_run("first", [make_record(["a.tar"], 41.0)])
    second = make_run("second", [make_record(["a.tar"], 51.0) | {"paths": [str(tmp_path / "a.tar")]}])
    tables = make_result_tables([first, second])
    assert list(tables) == ["a.tar, pairs", f"{tmp_path / 'a.tar'}, pairs"]
    assert [table.rows[1][0] for table in tables.values()] == ["  first: model, zh", "  second: model, zh"]
    assert [table.rows[1][1][0] for table in tables.values()] == ["41.00", "51.00"]


@pytest.mark.parametrize(("mean", "line"), [(20.0, "Mean recall: zh 20.00 (step_00000189)"), (None, None)])
def test_key_figure_is_the_mean_over_all_queries(tmp_path, mean, line):
    record = make_record(["a.tar"], 41.0, subset="kind = disc")
    record["table"][1][1]["mR"] = mean
    record["table"][4] = ["  model, zh", {"image_to_text": RECALLS, "text_to_image": {}, "mR": None}]
    runs = [make_run("first", [record])]
    write_run_report(tmp_path / "report.html", title="A report", runs=runs, queries={}, facts={})
    lines = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert [text for text in lines if text.startswith("Mean recall:")] == ([line] if line else [])
