"""A collection in a folder.

    items.sqlite   items with their fields, thumbnails and checksums (`search.items`); what is committed here is the
                   content of the collection
    rows.f16       the embeddings, float16, one row after the other; a row is never changed
    index_type/    built from the rows to search them faster (`search.index_types`)

Adding appends rows and then commits the items that name them. A process that is killed in between leaves rows that no
item names, and the next writer overwrites them. Replacing or removing an item leaves its row behind until the
collection is compacted, which means copied into another folder without such rows.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Collection as Container
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import numpy as np

from ernie_vil2.apps.search import index_types, integrity
from ernie_vil2.apps.search.collection import (
    Collection,
    DamagedIndex,
    FieldSummary,
    Filter,
    Hit,
    Item,
    WordQueries,
    summarize_fields,
    validate_embeddings,
)
from ernie_vil2.apps.search.fusion import FUSION_DEPTH, fuse_rankings
from ernie_vil2.apps.search.index_types import EXACT_UP_TO, NUM_CANDIDATES, ROWS_PER_THREAD, Exact, IndexType, Log, rank
from ernie_vil2.apps.search.items import FILE_NAME, ItemsFile, dump_json, verify_hit, verify_record
from ernie_vil2.encoder import truncate_embeddings
from ernie_vil2.io.files import parse_json

# A cached filter is a mask of a byte per row. Requests with other filters than these evaluate them again.
MAX_CACHED_FILTERS = 16
MAX_CACHED_ITEMS = 100_000  # some 50 MB; popular items are then neither read nor verified again
# Characters of the fields of a cached item. Longer ones, as with the text of a page, are read each time: 100,000 such
# items would take GB.
MAX_CACHED_FIELDS = 2000
DATE_GLOB = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"  # as `DATE_PATTERN` of `search.collection`
READ_CHUNK = 10_000  # items that are read together; SQLite takes 32,766 values in a statement
COPY_CHUNK = 2048  # items that are copied together, with thumbnails of some KiB each
# An approximate index type scans a small share of the rows that it covers. If it covers fewer rows per candidate than
# this, it would see too few, and all rows are scanned instead.
MIN_ROWS_PER_CANDIDATE = 20


class _ItemCache:
    """Items of recent answers by their rows, as hits without a score; for any number of threads.

    It has two generations of half of `MAX_CACHED_ITEMS` each. When the newer one is full, the older one is dropped, and
    with it the items that were not used meanwhile.
    """

    def __init__(self) -> None:
        self._newer: dict[int, Hit] = {}
        self._older: dict[int, Hit] = {}

    def get(self, row: int) -> Hit | None:
        hit = self._newer.get(row)
        if hit is None:
            hit = self._older.get(row)
            if hit is not None:
                self._newer[row] = hit
        return hit

    def add(self, hits: Mapping[int, Hit]) -> None:
        if len(self._newer) + len(hits) > MAX_CACHED_ITEMS // 2:
            self._older, self._newer = self._newer, {}
        if len(hits) <= MAX_CACHED_ITEMS // 2:
            self._newer.update(hits)


class _WordRanking(NamedTuple):
    """The rows of the items with all words of a query, best first, and their cosines."""

    named_rows: Sequence[int] = ()  # of the items that the query names
    other_rows: Sequence[int] = ()
    scores: Mapping[int, float] = MappingProxyType({})  # of all these rows


@dataclass
class _Snapshot:
    """The state of a collection when it was opened, with caches that are valid for this state only."""

    generation: int
    count: int  # items
    rows: np.ndarray  # [N, D] float16, mapped
    index_type: IndexType
    filter_masks: dict[str, np.ndarray] = field(default_factory=dict)  # by filter as JSON, bool [N]
    prefix_searches: dict[int, Exact] = field(default_factory=dict)  # by width, over the first numbers of the rows
    items: _ItemCache = field(default_factory=_ItemCache)
    field_names: list[str] | None = None


class LocalCollection(Collection):
    """A collection in a folder of its own, with embeddings of width D; there is one writer at a time.

    Raises:
        DamagedIndex: the files do not fit together, or hold anything that no index holds.
    """

    def __init__(self, folder: Path, width: int, writable: bool = False):
        self.folder, self.width = folder, width
        if writable:
            folder.mkdir(parents=True, exist_ok=True)
        self.items = ItemsFile(folder, writable)
        self._data_version: int | None = None  # of the last refresh
        self.reopen()

    def reopen(self) -> None:
        """Read what has been committed; searches of other threads finish with the previous state."""
        with self.items.translate_errors():
            state = self.items.read_state()
            rows = self._map_rows(state["rows"])
        try:
            index_type = self._open_index_type(rows)
        except ValueError as error:
            raise DamagedIndex(str(error)) from error
        # One assignment, so that a search in another thread sees either state as a whole.
        self._snapshot = _Snapshot(state["generation"], state["count"], rows, index_type)

    def _map_rows(self, num_rows: int) -> np.ndarray:
        path = self.folder / "rows.f16"
        shape = (num_rows, self.width)
        integrity.check_is_file(path)
        num_stored = path.stat().st_size // (2 * self.width) if path.exists() else 0
        if num_stored < num_rows:
            raise DamagedIndex(f"{path.name} holds {num_stored:,} of {num_rows:,} rows")
        if num_rows == 0:  # an empty file cannot be mapped
            return np.empty(shape, np.float16)
        # As a plain array: each slice of a memmap is a memmap too, and making it costs more than a short product.
        return np.asarray(np.memmap(path, np.float16, "r", shape=shape))

    def _open_index_type(self, rows: np.ndarray) -> IndexType:
        return index_types.open_index_type(rows, index_types.index_type_folder(self.folder))

    def refresh(self) -> None:
        # Every query asks for this, and reading schema and generation each time took a sixth of the server's work.
        data_version = self.items.read_data_version()
        if data_version == self._data_version:
            return
        if not self.items.is_generation(self._snapshot.generation):
            self.reopen()
        self._data_version = data_version  # not before: a file that is refused now is refused again

    @property
    def rows(self) -> np.ndarray:
        """Embeddings of all items, and of those that were replaced or removed, `[N, D]` float16."""
        return self._snapshot.rows

    @property
    def index_type(self) -> dict[str, Any]:
        return self._snapshot.index_type.facts

    @property
    def version(self) -> _Snapshot:
        return self._snapshot

    def __len__(self) -> int:
        return self._snapshot.count

    def add(self, items: Sequence[Item], embeddings: np.ndarray) -> None:
        embeddings = validate_embeddings(embeddings, len(items), self.width, np.float16)
        if not items:
            return
        last_numbers = {item.id: number for number, item in enumerate(items)}  # the last item with an id wins
        numbers = sorted(last_numbers.values())
        items = [items[number] for number in numbers]
        embeddings = embeddings[numbers]

        # The rows must be on the disk before the items that name them are committed.
        first_row = len(self._snapshot.rows)
        with (self.folder / "rows.f16").open("ab") as file:
            file.truncate(2 * self.width * first_row)  # drops the rows of a writer that was killed
            file.write(embeddings.tobytes())
            file.flush()
            os.fsync(file.fileno())
        with self.items.transaction():
            num_replaced = self.items.delete(item.id for item in items)
            self.items.add(items, embeddings, first_row)
            count = self._snapshot.count - num_replaced + len(items)
            self.items.update_state(rows=first_row + len(items), count=count)
        self.reopen()

    def update(self, items: Sequence[Item]) -> None:
        if not items:
            return
        last_items = {item.id: item for item in items}  # the last item with an id wins
        with self.items.transaction():
            # Digest, thumbnail and row stay: only what a source says about the content has changed.
            updated_items = []
            for item in last_items.values():
                for row, stored_item in self._iterate_items("id = ?", item.id):
                    updated_items.append((row, replace(stored_item, fields=item.fields, location=item.location)))
            self.items.update(updated_items, self.rows)
            self.items.update_state()
        self.reopen()

    def remove(self, ids: Sequence[str]) -> int:
        with self.items.transaction():
            num_removed = self.items.delete(ids)
            self.items.update_state(count=self._snapshot.count - num_removed)
        self.reopen()
        return num_removed

    def search(
        self,
        queries: np.ndarray,
        count: int,
        where: Filter | None = None,
        width: int | None = None,
        words: WordQueries | None = None,
    ) -> list[list[Hit]]:
        snapshot = self._snapshot
        queries = np.asarray(queries, np.float32).reshape(-1, self.width)
        count = min(count, snapshot.count)
        if not count:
            return [[] for _ in queries]
        allowed = self._filter_rows(snapshot, dump_json(where or {}))
        word_rankings = [_WordRanking()] * len(queries)
        if words is not None:
            texts_and_queries = zip(words.texts, queries, strict=True)
            word_rankings = [self._rank_by_words(snapshot, *pair, allowed) for pair in texts_and_queries]

        # Most sentences are in no item. Only queries with words need as many ranks by meaning as are fused.
        score_lists: list[list[float]] = [[] for _ in queries]
        row_lists: list[list[int]] = [[] for _ in queries]
        for has_words, depth in ((False, count), (True, max(count, FUSION_DEPTH))):
            numbers = [number for number, ranking in enumerate(word_rankings) if bool(ranking.scores) == has_words]
            if numbers:
                scores, rows = self._rank_by_meaning(snapshot, queries[numbers], depth, allowed, width)
                for number, query_scores, query_rows in zip(numbers, scores.tolist(), rows.tolist(), strict=True):
                    score_lists[number], row_lists[number] = query_scores, query_rows

        for number, ranking in enumerate(word_rankings):
            if words is not None and ranking.scores:
                scores_by_row = {**dict(zip(row_lists[number], score_lists[number], strict=True)), **ranking.scores}
                by_meaning = [row for row in row_lists[number] if row >= 0]
                fused_rows = fuse_rankings(by_meaning, ranking.named_rows, ranking.other_rows, words.weight)
                if words.threshold is not None:
                    # A fused ranking is not in the order of the scores: items below the threshold must leave their
                    # places to those with the words that come after them.
                    close_rows = {row for row, score in scores_by_row.items() if score >= words.threshold}
                    fused_rows = [row for row in fused_rows if row in close_rows or row in ranking.scores]
                row_lists[number] = fused_rows[:count]
                score_lists[number] = [scores_by_row[row] for row in row_lists[number]]

        items = self._read_items(snapshot, sorted(set().union(*row_lists)))
        # An item that was removed since the snapshot is left out, so an answer may have fewer hits than `count`.
        answers = []
        for query_scores, query_rows, ranking in zip(score_lists, row_lists, word_rankings, strict=True):
            hits = []
            for score, row in zip(query_scores, query_rows, strict=True):
                item = items.get(row)
                if item is not None:
                    hits.append(Hit(item.id, score, item.fields_json, item.digest, row in ranking.scores))
            answers.append(hits)
        return answers

    def get(self, item_id: str) -> Item | None:
        for _, item in self._iterate_items("id = ?", item_id, thumbnails=True):
            return item
        return None

    def get_embedding(self, item_id: str) -> np.ndarray | None:
        for row, _ in self._iterate_items("id = ?", item_id):
            embedding = self._snapshot.rows[row].astype(np.float32)
            with self.items.translate_errors():
                integrity.check_rows(embedding[None], [row])
            return embedding
        return None

    def get_digests(self, ids: Sequence[str]) -> dict[str, bytes]:
        digests = {}
        for item_id in ids:
            for _, item in self._iterate_items("id = ?", item_id):
                digests[item_id] = item.digest
        return digests

    def find_by_name(self, names: Container[str]) -> dict[str, list[Item]]:
        # ")" follows "(" in the order of characters, so the range holds all ids that begin with the name and " (".
        condition = "id = ? OR (id > ? AND id < ?) ORDER BY id"
        items_of_names = {}
        for name in names:
            items = self._iterate_items(condition, name, f"{name} (", f"{name} )")
            items_of_names[name] = [item for _, item in items]
        return items_of_names

    def field_names(self) -> list[str]:
        snapshot = self._snapshot
        if snapshot.field_names is None:
            records = self.items.scan("DISTINCT key FROM items, json_each(items.fields) ORDER BY key")
            snapshot.field_names = [name for (name,) in records if isinstance(name, str)]
        return snapshot.field_names

    def iterate_items(self) -> Iterator[Item]:
        for chunk in self._iterate_chunks(READ_CHUNK):
            for _, item in chunk:
                yield item

    def copy_to(self, target: Self) -> None:
        """Add all items with their embeddings to another collection, in the order of their rows."""
        for chunk in self._iterate_chunks(COPY_CHUNK, thumbnails=True):
            rows = [row for row, _ in chunk]
            target.add([item for _, item in chunk], self._snapshot.rows[rows])

    def _iterate_chunks(self, size: int, thumbnails: bool = False) -> Iterator[list[tuple[int, Item]]]:
        """Yield all items with their rows, in the order of the rows."""
        last_row = -1
        while True:
            condition = "items.row > ? ORDER BY items.row LIMIT ?"
            chunk = list(self._iterate_items(condition, last_row, size, thumbnails=thumbnails))
            if not chunk:
                return
            yield chunk
            last_row = chunk[-1][0]

    def sample_items(self, count: int) -> list[Item]:
        last_row = max(len(self._snapshot.rows) - 1, 0)
        # The next item of each row, since the row's own item may have been removed.
        sampled_items: dict[int, Item] = {}
        for first_row in np.linspace(0, last_row, count, dtype=int).tolist():
            for row, item in self._iterate_items("items.row >= ? ORDER BY items.row LIMIT 1", first_row):
                sampled_items[row] = item
        return list(sampled_items.values())

    def sample_embeddings(self, count: int) -> np.ndarray:
        rows = self._snapshot.rows
        numbers = np.linspace(0, len(rows) - 1, min(count, len(rows)), dtype=int)
        return rows[np.unique(numbers)].astype(np.float32)

    def summarize_fields(self) -> FieldSummary:
        state = self.items.read_state()
        return FieldSummary(state["facets"], state["ranges"])

    def uncovered_share(self) -> float:
        num_rows = len(self._snapshot.rows)
        index_type = self._snapshot.index_type
        if index_type.name == Exact.name:
            return float(num_rows > EXACT_UP_TO)  # all of them if another index type would suit by now
        return 1 - index_type.facts["rows"] / num_rows

    def removed_share(self) -> float:
        num_rows = len(self._snapshot.rows)
        return 1 - self._snapshot.count / num_rows if num_rows else 0.0

    def build_index_type(
        self, index_type: str | None, queries: Callable[[], np.ndarray], recall: float, log: Log
    ) -> None:
        rows = self._snapshot.rows
        folder = index_types.index_type_folder(self.folder)
        if not index_type:
            index_type = "exact" if len(rows) <= EXACT_UP_TO else "ivf"
        folder.mkdir(exist_ok=True)
        with self.items.translate_errors():
            index_types.build_index_type(index_type, rows, queries, recall, folder, log)
        # Fields are summarized here, since it takes a pass over all items and they need not be up to date.
        texts = self.items.iterate("fields FROM items")
        fields = (integrity.parse_json_as(dict, text, f"{FILE_NAME}: fields of an item") for (text,) in texts)
        summary = summarize_fields(fields)
        with self.items.transaction():
            self.items.update_state(facets=summary.facets, ranges=summary.ranges)
        self.reopen()

    def close(self) -> None:
        self.items.close()

    def _find_valid_candidates(
        self, snapshot: _Snapshot, queries: np.ndarray, count: int, allowed: np.ndarray | None, width: int | None
    ) -> np.ndarray:
        """Return `[Q, C]` rows, -1 for none; DamagedIndex if the index type fails or proposes impossible rows."""
        try:
            candidates = find_candidates(snapshot, queries, count, allowed, width)
            ordered = np.sort(candidates, axis=1)
            if ordered.size and (ordered[:, 0].min() < -1 or ordered[:, -1].max() >= len(snapshot.rows)):
                raise RuntimeError("it proposes rows that are not there")
            if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
                raise RuntimeError("it proposes a row twice")
        except RuntimeError as error:  # also raised by faiss
            folder = index_types.index_type_folder(self.folder)
            raise DamagedIndex(f"{folder} is damaged ({error}); remove {folder} and build the index again") from error
        return candidates

    def _rank_by_meaning(
        self, snapshot: _Snapshot, queries: np.ndarray, count: int, allowed: np.ndarray | None, width: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores and rows of the closest items, `[Q, count]`, as `rank`."""
        with self.items.translate_errors():
            candidates = self._find_valid_candidates(snapshot, queries, max(count, NUM_CANDIDATES), allowed, width)
            return rank(snapshot.rows, queries, candidates, count)

    def _rank_by_words(
        self, snapshot: _Snapshot, text: str, query: np.ndarray, allowed: np.ndarray | None
    ) -> _WordRanking:
        """Return the best `FUSION_DEPTH` items that a text names, and as many others that contain all words of it.

        First come items with a text that is the query: the article A1-B comes before a case for it. Then, the fewer
        other words an item has, the better; of items of the same length, the one closer to the query.
        """
        matches = self.items.find_words(text)
        # Items that were added since the snapshot have rows beyond it.
        are_visible = (matches.rows >= 0) & (matches.rows < len(snapshot.rows))
        if allowed is not None:
            are_visible[are_visible] = allowed[matches.rows[are_visible]]
        rows = matches.rows[are_visible]
        if not len(rows):
            return _WordRanking()

        with self.items.translate_errors():
            scores, ranked_rows = rank(snapshot.rows, query[None], rows[None], len(rows))
        scores_by_row = dict(zip(ranked_rows[0].tolist(), scores[0].tolist(), strict=True))
        lengths_by_row = dict(zip(rows.tolist(), matches.lengths[are_visible].tolist(), strict=True))
        equal_rows = set(rows[matches.are_equal[are_visible]].tolist())
        named_rows = set(rows[matches.are_named[are_visible]].tolist())
        best_rows = sorted(scores_by_row, key=lambda row: (row not in equal_rows, lengths_by_row[row]))
        best_named = [row for row in best_rows if row in named_rows][:FUSION_DEPTH]
        best_others = [row for row in best_rows if row not in named_rows][:FUSION_DEPTH]
        best_scores = {row: scores_by_row[row] for row in (*best_named, *best_others)}
        return _WordRanking(best_named, best_others, best_scores)

    def _read_items(self, snapshot: _Snapshot, rows: list[int]) -> dict[int, Hit]:
        """Return the items of rows as hits without a score; -1 has none, nor has an item removed meanwhile."""
        cached: dict[int, Hit] = {}
        missing_rows = []
        for row in rows:
            hit = snapshot.items.get(row)
            if hit is not None:
                cached[row] = hit
            elif row >= 0:
                missing_rows.append(row)

        # All others are read from the database, in as few statements as possible, and compared with their checksums.
        new_hits: dict[int, Hit] = {}
        with self.items.translate_errors():
            for start in range(0, len(missing_rows), READ_CHUNK):
                chunk = missing_rows[start : start + READ_CHUNK]
                condition = f"WHERE items.row IN ({', '.join('?' * len(chunk))})"
                for record in self.items.iterate_records(condition, *chunk, thumbnails=False):
                    new_hits[record[0]] = verify_hit(record, snapshot.rows)
        for row in missing_rows:
            if row not in new_hits:
                self._check_unchanged(snapshot, f"{FILE_NAME} has no item of row {row:,}")
        short_hits = {row: hit for row, hit in new_hits.items() if len(hit.fields_json) <= MAX_CACHED_FIELDS}
        snapshot.items.add(short_hits)
        return cached | new_hits

    def _check_unchanged(self, snapshot: _Snapshot, fault: str) -> None:
        """Raise DamagedIndex, unless a writer has changed the collection, which explains the fault."""
        with self.items.translate_errors():
            if self.items.is_generation(snapshot.generation):
                raise DamagedIndex(fault)

    def _iterate_items(self, condition: str, *values: Any, thumbnails: bool = False) -> Iterator[tuple[int, Item]]:
        """Yield rows and items that satisfy a condition in SQL, compared with their checksums."""
        for record in list(self.items.iterate_records(f"WHERE {condition}", *values, thumbnails=thumbnails)):
            row = record[0]
            if row >= len(self._snapshot.rows):
                self.refresh()  # it was added meanwhile
            with self.items.translate_errors():
                item = verify_record(record, self._snapshot.rows)
            yield row, item

    def _filter_rows(self, snapshot: _Snapshot, filter_json: str) -> np.ndarray | None:
        """Return the rows whose items satisfy a filter, bool `[N]`; None: all rows."""
        where = parse_json(filter_json)
        if not where and snapshot.count == len(snapshot.rows):
            return None
        cached_mask = snapshot.filter_masks.get(filter_json)  # at once, as another thread may clear them
        if cached_mask is not None:
            return cached_mask

        condition, values = _filter_condition(where)
        # Damaged pages may form a cycle, hence the limit.
        records = self.items.scan(f"row FROM items {condition} LIMIT {2 * len(snapshot.rows) + 1}", *values)
        allowed = np.zeros(len(snapshot.rows), bool)
        allowed[[row for (row,) in records if row < len(allowed)]] = True
        if not where:
            num_items = np.count_nonzero(allowed)
            if num_items != snapshot.count:
                self._check_unchanged(snapshot, f"{FILE_NAME} has {num_items:,} of {snapshot.count:,} items")

        # Dropping all of them is simpler than knowing which one was used last.
        if len(snapshot.filter_masks) >= MAX_CACHED_FILTERS:
            snapshot.filter_masks.clear()
        snapshot.filter_masks[filter_json] = allowed
        return allowed


def _filter_condition(where: Filter) -> tuple[str, list[Any]]:
    """Return a filter as a WHERE clause of SQL with the values of its placeholders; no text of the filter is in it."""
    clauses, values = [], []
    for name, condition in where.items():
        path = f"$.{json.dumps(name, ensure_ascii=False)}"  # the key is written as in the stored JSON
        if isinstance(condition, dict):
            for operator, limit in condition.items():
                # SQLite orders values of different types by type; here a value of another type satisfies no bound.
                types = "('text')" if isinstance(limit, str) else "('integer', 'real')"
                clauses.append(f"json_type(fields, ?) IN {types} AND json_extract(fields, ?) {operator} ?")
                values += [path, path, limit]
                if isinstance(limit, str):  # a date is compared with dates only
                    clauses.append(f"json_extract(fields, ?) GLOB '{DATE_GLOB}'")
                    values.append(path)
        else:
            choices = condition if isinstance(condition, list) else [condition]
            placeholders = ", ".join("?" * len(choices))
            clauses.append(f"json_extract(fields, ?) IN ({placeholders})")
            values += [path, *choices]
    if not clauses:
        return "", values
    return f"WHERE {' AND '.join(clauses)}", values


def find_candidates(
    snapshot: _Snapshot, queries: np.ndarray, count: int, allowed: np.ndarray | None, width: int | None
) -> np.ndarray:
    """Return the candidates of queries, `[Q, C]` rows, -1 for none.

    They come from the index type and from the rows that were added after it was built. With a width they come from the
    first numbers of all rows, which are copied at the first such query.
    """
    rows, index_type = snapshot.rows, snapshot.index_type
    if width is not None:
        if width not in snapshot.prefix_searches:
            blocks = np.array_split(rows, len(rows) // ROWS_PER_THREAD + 1)
            prefix_blocks = []
            for block in blocks:
                prefix_blocks.append(truncate_embeddings(block.astype(np.float32), width).astype(np.float16))
            snapshot.prefix_searches[width] = Exact(np.concatenate(prefix_blocks))
        return snapshot.prefix_searches[width].find_candidates(truncate_embeddings(queries, width), count, allowed)

    num_covered = index_type.facts["rows"]
    are_few = False
    if allowed is not None:
        are_few = int(np.count_nonzero(allowed)) <= min(EXACT_UP_TO, len(rows) // 2)
    if index_type.name != Exact.name and (are_few or count * MIN_ROWS_PER_CANDIDATE > num_covered):
        # An approximate index type scans a small share of all rows, and would see too few of the allowed ones. Few rows
        # are scanned quickly anyway.
        return _scan_rows(rows, _list_rows(allowed, range(len(rows))), queries, count)
    # Otherwise the index type searches the rows that it covers, and the others are scanned.
    allowed_covered = None if allowed is None else allowed[:num_covered]
    candidates = index_type.find_candidates(queries, count, allowed_covered)
    if num_covered == len(rows):
        return candidates
    uncovered_rows = _list_rows(allowed, range(num_covered, len(rows)))
    return np.concatenate([candidates, _scan_rows(rows, uncovered_rows, queries, count)], axis=1)


def _list_rows(allowed: np.ndarray | None, block: range) -> np.ndarray:
    """Return the numbers of the allowed rows in a block; None allows all."""
    if allowed is None:
        return np.arange(block.start, block.stop)
    return block.start + np.flatnonzero(allowed[block.start : block.stop])


def _scan_rows(rows: np.ndarray, numbers: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    """Return the exact candidates among the rows with these numbers, `[Q, count]`."""
    if not len(numbers):
        return np.empty([len(queries), 0], np.int64)
    candidates = Exact(rows[numbers]).find_candidates(queries, count)
    return np.where(candidates >= 0, numbers[candidates], -1)
