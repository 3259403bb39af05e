"""What all pairs together decide: SQL over the measures of every shard, in DuckDB, which works out of core."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

BATCH = 65_536  # rows
GB = 10**9  # bytes, as DuckDB counts them
# Every reader of measures names these. DuckDB takes a folder called `words=3` above a file for a partition of a data
# set, and replaces the column of that name in all rows.
READING = "hive_partitioning = false"


class Measured(NamedTuple):
    """The measures of a shard: a Parquet file, and the number of the shard's first sample in the source."""

    path: Path
    first: int


def check_memory(memory: float) -> None:
    """Raise ValueError if the joins cannot be given so much memory, in GB."""
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GB
    if not 1 / GB <= memory <= available:
        raise ValueError(
            f"--memory {memory:g}: the joins can have up to the {available:.1f} GB of this machine; name fewer, as "
            "what does not fit goes to the disk"
        )


@contextmanager
def explain_lack_of_memory(memory: float) -> Iterator[None]:
    """Turn DuckDB's error that its memory, in GB, or its disk is full into a ValueError or OSError of one sentence."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        if "temp_directory" in str(error):  # of what it has put on the disk
            raise OSError("the joins do not fit on the disk of --output; make room there") from error
        raise ValueError(
            f"--memory {memory:g}: the joins need more than that many GB; name more, and the same command goes on"
        ) from error
    except duckdb.IOException as error:
        if "No space left" in str(error) or "Disk quota" in str(error):
            raise OSError("the disk of --output is full; make room, and the same command goes on") from error
        raise


def read_rows(path: Path, columns: str, condition: str, order: str) -> list[tuple]:
    """Return some columns of the rows of a Parquet file that a condition holds for, all as SQL."""
    query = f"select {columns} from read_parquet(?, {READING}) where {condition} order by {order}"  # noqa: S608  -- no text of the data is in it
    return duckdb.execute(query, [str(path)]).fetchall()


def read_all(path: Path) -> None:
    """Decode every value of a Parquet file, and keep none; duckdb.Error if one cannot be decoded."""
    with duckdb.connect() as database:
        rows = database.execute(f"select * from read_parquet(?, {READING})", [str(path)])  # noqa: S608  -- no text of the data is in it
        for _ in rows.to_arrow_reader(BATCH) or ():
            pass


class Joins:
    """A database in which steps remove pairs and weight them.

    Views, of which every row is a pair with its `sample` (its number in the source), `shard` and measures:
        `measured`: all; `readable`: those that could be read; `alive`: those that no step has removed so far;
        `embedded`: the embeddings, where there are some; `measures`: as `measured`, without what these give.

    Args:
        parts: the measures of every shard, in the order of the source.
        folder: where it puts what does not fit into memory.
        memory: of its tables, in GB.
        embeddings: of every shard.

    Attributes:
        step: that removes or weights now.
        facts: what steps report, for people, by step; and figures of theirs for JSON in `figures`.
        columns: of the views.
    """

    def __init__(
        self, parts: Sequence[Measured], folder: Path, memory: float = 1.0, embeddings: Sequence[Measured] = ()
    ):
        self.step = ""
        self.facts: dict[str, list[str]] = {}
        self.figures: dict[str, Any] = {}
        self.folder = folder
        check_memory(memory)
        # In whole bytes: DuckDB does not read numbers such as 1e-05.
        limits: dict[str, Any] = {
            "memory_limit": f"{round(memory * GB)}B",
            "temp_directory": str(folder / "spilled"),
        }
        self.database = duckdb.connect(config=limits)
        self.database.execute("set preserve_insertion_order = false")
        self.database.execute("create table fates (sample bigint, step varchar, reason varchar, nearest bigint)")
        self.database.execute("create table weights (sample bigint, weight double)")
        self.database.execute("create table scores (sample bigint, score double)")
        self._view("measures", parts)
        if embeddings:
            self._view("embedded", embeddings)
            cosines = "sample, cosine_zh, cosine_en, cosine_other"
            self.database.execute(
                f"create view measured as select * from measures left join (select {cosines} from embedded) "  # noqa: S608  -- no text of the data is in it
                "using (sample) left join scores using (sample)"
            )
        else:
            self.database.execute("create view measured as select * from measures")
        self.database.execute("create view readable as select * from measured where bad is null")
        self.database.execute("create view alive as select * from readable anti join fates using (sample)")
        self.columns = [row[0] for row in self.all("select column_name from (describe measured)")]

    def _view(self, name: str, parts: Sequence[Measured]) -> None:
        """A view of the rows of many files, each with the number of its sample."""
        self.database.execute(f"create table {name}_parts (filename varchar, shard integer, first bigint)")
        rows = [(str(part.path), number, part.first) for number, part in enumerate(parts)]
        for start in range(0, len(rows), 1000):
            self.database.executemany(f"insert into {name}_parts values (?, ?, ?)", rows[start : start + 1000])  # noqa: S608  -- no text of the data is in it
        files = dict.fromkeys("'" + str(part.path).replace("'", "''") + "'" for part in parts)
        self.database.execute(
            f"create view {name} as select parts.first + row as sample, parts.shard, read.* exclude (filename) "  # noqa: S608  -- no text of the data is in it
            f"from read_parquet([{', '.join(files)}], filename = true, {READING}) read "
            f"join {name}_parts parts using (filename)"
        )

    def has(self, column: str) -> bool:
        """Whether a step measures a column."""
        return column in self.columns

    @property
    def better(self) -> str:
        """The order in which one of several pairs stays: the largest image, the best score, the longest caption."""
        orders = {"width": "width * height desc", "score": "score desc nulls last", "characters": "characters desc"}
        return ", ".join([*(order for column, order in orders.items() if self.has(column)), "sample"])

    def all(self, query: str, values: Iterable[Any] = ()) -> list[tuple]:
        """The rows of a query, which should be few."""
        return self.database.execute(query, list(values)).fetchall()

    def rows(self, query: str) -> Iterator[pa.RecordBatch]:
        """The rows of a query in batches, however many they are; other queries may be asked meanwhile."""
        with self.database.cursor() as cursor:
            yield from cursor.sql(query).to_arrow_reader(BATCH)

    @contextmanager
    def given(self, **tables: pa.Table) -> Iterator[None]:
        """Lets queries read tables by these names."""
        for name, table in tables.items():
            self.database.register(name, table)
        yield
        for name in tables:
            self.database.unregister(name)

    def remove(self, reason: str, query: str) -> None:
        """Removes what a query gives: columns sample, and nearest, the pair that stayed in its stead, or null."""
        self.database.execute(
            "insert into fates select found.sample, ?, ?, found.nearest from "  # noqa: S608  -- no text of the data is in it
            f"(select #1 as sample, #2 as nearest from ({query})) found anti join fates using (sample)",
            [self.step, reason],
        )

    def apply(self, step: str, rules: Iterable[tuple[str, str]]) -> None:
        """Removes by conditions on the measures of a pair alone; the first that holds is the reason."""
        rules = list(rules)
        if rules:
            reasons = [reason.replace("'", "''") for reason, _ in rules]
            cases = " ".join(
                f"when {condition} then '{reason}'" for reason, (_, condition) in zip(reasons, rules, strict=True)
            )
            self.database.execute(
                f"insert into fates select sample, '{step}', reason, null from "  # noqa: S608  -- no text of the data is in it
                f"(select sample, case {cases} end as reason from alive) where reason is not null"
            )

    def close(self) -> None:
        """Ends the database; what it holds is gone."""
        self.database.close()
