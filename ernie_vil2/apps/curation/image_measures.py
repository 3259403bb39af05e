"""Measures of images that show no scene, or not well: gradients, collages, unfinished and blurred files."""

import math

import cv2
import numpy as np

# Images are looked at in this size at most, in pixels of the longer side: letters of a page on a telephone are still
# four pixels high, and most images of the web are hardly larger.
MAX_SIDE = 640
_GRADIENT_SIDE = 32
_PEAK = 8  # standard deviations; noise has less than 4
_COORDINATES = np.linspace(-1, 1, _GRADIENT_SIDE)
_Y, _X = (grid.ravel() for grid in np.meshgrid(_COORDINATES, _COORDINATES, indexing="ij"))
_POLYNOMIALS = np.linalg.qr(np.stack([np.ones_like(_X), _X, _Y, _X * _X, _X * _Y, _Y * _Y], axis=1))[0].T.copy()
"""Orthonormal polynomials of two variables up to degree two, `[6, 1024]`."""


def measure_relief(small_pixels: np.ndarray) -> float:
    """Return how far an image is from a smooth gradient, the best surface of degree two.

    Args:
        small_pixels: `[H, W, 3]` uint8.

    Returns:
        The standard deviation in levels, of the channel where it is greatest, or an eighth of the greatest difference,
        if that is more: a bird in an even sky is no gradient.
    """
    size = (_GRADIENT_SIDE, _GRADIENT_SIDE)
    coarse = cv2.resize(small_pixels, size, interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float64)
    # The constant is one of the polynomials: another level changes nothing, and an even image has exactly 0.
    coarse -= coarse[0]
    coefficients = _POLYNOMIALS @ coarse  # [6, 3]
    coarse -= _POLYNOMIALS.T @ coefficients
    deviation = math.sqrt(float(np.einsum("ij,ij->j", coarse, coarse).max()) / len(coarse))
    return max(deviation, float(np.abs(coarse).max()) / _PEAK)


def compute_percentile(values: np.ndarray, percent: float) -> float:
    """Return what `numpy.percentile` returns; it takes a tenth of the time for an image's rows."""
    place = percent / 100 * (len(values) - 1)
    below = int(place)
    above = min(below + 1, len(values) - 1)
    ordered = np.partition(values, (below, above))
    low, high = float(ordered[below]), float(ordered[above])
    return low + (high - low) * (place - below)


_STRIPE, _STRIPES_AREA = 16, 512 * 512  # rows of a stripe, and pixels of all of them, which bound the time
_STRONG_EDGE = 0.15  # in standard deviations of the levels; noise and the traces of compression are weaker


def measure_sharpness(luminance: np.ndarray) -> float:
    """Return a number in proportion to the number of pixels that the details of an image are worth.

    It is the mean square of the strong slopes, relative to the variance of the levels, times the number of pixels, at
    the size where it is greatest: the image's own, or a half, a quarter, ... of it. An enlarged image has no more than
    the original, a blurred one less; light and contrast do not matter. Numbers can be compared only between images that
    show the same.

    Args:
        luminance: `[H, W]` uint8, in full size.
    """
    sharpness = 0.0
    while min(luminance.shape) >= 2 * _STRIPE:
        sharpness = max(sharpness, _sum_strong_slopes(luminance))
        luminance = halve(luminance)
    return sharpness


def _sum_strong_slopes(luminance: np.ndarray) -> float:
    height, width = luminance.shape
    num_stripes = max(1, _STRIPES_AREA // (_STRIPE * width))
    if num_stripes * _STRIPE < height:
        # Stripes from top to bottom show the same of an image in any size, which a part of the middle would not.
        tops = np.linspace(0, height - _STRIPE, num_stripes).astype(int)
        stripes = [luminance[top : top + _STRIPE] for top in tops]
    else:
        stripes = [luminance]
    deviation = max(cv2.meanStdDev(np.concatenate(stripes))[1].item(), 1.0)
    unit = 2 * deviation  # slopes are differences of pixels that are two apart
    total = 0.0
    for stripe in stripes:
        # Sobel's filter in bytes, which takes a third of the time: differences are smoothed along the edge.
        smooth_columns, smooth_rows = cv2.GaussianBlur(stripe, (1, 3), 0), cv2.GaussianBlur(stripe, (3, 1), 0)
        slopes_x = cv2.absdiff(smooth_columns[:, 2:], smooth_columns[:, :-2])
        slopes_y = cv2.absdiff(smooth_rows[2:], smooth_rows[:-2])
        for slopes in (slopes_x, slopes_y):
            _, strong_slopes = cv2.threshold(slopes, _STRONG_EDGE * unit, 0, cv2.THRESH_TOZERO)
            total += cv2.norm(strong_slopes, cv2.NORM_L2SQR)
    mean_square = total / unit**2 / sum(stripe.size for stripe in stripes)
    return mean_square * luminance.size


_WINDOW = 7  # pixels of a thumbnail, within which even a blurred edge ends
_LEAST_RANGE = 24  # levels in a window from which a slope is looked at; noise has fewer
_LEAST_PLACES = 60  # with such a range, fewer of which tell nothing
_GRAIN = 0.4  # levels; every sharp image of the made crawls has more, a blurred and enlarged one hardly any
_MAX_BLURRED = 0.35  # focus from which the grain is not looked at, which takes longer


def measure_focus(small_luminance: np.ndarray, luminance: np.ndarray) -> float:
    """Return how steep the steepest edges of an image are: about 0.2 out of focus, and from 0.4 in photographs.

    It is the step between two pixels of a thumbnail over the range of levels around them, at the hundredth of all
    places where it is steepest. A plain image has 1, and so has one with grain, which was in focus somewhere.

    Args:
        small_luminance: at most 160 pixels a side, `[H, W]` uint8.
        luminance: from `shrink_luminance`.
    """
    levels = small_luminance
    if min(levels.shape) < 2 * _WINDOW:
        return 1.0
    window = np.ones((_WINDOW, _WINDOW), np.uint8)
    ranges = cv2.subtract(cv2.dilate(levels, window), cv2.erode(levels, window))[1:, 1:]
    steps = cv2.max(cv2.absdiff(levels[1:, 1:], levels[1:, :-1]), cv2.absdiff(levels[1:, 1:], levels[:-1, 1:]))
    # Frames and bars are no part of what was in front of the lens.
    margin = _WINDOW // 2
    inside = (slice(margin, -margin), slice(margin, -margin))
    ranges, steps = ranges[inside], steps[inside]
    is_edge = ranges >= _LEAST_RANGE
    if np.count_nonzero(is_edge) < _LEAST_PLACES:
        return 1.0
    focus = compute_percentile(np.divide(steps[is_edge], ranges[is_edge], dtype=np.float32), 99)
    if focus < _MAX_BLURRED:
        grain = cv2.subtract(luminance, cv2.GaussianBlur(luminance, (0, 0), 1.2), dtype=cv2.CV_16S)
        _, deviation = cv2.meanStdDev(grain)
        if deviation.item() >= _GRAIN:
            return 1.0
    return focus


_BLOCK = 8  # pixels of a side of a block of JPEG
_MAX_STEP = 16  # levels between neighbouring pixels; larger ones are edges of what the image shows


def measure_blocks(luminance: np.ndarray) -> float:
    """Return by how much the levels change more between the blocks of JPEG than within them, as a share.

    Args:
        luminance: `[H, W]` uint8, in full size.
    """
    if min(luminance.shape) < 3 * _BLOCK:
        return 0.0
    ratios = []
    steps_down = cv2.absdiff(luminance[1:], luminance[:-1])
    steps_right = cv2.absdiff(luminance[:, 1:], luminance[:, :-1])
    for axis, all_steps in ((1, steps_down), (0, steps_right)):
        _, small_steps = cv2.threshold(all_steps, _MAX_STEP, 0, cv2.THRESH_TRUNC)
        steps = cv2.reduce(small_steps, axis, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel()  # [H - 1] or [W - 1]
        between = steps[_BLOCK - 1 :: _BLOCK]
        within = (steps.sum() - between.sum()) / (len(steps) - len(between))
        ratios.append(float(between.mean() / max(within, 0.25)))
    return max(0.0, min(ratios) - 1)


def measure_unfinished(pixels: np.ndarray) -> float:
    """Return the share of an image's rows, from the lowest up, that are the grey of a JPEG file that was cut off."""
    rows = pixels[::-1, :: max(1, pixels.shape[1] // 64)]
    if not _is_grey(rows[:1])[0]:
        return 0.0
    is_grey = _is_grey(rows)
    return 1.0 if is_grey.all() else float(is_grey.argmin() / len(rows))


def _is_grey(rows: np.ndarray) -> np.ndarray:
    return ((rows >= 126) & (rows <= 130)).all(axis=(1, 2))


def shrink_luminance(luminance: np.ndarray) -> np.ndarray:
    """Shrink a luminance, `[H, W]` uint8, to at most `MAX_SIDE` pixels a side."""
    factor = MAX_SIDE / max(luminance.shape)
    if factor >= 1:
        return luminance
    height, width = (max(1, round(side * factor)) for side in luminance.shape)
    return cv2.resize(luminance, (width, height), interpolation=cv2.INTER_AREA)


def halve(image: np.ndarray) -> np.ndarray:
    """Shrink an image, `[H, W]` uint8, to half the size, without the last line if their number is odd.

    OpenCV takes six times as long for any other factor than exactly two.
    """
    height, width = (side // 2 for side in image.shape)
    return cv2.resize(image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)


_SEAMS = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4)  # of a side, where the pictures of a collage meet
_STEP = 16  # levels between two pictures, or a picture and the line between them
_MAX_GAP = 6  # pixels between the two sides of a seam
_WHOLE = 0.85  # share of an end of a line along which the levels change in a seam
_SMALLEST_COLLAGE = 128  # pixels; the lines of smaller images are too few to tell
# Share of an image whose pixels equal their neighbours, from which it is no collage: charts side by side, flags and
# boards have from 0.67, collages of photographs up to 0.1, and of goods on white up to 0.65, but for the plainest.
_EVEN_SHARE = 0.65
_MIN_REST = 0.4  # of the deviation, which rows and columns do not explain: collages have from 0.43, cloth 0.02
_MAX_SEAMS = 5  # lines one way: sixteen pictures have three, with two sides each; knitting and crosswords have more


def measure_seams(luminance: np.ndarray) -> float:
    """Return how far straight seams cross an image both ways, as in a collage.

    Args:
        luminance: from `shrink_luminance`.

    Returns:
        Share of the image's width, or height if it is less, along which the levels change from one line to the next,
        beyond the share of the lines around it: in a rough image levels change everywhere. Lines that change at neither
        end are edges of a thing in the middle and do not count; between two white pictures half of a seam is missing.
        0 of an image that is mostly even.
    """
    if min(luminance.shape) < _SMALLEST_COLLAGE:
        return 0.0
    share = _measure_horizontal_seams(luminance)
    if share:
        share = min(share, _measure_horizontal_seams(cv2.transpose(luminance)))
    return share if share and _shows_pictures(luminance) else 0.0


def _shows_pictures(luminance: np.ndarray) -> bool:
    """Return whether an image with seams is no chart, flag, board or cloth."""
    contrast = cv2.morphologyEx(luminance, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    if cv2.countNonZero(cv2.inRange(contrast, 0, 1)) > _EVEN_SHARE * contrast.size:
        return False
    # Checks and stripes are sums of a level for each row and one for each column.
    size = (_GRADIENT_SIDE, _GRADIENT_SIDE)
    coarse = cv2.resize(luminance, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    coarse -= coarse.mean()
    rest = coarse - coarse.mean(axis=0) - coarse.mean(axis=1, keepdims=True)
    return bool(rest.std() >= _MIN_REST * coarse.std())


def _measure_horizontal_seams(luminance: np.ndarray) -> float:
    height = len(luminance)
    steps = cv2.threshold(cv2.absdiff(luminance[1:], luminance[:-1]), _STEP - 1, 1, cv2.THRESH_BINARY)[1]
    end = steps.shape[1] // 5
    reaches_end = np.maximum(_average_rows(steps[:, :end]), _average_rows(steps[:, -end:])) >= _WHOLE
    if not reaches_end.any():
        return 0.0
    shares = _average_rows(steps)
    lines = np.flatnonzero(shares >= 0.45)
    if np.count_nonzero(np.diff(lines, prepend=-height) > _MAX_GAP) > _MAX_SEAMS:
        return 0.0
    best = 0.0
    for place in _SEAMS:
        # Pictures are a few pixels apart at most, and seldom exactly where they should be.
        middle, reach = round(place * height), max(6, height // 40)
        band = slice(middle - reach, middle + reach)
        seams = shares[band][reaches_end[band]]
        if len(seams):
            best = max(best, float(seams.max() - np.median(shares[band])))
    return best


def _average_rows(levels: np.ndarray) -> np.ndarray:
    return cv2.reduce(levels, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel()
