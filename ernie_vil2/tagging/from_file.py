"""Tags that a file has for the ids of a source: checked, cleaned, and told where the two do not match."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ernie_vil2.data.samples import BadSampleReport, Sample, first_names
from ernie_vil2.data.tags import Tags, TagsFile
from ernie_vil2.io.files import sha256
from ernie_vil2.tagging.text import clean_tags


class FileTagger:
    """A `Tagger` that looks tags up by id, as `clean_tags` leaves them.

    Rows of the file that cannot be used, or that repeat an id, are counted and skipped.

    Args:
        path: a `.jsonl`, `.tsv` or `.csv` file, see `TagsFile`.

    Raises:
        ValueError: the file is no such file, or none of its rows can be used.
    """

    def __init__(self, path: str | Path):
        self._bad_rows = BadSampleReport()
        self._file = TagsFile(path, self._bad_rows)
        if not len(self._file):
            raise ValueError(f"{path}: no row has an id and tags\n{self._bad_rows}")

    def describe(self) -> dict:
        """The file and its checksum."""
        return {"file": self._file.name, "sha256": sha256(Path(self._file.name))}

    def prepare(self, sample: Sample, name: str) -> str:
        """The id; images are not decoded."""
        return name

    def tag(self, prepared: Sequence[str]) -> list[Tags]:
        """What the file has for ids."""
        return [clean_tags(self._file[name]) for name in prepared]

    def remarks(self, ids: np.ndarray) -> list[str]:
        """Rows that could not be used, and rows whose id no sample has."""
        lines = []
        if self._bad_rows.counts:
            lines.append(f"rows of {self._file.name} that were skipped:")
            for reason, count in self._bad_rows.counts.most_common():
                lines.append(f"  {reason}: {first_names(count, self._bad_rows.names[reason])}")
        unused = np.sort(self._file.places[~np.isin(self._file.ids, ids)])
        if len(unused):
            names = [self._file.id_at(row) for row in unused[: BadSampleReport.NAMES].tolist()]
            lines.append(f"tags whose id no sample has: {first_names(len(unused), names)}")
        return lines
