"""Where samples lie, a kind of source a file; docs/data.md shows each on disk."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from ernie_vil2.data.sources.fetching import shows_progress
from ernie_vil2.data.sources.kinds import open_shard, shards_at
from ernie_vil2.data.sources.patterns import find
from ernie_vil2.data.sources.prepared import PreparedCounts
from ernie_vil2.data.sources.source import HELD_SHARDS, THREADS, Shard, Source, Sources
from ernie_vil2.data.sources.tar import TarSource
from ernie_vil2.data.sources.tsv import TsvSource

__all__ = ["HELD_SHARDS", "Shard", "Source", "Sources", "TarSource", "TsvSource", "open_sources"]


def open_sources(patterns: Iterable[str], text_id: str | None = None) -> Sources:
    """The samples of all files that the patterns name, in the order given, sorted within a pattern.

    A shard of `tools/prepare_data.py` is as long as the `index.json` beside it says, if it has the size in bytes that
    this names. Every other shard is scanned, once: what the scan found is kept in the cache folder if it took long.

    Args:
        patterns: as `patterns.find` takes them: paths with braces and `*`, addresses, `pipe:` commands, lists.
        text_id: JSON field of a tar sample that names its text; None: the caption itself is its name.

    Raises:
        FileNotFoundError: a pattern names no file.
        ValueError: a file is of no kind that is known, or it is unreadable or empty.
        OSError: a file cannot be fetched.
    """
    places = [place for pattern in patterns for found in find(pattern) for place in shards_at(found)]
    if not places:
        raise ValueError("no data given: set Data.train (and Data.val) to tar shards or another source (docs/data.md)")
    samples = PreparedCounts()
    with ThreadPoolExecutor(THREADS) as threads:
        shards = threads.map(lambda place: open_shard(place, text_id, samples(place)), places)
        quiet = not shows_progress()
        return Sources(list(tqdm(shards, "shards", len(places), unit="shard", delay=2, file=sys.stdout, disable=quiet)))
