"""Parallel texts: a table with a column for each language and no images, for `Training.task=new_language`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ernie_vil2.data.readers.columns import names_here
from ernie_vil2.data.readers.layout import Layout, in_order
from ernie_vil2.data.readers.shard_files import LocalFile
from ernie_vil2.data.readers.tables import TABLES, open_table, tables_in
from ernie_vil2.data.readers.tar import text_name, texts_of
from ernie_vil2.data.samples import Sample


class TextSource:
    """Rows of a table as samples without an image: what the columns `caption_en`, `caption_zh`, ... say means the same.

    Args:
        path: the table.
        text_id: column that names the texts of a row; None: the texts themselves do.
        columns: of the table by their names here: `{"caption_en": "source", "caption_fr": "target"}`.
        encoding: of a CSV; None: recognised.

    Raises:
        ValueError: the file is not a table, it has no rows, or it has no columns of texts in two languages.
    """

    def __init__(
        self,
        path: str | Path,
        text_id: str | None = None,
        columns: Mapping[str, str] | None = None,
        encoding: str | None = None,
    ):
        self.name, self.files = str(path), [Path(path)]
        self._arguments = (self.name, text_id, columns, encoding)
        self._text_id, self._table = text_id, open_table(path, encoding)
        there = self._table.column_names
        self._names = names_here(there, columns or {}, self.name)
        if sum(self._names.get(column, column).startswith("caption_") for column in there) < 2:
            raise ValueError(
                f"{self.name}: columns here: {', '.join(there)}; parallel texts have one for each language, "
                "caption_en, caption_zh, ...; name them: Data.columns={caption_en: NAME, caption_zh: NAME}"
            )
        self.release = self._table.release

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Sample:
        where = self._table.row_name(index)
        row = self._table.row(index, self._names)
        captions, _ = texts_of(row, where)
        return Sample(where, text_name(captions, row, self._text_id, where), b"", captions)

    def __reduce__(self) -> tuple:
        return TextSource, self._arguments


TEXTS = Layout(
    name="texts",
    files=f"{', '.join(TABLES)} with the columns caption_en, caption_zh, ...",
    find=lambda folder: in_order({path.stem: path for path in tables_in(folder)}),
    fits=lambda location: isinstance(location, LocalFile),
    endings=tuple(TABLES),
    open=lambda location, options: TextSource(location.name, options.text_id, options.columns, options.encoding),
    by_name_only=True,
)
