"""Tables read row by row: JSON lines, CSV, Parquet."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from ernie_vil2.data.image_files import IMAGE_SUFFIXES
from ernie_vil2.data.readers.indexed_file import Index, IndexedFile
from ernie_vil2.data.readers.lines import TextLines, measured_lines
from ernie_vil2.data.readers.locations import LocalFile
from ernie_vil2.data.readers.parquet_pages import decoded_size, size_in_python
from ernie_vil2.data.rows import BYTE_ORDER_MARK
from ernie_vil2.data.samples import MAX_BYTES, MAX_TEXT_BYTES, BadSample, Reason, as_object, as_text, check_size

# The first of these that a row has counts; `file_name` is what the image folders of Hugging Face say, and img2dataset
# puts the bytes of an image under its suffix.
IMAGE_KEYS = ("image", "image_path", "file_name", *sorted(IMAGE_SUFFIXES))
TEXT_KEYS = ("text", "caption")
IDS = ("key", "image_id", "text_id")
LIST_SEPARATOR = "|"  # in a CSV column of tags
HELD_GROUPS = 4  # row groups of a Parquet file that are kept in memory
MAX_GROUP_BYTES = 2**30  # of a row group, and of those that are kept
MAX_ROWS = 2**40  # of a Parquet file
MAX_PARTS = 10_000  # parts of a schema, and row groups


class Table(Protocol):
    """Rows by number, each a mapping from column to value."""

    def __len__(self) -> int: ...

    def row_name(self, index: int) -> str: ...

    def row(self, index: int) -> dict[str, Any]: ...

    def release(self) -> None: ...


def open_table(path: str | Path) -> Table:
    """The table in a `.jsonl`, `.csv` or `.parquet` file.

    Raises:
        ValueError: it is none of these, or it has no rows.
    """
    kind = TABLES.get(Path(path).suffix)
    if kind is None:
        raise ValueError(f"{path}: a table is a {', '.join(TABLES)} file")
    return kind(path)


class JsonTable(TextLines):
    """A JSON object a line; blank lines are skipped."""

    kind = "json lines"

    def _scan(self) -> Index:
        with self.location.open() as file:
            lines = np.fromiter(measured_lines(file, self.name), np.dtype("i8, ?"))
        rows = np.flatnonzero(~lines["f1"])
        if not len(rows):
            raise ValueError(f"{self.name}: no rows in this file; is it whole?")
        return {"bounds": np.append(0, np.cumsum(lines["f0"])), "rows": rows}

    def _rows(self, index: Index) -> int:
        return len(index["rows"])

    def row_name(self, index: int) -> str:
        """File and line."""
        return super().row_name(int(self.index["rows"][index]))

    def row(self, index: int) -> dict[str, Any]:
        """The row's columns; BadSample if it is no JSON object, or longer than `MAX_TEXT_BYTES`."""
        return as_object(self.line(int(self.index["rows"][index])), self.row_name(index))


class CsvTable(IndexedFile):
    """Rows below a line of column names; a quoted value may hold line ends. Empty values count as missing.

    Columns whose name begins with `tags` hold lists, separated by `|`. A column holds numbers if each of its values is
    one that is printed as it is written: "00123" and "3.50" are texts, and so is whatever stands in their columns.
    Images, texts and ids are texts in any case.
    """

    kind = "csv with numbers"

    def _scan(self) -> Index:
        with self.location.open() as file:
            counted = _Counted(self.name, file)
            rows = csv.reader(counted, strict=True)
            ends, lines, columns, numbers = [], [], [], []
            try:
                for row in rows:
                    if not ends:
                        columns, numbers = row, [not _is_text(column) for column in row]
                    elif len(row) == len(columns):
                        numbers = [
                            maybe and (not value or as_number(value) is not None)
                            for maybe, value in zip(numbers, row, strict=True)
                        ]
                    if row or not ends:
                        ends.append((counted.row_start, counted.read))
                        lines.append(rows.line_num)
                    counted.row_start = counted.read
            except csv.Error as error:
                raise ValueError(f"{self.name}, after line {rows.line_num}: not a CSV file ({error})") from error
        if len(ends) < 2:
            raise ValueError(f"{self.name}: no rows below the column names; is it whole?")
        return {
            "bounds": np.array(ends, np.int64),
            "lines": np.array(lines, np.int64),
            "numbers": np.array(numbers, bool),
        }

    def _rows(self, index: Index) -> int:
        return len(index["bounds"]) - 1

    def row_name(self, index: int) -> str:
        """File and the line on which the row ends."""
        return f"{self.name.rpartition('/')[2]}:{self.index['lines'][index + 1]}"

    def _values(self, place: int, name: str) -> list[str]:
        start, end = self.index["bounds"][place].tolist()
        text = as_text(self._bytes(start, end - start, name).removeprefix(BYTE_ORDER_MARK), name)
        try:
            return next(csv.reader(io.StringIO(text, newline="")), [])
        except csv.Error as error:  # the scan found none: the file was changed in place
            raise BadSample(Reason.MALFORMED_ROW, name) from error

    def row(self, index: int) -> dict[str, Any]:
        """The row's columns; BadSample if it has more or fewer than there are names, or is not UTF-8."""
        name = self.row_name(index)
        columns, values = self._values(0, name), self._values(index + 1, name)
        if len(columns) != len(values):
            raise BadSample(Reason.MALFORMED_ROW, name)
        numbers = self.index["numbers"].tolist()
        return {
            column: value.split(LIST_SEPARATOR) if column.partition("_")[0] == "tags"
            else as_number(value) if is_number
            else value
            for column, value, is_number in zip(columns, values, numbers, strict=True)
            if value
        }  # fmt: skip


def _is_text(column: str) -> bool:
    return column in (*IMAGE_KEYS, *TEXT_KEYS, *IDS) or column.partition("_")[0] in ("caption", "tags")


def as_number(text: str) -> int | float | None:
    """The number that a text is, of 64 bits and finite; None if it is none that is printed as it is written."""
    with suppress(ValueError):
        if str(number := int(text)) == text:
            return number if -(2**63) <= number < 2**63 else None
    with suppress(ValueError):
        if str(number := float(text)) == text and math.isfinite(number):
            return number
    return None


class _Counted:
    """Lines of a file for `csv`, which takes one only when it needs it, so that a row's bytes are known.

    ValueError if a row is longer than `MAX_TEXT_BYTES`.
    """

    def __init__(self, name: str, file: BinaryIO):
        self._name, self._file = name, file
        self.read = self.row_start = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(MAX_TEXT_BYTES + 1):
            if self.read - self.row_start + len(line) > MAX_TEXT_BYTES:
                raise ValueError(f"{self._name}: a row of more than {MAX_TEXT_BYTES} bytes; is this a CSV file?")
            if not self.read:
                self.row_start = len(BYTE_ORDER_MARK) * line.startswith(BYTE_ORDER_MARK)
            self.read += len(line)
            # What is not UTF-8 is found in the row that has it.
            yield line.removeprefix(BYTE_ORDER_MARK).decode("utf-8", "surrogateescape")


class ParquetTable:
    """Rows of a Parquet file, such as img2dataset and Hugging Face write; read by row groups.

    Texts and bytes are read as dictionaries, in which equal values are one: so they take no more memory than the pages.

    Raises:
        ValueError: it is no Parquet file, or it has no rows.
    """

    def __init__(self, path: str | Path):
        self.name = str(path)
        self._file, self._owner = None, os.getpid()
        self._identity = LocalFile(path).identity()
        self._groups: dict[int, Any] = {}
        metadata = self._opened().metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        if min(sizes, default=0) < 0 or sum(sizes) > MAX_ROWS:
            raise ValueError(f"{path}: not a Parquet file ({sum(sizes)} rows); is it whole?")
        if not sum(sizes):
            raise ValueError(f"{path}: no rows in this file")
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self.columns = tuple(self._opened().schema_arrow.names)
        self.release()

    def _opened(self):
        import pyarrow as pa

        if self._file is None or self._owner != os.getpid():
            if LocalFile(self.name).identity() != self._identity:
                raise OSError(f"{self.name} has changed while in use")
            try:
                self._source = pa.OSFile(self.name)
                self._dictionaries = _dictionaries(parquet_file(self._source).metadata)
                self._file = parquet_file(self._source, self._dictionaries)
                self._owner = os.getpid()
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{self.name}: not a Parquet file ({error}); is it whole?") from error
        return self._file

    def __len__(self) -> int:
        return int(self._ends[-1])

    def row_name(self, index: int) -> str:
        """File and row, from 0 on."""
        return f"{self.name.rpartition('/')[2]}:{index}"

    def row(self, index: int) -> dict[str, Any]:
        """The row's columns, without those that are null.

        Raises:
            BadSample: its row group is damaged or too large, or a value has no meaning in Python.
        """
        name, group = self.row_name(index), int(np.searchsorted(self._ends, index, side="right"))
        if group not in self._groups:
            self._groups[group] = self._read_group(group)
            few = sum(map(_bytes, self._groups.values())) <= MAX_GROUP_BYTES
            while len(self._groups) > (HELD_GROUPS if few else 1):
                del self._groups[next(iter(self._groups))]
        table = self._groups[group]
        if isinstance(table, Reason):
            raise BadSample(table, f"{name} (its row group)")
        start = int(self._ends[group]) - table.num_rows
        row = table.slice(index - start, 1)
        check_size(sum(size_in_python(part) for column in row.columns for part in column.chunks), MAX_BYTES, name)
        try:
            (row,) = row.to_pylist()
        except UnicodeDecodeError as error:
            raise BadSample(Reason.NOT_UTF8, name) from error
        except (ValueError, OverflowError) as error:  # times, mostly
            raise BadSample(Reason.MALFORMED_ROW, name) from error
        return {column: value for column, value in row.items() if value is not None}

    def _read_group(self, group: int):
        """A row group as Arrow's table, or the reason why it cannot be used."""
        from pyarrow import ArrowException

        file = self._opened()
        metadata, size = file.metadata.row_group(group), 0
        try:
            for number in range(metadata.num_columns):
                chunk, column = metadata.column(number), file.schema.column(number)
                size += decoded_size(self._source, chunk, column.length, column.path in self._dictionaries)
            if size > MAX_GROUP_BYTES:
                return Reason.LARGE_GROUP
            # Arrow's own threads do not survive a fork.
            return file.read_row_group(group, use_threads=False)
        except (ArrowException, OSError, ValueError):
            return Reason.UNREADABLE_FILE

    def release(self) -> None:
        """Gives the open file and the rows in memory back."""
        self._groups = {}
        if self._file is not None:
            self._file.close()
            self._source.close()
            self._file = None

    def __reduce__(self):
        return ParquetTable, (self.name,)


def parquet_file(source: Any, dictionaries: Sequence[str] = ()):
    """Arrow's `ParquetFile` of a path or file, some columns of which are read as dictionaries; errors as Arrow's."""
    from pyarrow.parquet import ParquetFile

    # A schema is a tree that Arrow goes through on the stack.
    return ParquetFile(source, read_dictionary=dictionaries, thrift_container_size_limit=MAX_PARTS)


def _bytes(group: Any) -> int:
    return 0 if isinstance(group, Reason) else group.nbytes


def _dictionaries(metadata: Any) -> list[str]:
    """The columns of texts or bytes, but for those of an encoding that Arrow does not read as dictionaries."""
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    columns = [metadata.schema.column(number) for number in range(metadata.num_columns)]
    return [
        column.path
        for number, column in enumerate(columns)
        if column.physical_type == "BYTE_ARRAY"
        and not any("DELTA" in encoding for group in groups for encoding in group.column(number).encodings)
    ]


TABLES = {".jsonl": JsonTable, ".csv": CsvTable, ".parquet": ParquetTable}
