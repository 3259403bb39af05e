"""The report of a comparison and its page: bars of figures, queries, a scatter of ranks, and costs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ernie_vil2.evaluation.compare import Compared
from ernie_vil2.evaluation.intervals import Interval
from ernie_vil2.evaluation.outcomes import Comparison, describe_figure, format_difference, format_interval
from ernie_vil2.evaluation.report import Page, Report, wrap_lines
from ernie_vil2.evaluation.retrieval import CUTOFFS, format_direction
from ernie_vil2.evaluation.scorers.retrieval import cited
from ernie_vil2.pages.page import Card, data_uri

WON, LOST, FAILED = "won", "lost", "failed"
SHOWN = 12
"""Queries of each kind for each model, result and direction."""
MOST_VALUES = 12
"""A field with more values than these is not one to choose by."""
STEPS = 16
"""Positions of a scatter between a rank and ten times it; queries at one position are one circle."""


Images = dict[bytes, int]
"""The images of a page, each once, by its number."""


@dataclass(frozen=True)
class Bar:
    """A figure as a bar, its interval as a line over it; positions in percent of the axis."""

    model: str
    value: str
    interval: str
    start: float
    width: float
    low: float | None
    span: float | None
    word: str = ""


def comparison_report(compared: Compared, queries: int = SHOWN) -> Report:
    """Return the report of a comparison.

    Args:
        compared: result of `compare_models`.
        queries: as for `compare_page`.
    """
    record = compared.record()
    verdicts = [f"- {sentence}" for sentence in record["verdicts"]]
    columns = list(record["queries"])
    return Report(
        {},
        [compared.table(), compared.costs_table()],
        {name: _plain(value) for name, value in record.items() if name != "queries"},
        columns,
        zip(*(record["queries"][name] for name in columns), strict=True),
        extra_lines=wrap_lines(verdicts).splitlines(),
        sizes=None,
        notes=record["notes"],
        paragraphs=[wrap_lines(record["notes"]), wrap_lines([*compared.definitions, *map(cited, compared.published)])],
        settings={"models": compared.sources},
        make_pages=lambda: [compare_page(compared, queries)],
    )


def compare_page(found: Compared, queries: int = SHOWN) -> Page:
    """The page of a comparison.

    Args:
        queries: of each kind that are shown for each model, result and direction.
    """
    comparison, images, table = found.comparison, Images(), found.table()
    shown = list(_queries(comparison, images, queries))
    data = {
        "results": [_result(comparison, result) for result in comparison.results],
        "first": comparison.baseline,
        "columns": table.columns,
        "groups": table.groups,
        "published": [row for row in table.rows if row[0].startswith("published")],
        "verdicts": comparison.verdicts,
        "summary": str(comparison.verdicts[0]) if comparison.verdicts else "",
        "notes": comparison.notes,
        "remarks": found.notes,
        "definitions": found.definitions,
        "costs": found.costs_table(),
        "scatters": [one for result in comparison.results for one in _scatters(comparison, result)],
        "queries": shown,
        "choices": _choices(shown),
        "images": list(map(data_uri, images)),
    }
    return Page({"Compared with": comparison.baseline}, (), "comparison", template="compare.html", data=data)


def _result(comparison: Comparison, result: str) -> dict[str, Any]:
    """The main figure of every model as bars, and the differences to the first."""
    main = comparison.outcomes[comparison.baseline][result].main_figure
    levels, differences = [], []
    verdicts = {one.model: one for one in comparison.verdicts if one.result == result}
    compared = [(one.model, one.figure, one.difference, one.word) for one in verdicts.values()]
    widest = max((abs(edge) for _, _, one, _ in compared for edge in (one.mean, one.low, one.high) if edge), default=1)
    for model, results in comparison.outcomes.items():
        figure = results[result].choose_shared_figure(comparison.outcomes[comparison.baseline][result])
        name = model if figure == main else f"{model}, {describe_figure(figure)} alone"
        levels.append(_bar(name, comparison.estimates[result, model, figure], 0, 100, ".1f"))
    for model, figure, difference, word in compared:
        name = model if figure == main else f"{model}, {describe_figure(figure)} alone"
        differences.append(_bar(name, difference, -widest, widest, "+.1f", word))
    rows = [
        (model, [_cell(comparison, result, model, figure) for figure in comparison.figures])
        for model in comparison.outcomes
    ]
    return {"name": result, "figure": describe_figure(main), "levels": levels, "differences": differences, "rows": rows}


def _cell(comparison: Comparison, result: str, model: str, figure: str) -> tuple[Bar | None, Bar | None]:
    level, difference = (found.get((result, model, figure)) for found in (comparison.estimates, comparison.differences))
    return (
        None if level is None else _bar(model, level, 0, 100, ".1f"),
        None if difference is None else _bar(model, difference, -100, 100, "+.1f"),
    )


def _bar(model: str, one: Interval, least: float, most: float, form: str, word: str = "") -> Bar:
    def at(value: float) -> float:
        return round(100 * (min(max(value, least), most) - least) / (most - least), 2)

    start, end = sorted((at(0), at(one.mean)))
    low = span = None
    if one.low is not None and one.high is not None:
        low, span = at(one.low), round(at(one.high) - at(one.low), 2)
    value = f"{one.mean:.1f}" if form == ".1f" else format_difference(one.mean)
    return Bar(
        model, value, format_interval(one, form).replace(" ", " to "), start, round(end - start, 2), low, span, word
    )


def _scatters(comparison: Comparison, result: str) -> Iterator[dict[str, Any]]:
    """For every model but the first the ranks of both as circles, on logarithmic axes from 0 to 1."""
    first = comparison.outcomes[comparison.baseline][result]
    for model in comparison.candidates:
        ranks = comparison.find_ranks(model, result)
        asked = np.flatnonzero(ranks)
        pairs = list(zip(first.ranks[asked].tolist(), ranks[asked].tolist(), strict=True))
        most = max([10, *(rank for pair in pairs for rank in pair)])
        counts = Counter((round(STEPS * math.log10(x)), round(STEPS * math.log10(y))) for x, y in pairs)
        scale = STEPS * math.log10(most)
        yield {
            "result": result,
            "model": model,
            "first": comparison.baseline,
            "circles": [
                (round(x / scale, 4), round(y / scale, 4), round(1 + math.sqrt(count), 1), count, _side(x, y))
                for (x, y), count in sorted(counts.items())
            ],
            "ticks": [
                (round(math.log10(10**power) * STEPS / scale, 4), f"{10**power:,}")
                for power in range(int(math.log10(most)) + 1)
            ],
            "better": sum(y < x for x, y in pairs),
            "worse": sum(y > x for x, y in pairs),
            "equal": sum(y == x for x, y in pairs),
        }


def _side(first: int, model: int) -> str:
    return "even" if first == model else "right" if model < first else "wrong"


def _queries(comparison: Comparison, images: Images, count: int) -> Iterator[dict[str, Any]]:
    """What one model finds first and the other does not, by the gap, and what none has among its first ten."""
    for result in comparison.results:
        first = comparison.outcomes[comparison.baseline][result]
        models = [model for model in comparison.candidates if comparison.outcomes[model][result].make_cards]
        ranks = {model: comparison.find_ranks(model, result) for model in (comparison.baseline, *models)}
        own = ranks[comparison.baseline]
        directions = np.array([name.partition(" ")[0] if "_to_" in name else "" for name in first.query_ids])

        def chosen(here: np.ndarray, gap: np.ndarray, directions: np.ndarray = directions) -> Iterator[int]:
            for direction in dict.fromkeys(directions.tolist()):
                rows = np.flatnonzero(here & (directions == direction))
                yield from rows[np.argsort(-gap[rows], kind="stable")][:count].tolist()

        for model in models:
            other = ranks[model]
            gap = np.abs(np.log(np.maximum(other, 1)) - np.log(np.maximum(own, 1)))
            for kind, here in ((WON, (other == 1) & (own > 1)), (LOST, (own == 1) & (other > 1))):
                for row in chosen(here, gap):
                    yield _query(comparison, result, row, [comparison.baseline, model], kind, model, images)
        best = np.min([np.where(one > 0, one, 1) for one in ranks.values()], axis=0)
        if first.make_cards:
            for row in chosen(best > max(CUTOFFS), best):
                yield _query(comparison, result, row, [comparison.baseline, *models], FAILED, "", images)


def _query(
    comparison: Comparison, result: str, row: int, models: Sequence[str], kind: str, against: str, images: Images
) -> dict[str, Any]:
    first = comparison.outcomes[comparison.baseline][result]
    name, sides, card = first.query_ids[row], [], None

    def number(image: bytes | None) -> int | None:  # each image is on the page once
        return None if image is None else images.setdefault(image, len(images))

    for model in models:
        one = comparison.outcomes[model][result]
        position = row if list(one.query_ids) == list(first.query_ids) else list(one.query_ids).index(name)
        made: Card | None = one.make_cards([position])[0] if one.make_cards else None
        card = card or made
        shown = made.answers if made else ()
        answers = [{**vars(answer), "image": number(answer.image)} for answer in shown]
        sides.append({"model": model, "rank": int(one.ranks[position]), "answers": answers})
    text = first.texts[row] if first.texts else ""
    direction = name.partition(" ")[0]
    return {
        "result": result,
        "kind": kind,
        "against": against,
        "direction": format_direction(direction) if "_to_" in direction else "",
        "text": text,
        "query": card.query if card else text,
        "images": [number(image) for image in (card.images if card else ())],
        "sides": sides,
        "fields": {
            key: str(value)
            for key, value in (first.fields[row] if first.fields else {}).items()
            if isinstance(value, str | int | bool)
        },
    }


def _choices(queries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What can be chosen by: results, directions, fields with few values, and lengths of texts in thirds."""
    lengths = sorted(len(one["text"]) for one in queries if one["text"])
    short, long = (lengths[len(lengths) // 3], lengths[2 * len(lengths) // 3]) if lengths else (0, 0)
    for one in queries:
        size = len(one["text"])
        one["length"] = "" if not size else "short" if size <= short else "long" if size > long else "middle"
    values: dict[str, Counter[str]] = {}
    for one in queries:
        for key, value in one["fields"].items():
            values.setdefault(key, Counter())[value] += 1
    return {
        "results": list(dict.fromkeys(one["result"] for one in queries)),
        "directions": list(dict.fromkeys(one["direction"] for one in queries)),
        "against": list(dict.fromkeys(one["against"] for one in queries if one["against"])),
        "fields": [
            f"{key} = {value}"
            for key, found in values.items()
            if 2 <= len(found) <= MOST_VALUES
            for value in sorted(found)
        ],
        "lengths": {
            "short": f"up to {short} characters",
            "middle": f"{short + 1} to {long}",
            "long": f"more than {long}",
        }
        if short < long
        else {},
    }


def _plain(value: Any) -> Any:
    """Columns for JSON, with null for what is not there."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, np.ndarray):
        return [None if isinstance(one, float) and np.isnan(one) else one for one in value.tolist()]
    return value
