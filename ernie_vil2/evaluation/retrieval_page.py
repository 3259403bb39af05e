"""One page about a scored benchmark: the table, and its worst and best queries with images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ernie_vil2.evaluation.cards import Cards, extreme_queries
from ernie_vil2.evaluation.protocol import Evaluation
from ernie_vil2.evaluation.ranking import TIE_RULES
from ernie_vil2.evaluation.retrieval import Row, columns_of, directions_of, table_cells
from ernie_vil2.pages import write_page


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
    protocol, cards = evaluation.protocol, Cards(evaluation, answers, device)
    queries = {
        f"{heading} queries, {arrow(direction)}": cards.of(
            direction, extreme_queries(result, count, heading == "Worst")
        )
        for direction, result in evaluation.results.items()
        for heading in ("Worst", "Best")
    }
    write_page(
        path,
        "retrieval.html",
        title=title,
        facts={
            **facts,
            "Protocol": protocol.name,
            "Galleries": evaluation.sizes,
        },
        table=recall_table(rows, [*evaluation.notes, figures_note(TIE_RULES[protocol.ties])]),
        queries=queries,
        definitions={f"Protocol {protocol.name}": protocol.definition},
    )


def figures_note(tie_rule: str) -> str:
    """What stands below a table of recalls."""
    return f"Percent; mR is the mean of both directions; {tie_rule}."


def recall_table(rows: Sequence[Row], notes: Sequence[str]) -> dict:
    """The table that `format_table` prints, with sentences below it, as `parts.recalls` of the pages shows it."""
    directions = directions_of(rows)
    return {
        "ways": list(map(arrow, directions)),
        "columns": columns_of(directions),
        "rows": [(label, None if values is None else table_cells(values, directions)) for label, values in rows],
        "notes": notes,
    }


def arrow(direction: str) -> str:
    """A direction for a person: `image → text`."""
    return direction.replace("_to_", " → ")
