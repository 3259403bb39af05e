"""Items with their embeddings, searched by the product: the interface, and the embedded form of it.

An embedded collection is a folder:

    items.sqlite   items with their fields and thumbnails; what is committed here is what the collection holds
    rows.f16       their embeddings, float16, one row after the other: the truth; a row is never changed
    engine/        what was built from the rows to search them faster (`search.engines`)

Adding appends rows and then commits the items that name them, so that a process that is killed between the two leaves
rows that nobody names, which the next writer overwrites. Replacing and removing an item leaves its row behind.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ernie_vil2.files import write_text
from ernie_vil2.search.engines import ENGINES, EXACT_UP_TO, RERANKED, Engine, Exact, ranked

Where = Mapping[str, Any]
"""Filter: the value, or the list of values, that an item's field must have, by field."""
KEPT_FILTERS = 16
MOST_VALUES = 200
"""Distinct values up to which a field is offered as a filter."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, fields TEXT NOT NULL,
    location TEXT NOT NULL, thumbnail BLOB
);
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Item:
    """What is indexed beside an embedding.

    Attributes:
        id: unique in its collection.
        digest: of the content that was encoded; an item with an equal one need not be encoded again.
        fields: for people and for filters: captions, tags, licence, ...
        location: where the content lies, as [source, number] or [file].
        thumbnail: a small picture, WebP; None of a text.
    """

    id: str
    digest: bytes
    fields: Mapping[str, Any] = field(default_factory=dict)
    location: Sequence[Any] = ()
    thumbnail: bytes | None = None


class Hit(NamedTuple):
    """An item that was found. `score` is the cosine of its embedding and the query's."""

    id: str
    score: float
    fields: Mapping[str, Any]


class Collection(Protocol):
    """Items by id, each with an L2-normalised embedding of one width."""

    def __len__(self) -> int: ...

    def add(self, items: Sequence[Item], embeddings: np.ndarray) -> None:
        """Adds items, `[n, D]` float; one of an id that is there already replaces it. All of them or none."""

    def remove(self, ids: Sequence[str]) -> int:
        """Removes the items of these ids, where there are such; returns how many there were."""

    def search(self, queries: np.ndarray, count: int, where: Where | None = None) -> list[list[Hit]]:
        """For each query, `[Q, D]` float32, the closest `count` items among those that `where` admits, best first."""

    def get(self, item: str) -> Item | None:
        """The item of an id, without its thumbnail where the engine keeps none."""

    def embedding(self, item: str) -> np.ndarray | None:
        """`[D]` float32 of the item of an id."""

    def digests(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The digests of those of these ids that are there."""

    def texts(self, count: int) -> list[str]:
        """Captions and tags of up to `count` items, spread evenly over the collection: queries to tune on."""

    def sample(self, count: int) -> np.ndarray:
        """`[n, D]` float32: up to `count` of its embeddings."""

    def facets(self) -> dict[str, list[tuple[Any, int]]]:
        """Fields that are worth filtering by: for each its values and how many items have each, most frequent first."""

    def build(
        self, engine: str | None, queries: Callable[[], np.ndarray], recall: float, log: Callable[[str], None]
    ) -> None:
        """Makes searching fast; see `Engine.build`. None: the engine that suits the number of rows."""

    def close(self) -> None: ...


class FacetCounts:
    """Counts the values of items' fields, to find out which are worth filtering by."""

    def __init__(self):
        self._counts: dict[str, Counter] = {}

    def add(self, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items():
            counts = self._counts.setdefault(name, Counter())
            if isinstance(value, str | bool | int) and len(counts) <= MOST_VALUES:
                counts[value] += 1

    def facets(self) -> dict[str, list[tuple[Any, int]]]:
        """See `Collection.facets`."""
        return {name: found.most_common() for name, found in self._counts.items() if 1 < len(found) <= MOST_VALUES}


def captions(fields: Iterable[Mapping[str, Any]]) -> list[str]:
    """The captions among the fields of items, each once."""
    found = {
        value: None
        for item in fields
        for name, value in item.items()
        if name.startswith("caption") and isinstance(value, str) and value.strip()
    }
    return list(found)


def checked(embeddings: np.ndarray, count: int, width: int, dtype: type) -> np.ndarray:
    """Embeddings of `count` items as `[count, width]` of a type; ValueError if they are not that, or not finite."""
    embeddings = np.asarray(embeddings, dtype)
    if embeddings.shape != (count, width):
        raise ValueError(f"{count} items need embeddings [{count}, {width}], got {list(embeddings.shape)}")
    if not np.isfinite(embeddings).all():
        raise ValueError("embeddings that are not finite cannot be indexed; is the checkpoint whole?")
    return embeddings


class DamagedIndex(ValueError):
    """Files of an index that do not fit together; the message says which."""


@dataclass
class _Snapshot:
    """What a collection held when it was opened."""

    generation: int
    count: int
    rows: np.ndarray
    engine: Engine = field(init=False)
    allowed: dict[str, np.ndarray] = field(default_factory=dict)


class LocalCollection:
    """The embedded collection.

    Args:
        folder: its own.
        width: D.
        writable: whether it may be changed; the caller sees to it that there is one writer.

    Raises:
        DamagedIndex: there are fewer rows than items name.
    """

    def __init__(self, folder: Path, width: int, writable: bool = False):
        self.folder, self.width = folder, width
        if writable:
            folder.mkdir(parents=True, exist_ok=True)
        path = folder / "items.sqlite"
        if not path.exists() and not writable:
            raise DamagedIndex(f"{path} is missing; build the index again")
        # A reader's connection serves all threads of a server: SQLite itself is serialised.
        self._items = sqlite3.connect(path, check_same_thread=False, timeout=30)
        try:
            self._items.execute("PRAGMA journal_mode=WAL")
            if writable:
                self._items.executescript(_SCHEMA)
            self._open()
        except sqlite3.DatabaseError as error:
            raise DamagedIndex(f"{path} cannot be read ({error}); build the index again") from error

    def _open(self) -> None:
        """Takes note of what is committed, all at once: searches of other threads go on with what they began with."""
        rows = self._state("rows", 0)
        path = self.folder / "rows.f16"
        stored = path.stat().st_size // (2 * self.width) if path.exists() else 0
        if stored < rows:
            raise DamagedIndex(f"{path} holds {stored:,} of {rows:,} rows; build the index again")
        shape = (rows, self.width)
        self._now = _Snapshot(
            generation=self._state("generation", 0),
            count=self._items.execute("SELECT count(*) FROM items").fetchone()[0],
            rows=np.memmap(path, np.float16, "r", shape=shape) if rows else np.empty(shape, np.float16),
        )
        self._now.engine = self._opened_engine(self._now.rows)

    def _opened_engine(self, rows: np.ndarray) -> Engine:
        folder = self.folder / "engine"
        try:
            facts = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
            if facts["rows"] <= len(rows) and facts["name"] != Exact.name:
                return ENGINES[facts["name"]].open(rows[: facts["rows"]], folder)
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise DamagedIndex(f"{folder} cannot be read ({error}); remove it and build the index again") from error
        return Exact(rows)

    def refresh(self) -> None:
        """Opens the collection anew if a writer has changed it since."""
        if self._state("generation", 0) != self._now.generation:
            self._open()

    @property
    def rows(self) -> np.ndarray:
        """`[N, D]` float16: the embeddings of all items, and of those that were replaced or removed."""
        return self._now.rows

    @property
    def engine(self) -> dict[str, Any]:
        """What the engine says of itself, see `Engine.facts`."""
        return self._now.engine.facts

    def __len__(self) -> int:
        return self._now.count

    def add(self, items, embeddings):
        embeddings = checked(embeddings, len(items), self.width, np.float16)
        unique = {item.id: number for number, item in enumerate(items)}  # the last of an id
        chosen = sorted(unique.values())
        before = len(self._now.rows)
        with open(self.folder / "rows.f16", "ab") as file:
            file.truncate(2 * self.width * before)
            file.write(embeddings[chosen].tobytes())
            file.flush()
            os.fsync(file.fileno())
        rows = range(before, before + len(chosen))
        with self._transaction():
            self._items.executemany("DELETE FROM items WHERE id = ?", [(items[number].id,) for number in chosen])
            self._items.executemany(
                "INSERT INTO items (row, id, digest, fields, location, thumbnail) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (row, item.id, item.digest, _dumps(item.fields), _dumps(list(item.location)), item.thumbnail)
                    for row, item in zip(rows, (items[number] for number in chosen), strict=True)
                ],
            )
            self._set_state("rows", rows.stop)
            self._set_state("generation", self._now.generation + 1)
        self._open()

    def remove(self, ids):
        with self._transaction():
            removed = self._items.executemany("DELETE FROM items WHERE id = ?", [(one,) for one in ids]).rowcount
            self._set_state("generation", self._now.generation + 1)
        self._open()
        return removed

    def search(self, queries, count, where=None):
        now = self._now
        queries = np.asarray(queries, np.float32).reshape(-1, self.width)
        count = min(count, now.count)
        if not count:
            return [[] for _ in queries]
        allowed = self._allowed(now, _dumps(where or {}))
        candidates = np.concatenate(list(_candidates(now, queries, max(count, RERANKED), allowed)), axis=1)
        found = ranked(now.rows, queries, candidates, count)
        return [self._hits(scores, rows) for scores, rows in zip(*found, strict=True)]

    def get(self, item):
        found = self._items.execute(
            "SELECT id, digest, fields, location, thumbnail FROM items WHERE id = ?", (item,)
        ).fetchone()
        return found and Item(found[0], found[1], json.loads(found[2]), json.loads(found[3]), found[4])

    def embedding(self, item):
        found = self._items.execute("SELECT row FROM items WHERE id = ?", (item,)).fetchone()
        return None if found is None else self._now.rows[found[0]].astype(np.float32)

    def digests(self, ids):
        found = {}
        for one in ids:
            row = self._items.execute("SELECT digest FROM items WHERE id = ?", (one,)).fetchone()
            if row:
                found[one] = row[0]
        return found

    def texts(self, count):
        rows = np.unique(np.linspace(0, max(len(self._now.rows) - 1, 0), 4 * count, dtype=int)).tolist()
        found = (self._items.execute("SELECT fields FROM items WHERE row = ?", (row,)).fetchone() for row in rows)
        return captions(json.loads(row[0]) for row in found if row)[:count]

    def sample(self, count):
        rows = self._now.rows
        return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows)), dtype=int))].astype(np.float32)

    def facets(self):
        return self._state("facets", {})

    def build(self, engine, queries, recall, log):
        rows, folder = self._now.rows, self.folder / "engine"
        name = engine or ("exact" if len(rows) <= EXACT_UP_TO else "ivf")
        folder.mkdir(exist_ok=True)
        built = ENGINES[name].build(rows, queries, recall, folder, log)
        write_text(folder / "engine.json", _dumps(built.facts))
        with self._transaction():
            self._set_state("facets", self._count_facets())
            self._set_state("generation", self._now.generation + 1)
        self._open()

    def close(self):
        self._items.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of the block is committed, or nothing of it; OSError where there is no room."""
        try:
            with self._items:
                yield
        except sqlite3.OperationalError as error:
            raise OSError(f"{self.folder / 'items.sqlite'}: {error}") from error

    def _hits(self, scores: np.ndarray, rows: np.ndarray) -> list[Hit]:
        hits = []
        for score, row in zip(scores.tolist(), rows.tolist(), strict=True):
            # An item may have been removed since its row was found.
            found = self._items.execute("SELECT id, fields FROM items WHERE row = ?", (row,)).fetchone()
            if found:
                hits.append(Hit(found[0], score, json.loads(found[1])))
        return hits

    def _allowed(self, now: _Snapshot, where: str) -> np.ndarray | None:
        """bool `[rows]`: those of items that a filter admits; None: all rows. The last filters' are kept."""
        filters = json.loads(where)
        if not filters and now.count == len(now.rows):
            return None
        if where in now.allowed:
            return now.allowed[where]
        clauses, values = [], []
        for name, wanted in filters.items():
            wanted = wanted if isinstance(wanted, list) else [wanted]
            marks = ", ".join("?" * len(wanted))
            clauses.append(f"json_extract(fields, ?) IN ({marks})")
            values += [f'$."{name}"', *wanted]
        condition = f"WHERE {' AND '.join(clauses)}" if clauses else ""
        rows = [row for (row,) in self._items.execute(f"SELECT row FROM items {condition}", values)]
        allowed = np.zeros(len(now.rows), bool)
        allowed[[row for row in rows if row < len(allowed)]] = True
        if len(now.allowed) >= KEPT_FILTERS:
            now.allowed.clear()
        now.allowed[where] = allowed
        return allowed

    def _count_facets(self) -> dict[str, list[tuple[Any, int]]]:
        counts = FacetCounts()
        for (text,) in self._items.execute("SELECT fields FROM items"):
            counts.add(json.loads(text))
        return counts.facets()

    def _state(self, key: str, default: Any) -> Any:
        try:
            found = self._items.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
        except sqlite3.OperationalError:
            return default
        return default if found is None else json.loads(found[0])

    def _set_state(self, key: str, value: Any) -> None:
        self._items.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, json.dumps(value)))


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _candidates(now: _Snapshot, queries: np.ndarray, count: int, allowed: np.ndarray | None) -> Iterator[np.ndarray]:
    """Parts of the candidates, `[Q, C]` rows: from the engine and from the rows that came after it was built."""
    covered = now.engine.facts["rows"]
    chosen = np.arange(len(now.rows)) if allowed is None else np.flatnonzero(allowed)
    few = allowed is not None and len(chosen) <= min(EXACT_UP_TO, len(now.rows) // 2)
    if now.engine.name != Exact.name and (few or count * 20 > covered):
        # An approximate engine looks at a few of all rows, and may see too few of these.
        yield _exact(now.rows, chosen, queries, count)
        return
    yield now.engine.candidates(queries, count, None if allowed is None else allowed[:covered])
    if covered < len(now.rows):
        yield _exact(now.rows, chosen[np.searchsorted(chosen, covered) :], queries, count)


def _exact(rows: np.ndarray, chosen: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    if not len(chosen):
        return np.empty([len(queries), 0], np.int64)
    found = Exact(rows[chosen]).candidates(queries, count)
    return np.where(found >= 0, chosen[found], -1)
