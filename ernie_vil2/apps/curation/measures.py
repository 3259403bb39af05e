"""Measures: the values of the steps' columns for every pair, in one Parquet file per shard.

A file of measures depends on its shard and the steps alone. `measure_shard` is a plain function of a job and the number
of a shard, so that anything can call it: processes of this machine, ranks of a launcher, each for a share of the
shards, and Ray Data on other machines (docs/curate.md).
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
from pyarrow import compute, parquet

from ernie_vil2.apps.curation.joins import MeasuresFile, decode_file
from ernie_vil2.apps.curation.step import Pair, Step
from ernie_vil2.data.readers import ShardedSource
from ernie_vil2.data.readers.tables import TableSource
from ernie_vil2.data.samples import BadSample, Reason, hash_id
from ernie_vil2.data.selection import ShardIdentity, identify_shards
from ernie_vil2.data.shard_processes import CountSamples
from ernie_vil2.device.extras import require
from ernie_vil2.io.files import atomic_write

# Version of all measures. It is part of the files' names, so that another number measures every shard again.
VERSION = 3
# Rows measured between two writes; they are a row group of the file. Larger batches take more memory, some 15 KB a row.
# Smaller groups compress worse, and their captions are edited in more calls, each of which compiles its patterns in the
# time of measuring 50 images.
BATCH = 4000
# Bytes of encoded images in memory at a time. The images of a usual batch have fewer.
MAX_IMAGE_BYTES = 2**27
COLUMNS = {"row": "int32", "key": "string", "id": "uint64", "error": "string"}
"""Columns that no step measures: row of the pair in its shard, name of its image, number that determines its random
draws, and the reason why it could not be read."""

# Errors of files outside the shard, and of servers and disks: the next run may be able to read such a pair.
PASSING_ERRORS = (Reason.MISSING_IMAGE, Reason.UNREADABLE_FILE, Reason.NOT_FETCHED)


class ExpectedFile(NamedTuple):
    """File of measures or embeddings as it must be; `num_rows` is None where the number is not known."""

    path: Path
    schema: pa.Schema
    num_rows: int | None = None


@dataclass(frozen=True)
class MeasuringJob:
    """Pairs to measure, and the steps that measure them.

    Args:
        source: the pairs.
        steps: the steps.
        folder: folder of the files of measures.
        reading: how the source reads the files, such as the columns of a table, by option; values for JSON.
    """

    source: ShardedSource
    steps: Sequence[Step]
    folder: Path
    reading: Mapping[str, Any] = field(default_factory=dict)
    _image_digests: dict[int, str] = field(default_factory=dict, init=False)  # by number of the shard

    @cached_property
    def shards(self) -> list[ShardIdentity]:
        """Identities of the shards."""
        return identify_shards(self.source)

    @cached_property
    def first_samples(self) -> list[int]:
        """Number of the first sample of each shard."""
        ends = self.source.shard_sizes.cumsum()
        return (ends - self.source.shard_sizes).tolist()

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of a file of measures, with their types."""
        columns = dict(COLUMNS)
        for step in self.steps:
            columns |= step.columns
        return pa.schema([(name, arrow_type(type_name)) for name, type_name in columns.items()])

    def locate_measures(self, shard: int) -> MeasuresFile:
        """Return the place of a shard's measures, whether or not the file exists."""
        # The name follows from everything that the measures depend on, so that an existing file is the right one.
        step_dependencies = [[step.name, step.columns, step.measure_dependencies()] for step in self.steps]
        dependencies: list[Any] = [VERSION, self.shards[shard], step_dependencies]
        # A shard at an address has no digest, and many crawls have a 00000.tar of 10,000 pairs.
        if not self.shards[shard].content:
            dependencies.append(self.source.shards[shard].name)
        # The identity of a shard is that of its files. Other columns or images of the same table are other pairs.
        if self.reading:
            dependencies.append(self.reading)
        table = self.source.shards[shard]
        if isinstance(table, TableSource):
            if shard not in self._image_digests:
                self._image_digests[shard] = table.digest_image_sizes()
            dependencies.append(self._image_digests[shard])
        digest = blake2b(json.dumps(dependencies).encode(), digest_size=12).hexdigest()
        return MeasuresFile(self.folder / f"{digest}.parquet", self.first_samples[shard])

    def find_passing_errors(self, shard: int) -> list[int]:
        """Return the rows of a measured shard whose error is one of `PASSING_ERRORS`.

        Raises:
            ValueError: the file of the measures is damaged.
        """
        path = self.locate_measures(shard).path
        try:
            with parquet.ParquetFile(path) as file:
                errors = file.read(["error"], use_threads=False)["error"]
            is_passing = compute.is_in(errors, pa.array(PASSING_ERRORS, pa.string()))
            return compute.indices_nonzero(is_passing).to_pylist()
        except (pa.ArrowException, OSError, UnicodeDecodeError, KeyError) as error:
            raise _describe_damage(path, str(error)) from error

    def must_be_measured(self, shard: int) -> bool:
        """Return whether a shard has no measures, or a pair with one of `PASSING_ERRORS` can be read now."""
        if not self.locate_measures(shard).path.exists():
            return True
        for row in self.find_passing_errors(shard):
            try:
                self.source[self.first_samples[shard] + row]
            except BadSample as error:
                if error.reason in PASSING_ERRORS:
                    continue
            return True
        return False

    def describe_file(self, shard: int) -> ExpectedFile:
        """Return what the file of a shard's measures must look like."""
        return ExpectedFile(self.locate_measures(shard).path, self.schema, int(self.source.shard_sizes[shard]))


def measure_shard(job: MeasuringJob, shard: int, count_samples: CountSamples = lambda num_read: None) -> Path:
    """Measure the pairs of a shard, and return the path of the file.

    The file appears under its name when it is complete.

    Args:
        job: pairs and steps.
        shard: number of the shard.
        count_samples: called with the number of pairs measured since the last call.
    """
    file_of_shard = job.locate_measures(shard)
    schema = job.schema
    with (
        atomic_write(file_of_shard.path) as temporary_path,
        temporary_path.open("wb") as file,
        parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        size = int(job.source.shard_sizes[shard])
        for start in range(0, size, BATCH):
            rows = range(start, min(start + BATCH, size))
            measures = _measure_rows(job, file_of_shard.first_sample, rows, count_samples)
            writer.write_table(pa.Table.from_pylist(measures, schema))
    return file_of_shard.path


def _measure_rows(
    job: MeasuringJob, first_sample: int, rows: Iterable[int], count_samples: CountSamples
) -> list[dict[str, Any]]:
    """Return the measures of rows of a shard, a mapping of columns for each.

    Args:
        job: pairs and steps.
        first_sample: number of the shard's first sample.
        rows: rows in the shard.
        count_samples: called with 1 for each row.
    """
    measures: list[dict[str, Any]] = []
    # Readable pairs whose images wait to be measured, each with its mapping in `measures`.
    pairs: list[tuple[Pair, dict[str, Any]]] = []
    num_bytes = 0
    for row in rows:
        columns: dict[str, Any] = {"row": row}
        measures.append(columns)
        try:
            sample = job.source[first_sample + row]
        except BadSample as error:
            columns |= {"key": error.name, "error": str(error.reason)}
            count_samples(1)
            continue
        columns["key"] = sample.image_name
        columns["id"] = hash_id(sample.image_name + "\n" + sample.text_name, sample.image)
        try:
            pairs.append((Pair(sample), columns))
        except BadSample as error:
            columns["error"] = str(error.reason)
            count_samples(1)
            continue
        num_bytes += len(sample.image)
        if num_bytes > MAX_IMAGE_BYTES:
            _measure_pairs(job, pairs, count_samples)
            num_bytes = 0
    _measure_pairs(job, pairs, count_samples)
    return measures


def _measure_pairs(job: MeasuringJob, pairs: list[tuple[Pair, dict[str, Any]]], count_samples: CountSamples) -> None:
    """Add the measures of pairs to the columns of their rows, and empty the list."""
    for step in job.steps:
        step.edit([pair for pair, _ in pairs])
    # Taken from the list, so that the pixels of a pair are freed once it is measured.
    while pairs:
        pair, columns = pairs.pop()
        # A broken image ends the measures of its pair, but the columns of the steps before stay in the row.
        try:
            for step in job.steps:
                columns |= step.measure(pair)
        except BadSample as error:
            columns["error"] = str(error.reason)
        count_samples(1)


def check_files(files: Iterable[ExpectedFile]) -> None:
    """Raise ValueError if the footer of a file is unreadable, or has other columns or another number of rows."""
    # Only footers are read here; the joins will read the values.
    for file in files:
        try:
            with parquet.ParquetFile(file.path) as parquet_file:
                has_same_schema = parquet_file.schema_arrow.equals(file.schema)
                num_rows = parquet_file.metadata.num_rows
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _describe_damage(file.path, str(error)) from error
        if not has_same_schema:
            raise _describe_damage(file.path, "other columns, or columns of other types")
        if file.num_rows is not None and num_rows != file.num_rows:
            raise _describe_damage(file.path, f"{num_rows:,} rows instead of {file.num_rows:,}")


@contextmanager
def name_damaged_files(files: Sequence[ExpectedFile]) -> Iterator[None]:
    """Turn DuckDB's error in the block into a ValueError that names the damaged file, if one of these is damaged.

    DuckDB's message names no file, and its error is the same for a damaged file and for a wrong query. So every file is
    read once more by itself to find out.
    """
    try:
        yield
    except (duckdb.Error, pa.ArrowException, UnicodeDecodeError) as error:
        # Too little memory says nothing about the files, and reading them all takes long.
        if isinstance(error, duckdb.OutOfMemoryException):
            raise
        check_files(files)
        for file in files:
            try:
                decode_file(file.path)
            except duckdb.Error as damage:
                raise _describe_damage(file.path, str(damage)) from error
        raise


def _describe_damage(path: Path, reason: str) -> ValueError:
    first_line = reason.partition("\n")[0]
    return ValueError(f"{path} is damaged ({first_line}); remove it, and the same command measures its shard again")


def arrow_type(name: str) -> pa.DataType:
    """Return the Arrow type of a name, or of `list<name>`."""
    if name.startswith("list<"):
        return pa.list_(pa.type_for_alias(name[5:-1]))
    return pa.type_for_alias(name)


def measure_on_ray(open_job: Callable[[], MeasuringJob], shards: Sequence[int], address: str) -> None:
    """Measure shards on the nodes of a Ray cluster, one task per shard, into the same files of a shared folder.

    Args:
        open_job: opens source and steps in every process that measures; it is pickled.
        shards: numbers of the shards.
        address: address of the cluster for `ray.init`: `auto`, `ray://host:10001`, or `local` for this machine.

    Raises:
        MissingPackage: Ray is not installed.
        ConnectionError: there is no cluster at the address.
    """
    require("--ray", "ray")
    import ray

    if not shards:
        return
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False)

    def measure(row: dict[str, Any]) -> dict[str, Any]:
        job, shard = _open_once(open_job), int(row["shard"])
        if job.must_be_measured(shard):
            measure_shard(job, shard)
        return row

    # A block per shard lets Ray balance the nodes by single shards.
    dataset = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
    dataset.map(measure).materialize()


@cache
def _open_once(open_job: Callable[[], MeasuringJob]) -> MeasuringJob:
    """Open a job, once in each process."""
    return open_job()
