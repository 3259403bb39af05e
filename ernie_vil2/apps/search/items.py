"""`items.sqlite` of a collection: the items and their words, the state of the collection, and checksums.

The file may be damaged, or a stranger's: nothing in it is executed, and what is read is checked (`search.integrity`).
"""

import errno
import hashlib
import json
import math
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.apps.search import integrity, words
from ernie_vil2.apps.search.collection import DamagedIndex, Hit, Item

FILE_NAME = "items.sqlite"
COLUMNS = ("row", "id", "digest", "fields", "location", "thumbnail")
VERSION = 3  # of the database, stored as its `user_version`
# `checksums` has one row for each item with its embedding, `blocks` one for each run of embeddings added together.
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS items (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, fields TEXT NOT NULL,
    location TEXT NOT NULL, thumbnail BLOB
);
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS checksums (row INTEGER PRIMARY KEY, item BLOB NOT NULL, thumbnail BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS blocks (first INTEGER PRIMARY KEY, stop INTEGER NOT NULL, sha256 BLOB NOT NULL);
{words.SCHEMA}"""
LOCK_TIMEOUT = 30  # seconds to wait for a writer's commit, which takes less than one
_SCHEMA_QUERY = "SELECT type, name, sql FROM sqlite_master"
# Errors of SQLite that come from the system and say nothing about the file.
_SYSTEM_ERRORS = {
    getattr(sqlite3, f"SQLITE_{name}")
    for name in ("BUSY", "LOCKED", "CANTOPEN", "PERM", "FULL", "IOERR", "READONLY", "NOMEM")
}


class ItemsFile:
    """The database in the folder of a collection. There is one writer at a time, which creates a missing database.

    Raises:
        DamagedIndex: the file is missing, is not a database, or holds anything but the tables of an index.
        NoFullTextSearch: SQLite cannot search words.
    """

    def __init__(self, folder: Path, writable: bool):
        words.check_full_text_search()
        self.folder, path = folder, folder / FILE_NAME
        is_new = not path.exists()
        if is_new and not writable:
            raise DamagedIndex(f"{path} is missing; build the index again")
        mode = "rwc" if writable else _choose_reader_mode(path)
        with self.translate_errors():
            integrity.check_is_file(path)
            # All threads of a server share the connection: SQLite itself serialises the calls.
            self._connection = _connect(path, mode, writable)
            self._words = words.WordTable(self._connection)
            if writable:
                # With a write-ahead log, readers go on with the previous state while a writer commits.
                self._connection.execute("PRAGMA journal_mode = WAL")
                if is_new or not self.has_tables():
                    self._connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")

        # Other reads do not wait for a query with many common words, or for a filter that reads all items.
        self._word_search = _SlowConnection(path, mode.replace("rwc", "rw"))
        self._scans = _SlowConnection(path, mode.replace("rwc", "rw"))

    def close(self) -> None:
        for connection in (self._connection, self._word_search, self._scans):
            connection.close()

    def has_tables(self) -> bool:
        """Return whether the database has its tables; it has none yet while a writer creates it."""
        with self.translate_errors():
            ((version,),) = self._connection.execute("PRAGMA user_version")
            if version not in (0, VERSION):
                raise DamagedIndex(f"{FILE_NAME} names version {version} of its format; this release reads {VERSION}")
            has_tables = _has_schema(self._connection)
            if has_tables and not version:
                raise DamagedIndex(f"{FILE_NAME} names no version of its format")
            rows_path = self.folder / "rows.f16"
            if not has_tables and rows_path.exists() and rows_path.stat().st_size:
                raise DamagedIndex(f"{FILE_NAME} is empty")
            return has_tables

    def select(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of `SELECT query`."""
        with self.translate_errors():
            return self._connection.execute(f"SELECT {query}", values).fetchall()

    def scan(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of `SELECT query` that reads all items; other reads do not wait for it."""
        with self.translate_errors(), self._scans.use() as connection:
            return connection.execute(f"SELECT {query}", values).fetchall()

    def iterate(self, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of `SELECT query`."""
        with self.translate_errors():
            yield from self._connection.execute(f"SELECT {query}", values)

    def iterate_records(self, condition: str = "", *values: Any, thumbnails: bool = True) -> Iterator[tuple[Any, ...]]:
        """Yield for each item its `COLUMNS`, then the checksums of item and thumbnail.

        Args:
            condition: the end of the SQL statement, such as a WHERE clause.
            values: of the placeholders in the condition.
            thumbnails: whether to read thumbnails; else they and their checksums are None.
        """
        thumbnail, thumbnail_hash = "NULL", "NULL"
        if thumbnails:
            thumbnail, thumbnail_hash = "items.thumbnail", "checksums.thumbnail"
        columns = f"items.row, id, digest, fields, location, {thumbnail}, checksums.item, {thumbnail_hash}"
        tables = "items LEFT JOIN checksums ON checksums.row = items.row"
        return self.iterate(f"{columns} FROM {tables} {condition}", *values)

    def read_state(self) -> dict[str, Any]:
        """Return the state of the collection, checked against its items; empty while a writer creates it."""
        state, (first_row, last_row, *extreme_ids) = self._read_state_and_extremes()
        if last_row is None:
            return state
        with self.translate_errors():
            if not 0 <= first_row <= last_row < state["rows"]:
                raise DamagedIndex(f"{FILE_NAME} names the rows {first_row:,} to {last_row:,} of {state['rows']:,}")
            # SQLite sorts values of other types before or after all texts.
            if not all(isinstance(item_id, str) for item_id in extreme_ids):
                raise DamagedIndex(f"{FILE_NAME} holds an id that is not a text")
        return state

    def _read_state_and_extremes(self) -> tuple[dict[str, Any], Sequence[Any]]:
        """Return the state, and the smallest and largest row and id; None for these if there are no items."""
        with self.translate_errors():
            name = f"{FILE_NAME}: state"
            if not self.has_tables():
                return integrity.check_state({}, name), (None,) * 4
            # A single statement, so that state and items are those of the same commit.
            records = self.select(
                "key, value, extremes.* FROM (SELECT (SELECT min(row) FROM items), (SELECT max(row) FROM items), "
                "(SELECT min(id) FROM items), (SELECT max(id) FROM items)) AS extremes LEFT JOIN state"
            )
            state = {}
            for key, value, *_ in records:
                if key is not None:
                    state[key] = integrity.parse_json_as(object, value, name)
            if state:
                state = integrity.unseal(state, name)
            return integrity.check_state(state, name), records[0][2:]

    def read_data_version(self) -> int:
        """Return a number that changes when another connection commits anything; it is read in some microseconds."""
        with self.translate_errors():
            ((data_version,),) = self._connection.execute("PRAGMA data_version")
            return data_version

    def is_generation(self, generation: int) -> bool:
        """Return whether nothing has been committed since this generation of the collection."""
        records = []
        if self.has_tables():
            records = self.select("value FROM state WHERE key = 'generation'")
        if generation == 0:  # nothing has ever been committed
            return not records
        return records == [(str(generation),)]

    def find_faults(self, max_faults: int) -> list[str]:
        """Return the faults that SQLite finds in the structure of the file."""
        with self.translate_errors():
            records = self._connection.execute(f"PRAGMA integrity_check({max_faults})").fetchall()
        if records == [("ok",)]:
            return []
        return [message for (message,) in records]

    def find_words(self, text: str) -> words.WordMatches:
        """Return the items that contain all words of a text, see `WordTable.find`."""
        with self.translate_errors(), self._word_search.use() as connection:
            try:
                return words.WordTable(connection).find(text)
            except (ValueError, TypeError, OverflowError) as error:
                raise DamagedIndex(f"{FILE_NAME}: words of an item: {error}") from error

    def find_word_faults(self) -> Iterator[str]:
        """Yield the items whose words are not those of their id and fields."""
        columns = "items.row, id, fields, tokens, pairs, length"
        for row, item_id, fields, *stored_words in self.iterate(
            f"{columns} FROM items LEFT JOIN words ON words.rowid = items.row"
        ):
            with suppress(DamagedIndex):  # fields that are not JSON are faults of the item
                fields = integrity.parse_json_as(dict, fields, FILE_NAME)
                if tuple(stored_words) != words.split_item(str(item_id), fields):
                    yield f"{FILE_NAME}: the words of row {row} are not those of its item"
        ((num_words,),) = self.select("count(*) FROM words")
        ((num_items,),) = self.select("count(*) FROM items")
        if num_words != num_items:
            yield f"{FILE_NAME} has words of {num_words:,} items, and {num_items:,} items"

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads in the block see the same commit; `scan` and `find_words` have other connections."""
        with self.translate_errors():
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.rollback()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all changes of the block, or none if it fails; OSError if the disk is full."""
        with self.translate_errors(), self._connection:
            yield

    def update_state(self, **values: Any) -> None:
        """Set values of the state and begin a new generation; readers see by it that something has changed."""
        # Readers compare generations instead of whole states, see `is_generation`.
        state = self._read_state_and_extremes()[0] | values
        state["generation"] += 1
        records = [(key, json.dumps(value)) for key, value in integrity.seal(state).items()]
        self._connection.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", records)

    def add(self, items: Sequence[Item], rows: np.ndarray, first_row: int) -> None:
        """Add items whose embeddings `rows`, `[n, D]` float16, were written to the file from row `first_row` on."""
        records, checksums = [], []
        for row, (item, embedding) in enumerate(zip(items, rows, strict=True), first_row):
            record = (row, item.id, item.digest, dump_json(item.fields), _dump_location(item))
            records.append((*record, item.thumbnail))
            checksums.append((row, hash_item(record, embedding), integrity.hash_values(item.thumbnail)))

        placeholders = ", ".join("?" * len(COLUMNS))
        statement = f"INSERT INTO items ({', '.join(COLUMNS)}) VALUES ({placeholders})"  # noqa: S608  -- no text of the data is in it
        self._connection.executemany(statement, records)
        self._connection.executemany("INSERT INTO checksums VALUES (?, ?, ?)", checksums)
        split_items = [words.split_item(item.id, item.fields) for item in items]
        self._words.add(enumerate(split_items, first_row))
        block = (first_row, first_row + len(rows), hash_block(rows, range(len(rows))))
        self._connection.execute("INSERT INTO blocks VALUES (?, ?, ?)", block)

    def update(self, items_by_row: Iterable[tuple[int, Item]], rows: np.ndarray) -> None:
        """Write the fields and locations of items; `rows` are all embeddings, `[N, D]`."""
        for row, item in items_by_row:
            record = (row, item.id, item.digest, dump_json(item.fields), _dump_location(item))
            self._connection.execute("UPDATE items SET fields = ?, location = ? WHERE row = ?", (*record[3:], row))
            item_hash = hash_item(record, rows[row])
            self._connection.execute("UPDATE checksums SET item = ? WHERE row = ?", (item_hash, row))
            self._words.update(row, words.split_item(item.id, item.fields))

    def delete(self, ids: Iterable[str]) -> int:
        """Delete the items with these ids and return how many there were."""
        keys = [(item_id,) for item_id in ids]
        for table, column in (("checksums", "row"), ("words", "rowid")):
            statement = f"DELETE FROM {table} WHERE {column} IN (SELECT row FROM items WHERE id = ?)"  # noqa: S608  -- no text of the data is in it
            self._connection.executemany(statement, keys)
        return max(self._connection.executemany("DELETE FROM items WHERE id = ?", keys).rowcount, 0)  # -1 without keys

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Add folder and advice to a DamagedIndex that names a file, and turn errors of SQLite into it or OSError."""
        try:
            yield
        except DamagedIndex as error:
            if str(self.folder) in str(error):
                raise
            raise DamagedIndex(self._add_advice(str(error))) from error
        except sqlite3.Error as error:
            # Errors that Python raises itself have no code. The low byte is the primary code; higher ones refine it.
            error_code = getattr(error, "sqlite_errorcode", None) or 0
            primary_code = error_code & 0xFF
            if primary_code in _SYSTEM_ERRORS:
                raise OSError(f"{self.folder / FILE_NAME}: {error}") from error
            raise DamagedIndex(self._add_advice(f"{FILE_NAME} cannot be read ({error})")) from error
        except MemoryError as error:  # SQLite allocates as much as a damaged length says
            raise DamagedIndex(self._add_advice(f"{FILE_NAME} holds more than fits into memory")) from error

    def _add_advice(self, fault: str) -> str:
        return f"{self.folder / fault}; remove {self.folder} and build the index again"


def verify_record(record: Sequence[Any], rows: np.ndarray) -> Item:
    """Return the item of a record of `ItemsFile.iterate_records`, in a collection with the rows `[N, D]` float16.

    Raises:
        DamagedIndex: the row does not exist, a column is of another form, or a checksum differs.
    """
    _check_row(record, rows)
    _, item_id, digest, fields, location, thumbnail, *_ = record
    item = integrity.parse_item(item_id, digest, fields, location, thumbnail, FILE_NAME)
    _check_sums(record, rows)
    return item


def verify_hit(record: Sequence[Any], rows: np.ndarray) -> Hit:
    """Return the item of a record as a hit without a score, checked as by `verify_record` but for its location."""
    _check_row(record, rows)
    _, item_id, digest, fields, *_ = record
    integrity.parse_fields(item_id, digest, fields, FILE_NAME)
    _check_sums(record, rows)
    return Hit(item_id, math.nan, fields, digest)


def _check_row(record: Sequence[Any], rows: np.ndarray) -> None:
    row = record[0]
    if not 0 <= row < len(rows):
        raise DamagedIndex(f"{FILE_NAME} names row {row:,} of {len(rows):,}")


def _check_sums(record: Sequence[Any], rows: np.ndarray) -> None:
    row, item_id, *_, thumbnail, item_hash, thumbnail_hash = record
    is_intact = item_hash == hash_item(record[: len(COLUMNS) - 1], rows[row])
    if thumbnail_hash is not None:
        is_intact = is_intact and thumbnail_hash == integrity.hash_values(thumbnail)
    if not is_intact:
        raise DamagedIndex(f"{FILE_NAME} or rows.f16: item {item_id[:100]!r} differs from its checksum")


def hash_item(record: Sequence[Any], embedding: np.ndarray) -> bytes:
    """Return the checksum of an item: its `COLUMNS` without the thumbnail, and its embedding `[D]`."""
    return integrity.hash_values(*record, embedding.tobytes())


def hash_block(rows: np.ndarray, block: range) -> bytes:
    """Return the checksum of consecutive rows of `[N, D]`."""
    return hashlib.sha256(np.ascontiguousarray(rows[block.start : block.stop]).data).digest()


def dump_json(value: Any) -> str:
    """Return a value as JSON, the same text for equal values."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _dump_location(item: Item) -> str:
    # In ASCII: names of files need not be Unicode.
    return json.dumps(list(item.location))


class _SlowConnection:
    """A connection for reads that take long, opened by the first of them; they wait for each other."""

    def __init__(self, path: Path, mode: str):
        self._open = partial(_connect, path, mode, writable=False)
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    @contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._connection is None:
                self._connection = self._open()
            yield self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _connect(path: Path, mode: str, writable: bool) -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(address, uri=True, check_same_thread=False, timeout=LOCK_TIMEOUT)
    # The schema of a stranger's file may not call functions, and damaged pages are noticed when they are read.
    for setting in ("trusted_schema = OFF", "cell_size_check = ON", f"query_only = {not writable}"):
        connection.execute(f"PRAGMA {setting}")
    return connection


def _has_schema(connection: sqlite3.Connection) -> bool:
    """Return whether a database has the tables of an index; an empty one has none.

    Raises:
        DamagedIndex: it has anything else, such as a view in place of a table, a trigger, or other columns: reading or
            writing them would run a stranger's code.
    """
    entries = _read_schema(connection)
    if not entries:
        return False
    extra_entries = entries - _schema_entries()
    if extra_entries:
        kind, name, _ = min(extra_entries, key=str)
        raise DamagedIndex(f"{FILE_NAME} holds the {kind} {str(name)[:100]!r}, which is not of an index")
    missing_entries = _schema_entries() - entries
    if missing_entries:
        kind, name, _ = min(missing_entries, key=str)
        raise DamagedIndex(f"{FILE_NAME} lacks the {kind} {name!r}")
    return True


@lru_cache
def _schema_entries() -> frozenset[tuple[str, str, str | None]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        return _read_schema(connection)


def _read_schema(connection: sqlite3.Connection) -> frozenset[tuple[str, str, str | None]]:
    """Return type, name and SQL of all tables, indexes, triggers and views."""
    entries = set()
    for kind, name, sql in connection.execute(_SCHEMA_QUERY):
        # FTS5 writes the SQL of its tables, and each release of SQLite may word it differently.
        is_shadow_table = kind == "table" and str(name).startswith(words.SHADOW_PREFIX)
        entries.add((kind, name, None if is_shadow_table else sql))
    return frozenset(entries)


def _choose_reader_mode(path: Path) -> str:
    """Return the mode in which SQLite opens a file for a reader.

    A reader writes too: into the index of the write-ahead log, next to the file.

    Raises:
        PermissionError: only others may write there.
        DamagedIndex: nobody can write there, and the log holds changes that are not in the file yet.
    """
    if os.access(path.parent, os.W_OK):
        return "rw"
    if not os.statvfs(path.parent).f_flag & os.ST_RDONLY:
        raise PermissionError(
            errno.EACCES, "readers too need write access, or a read-only file system", str(path.parent)
        )
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise DamagedIndex(f"{log} holds changes that were not finished; open the index once where it can be written")
    return "ro&immutable=1"
