"""Which pairs of a source are trained on, and how often: the table of a curation, as `Data.select` takes it.

The table has one Parquet file for each shard of the data that it was made of, next to `curation.json`. Shards are
recognised by name, size and content, so that a selection serves parts of its data, in another folder too, and no other.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from ernie_vil2.data.readers import MAX_OPEN_SHARDS, ShardedSource
from ernie_vil2.data.readers.source import NUM_THREADS, fingerprint
from ernie_vil2.data.samples import Sample
from ernie_vil2.device.extras import require
from ernie_vil2.io.files import check_version, load_json

ABOUT = "curation.json"
TABLE = "table"  # folder of the Parquet files, one for each shard
VERSION = 1
CHUNK = 2**22  # rows of which draws are counted at once
T = TypeVar("T")


class ShardIdentity(NamedTuple):
    """What a shard is recognised by: the last part of its name, its samples, and the digest of its content in
    hexadecimal, empty for what would have to be fetched."""

    name: str
    samples: int
    content: str


def identities(source: ShardedSource) -> list[ShardIdentity]:
    """Of every shard; OSError if a file cannot be read."""
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        contents = threads.map(fingerprint, [shard.files for shard in source.shards])
        return [
            ShardIdentity(Path(shard.name).name, size, content.hex())
            for shard, size, content in zip(source.shards, source.shard_sizes.tolist(), contents, strict=True)
        ]


@dataclass(frozen=True)
class Selected:
    """The pairs of a source that may be drawn, in its order.

    numbers: `[N]` int64, of each in the source.
    shard_sizes: `[shards]` int64, how many of them each shard has.
    weights: `[N]` float64 above 0, the probability of being drawn in an epoch.
    ids: `[N]` uint64, what the draws of each follow from.
    """

    numbers: np.ndarray
    shard_sizes: np.ndarray
    weights: np.ndarray
    ids: np.ndarray

    @cached_property
    def digest(self) -> str:
        """Distinguishes it from other selections of the same data."""
        content = blake2b(digest_size=8)
        for array in (self.numbers, self.weights):
            content.update(np.ascontiguousarray(array).data)
        return content.hexdigest()

    def of_each(self, shards: Iterable[Sequence[T]], sizes: Sequence[int]) -> Iterator[list[T]]:
        """For each shard the values of its selected rows, of those of all its rows."""
        ends, first = np.cumsum(self.shard_sizes), 0
        for values, end, count, size in zip(shards, ends, self.shard_sizes, sizes, strict=True):
            yield [values[row] for row in (self.numbers[end - count : end] - first).tolist()]
            first += size


def read_selection(folder: str | Path, source: ShardedSource) -> Selected:
    """What a curation has selected of a source.

    Args:
        folder: output of `ernie-vil2 curate`.
        source: all or some of the shards that were curated, in any order.

    Raises:
        FileNotFoundError: it is not the output of a curation, or of one that has not ended.
        ValueError: the table was not made of these data, it is damaged, or nothing of the data was kept.
    """
    require("Data.select", "pyarrow")
    folder = Path(folder)
    if not (folder / ABOUT).is_file():
        raise FileNotFoundError(f"{folder}: there is no {ABOUT}; name the output of a whole run of ernie-vil2 curate")
    about = load_json(folder / ABOUT, most=2**28)
    check_version(about.get("version") if isinstance(about, dict) else None, VERSION, folder / ABOUT, "curate again")
    known: dict[ShardIdentity, list[str]] = defaultdict(list)
    for shard in about["shards"]:
        known[ShardIdentity(shard["name"], shard["samples"], shard["content"])].append(shard["file"])
    rows, weights, ids, first = [], [], [], 0
    for identity in identities(source):
        files = known.get(identity)
        if not files:
            raise ValueError(_unknown(folder, identity, known))
        # Of equal shards, which only the order distinguishes, the first is taken first.
        found = _read_part(folder / TABLE / (files.pop(0) if len(files) > 1 else files[0]), identity.samples)
        rows.append(found[0] + first)
        weights.append(found[1])
        ids.append(found[2])
        first += identity.samples
    selected = Selected(
        np.concatenate(rows),
        np.array(list(map(len, rows)), np.int64),
        np.concatenate(weights),
        np.concatenate(ids),
    )
    if not len(selected.numbers):
        raise ValueError(f"{folder}: nothing of {source.shards[0].name} was kept; look at its page for the reasons")
    return selected


class SelectedSamples:
    """The pairs of a source that were kept, in its order, for what takes a source; weights do not matter to it.

    Args, Raises: as `read_selection`.
    """

    def __init__(self, folder: str | Path, source: ShardedSource):
        self._source, self._selected = source, read_selection(folder, source)

    def __len__(self) -> int:
        return len(self._selected.numbers)

    def __getitem__(self, index: int) -> Sample:
        return self._source[int(self._selected.numbers[index])]

    @property
    def contents(self) -> list[str]:
        """As of `ShardedSource`, and the selection's digest."""
        return [*self._source.contents, f"selection {self._selected.digest}"]


def _unknown(folder: Path, wanted: ShardIdentity, known: Iterable[ShardIdentity]) -> str:
    alike = next((one for one in known if one.name == wanted.name), None)
    was = (
        f"it had {alike.samples:,} samples of content {alike.content or 'unknown'} then, "
        f"and has {wanted.samples:,} of {wanted.content or 'unknown'} now"
        if alike
        else f"it was made of {', '.join([one.name for one in known][:3])}, ..."
    )
    return f"{folder} was not made of {wanted.name}: {was}. Curate these data, or leave out Data.select"


def _read_part(path: Path, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(path, columns=["row", "weight", "id"])
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a part of a curation's table ({error}); curate again") from None
    if len(table) != samples:
        raise ValueError(f"{path}: {len(table):,} rows for {samples:,} samples; curate again")
    weights = table["weight"].to_numpy()
    drawn = np.flatnonzero(weights > 0)
    ids = table["id"].fill_null(0).to_numpy().astype(np.uint64)
    return table["row"].to_numpy().astype(np.int64)[drawn], weights[drawn].astype(np.float64), ids[drawn]


class Draws:
    """Which rows of a source are in an epoch, where each has a probability: a function of seed, epoch and its id.

    Args:
        weights, ids: of the rows, as of `Selected`.
        shard_sizes: rows of each shard.
        seed: the run's.
        source: number of the source, so that equal sources are drawn differently.

    Attributes:
        expected: rows of an epoch, on average.
        sizes: of an epoch, for each shard the number of its rows in it.
        rows: of an epoch and a shard, its rows that are in the epoch, counted within the shard.
    """

    def __init__(self, weights: np.ndarray, ids: np.ndarray, shard_sizes: np.ndarray, seed: int, source: int = 0):
        self._bounds = np.minimum(weights * 2.0**64, 2.0**64 - 2048).astype(np.uint64)  # floats end there
        self._always = weights >= 1
        self._ids = ids
        self.expected = float(weights.sum())
        self._ends = np.cumsum(shard_sizes)
        self._starts = self._ends - shard_sizes
        self._key = seed, source
        self.sizes = lru_cache(maxsize=4)(self._sizes)
        self.rows = lru_cache(maxsize=MAX_OPEN_SHARDS)(self._rows)

    def drawn(self, epoch: int, first: int, last: int) -> np.ndarray:
        """For the rows from `first` up to `last` whether they are in an epoch, bool."""
        number = 0
        for part in (*self._key, epoch):
            number = int(_mixed(np.array([number ^ part & 0xFFFFFFFFFFFFFFFF], np.uint64))[0])
        draw = _mixed(self._ids[first:last] ^ np.uint64(number))
        return self._always[first:last] | (draw < self._bounds[first:last])

    def _sizes(self, epoch: int) -> np.ndarray:
        before = np.zeros(len(self._ids) + 1, np.int64)
        for first in range(0, len(self._ids), CHUNK):
            last = min(first + CHUNK, len(self._ids))
            before[first + 1 : last + 1] = before[first] + np.cumsum(self.drawn(epoch, first, last))
        return before[self._ends] - before[self._starts]

    def _rows(self, epoch: int, shard: int) -> np.ndarray:
        return np.flatnonzero(self.drawn(epoch, int(self._starts[shard]), int(self._ends[shard])))


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele et al. 2014): every bit of a uint64 depends on all bits of it."""
    with np.errstate(over="ignore"):
        numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
        numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return numbers ^ (numbers >> np.uint64(31))
