"""The embedded form of a collection, a folder:

    items.sqlite   items with their fields, thumbnails and checksums (`search.items`); what is committed here is what
                   the collection holds
    rows.f16       their embeddings, float16, one row after the other: the truth; a row is never changed
    index_type/    what was built from the rows to search them faster (`search.index_types`)

Adding appends rows and then commits the items that name them, so that a process that is killed between the two leaves
rows that nobody names, which the next writer overwrites. Replacing and removing an item leaves its row behind, until
the collection is compacted: copied into another folder without such rows.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Collection as Container
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from ernie_vil2.apps.search import index_types, integrity
from ernie_vil2.apps.search.collection import Collection, DamagedIndex, Hit, Item, Where, checked, counted_values
from ernie_vil2.apps.search.index_types import EXACT_UP_TO, RERANKED, SCANNED_ROWS, Exact, IndexType, Log, ranked
from ernie_vil2.apps.search.items import NAME, ItemsFile, dumps, verified
from ernie_vil2.encoder import truncate_embeddings
from ernie_vil2.io.files import parse_json

KEPT_FILTERS = 16
KEPT_ITEMS = 100_000  # verified items of the last answers, some 50 MB: popular ones are neither read nor verified again
DATE_GLOB = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"
ROWS_AT_ONCE = 10_000  # that a statement of SQLite may name
COPIED_TOGETHER = 2048


class _Kept:
    """The items that were found last, at least half of `KEPT_ITEMS`, by their rows, as hits without a score.

    For any number of threads.
    """

    def __init__(self) -> None:
        self._new: dict[int, Hit] = {}
        self._old: dict[int, Hit] = {}

    def get(self, row: int) -> Hit | None:
        found = self._new.get(row)
        if found is None and (found := self._old.get(row)) is not None:
            self._new[row] = found
        return found

    def keep(self, found: Mapping[int, Hit]) -> None:
        if len(self._new) + len(found) > KEPT_ITEMS // 2:
            self._old, self._new = self._new, {}
        if len(found) <= KEPT_ITEMS // 2:
            self._new.update(found)


@dataclass
class _Snapshot:
    """What a collection had when it was opened."""

    generation: int
    count: int
    rows: np.ndarray
    index_type: IndexType
    allowed: dict[str, np.ndarray] = field(default_factory=dict)
    narrow: dict[int, Exact] = field(default_factory=dict)
    items: _Kept = field(default_factory=_Kept)
    field_names: list[str] | None = None


class LocalCollection(Collection):
    """The embedded collection of embeddings of a width, D, in a folder of its own, which has one writer at a time.

    DamagedIndex if the files do not fit together, or hold what no index holds.
    """

    def __init__(self, folder: Path, width: int, writable: bool = False):
        self.folder, self.width = folder, width
        if writable:
            folder.mkdir(parents=True, exist_ok=True)
        self.items = ItemsFile(folder, writable)
        self.reopen()

    def reopen(self) -> None:
        """Takes note of what is committed, all at once: searches of other threads go on with what they began with."""
        with self.items.explained():
            state = self.items.state()
            rows = self._mapped(state["rows"])
        try:
            index_type = self._open_index_type(rows)
        except ValueError as error:
            raise DamagedIndex(str(error)) from error
        self._now = _Snapshot(state["generation"], state["count"], rows, index_type)

    def _mapped(self, count: int) -> np.ndarray:
        """`[count, D]`, the rows that the file begins with."""
        path, shape = self.folder / "rows.f16", (count, self.width)
        integrity.check_is_file(path)
        stored = path.stat().st_size // (2 * self.width) if path.exists() else 0
        if stored < count:
            raise DamagedIndex(f"{path.name} holds {stored:,} of {count:,} rows")
        # A plain array: every part of a memmap would be one too, which costs more than a short product.
        return np.asarray(np.memmap(path, np.float16, "r", shape=shape)) if count else np.empty(shape, np.float16)

    def _open_index_type(self, rows: np.ndarray) -> IndexType:
        return index_types.open_index_type(rows, integrity.index_type_in(self.folder))

    def refresh(self) -> None:
        """Opens the collection again if a writer has changed it since."""
        if not self.items.is_of(self._now.generation):
            self.reopen()

    @property
    def rows(self) -> np.ndarray:
        """`[N, D]` float16: the embeddings of all items, and of those that were replaced or removed."""
        return self._now.rows

    @property
    def index_type(self) -> dict[str, Any]:
        """What the index type says of itself, see `IndexType.facts`."""
        return self._now.index_type.facts

    @property
    def version(self) -> _Snapshot:
        return self._now

    def __len__(self) -> int:
        return self._now.count

    def add(self, items: Sequence[Item], embeddings: np.ndarray) -> None:
        embeddings = checked(embeddings, len(items), self.width, np.float16)
        unique = {item.id: number for number, item in enumerate(items)}  # the last of an id
        chosen = sorted(unique.values())
        before = len(self._now.rows)
        with (self.folder / "rows.f16").open("ab") as file:
            file.truncate(2 * self.width * before)
            file.write(embeddings[chosen].tobytes())
            file.flush()
            os.fsync(file.fileno())
        with self.items.transaction():
            replaced = self.items.delete(items[number].id for number in chosen)
            self.items.add([items[number] for number in chosen], embeddings[chosen], before)
            self.items.set_state(rows=before + len(chosen), count=self._now.count - replaced + len(chosen))
        self.reopen()

    def update(self, items: Sequence[Item]) -> None:
        if not items:
            return
        with self.items.transaction():
            changed = [
                (row, replace(there, fields=item.fields, location=item.location))
                for item in {item.id: item for item in items}.values()  # the last of an id
                for row, there in self._found("id = ?", item.id)
            ]
            self.items.update(changed, self.rows)
            self.items.set_state()
        self.reopen()

    def remove(self, ids: Sequence[str]) -> int:
        with self.items.transaction():
            removed = self.items.delete(ids)
            self.items.set_state(count=self._now.count - removed)
        self.reopen()
        return removed

    def search(
        self, queries: np.ndarray, count: int, where: Where | None = None, width: int | None = None
    ) -> list[list[Hit]]:
        now = self._now
        queries = np.asarray(queries, np.float32).reshape(-1, self.width)
        count = min(count, now.count)
        if not count:
            return [[] for _ in queries]
        allowed = self._allowed(now, dumps(where or {}))
        with self.items.explained():
            candidates = self._candidates(now, queries, max(count, RERANKED), allowed, width)
            found = ranked(now.rows, queries, candidates, count)
        items = self._items(now, np.unique(found[1]).tolist())
        return [
            [Hit(one.id, score, one.text, one.digest) for score, row in line if (one := items.get(row)) is not None]
            for line in (zip(*one, strict=True) for one in zip(*(part.tolist() for part in found), strict=True))
        ]

    def get(self, item: str) -> Item | None:
        return next((found for _, found in self._found("id = ?", item, thumbnails=True)), None)

    def embedding(self, item: str) -> np.ndarray | None:
        for row, _ in self._found("id = ?", item):
            embedding = self._now.rows[row].astype(np.float32)
            with self.items.explained():
                integrity.check_rows(embedding[None], [row])
            return embedding
        return None

    def digests(self, ids: Sequence[str]) -> dict[str, bytes]:
        return {one: item.digest for one in ids for _, item in self._found("id = ?", one)}

    def named(self, names: Container[str]) -> dict[str, list[Item]]:
        ids = "id = ? OR (id > ? AND id < ?) ORDER BY id"
        return {name: [item for _, item in self._found(ids, name, f"{name} (", f"{name} )")] for name in names}

    def field_names(self) -> list[str]:
        now = self._now
        if now.field_names is None:
            found = self.items.select("DISTINCT key FROM items, json_each(items.fields) ORDER BY key")
            now.field_names = [name for (name,) in found if isinstance(name, str)]
        return now.field_names

    def every(self) -> Iterator[Item]:
        return (item for part in self._parts(ROWS_AT_ONCE) for _, item in part)

    def copy_to(self, other: Self) -> None:
        """Adds all items with their embeddings to another collection, in their order."""
        for part in self._parts(COPIED_TOGETHER, thumbnails=True):
            other.add([item for _, item in part], self._now.rows[[row for row, _ in part]])

    def _parts(self, size: int, thumbnails: bool = False) -> Iterator[list[tuple[int, Item]]]:
        """All items with their rows, in the order of these."""
        condition, last = "items.row > ? ORDER BY items.row LIMIT ?", -1
        while part := list(self._found(condition, last, size, thumbnails=thumbnails)):
            yield part
            last = part[-1][0]

    def some(self, count: int) -> list[Item]:
        rows = np.unique(np.linspace(0, max(len(self._now.rows) - 1, 0), count, dtype=int)).tolist()
        return [item for row in rows for _, item in self._found("items.row = ?", row)]

    def sample(self, count: int) -> np.ndarray:
        rows = self._now.rows
        return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows)), dtype=int))].astype(np.float32)

    def facets(self) -> dict[str, list[tuple[Any, int]]]:
        return self.items.state()["facets"]

    def uncovered(self) -> float:
        rows, kind = len(self._now.rows), self._now.index_type
        if kind.name == Exact.name:
            return float(rows > EXACT_UP_TO)  # all of them where another index type would suit by now
        return 1 - kind.facts["rows"] / rows

    def gone(self) -> float:
        rows = len(self._now.rows)
        return 1 - self._now.count / rows if rows else 0.0

    def build(self, index_type: str | None, queries: Callable[[], np.ndarray], recall: float, log: Log) -> None:
        rows, folder = self._now.rows, integrity.index_type_in(self.folder)
        suitable = "exact" if len(rows) <= EXACT_UP_TO else "ivf"
        name = index_type or suitable
        folder.mkdir(exist_ok=True)
        with self.items.explained():
            index_types.build_index_type(name, rows, queries, recall, folder, log)
        texts = self.items.every("fields FROM items")
        fields = (integrity.parsed(text, dict, f"{NAME}: fields of an item") for (text,) in texts)
        with self.items.transaction():
            self.items.set_state(facets=counted_values(fields))
        self.reopen()

    def close(self) -> None:
        self.items.close()

    def _candidates(
        self, now: _Snapshot, queries: np.ndarray, count: int, allowed: np.ndarray | None, width: int | None
    ) -> np.ndarray:
        """`[Q, C]` rows, -1 for none; DamagedIndex if the index type fails, or proposes no rows, or a row twice."""
        try:
            found = np.concatenate(list(_candidates(now, queries, count, allowed, width)), axis=1)
            ordered = np.sort(found, axis=1)
            if ordered.size and (ordered[:, 0].min() < -1 or ordered[:, -1].max() >= len(now.rows)):
                raise RuntimeError("it proposes rows that are not there")
            if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
                raise RuntimeError("it proposes a row twice")
        except RuntimeError as error:  # as of faiss
            folder = integrity.index_type_in(self.folder)
            raise DamagedIndex(f"{folder} is damaged ({error}); remove {folder} and build the index again") from error
        return found

    def _items(self, now: _Snapshot, rows: list[int]) -> dict[int, Hit]:
        """The items of rows, by row; -1 has none, nor has one that was removed since."""
        wanted = [row for row in rows if row >= 0]
        kept = {row: item for row in wanted if (item := now.items.get(row)) is not None}
        missing = [row for row in wanted if row not in kept]
        read: dict[int, Hit] = {}
        with self.items.explained():
            for start in range(0, len(missing), ROWS_AT_ONCE):
                part = missing[start : start + ROWS_AT_ONCE]
                condition = f"WHERE items.row IN ({', '.join('?' * len(part))})"
                for record in self.items.records(condition, *part, thumbnails=False):
                    checked = verified(record, now.rows)
                    read[record[0]] = Hit(checked.id, math.nan, record[3], checked.digest)
        for row in missing:
            if row not in read:
                self._missed(now, f"{NAME} has no item of row {row:,}")
        now.items.keep(read)
        return kept | read

    def _missed(self, now: _Snapshot, wrong: str) -> None:
        """DamagedIndex, if what was not found cannot have been removed since."""
        with self.items.explained():
            if self.items.is_of(now.generation):
                raise DamagedIndex(wrong)

    def _found(self, condition: str, *values: Any, thumbnails: bool = False) -> Iterator[tuple[int, Item]]:
        """Rows and items that fulfil a condition, compared with their checksums."""
        for record in list(self.items.records(f"WHERE {condition}", *values, thumbnails=thumbnails)):
            if record[0] >= len(self._now.rows):
                self.refresh()  # it was added since
            with self.items.explained():
                found = verified(record, self._now.rows)
            yield record[0], found

    def _allowed(self, now: _Snapshot, where: str) -> np.ndarray | None:
        """bool `[rows]`: those of items that a filter admits; None: all rows. The last filters' are kept."""
        filters = parse_json(where)
        if not filters and now.count == len(now.rows):
            return None
        if where in now.allowed:
            return now.allowed[where]
        clauses, values = [], []
        for name, wanted in filters.items():
            path = f'$."{name}"'
            if isinstance(wanted, dict):
                for bound, limit in wanted.items():
                    # Of another type than its bound a value is neither below nor above it.
                    types = "('text')" if isinstance(limit, str) else "('integer', 'real')"
                    clauses.append(f"json_type(fields, ?) IN {types} AND json_extract(fields, ?) {bound} ?")
                    values += [path, path, limit]
                    if isinstance(limit, str):
                        clauses.append(f"json_extract(fields, ?) GLOB '{DATE_GLOB}'")
                        values.append(path)
                continue
            wanted = wanted if isinstance(wanted, list) else [wanted]
            marks = ", ".join("?" * len(wanted))
            clauses.append(f"json_extract(fields, ?) IN ({marks})")
            values += [path, *wanted]
        condition = f"WHERE {' AND '.join(clauses)}" if clauses else ""
        # Damaged pages may lead in a circle.
        found = self.items.select(f"row FROM items {condition} LIMIT {2 * len(now.rows) + 1}", *values)
        allowed = np.zeros(len(now.rows), bool)
        allowed[[row for (row,) in found if row < len(allowed)]] = True
        if not filters and (there := np.count_nonzero(allowed)) != now.count:
            self._missed(now, f"{NAME} has {there:,} of {now.count:,} items")
        if len(now.allowed) >= KEPT_FILTERS:
            now.allowed.clear()
        now.allowed[where] = allowed
        return allowed


def _candidates(
    now: _Snapshot, queries: np.ndarray, count: int, allowed: np.ndarray | None, width: int | None
) -> Iterator[np.ndarray]:
    """Parts of the candidates, `[Q, C]` rows: from the index type and from the rows that came after it was built; with
    a width, from the first numbers of all rows, which are copied at the first query."""
    if width is not None:
        if width not in now.narrow:
            blocks = np.array_split(now.rows, len(now.rows) // SCANNED_ROWS + 1)
            cut = [truncate_embeddings(block.astype(np.float32), width).astype(np.float16) for block in blocks]
            now.narrow[width] = Exact(np.concatenate(cut))
        yield now.narrow[width].candidates(truncate_embeddings(queries, width), count, allowed)
        return
    covered = now.index_type.facts["rows"]
    chosen = np.arange(len(now.rows)) if allowed is None else np.flatnonzero(allowed)
    few = allowed is not None and len(chosen) <= min(EXACT_UP_TO, len(now.rows) // 2)
    if now.index_type.name != Exact.name and (few or count * 20 > covered):
        # An approximate index type looks at a few of all rows, and may see too few of these.
        yield _exact(now.rows, chosen, queries, count)
        return
    yield now.index_type.candidates(queries, count, None if allowed is None else allowed[:covered])
    if covered < len(now.rows):
        yield _exact(now.rows, chosen[np.searchsorted(chosen, covered) :], queries, count)


def _exact(rows: np.ndarray, chosen: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    if not len(chosen):
        return np.empty([len(queries), 0], np.int64)
    found = Exact(rows[chosen]).candidates(queries, count)
    return np.where(found >= 0, chosen[found], -1)
