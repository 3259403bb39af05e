"""What scoring statements leaves: a table beside the published rows, a record, every prediction, a page of examples."""

from __future__ import annotations

import csv
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.device.environment import environment
from ernie_vil2.evaluation.protocols import paper_results
from ernie_vil2.evaluation.results import cell_text
from ernie_vil2.evaluation.retrieval_page import thumbnail
from ernie_vil2.evaluation.statements import StatementScores
from ernie_vil2.io.files import atomic_files, write_text
from ernie_vil2.io.terminal import counted
from ernie_vil2.pages import write_page

SHOWN = 12
"""Examples of a kind on a page."""
TABLE_7 = "published: Table 7 of the paper, which does not say on which split"
DEFINITION = (
    "Percent of the statements whose label is predicted; of a label and of a published subset, of its own. "
    "Consistency: percent of the sentences of which every statement is right, as the authors of NLVR2 compute it. A "
    "statement of which an image cannot be used is left out."
)
Rows = list[tuple[str, Mapping[str, float]]]


def table_rows(label: str, scores: StatementScores) -> Rows:
    """The rows of the table: the model, who always says the same, and what was published."""
    rows: Rows = [(label, scores.values), ("most frequent label", {"accuracy": scores.most_frequent})]
    return rows + [(f"published: {row.label}", row.values) for row in paper_results(scores.statements.kind)]


def format_table(rows: Rows) -> str:
    """The table in plain text."""
    columns = list(rows[0][1])
    width = max(len(label) for label, _ in rows)
    lines = ["".join([" " * width, *(f"  {name}" for name in columns)])]
    for label, values in rows:
        lines.append("".join([f"{label:<{width}}", *(f"  {_cell(values, name):>{len(name)}}" for name in columns)]))
    return "\n".join(lines)


def format_confusion(scores: StatementScores) -> str:
    """The confusion matrix in plain text."""
    width = max(map(len, scores.labels))
    lines = [" ".join([" " * width, *(f"{name:>{max(width, 7)}}" for name in scores.labels), " predicted"])]
    for name, counts in zip(scores.labels, scores.confusion.tolist(), strict=True):
        lines.append(" ".join([f"{name:<{width}}", *(f"{count:>{max(width, 7)},}" for count in counts)]))
    return "\n".join(lines)


def notes(scores: StatementScores) -> list[str]:
    """What a person should know of the figures: what was left out, and where others stand."""
    statements = scores.statements
    total, rows = len(statements.rows), statements.benchmark.rows
    lines = [f"{statements.name}: {len(scores.rows):,} of {counted(total, 'statement')} scored"]
    lines += [f"rows: {rows}"] * bool(rows.counts) + [f"images: {scores.problems}"] * bool(scores.problems.counts)
    return [*lines, TABLE_7, DEFINITION]


def _cell(values: Mapping[str, float], name: str) -> str:
    return f"{values[name]:.2f}" if name in values else "-"


def write_statement_results(
    output: Path, name: str, label: str, scores: StatementScores, about: Mapping[str, Any]
) -> list[Path]:
    """Writes `<name>.txt`, `.json`, `.csv` and `.html`, all or nothing; returns the files.

    The first two columns of the CSV, id and prediction, are what NLVR2's `metrics.py` reads.

    Args:
        label: what the model is called in the table.
        about: what was run, for the record: `model` and `data` among it.
    """
    rows = table_rows(label, scores)
    with atomic_files(output) as folder:
        written = [folder / f"{name}.{suffix}" for suffix in ("txt", "json", "csv", "html")]
        wrapped = [
            textwrap.fill(line, 110, subsequent_indent="    ") for note in notes(scores) for line in note.split("\n")
        ]
        write_text(written[0], "\n\n".join([format_table(rows), format_confusion(scores), "\n".join(wrapped)]) + "\n")
        record = {
            "data": {"kind": scores.statements.kind, "split": scores.statements.split, **scores.statements.counts},
            "scored": len(scores.rows),
            "values": scores.values,
            "labels": scores.labels,
            "confusion": scores.confusion.tolist(),
            "most_frequent": scores.most_frequent,
            "published": [{"model": row.label, "values": row.values, "source": row.source}
                          for row in paper_results(scores.statements.kind)],
            "rows": scores.statements.benchmark.rows.as_dict(),
            "images": scores.problems.as_dict(),
            "definition": DEFINITION,
            **about,
            **environment(),
        }  # fmt: skip
        write_text(written[1], json.dumps(record, ensure_ascii=False, indent=1))
        _write_predictions(written[2], scores)
        _write_page(written[3], name, rows, scores, about)
    return [output / path.name for path in written]


def _write_predictions(path: Path, scores: StatementScores) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "predicted", "label", *(f"probability of {label}" for label in scores.labels), "text"])
        for row, predicted, probabilities in zip(scores.rows, scores.predicted, scores.probabilities, strict=True):
            shares = [f"{share:.6f}" for share in probabilities.tolist()]
            writer.writerow([cell_text(row.id), scores.labels[predicted], row.label, *shares, cell_text(row.text)])


def _write_page(path: Path, name: str, rows: Rows, scores: StatementScores, about: Mapping[str, Any]) -> None:
    columns = list(rows[0][1])
    own = scores.probabilities[np.arange(len(scores.rows)), scores.answers]
    right, order = scores.predicted == scores.answers, np.argsort(own, kind="stable")
    wrong = [place for place in order if not right[place]]
    sure = [place for place in order[::-1] if right[place]]
    thumbnails: dict[str, bytes | None] = {}
    write_page(
        path,
        "statements.html",
        title=name,
        facts={"Model": about["model"], "Data": about["data"], "Statements": f"{len(scores.rows):,}"},
        table={"columns": columns, "rows": [(label, [_cell(one, key) for key in columns]) for label, one in rows]},
        notes=notes(scores),
        labels=scores.labels,
        confusion=list(zip(scores.labels, scores.confusion.tolist(), strict=True)),
        examples={
            heading: [_card(scores, place, thumbnails) for place in places[:SHOWN]]
            for heading, places in (("Surest wrong answers", wrong), ("Surest right answers", sure))
        },
    )


def _card(scores: StatementScores, place: int, thumbnails: dict[str, bytes | None]) -> dict:
    """A statement with its images and the probability of each label, as `parts.queries` of the pages shows it."""
    row = scores.rows[place]
    for image in row.images:
        if image.id not in thumbnails:
            thumbnails[image.id] = thumbnail(image)
    return {
        "query": row.text,
        "images": [thumbnails[image.id] for image in row.images if thumbnails[image.id]],
        "language": "",
        "tags": [row.id],
        "answers": [
            {"image": None, "caption": label, "score": share, "correct": label == row.label, "rank": None}
            for label, share in zip(scores.labels, scores.probabilities[place].tolist(), strict=True)
        ],
    }
