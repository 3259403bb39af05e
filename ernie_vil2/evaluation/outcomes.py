"""The outcome of every query of an evaluation, and the comparison of models that answered the same queries.

A scorer puts `Outcomes` into its report. A figure, such as R@1 or accuracy, is a mean over queries. Intervals, paired
differences and verdicts (`intervals.py`) are therefore computed from outcomes alone, whatever is scored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ernie_vil2.evaluation.intervals import (
    CONFIDENCE_LEVEL,
    POWER,
    RESAMPLES,
    Interval,
    correct_p_values,
    count_queries_needed,
    estimate_over_queries,
    estimate_query_difference,
    find_detectable_difference,
)
from ernie_vil2.evaluation.retrieval import CUTOFFS, format_direction
from ernie_vil2.io.terminal import pluralize
from ernie_vil2.pages import Card, Table

_LEVEL_TEXT = f"{100 * CONFIDENCE_LEVEL:.0f} %"
INTERVAL_NOTE = (
    f"Intervals are {_LEVEL_TEXT} intervals from {{resamples:,}} bootstrap resamples of the queries, with all queries "
    "of an image drawn together. The gallery is fixed: they show how the figures would vary with other queries to this "
    "gallery. They are not corrected for their number."
)
TEST_NOTE = (
    "Verdicts: a paired randomisation test of each model against the first, which exchanges the two image by image, "
    "at 5 %"
)
DISAGREEMENT_NOTE = "Where an interval and a verdict disagree, this test decides."
NOT_DISTINGUISHABLE = "not distinguishable"


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of the Q queries of one result.

    Attributes:
        query_ids: ids of the queries, equal for all models that answer the same queries.
        figures: what each query contributes to a figure, `[Q]` in percent, by the name of the figure, such as
            `image_to_text/R@1`; NaN if the query does not belong to the figure.
        main_figure: name of the figure by which models are compared.
        clusters: `[Q]`, equal numbers for the queries of one image.
        ranks: `[Q]`, rank of the right answer, from 1.
        groups: for a figure that is the mean of the means of groups, the group of each query, `[Q]`, by its name.
        texts: texts of the queries; "" if the query is an image.
        fields: fields that the data have for each query.
        make_cards: returns cards for a page, given the numbers of queries.
    """

    query_ids: Sequence[str]
    figures: Mapping[str, np.ndarray]
    main_figure: str
    clusters: np.ndarray
    ranks: np.ndarray
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)
    texts: Sequence[str] = ()
    fields: Sequence[Mapping[str, object]] = ()
    make_cards: Callable[[Sequence[int]], list[Card]] | None = None

    def select(self, query_ids: Collection[str]) -> Outcomes:
        """Return the outcomes of the queries with these ids, without their texts, fields and cards."""
        rows = np.array([row for row, query in enumerate(self.query_ids) if query in query_ids], np.int64)
        return Outcomes(
            query_ids=[self.query_ids[row] for row in rows],
            figures={name: values[rows] for name, values in self.figures.items()},
            main_figure=self.main_figure,
            clusters=self.clusters[rows],
            ranks=self.ranks[rows],
            groups={name: groups[rows] for name, groups in self.groups.items()},
        )

    def estimate(self, figure: str, **options: Any) -> Interval:
        """Return a figure with its interval; options as for `estimate_over_queries`."""
        return estimate_over_queries(self.figures[figure], self.clusters, self.groups.get(figure), **options)

    def estimate_difference(self, baseline: Outcomes, figure: str, **options: Any) -> Interval:
        """Return the difference between a figure and the same figure of the baseline model, with its interval.

        Args:
            baseline: outcomes of the baseline model, on the same queries in any order.
            figure: name of the figure.
            options: as for `estimate_query_difference`.

        Raises:
            ValueError: the two models answered different queries.
        """
        rows = np.flatnonzero(~np.isnan(self.figures[figure]))
        baseline_rows = np.flatnonzero(~np.isnan(baseline.figures[figure]))
        query_ids = [self.query_ids[row] for row in rows.tolist()]
        baseline_ids = [baseline.query_ids[row] for row in baseline_rows.tolist()]
        # A paired difference needs both models in the same order: bring the rows into the order of the baseline.
        if query_ids != baseline_ids:
            row_of_id = dict(zip(query_ids, rows.tolist(), strict=True))
            if len(row_of_id) != len(baseline_ids) or row_of_id.keys() != set(baseline_ids):
                num_unshared = len(set(baseline_ids) ^ row_of_id.keys())
                raise ValueError(
                    f"the models answered different queries: {num_unshared:,} belong to one model alone ({figure})"
                )
            rows = np.array([row_of_id[query_id] for query_id in baseline_ids])
        groups = baseline.groups.get(figure)
        if groups is not None:
            groups = groups[baseline_rows]
        return estimate_query_difference(
            self.figures[figure][rows],
            baseline.figures[figure][baseline_rows],
            baseline.clusters[baseline_rows],
            groups,
            **options,
        )

    def choose_shared_figure(self, baseline: Outcomes) -> str:
        """Return the baseline's main figure or, if this model lacks it, the most similar figure that both have.

        Raises:
            ValueError: the two models have no figure in common.
        """
        shared = [name for name in baseline.figures if name in self.figures]
        if not shared:
            raise ValueError(
                f"the two models have no figure in common: {', '.join(self.figures)}; {', '.join(baseline.figures)}"
            )
        if baseline.main_figure in shared:
            return baseline.main_figure
        # The same measure of one direction, such as image_to_text/mR for mR.
        measure = baseline.main_figure.rpartition("/")[2]
        for name in shared:
            if name.rpartition("/")[2] == measure:
                return name
        return shared[0]


def compute_recalls(directions: Sequence[str], ranks: np.ndarray) -> dict[str, np.ndarray]:
    """Return R@1, R@5, R@10 and mR of each direction, and the mR of all, as figures of `Outcomes`.

    Args:
        directions: direction of each query, such as `image_to_text`.
        ranks: `[Q]`, rank of each query's best right answer.
    """
    recalls = {f"R@{cutoff}": 100.0 * (ranks <= cutoff) for cutoff in CUTOFFS}
    recalls["mR"] = sum(recalls.values(), np.zeros(len(ranks))) / len(CUTOFFS)
    direction_of_query = np.array(directions)
    distinct_directions = list(dict.fromkeys(directions))
    figures: dict[str, np.ndarray] = {}
    for direction in distinct_directions:
        for measure, values in recalls.items():
            figures[f"{direction}/{measure}"] = np.where(direction_of_query == direction, values, np.nan)
    if len(distinct_directions) > 1:
        figures["mR"] = recalls["mR"]
    return figures


@dataclass(frozen=True)
class Verdict:
    """Comparison of one model with the baseline model in one result.

    Attributes:
        model, baseline: names of the two models.
        result: name of the result, "" if there is one only.
        figure: name of the figure by which they are compared.
        difference: figure of the model minus that of the baseline, in percentage points.
        p_value: p-value of the randomisation test, after Holm's correction.
        num_tests: number of verdicts that the correction covers.
    """

    model: str
    baseline: str
    result: str
    figure: str
    difference: Interval
    p_value: float
    num_tests: int

    @property
    def word(self) -> str:
        """The verdict in a word: better, worse or not distinguishable."""
        if self.p_value >= 1 - CONFIDENCE_LEVEL:
            return NOT_DISTINGUISHABLE
        return "better" if self.difference.mean > 0 else "worse"

    @property
    def queries_needed(self) -> int | None:
        """Number of queries that would show the difference; None if it is significant, or zero on all queries."""
        if self.word != NOT_DISTINGUISHABLE:
            return None
        return count_queries_needed(self.difference, self.num_tests)

    def __str__(self) -> str:
        difference = self.difference
        queries = pluralize(difference.count, "query", "queries")
        subject = f"{self.result}: {self.model}" if self.result else self.model
        if not difference.standard_error and not difference.mean:
            return f"{subject} is {NOT_DISTINGUISHABLE} from {self.baseline}: both answer all {queries} alike."

        evidence = f"{describe_figure(self.figure)} {format_difference(difference.mean)}"
        if difference.low is not None and difference.high is not None:
            low, high = format_difference(difference.low), format_difference(difference.high)
            evidence += f" ({_LEVEL_TEXT} interval {low} to {high}, p = {self.p_value:.2g})"
        if self.word != NOT_DISTINGUISHABLE:
            return f"{subject} is {self.word} than {self.baseline}: {evidence}."

        sentence = f"{subject} is {NOT_DISTINGUISHABLE} from {self.baseline} by these {queries}: {evidence}."
        detectable = find_detectable_difference(difference, self.num_tests)
        if self.queries_needed and detectable:
            sentence += (
                f" A difference of this size needs about {self.queries_needed:,} queries; these find one of "
                f"{detectable:.1f} or more {100 * POWER:.0f} times of 100."
            )
        return sentence


class Comparison:
    """Figures, differences and verdicts of models on the same queries.

    Args:
        outcomes: outcomes by model and result; the first model is the baseline, with which the others are compared.
        resamples: number of resamples of the bootstrap and of the test.
        seed: seed of the random draws of both.

    Attributes:
        baseline: name of the first model.
        candidates: names of the other models.
        results: names of the results.
        estimates: figures with intervals, by result, model and name of the figure.
        differences: differences to the baseline, by result, model and name of the figure.

    Raises:
        ValueError: models answered different queries.
    """

    def __init__(self, outcomes: Mapping[str, Mapping[str, Outcomes]], resamples: int = RESAMPLES, seed: int = 0):
        self.outcomes, self.resamples = outcomes, resamples
        self.baseline, *self.candidates = outcomes
        self.results = list(outcomes[self.baseline])
        options = {"resamples": resamples, "seed": seed}

        self.estimates: dict[tuple[str, str, str], Interval] = {}
        for model in outcomes:
            for result, model_outcomes in outcomes[model].items():
                for figure in model_outcomes.figures:
                    self.estimates[result, model, figure] = model_outcomes.estimate(figure, **options)

        self.differences: dict[tuple[str, str, str], Interval] = {}
        for model in self.candidates:
            for result, model_outcomes in outcomes[model].items():
                baseline = outcomes[self.baseline][result]
                for figure in baseline.figures:
                    if figure not in model_outcomes.figures:
                        continue
                    try:
                        difference = model_outcomes.estimate_difference(baseline, figure, **options)
                    except ValueError as error:
                        raise ValueError(f"{model} and {self.baseline} cannot be compared: {error}") from None
                    self.differences[result, model, figure] = difference

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """Verdicts on all models but the baseline, result by result, corrected for their number."""
        keys = []
        for result in self.results:
            for model in self.candidates:
                figure = self.outcomes[model][result].choose_shared_figure(self.outcomes[self.baseline][result])
                keys.append((result, model, figure))
        p_values = []
        for key in keys:
            p_value = self.differences[key].p_value
            p_values.append(1.0 if p_value is None else p_value)

        # Without the correction, of a dozen equal models one would be called better or worse about every other time.
        verdicts = []
        for key, p_value in zip(keys, correct_p_values(p_values), strict=True):
            result, model, figure = key
            verdicts.append(
                Verdict(model, self.baseline, result, figure, self.differences[key], p_value, num_tests=len(keys))
            )
        return verdicts

    @property
    def notes(self) -> list[str]:
        """Sentences that explain the intervals and verdicts."""
        sentences = [INTERVAL_NOTE.format(resamples=self.resamples)]
        if len(self.verdicts) > 1:
            correction = f"corrected for {len(self.verdicts)} verdicts (Holm)"
            sentences.append(f"{TEST_NOTE}, {correction}. {DISAGREEMENT_NOTE}")
        elif self.verdicts:
            sentences.append(f"{TEST_NOTE}. {DISAGREEMENT_NOTE}")
        return sentences

    @property
    def sentences(self) -> list[str]:
        """The verdicts in words, and the notes."""
        return [*map(str, self.verdicts), *self.notes]

    @property
    def figures(self) -> list[str]:
        """Names of the figures that any model has, in the order of the first model."""
        return list(dict.fromkeys(figure for _, _, figure in self.estimates))

    def make_table(self, published: Sequence[tuple[str, Mapping[str, float]]] = ()) -> Table:
        """Return a table of the figures of every result and model, each above its interval and its difference.

        Args:
            published: label and figures of rows that follow; they have no intervals.
        """
        rows: list[tuple[str, Sequence[str] | None]] = []
        for result in self.results:
            if len(self.results) > 1 or result:
                rows.append((result or "all", None))  # a heading
            for model in self.outcomes:
                means, intervals = self._format_cells(self.estimates, result, model, ".1f")
                rows += [(model, means), (f"  {_LEVEL_TEXT}", intervals)]
                if model != self.baseline:
                    means, intervals = self._format_cells(self.differences, result, model, "+.1f")
                    rows += [("  difference", means), (f"  {_LEVEL_TEXT}", intervals)]
        for label, values in published:
            cells = []
            for figure in self.figures:
                cells.append(f"{values[figure]:.1f}" if figure in values else "-")
            rows.append((label, cells))

        # Figures of a direction stand under its name, so that their columns need not repeat it.
        columns = []
        column_counts: Counter[str] = Counter()  # by direction
        for figure in self.figures:
            direction, _, measure = figure.rpartition("/")
            if "_to_" in figure:
                columns.append(measure)
                column_counts[format_direction(direction)] += 1
            else:
                columns.append(figure.replace("_", " "))
        return Table(columns, rows, groups=list(column_counts.items()), kind="compared", min_width=12)

    def _format_cells(
        self, intervals: Mapping[tuple[str, str, str], Interval], result: str, model: str, number_format: str
    ) -> tuple[list[str], list[str]]:
        """Return two rows of a model with a cell for each figure: the means, and their intervals."""
        mean_cells, interval_cells = [], []
        for figure in self.figures:
            interval = intervals.get((result, model, figure))
            mean_cells.append("-" if interval is None else f"{_round(interval.mean):{number_format}}")
            interval_cells.append(format_interval(interval, number_format))
        return mean_cells, interval_cells

    def record(self) -> dict[str, Any]:
        """Return `figures`, `differences` and `queries` as columns, from which data frames can be made."""
        figures = []
        for key, interval in self.estimates.items():
            figures.append([*key, interval.mean, interval.low, interval.high, interval.count])

        # Verdicts are given on the main figures only; the cells of other figures stay empty.
        verdict_cells: dict[tuple[str, str, str], list[Any]] = {}
        for verdict in self.verdicts:
            key = (verdict.result, verdict.model, verdict.figure)
            verdict_cells[key] = [verdict.p_value, verdict.word, verdict.queries_needed]
        differences = []
        for key, interval in self.differences.items():
            row = [*key, self.baseline, interval.mean, interval.low, interval.high, interval.count, interval.p_value]
            differences.append(row + verdict_cells.get(key, [None, "", None]))
        return {
            "figures": _make_columns("result model figure value low high queries", figures),
            "differences": _make_columns(
                "result model figure baseline difference low high queries p corrected_p verdict queries_needed",
                differences,
            ),
            "queries": self._list_queries(),
        }

    def _list_queries(self) -> dict[str, Any]:
        """Return every query of the baseline with its rank by each model, as columns; rank 0: it was not answered."""
        columns: dict[str, Any] = {"result": [], "query": [], "text": []}
        for result in self.results:
            baseline = self.outcomes[self.baseline][result]
            columns["result"] += [result] * len(baseline.query_ids)
            columns["query"] += baseline.query_ids
            columns["text"] += baseline.texts or [""] * len(baseline.query_ids)
        for model in self.outcomes:
            columns[f"rank/{model}"] = np.concatenate([self.find_ranks(model, result) for result in self.results])
        return columns

    def find_ranks(self, model: str, result: str) -> np.ndarray:
        """Return a model's ranks in the order of the baseline's queries; 0 for queries that it did not answer."""
        baseline, outcomes = self.outcomes[self.baseline][result], self.outcomes[model][result]
        if list(outcomes.query_ids) == list(baseline.query_ids):
            return outcomes.ranks
        rank_of_query = dict(zip(outcomes.query_ids, outcomes.ranks.tolist(), strict=True))
        return np.array([rank_of_query.get(query_id, 0) for query_id in baseline.query_ids], np.int64)


def describe_figure(figure: str) -> str:
    """Return the name of a figure in words, such as `mean recall, image → text`."""
    prefix, _, measure = figure.rpartition("/")
    words = {"mR": "mean recall", "acc1": "accuracy"}.get(measure, measure.replace("_", " "))
    if "_to_" in prefix:
        return f"{words}, {format_direction(prefix)}"
    return f"{prefix}, {words}" if prefix else words


def format_difference(value: float) -> str:
    """Format a difference with its sign; zero is +0.0."""
    return f"{_round(value):+.1f}"


def format_interval(interval: Interval | None, number_format: str) -> str:
    """Format an interval as a cell, such as `57.1 60.3`; "-" if there is none."""
    if interval is None or interval.low is None or interval.high is None:
        return "-"
    return f"{_round(interval.low):{number_format}} {_round(interval.high):{number_format}}"


def _round(value: float) -> float:
    return round(value, 1) + 0.0  # -0.04 rounds to -0.0, and -0.0 + 0.0 is 0.0


def _make_columns(names: str, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Turn rows into columns: lists of words, and arrays of numbers with NaN for None."""
    columns: dict[str, Any] = {}
    for position, name in enumerate(names.split()):
        values = [row[position] for row in rows]
        has_words = any(isinstance(value, str) for value in values)
        columns[name] = values if has_words else np.array(values, float)  # float turns None into NaN
    return columns
