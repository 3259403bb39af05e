"""Zero-shot classification: images answered by the prompts of classes, and a linear probe next to it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ernie_vil2.config import Config, ConfigError, ScoredConfig
from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.readers.labelled import LABEL, open_labelled
from ernie_vil2.data.source_files import list_image_files
from ernie_vil2.data.spec import TRAIN, DataSpec, option
from ernie_vil2.device.extras import require
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.evaluation.check import Inspection, check_labelled, find_class_remarks
from ernie_vil2.evaluation.classification import (
    COLUMNS,
    DEFINITION,
    MIN_CLASSES_FOR_ACC5,
    ClassScores,
    EncodedClasses,
    assemble_classes,
    choose_templates,
    describe_templates,
    make_prompt_benchmark,
)
from ernie_vil2.evaluation.classification_page import make_classification_page
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.examples import Thumbnails
from ernie_vil2.evaluation.linear_probe import score_linear_probe
from ernie_vil2.evaluation.outcomes import Outcomes
from ernie_vil2.evaluation.report import Report
from ernie_vil2.evaluation.scorer import ProgressBar, Scorer, ScorerInput
from ernie_vil2.io.terminal import counted
from ernie_vil2.pages import Answer, Card, Table, format_percent

CSV_COLUMNS = ("result", "image_id", "labels", "answer", "answer_name", "probability", "score", "rank", "right")
TRAINING = "the training part"
CALIBRATED = "calibrated"
Results = Mapping[str, ClassScores]
"""By the label that each has in the table."""


class LabelledImages(NamedTuple):
    """Images with the classes as texts, and the prompt templates by language."""

    benchmark: Benchmark
    templates: Mapping[str, Sequence[str]]


@dataclass
class ZeroShot(Scorer):
    """Scores a dual encoder on classes: by acc1, the mean over languages, or mAP where images have several classes.

    The fields are options of commands, by their descriptions; `names` and `templates` are files by language. A
    `linear_probe` of no data is trained on the train split of what is scored; None: there is no probe. With the
    `threshold` `CALIBRATED` a model must have a calibration; with None it need not.
    """

    label: str = option(LABEL, "column or field of the classes; default: label", "FIELD")
    names: Mapping[str, str] = option(
        {}, "of the classes: one per line, label<TAB>name, JSON; default: label_cn.txt, else labels", "LANG=FILE"
    )
    templates: Mapping[str, str] = option(
        {}, "texts with {} for the name, one per line, or JSON; default: our own in zh and en", "LANG=FILE"
    )
    linear_probe: Sequence[str] | None = option(
        None, "also a logistic regression on embeddings of these; default: --data's train split", "PATH"
    )
    threshold: float | str | None = option(
        None, "below it an image gets no answer; default: that of tools/calibrate.py, if it was run", "COSINE"
    )
    folder: ClassVar[str] = "classification"

    @classmethod
    def from_config(cls, config: Config, scored: ScoredConfig | None, default: str) -> tuple[Scorer, DataSpec | None]:
        """Return the scorer and the data of `Evaluation.classes`."""
        classes = config.Evaluation.classes
        if classes is None:
            raise ConfigError("Evaluation.evaluators: classification scores Evaluation.classes, which names no images")
        scorer = cls(label=classes.label, names=classes.names, templates=classes.templates)
        return scorer, DataSpec(classes.data, split=classes.split, images=classes.images, default_split=default)

    @classmethod
    def recognises(cls, path: Path, layout: str | None) -> bool:
        return layout == "" and any(map(list_image_files, path.glob("[!.]*/")))

    def open(self, data: DataSpec) -> ScorerInput:
        """Open the images with all prompts, and the training part of a probe."""
        labelled = self._open(data)
        templates = choose_templates(labelled, self.templates)
        images = labelled.pairs[:, 0]
        has_several_classes = len(np.unique(images)) < len(images)
        benchmarks = {"": make_prompt_benchmark(labelled, templates)}
        if self.linear_probe is not None:
            require("a linear probe", "sklearn")
            # Class folders have a train split; without one, nobody wants to train on what is scored.
            split = None if self.linear_probe else TRAIN
            paths = self.linear_probe or data.paths
            benchmarks[TRAINING] = self._open(replace(data, paths=paths, split=split, default_split=TRAIN))
        best_by = "mAP" if has_several_classes else "acc1"
        return ScorerInput(data, benchmarks, LabelledImages(labelled, templates), best_by)

    def _open(self, data: DataSpec) -> Benchmark:
        return open_labelled(data, dict(self.names), label=self.label)

    def describe_sizes(self, opened: ScorerInput) -> dict[str, str]:
        labelled, templates = opened.context
        sizes = f"{counted(len(labelled.images), 'image')}, {counted(len(labelled.texts), 'class', 'classes')}"
        return {labelled.name: f"{sizes}, named in {' and '.join(templates)}"}

    def check(self, opened: ScorerInput, model: ErnieViL2, name: str) -> None:
        """Raise ValueError if the threshold is that of a calibration, and the model has none."""
        if self.threshold == CALIBRATED and model.calibration is None:
            raise ValueError(f"{name} has no calibration: run ernie-vil2 calibrate, or give a number")

    def score(self, opened: ScorerInput, encoded: Mapping[str, EncodedBenchmark], model: ErnieViL2) -> Report:
        """Score the figures of `ClassScores` by language, `zh/acc1`, and their mean, `acc1` or `mAP`."""
        labelled, templates = opened.context
        best_by = opened.best_by or "acc1"
        classes = assemble_classes(labelled, templates, encoded[""])
        calibration = model.calibration
        by_language = classes.score_classes(calibration.logit_scale if calibration else model.logit_scale)
        results = {f"zero-shot, {language}": one for language, one in by_language.items()}
        notes = self._notes(opened.context, classes, results, model)
        if TRAINING in encoded:
            results["linear probe"], lines = score_linear_probe(classes, encoded[TRAINING])
            notes += lines
        metrics = {
            f"{language}/{name}": value for language, one in by_language.items() for name, value in one.metrics.items()
        }
        metrics[best_by] = fmean(metrics[f"{language}/{best_by}"] for language in by_language)
        table = figures_table(results)
        return Report(
            metrics,
            [table],
            record(classes, results, notes),
            CSV_COLUMNS,
            answers(classes, results),
            best_by=best_by,
            progress_metrics=[name for name in metrics if name.rpartition("/")[2] == best_by],
            sizes=f"{len(classes.benchmark.images):,} images, {len(classes.benchmark.texts):,} classes",
            notes=notes,
            paragraphs=["\n".join(notes), DEFINITION],
            settings={"templates": {language: list(own) for language, own in templates.items()}},
            make_pages=lambda: [make_classification_page(classes, results, table, notes)],
            make_outcomes=lambda: {label: outcomes(classes, one) for label, one in results.items()},
        )

    def _notes(
        self, labelled: LabelledImages, classes: EncodedClasses, results: Results, model: ErnieViL2
    ) -> list[str]:
        """Return what a person should know of templates, data and threshold."""
        reports = (("entries", labelled.benchmark.entry_report), ("images", classes.bad_samples))
        notes = [
            *describe_templates(labelled.templates, self.templates),
            *find_class_remarks(labelled.benchmark),
            *(f"{what}: {report}" for what, report in reports if report.counts or report.remarks),
        ]
        least, calibration = self.threshold, model.calibration
        if calibration and (least is None or least == CALIBRATED):
            least = calibration.thresholds["image_to_text"].cosine
            notes.append(calibration.described("image_to_text"))
        if least is not None and not isinstance(least, str):
            for label, scores in results.items():
                figures = ", ".join(f"{name} {value:.1f} %" for name, value in scores.threshold_metrics(least).items())
                notes.append(f"{label}, cosines of {least:.3f} or more: {figures}")
        return notes

    def inspect(self, data: DataSpec, bar: ProgressBar) -> Inspection:
        """Read the data, and report what can be used, and images that are there several times."""
        labelled, _ = self.open(data).context
        with bar(len(labelled.images)) as progress:
            return check_labelled(labelled, progress)


def outcomes(encoded: EncodedClasses, scores: ClassScores) -> Outcomes:
    """What each image was answered; of several classes any counts, as mAP is not a mean over images."""
    images, thumbnails = encoded.benchmark.images, Thumbnails()
    found = {"acc1": 100.0 * (scores.rank <= 1)}
    if len(scores.names) >= MIN_CLASSES_FOR_ACC5:
        found["acc5"] = 100.0 * (scores.rank <= 5)
    groups = {}
    if not scores.is_multi_label:
        found["mean_per_class_recall"] = found["acc1"]
        groups["mean_per_class_recall"] = scores.truth.argmax(axis=1)

    def cards(chosen: Sequence[int]) -> list[Card]:
        made = []
        for row in chosen:
            best = np.argsort(-scores.scores[row], kind="stable")[:4].tolist()
            answers = [
                Answer(scores.names[column], float(scores.probabilities[row, column]), bool(scores.truth[row, column]))
                for column in best
            ]
            made.append(Card(images[row].id, answers, thumbnails(images[row]), [f"rank {scores.rank[row]:,}"]))
        return made

    return Outcomes(
        query_ids=[image.id for image in images],
        figures=found,
        main_figure="acc1",
        clusters=np.arange(len(images)),
        ranks=scores.rank,
        groups=groups,
        fields=[image.fields for image in images],
        make_cards=cards,
    )


def figures_table(results: Results) -> Table:
    """Figures by label, and chance below them, without the columns that none has."""
    rows = [(label, scores.metrics) for label, scores in results.items()]
    if chance := next(iter(results.values())).chance:
        rows.append(("chance", chance))
    columns = [name for name in COLUMNS if any(name in figures for _, figures in rows)]
    cells = [(label, [format_percent(figures.get(name)) for name in columns]) for label, figures in rows]
    return Table([name.replace("_", " ") for name in columns], cells, kind="figures", column_gap=4)


def record(encoded: EncodedClasses, results: Results, notes: Sequence[str]) -> dict[str, Any]:
    """Figures of all results and of every class, for JSON."""
    benchmark, first = encoded.benchmark, next(iter(results.values()))
    return {
        "definition": DEFINITION,
        "images": len(benchmark.images),
        "results": {label: scores.metrics for label, scores in results.items()},
        "chance": first.chance,
        "classes": [
            {
                "label": one.id,
                "names": dict(one.fields),
                "images": int(first.counts[row]),
                "percent": {
                    label: None if np.isnan(scores.class_metrics[row]) else 100 * float(scores.class_metrics[row])
                    for label, scores in results.items()
                },
            }
            for row, one in enumerate(benchmark.texts)
        ],
        "notes": list(notes),
        "rows": benchmark.entry_report.as_dict(),
        "encoded": encoded.bad_samples.as_dict(),
    }


def answers(encoded: EncodedClasses, results: Results) -> Iterator[list]:
    """For each image and result a row of `CSV_COLUMNS`: its classes and the first answer."""
    images, labels = encoded.benchmark.images, [one.id for one in encoded.benchmark.texts]
    for result, scores in results.items():
        for row, (image, answer) in enumerate(zip(images, scores.answers.tolist(), strict=True)):
            own = "|".join(labels[column] for column in np.flatnonzero(scores.truth[row]))
            numbers = (scores.probabilities[row, answer], scores.scores[row, answer], scores.rank[row])
            right = int(scores.truth[row, answer])
            yield [result, image.id, own, labels[answer], scores.names[answer], *numbers, right]
