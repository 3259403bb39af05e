"""Where the images of an index lie: how an index says it, and what of that is believed.

A location is the path of an image file, or of a shard with the image's row, as it was when the index was filled. The
file may be another one by now and the index may be a stranger's. So an image is served from its location only if the
operator has named a folder that holds it, and if its digest is that of the item.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from ernie_vil2.apps.search.collection import DamagedIndex, Item
from ernie_vil2.data.readers.locations import PIPE
from ernie_vil2.data.readers.opening import open_local
from ernie_vil2.data.samples import BadSample
from ernie_vil2.data.source_files import read_file
from ernie_vil2.io.files import is_count

MOST_LOCATIONS = 10  # of an item: the first that were found
OWN = "./"


class Location(NamedTuple):
    """An image in a source."""

    path: str  # of the image file or of the shard: relative to the root of the index (`Index.kept_path`), or an address
    name: str  # of the image in its source
    row: int | None = None  # of the shard; None of an image in a file of its own


def content_digest(content: bytes) -> bytes:
    """The digest of an item."""
    return blake2b(content, digest_size=16).digest()


def locations_of(item: Item) -> list[Location]:
    """The locations of an item, in each of which the content has been seen under the item's name; or DamagedIndex."""
    try:
        found = [Location(*location) for location in list(item.location)[:MOST_LOCATIONS]]
    except TypeError:
        found = [Location("", "", -1)]
    for path, name, row in found:
        if not (isinstance(path, str) and isinstance(name, str) and (row is None or is_count(row, 0))):
            raise DamagedIndex(f"the location of {item.id} cannot be read")
    return found


def is_address(path: str) -> bool:
    """Whether a source is not a path of this machine."""
    return "://" in path or path.startswith(PIPE)


class Originals:
    """The images of an index where they lie, in folders that an operator allows, and nowhere else.

    A path of the index is looked for in each of these. NotADirectoryError if one is not a folder.
    """

    def __init__(self, roots: Sequence[str | Path]):
        for root in roots:
            if not os.path.isdir(root):  # noqa: PTH112  -- Path raises where this says no
                raise NotADirectoryError(f"{root}: not a folder; name one that holds the images (--root)")
        self._roots = [Path(os.path.realpath(root)) for root in roots]

    def read(self, item: Item) -> bytes | None:
        """The content of an item as it was indexed; None if it is not there any more, or not in an allowed folder.

        DamagedIndex as of `locations_of`.
        """
        for location in locations_of(item):
            for path in self._allowed(location.path):
                content = self._content(path, location.row)
                if content is not None and content_digest(content) == item.digest:
                    return content
        return None

    def _allowed(self, path: str) -> Iterator[Path]:
        """The files that a path may mean; links and `..` are followed before it is judged where they lead."""
        for root in self._roots:
            with suppress(OSError, ValueError):
                found = Path(os.path.realpath(root / path))
                if found.exists() and any(found.is_relative_to(one) for one in self._roots):
                    yield found

    def _content(self, path: Path, row: int | None) -> bytes | None:
        with suppress(BadSample, OSError, ValueError, IndexError, ImportError):
            if row is None:
                return read_file(path)
            source = open_local(path)
            shard, _ = source.locate(row)
            sample = source[row]
            read = [Path(sample.image_file)] if sample.image_file else source.shards[shard].files
            files = [file for one in read for file in (one.rglob("*") if one.is_dir() else [one])]
            if all(any(self._allowed(str(file))) for file in files):
                return sample.image
        return None
