"""Tables: JSON lines, CSV and Parquet by row, and pairs whose images are files next to a table, or values in it."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from ernie_vil2.data.readers.indexed_file import Index, IndexedFile, TextLines, measured_lines
from ernie_vil2.data.readers.layout import SPLITS, Layout, family, in_order
from ernie_vil2.data.readers.parquet import ParquetTable, parquet_file
from ernie_vil2.data.readers.shard_files import LocalFile
from ernie_vil2.data.readers.tar import IMAGE_ID, text_name, texts_of
from ernie_vil2.data.samples import MAX_TEXT_BYTES, BadSample, Reason, Sample, as_object, as_text, check_text, is_id
from ernie_vil2.data.source_files import BYTE_ORDER_MARK, IMAGE_SUFFIXES, check_inside, found_image
from ernie_vil2.device.extras import require

# The first of these that a row has counts; `file_name` is what the image folders of Hugging Face say, and img2dataset
# puts the bytes of an image under its suffix.
IMAGE_KEYS = ("image", "image_path", "file_name", *sorted(IMAGE_SUFFIXES))
TEXT_KEYS = ("text", "caption")
IDS = ("key", "image_id", "text_id")
LIST_SEPARATOR = "|"  # in a CSV column of tags
LOOKED_AT, FIRST_ROWS = 2**20, 10  # bytes and rows that tell whether a file is a table of pairs


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
        """The row's columns; BadSample if it is not JSON object, or longer than `MAX_TEXT_BYTES`."""
        return as_object(self.line(int(self.index["rows"][index])), self.row_name(index))


class CsvTable(IndexedFile):
    """Rows below a line of column names; a quoted value may hold line ends. Empty values count as missing.

    Columns whose name begins with `tags` hold lists, separated by `|`. A column holds numbers if each of its values is
    one that is printed as it is written: "00123" and "3.50" are texts, and so are all values of their columns.
    Images, texts and ids are texts in any case.
    """

    kind = "csv with numbers"

    def _scan(self) -> Index:
        with self.location.open() as file:
            counted = _Counted(self.name, file)
            rows = csv.reader(counted, strict=True)
            ends, lines = list[tuple[int, int]](), list[int]()
            columns, numbers = list[str](), list[bool]()
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

    def _values(self, row: int, name: str) -> list[str]:
        start, end = self.index["bounds"][row].tolist()
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
        if str(real := float(text)) == text and math.isfinite(real):
            return real
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


class TableSource:
    """Rows of a `.jsonl`, `.csv` or `.parquet` table: an image, its texts, and other columns, which become fields.

    The image is a file name relative to the table's folder or to `images/` there, or its bytes, as such or in a column
    `bytes` of their own (Parquet). Texts are `text` or `caption`, captions and tags by language as in a tar shard
    (`caption_zh`, `tags_en`, ...). `image_id` names the image, otherwise its file does.

    Args:
        path: the table.
        text_id: column that names the text; None: the captions name it.
        images: folder that stands for the table's where image files are looked for.

    Raises:
        ValueError: the file is no such table, or it has no rows.
    """

    def __init__(self, path: str | Path, text_id: str | None = None, images: Path | None = None):
        self.name, self.files = str(path), [Path(path)]
        self._text_id, self._images = text_id, images
        self._table = open_table(path)
        home = images or Path(path).parent
        self._folders = (home, home / "images")
        self.release = self._table.release

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Sample:
        where = self._table.row_name(index)
        row = self._table.row(index)
        captions, tags = texts_of(row, where)
        if row.get("text") is not None:
            if not isinstance(row["text"], str):
                raise BadSample(Reason.MALFORMED_CAPTION, where)
            check_text(row["text"], where)
            captions.setdefault("", row["text"])
        key, name, file, data = image_of(row, where)
        fields = {column: value for column, value in row.items() if column != key}
        path: str | Path = ""
        if data is None:
            path, data = found_image(self._folders, file)
        return Sample(name, text_name(captions, fields, self._text_id, where), data, captions, tags, fields, str(path))

    def image_name(self, index: int) -> str:
        """What the image of a row is called, see `Shard`."""
        return image_of(self._table.row(index), self._table.row_name(index))[1]

    def __reduce__(self) -> tuple:
        return TableSource, (self.name, self._text_id, self._images)


def image_of(row: Mapping[str, Any], where: str) -> tuple[str, str, str, bytes | None]:
    """The column of a row that holds its image, the image's name, and its file, or "" and its bytes.

    Raises:
        BadSample: there is none, or it is malformed, or the file leads out of its folder.
    """
    key = next((key for key in IMAGE_KEYS if row.get(key) not in (None, "")), None)
    if key is None:
        raise BadSample(Reason.NO_IMAGE, where)
    file, data = _file_and_bytes(row[key], where)
    name = row.get(IMAGE_ID) if row.get(IMAGE_ID) is not None else file or row.get("key") or where
    if not is_id(name):
        raise BadSample(Reason.MALFORMED_ROW, where)
    if data is None:
        check_inside(file)
    return key, str(name), file, data


def _file_and_bytes(value: Any, where: str) -> tuple[str, bytes | None]:
    file, data = value, None
    if isinstance(value, dict):  # Hugging Face's images
        file, data = value.get("path"), value.get("bytes")
    elif isinstance(value, bytes):
        file, data = None, value
    if not (isinstance(data, bytes) or (data is None and isinstance(file, str))):
        raise BadSample(Reason.MALFORMED_ROW, where)
    return file if isinstance(file, str) else "", data


def _find(folder: Path) -> dict[str, list[Path]]:
    """Tables are splits by their names. Parquet files that say no split are joined: they are parts of one table."""
    tables = [path for path in folder.iterdir() if path.suffix in TABLES and path.name[0] != "." and _holds_pairs(path)]
    parts = defaultdict(list)
    for path in sorted(tables):
        if path.suffix == ".parquet":
            split = path.stem.partition("-")[0]  # train-00000-of-00012
            parts[split if family(split) in SPLITS else ""].append(path)
    return parts or in_order({path.stem: path for path in tables})


def _holds_pairs(path: Path) -> bool:
    columns = _columns(path)
    return not columns.isdisjoint(IMAGE_KEYS) and any(
        column in TEXT_KEYS or column.startswith("caption_") for column in columns
    )


def _columns(path: Path) -> set[str]:
    """The columns of a table as far as its beginning shows them; none of what cannot be read."""
    if not path.is_file():
        return set()
    if path.suffix == ".parquet":
        require(f"{path}, a Parquet file,", "pyarrow")
        from pyarrow import ArrowException

        try:
            return set(parquet_file(path).schema_arrow.names)
        except (ArrowException, OSError):
            return set()
    with open(path, "rb") as file:
        start = file.read(LOOKED_AT).removeprefix(BYTE_ORDER_MARK)
    columns: set[str] = set()
    if path.suffix == ".csv":
        with suppress(csv.Error):
            columns.update(next(csv.reader(io.StringIO(start.decode("utf-8", "replace"))), []))
        return columns
    for line in start.splitlines()[:FIRST_ROWS]:
        with suppress(BadSample):
            columns |= as_object(line, path.name).keys()
    return columns


TABLE = Layout(
    name="table",
    files=f"{', '.join(TABLES)} with the columns image and text, or caption_zh, ...",
    find=_find,
    fits=lambda location: isinstance(location, LocalFile),
    endings=tuple(TABLES),
    open=lambda location, options: TableSource(location.name, options.text_id, options.images),
    image_folders=(),
)
