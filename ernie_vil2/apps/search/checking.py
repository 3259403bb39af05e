"""Check a whole index against its checksums; opening and searching check only what they touch."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from ernie_vil2.apps.search import integrity
from ernie_vil2.apps.search.collection import KINDS, DamagedIndex, are_unit_vectors
from ernie_vil2.apps.search.index_types import Exact, facts_path, index_type_folder, open_index_type, read_facts
from ernie_vil2.apps.search.items import FILE_NAME, hash_block, verify_record
from ernie_vil2.apps.search.local_collection import LocalCollection
from ernie_vil2.apps.search.store import FolderStore, is_folder
from ernie_vil2.io.files import sha256

MAX_FAULTS = 10  # faults of one kind that are reported; a failing disk can damage every item


@dataclass
class CheckResult:
    """The summary of an index, a line for each collection, and a line for each fault."""

    summary: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class _ExactCollection(LocalCollection):
    """Collection with exact search in place of its stored index type, whose damage would hide all other faults."""

    def _open_index_type(self, rows: np.ndarray) -> Exact:
        return Exact(rows)


def check_index(path: str | os.PathLike) -> CheckResult:
    """Check an index in a folder, which a writer may change meanwhile; FileNotFoundError if there is none."""
    if not is_folder(path):
        raise ValueError(f"{path}: Milvus checks its storage itself; name the folder of an index")
    result = CheckResult()
    try:
        store = FolderStore(Path(path), writable=False)
        for kind in KINDS:
            summary, faults = _check_collection(store, kind)
            # A writer may have compacted the collection while it was read; then the new one is checked.
            while (faults or not summary) and store.detect_replacement():
                summary, faults = _check_collection(store, kind)
            result.summary += summary
            result.faults += faults
    except DamagedIndex as error:
        result.faults.append(str(error))
        return result
    if not result.summary:
        result.summary.append(f"{path}: an empty index: there is neither a collection of images nor one of texts")
    return result


def _check_collection(store: FolderStore, kind: str) -> tuple[list[str], list[str]]:
    """Return the summary of a collection, no line if the index has none of this kind, and its faults."""
    faults: list[str] = []
    try:
        folder = store.find_folder(kind, store.metadata)
        if not folder.is_dir():
            return [], []
        collection = _ExactCollection(folder, store.metadata["width"])
        with collection.items.snapshot():
            collection.reopen()  # a writer may have added rows between opening and taking the snapshot
            # One kind of faults does not hide the others, and of each kind the first ones are enough.
            for find_faults in (_find_item_faults, _find_row_faults, _find_index_type_faults):
                faults.extend(islice(_continue_after_damage(find_faults, collection), MAX_FAULTS))
        size = f"{len(collection):,} items, {len(collection.rows):,} rows of width {collection.width}"
        collection.close()
    except DamagedIndex as error:
        size, faults = "not readable", [str(error)]
    verdict = "damaged" if faults else "no damage found"
    return [f"{kind}: {size}; {verdict}"], faults


def _continue_after_damage(
    find_faults: Callable[[_ExactCollection], Iterator[str]], collection: _ExactCollection
) -> Iterator[str]:
    """Yield faults; if the search for them cannot go on, that is the last one."""
    try:
        yield from find_faults(collection)
    except DamagedIndex as error:
        yield str(error)


def _find_item_faults(collection: _ExactCollection) -> Iterator[str]:
    items = collection.items
    path = items.folder / FILE_NAME
    for message in items.find_faults(MAX_FAULTS):
        yield f"{path}: {message}"

    yield from (f"{items.folder}/{fault}" for fault in items.find_word_faults())

    # SQLite has checked the structure of the file; the content is compared with the checksums.
    num_items = 0
    for record in items.iterate_records():
        num_items += 1
        try:
            verify_record(record, collection.rows)
        except DamagedIndex as error:
            yield f"{items.folder}/{error}"
    if num_items != len(collection):
        yield f"{path} has {num_items:,} of {len(collection):,} items"
    ((num_checksums,),) = items.select("count(*) FROM checksums")
    if num_checksums != num_items:
        yield f"{path} has {num_checksums:,} checksums of {num_items:,} items"


def _find_row_faults(collection: _ExactCollection) -> Iterator[str]:
    rows, path = collection.rows, collection.folder / "rows.f16"
    for block in integrity.split_rows(rows):
        is_unit = are_unit_vectors(rows[block.start : block.stop])
        if not is_unit.all():
            num_faults = len(is_unit) - is_unit.sum()
            yield f"{path}: {num_faults:,} of the rows {block.start:,} to {block[-1]:,} are not unit vectors"

    # The blocks must follow each other without a gap, from the first row to the last one.
    num_covered = 0
    for first, stop, checksum in collection.items.iterate("first, stop, sha256 FROM blocks ORDER BY first"):
        is_next_block = first == num_covered and isinstance(stop, int) and first < stop <= len(rows)
        if not is_next_block:
            break
        if hash_block(rows, range(first, stop)) != checksum:
            yield f"{path}: the rows {first:,} to {stop - 1:,} differ from their checksum"
        num_covered = stop
    if num_covered != len(rows):
        yield f"{collection.folder / FILE_NAME} has no checksum of the rows from {num_covered:,} on"


def _find_index_type_faults(collection: _ExactCollection) -> Iterator[str]:
    folder = index_type_folder(collection.folder)
    while True:
        facts_before = _read_bytes(facts_path(folder))
        try:
            fault = _check_index_type(folder, collection)
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            fault = str(error)
            if str(folder) not in fault:  # messages that name the folder need no prefix
                fault = f"{folder} cannot be read ({fault})"
        if fault is None:
            return
        # A writer may have replaced the index type while it was read; then the new one is checked.
        if _read_bytes(facts_path(folder)) == facts_before:
            advice = f"remove {folder} and build the index again"
            if advice not in fault:  # errors of reading the facts end with it already
                fault = f"{fault}; {advice}"
            yield fault
            return


def _read_bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _check_index_type(folder: Path, collection: _ExactCollection) -> str | None:
    """Return the fault of an index type, or None; raise if it cannot be read."""
    try:
        facts = read_facts(folder)
    except FileNotFoundError:
        return None  # never built
    if facts["rows"] > len(collection.rows):
        return f"{facts_path(folder)} covers {facts['rows']:,} rows, but there are {len(collection.rows):,}"
    path = folder / facts["file"] if "file" in facts else None
    if path and not path.is_file():
        return f"{path} is missing"
    # Opening compares only the header of the file with its checksum; then the whole file is read.
    open_index_type(collection.rows, folder)
    if path and facts.get("sha256") not in (None, sha256(path)):  # a user's own index type may have no checksum
        return f"{path} differs from its checksum"
    return None
