"""What each query of an evaluation found, and what follows for models that were asked the same queries.

A scorer puts `Outcomes` into its report. Figures are means over queries, so that intervals, paired differences and
verdicts (`intervals.py`) need nothing else, whatever is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ernie_vil2.evaluation.intervals import (
    LEVEL,
    POWER,
    RESAMPLES,
    Interval,
    holm,
    least_difference,
    over_queries,
    paired_queries,
    queries_needed,
)
from ernie_vil2.evaluation.retrieval import CUTOFFS, arrow
from ernie_vil2.io.terminal import counted
from ernie_vil2.pages import Card, Table

MEASURED = (
    f"Intervals are of {100 * LEVEL:.0f} %, by {{resamples:,}} bootstrap resamples of the queries, all queries of an "
    "image together; the gallery is fixed, so that they show how the figures would vary with other queries to "
    "this gallery. They are not corrected for their number."
)
TESTED = (
    "Verdicts: a paired randomisation test of each model against the first, which exchanges the two image by image, "
    "at 5 %"
)
DECIDING = "Where an interval and a verdict disagree, this test decides."


@dataclass(frozen=True)
class Outcomes:
    """What the Q queries of one result found.

    Attributes:
        ids: of the queries, equal for all models that are asked the same.
        figures: by name, such as `image_to_text/R@1`, what each query adds, `[Q]` in percent; NaN where it is not of
            this figure.
        main: the figure by which models are compared.
        clusters: `[Q]`, equal numbers for the queries of one image.
        groups: by the figures that are means of means, the group of each query, `[Q]`.
        ranks: `[Q]`, where the right answer was found, from 1 on.
        texts: of the queries; "" where an image asks.
        fields: what the data say of each query.
        cards: makes queries, by their numbers, into cards for a page.
    """

    ids: Sequence[str]
    figures: Mapping[str, np.ndarray]
    main: str
    clusters: np.ndarray
    ranks: np.ndarray
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)
    texts: Sequence[str] = ()
    fields: Sequence[Mapping[str, object]] = ()
    cards: Callable[[Sequence[int]], list[Card]] | None = None

    def select(self, ids: Collection[str]) -> Outcomes:
        """Return the outcomes of the queries with these ids alone, without their texts and cards."""
        rows = np.array([row for row, query in enumerate(self.ids) if query in ids], np.int64)
        return Outcomes(
            ids=[self.ids[row] for row in rows],
            figures={name: values[rows] for name, values in self.figures.items()},
            main=self.main,
            clusters=self.clusters[rows],
            ranks=self.ranks[rows],
            groups={name: groups[rows] for name, groups in self.groups.items()},
        )

    def level(self, figure: str, **options: Any) -> Interval:
        """A figure with its interval; options as for `over_queries`."""
        return over_queries(self.figures[figure], self.clusters, self.groups.get(figure), **options)

    def difference(self, first: Outcomes, figure: str, **options: Any) -> Interval:
        """By how much a figure is above that of the first model; options as for `paired_queries`.

        Raises:
            ValueError: the two were asked different queries.
        """
        own, others = (np.flatnonzero(~np.isnan(one.figures[figure])) for one in (self, first))
        asked, expected = [self.ids[row] for row in own.tolist()], [first.ids[row] for row in others.tolist()]
        if asked != expected:
            position = dict(zip(asked, own.tolist(), strict=True))
            if len(position) != len(expected) or position.keys() != set(expected):
                lacking = len(set(expected) ^ position.keys())
                raise ValueError(f"different queries were asked: {lacking:,} are of one model alone ({figure})")
            own = np.array([position[name] for name in expected])
        groups = first.groups.get(figure)
        return paired_queries(
            self.figures[figure][own],
            first.figures[figure][others],
            first.clusters[others],
            None if groups is None else groups[others],
            **options,
        )

    def shared(self, first: Outcomes) -> str:
        """The figure by which this model is compared with the first: its main one, or the nearest that both have."""
        both = [name for name in first.figures if name in self.figures]
        if not both:
            raise ValueError(f"no figure is of both models: {', '.join(self.figures)}; {', '.join(first.figures)}")
        kind = first.main.rpartition("/")[2]
        alike = [name for name in both if name.rpartition("/")[2] == kind]
        return first.main if first.main in both else (alike or both)[0]


def recall_figures(directions: Sequence[str], ranks: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of queries by their direction and rank: R@1, R@5, R@10, mR of each, and the mR of all."""
    ways, found = np.array(directions), dict[str, np.ndarray]()
    hits = {f"R@{cutoff}": 100.0 * (ranks <= cutoff) for cutoff in CUTOFFS}
    hits["mR"] = sum(hits.values(), np.zeros(len(ranks))) / len(CUTOFFS)
    names = list(dict.fromkeys(directions))
    for way in names:
        found |= {f"{way}/{name}": np.where(ways == way, values, np.nan) for name, values in hits.items()}
    return found if len(names) == 1 else found | {"mR": hits["mR"]}


@dataclass(frozen=True)
class Verdict:
    """One model against the first, in one result.

    Attributes:
        p: of the randomisation test, after Holm's correction.
        tests: how many verdicts there are, for which it is corrected.
    """

    model: str
    first: str
    result: str
    figure: str
    difference: Interval
    p: float
    tests: int

    @property
    def word(self) -> str:
        """better, worse or not distinguishable."""
        if self.p >= 1 - LEVEL:
            return "not distinguishable"
        return "better" if self.difference.mean > 0 else "worse"

    @property
    def needed(self) -> int | None:
        """How many queries would find the difference; None where it was found, or there is none."""
        return queries_needed(self.difference, self.tests) if self.word == "not distinguishable" else None

    def __str__(self) -> str:
        found, asked = self.difference, counted(self.difference.count, "query", "queries")
        where = f"{self.result}: " if self.result else ""
        if not found.error and not found.mean:
            return f"{where}{self.model} is not distinguishable from {self.first}: both answer all {asked} alike."
        size = f"{named(self.figure)} {signed(found.mean)}"
        if found.low is not None and found.high is not None:
            size += f" ({100 * LEVEL:.0f} % interval {signed(found.low)} to {signed(found.high)}, p = {self.p:.2g})"
        if self.word != "not distinguishable":
            return f"{where}{self.model} is {self.word} than {self.first}: {size}."
        sentence = f"{where}{self.model} is not distinguishable from {self.first} by these {asked}: {size}."
        if self.needed and (least := least_difference(found, self.tests)):
            sentence += (
                f" A difference of this size needs about {self.needed:,} queries; these find one of {least:.1f} or "
                f"more {100 * POWER:.0f} times of 100."
            )
        return sentence


class Comparison:
    """Models on the same queries.

    Args:
        outcomes: by model, the first being that with which the others are compared, and by result.
        resamples, seed: of the bootstrap and of the test.

    Raises:
        ValueError: models were asked different queries.
    """

    def __init__(self, outcomes: Mapping[str, Mapping[str, Outcomes]], resamples: int = RESAMPLES, seed: int = 0):
        self.outcomes, self.resamples = outcomes, resamples
        options = {"resamples": resamples, "seed": seed}
        self.first, *self.others = outcomes
        self.results = list(outcomes[self.first])
        self.levels = {
            (result, model, figure): one.level(figure, **options)
            for model, results in outcomes.items()
            for result, one in results.items()
            for figure in one.figures
        }
        self.differences: dict[tuple[str, str, str], Interval] = {}
        for model in self.others:
            for result, one in outcomes[model].items():
                first = outcomes[self.first][result]
                for figure in first.figures:
                    if figure in one.figures:
                        try:
                            found = one.difference(first, figure, **options)
                        except ValueError as error:
                            raise ValueError(f"{model} and {self.first} cannot be compared: {error}") from None
                        self.differences[result, model, figure] = found

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """Of every model but the first, result by result, corrected for their number."""
        asked = [
            (model, result, self.outcomes[model][result].shared(self.outcomes[self.first][result]))
            for result in self.results
            for model in self.others
        ]
        found = [self.differences[result, model, figure] for model, result, figure in asked]
        corrected = holm([one.p if one.p is not None else 1.0 for one in found])
        return [
            Verdict(model, self.first, result, figure, difference, p, len(asked))
            for (model, result, figure), difference, p in zip(asked, found, corrected, strict=True)
        ]

    @property
    def notes(self) -> list[str]:
        """How intervals and verdicts are meant."""
        sentences = [MEASURED.format(resamples=self.resamples)]
        if self.verdicts:
            several = f", corrected for {len(self.verdicts)} verdicts (Holm)" if len(self.verdicts) > 1 else ""
            sentences.append(f"{TESTED}{several}. {DECIDING}")
        return sentences

    @property
    def sentences(self) -> list[str]:
        """The verdicts, and how they are meant."""
        return [*map(str, self.verdicts), *self.notes]

    @property
    def figures(self) -> list[str]:
        """The names of the figures that any model has, in the order of the first."""
        return list(dict.fromkeys(figure for _, _, figure in self.levels))

    def table(self, published: Sequence[tuple[str, Mapping[str, float]]] = ()) -> Table:
        """For every result and model its figures and, below them, intervals and the difference to the first.

        Args:
            published: rows by label, without intervals.
        """
        rows: list[tuple[str, Sequence[str] | None]] = []
        for result in self.results:
            if len(self.results) > 1 or result:
                rows.append((result or "all", None))
            for model in self.outcomes:
                levels = [self.levels.get((result, model, figure)) for figure in self.figures]
                rows.append((model, ["-" if one is None else f"{one.mean:.1f}" for one in levels]))
                rows.append(("  95 %", [bounds(one, ".1f") for one in levels]))
                if model != self.first:
                    found = [self.differences.get((result, model, figure)) for figure in self.figures]
                    rows.append(("  difference", ["-" if one is None else signed(one.mean) for one in found]))
                    rows.append(("  95 %", [bounds(one, "+.1f") for one in found]))
        for label, values in published:
            rows.append((label, [f"{values[figure]:.1f}" if figure in values else "-" for figure in self.figures]))
        groups: dict[str, int] = {}
        for figure in self.figures:
            if "_to_" in figure:
                way = arrow(figure.partition("/")[0])
                groups[way] = groups.get(way, 0) + 1
        columns = [one.rpartition("/")[2] if "_to_" in one else one.replace("_", " ") for one in self.figures]
        return Table(columns, rows, groups=list(groups.items()), kind="compared", least=12)

    def record(self) -> dict[str, Any]:
        """Columns of equal length by table, of which data frames are made: `figures`, `differences`, `queries`."""
        tests = {(one.result, one.model, one.figure): one for one in self.verdicts}
        figures = [[*key, one.mean, one.low, one.high, one.count] for key, one in self.levels.items()]
        differences = []
        for key, one in self.differences.items():
            verdict = tests.get(key)
            words = (verdict.p, verdict.word, verdict.needed) if verdict else (None, "", None)
            differences.append([*key, self.first, one.mean, one.low, one.high, one.count, one.p, *words])
        return {
            "figures": _columns("result model figure value low high queries", figures),
            "differences": _columns(
                "result model figure first difference low high queries p corrected_p verdict needed", differences
            ),
            "queries": self._queries(),
        }

    def _queries(self) -> dict[str, Any]:
        """Every query of the first model with the rank that each model gave its right answer; 0: it was not asked."""
        columns: dict[str, list] = {"result": [], "query": [], "text": []}
        ranks: dict[str, list[int]] = {f"rank/{model}": [] for model in self.outcomes}
        for result in self.results:
            first = self.outcomes[self.first][result]
            columns["result"] += [result] * len(first.ids)
            columns["query"] += first.ids
            columns["text"] += first.texts or [""] * len(first.ids)
            for model in self.outcomes:
                ranks[f"rank/{model}"] += self.ranks_of(model, result).tolist()
        return columns | {name: np.array(found, np.int64) for name, found in ranks.items()}

    def ranks_of(self, model: str, result: str) -> np.ndarray:
        """The ranks that a model found, by the queries of the first model; 0 for those that it was not asked."""
        first, own = self.outcomes[self.first][result], self.outcomes[model][result]
        if list(own.ids) == list(first.ids):
            return own.ranks
        known = dict(zip(own.ids, own.ranks.tolist(), strict=True))
        return np.array([known.get(name, 0) for name in first.ids], np.int64)


def named(figure: str) -> str:
    """A figure in words: `mean recall, image → text`."""
    way, _, name = figure.rpartition("/")
    words = {"mR": "mean recall", "acc1": "accuracy"}.get(name, name.replace("_", " "))
    return f"{words}, {arrow(way)}" if "_to_" in way else ", ".join(filter(None, [way, words]))


def signed(value: float) -> str:
    """A difference with its sign, and zero as +0.0."""
    return f"{round(value, 1) + 0.0:+.1f}"


def bounds(interval: Interval | None, form: str) -> str:
    """An interval as a cell: `57.1 60.3`, "-" where there is none."""
    if interval is None or interval.low is None or interval.high is None:
        return "-"
    return f"{round(interval.low, 1) + 0.0:{form}} {round(interval.high, 1) + 0.0:{form}}"


def _columns(names: str, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Rows as columns; numbers as arrays, with NaN for what is not there."""
    columns: dict[str, Any] = {}
    for name, values in zip(names.split(), zip(*rows, strict=True) if rows else [()] * 99, strict=False):
        words = any(isinstance(value, str) for value in values)
        columns[name] = list(values) if words else np.array(values, float)
    return columns
