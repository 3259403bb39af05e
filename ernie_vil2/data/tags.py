"""Object tags by id, from a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ernie_vil2.data.rows import as_text
from ernie_vil2.data.samples import BadSample, Reason, content_id
from ernie_vil2.data.sources.index import Index, cached_index
from ernie_vil2.data.sources.lines import Lines
from ernie_vil2.data.sources.members import texts_of
from ernie_vil2.data.sources.tables import LIST_SEPARATOR, JsonTable

ID = "id"
Tags = dict[str, tuple[str, ...]]


class TagsFile:
    """Tags by id and language: JSON lines `{"id": ..., "tags_zh": [...], "tags_en": [...]}`, or a TSV.

    The TSV's first line names its columns, `id` and `tags`, `tags_zh`, ...; `|` stands between two tags. Only the ids
    are kept in memory, as 16 bytes a row. Of rows with one id the first one counts.

    Raises:
        ValueError: the file is neither `.jsonl` nor `.tsv`, a row has no id or malformed tags, or there is no row.
    """

    def __init__(self, path: str | Path):
        self.name = str(path)
        if self.name.endswith(".jsonl"):
            self._rows: JsonTable | TagsTsv = JsonTable(path)
        elif self.name.endswith(".tsv"):
            self._rows = TagsTsv(path)
        else:
            raise ValueError(f"{path}: tags are in a .jsonl or a .tsv file")
        index = cached_index("tags", self._rows.location.identity(), self._scan)
        self._ids, self._places = index["ids"], index["places"]
        self._rows.release()

    def _scan(self) -> Index:
        ids = np.empty(len(self._rows), np.int64)
        for row in range(len(self._rows)):
            try:
                name, _ = self._row(row)
            except BadSample as bad:
                raise ValueError(f"{self.name}: {bad}; mend the row or take it out") from bad
            ids[row] = content_id(name)
        order = np.argsort(ids, kind="stable")
        return {"ids": ids[order], "places": order}

    def _row(self, row: int) -> tuple[str, Tags]:
        place, fields = self._rows.row_name(row), self._rows.row(row)
        name = fields.get(ID)
        if not isinstance(name, str | int) or isinstance(name, bool) or name == "":
            raise BadSample(Reason.NO_ID, place)
        return str(name), texts_of(fields, place)[1]

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, name: str) -> Tags:
        """The tags of an id by language; none if the file has no such id."""
        number = content_id(name)
        first, last = np.searchsorted(self._ids, [number, number + 1])
        for place in self._places[first:last].tolist():
            found, tags = self._row(place)
            if found == name:
                return tags
        return {}


class TagsTsv(Lines):
    """A TSV with named columns, whose tags are lists."""

    def __len__(self) -> int:
        return super().__len__() - 1

    def row_name(self, index: int) -> str:
        """File and line."""
        return super().row_name(index + 1)

    def row(self, index: int) -> dict[str, object]:
        """The columns of a row; BadSample if it has more or fewer than there are names."""
        columns, values = ([as_text(value, self.name) for value in self.columns(row)] for row in (0, index + 1))
        if len(columns) != len(values):
            raise BadSample(Reason.MALFORMED_ROW, self.row_name(index))
        return {
            column: value.split(LIST_SEPARATOR) if column.partition("_")[0] == "tags" else value
            for column, value in zip(columns, values, strict=True)
        }


def join_tags(tags: Tags, name: str, files: Iterable[TagsFile]) -> Tags:
    """Tags with those that files have for a name; a file's replace what was there in the same language."""
    joined = dict(tags)
    for file in files:
        joined |= {language: found for language, found in file[name].items() if found}
    return joined
