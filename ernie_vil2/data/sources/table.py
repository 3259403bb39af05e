"""A table of pairs whose images are files beside it, or values in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ernie_vil2.data.image_files import check_inside, read_image
from ernie_vil2.data.rows import check_text, is_id
from ernie_vil2.data.samples import BadSample, Reason, Sample
from ernie_vil2.data.sources.members import IMAGE_ID, IMAGE_SUFFIXES, text_name, texts_of
from ernie_vil2.data.sources.tables import open_table

# The first of these that a row has counts; `file_name` is what the image folders of Hugging Face say, and img2dataset
# puts the bytes of an image under its suffix.
IMAGE_KEYS = ("image", "image_path", "file_name", *sorted(IMAGE_SUFFIXES))
TEXT_KEYS = ("text", "caption")


class TableSource:
    """Rows of a `.jsonl`, `.csv` or `.parquet` table: an image, its texts, and other columns, which become fields.

    The image is a file name relative to the table's folder or to `images/` there, or its bytes, as such or in a
    column `bytes` of their own (Parquet). Texts are `text` or `caption`, captions and tags by language as in a tar
    shard (`caption_zh`, `tags_en`, ...). `image_id` names the image, otherwise its file does.

    Args:
        path: the table.
        text_id: column that names the text; None: the captions name it.

    Raises:
        ValueError: the file is no such table, or it has no rows.
    """

    def __init__(self, path: str | Path, text_id: str | None = None):
        self.name = str(path)
        self._text_id = text_id
        self._table = open_table(path)
        self._folders = (Path(path).parent, Path(path).parent / "images")
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
        key = next((key for key in IMAGE_KEYS if row.get(key) not in (None, "")), None)
        if key is None:
            raise BadSample(Reason.NO_IMAGE, place)
        fields = {column: value for column, value in row.items() if column != key}
        file, data = _file_and_bytes(row[key], place)
        name = row.get(IMAGE_ID) if row.get(IMAGE_ID) is not None else file or row.get("key") or place
        if not is_id(name):
            raise BadSample(Reason.MALFORMED_ROW, place)
        if data is None:
            check_inside(file)
            data = read_image(self._folders, file)
        return Sample(str(name), text_name(captions, fields, self._text_id, place), data, captions, tags, fields)

    def __reduce__(self):
        return TableSource, (self.name, self._text_id)


def _file_and_bytes(value: Any, place: str) -> tuple[str | None, bytes | None]:
    file, data = value, None
    if isinstance(value, dict):  # Hugging Face's images
        file, data = value.get("path"), value.get("bytes")
    elif isinstance(value, bytes):
        file, data = None, value
    if not (isinstance(data, bytes) or (data is None and isinstance(file, str))):
        raise BadSample(Reason.MALFORMED_ROW, place)
    return file if isinstance(file, str) else None, data
