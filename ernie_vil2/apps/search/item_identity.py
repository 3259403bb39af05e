"""Decide which images an index has already, and which ids new ones get.

An image is recognised by its name in its source and by its content. The first image of a name gets the name as its id;
a different image of the same name, from another source, gets the name with a prefix of its digest. An item keeps its
id, with one exception: if another image has replaced its image at its only location, the new image takes over the
location and the id.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from types import MappingProxyType
from typing import Any, NamedTuple

from ernie_vil2.apps.search.collection import EditableItems, Item
from ernie_vil2.apps.search.locations import (
    MAX_LOCATIONS,
    Location,
    compute_digest,
    pack_locations,
    parse_locations,
)


class ImageRecord(NamedTuple):
    """The data of an image that was read from a source."""

    name: str  # in its source
    content: bytes  # of the image file
    fields: Mapping[str, Any]  # captions, tags and other values that the source has for it
    path: str  # absolute path of the image file or of the shard, or an address
    row: int | None = None  # in the shard; None if the image is a file of its own
    has_only_name: bool = False  # the source has no captions or fields, so the item keeps those in the index
    extra_fields: Mapping[str, Any] = MappingProxyType({})  # added to the fields that the item gets or keeps


class SourceImage(NamedTuple):
    """An image of a source that has not been read yet."""

    name: str  # for messages
    load: Callable[[], ImageRecord]  # raises BadSample if the image cannot be read
    path: str  # as in `ImageRecord`


@dataclass
class CatalogueChanges:
    """The changes of a collection that some images require."""

    new_items: dict[str, tuple[Item, bytes]] = field(default_factory=dict)  # by id, with the content to encode
    replacing_ids: set[str] = field(default_factory=set)  # ids that new items take over from replaced images
    updated_items: dict[str, Item] = field(default_factory=dict)  # by id, with new fields or locations
    deferred: list[SourceImage] = field(default_factory=list)  # to be decided when all sources have been read
    num_refreshed: int = 0  # images that the collection had already, but with other fields
    num_unchanged: int = 0  # images that the collection had already, with the same fields


class Catalogue:
    """Compares images with the items of a collection.

    Args:
        collection: the items.
        stored_path: `Index.stored_path`, which turns a path into the form that the index stores.

    Attributes:
        seen_locations: pairs of an item's id and a path where its image was seen.
    """

    def __init__(self, collection: EditableItems, stored_path: Callable[[str], str]):
        self._collection, self._stored_path = collection, stored_path
        self.seen_locations: set[tuple[str, str]] = set()
        self._described_ids: set[str] = set()  # items whose fields a source of this run has set
        self._contested_paths: dict[str, list[str]] = {}  # by id, paths where another image of that name was seen

    def compare(self, images: Sequence[tuple[SourceImage, ImageRecord]], is_last_pass: bool) -> CatalogueChanges:
        """Return the changes that images require.

        If a new image has the name of an item from the same source, it may have replaced this item, or the source may
        hold two images of that name. Only when all sources have been read is this known, so such images are deferred
        until the last pass.

        Args:
            images: each with its record.
            is_last_pass: whether all sources have been read and `images` are those that were deferred.
        """
        # `groups` and `taken_ids` include the changes of this batch, because it may hold two images of the same name.
        changes = CatalogueChanges()
        items_of_names = self._collection.find_by_name({record.name for _, record in images})
        taken_ids: set[str] = set()
        groups: dict[str, dict[str, Item]] = {}  # by name, the items whose image has it, by id
        for name, items in items_of_names.items():
            taken_ids.update(item.id for item in items)
            groups[name] = {item.id: item for item in items if _image_name(item) == name}

        for image, record in images:
            group = groups[record.name]
            digest = compute_digest(record.content)
            location = Location(self._stored_path(record.path), record.name, record.row)
            known_item = next((item for item in group.values() if item.digest == digest), None)
            # Items with other images of the same name at this path. The new image has replaced them, or they are still
            # in the same shard.
            rivals = []
            for item in group.values():
                if item is not known_item and self._was_at(item, location.path):
                    rivals.append(item)
            if known_item is None and rivals and not is_last_pass:
                changes.deferred.append(image)
                continue
            for rival in rivals:
                self._contested_paths.setdefault(rival.id, []).append(location.path)

            if known_item is None:
                # A rival without a location is gone, and the new image takes over its id.
                item_id = next((rival.id for rival in rivals if not self._remaining_locations(rival)), None)
                if item_id is not None:
                    changes.replacing_ids.add(item_id)
                    changes.updated_items.pop(item_id, None)
                else:
                    item_id = next(free_id for free_id in _propose_ids(record.name, digest) if free_id not in taken_ids)
                fields = {**record.fields, **record.extra_fields}
                item = Item(item_id, digest, fields, pack_locations([location]))
                changes.new_items[item.id] = item, record.content
            else:
                item = self._update_item(known_item, record, location)
                if item.fields != known_item.fields:
                    changes.num_refreshed += 1
                else:
                    changes.num_unchanged += 1
                if item.id in changes.new_items:  # its first location is in the same batch of images
                    changes.new_items[item.id] = item, record.content
                elif item != known_item:
                    changes.updated_items[item.id] = item

            # The next images of this batch are compared with this item, too.
            group[item.id] = item
            taken_ids.add(item.id)
            self.seen_locations.add((item.id, location.path))
            if not record.has_only_name:
                self._described_ids.add(item.id)
        return changes

    def finish(self) -> tuple[list[Item], list[str]]:
        """Return the items that lost a location to another image, and the ids of those that lost their last one."""
        updated_items, vanished_ids = [], []
        for item_id in self._contested_paths:
            item = self._collection.get(item_id)
            if item is None:
                continue
            remaining = self._remaining_locations(item)
            if remaining == parse_locations(item):
                continue
            if remaining:
                updated_items.append(replace(item, location=pack_locations(remaining)))
            else:
                vanished_ids.append(item_id)
        return updated_items, vanished_ids

    def _update_item(self, item: Item, record: ImageRecord, location: Location) -> Item:
        """Return an item with its current location, the fields of this run's first source with any, and extra ones."""
        # By path, so that a source that is read again does not add its locations again.
        locations: dict[str, Location] = {}
        for previous in parse_locations(item):
            # An old way to write the same path is dropped in favour of the current one.
            if previous.path == location.path or not self._is_at(previous, location.path):
                locations[previous.path] = previous
        locations[location.path] = location

        fields = record.fields
        if record.has_only_name or item.id in self._described_ids:
            fields = item.fields
        fields = {**fields, **record.extra_fields}
        paths = list(locations)
        if len(paths) > MAX_LOCATIONS:
            # Those that this run has not seen are dropped first: the image may have moved from there.
            paths.sort(key=lambda path: path != location.path and (item.id, path) not in self.seen_locations)
        first_locations = [locations[path] for path in paths[:MAX_LOCATIONS]]
        return replace(item, fields=fields, location=pack_locations(first_locations))

    def _remaining_locations(self, item: Item) -> list[Location]:
        """Return the locations of an item, except those where this run has seen only another image of its name."""
        # A path counts as lost if this run has seen another image of the name there, and not the image of the item.
        lost_paths = []
        for path in self._contested_paths.get(item.id, ()):
            if (item.id, path) not in self.seen_locations:
                lost_paths.append(path)
        remaining = []
        for location in parse_locations(item):
            if not any(self._is_at(location, path) for path in lost_paths):
                remaining.append(location)
        return remaining

    def _was_at(self, item: Item, path: str) -> bool:
        return any(self._is_at(location, path) for location in parse_locations(item))

    def _is_at(self, location: Location, path: str) -> bool:
        # The root of the index may have changed since the location was stored.
        return self._stored_path(location.path) == path


def _image_name(item: Item) -> str:
    """Return the name of an item's image in its sources."""
    locations = parse_locations(item)
    return locations[0].name if locations else item.id


def _propose_ids(name: str, digest: bytes) -> Iterator[str]:
    """Yield ids for an image, the preferred one first; `find_by_name` finds all of them by the name."""
    yield name
    prefix = digest.hex()[:8]
    yield f"{name} ({prefix})"
    for number in count(2):
        yield f"{name} ({prefix}, {number})"
