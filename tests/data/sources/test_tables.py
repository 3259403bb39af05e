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


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n\n" for row in rows), encoding="utf-8-sig")
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows({**row, "tags_en": "|".join(row["tags_en"])} for row in rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images" / "d").mkdir(parents=True)
    (tmp_path / "a.jpg").write_bytes(b"A")
    (tmp_path / "images" / "d" / "b.jpg").write_bytes(b"B")
    return tmp_path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_images_lie_next_to_the_table(images, suffix):
    path = write(images / f"train{suffix}", ROWS)
    for source in (
        open_sources([str(path)]),
        open_sources([str(images)]),
        pickle.loads(pickle.dumps(TableSource(path))),  # noqa: S301  -- its own pickle
    ):
        first, second = source[0], source[1]
        assert len(source) == 2 and (first.image, second.image) == (b"A", b"B")
        assert first.image_name == "a.jpg" and first.caption("zh") == "猫,\n坐" and second.caption("zh") == '狗 "二"'
        assert first.tag_list("en") == ("cat", "sofa") and second.tag_list("en") == ("dog",)
        assert second.fields["licence"] == "y"


def test_csv_rows_that_cannot_be_used_are_reported_by_line(images):
    (images / "t.csv").write_bytes(b"image,text\na.jpg,x\na.jpg\na.jpg,x,y\n\na.jpg,\xff\na.jpg,z\n")
    first, *problems, last = read_all(TableSource(images / "t.csv"))
    assert problems == ["t.csv:3: malformed row", "t.csv:4: malformed row", "t.csv:6: not UTF-8"]
    assert (first.caption(""), last.caption("")) == ("x", "z")


# csv.writer does not quote a carriage return, though csv.reader then takes it for the end of the row.
value = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8)
table = st.lists(st.tuples(value, value), min_size=1, max_size=5)


@limit_examples(60)
@given(table, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_whatever_csv_writes_is_read_again(tmp_path_factory, rows, end, mark):
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerows([("text", "caption_en"), *rows])
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(text.getvalue().encode("utf-8-sig" if mark else "utf-8"))
    read = CsvTable(path)
    expected = [{key: cell for key, cell in zip(("text", "caption_en"), row, strict=True) if cell} for row in rows]
    assert [read.read_row(row) for row in range(len(read))] == expected


NUMBERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False)).map(str)
TEXTS = st.sampled_from(
    ["00123", "3.50", "1e5", "+1", "1_000", "nan", "inf", "-0", "１", str(2**63), "9" * 5000, " 1", "x"]
)


@limit_examples(50)
@given(st.lists(NUMBERS, min_size=1, max_size=5), st.lists(TEXTS, max_size=1))
def test_a_csv_column_is_of_numbers_if_all_print_back_the_same(tmp_path_factory, numbers, texts):
    path, values = tmp_path_factory.mktemp("csv") / "a.csv", numbers + texts
    rows = [("a.png", value, value, value) for value in values]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "price", "image_id", "caption"), *rows, ("b.png", "", "", "")])
    table = CsvTable(path)
    *read, last = [table.read_row(index) for index in range(len(table))]
    assert last == {"image": "b.png"}
    assert [str(row["price"]) for row in read] == values
    assert all(isinstance(row["price"], str) == bool(texts) for row in read)
    assert [row["image_id"] for row in read] == [row["caption"] for row in read] == values


MAP = pa.map_(pa.string(), pa.int64())
PAIRS = [("a", 1), ("b", 2)]


@pytest.mark.parametrize(
    ("kind", "value"), [(MAP, PAIRS), (pa.large_list(pa.struct({"m": MAP})), [{"m": PAIRS}])], ids=["map", "nested"]
)
def test_columns_with_maps_are_left_out_and_named(tmp_path, capsys, kind, value):
    """Spark and Hive write them; the name with a dot is that of no part of the map."""
    fields = {"image": pa.binary(), "attributes": kind, "attributes.x": pa.string(), "caption": pa.string()}
    rows = [{"image": b"x", "attributes": filled, "attributes.x": "y", "caption": "a cat"} for filled in (value, None)]
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(fields)), path, row_group_size=1)

    first, second = read_all(open_sources([str(path)]))

    assert first.captions == second.captions == {"": "a cat"}
    assert first.fields == {"attributes.x": "y", "caption": "a cat"}
    note = capsys.readouterr().err
    assert "attributes" in note and "attributes.x" not in note and note.count("\n") == 1
