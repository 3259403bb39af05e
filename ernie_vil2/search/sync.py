"""An index is kept up to date with its sources: what is new is added, what changed refreshed, what is gone removed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from ernie_vil2.search.collection import Item
from ernie_vil2.search.fill import THUMBNAIL, Filled, Rehearsal, add_images, add_texts, build, pictures, texts_in
from ernie_vil2.search.index import Index
from ernie_vil2.search.index_types import Exact
from ernie_vil2.search.locations import is_address, locations_of

REMOVED_TOGETHER = 2048


@dataclass
class Synced:
    """What came of it: what was filled, and how many items were removed."""

    filled: Filled
    removed: int

    def __str__(self) -> str:
        return f"{self.removed:,} removed (gone from the sources), {self.filled}"


def sync_images(
    index: Index,
    data: Sequence[str],
    thumbnails: int = THUMBNAIL,
    dry_run: bool = False,
    table: Mapping[str, Any] | None = None,
) -> Synced:
    """Brings the images of sources up to date.

    Removed are items that were in these sources only, and are there no more. An item whose file or shard can at present
    not be read stays, as do items of other sources and those that were added without one.

    Args:
        data: folders and sources, as for `pictures`; a folder must hold at least one image.
        thumbnails: as for `add_images`.
        dry_run: whether only to find out what would be done.
        table: as for `pictures`; its folder of images belongs to the sources.
    """
    found = pictures(data, table)
    collection = index.collection("images")
    filled = add_images(index, found, thumbnails, Rehearsal(collection) if dry_run else None)
    scope = [one if is_address(one) else os.path.abspath(one) for one in [*data, (table or {}).get("images")] if one]
    gone: list[str] = []
    moved: list[Item] = []
    for item in collection.every():
        locations = locations_of(item)
        left = [
            one
            for one in locations
            if (item.id, one.path) in filled.seen
            or one.path in filled.unreadable
            or not _within(index.absolute_path(one.path), scope)
        ]
        if len(left) < len(locations):
            if left:
                moved.append(replace(item, location=[list(one if one.row is not None else one[:2]) for one in left]))
            else:
                gone.append(item.id)
    if dry_run:
        return Synced(filled, len(gone))
    collection.update(moved)
    return Synced(filled, _remove(collection.remove, gone))


def sync_texts(index: Index, files: Iterable[str], dry_run: bool = False) -> Synced:
    """Makes the texts of an index those of files."""
    collection = index.collection("texts")
    lines = [line for file in files for line in texts_in(file)]
    filled = add_texts(index, lines, Rehearsal(collection) if dry_run else None)
    gone = [item.id for item in collection.every() if (item.id, "") not in filled.seen]
    return Synced(filled, len(gone) if dry_run else _remove(collection.remove, gone))


def rebuild_if_needed(index: Index, kind: str, above: float, log: Callable[[str], None] = print) -> bool:
    """Reports the share of rows that the index type does not cover, and builds it again where that, or the share of
    rows that are gone, is above a bound.
    """
    collection = index.collection(kind)
    share, facts = collection.uncovered(), collection.index_type
    if share:
        log(f"{kind}: {100 * share:.1f} % of the rows are not covered by the index type and searched one by one")
    if max(share, collection.gone()) <= above:
        return False
    name = facts["name"]
    build(index, kind, None if name == Exact.name else name, facts.get("wanted_recall", 0.98), log, above)
    return True


def _within(path: str, scope: Iterable[str]) -> bool:
    return any(path == one or path.startswith(f"{one.rstrip('/')}/") or fnmatchcase(path, one) for one in scope)


def _remove(remove: Callable[[Sequence[str]], int], ids: Sequence[str]) -> int:
    parts = (ids[start : start + REMOVED_TOGETHER] for start in range(0, len(ids), REMOVED_TOGETHER))
    return sum(map(remove, parts))
