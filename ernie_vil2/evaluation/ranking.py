"""Exact ranking in blocks: the rank of each query's best right answer, and the answers that rank first.

A score is the dot product of two rows. It is summed in float64 and rounded to float32, so that equal rows tie in
whatever order their products are summed, and results do not depend on the block size. No more than `size x size` scores
(see `Blocks`) are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

TIE_RULES = {
    "pessimistic": "ties count against the model: rank = 1 + the non-positives that score at least the best positive",
    "optimistic": "ties count for the model: rank = 1 + the non-positives that score more than the best positive",
}

# Default of `excluded`: all rows are answers to each other.
NO_PAIRS = np.zeros((0, 2), np.int64)


@dataclass(frozen=True)
class QueryRanks:
    """Ranks and best answers of the queries of one direction.

    All arrays are `[Q]`, with an entry for each query row. Of equal scores the lower gallery row is named.

    Attributes:
        rank: int64, 1-based rank of the best positive; 0 for a row without a positive, which is not a query.
        positive: int64, gallery row of the best positive; -1 without one.
        positive_score: float32, score of the best positive; NaN without one.
        top: int64, gallery row that ranks first.
        top_score: float32, score of the gallery row that ranks first.
    """

    rank: np.ndarray
    positive: np.ndarray
    positive_score: np.ndarray
    top: np.ndarray
    top_score: np.ndarray

    def shift_gallery(self, offset: int) -> QueryRanks:
        """Return the same ranks for a gallery that begins `offset` rows later."""
        positive = np.where(self.positive >= 0, self.positive + offset, self.positive)  # -1 stays -1
        return replace(self, positive=positive, top=self.top + offset)

    @classmethod
    def concatenate(cls, rankings: Sequence[QueryRanks]) -> QueryRanks:
        """Return the queries of several rankings, one ranking after the other."""
        arrays = {}
        for field in fields(cls):
            arrays[field.name] = np.concatenate([getattr(ranking, field.name) for ranking in rankings])
        return cls(**arrays)


@dataclass(frozen=True)
class Blocks:
    """Size of the blocks of scores, and the device that computes them.

    Attributes:
        size: number of rows of either side that are scored at once; larger blocks need more memory.
        device: "cpu", or a device of Paddle such as "gpu:0".
    """

    size: int = 1024
    device: str = "cpu"

    def split(self, num_rows: int) -> Iterator[slice]:
        """Return the slices of the blocks of `num_rows` rows."""
        if self.size < 1:
            raise ValueError(f"block = {self.size}: a block holds at least one row")
        return (slice(start, min(start + self.size, num_rows)) for start in range(0, num_rows, self.size))


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
    """Rank right rows for every left row, and left rows for every right row, in one pass over the scores.

    Args:
        left: embeddings `[N, D]`.
        right: embeddings `[M, D]`.
        pairs: positives `[P, 2]` as (left row, right row), many to many.
        blocks: size of the blocks of scores, and the device that computes them.
        excluded: pairs `[E, 2]` as (left row, right row) that are ranked as if they were not there.
        ties: "pessimistic" or "optimistic", see `TIE_RULES`.
        names: names of the two sides in error messages.

    Returns:
        The ranks of the left rows as queries, and the ranks of the right rows.

    Raises:
        ValueError: an embedding is not finite, a pair is out of range or both positive and excluded, or the tie rule
            is unknown.
    """
    if ties not in TIE_RULES:
        raise ValueError(f"ties = {ties!r}; known rules: {', '.join(TIE_RULES)}")
    left, right = _validate_embeddings(left, right, names)
    # np.unique also sorts by left row, which _tile_indices relies on.
    pairs = np.unique(_validate_pairs(pairs, len(left), len(right)), axis=0)
    excluded = np.unique(_validate_pairs(excluded, len(left), len(right)), axis=0)
    if len(excluded):
        contradictions = set(map(tuple, pairs.tolist())) & set(map(tuple, excluded.tolist()))
        if contradictions:
            raise ValueError(f"pair {min(contradictions)} is right and excluded")

    # The scores of the positives come first, as the pass below compares all other scores with them.
    left_rows, right_rows = pairs.T
    scores = np.empty(len(pairs), np.float32)
    for block in blocks.split(len(pairs)):
        left_block = left[left_rows[block]].astype(np.float64)
        right_block = right[right_rows[block]].astype(np.float64)
        scores[block] = np.einsum("pd,pd->p", left_block, right_block)
    left_counter = _RankCounter(len(left), left_rows, right_rows, scores)
    right_counter = _RankCounter(len(right), right_rows, left_rows, scores)

    compute_scores = _score_function(blocks.device)
    beats = np.greater_equal if ties == "pessimistic" else np.greater
    for rows in blocks.split(len(left)):
        for columns in blocks.split(len(right)):
            tile = compute_scores(left[rows], right[columns])
            tile[_tile_indices(excluded, rows, columns)] = -np.inf
            left_counter.update_top(rows, columns, tile)
            right_counter.update_top(columns, rows, tile.T)

            # Positives can rank first, but do not push each other down: only other rows count for the rank.
            tile[_tile_indices(pairs, rows, columns)] = -np.inf
            left_counter.count_better(rows, tile, beats)
            right_counter.count_better(columns, tile.T, beats)
    return left_counter.ranking(), right_counter.ranking()


class _RankCounter:
    """Ranking of the rows of one side, updated tile after tile.

    Args:
        num_rows: number of rows of this side.
        rows: rows `[P]` of this side that have a positive.
        targets: rows `[P]` of the other side that are their positives.
        scores: scores `[P]` of these pairs.
    """

    def __init__(self, num_rows: int, rows: np.ndarray, targets: np.ndarray, scores: np.ndarray):
        # The best positive of each row comes first; of equal scores the lower target. The last key sorts first.
        order = np.lexsort((targets, -scores, rows))
        best = order[np.unique(rows[order], return_index=True)[1]]
        self.positive = np.full(num_rows, -1, np.int64)
        self.positive[rows[best]] = targets[best]
        # No score reaches the infinite threshold of a row that is not a query.
        self.threshold = np.full(num_rows, np.inf, np.float32)
        self.threshold[rows[best]] = scores[best]
        self.rank = (self.positive >= 0).astype(np.int64)
        self.top = np.zeros(num_rows, np.int64)
        self.top_score = np.full(num_rows, -np.inf, np.float32)

    def update_top(self, rows: slice, columns: slice, tile: np.ndarray) -> None:
        """Take over the best answers of a tile of scores `[rows, columns]`."""
        score = tile.max(axis=1)
        # Tiles come in the order of the columns: an equal score further right does not replace the first one.
        better = np.flatnonzero(score > self.top_score[rows])
        self.top[rows.start + better] = columns.start + tile[better].argmax(axis=1)
        self.top_score[rows.start + better] = score[better]

    def count_better(self, rows: slice, tile: np.ndarray, beats: np.ufunc) -> None:
        """Lower the rank of the rows by the scores of a tile that beat their best positive."""
        self.rank[rows] += np.count_nonzero(beats(tile, self.threshold[rows, None]), axis=1)

    def ranking(self) -> QueryRanks:
        positive_score = np.where(self.positive >= 0, self.threshold, np.float32(np.nan))
        return QueryRanks(self.rank, self.positive, positive_score, self.top, self.top_score)


def first_positive_ranks(
    queries: np.ndarray,
    gallery: np.ndarray,
    positives: np.ndarray,
    blocks: Blocks = ON_CPU,
    names: tuple[str, str] = ("query", "gallery"),
) -> np.ndarray:
    """Return the 1-based rank of every query's best positive; ties count against the model.

    Args:
        queries: embeddings `[Q, D]`.
        gallery: embeddings `[G, D]`.
        positives: `[P, 2]` as (query row, gallery row), many to many.
        blocks: size of the blocks of scores, and the device that computes them.
        names: names of the two sides in error messages.

    Returns:
        Ranks `[Q]`, int64.

    Raises:
        ValueError: an embedding is not finite, a query has no positive, or a positive is out of range.
    """
    positives = _validate_pairs(positives, len(queries), len(gallery))
    _raise_if_missing(np.setdiff1d(np.arange(len(queries)), positives[:, 0]), names[0])
    return rank_queries(queries, gallery, positives, blocks, names=names)[0].rank


def check_all_paired(pairs: np.ndarray, num_images: int, num_texts: int) -> None:
    """Raise ValueError if an image row or a text row is in no pair (image row, text row)."""
    pairs = _validate_pairs(pairs, num_images, num_texts)
    _raise_if_missing(np.setdiff1d(np.arange(num_images), pairs[:, 0]), "image")
    _raise_if_missing(np.setdiff1d(np.arange(num_texts), pairs[:, 1]), "text")


def top_matches(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    blocks: Blocks = ON_CPU,
    excluded: np.ndarray = NO_PAIRS,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best gallery rows of every query, best first; of equal scores the lower row comes first.

    Args:
        queries: embeddings `[Q, D]`.
        gallery: embeddings `[G, D]`.
        k: number of matches of each query.
        blocks: size of the blocks of scores, and the device that computes them.
        excluded: pairs `[E, 2]` as (query row, gallery row) that come last, with the score -inf.

    Returns:
        Gallery rows `[Q, k]`, int64, and their scores `[Q, k]`, float32.

    Raises:
        ValueError: k is not between 1 and G, or an embedding is not finite.
    """
    queries, gallery = _validate_embeddings(queries, gallery, ("query", "gallery"))
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k = {k} matches were asked of a gallery of {len(gallery)} rows")
    indices = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k), np.float32)
    compute_scores = _score_function(blocks.device)
    excluded = np.unique(_validate_pairs(excluded, len(queries), len(gallery)), axis=0)

    for rows in blocks.split(len(queries)):
        num_rows = rows.stop - rows.start
        best_scores = np.empty((num_rows, 0), np.float32)
        best_indices = np.empty((num_rows, 0), np.int64)
        for columns in blocks.split(len(gallery)):
            tile = compute_scores(queries[rows], gallery[columns])
            tile[_tile_indices(excluded, rows, columns)] = -np.inf

            # The best so far stand left of the new scores, and the sort is stable: of equal scores the lower gallery
            # row stays first.
            tile_indices = np.tile(np.arange(columns.start, columns.stop), (num_rows, 1))
            candidate_scores = np.concatenate([best_scores, tile], axis=1)
            candidate_indices = np.concatenate([best_indices, tile_indices], axis=1)
            order = np.argsort(-candidate_scores, axis=1, kind="stable")[:, :k]
            best_scores = np.take_along_axis(candidate_scores, order, axis=1)
            best_indices = np.take_along_axis(candidate_indices, order, axis=1)
        indices[rows], scores[rows] = best_indices, best_scores
    return indices, scores


def _score_function(device: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return the function that scores rows `[r, D]` against columns `[c, D]` on a device: `[r, c]`, float32."""
    if device == "cpu":
        return _numpy_scores
    return lambda rows, columns: _paddle_scores(rows, columns, device)


def _numpy_scores(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return (rows.astype(np.float64) @ columns.astype(np.float64).T).astype(np.float32)


def _paddle_scores(rows: np.ndarray, columns: np.ndarray, device: str) -> np.ndarray:
    import paddle

    # Converted on the device: float32 is half as much to copy.
    left = paddle.to_tensor(rows, place=device).astype("float64")
    right = paddle.to_tensor(columns, place=device).astype("float64")
    return paddle.matmul(left, right, transpose_y=True).astype("float32").numpy()


def _tile_indices(pairs: np.ndarray, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions within a tile of those pairs that lie in it; the pairs are sorted by row."""
    start, stop = np.searchsorted(pairs[:, 0], [rows.start, rows.stop])
    pairs = pairs[start:stop]
    pairs = pairs[(pairs[:, 1] >= columns.start) & (pairs[:, 1] < columns.stop)]
    return pairs[:, 0] - rows.start, pairs[:, 1] - columns.start


def _raise_if_missing(missing_rows: np.ndarray, name: str) -> None:
    if missing_rows.size:
        raise ValueError(
            f"{name} row {missing_rows[0]} has no positive ({missing_rows.size} such rows); "
            "pair every row or leave it out of the evaluation"
        )


def _validate_embeddings(
    queries: np.ndarray, gallery: np.ndarray, names: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    queries, gallery = np.asarray(queries), np.asarray(gallery)
    for name, embeddings in zip(names, (queries, gallery), strict=True):
        if embeddings.ndim != 2:
            raise ValueError(f"{name} embeddings have shape {embeddings.shape}; rows x width is needed")
        broken_rows = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
        if broken_rows.size:
            raise ValueError(
                f"{name} embedding row {broken_rows[0]} is not finite ({broken_rows.size} such rows); "
                "evaluate an earlier checkpoint, or in float32 if it was half precision"
            )
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"{names[0]} embeddings are {queries.shape[1]} wide, {names[1]} embeddings {gallery.shape[1]}; "
            "encode both sides with one model"
        )
    return queries, gallery


def _validate_pairs(pairs: np.ndarray, num_rows: int, num_columns: int) -> np.ndarray:
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise ValueError(f"pairs have shape {pairs.shape} and type {pairs.dtype}; integers [P, 2] are needed")
    is_outside = (pairs < 0) | (pairs >= [num_rows, num_columns])
    outside = np.flatnonzero(is_outside.any(axis=1))
    if outside.size:
        pair = tuple(pairs[outside[0]].tolist())
        raise ValueError(f"pair {outside[0]} is {pair}, outside the {num_rows} x {num_columns} embedding rows")
    return pairs
