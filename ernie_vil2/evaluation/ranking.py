"""Exact ranking in blocks: who ranks where, and what ranks first.

A score is the dot product of two rows. It is summed in float64 and rounded to float32, so that equal
rows tie whatever order the sum was taken in, and the numbers do not depend on the block size.
All functions work on blocks: no more than `block x block` scores are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

TIE_RULES = {
    "pessimistic": "ties count against the model: rank = 1 + the non-positives that score at least the best positive",
    "optimistic": "ties count for the model: rank = 1 + the non-positives that score more than the best positive",
}

NO_PAIRS = np.zeros((0, 2), np.int64)


@dataclass(frozen=True)
class QueryRanks:
    """What the queries of one direction find; arrays `[Q]`, one entry a query row.

    `rank` is the 1-based rank of the best positive, int64, and 0 for a row without a positive, which is not a query.
    `positive` is the gallery row of that positive (-1 without one) and `positive_score` its score, float32; `top` and
    `top_score` are those of the gallery row that ranks first. Of equal scores the lower row is named.
    """

    rank: np.ndarray
    positive: np.ndarray
    positive_score: np.ndarray
    top: np.ndarray
    top_score: np.ndarray

    def shift_gallery(self, rows: int) -> QueryRanks:
        """The same of a gallery that begins that many rows later."""
        return replace(self, positive=self.positive + rows * (self.positive >= 0), top=self.top + rows)

    @classmethod
    def concatenate(cls, rankings: Sequence[QueryRanks]) -> QueryRanks:
        """The rankings behind each other."""
        names = [one.name for one in fields(cls)]
        return cls(*(np.concatenate([getattr(found, name) for found in rankings]) for name in names))


@dataclass(frozen=True)
class Blocks:
    """How scores are computed.

    Attributes:
        size: rows of either side that are scored at once.
        device: where the products are computed: "cpu", or a device of Paddle's such as "gpu:0".
    """

    size: int = 1024
    device: str = "cpu"

    def split(self, count: int) -> Iterator[slice]:
        """Return the blocks of so many rows."""
        if self.size < 1:
            raise ValueError(f"block = {self.size}: a block holds at least one row")
        return (slice(start, min(start + self.size, count)) for start in range(0, count, self.size))


ON_CPU = Blocks()


def rank_queries(
    left: np.ndarray,
    right: np.ndarray,
    pairs: np.ndarray,
    blocks: Blocks = ON_CPU,
    *,
    excluded: np.ndarray = NO_PAIRS,
    ties: str = "pessimistic",
    names: tuple[str, str] = ("left", "right"),
) -> tuple[QueryRanks, QueryRanks]:
    """Ranks right rows for every left row, and left rows for every right row, from one pass over the scores.

    Args:
        left, right: embeddings `[N, D]` and `[M, D]`.
        pairs: `[P, 2]`, (left row, right row) of what belongs together, many to many.
        blocks: how scores are computed.
        excluded: `[E, 2]`, (left row, right row) of what is not an answer to each other: as if it were not there.
        ties: "pessimistic" or "optimistic", see `TIE_RULES`.
        names: what error messages call the two sides.

    Raises:
        ValueError: an embedding that is not finite, a pair out of range, right and excluded at once, an unknown tie
            rule.
    """
    if ties not in TIE_RULES:
        raise ValueError(f"ties = {ties!r}; known rules: {', '.join(TIE_RULES)}")
    left, right = _checked_embeddings(left, right, names)
    # Sorted by left row.
    pairs, excluded = (np.unique(_checked_pairs(each, len(left), len(right)), axis=0) for each in (pairs, excluded))
    if both := set(map(tuple, pairs.tolist())) & set(map(tuple, excluded.tolist())) if len(excluded) else ():
        raise ValueError(f"pair {min(both)} is right and excluded")
    owners, targets = pairs.T
    scores = np.empty(len(pairs), np.float32)
    for part in blocks.split(len(pairs)):
        products = left[owners[part]].astype(np.float64), right[targets[part]].astype(np.float64)
        scores[part] = np.einsum("pd,pd->p", *products)
    of_left, of_right = _Tally(len(left), owners, targets, scores), _Tally(len(right), targets, owners, scores)

    scored, beats = _scorer(blocks.device), np.greater_equal if ties == "pessimistic" else np.greater
    for rows in blocks.split(len(left)):
        for columns in blocks.split(len(right)):
            tile = scored(left[rows], right[columns])
            tile[_inside(excluded, rows, columns)] = -np.inf
            of_left.see(rows, columns, tile)
            of_right.see(columns, rows, tile.T)
            tile[_inside(pairs, rows, columns)] = -np.inf
            of_left.count(rows, tile, beats)
            of_right.count(columns, tile.T, beats)
    return of_left.ranking(), of_right.ranking()


class _Tally:
    """Gathers the ranking of one side's rows while the scores go by, tile after tile."""

    def __init__(self, rows: int, owners: np.ndarray, targets: np.ndarray, scores: np.ndarray):
        order = np.lexsort((targets, -scores, owners))
        first = order[np.unique(owners[order], return_index=True)[1]]
        self.positive = np.full(rows, -1, np.int64)
        self.positive[owners[first]] = targets[first]
        self.bar = np.full(rows, np.inf, np.float32)  # what others have to reach; never, for a row that is not a query
        self.bar[owners[first]] = scores[first]
        self.rank = (self.positive >= 0).astype(np.int64)
        self.top = np.zeros(rows, np.int64)
        self.top_score = np.full(rows, -np.inf, np.float32)

    def see(self, rows: slice, columns: slice, tile: np.ndarray) -> None:
        score = tile.max(axis=1)
        better = np.flatnonzero(score > self.top_score[rows])  # an equal score further right comes too late
        self.top[rows.start + better] = columns.start + tile[better].argmax(axis=1)
        self.top_score[rows.start + better] = score[better]

    def count(self, rows: slice, tile: np.ndarray, beats: np.ufunc) -> None:
        self.rank[rows] += np.count_nonzero(beats(tile, self.bar[rows, None]), axis=1)

    def ranking(self) -> QueryRanks:
        positive_score = np.where(self.positive >= 0, self.bar, np.float32(np.nan))
        return QueryRanks(self.rank, self.positive, positive_score, self.top, self.top_score)


def first_positive_ranks(
    queries: np.ndarray,
    gallery: np.ndarray,
    positives: np.ndarray,
    blocks: Blocks = ON_CPU,
    names: tuple[str, str] = ("query", "gallery"),
) -> np.ndarray:
    """The 1-based rank of every query's best positive, int64 `[Q]`; ties count against the model.

    queries `[Q, D]`, gallery `[G, D]`; `positives` `[P, 2]` are (query row, gallery row), many to many.
    `names` are what error messages call the two sides. Raises ValueError for an embedding that is not finite,
    a query without a positive, and a positive out of range.
    """
    positives = _checked_pairs(positives, len(queries), len(gallery))
    _refuse(np.setdiff1d(np.arange(len(queries)), positives[:, 0]), names[0])
    return rank_queries(queries, gallery, positives, blocks, names=names)[0].rank


def check_all_paired(pairs: np.ndarray, images: int, texts: int) -> None:
    """Raises ValueError when one of so many image or text rows is in no pair (image row, text row)."""
    pairs = _checked_pairs(pairs, images, texts)
    _refuse(np.setdiff1d(np.arange(images), pairs[:, 0]), "image")
    _refuse(np.setdiff1d(np.arange(texts), pairs[:, 1]), "text")


def top_matches(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    blocks: Blocks = ON_CPU,
    excluded: np.ndarray = NO_PAIRS,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best gallery rows of every query, best first, equal scores by lower row: exact and deterministic.

    queries `[Q, D]`, gallery `[G, D]`; `excluded` `[E, 2]` (query row, gallery row) come last, with the score -inf.
    Returns indices int64 `[Q, k]` and scores float32 `[Q, k]`.
    Raises ValueError when k is not between 1 and G, or an embedding is not finite.
    """
    queries, gallery = _checked_embeddings(queries, gallery, ("query", "gallery"))
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k = {k} matches were asked of a gallery of {len(gallery)} rows")
    indices = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k), np.float32)
    scored, excluded = _scorer(blocks.device), np.unique(_checked_pairs(excluded, len(queries), len(gallery)), axis=0)
    for rows in blocks.split(len(queries)):
        count = rows.stop - rows.start
        best_scores, best_indices = np.empty((count, 0), np.float32), np.empty((count, 0), np.int64)
        for columns in blocks.split(len(gallery)):
            here = np.arange(columns.start, columns.stop)
            tile = scored(queries[rows], gallery[columns])
            tile[_inside(excluded, rows, columns)] = -np.inf
            merged = np.concatenate([best_scores, tile], axis=1)
            origin = np.concatenate([best_indices, np.tile(here, (count, 1))], axis=1)
            # Stable: among equal scores the earlier column wins, which is the lower gallery row.
            order = np.argsort(-merged, axis=1, kind="stable")[:, :k]
            best_scores, best_indices = (np.take_along_axis(a, order, axis=1) for a in (merged, origin))
        indices[rows], scores[rows] = best_indices, best_scores
    return indices, scores


def _scorer(device: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The function that scores a block of rows against another on `device`, `[r, D]` and `[c, D]` to `[r, c]`."""
    return _numpy_scores if device == "cpu" else lambda rows, columns: _paddle_scores(rows, columns, device)


def _numpy_scores(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return (rows.astype(np.float64) @ columns.astype(np.float64).T).astype(np.float32)


def _paddle_scores(rows: np.ndarray, columns: np.ndarray, device: str) -> np.ndarray:
    import paddle

    left, right = (paddle.to_tensor(side, place=device).astype("float64") for side in (rows, columns))
    return paddle.matmul(left, right, transpose_y=True).astype("float32").numpy()


def _inside(pairs: np.ndarray, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """Where in the tile of rows and columns pairs lie that are sorted by row."""
    pairs = pairs[slice(*np.searchsorted(pairs[:, 0], [rows.start, rows.stop]))]
    pairs = pairs[(pairs[:, 1] >= columns.start) & (pairs[:, 1] < columns.stop)]
    return pairs[:, 0] - rows.start, pairs[:, 1] - columns.start


def _refuse(missing: np.ndarray, name: str) -> None:
    if missing.size:
        raise ValueError(
            f"{name} row {missing[0]} has no positive ({missing.size} such rows); "
            "pair every row or leave it out of the evaluation"
        )


def _checked_embeddings(
    queries: np.ndarray, gallery: np.ndarray, names: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    queries, gallery = np.asarray(queries), np.asarray(gallery)
    for name, rows in zip(names, (queries, gallery), strict=True):
        if rows.ndim != 2:
            raise ValueError(f"{name} embeddings have shape {rows.shape}; rows x width is needed")
        broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if broken.size:
            raise ValueError(
                f"{name} embedding row {broken[0]} is not finite ({broken.size} such rows); "
                "evaluate an earlier checkpoint, or in float32 if it was half precision"
            )
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"{names[0]} embeddings are {queries.shape[1]} wide, {names[1]} embeddings {gallery.shape[1]}; "
            "encode both sides with one model"
        )
    return queries, gallery


def _checked_pairs(pairs: np.ndarray, rows: int, columns: int) -> np.ndarray:
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise ValueError(f"pairs have shape {pairs.shape} and type {pairs.dtype}; integers [P, 2] are needed")
    outside = np.flatnonzero(((pairs < 0) | (pairs >= [rows, columns])).any(axis=1))
    if outside.size:
        pair = tuple(pairs[outside[0]].tolist())
        raise ValueError(f"pair {outside[0]} is {pair}, outside the {rows} x {columns} embedding rows")
    return pairs
