"""Image-text retrieval: results of each direction, recall, the recall of chance, and their table.

`ranking.py` computes the ranks, exactly and in blocks.
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
from ernie_vil2.pages import Table, format_percent

# Cutoffs K of R@K, those of the paper's tables. The mR of a direction is the mean over them, and the mR of several
# directions the mean of theirs.
CUTOFFS = (1, 5, 10)
COLUMNS = ("R@1", "R@5", "R@10")
# The usual directions. A protocol may score others, such as text_to_text.
DIRECTIONS = ("image_to_text", "text_to_image")


class Matching(NamedTuple):
    """Rows that are scored against each other: those of a whole benchmark, or of one fold.

    Attributes:
        left: row numbers into the benchmark's images or texts, whichever `sides[0]` names.
        right: row numbers into those that `sides[1]` names.
        positives: pairs `[P, 2]` that belong together, as (position in `left`, position in `right`).
        sides: names of what left and right rows are, "image" or "text".
        excluded: pairs `[E, 2]` of positions that are no answers to each other, each listed once. An example is a row
            and itself, if both sides are the same.
    """

    left: np.ndarray
    right: np.ndarray
    positives: np.ndarray
    sides: tuple[str, str] = ("image", "text")
    excluded: np.ndarray = NO_PAIRS

    @property
    def direction(self) -> str:
        """Name of the direction whose queries are the left rows, such as `image_to_text`."""
        return "_to_".join(self.sides)

    def reverse(self) -> Matching:
        """Return the same matching with left and right exchanged."""
        left_side, right_side = self.sides
        return Matching(self.right, self.left, self.positives[:, ::-1], (right_side, left_side), self.excluded[:, ::-1])


class Fold(NamedTuple):
    """Positions of the queries and of the gallery of one fold, within the concatenated folds."""

    queries: slice
    gallery: slice


@dataclass(frozen=True)
class DirectionResult:
    """The results of the queries of one direction.

    Attributes:
        matching: the queries (`left`) and the gallery (`right`), fold after fold.
        ranking: ranks of `matching.left`; a row of rank 0 has no positive and is not a query. The answers are
            positions in `matching.right`.
        folds: queries and gallery of each fold; a query is ranked in the gallery of its own fold alone.
    """

    matching: Matching
    ranking: QueryRanks
    folds: tuple[Fold, ...]

    @classmethod
    def from_folds(cls, ranked_folds: Sequence[tuple[Matching, QueryRanks]]) -> DirectionResult:
        """Concatenate the folds of one direction."""
        left, right, positives, excluded, rankings, folds = [], [], [], [], [], []
        query_start = gallery_start = 0
        for matching, ranking in ranked_folds:
            query_end = query_start + len(matching.left)
            gallery_end = gallery_start + len(matching.right)
            folds.append(Fold(slice(query_start, query_end), slice(gallery_start, gallery_end)))
            left.append(matching.left)
            right.append(matching.right)
            offset = np.array([query_start, gallery_start])
            positives.append(matching.positives + offset)
            excluded.append(matching.excluded + offset)
            rankings.append(ranking.shift_gallery(gallery_start))
            query_start, gallery_start = query_end, gallery_end
        concatenated = Matching(
            np.concatenate(left),
            np.concatenate(right),
            np.concatenate(positives),
            ranked_folds[0][0].sides,
            np.concatenate(excluded),
        )
        return cls(concatenated, QueryRanks.concatenate(rankings), tuple(folds))

    @cached_property
    def recall(self) -> dict[str, float]:
        """Recalls R@1, R@5, R@10 and mR in percent, averaged over the folds that have queries; {} if none has."""
        return _average([recall(self.ranking.rank[queries]) for queries, _ in self._queries_by_fold()])

    @cached_property
    def chance(self) -> dict[str, float]:
        """Expected recall of a random ranking, averaged like `recall`."""
        num_queries = len(self.matching.left)
        # A pair that is listed twice is one positive. Excluded pairs are never listed twice.
        num_positives = np.bincount(np.unique(self.matching.positives, axis=0)[:, 0], minlength=num_queries)
        num_excluded = np.bincount(self.matching.excluded[:, 0], minlength=num_queries)
        recalls = []
        for queries, gallery_size in self._queries_by_fold():
            recalls.append(chance_recall(num_positives[queries], gallery_size - num_excluded[queries]))
        return _average(recalls)

    def _queries_by_fold(self) -> list[tuple[np.ndarray, int]]:
        """Return the positions of the queries and the size of the gallery of each fold that has queries."""
        queries_by_fold = []
        for fold in self.folds:
            queries = fold.queries.start + np.flatnonzero(self.ranking.rank[fold.queries])
            if queries.size:
                queries_by_fold.append((queries, fold.gallery.stop - fold.gallery.start))
        return queries_by_fold

    def count_unpaired_as_misses(self) -> DirectionResult:
        """Return the result in which rows without a positive are queries, too; they find nothing."""
        # A miss ranks behind the whole gallery.
        rank = np.where(self.ranking.rank, self.ranking.rank, len(self.matching.right) + 1)
        return replace(self, ranking=replace(self.ranking, rank=rank))

    def select_queries(self, is_selected: np.ndarray) -> DirectionResult:
        """Return the result of some queries alone; the galleries stay whole.

        Args:
            is_selected: bool, an entry for each row of the queries' side of the benchmark.
        """
        # A row of rank 0 is not a query.
        rank = np.where(is_selected[self.matching.left], self.ranking.rank, 0)
        return replace(self, ranking=replace(self.ranking, rank=rank))

    def find_best_answers(
        self, embeddings: Mapping[str, np.ndarray], positions: np.ndarray, k: int, device: str = "cpu"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the k best answers to some queries, best first.

        Args:
            embeddings: embeddings `[rows, D]` of the whole benchmark by side.
            positions: positions `[n]` of the queries in `matching.left`.
            k: number of answers to each query.
            device: device that computes the scores.

        Returns:
            Answers `[n, k]` as positions in `matching.right`, and their scores `[n, k]`. Where a gallery has fewer
            than k answers, the last ones are -1, with the score -inf.
        """
        answers = np.full((len(positions), k), -1)
        scores = np.full((len(positions), k), -np.inf, np.float32)
        matching = self.matching
        query_side, gallery_side = matching.sides
        for fold in self.folds:
            (in_fold,) = np.nonzero((positions >= fold.queries.start) & (positions < fold.queries.stop))
            gallery_rows = matching.right[fold.gallery]
            if not in_fold.size or not gallery_rows.size:  # images of a fold without a text have no gallery
                continue
            query_rows = matching.left[positions[in_fold]]

            # Renumber the excluded pairs of these queries: `query_index` maps a position in `matching.left` to the
            # number of the query in this fold, and to -1 if it is not one of these queries.
            query_index = np.full(len(matching.left), -1)
            query_index[positions[in_fold]] = np.arange(len(in_fold))
            excluded_queries = query_index[matching.excluded[:, 0]]
            excluded_answers = matching.excluded[:, 1] - fold.gallery.start
            excluded = np.stack([excluded_queries, excluded_answers], axis=1)[excluded_queries >= 0]

            num_answers = min(k, len(gallery_rows))
            matches, match_scores = top_matches(
                embeddings[query_side][query_rows],
                embeddings[gallery_side][gallery_rows],
                num_answers,
                Blocks(device=device),
                excluded,
            )
            # An excluded row scores -inf and is no answer, even if the gallery holds nothing else.
            answers[in_fold, :num_answers] = np.where(np.isneginf(match_scores), -1, matches + fold.gallery.start)
            scores[in_fold, :num_answers] = match_scores
        return answers, scores


# The results of an evaluation by direction.
Results = Mapping[str, DirectionResult]


def score_matchings(
    matchings: Iterable[Matching],
    embeddings: Mapping[str, np.ndarray],
    directions: Sequence[str] = DIRECTIONS,
    *,
    ties: str = "pessimistic",
    blocks: Blocks = ON_CPU,
) -> dict[str, DirectionResult]:
    """Rank matchings in the requested directions; several matchings of one direction are its folds.

    Args:
        matchings: rows that are scored against each other.
        embeddings: embeddings `[rows, D]` of the whole benchmark by side.
        directions: names of the directions to score.
        ties: tie rule, see `rank_queries`.
        blocks: size of the blocks of scores, and the device that computes them.

    Raises:
        ValueError: an embedding is not finite, or a pair is out of range.
    """
    folds: dict[str, list[tuple[Matching, QueryRanks]]] = {direction: [] for direction in directions}
    for matching in matchings:
        left_side, right_side = matching.sides
        left_ranking, right_ranking = rank_queries(
            embeddings[left_side][matching.left],
            embeddings[right_side][matching.right],
            matching.positives,
            blocks,
            excluded=matching.excluded,
            ties=ties,
            names=matching.sides,
        )
        if matching.direction in folds:
            folds[matching.direction].append((matching, left_ranking))
        # The reverse of a matching of a side with itself is left out: it would be another fold of the same direction.
        reverse = matching.reverse()
        if left_side != right_side and reverse.direction in folds:
            folds[reverse.direction].append((reverse, right_ranking))
    return {direction: DirectionResult.from_folds(ranked) for direction, ranked in folds.items() if ranked}


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
    """Score all images against all texts, and return the result of each direction.

    Args:
        image_embeddings: `[N, D]`.
        text_embeddings: `[M, D]`.
        pairs: `[P, 2]` as (image row, text row), many to many.
        blocks: size of the blocks of scores, and the device that computes them.
        ties: tie rule, see `rank_queries`.
        directions: directions to score, out of `DIRECTIONS`.
        allow_unpaired: accept rows without a pair; they are in the gallery, but no queries.

    Raises:
        ValueError: an embedding is not finite, a pair is out of range, or a row without a pair is not allowed.
    """
    images, texts = np.asarray(image_embeddings), np.asarray(text_embeddings)
    if not allow_unpaired:
        check_all_paired(pairs, len(images), len(texts))
    matching = Matching(np.arange(len(images)), np.arange(len(texts)), np.asarray(pairs))
    return score_matchings([matching], {"image": images, "text": texts}, directions, ties=ties, blocks=blocks)


def mean_recall(results: Results) -> float | None:
    """Return the mean of the directions' mR in percent, or None if no direction has a query."""
    means = [result.recall["mR"] for result in results.values() if result.recall]
    return fmean(means) if means else None


def summarize(results: Results) -> dict:
    """Return sizes, recalls, mR and chance of all directions, for JSON and `make_recall_table`."""
    sizes: dict[str, int] = {}
    recalls, chances = {}, {}
    for direction, result in results.items():
        left_side, right_side = result.matching.sides
        sizes[f"{left_side}s"] = len(result.matching.left)
        sizes[f"{right_side}s"] = len(result.matching.right)
        sizes["pairs"] = len(np.unique(result.matching.positives, axis=0))
        recalls[direction], chances[direction] = result.recall, result.chance
    return {**sizes, **recalls, "mR": mean_recall(results), "chance": chances}


def _average(recalls: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average recalls name by name; {} if there are none."""
    averages = {}
    for name in recalls[0] if recalls else ():
        averages[name] = fmean(values[name] for values in recalls)
    return averages


def recall(ranks: ArrayLike) -> dict[str, float]:
    """Return R@1, R@5, R@10 and their mean mR in percent.

    Args:
        ranks: 1-based ranks `[Q]` of the queries.

    Raises:
        ValueError: there is no rank, or one is below 1.
    """
    ranks = np.asarray(ranks)
    if ranks.size == 0:
        raise ValueError("recall of no queries is undefined: the evaluation set is empty")
    if ranks.min() < 1:
        raise ValueError("ranks count from 1; a row of rank 0 has no pair and is not a query: leave it out")
    return _name_recalls([100 * float(np.mean(ranks <= cutoff)) for cutoff in CUTOFFS])


def chance_recall(num_positives: ArrayLike, gallery_size: ArrayLike) -> dict[str, float]:
    """Return the expected recall of a random ranking, in percent.

    A query with c positives among G misses all of them in its first k with probability
    C(G - c, k) / C(G, k) = prod_{i<k} (G - c - i) / (G - i), the hypergeometric distribution at zero.

    Args:
        num_positives: number of positives `[Q]` of each query; 0 for a query that finds nothing.
        gallery_size: size of the gallery, one number or `[Q]`.

    Raises:
        ValueError: there is no query, or one has more positives than its gallery has rows.
    """
    num_positives = np.asarray(num_positives)
    gallery_size = np.broadcast_to(gallery_size, num_positives.shape)
    if num_positives.size == 0 or num_positives.min() < 0 or (num_positives > gallery_size).any():
        raise ValueError("there is no query, or one has more positives than its gallery has rows")
    percents = []
    for cutoff in CUTOFFS:
        draws = np.arange(cutoff)
        # If the cutoff exceeds the gallery, the product has a factor 0 / 1: a query with a positive cannot miss it.
        num_remaining = np.maximum(gallery_size[:, None] - draws, 1)
        num_wrong = np.maximum(gallery_size[:, None] - num_positives[:, None] - draws, 0)
        miss_probability = (num_wrong / num_remaining).prod(axis=1)  # [Q]
        miss_probability[num_positives == 0] = 1  # also where the whole gallery is drawn
        percents.append(100 * float(np.mean(1 - miss_probability)))
    return _name_recalls(percents)


def _name_recalls(percents: Sequence[float]) -> dict[str, float]:
    """Return the recalls at the cutoffs by column, and their mean mR."""
    recalls = dict(zip(COLUMNS, percents, strict=True))
    recalls["mR"] = sum(percents) / len(percents)
    return recalls


def mean_reciprocal_rank(ranks: ArrayLike) -> float:
    """Return the mean of 1 / rank in percent, for 1-based ranks `[Q]`."""
    return float(100 * np.mean(1 / np.asarray(ranks)))


# A row of a table: its label, and recalls by direction as in `summarize`. With None instead of recalls, the label is a
# heading of the rows below it.
Row = tuple[str, Mapping | None]


def make_recall_table(rows: Iterable[Row], notes: Sequence[str] = ()) -> Table:
    """Make a table in the form of the paper's: recall in percent, image to text, text to image, mR.

    Args:
        rows: labels and recalls; a missing value is shown as "-". Further directions follow the two usual ones.
        notes: sentences below the table.
    """
    rows = list(rows)
    directions = list(DIRECTIONS)
    for _, values in rows:
        for key in values or ():
            if "_to_" in key and key not in directions:
                directions.append(key)
    # With more than the two usual directions, each shows its own mean as well.
    columns = COLUMNS if len(directions) == len(DIRECTIONS) else (*COLUMNS, "mR")

    cells: list[tuple[str, list[str] | None]] = []
    for label, values in rows:
        cells.append((label, None if values is None else _format_cells(values, directions, columns)))
    return Table(
        (*columns * len(directions), "mR"),
        cells,
        groups=[(format_direction(direction), len(columns)) for direction in directions],
        notes=notes,
        kind="recalls",
    )


def _format_cells(values: Mapping, directions: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Format the columns of each direction, and the mean over the directions.

    The mean is `values["mR"]`. Without that key it is the mean of the directions' mR, and "-" if a direction has none.
    """
    cells, means = [], []
    for direction in directions:
        recalls = values.get(direction) or {}
        cells += [format_percent(recalls.get(column)) for column in columns]
        if "mR" in recalls:
            means.append(recalls["mR"])

    mean = values.get("mR")
    if "mR" not in values and len(means) == len(directions):
        mean = fmean(means)
    return [*cells, format_percent(mean)]


def format_direction(direction: str) -> str:
    """Format a direction for people: image → text."""
    return direction.replace("_to_", " → ")
