"""What scores of pairs that do not belong together look like, and how many pairs of a crawl are such.

The scores of a crawl are those of right and of wrong pairs, mixed. Those of wrong ones are known: they are what an
image scores with the caption of another. So the share of wrong pairs can be estimated without any label (Storey 2002),
and with it the share of wrong ones among all pairs above a threshold.
"""

from typing import NamedTuple

import numpy as np

SHIFTS = 10  # captions of others that an image is scored with
BLOCK = 1024  # pairs that are compared with all peers at once
QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5)  # of wrong pairs; below them there are few right ones
LEAST_KEPT = 0.05  # share of pairs that a calibrated threshold keeps at least


class Embedded(NamedTuple):
    """N embedded pairs.

    samples: `[N]` int64, which they are.
    captions: `[N]` uint64, equal for equal captions.
    images: `[N, D]` float32 of length 1.
    texts: `[N, texts, D]`, likewise: captions and tags, in each language.
    """

    samples: np.ndarray
    captions: np.ndarray
    images: np.ndarray
    texts: np.ndarray


class _Surroundings(NamedTuple):
    """What is near N pairs among their peers.

    by_image, by_text: `[N, texts]`, means of the cosines of the nearest texts and images.
    around: `[N, D]`, the mean text of the pairs with the nearest images, less that of all.
    """

    by_image: np.ndarray
    by_text: np.ndarray
    around: np.ndarray


class _Scale:
    """The mean of several terms, each in standard deviations above its mean; the result is in its own, too. Means and
    deviations are those of `[M, terms]`."""

    def __init__(self, terms: np.ndarray):
        self._means, self._deviations, self._whole = terms.mean(axis=0), terms.std(axis=0) + 1e-6, 1.0
        self._whole = float(self(terms).std()) + 1e-6

    def __call__(self, terms: np.ndarray) -> np.ndarray:
        return ((terms - self._means) / self._deviations).mean(axis=1) / self._whole


class Peers:
    """Pairs of a crawl, chosen at random, by which all of its pairs are scored.

    The score is the cosine of image and text, on the mean over texts, in standard deviations above the mean of
    mismatched pairs: peers with the texts of others. With `nearest` it is the mean of two terms, scaled likewise: twice
    the cosine less the means of the nearest other texts and images (CSLS of Conneau et al., arXiv 1710.04087), and how
    near the text is to the texts of the pairs whose images look like its own.

    Args:
        pairs: one or more.
        nearest: texts, images and pairs that a pair is compared with; 0: its cosine alone counts.

    Attributes:
        mismatched: `[M]`, the scores of mismatched pairs, sorted.
    """

    def __init__(self, pairs: Embedded, nearest: int = 0):
        self._pairs, self._nearest = pairs, nearest
        self._joined = _joined(pairs.texts)
        near = self._surroundings(pairs)
        shifts = range(1, min(SHIFTS, len(pairs.images) - 1) + 1) or [0]
        fits, alike = (
            np.concatenate(terms) for terms in zip(*(self._terms(pairs, near, shift) for shift in shifts), strict=True)
        )
        self._fit = _Scale(fits)
        self._both = _Scale(np.stack([self._fit(fits), alike], axis=1))
        self.mismatched = np.sort(self._score(fits, alike))

    def score(self, pairs: Embedded) -> np.ndarray:
        """Of pairs, which may be peers: `[N]`."""
        return self._score(*self._terms(pairs, self._surroundings(pairs)))

    def _score(self, fits: np.ndarray, alike: np.ndarray) -> np.ndarray:
        fit = self._fit(fits)
        return self._both(np.stack([fit, alike], axis=1)) if self._nearest else fit

    def _terms(self, pairs: Embedded, near: _Surroundings, shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """How each text fits, `[N, texts]`, and how near the texts are to those around, `[N]`; the texts are those of
        pairs `shift` further on."""
        texts, by_text = np.roll(pairs.texts, -shift, axis=0), np.roll(near.by_text, -shift, axis=0)
        cosines = np.einsum("nd,ntd->nt", pairs.images, texts)
        alike = np.einsum("nd,nd->n", _joined(texts), near.around)
        return ((2 * cosines - near.by_image - by_text) if self._nearest else cosines), alike

    def _surroundings(self, pairs: Embedded) -> _Surroundings:
        texts = pairs.texts.shape[1]
        found = _Surroundings(
            *(np.zeros((len(pairs.images), width), np.float32) for width in (texts, texts, pairs.images.shape[1]))
        )
        if not self._nearest:
            return found
        for start in range(0, len(pairs.images), BLOCK):
            rows = slice(start, start + BLOCK)
            same = pairs.captions[rows, None] == self._pairs.captions
            for text in range(texts):
                found.by_image[rows, text] = self._mean_of_nearest(
                    pairs.images[rows] @ self._pairs.texts[:, text].T, same
                )
                found.by_text[rows, text] = self._mean_of_nearest(pairs.texts[rows, text] @ self._pairs.images.T, same)
            cosines = pairs.images[rows] @ self._pairs.images.T
            cosines[pairs.samples[rows, None] == self._pairs.samples] = -np.inf
            nearest = np.argpartition(-cosines, min(self._nearest, len(self._joined)) - 1, axis=1)[:, : self._nearest]
            found.around[rows] = self._joined[nearest].mean(axis=1) - self._joined.mean(axis=0)
        return found

    def _mean_of_nearest(self, cosines: np.ndarray, left_out: np.ndarray) -> np.ndarray:
        """Of each row the mean of the largest that are not left out; 0 if there is none."""
        cosines[left_out] = -np.inf
        count = min(self._nearest, cosines.shape[1])
        largest = np.partition(cosines, -count, axis=1)[:, -count:]
        there = np.isfinite(largest)
        return np.where(there, largest, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)


def _joined(texts: np.ndarray) -> np.ndarray:
    """The mean of the texts of each pair, of length 1."""
    joined = texts.mean(axis=1)
    return joined / np.maximum(np.linalg.norm(joined, axis=1, keepdims=True), 1e-6)


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
    Scores are as of `wrong_share`."""
    share = wrong_share(scores, null)
    candidates = scores[np.unique(np.linspace(0, (1 - LEAST_KEPT) * (len(scores) - 1), 400).astype(int))]
    kept = 1 - np.searchsorted(scores, candidates) / len(scores)
    wrong = share * (1 - np.searchsorted(null, candidates) / len(null)) / kept
    fitting = np.flatnonzero(wrong <= tolerated)
    chosen = int(fitting[0]) if len(fitting) else int(wrong.argmin())
    return Threshold(float(candidates[chosen]), float(kept[chosen]), float(wrong[chosen]))
