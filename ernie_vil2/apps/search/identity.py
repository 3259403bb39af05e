"""Which images an index has already, and what the others are called.

An image is known by its name in its source and by its content. The first of a name has the name as its id; a different
image of this name, from another source, gets an id of its own: the name with a part of its digest. An item keeps its
id. Only where the image at its one location has become another does that one take its location and its id.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, NamedTuple

from ernie_vil2.apps.search.collection import Changeable, Item
from ernie_vil2.apps.search.locations import MOST_LOCATIONS, Location, content_digest, locations_of


class Read(NamedTuple):
    """An image as it was read."""

    name: str  # in its source
    content: bytes  # the file
    fields: Mapping[str, Any]  # what its source says of it
    path: str  # of the image file or of the shard, as it is found from here; an address
    row: int | None = None  # of the shard; None of an image in a file of its own
    bare: bool = False  # whether the source knows nothing of it but its file, so that what is known stays


class FoundImage(NamedTuple):
    """An image to be indexed: `read` gives what is known of it, or raises BadSample; `path` as of `Read`."""

    name: str
    read: Callable[[], Read]
    path: str


@dataclass
class Sorted:
    """The changes that images need."""

    new: dict[str, tuple[Item, bytes]] = field(default_factory=dict)  # items to be encoded, with their content, by id
    replacing: set[str] = field(default_factory=set)  # ids of new items that are those of others, whose images are gone
    changed: dict[str, Item] = field(default_factory=dict)  # items that are there, with new fields or locations, by id
    later: list[FoundImage] = field(default_factory=list)  # what can only be decided when all sources have been read
    refreshed: int = 0  # images that are there with other fields
    unchanged: int = 0  # images that are there with the same fields


class Catalogue:
    """Sorts images by what a collection holds.

    Where an image has the name of another one that was in the same source, the other has either become this one, or
    there are two of the name. That shows when all sources have been read: a new image is put off until then.

    `kept` makes of a path what the index keeps, as `Index.kept_path`.
    """

    def __init__(self, collection: Changeable, kept: Callable[[str], str]):
        self._collection, self._kept = collection, kept
        self.seen: set[tuple[str, str]] = set()  # id of an item and path where it is
        self._described: set[str] = set()  # ids of items whose fields were given
        self._doubtful: dict[str, list[str]] = {}  # by id of an item, paths where another one of its name is

    def sort(self, read: Sequence[tuple[FoundImage, Read]], last: bool) -> Sorted:
        """What becomes of images, each with what was read of it; `last` of those that were put off."""
        found = Sorted()
        there = self._collection.named({one.name for _, one in read})
        taken = {item.id for items in there.values() for item in items}
        groups = {name: {item.id: item for item in items if _name(item) == name} for name, items in there.items()}
        for image, one in read:
            group, digest = groups[one.name], content_digest(one.content)
            location = Location(self._kept(one.path), one.name, one.row)
            known = next((item for item in group.values() if item.digest == digest), None)
            rivals = [item for item in group.values() if item is not known and self._was_at(item, location.path)]
            if known is None and rivals and not last:
                found.later.append(image)
                continue
            for rival in rivals:
                self._doubtful.setdefault(rival.id, []).append(location.path)
            if known is None:
                freed = next((rival.id for rival in rivals if not self._left(rival)), None)
                if freed:
                    found.replacing.add(freed)
                    found.changed.pop(freed, None)
                free = freed or next(name for name in _ids(one.name, digest) if name not in taken)
                item = Item(free, digest, one.fields, listed([location]))
                found.new[item.id] = item, one.content
            else:
                item = self._again(known, one, location)
                if item.fields != known.fields:
                    found.refreshed += 1
                else:
                    found.unchanged += 1
                if item.id in found.new:
                    found.new[item.id] = item, one.content
                elif item != known:
                    found.changed[item.id] = item
            group[item.id] = item
            taken.add(item.id)
            self.seen.add((item.id, location.path))
            if not one.bare:
                self._described.add(item.id)
        return found

    def finish(self) -> tuple[list[Item], list[str]]:
        """Items that have lost a location to another image, and the ids of those that have lost the last one."""
        changed, gone = [], []
        for one in self._doubtful:
            item = self._collection.get(one)
            if item is not None and (left := self._left(item)) != locations_of(item):
                if left:
                    changed.append(replace(item, location=listed(left)))
                else:
                    gone.append(one)
        return changed, gone

    def _again(self, known: Item, one: Read, location: Location) -> Item:
        """A known item with its present location and fields; in one filling the first to name them counts."""
        path = location.path
        there = (other for other in locations_of(known) if other.path == path or not self._is_at(other, path))
        locations = {other.path: other for other in there} | {location.path: location}
        keeps = one.bare or known.id in self._described
        return replace(
            known,
            fields=known.fields if keeps else one.fields,
            location=listed(list(locations.values())[:MOST_LOCATIONS]),
        )

    def _left(self, item: Item) -> list[Location]:
        """The locations of an item but for those where another one of its name is, and it is not."""
        lost = [path for path in self._doubtful.get(item.id, ()) if (item.id, path) not in self.seen]
        return [location for location in locations_of(item) if not any(self._is_at(location, path) for path in lost)]

    def _was_at(self, item: Item, path: str) -> bool:
        return any(self._is_at(location, path) for location in locations_of(item))

    def _is_at(self, location: Location, path: str) -> bool:
        """Return whether a location is at a path, as the index keeps both under its present root."""
        return self._kept(location.path) == path


def _name(item: Item) -> str:
    """The name of an item's image in its sources."""
    return next((location.name for location in locations_of(item)), item.id)


def _ids(name: str, digest: bytes) -> Iterator[str]:
    """Ids for an image, the best first; `Collection.named` finds them by the name."""
    yield name
    yield f"{name} ({digest.hex()[:8]})"
    yield from (f"{name} ({digest.hex()[:8]}, {number})" for number in count(2))


def listed(locations: Sequence[Location]) -> list[list[Any]]:
    """Locations as an item has them."""
    return [list(location if location.row is not None else location[:2]) for location in locations]
