"""The index that `tools/prepare_data.py` leaves beside its shards."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from ernie_vil2.data.rows import read_json
from ernie_vil2.data.sources.locations import LocalFile, Location

INDEX = "index.json"


class PreparedCounts:
    """How many samples a shard holds, as the index beside it says; each index is read once."""

    def __init__(self):
        self._of_folder = cache(_shards)

    def __call__(self, place: Location) -> int | None:
        """None: there is no index, it does not name the shard, or the shard is of another size than it says."""
        if not isinstance(place, LocalFile):
            return None
        path = Path(place.name)
        samples, size = self._of_folder(path.parent).get(path.name, (None, None))
        return samples if samples and os.path.getsize(path) == size else None


def _shards(folder: Path) -> dict[str, tuple[int, int]]:
    """Samples and bytes by name; nothing where there is no such index: then the shards are scanned."""
    try:
        index = read_json(folder / INDEX, dict)
        return {shard["name"]: (int(shard["samples"]), int(shard["bytes"])) for shard in index["shards"]}
    except (OSError, ValueError, TypeError, KeyError):
        return {}
