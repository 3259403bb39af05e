"""Tables: JSON lines, CSV, Excel and Parquet by row; pairs whose images are files next to one, or values in it.

Parallel texts are a table without images.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Protocol

import numpy as np

from ernie_vil2.data.readers.columns import IMAGE_KEYS, Names, addresses, lacking, names_here, plain_name, quoted
from ernie_vil2.data.readers.layout import SPLITS, Layout, Precedence, canonical_split, order_splits
from ernie_vil2.data.readers.locations import LocalFile, Location
from ernie_vil2.data.readers.parquet import ParquetTable, parquet_file, readable_columns
from ernie_vil2.data.readers.source import Index, TextLines, scan_lines
from ernie_vil2.data.readers.spreadsheets import LOOKED_AT, CsvTable, XlsxTable, header, read_sheet
from ernie_vil2.data.readers.webdataset import IMAGE_ID, choose_text_name, parse_texts
from ernie_vil2.data.samples import BadSample, Reason, Sample, check_text, is_id, parse_object
from ernie_vil2.data.source_files import BYTE_ORDER_MARK, check_inside, read_first_image
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.device.extras import require

FIRST_ROWS = 10  # by which the columns of JSON lines are known
CHECKED_ROWS = 100  # of which one image at least must be there


class Table(Protocol):
    """Rows by number, each a mapping from column to value."""

    def __len__(self) -> int: ...

    def describe_row(self, index: int) -> str: ...

    @property
    def column_names(self) -> Sequence[str]: ...

    def read_row(self, index: int, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A row by the names of its columns, or other `names` where these are given."""

    def release(self) -> None: ...


def open_table(path: str | Path, encoding: str | None = None) -> Table:
    """The table in a `.jsonl`, `.csv`, `.tsv`, `.xlsx` or `.parquet` file; the encoding is of a CSV, None: recognised.
    ValueError if it is none of these, or has no rows."""
    kind = TABLES.get(Path(path).suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: a table is a {', '.join(TABLES)} file")
    return CsvTable(path, encoding) if kind is CsvTable else kind(path)


class JsonTable(TextLines):
    """A JSON object a line; blank lines are skipped."""

    kind = "json lines"

    def _scan(self) -> Index:
        with self.location.open() as file:
            lines = np.fromiter(scan_lines(file, self.name), np.dtype("i8, ?"))
        rows = np.flatnonzero(~lines["f1"])
        if not len(rows):
            raise ValueError(f"{self.name}: no rows in this file; is it whole?")
        return {"bounds": np.append(0, np.cumsum(lines["f0"])), "rows": rows}

    def _count_rows(self, index: Index) -> int:
        return len(index["rows"])

    def describe_row(self, index: int) -> str:
        return super().describe_row(int(self.index["rows"][index]))

    @property
    def column_names(self) -> list[str]:
        """Those of the first rows."""
        found: dict[str, None] = {}
        for index in range(min(FIRST_ROWS, len(self))):
            with suppress(BadSample):
                found |= dict.fromkeys(self.read_row(index))
        return list(found)

    def read_row(self, index: int, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The row's columns, by other `names` where given.

        BadSample if it is not JSON object, or longer than `MAX_TEXT_BYTES`.
        """
        line = self.read_line(int(self.index["rows"][index]))
        return renamed(parse_object(line, self.describe_row(index)), names or {})


def renamed(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A row whose columns have other names."""
    return {names.get(column, column): value for column, value in row.items()}


TABLES = {".jsonl": JsonTable, ".csv": CsvTable, ".tsv": CsvTable, ".xlsx": XlsxTable, ".parquet": ParquetTable}


class TableSource:
    """Rows of a table: an image, its texts, and other columns, which become fields.

    The image is a file name relative to the table's folder or to `images/` there, or its bytes, as such or in a column
    `bytes` of their own (Parquet). Texts are `text` or `caption`, captions and tags by language as in a tar shard
    (`caption_zh`, `tags_en`, ...). `image_id` names the image, otherwise its file does. What people call these columns
    is understood (`columns.OTHER_NAMES`).

    Args:
        path: the table.
        text_id: column that names the text; None: the captions name it.
        images: folder where image files are looked for, instead of the table's; absolute paths within it are
            followed.
        columns: of the table by their names here: `{"image": "图片"}`.
        encoding: of a CSV; None: recognised.

    Raises:
        ValueError: the file is not such a table, it has no rows, or one of the columns is not there.
    """

    def __init__(
        self,
        path: str | Path,
        text_id: str | None = None,
        images: Path | None = None,
        columns: Mapping[str, str] | None = None,
        encoding: str | None = None,
    ):
        self.name, self.files = str(path), [Path(path)]
        self._images = images
        self._table = open_table(path, encoding)
        self._names = names_here(self._table.column_names, columns or {}, self.name)
        self._text_id = None if text_id is None else self.field_name(text_id)
        home = images or Path(path).parent
        self._folders = (home, home / "images")
        self.release = self._table.release

    def checked(self) -> TableSource:
        """Itself, where the table has the columns that are needed, and not all of the first rows lack their image.
        ValueError or FileNotFoundError if it is not so; the message says which option helps."""
        if what := lacking(self._table.column_names, self._names):
            raise ValueError(f"{self.name}: {what}")
        outside, missing = list[str](), ""
        for index in range(min(CHECKED_ROWS, len(self))):
            where = self._table.describe_row(index)
            try:
                row = self._table.read_row(index, self._names)
                key, _, file, data = image_of(row, where, self._images)
            except BadSample as bad:
                if bad.reason == Reason.OUTSIDE_FOLDER and (_is_absolute(bad.name) or bad.name.startswith("../")):
                    outside.append(bad.name)
                continue
            found = (os.path.lexists(folder / one) for folder in self._folders for one in (file, file.strip()))
            if data is not None or any(found):
                self.release()
                return self
            if re.match(r"https?://", str(row[key])):
                theirs = next((one for one, here in self._names.items() if here == key), key)
                raise ValueError(f"{self.name}: {addresses(theirs, self._table.column_names, self._names)}")
            missing = missing or file
        self.release()
        if missing:
            looked_in = ", ".join(map(str, self._folders))
            known = next((one for one in sorted(self._folders[0].glob("*/")) if os.path.lexists(one / missing)), None)
            option = f"it is in {known}: --images {quoted(str(known))}" if known else "--images"
            raise FileNotFoundError(
                f"{self.name}: no image file was found, for example {missing}; looked in {looked_in}; say in which "
                f"folder the images are ({option}, Data.images)"
            )
        if outside:
            raise ValueError(f"{self.name}: {_elsewhere(outside, self._folders[0])}")
        return self

    @property
    def column_names(self) -> Sequence[str]:
        """The headers of the table, as it has them."""
        return self._table.column_names

    def field_name(self, column: str) -> str:
        """Return what a column is called here that is named as in the table; another case and other spaces will do.

        A name that no header resembles is returned as it is.
        """
        headers = list(self._table.column_names)
        if column not in headers and column not in self._names.values():
            alike = (header for header in headers if plain_name(header) == plain_name(column))
            column = next(alike, column)
        return self._names.get(column, column)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Sample:
        where = self._table.describe_row(index)
        row = self._table.read_row(index, self._names)
        captions, tags = parse_texts(row, where)
        if row.get("text") is not None:
            if not isinstance(row["text"], str):
                raise BadSample(Reason.MALFORMED_CAPTION, where)
            check_text(row["text"], where)
            captions.setdefault("", row["text"])
        key, name, file, data = image_of(row, where, self._images)
        fields = {column: value for column, value in row.items() if column != key}
        path: str | Path = ""
        if data is None:
            path, data = read_first_image(self._folders, file, file.strip())
        return Sample(
            name, choose_text_name(captions, fields, self._text_id, where), data, captions, tags, fields, str(path)
        )

    def read_image_name(self, index: int) -> str:
        """What the image of a row is called, see `Shard`."""
        return image_of(self._table.read_row(index, self._names), self._table.describe_row(index), self._images)[1]


class TextSource(TableSource):
    """Rows of a table as samples without an image, for `Training.task=new_language`: parallel texts.

    What the columns `caption_en`, `caption_zh`, ... of a row say means the same.

    Args, Raises: as of `TableSource`, without `images`.
    """

    def checked(self) -> TextSource:
        """Itself, where there are columns of texts in two languages; else ValueError."""
        there = self._table.column_names
        if sum(self._names.get(column, column).startswith("caption_") for column in there) < 2:
            raise ValueError(
                f"{self.name}: columns here: {', '.join(there)}; parallel texts have one for each language, "
                "caption_en, caption_zh, ...; name them: Data.columns={caption_en: NAME, caption_zh: NAME}"
            )
        self.release()
        return self

    def __getitem__(self, index: int) -> Sample:
        where = self.read_image_name(index)
        row = self._table.read_row(index, self._names)
        captions, _ = parse_texts(row, where)
        return Sample(where, choose_text_name(captions, row, self._text_id, where), b"", captions)

    def read_image_name(self, index: int) -> str:
        """As of `TableSource`: every row is one of its own."""
        return self._table.describe_row(index)


def image_of(row: Mapping[str, Any], where: str, images: Path | None = None) -> tuple[str, str, str, bytes | None]:
    """The column of a row that holds its image, the image's name, and its file, or "" and its bytes.

    BadSample if there is none, or it is malformed, or the file leads out of its folder; absolute paths may lead into
    the folder `images`.
    """
    key = next((key for key in IMAGE_KEYS if row.get(key) not in (None, "")), None)
    if key is None:
        raise BadSample(Reason.NO_IMAGE, where)
    file, data = _file_and_bytes(row[key], where)
    if data is None:
        check_text(file)
        file = _within(file, images)
    name = row.get(IMAGE_ID) if row.get(IMAGE_ID) is not None else file or row.get("key") or where
    if not is_id(name):
        raise BadSample(Reason.MALFORMED_ROW, where)
    if data is None:
        check_inside(file)
        if _is_absolute(file):  # of Windows
            raise BadSample(Reason.OUTSIDE_FOLDER, file)
    return key, str(name), file, data


def _within(file: str, images: Path | None) -> str:
    """A path out of the table's folder from the folder of images on, if it is a part of that; any other as it is.

    In paths of Windows and of other machines, where nothing is here, the folder is found by its name.
    """
    file = file.replace("\\", "/")
    path = PurePosixPath(file)
    if images is None or not (_is_absolute(file) or path.parts[:1] == ("..",)):
        return file
    for folder in (os.path.abspath(images), os.path.realpath(images)):  # noqa: PTH100  -- paths as they are written
        if path.is_relative_to(folder) and ".." not in path.parts:
            return str(path.relative_to(folder))
    parts, name = path.parts[:-1], os.path.basename(os.path.abspath(images))  # noqa: PTH100, PTH119  -- paths as they are written
    if name in parts and not (path.is_absolute() and os.path.lexists(path)):
        return "/".join(path.parts[len(parts) - parts[::-1].index(name) :])
    return file


def _is_absolute(file: str) -> bool:
    return file.startswith("/") or PureWindowsPath(file).is_absolute()


def _elsewhere(outside: Sequence[str], home: Path) -> str:
    """That images lie outside the folder where a table's images are looked for, and which option helps."""
    first = outside[0]
    alike = [one for one in outside if one[:1] == first[:1]]  # commonpath refuses paths of Windows among others
    folders = [os.path.dirname(one) for one in alike]  # noqa: PTH120  -- paths as they are written
    folder = os.path.commonpath([os.path.normpath(one if _is_absolute(first) else home / one) for one in folders])
    return (
        f"images are named by {'absolute paths' if _is_absolute(first) else 'paths out of their folder'}, as {first}; "
        f"name the folder of which each is a part: --images {quoted(folder)} (Data.images)"
        + ("" if os.path.isdir(folder) else "; it is not on this machine: name its copy, a folder of the same name")  # noqa: PTH112  -- Path raises where this says no
    )


def _file_and_bytes(value: Any, where: str) -> tuple[str, bytes | None]:
    file, data = value, None
    if isinstance(value, dict):  # Hugging Face's images
        file, data = value.get("path"), value.get("bytes")
    elif isinstance(value, bytes):
        file, data = None, value
    if not (isinstance(data, bytes) or (data is None and isinstance(file, str))):
        raise BadSample(Reason.MALFORMED_ROW, where)
    return file if isinstance(file, str) else "", data


def find_tables(folder: Path, columns: Mapping[str, str] | None = None) -> dict[str, list[Path]]:
    """Tables are splits by their names. Parquet files that say no split are joined: they are parts of one table."""
    tables = [path for path in tables_in(folder) if not lacking(*_seen(path, columns or {}))]
    parts = defaultdict(list)
    for path in sorted(tables):
        if path.suffix == ".parquet":
            split = path.stem.partition("-")[0]  # train-00000-of-00012
            parts[split if canonical_split(split) in SPLITS else ""].append(path)
    return parts or order_splits({path.stem: path for path in tables})


def tables_in(folder: Path) -> list[Path]:
    """Files that may be tables; `~$` begins what Excel leaves next to one that is open."""
    return [
        path for path in folder.iterdir() if path.suffix.lower() in TABLES and not path.name.startswith((".", "~$"))
    ]


def describe_missing_columns(folder: Path) -> list[str]:
    """For each table of a folder that has columns, but not those that are needed, a sentence that says it."""
    found = []
    for path in sorted(path for path in tables_in(folder) if path.suffix.lower() != ".tsv"):
        columns, names = _seen(path, {})
        if columns and (what := lacking(columns, names)):
            found.append(f"{path.name}: {what}")
    return found


def _seen(path: Path, given: Mapping[str, str]) -> tuple[list[str], Names]:
    """The columns of a table as far as its beginning shows them, and their names here; none of what cannot be read."""
    try:
        columns = _columns(path)
        return columns, names_here(columns, given, str(path))
    except (ValueError, OSError, BadSample):
        return [], {}


def _columns(path: Path) -> list[str]:
    if not path.is_file():
        return []
    if path.suffix == ".parquet":
        require(f"{path}, a Parquet file,", "pyarrow")
        from pyarrow import ArrowException

        try:
            return list(readable_columns(parquet_file(path).schema_arrow))
        except (ArrowException, OSError):
            return []
    if path.suffix.lower() == ".xlsx":
        return next((row for _, row in read_sheet(path)), [])
    with path.open("rb") as file:
        start = file.read(LOOKED_AT)
    if path.suffix.lower() in (".csv", ".tsv"):
        return header(start, path.name)
    columns: dict[str, None] = {}
    for line in start.removeprefix(BYTE_ORDER_MARK).splitlines()[:FIRST_ROWS]:
        with suppress(BadSample):
            columns |= dict.fromkeys(parse_object(line, path.name))
    return list(columns)


def _open(kind: type[TableSource], location: Location, data: DataSpec) -> TableSource:
    return kind(location.name, data.text_id, data.image_folder, data.columns, data.encoding).checked()


TABLE = Layout(
    name="table",
    file_description=f"{', '.join(TABLES)} with the columns image and text, or caption_zh, ...",
    find=find_tables,
    accepts=lambda location: isinstance(location, LocalFile),
    suffixes=tuple(TABLES),
    open=partial(_open, TableSource),
    image_folders=(),
    precedence=Precedence.TABLE,
)
TEXTS = Layout(
    name="texts",
    file_description=f"{', '.join(TABLES)} with the columns caption_en, caption_zh, ...",
    find=lambda folder: order_splits({path.stem: path for path in tables_in(folder)}),
    accepts=TABLE.accepts,
    suffixes=TABLE.suffixes,
    open=partial(_open, TextSource),
    is_detectable=False,
    precedence=Precedence.TABLE,
)
