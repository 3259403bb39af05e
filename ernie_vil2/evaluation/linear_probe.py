"""Linear probe: logistic regression on frozen embeddings, with its regularisation chosen on validation images."""

import warnings
from typing import NamedTuple

import numpy as np

from ernie_vil2.data.samples import BadSampleReport, format_names
from ernie_vil2.evaluation.classification import ClassScores, EncodedClasses, class_names
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.protocol import number_occurrences
from ernie_vil2.evaluation.ranking import top_matches
from ernie_vil2.io.terminal import pluralize

# Values of scikit-learn's `C` that are tried, from the strongest regularisation to almost none: two for each power of
# ten.
STRENGTHS = np.logspace(-2, 5, 15)
# Every fifth training image of a class is a validation image, so that classes of five images have one.
VALIDATION_STEP = 5
# Steps of the solver. Only weak regularisation, which is seldom chosen, needs more.
MAX_ITERATIONS = 1000
# Two images count as the same from this cosine on; it is a little below 1 to allow for rounding.
SAME_IMAGE_COSINE = 1 - 1e-5


class LinearProbe(NamedTuple):
    """Answers of a classifier on embeddings, and how it was chosen.

    Attributes:
        scores: `[N, C]`, probability of every class for each image; 0 for a class without training images.
        strength: the chosen `C`.
        validation: by `C`, accuracy on the validation images in percent, or mean average precision if images have
            several classes.
    """

    scores: np.ndarray
    strength: float
    validation: dict[float, float]


def fit_linear_probe(embeddings: np.ndarray, truth: np.ndarray, query_embeddings: np.ndarray) -> LinearProbe:
    """Choose the regularisation on validation images, train on all images with it, and answer other images.

    Of equally good strengths the strongest regularisation is chosen.

    Args:
        embeddings: `[M, D]`, L2-normalised embeddings of the training images.
        truth: `[M, C]`, whether a training image belongs to a class.
        query_embeddings: `[N, D]`, embeddings of the images to answer.

    Raises:
        ValueError: fewer than two classes have a training image, or no class has `VALIDATION_STEP` of them.
    """
    if truth.any(axis=0).sum() < 2:
        raise ValueError("a linear probe needs training images of two classes")
    is_validation = _choose_validation_images(truth)
    if not is_validation.any():
        raise ValueError(
            "a linear probe chooses its regularisation on a fifth of its training images: "
            f"give {VALIDATION_STEP} of a class"
        )

    is_multi_label = bool((truth.sum(axis=1) != 1).any())
    class_names = ("",) * truth.shape[1]
    validation = {}
    for strength in STRENGTHS.tolist():
        scores = _fit_and_score(
            embeddings[~is_validation], truth[~is_validation], embeddings[is_validation], strength, is_multi_label
        )
        answers = ClassScores(truth[is_validation], scores, class_names)
        validation[strength] = answers.metrics["mAP" if answers.is_multi_label else "acc1"]
    best = max(validation, key=lambda strength: (validation[strength], -strength))
    scores = _fit_and_score(embeddings, truth, query_embeddings, best, is_multi_label)
    return LinearProbe(scores, best, validation)


def score_linear_probe(classes: EncodedClasses, training: EncodedBenchmark) -> tuple[ClassScores, list[str]]:
    """Train a linear probe and score its answers; return them with lines that a person should read.

    Args:
        classes: the images to score, with their classes.
        training: the training images, whose texts are classes, as `open_labelled` gives them; images that belong to
            none of the scored classes are left out.
    """
    row_of_class = {text.id: row for row, text in enumerate(classes.benchmark.texts)}
    # For each training pair the row of its class among the scored classes, or -1.
    scored_rows = np.array([row_of_class.get(text.id, -1) for text in training.benchmark.texts])
    class_of_pair = scored_rows[training.benchmark.pairs[:, 1]]
    has_class = class_of_pair >= 0
    truth = np.zeros((len(training.image_embeddings), len(row_of_class)), bool)
    truth[training.benchmark.pairs[has_class, 0], class_of_pair[has_class]] = True

    is_used = truth.any(axis=1)
    embeddings = training.image_embeddings[is_used]
    probe = fit_linear_probe(embeddings, truth[is_used], classes.image_embeddings)
    lines = [
        f"linear probe: {pluralize(int(is_used.sum()), 'training image')}, C = {probe.strength:.3g} of "
        f"{len(probe.validation)} tried, {probe.validation[probe.strength]:.1f} % on the validation images among them"
    ]
    if not is_used.all():
        lines.append(f"linear probe: {pluralize(int((~is_used).sum()), 'training image')} of other classes left out")

    _, cosines = top_matches(classes.image_embeddings, embeddings, 1)
    trained_rows = np.flatnonzero(cosines[:, 0] > SAME_IMAGE_COSINE).tolist()
    if trained_rows:
        ids = [classes.benchmark.images[row].id for row in trained_rows[: BadSampleReport.MAX_NAMES]]
        lines.append(
            f"linear probe: images that are both scored and trained on: {format_names(len(trained_rows), ids)}; "
            "remove them from the training data or from the scored data"
        )
    names = class_names(classes.benchmark, next(iter(classes.class_embeddings)))
    return ClassScores(classes.truth, probe.scores, names, has_several_labels=classes.has_several_labels), lines


def _choose_validation_images(truth: np.ndarray) -> np.ndarray:
    """Return whether each image is for validation, `[M]`: every fifth image of a class in a random order.

    The first images of a class are never chosen, so that every class keeps training images.
    """
    order = np.argsort(np.random.default_rng(0).random(len(truth)), kind="stable")
    position_in_class = number_occurrences(truth.argmax(axis=1)[order])
    is_validation = np.zeros(len(truth), bool)
    is_validation[order[position_in_class % VALIDATION_STEP == VALIDATION_STEP - 1]] = True
    return is_validation


def _fit_and_score(
    embeddings: np.ndarray, truth: np.ndarray, query_embeddings: np.ndarray, strength: float, is_multi_label: bool
) -> np.ndarray:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    regression = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS)
    (trained_classes,) = np.nonzero(truth.any(axis=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # weak regularisation, which is seldom chosen
        warnings.filterwarnings("ignore", "Label .* is present in all training examples")
        if is_multi_label:
            model = OneVsRestClassifier(regression).fit(embeddings, truth[:, trained_classes].astype(int))
        else:
            model = regression.fit(embeddings, truth[:, trained_classes].argmax(axis=1))
    scores = np.zeros((len(query_embeddings), truth.shape[1]))
    # Of a single class, the result has a column before it: the probability that an image does not belong to it.
    scores[:, trained_classes] = model.predict_proba(query_embeddings)[:, -len(trained_classes) :]
    return scores
