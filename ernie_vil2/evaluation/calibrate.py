"""Calibration of a model's scores on a validation set: a temperature, and a threshold for each direction."""

import numpy as np

from ernie_vil2.evaluation.ranking import rank_queries, top_matches
from ernie_vil2.io.calibration import Calibration, Threshold

# Images from which the temperature is estimated. It bounds memory: their scores with all texts are in memory at once.
_MAX_IMAGES = 2000


def calibrate(images: np.ndarray, texts: np.ndarray, pairs: np.ndarray, fingerprint: str, data: str) -> Calibration:
    """Find temperature and thresholds.

    Every query counts twice: once with its positives in the gallery, so that it has an answer, and once without them,
    so that it has none. The threshold is the one with the largest F1. Its precision is over all answers that score at
    least the threshold, its recall over the queries that have an answer.

    Args:
        images: `[N, D]`, L2-normalised embeddings.
        texts: `[M, D]`, L2-normalised embeddings.
        pairs: `[P, 2]`, (image row, text row).
        fingerprint: fingerprint of the model.
        data: the validation set, in words.

    Raises:
        ValueError: there are no pairs, or an image or text belongs to everything.
    """
    if not len(pairs):
        raise ValueError("no image belongs to a text here: there is nothing to calibrate on")
    thresholds = {
        "image_to_text": _find_threshold(images, texts, pairs),
        "text_to_image": _find_threshold(texts, images, pairs[:, ::-1]),
    }
    return Calibration(fingerprint, data, _find_logit_scale(images, texts, pairs), thresholds)


def _find_threshold(queries: np.ndarray, gallery: np.ndarray, pairs: np.ndarray) -> Threshold:
    query_rows = np.unique(pairs[:, 0])
    positives = np.stack([np.searchsorted(query_rows, pairs[:, 0]), pairs[:, 1]], axis=1)
    ranking, _ = rank_queries(queries[query_rows], gallery, positives)
    is_right, top_scores = ranking.rank == 1, ranking.top_score
    # The best score of each query when its positives are not in the gallery.
    _, matches = top_matches(queries[query_rows], gallery, 1, excluded=positives)
    unanswerable_scores = matches[:, 0]
    if np.isneginf(unanswerable_scores).any():
        raise ValueError("everything belongs to one of the queries: give a validation set of several images and texts")

    # Only a score that occurs can be the best threshold: between two of them nothing changes.
    thresholds = np.unique(np.concatenate([top_scores, unanswerable_scores]))
    num_answers = _count_reaching(top_scores, thresholds) + _count_reaching(unanswerable_scores, thresholds)
    num_right = _count_reaching(top_scores[is_right], thresholds)
    f1 = 2 * num_right / (num_answers + len(query_rows))
    best = int(f1.argmax())
    num_rejected = np.searchsorted(np.sort(unanswerable_scores), thresholds[best])
    return Threshold(
        float(thresholds[best]),
        100 * float(num_right[best] / num_answers[best]),
        100 * float(num_right[best] / len(query_rows)),
        100 * float(num_rejected / len(unanswerable_scores)),
    )


def _count_reaching(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return for each threshold how many scores are at least as high."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds)


def _find_logit_scale(images: np.ndarray, texts: np.ndarray, pairs: np.ndarray) -> float:
    """Return the factor of the cosines, from 1 to 1,000, with which the texts of each image are most likely."""
    from scipy.optimize import minimize_scalar

    image_rows = np.unique(pairs[:, 0])[:_MAX_IMAGES]
    cosines = images[image_rows].astype(np.float64) @ texts.T.astype(np.float64)  # [n, M]
    is_positive = np.zeros(cosines.shape, bool)
    is_used = np.isin(pairs[:, 0], image_rows)
    is_positive[np.searchsorted(image_rows, pairs[is_used, 0]), pairs[is_used, 1]] = True

    def negative_log_likelihood(log_scale: float) -> float:
        logits = np.exp(log_scale) * cosines
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        # 1e-300 keeps the logarithm finite if all positives of an image underflow.
        likelihoods = (exponentials * is_positive).sum(axis=1) / exponentials.sum(axis=1) + 1e-300
        return -np.log(likelihoods).mean()

    # The loss has a single minimum in the scale, so a bounded search over its logarithm finds it.
    search = minimize_scalar(negative_log_likelihood, bounds=(0, np.log(1000)), method="bounded")
    return float(np.exp(search.x))
