"""Visual entailment (SNLI-VE) and NLVR2: which label a model gives to a statement about an image, or about two."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.readers.entailment import NLVR2, SNLI_VE
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.encoder import ErnieViL2, Source, encoder_of, stored_model
from ernie_vil2.evaluation.check import Inspection
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.entailment import (
    EntailmentScores,
    Statements,
    check_statements,
    read_statements,
    score_statements,
    splits_of,
)
from ernie_vil2.evaluation.examples import Thumbnails
from ernie_vil2.evaluation.outcomes import Outcomes
from ernie_vil2.evaluation.published import published_results
from ernie_vil2.evaluation.report import Page, Report, Section, wrapped
from ernie_vil2.evaluation.scorer import Bar, Opened, Scorer
from ernie_vil2.io.terminal import counted
from ernie_vil2.pages import Answer, Card, Table, percent
from ernie_vil2.section import Precision

SHOWN = 12
"""Examples of a kind on a page."""
TABLE_7 = "published: Table 7 of the paper, which does not say on which split"
DEFINITION = (
    "Percent of the statements whose label is predicted; of a label and of a published subset, of its own. "
    "Consistency: percent of the sentences of which every statement is right, as the authors of NLVR2 compute it. A "
    "statement of which an image cannot be used is left out."
)


def load_classifier(
    source: Source,
    vocab: Source | None = None,
    device: str | None = None,
    batch_size: int = 64,
    precision: Precision = "float32",
) -> ErnieViL2:
    """A model trained to label statements, with its `labels` in the order of what `backend.model.label_logits` gives.

    Args:
        source: the run, or a checkpoint of it; these and the others as for `load_model`.

    Raises:
        FileNotFoundError: as for `load_model`.
        ValueError: as for `load_model`, or the model was trained for something else.
    """
    stored = stored_model(source, vocab, device, precision)
    from ernie_vil2.models import set_weights
    from ernie_vil2.models.heads import build_classifier
    from ernie_vil2.tasks import TASKS
    from ernie_vil2.tasks.entailment import EntailmentTask

    config = stored.config
    task = TASKS.find(config.Training.task) if config.Training.task in TASKS else None
    if not (isinstance(task, type) and issubclass(task, EntailmentTask)):
        raise ValueError(f"{source} labels no statements: it was trained on Training.task {config.Training.task}")
    model = build_classifier(config.Model, config.Head, stored.vocab_size, task.images, len(task.labels))
    try:
        set_weights(model, stored.arrays)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    made = encoder_of(model, stored, config, precision, batch_size)
    made.labels = task.labels
    return made


@dataclass
class Entailment(Scorer):
    """Scores a model that was trained on the statements of SNLI-VE, by its accuracy.

    Attributes:
        title: what the model is called in the table.
    """

    title: str = "model"
    labels: ClassVar[bool] = True
    folder: ClassVar[str] = "entailment"
    layout: ClassVar[str] = SNLI_VE.name
    best_by = "accuracy"

    @classmethod
    def recognises(cls, path: Path, layout: str | None) -> bool:
        return layout == cls.layout

    def open(self, data: DataSpec) -> Opened:
        """Open the distinct images and texts of one split."""
        statements = read_statements(open_sources(data))
        return Opened(data, {"": statements.benchmark}, statements)

    def sizes(self, opened: Opened) -> dict[str, str]:
        statements: Statements = opened.context
        counts = statements.counts
        sizes = f"{counted(counts['statements'], 'statement')}, {counted(counts['images'], 'image')}"
        return {statements.name: sizes}

    def check(self, opened: Opened, model: ErnieViL2, name: str) -> None:
        """Raise ValueError if the model was trained on other labels."""
        statements: Statements = opened.context
        if statements.labels != model.labels:
            raise ValueError(
                f"{name} predicts {', '.join(model.labels) or 'no labels'}; the labels of {statements.name} are "
                f"{', '.join(statements.labels)}"
            )

    def score(self, opened: Opened, encoded: Mapping[str, EncodedBenchmark], model: ErnieViL2) -> Report:
        """Score the statements, see `EntailmentScores.values`."""
        backend: Any = model.backend  # of an `EntailmentClassifier`, as `check` has found
        scores = score_statements(opened.context, encoded[""], backend.model.label_logits)
        notes = notes_of(scores)
        table = accuracy_table(self.title, scores)
        return Report(
            scores.values,
            [table, confusion_table(scores)],
            record(scores),
            ["id", "predicted", "label", *(f"probability of {label}" for label in scores.labels), "text"],
            predictions(scores),
            best_by=self.best_by,
            sizes=None,
            notes=notes,
            paragraphs=[wrapped(notes)],
            pages=lambda: [page(scores, table, notes)],
            outcomes=lambda: {"": outcomes(scores)},
        )

    def naming(self, opened: Opened) -> list[str]:
        """Return the split by the name of its file."""
        return [opened.context.split]

    def inspect(self, data: DataSpec, bar: Bar) -> Inspection:
        """Read every split, and compare it with what the authors count, and with train."""
        names = [data.split] if data.split else splits_of(data.paths[0])
        splits = [read_statements(open_sources(data, split=name)) for name in names]
        with bar(sum(len(statements.benchmark.images) for statements in splits)) as progress:
            return check_statements(splits, progress)


@dataclass
class Nlvr2(Entailment):
    """Scores a model that was trained on the statements of NLVR2, as `Entailment` does."""

    layout: ClassVar[str] = NLVR2.name


def outcomes(scores: EntailmentScores) -> Outcomes:
    """Which statements were labelled rightly; those of an image, of NLVR2 those of a sentence, are drawn together."""
    right = np.where(scores.predicted == scores.answers, 100.0, 0.0)
    found = {"accuracy": right}
    for number, label in enumerate(scores.labels):
        found[f"accuracy/{label}"] = np.where(scores.answers == number, right, np.nan)
    owners = [row.group or row.images[0].id for row in scores.rows]
    _, first, clusters = np.unique(owners, return_index=True, return_inverse=True)
    if any(row.group for row in scores.rows):
        least = np.full(len(first), 100.0)
        np.minimum.at(least, clusters, right)
        found["consistency"] = np.full(len(right), np.nan)
        found["consistency"][first] = least
    own = scores.probabilities[np.arange(len(right)), scores.answers]
    thumbnails = Thumbnails()
    return Outcomes(
        ids=[row.id for row in scores.rows],
        figures={name: values for name, values in found.items() if not np.isnan(values).all()},
        main="accuracy",
        clusters=clusters,
        ranks=1 + (scores.probabilities > own[:, None]).sum(axis=1),
        texts=[row.text for row in scores.rows],
        fields=[{"label": row.label} for row in scores.rows],
        cards=lambda chosen: [_card(scores, row, thumbnails) for row in chosen],
    )


def accuracy_table(label: str, scores: EntailmentScores) -> Table:
    """The model, the most frequent label, and published results."""
    rows: list[tuple[str, Mapping[str, Any]]] = [
        (label, scores.values),
        ("most frequent label", {"accuracy": scores.most_frequent}),
    ]
    rows += [(f"published: {row.title}", row.values) for row in published_results(scores.statements.kind)]
    columns = list(scores.values)
    cells = [(name, [percent(values.get(column)) for column in columns]) for name, values in rows]
    return Table(columns, cells, ruled=False)


def confusion_table(scores: EntailmentScores) -> Table:
    """Statements of a row's label that were given a column's."""
    cells = [
        (name, [f"{count:,}" for count in counts])
        for name, counts in zip(scores.labels, scores.confusion.tolist(), strict=True)
    ]
    least = 1 + max(7, *map(len, scores.labels))
    return Table(scores.labels, cells, ruled=False, gap=1, least=least, after="  predicted")


def notes_of(scores: EntailmentScores) -> list[str]:
    """Remarks on the figures: what was left out, and where others are."""
    statements = scores.statements
    total, rows = len(statements.rows), statements.benchmark.rows
    lines = [f"{statements.name}: {len(scores.rows):,} of {counted(total, 'statement')} scored"]
    lines += [f"rows: {rows}"] * bool(rows.counts) + [f"images: {scores.problems}"] * bool(scores.problems.counts)
    return [*lines, TABLE_7, DEFINITION]


def record(scores: EntailmentScores) -> dict[str, Any]:
    """All figures, for JSON."""
    statements = scores.statements
    return {
        "benchmark": {"kind": statements.kind, "split": statements.split, **statements.counts},
        "scored": len(scores.rows),
        "values": scores.values,
        "labels": scores.labels,
        "confusion": scores.confusion.tolist(),
        "most_frequent": scores.most_frequent,
        "published": [
            {"model": row.label, "values": row.values, "source": row.source}
            for row in published_results(statements.kind)
        ],
        "rows": statements.benchmark.rows.as_dict(),
        "images": scores.problems.as_dict(),
        "definition": DEFINITION,
    }


def predictions(scores: EntailmentScores) -> Iterator[list[str]]:
    """A row of CSV for each statement; the first two columns are what NLVR2's `metrics.py` reads."""
    for row, predicted, probabilities in zip(scores.rows, scores.predicted, scores.probabilities, strict=True):
        shares = [f"{share:.6f}" for share in probabilities.tolist()]
        yield [row.id, scores.labels[predicted], row.label, *shares, row.text]


def page(scores: EntailmentScores, table: Table, notes: list[str]) -> Page:
    """The tables, and the most confident wrong and right answers."""
    own = scores.probabilities[np.arange(len(scores.rows)), scores.answers]
    right, order = scores.predicted == scores.answers, np.argsort(own, kind="stable")
    wrong = [row for row in order if not right[row]]
    sure = [row for row in order[::-1] if right[row]]
    thumbnails = Thumbnails()
    return Page(
        {"Statements": f"{len(scores.rows):,}"},
        [
            Section("Labels", tables=[table], notes=notes),
            Section("Confusion", "Statements of a row's label that were given a column's.", [confusion_table(scores)]),
            *(
                Section(heading, cards=[_card(scores, row, thumbnails) for row in rows[:SHOWN]])
                for heading, rows in (("Most confident wrong answers", wrong), ("Most confident right answers", sure))
            ),
        ],
        data={"summary": f"{100 * right.mean():.2f} % of {len(scores.rows):,} statements are labelled correctly."},
    )


def _card(scores: EntailmentScores, number: int, thumbnails: Thumbnails) -> Card:
    """A statement with its images and the probability of each label."""
    row, shares = scores.rows[number], scores.probabilities[number].tolist()
    answers = [Answer(label, share, label == row.label) for label, share in zip(scores.labels, shares, strict=True)]
    return Card(row.text, answers, thumbnails(*row.images), [row.id])
