"""Rows of an Excel workbook."""

import re
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ernie_vil2.data.readers.csv_table import still_numbers, typed
from ernie_vil2.data.readers.shard_files import LocalFile
from ernie_vil2.data.samples import MAX_BYTES
from ernie_vil2.device.extras import require

MAX_ROWS = 2**20  # of a sheet, as Excel has it


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
            self._numbers = still_numbers(self._numbers, row)
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

    def row_name(self, index: int) -> str:
        return f"{self.name.rpartition('/')[2]}:{self._lines[index]}"

    def row(self, index: int, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        return typed(self.column_names, self._rows[index + 1][1], self._numbers, names or {})

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
