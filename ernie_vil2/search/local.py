"""The embedded form of a collection, a folder:

    items.sqlite   items with their fields and thumbnails; what is committed here is what the collection holds
    rows.f16       their embeddings, float16, one row after the other: the truth; a row is never changed
    engine/        what was built from the rows to search them faster (`search.engines`)

Adding appends rows and then commits the items that name them, so that a process that is killed between the two leaves
rows that nobody names, which the next writer overwrites. Replacing and removing an item leaves its row behind.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.search.collection import DamagedIndex, FacetCounts, Hit, Item, captions, checked
from ernie_vil2.search.engines import EXACT_UP_TO, RERANKED, Engine, Exact, build_engine, open_engine, ranked

KEPT_FILTERS = 16

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, fields TEXT NOT NULL,
    location TEXT NOT NULL, thumbnail BLOB
);
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass
class _Snapshot:
    """What a collection held when it was opened."""

    generation: int
    count: int
    rows: np.ndarray
    engine: Engine = field(init=False)
    allowed: dict[str, np.ndarray] = field(default_factory=dict)
    field_names: list[str] | None = None


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
        mode = "rwc" if writable else _reading_mode(path)
        # A reader's connection serves all threads of a server: SQLite itself is serialised.
        self._items = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}", uri=True, check_same_thread=False, timeout=30
        )
        if writable:
            with self._transaction():
                self._items.execute("PRAGMA journal_mode=WAL")
                self._items.executescript(_SCHEMA)
        self._open()

    def _open(self) -> None:
        """Takes note of what is committed, all at once: searches of other threads go on with what they began with."""
        state = self._state()
        rows = state.get("rows", 0)
        path = self.folder / "rows.f16"
        stored = path.stat().st_size // (2 * self.width) if path.exists() else 0
        if stored < rows:
            raise DamagedIndex(self._advised(f"{path} holds {stored:,} of {rows:,} rows"))
        shape = (rows, self.width)
        self._now = _Snapshot(
            generation=state.get("generation", 0),
            count=state.get("count", 0),
            rows=np.memmap(path, np.float16, "r", shape=shape) if rows else np.empty(shape, np.float16),
        )
        try:
            self._now.engine = open_engine(self._now.rows, self.folder / "engine")
        except ValueError as error:
            raise DamagedIndex(str(error)) from error

    def refresh(self) -> None:
        """Opens the collection anew if a writer has changed it since."""
        if self._state().get("generation", 0) != self._now.generation:
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
            replaced = self._delete(items[number].id for number in chosen)
            self._items.executemany(
                "INSERT INTO items (row, id, digest, fields, location, thumbnail) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (row, item.id, item.digest, _dumps(item.fields), _location(item), item.thumbnail)
                    for row, item in zip(rows, (items[number] for number in chosen), strict=True)
                ],
            )
            self._set_state(rows=rows.stop, count=self._now.count - replaced + len(chosen))
        self._open()

    def update(self, items):
        if not items:
            return
        with self._transaction():
            self._items.executemany(
                "UPDATE items SET fields = ?, location = ? WHERE id = ?",
                [(_dumps(item.fields), _location(item), item.id) for item in items],
            )
            self._set_state()
        self._open()

    def remove(self, ids):
        with self._transaction():
            removed = self._delete(ids)
            self._set_state(count=self._now.count - removed)
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
        for one, digest, fields, location, thumbnail in self._select(
            "id, digest, fields, location, thumbnail FROM items WHERE id = ?", item
        ):
            return Item(one, digest, json.loads(fields), json.loads(location), thumbnail)
        return None

    def embedding(self, item):
        rows = self._now.rows
        for (row,) in self._select("row FROM items WHERE id = ?", item):
            if row < len(rows):
                return rows[row].astype(np.float32)
        return None

    def digests(self, ids):
        return {one: digest for one in ids for (digest,) in self._select("digest FROM items WHERE id = ?", one)}

    def named(self, names):
        ids = "id = ? OR (id > ? AND id < ?) ORDER BY id"
        return {
            name: [
                Item(one, digest, json.loads(fields), json.loads(location))
                for one, digest, fields, location in self._select(
                    f"id, digest, fields, location FROM items WHERE {ids}", name, f"{name} (", f"{name} )"
                )
            ]
            for name in names
        }

    def field_names(self):
        now = self._now
        if now.field_names is None:
            found = self._select("DISTINCT key FROM items, json_each(items.fields) ORDER BY key")
            now.field_names = [name for (name,) in found]
        return now.field_names

    def texts(self, count):
        rows = np.unique(np.linspace(0, max(len(self._now.rows) - 1, 0), 4 * count, dtype=int)).tolist()
        found = (self._select("fields FROM items WHERE row = ?", row) for row in rows)
        return captions(json.loads(fields) for one in found for (fields,) in one)[:count]

    def sample(self, count):
        rows = self._now.rows
        return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows)), dtype=int))].astype(np.float32)

    def facets(self):
        return self._state().get("facets", {})

    def build(self, engine, queries, recall, log):
        rows, folder = self._now.rows, self.folder / "engine"
        name = engine or ("exact" if len(rows) <= EXACT_UP_TO else "ivf")
        folder.mkdir(exist_ok=True)
        build_engine(name, rows, queries, recall, folder, log)
        with self._transaction():
            self._set_state(facets=self._count_facets())
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
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _hits(self, scores: np.ndarray, rows: np.ndarray) -> list[Hit]:
        hits = []
        for score, row in zip(scores.tolist(), rows.tolist(), strict=True):
            # An item may have been removed since its row was found.
            for one, fields in self._select("id, fields FROM items WHERE row = ?", row):
                hits.append(Hit(one, score, json.loads(fields)))
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
        rows = [row for (row,) in self._select(f"row FROM items {condition}", *values)]
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

    def _select(self, what: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a SELECT; DamagedIndex if SQLite finds the file damaged."""
        try:
            return self._items.execute(f"SELECT {what}", values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DamagedIndex:
        return DamagedIndex(self._advised(f"{self.folder / 'items.sqlite'} cannot be read ({error})"))

    def _advised(self, wrong: str) -> str:
        return f"{wrong}; remove {self.folder} and build the index again"

    def _delete(self, ids: Iterable[str]) -> int:
        """Deletes items; returns how many there were."""
        return max(self._items.executemany("DELETE FROM items WHERE id = ?", [(one,) for one in ids]).rowcount, 0)

    def _state(self) -> dict[str, Any]:
        """What the collection says of itself, as of one moment; nothing while it is being made."""
        if not self._select("name FROM sqlite_master WHERE name = 'state'"):
            return {}
        return {key: json.loads(value) for key, value in self._select("key, value FROM state")}

    def _set_state(self, **state: Any) -> None:
        """Notes what has changed, and that something has."""
        state["generation"] = self._now.generation + 1
        self._items.executemany(
            "INSERT OR REPLACE INTO state VALUES (?, ?)", [(key, json.dumps(value)) for key, value in state.items()]
        )


def _reading_mode(path: Path) -> str:
    """How SQLite opens a file for a reader, who writes as well: into the log's index beside it, where a log is kept.

    Raises:
        DamagedIndex: there is a log that cannot be worked off, as nothing can be written there.
        PermissionError: the reader must not write into the folder, but others may.
    """
    if os.access(path.parent, os.W_OK):
        return "rw"
    if not os.statvfs(path.parent).f_flag & os.ST_RDONLY:
        raise PermissionError(
            errno.EACCES, "a reader too must be able to write here, or have it read-only", str(path.parent)
        )
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise DamagedIndex(f"{log} holds changes that were not finished; open the index once where it can be written")
    return "ro&immutable=1"


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _location(item: Item) -> str:
    """In ASCII, as the names of files need not be Unicode."""
    return json.dumps(list(item.location))


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
