"""A linear probe: logistic regression on frozen embeddings, its regularisation chosen on a validation part."""

import warnings
from typing import NamedTuple

import numpy as np

from ernie_vil2.data.samples import BadSampleReport, first_names
from ernie_vil2.evaluation.classification import ClassScores, EncodedClasses
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.protocol import number_occurrences
from ernie_vil2.evaluation.ranking import top_matches
from ernie_vil2.io.terminal import counted

STRENGTHS = np.logspace(-2, 5, 15)
"""Values of scikit-learn's `C` that are tried, from the strongest regularisation on."""
FOLD = 5
"""Of a class every fifth training image is in the validation part."""
ITERATIONS = 1000
SAME = 1 - 1e-5
"""Cosine from which two images are taken for one."""


class LinearProbe(NamedTuple):
    """A classifier on embeddings, and how it was chosen.

    scores: `[N, C]`, the probability of every class for the images asked about; 0 for a class that was not trained.
    strength: the chosen `C`.
    validation: by `C`, the share of right answers (of several classes the mean average precision) on the validation
        part, in percent.
    """

    scores: np.ndarray
    strength: float
    validation: dict[float, float]


def linear_probe(embeddings: np.ndarray, truth: np.ndarray, asked: np.ndarray) -> LinearProbe:
    """Trains on L2-normalised embeddings `[M, D]` with classes `[M, C]`, and answers others, `asked` `[N, D]`.

    Of equally good strengths the strongest is taken; with the chosen one all images are trained with once more.

    Raises:
        ValueError: fewer than two classes have a training image, or none has `FOLD` of them.
    """
    if truth.any(axis=0).sum() < 2:
        raise ValueError("a linear probe needs training images of two classes")
    held_out = _held_out(truth)
    if not held_out.any():
        raise ValueError(
            f"a linear probe chooses its regularisation on a fifth of its training images: give {FOLD} of a class"
        )
    names, several, validation = ("",) * truth.shape[1], bool((truth.sum(axis=1) != 1).any()), {}
    for strength in STRENGTHS.tolist():
        scores = _fitted(embeddings[~held_out], truth[~held_out], embeddings[held_out], strength, several)
        answers = ClassScores(truth[held_out], scores, names)
        validation[strength] = answers.figures["mAP" if answers.is_multi_label else "acc1"]
    best = max(validation, key=lambda strength: (validation[strength], -strength))
    return LinearProbe(_fitted(embeddings, truth, asked, best, several), best, validation)


def probe_classes(classes: EncodedClasses, trained: EncodedBenchmark) -> tuple[ClassScores, list[str]]:
    """What a probe answers to images that are scored, and what a person should know of it.

    Args:
        trained: images to train with, whose texts are classes, as `open_labelled` gives them; what is of none of the
            classes that are scored is left out.
    """
    position = {one.id: row for row, one in enumerate(classes.benchmark.texts)}
    column = np.array([position.get(one.id, -1) for one in trained.benchmark.texts])[trained.benchmark.pairs[:, 1]]
    truth = np.zeros((len(trained.image_embeddings), len(position)), bool)
    truth[trained.benchmark.pairs[column >= 0, 0], column[column >= 0]] = True
    known = truth.any(axis=1)
    found = linear_probe(trained.image_embeddings[known], truth[known], classes.image_embeddings)
    best = found.validation[found.strength]
    lines = [f"linear probe: {counted(int(known.sum()), 'training image')}, C = {found.strength:.3g} of "
             f"{len(found.validation)} tried, {best:.1f} % on a validation part of them"]  # fmt: skip
    if not known.all():
        lines.append(f"linear probe: {counted(int((~known).sum()), 'training image')} of other classes left out")
    _, cosines = top_matches(classes.image_embeddings, trained.image_embeddings[known], 1)
    if twice := [classes.benchmark.images[row].id for row in np.flatnonzero(cosines[:, 0] > SAME).tolist()]:
        same = first_names(len(twice), twice[: BadSampleReport.NAMES])
        lines.append(f"linear probe: images that are scored and trained with: {same}; take them out of one part")
    names = next(iter(classes.score_classes(1.0).values())).names
    return ClassScores(classes.truth, found.scores, names), lines


def _held_out(truth: np.ndarray) -> np.ndarray:
    """`[M]`, the validation part: every fifth image of a class in a drawn order, so that the rest has every class."""
    drawn = np.argsort(np.random.default_rng(0).random(len(truth)), kind="stable")
    held_out = np.zeros(len(truth), bool)
    held_out[drawn[number_occurrences(truth.argmax(axis=1)[drawn]) % FOLD == FOLD - 1]] = True
    return held_out


def _fitted(embeddings: np.ndarray, truth: np.ndarray, asked: np.ndarray, strength: float, several: bool) -> np.ndarray:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    regression = LogisticRegression(C=strength, max_iter=ITERATIONS)
    (trained,) = np.nonzero(truth.any(axis=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a weak regularisation that is not chosen, mostly
        warnings.filterwarnings("ignore", "Label .* is present in all training examples")
        if several:
            model = OneVsRestClassifier(regression).fit(embeddings, truth[:, trained].astype(int))
        else:
            model = regression.fit(embeddings, truth[:, trained].argmax(axis=1))
    scores = np.zeros((len(asked), truth.shape[1]))
    scores[:, trained] = model.predict_proba(asked)
    return scores
