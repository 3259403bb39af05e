"""Visual entailment (SNLI-VE) and NLVR2: labels that a model gives to statements about one image or two.

Reads statements with their labels, classifies them, reports accuracy, consistency and confusions, and compares a data
set with the published counts.
"""

from collections import Counter
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
from ernie_vil2.encoder import Encoder, ErnieViL2, Source, build_encoder, read_stored_model
from ernie_vil2.evaluation.check import Inspection, decode_all
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.examples import Thumbnails
from ernie_vil2.evaluation.outcomes import Outcomes
from ernie_vil2.evaluation.published import find_published
from ernie_vil2.evaluation.report import Page, Report, Section, wrap_lines
from ernie_vil2.evaluation.scorer import ProgressBar, Scorer, ScorerInput
from ernie_vil2.io.terminal import pluralize
from ernie_vil2.pages import Answer, Card, Table, format_percent
from ernie_vil2.section import Precision

NUM_EXAMPLES = 12  # cards of each kind on a page
# Printed with every result, since the published results can be of another split.
PAPER_NOTE = "published: Table 7 of the paper, which does not say on which split"
DEFINITION = (
    "Percent of the statements whose label is predicted; of a label and of a published subset, of its own. "
    "Consistency: percent of the sentences of which every statement is right, as the authors of NLVR2 compute it. A "
    "statement of which an image cannot be used is left out."
)

# Computes logits `[N, labels]` from embeddings `[N, D]` of the image, or of the left and right image, and the text.
Classify = Callable[[Sequence[np.ndarray], np.ndarray], np.ndarray]

# Counts that the authors publish for each data set and split: statements by label or in all, and images.
PUBLISHED_COUNTS = {
    ("snli-ve", "train"): {"entailment": 176_932, "neutral": 176_045, "contradiction": 176_550, "images": 29_783},
    ("snli-ve", "dev"): {"entailment": 5_959, "neutral": 5_960, "contradiction": 5_939, "images": 1_000},
    ("snli-ve", "test"): {"entailment": 5_973, "neutral": 5_964, "contradiction": 5_964, "images": 1_000},
    ("nlvr2", "train"): {"statements": 86_373},
    ("nlvr2", "dev"): {"statements": 6_982},
    ("nlvr2", "test1"): {"statements": 6_967},
    ("nlvr2", "test2"): {"statements": 6_970},
}


def list_splits(path: str | Path) -> list[str]:
    """Return the splits of a folder, or the split of a file.

    Raises:
        ValueError: the folder holds no split.
    """
    path = Path(path)
    if not path.is_dir():
        return [path.stem.removeprefix("snli_ve_")]
    for layout in (SNLI_VE, NLVR2):
        splits = layout.find(path)
        if splits:
            return list(splits)
    raise ValueError(f"{path}: neither {SNLI_VE.file_description} nor {NLVR2.file_description} are here")


@dataclass(frozen=True)
class Statements:
    """The usable statements of one split, in the order of the file.

    Attributes:
        kind: name of the data set, `snli-ve` or `nlvr2`.
        split: name of the split, taken from the name of its file.
        labels: labels in the order of the model's outputs.
        rows: the statements.
        benchmark: distinct images and texts of the statements, and a report of entries that cannot be used.
        subsets: ids of the rows of each published subset by its name.
    """

    kind: str
    split: str
    labels: tuple[str, ...]
    rows: Sequence[StatementRow]
    benchmark: Benchmark
    subsets: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name for people, such as `nlvr2 dev`."""
        return f"{self.kind} {self.split}"

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of statements, of statements with each label, and of distinct images."""
        label_counts = Counter(row.label for row in self.rows)
        return {
            "statements": len(self.rows),
            **{label: label_counts[label] for label in self.labels},
            "images": len(self.benchmark.images),
        }


def read_statements(sources: ShardedSource) -> Statements:
    """Read the statements of one annotation file, but not their images.

    Raises:
        ValueError: there are several files, the file holds something else, or none of its rows can be used.
    """
    source = sources.shards[0]
    if len(sources.shards) > 1 or not isinstance(source, StatementSource):
        names = ", ".join(shard.name for shard in sources.shards[:2])
        raise ValueError(f"{names}: one file of statements with labels is needed, as SNLI-VE and NLVR2 have them")
    # Equal images and texts are encoded once.
    rows, collector = [], Collector()
    for row in source.read_rows():
        # A row that raises BadSample is counted and left out.
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
    """Predictions for the N statements whose images can all be used.

    Attributes:
        statements: all statements of the split.
        rows: the N statements.
        probabilities: `[N, labels]` float32.
        bad_samples: number of images that were read, and the images that could not be used.
    """

    statements: Statements
    rows: Sequence[StatementRow]
    probabilities: np.ndarray
    bad_samples: BadSampleReport

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the order of the columns of `probabilities`."""
        return self.statements.labels

    @cached_property
    def truth(self) -> np.ndarray:
        """Column of each statement's label, `[N]` int64."""
        return np.array([self.labels.index(row.label) for row in self.rows], np.int64)

    @cached_property
    def predictions(self) -> np.ndarray:
        """Column of the most probable label, `[N]` int64."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def true_probabilities(self) -> np.ndarray:
        """Probability of each statement's label, `[N]`."""
        return self.probabilities[np.arange(len(self.rows)), self.truth]

    @property
    def confusion(self) -> np.ndarray:
        """Number of statements with a label (row) by predicted label (column), `[labels, labels]` int64."""
        confusion = np.zeros([len(self.labels)] * 2, np.int64)
        # Unlike +=, this counts an index as often as it occurs.
        np.add.at(confusion, (self.truth, self.predictions), 1)
        return confusion

    @property
    def metrics(self) -> dict[str, float]:
        """`accuracy`, `accuracy/<label>` and, for NLVR2, `consistency` in percent; both also for published subsets.

        Consistency is the share of sentences all of whose statements are right.
        """
        is_right = self.predictions == self.truth
        # A label or subset without a statement has no metric: its percent is None.
        metrics = {"accuracy": _percent(is_right)}
        for number, label in enumerate(self.labels):
            metrics[f"accuracy/{label}"] = _percent(is_right[self.truth == number])
        if self.statements.kind == NLVR2.name:
            metrics["consistency"] = self._compute_consistency(is_right, np.ones(len(is_right), bool))
        for name, ids in self.statements.subsets.items():
            is_selected = np.array([row.id in ids for row in self.rows], bool)
            metrics[f"accuracy/{name}"] = _percent(is_right[is_selected])
            metrics[f"consistency/{name}"] = self._compute_consistency(is_right, is_selected)
        return {name: value for name, value in metrics.items() if value is not None}

    @property
    def majority_accuracy(self) -> float:
        """Accuracy in percent of always predicting the most frequent label."""
        return 100 * float(np.bincount(self.truth, minlength=1).max()) / len(self.rows)

    def _compute_consistency(self, is_right: np.ndarray, is_selected: np.ndarray) -> float | None:
        """Return the consistency of the selected statements in percent, as the authors' `metrics.py` computes it."""
        is_group_right: dict[str, bool] = {}
        for number in np.flatnonzero(is_selected).tolist():
            group = self.rows[number].group
            is_group_right[group] = is_group_right.get(group, True) and bool(is_right[number])
        return _percent(np.array(list(is_group_right.values()), bool))


def _percent(is_right: np.ndarray) -> float | None:
    return 100 * float(is_right.mean()) if len(is_right) else None


def classify_statements(statements: Statements, encoded: EncodedBenchmark, classify: Classify) -> EntailmentScores:
    """Classify every statement whose images can all be used.

    Args:
        statements: statements of a split.
        encoded: embeddings of `statements.benchmark`.
        classify: computes logits from embeddings.

    Raises:
        ValueError: no statement can be used, or a logit is not finite.
    """
    # A text is its own id, see `read_statements`.
    image_rows, text_rows = encoded.index_rows("image"), encoded.index_rows("text")
    rows = [row for row in statements.rows if all(image.id in image_rows for image in row.images)]
    if not rows:
        raise ValueError(f"{statements.name}: no statement could be scored\n{encoded.bad_samples}")

    # All rows of a data set have one image, or all have a left and a right one.
    image_embeddings = []
    for side in range(len(rows[0].images)):
        image_embeddings.append(encoded.image_embeddings[[image_rows[row.images[side].id] for row in rows]])
    text_embeddings = encoded.text_embeddings[[text_rows[row.text] for row in rows]]
    logits = classify(image_embeddings, text_embeddings)
    if not np.isfinite(logits).all():
        raise ValueError(f"{statements.name}: logits are NaN or infinite")
    # Softmax: the largest logit of a row becomes 0, so that no exponential overflows.
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return EntailmentScores(statements, rows, weights / weights.sum(axis=1, keepdims=True), encoded.bad_samples)


def check_statements(splits: Sequence[Statements], progress: Callable[[int], object]) -> Inspection:
    """Read and decode every image of the splits of a data set, and compare the counts with the published ones.

    The result is good if every row with a gold label and every image can be used, the counts are the published ones,
    and no split shares an image with train.

    Args:
        splits: statements of each split.
        progress: called with the number of images just finished.
    """
    lines, differences = [], []
    is_good = True
    for statements in splits:
        counts = statements.counts
        details = ", ".join(f"{name} {count:,}" for name, count in counts.items() if name != "statements")
        lines.append(f"{statements.name}: {pluralize(counts['statements'], 'statement')} ({details})")
        lines += [f"  {name}: {pluralize(len(ids), 'statement')}" for name, ids in statements.subsets.items()]

        bad_rows = statements.benchmark.entry_report
        bad_images = decode_all(statements.benchmark.images, progress)
        lines += [f"rows: {bad_rows}", f"images: {bad_images}"]
        # SNLI-VE has rows without a gold label, which are no fault; the published counts are without them.
        if bad_rows.counts.keys() - {Reason.NO_GOLD_LABEL} or bad_images.counts:
            is_good = False

        published_counts = PUBLISHED_COUNTS.get((statements.kind, statements.split), {})
        for name, published in published_counts.items():
            if counts[name] != published:
                differences.append(
                    f"{statements.name} has {published:,} {name} as published; here are {counts[name]:,}"
                )
    differences += _find_leaks(splits)
    return Inspection("\n".join([*lines, *differences]), is_good and not differences)


def _find_leaks(splits: Sequence[Statements]) -> list[str]:
    """Return a sentence for each split that shares images with train, by their addresses or else by their ids."""
    origins_by_split: dict[str, set[str]] = {}
    for statements in splits:
        origins = origins_by_split.setdefault(statements.split, set())
        for row in statements.rows:
            origins.update(row.origins or [image.id for image in row.images])
    train_origins = origins_by_split.pop("train", set())
    sentences = []
    for split, origins in origins_by_split.items():
        shared = sorted(origins & train_origins)
        if shared:
            names = format_names(len(shared), shared[: BadSampleReport.MAX_NAMES])
            sentences.append(f"images of {split} that occur in train: {names}")
    return sentences


def load_classifier(
    source: Source,
    vocab: Source | None = None,
    device: str | None = None,
    batch_size: int = 64,
    precision: Precision = "float32",
) -> ErnieViL2:
    """Load a model that was trained to label statements.

    Its `labels` are in the order of the columns of `backend.model.compute_label_logits`.

    Args:
        source: run folder, or a checkpoint of a run; for this and the other arguments see `load_model`.
        vocab: vocabulary.
        device: device of the model.
        batch_size: rows that are encoded at once.
        precision: precision of the computation.

    Raises:
        FileNotFoundError: see `load_model`.
        ValueError: see `load_model`; or the model was trained for another task.
    """
    stored = read_stored_model(source, vocab, device, precision)
    # Paddle is imported only when a model is loaded.
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
    encoder = build_encoder(model, stored, config, precision, batch_size)
    encoder.labels = task.labels
    return encoder


@dataclass
class Entailment(Scorer):
    """Scores a model that was trained on the statements of SNLI-VE; the best checkpoint has the best accuracy.

    Attributes:
        title: name of the model in the table.
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

    def describe_sizes(self, inputs: ScorerInput) -> dict[str, str]:
        statements: Statements = inputs.context
        counts = statements.counts
        sizes = f"{pluralize(counts['statements'], 'statement')}, {pluralize(counts['images'], 'image')}"
        return {statements.name: sizes}

    def check(self, inputs: ScorerInput, model: Encoder, name: str) -> None:
        """Raise ValueError if the model was trained on other labels."""
        statements: Statements = inputs.context
        if statements.labels != model.labels:
            raise ValueError(
                f"{name} predicts {', '.join(model.labels) or 'no labels'}; the labels of {statements.name} are "
                f"{', '.join(statements.labels)}"
            )

    def score(self, inputs: ScorerInput, encoded: Mapping[str, EncodedBenchmark], model: Encoder) -> Report:
        """Report `EntailmentScores.metrics`."""
        classifier: Any = model  # `check` has made sure that its backend has an `EntailmentClassifier`
        scores = classify_statements(inputs.context, encoded[""], classifier.backend.model.compute_label_logits)
        notes = make_notes(scores)
        table = make_accuracy_table(self.title, scores)
        return Report(
            scores.metrics,
            tables=[table, make_confusion_table(scores)],
            record=make_record(scores),
            csv_columns=["id", "predicted", "label", *(f"probability of {label}" for label in scores.labels), "text"],
            csv_rows=list_predictions(scores),
            best_by=self.best_by,
            sizes=None,
            notes=notes,
            paragraphs=[wrap_lines(notes)],
            make_pages=lambda: [make_page(scores, table, notes)],
            make_outcomes=lambda: {"": make_outcomes(scores)},
        )

    def file_name_parts(self, inputs: ScorerInput) -> list[str]:
        """Return the split, by the name of its file."""
        return [inputs.context.split]

    def inspect(self, data: DataSpec, bar: ProgressBar) -> Inspection:
        """Read every split, and compare it with the published counts and with train."""
        names = [data.split] if data.split else list_splits(data.paths[0])
        splits = [read_statements(open_sources(data, split=name)) for name in names]
        with bar(sum(len(statements.benchmark.images) for statements in splits)) as progress:
            return check_statements(splits, progress)


@dataclass
class Nlvr2(Entailment):
    """Scores a model that was trained on the statements of NLVR2, like `Entailment`."""

    layout: ClassVar[str] = NLVR2.name


def make_outcomes(scores: EntailmentScores) -> Outcomes:
    """Return the outcomes of the statements; statements of an image, or of a sentence in NLVR2, form a cluster."""
    right_percent = np.where(scores.predictions == scores.truth, 100.0, 0.0)
    outcomes = {"accuracy": right_percent}
    for number, label in enumerate(scores.labels):
        outcomes[f"accuracy/{label}"] = np.where(scores.truth == number, right_percent, np.nan)
    # NLVR2 has groups of rows with one sentence; in SNLI-VE an image has several statements.
    cluster_names = [row.group or row.images[0].id for row in scores.rows]
    _, first_rows, clusters = np.unique(cluster_names, return_index=True, return_inverse=True)
    if any(row.group for row in scores.rows):
        # A sentence counts once, by its first statement, and is right if all of its statements are.
        sentence_percent = np.full(len(first_rows), 100.0)
        np.minimum.at(sentence_percent, clusters, right_percent)
        outcomes["consistency"] = np.full(len(right_percent), np.nan)
        outcomes["consistency"][first_rows] = sentence_percent

    thumbnails = Thumbnails()
    return Outcomes(
        query_ids=[row.id for row in scores.rows],
        figures={name: values for name, values in outcomes.items() if not np.isnan(values).all()},
        main_figure="accuracy",
        clusters=clusters,
        ranks=1 + (scores.probabilities > scores.true_probabilities[:, None]).sum(axis=1),
        texts=[row.text for row in scores.rows],
        fields=[{"label": row.label} for row in scores.rows],
        make_cards=lambda numbers: [_make_card(scores, number, thumbnails) for number in numbers],
    )


def make_accuracy_table(title: str, scores: EntailmentScores) -> Table:
    """Make a table of the model, of always predicting the most frequent label, and of published results."""
    rows: list[tuple[str, Mapping[str, Any]]] = [
        (title, scores.metrics),
        ("most frequent label", {"accuracy": scores.majority_accuracy}),
    ]
    for result in find_published(scores.statements.kind):
        rows.append((f"published: {result.title}", result.values))
    columns = list(scores.metrics)
    cells = []
    for label, values in rows:
        cells.append((label, [format_percent(values.get(column)) for column in columns]))
    return Table(columns, cells, has_rule=False)


def make_confusion_table(scores: EntailmentScores) -> Table:
    """Make a table of the number of statements with a label (row) by predicted label (column)."""
    cells = []
    for label, counts in zip(scores.labels, scores.confusion.tolist(), strict=True):
        cells.append((label, [f"{count:,}" for count in counts]))
    # All columns are as wide as the longest label, or as a count such as 176,932.
    min_width = 1 + max(7, *map(len, scores.labels))
    return Table(scores.labels, cells, has_rule=False, column_gap=1, min_width=min_width, heading_suffix="  predicted")


def make_notes(scores: EntailmentScores) -> list[str]:
    """Return sentences on statements that were left out, on the published results, and on the definition."""
    statements = scores.statements
    notes = [f"{statements.name}: {len(scores.rows):,} of {pluralize(len(statements.rows), 'statement')} scored"]
    if statements.benchmark.entry_report.counts:
        notes.append(f"rows: {statements.benchmark.entry_report}")
    if scores.bad_samples.counts:
        notes.append(f"images: {scores.bad_samples}")
    return [*notes, PAPER_NOTE, DEFINITION]


def make_record(scores: EntailmentScores) -> dict[str, Any]:
    """Return metrics, confusion and published results for JSON."""
    statements = scores.statements
    published = []
    for result in find_published(statements.kind):
        published.append({"model": result.label, "values": result.values, "source": result.source})
    return {
        "benchmark": {"kind": statements.kind, "split": statements.split, **statements.counts},
        "scored": len(scores.rows),
        "values": scores.metrics,
        "labels": scores.labels,
        "confusion": scores.confusion.tolist(),
        "most_frequent": scores.majority_accuracy,
        "published": published,
        "rows": statements.benchmark.entry_report.as_dict(),
        "images": scores.bad_samples.as_dict(),
        "definition": DEFINITION,
    }


def list_predictions(scores: EntailmentScores) -> Iterator[list[str]]:
    """Yield the CSV row of each statement; NLVR2's `metrics.py` reads the first two columns."""
    for row, prediction, probabilities in zip(scores.rows, scores.predictions, scores.probabilities, strict=True):
        cells = [f"{probability:.6f}" for probability in probabilities.tolist()]
        yield [row.id, scores.labels[prediction], row.label, *cells, row.text]


def make_page(scores: EntailmentScores, table: Table, notes: list[str]) -> Page:
    """Make the page with the tables and the most confident wrong and right answers."""
    is_right = scores.predictions == scores.truth
    # Order by the probability of the right label: the most confident errors come first, the most confident hits last.
    order = np.argsort(scores.true_probabilities, kind="stable")
    errors = order[~is_right[order]].tolist()
    hits = order[is_right[order]][::-1].tolist()
    intro = "Statements of a row's label that were given a column's."
    sections = [
        Section("Labels", tables=[table], notes=notes),
        Section("Confusion", intro, [make_confusion_table(scores)]),
    ]
    thumbnails = Thumbnails()
    for heading, rows in (("Most confident wrong answers", errors), ("Most confident right answers", hits)):
        cards = [_make_card(scores, row, thumbnails) for row in rows[:NUM_EXAMPLES]]
        sections.append(Section(heading, cards=cards))
    summary = f"{100 * is_right.mean():.2f} % of {len(scores.rows):,} statements are labelled correctly."
    return Page({"Statements": f"{len(scores.rows):,}"}, sections, data={"summary": summary})


def _make_card(scores: EntailmentScores, number: int, thumbnails: Thumbnails) -> Card:
    """Make the card of a statement, with its images and the probability of each label."""
    row = scores.rows[number]
    answers = []
    for label, probability in zip(scores.labels, scores.probabilities[number].tolist(), strict=True):
        answers.append(Answer(label, probability, label == row.label))
    return Card(row.text, answers, thumbnails(*row.images), [row.id])
