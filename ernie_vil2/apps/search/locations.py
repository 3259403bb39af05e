"""Where the images of an index lie, and reading them from there.

A location is the path of an image file, or of a shard with the row of the image, when the image was indexed. The file
may have changed since, and the index may come from a stranger. So an image is served from its location only if the
operator has named a folder that holds it, and if its digest is that of the item.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from ernie_vil2.apps.search.collection import DamagedIndex, Item
from ernie_vil2.data.readers.locations import PIPE
from ernie_vil2.data.readers.opening import open_local
from ernie_vil2.data.samples import BadSample
from ernie_vil2.data.source_files import read_file
from ernie_vil2.io.files import is_count

# Locations stored for an item: the first ones of a run, then older ones. Each is a file that serving the image may have
# to read and compare.
MAX_LOCATIONS = 10
INDEX_FOLDER_PREFIX = "./"  # begins a stored path that is relative to the folder of the index itself


class Location(NamedTuple):
    """A position of an image in a source."""

    path: str  # of the image file or of the shard: as `Index.stored_path` writes it, or an address
    name: str  # of the image in its source
    row: int | None = None  # in the shard; None if the image is a file of its own


def compute_digest(content: bytes) -> bytes:
    """Return the digest by which the content of an item is recognised, 16 bytes."""
    return blake2b(content, digest_size=16).digest()


def parse_locations(item: Item) -> list[Location]:
    """Return the places where the content of an item was seen under its name; DamagedIndex if they are malformed."""
    locations = []
    try:
        for values in list(item.location)[:MAX_LOCATIONS]:
            locations.append(Location(*values))
    except TypeError:
        raise DamagedIndex(f"the location of {item.id} cannot be read") from None

    for path, name, row in locations:
        has_valid_row = row is None or is_count(row, 0)
        if not (isinstance(path, str) and isinstance(name, str) and has_valid_row):
            raise DamagedIndex(f"the location of {item.id} cannot be read")
    return locations


def pack_locations(locations: Sequence[Location]) -> list[list[Any]]:
    """Return locations as `Item.location` holds them: without the row if there is none."""
    packed: list[list[Any]] = []
    for location in locations:
        if location.row is None:
            packed.append([location.path, location.name])
        else:
            packed.append(list(location))
    return packed


def is_address(path: str) -> bool:
    """Return whether a source is an address or a command, and not a path of this machine."""
    return "://" in path or path.startswith(PIPE)


class OriginalImages:
    """Reads images where they lie, but only inside folders that the operator has allowed.

    Args:
        roots: the allowed folders; a path of the index is looked for in each of them.

    Raises:
        NotADirectoryError: a root is not a folder.
    """

    def __init__(self, roots: Sequence[str | Path]):
        for root in roots:
            if not os.path.isdir(root):  # noqa: PTH112  -- pathlib raises for names that are too long
                raise NotADirectoryError(f"{root} is not a folder; name one that holds the images (--root)")
        self._roots = [Path(os.path.realpath(root)) for root in roots]

    def read(self, item: Item) -> bytes | None:
        """Return the content of an item as it was indexed.

        Returns:
            None if no allowed folder holds it any more.

        Raises:
            DamagedIndex: the locations of the item are malformed.
        """
        for location in parse_locations(item):
            for path in self._find_allowed_paths(location.path):
                content = self._read_location(path, location.row)
                if content is not None and compute_digest(content) == item.digest:
                    return content
        return None

    def _find_allowed_paths(self, path: str) -> Iterator[Path]:
        for root in self._roots:
            with suppress(OSError, ValueError):
                # Links and `..` are resolved first: what counts is where they lead.
                resolved = Path(os.path.realpath(root / path))
                if resolved.exists() and any(resolved.is_relative_to(allowed) for allowed in self._roots):
                    yield resolved

    def _read_location(self, path: Path, row: int | None) -> bytes | None:
        """Return the bytes of a file, or of an image in a shard; None if they cannot be read."""
        with suppress(BadSample, OSError, ValueError, IndexError, ImportError):
            if row is None:
                return read_file(path)

            # An image in a shard; nothing is fetched from the network, and no command is run.
            source = open_local(path)
            shard, _ = source.locate(row)
            sample = source[row]
            # The shard is allowed, but a table or an archive can name files outside of the allowed folders.
            paths = [Path(sample.image_file)] if sample.image_file else source.shards[shard].files
            files: list[Path] = []
            for source_path in paths:
                if source_path.is_dir():
                    files.extend(source_path.rglob("*"))
                else:
                    files.append(source_path)
            if all(any(self._find_allowed_paths(str(file))) for file in files):
                return sample.image
        return None
