"""The index that `tools/prepare_data.py` leaves beside its shards."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from ernie_vil2.data.annotation_files import read_json
from ernie_vil2.data.readers.locations import FetchError, LocalFile, Location, RemoteFile, asked, fetch
from ernie_vil2.data.samples import MAX_BYTES

INDEX = "index.json"


class _Entry(NamedTuple):
    samples: int
    bytes: int
    checksum: str


class PreparedShards:
    """What the index beside a shard says of it; each index is read once, also one at an address."""

    def __init__(self):
        self._of_folder = cache(_in_folder)
        self._of_address: dict[str, dict[str, _Entry]] = {}

    def __call__(self, place: Location) -> tuple[Location, int | None]:
        """The shard, one at an address with its size and checksum, and how many samples it holds.

        The samples are None where there is no index, it does not name the shard, or a shard that is here is of another
        size than it says.

        Raises:
            FetchError: a server does not say whether there is an index.
        """
        if isinstance(place, LocalFile):
            path = Path(place.name)
            entry = self._of_folder(path.parent).get(path.name)
            return place, entry.samples if entry and os.path.getsize(path) == entry.bytes else None
        if isinstance(place, RemoteFile):
            address, *query = place.name.split("?", 1)
            folder, _, name = address.rpartition("/")
            index = "?".join([f"{folder}/{INDEX}", *query])
            if name.endswith(".tar") and index not in self._of_address:
                self._of_address[index] = _at_address(index, asked_for=place.name)
            if entry := self._of_address.get(index, {}).get(name):
                return RemoteFile(place.name, entry.bytes, entry.checksum), entry.samples
        return place, None


def _in_folder(folder: Path) -> dict[str, _Entry]:
    """The shards by name; nothing where there is no such index: then the shards are scanned."""
    if not os.path.exists(folder / INDEX):
        return {}
    try:
        index = read_json(folder / INDEX, dict)
        found = {
            shard["name"]: _Entry(int(shard["samples"]), int(shard["bytes"]), str(shard["sha256"]))
            for shard in index["shards"]
        }
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return {name: entry for name, entry in found.items() if entry.samples}


def _at_address(address: str, asked_for: str) -> dict[str, _Entry]:
    """As `_in_folder`; errors name the address that a person has `asked_for`."""
    with TemporaryDirectory() as folder:
        try:
            asked(asked_for, lambda: fetch(address, Path(folder, INDEX), MAX_BYTES))
        except ValueError:
            pass  # no such address can be opened, as whoever opens the shard will say
        except FetchError as error:
            if not error.lasting:
                raise
        return _in_folder(Path(folder))
