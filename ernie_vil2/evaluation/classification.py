"""Classification by embeddings: classes as prompts, what they answer to images, and how right that is.

The definitions are those of CLIP_benchmark: the prompts' embeddings are normalised, averaged over the templates and
normalised again; an image's answer is the class of the highest cosine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkText
from ernie_vil2.data.readers.labelled import read_list
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.evaluation.encoded import EncodedBenchmark

MIN_CLASSES_FOR_ACC5 = 5
"""Classes from which acc5 says something."""
COLUMNS = ("acc1", "acc5", "mean_per_class_recall", "mAP")
DEFINITION = (
    "Every class is the mean of its prompts' normalised embeddings, normalised again; an image's answer is the class "
    "of the highest cosine, of equal ones the first. acc1 is the share of images whose answer is right, "
    f"acc5, from {MIN_CLASSES_FOR_ACC5} classes on, of those whose class is among the first five; mean per-class "
    "recall is the mean over the classes of the share of their images that are answered right. Where images have "
    "several classes, mAP is the mean over the classes of the average precision with which the cosine ranks all "
    "images. Classes without an image can be answered and count in no mean. Percent."
)


SLOTS = ("{c}", "{}")
"""Where the name goes in a template; the former is CLIP_benchmark's."""
OWN = Path(__file__).with_name("templates")
"""Our own templates, a file per language."""


def read_templates(language: str, source: str | None = None) -> tuple[str, ...]:
    """The templates in a file, or our own in a language.

    Args:
        source: as for `read_list`; None: our own.

    Raises:
        OSError: the file cannot be read.
        ValueError: there are none, or one has no slot for the name.
    """
    if source is None and not (OWN / f"{language}.txt").is_file():
        known = ", ".join(sorted(path.stem for path in OWN.iterdir()))
        raise ValueError(f"there are no templates in {language or 'no language'} here, only in {known}; give a file")
    found = read_list(source or str(OWN / f"{language}.txt"))
    if isinstance(found, dict):
        raise ValueError(f"{source}: templates are a list, not texts by label")
    for template in found:
        if not any(slot in template for slot in SLOTS):
            raise ValueError(f"{source}: template {template!r} has no slot; put {SLOTS[1]} where the name belongs")
    return tuple(found)


def choose_templates(labelled: Benchmark, sources: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Templates in every language of the classes' names.

    Args:
        sources: files by language, see `read_templates`; the other languages have our own.

    Raises:
        OSError, ValueError: see `read_templates`; or a file is for a language in which there are no names.
    """
    languages = list(labelled.texts[0].fields)
    if extra := sources.keys() - set(languages):
        raise ValueError(f"templates in {', '.join(sorted(extra))}, but the names are in {', '.join(languages)}")
    return {language: read_templates(language, sources.get(language)) for language in languages}


def find_repeated(templates: Sequence[str]) -> list[str]:
    """Those that occur several times; each counts as often as it occurs, as elsewhere."""
    return [template for template, count in Counter(templates).items() if count > 1]


def describe_templates(chosen: Mapping[str, Sequence[str]], files: Mapping[str, str]) -> list[str]:
    """By language how many templates there are and from which file, then those that occur several times."""
    notes = [
        f"{len(own)} templates in {language}: {files.get(language, 'our own')}" for language, own in chosen.items()
    ]
    for language, own in chosen.items():
        if same := find_repeated(own):
            notes.append(f"templates in {language} that occur several times, and count so: {', '.join(same)}")
    return notes


def make_prompts(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every name in every template, `[C * T]`, class by class."""
    return [template.replace(SLOTS[0], name).replace(SLOTS[1], name) for name in names for template in templates]


def compute_class_embeddings(embeddings: np.ndarray, templates: int) -> np.ndarray:
    """The normalised mean of the normalised embeddings of every class's prompts: `[C * T, D]` to `[C, D]` float32.

    So do CLIP_benchmark, open_clip and Chinese-CLIP.
    """
    rows = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    means = rows.reshape(-1, templates, rows.shape[1]).mean(axis=1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


@dataclass(frozen=True)
class EncodedClasses:
    """Images `[N, D]`, and classes `[C, D]` by language; rows as in `benchmark`, whose texts are the classes.

    `problems` counts the images that were asked for and those that could not be used; `benchmark` is without them.
    """

    benchmark: Benchmark
    image_embeddings: np.ndarray
    class_embeddings: Mapping[str, np.ndarray]
    bad_samples: BadSampleReport

    @cached_property
    def truth(self) -> np.ndarray:
        """`[N, C]`, whether an image is of a class."""
        found = np.zeros((len(self.benchmark.images), len(self.benchmark.texts)), bool)
        found[self.benchmark.pairs[:, 0], self.benchmark.pairs[:, 1]] = True
        return found

    def score_classes(self, logit_scale: float) -> dict[str, ClassScores]:
        """What the classes of each language answer."""
        found = {}
        for language, classes in self.class_embeddings.items():
            # As in ranking: equal classes tie, in whichever order the sum was taken.
            cosines = (self.image_embeddings.astype(np.float64) @ classes.astype(np.float64).T).astype(np.float32)
            found[language] = ClassScores(self.truth, cosines, class_names(self.benchmark, language), logit_scale)
        return found


def class_names(labelled: Benchmark, language: str) -> tuple[str, ...]:
    """The names of the classes in a language."""
    return tuple(str(one.fields[language]) for one in labelled.texts)


def make_prompt_benchmark(labelled: Benchmark, templates: Mapping[str, Sequence[str]]) -> Benchmark:
    """The images with every class in every template of every language as texts, to be encoded.

    Args:
        labelled: as `open_labelled` gives it.
        templates: by the languages of the names.
    """
    texts = [
        BenchmarkText(f"{language}/{row}", text)
        for language, own in templates.items()
        for row, text in enumerate(make_prompts(class_names(labelled, language), own))
    ]
    return replace(labelled, texts=texts, pairs=np.empty([0, 2], np.int64))


def assemble_classes(
    labelled: Benchmark, templates: Mapping[str, Sequence[str]], encoded: EncodedBenchmark
) -> EncodedClasses:
    """Classes and images from what became of `make_prompt_benchmark`; ValueError if an embedding is not finite."""
    if not (np.isfinite(encoded.image_embeddings).all() and np.isfinite(encoded.text_embeddings).all()):
        raise ValueError(
            "an embedding is not finite; evaluate an earlier checkpoint, or in float32 if it was half precision"
        )
    rows = {image.id: row for row, image in enumerate(labelled.images)}
    used = labelled.select(images=[rows[image.id] for image in encoded.benchmark.images])
    counts = [len(labelled.texts) * len(own) for own in templates.values()]
    parts = np.split(encoded.text_embeddings, list(accumulate(counts))[:-1])
    classes = {
        language: compute_class_embeddings(part, len(own))
        for (language, own), part in zip(templates.items(), parts, strict=True)
    }
    return EncodedClasses(used, encoded.image_embeddings, classes, encoded.bad_samples)


@dataclass(frozen=True)
class ClassScores:
    """The scores of a classifier for N images and C classes.

    Attributes:
        truth: `[N, C]`, whether an image is of a class.
        scores: `[N, C]`, cosines or probabilities.
        names: of the classes.
        logit_scale: by which cosines become logits; None: scores are probabilities.
    """

    truth: np.ndarray
    scores: np.ndarray
    names: tuple[str, ...]
    logit_scale: float | None = None

    @cached_property
    def is_multi_label(self) -> bool:
        """Whether images have several classes, or none: then they are ranked and not answered."""
        return bool((self.truth.sum(axis=1) != 1).any())

    @cached_property
    def answers(self) -> np.ndarray:
        """`[N]`, the class of each image's highest score."""
        return self.scores.argmax(axis=1)

    @cached_property
    def rank(self) -> np.ndarray:
        """`[N]`, the rank of each image's own class, from 1 on; of several classes the best one."""
        order = np.argsort(-self.scores, axis=1, kind="stable")
        return 1 + np.take_along_axis(self.truth, order, axis=1).argmax(axis=1)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """`[N, C]`, the softmax of the logits over the classes."""
        if self.logit_scale is None:
            return self.scores
        weights = np.exp(self.logit_scale * (self.scores - self.scores.max(axis=1, keepdims=True)))
        return weights / weights.sum(axis=1, keepdims=True)

    @cached_property
    def counts(self) -> np.ndarray:
        """`[C]`, how many images each class has."""
        return self.truth.sum(axis=0)

    @cached_property
    def confusion(self) -> np.ndarray:
        """`[C, C]`, how many images of a class (row) get an answer (column)."""
        classes = len(self.names)
        found = np.zeros((classes, classes), np.int64)
        np.add.at(found, (self.truth.argmax(axis=1), self.answers), 1)
        return found

    @cached_property
    def class_metrics(self) -> np.ndarray:
        """`[C]`, the recall of each class, or where images have several its average precision; NaN without any."""
        if self.is_multi_label:
            return average_precision(self.truth, self.scores)
        with np.errstate(invalid="ignore"):
            return np.diag(self.confusion) / self.counts

    @cached_property
    def figures(self) -> dict[str, float]:
        """Those of `COLUMNS` that apply, in percent."""
        mean = 100 * float(np.nanmean(self.class_metrics))
        if self.is_multi_label:
            return {"mAP": mean}
        found = {"acc1": 100 * float(np.mean(self.rank <= 1))}
        if len(self.names) >= MIN_CLASSES_FOR_ACC5:
            found["acc5"] = 100 * float(np.mean(self.rank <= 5))
        return found | {"mean_per_class_recall": mean}

    @cached_property
    def chance(self) -> dict[str, float]:
        """What a random order of the classes would be expected to reach; {} where images have several."""
        classes = len(self.names)
        reached = {"acc1": 100 / classes, "acc5": 500 / classes, "mean_per_class_recall": 100 / classes}
        return {name: reached[name] for name in self.figures if name in reached}

    def threshold_metrics(self, least: float) -> dict[str, float]:
        """Of answers that score at least so much: their share of the images, precision and recall, in percent.

        Where images have several classes, every class is an answer that scores enough.
        """
        given = self.scores >= least
        if not self.is_multi_label:
            given &= np.arange(len(self.names)) == self.answers[:, None]
        right = int((given & self.truth).sum())
        return {
            "answered": 100 * float(given.any(axis=1).mean()),
            "precision": 100 * right / max(int(given.sum()), 1),
            "recall": 100 * right / max(int(self.truth.sum()), 1),
        }


def average_precision(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """`[C]`, for each class the mean over its images of the precision among all that score no less.

    So equal scores count in no order of their own; without them it is CLIP_benchmark's. NaN without an image.
    """
    found = np.full(truth.shape[1], np.nan)
    for column in np.flatnonzero(truth.any(axis=0)):
        order = np.argsort(-scores[:, column], kind="stable")
        falling = -scores[order, column]
        right = truth[order, column]
        reached = np.searchsorted(falling, falling[right], side="right")  # how many score no less
        found[column] = (np.cumsum(right)[reached - 1] / reached).mean()
    return found
