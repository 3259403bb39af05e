"""Joins: decisions about all pairs together, as SQL over the measures of every shard.

DuckDB runs them, because it can work on tables that do not fit into memory.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from ernie_vil2.apps.curation.rules import Rule

BATCH = 65_536  # rows of a batch that leaves the database: bounds the memory of those who read it
INSERT_BATCH = 1000  # rows of one executemany
GB = 10**9  # bytes, as DuckDB counts them
# All queries that read measures need this option. DuckDB takes a folder named `words=3` above a file for a partition of
# a data set, and would replace the column `words` by 3 in all rows.
READ_OPTIONS = "hive_partitioning = false"


class MeasuresFile(NamedTuple):
    """A Parquet file with measures, or embeddings, of the pairs of a shard.

    path: the file.
    first_sample: number of the shard's first sample in the source.
    """

    path: Path
    first_sample: int


def check_memory(memory: float) -> None:
    """Raise ValueError unless the joins can have this much memory, in GB."""
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GB
    if not 1 / GB <= memory <= available:
        raise ValueError(
            f"--memory {memory:g}: the joins can have up to {available:.1f} GB on this machine; name less, because "
            "what does not fit is put on the disk"
        )


@contextmanager
def explain_lack_of_memory(memory: float) -> Iterator[None]:
    """Turn DuckDB's errors about memory, in GB, or a full disk into a ValueError or OSError of one sentence."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        # DuckDB raises the same error when its files on the disk reach their limit, and then names this setting.
        if "temp_directory" in str(error):
            raise OSError("the joins do not fit on the disk of --output; make room there") from error
        raise ValueError(
            f"--memory {memory:g}: the joins need more than that many GB; name more, and the same command continues"
        ) from error
    except duckdb.IOException as error:
        if "No space left" in str(error) or "Disk quota" in str(error):
            raise OSError("the disk of --output is full; make room, and the same command continues") from error
        raise


def read_rows(path: Path, columns: str, condition: str, order: str) -> list[tuple]:
    """Return columns of the rows of a Parquet file that meet a condition; columns, condition and order are SQL."""
    query = f"select {columns} from read_parquet(?, {READ_OPTIONS}) where {condition} order by {order}"  # noqa: S608  -- no text of the data is in it
    return duckdb.execute(query, [str(path)]).fetchall()


def decode_file(path: Path) -> None:
    """Decode every value of a Parquet file and discard it; duckdb.Error if a value cannot be decoded."""
    with duckdb.connect() as database:
        rows = database.execute(f"select * from read_parquet(?, {READ_OPTIONS})", [str(path)])  # noqa: S608  -- no text of the data is in it
        for _ in rows.to_arrow_reader(BATCH) or ():  # DuckDB declares the reader as optional
            pass


class Preference(NamedTuple):
    """A way in which a pair is better than one that shows the same.

    name: what the better pair has, in words.
    expression: SQL, greater for the better pair.
    """

    name: str
    expression: str


# Signs of a bad caption that are too weak to remove it.
FAULTS = (
    "cut_captions is not null",
    "tags > 0",
    "repetition > 0",
    "commonest > 0",
    "keywords > 0",
    "wrong_decoding > 0",
)


class Joins:
    """Database in which steps remove pairs and weight them.

    Steps read these views. A row is a pair, with its number in the source, `sample`:
        `pairs`: all pairs, with `shard`, measures, cosines and scores.
        `readable`: the pairs that could be read.
        `alive`: the readable pairs that no step has removed so far.
        `measures`: all pairs with their measures alone.
        `embeddings`: the embedded pairs with their embeddings; missing if no step embeds.

    Args:
        measures: measures of every shard, in the order of the source.
        folder: folder for what does not fit into memory, in `spilled`; no other joins use it.
        memory: memory of the tables, in GB.
        embeddings: embeddings of every shard.

    Attributes:
        step: name of the step that decides now.
        facts: sentences that steps report to people, by step.
        figures: figures that steps report in JSON, by step.
        columns: columns of the view `pairs`.
    """

    def __init__(
        self,
        measures: Sequence[MeasuresFile],
        folder: Path,
        memory: float = 1.0,
        embeddings: Sequence[MeasuresFile] = (),
    ):
        self.step = ""
        self.facts: dict[str, list[str]] = {}
        self.figures: dict[str, Any] = {}
        self.folder = folder
        check_memory(memory)
        spilled = folder / "spilled"
        shutil.rmtree(spilled, ignore_errors=True)  # of a killed run: DuckDB removes it only when it spills again
        limits: dict[str, Any] = {
            "memory_limit": f"{round(memory * GB)}B",  # in whole bytes: DuckDB does not read numbers such as 1e-05
            "temp_directory": str(spilled),
        }
        self.database = duckdb.connect(config=limits)
        # Queries that need an order ask for it; the others need less memory without.
        self.database.execute("set preserve_insertion_order = false")

        self.database.execute(
            "create table removals (sample bigint, step varchar, reason varchar, nearest bigint, advantage varchar)"
        )
        self.database.execute("create table weights (sample bigint, weight double)")
        self.database.execute("create table scores (sample bigint, score double)")

        self._create_view("measures", measures)
        if embeddings:
            self._create_view("embeddings", embeddings)
            cosines = "sample, cosine_zh, cosine_en, cosine_other"
            self.database.execute(
                f"create view pairs as select * from measures left join (select {cosines} from embeddings) "  # noqa: S608  -- no text of the data is in it
                "using (sample) left join scores using (sample)"
            )
        else:
            self.database.execute("create view pairs as select * from measures")
        self.database.execute("create view readable as select * from pairs where error is null")
        self.database.execute("create view alive as select * from readable anti join removals using (sample)")
        self.columns = [row[0] for row in self.fetch_all("select column_name from (describe pairs)")]

    def _create_view(self, name: str, files: Sequence[MeasuresFile]) -> None:
        """Create a view of the rows of many files, each row with the number of its sample."""
        self.database.execute(f"create table {name}_files (filename varchar, shard integer, first_sample bigint)")
        rows = [(str(file.path), shard, file.first_sample) for shard, file in enumerate(files)]
        for start in range(0, len(rows), INSERT_BATCH):
            self.database.executemany(f"insert into {name}_files values (?, ?, ?)", rows[start : start + INSERT_BATCH])  # noqa: S608  -- no text of the data is in it

        # Identical shards share a file, which is listed once here and joined with every shard.
        quoted_paths = ["'" + str(file.path).replace("'", "''") + "'" for file in files]
        path_list = ", ".join(dict.fromkeys(quoted_paths))
        self.database.execute(
            f"create view {name} as "  # noqa: S608  -- no text of the data is in it
            "select files.first_sample + row as sample, files.shard, content.* exclude (filename) "
            f"from read_parquet([{path_list}], filename = true, {READ_OPTIONS}) content "
            f"join {name}_files files using (filename)"
        )

    def has_column(self, column: str) -> bool:
        """Return whether a step measures a column."""
        return column in self.columns

    @property
    def preferences(self) -> list[Preference]:
        """What of several pairs decides which one to keep, in this order."""
        num_faults = " + ".join(f"coalesce({condition}, false)::int" for condition in FAULTS)
        preferences = {
            "width": Preference("is larger", "width * height"),
            "score": Preference("has a better score", "coalesce(score, '-infinity'::double)"),
            "cut_captions": Preference("has a caption with fewer faults", f"-({num_faults})"),
            "characters": Preference("has a longer caption", "characters"),
        }
        return [preference for column, preference in preferences.items() if self.has_column(column)]

    @property
    def preference(self) -> str:
        """SQL order of several pairs, the one to keep first."""
        return ", ".join([*(f"{preference.expression} desc" for preference in self.preferences), "sample"])

    def explain_removals(self) -> str:
        """Return a query of the removals, with the key of the nearest pair and what it has over the removed one.

        Its columns are `sample`, `step`, `reason`, `nearest`, `nearest_key` and `advantage`, in words.
        """
        columns = ["sample", "key"]
        cases = ["when r.nearest is null or r.advantage is not null then r.advantage"]
        for number, preference in enumerate(self.preferences):
            columns.append(f"{preference.expression} as preference_{number}")
            cases.append(f"when n.preference_{number} > s.preference_{number} then '{preference.name}'")
        values = ", ".join(columns)
        return (
            "select r.sample, r.step, r.reason, r.nearest, n.key as nearest_key, "  # noqa: S608  -- no text of the data is in it
            f"case {' '.join(cases)} else 'comes first' end as advantage from removals r "
            f"left join (select {values} from pairs where sample in (select nearest from removals)) n "
            "on r.nearest = n.sample "
            f"left join (select {values} from pairs where sample in "
            "(select sample from removals where nearest is not null)) s on r.sample = s.sample"
        )

    def fetch_all(self, query: str, values: Iterable[Any] = ()) -> list[tuple]:
        """Return all rows of a query that has few."""
        return self.database.execute(query, list(values)).fetchall()

    def describe_samples(self, samples: Iterable[int], query: str) -> dict[int, str]:
        """Return texts that are not null, of a query with the columns `sample` and a text, by sample."""
        listed = ", ".join(map(str, samples))
        rows = self.fetch_all(f"select #1, #2 from ({query}) where #1 in ({listed}) and #2 is not null")  # noqa: S608  -- no text of the data is in it
        return dict(rows)

    def read_batches(self, query: str) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a query in batches, however many there are; other queries may run meanwhile."""
        with self.database.cursor() as cursor:
            yield from cursor.sql(query).to_arrow_reader(BATCH)

    @contextmanager
    def register_tables(self, **tables: pa.Table) -> Iterator[None]:
        """Let queries in the block read tables by these names."""
        for name, table in tables.items():
            self.database.register(name, table)
        yield
        for name in tables:
            self.database.unregister(name)

    def remove(self, reason: str, query: str, advantage: str = "null") -> None:
        """Remove the pairs that a query returns and no step has removed yet.

        Args:
            reason: reason for the table and the page.
            query: SQL with two columns: the sample, and the sample that stays in its place, or null.
            advantage: column of the query with what the staying sample has over the other, in words, such as "is
                sharper"; null: the first of `preferences` that differs.
        """
        # #1 and #2 are the columns of the query, whatever their names.
        self.database.execute(
            "insert into removals select chosen.sample, ?, ?, chosen.nearest, chosen.advantage from "  # noqa: S608  -- no text of the data is in it
            f"(select #1 as sample, #2 as nearest, {advantage} as advantage from ({query})) chosen "
            "anti join removals using (sample)",
            [self.step, reason],
        )

    def apply_rules(self, step: str, rules: Iterable[Rule]) -> None:
        """Remove pairs by conditions on their own measures.

        Args:
            step: name of the step.
            rules: rules; the first condition that holds gives the reason.
        """
        cases = []
        for rule in rules:
            quoted_reason = rule.reason.replace("'", "''")
            cases.append(f"when {rule.condition} then '{quoted_reason}'")
        if cases:
            self.database.execute(
                f"insert into removals select sample, '{step}', reason, null, null from "  # noqa: S608  -- no text of the data is in it
                f"(select sample, case {' '.join(cases)} end as reason from alive) where reason is not null"
            )

    def close(self) -> None:
        """Close the database, whose tables are then gone."""
        self.database.close()
