"""Reports, ranks and pages of results hold what an evaluation computed, and the names of the data."""

import csv
import json
import re
from dataclasses import replace
from hashlib import sha256
from html import unescape

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText
from ernie_vil2.data.samples import BadSample, BadSampleReport
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.examples import (
    CSV_COLUMNS,
    THUMBNAIL_SIDE,
    draw_queries,
    find_extreme_queries,
    list_ranks,
    make_retrieval_page,
    make_thumbnail,
)
from ernie_vil2.evaluation.protocol import PROTOCOLS, make_table_rows, score_embeddings
from ernie_vil2.evaluation.published import find_published
from ernie_vil2.evaluation.report import (
    RECORD_VERSION,
    Report,
    choose_result_name,
    compute_checksums,
    describe_run,
    escape_cell,
    unescape_cell,
    write_csv,
    write_report,
)
from ernie_vil2.evaluation.report_page import read_evaluations
from ernie_vil2.evaluation.retrieval import make_recall_table
from ernie_vil2.evaluation.scorers.retrieval import format_counts, format_definitions, make_record
from ernie_vil2.io.files import write_json

# Image 0 ("red") has texts 0 and 1, image 1 ("blue") text 2. Scores, rows = images, columns = texts:
#   red:  0.5 0.75 0.25     blue: 1 0 0.5
# red: its text 1 comes first: rank 1. blue: text 0 comes before its text 2: rank 2.
# Text 0: blue first, red second: rank 2. Text 1: red, rank 1. Text 2: blue, rank 1.
IMAGES = np.eye(2, dtype=np.float32)
TEXTS = np.array([[0.5, 1], [0.75, 0], [0.25, 0.5]], np.float32)
PAIRS = np.array([[0, 0], [0, 1], [1, 2]])


def draw_image(colour, size=(400, 300)):
    return cv2.imencode(".png", np.full((*size, 3), colour, np.uint8))[1].tobytes()


def fail_to_read():
    raise BadSample("broken image", "blue")


@pytest.fixture
def benchmark(tmp_path):
    return Benchmark(
        "drawings",
        [BenchmarkImage("red", lambda: draw_image((0, 0, 200))), BenchmarkImage("blue", fail_to_read)],
        [BenchmarkText("a", '赤, "hot"\nred'), BenchmarkText("b", "<b>rot</b>"), BenchmarkText("c", "=blue")],
        PAIRS,
        BadSampleReport(),
        (tmp_path / "pairs.json",),
    )


@pytest.fixture
def encoded(benchmark):
    return EncodedBenchmark(benchmark, IMAGES, TEXTS, BadSampleReport())


@pytest.fixture
def evaluation(encoded):
    return score_embeddings(encoded, PROTOCOLS["pairs"])


def expect_more_images(evaluation):
    """Return the evaluation with a protocol that expects more images than there are."""
    return replace(evaluation, protocol=replace(evaluation.protocol, num_images=4))


def write_ranks(path, evaluations):
    write_csv(path, CSV_COLUMNS, list_ranks(evaluations))


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_csv_holds_ranks_and_best_answers(tmp_path, evaluation):
    write_ranks(tmp_path / "ranks.csv", {"ours": evaluation})
    assert read_csv(tmp_path / "ranks.csv") == [
        list(CSV_COLUMNS),
        ["ours", "image_to_text", "red", "red", "1", "b", "0.75", "b", "0.75"],
        ["ours", "image_to_text", "blue", "blue", "2", "c", "0.5", "a", "1.0"],
        ["ours", "text_to_image", "a", '赤, "hot"\nred', "2", "red", "0.5", "blue", "1.0"],
        ["ours", "text_to_image", "b", "<b>rot</b>", "1", "red", "0.75", "red", "0.75"],
        ["ours", "text_to_image", "c", "'=blue", "1", "blue", "0.5", "blue", "0.5"],
    ]


@given(st.text(st.sampled_from("'=+-@\t\r\n＝a,\"")))
def test_cell_is_no_formula_and_keeps_its_text(text):
    cell = escape_cell(text)
    assert not re.match(r"[=+\-@\t\r]", cell) and unescape_cell(cell) == text
    assert cell == text or cell == f"'{text}"


def test_csv_keeps_line_ends_within_a_text(tmp_path):
    rows = [["red\rdisc", "1"], ["red\ndisc", "2"], ["red\r\ndisc", "3"]]
    write_csv(tmp_path / "ranks.csv", ["query", "rank"], rows)
    with (tmp_path / "ranks.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["query", "rank"], *rows]


def test_ranks_of_folds_and_rows_have_the_benchmarks_ids(tmp_path, encoded):
    folds = score_embeddings(encoded, replace(PROTOCOLS["mscoco-1k"], fold_size=1))
    rows = score_embeddings(encoded, PROTOCOLS["official-rows"])
    write_ranks(tmp_path / "ranks.csv", {"folds": folds, "rows": rows})
    lines = [row[:3] + row[4:6] for row in read_csv(tmp_path / "ranks.csv")[1:]]
    # Each fold has one image, which no other can come before.
    assert lines[:5] == [
        ["folds", "image_to_text", "red", "1", "b"],
        ["folds", "image_to_text", "blue", "1", "c"],
        ["folds", "text_to_image", "a", "1", "red"],
        ["folds", "text_to_image", "b", "1", "red"],
        ["folds", "text_to_image", "c", "1", "blue"],
    ]
    # Rows: (red, a), (red, b), (blue, c). Image of row 0 scores 0.5 with its a, 0.75 with b: rank 2.
    assert lines[5:8] == [
        ["rows", "image_to_text", "red", "2", "a"],
        ["rows", "image_to_text", "red", "1", "b"],
        ["rows", "image_to_text", "blue", "2", "c"],
    ]


def test_record_holds_all_that_the_figures_depend_on(tmp_path, evaluation):
    (tmp_path / "weights").write_bytes(b"weights")
    digests = compute_checksums([tmp_path / "weights"])
    assert digests == {str(tmp_path / "weights"): sha256(b"weights").hexdigest()}
    published = [row for row in find_published("coco-cn-test") if row.model == "base" and "OPEN_ERNIE" in row.label]
    results = {"small model": expect_more_images(evaluation)}
    rows = make_table_rows("pairs", results, published=published)
    report = Report(
        {}, [make_recall_table(rows)], make_record(results, rows, published), CSV_COLUMNS, list_ranks(results),
        paragraphs=[format_counts(results), format_definitions(results, published)], make_pages=list,
    )  # fmt: skip
    paths = write_report(report, tmp_path / "new" / "folder", "drawings", {"data": "x", "checksums": digests})
    assert [path.name for path in paths] == ["drawings.txt", "drawings.json", "drawings.csv"]
    record = json.loads(paths[1].read_text(encoding="utf-8"))
    result = record["results"]["small model"]
    assert result["protocol"] == "pairs" and result["definition"] == PROTOCOLS["pairs"].definition
    assert result["benchmark"]["queries"] == {"image_to_text": 2, "text_to_image": 3}
    assert result["benchmark"]["files"] == [str(tmp_path / "pairs.json")]
    assert result["result"] == json.loads(json.dumps(evaluation.as_dict()))
    assert record["published"][0]["values"]["mR"] == 84.4 and record["checksums"] == digests
    assert {"versions", "git", "runtime"} <= set(record)


def write_page(path, evaluation, **changes):
    rows = make_table_rows("drawings", {"small": evaluation})
    report = Report({}, make_pages=lambda: [make_retrieval_page(evaluation, rows, **changes)])
    write_report(report, path.parent, path.stem, {"model": "small", "data": "drawings"})
    return path.read_text(encoding="utf-8")


def test_page_shows_worst_and_best_queries_with_images(tmp_path, evaluation):
    html = write_page(tmp_path / "page.html", expect_more_images(evaluation), num_examples=1, num_answers=1)
    cards = re.findall(r"<article>.*?</article>", html, re.DOTALL)
    assert len(cards) == 4
    # The worst image, blue, finds text a first; its own text follows with its rank.
    assert "rank 2" in cards[0] and cards[0].count("<li") == 2
    assert re.findall(r'<li class="(\w+)">', cards[0]) == ["wrong", "right"]
    assert '<div class="score">rank 2</div>' in cards[0] and "=blue" in cards[0]
    assert "<img" not in cards[0]  # blue cannot be read
    # The best image, red, has its text b first, written by users as it may be.
    assert "rank 1" in cards[1] and "&lt;b&gt;rot&lt;/b&gt;" in cards[1] and cards[1].count("<img") == 1
    # The worst text, a, finds blue; its own image is red.
    assert cards[2].count("<img") == 1 and "red" in cards[2]
    assert html.index("66.67") < html.index("expects 4 images") < unescape(html).index(PROTOCOLS["pairs"].definition)
    assert "<script" not in html and not re.search(r"https?://|src=\"(?!data:)", html)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((3000, 1500), (THUMBNAIL_SIDE, THUMBNAIL_SIDE // 2)), ((20, 10), (20, 10)), ((900, 5), (THUMBNAIL_SIDE, 1))],
)
def test_thumbnails_are_small_jpeg_of_the_same_shape(size, expected):
    thumbnail = make_thumbnail(BenchmarkImage("x", lambda: draw_image((10, 120, 250), size)))
    pixels = cv2.imdecode(np.frombuffer(thumbnail, np.uint8), cv2.IMREAD_COLOR)
    assert thumbnail.startswith(b"\xff\xd8\xff") and pixels.shape[:2] == expected and len(thumbnail) < 3000
    # JPEG changes a plain colour by a few units of 255.
    assert np.abs(pixels.reshape(-1, 3).mean(axis=0) - (10, 120, 250)).max() < 4


def test_result_names_carry_the_data(tmp_path, evaluation):
    folder = tmp_path / "results"
    names = {}
    for first, *further in (["a/test"], ["b/test"], ["x/a/test"], ["a/test.tar", "b"]):
        path = f"{tmp_path}/{first}"
        names[path] = choose_result_name(folder, [path, *further], ["val", "muge-val"])
        run = describe_run("model", [path, *further], {}, [])
        write_report(Report({}, make_pages=list), folder, names[path], run)
    assert list(names.values()) == [
        "a-test-val-muge-val",
        "b-test-val-muge-val",
        "x-a-test-val-muge-val",
        "a-test-and-1-more-val-muge-val",
    ]
    # A new result on the same data replaces the existing one.
    for path in list(names)[:3]:
        assert choose_result_name(folder, [path], ["val", "muge-val"]) == names[path]
    (folder / "b-test.json").write_text("[]")
    assert choose_result_name(folder, [f"{tmp_path}/b/test"]) == f"{tmp_path.name}-b-test"
    assert choose_result_name(folder, ["s3://bucket/{00..09}.tar"]) == "bucket-_00..09_"


@pytest.mark.parametrize("first", ["/data", "/data/a"])
def test_result_on_other_data_is_not_replaced(tmp_path, first):
    names = []
    for second in ("/data/b", "/data/c", "/data/d", "/data/b"):
        names.append(choose_result_name(tmp_path, [first, second]))
        write_report(Report({}, make_pages=list), tmp_path, names[-1], describe_run("m", [first, second], {}, []))
    assert len(set(names)) == 3 and names[0] == names[3]


def test_report_on_data_whose_path_is_not_unicode_is_written(tmp_path):
    data = [f"{tmp_path}/caf\udce9.tar"]
    name = choose_result_name(tmp_path, data)
    run = describe_run("mod\udce9l", data, {}, [])
    paths = write_report(Report({}), tmp_path, name, run, tmp_path / "copy.json")
    for path in (paths[1], tmp_path / "copy.json"):
        assert json.loads(path.read_text())["paths"] == data
    assert "caf\\xe9.tar" in paths[3].read_text()
    assert choose_result_name(tmp_path, data) == name


def test_extreme_queries_have_a_fixed_order(evaluation):
    result = evaluation.results["text_to_image"]
    # Texts: ranks 2, 1, 1, with right answers at 0.5, 0.75, 0.5.
    assert find_extreme_queries(result, 3, worst=True).tolist() == [0, 2, 1]
    assert find_extreme_queries(result, 2, worst=False).tolist() == [1, 2]


def test_seed_determines_random_queries(evaluation):
    result = evaluation.results["text_to_image"]
    queries = draw_queries(result, 3, seed=1).tolist()
    assert sorted(queries) == [0, 1, 2] and draw_queries(result, 2, seed=1).tolist() == queries[:2]


def test_results_of_other_tasks_are_no_damaged_records(tmp_path, capsys):
    write_json(tmp_path / "nlvr2.json", {"version": RECORD_VERSION, "model": "m", "values": {"accuracy": 50.0}})
    assert read_evaluations(tmp_path) == []
    captured = capsys.readouterr()
    assert "nlvr2.html" in captured.out and not captured.err
    write_json(tmp_path / "other.json", {"version": RECORD_VERSION, "results": []})
    assert read_evaluations(tmp_path) == [] and "other.json" in capsys.readouterr().err
