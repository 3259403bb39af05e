"""Spreadsheets as people have them: CSV and Excel's workbooks.

CSV is separated by commas, semicolons or tabs, in UTF-8 or in the GB18030 that Excel writes.
"""

import codecs
import csv
import io
import math
import re
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ernie_vil2.data.readers.columns import is_text
from ernie_vil2.data.readers.locations import LocalFile
from ernie_vil2.data.readers.source import Index, IndexedFile
from ernie_vil2.data.samples import MAX_BYTES, MAX_TEXT_BYTES, BadSample, Reason
from ernie_vil2.data.source_files import BYTE_ORDER_MARK
from ernie_vil2.device.extras import require

LIST_SEPARATOR = "|"  # in a column of tags
LOOKED_AT = 2**20  # bytes by which the format of a file is recognised
DELIMITERS = (",", ";", "\t")
CHINESE = "gb18030"
MAX_ROWS = 2**20  # of a sheet, as Excel has it


class CsvTable(IndexedFile):
    """Rows below a line of column names; a quoted value may hold line ends. Empty values count as missing.

    Columns whose name begins with `tags` hold lists, separated by `|`. A column holds numbers if each of its values is
    one that is printed as it is written: "00123" and "3.50" are texts, and so are all values of their columns.
    Images, texts and ids are texts in any case.

    Args:
        path: the file.
        encoding: of the file, as Python calls it; None: UTF-8, or GB18030 where most lines are not UTF-8.

    Raises:
        ValueError: it is not a CSV file, it has no rows, or there is no such encoding.
    """

    def __init__(self, path: str | Path, encoding: str | None = None):
        self._given = checked_encoding(encoding)
        self.kind = f"csv by dialect {self._given or ''}"
        super().__init__(path)

    def _scan(self) -> Index:
        with self.location.open() as file:
            encoding, delimiter = dialect(file.read(LOOKED_AT), self._given, self.name)
            file.seek(0)
            counted = _Counted(self.name, file, encoding)
            rows = csv.reader(counted, delimiter=delimiter, strict=True)
            ends, lines = list[tuple[int, int]](), list[int]()
            columns, numbers = list[str](), list[bool]()
            try:
                for row in rows:
                    if not ends:
                        columns, numbers = row, [True] * len(row)
                    elif len(row) == len(columns):
                        numbers = _still_numbers(numbers, row)
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
            "dialect": np.array([encoding, delimiter]),
        }

    def _count_rows(self, index: Index) -> int:
        return len(index["bounds"]) - 1

    @property
    def column_names(self) -> list[str]:
        """Their names; none where these are not text."""
        with suppress(BadSample):
            return self._values(0, self.name)
        return []

    def describe_row(self, index: int) -> str:
        """File and the line on which the row ends."""
        return f"{self.name.rpartition('/')[2]}:{self.index['lines'][index + 1]}"

    def _values(self, row: int, name: str) -> list[str]:
        start, end = self.index["bounds"][row].tolist()
        encoding, delimiter = self.index["dialect"].tolist()
        content = self._read_bytes(start, end - start, name).removeprefix(BYTE_ORDER_MARK)
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            raise BadSample(Reason.NOT_UTF8, name) from error
        try:
            return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        except csv.Error as error:  # the scan found none: the file was changed in place
            raise BadSample(Reason.MALFORMED_ROW, name) from error

    def read_row(self, index: int, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The row's columns, by other `names` where given; BadSample if it has more or fewer than there are, or cannot
        be decoded."""
        name = self.describe_row(index)
        columns, values = self._values(0, name), self._values(index + 1, name)
        if len(columns) != len(values):
            raise BadSample(Reason.MALFORMED_ROW, name)
        return _typed(columns, values, self.index["numbers"].tolist(), names or {})


def checked_encoding(encoding: str | None) -> str | None:
    """The name of an encoding in which line ends are those of ASCII; ValueError for another."""
    if encoding is None:
        return None
    try:
        name = codecs.lookup(encoding).name
        if "\n".encode(name) == b"\n":
            return name
    except (LookupError, UnicodeError, TypeError):
        pass
    raise ValueError(f"encoding {encoding}: not one that a table is read in; use utf-8, gb18030, big5, shift_jis, ...")


def dialect(start: bytes, encoding: str | None, name: str) -> tuple[str, str]:
    """Encoding, None: found in its lines, and delimiter of a CSV file that begins so; ValueError if it is UTF-16."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f'{name}: UTF-16, as Excel\'s "Unicode text"; save it as CSV UTF-8')
    lines = start.removeprefix(BYTE_ORDER_MARK).splitlines()
    if encoding is None:
        beyond_ascii = [line for line in lines[: max(1, len(lines) - 1)] if not line.isascii()]
        wrong = [line for line in beyond_ascii if not _decodes(line, "utf-8")]
        chinese = sum(_decodes(line, CHINESE) for line in wrong)
        encoding = CHINESE if 2 * len(wrong) > len(beyond_ascii) and 2 * chinese > len(wrong) else "utf-8"
    header = lines[0].decode(encoding, "replace") if lines else ""
    return encoding, max(DELIMITERS, key=lambda delimiter: len(_first_row(header, delimiter)))


def header(start: bytes, name: str) -> list[str]:
    """The columns of a CSV file that begins so; errors as of `dialect`."""
    encoding, delimiter = dialect(start, None, name)
    return _first_row(start.removeprefix(BYTE_ORDER_MARK).decode(encoding, "replace"), delimiter)


def _decodes(line: bytes, encoding: str) -> bool:
    with suppress(UnicodeDecodeError):
        line.decode(encoding)
        return True
    return False


def _first_row(text: str, delimiter: str) -> list[str]:
    with suppress(csv.Error):
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
    return []


def _still_numbers(numbers: Sequence[bool], row: Sequence[str]) -> list[bool]:
    """Of the columns that hold numbers so far, whether each does with one more row."""
    return [maybe and (not value or _as_number(value) is not None) for maybe, value in zip(numbers, row, strict=True)]


def _typed(
    columns: Sequence[str], values: Sequence[str], numbers: Sequence[bool], names: Mapping[str, str]
) -> dict[str, Any]:
    """A row by the names that its columns have here: tags as lists, columns of numbers as these, others as texts."""
    row: dict[str, Any] = {}
    for column, value, is_number in zip(columns, values, numbers, strict=True):
        here = names.get(column, column)
        if not value:
            continue
        if here.partition("_")[0] == "tags":
            row[here] = value.split(LIST_SEPARATOR)
        else:
            row[here] = _as_number(value) if is_number and not is_text(here) else value
    return row


def _as_number(text: str) -> int | float | None:
    """The number that a text is, of 64 bits and finite; None if it is none that is printed as it is written."""
    with suppress(ValueError):
        if str(number := int(text)) == text:
            return number if -(2**63) <= number < 2**63 else None
    with suppress(ValueError):
        if str(real := float(text)) == text and math.isfinite(real):
            return real
    return None


class _Counted:
    """Lines of a file for `csv`, which takes one only when it needs it, so that a row's bytes are known.

    ValueError if a row is longer than `MAX_TEXT_BYTES`.
    """

    def __init__(self, name: str, file: BinaryIO, encoding: str):
        self._name, self._file, self._encoding = name, file, encoding
        self.read = self.row_start = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(MAX_TEXT_BYTES + 1):
            if self.read - self.row_start + len(line) > MAX_TEXT_BYTES:
                raise ValueError(f"{self._name}: a row of more than {MAX_TEXT_BYTES} bytes; is this a CSV file?")
            if not self.read:
                self.row_start = len(BYTE_ORDER_MARK) * line.startswith(BYTE_ORDER_MARK)
            self.read += len(line)
            # What cannot be decoded is found in the row that has it.
            yield line.removeprefix(BYTE_ORDER_MARK).decode(self._encoding, "surrogateescape")


class XlsxTable:
    """Rows of the first sheet of an `.xlsx` file, below a row of column names, with values as in a CSV.

    They are in memory from the first row that is read until `release`. Formulas count by the values that Excel saved.
    Rows above the column names that hold one value, as a title, are skipped. Cells that are merged downwards share
    their value.

    Raises:
        ValueError: it is not a workbook, it is too large, or it has no rows.
    """

    def __init__(self, path: str | Path):
        require(f"{path}, an Excel workbook,", "openpyxl")
        self.name = str(path)
        self._identity = LocalFile(path).identity()
        self._read: list[tuple[int, list[str]]] | None = None
        rows = self._rows
        self.column_names = rows[0][1]
        width = len(self.column_names)
        self._numbers = [True] * width
        for _, row in rows[1:]:
            self._numbers = _still_numbers(self._numbers, row)
        self._lines = [line for line, _ in rows[1:]]
        self.release()

    @property
    def _rows(self) -> list[tuple[int, list[str]]]:
        """Column names and rows, each with its number in the sheet; OSError if the file is another one by now."""
        if self._read is None:
            if LocalFile(self.name).identity() != self._identity:
                raise OSError(f"{self.name} has changed while in use")
            self._read = list(read_sheet(self.name))
            if len(self._read) < 2:
                raise ValueError(f"{self.name}: no rows below the column names of the first sheet")
        return self._read

    def __len__(self) -> int:
        return len(self._lines)

    def describe_row(self, index: int) -> str:
        return f"{self.name.rpartition('/')[2]}:{self._lines[index]}"

    def read_row(self, index: int, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        return _typed(self.column_names, self._rows[index + 1][1], self._numbers, names or {})

    def release(self) -> None:
        """Gives the rows in memory back; the next one reads the file again."""
        self._read = None


def read_sheet(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of the first sheet that are not blank, as texts, each with its number; as wide as the first is.
    ValueError if it is not a workbook, or it unpacks to more than `MAX_BYTES`."""
    require(f"{path}, an Excel workbook,", "openpyxl")
    import openpyxl

    try:
        with zipfile.ZipFile(path) as parts:
            if sum(part.file_size for part in parts.infolist()) > MAX_BYTES:
                raise ValueError(f"{path}: unpacks to more than {MAX_BYTES >> 20} MiB; save it as CSV UTF-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and extensions, of which nothing is read
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            sheet, width = book.worksheets[0], 0
            merged, repeated = _merged(path, sheet._worksheet_path), dict[int, tuple[int, str]]()
            for number, cells in enumerate(islice(sheet.iter_rows(values_only=True), MAX_ROWS), 1):
                row = [_text(cell) for cell in cells]
                if not any(row) or (not width and sum(map(bool, row)) == 1):
                    continue
                if not width:
                    width = max(position for position, value in enumerate(row, 1) if value)
                row = [*row[:width], *[""] * (width - len(row))]
                repeated |= {column: (last, row[column]) for column, last in merged.get(number, ()) if column < width}
                for column, (last, value) in repeated.items():
                    row[column] = row[column] or value * (number <= last)
                yield number, row
            book.close()
    except Exception as error:  # openpyxl raises whatever damaged XML brings it to
        if isinstance(error, OSError) or str(path) in str(error):
            raise
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: not an .xlsx workbook ({what}); is it whole?") from error


def _merged(path: str | Path, sheet: str) -> dict[int, list[tuple[int, int]]]:
    """Of each row from which cells are merged downwards their columns, from 0, and last rows; openpyxl lists merged
    cells only when it has the whole sheet in memory."""
    import openpyxl

    found: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    with zipfile.ZipFile(path) as parts:
        for cells in re.findall(rb'<mergeCell ref="([A-Z]+\d+:[A-Z]+\d+)"', parts.read(sheet)):
            left, top, _, bottom = openpyxl.utils.range_boundaries(cells.decode())
            if bottom > top:
                found[top].append((left - 1, bottom))
    return found


def _text(cell: Any) -> str:
    """A cell as text: a whole number without a point, a date as ISO writes it, without a time if it has none."""
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return cell.isoformat().removesuffix("T00:00:00") if hasattr(cell, "isoformat") else str(cell)
