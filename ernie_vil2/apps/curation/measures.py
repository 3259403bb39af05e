"""The maps: what the steps measure of the pairs of a shard, as a Parquet file that depends on nothing but the shard.

`measure_shard` is a plain function of a job and the number of a shard: processes of this machine call it, ranks of a
launcher take a share of the shards, and Ray Data runs it on other machines (docs/curate.md).
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
from pyarrow import parquet

from ernie_vil2.apps.curation.joins import Measured, read_all
from ernie_vil2.apps.curation.step import Pair, Step
from ernie_vil2.data.readers import ShardedSource
from ernie_vil2.data.samples import BadSample, content_id
from ernie_vil2.data.selection import ShardIdentity, identify_shards
from ernie_vil2.data.shard_processes import CountSamples
from ernie_vil2.device.extras import require
from ernie_vil2.io.files import atomic_write

VERSION = 1  # of the measures; a change makes all again
BATCH = 1000  # rows that are measured before the bar moves
COLUMNS = {"row": "int32", "key": "string", "id": "uint64", "bad": "string"}
"""Of every pair: its row in the shard, the name of its image, the number that its draws follow from, and why it could
not be read."""


class PartFile(NamedTuple):
    """A file of measures or embeddings, as it must be: its columns, and its rows where their number is known."""

    path: Path
    schema: pa.Schema
    num_rows: int | None = None


@dataclass(frozen=True)
class Maps:
    """What is measured of what, and where the parts are.

    Args:
        source: the pairs.
        steps: that measure.
        folder: of the parts.
    """

    source: ShardedSource
    steps: Sequence[Step]
    folder: Path

    @cached_property
    def shards(self) -> list[ShardIdentity]:
        return identify_shards(self.source)

    @cached_property
    def firsts(self) -> list[int]:
        """For each shard the number of its first sample."""
        ends = self.source.shard_sizes.cumsum()
        return (ends - self.source.shard_sizes).tolist()

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of a part, with their types."""
        columns = dict(COLUMNS)
        for step in self.steps:
            columns |= step.columns
        return pa.schema([(name, arrow_type(kind)) for name, kind in columns.items()])

    def part(self, shard: int) -> Measured:
        """Where the measures of a shard are, whether they are there already or not."""
        made_by = [VERSION, self.shards[shard], [[step.name, step.columns, step.measured_by()] for step in self.steps]]
        digest = blake2b(json.dumps(made_by).encode(), digest_size=12).hexdigest()
        return Measured(self.folder / f"{digest}.parquet", self.firsts[shard])

    def part_file(self, shard: int) -> PartFile:
        """The file of a shard's measures, as it must be."""
        return PartFile(self.part(shard).path, self.schema, int(self.source.shard_sizes[shard]))


def measure_shard(maps: Maps, shard: int, count: CountSamples = lambda read: None) -> Path:
    """Measures the pairs of a shard, and writes the part under its name when it is whole; `count` is called with the
    pairs read since."""
    part = maps.part(shard)
    schema = maps.schema
    with (
        atomic_write(part.path) as aside,
        aside.open("wb") as file,
        parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        size = int(maps.source.shard_sizes[shard])
        for start in range(0, size, BATCH):
            rows = range(start, min(start + BATCH, size))
            measured = [{"row": row} | _measured(maps, part.first + row) for row in rows]
            writer.write_table(pa.Table.from_pylist(measured, schema))
            count(len(rows))
    return part.path


def _measured(maps: Maps, number: int) -> dict[str, Any]:
    try:
        sample = maps.source[number]
    except BadSample as bad:
        return {"key": bad.name, "bad": str(bad.reason)}
    values: dict[str, Any] = {
        "key": sample.image_name,
        "id": content_id(sample.image_name + "\n" + sample.text_name, sample.image),
    }
    try:
        pair = Pair(sample)
        for step in maps.steps:
            values |= step.measure(pair)
    except BadSample as bad:
        values["bad"] = str(bad.reason)
    return values


def check_parts(files: Iterable[PartFile]) -> None:
    """Raise ValueError if the footer of one of these files is not that of the part that was written."""
    for file in files:
        try:
            with parquet.ParquetFile(file.path) as opened:
                schema, num_rows = opened.schema_arrow, opened.metadata.num_rows
                is_same = schema.equals(file.schema)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _damage(file.path, str(error)) from error
        if not is_same:
            raise _damage(file.path, "other columns, or columns of other types")
        if file.num_rows is not None and num_rows != file.num_rows:
            raise _damage(file.path, f"{num_rows:,} rows of {file.num_rows:,}")


@contextmanager
def name_damaged_parts(files: Sequence[PartFile]) -> Iterator[None]:
    """Turn an error of DuckDB in the block into a ValueError that names the damaged file, if one of these is.

    DuckDB's own words name no file, and its error is the same for a damaged file and for a fault of a query, so that
    every file is read once more on its own.
    """
    try:
        yield
    except (duckdb.Error, pa.ArrowException, UnicodeDecodeError) as error:
        if isinstance(error, duckdb.OutOfMemoryException):
            raise
        check_parts(files)
        for file in files:
            try:
                read_all(file.path)
            except duckdb.Error as damage:
                raise _damage(file.path, str(damage)) from error
        raise


def _damage(path: Path, reason: str) -> ValueError:
    reason = reason.partition("\n")[0]
    return ValueError(f"{path} is damaged ({reason}); remove it, and the same command measures its shard again")


def arrow_type(kind: str) -> pa.DataType:
    """An Arrow type by its name, or `list<...>` of one."""
    if kind.startswith("list<"):
        return pa.list_(pa.type_for_alias(kind[5:-1]))
    return pa.type_for_alias(kind)


def measure_on_ray(open_maps: Callable[[], Maps], shards: Sequence[int], address: str) -> None:
    """Measures shards on the nodes of a Ray cluster, one task a shard, into the same parts of a shared folder.

    MissingPackage if Ray is not installed; ConnectionError if there is no cluster at the address.

    Args:
        open_maps: opens source and steps, in every process that measures; it is pickled.
        address: of the cluster, as `ray.init` takes it: `auto`, `ray://host:10001`, or `local` for one on this machine.
    """
    require("--ray", "ray")
    import ray

    if not shards:
        return
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False)

    def measure(row: dict[str, Any]) -> dict[str, Any]:
        return {"part": str(measure_shard(_opened(open_maps), int(row["shard"])))}

    dataset = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
    dataset.map(measure).materialize()


@cache
def _opened(open_maps: Callable[[], Maps]) -> Maps:
    """Once in a process that is given the same callable."""
    return open_maps()
