"""What scores of pairs that do not belong together look like, and how many pairs of a crawl are such.

The scores of a crawl are those of right and of wrong pairs, mixed. Those of wrong ones are known: they are what an
image scores with the caption of another. So the share of wrong pairs can be estimated without any label (Storey 2002),
and with it the share of wrong ones among all pairs above a threshold.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SHIFTS = 10
"""Captions of others that an image is scored with."""
QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Of wrong pairs; below them there are few right ones."""
LEAST_KEPT = 0.05
"""Share of pairs that a calibrated threshold keeps at least."""


class Mismatched(NamedTuple):
    """Cosines of mismatched pairs by language, and their scores.

    means, deviations: by language.
    scores: `[M]`, sorted.
    """

    means: np.ndarray
    deviations: np.ndarray
    scores: np.ndarray

    def score(self, cosines: np.ndarray) -> np.ndarray:
        """Of pairs, `[N, languages]` cosines: by how many standard deviations they are above mismatched ones, on the
        mean over languages, in units of that mean's."""
        return ((cosines - self.means) / self.deviations).mean(axis=1)


def mismatched(images: np.ndarray, texts: np.ndarray) -> Mismatched:
    """From pairs, the scores of each image with the captions of others.

    Args:
        images: `[N, D]`.
        texts: `[languages, N, D]`, captions of the same pairs in each language.
    """
    shifts = range(1, min(SHIFTS, len(images) - 1) + 1)
    cosines = np.concatenate(
        [np.einsum("nd,lnd->nl", images, np.roll(texts, shift, axis=1)) for shift in shifts]
        or [np.zeros((1, len(texts)), np.float32)]
    )
    means, deviations = cosines.mean(axis=0), cosines.std(axis=0) + 1e-6
    found = Mismatched(means, deviations, np.zeros(0))
    return found._replace(scores=np.sort(found.score(cosines)))


def wrong_share(scores: np.ndarray, null: np.ndarray) -> float:
    """The share of wrong pairs, at most: what is observed below a quantile of mismatched scores, relative to it.

    Args:
        scores: of the pairs, sorted.
        null: of mismatched pairs, sorted.
    """
    below = [np.searchsorted(scores, np.quantile(null, quantile)) / len(scores) / quantile for quantile in QUANTILES]
    return float(min(1.0, *below))


class Threshold(NamedTuple):
    """A score, the share of pairs from there on, and the share of wrong ones that is expected among them."""

    score: float
    kept: float
    wrong: float


def calibrated(scores: np.ndarray, null: np.ndarray, tolerated: float) -> Threshold:
    """The lowest threshold above which at most a tolerated share is expected to be wrong; else the best one there is.

    Args:
        scores, null: as of `wrong_share`.
    """
    share = wrong_share(scores, null)
    candidates = scores[np.unique(np.linspace(0, (1 - LEAST_KEPT) * (len(scores) - 1), 400).astype(int))]
    kept = 1 - np.searchsorted(scores, candidates) / len(scores)
    wrong = share * (1 - np.searchsorted(null, candidates) / len(null)) / kept
    fitting = np.flatnonzero(wrong <= tolerated)
    chosen = int(fitting[0]) if len(fitting) else int(wrong.argmin())
    return Threshold(float(candidates[chosen]), float(kept[chosen]), float(wrong[chosen]))
