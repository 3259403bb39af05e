"""The report of a comparison and its page: bars of figures, queries, scatters of ranks, and costs."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ernie_vil2.evaluation.compare import ComparisonResult
from ernie_vil2.evaluation.intervals import Interval
from ernie_vil2.evaluation.outcomes import Comparison, Verdict, describe_figure, format_difference, format_interval
from ernie_vil2.evaluation.report import Page, Report, wrap_lines
from ernie_vil2.evaluation.retrieval import CUTOFFS, format_direction
from ernie_vil2.evaluation.scorers.retrieval import format_citation
from ernie_vil2.pages.page import Card, data_uri

# Kinds of queries: only the other model ranks a right answer first, only the baseline does, no model has one among its
# first ten.
WON, LOST, FAILED = "won", "lost", "failed"
# Queries of each kind for each model, result and direction. Each brings the answers of two models, mostly images, so
# that the number decides how large the page is.
NUM_QUERIES = 12
# A field with more values than this is not offered for choosing queries: each value would have only a few.
MAX_FIELD_VALUES = 12
# Positions of a scatter between a rank and ten times that rank. Queries at one position become one circle; more
# positions would make more circles, which overlap.
STEPS_PER_DECADE = 16
# Where no direction is scored, the id of a query is that of an image, such as road_to_town.jpg.
_DIRECTION = re.compile("((?:image|text)_to_(?:image|text)) ")


@dataclass(frozen=True)
class Bar:
    """Figure as a bar with its interval as a line over it; positions and lengths are in percent of the axis.

    Attributes:
        model: name of the model.
        value: the figure as text.
        interval: its interval as text.
        start, width: of the bar.
        low, span: start and length of the line; None if there is no interval.
        word: verdict on the model.
    """

    model: str
    value: str
    interval: str
    start: float
    width: float
    low: float | None
    span: float | None
    word: str = ""


class _ImageTable:
    """Images of a page; each is stored once and named by its number."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}

    def add(self, image: bytes | None) -> int | None:
        """Return the number of an image, None for no image."""
        if image is None:
            return None
        return self._numbers.setdefault(image, len(self._numbers))

    def data_uris(self) -> list[str]:
        return list(map(data_uri, self._numbers))


def make_comparison_report(result: ComparisonResult, num_queries: int = NUM_QUERIES) -> Report:
    """Return the report of a comparison.

    Args:
        result: result of `compare_models`.
        num_queries: as for `make_comparison_page`.
    """
    record = result.record()
    queries = record.pop("queries")
    verdicts = [f"- {sentence}" for sentence in record["verdicts"]]
    definitions = [*result.definitions, *map(format_citation, result.published)]
    return Report(
        {},
        tables=[result.make_table(), result.make_cost_table()],
        record=_to_json(record),
        csv_columns=list(queries),
        csv_rows=zip(*queries.values(), strict=True),
        extra_lines=wrap_lines(verdicts).splitlines(),
        sizes=None,
        notes=record["notes"],
        paragraphs=[wrap_lines(record["notes"]), wrap_lines(definitions)],
        settings={"models": result.sources},
        make_pages=lambda: [make_comparison_page(result, num_queries)],
    )


def make_comparison_page(result: ComparisonResult, num_queries: int = NUM_QUERIES) -> Page:
    """Return the page of a comparison.

    Args:
        result: result of `compare_models`.
        num_queries: queries of each kind for each model, result and direction.
    """
    comparison, table, images = result.comparison, result.make_table(), _ImageTable()
    queries = list(_select_queries(comparison, images, num_queries))
    results, scatters = [], []
    for name in comparison.results:
        results.append(_describe_result(comparison, name))
        for model in comparison.candidates:
            scatters.append(_make_scatter(comparison, name, model))
    # The page begins with the largest difference, and keeps it in view.
    largest = max(comparison.verdicts, key=lambda verdict: abs(verdict.difference.mean), default=None)
    main_figure = comparison.outcomes[comparison.baseline][comparison.results[0]].main_figure
    data = {
        "results": results,
        "baseline": comparison.baseline,
        "columns": table.columns,
        "main_column": comparison.figures.index(main_figure),
        "groups": table.groups,
        "published": [row for row in table.rows if row[0].startswith("published")],
        "verdicts": comparison.verdicts,
        "summary": str(largest or ""),
        "key_figure": _format_key_figure(largest) if largest else "",
        "notes": comparison.notes,
        "remarks": result.notes,
        "definitions": result.definitions,
        "costs": result.make_cost_table(),
        "scatters": scatters,
        "choices": _list_choices(queries),
        "queries": queries,
        "images": images.data_uris(),
    }
    return Page({"Compared with": comparison.baseline}, (), "comparison", template="compare.html", data=data)


def _format_key_figure(verdict: Verdict) -> str:
    """Return a difference in a line, such as `zh, mean recall: second -5.6 (-6.9 to -4.3) against first`."""
    figure = describe_figure(verdict.figure)
    place = f"{verdict.result}, {figure}" if verdict.result else figure.capitalize()
    difference = format_difference(verdict.difference.mean)
    interval = format_interval(verdict.difference, "+.1f").replace(" ", " to ")
    return f"{place}: {verdict.model} {difference} ({interval}) against {verdict.baseline}"


def _describe_result(comparison: Comparison, result: str) -> dict[str, Any]:
    """Return a result for the template: bars of its main figure and of the differences, and a row for each model."""
    baseline = comparison.outcomes[comparison.baseline][result]
    # A model without the main figure is compared by a similar one, which its name on the page then says.
    figures, names = {}, {}
    for model, outcomes in comparison.outcomes.items():
        figures[model] = outcomes[result].choose_shared_figure(baseline)
        is_main = figures[model] == baseline.main_figure
        names[model] = model if is_main else f"{model}, {describe_figure(figures[model])} alone"

    estimates, rows = [], []
    for model, figure in figures.items():
        estimates.append(_make_bar(names[model], comparison.estimates[result, model, figure], axis=(0, 100)))
        rows.append((model, [_make_cell(comparison, result, model, column) for column in comparison.figures]))

    # The axis of the differences reaches as far as the longest bar or interval.
    verdicts = [verdict for verdict in comparison.verdicts if verdict.result == result]
    largest = 0.0
    for verdict in verdicts:
        for end in (verdict.difference.mean, verdict.difference.low, verdict.difference.high):
            largest = max(largest, abs(end or 0))
    largest = largest or 1  # all models are equal: any axis will do
    axis = (-largest, largest)
    differences = []
    for verdict in verdicts:
        bar = _make_bar(names[verdict.model], verdict.difference, axis, is_difference=True, word=verdict.word)
        differences.append(bar)
    return {
        "name": result,
        "figure": describe_figure(baseline.main_figure),
        "estimates": estimates,
        "differences": differences,
        "rows": rows,
    }


def _make_cell(comparison: Comparison, result: str, model: str, figure: str) -> tuple[Bar | None, Bar | None]:
    """Return the bars of a figure and of its difference to the baseline; None for a missing value."""
    estimate_bar = difference_bar = None
    estimate = comparison.estimates.get((result, model, figure))
    if estimate:
        estimate_bar = _make_bar(model, estimate, axis=(0, 100))
    difference = comparison.differences.get((result, model, figure))
    if difference:
        difference_bar = _make_bar(model, difference, axis=(-100, 100), is_difference=True)
    return estimate_bar, difference_bar


def _make_bar(
    model: str, interval: Interval, axis: tuple[float, float], is_difference: bool = False, word: str = ""
) -> Bar:
    """Return a bar from zero to a figure.

    Args:
        model: name of the model.
        interval: the figure with its interval.
        axis: smallest and largest value of the axis.
        is_difference: whether numbers have a sign.
        word: verdict on the model.
    """
    axis_start, axis_end = axis

    def to_percent(value: float) -> float:
        clipped = min(max(value, axis_start), axis_end)
        return round(100 * (clipped - axis_start) / (axis_end - axis_start), 2)

    # A bar of a negative difference ends at zero, so that its beginning is the figure.
    start, end = sorted((to_percent(0), to_percent(interval.mean)))
    low = span = None
    if interval.low is not None and interval.high is not None:
        low = to_percent(interval.low)
        span = round(to_percent(interval.high) - low, 2)
    if is_difference:
        value, interval_text = format_difference(interval.mean), format_interval(interval, "+.1f")
    else:
        value, interval_text = f"{interval.mean:.1f}", format_interval(interval, ".1f")
    return Bar(model, value, interval_text.replace(" ", " to "), start, round(end - start, 2), low, span, word)


def _make_scatter(comparison: Comparison, result: str, model: str) -> dict[str, Any]:
    """Return a scatter of the ranks by the baseline (x) and by a model (y), on logarithmic axes from 0 to 1."""
    baseline_ranks = comparison.outcomes[comparison.baseline][result].ranks
    model_ranks = comparison.find_ranks(model, result)
    is_answered = model_ranks > 0
    baseline_ranks, model_ranks = baseline_ranks[is_answered], model_ranks[is_answered]
    # Both axes reach to the same rank, so that the diagonal is where both models are equal.
    # At least 10, so that a tick besides 1 is on the axis.
    largest_rank = max(10, *baseline_ranks.tolist(), *model_ranks.tolist())
    num_steps = STEPS_PER_DECADE * math.log10(largest_rank)

    # Queries at the same step of both axes become one circle, whose area grows with their number.
    counts: Counter[tuple[int, int]] = Counter()
    for baseline_rank, model_rank in zip(baseline_ranks.tolist(), model_ranks.tolist(), strict=True):
        x_step = round(STEPS_PER_DECADE * math.log10(baseline_rank))
        y_step = round(STEPS_PER_DECADE * math.log10(model_rank))
        counts[x_step, y_step] += 1
    circles = []
    for (x_step, y_step), count in sorted(counts.items()):
        if x_step == y_step:
            style = "even"
        elif y_step < x_step:
            style = "right"
        else:
            style = "wrong"
        radius = round(1 + math.sqrt(count), 1)
        circles.append((round(x_step / num_steps, 4), round(y_step / num_steps, 4), radius, count, style))

    ticks = []
    for power in range(int(math.log10(largest_rank)) + 1):
        ticks.append((round(power * STEPS_PER_DECADE / num_steps, 4), f"{10**power:,}"))
    return {
        "result": result,
        "model": model,
        "baseline": comparison.baseline,
        "circles": circles,
        "ticks": ticks,
        "better": int((model_ranks < baseline_ranks).sum()),
        "worse": int((model_ranks > baseline_ranks).sum()),
        "equal": int((model_ranks == baseline_ranks).sum()),
    }


def _select_queries(comparison: Comparison, images: _ImageTable, count: int) -> Iterator[dict[str, Any]]:
    """Yield the queries that a model won or lost, largest change of rank first, then queries that no model answers."""
    for result in comparison.results:
        baseline = comparison.outcomes[comparison.baseline][result]
        models = [model for model in comparison.candidates if comparison.outcomes[model][result].make_cards]
        directions = np.array([_find_direction(query_id) for query_id in baseline.query_ids])

        for model in models:
            ranks = comparison.find_ranks(model, result)
            # Rank 0: the model did not answer the query. On a logarithmic scale the step from rank 1 to 10 is as large
            # as that from 10 to 100, which is how a user sees it.
            gaps = np.abs(np.log(np.maximum(ranks, 1)) - np.log(np.maximum(baseline.ranks, 1)))
            is_won = (ranks == 1) & (baseline.ranks > 1)
            is_lost = (baseline.ranks == 1) & (ranks > 1)
            for kind, is_kind in ((WON, is_won), (LOST, is_lost)):
                for row in _find_largest(is_kind, gaps, directions, count):
                    yield _describe_query(comparison, result, row, [comparison.baseline, model], kind, images)

        if baseline.make_cards:
            # A query that a model did not answer (rank 0) counts as found: nothing is known of it.
            best_ranks = baseline.ranks
            for model in models:
                ranks = comparison.find_ranks(model, result)
                best_ranks = np.minimum(best_ranks, np.where(ranks > 0, ranks, 1))
            for row in _find_largest(best_ranks > max(CUTOFFS), best_ranks, directions, count):
                yield _describe_query(comparison, result, row, [comparison.baseline, *models], FAILED, images)


def _find_direction(query_id: str) -> str:
    """Return the direction that a query's id begins with, such as `image_to_text`; "" if there is none."""
    direction = _DIRECTION.match(query_id)
    return direction[1] if direction else ""


def _find_largest(is_candidate: np.ndarray, sizes: np.ndarray, directions: np.ndarray, count: int) -> Iterator[int]:
    """Yield for each direction the candidate rows of the largest sizes, at most `count`."""
    for direction in dict.fromkeys(directions.tolist()):
        rows = np.flatnonzero(is_candidate & (directions == direction))
        yield from rows[np.argsort(-sizes[rows], kind="stable")][:count].tolist()


def _describe_query(
    comparison: Comparison, result: str, row: int, models: Sequence[str], kind: str, images: _ImageTable
) -> dict[str, Any]:
    """Return a query with the answers of models for the template.

    Args:
        comparison: the comparison.
        result: name of the result.
        row: row of the query in the outcomes of the baseline.
        models: the baseline, then the models whose answers are shown next to it.
        kind: `WON`, `LOST` or `FAILED`.
        images: gets the images of the query and its answers.
    """
    baseline = comparison.outcomes[comparison.baseline][result]
    query_id = baseline.query_ids[row]
    query_card: Card | None = None
    sides = []
    for model in models:
        outcomes = comparison.outcomes[model][result]
        # Embeddings of other programs may have the queries in another order.
        if list(outcomes.query_ids) == list(baseline.query_ids):
            position = row
        else:
            position = list(outcomes.query_ids).index(query_id)
        answers = []
        if outcomes.make_cards:
            (card,) = outcomes.make_cards([position])
            query_card = query_card or card
            for answer in card.answers:
                answers.append({**vars(answer), "image": images.add(answer.image)})
        sides.append({"model": model, "rank": int(outcomes.ranks[position]), "answers": answers})

    # The query itself looks the same on the cards of all models; without a card only its text is known.
    text = baseline.texts[row] if baseline.texts else ""
    query, query_images = text, []
    if query_card:
        query, query_images = query_card.query, [images.add(image) for image in query_card.images]
    fields = {}
    if baseline.fields:
        for key, value in baseline.fields[row].items():
            if isinstance(value, str | int | bool):  # lists and floats are no values to choose by
                fields[key] = str(value)
    return {
        "result": result,
        "kind": kind,
        "against": "" if kind == FAILED else models[1],
        "direction": format_direction(_find_direction(query_id)),
        "text": text,
        "query": query,
        "images": query_images,
        "sides": sides,
        "fields": fields,
    }


def _list_choices(queries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what queries can be chosen by, and put the class of its text's length into each query.

    Queries are chosen by result, direction, model, fields with few values, and length of the text in thirds.
    """
    # The lengths at one and two thirds of all lengths divide short, middle and long texts.
    lengths = sorted(len(query["text"]) for query in queries if query["text"])
    max_short = max_middle = 0
    if lengths:
        max_short, max_middle = lengths[len(lengths) // 3], lengths[2 * len(lengths) // 3]
    value_counts: dict[str, Counter[str]] = {}
    for query in queries:
        query["length"] = _classify_length(len(query["text"]), max_short, max_middle)
        for key, value in query["fields"].items():
            value_counts.setdefault(key, Counter())[value] += 1

    # A field of one value chooses nothing, one of very many chooses single queries.
    fields = []
    for key, counts in value_counts.items():
        if 2 <= len(counts) <= MAX_FIELD_VALUES:
            fields += [f"{key} = {value}" for value in sorted(counts)]
    length_names = {}
    if max_short < max_middle:  # otherwise most texts are equally long
        length_names = {
            "short": f"up to {max_short} characters",
            "middle": f"{max_short + 1} to {max_middle}",
            "long": f"more than {max_middle}",
        }
    return {
        "results": _list_values(queries, "result"),
        "directions": _list_values(queries, "direction"),
        "against": _list_values(queries, "against"),
        "fields": fields,
        "lengths": length_names,
    }


def _list_values(queries: Sequence[dict[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(query[key] for query in queries if query[key]))


def _classify_length(length: int, max_short: int, max_middle: int) -> str:
    if not length:
        return ""
    if length <= max_short:
        return "short"
    if length <= max_middle:
        return "middle"
    return "long"


def _to_json(value: Any) -> Any:
    """Turn columns into lists for JSON, with null for NaN."""
    if isinstance(value, Mapping):
        return {name: _to_json(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray):
        entries = value.astype(object)
        if value.dtype.kind == "f":
            entries[np.isnan(value)] = None
        return entries.tolist()
    return value
