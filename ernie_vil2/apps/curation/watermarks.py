"""Watermarks that are tiled over an image: the same faint mark, at the points of a lattice."""

import math
from functools import cache, lru_cache

import cv2
import numpy as np

# Everything was chosen on the made crawls of demo_data/crawls, whose marks are names at an angle; figures of others
# are in docs/notes/curation.md. Sides are the longer ones, in pixels: at 128 many marks are a blur, and 256 takes four
# times as long, so that only images that are like themselves at 128 are looked at again.
_COARSE_SIDE, _FINE_SIDE = 128, 256
_MAX_LEVEL = 6.0  # levels from the surroundings: a mark is faint, and what the image shows must not outweigh it
_MIN_LAG = 0.09  # of the longer side; nearer than that everything is like itself
_MIN_OVERLAP = 0.12  # share of the area that an image and its moved copy have in common
_CANDIDATE = 3.3  # deviations at 128 pixels, which 4 % of photographs reach, and nearly all marked images
_MIN_SLANT = 0.03  # of the longer side; windows, panels and printed patterns repeat straight to the right
_MIN_BORDER = 0.35  # marks are cut off at the border; there is little around a set of equal things on an even ground
_MAX_RIDGE = 0.25  # of a peak's height, around it; stripes, frames and rows of windows are ridges, letters are not


def measure_watermark(small_pixels: np.ndarray, luminance: np.ndarray) -> float:
    """Return how clearly faint marks repeat in two directions.

    An image is correlated with itself, moved by every vector; all frequencies weigh the same, so that only what repeats
    exactly shows. The measure is the height of the second of the two peaks that span the lattice.

    Args:
        small_pixels: at most 128 pixels a side, `[H, W, 3]` uint8.
        luminance: from `shrink_luminance`.

    Returns:
        Height in standard deviations of the correlations: 2 to 3 of images without marks, 5 to 25 of images with them,
        and 0 if there are no two narrow peaks at an angle.
    """
    coarse = _keep_fine_levels(cv2.cvtColor(small_pixels, cv2.COLOR_RGB2GRAY), _COARSE_SIDE)
    if coarse is None or _measure_border(coarse) < _MIN_BORDER:
        return 0.0
    if _correlate(coarse, _COARSE_SIDE).max() < _CANDIDATE:
        return 0.0
    levels = _keep_fine_levels(luminance, _FINE_SIDE)
    if levels is None:
        return 0.0

    correlations = _correlate(levels, _FINE_SIDE)
    first = _find_peak(correlations)
    if not _is_mark(correlations, first):
        return 0.0
    # The second vector of the lattice must lead away from the line of the first.
    lags_y, lags_x = _make_lags(_FINE_SIDE)
    distances = np.abs(lags_y * first[1] - lags_x * first[0]) / np.hypot(*first)
    second = _find_peak(np.where(distances >= 0.06 * _FINE_SIDE, correlations, 0))
    if not _is_mark(correlations, second):
        return 0.0
    return float(correlations[second[0], second[1] + _FINE_SIDE])


def _is_mark(correlations: np.ndarray, peak: tuple[int, int]) -> bool:
    """Return whether a peak is at an angle, and narrow."""
    return peak[0] >= _MIN_SLANT * _FINE_SIDE and _measure_ridge(correlations, peak) <= _MAX_RIDGE


@cache
def _make_lags(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors by which an image is moved, downwards and either to the right or to the left."""
    return np.arange(side, dtype=np.float32)[:, None], np.arange(-side, side, dtype=np.float32)


def _keep_fine_levels(luminance: np.ndarray, side: int) -> np.ndarray | None:
    """Return by how much pixels differ from their surroundings, at most `side` pixels a side; None of a plain image."""
    height, width = luminance.shape
    factor = side / max(height, width)
    if factor < 1:
        height, width = max(1, round(factor * height)), max(1, round(factor * width))
        luminance = cv2.resize(luminance, (width, height), interpolation=cv2.INTER_AREA)
    if min(height, width) < side // 4:
        return None
    levels = luminance.astype(np.float32)
    levels -= cv2.GaussianBlur(levels, (0, 0), 1.5 if side == _COARSE_SIDE else 2.0)
    np.clip(levels, -_MAX_LEVEL, _MAX_LEVEL, out=levels)
    _, deviation = cv2.meanStdDev(levels)
    return levels if deviation.item() >= 0.03 else None


def _measure_border(levels: np.ndarray) -> float:
    """Return how much there is at the border of an image, relative to the whole image."""
    margin = len(levels) // 16
    inner = levels[margin:-margin, margin:-margin]
    total = cv2.norm(levels, cv2.NORM_L1)
    mean_of_border = (total - cv2.norm(inner, cv2.NORM_L1)) / (levels.size - inner.size)
    return mean_of_border / (total / levels.size)


def _correlate(levels: np.ndarray, side: int) -> np.ndarray:
    """Return the correlations of an image with itself, in standard deviations, `[side, 2 * side]`.

    Those of vectors that are short, or that leave little overlap, are 0.
    """
    height, width = levels.shape
    padded = np.zeros((2 * side, 2 * side), np.float32)
    padded[:height, :width] = levels - levels.mean()
    # OpenCV packs a real spectrum: columns 1, 3, 5, ... have the real parts, and those after them the imaginary ones,
    # which a power spectrum lacks. The first and the last column, of the lowest and highest frequency, are left out.
    squares = cv2.dft(padded)
    np.square(squares, out=squares)
    power = squares[:, 1:-1:2] + squares[:, 2::2]
    scale = cv2.blur(power, (9, 9)) + np.float32(1e-6 * cv2.minMaxLoc(power)[1])
    packed = np.zeros_like(padded)
    np.divide(power, scale, out=packed[:, 1:-1:2])
    moved = cv2.dft(packed, flags=cv2.DFT_INVERSE | cv2.DFT_SCALE)[:side]
    correlations = np.concatenate([moved[:, side:], moved[:, :side]], axis=1)

    is_valid, num_valid = _select_lags(height, width, side)
    valid = cv2.bitwise_and(correlations, correlations, mask=is_valid)
    mean = cv2.sumElems(valid)[0] / num_valid
    deviation = math.sqrt(max(0.0, cv2.norm(valid, cv2.NORM_L2SQR) / num_valid - mean**2))
    correlations = cv2.GaussianBlur(correlations, (0, 0), 0.8) * np.float32(1 / max(deviation, 1e-9))
    return cv2.bitwise_and(correlations, correlations, mask=is_valid)


@lru_cache(maxsize=128)  # many images of a crawl are of one size; at most 16 MB
def _select_lags(height: int, width: int, side: int) -> tuple[np.ndarray, int]:
    """Return 255 for the vectors that are long enough and leave enough overlap, and their number."""
    lags_y, lags_x = _make_lags(side)
    overlaps = np.maximum(height - lags_y, 0) * np.maximum(width - np.abs(lags_x), 0)
    is_valid = cv2.inRange(overlaps, _MIN_OVERLAP * height * width, math.inf)
    # Only vectors near to the middle column may be too short.
    reach = math.ceil(_MIN_LAG * side)
    columns = slice(side - reach, side + reach + 1)
    is_short = lags_y[:reach] ** 2 + lags_x[columns] ** 2 < (_MIN_LAG * side) ** 2
    is_valid[:reach, columns][is_short] = 0
    is_valid[0, :side] = 0  # the same vectors as to the right
    return is_valid, cv2.countNonZero(is_valid)


def _find_peak(correlations: np.ndarray) -> tuple[int, int]:
    """Return the vector of the greatest correlation: down, and to the right."""
    row, column = np.unravel_index(int(correlations.argmax()), correlations.shape)
    return int(row), int(column) - len(correlations)


_RADII = np.hypot(*np.mgrid[-8:9, -8:9])
_RING = (_RADII >= 4) & (_RADII <= 8)  # pixels at 256 a side, where the peak of a letter has ended


def _measure_ridge(correlations: np.ndarray, peak: tuple[int, int]) -> float:
    """Return the greatest correlation in a ring around a peak, as a share of the peak's."""
    # Of two opposite vectors only one is kept: what is above the first line is the lines below it, turned.
    above = np.zeros_like(correlations[:8])
    above[:, 1:] = correlations[8:0:-1, :0:-1]
    padded = np.pad(np.concatenate([above, correlations]), ((0, 8), (8, 8)))
    row, column = peak[0], peak[1] + len(correlations)
    around = padded[row : row + 17, column : column + 17]
    return float(around[_RING].max() / max(correlations[row, column], 1e-9))
