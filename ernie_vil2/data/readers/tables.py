"""Tables of pairs: JSON lines, CSV, Excel and Parquet, with the images in files next to the table or in its rows.

Parallel texts are a table without images.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple, Protocol

import numpy as np

from ernie_vil2.data.readers.columns import (
    IMAGE_KEYS,
    ColumnNames,
    apply_names,
    describe_addresses,
    describe_missing,
    find_alternatives,
    find_column,
    has_pairs,
    has_texts,
    quote_argument,
    rename_columns,
)
from ernie_vil2.data.readers.layout import SPLITS, Layout, Precedence, canonical_split, order_splits
from ernie_vil2.data.readers.locations import LocalFile, Location
from ernie_vil2.data.readers.parquet import ParquetTable, find_readable_columns, open_parquet
from ernie_vil2.data.readers.source import NUM_THREADS, Index, TextLines, scan_lines
from ernie_vil2.data.readers.spreadsheets import (
    HEAD_BYTES,
    CsvTable,
    XlsxTable,
    normalize_encoding,
    read_headers,
    read_sheet,
)
from ernie_vil2.data.readers.webdataset import IMAGE_ID, choose_text_name, parse_texts
from ernie_vil2.data.samples import BadSample, Reason, Sample, check_text, is_id, parse_object
from ernie_vil2.data.source_files import BYTE_ORDER_MARK, check_inside, read_first_image
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.device.extras import require

NUM_HEADER_ROWS = 10  # first rows of JSON lines whose keys are the columns; a single row may lack some
NUM_STATS = 10_000  # image files whose sizes are asked for at a time
NUM_CHECKED_ROWS = 100  # at least one of the first rows must have its image; single images may be missing


class Table(Protocol):
    """Rows by number. A row is a mapping from column to value."""

    def __len__(self) -> int: ...

    def describe_row(self, index: int) -> str:
        """Return file and row, for a user who looks for the row."""

    @property
    def column_names(self) -> Sequence[str]:
        """Headers of the table."""

    def read_row(self, index: int, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the values of a row by the headers of its columns; `names` replaces headers by other names."""

    def release(self) -> None:
        """Close files and free memory; reading the next row opens the table again."""


class JsonTable(TextLines):
    """A JSON object in each line; blank lines are skipped."""

    kind = "json lines"

    def _scan(self) -> Index:
        with self.location.open() as file:
            lines = np.fromiter(scan_lines(file, self.name), np.dtype([("size", "i8"), ("is_blank", "?")]))
        rows = np.flatnonzero(~lines["is_blank"])
        if not len(rows):
            raise ValueError(f"{self.name}: no rows in this file; is it whole?")
        return {"bounds": np.append(0, np.cumsum(lines["size"])), "rows": rows}

    def _count_rows(self, index: Index) -> int:
        return len(index["rows"])

    def describe_row(self, index: int) -> str:
        return super().describe_row(int(self.index["rows"][index]))

    @property
    def column_names(self) -> list[str]:
        """Keys of the first rows."""
        names: dict[str, None] = {}
        for index in range(min(NUM_HEADER_ROWS, len(self))):
            with suppress(BadSample):
                names |= dict.fromkeys(self.read_row(index))
        return list(names)

    def read_row(self, index: int, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return a row as `Table.read_row`.

        Raises:
            BadSample: the line is no JSON object, or longer than `MAX_TEXT_BYTES`.
        """
        row = parse_object(self.read_line(int(self.index["rows"][index])), self.describe_row(index))
        names = names or {}
        return {names.get(column, column): value for column, value in row.items()}


TABLES = {".jsonl": JsonTable, ".csv": CsvTable, ".tsv": CsvTable, ".xlsx": XlsxTable, ".parquet": ParquetTable}


def open_table(path: str | Path, encoding: str | None = None) -> Table:
    """Open the table in a `.jsonl`, `.csv`, `.tsv`, `.xlsx` or `.parquet` file.

    Args:
        path: the file.
        encoding: encoding of a CSV file; None: detect it.

    Raises:
        ValueError: the file is of another kind, or has no rows.
    """
    kind = TABLES.get(Path(path).suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: a table is a {', '.join(TABLES)} file")
    return CsvTable(path, encoding) if kind is CsvTable else kind(path)


class ImageValue(NamedTuple):
    """The image of a row.

    Attributes:
        column: column that holds the image.
        name: name of the image.
        file: path of its file, relative to a folder of images; "" if the row has no path.
        data: bytes of the image, if the row holds them; None: they are in the file.
    """

    column: str
    name: str
    file: str
    data: bytes | None


class TableSource:
    """Rows of a table as samples: an image, its texts, and other columns, which become fields.

    The image is a file name relative to the table's folder or to `images/` in it; or its bytes, directly or under the
    key `bytes` (Parquet). Texts are in the columns `text` or `caption`; captions and tags by language as in a tar shard
    (`caption_zh`, `tags_en`, ...). `image_id` names the image; otherwise its file does. Common synonyms of these
    columns are recognised (`columns.SYNONYMS`).

    Args:
        path: the table.
        text_id: column that names the text; None: the captions do.
        images: folder of the image files, instead of the table's; absolute paths may lead into it.
        columns: headers of the table by the names above: `{"image": "图片"}`.
        encoding: encoding of a CSV file; None: detect it.

    Raises:
        ValueError: the file is no such table, has no rows, or lacks one of the `columns`.
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
        self._names = rename_columns(self._table.column_names, columns or {}, self.name)
        self._text_id = None if text_id is None else self.field_name(text_id)
        root = images or Path(path).parent
        self._folders = (root, root / "images")
        self.release = self._table.release

    def check(self) -> None:
        """Check that the table has the columns that are needed, and that one of the first images exists.

        Raises:
            ValueError, FileNotFoundError: columns or images are missing; the message tells which option helps.
        """
        problem = describe_missing(self._table.column_names, self._names)
        if problem:
            raise ValueError(f"{self.name}: {problem}")
        self._check_images()
        self.release()

    def _check_images(self) -> None:
        outside_files: list[str] = []
        missing_file = ""
        for index in range(min(NUM_CHECKED_ROWS, len(self))):
            where = self._table.describe_row(index)
            try:
                row = self._table.read_row(index, self._names)
                image = find_image(row, where, self._images)
            except BadSample as error:
                if error.reason == Reason.OUTSIDE_FOLDER and (_is_absolute(error.name) or error.name.startswith("../")):
                    outside_files.append(error.name)
                continue
            if image.data is not None or self._has_file(image.file):
                return
            # A table of addresses is a common mistake; the message says how to download the images.
            if re.match(r"https?://", str(row[image.column])):
                header = next((header for header, name in self._names.items() if name == image.column), image.column)
                problem = describe_addresses(header, self._table.column_names, self._names)
                raise ValueError(f"{self.name}: {problem}")
            missing_file = missing_file or image.file

        self.release()
        if missing_file:
            raise FileNotFoundError(f"{self.name}: {self._describe_missing_file(missing_file)}")
        if outside_files:
            raise ValueError(f"{self.name}: {_describe_outside_files(outside_files, self._folders[0])}")

    def _has_file(self, file: str) -> bool:
        for folder in self._folders:
            if os.path.lexists(folder / file) or os.path.lexists(folder / file.strip()):
                return True
        return False

    def _describe_missing_file(self, file: str) -> str:
        """Return a message on an image that was not found, with the folder next to the table that has it, if any."""
        option = "--images"
        for folder in sorted(self._folders[0].glob("*/")):
            if os.path.lexists(folder / file):
                option = f"it is in {folder}: --images {quote_argument(str(folder))}"
                break
        return (
            f"no image file was found, for example {file}; looked in {', '.join(map(str, self._folders))}; say in "
            f"which folder the images are ({option}, Data.images)"
        )

    @property
    def column_names(self) -> Sequence[str]:
        """Headers of the table, as they are written in it."""
        return self._table.column_names

    @property
    def pair_columns(self) -> dict[str, str]:
        """Headers of the columns that are read as image, captions and tags, by the names under which they are read."""
        headers = {self._names.get(header, header): header for header in self.column_names}
        image = next((name for name in IMAGE_KEYS if name in headers), None)
        names = [name for name in headers if name == image or has_texts([name]) or name.partition("_")[0] == "tags"]
        return {name: headers[name] for name in names}

    def describe_columns(self) -> list[tuple[str, str]]:
        """Return what the columns are read as, in order: image, caption, tags or fields, and the headers."""
        image = next((name for name in IMAGE_KEYS if name in apply_names(self.column_names, self._names)), None)
        rows: list[tuple[str, str]] = []
        fields: list[str] = []
        for header in self.column_names:
            name = self._names.get(header, header)
            if name == image:
                rows.append(("image", header))
            elif has_texts([name]):
                language = name.partition("_")[2] or "not named"
                rows.append(("caption", f"{header} (language: {language})"))
            elif name.partition("_")[0] == "tags":
                rows.append(("tags", header))
            else:
                fields.append(header)
        if fields:
            rows.append(("fields", ", ".join(fields)))
        return rows

    def describe_choices(self) -> list[str]:
        """Return a sentence for each name that several columns could have, with the option that chooses another."""
        headers = {self._names.get(header, header): header for header in self.column_names}
        sentences: list[str] = []
        for name, alternatives in find_alternatives(self.column_names, self._names).items():
            option = quote_argument(f"{name}={alternatives[0]}")
            sentences.append(
                f"{name} is read from the column {headers[name]} and could be {' or '.join(alternatives)}: "
                f"--columns {option} (Data.columns)"
            )
        return sentences

    def field_name(self, column: str) -> str:
        """Return the field of samples that holds a column, see `find_column`."""
        return find_column(column, self._table.column_names, self._names)

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

        image = find_image(row, where, self._images)
        fields = {column: value for column, value in row.items() if column != image.column}
        path: str | Path = ""
        data = image.data
        if data is None:
            # Spaces at the end of a value are usually a mistake, but may belong to the file's name.
            path, data = read_first_image(self._folders, image.file, image.file.strip())
        text_name = choose_text_name(captions, fields, self._text_id, where)
        return Sample(image.name, text_name, data, captions, tags, fields, str(path))

    def read_image_name(self, index: int) -> str:
        """Return the name of a row's image without reading the image."""
        return self._find_image(index).name

    def _find_image(self, index: int) -> ImageValue:
        row = self._table.read_row(index, self._names)
        return find_image(row, self._table.describe_row(index), self._images)

    def digest_image_sizes(self) -> str:
        """Return a digest of the sizes of the image files, which are not opened; it changes if images are replaced.

        Empty for Parquet, whose rows usually hold the images and are read whole.
        """
        if isinstance(self._table, ParquetTable):
            return ""
        digest = blake2b(digest_size=16)
        with ThreadPoolExecutor(NUM_THREADS) as threads:
            # In chunks, because a table may have millions of rows.
            for start in range(0, len(self), NUM_STATS):
                files: list[str] = []
                for index in range(start, min(start + NUM_STATS, len(self))):
                    with suppress(BadSample):  # a row without an image has none to be replaced
                        files.append(self._find_image(index).file)
                digest.update(str(list(threads.map(self._find_file_size, files))).encode())
        self.release()
        return digest.hexdigest()

    def _find_file_size(self, file: str) -> int | None:
        """Return the size of an image file in bytes, found as by `read_first_image`; None if there is none."""
        for name in (file, file.strip()):
            for folder in self._folders:
                with suppress(OSError, ValueError):
                    return os.stat(folder / name).st_size  # noqa: PTH116  -- pathlib is slower
        return None


class TextSource(TableSource):
    """Rows of a table as samples without an image, for `Training.task=new_language`: parallel texts.

    The columns `caption_en`, `caption_zh`, ... of a row have the same meaning. Arguments are those of `TableSource`.
    """

    def check(self) -> None:
        """Raise ValueError if there are no columns of texts in two languages."""
        headers = self._table.column_names
        if sum(name.startswith("caption_") for name in apply_names(headers, self._names)) < 2:
            raise ValueError(
                f"{self.name}: columns here: {', '.join(headers)}; parallel texts have one for each language, "
                "caption_en, caption_zh, ...; name them: Data.columns={caption_en: NAME, caption_zh: NAME}"
            )
        self.release()

    def __getitem__(self, index: int) -> Sample:
        where = self._table.describe_row(index)
        row = self._table.read_row(index, self._names)
        captions, _ = parse_texts(row, where)
        return Sample(where, choose_text_name(captions, row, self._text_id, where), b"", captions)

    def read_image_name(self, index: int) -> str:
        """Return the place of the row: rows without images must not seem to share one."""
        return self._table.describe_row(index)


def find_image(row: Mapping[str, Any], where: str, images: Path | None = None) -> ImageValue:
    """Return the image of a row.

    Args:
        row: the row by the names that its columns have here.
        where: file and row, for errors.
        images: folder of images into which absolute paths may lead.

    Raises:
        BadSample: there is no image, it is malformed, or its path leads out of the folder.
    """
    column = next((key for key in IMAGE_KEYS if row.get(key) not in (None, "")), None)
    if column is None:
        raise BadSample(Reason.NO_IMAGE, where)

    # The value is a path, bytes, or Hugging Face's object with both.
    value = row[column]
    if isinstance(value, dict):
        file, data = value.get("path"), value.get("bytes")
    elif isinstance(value, bytes):
        file, data = None, value
    else:
        file, data = value, None
    if isinstance(data, bytes) and not isinstance(file, str):
        file = ""
    elif not isinstance(file, str) or not isinstance(data, bytes | None):
        raise BadSample(Reason.MALFORMED_ROW, where)

    if data is None:
        check_text(file)
        file = _make_relative(file, images)
    name = row.get(IMAGE_ID)
    if name is None:
        name = file or row.get("key") or where
    if not is_id(name):
        raise BadSample(Reason.MALFORMED_ROW, where)
    if data is None:
        check_inside(file)
        if _is_absolute(file):  # a path of Windows, which `check_inside` takes for a relative one
            raise BadSample(Reason.OUTSIDE_FOLDER, file)
    return ImageValue(column, str(name), file, data)


def _make_relative(file: str, images: Path | None) -> str:
    """Return a path that is absolute or begins with `..` relative to the folder of images, if it leads into that.

    Other paths stay as they are. In paths of Windows and of other machines, the folder is recognised by its name.
    """
    file = file.replace("\\", "/")
    # Blanks around a path must not hide that it leads out of the folder: files are read without them, too.
    path = PurePosixPath(file.strip())
    if not (_is_absolute(file.strip()) or path.parts[:1] == ("..",)):
        return file
    file = file.strip()
    if images is None:
        return file
    for folder in (os.path.abspath(images), os.path.realpath(images)):  # noqa: PTH100  -- paths as they are written
        if path.is_relative_to(folder) and ".." not in path.parts:
            return str(path.relative_to(folder))

    # A path that exists here is not one of another machine, even if a folder in it has the name.
    parents = path.parts[:-1]
    folder_name = os.path.basename(os.path.abspath(images))  # noqa: PTH100, PTH119  -- paths as they are written
    if folder_name in parents and not (path.is_absolute() and os.path.lexists(path)):
        last_position = len(parents) - 1 - parents[::-1].index(folder_name)
        return "/".join(path.parts[last_position + 1 :])
    return file


def _is_absolute(file: str) -> bool:
    return file.startswith("/") or PureWindowsPath(file).is_absolute()


def _describe_outside_files(files: Sequence[str], root: Path) -> str:
    """Return a message on images outside the folder of a table, with the option that names their own folder."""
    first = files[0]
    is_absolute = _is_absolute(first)
    # Only paths that begin alike are compared, because commonpath refuses a mixture of paths of Windows and others.
    folders: list[str] = []
    for file in files:
        if file[:1] == first[:1]:
            parent = os.path.dirname(file)  # noqa: PTH120  -- paths as they are written
            folders.append(os.path.normpath(parent if is_absolute else root / parent))
    folder = os.path.commonpath(folders)
    kind = "absolute paths" if is_absolute else "paths out of their folder"
    message = (
        f"images are named by {kind}, as {first}; name the folder that they lie in: "
        f"--images {quote_argument(folder)} (Data.images)"
    )
    if not os.path.isdir(folder):  # noqa: PTH112  -- pathlib raises for names that are too long
        message += "; it is not on this machine: name its copy, a folder of the same name"
    return message


def find_tables(
    folder: Path, columns: Mapping[str, str] | None = None, encoding: str | None = None
) -> dict[str, list[Path]]:
    """Return the tables of a folder that have images and texts, by the names of their splits.

    Each table is the split of its name. If there are Parquet files, only these count: as shards of the split in their
    names (`train-00000-of-00012`), or all as shards of one split without a name.

    Args:
        folder: folder of the tables.
        columns: as for `TableSource`.
        encoding: as for `TableSource`.

    Raises:
        ValueError: the encoding does not exist.
    """
    encoding = normalize_encoding(encoding)
    tables: list[Path] = []
    for path in list_tables(folder):
        headers, names = _read_columns(path, columns or {}, encoding)
        if has_pairs(headers, names):
            tables.append(path)
    shards = defaultdict(list)
    for path in sorted(tables):
        if path.suffix.lower() == ".parquet":
            split = path.stem.partition("-")[0]
            shards[split if canonical_split(split) in SPLITS else ""].append(path)
    return shards or _split_by_name(tables)


def _split_by_name(tables: Sequence[Path]) -> dict[str, list[Path]]:
    """Return each table as the split of its name, with the suffix (train.csv) if several tables have the name."""
    num_tables = Counter(path.stem for path in tables)
    return order_splits({path.stem if num_tables[path.stem] == 1 else path.name: path for path in tables})


def list_tables(folder: Path) -> list[Path]:
    """Return the files of a folder that may be tables, without hidden ones and Excel's lock files (`~$`)."""
    return [
        path for path in folder.iterdir() if path.suffix.lower() in TABLES and not path.name.startswith((".", "~$"))
    ]


def describe_missing_columns(folder: Path, encoding: str | None = None) -> list[str]:
    """Return a sentence for each table of a folder that lacks a column of images or texts; CSV has the encoding."""
    sentences: list[str] = []
    for path in sorted(list_tables(folder)):
        if path.suffix.lower() == ".tsv":
            continue  # rather an official TSV, which has no headers
        headers, names = _read_columns(path, {}, normalize_encoding(encoding))
        problem = describe_missing(headers, names)
        if headers and problem:
            sentences.append(f"{path.name}: {problem}")
    return sentences


def _read_columns(
    path: Path, user_columns: Mapping[str, str], encoding: str | None = None
) -> tuple[list[str], ColumnNames]:
    """Return the headers of a table, and their new names; nothing if it cannot be read."""
    try:
        headers = _read_headers(path, encoding)
        return headers, rename_columns(headers, user_columns, str(path))
    except (ValueError, OSError, BadSample):
        return [], {}


def _read_headers(path: Path, encoding: str | None) -> list[str]:
    if not path.is_file():
        return []
    if path.suffix.lower() == ".parquet":
        require(f"{path}, a Parquet file,", "pyarrow")
        from pyarrow import ArrowException

        try:
            return list(find_readable_columns(open_parquet(path).schema_arrow))
        except (ArrowException, OSError):
            return []
    if path.suffix.lower() == ".xlsx":
        return next((row for _, row in read_sheet(path)), [])
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if path.suffix.lower() in (".csv", ".tsv"):
        return read_headers(head, encoding, path.name)
    keys: dict[str, None] = {}
    for line in head.removeprefix(BYTE_ORDER_MARK).split(b"\n")[:NUM_HEADER_ROWS]:
        with suppress(BadSample):
            keys |= dict.fromkeys(parse_object(line, path.name))
    return list(keys)


def _open_source(kind: type[TableSource], location: Location, data: DataSpec) -> TableSource:
    source = kind(location.name, data.text_id, data.image_folder, data.columns, data.encoding)
    source.check()
    return source


TABLE = Layout(
    name="table",
    file_description=f"{', '.join(TABLES)} with the columns image and text, or caption_zh, ...",
    find=find_tables,
    accepts=lambda location: isinstance(location, LocalFile) and Path(location.name).suffix.lower() in TABLES,
    open=partial(_open_source, TableSource),
    image_folders=(),
    precedence=Precedence.TABLE,
)
TEXTS = Layout(
    name="texts",
    file_description=f"{', '.join(TABLES)} with the columns caption_en, caption_zh, ...",
    find=lambda folder: _split_by_name(list_tables(folder)),
    accepts=TABLE.accepts,
    open=partial(_open_source, TextSource),
    # Any table could be one of texts.
    is_detectable=False,
    precedence=Precedence.TABLE,
)
