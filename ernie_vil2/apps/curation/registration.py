"""Lay one thumbnail over another, and find where they still differ once light and colour are fitted.

Gauss-Newton steps refine a guess to the affine map that fits best, at 16, 32 and 64 samples a side (`register`). They
fit gain and offset of the light as well. Then the two images are judged (`compare`): a curve from one luminance to the
other takes out what is left of light, and a saturation and a bounded tint take out the differences of colour. How
much still differs says whether two images show the same; where it does, `details.py` looks closer.

The limits were chosen on one half of the images of `benchmarks/likeness.py` and are reported on the other.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import cv2
import numpy as np

SIDE, COLOUR_SIDE = 64, 16  # samples of a side of a thumbnail: of its luminance, and of its colours
QUICK_SIDE, COARSE_SIDE = 16, 32  # samples at which guesses are refined before images are compared
FAILED = -2.0  # score of a guess that fits nowhere: below any correlation less 1
# Samples of all templates that are registered at once. Their equations take 4 MB, and at 32 samples a side the images
# below each other have up to 16,384 rows; OpenCV allows 32,767.
MAX_SAMPLES = 2**17
# A sticker over 15 % of an image breaks the correlation. A guess that does not fit is refined without the samples that
# fit worst, a fifth of them if errors are normal, and then has to fit the better.
MAX_ERROR = 1.6  # largest error of a sample that counts, in mean errors
# Least distance, in samples, between the corners of the trimmed and the untrimmed map. Where only the trimmed one let a
# pair pass in three synthetic crawls (demo_data/crawls), it was 0.7 and more for copies, 0.5 and less for others.
MIN_PULL = 0.6
MIN_COMMON = 0.4  # share of a template that has to lie on the image while it is registered: guesses are inexact
MAX_SOFT_AREA = 0.95  # share of an image that a template covers; one that covers more is not softened
BLUR_STEP = 0.1  # samples, to which the deviations of the blurs of templates are rounded
# Share of the image that the template covers: a crop to 60 % of either side covers 0.36. Drawings that were pasted next
# to others into one image mostly cover less.
MIN_AREA = 0.34
# Ratio of the scales of two thumbnails: 1 / 0.6 if a crop cuts 40 % off one side only. 2.3 also finds wide photographs
# on tall pages, and takes one of two drawings side by side for a crop of both.
MAX_CROP_STRETCH = 1.75
MAX_STRETCH = 1.5  # likewise of whole images in pixels: one side is squeezed to two thirds at most
MAX_STRETCH_OF_CROP = 1.2  # likewise of crops: a map that shifts, stretches and shears lays any two skies on each other
WHOLE_AREA = 0.75  # from which an image is whole, but for an edge
MAX_SHEAR = 0.09  # cosine of the axes of an image in the other one; a turn by 3 degrees and a stretch leave 0.04
MIN_OVERLAP = 0.88  # share of the template that the image covers in the end
MAX_LEAN = 6.0  # degrees from the nearest quarter turn
MIN_DETAIL = 0.95  # correlation of what is finer than a tenth of the image: two skies agree in all that is coarser
# Copies of drawings agree in their details by 0.985 and more, or differ little on the whole: marks leave the rest as it
# is, and noise is faint. Drawings of the same thing by two teams do neither.
SURE_DETAIL = 0.985
MAX_ROUGHNESS = 0.09  # mean difference in units of the contrast; 0.1 lets twice as many pairs pass
MAX_OTHER_BITS = 6  # of the 64 of perceptual hashes, for whole images without details
# Once light is fitted, plain shapes look alike: a red disc becomes a black one. Most of the demo's drawings have more
# edges.
PLAIN_EDGES, PLAIN_GROUND = 0.25, 0.3  # share of samples on an edge; share of the commonest level
MAX_GREY_SPREAD = 8.0  # levels between the channels of a grey image, from JPEG
# Levels of the channels on average, before light is fitted, by which plain shapes that are the same may differ.
MAX_PLAIN_DIFFERENCE = 10.0

# Largest gain of light (or its reciprocal) between plain shapes that count as the same. Beyond it the pair counts as
# differing locally; then the caller decides (`near_duplicates.py`: by the captions). MAX_PLAIN_DIFFERENCE misses a
# small square on white that is darker in one image.
MAX_PLAIN_GAIN = 1.18

# Light that is dimmed takes all levels down by one factor. A shape of another colour stands on the same ground.
# Levels: copies in three synthetic crawls have up to 1.9, other pairs of some contrast 2.3 and more.
MAX_GAIN_ERROR = 2.0
MIN_CHANGE, MIN_CHANGED = 4.0, 0.9  # levels by which light changes at least; share of the samples where it does

CLEAR = 0.2  # difference in units of the contrast that is clearly visible
LEAST_CONTRAST = 16.0  # levels; a fainter image is judged as if it had so much, or its noise would count
MAX_SPOT = 0.3  # share of the area that a sticker, or marks at the edge, may cover
FIT_SAMPLES = 1400  # of two images, from which light and colours are fitted; all of them give the same pairs
CURVE_STEP = 0.25  # levels between the entries of the table of a curve
MIN_GAIN = 0.15  # smallest overall slope of the curve of light; below it levels do not rise together
DIFFERENCE_WINDOW = 5  # samples a side over which differences are averaged, against noise
MIN_UNMARKED = 0.4  # share of the area away from marks at which details are compared; marks all over leave less
TINT = 20.0  # levels: a tint of 15 % moves the colours of white by so much, and darker ones by less
OTHER_COLOUR = 20.0  # levels by which colours differ that are not the same
MAX_OTHER_COLOURS = 0.05  # share of the area that may have another colour, in images that are the same
MIN_CONTRAST_LEFT = 0.9  # of the channels after their own curve, in proportion to that after the luminances' curve
# Photographs have pale colours, so that another hue moves them by less than OTHER_COLOUR. What saturation and tint
# leave of them is compared with what there was.
PALE_COLOUR = 4.0  # levels: compression leaves half of that
# Share of the strength of the colours. Of 60 photographs in another hue 17 % pass; without these two limits, 33 % do.
MAX_UNLIKE_COLOUR = 0.5

# Light that is cut off at white: levels by which a sample of the lighter image may be darker all the same; share of the
# samples that are not darker.
MAX_DARKER, MIN_LIGHTER = 10.0, 0.95
# Level from which a sample may be cut off; levels by which it is darker in the other image; share of such samples.
NEARLY_WHITE, MIN_LIGHTENING, MIN_CUT_OFF = 247.0, 8.0, 0.03

SAME_LIGHT = np.array([[-1.0, 256.0], [-1.0, 256.0]])  # curve of light that changes no level
LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)  # weights of red, green and blue in the luminance
# Three corners of a thumbnail, which determine an affine map: columns, rows and ones.
CORNERS = np.array([[0, SIDE - 1, 0], [0, 0, SIDE - 1], [1, 1, 1]], np.float32)
_ONES = np.ones((1, 3), np.float32)
_NEIGHBOURS = np.ones((3, 3), np.uint8)
_INSIDE = np.ones((SIDE, SIDE), np.uint8)
_WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


class Level(NamedTuple):
    """A size at which guesses are refined, and what they have to reach there.

    side: samples of a side.
    stride: samples from one that is compared to the next.
    num_steps: Gauss-Newton steps; 0 checks the guess as it is.
    min_correlation: least correlation of all samples.
    min_trimmed: least correlation once the samples that fit worst are left out, as a sticker's.
    unsure_correlation: correlation below which samples are left out.
    sure_correlation: correlation from which no samples are left out; between both, they are if that moves the map.
    slack: factor by which the limits of `is_plausible` are widened, because maps are not exact yet.
    min_hue_agreement: least agreement of the colours of coloured images (`hues.py`). `GuessFiles` checks it, and not
        `register`. `FINE_LEVEL` does without, because its pairs have passed it.
    """

    side: int
    stride: int
    num_steps: int
    min_correlation: float
    min_trimmed: float
    unsure_correlation: float
    sure_correlation: float
    slack: float
    min_hue_agreement: float = -1.0


# Most guesses are wrong, and should end early. In a synthetic crawl 995 pairs of thumbnails that show the same and
# 6,955 others passed the first two levels; 974 and 1,237 of them passed the third.
# At every other sample the third level takes two fifths of the time, and as many pairs of copies pass it.
#
# Of the pairs that were compared closely in four synthetic crawls, 1 of 2,799 copies has other hues, and 6,768 of
# 18,630 others have. Before the first step maps are inexact, so that less agreement is asked for.
LEVELS = (
    Level(
        side=QUICK_SIDE,
        stride=1,
        num_steps=0,
        min_correlation=0.6,
        min_trimmed=0.8,
        unsure_correlation=0.6,
        sure_correlation=0.6,
        slack=np.inf,
        min_hue_agreement=0.2,
    ),
    Level(
        side=QUICK_SIDE,
        stride=1,
        num_steps=4,
        min_correlation=0.8,
        min_trimmed=0.95,
        unsure_correlation=0.95,
        sure_correlation=0.95,
        slack=2.0,
        min_hue_agreement=0.5,
    ),
    Level(
        side=COARSE_SIDE,
        stride=2,
        num_steps=2,
        min_correlation=0.88,
        min_trimmed=0.99,
        unsure_correlation=0.95,
        sure_correlation=0.95,
        slack=1.1,
        min_hue_agreement=0.5,
    ),
)
# Judging needs maps that are exact to a third of a sample. Every other sample of blurred images says all of that, in a
# quarter of the time.
FINE_LEVEL = Level(
    side=SIDE,
    stride=2,
    num_steps=3,
    min_correlation=0.6,
    min_trimmed=0.9,
    unsure_correlation=0.95,
    sure_correlation=0.98,
    slack=1.0,
)


class View(NamedTuple):
    """A thumbnail at the sizes at which it is compared.

    fine: luminance, `[64, 64]` float32.
    colours: RGB, `[16, 16, 3]` float32.
    """

    fine: np.ndarray
    colours: np.ndarray


class Verdict(NamedTuple):
    """Result of comparing two thumbnails whose luminances agree.

    likeness: correlation of the luminances where they agree, once light is fitted; 0 if only details can tell, because
        light may be cut off.
    is_local: whether they differ in a spot that may matter, such as a sticker or a letter, or are plain shapes in other
        light.
    is_turned: whether one is mirrored, or turned by a quarter or more.
    has_other_colours: whether they show something else, unless details prove that one change of all levels was made.
    has_object, has_other_look, has_trace, worse: as of `details.Difference`; thumbnails are too small to tell.
    """

    likeness: float
    is_local: bool
    is_turned: bool
    has_other_colours: bool = False
    has_object: bool = False
    has_other_look: bool = False
    has_trace: bool = True
    worse: int = 0


def make_view(luminance: np.ndarray, colours: np.ndarray) -> View:
    """Return the view of a thumbnail: luminance `[64, 64]` and colours `[16, 16, 3]`, both uint8."""
    return View(luminance.astype(np.float32), colours.astype(np.float32))


def scale_transform(transform: np.ndarray, factor: float) -> np.ndarray:
    """Return affine maps, `[..., 2, 3]`, between images of `factor` times the samples."""
    # Sample 0 has its centre half a sample from the corner, and the corners are what stays in place.
    half = 0.5 * transform[..., :2].sum(axis=-1)
    scaled = transform.astype(np.float32)
    scaled[..., 2] = factor * (transform[..., 2] + 0.5 - half) + half - 0.5
    return scaled


def invert_transforms(transforms: np.ndarray) -> np.ndarray:
    """Return the inverse affine maps, `[P, 2, 3]` float32."""
    # The adjugate over the determinant takes a fraction of the time of LAPACK, which gets one small matrix at a time.
    linear = transforms[:, :, :2].astype(np.float64)
    determinants = linear[:, 0, 0] * linear[:, 1, 1] - linear[:, 0, 1] * linear[:, 1, 0]
    inverse = linear[:, ::-1, ::-1].transpose(0, 2, 1) * [[1, -1], [-1, 1]] / determinants[:, None, None]
    return np.concatenate([inverse, -inverse @ transforms[:, :, 2:]], axis=2).astype(np.float32)


def make_pyramid(luminance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the luminances by which guesses are refined, `[16, 16]` and `[32, 32]` float32."""
    fine = luminance.astype(np.float32)
    quick = cv2.resize(cv2.GaussianBlur(fine, (0, 0), 1.5), (QUICK_SIDE, QUICK_SIDE), interpolation=cv2.INTER_AREA)
    return quick, cv2.resize(fine, (COARSE_SIDE, COARSE_SIDE), interpolation=cv2.INTER_AREA)


def register(
    templates: np.ndarray, images: np.ndarray, guesses: np.ndarray, level: Level
) -> tuple[np.ndarray, np.ndarray]:
    """Refine guesses of how templates lie in images, and score them.

    Args:
        templates: luminances of the images that show less, `[P, S, S]` float32 with the side of the level.
        images: luminances of the other images, `[P, S, S]` float32.
        guesses: affine maps from the 64 x 64 samples of the templates to those of the images, `[P, 2, 3]`.
        level: how they are refined, and what they have to reach.

    Returns:
        Refined maps, `[P, 2, 3]` float32, and their scores, `[P]` float32: the correlation; the correlation less 1 if
        the samples that fit worst were left out; `FAILED` if the level was not reached.
    """
    transforms = np.empty((len(guesses), 2, 3), np.float32)
    scores = np.empty(len(guesses), np.float32)
    block_size = MAX_SAMPLES // (level.side // level.stride) ** 2
    for start in range(0, len(guesses), block_size):
        block = slice(start, start + block_size)
        transforms[block], scores[block] = _register_block(templates[block], images[block], guesses[block], level)
    return transforms, scores


def _register_block(
    templates: np.ndarray, images: np.ndarray, guesses: np.ndarray, level: Level
) -> tuple[np.ndarray, np.ndarray]:
    softened = _soften_templates(templates, guesses)
    goals = softened[:, :: level.stride, :: level.stride].reshape(len(guesses), -1)  # [P, N]
    stack = _stack_channels(images, with_slopes=level.num_steps > 0)
    numbers = np.arange(len(guesses))
    transforms, correlations = _refine(goals, stack, numbers, guesses, level, is_trimmed=False)
    scores = np.where(correlations >= level.min_correlation, correlations, np.float32(FAILED))
    # Leave out what a sticker may cover, and see whether a map fits the rest.
    unsure = np.flatnonzero(correlations < level.sure_correlation)
    if len(unsure):
        trimmed_transforms, trimmed_correlations = _refine(
            goals[unsure], stack, unsure, guesses[unsure], level, is_trimmed=True
        )
        pulls = np.abs((trimmed_transforms - transforms[unsure]) @ CORNERS).max(axis=(1, 2))
        is_useful = (correlations[unsure] < level.unsure_correlation) | (pulls >= MIN_PULL)
        passes = (trimmed_correlations >= level.min_trimmed) & is_useful
        transforms[unsure[passes]] = trimmed_transforms[passes]
        scores[unsure[passes]] = trimmed_correlations[passes] - 1
    return transforms, scores


def _soften_templates(templates: np.ndarray, guesses: np.ndarray) -> np.ndarray:
    """Return templates, `[P, S, S]`, each as soft as the part of the image that its guess lays it on.

    A crop shows a weave or a crowd finer than the whole image does, which has fewer samples for the same part.
    """
    areas = np.abs(np.linalg.det(guesses[:, :, :2]))
    steps = np.rint(_measure_softness(areas) / BLUR_STEP).astype(int)
    softened = templates.copy()
    for step in np.unique(steps[steps > 0]).tolist():
        matrix = _make_blur_matrix(templates.shape[1], step)
        softened[steps == step] = matrix @ templates[steps == step] @ matrix.T
    return softened


@cache
def _make_blur_matrix(side: int, step: int) -> np.ndarray:
    """Return the matrix that blurs a column of samples by so many `BLUR_STEP`, `[side, side]` float32."""
    # Only columns are blurred. One product with a matrix blurs all templates, and a call of OpenCV only one.
    return cv2.GaussianBlur(np.eye(side, dtype=np.float32), (1, 0), 0, sigmaY=BLUR_STEP * step)


def _measure_softness(areas: np.ndarray) -> np.ndarray:
    """Return the deviation in samples of the blur that warping leaves in images, of whose area templates cover a share.

    It is 0 for nearly whole images.
    """
    enlargements = 1 / np.clip(areas, MIN_AREA, 1)
    return np.where(areas > MAX_SOFT_AREA, 0.0, 0.3 + 0.45 * np.sqrt(enlargements - 1))


def _stack_channels(images: np.ndarray, with_slopes: bool) -> np.ndarray:
    """Return images, `[P, S, S]`, below each other in one, `[P * S, S, C]`, so that OpenCV samples all of them at once.

    The channels are the luminance and, if asked for, its slopes along rows and columns.
    """
    channels = [images]
    if with_slopes:
        channels += [np.gradient(images, axis=2), np.gradient(images, axis=1)]
    return np.stack(channels, axis=-1).reshape(-1, images.shape[2], len(channels))


def _refine(
    goals: np.ndarray, stack: np.ndarray, numbers: np.ndarray, guesses: np.ndarray, level: Level, is_trimmed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each guess the best map among itself and the steps from it, and its correlation.

    A Gauss-Newton step fits the six numbers of the map, and a gain and an offset of the light, for all guesses at once.
    A step may also lead away, so the map with the highest correlation counts, and not the last one. The correlation is
    -1 where images hardly overlap.

    Args:
        goals: luminances of the templates at the samples of `make_grid`, `[P, N]`.
        stack: images, from `_stack_channels`.
        numbers: number of each template's image in the stack, `[P]`.
        guesses: affine maps, `[P, 2, 3]`.
        level: how they are refined.
        is_trimmed: whether the samples that fit worst are left out.
    """
    side, num_channels = stack.shape[1:]
    grid = make_grid(side, level.stride)
    transforms = scale_transform(guesses, side / SIDE)
    best_transforms = transforms.copy()
    best_correlations = np.full(len(guesses), -1, np.float32)
    for step in range(level.num_steps + 1):
        samples, is_inside = sample_images(stack, numbers, transforms, grid)
        warped, *slopes = cv2.split(samples) if num_channels > 1 else [samples]  # [P, N] each
        weights = is_inside.astype(np.float32)
        has_overlap = weights.mean(axis=1) >= MIN_COMMON
        if is_trimmed:
            weights = _trim(goals, warped, weights)
        correlations = _correlate_inside(goals, warped, weights)
        correlations[~has_overlap] = -1
        is_better = correlations > best_correlations
        best_transforms[is_better] = transforms[is_better]
        best_correlations[is_better] = correlations[is_better]
        if step < level.num_steps:
            transforms = transforms + _find_step(goals, warped, slopes, weights, grid)
    return scale_transform(best_transforms, SIDE / side), best_correlations


def sample_images(
    stack: np.ndarray, numbers: np.ndarray, transforms: np.ndarray, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples of images on which affine maps lay a template, and whether they are inside the image.

    Args:
        stack: images of S rows each, below each other, `[I * S, S, C]` float32.
        numbers: number of each template's image in the stack, `[P]`.
        transforms: maps from the samples of the templates to those of the images, `[P, 2, 3]`.
        grid: places of the samples in the templates, from `make_grid`, `[3, N]`.

    Returns:
        `[P, N, C]` float32, without the last axis if there is one channel, and `[P, N]` bool. A place outside has the
        nearest sample.
    """
    side = stack.shape[1]
    places = transforms @ grid  # [P, 2, N]
    is_inside = ((places > -0.5) & (places < side - 0.5)).all(axis=1)
    places = places.clip(0, side - 1)
    rows = places[:, 1] + side * numbers.astype(np.float32)[:, None]
    return cv2.remap(stack, places[:, 0], rows, cv2.INTER_LINEAR), is_inside


@cache
def make_grid(side: int, stride: int) -> np.ndarray:
    """Return columns and rows of the samples of an image that are compared, and ones, `[3, N]` float32."""
    rows, columns = np.mgrid[:side:stride, :side:stride].reshape(2, -1).astype(np.float32)
    return np.stack([columns, rows, np.ones_like(rows)])


def _correlate_inside(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the correlation of each two rows, `[P]` float32, with weights of their samples; all are `[P, N]`."""
    first, second = _centre(first, weights) * weights, _centre(second, weights) * weights
    energies = np.sqrt(_sum_products(first, first) * _sum_products(second, second))
    return _sum_products(first, second) / np.maximum(energies, 1e-3)


def _centre(luminances: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return luminances less their weighted mean in each row, `[P, N]`."""
    means = _sum_products(luminances, weights) / np.maximum(weights.sum(axis=1), 1)
    return luminances - means[:, None]


def _sum_products(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the sum of the products of each two rows, `[P]` of `[P, N]`."""
    return np.einsum("pn,pn->p", first, second)


def _trim(goals: np.ndarray, warped: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return weights without the samples that fit worst once light is fitted to the others, all `[P, N]` float32."""
    weights = inside
    for _ in range(2):  # the first fit of light still contains the sticker
        first, second = _centre(goals, weights), _centre(warped, weights)
        weighted = second * weights
        energy = np.maximum(_sum_products(second, weighted), 1)
        # Copies keep some contrast, so that a gain near or below 0 is chance.
        gains = np.maximum(_sum_products(first, weighted) / energy, 0.2)
        errors = np.abs(first - gains[:, None] * second)
        mean_errors = _sum_products(errors, weights) / np.maximum(weights.sum(axis=1), 1)
        weights = inside * (errors <= MAX_ERROR * mean_errors[:, None])
    return weights


def _find_step(
    goals: np.ndarray, warped: np.ndarray, slopes: Sequence[np.ndarray], weights: np.ndarray, grid: np.ndarray
) -> np.ndarray:
    """Return by how much maps have to change so that warped luminances come nearer to their goals, `[P, 2, 3]`.

    Args:
        goals: luminances of the templates, `[P, N]`.
        warped: luminances of the warped images, `[P, N]`.
        slopes: their slopes along rows and along columns, `[P, N]` each.
        weights: 1 where samples count, else 0, `[P, N]`.
        grid: places of the samples, from `make_grid`.
    """
    half = (grid.max() + 1) / 2  # columns of equal size make the equations well conditioned
    basis = grid / np.array([[half], [half], [1]], np.float32)
    design = np.empty((len(goals), 8, goals.shape[1]), np.float32)
    for first_column, slope in zip((0, 3), slopes, strict=True):
        np.multiply((slope * weights)[:, None], basis, out=design[:, first_column : first_column + 3])
    design[:, 6] = warped * weights  # gain
    design[:, 7] = 32.0 * weights  # offset; of the size of the other columns for the same reason
    squares = (design @ design.transpose(0, 2, 1)).astype(np.float64)
    # A little damping keeps a map where an image says nothing about it.
    damping = 1e-3 * np.trace(squares[:, :6, :6], axis1=1, axis2=2)[:, None, None] / 6 + 1.0
    solution = _solve_positive(squares + damping * np.eye(8), (design @ goals[..., None])[..., 0])
    # The steps come multiplied by the gain. One near 0, of images that do not fit, would make them endless.
    gains = np.maximum(solution[:, 6:7], 0.3)
    steps = (solution[:, :6] / gains).reshape(-1, 2, 3).astype(np.float32)
    steps[:, :, :2] /= half
    return steps.clip(-2, 2)  # slopes say nothing about places further away


def _solve_positive(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the solutions of positive definite equations, `[P, N]` float64.

    LAPACK gets one small matrix at a time, and its threads wait for each other at each of them: with two threads
    `np.linalg.solve` took 50 times as long. Elimination needs no pivots in positive definite matrices.

    Args:
        matrices: `[P, N, N]` float64.
        vectors: `[P, N]`.
    """
    size = matrices.shape[1]
    equations = np.empty((size, size + 1, len(matrices)))  # the pairs come last, so that all of them are one vector
    equations[:, :size], equations[:, size] = matrices.transpose(1, 2, 0), vectors.T
    for pivot in range(size):
        pivot_row = equations[pivot, pivot + 1 :] / equations[pivot, pivot]
        equations[:, pivot + 1 :] -= equations[:, pivot, None] * pivot_row
        equations[pivot, pivot + 1 :] = pivot_row
    return equations[:, size].T


def is_plausible(transforms: np.ndarray, aspects: np.ndarray, slack: float = 1.0) -> np.ndarray:
    """Return which maps lay an image on another as copies lie on each other, `[P]` bool.

    Args:
        transforms: affine maps from the samples of the templates to those of the images, `[P, 2, 3]`.
        aspects: width over height of both images, `[P, 2]`; their thumbnails are square.
        slack: factor of all limits, for maps that are not exact yet.
    """
    linear = transforms[:, :, :2].astype(np.float64)
    area = np.abs(np.linalg.det(linear))
    has_area = (area * slack >= MIN_AREA) & (area * MIN_AREA <= slack)

    # Thumbnails are square, so angles and stretch are those of the images themselves.
    in_pixels = linear.copy()
    in_pixels[:, 0] *= aspects[:, 1:]
    in_pixels[:, :, 0] /= aspects[:, :1]
    angles = np.degrees(np.arctan2(in_pixels[:, 1, 0], in_pixels[:, 0, 0]))
    is_near_quarter_turn = np.abs((angles + 45) % 90 - 45) <= MAX_LEAN * slack
    axes = in_pixels / np.linalg.norm(in_pixels, axis=1, keepdims=True)
    is_rectangular = np.abs((axes[:, :, 0] * axes[:, :, 1]).sum(axis=1)) <= MAX_SHEAR * slack

    # Thumbnails may be stretched by crops, images only by resizing.
    max_stretch = np.where(area >= WHOLE_AREA, MAX_STRETCH, MAX_STRETCH_OF_CROP)
    is_in_proportion = _find_stretch(linear) <= MAX_CROP_STRETCH * slack
    is_in_proportion &= _find_stretch(in_pixels) <= max_stretch * slack
    return has_area & is_near_quarter_turn & is_rectangular & is_in_proportion


def _find_stretch(matrices: np.ndarray) -> np.ndarray:
    """Return the ratio of the larger singular value of matrices, `[P, 2, 2]`, to the smaller one, `[P]`."""
    # A matrix is the sum of a scaled rotation and a scaled reflection. The sum and the difference of their scales are
    # the singular values.
    (xx, xy), (yx, yy) = matrices[:, 0].T, matrices[:, 1].T
    turning = np.hypot(xx + yy, yx - xy)
    mirroring = np.hypot(xx - yy, yx + xy)
    return (turning + mirroring) / np.maximum(np.abs(turning - mirroring), 1e-6)


def compare(
    template: View, image: View, transform: np.ndarray, aspects: Sequence[float] | np.ndarray = (1, 1)
) -> Verdict | None:
    """Return how two images are alike, or None if they show something else.

    Args:
        template: the image that shows less, as a crop does.
        image: the other one.
        transform: registered map from the samples of the template to those of the image, `[2, 3]` float32. It has to be
            plausible (`is_plausible`), which is not checked here.
        aspects: width over height of both images; their thumbnails are square.
    """
    inside = cv2.warpAffine(_INSIDE, transform, (SIDE, SIDE), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP) > 0
    if inside.mean() < MIN_OVERLAP:
        return None
    # A turn by more than 45 degrees takes the first axis beyond a diagonal.
    is_rotated = bool(transform[0, 0] * aspects[1] < abs(transform[1, 0]))
    is_mirrored = float(np.linalg.det(transform[:, :2])) < 0
    is_turned = is_rotated or is_mirrored
    verdict = _judge(template, image, transform, inside, is_turned)
    if verdict is None and _may_be_cut_off(template, image, transform, inside):
        return Verdict(likeness=0.0, is_local=False, is_turned=is_turned, has_other_colours=True)
    return verdict


def _judge(template: View, image: View, transform: np.ndarray, inside: np.ndarray, is_turned: bool) -> Verdict | None:
    """Return the verdict on two images that a map lays on each other, or None if they show something else."""
    first = _soften(template.fine, transform)
    second = cv2.warpAffine(image.fine, transform, (SIDE, SIDE), flags=_WARP, borderMode=cv2.BORDER_REPLICATE)
    light_fit = fit_light(first, second, inside)
    if light_fit is None:
        return None

    # How much of the images agrees, in light.
    mask = inside.astype(np.uint8)
    contrasts = [measure_contrast(luminance, mask) for luminance in (light_fit.lit, light_fit.target)]
    contrast = max(min(contrasts), LEAST_CONTRAST)
    differs_clearly = inside & (find_differences(light_fit.lit, light_fit.target, DIFFERENCE_WINDOW) > CLEAR * contrast)
    if differs_clearly.any():
        # A sample differs only if it does so with the curve and without it: a few dark samples, such as an eye, may lie
        # beyond the knots of the curve. If fewer differ without it, a large mark has bent the curve, and it is dropped.
        differs_unchanged = inside & (find_differences(first, second, DIFFERENCE_WINDOW) > CLEAR * contrast)
        if differs_unchanged.sum() < differs_clearly.sum():
            light_fit = LightFit(SAME_LIGHT, True, first, second)
        differs_clearly &= differs_unchanged
    lit, target = light_fit.lit, light_fit.target
    agrees = inside & ~differs_clearly
    if agrees.sum() < (1 - MAX_SPOT) * inside.sum():
        return None
    likeness = correlate(lit[agrees], target[agrees])

    # Whether the fine details agree.
    detail = _correlate_details(lit, target, inside, differs_clearly)
    # Noise hides the details of a sky or a wall. Whole images may agree by their perceptual hashes instead.
    if detail < MIN_DETAIL and not (_is_whole(transform) and _count_other_bits(lit, target) <= MAX_OTHER_BITS):
        return None
    # Blurred, because noise is no difference.
    roughness = float(np.abs(cv2.blur(lit - target, (3, 3)))[agrees].mean()) / contrast
    if detail < SURE_DETAIL and roughness > MAX_ROUGHNESS:
        return None

    size = (COLOUR_SIDE, COLOUR_SIDE)
    # Rounded: of the 4 x 4 samples of a place most have to differ; the places around it are left out as well.
    differs_at_colour_size = cv2.resize(differs_clearly.astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    is_common = cv2.dilate(differs_at_colour_size, _NEIGHBOURS) == 0  # [16, 16]

    # Whether colours agree, and the light of plain shapes. If not, one change of all levels may still explain both.
    has_other_light = has_other_colours = False
    if (_is_plain(lit) or _is_plain(target)) and not _is_dimmed(template, image, transform, inside):
        levels, mapped_levels = light_fit.curve
        gain = float((mapped_levels[-1] - mapped_levels[0]) / (levels[-1] - levels[0]))
        has_other_light = not 1 / MAX_PLAIN_GAIN < gain < MAX_PLAIN_GAIN
        has_other_colours = _measure_colour_difference(template, image, transform, is_common) > MAX_PLAIN_DIFFERENCE

    if not has_other_colours:
        has_other_colours = _has_other_colours(template, image, transform, inside, is_common, light_fit)
    # Plain shapes in other light count as differing locally, so that the caller decides; details find spots.
    return Verdict(likeness, is_local=has_other_light, is_turned=is_turned, has_other_colours=has_other_colours)


def _may_be_cut_off(template: View, image: View, transform: np.ndarray, inside: np.ndarray) -> bool:
    """Return whether one image may be the other one so much lighter that levels were cut off at white.

    No curve of light brings back what such an image has lost.
    """
    covered = cv2.resize(inside.astype(np.float32), (COLOUR_SIDE, COLOUR_SIDE), interpolation=cv2.INTER_AREA) > 0.9
    first, second = template.colours[covered], _warp_colours(image, transform)[covered]  # [N, 3] each
    if not len(first):
        return False
    darker, lighter = (first, second) if first.mean() < second.mean() else (second, first)
    is_lighter = (lighter > darker - MAX_DARKER).all(axis=1)
    is_cut_off = ((lighter > NEARLY_WHITE) & (darker < NEARLY_WHITE - MIN_LIGHTENING)).any(axis=1)
    return bool(is_lighter.mean() >= MIN_LIGHTER and is_cut_off.mean() >= MIN_CUT_OFF)


def _soften(luminance: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Blur a template as much as warping blurs the image, whose covered part is enlarged to the template's size.

    Args:
        luminance: luminance or colours of the template.
        transform: map from the template's samples to the image's, `[2, 3]`.
    """
    area = np.abs(np.linalg.det(transform[:, :2]))
    softness = float(_measure_softness(area))
    return cv2.GaussianBlur(luminance, (0, 0), softness) if softness else luminance


def measure_contrast(levels: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Return the standard deviation of levels, `[H, W]`, where a mask, uint8, is not 0; of all if it is None."""
    return cv2.meanStdDev(levels, mask=mask)[1].item()  # in less time than NumPy's, above all with a mask


class LightFit(NamedTuple):
    """A curve of light from one luminance to another one.

    curve: knots, `[2, K]`: levels, and the levels that they become.
    is_forward: whether the curve maps the first luminance to the second one; else the reverse.
    lit: the mapped luminance, `[H, W]` float32.
    target: the unchanged luminance that it is compared with, `[H, W]` float32.
    """

    curve: np.ndarray
    is_forward: bool
    lit: np.ndarray
    target: np.ndarray


def fit_light(first: np.ndarray, second: np.ndarray, inside: np.ndarray) -> LightFit | None:
    """Return the better curve of light between two luminances, or None if their levels do not rise together.

    A curve cannot bring back what was cut off at white, so both directions are tried.

    Args:
        first: luminance, `[H, W]` float32.
        second: the other luminance.
        inside: samples that the curve is fitted to, `[H, W]` bool.
    """
    mask = inside.astype(np.uint8)
    first_samples, second_samples = (_choose_samples(luminance[inside]) for luminance in (first, second))
    best_fit = None
    least_error = np.inf
    for is_forward, source, target in ((True, first, second), (False, second, first)):
        if is_forward:
            curve = _fit_curve(first_samples, second_samples)
        else:
            curve = _fit_curve(second_samples, first_samples)
        if curve is None:
            continue
        lit = apply_curve(curve, source)
        contrast = max(measure_contrast(target, mask), LEAST_CONTRAST)
        error = cv2.mean(cv2.absdiff(lit, target), mask)[0] / contrast
        if error < least_error:
            best_fit, least_error = LightFit(curve, is_forward, lit, target), error
    return best_fit


def _fit_curve(source: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    """Return the rising curve between levels, as knots `[2, K]`, or None if levels do not rise together.

    A knot is the median of both in a sixteenth of the samples, sorted by level, so that a mark over a part of the image
    moves none.
    """
    order = np.argsort(source, kind="stable")
    ranks, middles = _divide_ranks(len(order))
    # Slices are sorted all at once, in less than half of the time of one by one. Infinity fills up the shorter ones.
    target_slices = np.append(target[order], np.float32(np.inf))[ranks]
    target_slices.sort(axis=1)
    rows = np.arange(len(ranks))
    # The middle ones of sorted values are a median; np.median takes five times as long for so few.
    sources = source[order[ranks[rows, middles]]].astype(np.float64)
    targets = target_slices[rows, middles].astype(np.float64)
    # The running maximum from below and the minimum from above enclose the rising curve.
    upper, lower = np.maximum.accumulate(targets), np.minimum.accumulate(targets[::-1])[::-1]
    is_new_level = np.append(True, sources[1:] > sources[:-1])
    levels, values = sources[is_new_level], (upper + lower)[is_new_level] / 2
    if len(levels) < 2 or values[-1] - values[0] < MIN_GAIN * (levels[-1] - levels[0]):
        return None
    # Beyond the outer knots, where an eye or a reflection of few samples may lie, the overall gain goes on.
    gain = (values[-1] - values[0]) / (levels[-1] - levels[0])
    darkest = max(values[0] - gain * (levels[0] + 1), 0)
    lightest = min(values[-1] + gain * (256 - levels[-1]), 255)
    return np.array([[-1, *levels, 256], [darkest, *values, lightest]])


@lru_cache(maxsize=512)  # images overlap in many numbers of samples
def _divide_ranks(num_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide samples that are sorted by level into slices, one for each knot of a curve.

    Args:
        num_samples: at least 1.

    Returns:
        Ranks of the samples of each slice, `[K, L]`, where slices shorter than the longest are filled up with
        `num_samples`, which is the rank of no sample; and the column of the middle sample of each slice, `[K]`.
    """
    # The outermost knots have few samples, so that the curve reaches nearly as far as the levels do.
    edges = (np.concatenate([[0, 0.015], np.arange(1, 16) / 16, [0.985, 1]]) * num_samples).astype(int)
    starts, sizes = edges[:-1], np.diff(edges)
    starts, sizes = starts[sizes > 0, None], sizes[sizes > 0, None]
    places = np.arange(sizes.max())
    return np.where(places < sizes, starts + places, num_samples), sizes[:, 0] // 2


def apply_curve(curve: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return levels, from 0 to 255, after a curve of light, float32."""
    # A look-up takes a tenth of the time of an interpolation of each level.
    table = np.interp(np.arange(0, 256, CURVE_STEP), curve[0], curve[1]).astype(np.float32)
    return table.take((levels * (1 / CURVE_STEP) + 0.5).astype(np.int32), mode="clip")


def compute_luminance(colours: np.ndarray) -> np.ndarray:
    """Return the luminance of colours, `[H, W]` of `[H, W, 3]` float32."""
    return cv2.transform(colours, LUMA)


def remove_luminance(colours: np.ndarray) -> np.ndarray:
    """Return colours less their luminance, `[H, W, 3]` float32."""
    return cv2.transform(colours, np.eye(3, dtype=np.float32) - LUMA)


def measure_strength(colours: np.ndarray) -> np.ndarray:
    """Return how strong colours are, or differences of colours: `[H, W]` of `[H, W, 3]` float32."""
    return np.sqrt(cv2.transform(colours * colours, _ONES))  # a norm, in a tenth of the time of np.linalg.norm


def find_largest_channel(channels: np.ndarray) -> np.ndarray:
    """Return the level of the largest of three channels at each sample, `[...]` of `[..., 3]`."""
    # NumPy's maximum along an axis of three takes up to forty times as long.
    return np.maximum(np.maximum(channels[..., 0], channels[..., 1]), channels[..., 2])


def _choose_samples(values: np.ndarray) -> np.ndarray:
    """Return every n-th of the values, fewer than twice `FIT_SAMPLES`."""
    # An odd step does not stay on the same columns of an image.
    return values[:: (len(values) // FIT_SAMPLES) | 1]


def find_differences(first: np.ndarray, second: np.ndarray, window: int) -> np.ndarray:
    """Return by how much images differ around each sample, beyond a shift by a sample.

    Args:
        first: luminance or colours, `[H, W]` or `[H, W, C]` float32.
        second: the image that lies on it.
        window: samples a side of the square over which differences are averaged.
    """
    differences = np.zeros_like(first)
    for source, target in ((first, second), (second, first)):
        # A level between the least and the greatest one of a sample's neighbours may be there by a shift.
        above = source - cv2.dilate(target, _NEIGHBOURS)
        below = cv2.erode(target, _NEIGHBOURS) - source
        excess = np.maximum(np.maximum(above, below), 0)
        differences = np.maximum(differences, cv2.blur(excess, (window, window)))
    return differences


def _correlate_details(first: np.ndarray, second: np.ndarray, inside: np.ndarray, differs_clearly: np.ndarray) -> float:
    """Return the correlation of what is finer than a tenth of two luminances, away from marks.

    Args:
        first: luminance, `[64, 64]` float32.
        second: the other luminance.
        inside: where the images cover each other, `[64, 64]` bool.
        differs_clearly: where one of them has a mark, `[64, 64]` bool.
    """
    # Marks reach beyond their edges.
    agrees = inside & ~differs_clearly
    places = cv2.erode(agrees.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    if places.sum() < MIN_UNMARKED * inside.sum():
        places = agrees
    # Blurred, a strong mark would reach further still, so the second image takes the marked samples of the first, and
    # they agree.
    is_marked = cv2.dilate(differs_clearly.astype(np.uint8), _NEIGHBOURS)
    details = []
    for luminance in (first, np.where(is_marked, first, second)):
        without_noise, coarse = cv2.GaussianBlur(luminance, (0, 0), 0.8), cv2.GaussianBlur(luminance, (0, 0), 5.0)
        details.append((without_noise - coarse)[places])
    return correlate(details[0], details[1])


def _is_plain(luminance: np.ndarray) -> bool:
    """Return whether an image is a plain shape on a ground of one level, such as a disc or an arrow."""
    slopes = cv2.magnitude(cv2.Sobel(luminance, cv2.CV_32F, 1, 0), cv2.Sobel(luminance, cv2.CV_32F, 0, 1)) / 8
    edges = float((slopes > 0.15 * max(measure_contrast(luminance), LEAST_CONTRAST)).mean())
    levels = cv2.calcHist([luminance], [0], None, [64], [0, 256])
    return edges < PLAIN_EDGES and float(levels.max()) > PLAIN_GROUND * luminance.size


def _is_dimmed(template: View, image: View, transform: np.ndarray, inside: np.ndarray) -> bool:
    """Return whether one gain of all channels turns an image into the other one, and changes its ground as well.

    Args:
        template: the image that shows less.
        image: the other one.
        transform: affine map between them, `[2, 3]`.
        inside: where the image covers the template, `[64, 64]` bool.
    """
    warped = _warp_colours(image, transform)
    covered = cv2.resize(inside.astype(np.float32), (COLOUR_SIDE, COLOUR_SIDE), interpolation=cv2.INTER_AREA) > 0.9
    if not covered.any():
        return False
    # Blurred, because edges of colours lie a little apart.
    softened = _soften(template.colours, scale_transform(transform, COLOUR_SIDE / SIDE))
    first, second = (cv2.blur(colours, (3, 3))[covered] for colours in (softened, warped))  # [N, 3] each
    if min(first.std(), second.std()) < LEAST_CONTRAST / 2:
        return False
    gain = float((first * second).sum() / max(float((first**2).sum()), 1.0))
    error = float(np.sqrt(((gain * first - second) ** 2).mean()))
    is_changed = np.abs(first - second).max(axis=1) > MIN_CHANGE
    return error <= MAX_GAIN_ERROR and float(is_changed.mean()) >= MIN_CHANGED


def _warp_colours(image: View, transform: np.ndarray) -> np.ndarray:
    """Return the colours of an image where a template lies, `[16, 16, 3]`; the map is between samples of 64 a side."""
    scaled = scale_transform(transform, COLOUR_SIDE / SIDE)
    size = (COLOUR_SIDE, COLOUR_SIDE)
    return cv2.warpAffine(image.colours, scaled, size, flags=_WARP, borderMode=cv2.BORDER_REPLICATE)


def _measure_colour_difference(template: View, image: View, transform: np.ndarray, is_common: np.ndarray) -> float:
    """Return the mean difference of the colours, in levels; that of the luminances if one image is grey.

    Args:
        template: the image that shows less.
        image: the other one.
        transform: affine map between them, `[2, 3]`.
        is_common: where luminances do not differ clearly, `[16, 16]` bool; if that is nowhere, all are compared.
    """
    warped = _warp_colours(image, transform)
    if _is_grey(template.colours) or _is_grey(warped):
        first = cv2.cvtColor(template.colours, cv2.COLOR_RGB2GRAY)
        second = cv2.cvtColor(warped, cv2.COLOR_RGB2GRAY)
    else:
        first, second = template.colours, warped
    compared = is_common if is_common.any() else np.ones_like(is_common)
    return float(np.abs(first - second)[compared].mean())


def _is_grey(colours: np.ndarray) -> bool:
    """Return whether the channels of colours, `[16, 16, 3]`, are nowhere far apart."""
    return float(np.ptp(colours, axis=2).max()) < MAX_GREY_SPREAD


def _is_whole(transform: np.ndarray) -> bool:
    """Return whether a map lays whole images on each other, in any orientation, within two samples."""
    places = transform @ CORNERS
    nearest_corners = np.round(places / (SIDE - 1)) * (SIDE - 1)
    return bool((np.abs(places - nearest_corners) < 2).all())


def _count_other_bits(first: np.ndarray, second: np.ndarray) -> int:
    """Return in how many of 64 bits the perceptual hashes of two luminances, `[64, 64]`, differ.

    A bit says whether one of the lowest 8 x 8 frequencies is above their median, as in `imagehash.phash`.
    """
    hashes = []
    for luminance in (first, second):
        small = cv2.resize(luminance, (32, 32), interpolation=cv2.INTER_AREA)
        frequencies = cv2.dct(small)[:8, :8]
        hashes.append(frequencies > np.median(frequencies))
    return int((hashes[0] != hashes[1]).sum())


def _has_other_colours(
    template: View,
    image: View,
    transform: np.ndarray,
    inside: np.ndarray,
    is_common: np.ndarray,
    light_fit: LightFit,
) -> bool:
    """Return whether colours differ once light, saturation and a bounded tint are fitted.

    Args:
        template: the image that shows less.
        image: the other one.
        transform: affine map between them, `[2, 3]`.
        inside: where the image covers the template, `[64, 64]` bool.
        is_common: where luminances do not differ clearly, `[16, 16]` bool.
        light_fit: curve of light between the luminances.
    """
    size = (COLOUR_SIDE, COLOUR_SIDE)
    first = _soften(template.colours, scale_transform(transform, COLOUR_SIDE / SIDE))
    second = _warp_colours(image, transform)
    source, target = (first, second) if light_fit.is_forward else (second, first)
    covered = cv2.resize(inside.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.9  # but for its edge
    compared = covered & is_common
    if not compared.any():
        return False

    # A change of light applies one curve to all channels. Where a channel is clipped at white, the curve of the
    # luminances is not that curve, so a second one is fitted to the channels. After a change of saturation only the
    # curve of the luminances holds. Both are tried, and the better one counts.
    lit = apply_curve(light_fit.curve, source)
    differences, strengths = _compare_colours(lit, target, compared)
    curve_of_channels = _fit_curve(*(_choose_samples(colours[compared].ravel()) for colours in (source, target)))
    if curve_of_channels is not None:
        lit_by_channels = apply_curve(curve_of_channels, source)
        # Hues that differ flatten the curve, and a flat curve would hide them.
        if lit_by_channels[compared].std() > MIN_CONTRAST_LEFT * lit[compared].std():
            channel_differences, channel_strengths = _compare_colours(lit_by_channels, target, compared)
            if channel_differences.sum() < differences.sum():
                differences, strengths = channel_differences, channel_strengths

    if (differences > OTHER_COLOUR).mean() > MAX_OTHER_COLOURS:
        return True
    mean_difference = float(np.sqrt((differences[compared] ** 2).mean()))
    mean_strength = float(np.sqrt((strengths[compared] ** 2).mean()))
    return mean_difference > max(PALE_COLOUR, MAX_UNLIKE_COLOUR * mean_strength)


def _compare_colours(source: np.ndarray, target: np.ndarray, covered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return by how many levels colours of equal light differ, and how strong the paler ones are, `[16, 16]` each.

    A saturation and a tint are fitted first.

    Args:
        source: colours after the curve of light, `[16, 16, 3]`.
        target: colours of the other image.
        covered: samples that are fitted and compared, `[16, 16]` bool.
    """
    # Blurred, because edges of colours lie a little apart.
    chroma = [cv2.blur(remove_luminance(colours), (3, 3)) for colours in (source, target)]
    # The paler image is predicted from the other one, because no saturation brings back colour to grey.
    energies = [float((values[covered] ** 2).sum()) for values in chroma]
    strong, pale = (chroma[0], chroma[1]) if energies[0] > energies[1] else (chroma[1], chroma[0])
    # A tint is a gain of the channels, so that it moves dark colours less than light ones.
    light = compute_luminance(target)[..., None] / 255
    saturation, tint = fit_colours(strong[covered], pale[covered], light[covered], num_rounds=3, scale=12)
    differences = measure_strength(pale - saturation * strong - tint * light) * covered
    return differences, measure_strength(pale)


def fit_colours(
    strong: np.ndarray, pale: np.ndarray, light: np.ndarray, num_rounds: int, scale: float
) -> tuple[float, np.ndarray]:
    """Return the saturation and the bounded tint, `[3]`, that turn strong colours into pale ones.

    Args:
        strong: colours less their luminance, `[N, 3]`.
        pale: the same of the paler image, `[N, 3]`.
        light: luminance from 0 to 1, `[N, 1]`.
        num_rounds: after each of them, samples weigh less the worse they fit.
        scale: levels of an error at which a sample weighs half.
    """
    strong, pale = _choose_samples(strong).T.copy(), _choose_samples(pale).T.copy()  # [3, N]
    light = _choose_samples(light)[:, 0]
    # All that a round needs are sums of these products, `[10, N]`.
    squares_of_colours = [(strong * pale).sum(axis=0), (strong**2).sum(axis=0), (pale**2).sum(axis=0)]
    products = np.vstack([*squares_of_colours, light**2, light * strong, light * pale])
    weights = np.ones(len(light), np.float32)
    tint = np.zeros(3, np.float32)
    saturation = 1.0
    for _ in range(num_rounds):
        # Weighted least squares of pale = saturation * strong + tint * light, in one of both after the other.
        sums = products @ weights
        light_strong, light_pale = sums[4:7], sums[7:]
        saturation = float((sums[0] - tint @ light_strong) / max(sums[1], 1.0))
        saturation = min(max(saturation, 0.0), 1.5)
        tint = ((light_pale - saturation * light_strong) / max(sums[3], 1e-3)).clip(-TINT, TINT)
        # The square of an error, multiplied out.
        factors_of_scalars = [-2 * saturation, saturation**2, 1.0, tint @ tint]
        factors = np.concatenate([factors_of_scalars, 2 * saturation * tint, -2 * tint])
        squares = factors.astype(np.float32) @ products
        weights = 1 / (1 + squares / scale**2)
    return saturation, tint


def correlate(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of two vectors, `[N]`; 0 if one of them is even."""
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / max(float(np.sqrt((first @ first) * (second @ second))), 1e-3))
