"""Object tags by id, from a file."""

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ernie_vil2.data.readers.source import Index, TextLines, load_or_scan_index
from ernie_vil2.data.readers.spreadsheets import LIST_SEPARATOR, CsvTable
from ernie_vil2.data.readers.tables import JsonTable
from ernie_vil2.data.readers.webdataset import parse_texts
from ernie_vil2.data.samples import BadSample, BadSampleReport, Reason, Sample, content_id, decode_utf8
from ernie_vil2.io.terminal import shows_progress

ID = "id"
Tags = dict[str, tuple[str, ...]]


class TagsFile:
    """Tags by id and language: JSON lines `{"id": ..., "tags_zh": [...], "tags_en": [...]}`, a TSV or a CSV.

    The first line of a TSV or CSV names its columns, `id` and `tags`, `tags_zh`, ...; `|` separates two tags. Only
    the ids are kept in memory, as 16 bytes a row. Of rows with one id the first one counts.

    Args:
        path: the file, `.jsonl`, `.tsv` or `.csv`.
        bad: counts the rows that have no id or malformed tags, and those that repeat an id; None: the former are an
            error, the latter are skipped.

    Raises:
        ValueError: the file is not of such a kind, there is no row in it, or (without `bad`) a row cannot be used.
    """

    def __init__(self, path: str | Path, bad: BadSampleReport | None = None):
        self.name = str(path)
        kind = READERS.get(Path(path).suffix)
        if kind is None:
            raise ValueError(f"{path}: tags are in a .jsonl, .tsv or .csv file")
        self._rows: JsonTable | TagsTsv | CsvTable = kind(path)
        if bad is None:
            index = load_or_scan_index("tags", self._rows.location.identity(), self._scan)
        else:  # only a scan finds what is wrong with the rows
            index = self._scan(bad)
        self.ids: np.ndarray = index["ids"]
        """`content_id` of every row that can be used, sorted."""
        self.usable_rows: np.ndarray = index["rows"]
        """The number of each of these rows."""
        self._rows.release()

    def _scan(self, bad: BadSampleReport | None = None) -> Index:
        ids, usable = np.zeros(len(self._rows), np.int64), np.ones(len(self._rows), bool)
        quiet = not shows_progress()
        for row in tqdm(range(len(ids)), "ids", unit="row", delay=2, leave=False, file=sys.stdout, disable=quiet):
            try:
                ids[row] = content_id(self._row(row)[0])
            except BadSample as error:
                if bad is None:
                    raise ValueError(f"{self.name}: {error}; fix the row or take it out") from error
                bad.add(0, [(error.reason, error.name)])
                usable[row] = False
        usable_rows = np.flatnonzero(usable)
        usable_rows = usable_rows[np.argsort(ids[usable_rows], kind="stable")]
        if bad is not None:
            sorted_ids = ids[usable_rows]
            repeated = np.sort(usable_rows[1:][sorted_ids[1:] == sorted_ids[:-1]])
            bad.add(len(self._rows), [(Reason.REPEATED_ID, self._rows.describe_row(row)) for row in repeated.tolist()])
        return {"ids": ids[usable_rows], "rows": usable_rows}

    def id_at(self, row: int) -> str:
        """The id of a row."""
        return self._row(row)[0]

    def _row(self, row: int) -> tuple[str, Tags]:
        where, fields = self._rows.describe_row(row), self._rows.read_row(row)
        name = fields.get(ID)
        if not isinstance(name, str | int) or isinstance(name, bool) or name == "":
            raise BadSample(Reason.NO_ID, where)
        return str(name), parse_texts(fields, where)[1]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, name: str) -> Tags:
        """The tags of an id by language; none if the file has no such id."""
        number = content_id(name)
        first, last = np.searchsorted(self.ids, [number, number + 1])
        for row in self.usable_rows[first:last].tolist():
            found, tags = self._row(row)
            if found == name:
                return tags
        return {}


class TagsTsv(TextLines):
    """A TSV with named columns, whose tags are lists."""

    def __len__(self) -> int:
        return super().__len__() - 1

    def describe_row(self, index: int) -> str:
        return super().describe_row(index + 1)

    def read_row(self, index: int) -> dict[str, object]:
        """The columns of a row; BadSample if it has more or fewer than there are names."""
        columns, values = (
            [decode_utf8(value, self.name) for value in self.read_columns(row)] for row in (0, index + 1)
        )
        if len(columns) != len(values):
            raise BadSample(Reason.MALFORMED_ROW, self.describe_row(index))
        return {
            column: value.split(LIST_SEPARATOR) if column.partition("_")[0] == "tags" else value
            for column, value in zip(columns, values, strict=True)
        }


READERS: dict[str, type[JsonTable] | type[TagsTsv] | type[CsvTable]] = {
    ".jsonl": JsonTable,
    ".tsv": TagsTsv,
    ".csv": CsvTable,
}


def tags_id(sample: Sample, field: str | None) -> str:
    """What a sample's tags are joined by: one of its fields, or its image's name; BadSample if it has no such field."""
    if field is None:
        return sample.image_name
    value = sample.fields.get(field)
    if value is None:
        raise BadSample(Reason.NO_FIELD, f"{sample.image_name}, {field}")
    return str(value)


def join_tags(tags: Tags, name: str, files: Iterable[TagsFile]) -> Tags:
    """Tags with those that files have for a name; a file's replace what was there in the same language."""
    joined = dict(tags)
    for file in files:
        joined |= {language: found for language, found in file[name].items() if found}
    return joined
