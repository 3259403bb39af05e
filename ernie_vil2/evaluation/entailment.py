"""Statements with labels, scored: accuracy, consistency, confusion; and what a published data set should hold."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkText, Collector
from ernie_vil2.data.readers import ShardedSource
from ernie_vil2.data.readers.entailment import NLVR2, SNLI_VE, StatementRow, StatementSource, published_subsets
from ernie_vil2.data.samples import BadSample, BadSampleReport, Reason, first_names
from ernie_vil2.evaluation.check import Inspection, decode_all
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.io.terminal import counted

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
        raise ValueError(f"{folder}: neither {SNLI_VE.files} nor {NLVR2.files} are here")
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
    for row in source.rows():
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
    benchmark = collector.benchmark(f"{source.kind}-{split}", source.files)
    subsets = published_subsets(path) if source.kind == NLVR2.name else {}
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


def score_statements(statements: Statements, encoded: EncodedBenchmark, classify: Classify) -> EntailmentScores:
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
        raise ValueError(f"{statements.name}: no statement could be scored\n{encoded.problems}")
    sides = zip(*([position[image.id] for image in row.images] for row in rows), strict=True)
    images = [encoded.images[list(side)] for side in sides]
    logits = classify(images, encoded.texts[[text_position[row.text] for row in rows]])
    if not np.isfinite(logits).all():
        raise ValueError(f"{statements.name}: logits are NaN or infinite")
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return EntailmentScores(statements, rows, weights / weights.sum(axis=1, keepdims=True), encoded.problems)


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
        rows, files = statements.benchmark.rows, decode_all(statements.benchmark.images, progress)
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
        f"images of {split} that occur in train: {first_names(len(shared), shared[: BadSampleReport.NAMES])}"
        for split, origins in used.items()
        if (shared := sorted(origins & train))
    ]
