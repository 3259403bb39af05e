"""NLVR2 (arXiv 1811.00491) as published: JSON lines for each split, and two images for each row."""

from __future__ import annotations

import re
from pathlib import Path

from ernie_vil2.data.annotation_files import numbered_lines
from ernie_vil2.data.readers.layout import ImageFolders, Layout, find_file, in_order
from ernie_vil2.data.samples import BadSample, Reason, as_object, is_id
from ernie_vil2.data.statements import StatementRow, open_statements, text_of

LABELS = ("False", "True")
SPLITS = ("test1", "test2", "dev", "train")
SUBSETS = ("balanced", "unbalanced")
_IDENTIFIER = re.compile(r"([^/\s]+-\d+-\d+)-(\d+)")  # split, set and pair; and the sentence


def _find(folder: Path) -> dict[str, list[Path]]:
    """The names of the files say little, so that one counts only if its first row is of this form."""
    found = {split: path for split in SPLITS if (path := find_file(folder, f"{split}.json", _is_nlvr2))}
    return in_order(found)


def _is_nlvr2(path: Path) -> bool:
    try:
        place, line = next(numbered_lines(path))
        return {"sentence", "identifier", "label"} <= as_object(line, place).keys()
    except (OSError, ValueError, StopIteration):
        return False


def _row(folders: ImageFolders, row: dict, place: str) -> StatementRow:
    identifier = text_of(row, "identifier", place)
    parts = _IDENTIFIER.fullmatch(identifier)
    if not parts:
        raise BadSample(Reason.NO_ID, f"{place}, identifier {identifier}")
    pair, sentence = parts.groups()
    images = tuple(_image(folders, f"{pair}-img{side}.png", row.get("directory"), place) for side in (0, 1))
    group = f"{pair.rpartition('-')[0]}-{sentence}"  # as the authors' metrics.py has it
    origins = tuple(url for key in ("left_url", "right_url") if isinstance(url := row.get(key), str))
    label = row.get("label")
    label = str(label) if isinstance(label, bool) else text_of(row, "label", place)
    return StatementRow(identifier, images, text_of(row, "sentence", place), label, group, origins)


def _image(folders: ImageFolders, file: str, directory: object, place: str):
    """Images of train lie in sub-folders of 100 by name; those of others do not."""
    if directory is None:
        return folders.image(file, file)
    if not is_id(directory):
        raise BadSample(Reason.MALFORMED_ROW, f"{place}, directory")
    return folders.image(file, f"{directory}/{file}", file)


def subsets_beside(annotations: Path) -> dict[str, frozenset[str]]:
    """The identifiers of the published subsets of a split that lie beside its file, as `balanced/balanced_dev.json`.

    Raises:
        ValueError: a file of them is damaged.
    """
    found = {}
    for name in SUBSETS:
        path = find_file(annotations.parent, f"{name}_{annotations.name}")
        if path:
            rows = (as_object(line, place) for place, line in numbered_lines(path))
            found[name] = frozenset(text_of(row, "identifier", path.name) for row in rows)
    return found


NLVR2 = Layout(
    name="nlvr2",
    files=f"{'.json, '.join(SPLITS)}.json",
    find=_find,
    open=lambda place, options: open_statements(NLVR2, LABELS, _row, place, options),
    image_folders=SPLITS,
)
"""The folders of a split's images, alone or below `images/`."""
