"""The pairs of a source that are trained on, and how often, as a curation has decided (`Data.select`).

A curation's table has one Parquet file for each shard of the data that were curated, next to `curation.json`. Shards
are recognised by name, size and content, so that a selection also serves some of its data, or its data in another
folder, but no other data. Of a table, the same columns must be read.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from ernie_vil2.data.readers import MAX_OPEN_SHARDS, ShardedSource
from ernie_vil2.data.readers.source import NUM_THREADS, Shard, ShardPart, fingerprint
from ernie_vil2.data.readers.tables import TableSource
from ernie_vil2.data.samples import Sample
from ernie_vil2.device.extras import require
from ernie_vil2.io.files import check_version, load_json
from ernie_vil2.io.terminal import make_printable

if TYPE_CHECKING:
    import pyarrow as pa

ABOUT = "curation.json"
TABLE = "table"  # folder of the Parquet files
VERSION = 1  # of the format
CUT_CAPTIONS = "cut_captions"
CHUNK = 2**22  # rows whose draws are counted at a time, which bounds the memory
T = TypeVar("T")


class ShardIdentity(NamedTuple):
    """The properties by which a shard is recognised.

    Attributes:
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


def describe_shards(source: ShardedSource, identities: Sequence[ShardIdentity]) -> list[dict[str, Any]]:
    """Return the identity of every shard as `curation.json` holds it; of a table with its `pair_columns`.

    A shard without a digest also has its address.
    """
    descriptions = []
    for shard, identity in zip(source.shards, identities, strict=True):
        description = identity._asdict()
        if not identity.content:
            description["address"] = shard.name
        if isinstance(shard, TableSource):
            description["columns"] = shard.pair_columns
        descriptions.append(description)
    return descriptions


@dataclass(frozen=True)
class Selection:
    """The N pairs of a source that may be drawn, in the source's order.

    Attributes:
        numbers: `[N]` int64, number of each pair in the source.
        shard_sizes: `[shards]` int64, number of pairs of each shard.
        weights: `[N]` float64 above 0, probability of being drawn in an epoch; 1 and more: always.
        ids: `[N]` uint64, numbers from which the draws of each pair follow.
        cut_numbers: `[M]` int64, ascending: numbers of the pairs of whose captions something was cut off.
        cut_captions: `[M]` lists of the captions of each of these, in the order of its fields.
    """

    numbers: np.ndarray
    shard_sizes: np.ndarray
    weights: np.ndarray
    ids: np.ndarray
    cut_numbers: np.ndarray
    cut_captions: "pa.ChunkedArray"

    @cached_property
    def digest(self) -> str:
        """Digest that distinguishes this selection from others of the same data."""
        content = blake2b(digest_size=8)
        # A pair of weight 1 is in every epoch, whatever its id.
        for array in (self.numbers, self.weights, self.ids[self.weights < 1], self.cut_numbers):
            content.update(np.ascontiguousarray(array).data)
        for captions in self.cut_captions:
            content.update(json.dumps(captions.as_py()).encode())
        return content.hexdigest()

    def edit(self, number: int, sample: Sample) -> Sample:
        """Return a sample, by its number in the source, with its captions as the curation has cut them.

        Raises:
            ValueError: the sample has another number of captions than when it was curated.
        """
        position = int(np.searchsorted(self.cut_numbers, number))
        if position == len(self.cut_numbers) or self.cut_numbers[position] != number:
            return sample
        cut_captions = self.cut_captions[position].as_py()
        languages = list(sample.readable_captions())
        if len(languages) != len(cut_captions):
            raise ValueError(
                f"{sample.image_name}: Data.select was made with {len(cut_captions)} captions of this pair, and it has "
                f"{len(languages)}; read the data with the same columns, or curate again"
            )
        captions = dict(sample.captions) | dict(zip(languages, cut_captions, strict=True))
        # A text without an id is known by the captions.
        text_name = sample.text_name
        if text_name == "\n".join(sample.captions.values()):
            text_name = "\n".join(captions.values())
        return replace(sample, captions=captions, text_name=text_name)

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
        ValueError: the table is of other data or of other columns of them, it is damaged, no pair of the source was
            selected, or the source is a part of a division.
    """
    require("Data.select", "pyarrow")
    import pyarrow as pa

    folder = Path(folder)
    if any(isinstance(shard, ShardPart) for shard in source.shards):
        raise ValueError(
            "Data.select names pairs of whole shards, which Data.holdout divides: write the selected pairs with "
            "tools/prepare.py --select and train on its output, or leave out one of the two"
        )

    # Find the tables of the shards by what the shards are.
    if not (folder / ABOUT).is_file():
        raise FileNotFoundError(f"{folder}: there is no {ABOUT}; name the output of a whole run of ernie-vil2 curate")
    about = load_json(folder / ABOUT, max_characters=2**28)
    check_version(about.get("version") if isinstance(about, dict) else None, VERSION, folder / ABOUT, "curate again")
    curated_shards: dict[ShardIdentity, list[_CuratedShard]] = defaultdict(list)
    try:
        for entry in about["shards"]:
            identity = ShardIdentity(entry["name"], entry["samples"], entry["content"])
            curated = _CuratedShard(folder / TABLE / entry["file"], entry.get("columns"), str(entry.get("address", "")))
            curated_shards[identity].append(curated)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / ABOUT}: not as a curation writes it ({error!r}); curate again") from None

    # Read the tables in the order of the source's shards.
    numbers, weights, ids = [], [], []
    cut_numbers, cut_captions = [], []
    first_row = 0
    for shard, identity in zip(source.shards, identify_shards(source), strict=True):
        candidates = curated_shards.get(identity)
        if not candidates:
            raise ValueError(_explain_unknown_shard(folder, identity, curated_shards))
        curated = _choose_curated_shard(folder, shard, identity, candidates)
        _check_columns(folder, shard, curated.columns)
        rows = _read_table(curated.table, identity.samples)
        numbers.append(rows["row"].to_numpy() + first_row)
        weights.append(rows["weight"].to_numpy())
        ids.append(rows["id"].fill_null(0).to_numpy())
        if CUT_CAPTIONS in rows.column_names:
            cut_rows = rows.filter(rows[CUT_CAPTIONS].is_valid())
            cut_numbers.append(cut_rows["row"].to_numpy() + first_row)
            cut_captions += cut_rows[CUT_CAPTIONS].chunks
        first_row += identity.samples

    shard_sizes = np.array([len(rows) for rows in numbers], np.int64)
    selection = Selection(
        np.concatenate(numbers),
        shard_sizes,
        np.concatenate(weights),
        np.concatenate(ids),
        np.concatenate([np.zeros(0, np.int64), *cut_numbers]),
        pa.chunked_array(cut_captions, pa.list_(pa.string())),
    )
    if not len(selection.numbers):
        raise ValueError(f"{folder}: nothing of {source.shards[0].name} was kept; look at its page for the reasons")
    return selection


class SelectedSamples:
    """The selected pairs of a source as samples, in the source's order, with their captions as the curation cut them.

    Weights are ignored: each pair is there once. Arguments and errors are those of `read_selection`.
    """

    def __init__(self, folder: str | Path, source: ShardedSource):
        self._source, self._selection = source, read_selection(folder, source)

    def __len__(self) -> int:
        return len(self._selection.numbers)

    def __getitem__(self, index: int) -> Sample:
        number = int(self._selection.numbers[index])
        return self._selection.edit(number, self._source[number])

    @property
    def contents(self) -> list[str]:
        """The source's `contents`, and the digest of the selection."""
        return [*self._source.contents, f"selection {self._selection.digest}"]


class _CuratedShard(NamedTuple):
    """The table of a shard, the columns that were read if it is a table itself, and its address if it has no digest."""

    table: Path
    columns: Any
    address: str


def _choose_curated_shard(
    folder: Path, shard: Shard, identity: ShardIdentity, candidates: list[_CuratedShard]
) -> _CuratedShard:
    """Return which of the curated shards of this identity a shard is; ValueError if that cannot be told.

    A shard that was curated several times is removed from the candidates, so that its tables are used in order.
    """
    closest = candidates
    if not identity.content and len(candidates) > 1:
        # Many crawls have a 00000.tar of 10,000 pairs. Data that have moved still have the same last folders.
        similarities = [_count_common_components(curated.address, shard.name) for curated in candidates]
        highest = max(similarities)
        closest = [candidates[number] for number, similarity in enumerate(similarities) if similarity == highest]
        # Version 1.0 wrote no addresses; its tables are used in order.
        if len({curated.address for curated in closest}) > 1:
            raise ValueError(
                f"{folder} was made of {len(candidates)} shards {identity.name} of {identity.samples:,} samples, and "
                f"{shard.name} may be any of them; name the address that was curated, or curate again"
            )
    chosen = closest[0]
    if len(closest) > 1:
        candidates.remove(chosen)
    return chosen


def _count_common_components(left: str, right: str) -> int:
    """Return how many components at the ends of two addresses are equal."""
    count = 0
    for left_component, right_component in zip(reversed(left.split("/")), reversed(right.split("/")), strict=False):
        if left_component != right_component:
            break
        count += 1
    return count


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


def _check_columns(folder: Path, shard: Shard, curated_columns: Any) -> None:
    """Raise ValueError if a table is read by other columns than when it was curated; None: they are not known."""
    if not isinstance(shard, TableSource) or curated_columns in (None, shard.pair_columns):
        return
    curated = make_printable(json.dumps(curated_columns, ensure_ascii=False))
    current = make_printable(json.dumps(shard.pair_columns, ensure_ascii=False))
    raise ValueError(
        f"{folder} was made of other columns of {shard.name}: {curated} then, {current} now. Name the same columns "
        "(Data.columns), or curate again"
    )


def _read_table(path: Path, num_samples: int) -> "pa.Table":
    """Return the pairs of a shard whose weight is not zero: row, weight, id, and the captions that were cut."""
    import pyarrow as pa
    from pyarrow import ArrowException, compute, parquet

    types = {"row": pa.int64(), "weight": pa.float64(), "id": pa.uint64(), CUT_CAPTIONS: pa.list_(pa.string())}
    try:
        names = set(parquet.read_schema(path).names)
        if CUT_CAPTIONS not in names:  # a curation without text rules
            del types[CUT_CAPTIONS]
        table = parquet.read_table(path, columns=[name for name in types if name in names])
        table = pa.table({name: table[name].cast(column_type) for name, column_type in types.items()})
        is_selected = compute.greater(table["weight"], 0)
        rows = table["row"].to_numpy()
    except (ArrowException, OSError, KeyError) as error:
        raise ValueError(f"{path}: not a part of a curation's table ({error}); curate again") from None
    if len(table) != num_samples:
        raise ValueError(f"{path}: {len(table):,} rows for {num_samples:,} samples; curate again")
    # Cut captions are found by the order of the rows, and shards by their number.
    if not np.array_equal(rows, np.arange(num_samples)):
        raise ValueError(f"{path}: the rows are not in the order of the samples; sort them by row, or curate again")
    return table.filter(is_selected)


class WeightedDraws:
    """The rows of a source that are in an epoch, where each has a probability.

    Whether a row is drawn is a function of the seed, the epoch and the row's id.

    Args:
        weights: `[N]` float64, probability of each row, as in `Selection`.
        ids: `[N]` uint64, numbers from which the draws of each row follow, as in `Selection`.
        shard_sizes: `[shards]` int64, number of rows of each shard.
        seed: the run's seed.
        source: number of the source, so that equal sources are drawn differently.

    Attributes:
        mean_size: mean number of rows of an epoch.
        shard_sizes: function of an epoch to the number of drawn rows of each shard.
        drawn_rows: function of an epoch and a shard to its drawn rows, counted within the shard.
    """

    def __init__(self, weights: np.ndarray, ids: np.ndarray, shard_sizes: np.ndarray, seed: int, source: int = 0):
        # A row is drawn if its random uint64 is below its weight times 2^64. The largest float64 below 2^64 is
        # 2^64 - 2048, so rows of weight 1 are marked separately.
        self._bounds = np.minimum(weights * 2.0**64, 2.0**64 - 2048).astype(np.uint64)
        self._is_certain = weights >= 1
        self._ids = ids
        self.mean_size = float(np.minimum(weights, 1).sum())
        self._ends = np.cumsum(shard_sizes)
        self._starts = self._ends - shard_sizes
        self._key = seed, source
        self.shard_sizes = lru_cache(maxsize=4)(self._count_rows)
        self.drawn_rows = lru_cache(maxsize=MAX_OPEN_SHARDS)(self._find_rows)

    def are_drawn(self, epoch: int, first: int, last: int) -> np.ndarray:
        """Return whether each of the rows from `first` to `last - 1` is in an epoch, `[last - first]` bool."""
        # Seed, source and epoch become one number, which is combined with each id.
        epoch_key = 0
        for number in (*self._key, epoch):
            mixed = _mix_bits(np.array([epoch_key ^ number & 0xFFFFFFFFFFFFFFFF], np.uint64))
            epoch_key = int(mixed[0])
        random_numbers = _mix_bits(self._ids[first:last] ^ np.uint64(epoch_key))
        return self._is_certain[first:last] | (random_numbers < self._bounds[first:last])

    def _count_rows(self, epoch: int) -> np.ndarray:
        # Count the drawn rows up to the end of each shard, so that a shard's count is a difference of two of these.
        drawn_before_ends = np.zeros(len(self._ends), np.int64)
        num_drawn = 0
        for first in range(0, len(self._ids), CHUNK):
            last = min(first + CHUNK, len(self._ids))
            drawn_before = num_drawn + np.cumsum(self.are_drawn(epoch, first, last))
            begin, end = np.searchsorted(self._ends, [first, last], side="right")  # shards that end in the chunk
            drawn_before_ends[begin:end] = drawn_before[self._ends[begin:end] - first - 1]
            num_drawn = int(drawn_before[-1])
        return np.diff(drawn_before_ends, prepend=0)

    def _find_rows(self, epoch: int, shard: int) -> np.ndarray:
        return np.flatnonzero(self.are_drawn(epoch, int(self._starts[shard]), int(self._ends[shard])))


def _mix_bits(numbers: np.ndarray) -> np.ndarray:
    """Apply SplitMix64's finaliser (Steele et al. 2014), after which every bit depends on all bits of a uint64."""
    with np.errstate(over="ignore"):
        numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
        numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return numbers ^ (numbers >> np.uint64(31))
