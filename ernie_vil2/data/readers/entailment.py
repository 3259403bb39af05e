"""Labelled statements about images, as SNLI-VE and NLVR2 publish them: JSON lines next to folders of images.

A statement of SNLI-VE (arXiv 1901.06706) is about an image of Flickr30K, one of NLVR2 (arXiv 1811.00491) about a left
and a right image.
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
from ernie_vil2.data.readers.layout import (
    ImageFolders,
    Layout,
    Precedence,
    find_file,
    find_split_files,
    order_splits,
)
from ernie_vil2.data.readers.locations import Location
from ernie_vil2.data.readers.tables import JsonTable
from ernie_vil2.data.samples import BadSample, Reason, Statement, check_text, is_blank, is_id, parse_object
from ernie_vil2.data.source_files import read_numbered_lines
from ernie_vil2.data.spec import DataSpec

NO_GOLD_LABEL = "-"  # label of a statement on which the annotators did not agree
NUM_CHECKED_ROWS = 100  # at least one of the first rows must have its image; single images may be missing


@dataclass(frozen=True)
class StatementRow:
    """A row of the annotations, without the bytes of its images.

    Attributes:
        id: published id of the row.
        images: the image, or the left and the right one.
        text: the statement.
        label: what the statement is to the images, for example `entailment` or `False`.
        group: rows about the same sentence have the same group; "" if the data set has no groups.
        origins: addresses of the images in their order, if the data set has them.
    """

    id: str
    images: tuple[BenchmarkImage, ...]
    text: str
    label: str
    group: str = ""
    origins: tuple[str, ...] = field(default=())


class StatementSource:
    """Rows of an annotation file as samples.

    Args:
        kind: the data set, `snli-ve` or `nlvr2`.
        annotations: JSON lines.
        labels: labels that a row can have.
        parse: makes a `StatementRow` of a row and its name for errors; raises BadSample if the row is malformed.

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
        """Return a row without the bytes of its images; raise BadSample if it cannot be used."""
        where = self._table.describe_row(index)
        row = self._parse(self._table.read_row(index), where)
        check_text(row.text, where)
        if is_blank(row.text):
            raise BadSample(Reason.EMPTY_TEXT, where)
        if row.label not in self.labels:
            raise BadSample(Reason.NO_GOLD_LABEL if row.label == NO_GOLD_LABEL else Reason.UNKNOWN_LABEL, where)
        return row

    def read_rows(self) -> Iterator[StatementRow | BadSample]:
        """Yield all rows in order, with the error in place of a row that cannot be used."""
        for index in range(len(self)):
            try:
                yield self.read_row(index)
            except BadSample as error:
                yield error

    def __getitem__(self, index: int) -> Statement:
        row = self.read_row(index)
        contents = [image.read() for image in row.images]
        right = contents[1] if len(contents) > 1 else None
        return Statement(row.images[0].id, row.id, contents[0], {}, text=row.text, label=row.label, right=right)

    def list_first_images(self) -> list[BenchmarkImage]:
        """Return the images of the first rows; at least one of them must exist."""
        images: list[BenchmarkImage] = []
        for row in islice(self.read_rows(), NUM_CHECKED_ROWS):
            if isinstance(row, StatementRow):
                images += row.images
        return images


def _open_statements(
    layout: Layout,
    labels: tuple[str, ...],
    parse: Callable[[ImageFolders, dict, str], StatementRow],
    location: Location,
    data: DataSpec,
) -> StatementSource:
    """Open the statements in an annotation file; raise FileNotFoundError if none of the first images exists."""
    path = Path(location.name)
    folders = layout.find_image_folders(path, data)
    source = StatementSource(layout.name, path, labels, partial(parse, folders))
    folders.check_images(source.list_first_images())
    return source


def _get_text(row: dict[str, Any], key: str, where: str) -> str:
    text = row.get(key)
    if not isinstance(text, str):
        raise BadSample(Reason.NO_FIELD, f"{where}, {key}")
    return text.strip()


# ---- SNLI-VE ----

SNLI_VE_LABELS = ("entailment", "neutral", "contradiction")
SNLI_VE_IMAGE_KEYS = ("Flikr30kID", "Flickr30K_ID")  # in the published files, and as the authors' generator writes it
SNLI_VE_FILES = {"test": "snli_ve_test.jsonl", "dev": "snli_ve_dev.jsonl", "train": "snli_ve_train.jsonl"}


def _find_snli_ve(folder: Path) -> dict[str, list[Path]]:
    files = find_split_files(folder, SNLI_VE_FILES)
    return order_splits({split: paths[0] for split, paths in files.items()})


def _parse_snli_ve(folders: ImageFolders, row: dict, where: str) -> StatementRow:
    image_id = next((row[key] for key in SNLI_VE_IMAGE_KEYS if row.get(key) is not None), None)
    if image_id is None:
        raise BadSample(Reason.NO_IMAGE, where)
    if not is_id(image_id):
        raise BadSample(Reason.MALFORMED_IMAGE_ID, where)
    image_id = str(image_id).removesuffix(".jpg")
    name = row.get("pairID", where)
    if not is_id(name):
        raise BadSample(Reason.NO_ID, where)
    image = folders.get_image(image_id, f"{image_id}.jpg")
    # The text is the hypothesis alone. The premise, `sentence1`, is a caption of the image and would reveal the label.
    text = _get_text(row, "sentence2", where)
    return StatementRow(str(name), (image,), text, _get_text(row, "gold_label", where))


SNLI_VE: Layout = Layout(
    name="snli-ve",
    file_description=", ".join(SNLI_VE_FILES.values()),
    find=_find_snli_ve,
    open=lambda location, data: _open_statements(SNLI_VE, SNLI_VE_LABELS, _parse_snli_ve, location, data),
    image_folders=FLICKR30K_FOLDERS,
    precedence=Precedence.BENCHMARK,
)

# ---- NLVR2 ----

NLVR2_LABELS = ("False", "True")
NLVR2_SPLITS = ("test1", "test2", "dev", "train")
NLVR2_SUBSETS = ("balanced", "unbalanced")
_IDENTIFIER = re.compile(r"([^/\s]+-\d+-\d+)-(\d+)")  # split, set and pair of images; and the sentence


def _find_nlvr2(folder: Path) -> dict[str, list[Path]]:
    # The names of the files are common ones, so the first row has to be of NLVR2.
    splits: dict[str, Path] = {}
    for split in NLVR2_SPLITS:
        path = find_file(folder, f"{split}.json", _is_nlvr2)
        if path:
            splits[split] = path
    return order_splits(splits)


def _is_nlvr2(path: Path) -> bool:
    try:
        where, line = next(read_numbered_lines(path))
        return {"sentence", "identifier", "label"} <= parse_object(line, where).keys()
    except (OSError, ValueError, StopIteration):
        return False


def _parse_nlvr2(folders: ImageFolders, row: dict, where: str) -> StatementRow:
    identifier = _get_text(row, "identifier", where)
    match = _IDENTIFIER.fullmatch(identifier)
    if not match:
        raise BadSample(Reason.NO_ID, f"{where}, identifier {identifier}")
    pair, sentence = match.groups()
    directory = row.get("directory")
    left_image = _get_nlvr2_image(folders, f"{pair}-img0.png", directory, where)
    right_image = _get_nlvr2_image(folders, f"{pair}-img1.png", directory, where)
    # The authors' metrics.py groups the statements of a sentence in the same way.
    group = f"{pair.rpartition('-')[0]}-{sentence}"
    origins: list[str] = []
    for key in ("left_url", "right_url"):
        if isinstance(row.get(key), str):
            origins.append(row[key])
    # A label is a text, or a truth value of JSON.
    label = row.get("label")
    label = str(label) if isinstance(label, bool) else _get_text(row, "label", where)
    text = _get_text(row, "sentence", where)
    return StatementRow(identifier, (left_image, right_image), text, label, group, tuple(origins))


def _get_nlvr2_image(folders: ImageFolders, file: str, directory: object, where: str) -> BenchmarkImage:
    """Return an image; the images of the train split lie in numbered sub-folders, which the row names."""
    if directory is None:
        return folders.get_image(file, file)
    if not is_id(directory):
        raise BadSample(Reason.MALFORMED_ROW, f"{where}, directory")
    return folders.get_image(file, f"{directory}/{file}", file)


def read_nlvr2_subsets(annotations: Path) -> dict[str, frozenset[str]]:
    """Return the identifiers in the published subsets of a split, such as `balanced/balanced_dev.json`.

    Args:
        annotations: annotation file of the split, next to which the subsets are searched.

    Raises:
        ValueError: the file of a subset is damaged.
    """
    identifiers_by_subset: dict[str, frozenset[str]] = {}
    for name in NLVR2_SUBSETS:
        path = find_file(annotations.parent, f"{name}_{annotations.name}")
        if path is None:
            continue
        identifiers: set[str] = set()
        for where, line in read_numbered_lines(path):
            identifiers.add(_get_text(parse_object(line, where), "identifier", path.name))
        identifiers_by_subset[name] = frozenset(identifiers)
    return identifiers_by_subset


NLVR2: Layout = Layout(
    name="nlvr2",
    file_description=f"{'.json, '.join(NLVR2_SPLITS)}.json",
    find=_find_nlvr2,
    open=lambda location, data: _open_statements(NLVR2, NLVR2_LABELS, _parse_nlvr2, location, data),
    image_folders=NLVR2_SPLITS,  # each split has its folder, alone or in `images/`
    precedence=Precedence.BENCHMARK,
)
