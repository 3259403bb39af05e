"""CSV as people have it: separated by commas, semicolons or tabs, in UTF-8 or in the GB18030 that Excel writes."""

import codecs
import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ernie_vil2.data.readers.columns import is_text
from ernie_vil2.data.readers.indexed_file import Index, IndexedFile
from ernie_vil2.data.samples import MAX_TEXT_BYTES, BadSample, Reason
from ernie_vil2.data.source_files import BYTE_ORDER_MARK

LIST_SEPARATOR = "|"  # in a column of tags
LOOKED_AT = 2**20  # bytes by which the format of a file is recognised
DELIMITERS = (",", ";", "\t")
CHINESE = "gb18030"


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
                        numbers = still_numbers(numbers, row)
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

    def _rows(self, index: Index) -> int:
        return len(index["bounds"]) - 1

    @property
    def column_names(self) -> list[str]:
        """Their names; none where these are not text."""
        with suppress(BadSample):
            return self._values(0, self.name)
        return []

    def row_name(self, index: int) -> str:
        """File and the line on which the row ends."""
        return f"{self.name.rpartition('/')[2]}:{self.index['lines'][index + 1]}"

    def _values(self, row: int, name: str) -> list[str]:
        start, end = self.index["bounds"][row].tolist()
        encoding, delimiter = self.index["dialect"].tolist()
        content = self._bytes(start, end - start, name).removeprefix(BYTE_ORDER_MARK)
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            raise BadSample(Reason.NOT_UTF8, name) from error
        try:
            return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        except csv.Error as error:  # the scan found none: the file was changed in place
            raise BadSample(Reason.MALFORMED_ROW, name) from error

    def row(self, index: int, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The row's columns, by other `names` where given; BadSample if it has more or fewer than there are, or cannot
        be decoded."""
        name = self.row_name(index)
        columns, values = self._values(0, name), self._values(index + 1, name)
        if len(columns) != len(values):
            raise BadSample(Reason.MALFORMED_ROW, name)
        return typed(columns, values, self.index["numbers"].tolist(), names or {})


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


def still_numbers(numbers: Sequence[bool], row: Sequence[str]) -> list[bool]:
    """Of the columns that hold numbers so far, whether each does with one more row."""
    return [maybe and (not value or as_number(value) is not None) for maybe, value in zip(numbers, row, strict=True)]


def typed(
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
            row[here] = as_number(value) if is_number and not is_text(here) else value
    return row


def as_number(text: str) -> int | float | None:
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
