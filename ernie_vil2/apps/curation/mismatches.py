"""Scores of mismatched pairs, and from them the share of wrong pairs of a crawl and thresholds.

The scores of a crawl mix those of right and of wrong pairs. Wrong pairs are easy to imitate: score every image with
captions of other images. So the share of wrong pairs can be estimated without any label (Storey 2002), and with it the
share of wrong pairs above a threshold.
"""

from typing import NamedTuple

import numpy as np

# Number of other captions that each image is scored with. More make quantiles of mismatched scores more exact, and take
# time and memory in proportion.
NUM_MISMATCHES = 10
BLOCK = 1024  # pairs compared with all peers at once: BLOCK x peers float32 in memory, 80 MB for 20,000 peers
# Quantiles of mismatched scores below which wrong pairs are counted. Right pairs seldom score below the median of
# mismatched ones, and the lowest quantiles rest on few pairs. The smallest of the five estimates is used.
QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5)
MIN_KEPT_SHARE = 0.05  # a calibrated threshold keeps at least this share: above it, estimates rest on too few pairs
NUM_CANDIDATES = 400  # thresholds that are tried, at equal distances in rank: steps of a quarter of a percent
EPSILON = 1e-6  # added to deviations and lengths, which may be zero


class EmbeddedPairs(NamedTuple):
    """N embedded pairs.

    samples: `[N]` int64, number of each pair in the source.
    captions: `[N]` uint64, keys that are equal for equal captions.
    images: `[N, D]` float32, normalised.
    texts: `[N, texts, D]` float32, normalised; the texts are captions and tags, in each language.
    """

    samples: np.ndarray
    captions: np.ndarray
    images: np.ndarray
    texts: np.ndarray


class _Neighbourhoods(NamedTuple):
    """What is near N pairs among their peers; zeros if no neighbours are used.

    text_density: `[N, texts]`, mean cosine of the image and its nearest other texts.
    image_density: `[N, texts]`, mean cosine of each text and its nearest other images.
    mean_text: `[N, D]`, mean text of the pairs with the nearest images, minus the mean text of all peers.
    """

    text_density: np.ndarray
    image_density: np.ndarray
    mean_text: np.ndarray


class _Standardization:
    """Mean of several standardised terms, which is standardised again.

    Args:
        terms: `[M, terms]`, values whose means and standard deviations are used.
    """

    def __init__(self, terms: np.ndarray):
        self._means, self._deviations = terms.mean(axis=0), terms.std(axis=0) + EPSILON
        self._mean_deviation = 1.0  # for the call in the next line, which computes it
        self._mean_deviation = float(self(terms).std()) + EPSILON

    def __call__(self, terms: np.ndarray) -> np.ndarray:
        return ((terms - self._means) / self._deviations).mean(axis=1) / self._mean_deviation


class Peers:
    """Random pairs of a crawl, by comparison with which all of its pairs are scored.

    The score is the cosine of image and text, averaged over the texts, in standard deviations above the mean of
    mismatched pairs, which are peers with the texts of other peers.

    With neighbours, the score is the mean of two terms of the same scale. The first is twice the cosine minus
    the mean cosines of the nearest other texts and images (CSLS of Conneau et al., arXiv 1710.04087). The second is how
    near the text is to the texts of pairs with similar images.

    Args:
        pairs: the peers, one or more.
        num_neighbours: number of nearest texts, images and pairs that a pair is compared with; 0: none.

    Attributes:
        mismatched_scores: `[M]`, scores of mismatched pairs, sorted.
    """

    def __init__(self, pairs: EmbeddedPairs, num_neighbours: int = 0):
        self._pairs, self._num_neighbours = pairs, num_neighbours
        self._mean_texts = _average_texts(pairs.texts)

        # Mismatched pairs: each image with the texts of the peers that lie 1, 2, ... further on.
        neighbourhoods = self._find_neighbourhoods(pairs)
        num_shifts = min(NUM_MISMATCHES, len(pairs.images) - 1)
        shifts = range(1, num_shifts + 1) if num_shifts else range(1)  # a single peer has only its own text
        fit_blocks, agreement_blocks = [], []
        for shift in shifts:
            shift_fits, shift_agreements = self._compute_terms(pairs, neighbourhoods, shift)
            fit_blocks.append(shift_fits)
            agreement_blocks.append(shift_agreements)
        fits = np.concatenate(fit_blocks)  # [shifts * N, texts]
        agreements = np.concatenate(agreement_blocks)  # [shifts * N]

        # Both terms are put on the scale of mismatched pairs, so that they weigh the same in the score.
        self._standardize_fits = _Standardization(fits)
        self._standardize_both = _Standardization(np.stack([self._standardize_fits(fits), agreements], axis=1))
        self.mismatched_scores = np.sort(self._combine(fits, agreements))

    def score(self, pairs: EmbeddedPairs) -> np.ndarray:
        """Return the scores of pairs, `[N]`; the pairs may be among the peers."""
        return self._combine(*self._compute_terms(pairs, self._find_neighbourhoods(pairs)))

    def _combine(self, fits: np.ndarray, agreements: np.ndarray) -> np.ndarray:
        standard_fits = self._standardize_fits(fits)
        if not self._num_neighbours:
            return standard_fits
        return self._standardize_both(np.stack([standard_fits, agreements], axis=1))

    def _compute_terms(
        self, pairs: EmbeddedPairs, neighbourhoods: _Neighbourhoods, shift: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute how well images and texts fit.

        Args:
            pairs: the pairs.
            neighbourhoods: their neighbourhoods.
            shift: each image is paired with the texts of the pair that lies this much further on.

        Returns:
            Fit of the image and each text, `[N, texts]`, and similarity of the texts to those of similar images, `[N]`.
        """
        texts = np.roll(pairs.texts, -shift, axis=0)
        fits = np.einsum("nd,ntd->nt", pairs.images, texts)
        agreements = np.einsum("nd,nd->n", _average_texts(texts), neighbourhoods.mean_text)
        if self._num_neighbours:
            image_density = np.roll(neighbourhoods.image_density, -shift, axis=0)
            fits = 2 * fits - neighbourhoods.text_density - image_density
        return fits, agreements

    def _find_neighbourhoods(self, pairs: EmbeddedPairs) -> _Neighbourhoods:
        num_pairs, num_texts, width = pairs.texts.shape
        neighbourhoods = _Neighbourhoods(
            np.zeros((num_pairs, num_texts), np.float32),
            np.zeros((num_pairs, num_texts), np.float32),
            np.zeros((num_pairs, width), np.float32),
        )
        if not self._num_neighbours:
            return neighbourhoods
        peers = self._pairs
        for start in range(0, num_pairs, BLOCK):
            rows = slice(start, start + BLOCK)

            # A peer with the same caption has no other text, and its image may fit this caption just as well.
            has_same_caption = pairs.captions[rows, None] == peers.captions  # [block, peers]
            for text in range(num_texts):
                cosines = pairs.images[rows] @ peers.texts[:, text].T
                neighbourhoods.text_density[rows, text] = self._average_largest(cosines, has_same_caption)
                cosines = pairs.texts[rows, text] @ peers.images.T
                neighbourhoods.image_density[rows, text] = self._average_largest(cosines, has_same_caption)

            # The pair itself may be among the peers, and must not vouch for its own text.
            cosines = pairs.images[rows] @ peers.images.T
            cosines[pairs.samples[rows, None] == peers.samples] = -np.inf
            last = min(self._num_neighbours, len(self._mean_texts)) - 1
            nearest = np.argpartition(-cosines, last, axis=1)[:, : self._num_neighbours]
            mean_text = self._mean_texts[nearest].mean(axis=1) - self._mean_texts.mean(axis=0)
            neighbourhoods.mean_text[rows] = mean_text
        return neighbourhoods

    def _average_largest(self, cosines: np.ndarray, is_excluded: np.ndarray) -> np.ndarray:
        """Return for each row the mean of its largest cosines that are not excluded, 0 if there is none."""
        cosines[is_excluded] = -np.inf
        count = min(self._num_neighbours, cosines.shape[1])
        largest = np.partition(cosines, -count, axis=1)[:, -count:]
        is_included = np.isfinite(largest)
        return np.where(is_included, largest, 0).sum(axis=1) / np.maximum(is_included.sum(axis=1), 1)


def _average_texts(texts: np.ndarray) -> np.ndarray:
    """Return the normalised mean of the texts of each pair, `[N, texts, D]` to `[N, D]`."""
    means = texts.mean(axis=1)
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), EPSILON)


def estimate_wrong_share(scores: np.ndarray, mismatched_scores: np.ndarray) -> float:
    """Estimate an upper bound of the share of wrong pairs.

    If all pairs were wrong, a share q of them would score below the quantile q of mismatched scores. The observed share
    relative to q is the share of wrong pairs, plus that of right ones that score so low.

    Args:
        scores: scores of the pairs, sorted.
        mismatched_scores: scores of mismatched pairs, sorted.
    """
    estimates = []
    for quantile in QUANTILES:
        num_below = np.searchsorted(scores, np.quantile(mismatched_scores, quantile))
        estimates.append(num_below / len(scores) / quantile)
    return float(min(1.0, *estimates))


class Threshold(NamedTuple):
    """A threshold, the share of pairs that reach it, and the estimated share of wrong pairs among these."""

    score: float
    kept_share: float
    wrong_share: float


def calibrate_threshold(scores: np.ndarray, mismatched_scores: np.ndarray, max_wrong_share: float) -> Threshold:
    """Return the lowest threshold with at most this estimated share of wrong pairs above it.

    If there is none, the threshold with the smallest share is returned.

    Args:
        scores: scores of the pairs, sorted.
        mismatched_scores: scores of mismatched pairs, sorted.
        max_wrong_share: tolerated share of wrong pairs among those that are kept.
    """
    wrong_share = estimate_wrong_share(scores, mismatched_scores)
    ranks = np.linspace(0, (1 - MIN_KEPT_SHARE) * (len(scores) - 1), NUM_CANDIDATES).astype(int)
    candidates = scores[np.unique(ranks)]
    kept_shares = 1 - np.searchsorted(scores, candidates) / len(scores)
    mismatched_shares = 1 - np.searchsorted(mismatched_scores, candidates) / len(mismatched_scores)
    wrong_shares = wrong_share * mismatched_shares / kept_shares
    tolerable = np.flatnonzero(wrong_shares <= max_wrong_share)
    best = int(tolerable[0]) if len(tolerable) else int(wrong_shares.argmin())
    return Threshold(float(candidates[best]), float(kept_shares[best]), float(wrong_shares[best]))
