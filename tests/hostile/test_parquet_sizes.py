"""Memory of Parquet row groups is bounded: by the footer before they are decoded, and again if the footer lies."""

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
WRITE_OPTIONS = st.fixed_dictionaries({
    "use_dictionary": st.booleans(),
    "compression": st.sampled_from(["none", "snappy", "zstd"]),
    "data_page_version": st.sampled_from(["1.0", "2.0"]),
    "data_page_size": st.sampled_from([64, 2**20]),
    "dictionary_pagesize_limit": st.sampled_from([100, 2**20]),
    "write_statistics": st.booleans(),
    "store_schema": st.booleans(),
})  # fmt: skip


DICTIONARY_COLUMNS = ["text", "image.bytes", "image.path", "tags.list.element"]


@given(
    rows=st.lists(st.fixed_dictionaries(COLUMNS), min_size=1, max_size=30),
    copies=st.integers(1, 50),
    options=WRITE_OPTIONS,
)
def test_row_group_is_read_as_written_and_within_its_estimate(tmp_path_factory, rows, copies, options):
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    rows = rows * copies
    table = pa.Table.from_pylist(rows, pa.schema(TYPES))
    pq.write_table(table, path, **options)
    parquet_table = ParquetTable(path)
    for row in range(0, len(rows), 17):
        expected = {name: value for name, value in table.slice(row, 1).to_pylist()[0].items() if value is not None}
        assert str(parquet_table.read_row(row)) == str(expected)  # by text, as NaN is not equal to itself

    source = pa.OSFile(str(path))
    for as_dictionary in (True, False):
        file = pq.ParquetFile(source, read_dictionary=DICTIONARY_COLUMNS if as_dictionary else [])
        group = file.metadata.row_group(0)
        estimate = sum(estimate_decoded_bytes(group.column(n), 0, as_dictionary) for n in range(group.num_columns))
        decoded = file.read_row_group(0)
        assert decoded.nbytes <= estimate + 200  # bytes for offsets and flags of a few values
        characters = 0
        for tags in decoded["tags"].to_pylist():
            characters += sum(len(tag or "") for tag in tags or ())
        # The content of a text that is alone in its array is not counted; here it has up to 2,000 characters.
        assert sum(map(estimate_python_bytes, decoded["tags"].chunks)) + 2000 >= characters


def test_row_group_larger_than_its_footer_says_is_refused(tmp_path, monkeypatch):
    # The sizes in the footer are made smaller, and Arrow decodes the column nevertheless.
    path = tmp_path / "a.parquet"
    table = pa.table({"jpg": [bytes(3_000_000)], "caption": ["x"]})
    pq.write_table(table, path, use_dictionary=False, compression="zstd")
    chunk = pq.ParquetFile(path).metadata.row_group(0)
    content = path.read_bytes()
    for size in (chunk.total_byte_size, chunk.column(0).total_uncompressed_size):
        content = content.replace(encode_varint(size), encode_varint(100, len(encode_varint(size))))
    path.write_bytes(content)
    assert pq.ParquetFile(path).metadata.row_group(0).total_byte_size == 100
    assert len(ParquetTable(path).read_row(0)["jpg"]) == 3_000_000
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 2_000_000)
    with pytest.raises(BadSample, match="more than 1 GiB"):
        ParquetTable(path).read_row(0)


def test_row_groups_of_many_files_are_bounded_together(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_PROCESS_BYTES", 3_500_000)
    tables = []
    for number in range(8):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"jpg": [bytes([number]) * 500_000] * 2, "caption": ["x"] * 2}), path, row_group_size=1)
        tables.append(ParquetTable(path))
    others = pa.total_allocated_bytes()
    for row in (0, 1, 0):
        for number, table in enumerate(tables):
            assert table.read_row(row)["jpg"] == bytes([number]) * 500_000
            assert pa.total_allocated_bytes() - others < 4_500_000  # and what reads the file


def encode_varint(number, length=0):
    """Return a whole number in Thrift's compact protocol, in at least so many bytes."""
    number, content = 2 * number, b""  # the lowest bit is the sign
    while number or len(content) < length or not content:
        number, low = number >> 7, number & 127
        is_last = number == 0 and len(content) + 1 >= length
        content += bytes([low if is_last else low | 128])
    return content


def test_texts_without_a_dictionary_are_read_within_the_bound(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    texts = [f"{'x' * 1000}{row}" for row in range(100)]
    pq.write_table(pa.table({"text": texts}), path, use_dictionary=False, column_encoding="DELTA_BYTE_ARRAY")
    assert [ParquetTable(path).read_row(row)["text"] for row in (0, 50, 99)] == [texts[row] for row in (0, 50, 99)]
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 90_000)
    with pytest.raises(BadSample, match="more than 1 GiB"):
        ParquetTable(path).read_row(0)


@pytest.mark.parametrize("depth", [1, 40, 60])
def test_columns_nested_too_deeply_are_ignored(tmp_path, depth):
    kind, value = pa.string(), "x"
    for _ in range(depth):
        kind, value = pa.list_(kind), [value]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"caption": ["a"], "deep": pa.array([value], kind)}), path)

    row = ParquetTable(path).read_row(0)

    assert row == ({"caption": "a", "deep": value} if depth < 50 else {"caption": "a"})


def test_row_group_with_other_rows_than_its_footer_says_is_bad(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"caption": ["x"] * 777}), path)
    content = path.read_bytes()
    # The last of these numbers is the row group's; others are those of the file and of the column.
    position = content.rindex(encode_varint(777))
    path.write_bytes(content[:position] + encode_varint(790) + content[position + 2 :])
    table = ParquetTable(path)
    assert len(table) == 790

    for row in (0, 500, 789):
        with pytest.raises(BadSample, match="unreadable file"):
            table.read_row(row)


def test_row_with_a_huge_tensor_is_too_large(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    storage = pa.FixedSizeListArray.from_arrays(pa.array([7] * 100_000), 100_000)
    tensors = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int64(), [100_000]), storage)
    pq.write_table(pa.table({"caption": ["x"], "tensor": tensors}), path)
    assert len(ParquetTable(path).read_row(0)["tensor"]) == 100_000

    monkeypatch.setattr(parquet, "MAX_BYTES", 1_000_000)

    with pytest.raises(BadSample, match="a.parquet:0"):
        ParquetTable(path).read_row(0)


@pytest.mark.parametrize("has_map", [False, True])
def test_parquet_with_two_columns_of_one_name_is_refused(tmp_path, has_map):
    path = tmp_path / "a.parquet"
    columns = {"caption": pa.array(["a"]), "caption_": pa.array(["b"])}
    if has_map:
        columns["pairs"] = pa.array([[("key", 1)]], pa.map_(pa.string(), pa.int64()))
    names = ["caption", "caption", "pairs"][: len(columns)]
    pq.write_table(pa.table(list(columns.values()), names=names), path)

    with pytest.raises(ValueError, match=r"a\.parquet: several columns are called caption"):
        ParquetTable(path)


def test_column_names_that_are_not_utf8_name_the_file(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"abcdefgh": ["x"]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"\xc3\xa8abcd\xff\xfe"))

    with pytest.raises(ValueError, match=r"a\.parquet: the name of a column"):
        ParquetTable(path)


def test_parquet_that_cannot_be_opened_again_is_unreadable(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"caption": ["x"]}), path)
    table = ParquetTable(path)

    def fail(name):
        raise OSError(24, f"Failed to open local file '{name}'")

    monkeypatch.setattr(pa, "OSFile", fail)

    # A source turns OSError into bad samples, and lets ValueError end the run.
    with pytest.raises(OSError, match=r"a\.parquet"):
        table.read_row(0)
