"""The page of a classification: confusions between classes, the hardest classes, and the most confident errors."""

from collections.abc import Mapping, Sequence

import numpy as np

from ernie_vil2.evaluation.classification import DEFINITION, ClassScores, EncodedClasses
from ernie_vil2.evaluation.examples import NUM_ANSWERS, NUM_EXAMPLES, Thumbnails
from ernie_vil2.evaluation.report import Page, Section
from ernie_vil2.pages import Answer, Card, Table

# Classes in the matrix of confusions, which are the ones of lowest recall. It bounds the width of the page.
MAX_MATRIX_CLASSES = 30
# Classes in the table of the hardest ones; the JSON file has all of them.
MAX_TABLE_CLASSES = 30
# Wrong answers that the table lists for each class.
MAX_WRONG_ANSWERS = 3


def make_classification_page(
    encoded: EncodedClasses, results: Mapping[str, ClassScores], table: Table, notes: Sequence[str]
) -> Page:
    """Return the page: the figures, and for each result its confusions, hardest classes and most confident errors.

    Args:
        encoded: images and classes.
        results: scores by label.
        table: the figures.
        notes: sentences below the figures.
    """
    sections = [Section("Classification", tables=[table], notes=notes)]
    thumbnails = Thumbnails()
    for label, scores in results.items():
        hardest_first = np.argsort(scores.class_metrics, kind="stable").tolist()
        classes = [row for row in hardest_first if scores.counts[row]]
        if not scores.is_multi_label:
            matrix_classes = sorted(classes[:MAX_MATRIX_CLASSES])
            sections.append(_make_confusion_section(f"Confusions: {label}", scores, matrix_classes))

        num_hidden = len(classes) - MAX_TABLE_CLASSES
        table_notes = []
        if num_hidden > 0:
            table_notes.append(f"{num_hidden:,} more classes are in the JSON file.")
        class_table = _make_class_table(scores, classes[:MAX_TABLE_CLASSES])
        sections.append(Section(f"Classes, the hardest first: {label}", tables=[class_table], notes=table_notes))

        cards = [_make_card(encoded, scores, thumbnails, row) for row in _find_confident_errors(scores)]
        if cards:
            sections.append(Section(f"Most confident wrong answers: {label}", cards=cards))
    sections.append(Section("What the figures mean", notes=[DEFINITION]))
    facts = {"Images": f"{len(encoded.benchmark.images):,}", "Classes": f"{len(encoded.benchmark.texts):,}"}
    return Page(facts, sections, data={"summary": _summarise(results)})


def _summarise(results: Mapping[str, ClassScores]) -> str:
    """Return a sentence with the first figure of each result."""
    clauses = []
    for label, scores in results.items():
        name, value = next(iter(scores.metrics.items()))
        clauses.append(f"{label}: {name} {value:.1f} %")
    return f"{'; '.join(clauses)}."


def _make_confusion_section(heading: str, scores: ClassScores, classes: Sequence[int]) -> Section:
    names = [scores.names[row] for row in classes]
    counts = scores.confusion[np.ix_(classes, classes)]
    class_sizes = scores.counts[classes]
    intro, columns = "Images of a row's class that were answered with a column's", names
    if len(classes) < len(scores.names):
        other_answers = class_sizes - counts.sum(axis=1)
        counts = np.concatenate([counts, other_answers[:, None]], axis=1)
        intro += "; the classes of lowest recall, other answers in the last column"
        columns = [*names, "other"]

    rows = []
    for name, row in zip(names, counts.tolist(), strict=True):
        rows.append((name, [str(count or "") for count in row]))  # no zeros, so that confusions stand out
    shades = (counts / class_sizes[:, None]).tolist()
    return Section(heading, f"{intro}.", [Table(columns, rows, kind="matrix", shades=shades)])


def _make_class_table(scores: ClassScores, classes: Sequence[int]) -> Table:
    rows = []
    for row in classes:
        cells = [f"{int(scores.counts[row]):,}", f"{100 * float(scores.class_metrics[row]):.1f}"]
        if not scores.is_multi_label:
            cells.append(_list_wrong_answers(scores, row))
        rows.append((scores.names[row], cells))
    if scores.is_multi_label:
        return Table(["images", "average precision"], rows, corner="class")
    return Table(["images", "recall", "most frequent wrong answers"], rows, corner="class", text_columns=[2])


def _list_wrong_answers(scores: ClassScores, row: int) -> str:
    """List the most frequent wrong answers to images of a class, each with its count."""
    counts = scores.confusion[row].copy()
    counts[row] = 0
    most_frequent = np.argsort(-counts, kind="stable")[:MAX_WRONG_ANSWERS].tolist()
    return ", ".join(f"{scores.names[column]} {counts[column]}" for column in most_frequent if counts[column])


def _find_confident_errors(scores: ClassScores) -> list[int]:
    """Return the images whose wrong answer scores highest above the best right one."""
    right_scores = np.where(scores.truth, scores.scores, -np.inf).max(axis=1)
    margins = scores.scores.max(axis=1) - right_scores
    rows = np.flatnonzero(scores.rank > 1)
    return rows[np.argsort(-margins[rows], kind="stable")][:NUM_EXAMPLES].tolist()


def _make_card(encoded: EncodedClasses, scores: ClassScores, thumbnails: Thumbnails, row: int) -> Card:
    """Return a card of an image with its first answers and, behind them, the best right answer."""
    image = encoded.benchmark.images[row]
    order = np.argsort(-scores.scores[row], kind="stable").tolist()
    rank = int(scores.rank[row])
    positions = list(range(min(NUM_ANSWERS, len(order))))
    if rank > NUM_ANSWERS:
        positions.append(rank - 1)

    answers = []
    for position in positions:
        column = order[position]
        score, is_correct = float(scores.scores[row, column]), bool(scores.truth[row, column])
        shown_rank = rank if position >= NUM_ANSWERS else None
        answers.append(Answer(scores.names[column], score, is_correct, rank=shown_rank))
    return Card(image.id, answers, thumbnails(image), [f"rank {rank:,}"])
