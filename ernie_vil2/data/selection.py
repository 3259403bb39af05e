"""The pairs of a source that are trained on, and how often, as a curation has decided (`Data.select`).

A curation's table has one Parquet file for each shard of the data that were curated, next to `curation.json`. Shards
are recognised by name, size and content, so that a selection also serves some of its data, or its data in another
folder, but no other data.
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
TABLE = "table"  # folder of the Parquet files
VERSION = 1  # of the format
CHUNK = 2**22  # rows whose draws are counted at a time, which bounds the memory
T = TypeVar("T")


class ShardIdentity(NamedTuple):
    """The properties by which a shard is recognised.

    name: last component of its name.
    samples: number of samples.
    content: hexadecimal digest of its content; empty for a shard that would have to be fetched.
    """

    name: str
    samples: int
    content: str


def identify_shards(source: ShardedSource) -> list[ShardIdentity]:
    """Return the identity of every shard; OSError if a file cannot be read."""
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        digests = threads.map(fingerprint, [shard.files for shard in source.shards])
        identities = []
        for shard, size, digest in zip(source.shards, source.shard_sizes.tolist(), digests, strict=True):
            identities.append(ShardIdentity(Path(shard.name).name, size, digest.hex()))
    return identities


@dataclass(frozen=True)
class Selection:
    """The N pairs of a source that may be drawn, in the source's order.

    Attributes:
        numbers: `[N]` int64, number of each pair in the source.
        shard_sizes: `[shards]` int64, number of pairs of each shard.
        weights: `[N]` float64 above 0, probability of being drawn in an epoch.
        ids: `[N]` uint64, numbers from which the draws of each pair follow.
    """

    numbers: np.ndarray
    shard_sizes: np.ndarray
    weights: np.ndarray
    ids: np.ndarray

    @cached_property
    def digest(self) -> str:
        """Digest that distinguishes this selection from others of the same data."""
        content = blake2b(digest_size=8)
        for array in (self.numbers, self.weights):
            content.update(np.ascontiguousarray(array).data)
        return content.hexdigest()

    def filter_rows(self, shards: Iterable[Sequence[T]], sizes: Sequence[int]) -> Iterator[list[T]]:
        """Yield for each shard the values of its selected rows.

        Args:
            shards: for each shard the values of all its rows.
            sizes: number of rows of each shard.
        """
        start = 0  # of the shard's pairs in `numbers`
        first_row = 0  # of the shard in the source
        for values, count, size in zip(shards, self.shard_sizes.tolist(), sizes, strict=True):
            rows = self.numbers[start : start + count] - first_row
            yield [values[row] for row in rows.tolist()]
            start += count
            first_row += size


def read_selection(folder: str | Path, source: ShardedSource) -> Selection:
    """Read what a curation has selected from a source.

    Args:
        folder: output of `ernie-vil2 curate`.
        source: all or some of the shards that were curated, in any order.

    Raises:
        FileNotFoundError: the folder is not the output of a finished curation.
        ValueError: the table is of other data, it is damaged, or no pair of the source was selected.
    """
    require("Data.select", "pyarrow")
    folder = Path(folder)

    # Find the tables of the shards by what the shards are.
    if not (folder / ABOUT).is_file():
        raise FileNotFoundError(f"{folder}: there is no {ABOUT}; name the output of a whole run of ernie-vil2 curate")
    about = load_json(folder / ABOUT, max_characters=2**28)
    check_version(about.get("version") if isinstance(about, dict) else None, VERSION, folder / ABOUT, "curate again")
    files_of_shards: dict[ShardIdentity, list[str]] = defaultdict(list)
    for shard in about["shards"]:
        identity = ShardIdentity(shard["name"], shard["samples"], shard["content"])
        files_of_shards[identity].append(shard["file"])

    # Read the tables in the order of the source's shards.
    numbers, weights, ids = [], [], []
    first_row = 0
    for identity in identify_shards(source):
        files = files_of_shards.get(identity)
        if not files:
            raise ValueError(_explain_unknown_shard(folder, identity, files_of_shards))
        # Identical shards can be told apart only by their order, so their files are used in order.
        file = files.pop(0) if len(files) > 1 else files[0]
        rows, shard_weights, shard_ids = _read_table(folder / TABLE / file, identity.samples)
        numbers.append(rows + first_row)
        weights.append(shard_weights)
        ids.append(shard_ids)
        first_row += identity.samples

    shard_sizes = np.array([len(rows) for rows in numbers], np.int64)
    selection = Selection(np.concatenate(numbers), shard_sizes, np.concatenate(weights), np.concatenate(ids))
    if not len(selection.numbers):
        raise ValueError(f"{folder}: nothing of {source.shards[0].name} was kept; look at its page for the reasons")
    return selection


class SelectedSamples:
    """The selected pairs of a source as a sequence of samples, in the source's order; weights are ignored.

    Args, Raises: as `read_selection`.
    """

    def __init__(self, folder: str | Path, source: ShardedSource):
        self._source, self._selection = source, read_selection(folder, source)

    def __len__(self) -> int:
        return len(self._selection.numbers)

    def __getitem__(self, index: int) -> Sample:
        return self._source[int(self._selection.numbers[index])]

    @property
    def contents(self) -> list[str]:
        """The source's `contents`, and the digest of the selection."""
        return [*self._source.contents, f"selection {self._selection.digest}"]


def _explain_unknown_shard(folder: Path, shard: ShardIdentity, curated_shards: Iterable[ShardIdentity]) -> str:
    namesake = next((curated for curated in curated_shards if curated.name == shard.name), None)
    if namesake:
        difference = (
            f"it had {namesake.samples:,} samples of content {namesake.content or 'unknown'} then, "
            f"and has {shard.samples:,} of {shard.content or 'unknown'} now"
        )
    else:
        names = [curated.name for curated in curated_shards]
        difference = f"it was made of {', '.join(names[:3])}, ..."
    return f"{folder} was not made of {shard.name}: {difference}. Curate these data, or leave out Data.select"


def _read_table(path: Path, num_samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, weight and id of the pairs of a shard whose weight is not zero."""
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(path, columns=["row", "weight", "id"])
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a part of a curation's table ({error}); curate again") from None
    if len(table) != num_samples:
        raise ValueError(f"{path}: {len(table):,} rows for {num_samples:,} samples; curate again")
    weights = table["weight"].to_numpy()
    selected = np.flatnonzero(weights > 0)
    ids = table["id"].fill_null(0).to_numpy().astype(np.uint64)
    return table["row"].to_numpy().astype(np.int64)[selected], weights[selected].astype(np.float64), ids[selected]


class WeightedDraws:
    """The rows of a source that are in an epoch, where each has a probability.

    Whether a row is drawn is a function of the seed, the epoch and the row's id.

    Args:
        weights: of the rows, as in `Selection`.
        ids: of the rows, as in `Selection`.
        shard_sizes: number of rows of each shard.
        seed: the run's seed.
        source: number of the source, so that equal sources are drawn differently.

    Attributes:
        expected: mean number of rows of an epoch.
        sizes: function of an epoch to the number of drawn rows of each shard.
        rows: function of an epoch and a shard to its drawn rows, counted within the shard.
    """

    def __init__(self, weights: np.ndarray, ids: np.ndarray, shard_sizes: np.ndarray, seed: int, source: int = 0):
        # A row is drawn if its random uint64 is below its weight times 2^64. The largest float64 below 2^64 is
        # 2^64 - 2048, so rows of weight 1 are marked separately.
        self._bounds = np.minimum(weights * 2.0**64, 2.0**64 - 2048).astype(np.uint64)
        self._is_certain = weights >= 1
        self._ids = ids
        self.expected = float(weights.sum())
        self._ends = np.cumsum(shard_sizes)
        self._starts = self._ends - shard_sizes
        self._key = seed, source
        self.sizes = lru_cache(maxsize=4)(self._count_rows)
        self.rows = lru_cache(maxsize=MAX_OPEN_SHARDS)(self._find_rows)

    def are_drawn(self, epoch: int, first: int, last: int) -> np.ndarray:
        """Return for the rows from `first` to `last`, without `last`, whether they are in an epoch, bool."""
        # Seed, source and epoch become one number, which is combined with each id.
        epoch_key = 0
        for number in (*self._key, epoch):
            mixed = _mix_bits(np.array([epoch_key ^ number & 0xFFFFFFFFFFFFFFFF], np.uint64))
            epoch_key = int(mixed[0])
        random_numbers = _mix_bits(self._ids[first:last] ^ np.uint64(epoch_key))
        return self._is_certain[first:last] | (random_numbers < self._bounds[first:last])

    def _count_rows(self, epoch: int) -> np.ndarray:
        # Entry i counts the drawn rows before row i, so that a shard's count is a difference of two entries.
        drawn_before = np.zeros(len(self._ids) + 1, np.int64)
        for first in range(0, len(self._ids), CHUNK):
            last = min(first + CHUNK, len(self._ids))
            drawn_before[first + 1 : last + 1] = drawn_before[first] + np.cumsum(self.are_drawn(epoch, first, last))
        return drawn_before[self._ends] - drawn_before[self._starts]

    def _find_rows(self, epoch: int, shard: int) -> np.ndarray:
        return np.flatnonzero(self.are_drawn(epoch, int(self._starts[shard]), int(self._ends[shard])))


def _mix_bits(numbers: np.ndarray) -> np.ndarray:
    """Apply SplitMix64's finaliser (Steele et al. 2014), after which every bit depends on all bits of a uint64."""
    with np.errstate(over="ignore"):
        numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
        numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return numbers ^ (numbers >> np.uint64(31))
