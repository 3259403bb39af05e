"""Prove that one change of light or colour turns an image into another one.

People make an image brighter, change its contrast, gamma or saturation, or tint it. Each of these has one to three
numbers that hold for all levels, while a curve that is fitted to plain shapes turns a red disc on white into a pink
one. Such a change is fitted to two images that lie on each other. If it predicts the other image, with what it cuts off
at black and white, and predicts more levels than it has numbers, they are copies.
"""

from collections.abc import Callable

import cv2
import numpy as np

from ernie_vil2.apps.curation.registration import compute_luminance, find_largest, remove_luminance

DARKEST, LIGHTEST = 6.0, 249.0  # levels beyond which a level may have been cut off
MAX_FLAT_RANGE = 24.0  # levels among the neighbours of a sample; edges were mixed before or after levels were cut off
MIN_SAMPLES = 200  # flat samples, a square of 14
NUM_SAMPLES = 2000  # to which a change is fitted
NUM_ROUNDS = 4  # after each of them, samples that fit badly are left out, such as those of a mark
MAX_ERROR = 8.0  # levels by which a sample may be off: compression, and rounding before levels were stretched
MIN_PREDICTED = 0.95  # share of the flat samples that are predicted so well
# Luminances that are not cut off have to spread by so much, or one number explains the only colour that there is.
MIN_SPREAD, MIN_WHOLE = 16.0, 0.1  # standard deviation; share of the flat samples
MAX_PIVOT = 215.0  # level that a change of contrast leaves as it is: a mean. A paler shape leaves a white ground so
MAX_TINT = 0.2  # between the gains of the channels: a tint of 15 %, and compression

Change = Callable[[np.ndarray], np.ndarray]
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
    # What was cut off cannot be brought back, so both directions are tried.
    for source, target, is_forward in ((first_samples, second_samples, True), (second_samples, first_samples, False)):
        for fit in (_fit_light, _fit_gamma, _fit_saturation, _fit_tint):
            change = _refine(source, target, fit)
            if change is not None and _predicts(change, source, target):
                return (change(first), second) if is_forward else (first, change(second))
    return None


def _measure_range(pixels: np.ndarray) -> np.ndarray:
    """Return by how many levels the neighbours of each sample differ, in the channel where they do most, `[H, W]`."""
    return find_largest(cv2.dilate(pixels, _NEIGHBOURS) - cv2.erode(pixels, _NEIGHBOURS))


def _find_whole(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return where neither of two levels was cut off, bool of their shape."""
    return (np.minimum(source, target) > DARKEST) & (np.maximum(source, target) < LIGHTEST)


def _predicts(change: Change, source: np.ndarray, target: np.ndarray) -> bool:
    """Return whether a change predicts nearly all samples, `[N, 1, 3]`, and more levels than its numbers explain."""
    is_predicted = find_largest(np.abs(change(source) - target)) <= MAX_ERROR
    if is_predicted.mean() < MIN_PREDICTED:
        return False
    lights = compute_luminance(source)[is_predicted & _find_whole(source, target).any(axis=2)]
    return len(lights) >= MIN_WHOLE * len(source) and float(lights.std()) >= MIN_SPREAD


def _refine(source: np.ndarray, target: np.ndarray, fit: Callable[..., Change | None]) -> Change | None:
    """Return the change that `fit` finds between samples, `[N, 1, 3]`, once those that it misses are left out."""
    weights = _find_whole(source, target).astype(np.float32)
    change = None
    for _ in range(NUM_ROUNDS):
        if weights.sum() < MIN_SAMPLES:
            return None
        change = fit(source, target, weights)
        if change is None:
            return None
        errors = np.abs(change(source) - target)
        typical_error = float((errors * weights).sum() / weights.sum())
        weights = weights * (errors <= max(3 * typical_error, MAX_ERROR))
    return change


def _fit_light(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> Change | None:
    """Return the gain and the offset of all channels that fit samples best, or None if nobody makes such a change."""
    total = weights.sum()
    source_mean, target_mean = (source * weights).sum() / total, (target * weights).sum() / total
    centred = (source - source_mean) * weights
    gain = float((centred * (target - target_mean)).sum() / max(float((centred**2).sum()), 1.0))
    offset = float(target_mean - gain * source_mean)
    # The level that stays as it is; a gain near 1 has none.
    pivot = offset / (1 - gain) if abs(gain - 1) > 0.05 else 0.0
    if not 0.3 < gain < 3 or pivot > MAX_PIVOT:
        return None
    return lambda levels: np.clip(gain * levels + offset, 0, 255)


def _fit_gamma(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> Change | None:
    """Return the power of all channels that fits samples best, or None if nobody makes such a change."""
    source_logs, target_logs = (np.log(np.clip(levels, 1, 254) / 255) for levels in (source, target))
    power = float((source_logs * target_logs * weights).sum() / max(float((source_logs**2 * weights).sum()), 1e-3))
    if not 0.3 < power < 3:
        return None
    return lambda levels: 255 * (np.maximum(levels, 0) / 255) ** power


def _fit_saturation(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> Change | None:
    """Return the saturation that fits samples best, or None if it turns colours into their opposites."""
    lights, colours = compute_luminance(source)[..., None], remove_luminance(source)
    product = float((colours * (target - lights) * weights).sum())
    saturation = product / max(float((colours**2 * weights).sum()), 1.0)
    if not -0.1 <= saturation < 3:
        return None
    saturation = max(saturation, 0.0)

    def change(levels: np.ndarray) -> np.ndarray:
        lights = compute_luminance(levels)[..., None]
        return np.clip(lights + saturation * remove_luminance(levels), 0, 255)

    return change


def _fit_tint(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> Change | None:
    """Return the gains of the channels that fit samples best, or None if they are more than a tint."""
    gains = (source * target * weights).sum(axis=(0, 1)) / np.maximum((source**2 * weights).sum(axis=(0, 1)), 1.0)
    if np.ptp(gains) > MAX_TINT * gains.max() or not 0.3 < gains.max() < 3:
        return None
    return lambda levels: np.clip(levels * gains, 0, 255)
