"""A table of pairs whose images are files beside it, or values in it."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ernie_vil2.data.annotation_files import BYTE_ORDER_MARK
from ernie_vil2.data.image_files import check_inside, found_image
from ernie_vil2.data.readers.layout import SPLITS, Layout, family, in_order
from ernie_vil2.data.readers.locations import LocalFile
from ernie_vil2.data.readers.parquet import parquet_file
from ernie_vil2.data.readers.tables import IMAGE_KEYS, TABLES, TEXT_KEYS, open_table
from ernie_vil2.data.readers.tar import IMAGE_ID, text_name, texts_of
from ernie_vil2.data.samples import BadSample, Reason, Sample, as_object, check_text, is_id

LOOKED_AT, FIRST_ROWS = 2**20, 10  # bytes and rows that tell whether a file is such a table


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
        place = self._table.row_name(index)
        row = self._table.row(index)
        captions, tags = texts_of(row, place)
        if row.get("text") is not None:
            if not isinstance(row["text"], str):
                raise BadSample(Reason.MALFORMED_CAPTION, place)
            check_text(row["text"], place)
            captions.setdefault("", row["text"])
        key, name, file, data = image_of(row, place)
        fields = {column: value for column, value in row.items() if column != key}
        path = ""
        if data is None:
            path, data = found_image(self._folders, file)
        return Sample(name, text_name(captions, fields, self._text_id, place), data, captions, tags, fields, str(path))

    def image_name(self, index: int) -> str:
        """As `NamesImages.image_name`."""
        return image_of(self._table.row(index), self._table.row_name(index))[1]

    def __reduce__(self):
        return TableSource, (self.name, self._text_id, self._images)


def image_of(row: Mapping[str, Any], place: str) -> tuple[str, str, str | None, bytes | None]:
    """The column of a row that holds its image, the image's name, and its file or its bytes.

    Raises:
        BadSample: there is none, or it is malformed, or the file leads out of its folder.
    """
    key = next((key for key in IMAGE_KEYS if row.get(key) not in (None, "")), None)
    if key is None:
        raise BadSample(Reason.NO_IMAGE, place)
    file, data = _file_and_bytes(row[key], place)
    name = row.get(IMAGE_ID) if row.get(IMAGE_ID) is not None else file or row.get("key") or place
    if not is_id(name):
        raise BadSample(Reason.MALFORMED_ROW, place)
    if data is None:
        check_inside(file)
    return key, str(name), file, data


def _file_and_bytes(value: Any, place: str) -> tuple[str | None, bytes | None]:
    file, data = value, None
    if isinstance(value, dict):  # Hugging Face's images
        file, data = value.get("path"), value.get("bytes")
    elif isinstance(value, bytes):
        file, data = None, value
    if not (isinstance(data, bytes) or (data is None and isinstance(file, str))):
        raise BadSample(Reason.MALFORMED_ROW, place)
    return file if isinstance(file, str) else None, data


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
    fits=lambda place: isinstance(place, LocalFile) and place.name.endswith(tuple(TABLES)),
    open=lambda place, options: TableSource(place.name, options.text_id, options.images),
    image_folders=(),
)
