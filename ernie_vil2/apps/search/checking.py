"""Reads all of an index and compares it with its checksums, which opening and searching do for what they touch."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from ernie_vil2.apps.search import integrity
from ernie_vil2.apps.search.collection import SIDES, DamagedIndex, are_unit
from ernie_vil2.apps.search.index_types import Exact, open_index_type
from ernie_vil2.apps.search.items import NAME, block_checksum, verified
from ernie_vil2.apps.search.local import LocalCollection
from ernie_vil2.apps.search.store import FolderStore, is_folder
from ernie_vil2.io.files import sha256

SHOWN = 10  # faults of one kind that are named


@dataclass
class Checked:
    """What there is, in one line for each collection, and what is wrong with it."""

    summary: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


class _Collection(LocalCollection):
    """A collection of which the index type is opened separately, so that damage of it hides no other."""

    def _open_index_type(self, rows: np.ndarray) -> Exact:
        return Exact(rows)


def check_index(path: str | os.PathLike) -> Checked:
    """Checks an index in a folder, FileNotFoundError if there is none; a writer may go on meanwhile."""
    if not is_folder(path):
        raise ValueError(f"{path}: Milvus checks what it stores itself; name the folder of an index")
    checked = Checked()
    try:
        store = FolderStore(Path(path), writable=False)
    except DamagedIndex as error:
        checked.damage.append(str(error))
        return checked
    for kind in SIDES:
        if (folder := store.folder_of(kind)).is_dir():
            _check_collection(folder, kind, store.about["width"], checked)
    if not checked.summary:
        checked.summary.append(f"{path}: an empty index: there is neither a collection of images nor one of texts")
    return checked


def _check_collection(folder: Path, kind: str, width: int, checked: Checked) -> None:
    try:
        collection = _Collection(folder, width)
        with collection.items.snapshot():
            collection.reopen()
            found = [
                fault
                for faults in (_of_items(collection), _of_rows(collection), _of_index_type(collection))
                for fault in islice(_printable(faults), SHOWN)
            ]
        about = f"{len(collection):,} items, {len(collection.rows):,} rows of width {width}"
        collection.close()
    except DamagedIndex as error:
        about, found = "not readable", [str(error)]
    checked.summary.append(f"{kind}: {about}; {'damaged' if found else 'no damage found'}")
    checked.damage += found


def _printable(faults: Iterable[str]) -> Iterator[str]:
    """Faults, the last of which may be that no more can be read."""
    try:
        yield from faults
    except DamagedIndex as error:
        yield str(error)


def _of_items(collection: _Collection) -> Iterator[str]:
    items = collection.items
    path = items.folder / NAME
    for (message,) in items.integrity_check(SHOWN):
        yield f"{path}: {message}"
    count = 0
    for record in items.records():
        count += 1
        try:
            verified(record, collection.rows)
        except DamagedIndex as error:
            yield f"{items.folder}/{error}"
    if count != len(collection):
        yield f"{path} has {count:,} of {len(collection):,} items"
    ((sums,),) = items.select("count(*) FROM checksums")
    if sums != count:
        yield f"{path} has {sums:,} checksums of {count:,} items"


def _of_rows(collection: _Collection) -> Iterator[str]:
    rows, path = collection.rows, collection.folder / "rows.f16"
    for part in integrity.parts_of(rows):
        if not (unit := are_unit(rows[part.start : part.stop])).all():
            yield f"{path}: {len(unit) - unit.sum():,} of the rows {part.start:,} to {part[-1]:,} are not unit vectors"
    covered = 0
    for first, stop, checksum in collection.items.every("first, stop, sha256 FROM blocks ORDER BY first"):
        if first != covered or not isinstance(stop, int) or not first < stop <= len(rows):
            break
        if block_checksum(rows, range(first, stop)) != checksum:
            yield f"{path}: the rows {first:,} to {stop - 1:,} differ from their checksum"
        covered = stop
    if covered != len(rows):
        yield f"{collection.folder / NAME} has no checksum of the rows from {covered:,} on"


def _of_index_type(collection: _Collection) -> Iterator[str]:
    """A writer may replace the index type while it is read."""
    while True:
        folder = integrity.index_type_in(collection.folder)
        before = _content(folder)
        try:
            found = _fault(folder, collection)
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            found = str(error) if str(folder) in str(error) else f"{folder} cannot be read ({error})"
        if found is None:
            return
        if _content(folder) == before:
            advice = f"remove {folder} and build the index again"
            yield found if advice in found else f"{found}; {advice}"
            return


def _content(folder: Path) -> bytes | None:
    path = integrity.facts_in(folder)
    return path.read_bytes() if path.is_file() else None


def _fault(folder: Path, collection: _Collection) -> str | None:
    try:
        facts = integrity.read_facts(folder)
    except FileNotFoundError:
        return None  # never built
    written = integrity.facts_in(folder)
    if facts["rows"] > len(collection.rows):
        return f"{written} is of {facts['rows']:,} rows, of {len(collection.rows):,}"
    path = folder / facts["file"] if "file" in facts else None
    if path and not path.is_file():
        return f"{path} is missing"
    open_index_type(collection.rows, folder)
    if path and facts.get("sha256") not in (None, sha256(path)):  # a user's own type may give none
        return f"{path} differs from its checksum"
    return None
