"""Zero-shot classification by embeddings: prompts of classes, their scores for images, and metrics.

The definitions are those of CLIP_benchmark: the embeddings of the prompts are normalised, averaged over the templates
and normalised again; the answer to an image is the class with the highest cosine.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkText
from ernie_vil2.data.readers.labelled import read_list
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.evaluation.encoded import EncodedBenchmark

# With fewer classes acc5 is left out: it would always be 100 %.
MIN_CLASSES_FOR_ACC5 = 5
COLUMNS = ("acc1", "acc5", "mean_per_class_recall", "mAP")
DEFINITION = (
    "Every class is the mean of its prompts' normalised embeddings, normalised again; an image's answer is the class "
    "of the highest cosine, of equal ones the first. acc1 is the share of images whose answer is right, "
    f"acc5, from {MIN_CLASSES_FOR_ACC5} classes on, of those whose class is among the first five; mean per-class "
    "recall is the mean over the classes of the share of their images that are answered right. Where images have "
    "several classes, mAP is the mean over the classes of the average precision with which the cosine ranks all "
    "images. Classes without an image can be answered and count in no mean. Percent."
)
# Placeholder of the name in a template, "{}" or, as CLIP_benchmark writes it, "{c}".
SLOT = re.compile(r"\{c?\}")
# Built-in templates, a file per language.
TEMPLATE_FOLDER = Path(__file__).with_name("templates")


def read_templates(language: str, source: str | None = None) -> tuple[str, ...]:
    """Read the templates of a language.

    Args:
        language: language of built-in templates.
        source: file of templates, see `read_list`; None: the built-in ones.

    Raises:
        OSError: the file cannot be read.
        ValueError: there are no templates, or one has no slot for the name.
    """
    if source is None and not (TEMPLATE_FOLDER / f"{language}.txt").is_file():
        languages = ", ".join(sorted(path.stem for path in TEMPLATE_FOLDER.iterdir()))
        subject = f"templates in {language}" if language else "templates for names without a language"
        raise ValueError(f"there are no {subject} here, only in {languages}; give a file")
    templates = read_list(source or str(TEMPLATE_FOLDER / f"{language}.txt"))
    if isinstance(templates, dict):
        raise ValueError(f"{source}: templates are a list, not texts by label")
    for template in templates:
        if not SLOT.search(template):
            raise ValueError(f"{source}: template {template!r} has no slot; put {{}} where the name belongs")
    return tuple(templates)


def choose_templates(labelled: Benchmark, sources: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the templates for every language of the class names.

    Args:
        labelled: images with classes, as `open_labelled` returns them.
        sources: files of templates by language; other languages use the built-in templates.

    Raises:
        OSError, ValueError: see `read_templates`.
        ValueError: a file is for a language without class names.
    """
    languages = list(labelled.texts[0].fields)
    extra_languages = sources.keys() - set(languages)
    if extra_languages:
        raise ValueError(
            f"templates in {', '.join(sorted(extra_languages))}, but the names are in {', '.join(languages)}"
        )
    return {language: read_templates(language, sources.get(language)) for language in languages}


def find_repeated(templates: Sequence[str]) -> list[str]:
    """Return the templates that occur several times."""
    return [template for template, count in Counter(templates).items() if count > 1]


def describe_templates(templates_by_language: Mapping[str, Sequence[str]], files: Mapping[str, str]) -> list[str]:
    """Return lines with the number and the file of the templates of each language, and with repeated templates."""
    notes = []
    for language, templates in templates_by_language.items():
        notes.append(f"{len(templates)} templates in {language}: {files.get(language, 'our own')}")
    for language, templates in templates_by_language.items():
        # A repeated template weighs as often as it occurs, as in other implementations.
        repeated = find_repeated(templates)
        if repeated:
            notes.append(f"templates in {language} that occur several times, and count so: {', '.join(repeated)}")
    return notes


def make_prompts(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Put every class name into every template: C * T prompts, class by class."""
    prompts = []
    for name in names:
        # The template is split, so that a name may itself contain what looks like a slot.
        prompts += [name.join(SLOT.split(template)) for template in templates]
    return prompts


def compute_class_embeddings(prompt_embeddings: np.ndarray, num_templates: int) -> np.ndarray:
    """Normalise the prompts, average them by class and normalise again, as in CLIP_benchmark and open_clip.

    Args:
        prompt_embeddings: `[C * T, D]` float32, class by class.
        num_templates: number T of prompts of each class.

    Returns:
        Class embeddings `[C, D]` float32, L2-normalised.
    """
    rows = prompt_embeddings / np.linalg.norm(prompt_embeddings, axis=1, keepdims=True)
    means = rows.reshape(-1, num_templates, rows.shape[1]).mean(axis=1)  # [C, D]
    return means / np.linalg.norm(means, axis=1, keepdims=True)


@dataclass(frozen=True)
class EncodedClasses:
    """Embeddings of images and of their classes.

    Attributes:
        benchmark: the images that could be used, with the C classes as texts.
        image_embeddings: `[N, D]` float32, rows as in `benchmark.images`.
        class_embeddings: `[C, D]` float32 by language, rows as in `benchmark.texts`.
        bad_samples: number of images that were read, and the images that could not be used.
        has_several_labels: whether an image of the data has several classes, also if it could not be used.
    """

    benchmark: Benchmark
    image_embeddings: np.ndarray
    class_embeddings: Mapping[str, np.ndarray]
    bad_samples: BadSampleReport
    has_several_labels: bool = False

    @cached_property
    def truth(self) -> np.ndarray:
        """Membership of each image in each class, `[N, C]` bool."""
        truth = np.zeros((len(self.benchmark.images), len(self.benchmark.texts)), bool)
        truth[self.benchmark.pairs[:, 0], self.benchmark.pairs[:, 1]] = True
        return truth

    def score_classes(self, logit_scale: float) -> dict[str, ClassScores]:
        """Score every image against the classes of each language.

        Args:
            logit_scale: factor from cosine to logit, for the probabilities.
        """
        scores = {}
        for language, class_embeddings in self.class_embeddings.items():
            # Cosines are computed in float64 and rounded to float32, as in ranking.py, so that equal classes tie in
            # whatever order sums are taken.
            cosines = self.image_embeddings.astype(np.float64) @ class_embeddings.astype(np.float64).T
            names = class_names(self.benchmark, language)
            scores[language] = ClassScores(
                self.truth, cosines.astype(np.float32), names, logit_scale, self.has_several_labels
            )
        return scores


def class_names(labelled: Benchmark, language: str) -> tuple[str, ...]:
    """Return the names of the classes in a language."""
    return tuple(str(text.fields[language]) for text in labelled.texts)


def has_several_labels(labelled: Benchmark) -> bool:
    """Return whether an image has several classes."""
    image_rows = labelled.pairs[:, 0]
    return len(np.unique(image_rows)) < len(image_rows)


def make_prompt_benchmark(labelled: Benchmark, templates: Mapping[str, Sequence[str]]) -> Benchmark:
    """Return a benchmark of the images and of the prompts of every language, to be encoded.

    Args:
        labelled: images with classes, as `open_labelled` returns them.
        templates: templates by the language of the class names.
    """
    texts = []
    for language, templates_of_language in templates.items():
        prompts = make_prompts(class_names(labelled, language), templates_of_language)
        texts += [BenchmarkText(f"{language}/{row}", prompt) for row, prompt in enumerate(prompts)]
    # Prompts are not paired with images: which classes an image has, `labelled` still says.
    return replace(labelled, texts=texts, pairs=np.empty([0, 2], np.int64))


def assemble_classes(
    labelled: Benchmark, templates: Mapping[str, Sequence[str]], encoded: EncodedBenchmark
) -> EncodedClasses:
    """Compute the class embeddings from an encoded `make_prompt_benchmark` of the same images and templates.

    Raises:
        ValueError: an embedding is not finite.
    """
    if not (np.isfinite(encoded.image_embeddings).all() and np.isfinite(encoded.text_embeddings).all()):
        raise ValueError(
            "an embedding is not finite; evaluate an earlier checkpoint, or in float32 if it was half precision"
        )
    # Images that could not be used are missing from the encoded benchmark.
    row_of_image = {image.id: row for row, image in enumerate(labelled.images)}
    benchmark = labelled.select(images=[row_of_image[image.id] for image in encoded.benchmark.images])

    # The prompts lie language by language, as `make_prompt_benchmark` lists them.
    class_embeddings = {}
    start = 0
    for language, templates_of_language in templates.items():
        end = start + len(labelled.texts) * len(templates_of_language)
        prompt_embeddings = encoded.text_embeddings[start:end]
        class_embeddings[language] = compute_class_embeddings(prompt_embeddings, len(templates_of_language))
        start = end
    return EncodedClasses(
        benchmark, encoded.image_embeddings, class_embeddings, encoded.bad_samples, has_several_labels(labelled)
    )


@dataclass(frozen=True)
class ClassScores:
    """Scores of a classifier for N images and C classes, and the metrics that follow from them.

    Attributes:
        truth: `[N, C]` bool, whether an image belongs to a class.
        scores: `[N, C]` float, cosines or probabilities.
        names: names of the classes.
        logit_scale: factor from cosine to logit; None: scores are probabilities.
        has_several_labels: see `EncodedClasses`; which metrics apply must not depend on the images that can be used.
    """

    truth: np.ndarray
    scores: np.ndarray
    names: tuple[str, ...]
    logit_scale: float | None = None
    has_several_labels: bool = False

    @cached_property
    def is_multi_label(self) -> bool:
        """Whether an image has several classes or none; classes then rank images instead of answering them."""
        return self.has_several_labels or bool((self.truth.sum(axis=1) != 1).any())

    @cached_property
    def answers(self) -> np.ndarray:
        """Class with the highest score of each image, `[N]`."""
        return self.scores.argmax(axis=1)

    @cached_property
    def rank(self) -> np.ndarray:
        """Rank of each image's class, `[N]`, from 1; of several classes the best rank. Each image must have a class."""
        # Stable: of equal scores the first class comes first, as in `answers`.
        order = np.argsort(-self.scores, axis=1, kind="stable")
        return 1 + np.take_along_axis(self.truth, order, axis=1).argmax(axis=1)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits over the classes, `[N, C]`."""
        if self.logit_scale is None:
            return self.scores
        # The largest logit of a row becomes 0, so that no exponential overflows.
        weights = np.exp(self.logit_scale * (self.scores - self.scores.max(axis=1, keepdims=True)))
        return weights / weights.sum(axis=1, keepdims=True)

    @cached_property
    def counts(self) -> np.ndarray:
        """Number of images of each class, `[C]`."""
        return self.truth.sum(axis=0)

    @cached_property
    def confusion(self) -> np.ndarray:
        """Number of images of a class (row) that get an answer (column), `[C, C]`."""
        num_classes = len(self.names)
        confusion = np.zeros((num_classes, num_classes), np.int64)
        # Unlike +=, this counts an index as often as it occurs.
        np.add.at(confusion, (self.truth.argmax(axis=1), self.answers), 1)
        return confusion

    @cached_property
    def class_metrics(self) -> np.ndarray:
        """Recall of each class, `[C]`, or its average precision if multi-label; NaN for a class without images."""
        if self.is_multi_label:
            return average_precision(self.truth, self.scores)
        # 0 / 0 is NaN for a class without images, which the mean leaves out.
        with np.errstate(invalid="ignore"):
            return np.diag(self.confusion) / self.counts

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Metrics of `COLUMNS` that apply, in percent."""
        class_mean = 100 * float(np.nanmean(self.class_metrics))
        if self.is_multi_label:
            return {"mAP": class_mean}
        metrics = {"acc1": 100 * float(np.mean(self.rank <= 1))}
        if len(self.names) >= MIN_CLASSES_FOR_ACC5:
            metrics["acc5"] = 100 * float(np.mean(self.rank <= 5))
        metrics["mean_per_class_recall"] = class_mean
        return metrics

    @cached_property
    def chance(self) -> dict[str, float]:
        """Expected metrics of a random order of the classes, in percent; {} if multi-label."""
        num_classes = len(self.names)
        expected = {
            "acc1": 100 / num_classes,
            "acc5": 500 / num_classes,
            "mean_per_class_recall": 100 / num_classes,
        }
        return {name: expected[name] for name in self.metrics if name in expected}

    def threshold_metrics(self, threshold: float) -> dict[str, float]:
        """Return the metrics of the answers that score at least `threshold`, in percent.

        If multi-label, every class with such a score is an answer; otherwise only the best class can be one.

        Returns:
            Share of the images that are answered, precision and recall of the answers.
        """
        is_answer = self.scores >= threshold
        if not self.is_multi_label:
            is_answer &= np.arange(len(self.names)) == self.answers[:, None]
        # Without any answer, precision is 0.
        num_right = int((is_answer & self.truth).sum())
        return {
            "answered": 100 * float(is_answer.any(axis=1).mean()),
            "precision": 100 * num_right / max(int(is_answer.sum()), 1),
            "recall": 100 * num_right / max(int(self.truth.sum()), 1),
        }


def average_precision(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the average precision of each class: the mean, over its images, of the precision up to their score.

    Images with equal scores are counted together, so that their order does not matter; without such images the result
    equals CLIP_benchmark's.

    Args:
        truth: `[N, C]`, whether an image belongs to a class.
        scores: `[N, C]`, score of each image for each class.

    Returns:
        Average precision `[C]`; NaN for a class without images.
    """
    precisions = np.full(truth.shape[1], np.nan)
    for column in np.flatnonzero(truth.any(axis=0)):
        order = np.argsort(-scores[:, column], kind="stable")
        negative_scores = -scores[order, column]  # ascending, as searchsorted needs them
        is_positive = truth[order, column]
        # For each positive, the number of images that score at least as high, and how many of them are positive.
        num_retrieved = np.searchsorted(negative_scores, negative_scores[is_positive], side="right")
        num_positive = np.cumsum(is_positive)[num_retrieved - 1]
        precisions[column] = (num_positive / num_retrieved).mean()
    return precisions
