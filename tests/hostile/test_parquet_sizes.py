"""The size of a row group is bounded by the footer before it is decoded, and as it is where the footer is not true."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.data.readers import parquet
from ernie_vil2.data.readers.parquet import ParquetTable, estimate_decoded_bytes, estimate_python_bytes
from ernie_vil2.data.samples import BadSample

COLUMNS = {
    "text": st.none() | st.sampled_from(["", "猫", "x" * 3000]) | st.text(max_size=5),
    "image": st.none() | st.fixed_dictionaries({"bytes": st.binary(max_size=9), "path": st.none() | st.just("a.jpg")}),
    "tags": st.none() | st.lists(st.none() | st.sampled_from(["red", "y" * 2000]), max_size=4),
    "numbers": st.lists(st.lists(st.floats(width=32), max_size=3), max_size=3),
}
TYPES = {
    "text": pa.string(),
    "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    "tags": pa.list_(pa.string()),
    "numbers": pa.list_(pa.list_(pa.float32())),
}
WRITTEN = st.fixed_dictionaries({
    "use_dictionary": st.booleans(),
    "compression": st.sampled_from(["none", "snappy", "zstd"]),
    "data_page_version": st.sampled_from(["1.0", "2.0"]),
    "data_page_size": st.sampled_from([64, 2**20]),
    "dictionary_pagesize_limit": st.sampled_from([100, 2**20]),
    "write_statistics": st.booleans(),
    "store_schema": st.booleans(),
})  # fmt: skip


@given(rows=st.lists(st.fixed_dictionaries(COLUMNS), min_size=1, max_size=30), copies=st.integers(1, 50), kind=WRITTEN)
def test_a_row_group_is_as_written_and_within_its_footer(tmp_path_factory, rows, copies, kind):
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    rows = rows * copies
    table = pa.Table.from_pylist(rows, pa.schema(TYPES))
    pq.write_table(table, path, **kind)
    read = ParquetTable(path)
    for row in range(0, len(rows), 17):
        expected = {name: value for name, value in table.slice(row, 1).to_pylist()[0].items() if value is not None}
        assert str(read.read_row(row)) == str(expected)  # by text, as NaN is not equal to itself
    source = pa.OSFile(str(path))
    for dictionary in (True, False):
        columns = ["text", "image.bytes", "image.path", "tags.list.element"] * dictionary
        file = pq.ParquetFile(source, read_dictionary=columns)
        group = file.metadata.row_group(0)
        most = sum(estimate_decoded_bytes(group.column(n), 0, dictionary) for n in range(group.num_columns))
        assert file.read_row_group(0).nbytes <= most + 200  # of offsets and flags of a few values
        tags = file.read_row_group(0)["tags"]
        characters = sum(len(tag or "") for row in tags.to_pylist() for tag in row or ())
        assert sum(map(estimate_python_bytes, tags.chunks)) + 2000 >= characters  # one that is alone is not counted


def test_a_row_group_larger_than_its_footer_says_is_not_kept(tmp_path, monkeypatch):
    """The footer's copy of the column's sizes is made smaller; Arrow decodes it all the same."""
    path = tmp_path / "a.parquet"
    table = pa.table({"jpg": [bytes(3_000_000)], "caption": ["x"]})
    pq.write_table(table, path, use_dictionary=False, compression="zstd")
    chunk = pq.ParquetFile(path).metadata.row_group(0)
    content = path.read_bytes()
    for size in (chunk.total_byte_size, chunk.column(0).total_uncompressed_size):
        content = content.replace(varint(size), varint(100, len(varint(size))))
    path.write_bytes(content)
    assert pq.ParquetFile(path).metadata.row_group(0).total_byte_size == 100
    assert len(ParquetTable(path).read_row(0)["jpg"]) == 3_000_000
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 2_000_000)
    with pytest.raises(BadSample, match="more than 1 GiB"):
        ParquetTable(path).read_row(0)


def varint(number, length=0):
    """A whole number as Thrift's compact protocol writes it, in so many bytes at least."""
    number, content = 2 * number, b""
    while number or len(content) < length or not content:
        number, low = number >> 7, number & 127
        content += bytes([low | 128 * bool(number or len(content) + 1 < length)])
    return content


def test_texts_whose_encoding_has_no_dictionary_are_read(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    texts = [f"{'x' * 1000}{row}" for row in range(100)]
    pq.write_table(pa.table({"text": texts}), path, use_dictionary=False, column_encoding="DELTA_BYTE_ARRAY")
    assert [ParquetTable(path).read_row(row)["text"] for row in (0, 50, 99)] == [texts[row] for row in (0, 50, 99)]
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 90_000)
    with pytest.raises(BadSample, match="more than 1 GiB"):
        ParquetTable(path).read_row(0)


@pytest.mark.parametrize("depth", [1, 40, 60])
def test_columns_nested_too_deeply_are_left_out(tmp_path, depth):
    kind, value = pa.string(), "x"
    for _ in range(depth):
        kind, value = pa.list_(kind), [value]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"caption": ["a"], "deep": pa.array([value], kind)}), path)

    row = ParquetTable(path).read_row(0)

    assert row == ({"caption": "a", "deep": value} if depth < 50 else {"caption": "a"})
