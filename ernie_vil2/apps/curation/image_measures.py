"""Measures of images that show no scene, or not well: gradients, collages and unfinished files.

The constants in front of a function are those that it uses. They were chosen on the synthetic crawls of
demo_data/crawls, the demo's drawings and crops of photographs.
"""

import math

import cv2
import numpy as np

# Images are looked at in this size at most, in pixels of the longer side: letters of a page on a telephone are still
# four pixels high, and most images of the web are hardly larger.
MAX_SIDE = 640
_GRADIENT_SIDE = 32
_PEAK = 8  # greatest difference in standard deviations from which it counts as more; noise has less than 4
_COORDINATES = np.linspace(-1, 1, _GRADIENT_SIDE)
_Y, _X = (grid.ravel() for grid in np.meshgrid(_COORDINATES, _COORDINATES, indexing="ij"))
_POLYNOMIALS = np.linalg.qr(np.stack([np.ones_like(_X), _X, _Y, _X * _X, _X * _Y, _Y * _Y], axis=1))[0].T.copy()
"""Orthonormal polynomials of two variables up to degree two, `[6, 1024]`."""


def measure_relief(small_pixels: np.ndarray) -> float:
    """Return how far the levels of an image are from a smooth gradient: the closest polynomial of degree two.

    Args:
        small_pixels: at most 160 pixels a side, `[H, W, 3]` uint8.

    Returns:
        The standard deviation in levels, of the channel where it is greatest, or an eighth of the greatest difference,
        if that is more: a bird in an even sky is no gradient.
    """
    size = (_GRADIENT_SIDE, _GRADIENT_SIDE)
    coarse = cv2.resize(small_pixels, size, interpolation=cv2.INTER_AREA)
    levels = coarse.reshape(-1, 3).astype(np.float64)  # [1024, 3]
    # The constant is one of the polynomials, so that another level changes nothing, and an even image has exactly 0.
    levels -= levels[0]
    coefficients = _POLYNOMIALS @ levels  # [6, 3]
    rest = levels - _POLYNOMIALS.T @ coefficients
    sums_of_squares = np.einsum("ij,ij->j", rest, rest)  # [3]
    deviation = math.sqrt(float(sums_of_squares.max()) / len(rest))
    return max(deviation, float(np.abs(rest).max()) / _PEAK)


def compute_percentile(values: np.ndarray, percent: float) -> float:
    """Return what `numpy.percentile` returns for `values`, `[N]`, in a tenth of its time for an image's rows."""
    position = percent / 100 * (len(values) - 1)
    below = int(position)
    above = min(below + 1, len(values) - 1)
    partitioned = np.partition(values, (below, above))
    low, high = float(partitioned[below]), float(partitioned[above])
    return low + (high - low) * (position - below)


_STRIPE = 16  # rows of a stripe
_STRIPES_AREA = 512 * 512  # pixels of all stripes, which bound the time
_STRONG_EDGE = 0.15  # in standard deviations of the levels; noise and the traces of compression are weaker


def measure_sharpness(luminance: np.ndarray) -> float:
    """Return a number in proportion to the number of pixels that the details of an image are worth.

    It is the mean square of the strong slopes, divided by the variance of the levels and multiplied by the number of
    pixels, in the size where this is greatest: full, half, quarter, and so on. An enlarged image has no more than the
    original, a blurred one less; light and contrast do not matter. Compare the numbers only of images that show the
    same.

    Args:
        luminance: `[H, W]` uint8, in full size.
    """
    sharpness = 0.0
    while min(luminance.shape) >= 2 * _STRIPE:
        sharpness = max(sharpness, _sum_strong_slopes(luminance))
        luminance = halve(luminance)
    return sharpness


def _sum_strong_slopes(luminance: np.ndarray) -> float:
    """Return the mean square of the strong slopes, over the variance, times the number of pixels."""
    height, width = luminance.shape
    num_stripes = max(1, _STRIPES_AREA // (_STRIPE * width))
    if num_stripes * _STRIPE < height:
        # Stripes from top to bottom show the same of an image in any size; a piece of the middle would not.
        tops = np.linspace(0, height - _STRIPE, num_stripes).astype(int)
        stripes = [luminance[top : top + _STRIPE] for top in tops]
    else:
        stripes = [luminance]
    _, deviation = cv2.meanStdDev(np.concatenate(stripes))
    # Slopes are differences of pixels that are two apart.
    unit = 2 * max(deviation.item(), 1.0)
    total = 0.0
    for stripe in stripes:
        # Sobel's filter: differences, smoothed along the edge. In bytes it takes a third of the time.
        smooth_columns = cv2.GaussianBlur(stripe, (1, 3), 0)
        smooth_rows = cv2.GaussianBlur(stripe, (3, 1), 0)
        slopes_x = cv2.absdiff(smooth_columns[:, 2:], smooth_columns[:, :-2])
        slopes_y = cv2.absdiff(smooth_rows[2:], smooth_rows[:-2])
        for slopes in (slopes_x, slopes_y):
            _, strong_slopes = cv2.threshold(slopes, _STRONG_EDGE * unit, 0, cv2.THRESH_TOZERO)
            total += cv2.norm(strong_slopes, cv2.NORM_L2SQR)
    mean_square = total / unit**2 / sum(stripe.size for stripe in stripes)
    return mean_square * luminance.size


_NOISE_SIDE = 512  # pixels of a side of the middle of an image, in which its noise is measured
_SCENE_SHARE = 0.6  # of the diagonal differences in half the size, which a sharp scene has in full size


def measure_noise(luminance: np.ndarray) -> float:
    """Return the strength of an image's noise, in levels: about 0.7 of its standard deviation, and 0 if it has none.

    The median of the diagonal differences of neighbouring pixels tells noise from edges, which are few (Donoho and
    Johnstone 1994). What a scene adds to it is greater in half of the size, while noise is weaker there.

    Args:
        luminance: `[H, W]` uint8, in full size.
    """
    height, width = luminance.shape
    top, left = max(0, height - _NOISE_SIDE) // 2, max(0, width - _NOISE_SIDE) // 2
    middle = luminance[top : top + _NOISE_SIDE, left : left + _NOISE_SIDE]
    if min(middle.shape) < 4:
        return 0.0
    fine, coarse = _measure_diagonals(middle), _measure_diagonals(halve(middle))
    return max(0.0, fine - _SCENE_SHARE * coarse)


def _measure_diagonals(luminance: np.ndarray) -> float:
    """Return the standard deviation of noise that would have the diagonal differences of an image."""
    height, width = (side // 2 * 2 for side in luminance.shape)
    levels = luminance[:height, :width].astype(np.int16)
    differences = levels[::2, ::2] - levels[::2, 1::2] - levels[1::2, ::2] + levels[1::2, 1::2]
    # The differences of noise of deviation 1 have deviation 2, and the median of their sizes is 0.6745 of that.
    return compute_percentile(np.abs(differences).ravel(), 50) / (2 * 0.6745)


_BLOCK = 8  # pixels of a side of a block of JPEG
_MAX_STEP = 16  # levels between neighbouring pixels; larger ones are edges of what the image shows
_MIN_STEP_WITHIN = 0.25  # levels; without it, even images would have any ratio


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
        steps_between = steps[_BLOCK - 1 :: _BLOCK]
        mean_within = (steps.sum() - steps_between.sum()) / (len(steps) - len(steps_between))
        ratios.append(float(steps_between.mean() / max(mean_within, _MIN_STEP_WITHIN)))
    # Stripes of what the image shows may fit the blocks one way; blocks are there both ways.
    return max(0.0, min(ratios) - 1)


def measure_unfinished(pixels: np.ndarray) -> float:
    """Return the share of an image's rows, from the lowest up, that are the grey of a JPEG file that was cut off.

    Args:
        pixels: `[H, W, 3]` uint8.
    """
    # Some 64 pixels of each row, from the lowest row up.
    rows = pixels[::-1, :: max(1, pixels.shape[1] // 64)]
    if not _is_grey(rows[:1])[0]:  # a shortcut: most images have other colours
        return 0.0
    is_grey = _is_grey(rows)
    if is_grey.all():
        return 1.0
    first_other_row = is_grey.argmin()
    return float(first_other_row / len(rows))


def _is_grey(rows: np.ndarray) -> np.ndarray:
    """Return which rows, `[H, W, 3]` uint8, are the grey of level 128 that decoders fill missing blocks with."""
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
_SEAM_STEP = 16  # levels between two pictures, or a picture and the line between them
_MAX_GAP = 6  # pixels between the two sides of a seam
_MIN_SHARE = 0.45  # share of a line along which the levels change, from which it counts as a seam
_MIN_END_SHARE = 0.85  # the same share of a fifth of the line at one of its ends
_SMALLEST_COLLAGE = 128  # pixels; the lines of smaller images are too few to tell
# An image is no collage if a larger share of its pixels equal their neighbours. Charts side by side, flags and boards
# have from 0.67, collages of photographs up to 0.1, and most collages of goods on white up to 0.65.
_MAX_EVEN_SHARE = 0.65
# An image is no collage if the deviation that rows and columns do not explain is a smaller share of all deviation.
# Collages have from 0.43, cloth 0.02.
_MIN_REST = 0.4
_MAX_SEAMS = 5  # one way, also of gutters; sixteen pictures have three, knitting, crosswords and tiles more than five
# Between two pictures there may be a gutter: an even line from end to end, with a picture on both sides.
_MAX_GUTTER_RANGE = 20  # levels of the pixels of a line, which compression changes
_MAX_GUTTER_SHARE, _MAX_GUTTER_PIXELS = 0.03, 4  # greatest thickness: the larger of a share of a side and pixels
_GUTTER_MARGIN = 0.1  # share of a side; nearer to an end, an even line is a frame
_BESIDE_GUTTER = 3  # pixels from a gutter to the line of a picture that is compared with it
_MIN_LINE_CONTRAST = 8.0  # least deviation of the levels of that line


def measure_seams(luminance: np.ndarray) -> float:
    """Return how far straight seams or gutters cross an image both ways, as in a collage.

    A seam is a line along which the levels change. In a rough image they change everywhere, so the share of its
    neighbours is subtracted. A line that reaches neither end is an edge of a thing in the middle, and does not count.
    One end is enough, because between two white pictures half of a seam is missing.

    Args:
        luminance: from `shrink_luminance`, `[H, W]` uint8.

    Returns:
        Share of the clearest seam along which the levels change, beyond that of its neighbours, or of the clearest
        gutter along which both pictures differ from it: the lesser of the horizontal and the vertical one; 0 if a way
        has none, and for charts, flags, boards and cloth.
    """
    if min(luminance.shape) < _SMALLEST_COLLAGE:
        return 0.0
    share = 0.0
    for measure in (_measure_horizontal_seams, _measure_horizontal_gutters):
        horizontal = measure(luminance)
        if horizontal > share:  # most images have none, which saves the rest of the time
            share = max(share, min(horizontal, measure(cv2.transpose(luminance))))
    if share and not _shows_pictures(luminance):
        return 0.0
    return share


def _shows_pictures(luminance: np.ndarray) -> bool:
    """Return whether an image with seams is no chart, flag, board or cloth."""
    contrast = cv2.morphologyEx(luminance, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    if cv2.countNonZero(cv2.inRange(contrast, 0, 1)) > _MAX_EVEN_SHARE * contrast.size:
        return False
    # Checks and stripes are sums of a level for each row and one for each column.
    size = (_GRADIENT_SIDE, _GRADIENT_SIDE)
    coarse = cv2.resize(luminance, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    coarse -= coarse.mean()
    rest = coarse - coarse.mean(axis=0) - coarse.mean(axis=1, keepdims=True)
    return bool(rest.std() >= _MIN_REST * coarse.std())


def _measure_horizontal_seams(luminance: np.ndarray) -> float:
    """Return the share of the width that the clearest horizontal seam takes beyond its neighbours, 0 without one."""
    height = len(luminance)
    differences = cv2.absdiff(luminance[1:], luminance[:-1])
    _, steps = cv2.threshold(differences, _SEAM_STEP - 1, 1, cv2.THRESH_BINARY)  # 1 where the levels change, else 0
    end = steps.shape[1] // 5
    end_shares = np.maximum(_average_rows(steps[:, :end]), _average_rows(steps[:, -end:]))
    reaches_end = end_shares >= _MIN_END_SHARE
    if not reaches_end.any():
        return 0.0
    shares = _average_rows(steps)
    lines = np.flatnonzero(shares >= _MIN_SHARE)
    # Lines that are closer to each other are the two sides of a seam.
    num_seams = np.count_nonzero(np.diff(lines, prepend=-height) > _MAX_GAP)
    if num_seams > _MAX_SEAMS:
        return 0.0
    clearest = 0.0
    for seam in _SEAMS:
        # Pictures are a few pixels apart at most, and seldom exactly where they should be.
        middle, reach = round(seam * height), max(6, height // 40)
        band = slice(middle - reach, middle + reach)
        shares_to_end = shares[band][reaches_end[band]]
        if len(shares_to_end):
            clearest = max(clearest, float(shares_to_end.max() - np.median(shares[band])))
    return clearest


def _measure_horizontal_gutters(luminance: np.ndarray) -> float:
    """Return the share of the width along which both pictures differ from the clearest horizontal gutter, or 0."""
    height = len(luminance)
    lightest, darkest = (cv2.reduce(luminance, 1, kind).ravel() for kind in (cv2.REDUCE_MAX, cv2.REDUCE_MIN))
    is_even = lightest - darkest <= _MAX_GUTTER_RANGE
    # Where each run of even lines begins and ends.
    runs = np.flatnonzero(np.diff(is_even, prepend=False, append=False)).reshape(-1, 2)
    margin, max_thickness = _GUTTER_MARGIN * height, max(_MAX_GUTTER_PIXELS, _MAX_GUTTER_SHARE * height)
    shares = [0.0]
    for top, bottom in runs.tolist():
        if top < margin or bottom > height - margin or bottom - top > max_thickness:
            continue
        level = float(np.median(luminance[(top + bottom) // 2]))
        beside = luminance[[top - _BESIDE_GUTTER, bottom - 1 + _BESIDE_GUTTER]]
        if beside.std(axis=1).min() >= _MIN_LINE_CONTRAST:
            shares.append(float((np.abs(beside - level) >= _SEAM_STEP).mean(axis=1).min()))
    num_gutters = np.count_nonzero(np.array(shares) >= _MIN_SHARE)
    return 0.0 if num_gutters > _MAX_SEAMS else max(shares)


def _average_rows(levels: np.ndarray) -> np.ndarray:
    """Return the mean of each row of `[H, W]` uint8, `[H]` float32."""
    return cv2.reduce(levels, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel()
