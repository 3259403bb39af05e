"""Finds on a validation set what a model's scores mean; `ernie_vil2.io.calibration` is what is found."""

import numpy as np

from ernie_vil2.evaluation.ranking import rank_queries, top_matches
from ernie_vil2.io.calibration import Calibration, Threshold


def calibrate(images: np.ndarray, texts: np.ndarray, pairs: np.ndarray, fingerprint: str, data: str) -> Calibration:
    """Finds temperature and thresholds.

    A query counts as one that has an answer as it is, and as one that has none where its positives are taken out of
    the gallery. The threshold is the one of the largest F1, of precision over all answers given to both kinds and
    recall over the first kind.

    Embeddings are `[N, D]` and `[M, D]`, L2-normalised, `pairs` `[P, 2]` of (image row, text row).

    Raises:
        ValueError: there are no pairs, or an image or text that belongs to everything.
    """
    if not len(pairs):
        raise ValueError("no image belongs to a text here: there is nothing to calibrate on")
    return Calibration(
        fingerprint,
        data,
        _logit_scale(images, texts, pairs),
        {
            "image_to_text": _threshold(images, texts, pairs),
            "text_to_image": _threshold(texts, images, pairs[:, ::-1]),
        },
    )


def _threshold(queries: np.ndarray, gallery: np.ndarray, pairs: np.ndarray) -> Threshold:
    asked = np.unique(pairs[:, 0])
    positions = np.searchsorted(asked, pairs[:, 0])
    ranking, _ = rank_queries(queries[asked], gallery, np.stack([positions, pairs[:, 1]], axis=1))
    right, best = ranking.rank == 1, ranking.top_score
    _, others = top_matches(queries[asked], gallery, 1, excluded=np.stack([positions, pairs[:, 1]], axis=1))
    without = others[:, 0]
    if np.isneginf(without).any():
        raise ValueError("everything belongs to one of the queries: give a validation set of several images and texts")
    bounds = np.unique(np.concatenate([best, without]))
    given = _reaching(best, bounds) + _reaching(without, bounds)
    found = _reaching(best[right], bounds)
    f1 = 2 * found / (given + len(asked))
    position = int(f1.argmax())
    refused = np.searchsorted(np.sort(without), bounds[position]) / len(without)
    return Threshold(
        float(bounds[position]),
        100 * float(found[position] / given[position]),
        100 * float(found[position] / len(asked)),
        100 * float(refused),
    )


def _reaching(scores: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """For each bound how many scores are at least as high."""
    return len(scores) - np.searchsorted(np.sort(scores), bounds)


def _logit_scale(images: np.ndarray, texts: np.ndarray, pairs: np.ndarray) -> float:
    """The scale of the least negative log-likelihood of each image's texts, between 1 and 1,000.

    It has one minimum in the scale, which a bounded search over its logarithm finds.
    """
    from scipy.optimize import minimize_scalar

    rows = np.unique(pairs[:, 0])[:2000]
    cosines = images[rows].astype(np.float64) @ texts.T.astype(np.float64)  # [n, M]
    positive = np.zeros(cosines.shape, bool)
    chosen = np.isin(pairs[:, 0], rows)
    positive[np.searchsorted(rows, pairs[chosen, 0]), pairs[chosen, 1]] = True

    def loss(log_scale: float) -> float:
        logits = np.exp(log_scale) * cosines
        top = logits.max(axis=1, keepdims=True)
        exponentials = np.exp(logits - top)
        return -np.log((exponentials * positive).sum(axis=1) / exponentials.sum(axis=1) + 1e-300).mean()

    return float(np.exp(minimize_scalar(loss, bounds=(0, np.log(1000)), method="bounded").x))
