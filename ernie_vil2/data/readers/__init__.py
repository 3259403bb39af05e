"""Where samples and benchmarks lie, by layout; docs/data.md and docs/benchmarks.md show each on disk."""

from ernie_vil2.data.readers.opening import LAYOUTS, open_benchmark, open_benchmarks, open_sources
from ernie_vil2.data.readers.source import MAX_OPEN_SHARDS, Shard, ShardedSource
from ernie_vil2.data.readers.tsv import TsvSource
from ernie_vil2.data.readers.webdataset import TarSource

__all__ = [
    "LAYOUTS",
    "MAX_OPEN_SHARDS",
    "Shard",
    "ShardedSource",
    "TarSource",
    "TsvSource",
    "open_benchmark",
    "open_benchmarks",
    "open_sources",
]
