"""Where samples lie: tar shards (WebDataset layout) and the official TSV. docs/data.md shows each on disk."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from ernie_vil2.data.sources.source import HELD_SHARDS, Shard, Source, Sources
from ernie_vil2.data.sources.tar import TarSource
from ernie_vil2.data.sources.tsv import TsvSource

__all__ = ["HELD_SHARDS", "Shard", "Source", "Sources", "TarSource", "TsvSource", "open_sources"]

THREADS = 8  # that find the lengths of the shards; it is waiting for the disk, mostly


def open_sources(patterns: Iterable[str], text_id: str | None = None) -> Sources:
    """The samples of all files that the patterns name, in the order given, sorted within a pattern.

    Every shard is scanned for its length, once: what the scan found is kept in the cache folder if it took long.

    Raises:
        FileNotFoundError: a pattern names no file.
        ValueError: a file is neither `.tar` nor `.tsv`, or it is unreadable or empty.
    """
    paths: list[str] = []
    for pattern in patterns:
        matches = sorted(glob.glob(pattern))
        if not matches:
            raise FileNotFoundError(f"no file matches {pattern}; check Data.train, Data.val or --data")
        paths += matches
    if not paths:
        raise ValueError("no data given: set Data.train (and Data.val) to .tar or .tsv files")
    with ThreadPoolExecutor(THREADS) as threads:
        shards = threads.map(lambda path: _open(path, text_id), paths)
        other_rank = os.environ.get("PADDLE_TRAINER_ID", "0") != "0"
        return Sources(
            list(tqdm(shards, "shards", len(paths), unit="shard", delay=2, file=sys.stdout, disable=other_rank))
        )


def _open(path: str, text_id: str | None) -> Shard:
    if path.endswith(".tar"):
        return TarSource(path, text_id)
    if path.endswith(".tsv"):
        return TsvSource(path)
    raise ValueError(f"{path}: a source is a .tar shard or an official .tsv file")
