"""A curation from its source to its table: maps over shards in processes, joins, the table, and what it is about."""

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import compute, parquet
from tqdm import tqdm

from ernie_vil2.apps.curation.joins import Joins, check_memory, explain_lack_of_memory
from ernie_vil2.apps.curation.measures import (
    Maps,
    PartFile,
    check_parts,
    measure_on_ray,
    measure_shard,
    name_damaged_parts,
)
from ernie_vil2.apps.curation.page import Curation, write_curation_page
from ernie_vil2.apps.curation.step import UNREADABLE, Step
from ernie_vil2.data.readers import ShardedSource
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.data.selection import ABOUT, TABLE, VERSION
from ernie_vil2.data.shard_processes import map_shards
from ernie_vil2.io.export_folder import utf8_path
from ernie_vil2.io.files import atomic_files, atomic_folder, remove_partial, write_json
from ernie_vil2.io.locks import claim_output

STATE = ".curate"  # folder in the output that holds the measures of the shards, with which a run goes on
FIRST = ("sample", "row", "key", "id", "kept", "weight", "step", "reason", "nearest", "nearest_key")
"""Columns of the table before the measures (docs/curate.md)."""
NOT_SHOWN = {"shard", "bad", "first", "thumbnail", "sketch", "long_sketches"}


def curate(
    source: ShardedSource,
    steps: Sequence[Step],
    output: str | Path,
    processes: int = 1,
    memory: float = 1.0,
    share: tuple[int, int] | None = None,
    ray: str | None = None,
    open_source: Callable[[], ShardedSource] | None = None,
) -> Curation | None:
    """Writes the table of a source, with `curation.json` next to it.

    The table follows from source and steps, whatever the number of processes and whatever was interrupted. A shard's
    measures are kept in the output, so that a new shard costs only itself, and another threshold only the joins.

    Args:
        source: the pairs.
        steps: in the order in which they decide.
        output: folder of the table.
        processes: that measure.
        memory: of the joins, in GB.
        ray: address of a Ray cluster that measures instead of processes; None: processes.
        open_source: opens the source again, on the nodes of the cluster.
        share: (i, n): only measures every n-th shard from the i-th on, for a run that joins later; others may measure
            at the same time.

    Returns:
        The outcome for every pair; None with a `share`.

    Raises:
        OtherJob: the folder holds something else, or another run is writing there.
        KilledProcess: something killed a process.
        ValueError, OSError: a step lacks what it needs, or a file cannot be read or written.
    """
    check_memory(memory)
    for step in steps:
        step.check()
    embedder = next(filter(None, (step.embedder() for step in steps)), None)
    for step in steps:
        if embedder is None and (setting := step.needs_embeddings()):
            raise ValueError(f"{step.name}.{setting} needs the embeddings of score: -o score.model=MODEL")
    with claim_output(Path(output), STATE, is_exclusive=share is None), utf8_path(Path(output)) as output:
        if share is None:
            remove_partial(output, r"table|\d+")
        state = output / STATE
        maps = Maps(source, steps, state / "measures")
        maps.folder.mkdir(exist_ok=True)
        shards = range(len(maps.shards))
        own = shards[share[0] :: share[1]] if share else shards
        missing = [shard for shard in own if not maps.part(shard).path.exists()]
        samples = int(source.shard_sizes[missing].sum()) if missing else 0
        if ray is not None and open_source is not None:
            measure_on_ray(partial(_opened, open_source, steps, maps.folder.resolve()), missing, ray)
        else:
            map_shards(lambda shard, count: measure_shard(maps, shard, count), missing, processes, "measuring", samples)
        if embedder is not None:
            left = [shard for shard in own if not embedder.part(maps, shard).path.exists()]
            for shard in tqdm(left, "embedding", unit="shard", file=sys.stdout):
                embedder.embed_shard(maps, shard)
        if share is not None:
            return None
        embeddings = [embedder.part(maps, shard) for shard in shards] if embedder else []
        files = [maps.part_file(shard) for shard in shards]
        if embedder:
            files += [PartFile(part.path, embedder.schema) for part in embeddings]
        check_parts(files)
        measures = [maps.part(shard) for shard in shards]
        with (
            name_damaged_parts(files),
            explain_lack_of_memory(memory),
            closing(Joins(measures, state, memory, embeddings)) as joins,
        ):
            decide(joins, steps)
            return _written(joins, maps, output)


def _written(joins: Joins, maps: Maps, output: Path) -> Curation:
    """Writes table, page and what they are about, all of them or none."""
    source, steps = maps.source, maps.steps
    curation = _summary(joins, len(source), steps)
    with atomic_files(output) as aside, atomic_folder(output / TABLE) as table:
        files = write_table(joins, [shard.samples for shard in maps.shards], table)
        write_curation_page(aside, curation, joins, source, steps)
        curation.bad.write(aside)
        removed = [{"step": step, "reason": reason, "pairs": count} for step, reason, count in curation.reasons]
        about = {
            "version": VERSION,
            "pairs": curation.pairs,
            "kept": curation.kept,
            "drawn": curation.drawn,
            "removed": removed,
            "facts": curation.facts,
            "figures": joins.figures,
            "steps": {step.name: step.settings.model_dump() for step in steps},
            "shards": [shard._asdict() | file for shard, file in zip(maps.shards, files, strict=True)],
        }
        write_json(aside / ABOUT, about)
        (output / ABOUT).unlink(missing_ok=True)  # until all of it is there
        shutil.rmtree(output / TABLE, ignore_errors=True)
    return curation


def write_table(joins: Joins, sizes: Sequence[int], folder: Path) -> list[dict[str, Any]]:
    """Writes the table of shards of these sizes into a folder: one row per pair, one Parquet file per shard.

    Returns:
        For each shard its `file`, how many pairs were `kept` and how many are `drawn` in an epoch on average.
    """
    measures = [name for name in joins.columns if name not in {*FIRST, *NOT_SHOWN}]
    listed = "".join(f", m.{name}" for name in measures)
    query = (
        f"select m.sample, m.row, m.key, coalesce(m.id, 0) as id, m.bad is null and f.step is null as kept, "  # noqa: S608  -- no text of the data is in it
        "case when m.bad is null and f.step is null then coalesce(w.weight, 1.0) else 0.0 end as weight, "
        f"case when m.bad is not null then '{UNREADABLE}' else f.step end as step, "
        f"coalesce(m.bad, f.reason) as reason, f.nearest, n.key as nearest_key{listed} "
        "from measured m left join fates f using (sample) left join weights w using (sample) "
        "left join (select sample, key from measured where sample in (select nearest from fates)) n "
        "on f.nearest = n.sample order by m.sample"
    )
    about = []
    for number, part in enumerate(_parts(joins.rows(query), sizes)):
        name = f"{number:05d}.parquet"
        with (folder / name).open("wb") as file:  # not by its name, which need not be UTF-8
            parquet.write_table(part, file, compression="zstd")
        kept, drawn = compute.sum(part["kept"]).as_py(), compute.sum(part["weight"]).as_py()
        about.append({"file": name, "kept": kept or 0, "drawn": drawn or 0.0})
    return about


def _parts(batches: Iterator[pa.RecordBatch], sizes: Sequence[int]) -> Iterator[pa.Table]:
    left_over: list[pa.RecordBatch] = []
    for size in sizes:
        part: list[pa.RecordBatch] = []
        left = size
        while left:
            batch = left_over.pop() if left_over else next(batches)
            part.append(batch.slice(0, left))
            if batch.num_rows > left:
                left_over.append(batch.slice(left))
            left -= part[-1].num_rows
        yield pa.Table.from_batches(part)


def _opened(open_source: Callable[[], ShardedSource], steps: Sequence[Step], folder: Path) -> Maps:
    """The maps in another process: steps are made again from their settings, without what they have opened here."""
    return Maps(open_source(), [type(step)(step.settings) for step in steps], folder)


def decide(joins: Joins, steps: Sequence[Step]) -> None:
    """Lets every step remove pairs, in order."""
    for step in steps:
        step.prepare(joins)
    for step in steps:
        joins.step = step.name
        joins.apply(step.name, step.rules())
        step.decide(joins)


def _summary(joins: Joins, pairs: int, steps: Sequence[Step]) -> Curation:
    order = {name: number for number, name in enumerate([UNREADABLE, *(step.name for step in steps)])}
    bad = BadSampleReport()
    unreadable = joins.all("select bad, key from measured where bad is not null order by sample")
    bad.add(pairs, unreadable)
    reasons = [(UNREADABLE, reason, count) for reason, count in bad.counts.most_common()]
    found = joins.all("select step, reason, count(*) from fates group by all order by count(*) desc, reason")
    reasons += sorted(found, key=lambda row: order[row[0]])
    kept, drawn = joins.all("select count(*), sum(coalesce(weight, 1)) from alive left join weights using (sample)")[0]
    return Curation(pairs, reasons, kept, float(drawn or 0), bad, joins.facts)
