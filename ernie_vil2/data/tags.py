"""Object tags by id, from a file."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.data.readers.source import Index, load_or_scan_index
from ernie_vil2.data.readers.spreadsheets import LIST_SEPARATOR, CsvTable
from ernie_vil2.data.readers.tables import JsonTable
from ernie_vil2.data.readers.webdataset import parse_texts
from ernie_vil2.data.samples import BadSample, BadSampleReport, Reason, Sample, check_text, decode_utf8, hash_id
from ernie_vil2.io.progress import progress_bar
from ernie_vil2.io.terminal import should_show_progress

ID = "id"
Tags = dict[str, tuple[str, ...]]


class TagsFile:
    """Tags by id and language: JSON lines `{"id": ..., "tags_zh": [...], "tags_en": [...]}`, a TSV or a CSV.

    The first line of a TSV or CSV names its columns: `id`, and `tags`, `tags_zh`, ...; `|` separates two tags. Only the
    ids are kept in memory, in 16 bytes a row. If several rows have the same id, the first one is used.

    Args:
        path: the file, `.jsonl`, `.tsv` or `.csv`.
        bad_rows: report that counts rows without id, rows with malformed tags, and repeated ids. None: the first two
            raise an error and repeated ids are ignored.

    Attributes:
        name: path of the file as a text.
        id_hashes: `[N]` int64, `hash_id` of the id of every usable row, sorted.
        usable_rows: `[N]` int64, number of each of these rows.

    Raises:
        ValueError: the file has another suffix or no rows, or (without `bad_rows`) a row cannot be used.
    """

    def __init__(self, path: str | Path, bad_rows: BadSampleReport | None = None):
        self.name = str(path)
        reader = READERS.get(Path(path).suffix)
        if reader is None:
            raise ValueError(f"{path}: tags are in a .jsonl, .tsv or .csv file")
        self._rows: JsonTable | TagsTsv | CsvTable = reader(path)
        if bad_rows is None:
            index = load_or_scan_index("tags", self._rows.location.identity(), self._scan)
        else:  # a cached index does not say what is wrong with the rows
            index = self._scan(bad_rows)
        self.id_hashes: np.ndarray = index["ids"]
        self.usable_rows: np.ndarray = index["rows"]
        self._rows.release()

    def _scan(self, bad_rows: BadSampleReport | None = None) -> Index:
        num_rows = len(self._rows)
        id_hashes, is_usable = np.zeros(num_rows, np.int64), np.ones(num_rows, bool)
        is_shown = should_show_progress()
        for row in progress_bar(range(num_rows), "ids", unit="row", delay=2, leave=False, is_shown=is_shown):
            try:
                id_hashes[row] = hash_id(self.id_at(row))
            except BadSample as error:
                if bad_rows is None:
                    raise ValueError(f"{self.name}: {error}; fix the row or take it out") from error
                bad_rows.add(num_read=0, bad=[(error.reason, error.name)])  # all rows are counted as read below
                is_usable[row] = False

        usable_rows = np.flatnonzero(is_usable)
        # Stable, so that the first row of an id comes first.
        usable_rows = usable_rows[np.argsort(id_hashes[usable_rows], kind="stable")]
        sorted_hashes = id_hashes[usable_rows]
        if bad_rows is not None:
            repeated = np.sort(usable_rows[1:][sorted_hashes[1:] == sorted_hashes[:-1]])
            repeated_rows = [(Reason.REPEATED_ID, self._rows.describe_row(row)) for row in repeated.tolist()]
            bad_rows.add(num_read=num_rows, bad=repeated_rows)
        return {"ids": sorted_hashes, "rows": usable_rows}

    def id_at(self, row: int) -> str:
        """Return the id of a row; BadSample if it has none, or if id or tags are malformed."""
        return self._read_row(row)[0]

    def _read_row(self, row: int) -> tuple[str, Tags]:
        row_name, fields = self._rows.describe_row(row), self._rows.read_row(row)
        row_id = fields.get(ID)
        if not isinstance(row_id, str | int) or isinstance(row_id, bool) or row_id == "":
            raise BadSample(Reason.NO_ID, row_name)
        check_text(str(row_id), row_name)
        _, tags = parse_texts(fields, row_name)
        return str(row_id), tags

    def __len__(self) -> int:
        return len(self.id_hashes)

    def __getitem__(self, sample_id: str) -> Tags:
        """Return the tags of an id by language; none if the file does not have the id."""
        id_hash = hash_id(sample_id)
        first, last = np.searchsorted(self.id_hashes, [id_hash, id_hash + 1])
        for row in self.usable_rows[first:last].tolist():
            row_id, tags = self._read_row(row)
            if row_id == sample_id:  # two ids may have the same hash
                return tags
        return {}


class TagsTsv(JsonTable):
    """A TSV whose first line names the columns, and whose tags are lists; blank lines are skipped."""

    def _count_rows(self, index: Index) -> int:
        num_rows = super()._count_rows(index) - 1
        if not num_rows:
            raise ValueError(f"{self.name}: no rows below the column names; is it whole?")
        return num_rows

    def describe_row(self, index: int) -> str:
        return super().describe_row(index + 1)

    def read_row(self, index: int, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the columns of a row by name; BadSample if there are more or fewer of them than names."""
        lines = self.index["rows"]
        columns = [decode_utf8(value, self.name) for value in self.read_columns(int(lines[0]))]
        values = [decode_utf8(value, self.describe_row(index)) for value in self.read_columns(int(lines[index + 1]))]
        if len(columns) != len(values):
            raise BadSample(Reason.MALFORMED_ROW, self.describe_row(index))
        row: dict[str, Any] = {}
        for column, value in zip(columns, values, strict=True):
            is_list = column.partition("_")[0] == "tags"
            row[column] = value.split(LIST_SEPARATOR) if is_list else value
        return row


READERS: dict[str, type[JsonTable] | type[TagsTsv] | type[CsvTable]] = {
    ".jsonl": JsonTable,
    ".tsv": TagsTsv,
    ".csv": CsvTable,
}


def find_tags_id(sample: Sample, field: str | None) -> str:
    """Return the id by which a sample's tags are found: one of its fields, or the name of its image.

    Raises:
        BadSample: the sample does not have the field, or the id is not Unicode text.
    """
    value = sample.image_name if field is None else sample.fields.get(field)
    if value is None:
        raise BadSample(Reason.NO_FIELD, f"{sample.image_name}, {field}")
    check_text(str(value), sample.image_name)
    return str(value)


def join_tags(tags: Tags, sample_id: str, files: Iterable[TagsFile]) -> Tags:
    """Return `tags` updated with the tags that files have for an id.

    The tags of a file replace the tags of the same language in `tags` and in earlier files.
    """
    joined = dict(tags)
    for file in files:
        for language, words in file[sample_id].items():
            if words:
                joined[language] = words
    return joined
