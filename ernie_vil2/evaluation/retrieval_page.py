"""One page about a scored benchmark: the table, and its worst and best queries with images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ernie_vil2.evaluation.cards import Cards, extreme_queries
from ernie_vil2.evaluation.evaluator import Evaluation
from ernie_vil2.evaluation.retrieval import COLUMNS, Row, table_cells
from ernie_vil2.pages import ARROWS, write_page


def write_retrieval_page(
    path: str | Path,
    *,
    title: str,
    facts: Mapping[str, str],
    rows: Sequence[Row],
    evaluation: Evaluation,
    count: int = 12,
    answers: int = 5,
    device: str = "cpu",
) -> None:
    """Write the page to `path`, whole or not at all.

    In each scored direction it shows the `count` queries of the highest rank and those of the lowest, as `Cards` makes
    them. What the protocol says in words stands last.

    Args:
        facts: name and value of what was run, shown at the top before the protocol.
        rows: of the table, see `table_rows`.
    """
    scored, result = evaluation.scored, evaluation.result
    cards = Cards(evaluation, answers, device)
    queries = {
        f"{heading} queries, {ARROWS[direction]}": cards.of(
            direction, extreme_queries(scored, direction, count, heading == "Worst")
        )
        for direction in scored.protocol.directions
        for heading in ("Worst", "Best")
    }
    write_page(
        path,
        "retrieval.html",
        title=title,
        facts={
            **facts,
            "Protocol": scored.protocol.name,
            "Galleries": f"{result.images:,} images, {result.texts:,} texts, {result.pairs:,} pairs",
        },
        table=recall_table(rows, [*evaluation.differences, figures_note(result.tie_rule)]),
        queries=queries,
        definitions={f"Protocol {scored.protocol.name}": scored.protocol.definition},
    )


def figures_note(tie_rule: str) -> str:
    """What stands below a table of recalls."""
    return f"Percent; mR is the mean of both directions; {tie_rule}."


def recall_table(rows: Sequence[Row], notes: Sequence[str]) -> dict:
    """The table that `format_table` prints, with sentences below it, as `parts.recalls` of the pages shows it."""
    return {
        "ways": list(ARROWS.values()),
        "columns": COLUMNS,
        "rows": [(label, None if values is None else table_cells(values)) for label, values in rows],
        "notes": notes,
    }
