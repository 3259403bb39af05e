"""Visual entailment (SNLI-VE) and NLVR2: which label a model gives to a statement about an image, or about two."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkText, Collector
from ernie_vil2.data.readers import ShardedSource, open_sources
from ernie_vil2.data.readers.entailment import NLVR2, SNLI_VE, StatementRow, StatementSource, read_nlvr2_subsets
from ernie_vil2.data.samples import BadSample, BadSampleReport, Reason, format_names
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.encoder import ErnieViL2, Source, build_encoder, read_stored_model
from ernie_vil2.evaluation.check import Inspection, decode_all
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.examples import Thumbnails
from ernie_vil2.evaluation.outcomes import Outcomes
from ernie_vil2.evaluation.published import find_published
from ernie_vil2.evaluation.report import Page, Report, Section, wrap_lines
from ernie_vil2.evaluation.scorer import ProgressBar, Scorer, ScorerInput
from ernie_vil2.io.terminal import counted
from ernie_vil2.pages import Answer, Card, Table, format_percent
from ernie_vil2.section import Precision

SHOWN = 12
"""Examples of a kind on a page."""
TABLE_7 = "published: Table 7 of the paper, which does not say on which split"
DEFINITION = (
    "Percent of the statements whose label is predicted; of a label and of a published subset, of its own. "
    "Consistency: percent of the sentences of which every statement is right, as the authors of NLVR2 compute it. A "
    "statement of which an image cannot be used is left out."
)

Classify = Callable[[Sequence[np.ndarray], np.ndarray], np.ndarray]
"""`[N, D]` embeddings of the image, or of the left and the right ones, and of the texts, to `[N, labels]` logits."""

PUBLISHED = {
    ("snli-ve", "train"): {"entailment": 176_932, "neutral": 176_045, "contradiction": 176_550, "images": 29_783},
    ("snli-ve", "dev"): {"entailment": 5_959, "neutral": 5_960, "contradiction": 5_939, "images": 1_000},
    ("snli-ve", "test"): {"entailment": 5_973, "neutral": 5_964, "contradiction": 5_964, "images": 1_000},
    ("nlvr2", "train"): {"statements": 86_373},
    ("nlvr2", "dev"): {"statements": 6_982},
    ("nlvr2", "test1"): {"statements": 6_967},
    ("nlvr2", "test2"): {"statements": 6_970},
}
"""What the authors count in their splits: statements by label, or in all, and images."""


def splits_of(folder: str | Path) -> list[str]:
    """The splits that a folder holds, or of a file its own.

    Raises:
        ValueError: there are none.
    """
    path = Path(folder)
    if path.is_dir():
        for layout in (SNLI_VE, NLVR2):
            if found := layout.find(path):
                return list(found)
        raise ValueError(f"{folder}: neither {SNLI_VE.file_description} nor {NLVR2.file_description} are here")
    return [path.stem.removeprefix("snli_ve_")]


@dataclass(frozen=True)
class Statements:
    """The rows of a split that can be used, in the order of the file.

    Attributes:
        kind: of data, `snli-ve` or `nlvr2`.
        split: by the name of its file.
        labels: in the order of the model's outputs.
        benchmark: their distinct images and texts, and what could not be used.
        subsets: ids of rows by the name of a published subset that they make up.
    """

    kind: str
    split: str
    labels: tuple[str, ...]
    rows: Sequence[StatementRow]
    benchmark: Benchmark
    subsets: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people: `nlvr2 dev`."""
        return f"{self.kind} {self.split}"

    @cached_property
    def counts(self) -> dict[str, int]:
        """Statements, those of each label, and distinct images."""
        of_label = Counter(row.label for row in self.rows)
        return {
            "statements": len(self.rows),
            **{label: of_label[label] for label in self.labels},
            "images": len(self.benchmark.images),
        }


def read_statements(sources: ShardedSource) -> Statements:
    """The statements of one annotation file; no image is read.

    Raises:
        ValueError: there are several, it holds something else, or no row can be used.
    """
    source = sources.shards[0]
    if len(sources.shards) > 1 or not isinstance(source, StatementSource):
        names = ", ".join(shard.name for shard in sources.shards[:2])
        raise ValueError(f"{names}: one file of statements with labels is needed, as SNLI-VE and NLVR2 have them")
    rows, collector = [], Collector()
    for row in source.read_rows():
        with collector.entry():
            if isinstance(row, BadSample):
                raise row
            for image in row.images:
                collector.add_image(image, image.id)
            collector.add_text(BenchmarkText(row.text, row.text))
            for image in row.images:
                collector.add_pair(image.id, row.text)
            rows.append(row)
    path = Path(source.name)
    split = path.stem.removeprefix("snli_ve_")
    benchmark = collector.make_benchmark(f"{source.kind}-{split}", source.files)
    subsets = read_nlvr2_subsets(path) if source.kind == NLVR2.name else {}
    return Statements(source.kind, split, source.labels, rows, benchmark, subsets)


@dataclass(frozen=True)
class EntailmentScores:
    """Predictions for the N `rows` of which all images could be used: `probabilities` `[N, labels]` float32.

    `problems` counts the images that were asked for and those that could not be used.
    """

    statements: Statements
    rows: Sequence[StatementRow]
    probabilities: np.ndarray
    problems: BadSampleReport

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the columns."""
        return self.statements.labels

    @cached_property
    def answers(self) -> np.ndarray:
        """`[N]` int64, the number of each row's label."""
        return np.array([self.labels.index(row.label) for row in self.rows], np.int64)

    @cached_property
    def predicted(self) -> np.ndarray:
        """`[N]` int64, the number of the most probable label."""
        return self.probabilities.argmax(axis=1)

    @property
    def confusion(self) -> np.ndarray:
        """`[labels, labels]` int64: rows of a label, by what was predicted."""
        table = np.zeros([len(self.labels)] * 2, np.int64)
        np.add.at(table, (self.answers, self.predicted), 1)
        return table

    @property
    def values(self) -> dict[str, float]:
        """Figures in percent: `accuracy`, `accuracy/<label>`, and of NLVR2 `consistency`, the share of sentences of
        which every row is right; of a published subset `accuracy/<subset>` and `consistency/<subset>`.
        """
        right = self.predicted == self.answers
        values = {"accuracy": _percent(right)}
        for number, label in enumerate(self.labels):
            values[f"accuracy/{label}"] = _percent(right[self.answers == number])
        grouped = self.statements.kind == NLVR2.name
        if grouped:
            values["consistency"] = self._consistency(right, np.ones(len(right), bool))
        for name, ids in self.statements.subsets.items():
            chosen = np.array([row.id in ids for row in self.rows], bool)
            values[f"accuracy/{name}"] = _percent(right[chosen])
            values[f"consistency/{name}"] = self._consistency(right, chosen)
        return {name: value for name, value in values.items() if value is not None}

    @property
    def most_frequent(self) -> float:
        """The accuracy of who always says the most frequent label, in percent."""
        return 100 * float(np.bincount(self.answers, minlength=1).max()) / len(self.rows)

    def _consistency(self, right: np.ndarray, chosen: np.ndarray) -> float | None:
        """As the authors' `metrics.py` computes it."""
        of_group: dict[str, bool] = defaultdict(lambda: True)
        for position in np.flatnonzero(chosen).tolist():
            of_group[self.rows[position].group] &= bool(right[position])
        return _percent(np.array(list(of_group.values()), bool))


def _percent(right: np.ndarray) -> float | None:
    return 100 * float(right.mean()) if len(right) else None


def classify_statements(statements: Statements, encoded: EncodedBenchmark, classify: Classify) -> EntailmentScores:
    """Classifies every statement whose images could be used.

    Args:
        encoded: embeddings of `statements.benchmark`.

    Raises:
        ValueError: none could, or a logit is not finite.
    """
    position = {image.id: row for row, image in enumerate(encoded.benchmark.images)}
    text_position = {text.text: row for row, text in enumerate(encoded.benchmark.texts)}
    rows = [row for row in statements.rows if all(image.id in position for image in row.images)]
    if not rows:
        raise ValueError(f"{statements.name}: no statement could be scored\n{encoded.bad_samples}")
    sides = zip(*([position[image.id] for image in row.images] for row in rows), strict=True)
    images = [encoded.image_embeddings[list(side)] for side in sides]
    logits = classify(images, encoded.text_embeddings[[text_position[row.text] for row in rows]])
    if not np.isfinite(logits).all():
        raise ValueError(f"{statements.name}: logits are NaN or infinite")
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return EntailmentScores(statements, rows, weights / weights.sum(axis=1, keepdims=True), encoded.bad_samples)


def check_statements(splits: Sequence[Statements], progress: Callable[[int], object]) -> Inspection:
    """Reads and decodes every image of the splits of a data set, and compares with what the authors count.

    All is good if every row with a gold label and every image can be used, the counts are those that were published,
    and no split shares an image with train.

    Args:
        progress: called with the number of images just done.
    """
    lines, good = [], True
    for statements in splits:
        total, *parts = statements.counts.items()
        shown = ", ".join(f"{name} {count:,}" for name, count in parts)
        rows, files = statements.benchmark.entry_report, decode_all(statements.benchmark.images, progress)
        lines += [
            f"{statements.name}: {counted(total[1], 'statement')} ({shown})",
            *(f"  {name}: {counted(len(ids), 'statement')}" for name, ids in statements.subsets.items()),
            f"rows: {rows}",
            f"images: {files}",
        ]
        good &= not (rows.counts.keys() - {Reason.NO_GOLD_LABEL} or files.counts)
    differences = [
        f"{statements.name} has {count:,} {name} as published; here are {statements.counts[name]:,}"
        for statements in splits
        for name, count in PUBLISHED.get((statements.kind, statements.split), {}).items()
        if statements.counts[name] != count
    ]
    differences += _leaks(splits)
    return Inspection("\n".join([*lines, *differences]), good and not differences)


def _leaks(splits: Sequence[Statements]) -> list[str]:
    """Images of another split that are in train: by their ids, or those of NLVR2 by their addresses."""
    used = {
        statements.split: {
            origin for row in statements.rows for origin in row.origins or [image.id for image in row.images]
        }
        for statements in splits
    }
    train = used.pop("train", set())
    return [
        f"images of {split} that occur in train: {format_names(len(shared), shared[: BadSampleReport.MAX_NAMES])}"
        for split, origins in used.items()
        if (shared := sorted(origins & train))
    ]


def load_classifier(
    source: Source,
    vocab: Source | None = None,
    device: str | None = None,
    batch_size: int = 64,
    precision: Precision = "float32",
) -> ErnieViL2:
    """A model trained to label statements; its `labels` are in the order of `backend.model.compute_label_logits`.

    Args:
        source: the run, or a checkpoint of it; these and the others as for `load_model`.

    Raises:
        FileNotFoundError: as for `load_model`.
        ValueError: as for `load_model`, or the model was trained for something else.
    """
    stored = read_stored_model(source, vocab, device, precision)
    from ernie_vil2.models import set_weights
    from ernie_vil2.models.heads import build_classifier
    from ernie_vil2.tasks import TASKS
    from ernie_vil2.tasks.entailment import EntailmentTask

    config = stored.config
    task = TASKS.find(config.Training.task) if config.Training.task in TASKS else None
    if not (isinstance(task, type) and issubclass(task, EntailmentTask)):
        raise ValueError(f"{source} labels no statements: it was trained on Training.task {config.Training.task}")
    model = build_classifier(config.Model, config.Head, stored.vocab_size, task.num_images, len(task.labels))
    try:
        set_weights(model, stored.arrays)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    made = build_encoder(model, stored, config, precision, batch_size)
    made.labels = task.labels
    return made


@dataclass
class Entailment(Scorer):
    """Scores a model that was trained on the statements of SNLI-VE, by its accuracy.

    Attributes:
        title: what the model is called in the table.
    """

    title: str = "model"
    needs_classifier: ClassVar[bool] = True
    folder: ClassVar[str] = "entailment"
    layout: ClassVar[str] = SNLI_VE.name
    best_by = "accuracy"

    @classmethod
    def recognises(cls, path: Path, layout: str | None) -> bool:
        return layout == cls.layout

    def open(self, data: DataSpec) -> ScorerInput:
        """Open the distinct images and texts of one split."""
        statements = read_statements(open_sources(data))
        return ScorerInput(data, {"": statements.benchmark}, statements)

    def describe_sizes(self, opened: ScorerInput) -> dict[str, str]:
        statements: Statements = opened.context
        counts = statements.counts
        sizes = f"{counted(counts['statements'], 'statement')}, {counted(counts['images'], 'image')}"
        return {statements.name: sizes}

    def check(self, opened: ScorerInput, model: ErnieViL2, name: str) -> None:
        """Raise ValueError if the model was trained on other labels."""
        statements: Statements = opened.context
        if statements.labels != model.labels:
            raise ValueError(
                f"{name} predicts {', '.join(model.labels) or 'no labels'}; the labels of {statements.name} are "
                f"{', '.join(statements.labels)}"
            )

    def score(self, opened: ScorerInput, encoded: Mapping[str, EncodedBenchmark], model: ErnieViL2) -> Report:
        """Score the statements, see `EntailmentScores.values`."""
        backend: Any = model.backend  # of an `EntailmentClassifier`, as `check` has found
        scores = classify_statements(opened.context, encoded[""], backend.model.compute_label_logits)
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
            paragraphs=[wrap_lines(notes)],
            make_pages=lambda: [page(scores, table, notes)],
            make_outcomes=lambda: {"": outcomes(scores)},
        )

    def file_name_parts(self, opened: ScorerInput) -> list[str]:
        """Return the split by the name of its file."""
        return [opened.context.split]

    def inspect(self, data: DataSpec, bar: ProgressBar) -> Inspection:
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
        query_ids=[row.id for row in scores.rows],
        figures={name: values for name, values in found.items() if not np.isnan(values).all()},
        main_figure="accuracy",
        clusters=clusters,
        ranks=1 + (scores.probabilities > own[:, None]).sum(axis=1),
        texts=[row.text for row in scores.rows],
        fields=[{"label": row.label} for row in scores.rows],
        make_cards=lambda chosen: [_card(scores, row, thumbnails) for row in chosen],
    )


def accuracy_table(label: str, scores: EntailmentScores) -> Table:
    """The model, the most frequent label, and published results."""
    rows: list[tuple[str, Mapping[str, Any]]] = [
        (label, scores.values),
        ("most frequent label", {"accuracy": scores.most_frequent}),
    ]
    rows += [(f"published: {row.title}", row.values) for row in find_published(scores.statements.kind)]
    columns = list(scores.values)
    cells = [(name, [format_percent(values.get(column)) for column in columns]) for name, values in rows]
    return Table(columns, cells, has_rule=False)


def confusion_table(scores: EntailmentScores) -> Table:
    """Statements of a row's label that were given a column's."""
    cells = [
        (name, [f"{count:,}" for count in counts])
        for name, counts in zip(scores.labels, scores.confusion.tolist(), strict=True)
    ]
    least = 1 + max(7, *map(len, scores.labels))
    return Table(scores.labels, cells, has_rule=False, column_gap=1, min_width=least, heading_suffix="  predicted")


def notes_of(scores: EntailmentScores) -> list[str]:
    """Remarks on the figures: what was left out, and where others are."""
    statements = scores.statements
    total, rows = len(statements.rows), statements.benchmark.entry_report
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
            {"model": row.label, "values": row.values, "source": row.source} for row in find_published(statements.kind)
        ],
        "rows": statements.benchmark.entry_report.as_dict(),
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
