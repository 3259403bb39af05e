"""A page of confusions: which classes are taken for which, the hardest ones, and the surest errors."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from ernie_vil2.evaluation.classification import DEFINITION, ClassScores, EncodedClasses
from ernie_vil2.evaluation.examples import Thumbnails
from ernie_vil2.evaluation.report import Page, Section
from ernie_vil2.pages import Answer, Card, Table

MOST_CLASSES = 30
"""Of which a page shows the whole matrix, and of more classes the worst."""
CARDS, ANSWERS, PAIRS = 12, 5, 30


def confusions_page(
    encoded: EncodedClasses, results: Mapping[str, ClassScores], table: Table, notes: Sequence[str]
) -> Page:
    """The figures, and for each result its confusions, its hardest classes and its surest errors."""
    sections = [Section("Classification", tables=[table], notes=notes)]
    thumbnails = Thumbnails()
    for label, scores in results.items():
        present = [row for row in np.argsort(scores.class_metrics, kind="stable").tolist() if scores.counts[row]]
        if not scores.is_multi_label:
            sections.append(_confusions(f"Confusions: {label}", scores, sorted(present[:MOST_CLASSES])))
        left_out = len(present) - PAIRS
        notes = [f"{left_out:,} more classes are in the JSON file."] * (left_out > 0)
        hardest = _hardest(scores, present[:PAIRS])
        sections.append(Section(f"Classes, the hardest first: {label}", tables=[hardest], notes=notes))
        make_card = partial(_card, encoded, scores, thumbnails)
        if cards := [make_card(row) for row in _surest_errors(scores)]:
            sections.append(Section(f"Most confident wrong answers: {label}", cards=cards))
    sections.append(Section("What the figures mean", notes=[DEFINITION]))
    sizes = {"Images": f"{len(encoded.benchmark.images):,}", "Classes": f"{len(encoded.benchmark.texts):,}"}
    return Page(sizes, sections, data={"summary": _in_a_sentence(results)})


def _in_a_sentence(results: Mapping[str, ClassScores]) -> str:
    """The first figure of each result."""
    figures = {label: next(iter(scores.figures.items())) for label, scores in results.items()}
    return "; ".join(f"{label}: {name} {value:.1f} %" for label, (name, value) in figures.items()) + "."


def _confusions(heading: str, scores: ClassScores, shown: Sequence[int]) -> Section:
    counts, sizes = scores.confusion[np.ix_(shown, shown)], scores.counts[shown]
    names, whole = [scores.names[row] for row in shown], len(shown) == len(scores.names)
    if not whole:
        counts = np.concatenate([counts, (sizes - counts.sum(axis=1))[:, None]], axis=1)
    cells = [(name, [str(count or "") for count in row]) for name, row in zip(names, counts.tolist(), strict=True)]
    others = "" if whole else "; the classes of lowest recall, other answers in the last column"
    return Section(
        heading,
        f"Images of a row's class that were answered with a column's{others}.",
        [Table([*names, *["other"] * (not whole)], cells, kind="matrix", shades=(counts / sizes[:, None]).tolist())],
    )


def _hardest(scores: ClassScores, classes: Sequence[int]) -> Table:
    columns = ["images", "average precision" if scores.is_multi_label else "recall"]
    rows = [
        (scores.names[row], [f"{int(scores.counts[row]):,}", f"{100 * float(scores.class_metrics[row]):.1f}"])
        for row in classes
    ]
    if scores.is_multi_label:
        return Table(columns, rows, corner="class")
    rows = [(name, [*cells, _instead(scores, row)]) for (name, cells), row in zip(rows, classes, strict=True)]
    return Table([*columns, "most frequent wrong answers"], rows, corner="class", text_columns=[2])


def _instead(scores: ClassScores, row: int) -> str:
    """The most frequent wrong answers to images of a class, with their number."""
    wrong = scores.confusion[row].copy()
    wrong[row] = 0
    most = [column for column in np.argsort(-wrong, kind="stable")[:3].tolist() if wrong[column]]
    return ", ".join(f"{scores.names[column]} {wrong[column]}" for column in most)


def _surest_errors(scores: ClassScores) -> list[int]:
    """The images whose first answer is wrong by the most, as far as the score of a right one."""
    own = np.where(scores.truth, scores.scores, -np.inf).max(axis=1)
    lost = scores.scores.max(axis=1) - own
    rows = np.flatnonzero(scores.rank > 1)
    return rows[np.argsort(-lost[rows], kind="stable")][:CARDS].tolist()


def _card(encoded: EncodedClasses, scores: ClassScores, thumbnails: Thumbnails, row: int) -> Card:
    """An image with its first answers and, behind them, a right one."""
    image = encoded.benchmark.images[row]
    order = np.argsort(-scores.scores[row], kind="stable").tolist()
    rank = int(scores.rank[row])
    positions = [*range(min(ANSWERS, len(order))), *([rank - 1] if rank > ANSWERS else [])]
    answers = []
    for position in positions:
        column = order[position]
        score, correct = float(scores.scores[row, column]), bool(scores.truth[row, column])
        answers.append(Answer(scores.names[column], score, correct, rank=rank if position >= ANSWERS else None))
    return Card(image.id, answers, thumbnails(image), [f"rank {rank:,}"])
