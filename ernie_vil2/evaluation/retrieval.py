"""Image-text retrieval: what queries find, recall, chance, and their table.

Which row ranks where is found in `ranking.py`, exactly and in blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ernie_vil2.evaluation.ranking import (
    NO_PAIRS,
    ON_CPU,
    Blocks,
    QueryRanks,
    check_all_paired,
    rank_queries,
    top_matches,
)
from ernie_vil2.evaluation.ranking import first_positive_ranks as first_positive_ranks
from ernie_vil2.pages import Table, percent

CUTOFFS = (1, 5, 10)
COLUMNS = ("R@1", "R@5", "R@10")
DIRECTIONS = ("image_to_text", "text_to_image")


class Matching(NamedTuple):
    """Rows that are scored against each other: a whole benchmark, or one fold of it.

    `left` and `right` are rows of the benchmark's sides that `sides` names. `positives` `[P, 2]` says which belong
    together, as (position in `left`, position in `right`), and `excluded` `[E, 2]` which are not answers to each other,
    as a row and itself where both sides are one.
    """

    left: np.ndarray
    right: np.ndarray
    positives: np.ndarray
    sides: tuple[str, str] = ("image", "text")
    excluded: np.ndarray = NO_PAIRS

    @property
    def direction(self) -> str:
        """That in which `left` asks, such as `image_to_text`."""
        return "_to_".join(self.sides)

    def reverse(self) -> Matching:
        """The same, where `right` asks."""
        left, right = self.sides
        return Matching(self.right, self.left, self.positives[:, ::-1], (right, left), self.excluded[:, ::-1])


@dataclass(frozen=True)
class DirectionResult:
    """The results of the queries of one direction.

    Attributes:
        matching: whose `left` are the queries and whose `right` is the gallery, fold after fold.
        ranking: of `asked.left`; a row of rank 0 has no positive and is not a query. Answers index `asked.right`.
        folds: the positions of each fold's queries, and of its gallery.
    """

    matching: Matching
    ranking: QueryRanks
    folds: tuple[tuple[slice, slice], ...]

    @classmethod
    def from_folds(cls, folds: Sequence[tuple[Matching, QueryRanks]]) -> DirectionResult:
        """The folds of one direction behind each other."""
        matchings, rankings = zip(*folds, strict=True)
        bounds = np.cumsum([(0, 0), *((len(one.left), len(one.right)) for one in matchings)], axis=0)
        starts = bounds[:-1]
        asked = Matching(
            np.concatenate([one.left for one in matchings]),
            np.concatenate([one.right for one in matchings]),
            np.concatenate([one.positives + start for one, start in zip(matchings, starts, strict=True)]),
            matchings[0].sides,
            np.concatenate([one.excluded + start for one, start in zip(matchings, starts, strict=True)]),
        )
        slices = tuple(
            (slice(first[0], last[0]), slice(first[1], last[1]))
            for first, last in zip(starts.tolist(), bounds[1:].tolist(), strict=True)
        )
        shifted = [found.shift_gallery(start[1]) for found, start in zip(rankings, starts, strict=True)]
        return cls(asked, QueryRanks.concatenate(shifted), slices)

    @cached_property
    def recall(self) -> dict[str, float]:
        """R@1, R@5, R@10 and mR in percent, the mean over the folds that have a query; {} if none has."""
        return _mean([recall(self.ranking.rank[positions]) for positions, _ in self._queries()])

    @cached_property
    def chance(self) -> dict[str, float]:
        """The recall that a random ranking would be expected to reach, likewise."""
        positives, excluded = (
            np.bincount(pairs[:, 0], minlength=len(self.matching.left))
            for pairs in (np.unique(self.matching.positives, axis=0), self.matching.excluded)
        )
        return _mean(
            [chance_recall(positives[positions], size - excluded[positions]) for positions, size in self._queries()]
        )

    def _queries(self) -> list[tuple[np.ndarray, int]]:
        """For each fold that has queries their positions, and the size of the gallery."""
        folds = [(rows.start + np.flatnonzero(self.ranking.rank[rows]), gallery) for rows, gallery in self.folds]
        return [(positions, gallery.stop - gallery.start) for positions, gallery in folds if positions.size]

    def count_unpaired_as_misses(self) -> DirectionResult:
        """The result where a row without a positive is a query too: one that finds nothing."""
        rank = np.where(self.ranking.rank, self.ranking.rank, len(self.matching.right) + 1)
        return replace(self, ranking=replace(self.ranking, rank=rank))

    def select_queries(self, chosen: np.ndarray) -> DirectionResult:
        """The result of some queries alone, one truth value for each row of their side; galleries stay whole."""
        rank = np.where(chosen[self.matching.left], self.ranking.rank, 0)
        return replace(self, ranking=replace(self.ranking, rank=rank))

    def find_best_answers(
        self, embeddings: Mapping[str, np.ndarray], positions: np.ndarray, k: int, device: str = "cpu"
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best answers to some queries, best first, as positions in the gallery, and their scores.

        Both are `[n, k]`; where a gallery has fewer answers the last are -1, with the score -inf.

        Args:
            embeddings: by side, of all rows of the benchmark.
        """
        answers, scores = np.full((len(positions), k), -1), np.full((len(positions), k), -np.inf, np.float32)
        queries, gallery = (embeddings[side] for side in self.matching.sides)
        for rows, columns in self.folds:
            (here,) = np.nonzero((positions >= rows.start) & (positions < rows.stop))
            if not here.size:
                continue
            row_of = np.full(len(self.matching.left), -1)
            row_of[positions[here]] = np.arange(len(here))
            excluded = np.stack(
                [row_of[self.matching.excluded[:, 0]], self.matching.excluded[:, 1] - columns.start], axis=1
            )
            count = min(k, columns.stop - columns.start)
            found, best = top_matches(
                queries[self.matching.left[positions[here]]], gallery[self.matching.right[columns]], count,
                Blocks(device=device), excluded[excluded[:, 0] >= 0],
            )  # fmt: skip
            answers[here, :count] = np.where(np.isneginf(best), -1, found + columns.start)
            scores[here, :count] = best
        return answers, scores


Results = Mapping[str, DirectionResult]
"""By direction."""


def score_matchings(
    matchings: Iterable[Matching],
    embeddings: Mapping[str, np.ndarray],
    directions: Sequence[str] = DIRECTIONS,
    *,
    ties: str = "pessimistic",
    blocks: Blocks = ON_CPU,
) -> dict[str, DirectionResult]:
    """Ranks matchings in those of their directions that are asked for; several of one direction are its folds.

    Args:
        embeddings: `[rows, D]` of the whole benchmark, by side.
        ties, blocks: as in `rank_queries`.

    Raises:
        ValueError: an embedding that is not finite, or a pair out of range.
    """
    folds: dict[str, list[tuple[Matching, QueryRanks]]] = {direction: [] for direction in directions}
    for matching in matchings:
        left, right = (embeddings[side][rows] for side, rows in zip(matching.sides, matching[:2], strict=True))
        rankings = rank_queries(
            left, right, matching.positives, blocks, excluded=matching.excluded, ties=ties, names=matching.sides
        )  # fmt: skip
        # Asked the other way round, a matching of one side with itself would be another question.
        both = (matching, matching.reverse())[: len(set(matching.sides))]
        for asked, ranking in zip(both, rankings, strict=False):
            if asked.direction in folds:
                folds[asked.direction].append((asked, ranking))
    return {direction: DirectionResult.from_folds(found) for direction, found in folds.items() if found}


def evaluate_retrieval(
    image_embeddings: np.ndarray,
    text_embeddings: np.ndarray,
    pairs: np.ndarray,
    blocks: Blocks = ON_CPU,
    *,
    ties: str = "pessimistic",
    directions: Sequence[str] = DIRECTIONS,
    allow_unpaired: bool = False,
) -> dict[str, DirectionResult]:
    """Score images `[N, D]` against texts `[M, D]`; `pairs` `[P, 2]` are (image row, text row), many to many.

    Args:
        ties, blocks: as in `rank_queries`.
        directions: those that are scored, of `DIRECTIONS`.
        allow_unpaired: whether a row may be without a pair; it then is in the gallery, but no query.

    Returns:
        The result of each direction.

    Raises:
        ValueError: an embedding that is not finite, a pair out of range, and, unless allowed, a row without a pair.
    """
    images, texts = np.asarray(image_embeddings), np.asarray(text_embeddings)
    if not allow_unpaired:
        check_all_paired(pairs, len(images), len(texts))
    whole = Matching(np.arange(len(images)), np.arange(len(texts)), np.asarray(pairs))
    return score_matchings([whole], {"image": images, "text": texts}, directions, ties=ties, blocks=blocks)


def mean_recall(results: Results) -> float | None:
    """The mean of the directions' mR, in percent; of both, the two-way mR. None where no direction has a query."""
    means = [result.recall["mR"] for result in results.values() if result.recall]
    return fmean(means) if means else None


def summarize(results: Results) -> dict:
    """Return sizes, recalls, mR and chance of all directions, for JSON and `make_recall_table`."""
    sizes: dict[str, int] = {}
    for result in results.values():
        sides = (f"{side}s" for side in result.matching.sides)
        sizes |= zip(sides, map(len, result.matching[:2]), strict=True)
        sizes["pairs"] = len(np.unique(result.matching.positives, axis=0))
    return {
        **sizes,
        **{direction: result.recall for direction, result in results.items()},
        "mR": mean_recall(results),
        "chance": {direction: result.chance for direction, result in results.items()},
    }


def _mean(folds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: fmean(values[name] for values in folds) for name in (folds[0] if folds else ())}


def recall(ranks: ArrayLike) -> dict[str, float]:
    """R@1, R@5, R@10 and their mean mR, in percent, of 1-based `ranks` `[Q]`."""
    ranks = np.asarray(ranks)
    if ranks.size == 0:
        raise ValueError("recall of no queries is undefined: the evaluation set is empty")
    if ranks.min() < 1:
        raise ValueError("ranks count from 1; a row of rank 0 has no pair and is not a query: leave it out")
    return _with_mean([float(np.mean(ranks <= k)) for k in CUTOFFS])


def chance_recall(counts_of_positives: ArrayLike, gallery_size: ArrayLike) -> dict[str, float]:
    """The expected recall of a random ranking, in percent.

    `counts_of_positives` `[Q]` has one count a query, 0 for one that finds nothing; `gallery_size` is one number, or
    one a query, `[Q]`.

    A query with c positives among G misses all of them in its first k with probability
    C(G - c, k) / C(G, k) = prod_{i<k} (G - c - i) / (G - i), the hypergeometric distribution at zero.
    """
    counts = np.asarray(counts_of_positives)
    sizes = np.broadcast_to(gallery_size, counts.shape)
    if counts.size == 0 or counts.min() < 0 or (counts > sizes).any():
        raise ValueError("there is no query, or one has more positives than its gallery has rows")
    shares = []
    for k in CUTOFFS:
        drawn = np.arange(k)
        left = np.maximum(sizes[:, None] - drawn, 1)  # once all are drawn, none is missed any more
        missed = np.maximum(sizes[:, None] - counts[:, None] - drawn, 0) / left  # [Q, k]
        shares.append(float(np.mean(1 - missed.prod(axis=1))))
    return _with_mean(shares)


def mean_reciprocal_rank(ranks: ArrayLike) -> float:
    """The mean of 1 / rank, in percent, of 1-based `ranks` `[Q]`."""
    return float(100 * np.mean(1 / np.asarray(ranks)))


Row = tuple[str, Mapping | None]


def make_recall_table(rows: Iterable[Row], notes: Sequence[str] = ()) -> Table:
    """A table in the form of the paper's: recall in percent, image to text, text to image, mR.

    A row is (label, values): values is a dictionary of recalls by direction such as `summary` gives (what it lacks is
    "-"), or None for a heading that opens a group of rows. Other directions that a row has follow the two.
    """
    rows = list(rows)
    ways = directions_of(rows)
    columns = columns_of(ways)
    return Table(
        (*columns * len(ways), "mR"),
        [(label, None if values is None else table_cells(values, ways)) for label, values in rows],
        groups=[(format_direction(way), len(columns)) for way in ways],
        notes=notes,
        kind="recalls",
    )


def format_direction(direction: str) -> str:
    """A direction as it is shown: image → text."""
    return direction.replace("_to_", " → ")


def directions_of(rows: Iterable[Row]) -> list[str]:
    """The directions of a table: the two, and what else its rows have."""
    return list(dict.fromkeys([*DIRECTIONS, *(key for _, values in rows for key in values or () if "_to_" in key)]))


def columns_of(directions: Sequence[str]) -> tuple[str, ...]:
    """What a table says of each direction: where there are more than the two usual ones, the mean of each as well."""
    return COLUMNS if set(directions) <= set(DIRECTIONS) else (*COLUMNS, "mR")


def table_cells(values: Mapping, directions: Sequence[str] = DIRECTIONS) -> list[str]:
    """The numbers of one table row: those of `columns_of` for each direction and the mean of all.

    The last is `values["mR"]` or, without it, the mean of the directions' mR; "-" when one of them lacks it.
    """
    ways = [values.get(direction) or {} for direction in directions]
    numbers = [way.get(name) for way in ways for name in columns_of(directions)]
    means = [way["mR"] for way in ways if "mR" in way]
    numbers.append(values.get("mR", fmean(means) if len(means) == len(ways) else None))
    return list(map(percent, numbers))


def _with_mean(shares: Sequence[float]) -> dict[str, float]:
    percents = [100 * share for share in shares]
    return {**dict(zip(COLUMNS, percents, strict=True)), "mR": sum(percents) / len(percents)}
