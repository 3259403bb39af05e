"""What an evaluation of classes leaves: a table, a record as JSON, every picture as CSV, and a page of confusions."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.device.environment import environment
from ernie_vil2.evaluation.classification import COLUMNS, DEFINITION, ClassScores, EncodedClasses
from ernie_vil2.evaluation.results import cell_text
from ernie_vil2.evaluation.retrieval_page import thumbnail
from ernie_vil2.io.files import atomic_files, atomic_write, write_text
from ernie_vil2.pages import write_page

CSV_COLUMNS = ("result", "image_id", "labels", "answer", "answer_name", "probability", "score", "rank", "right")
MOST_CLASSES = 30
"""Of which a page shows the whole matrix, and of more classes the worst."""
CARDS, ANSWERS, PAIRS = 12, 5, 30


def table_rows(results: Mapping[str, ClassScores]) -> list[tuple[str, dict[str, float]]]:
    """Figures by label, and chance below them."""
    rows = [(label, answers.figures) for label, answers in results.items()]
    chance = next(iter(results.values())).chance
    return rows + ([("chance", chance)] if chance else [])


def format_table(rows: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """The rows as a table in plain text, in percent, without the columns that none has."""
    columns = columns_of(rows)
    width = max(len(label) for label, _ in rows)
    lines = [" " * width + "".join(f"{said(name):>{len(name) + 4}}" for name in columns)]
    lines.append("-" * len(lines[0]))
    for label, figures in rows:
        lines.append(f"{label:<{width}}" + "".join(f"{_cell(figures, name):>{len(name) + 4}}" for name in columns))
    return "\n".join(lines)


def columns_of(rows: Sequence[tuple[str, Mapping[str, float]]]) -> list[str]:
    """Those of `COLUMNS` that a row has."""
    return [name for name in COLUMNS if any(name in figures for _, figures in rows)]


def said(name: str) -> str:
    """The heading of a figure."""
    return name.replace("_", " ")


def _cell(figures: Mapping[str, float], name: str) -> str:
    return f"{figures[name]:.2f}" if name in figures else "-"


def write_classification(
    output: Path,
    name: str,
    encoded: EncodedClasses,
    results: Mapping[str, ClassScores],
    notes: Sequence[str],
    about: Mapping[str, Any],
) -> list[Path]:
    """Writes `<name>.txt`, `.json`, `.csv` and `.html`, all or nothing; returns the files.

    Args:
        results: by the label that each has in the table.
        notes: what a person should know of the data and the figures.
        about: what was run, for the record: `model`, `data` and `templates` among it.
    """
    rows = table_rows(results)
    with atomic_files(output) as folder:
        written = [folder / f"{name}.{suffix}" for suffix in ("txt", "json", "csv", "html")]
        write_text(written[0], "\n\n".join([format_table(rows), "\n".join(notes), DEFINITION]) + "\n")
        record = classification_record(encoded, results, notes, about)
        write_text(written[1], json.dumps(record, ensure_ascii=False, indent=1))
        write_answers(written[2], encoded, results)
        _write_page(written[3], name, encoded, results, rows, notes, about)
    return [output / path.name for path in written]


def classification_record(
    encoded: EncodedClasses, results: Mapping[str, ClassScores], notes: Sequence[str], about: Mapping[str, Any]
) -> dict:
    """Figures of all results and of every class, for JSON."""
    benchmark = encoded.benchmark
    return {
        "definition": DEFINITION,
        "pictures": len(benchmark.images),
        "results": {label: answers.figures for label, answers in results.items()},
        "chance": next(iter(results.values())).chance,
        "classes": [
            {
                "label": one.id,
                "names": dict(one.fields),
                "pictures": int(next(iter(results.values())).counts[row]),
                "percent": {
                    label: None if np.isnan(answers.per_class[row]) else 100 * float(answers.per_class[row])
                    for label, answers in results.items()
                },
            }
            for row, one in enumerate(benchmark.texts)
        ],
        "notes": list(notes),
        "rows": benchmark.rows.as_dict(),
        "encoded": encoded.problems.as_dict(),
        **about,
        **environment(),
    }


def write_answers(path: Path, encoded: EncodedClasses, results: Mapping[str, ClassScores]) -> None:
    """Writes a CSV file with one line per picture and result, `CSV_COLUMNS`: its classes and the first answer."""
    images, labels = encoded.benchmark.images, [one.id for one in encoded.benchmark.texts]
    with atomic_write(path) as aside, open(aside, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for result, answers in results.items():
            for row, (image, answer) in enumerate(zip(images, answers.answer.tolist(), strict=True)):
                own = "|".join(labels[column] for column in np.flatnonzero(answers.truth[row]))
                texts = map(cell_text, (result, image.id, own, labels[answer], answers.names[answer]))
                numbers = (answers.probabilities[row, answer], answers.scores[row, answer], answers.rank[row])
                writer.writerow([*texts, *numbers, int(answers.truth[row, answer])])


def _write_page(
    path: Path,
    name: str,
    encoded: EncodedClasses,
    results: Mapping[str, ClassScores],
    rows: Sequence[tuple[str, Mapping[str, float]]],
    notes: Sequence[str],
    about: Mapping[str, Any],
) -> None:
    columns = columns_of(rows)
    pictures: dict[int, bytes | None] = {}
    write_page(
        path,
        "classification.html",
        title=name,
        facts={
            "Model": about["model"],
            "Data": " ".join(about["data"]),
            "Pictures": f"{len(encoded.benchmark.images):,}",
            "Classes": f"{len(encoded.benchmark.texts):,}",
        },
        figures={
            "columns": list(map(said, columns)),
            "rows": [(label, [_cell(one, key) for key in columns]) for label, one in rows],
        },
        notes=notes,
        results={label: _on_page(encoded, answers, pictures) for label, answers in results.items()},
        definition=DEFINITION,
    )


def _on_page(encoded: EncodedClasses, answers: ClassScores, pictures: dict[int, bytes | None]) -> dict:
    classes = [row for row in np.argsort(answers.per_class, kind="stable").tolist() if answers.counts[row]]
    shown = sorted(classes[:MOST_CLASSES])
    return {
        "several": answers.several,
        "classes": [
            {
                "name": answers.names[row],
                "pictures": int(answers.counts[row]),
                "percent": 100 * float(answers.per_class[row]),
                "instead": [] if answers.several else list(_instead(answers, row)),
            }
            for row in classes[:PAIRS]
        ],
        "left_out": max(0, len(classes) - PAIRS),
        "matrix": None if answers.several else _matrix(answers, shown),
        "cards": [_card(encoded, answers, row, pictures) for row in _surest_errors(answers)],
    }


def _matrix(answers: ClassScores, shown: Sequence[int]) -> dict:
    counts = answers.confusion[np.ix_(shown, shown)]
    sizes = answers.counts[shown]
    others = sizes - counts.sum(axis=1)
    return {
        "names": [answers.names[row] for row in shown],
        "rows": [
            [(count, count / size) for count in [*row, other]]
            for row, other, size in zip(counts.tolist(), others.tolist(), sizes.tolist(), strict=True)
        ],
        "whole": len(shown) == len(answers.names),
    }


def _instead(answers: ClassScores, row: int) -> Iterator[tuple[str, int]]:
    """The most frequent wrong answers to pictures of a class, with their number."""
    wrong = answers.confusion[row].copy()
    wrong[row] = 0
    for column in np.argsort(-wrong, kind="stable")[:3].tolist():
        if wrong[column]:
            yield answers.names[column], int(wrong[column])


def _surest_errors(answers: ClassScores) -> list[int]:
    """The pictures whose first answer is wrong by the most, as far as the score of a right one."""
    own = np.where(answers.truth, answers.scores, -np.inf).max(axis=1)
    lost = answers.scores.max(axis=1) - own
    rows = np.flatnonzero(answers.rank > 1)
    return rows[np.argsort(-lost[rows], kind="stable")][:CARDS].tolist()


def _card(encoded: EncodedClasses, answers: ClassScores, row: int, pictures: dict[int, bytes | None]) -> dict:
    """A picture with its first answers and, behind them, a right one, as `parts.queries` of the pages shows it."""
    image = encoded.benchmark.images[row]
    if row not in pictures:
        pictures[row] = thumbnail(image)
    order = np.argsort(-answers.scores[row], kind="stable").tolist()
    rank = int(answers.rank[row])
    places = [*range(min(ANSWERS, len(order))), *([rank - 1] if rank > ANSWERS else [])]
    return {
        "query": image.id,
        "image": pictures[row],
        "language": "",
        "tags": [f"rank {rank:,}"],
        "answers": [
            {
                "image": None,
                "caption": answers.names[order[place]],
                "score": float(answers.scores[row, order[place]]),
                "correct": bool(answers.truth[row, order[place]]),
                "rank": rank if place >= ANSWERS else None,
            }
            for place in places
        ],
    }
