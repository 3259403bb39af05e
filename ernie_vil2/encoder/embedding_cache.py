"""Embeddings that a server has computed, on disk: what has arrived is never asked for again, also after a kill."""

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ernie_vil2.io.files import DamagedFile

FOLDER = "embeddings"  # in the cache folder
LOCK_SECONDS = 60  # that a command waits for another one that writes
MAX_VALUES = 500  # keys of a query; SQLite's own limit is at least 999
MAX_NAME_LENGTH = 100  # characters of the readable model name in the file's name


class EmbeddingCache:
    """Embeddings of one model by the content that they were computed from, in an SQLite file.

    Several processes may use a file at the same time. It is opened for each call: a connection must not be shared by
    threads, nor kept in a forked process.

    Args:
        folder: folder of the file.
        name: name of the model for people.
        identity: all that an embedding depends on besides its content.
    """

    def __init__(self, folder: Path, name: str, identity: str):
        readable_name = re.sub(r"[^A-Za-z0-9.-]+", "_", name)[:MAX_NAME_LENGTH]
        self.path = folder / f"{readable_name}-{blake2b(identity.encode(), digest_size=6).hexdigest()}.sqlite"

    def read(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Return the stored embeddings among these keys, `[D]` float32, by key; missing keys are left out."""
        if not self.path.exists():
            return {}
        embeddings = {}
        with self._connect() as connection:
            for start in range(0, len(keys), MAX_VALUES):
                chunk = keys[start : start + MAX_VALUES]
                places = ",".join("?" * len(chunk))
                query = f"SELECT key, value FROM embeddings WHERE key IN ({places})"  # noqa: S608  -- question marks alone
                for key, value in connection.execute(query, chunk):
                    embeddings[key] = np.frombuffer(value, "<f4").astype(np.float32)
        return embeddings

    def write(self, embeddings: Mapping[bytes, np.ndarray]) -> None:
        """Add embeddings; after a kill either all of them are there or none."""
        rows = [(key, embedding.astype("<f4").tobytes()) for key, embedding in embeddings.items()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._connect() as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", rows)

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=LOCK_SECONDS)) as connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
                )
                yield connection
        except sqlite3.OperationalError as error:  # a full disk, a folder without permission, a lock
            raise OSError(f"{self.path}: {error}") from error
        except (sqlite3.Error, ValueError) as error:
            raise DamagedFile(f"{self.path}: damaged ({error}): delete it, and the server is asked again") from error
