"""Statements about images with a label each, as SNLI-VE and NLVR2 publish them: JSON lines next to folders of images.

SNLI-VE (arXiv 1901.06706) is about the images of Flickr30K, NLVR2 (arXiv 1811.00491) about two images in each row.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ernie_vil2.data.benchmark import BenchmarkImage
from ernie_vil2.data.readers.caption_benchmarks import FLICKR30K_FOLDERS
from ernie_vil2.data.readers.layout import ImageFolders, Layout, Precedence, find_file, find_split_files, order_splits
from ernie_vil2.data.readers.locations import Location
from ernie_vil2.data.readers.tables import JsonTable
from ernie_vil2.data.samples import BadSample, Reason, Statement, check_text, is_blank, is_id, parse_object
from ernie_vil2.data.source_files import read_numbered_lines
from ernie_vil2.data.spec import DataSpec

NO_GOLD_LABEL = "-"
LOOKED_AT = 100


@dataclass(frozen=True)
class StatementRow:
    """A row of the annotations; its images are not read yet.

    Attributes:
        id: as published.
        images: the image, or the left and the right one.
        text: the statement.
        label: whether it is so.
        group: rows of one sentence have one; "" where that is not asked.
        origins: of the images, in their order, where something other than their ids gives them.
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

    def read_row(self, index: int) -> StatementRow:
        """A row without the bytes of its images; BadSample if it cannot be used."""
        where = self._table.describe_row(index)
        row = self._parse(self._table.read_row(index), where)
        check_text(row.text, where)
        if is_blank(row.text):
            raise BadSample(Reason.EMPTY_TEXT, where)
        if row.label not in self.labels:
            raise BadSample(Reason.NO_GOLD_LABEL if row.label == NO_GOLD_LABEL else Reason.UNKNOWN_LABEL, where)
        return row

    def rows(self) -> Iterator[StatementRow | BadSample]:
        """All of them, in order; of one that cannot be used the reason."""
        for index in range(len(self)):
            try:
                yield self.read_row(index)
            except BadSample as bad:
                yield bad

    def __getitem__(self, index: int) -> Statement:
        row = self.read_row(index)
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
    location: Location,
    data: DataSpec,
) -> StatementSource:
    """The statements of a layout's annotation file; `parse` gets the folders of its images.

    Raises:
        FileNotFoundError: none of the images is found.
        ValueError: as `StatementSource`.
    """
    path = Path(location.name)
    folders = layout.find_image_folders(path, data)
    source = StatementSource(layout.name, path, labels, partial(parse, folders))
    folders.check_images(source.first_images())
    return source


def text_of(row: dict[str, Any], key: str, where: str) -> str:
    """The text under a key of a row, without the spaces around it; BadSample if there is none."""
    value = row.get(key)
    if not isinstance(value, str):
        raise BadSample(Reason.NO_FIELD, f"{where}, {key}")
    return value.strip()


SNLI_VE_LABELS = ("entailment", "neutral", "contradiction")
IMAGE_KEYS = ("Flikr30kID", "Flickr30K_ID")  # as distributed, and as the authors' generator writes it
SNLI_VE_FILES = {"test": "snli_ve_test.jsonl", "dev": "snli_ve_dev.jsonl", "train": "snli_ve_train.jsonl"}


def _snli_ve_row(folders: ImageFolders, row: dict, where: str) -> StatementRow:
    """The hypothesis alone is the text: the caption of the image, `sentence1`, would give the answer away."""
    image_id = next((row[key] for key in IMAGE_KEYS if row.get(key) is not None), None)
    if image_id is None or not is_id(image_id):
        raise BadSample(Reason.NO_IMAGE if image_id is None else Reason.MALFORMED_IMAGE_ID, where)
    image_id = str(image_id).removesuffix(".jpg")
    name = row.get("pairID", where)
    if not is_id(name):
        raise BadSample(Reason.NO_ID, where)
    image = folders.get_image(image_id, f"{image_id}.jpg")
    return StatementRow(str(name), (image,), text_of(row, "sentence2", where), text_of(row, "gold_label", where))


SNLI_VE: Layout = Layout(
    name="snli-ve",
    file_description=", ".join(SNLI_VE_FILES.values()),
    find=lambda folder: order_splits(
        {split: path for split, [path] in find_split_files(folder, SNLI_VE_FILES).items()}
    ),
    open=lambda location, data: open_statements(SNLI_VE, SNLI_VE_LABELS, _snli_ve_row, location, data),
    image_folders=FLICKR30K_FOLDERS,
    precedence=Precedence.BENCHMARK,
)


NLVR2_LABELS = ("False", "True")
NLVR2_SPLITS = ("test1", "test2", "dev", "train")
SUBSETS = ("balanced", "unbalanced")
_IDENTIFIER = re.compile(r"([^/\s]+-\d+-\d+)-(\d+)")  # split, set and pair; and the sentence


def _find_nlvr2(folder: Path) -> dict[str, list[Path]]:
    """The names of the files say little, so that one counts only if its first row is of this form."""
    found = {split: path for split in NLVR2_SPLITS if (path := find_file(folder, f"{split}.json", _is_nlvr2))}
    return order_splits(found)


def _is_nlvr2(path: Path) -> bool:
    try:
        where, line = next(read_numbered_lines(path))
        return {"sentence", "identifier", "label"} <= parse_object(line, where).keys()
    except (OSError, ValueError, StopIteration):
        return False


def _nlvr2_row(folders: ImageFolders, row: dict, where: str) -> StatementRow:
    identifier = text_of(row, "identifier", where)
    parts = _IDENTIFIER.fullmatch(identifier)
    if not parts:
        raise BadSample(Reason.NO_ID, f"{where}, identifier {identifier}")
    pair, sentence = parts.groups()
    images = tuple(_nlvr2_image(folders, f"{pair}-img{side}.png", row.get("directory"), where) for side in (0, 1))
    group = f"{pair.rpartition('-')[0]}-{sentence}"  # as the authors' metrics.py has it
    origins = tuple(url for key in ("left_url", "right_url") if isinstance(url := row.get(key), str))
    label = row.get("label")
    label = str(label) if isinstance(label, bool) else text_of(row, "label", where)
    return StatementRow(identifier, images, text_of(row, "sentence", where), label, group, origins)


def _nlvr2_image(folders: ImageFolders, file: str, directory: object, where: str) -> BenchmarkImage:
    """Images of train lie in sub-folders of 100 by name; those of others do not."""
    if directory is None:
        return folders.get_image(file, file)
    if not is_id(directory):
        raise BadSample(Reason.MALFORMED_ROW, f"{where}, directory")
    return folders.get_image(file, f"{directory}/{file}", file)


def published_subsets(annotations: Path) -> dict[str, frozenset[str]]:
    """The identifiers of the published subsets of a split that lie next to its file, as `balanced/balanced_dev.json`.
    ValueError if a file of them is damaged."""
    found = {}
    for name in SUBSETS:
        path = find_file(annotations.parent, f"{name}_{annotations.name}")
        if path:
            rows = (parse_object(line, where) for where, line in read_numbered_lines(path))
            found[name] = frozenset(text_of(row, "identifier", path.name) for row in rows)
    return found


NLVR2: Layout = Layout(
    name="nlvr2",
    file_description=f"{'.json, '.join(NLVR2_SPLITS)}.json",
    find=_find_nlvr2,
    open=lambda location, data: open_statements(NLVR2, NLVR2_LABELS, _nlvr2_row, location, data),
    image_folders=NLVR2_SPLITS,
    precedence=Precedence.BENCHMARK,
)
"""The folders of a split's images, alone or below `images/`."""
