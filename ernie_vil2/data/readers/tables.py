"""Tables read row by row: JSON lines, CSV, Parquet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from ernie_vil2.data.annotation_files import BYTE_ORDER_MARK
from ernie_vil2.data.image_files import IMAGE_SUFFIXES
from ernie_vil2.data.readers.indexed_file import Index, IndexedFile
from ernie_vil2.data.readers.lines import TextLines, measured_lines
from ernie_vil2.data.readers.parquet import ParquetTable
from ernie_vil2.data.samples import MAX_TEXT_BYTES, BadSample, Reason, as_object, as_text

# The first of these that a row has counts; `file_name` is what the image folders of Hugging Face say, and img2dataset
# puts the bytes of an image under its suffix.
IMAGE_KEYS = ("image", "image_path", "file_name", *sorted(IMAGE_SUFFIXES))
TEXT_KEYS = ("text", "caption")
IDS = ("key", "image_id", "text_id")
LIST_SEPARATOR = "|"  # in a CSV column of tags


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


TABLES = {".jsonl": JsonTable, ".csv": CsvTable, ".parquet": ParquetTable}
