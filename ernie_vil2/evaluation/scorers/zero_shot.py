"""Zero-shot classification: images are answered by the prompts of classes; a linear probe for comparison."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from ernie_vil2.config import Config, ConfigError, EvaluationDataConfig
from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.readers.labelled import LABEL, open_labelled
from ernie_vil2.data.source_files import list_image_files
from ernie_vil2.data.spec import TRAIN, DataSpec, option
from ernie_vil2.device.extras import require
from ernie_vil2.encoder import Encoder
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
    has_several_labels,
    make_prompt_benchmark,
)
from ernie_vil2.evaluation.classification_page import make_classification_page
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.examples import Thumbnails
from ernie_vil2.evaluation.linear_probe import score_linear_probe
from ernie_vil2.evaluation.outcomes import Outcomes
from ernie_vil2.evaluation.report import Report
from ernie_vil2.evaluation.scorer import ProgressBar, Scorer, ScorerInput
from ernie_vil2.io.terminal import pluralize
from ernie_vil2.pages import Answer, Card, Table, format_percent

CSV_COLUMNS = ("result", "image_id", "labels", "answer", "answer_name", "probability", "score", "rank", "right")
TRAINING = "the training part"  # name of the benchmark that a linear probe is trained on, in progress bars too
CALIBRATED = "calibrated"
NUM_CARD_ANSWERS = 4  # best classes on the card of an image
# Scores by their label in the table.
Results = Mapping[str, ClassScores]


class LabelledImages(NamedTuple):
    """Images with the classes as texts, and the prompt templates by language."""

    benchmark: Benchmark
    templates: Mapping[str, Sequence[str]]


@dataclass
class ZeroShot(Scorer):
    """Scores a dual encoder on classes.

    The best checkpoint has the best acc1, or mAP if images have several classes, on average over the languages of the
    class names. The fields are options of commands, where they are described. `names` and `templates` are files by
    language. An empty `linear_probe` is trained on the train split of the scored data; None: there is no probe. With
    `threshold` `CALIBRATED` the model must have a calibration; with None it need not.
    """

    label: str = option(LABEL, "column or field that holds the class; default: label", "FIELD")
    names: Mapping[str, str] = option(
        {},
        "names of the classes: one per line, label<TAB>name, or JSON; default: label_cn.txt, else the labels",
        "LANG=FILE",
    )
    templates: Mapping[str, str] = option(
        {}, "prompts with {} for the name, one per line, or JSON; default: our own in zh and en", "LANG=FILE"
    )
    linear_probe: Sequence[str] | None = option(
        None,
        "also train a logistic regression on the embeddings of these data; default: the train split of --data",
        "PATH",
    )
    threshold: float | Literal["calibrated"] | None = option(
        None,
        "images that score below this cosine stay unclassified; default: that of the calibration, if there is one",
        "COSINE",
    )
    folder: ClassVar[str] = "classification"

    @classmethod
    def from_config(
        cls, config: Config, scored: EvaluationDataConfig | None, default_split: str
    ) -> tuple[Scorer, DataSpec | None]:
        """Return the scorer and the data of `Evaluation.classes`."""
        classes = config.Evaluation.classes
        if classes is None:
            raise ConfigError("Evaluation.evaluators: zero_shot scores Evaluation.classes, which names no images")
        scorer = cls(label=classes.label, names=classes.names, templates=classes.templates)
        data = DataSpec(classes.data, split=classes.split, images=classes.images, default_split=default_split)
        return scorer, data

    @classmethod
    def recognises(cls, path: Path, layout: str | None) -> bool:
        if layout != "":
            return False
        return any(list_image_files(folder) for folder in path.glob("[!.]*/"))

    def open(self, data: DataSpec) -> ScorerInput:
        """Open the images with all prompts, and the training data of a probe."""
        labelled = self._open_labelled(data)
        templates = choose_templates(labelled, self.templates)
        benchmarks = {"": make_prompt_benchmark(labelled, templates)}
        if self.linear_probe is not None:
            require("a linear probe", "sklearn")
            training_data = replace(data, paths=self.linear_probe or data.paths, split=None, default_split=TRAIN)
            if not self.linear_probe:
                # Class folders may lack a train split. Naming it is then an error, instead of training on test data.
                training_data = replace(training_data, split=TRAIN)
            benchmarks[TRAINING] = self._open_labelled(training_data)
        best_by = "mAP" if has_several_labels(labelled) else "acc1"
        return ScorerInput(data, benchmarks, LabelledImages(labelled, templates), best_by)

    def _open_labelled(self, data: DataSpec) -> Benchmark:
        return open_labelled(data, dict(self.names), label=self.label)

    def describe_sizes(self, inputs: ScorerInput) -> dict[str, str]:
        labelled, templates = inputs.context
        sizes = f"{pluralize(len(labelled.images), 'image')}, {pluralize(len(labelled.texts), 'class', 'classes')}"
        return {labelled.name: f"{sizes}, named in {' and '.join(templates)}"}

    def check(self, inputs: ScorerInput, model: Encoder, name: str) -> None:
        """Raise ValueError if the threshold is that of a calibration, and the model has none."""
        if self.threshold == CALIBRATED and model.calibration is None:
            raise ValueError(f"{name} has no calibration: run ernie-vil2 calibrate, or give a number")

    def score(self, inputs: ScorerInput, encoded: Mapping[str, EncodedBenchmark], model: Encoder) -> Report:
        """Report the metrics of `ClassScores` by language, such as `zh/acc1`, and the mean of `acc1` or `mAP`."""
        labelled, templates = inputs.context
        best_by = inputs.best_by or "acc1"
        classes = assemble_classes(labelled, templates, encoded[""])
        calibration = model.calibration
        # A calibrated model says how sure it is by the scale of its calibration.
        scores_by_language = classes.score_classes(calibration.logit_scale if calibration else model.logit_scale)

        metrics = {}
        results: dict[str, ClassScores] = {}
        for language, scores in scores_by_language.items():
            results[f"zero-shot, {language}"] = scores
            for name, value in scores.metrics.items():
                metrics[f"{language}/{name}"] = value
        # The mean over the languages chooses the best checkpoint.
        metrics[best_by] = fmean(metrics[f"{language}/{best_by}"] for language in scores_by_language)
        notes = self._make_notes(inputs.context, classes, results, model)
        if TRAINING in encoded:
            results["linear probe"], probe_notes = score_linear_probe(classes, encoded[TRAINING])
            notes += probe_notes

        table = make_metrics_table(results)
        return Report(
            metrics,
            tables=[table],
            record=make_record(classes, results, notes),
            csv_columns=CSV_COLUMNS,
            csv_rows=list_answers(classes, results),
            best_by=best_by,
            progress_metrics=[name for name in metrics if name.rpartition("/")[2] == best_by],
            sizes=f"{len(classes.benchmark.images):,} images, {len(classes.benchmark.texts):,} classes",
            notes=notes,
            paragraphs=["\n".join(notes), DEFINITION],
            settings={"templates": {language: list(texts) for language, texts in templates.items()}},
            make_pages=lambda: [make_classification_page(classes, results, table, notes)],
            make_outcomes=lambda: {label: make_outcomes(classes, scores) for label, scores in results.items()},
        )

    def _make_notes(
        self, labelled: LabelledImages, classes: EncodedClasses, results: Results, model: Encoder
    ) -> list[str]:
        """Return what a person should know about templates, data and threshold."""
        notes = describe_templates(labelled.templates, self.templates)
        notes += find_class_remarks(labelled.benchmark)
        for name, bad_samples in (("entries", labelled.benchmark.entry_report), ("images", classes.bad_samples)):
            if bad_samples.counts or bad_samples.remarks:
                notes.append(f"{name}: {bad_samples}")

        # A number that the user gives takes precedence over the calibration.
        threshold, calibration = self.threshold, model.calibration
        if calibration and threshold in (None, CALIBRATED):
            threshold = calibration.thresholds["image_to_text"].cosine
            notes.append(calibration.describe("image_to_text"))
        if isinstance(threshold, (int, float)):
            for label, scores in results.items():
                metrics = [f"{name} {value:.1f} %" for name, value in scores.threshold_metrics(threshold).items()]
                notes.append(f"{label}, cosines of {threshold:.3f} or more: {', '.join(metrics)}")
        return notes

    def inspect(self, data: DataSpec, bar: ProgressBar) -> Inspection:
        """Read the data, and report what can be used and which images occur several times."""
        labelled, _ = self.open(data).context
        with bar(len(labelled.images)) as progress:
            return check_labelled(labelled, progress)


def make_outcomes(encoded: EncodedClasses, scores: ClassScores) -> Outcomes:
    """Return the outcomes of the images.

    If multi-label, a right class in front counts as a right answer: mAP is not a mean over images.
    """
    images = encoded.benchmark.images
    thumbnails = Thumbnails()
    outcomes = {"acc1": 100.0 * (scores.rank <= 1)}
    if len(scores.names) >= MIN_CLASSES_FOR_ACC5:
        outcomes["acc5"] = 100.0 * (scores.rank <= 5)
    # The mean per-class recall is a mean of means: images are grouped by class.
    groups = {}
    if not scores.is_multi_label:
        outcomes["mean_per_class_recall"] = outcomes["acc1"]
        groups["mean_per_class_recall"] = scores.truth.argmax(axis=1)

    def make_cards(rows: Sequence[int]) -> list[Card]:
        cards = []
        for row in rows:
            answers = []
            for column in np.argsort(-scores.scores[row], kind="stable")[:NUM_CARD_ANSWERS].tolist():
                probability, is_right = float(scores.probabilities[row, column]), bool(scores.truth[row, column])
                answers.append(Answer(scores.names[column], probability, is_right))
            cards.append(Card(images[row].id, answers, thumbnails(images[row]), [f"rank {scores.rank[row]:,}"]))
        return cards

    return Outcomes(
        query_ids=[image.id for image in images],
        figures=outcomes,
        main_figure="acc1",
        clusters=np.arange(len(images)),
        ranks=scores.rank,
        groups=groups,
        fields=[image.fields for image in images],
        make_cards=make_cards,
    )


def make_metrics_table(results: Results) -> Table:
    """Make a table of the metrics by label, with chance below; columns without a value are left out."""
    rows = [(label, scores.metrics) for label, scores in results.items()]
    chance = next(iter(results.values())).chance
    if chance:
        rows.append(("chance", chance))
    columns = [name for name in COLUMNS if any(name in metrics for _, metrics in rows)]
    cells = []
    for label, metrics in rows:
        cells.append((label, [format_percent(metrics.get(name)) for name in columns]))
    return Table([name.replace("_", " ") for name in columns], cells, kind="figures", column_gap=4)


def make_record(encoded: EncodedClasses, results: Results, notes: Sequence[str]) -> dict[str, Any]:
    """Return the metrics of all results and of every class for JSON."""
    benchmark = encoded.benchmark
    first_scores = next(iter(results.values()))
    classes = []
    for row, text in enumerate(benchmark.texts):
        percents: dict[str, float | None] = {}
        for label, scores in results.items():
            share = float(scores.class_metrics[row])  # NaN without an image, which JSON lacks
            percents[label] = None if np.isnan(share) else 100 * share
        classes.append(
            {
                "label": text.id,
                "names": dict(text.fields),
                "images": int(first_scores.counts[row]),
                "percent": percents,
            }
        )
    return {
        "definition": DEFINITION,
        "images": len(benchmark.images),
        "results": {label: scores.metrics for label, scores in results.items()},
        "chance": first_scores.chance,
        "classes": classes,
        "notes": list(notes),
        "rows": benchmark.entry_report.as_dict(),
        "encoded": encoded.bad_samples.as_dict(),
    }


def list_answers(encoded: EncodedClasses, results: Results) -> Iterator[list]:
    """Yield the CSV row of each result and image: the classes of the image and the best answer."""
    images = encoded.benchmark.images
    labels = [text.id for text in encoded.benchmark.texts]
    for result, scores in results.items():
        for row, (image, answer) in enumerate(zip(images, scores.answers.tolist(), strict=True)):
            yield [
                result,
                image.id,
                "|".join(labels[column] for column in np.flatnonzero(scores.truth[row])),
                labels[answer],
                scores.names[answer],
                scores.probabilities[row, answer],
                scores.scores[row, answer],
                scores.rank[row],
                int(scores.truth[row, answer]),
            ]
