"""Spreadsheets as people save them: CSV files and Excel workbooks.

CSV may be separated by commas, semicolons or tabs, and be in UTF-8 or in GB18030, which the Chinese Excel writes.
"""

import codecs
import csv
import io
import math
import re
import warnings
import zipfile
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ernie_vil2.data.readers.columns import is_text_column
from ernie_vil2.data.readers.locations import LocalFile
from ernie_vil2.data.readers.source import Index, IndexedFile
from ernie_vil2.data.samples import MAX_BYTES, MAX_TEXT_BYTES, BadSample, Reason
from ernie_vil2.data.source_files import BYTE_ORDER_MARK
from ernie_vil2.device.extras import require

LIST_SEPARATOR = "|"  # between the tags in a column
HEAD_BYTES = 2**20  # beginning of a file from which its format is detected
DELIMITERS = (",", ";", "\t")
# A line above the headers that tells Excel the delimiter; Excel does not show it.
_DELIMITER_LINE = re.compile(rb'"?sep=([\t ,;:|/^~])"?\r?\n', re.IGNORECASE)
CHINESE_ENCODING = "gb18030"
# Empty cells, and those whose formula Excel could not compute. The words for the latter are English in every workbook,
# and in CSV files that an English or Chinese Excel writes.
_MISSING_VALUES = {
    "",
    *("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!", "#SPILL!", "#CALC!", "#GETTING_DATA"),
    *("#FIELD!", "#BLOCKED!", "#CONNECT!", "#UNKNOWN!", "#BUSY!"),
}
MAX_ROWS = 2**20  # of a sheet; Excel's own limit
# By default, `csv` refuses a whole file for a value of more than 131,072 characters. `_LineCounter` bounds the rows.
csv.field_size_limit(max(csv.field_size_limit(), MAX_TEXT_BYTES))


class Dialect(NamedTuple):
    """Form of a CSV file.

    Attributes:
        encoding: as Python calls it.
        delimiter: character between the values.
        start: number of bytes before the headers: a byte order mark, and Excel's line `sep=;`.
    """

    encoding: str
    delimiter: str
    start: int


class CsvTable(IndexedFile):
    """Rows of a CSV file below a line of headers. A quoted value may hold line ends.

    Empty values count as missing, and so do the errors of Excel's formulas, such as #N/A.

    Columns whose name begins with `tags` hold lists, separated by `|`. A column holds numbers if each of its values is
    printed as it is written. In a column with "00123" or "3.50", all values are texts. Images, texts and ids are always
    texts.

    Args:
        path: the file.
        encoding: encoding of the file, as Python calls it; None: UTF-8, or GB18030 if most lines are not UTF-8.

    Raises:
        ValueError: the file is no CSV file, it has no rows, or the encoding does not exist.
    """

    def __init__(self, path: str | Path, encoding: str | None = None):
        self._user_encoding = normalize_encoding(encoding)
        self.kind = f"csv by dialect {self._user_encoding or ''}"
        super().__init__(path)

    def _scan(self) -> Index:
        with self.location.open() as file:
            head = file.read(HEAD_BYTES)
            dialect = detect_dialect(head, self._user_encoding, self.name)
            num_lines_above = head.count(b"\n", 0, dialect.start)
            file.seek(dialect.start)
            lines = _LineCounter(self.name, file, dialect)
            reader = csv.reader(lines, delimiter=dialect.delimiter, strict=True)
            # Arrays take an eighth of the memory of lists: a table may have ten million rows.
            bounds = array("q")  # first byte and end of each row in turn, the headers first
            line_numbers = array("q")
            headers: list[str] = []
            are_numbers: list[bool] = []
            try:
                for row in reader:
                    if not bounds:
                        headers, are_numbers = row, [True] * len(row)
                    elif len(row) == len(headers):
                        are_numbers = _update_are_numbers(are_numbers, row)
                    if row:  # blank lines are no rows
                        bounds.extend((lines.row_start, lines.position))
                        line_numbers.append(num_lines_above + reader.line_num)
                    lines.row_start = lines.position
            except csv.Error as error:
                line_number = num_lines_above + reader.line_num
                problem = str(error)
                if "new-line character" in problem:  # its advice is for programs
                    problem = "a carriage return without line feed, outside of quotation marks; save it as CSV UTF-8"
                raise ValueError(f"{self.name}, after line {line_number}: not a CSV file ({problem})") from error
        if len(line_numbers) < 2:
            raise ValueError(f"{self.name}: no rows below the column names; is it whole?")
        return {
            "bounds": np.array(bounds, np.int64).reshape(-1, 2),
            "lines": np.array(line_numbers, np.int64),
            "numbers": np.array(are_numbers, bool),
            "dialect": np.array([dialect.encoding, dialect.delimiter]),
        }

    def _count_rows(self, index: Index) -> int:
        return len(index["bounds"]) - 1

    @property
    def column_names(self) -> list[str]:
        """Headers of the table; none if they cannot be decoded."""
        with suppress(BadSample):
            return self._read_values(0, self.name)
        return []

    def describe_row(self, index: int) -> str:
        """Return the file and the line on which the row ends."""
        return f"{self.name.rpartition('/')[2]}:{self.index['lines'][index + 1]}"

    def _read_values(self, row: int, name: str) -> list[str]:
        """Return the values of a row, counted with the headers as row 0."""
        start, end = self.index["bounds"][row].tolist()
        encoding, delimiter = self.index["dialect"].tolist()
        content = self._read_bytes(start, end - start, name).removeprefix(BYTE_ORDER_MARK)
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            raise BadSample(Reason.NOT_UTF8, name) from error
        try:
            return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        except csv.Error as error:  # the scan found none, so the file has been changed in place
            raise BadSample(Reason.MALFORMED_ROW, name) from error

    def read_row(self, index: int, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return a row by its headers, or by other `names`.

        Raises:
            BadSample: the row has more or fewer values than there are headers, or cannot be decoded.
        """
        name = self.describe_row(index)
        headers = self._read_values(0, name)
        values = self._read_values(index + 1, name)
        if len(headers) != len(values):
            raise BadSample(Reason.MALFORMED_ROW, name)
        return _convert_row(headers, values, self.index["numbers"].tolist(), names or {})


def normalize_encoding(encoding: str | None) -> str | None:
    """Return Python's name of an encoding; raise ValueError if its line ends are not those of ASCII."""
    if encoding is None:
        return None
    with suppress(LookupError, UnicodeError, TypeError):
        name = codecs.lookup(encoding).name
        if "\n".encode(name) == b"\n":
            return name
    raise ValueError(f"encoding {encoding}: not one that a table is read in; use utf-8, gb18030, big5, shift_jis, ...")


def detect_dialect(head: bytes, encoding: str | None, name: str) -> Dialect:
    """Return the form of a CSV file.

    Args:
        head: beginning of the file.
        encoding: encoding that the user names; None: detect it.
        name: the file, for the error.

    Raises:
        ValueError: the file is in UTF-16.
    """
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f'{name}: UTF-16, as Excel\'s "Unicode text"; save it as CSV UTF-8')
    start = len(BYTE_ORDER_MARK) if head.startswith(BYTE_ORDER_MARK) else 0
    delimiter_line = _DELIMITER_LINE.match(head, start)
    if delimiter_line:
        start = delimiter_line.end()
    lines = head[start:].splitlines()
    if encoding is None:
        # Single damaged lines must not decide. A last line that may be cut is left out if there are others.
        whole_lines = lines if head.endswith((b"\r", b"\n")) else lines[:-1] or lines
        num_non_ascii = num_broken = num_chinese = 0
        for line in whole_lines:
            if line.isascii():
                continue
            num_non_ascii += 1
            if not _can_decode(line, "utf-8"):
                num_broken += 1
                num_chinese += _can_decode(line, CHINESE_ENCODING)
        is_chinese = 2 * num_broken > num_non_ascii and 2 * num_chinese > num_broken
        encoding = CHINESE_ENCODING if is_chinese else "utf-8"
    if delimiter_line:
        return Dialect(encoding, delimiter_line[1].decode(), start)
    # The delimiter that gives the most headers. A quoted header may hold line ends.
    text = head[start:].decode(encoding, "replace")
    delimiter = max(DELIMITERS, key=lambda delimiter: len(_split_first_row(text, delimiter)))
    return Dialect(encoding, delimiter, start)


def read_headers(head: bytes, encoding: str | None, name: str) -> list[str]:
    """Return the headers of a CSV file from its beginning; arguments and errors are those of `detect_dialect`."""
    dialect = detect_dialect(head, encoding, name)
    return _split_first_row(head[dialect.start :].decode(dialect.encoding, "replace"), dialect.delimiter)


def read_header_line(file: BinaryIO, max_bytes: int) -> bytes:
    """Return the first line of a CSV file, with Excel's line `sep=;` if that is above; each cut at `max_bytes`."""
    line = file.readline(max_bytes)
    if _DELIMITER_LINE.fullmatch(line.removeprefix(BYTE_ORDER_MARK)):
        line += file.readline(max_bytes)
    return line


def _can_decode(line: bytes, encoding: str) -> bool:
    with suppress(UnicodeDecodeError):
        line.decode(encoding)
        return True
    return False


def _split_first_row(text: str, delimiter: str) -> list[str]:
    """Return the values of the first row that is not blank; none if it is malformed."""
    with suppress(csv.Error):
        return next(filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)), [])
    return []


def _update_are_numbers(are_numbers: Sequence[bool], row: Sequence[str]) -> list[bool]:
    """Return for each column whether it holds numbers only, up to this row."""
    return [
        is_number and (value in _MISSING_VALUES or _parse_number(value) is not None)
        for is_number, value in zip(are_numbers, row, strict=True)
    ]


def _convert_row(
    headers: Sequence[str], values: Sequence[str], are_numbers: Sequence[bool], names: Mapping[str, str]
) -> dict[str, Any]:
    """Return a row by the new names of its columns: tags as lists, columns of numbers as numbers, others as texts."""
    row: dict[str, Any] = {}
    for header, value, is_number in zip(headers, values, are_numbers, strict=True):
        name = names.get(header, header)
        if value in _MISSING_VALUES:
            continue
        if name.partition("_")[0] == "tags":
            row[name] = value.split(LIST_SEPARATOR)
        elif is_number and not is_text_column(name):
            row[name] = _parse_number(value)
        else:
            row[name] = value
    return row


def _parse_number(text: str) -> int | float | None:
    """Return a number that is printed as the text, if it has 64 bits and is finite; else None."""
    with suppress(ValueError):
        integer = int(text)
        if str(integer) == text:
            return integer if -(2**63) <= integer < 2**63 else None
    with suppress(ValueError):
        real = float(text)
        if str(real) == text and math.isfinite(real):
            return real
    return None


class _LineCounter:
    """Lines of a file for `csv`, from its headers on, with the position in the file.

    `csv` takes a line only when it needs one, so that the position is known after each row.

    Raises:
        ValueError: a row is longer than `MAX_TEXT_BYTES`.
    """

    def __init__(self, name: str, file: BinaryIO, dialect: Dialect):
        self._name, self._file, self._encoding = name, file, dialect.encoding
        self.position = self.row_start = dialect.start

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(MAX_TEXT_BYTES + 1):
            if self.position - self.row_start + len(line) > MAX_TEXT_BYTES:
                raise ValueError(f"{self._name}: a row of more than {MAX_TEXT_BYTES} bytes; is this a CSV file?")
            self.position += len(line)
            # Bytes that cannot be decoded are reported when their row is read.
            yield line.removeprefix(BYTE_ORDER_MARK).decode(self._encoding, "surrogateescape")


class XlsxTable:
    """Rows of the first sheet of an `.xlsx` file, below a row of headers, with values as in a CSV file.

    They are in memory from the first row that is read until `release`. A formula has the value that Excel saved. Rows
    above the headers with a single value, such as a title, are skipped. Cells that are merged vertically share a value.

    Raises:
        ValueError: the file is no workbook, is too large, or has no rows.
    """

    def __init__(self, path: str | Path):
        require(f"{path}, an Excel workbook,", "openpyxl")
        self.name = str(path)
        self._identity = LocalFile(path).identity()
        self._rows: list[tuple[int, list[str]]] | None = None
        headers, *rows = self._load_rows()
        self.column_names = headers[1]
        self._are_numbers = [True] * len(self.column_names)
        for _, row in rows:
            self._are_numbers = _update_are_numbers(self._are_numbers, row)
        self._line_numbers = [line_number for line_number, _ in rows]
        self.release()

    def _load_rows(self) -> list[tuple[int, list[str]]]:
        """Return headers and rows, each with its number in the sheet; raise OSError if the file has changed."""
        if self._rows is None:
            if LocalFile(self.name).identity() != self._identity:
                raise OSError(f"{self.name} has changed while in use")
            self._rows = list(read_sheet(self.name))
            if len(self._rows) < 2:
                raise ValueError(f"{self.name}: no rows below the column names of the first sheet")
        return self._rows

    def __len__(self) -> int:
        return len(self._line_numbers)

    def describe_row(self, index: int) -> str:
        return f"{self.name.rpartition('/')[2]}:{self._line_numbers[index]}"

    def read_row(self, index: int, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        _, values = self._load_rows()[index + 1]
        return _convert_row(self.column_names, values, self._are_numbers, names or {})

    def release(self) -> None:
        """Free the rows in memory; reading the next row reads the file again."""
        self._rows = None


def read_sheet(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of the first sheet that are not blank, as texts with their numbers, cut to the width of the first.

    Raises:
        ValueError: the file is no workbook, or unpacks to more than `MAX_BYTES`.
    """
    require(f"{path}, an Excel workbook,", "openpyxl")
    import openpyxl

    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                raise ValueError(f"{path}: unpacks to more than {MAX_BYTES >> 20} MiB; save it as CSV UTF-8")
        # About styles and extensions, which are not read. The filter stays: if threads read workbooks at the same time,
        # `catch_warnings` could leave all warnings of the process ignored.
        warnings.filterwarnings("ignore", module=r"openpyxl\.")
        with closing(openpyxl.load_workbook(path, read_only=True, data_only=True)) as book:
            sheet = book.worksheets[0]
            # The size that the file claims may be wrong; a smaller one would cut the rows, a larger one pad them.
            sheet.reset_dimensions()
            width = 0  # known after the headers
            merged_cells = _find_merged_cells(path, sheet._worksheet_path)
            repeated_values: dict[int, tuple[int, str]] = {}  # last row and value, by column
            for number, cells in enumerate(islice(sheet.iter_rows(values_only=True), MAX_ROWS), 1):
                row = [_format_cell(cell) for cell in cells[: width or None]]
                num_values = sum(map(bool, row))
                is_title = width == 0 and num_values == 1
                if num_values == 0 or is_title:
                    continue
                if width == 0:
                    # Cells to the right of the headers may be formatted, but empty.
                    width = len(row)
                    while not row[width - 1]:
                        width -= 1
                    del row[width:]
                row += [""] * (width - len(row))

                # Repeat the value of merged cells, which only the first of them has.
                for column, last_row in merged_cells.get(number, ()):
                    if column < width:
                        repeated_values[column] = last_row, row[column]
                for column, (last_row, value) in repeated_values.items():
                    if number <= last_row:
                        row[column] = row[column] or value
                yield number, row
    except Exception as error:  # damaged XML makes openpyxl raise almost anything
        if isinstance(error, OSError) or str(path) in str(error):
            raise
        cause = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: not an .xlsx workbook ({cause}); is it whole?") from error


def _find_merged_cells(path: str | Path, sheet: str) -> dict[int, list[tuple[int, int]]]:
    """Return the cells that are merged vertically: by first row, columns (from 0) with the last row.

    openpyxl would list merged cells only if it had the whole sheet in memory, so this looks into the XML.
    """
    import openpyxl

    merged_cells: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    with zipfile.ZipFile(path) as archive:
        for cells in re.findall(rb'<mergeCell ref="([A-Z]+\d+:[A-Z]+\d+)"', archive.read(sheet)):
            first_column, top, _, bottom = openpyxl.utils.range_boundaries(cells.decode())
            if bottom > top:
                merged_cells[top].append((first_column - 1, bottom))
    return merged_cells


def _format_cell(cell: Any) -> str:
    """Return a cell as text: an integer without a point, a date in ISO format, without the time if it is midnight."""
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if hasattr(cell, "isoformat"):
        return cell.isoformat().removesuffix("T00:00:00")
    return str(cell)
