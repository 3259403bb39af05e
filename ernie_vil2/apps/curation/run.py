"""A whole curation: measure the shards in processes, join the measures, and write the table and its page."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import compute, parquet
from threadpoolctl import ThreadpoolController

from ernie_vil2.apps.curation.joins import Joins, check_memory, explain_lack_of_memory
from ernie_vil2.apps.curation.measures import (
    ExpectedFile,
    MeasuringJob,
    check_files,
    measure_on_ray,
    measure_shard,
    name_damaged_files,
)
from ernie_vil2.apps.curation.page import Curation, RemovalCount, write_curation_page
from ernie_vil2.apps.curation.step import UNREADABLE, Embedder, Step
from ernie_vil2.data.readers import ShardedSource
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.data.selection import ABOUT, TABLE, VERSION, describe_shards
from ernie_vil2.data.shard_processes import CountSamples, map_shards
from ernie_vil2.io.export_folder import utf8_path
from ernie_vil2.io.files import atomic_files, atomic_folder, remove_partial, write_json
from ernie_vil2.io.locks import claim_output
from ernie_vil2.io.progress import progress_bar

STATE = ".curate"  # folder in the output with the measures of the shards, from which a run continues
FIRST_COLUMNS = (
    "sample",
    "row",
    "key",
    "id",
    "is_kept",
    "weight",
    "step",
    "reason",
    "nearest",
    "nearest_key",
    "advantage",
)
"""Columns of the table before the measures (docs/curate.md)."""
# The shard is the file of the table, and the error is in `reason`. The others are large, and of no use elsewhere.
OMITTED_COLUMNS = {
    "shard",
    "error",
    "thumbnail",
    "features",
    "box",
    "detail",
    "sketch",
    "long_sketches",
    "simple_captions",
    "plain_captions",
}


def curate(
    source: ShardedSource,
    steps: Sequence[Step],
    output: str | Path,
    processes: int = 1,
    memory: float = 1.0,
    share: tuple[int, int] | None = None,
    ray: str | None = None,
    open_source: Callable[[], ShardedSource] | None = None,
    reading: Mapping[str, Any] | None = None,
) -> Curation | None:
    """Curate a source, and write the table with `curation.json` and a page next to it.

    The table follows from source and steps, whatever the number of processes and interruptions. The measures of a
    shard are stored in the output, so that a new shard costs only its own measures, and a new threshold only the joins.

    Args:
        source: the pairs.
        steps: steps, in the order in which they decide.
        output: folder of the table.
        processes: number of processes that measure.
        memory: memory of the joins, in GB.
        share: (i, n): measure only every n-th shard, from the i-th on, and write no table; a later run without a share
            does. Other shares may be measured at the same time.
        ray: address of a Ray cluster that measures in place of processes; None: use processes.
        open_source: opens the source again on the nodes of the cluster; `ray` needs it.
        reading: how the source reads its files, such as the columns of a table, by option; values for JSON. Other
            values measure every shard again.

    Returns:
        The outcome for all pairs, or None with a `share`.

    Raises:
        OtherJob: the folder holds something else, or another run is writing there.
        KilledProcess: a process was killed.
        ValueError, OSError: a step lacks what it needs, or a file cannot be read or written.
    """
    # Everything that can be wrong is found before hours of measuring.
    if ray is not None and open_source is None:
        raise ValueError("ray needs open_source, a function that opens the source on the nodes of the cluster")
    check_memory(memory)
    for step in steps:
        step.check()
    embedder = _find_embedder(steps)

    with claim_output(Path(output), STATE, is_exclusive=share is None), utf8_path(Path(output)) as output:
        state = output / STATE
        job = MeasuringJob(source, steps, state / "measures", reading or {})
        job.folder.mkdir(exist_ok=True)
        # Remove what a killed run was writing. A share leaves it, because it may be that of another share at work.
        if share is None:
            remove_partial(output, r"table|\d+")
            remove_partial(state, r".+\.np[yz]")
            remove_partial(job.folder, r".+\.parquet")
        shards = range(len(job.shards))
        local_shards = shards[share[0] :: share[1]] if share else shards

        # Measure the shards that have no measures yet, and those with pairs that can be read by now. The processes find
        # out whether they can, because a file that is opened here would be shared by all of them.
        missing_shards = []
        for shard in local_shards:
            if not job.locate_measures(shard).path.exists() or job.find_passing_errors(shard):
                missing_shards.append(shard)
        if ray is not None and open_source is not None:
            open_job = partial(_open_job, open_source, steps, job.folder.resolve(), job.reading)
            measure_on_ray(open_job, missing_shards, ray)
        else:
            num_samples = int(source.shard_sizes[missing_shards].sum()) if missing_shards else 0
            measure = partial(_measure_if_necessary, job)
            map_shards(measure, missing_shards, processes, "measuring", num_samples)

        # Embed in this process, which has the models on their device.
        if embedder is not None:
            missing_shards = [
                shard for shard in local_shards if not embedder.locate_embeddings(job, shard).path.exists()
            ]
            for shard in progress_bar(missing_shards, "embedding", unit="shard"):
                embedder.embed_shard(job, shard)
        if share is not None:
            return None

        # Join the measures of all shards.
        measures, embeddings, expected_files = [], [], []
        for shard in shards:
            measures.append(job.locate_measures(shard))
            expected_files.append(job.describe_file(shard))
            if embedder is not None:
                file = embedder.locate_embeddings(job, shard)
                embeddings.append(file)
                # The number of embedded pairs is known only to the pass that embedded them.
                expected_files.append(ExpectedFile(file.path, embedder.schema))
        check_files(expected_files)
        with (
            name_damaged_files(expected_files),
            explain_lack_of_memory(memory),
            closing(Joins(measures, state, memory, embeddings)) as joins,
            # Matrices are small here, and OpenBLAS's threads would spend a fifth of the CPU time on waiting for work.
            ThreadpoolController().select(internal_api="openblas").limit(limits=1),
        ):
            decide(joins, steps)
            return _write_output(joins, job, output)


def _measure_if_necessary(job: MeasuringJob, shard: int, count_samples: CountSamples) -> None:
    if job.must_be_measured(shard):
        measure_shard(job, shard, count_samples)
    else:
        count_samples(int(job.source.shard_sizes[shard]))


def _find_embedder(steps: Sequence[Step]) -> Embedder | None:
    """Return the embedder of the first step that has one; ValueError if a step needs embeddings and none has one."""
    for step in steps:
        embedder = step.get_embedder()
        if embedder is not None:
            return embedder
    for step in steps:
        setting = step.get_embedding_setting()
        if setting is not None:
            raise ValueError(f"{step.name}.{setting} needs the embeddings of score: -o score.model=MODEL")
    return None


def _open_job(
    open_source: Callable[[], ShardedSource], steps: Sequence[Step], folder: Path, reading: Mapping[str, Any]
) -> MeasuringJob:
    """Open a job in another process, with new steps, which have none of the files and models that these have opened."""
    return MeasuringJob(open_source(), [type(step)(step.settings) for step in steps], folder, reading)


def decide(joins: Joins, steps: Sequence[Step]) -> None:
    """Let every step remove pairs, in order."""
    # All steps prepare first: the score of a later step decides which duplicate an earlier one keeps.
    for step in steps:
        step.prepare(joins)
    for step in steps:
        joins.step = step.name
        joins.apply_rules(step.name, step.rules())
        step.decide(joins)


def _write_output(joins: Joins, job: MeasuringJob, output: Path) -> Curation:
    """Write table, page and `curation.json`, all of them or none."""
    source, steps = job.source, job.steps
    curation = _summarize(joins, len(source), steps)
    with atomic_files(output) as aside, atomic_folder(output / TABLE) as table_folder:
        files = write_table(joins, source.shard_sizes.tolist(), table_folder)
        write_curation_page(aside, curation, joins, source, steps)
        curation.bad_samples.write(aside)
        shards = describe_shards(source, job.shards)
        about = {
            "version": VERSION,
            "num_pairs": curation.num_pairs,
            "num_kept": curation.num_kept,
            "mean_drawn": curation.mean_drawn,
            "removals": [removal._asdict() for removal in curation.removals],
            "facts": curation.facts,
            "figures": joins.figures,
            "steps": {step.name: step.settings.model_dump(mode="json") for step in steps},
            "shards": [shard | file for shard, file in zip(shards, files, strict=True)],
        }
        write_json(aside / ABOUT, about)

        # Files appear one by one. Training refuses a folder without `curation.json`, so the old one goes first.
        (output / ABOUT).unlink(missing_ok=True)
        shutil.rmtree(output / TABLE, ignore_errors=True)
    return curation


def write_table(joins: Joins, shard_sizes: Sequence[int], folder: Path) -> list[dict[str, Any]]:
    """Write the table into a folder: one row per pair, one Parquet file per shard.

    Args:
        joins: the decided pairs.
        shard_sizes: number of pairs of each shard.
        folder: folder of the files.

    Returns:
        For each shard its `file`, the number of pairs that stay (`num_kept`), and the mean number of pairs that an
        epoch draws (`mean_drawn`).
    """
    measures = [name for name in joins.columns if name not in {*FIRST_COLUMNS, *OMITTED_COLUMNS}]
    measure_columns = "".join(f", p.{name}" for name in measures)
    # A sample that could not be read has no id. It is never drawn, so 0 takes its place.
    query = (
        f"select p.sample, p.row, p.key, coalesce(p.id, 0) as id, p.error is null and r.step is null as is_kept, "  # noqa: S608  -- no text of the data is in it
        "case when p.error is null and r.step is null then coalesce(w.weight, 1.0) else 0.0 end as weight, "
        f"case when p.error is not null then '{UNREADABLE}' else r.step end as step, "
        f"coalesce(p.error, r.reason) as reason, r.nearest, r.nearest_key, r.advantage{measure_columns} "
        f"from pairs p left join ({joins.explain_removals()}) r using (sample) left join weights w using (sample) "
        "order by p.sample"
    )
    files = []
    for shard, rows in enumerate(_split_by_shard(joins.read_batches(query), shard_sizes)):
        name = f"{shard:05d}.parquet"
        # Arrow takes only paths in UTF-8, so it gets the open file.
        with (folder / name).open("wb") as file:
            parquet.write_table(rows, file, compression="zstd")
        num_kept = compute.sum(rows["is_kept"]).as_py()
        mean_drawn = compute.sum(rows["weight"]).as_py()
        files.append({"file": name, "num_kept": num_kept or 0, "mean_drawn": mean_drawn or 0.0})
    return files


def _split_by_shard(batches: Iterator[pa.RecordBatch], shard_sizes: Sequence[int]) -> Iterator[pa.Table]:
    remainder: pa.RecordBatch | None = None  # rows of the last batch that belong to the next shard
    for size in shard_sizes:
        slices: list[pa.RecordBatch] = []
        num_missing = size
        while num_missing:
            batch = next(batches) if remainder is None else remainder
            slices.append(batch.slice(0, num_missing))
            remainder = batch.slice(num_missing) if batch.num_rows > num_missing else None
            num_missing -= slices[-1].num_rows
        yield pa.Table.from_batches(slices)


def _summarize(joins: Joins, num_pairs: int, steps: Sequence[Step]) -> Curation:
    # Unreadable pairs come first, because they are lost before any step sees them.
    bad_samples = BadSampleReport()
    bad_samples.add(num_pairs, joins.fetch_all("select error, key from pairs where error is not null order by sample"))
    removals = [RemovalCount(UNREADABLE, reason, count) for reason, count in bad_samples.counts.most_common()]

    rows = joins.fetch_all("select step, reason, count(*) from removals group by all order by count(*) desc, reason")
    order = {step.name: number for number, step in enumerate(steps)}
    rows.sort(key=lambda row: order[row[0]])
    removals += [RemovalCount(*row) for row in rows]

    kept_query = "select count(*), sum(coalesce(weight, 1)) from alive left join weights using (sample)"
    num_kept, mean_drawn = joins.fetch_all(kept_query)[0]
    return Curation(num_pairs, removals, num_kept, float(mean_drawn or 0), bad_samples, joins.facts)
