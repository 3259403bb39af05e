"""Statements about images with a label each, as SNLI-VE and NLVR2 publish them: JSON lines beside folders of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ernie_vil2.data.benchmark import BenchmarkImage
from ernie_vil2.data.readers.layout import ImageFolders, Layout, Options
from ernie_vil2.data.readers.locations import Location
from ernie_vil2.data.readers.tables import JsonTable
from ernie_vil2.data.samples import BadSample, Reason, Statement, check_text, is_blank

NO_GOLD_LABEL = "-"
LOOKED_AT = 100


@dataclass(frozen=True)
class StatementRow:
    """A row of the annotations; its images are not read yet.

    Attributes:
        id: as published.
        images: the image, or the left and the right one.
        text: what is said of them.
        label: whether it is so.
        group: rows of one sentence have one; "" where that is not asked.
        origins: of the images, in their order, as far as that is told otherwise than by their ids.
    """

    id: str
    images: tuple[BenchmarkImage, ...]
    text: str
    label: str
    group: str = ""
    origins: tuple[str, ...] = field(default=())


class StatementSource:
    """The rows of an annotation file, as samples.

    Args:
        kind: the data set, `snli-ve` or `nlvr2`.
        annotations: JSON lines.
        labels: those that a row can have; "-", on which the annotators did not agree, is a reason of its own.
        parse: a row, and its name for errors, to a `StatementRow`; BadSample if it has another form.

    Raises:
        ValueError: the file is empty.
    """

    def __init__(
        self, kind: str, annotations: Path, labels: tuple[str, ...], parse: Callable[[dict, str], StatementRow]
    ):
        self.kind, self.labels = kind, labels
        self.name, self.files = str(annotations), [annotations]
        self._table, self._parse = JsonTable(annotations), parse
        self.release = self._table.release

    def __len__(self) -> int:
        return len(self._table)

    def row(self, index: int) -> StatementRow:
        """A row without the bytes of its images; BadSample if it cannot be used."""
        place = self._table.row_name(index)
        row = self._parse(self._table.row(index), place)
        check_text(row.text, place)
        if is_blank(row.text):
            raise BadSample(Reason.EMPTY_TEXT, place)
        if row.label not in self.labels:
            raise BadSample(Reason.NO_GOLD_LABEL if row.label == NO_GOLD_LABEL else Reason.UNKNOWN_LABEL, place)
        return row

    def rows(self) -> Iterator[StatementRow | BadSample]:
        """All of them, in order; of one that cannot be used the reason."""
        for index in range(len(self)):
            try:
                yield self.row(index)
            except BadSample as bad:
                yield bad

    def __getitem__(self, index: int) -> Statement:
        row = self.row(index)
        left, *right = [image.read() for image in row.images]
        return Statement(
            row.images[0].id, row.id, left, {}, text=row.text, label=row.label, right=right[0] if right else None
        )

    def first_images(self) -> list[BenchmarkImage]:
        """Those of the first rows, of which one must be there."""
        rows = islice(self.rows(), LOOKED_AT)
        return [image for row in rows if isinstance(row, StatementRow) for image in row.images]


def open_statements(
    layout: Layout,
    labels: tuple[str, ...],
    parse: Callable[[ImageFolders, dict, str], StatementRow],
    place: Location,
    options: Options,
) -> StatementSource:
    """The statements of a layout's annotation file; `parse` is told where its images lie.

    Raises:
        FileNotFoundError: none of the images is found.
        ValueError: as `StatementSource`.
    """
    path = Path(place.name)
    folders = layout.images_of(path, options)
    source = StatementSource(layout.name, path, labels, partial(parse, folders))
    folders.require(source.first_images())
    return source


def text_of(row: dict[str, Any], key: str, place: str) -> str:
    """The text under a key of a row, without the spaces around it; BadSample if there is none."""
    value = row.get(key)
    if not isinstance(value, str):
        raise BadSample(Reason.NO_FIELD, f"{place}, {key}")
    return value.strip()
