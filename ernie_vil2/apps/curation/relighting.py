"""Prove that one change of light or colour turns an image into another one.

People make an image brighter, change its contrast, gamma or saturation, or tint it. Each of these has one to three
numbers that hold for all levels, while a curve that is fitted to plain shapes turns a red disc on white into a pink
one. Such a change is fitted to two images that lie on each other. If it predicts the other image, with what it cuts off
at black and white, and predicts more levels than it has numbers, they are copies.
"""

from collections.abc import Callable

import cv2
import numpy as np

from ernie_vil2.apps.curation.image_measures import compute_percentile
from ernie_vil2.apps.curation.registration import LUMA, compute_luminance, find_largest_channel, remove_luminance

DARKEST, LIGHTEST = 6.0, 249.0  # levels beyond which a level may have been cut off
MAX_FLAT_RANGE = 24.0  # levels among the neighbours of a sample; edges were mixed before or after levels were cut off
MIN_SAMPLES = 200  # flat samples, a square of 14
NUM_SAMPLES = 2000  # to which a change is fitted
MAX_FITS = 4  # of a change; between two of them, samples that fit badly are left out, such as those of a mark
PREDICTED_PERCENT = 95  # of the flat samples that a change has to predict
# Levels by which such samples may be off: compression, which a stronger saturation doubles. With 8, a tenth less of the
# drawings with twice the saturation are found, and of 250 photographs in another hue 20 count as the same, with 12, 22.
MAX_ERROR = 12.0
SURE_ERROR = 8.0  # a change that is off by no more is the one that was made; else the best of all changes counts
# Luminances that are not cut off have to spread by so much, or one number explains the only colour that there is.
MIN_SPREAD, SPREAD_PERCENTS = 32.0, (3, 97)  # levels between the luminances of these percentiles
MIN_WHOLE = 0.1  # share of the flat samples that has to be such luminances
MAX_PIVOT = 215.0  # level that a change of contrast leaves as it is: a mean. A paler shape leaves a white ground so
MAX_TINT = 0.2  # between the gains of the channels: a tint of 15 %, and compression

Change = Callable[[np.ndarray], np.ndarray]
"""A change of levels, `[H, W, 3]` float32."""
Fit = Callable[[np.ndarray], Change | None]
"""Returns the change that fits samples best, from their weights, 0 or 1, `[N, 1, 3]`; None if it is implausible."""
_NEIGHBOURS = np.ones((3, 3), np.uint8)


def relight(first: np.ndarray, second: np.ndarray, is_covered: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return two images of equal light and colour, one of them as it was, or None if no change explains the other.

    Args:
        first: an image, `[H, W, 3]` float32 RGB.
        second: the image that lies on it.
        is_covered: where both are known, `[H, W]` bool.
    """
    is_flat = is_covered & (_measure_range(first) < MAX_FLAT_RANGE) & (_measure_range(second) < MAX_FLAT_RANGE)
    places = np.flatnonzero(is_flat)
    if len(places) < MIN_SAMPLES:
        return None
    places = places[:: len(places) // NUM_SAMPLES | 1]
    first_samples, second_samples = (pixels.reshape(-1, 1, 3)[places] for pixels in (first, second))
    relit = None
    least_error = MAX_ERROR
    # What was cut off cannot be brought back, so both directions are tried.
    for source, target, is_forward in ((first_samples, second_samples, True), (second_samples, first_samples, False)):
        is_whole = _find_whole(source, target)
        for prepare_fit in (_prepare_light, _prepare_gamma, _prepare_saturation, _prepare_tint):
            change = _refine(source, target, is_whole, prepare_fit)
            if change is None:
                continue
            error = _measure_error(change, source, target, is_whole)
            if error <= least_error:
                least_error = error
                relit = (change(first), second) if is_forward else (first, change(second))
            if least_error <= SURE_ERROR:
                return relit
    return relit


def _measure_range(pixels: np.ndarray) -> np.ndarray:
    """Return by how many levels the neighbours of each sample differ, in the channel where they do most, `[H, W]`."""
    return find_largest_channel(cv2.dilate(pixels, _NEIGHBOURS) - cv2.erode(pixels, _NEIGHBOURS))


def _find_whole(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return where neither of two levels was cut off, bool of their shape."""
    return (np.minimum(source, target) > DARKEST) & (np.maximum(source, target) < LIGHTEST)


def _measure_error(change: Change, source: np.ndarray, target: np.ndarray, is_whole: np.ndarray) -> float:
    """Return by how many levels a change is off, but for the samples that it predicts worst.

    It is infinite if what is predicted has no more levels than the numbers of the change explain.

    Args:
        change: change from the source to the target.
        source: samples of an image, `[N, 1, 3]`.
        target: the same samples of the other image.
        is_whole: which of their levels were not cut off, from `_find_whole`, `[N, 1, 3]` bool.
    """
    errors = find_largest_channel(cv2.absdiff(change(source), target))  # [N, 1]
    error = compute_percentile(errors.ravel(), PREDICTED_PERCENT)
    lights = compute_luminance(source)[(errors <= error) & is_whole.any(axis=2)]
    if len(lights) < MIN_WHOLE * len(source):
        return np.inf
    spread = compute_percentile(lights, SPREAD_PERCENTS[1]) - compute_percentile(lights, SPREAD_PERCENTS[0])
    return error if spread >= MIN_SPREAD else np.inf


def _refine(
    source: np.ndarray, target: np.ndarray, is_whole: np.ndarray, prepare_fit: Callable[[np.ndarray, np.ndarray], Fit]
) -> Change | None:
    """Return the change between samples once those that it misses are left out; None if no plausible one is found.

    Args:
        source: samples of an image, `[N, 1, 3]`.
        target: the same samples of the other image.
        is_whole: which of their levels were not cut off, from `_find_whole`, `[N, 1, 3]` bool.
        prepare_fit: returns the fit of one kind of change between samples.
    """
    weights = is_whole.astype(np.float32)
    num_levels = float(weights.sum())  # of channels, three a sample
    if num_levels < MIN_SAMPLES:
        return None
    fit = prepare_fit(source, target)
    change = fit(weights)
    for _ in range(MAX_FITS - 1):
        if change is None:
            return None
        errors = cv2.absdiff(change(source), target)
        typical_error = float(errors.ravel() @ weights.ravel()) / num_levels
        weights *= errors <= max(3 * typical_error, MAX_ERROR)
        num_levels_before, num_levels = num_levels, float(weights.sum())
        if num_levels < MIN_SAMPLES:
            return None
        if num_levels == num_levels_before:  # nothing was left out, so that the same change would be found again
            break
        change = fit(weights)
    return change


def _limit(levels: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(levels, 0), 255)  # in half of np.clip's time


def _prepare_light(source: np.ndarray, target: np.ndarray) -> Fit:
    """Return the fit of a gain and an offset that all channels share."""
    terms = np.stack([source, target, source * source, source * target]).reshape(4, -1)

    def fit(weights: np.ndarray) -> Change | None:
        source_mean, target_mean, mean_square, mean_product = (terms @ weights.ravel() / weights.sum()).tolist()
        gain = (mean_product - source_mean * target_mean) / max(mean_square - source_mean**2, 1e-3)
        offset = target_mean - gain * source_mean
        # The level that stays as it is; a gain near 1 has none.
        pivot = offset / (1 - gain) if abs(gain - 1) > 0.05 else 0.0
        if not 0.3 < gain < 3 or pivot > MAX_PIVOT:
            return None
        return lambda levels: _limit(gain * levels + offset)

    return fit


def _prepare_gamma(source: np.ndarray, target: np.ndarray) -> Fit:
    """Return the fit of a power that all channels share."""
    source_logs, target_logs = (np.log(np.clip(levels, 1, 254) / 255) for levels in (source, target))
    products = np.stack([source_logs * target_logs, source_logs * source_logs]).reshape(2, -1)

    def fit(weights: np.ndarray) -> Change | None:
        product, square = (products @ weights.ravel()).tolist()
        power = product / max(square, 1e-3)
        if not 0.3 < power < 3:
            return None
        return lambda levels: 255 * (np.maximum(levels, 0) / 255) ** power

    return fit


def _prepare_saturation(source: np.ndarray, target: np.ndarray) -> Fit:
    """Return the fit of a saturation, which must not turn colours into their opposites."""
    lights, colours = compute_luminance(source)[..., None], remove_luminance(source)
    products = np.stack([colours * (target - lights), colours * colours]).reshape(2, -1)

    def fit(weights: np.ndarray) -> Change | None:
        product, square = (products @ weights.ravel()).tolist()
        saturation = product / max(square, 1.0)
        if not -0.1 <= saturation < 3:
            return None
        saturation = max(saturation, 0.0)
        # Each channel becomes the luminance, plus the saturation times its difference from the luminance.
        matrix = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * LUMA
        return lambda levels: _limit(cv2.transform(levels, matrix))

    return fit


def _prepare_tint(source: np.ndarray, target: np.ndarray) -> Fit:
    """Return the fit of one gain for each channel, which must not differ by more than a tint."""
    products, squares = source * target, source * source

    def fit(weights: np.ndarray) -> Change | None:
        sums = [np.array(cv2.sumElems(values * weights)[:3], np.float32) for values in (products, squares)]
        gains = sums[0] / np.maximum(sums[1], 1.0)
        if np.ptp(gains) > MAX_TINT * gains.max() or not 0.3 < gains.max() < 3:
            return None
        return lambda levels: _limit(levels * gains)

    return fit
