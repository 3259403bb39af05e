"""Tables in JSON lines, CSV and Parquet: images next to them, bad rows, numbers, and columns with maps."""

import csv
import io
import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.readers.spreadsheets import CsvTable
from ernie_vil2.data.readers.tables import TableSource
from tests.support.limits import limit_examples
from tests.support.published_files import read_all

ROWS = [
    {"image": "a.jpg", "caption_zh": "猫,\n坐", "tags_en": ["cat", "sofa"], "licence": "x"},
    {"image": "d/b.jpg", "caption_zh": '狗 "二"', "tags_en": ["dog"], "licence": "y"},
]


def write_table(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n\n" for row in rows), encoding="utf-8-sig")
    elif path.suffix.lower() == ".csv":
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({**row, "tags_en": "|".join(row["tags_en"])} for row in rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images" / "d").mkdir(parents=True)
    (tmp_path / "a.jpg").write_bytes(b"A")
    (tmp_path / "images" / "d" / "b.jpg").write_bytes(b"B")
    return tmp_path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".CSV", ".Parquet"])
def test_images_are_found_next_to_the_table(folder, suffix):
    path = write_table(folder / f"train{suffix}", ROWS)
    for source in (
        open_sources([str(path)]),
        open_sources([str(folder)]),
        pickle.loads(pickle.dumps(TableSource(path))),  # noqa: S301  -- pickled here
    ):
        first, second = source[0], source[1]
        assert len(source) == 2 and (first.image, second.image) == (b"A", b"B")
        assert first.image_name == "a.jpg" and first.caption("zh") == "猫,\n坐" and second.caption("zh") == '狗 "二"'
        assert first.tag_list("en") == ("cat", "sofa") and second.tag_list("en") == ("dog",)
        assert second.fields["licence"] == "y"


def test_bad_rows_of_a_csv_are_reported_by_line(folder):
    (folder / "t.csv").write_bytes(b"image,text\na.jpg,x\na.jpg\na.jpg,x,y\n\na.jpg,\xff\na.jpg,z\n")
    first, *problems, last = read_all(TableSource(folder / "t.csv"))
    assert problems == ["t.csv:3: malformed row", "t.csv:4: malformed row", "t.csv:6: not UTF-8"]
    assert (first.caption(""), last.caption("")) == ("x", "z")


def test_carriage_returns_in_rows_of_json_are_blanks(folder):
    (folder / "train.jsonl").write_bytes(b'{"image": "a.jpg",\r "text": "x"}\r\n')
    for location in (folder, folder / "train.jsonl"):
        assert open_sources([str(location)])[0].caption("") == "x"


def test_long_value_of_a_csv_costs_its_row_at_most(folder):
    long_text = "x" * 140_000
    (folder / "t.csv").write_text(f"image,text,page\na.jpg,x,{long_text}\na.jpg,{long_text},y\n")
    sample, problem = read_all(TableSource(folder / "t.csv"))
    assert sample.fields["page"] == long_text
    assert problem == "t.csv:3: text too long"


# Without carriage returns: csv.writer does not quote them, and csv.reader takes them for the end of a row. Without #:
# the errors of formulas, such as #N/A, count as missing, and hypothesis also draws the constants of the code.
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r#"), max_size=8)
TABLES = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=5)


@limit_examples(60)
@given(TABLES, st.sampled_from(["\n", "\r\n"]), st.sampled_from(["utf-8", "utf-8-sig"]))
def test_output_of_csv_writer_is_read_back_equal(tmp_path_factory, rows, line_end, encoding):
    text = io.StringIO()
    csv.writer(text, lineterminator=line_end).writerows([("text", "caption_en"), *rows])
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    expected = []
    for text_cell, caption_cell in rows:
        cells = {"text": text_cell, "caption_en": caption_cell}
        expected.append({name: cell for name, cell in cells.items() if cell})  # empty cells are left out
    table = CsvTable(path)
    assert [table.read_row(row) for row in range(len(table))] == expected


NUMBERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False)).map(str)
TEXTS = st.sampled_from(
    ["00123", "3.50", "1e5", "+1", "1_000", "nan", "inf", "-0", "１", str(2**63), "9" * 5000, " 1", "x"]
)


@limit_examples(50)
@given(st.lists(NUMBERS, min_size=1, max_size=5), st.lists(TEXTS, max_size=1))
def test_csv_column_is_numeric_if_all_values_print_back_equal(tmp_path_factory, numbers, texts):
    path, values = tmp_path_factory.mktemp("csv") / "a.csv", numbers + texts
    rows = [("a.png", value, value, value) for value in values]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "price", "image_id", "caption"), *rows, ("b.png", "", "", "")])
    table = CsvTable(path)
    *filled_rows, last = [table.read_row(index) for index in range(len(table))]
    assert last == {"image": "b.png"}
    assert [str(row["price"]) for row in filled_rows] == values
    assert all(isinstance(row["price"], str) == bool(texts) for row in filled_rows)
    # Ids and captions are always texts.
    assert [row["image_id"] for row in filled_rows] == [row["caption"] for row in filled_rows] == values


def test_row_with_a_time_that_python_cannot_represent_is_bad(tmp_path):
    for number, kind in enumerate([pa.timestamp("us", tz="UTC+8"), pa.date64(), pa.duration("s")]):
        path = tmp_path / f"{number}.parquet"
        value = pa.array([2**62], pa.int64()).view(kind)
        pq.write_table(pa.table({"image": [b"x"], "caption": ["a cat"], "time": value}), path)
        assert read_all(TableSource(path)) == [f"{number}.parquet:0: malformed row"]


MAP = pa.map_(pa.string(), pa.int64())
PAIRS = [("a", 1), ("b", 2)]


@pytest.mark.parametrize(
    ("kind", "value"), [(MAP, PAIRS), (pa.large_list(pa.struct({"m": MAP})), [{"m": PAIRS}])], ids=["map", "nested"]
)
def test_columns_with_maps_are_left_out_and_named(tmp_path, capsys, kind, value):
    # Spark and Hive write maps. The column with a dot in its name is not a part of the map.
    fields = {"image": pa.binary(), "attributes": kind, "attributes.x": pa.string(), "caption": pa.string()}
    row = {"image": b"x", "attributes": value, "attributes.x": "y", "caption": "a cat"}
    rows = [row, row | {"attributes": None}]
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(fields)), path, row_group_size=1)

    first, second = read_all(open_sources([str(path)]))

    assert first.captions == second.captions == {"": "a cat"}
    assert first.fields == {"attributes.x": "y", "caption": "a cat"}
    note = capsys.readouterr().err
    assert "attributes" in note and "attributes.x" not in note and note.count("\n") == 1
