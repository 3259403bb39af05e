"""`items.sqlite` of a collection: its items, what it says of itself, and the checksums of items and rows.

The file may be damaged, or a stranger's: nothing in it is run, and what is read is checked (`search.integrity`).
"""

import errno
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.apps.search import integrity
from ernie_vil2.apps.search.collection import DamagedIndex, Item

NAME = "items.sqlite"
COLUMNS = ("row", "id", "digest", "fields", "location", "thumbnail")
VERSION = 1  # of the database, as its `user_version`
SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, fields TEXT NOT NULL,
    location TEXT NOT NULL, thumbnail BLOB
);
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS checksums (row INTEGER PRIMARY KEY, item BLOB NOT NULL, thumbnail BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS blocks (first INTEGER PRIMARY KEY, stop INTEGER NOT NULL, sha256 BLOB NOT NULL);
"""
"""The checksums are of every item with its embedding, and of blocks of rows."""
_OTHER_CAUSES = {
    getattr(sqlite3, f"SQLITE_{name}")
    for name in ("BUSY", "LOCKED", "CANTOPEN", "PERM", "FULL", "IOERR", "READONLY", "NOMEM")
}
"""Errors of SQLite that say nothing about the file."""


class ItemsFile:
    """The database in the folder of a collection; a writer makes it where there is none, and there is one writer.

    DamagedIndex if it is missing, is not a database, or holds anything but the tables of an index.
    """

    def __init__(self, folder: Path, writable: bool):
        self.folder, path = folder, folder / NAME
        new = not path.exists()
        if new and not writable:
            raise DamagedIndex(f"{path} is missing; build the index again")
        mode = "rwc" if writable else _reading_mode(path)
        with self.explained():
            integrity.check_is_file(path)
            # A reader's connection serves all threads of a server: SQLite itself is serialised.
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}", uri=True, check_same_thread=False, timeout=30
            )
            for setting in ("trusted_schema = OFF", "cell_size_check = ON", f"query_only = {not writable}"):
                self._connection.execute(f"PRAGMA {setting}")
            if writable:
                self._connection.execute("PRAGMA journal_mode = WAL")
                if new or not self.is_made():
                    self._connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")

    def close(self) -> None:
        self._connection.close()

    def is_made(self) -> bool:
        """Return whether the database has its tables; not while it is being made."""
        with self.explained():
            ((version,),) = self._connection.execute("PRAGMA user_version")
            if version not in (0, VERSION):
                raise DamagedIndex(f"{NAME} names version {version} of its format, and version {VERSION} is read here")
            found = integrity.has_schema(self._connection, SCHEMA)
            if found and not version:
                raise DamagedIndex(f"{NAME} names no version of its format")
            rows = self.folder / "rows.f16"
            if not found and rows.exists() and rows.stat().st_size:
                raise DamagedIndex(f"{NAME} is empty")
            return found

    def select(self, what: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a SELECT."""
        with self.explained():
            return self._connection.execute(f"SELECT {what}", values).fetchall()

    def every(self, what: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """As `select`, one by one."""
        with self.explained():
            yield from self._connection.execute(f"SELECT {what}", values)

    def records(self, condition: str = "", *values: Any, thumbnails: bool = True) -> Iterator[tuple[Any, ...]]:
        """Return the `COLUMNS` of items, and the checksums of item and thumbnail; None for a thumbnail not read."""
        of_items, of_checksums = ("items.thumbnail", "checksums.thumbnail") if thumbnails else ("NULL", "NULL")
        columns = f"items.row, id, digest, fields, location, {of_items}, checksums.item, {of_checksums}"
        tables = "items LEFT JOIN checksums ON checksums.row = items.row"
        return self.every(f"{columns} FROM {tables} {condition}", *values)

    def state(self) -> dict[str, Any]:
        """What the collection says of itself, as of one moment; of one that is being made, that it is empty."""
        state, (first, last, *ids) = self._state()
        with self.explained():
            if last is not None and not 0 <= first <= last < state["rows"]:
                raise DamagedIndex(f"{NAME} names the rows {first:,} to {last:,} of {state['rows']:,}")
            if last is not None and not all(isinstance(one, str) for one in ids):
                raise DamagedIndex(f"{NAME} holds an id that is not a text")  # others are less or more than all texts
        return state

    def _state(self) -> tuple[dict[str, Any], Sequence[Any]]:
        """As `state`, and of the items the least and the largest row, and the least and the largest id."""
        with self.explained():
            is_made, name = self.is_made(), f"{NAME}: state"
            found: Sequence[Sequence[Any]] = [(None,) * 6]
            if is_made:
                ends = (f"(SELECT {end}({column}) FROM items)" for column in ("row", "id") for end in ("min", "max"))  # noqa: S608  -- no text of the data is in it
                found = self.select(f"key, value, ends.* FROM (SELECT {', '.join(ends)}) AS ends LEFT JOIN state")
            state = {key: integrity.parsed(value, object, name) for key, value, *_ in found if key is not None}
            if state:
                state = integrity.unsealed(state, name)
            return integrity.check_state(state, name), found[0][2:]

    def is_of(self, generation: int) -> bool:
        """Whether nothing has been committed since the collection was of this generation."""
        found = self.select("value FROM state WHERE key = 'generation'") if self.is_made() else []
        return found == ([(str(generation),)] if generation else [])

    def integrity_check(self, most: int) -> list[tuple[str]]:
        """What SQLite finds wrong with the structure of the file; nothing if it is right."""
        with self.explained():
            found = self._connection.execute(f"PRAGMA integrity_check({most})").fetchall()
        return [] if found == [("ok",)] else found

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All that the block reads is of one moment."""
        with self.explained():
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.rollback()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block is committed, or nothing of it; OSError where there is no room."""
        with self.explained(), self._connection:
            yield

    def set_state(self, **state: Any) -> None:
        """Notes what has changed, and that something has."""
        self._write_state(self._state()[0] | state)

    def _write_state(self, state: dict[str, Any]) -> None:
        state["generation"] += 1
        self._connection.executemany(
            "INSERT OR REPLACE INTO state VALUES (?, ?)",
            [(key, json.dumps(value)) for key, value in integrity.sealed(state).items()],
        )

    def add(self, items: Sequence[Item], rows: np.ndarray, first: int) -> None:
        """Adds items, of which the embeddings are `rows`, `[n, D]` float16, from row `first` of the file on."""
        records = [
            (row, item.id, item.digest, dumps(item.fields), _location(item), item.thumbnail)
            for row, item in enumerate(items, first)
        ]
        self._connection.executemany(
            f"INSERT INTO items ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})",  # noqa: S608  -- no text of the data is in it
            records,
        )
        self._keep_checksums(records, rows, first)

    def update(self, changed: Iterable[tuple[int, Item]], rows: np.ndarray) -> None:
        """Gives items of these rows, of all `[N, D]`, their fields and locations."""
        for row, item in changed:
            record = (row, item.id, item.digest, dumps(item.fields), _location(item))
            self._connection.execute("UPDATE items SET fields = ?, location = ? WHERE row = ?", (*record[3:], row))
            checksum = item_checksum(record, rows[row])
            self._connection.execute("UPDATE checksums SET item = ? WHERE row = ?", (checksum, row))

    def delete(self, ids: Iterable[str]) -> int:
        """Deletes items; returns how many there were."""
        given = [(one,) for one in ids]
        self._connection.executemany("DELETE FROM checksums WHERE row IN (SELECT row FROM items WHERE id = ?)", given)
        return max(self._connection.executemany("DELETE FROM items WHERE id = ?", given).rowcount, 0)

    def _keep_checksums(self, records: Iterable[Sequence[Any]], rows: np.ndarray, first: int) -> None:
        self._connection.executemany(
            "INSERT INTO checksums VALUES (?, ?, ?)",
            (
                (record[0], item_checksum(record[:-1], rows[record[0] - first]), integrity.checksum(record[-1]))
                for record in records
            ),
        )
        block = (first, first + len(rows), block_checksum(rows, range(len(rows))))
        self._connection.execute("INSERT INTO blocks VALUES (?, ?, ?)", block)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Adds the folder and the advice to a DamagedIndex that names a file, and names errors of SQLite."""
        try:
            yield
        except DamagedIndex as error:
            if str(self.folder) in str(error):
                raise
            raise DamagedIndex(self._advised(str(error))) from error
        except sqlite3.Error as error:
            if (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in _OTHER_CAUSES:
                raise OSError(f"{self.folder / NAME}: {error}") from error
            raise DamagedIndex(self._advised(f"{NAME} cannot be read ({error})")) from error
        except MemoryError as error:  # SQLite asks for as much as a damaged length says
            raise DamagedIndex(self._advised(f"{NAME} holds more than fits into memory")) from error

    def _advised(self, wrong: str) -> str:
        return f"{self.folder / wrong}; remove {self.folder} and build the index again"


def verified(record: Sequence[Any], rows: np.ndarray) -> Item:
    """The item of what `ItemsFile.records` gives, of a collection with the rows `[N, D]` float16.

    DamagedIndex if the row is not there, a column is of another form, or the item differs from its checksum.
    """
    row, one, digest, fields, location, thumbnail, item_sum, thumbnail_sum = record
    if not 0 <= row < len(rows):
        raise DamagedIndex(f"{NAME} names row {row:,} of {len(rows):,}")
    item = integrity.item_of(one, digest, fields, location, thumbnail, NAME)
    if item_sum != item_checksum(record[: len(COLUMNS) - 1], rows[row]) or (
        thumbnail_sum is not None and thumbnail_sum != integrity.checksum(item.thumbnail)
    ):
        raise DamagedIndex(f"{NAME} or rows.f16: item {item.id[:100]!r} differs from its checksum")
    return item


def item_checksum(record: Sequence[Any], embedding: np.ndarray) -> bytes:
    """Of an item, the `COLUMNS` but its thumbnail, and its embedding `[D]`."""
    return integrity.checksum(*record, embedding.tobytes())


def block_checksum(rows: np.ndarray, block: range) -> bytes:
    """Of consecutive rows of `[N, D]`."""
    return hashlib.sha256(np.ascontiguousarray(rows[block.start : block.stop]).data).digest()


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _location(item: Item) -> str:
    """In ASCII, as the names of files need not be Unicode."""
    return json.dumps(list(item.location))


def _reading_mode(path: Path) -> str:
    """How SQLite opens a file for a reader, who writes as well: into the log's index next to it, where a log is kept.

    PermissionError if others alone may write there, and DamagedIndex if nobody can and a log is not worked off.
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
