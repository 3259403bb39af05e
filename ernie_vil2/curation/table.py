"""The table of a curation: one row per pair, one Parquet file per shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import compute, parquet

from ernie_vil2.curation.joins import Joins
from ernie_vil2.curation.step import UNREADABLE

FIRST = ("sample", "row", "key", "id", "kept", "weight", "step", "reason", "nearest", "nearest_key")
"""Columns before the measures (docs/curate.md)."""
NOT_SHOWN = {"shard", "bad", "first", "thumbnail", "sketch", "long_sketches"}


def write_table(joins: Joins, sizes: Sequence[int], folder: Path) -> list[dict[str, Any]]:
    """Writes the files of the table into a folder.

    Args:
        sizes: samples of each shard.

    Returns:
        For each shard its `file`, how many pairs were `kept` and how many are `drawn` in an epoch on average.
    """
    measures = [name for name in joins.columns if name not in {*FIRST, *NOT_SHOWN}]
    listed = "".join(f", m.{name}" for name in measures)
    query = (
        f"select m.sample, m.row, m.key, coalesce(m.id, 0) as id, m.bad is null and f.step is null as kept, "
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
    """Batches cut into tables of these sizes."""
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
