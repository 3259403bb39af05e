import pytest

from ernie_vil2.evaluation import format_table
from ernie_vil2.evaluation.paper_results import PAPER_RESULTS, paper_results
from ernie_vil2.evaluation.protocols import PROTOCOLS
from ernie_vil2.evaluation.retrieval import COLUMNS, DIRECTIONS


def test_rows_are_found_by_protocol_and_model():
    large = paper_results("aic-icc-val-10k", "large")
    assert [row.values["text_to_image"]["R@1"] for row in large] == [20.17, 19.01]
    assert len(paper_results("coco-cn-test")) == 6
    assert paper_results("muge-val") == []


@pytest.mark.parametrize("row", PAPER_RESULTS, ids=lambda row: f"{row.protocol}, {row.label}")
def test_a_row_is_whole(row):
    assert row.protocol in PROTOCOLS and row.model in ("base", "large", "best")
    assert row.source.startswith("https://")
    assert set(row.values) <= {*DIRECTIONS, "mR"}
    for direction in DIRECTIONS:
        recalls = [row.values.get(direction, {}).get(column) for column in COLUMNS]
        given = [value for value in recalls if value is not None]
        assert given == sorted(given) and all(0 < value <= 100 for value in given)
    assert row.label in format_table([(row.label, row.values)])


@pytest.mark.parametrize(
    "row", [row for row in PAPER_RESULTS if len(row.values) == 3 and len(row.values["image_to_text"]) == 3]
)
def test_the_published_mean_is_that_of_the_published_recalls(row):
    recalls = [row.values[direction][column] for direction in DIRECTIONS for column in COLUMNS]
    assert row.values["mR"] == pytest.approx(sum(recalls) / 6, abs=0.006)
