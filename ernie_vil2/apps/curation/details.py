"""Compare the details of two images that show the same: a letter, a button or another ground makes another image.

Thumbnails are too small to show a letter. Pairs whose thumbnails agree (`registration.py`) are therefore compared once
more, in colour and with their borders, at 160 samples of the longer side. The map between the thumbnails lays the
images over each other, light and colour are fitted for all samples together, and what then still differs within
the images is a spot.

The limits were chosen on the crawls of `demo_data/crawls` (`benchmarks/curate_truth.py`), and on one half of the images
of `benchmarks/likeness.py`.
"""

from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from ernie_vil2.apps.curation.image_measures import compute_percentile
from ernie_vil2.apps.curation.registration import (
    SIDE,
    Verdict,
    apply_curve,
    compute_luminance,
    correlate,
    find_differences,
    find_largest_channel,
    fit_colours,
    fit_light,
    measure_contrast,
    measure_strength,
    remove_luminance,
)
from ernie_vil2.apps.curation.relighting import LIGHTEST, relight
from ernie_vil2.data.decoding import decode_image

DETAIL_SIDE = 160  # samples of the longer side: a letter of a fifteenth of the image has ten
QUALITY = 85  # of the JPEG in which an image is stored: some 6 kB, and 2 levels of noise
SPOT = 26.0  # levels: light that is clipped, compression and faint marks leave less, an object or a circle 30 and more
COLOUR_SPOT = 40.0  # levels of colour: saturation that is clipped leaves less, a button of another colour 49 and more
CLEAN, COLOUR_CLEAN = 5.0, 8.0  # levels, of light and of colour: smaller differences need no second look
DIFFERENCE_WINDOW = 3  # samples a side over which differences are averaged: the stroke of a letter is not wider
MIN_SPOT = 8  # samples: fewer are the noise of a single edge
EDGE = 0.2  # share of a side within which marks, bars and frames are expected
MAX_BEYOND = 0.12  # largest share of the better covered image that may lie outside the other one; it is 0 for a crop
MIN_SAMPLES = 300  # least number of samples that are compared, a square of 17: fewer say nothing of light
MIN_BEYOND = 0.04  # share that one image shows beyond the other; less is an inexact map
# A bar or a frame is even but for its letters: BAR_SHARE of its samples are within BAR_LEVELS of their median.
BAR_LEVELS, BAR_SHARE = 14, 0.55
# Edges of a blurred filling on two opposite sides, in proportion to those of the image. Of 91 photographs, copies
# blurred by a fiftieth of the width had 0.05 to 0.39, half of them below 0.12. The outer sixths of the photographs
# themselves had more than 0.6 of the edges of the inner part in three quarters of the cases, and less than 0.27 in one
# of twenty.
MAX_FILLING = 0.35
# Tiled marks are in most of the nine cells of a grid, and thin. Spots in fewer cells are an object that moved.
MIN_MARKED_CELLS, MAX_MARKED = 7, 0.25  # number of cells; share of the image
# Translucent marks all over differ faintly. In five crawls 5 of 2,035 pairs without such marks are taken for some.
MIN_FAINT_CELLS = 6  # number of cells of the grid that have a mark
MIN_CELL_MARK = 0.01  # share of a cell from which it has one
MAX_FAINT_MARK = 0.1  # largest share of the image
MAX_SOLID_MARK = 0.01  # share of the image that is thicker than a stroke
MIN_ONE_SIDED = 0.97  # share of the samples that the mark brings nearer to its level
MAX_OPACITY = 0.7  # share of the way to that level; letters in place of others go twice as far
# A sticker, with its edge: largest share of the image; least share of what differs; least share of its box.
MAX_STICKER, STICKER_SHARE, STICKER_FILLING = 0.22, 0.9, 0.5
MIN_EDGES_BESIDE = 0.5  # share of the edges of an image that have to be beside a sticker
STICKER_OUTLINE = 1.5  # least ratio of the edges of two images along the outline of a sticker
# An object is compact, while marks of text and strips are flat, and frames and cut corners are thin. Objects
# that were drawn into images have both sides of 0.09 and more; lines of text are 0.05 high, and cut corners 0.06 wide.
MIN_OBJECT_SIDE, MAX_OBJECT_ASPECT = 0.07, 2.5  # share of the shorter side of the image; ratio of its sides
GAP = 2  # samples by which what differs is grown, so that the parts of one object touch
WORD_GAP = 9  # samples between the grown words of a line of text that are joined
# Samples: letters of a tenth of the image have strokes of 2, which blur and averaging widen to 4.
STROKE = 5
# Letters in place of others: the images agree elsewhere, and where they differ by a multiple of that, both show
# something, and not the same, on an even ground. In seven crawls 20 of 4,367 pairs of copies have such letters, and 288
# of 1,612 pairs of other images whose thumbnails agree.
MAX_COMMON_DIFFERENCE = 1.5  # levels that four fifths of the differences do not exceed
LETTER, LETTER_RATIO = 6.0, 4.0  # least difference, in levels, and in proportion to the common one
MIN_SIGN, SIMILAR_SIGNS, MAX_SIGN_LIKENESS = 9.0, 0.75, 0.96  # levels; ratio of contrasts; correlation
SIGN_GROUND = 8.0  # levels within which EVEN_SHARE of the ground are near their median
# Larger letters, on any ground, such as the curved side of a tin. Where they differ, some samples are lighter in one
# image and some in the other, which a mark on a photograph does not do, and no shift makes the places alike. Of 132
# pairs of other images in eleven crawls that were taken for copies, 18 have such letters; of 3,473 pairs of copies, 4.
EXCHANGED, EXCHANGED_RATIO = 16.0, 6.0  # least difference, in levels, and in proportion to the common one
MIN_EXCHANGED, MIN_BOTH_WAYS = 30, 0.15  # samples that differ so; least share of them that is lighter in either image
MAX_EXCHANGED_LIKENESS = 0.5  # correlation of these samples
MAX_SHIFT, MAX_SHIFTED_LIKENESS = 2, 0.9  # samples; correlation of the places after the best shift
# A trace of a change that is too small for a spot. Of pairs without a spot whose captions differ in one word, 84 of 115
# pairs of copies in eight crawls have no trace, and each of 62 tickets, cards and coins with another digit has one.
TRACE, TRACE_RATIO = 5.0, 10.0  # least difference, in levels, and in proportion to the common one
MAX_NOISE = 4.0  # levels that four fifths of the samples of copies do not exceed
MIN_COMMON = 0.5  # share of an image that the other one shows; below it, one is a close view
# Faint differences over a large part are another texture; marks all over cover up to 0.1 of the inner part.
FAINT, MAX_FAINT, FAINT_WINDOW = 6.0, 0.2, 5  # levels; share of the inner part; samples a side of the average
# Colours that no saturation and tint explain are another thing, even on a small part: a brown leaf is not a red one. Of
# 1,201 pairs of copies in five crawls, 4 exceed these limits.
RECOLOURED = 12.0  # levels of colour, averaged over COLOUR_WINDOW samples a side
MAX_RECOLOURED, COLOUR_WINDOW = 0.04, 7  # share of the inner part that may differ by more; samples
# Levels of colour by which images differ to the eye, and share of an image that may do so, such as its edges.
OTHER_LOOK, MAX_OTHER_LOOK = 24.0, 0.05
# An even rim is the ground of an object. A change of light that moves its level moves the object's levels as well.
RIM = 0.05  # share of a side
EVEN_SHARE, EVEN_LEVELS = 0.8, 12.0  # least share of the rim near its median; levels that count as near
OTHER_GROUND = 12.0  # levels of a channel, by which grounds differ: noise that is clipped at white leaves 8
OBJECT_CONTRAST = 40.0  # levels from the ground
# Least change of the object, in proportion to that of the ground, if one change of light explains both.
MIN_OBJECT_CHANGE = 0.5
MAX_UNCHANGED = 0.7  # ratio of two mean errors: 0.4 to 0.66 if the ground is another one, above 1 if the light is
# Colour that is taken away and a tint that is added turn any pale hue into another one. Of 1,322 pairs of copies in the
# crawls of the shop, of photographs and of the open web, 2 have such hues.
MIN_COLOUR = 20.0  # mean strength of an image's colours, in levels
MIN_HUE_COSINE = 0.4  # cosine of the two mean colours
# Samples: deviations of successive blurs of the sharper image, tried until it would be softer than the other one.
BLURS = (0.7, 1.0, 1.4, 2.0, 2.8)
# The outline of a mark is an edge in the marked image alone. Of 237 pairs in six crawls that differ in a mark, the
# marked image is known in 194, and the other one is mistaken for it in 2.
MARK, COLOUR_MARK, MIN_MARK = 10.0, 16.0, 12  # levels of light and of colour by which a mark differs; its samples
SHARPER_OUTLINE = 1.1  # ratio of the edges of two images along an outline
_NEIGHBOURS = np.ones((3, 3), np.uint8)
_WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


class Difference(NamedTuple):
    """What differs between two images that show the same.

    has_spot: whether they differ within, in ground, texture or hue, share too little, or have no common light. Marks at
        an edge or all over, bars, cuts, noise, blur and fitted light, saturation and tint do not count.
    has_object: whether they differ, even at an edge, in something of the shape of an object, or in letters in place of
        others; and not in a line of text, a strip or a frame that one image has alone.
    worse: 1 if the first image has the mark, or else if it shows less of the scene, or an additional bar or frame; -1
        if that is so of the second one; 0 if neither is known to be worse.
    relit_likeness: correlation of the luminances after the change of light or colour that is proved to turn one image
        into the other (`relighting.py`); None if none is proved.
    has_other_look: whether colours differ clearly, in more than a small part, before saturation and tint are fitted.
    has_trace: whether a place differs by more than the rest, however small it is, or all of the images or their colours
        do, or one shows much more than the other. Compression, noise and light leave none; a letter of a label does.
    """

    has_spot: bool
    has_object: bool
    worse: int
    relit_likeness: float | None = None
    has_other_look: bool = False
    has_trace: bool = True


class Picture(NamedTuple):
    """An image with its borders.

    pixels: `[H, W, 3]` float32 RGB.
    box: left, top, right and bottom of what its thumbnail shows, as shares of width and height.
    """

    pixels: np.ndarray
    box: np.ndarray


def encode_detail(pixels: np.ndarray) -> bytes:
    """Return a JPEG of an image, `[H, W, 3]` uint8 RGB, that has at most `DETAIL_SIDE` pixels a side."""
    return simplejpeg.encode_jpeg(pixels, QUALITY, colorsubsampling="420")  # in a quarter of OpenCV's time


def decode_detail(content: np.ndarray, box: np.ndarray) -> Picture:
    """Return the picture of a JPEG, `[bytes]` uint8, and the box of its thumbnail, `[4]`."""
    pixels = decode_image(content.tobytes(), "detail").astype(np.float32)
    return Picture(cv2.GaussianBlur(pixels, (0, 0), 0.8), box)  # blurred, because noise is no difference


def compare_details(first: Picture, second: Picture, transform: np.ndarray, must_be_relit: bool = False) -> Difference:
    """Return what differs between two images.

    Args:
        first: an image.
        second: another image.
        transform: affine map from the samples of the first thumbnail to those of the second one, `[2, 3]`.
        must_be_relit: whether only images that one change of light or colour turns into each other are of interest. For
            others the comparison ends early, and only `relit_likeness`, which is None, means anything.
    """
    thumbnail_map = np.vstack([transform, [0, 0, 1]])
    to_second = np.linalg.inv(_map_to_thumbnail(second)) @ thumbnail_map @ _map_to_thumbnail(first)
    scale = abs(float(np.linalg.det(to_second[:2, :2]))) ** 0.5
    if scale < 0.999:  # the coarser image is the frame, so that nothing is enlarged
        difference = compare_details(second, first, np.linalg.inv(thumbnail_map)[:2], must_be_relit)
        return difference._replace(worse=-difference.worse)

    first_cover = _cover(second.pixels, to_second, first.pixels)
    second_cover = _cover(first.pixels, np.linalg.inv(to_second), second.pixels)
    overlay = _lay_over(first.pixels, second.pixels, (first_cover, second_cover), to_second, scale)
    relit = relit_likeness = None
    if overlay is not None:
        is_covered = overlay.is_covered
        frame, warped = _soften_alike(overlay.frame, overlay.warped)
        # One change of light or colour is tried first: it proves that images are copies. The freer curve that is fitted
        # below would also match some different plain images.
        relit = relight(frame, warped, is_covered)
    if must_be_relit and relit is None:
        return Difference(has_spot=True, has_object=False, worse=0)

    # The image that shows less is worse, or the one with a bar.
    first_rating = _rate_beyond(first.pixels, first_cover == 0)
    second_rating = _rate_beyond(second.pixels, second_cover == 0)
    worse = int(np.sign(second_rating - first_rating))

    # Images that share too little, have another ground or no common light differ, whatever their spots are.
    if overlay is None or _has_other_ground(*overlay, is_relit=relit is not None):
        return Difference(has_spot=True, has_object=False, worse=worse)
    if relit is not None:
        frame, warped = relit
        relit_likeness = correlate(*(compute_luminance(pixels)[is_covered] for pixels in relit))
    level_differences = _measure_differences(frame, warped, is_covered)
    if level_differences is None:
        return Difference(has_spot=True, has_object=False, worse=worse)

    differences, colour_differences = level_differences
    differs_clearly = (differences > SPOT) | (colour_differences > COLOUR_SPOT)
    is_inner = is_covered & _find_inner(is_covered.shape)
    has_other_texture = _average_exceeds(differences, FAINT_WINDOW, is_inner, FAINT, MAX_FAINT)
    is_clipped = (np.maximum(frame, warped) >= LIGHTEST).any(axis=2)  # a clipped colour has another hue
    is_recoloured = _average_exceeds(
        colour_differences * ~is_clipped, COLOUR_WINDOW, is_inner, RECOLOURED, MAX_RECOLOURED
    )
    # An image with a mark is the worse one, whichever shows more.
    may_be_mark = (differences > MARK) | (colour_differences > COLOUR_MARK)
    marked_image = _find_marked(frame, warped, may_be_mark, is_covered)
    colour_changes = measure_strength(remove_luminance(overlay.frame - overlay.warped))[is_covered]
    has_other_look = bool((colour_changes > OTHER_LOOK).mean() > MAX_OTHER_LOOK)
    is_other_image = has_other_texture or is_recoloured or _have_other_hues(frame, warped, is_covered)
    # Two pages with different texts also differ all over, but none of them alone has the marks.
    has_clear_marks = marked_image != 0 and _is_marked_all_over(differs_clearly)
    has_marks_all_over = has_clear_marks or _has_faint_marks(frame, warped, may_be_mark)
    has_spot = is_other_image or (_has_spot(differs_clearly) and not has_marks_all_over)
    alignment = _align_light(frame, warped, is_covered)
    has_object = _has_object(differs_clearly) or _have_other_letters(alignment, is_covered)
    is_close_view = bool(min(first_cover.mean(), second_cover.mean()) < MIN_COMMON)
    has_trace = is_close_view or (has_other_look and relit is None) or alignment.has_trace()
    return Difference(has_spot, has_object, marked_image or worse, relit_likeness, has_other_look, has_trace)


def complete_verdict(verdict: Verdict, difference: Difference) -> Verdict | None:
    """Return a verdict on two thumbnails, completed by their details, or None if these show something else."""
    likeness = verdict.likeness
    if verdict.has_other_colours:
        if difference.relit_likeness is None:
            return None
        likeness = difference.relit_likeness  # thumbnails did not see how alike they are
    is_relit = difference.relit_likeness is not None
    is_local = difference.has_spot or (verdict.is_local and not is_relit)
    return verdict._replace(
        likeness=likeness,
        is_local=is_local,
        has_object=difference.has_object,
        has_other_look=difference.has_other_look,
        has_trace=difference.has_trace,
        worse=difference.worse,
    )


def compare_beside_sticker(first: Picture, second: Picture) -> Verdict | None:
    """Return the verdict on two whole images that differ in nothing but a sticker, or None if they differ otherwise.

    A sticker may cover what registration goes by, and its colour may be most of the colours. Beside it pixels are
    unchanged, so that images are compared as they lie, without registration or a fit of colours.
    """
    height, width = first.pixels.shape[:2]
    other_height, other_width = second.pixels.shape[:2]
    if abs(height - other_height) > 1 or abs(width - other_width) > 1:
        return None
    warped = cv2.resize(second.pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    differences = find_largest_channel(find_differences(first.pixels, warped, DIFFERENCE_WINDOW))
    differs = differences > CLEAN
    if not 0 < differs.mean() <= MAX_STICKER:
        return None
    _, _, boxes, _ = cv2.connectedComponentsWithStats(differs.astype(np.uint8), connectivity=8)
    _, _, box_width, box_height, size = max(boxes[1:].tolist(), key=lambda box: box[4])  # box 0 is that of the ground
    is_sticker = size >= STICKER_SHARE * differs.sum() and size >= STICKER_FILLING * box_width * box_height
    # Two different things on the same plain ground also leave most samples unchanged, but few edges.
    luminance = compute_luminance(first.pixels)
    edges = np.abs(cv2.Laplacian(luminance, cv2.CV_32F))
    if not is_sticker or edges[~differs].sum() < MIN_EDGES_BESIDE * edges.sum():
        return None
    # A sticker adds its outline to one image; if both have an edge there, the pattern of a thing has changed.
    worse = _find_marked(first.pixels, warped, differs, np.ones_like(differs), STICKER_OUTLINE)
    if not worse:
        return None
    agrees = ~differs
    likeness = correlate(luminance[agrees], compute_luminance(warped)[agrees])
    return Verdict(likeness, is_local=True, is_turned=False, has_object=True, worse=worse)


class _Overlay(NamedTuple):
    """The shared part of two images: `frame` and, laid over it, `warped`, `[H, W, 3]` each.

    `is_covered`, `[H, W]` bool, is where both are known: a part need not be a rectangle.
    """

    frame: np.ndarray
    warped: np.ndarray
    is_covered: np.ndarray


def _lay_over(
    first: np.ndarray,
    second: np.ndarray,
    covers: tuple[np.ndarray, np.ndarray],
    to_second: np.ndarray,
    scale: float,
) -> _Overlay | None:
    """Lay an image over the part of another one that it covers; None if they share too little.

    Args:
        first: `[H, W, 3]`.
        second: the image that is laid over it, `[H2, W2, 3]`.
        covers: where the second image covers the first one, `[H, W]` uint8, and the reverse, `[H2, W2]` uint8.
        to_second: map from the samples of the first to those of the second, `[3, 3]`.
        scale: samples of the second for one of the first, at least 1.
    """
    first_cover, second_cover = covers
    if 1 - max(first_cover.mean(), second_cover.mean()) > MAX_BEYOND:
        return None

    x, y, width, height = cv2.boundingRect(first_cover)
    rows, columns = slice(y, y + height), slice(x, x + width)
    # Samples at the edge of the other image are mixed with what it does not show.
    is_covered = cv2.erode(first_cover[rows, columns], _NEIGHBOURS, iterations=2) > 0
    if is_covered.sum() < MIN_SAMPLES:
        return None
    if scale > 1.05:  # as a reduction by area would blur it
        second = cv2.GaussianBlur(second, (0, 0), 0.5 * (scale**2 - 1) ** 0.5)
    part_to_second = to_second @ np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])
    warped = cv2.warpAffine(second, part_to_second[:2], (width, height), flags=_WARP, borderMode=cv2.BORDER_REPLICATE)
    return _Overlay(first[rows, columns], warped, is_covered)


def _find_marked(
    first: np.ndarray,
    second: np.ndarray,
    may_be_mark: np.ndarray,
    is_covered: np.ndarray,
    min_ratio: float = SHARPER_OUTLINE,
) -> int:
    """Return which of two images, `[H, W, 3]`, has the mark by which they differ, as in `Difference.worse`.

    Args:
        first: an image.
        second: the other image.
        may_be_mark: where one of them may have a mark, `[H, W]` bool.
        is_covered: where both are known, `[H, W]` bool.
        min_ratio: least ratio of the edges of both images along the outline of the mark.
    """
    if may_be_mark.sum() < MIN_MARK:
        return 0
    mark = may_be_mark.astype(np.uint8)
    grown, shrunk = cv2.dilate(mark, _NEIGHBOURS, iterations=2), cv2.erode(mark, _NEIGHBOURS, iterations=2)
    is_outline = (grown > shrunk) & is_covered
    if not is_outline.any():
        return 0
    edges = []
    for pixels in (first, second):
        slopes_x, slopes_y = cv2.Sobel(pixels, cv2.CV_32F, 1, 0), cv2.Sobel(pixels, cv2.CV_32F, 0, 1)
        slopes = measure_strength(cv2.magnitude(slopes_x, slopes_y))
        edges.append(float(slopes[is_outline].mean()))
    if max(edges) < min_ratio * max(min(edges), 1e-3):
        return 0
    return 1 if edges[0] > edges[1] else -1


def _rate_beyond(pixels: np.ndarray, is_beyond: np.ndarray) -> int:
    """Rate what an image, `[H, W, 3]`, shows where another one does not reach, `[H, W]` bool.

    Returns:
        1 if it shows more of the scene, 0 if it shows hardly more, -1 if what it shows more is a bar, a frame, or a
        blurred filling.
    """
    if is_beyond.mean() < MIN_BEYOND:
        return 0
    luminance = compute_luminance(pixels)
    beyond = is_beyond.astype(np.uint8)
    level = float(np.median(luminance[is_beyond]))
    has_level = np.abs(luminance - level) <= BAR_LEVELS
    if has_level[is_beyond].mean() >= BAR_SHARE:
        # An even ground that goes on within the image is a part of it, and no bar. The ring leaves the bar's edge out.
        ring = cv2.dilate(beyond, _NEIGHBOURS, iterations=5) > cv2.dilate(beyond, _NEIGHBOURS)
        goes_on = bool(ring.any()) and has_level[ring].mean() >= BAR_SHARE
        return 1 if goes_on else -1

    # A filling gives an image another shape, so that it is on two opposite sides, and blurred.
    is_beside = is_beyond[:, 0].mean() > 0.5 and is_beyond[:, -1].mean() > 0.5
    is_above_and_below = is_beyond[0].mean() > 0.5 and is_beyond[-1].mean() > 0.5
    # The edge between both is an edge of neither.
    outside = cv2.erode(beyond, _NEIGHBOURS, iterations=2) > 0
    inside = cv2.erode(1 - beyond, _NEIGHBOURS, iterations=2) > 0
    if not (is_beside or is_above_and_below) or not outside.any() or not inside.any():
        return 1
    edges = np.abs(cv2.Laplacian(luminance, cv2.CV_32F))
    return -1 if edges[outside].mean() < MAX_FILLING * edges[inside].mean() else 1


def _has_other_ground(first: np.ndarray, second: np.ndarray, is_covered: np.ndarray, is_relit: bool) -> bool:
    """Return whether an object has another ground in each image, `[H, W, 3]`, and the same colours.

    Args:
        first: an image.
        second: the other image.
        is_covered: where both are known, `[H, W]` bool.
        is_relit: whether one change of light or colour turns one image into the other.
    """
    height, width = is_covered.shape
    depth_y, depth_x = max(3, round(RIM * height)), max(3, round(RIM * width))
    is_rim = is_covered.copy()
    is_rim[depth_y : height - depth_y, depth_x : width - depth_x] = False
    grounds = []
    for pixels in (first, second):
        rim = pixels[is_rim]
        ground = np.median(rim, axis=0)
        is_even = find_largest_channel(np.abs(rim - ground)) <= EVEN_LEVELS
        if is_even.mean() < EVEN_SHARE:
            return False
        grounds.append(ground)
    ground_change = np.abs(grounds[0] - grounds[1]).max()
    if ground_change < OTHER_GROUND:
        return False
    # The darker ground comes first, because darker light cannot bring back what was cut off at white.
    if grounds[0].sum() > grounds[1].sum():
        first, second, grounds = second, first, grounds[::-1]
    is_object = is_covered & (find_largest_channel(np.abs(first - grounds[0])) > OBJECT_CONTRAST)
    if is_object.sum() < MIN_SAMPLES:
        return False
    unchanged_error = np.abs(second[is_object] - first[is_object]).mean()
    if is_relit and unchanged_error >= MIN_OBJECT_CHANGE * ground_change:
        return False
    # The ground is another one if the object fits much better unchanged than in the light between the grounds.
    lit = np.minimum(first[is_object] * grounds[1] / np.maximum(grounds[0], 1), 255)
    return bool(unchanged_error < MAX_UNCHANGED * np.abs(second[is_object] - lit).mean())


def _have_other_hues(first: np.ndarray, second: np.ndarray, is_covered: np.ndarray) -> bool:
    """Return whether two coloured images, `[H, W, 3]`, have different hues on the whole."""
    mask = is_covered.astype(np.uint8)
    colours = [remove_luminance(pixels) for pixels in (first, second)]
    if min(cv2.mean(measure_strength(colour), mask)[0] for colour in colours) < MIN_COLOUR:
        return False
    first_mean, second_mean = (np.array(cv2.mean(colour, mask)[:3]) for colour in colours)
    norms = np.linalg.norm(first_mean) * np.linalg.norm(second_mean)
    return bool(first_mean @ second_mean < MIN_HUE_COSINE * norms)


def _map_to_thumbnail(picture: Picture) -> np.ndarray:
    """Return the map from the samples of a picture to those of its thumbnail, `[3, 3]`."""
    height, width = picture.pixels.shape[:2]
    left, top, right, bottom = picture.box
    scale_x, scale_y = SIDE / ((right - left) * width), SIDE / ((bottom - top) * height)
    shift_x, shift_y = (0.5 - left * width) * scale_x - 0.5, (0.5 - top * height) * scale_y - 0.5
    return np.array([[scale_x, 0, shift_x], [0, scale_y, shift_y], [0, 0, 1]])


def _cover(image: np.ndarray, transform: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Return where an image covers a frame, `[H, W]` uint8, by the map from the frame to the image."""
    inside = np.ones(image.shape[:2], np.uint8)
    height, width = frame.shape[:2]
    return cv2.warpAffine(inside, transform[:2], (width, height), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)


def _soften_alike(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Blur the sharper one of two images until its edges are as soft as those of the other one."""
    sharpness = [_measure_edges(pixels) for pixels in (first, second)]
    if sharpness[0] < sharpness[1]:
        second, first = _soften_alike(second, first)
        return first, second
    softened = first
    for blur in BLURS:
        blurred = cv2.GaussianBlur(softened, (0, 0), blur)
        if _measure_edges(blurred) < sharpness[1]:
            break
        softened = blurred
    return softened, second


def _measure_edges(pixels: np.ndarray) -> float:
    """Return the energy of the finest edges, in proportion to that of all levels."""
    luminance = compute_luminance(pixels)
    return measure_contrast(cv2.Laplacian(luminance, cv2.CV_32F)) ** 2 / max(measure_contrast(luminance) ** 2, 1)


def _measure_differences(
    first: np.ndarray, second: np.ndarray, is_covered: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return by how many levels the light and the colours of two images, `[H, W, 3]`, differ once both are fitted.

    Returns:
        `[H, W]` float32 each, 0 where images are not covered; None if no rising curve maps the levels of one to the
        other's.
    """
    luminances = compute_luminance(first), compute_luminance(second)
    light_fit = fit_light(*luminances, is_covered)
    if light_fit is None:
        return None
    source, target = (first, second) if light_fit.is_forward else (second, first)
    differences = find_differences(light_fit.lit, light_fit.target, DIFFERENCE_WINDOW)
    colour_differences = _compare_colours(apply_curve(light_fit.curve, source), target, is_covered)
    # The curve is fitted to common levels: a rare one may lie outside its range, and agree without it. So levels that
    # differ are compared without the curve as well, and the smaller difference counts.
    if (differences[is_covered] > CLEAN).any():
        differences = np.minimum(differences, find_differences(*luminances, DIFFERENCE_WINDOW))
    if (colour_differences[is_covered] > COLOUR_CLEAN).any():
        colour_differences = np.minimum(colour_differences, _compare_colours(source, target, is_covered))
    return differences * is_covered, colour_differences * is_covered


def _compare_colours(source: np.ndarray, target: np.ndarray, is_covered: np.ndarray) -> np.ndarray:
    """Return by how many levels the colours of two images, `[H, W, 3]`, of equal light differ, `[H, W]` float32.

    A saturation and a bounded tint are fitted first.
    """
    height, width = is_covered.shape
    half_size = max(1, width // 2), max(1, height // 2)  # JPEG stores colours at half of the size
    source = cv2.resize(source, half_size, interpolation=cv2.INTER_AREA)
    target = cv2.resize(target, half_size, interpolation=cv2.INTER_AREA)
    chroma = [remove_luminance(colours) for colours in (source, target)]
    # Colours are fitted within the edge: a strong frame would take the fit over.
    inside = cv2.resize((is_covered & _find_inner(is_covered.shape)).astype(np.uint8), half_size)
    # The paler image is predicted from the other one, because no saturation brings back colour to grey.
    energies = [cv2.norm(values, cv2.NORM_L2SQR, inside) for values in chroma]
    strong, pale = (chroma[0], chroma[1]) if energies[0] > energies[1] else (chroma[1], chroma[0])
    light = compute_luminance(target)[..., None] / 255
    # Every third sample is enough for four numbers.
    places = np.flatnonzero(inside)[::3]
    strong_samples, pale_samples = strong.reshape(-1, 3)[places], pale.reshape(-1, 3)[places]
    saturation, tint = fit_colours(strong_samples, pale_samples, light.reshape(-1, 1)[places], num_rounds=5, scale=8)
    fitted = saturation * strong + tint * light
    differences = measure_strength(find_differences(fitted, pale, DIFFERENCE_WINDOW))
    return cv2.resize(differences, (width, height), interpolation=cv2.INTER_NEAREST)


def _average_exceeds(
    differences: np.ndarray, window: int, is_inner: np.ndarray, level: float, max_share: float
) -> bool:
    """Return whether averages of differences, `[H, W]`, exceed a level in more than a share of the inner part.

    Args:
        differences: levels by which images differ.
        window: samples a side over which they are averaged.
        is_inner: the inner part of what is compared, `[H, W]` bool.
        level: level of an average that counts.
        max_share: share of the inner part that may have such averages.
    """
    inner_averages = cv2.blur(differences, (window, window))[is_inner]
    return bool(inner_averages.size) and float((inner_averages > level).mean()) > max_share


def _has_spot(differs: np.ndarray) -> bool:
    """Return whether images, given where they differ, `[H, W]` bool, do so within, and not at an edge."""
    if not differs.any():
        return False
    # A spot is inner if any of its samples is: a letter may begin near the edge.
    grown = cv2.dilate(differs.astype(np.uint8), _NEIGHBOURS)
    _, labels = cv2.connectedComponents(grown, connectivity=8)
    inner_labels = np.unique(labels[differs & _find_inner(differs.shape)])
    is_spot = differs & np.isin(labels, inner_labels)
    return bool(is_spot.sum() >= MIN_SPOT)


class _Alignment(NamedTuple):
    """Two luminances with one gain and one offset fitted, and what they still differ by.

    first, second: luminances, `[H, W]` float32.
    differences: levels by which they differ, averaged over `DIFFERENCE_WINDOW` samples a side, 0 where not compared.
    common_difference: level that four fifths of the differences do not exceed.
    """

    first: np.ndarray
    second: np.ndarray
    differences: np.ndarray
    common_difference: float

    def has_trace(self) -> bool:
        """Return whether a place differs by more than the rest, or all of the images do."""
        largest_difference = float(self.differences.max())
        is_outlier = largest_difference > max(TRACE, TRACE_RATIO * self.common_difference)
        return is_outlier or self.common_difference > MAX_NOISE


def _align_light(first: np.ndarray, second: np.ndarray, is_covered: np.ndarray) -> _Alignment:
    """Fit the light of two images, `[H, W, 3]`, where both are known, `[H, W]` bool, by one gain and one offset."""
    first_light, second_light = compute_luminance(first), compute_luminance(second)
    first_samples, second_samples = first_light[is_covered], second_light[is_covered]
    first_mean, second_mean = first_samples.mean(), second_samples.mean()
    centred = first_samples - first_mean
    gain = float(centred @ second_samples / max(float(centred @ centred), 1.0))
    first_light = gain * (first_light - first_mean) + second_mean
    window = DIFFERENCE_WINDOW, DIFFERENCE_WINDOW
    differences = cv2.blur(np.abs(first_light - second_light) * is_covered, window)
    common_difference = compute_percentile(differences[is_covered], 80)
    return _Alignment(first_light, second_light, differences, common_difference)


def _have_other_letters(alignment: _Alignment, is_covered: np.ndarray) -> bool:
    """Return whether images that are equal elsewhere have other letters or signs in the same place.

    A mark is in one image alone. Where both show something, and not the same, one was written in place of the other,
    even at an edge, and however small.

    Args:
        alignment: luminances of the images.
        is_covered: where both are known, `[H, W]` bool.
    """
    first_light, second_light, differences, common_difference = alignment
    if common_difference > MAX_NOISE:
        return False

    differs = is_covered & (differences > max(LETTER, LETTER_RATIO * common_difference))
    places = cv2.dilate(differs.astype(np.uint8), _NEIGHBOURS, iterations=GAP)
    # Copies often differ along their very edge, where samples were mixed with what lies beyond.
    is_inside = is_covered.copy()
    is_inside[[0, -1]] = is_inside[:, [0, -1]] = False
    num_labels, labels, boxes, _ = cv2.connectedComponentsWithStats(places, connectivity=8)
    for label in range(1, num_labels):
        x, y, width, height, _ = boxes[label].tolist()
        surroundings = slice(max(y - GAP, 0), y + height + GAP), slice(max(x - GAP, 0), x + width + GAP)
        place = labels[surroundings] == label
        around = cv2.dilate(place.astype(np.uint8), _NEIGHBOURS, iterations=GAP) > 0
        if not is_inside[surroundings][around].all():
            continue
        lights = first_light[surroundings], second_light[surroundings]
        contrasts = [float(light[place].std()) for light in lights]
        has_two_signs = min(contrasts) >= max(MIN_SIGN, SIMILAR_SIGNS * max(contrasts))
        if not has_two_signs or correlate(lights[0][place], lights[1][place]) >= MAX_SIGN_LIKENESS:
            continue
        is_ground = around & (places[surroundings] == 0)
        has_even_ground = is_ground.sum() >= MIN_SPOT and all(_is_even(light[is_ground]) for light in lights)
        if has_even_ground and common_difference <= MAX_COMMON_DIFFERENCE:
            return True
        least_difference = max(EXCHANGED, EXCHANGED_RATIO * common_difference)
        if _are_exchanged(*lights, place & (np.abs(lights[0] - lights[1]) > least_difference)):
            return True
    return False


def _are_exchanged(first_light: np.ndarray, second_light: np.ndarray, differs: np.ndarray) -> bool:
    """Return whether a place shows other letters in each of two images, whatever ground they are on.

    Args:
        first_light: luminance of the place, `[H, W]` float32.
        second_light: that of the other image.
        differs: where they differ clearly, `[H, W]` bool.
    """
    if differs.sum() < MIN_EXCHANGED:
        return False
    first, second = first_light[differs], second_light[differs]
    lighter_share = float((first > second).mean())
    goes_both_ways = MIN_BOTH_WAYS <= lighter_share <= 1 - MIN_BOTH_WAYS
    if not goes_both_ways or correlate(first, second) > MAX_EXCHANGED_LIKENESS:
        return False
    inner = second_light[MAX_SHIFT:-MAX_SHIFT, MAX_SHIFT:-MAX_SHIFT]
    return float(cv2.matchTemplate(first_light, inner, cv2.TM_CCOEFF_NORMED).max()) < MAX_SHIFTED_LIKENESS


def _is_even(levels: np.ndarray) -> bool:
    """Return whether nearly all levels, `[S]`, are close to their median."""
    return bool((np.abs(levels - np.median(levels)) <= SIGN_GROUND).mean() >= EVEN_SHARE)


def _is_marked_all_over(differs: np.ndarray) -> bool:
    """Return whether what differs, `[H, W]` bool, is tiled marks: thin, and in most cells of a grid of 3 x 3."""
    cells = cv2.resize(differs.astype(np.float32), (3, 3), interpolation=cv2.INTER_AREA)
    is_everywhere = (cells > 0).sum() >= MIN_MARKED_CELLS and differs.mean() <= MAX_MARKED
    return bool(is_everywhere) and not _find_solid(differs).any()


def _has_faint_marks(first: np.ndarray, second: np.ndarray, may_be_mark: np.ndarray) -> bool:
    """Return whether one of two images, `[H, W, 3]`, has thin, translucent marks of one level all over.

    Marks bring all levels below them nearer to their own. What differs otherwise is lighter here and darker there.

    Args:
        first: an image.
        second: the other image.
        may_be_mark: where they differ, `[H, W]` bool.
    """
    cells = cv2.resize(may_be_mark.astype(np.float32), (3, 3), interpolation=cv2.INTER_AREA)
    is_everywhere = (cells > MIN_CELL_MARK).sum() >= MIN_FAINT_CELLS and may_be_mark.mean() <= MAX_FAINT_MARK
    if not is_everywhere or _find_solid(may_be_mark).mean() > MAX_SOLID_MARK:
        return False
    levels = [compute_luminance(pixels)[may_be_mark] for pixels in (first, second)]
    return _lead_to_one_level(*levels) or _lead_to_one_level(*levels[::-1])


def _lead_to_one_level(unmarked: np.ndarray, marked: np.ndarray) -> bool:
    """Return whether a translucent mark of one level explains how levels, `[N]` each, differ."""
    changes = marked - unmarked
    # A mark of opacity A and level L changes a level X by A (L - X). Letters in place of others change it by more.
    centred = unmarked - unmarked.mean()
    opacity = -float(centred @ changes) / max(float(centred @ centred), 1.0)
    if opacity > MAX_OPACITY:
        return False
    # Find the level of the mark that explains most changes: samples below it become lighter, and those above darker.
    rises = changes[np.argsort(unmarked)] > 0
    num_rising_below = np.append(0, np.cumsum(rises))
    num_falling_above = np.append(np.cumsum(~rises[::-1])[::-1], 0)
    return float((num_rising_below + num_falling_above).max()) >= MIN_ONE_SIDED * len(rises)


def _find_solid(differs: np.ndarray) -> np.ndarray:
    """Return the middle of what is thicker than a stroke of a letter, `[H, W]` bool."""
    return cv2.erode(differs.astype(np.uint8), np.ones((STROKE, STROKE), np.uint8)) > 0


def _has_object(differs: np.ndarray) -> bool:
    """Return whether images, given where they differ, `[H, W]` bool, do so in the shape of an object, at any place."""
    if not differs.any() or _is_marked_all_over(differs):
        return False
    height, width = differs.shape
    # Parts of an object that look like its ground leave gaps, and so do the words of a line of text.
    grown = cv2.dilate(differs.astype(np.uint8), _NEIGHBOURS, iterations=GAP)
    grown = cv2.morphologyEx(grown, cv2.MORPH_CLOSE, np.ones((1, WORD_GAP), np.uint8))
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(grown, connectivity=8)
    for label in np.unique(labels[_find_solid(differs)]).tolist():
        x, y, box_width, box_height, _ = boxes[label].tolist()
        shorter, longer = sorted((box_width - 2 * GAP, box_height - 2 * GAP))
        is_compact = shorter >= MIN_OBJECT_SIDE * min(height, width) and longer <= MAX_OBJECT_ASPECT * shorter
        # What fills a corner is its rounding or its shadow.
        touches_side = x == 0 or x + box_width == width
        touches_end = y == 0 or y + box_height == height
        fills_corner = touches_side and touches_end
        if is_compact and not fills_corner:
            return True
    return False


def _find_inner(shape: tuple[int, ...]) -> np.ndarray:
    """Return the places of an image of this height and width that are not at its edge, `[H, W]` bool."""
    height, width = shape
    depth_y, depth_x = round(EDGE * height), round(EDGE * width)  # in samples
    is_inner = np.zeros((height, width), bool)
    is_inner[depth_y : height - depth_y, depth_x : width - depth_x] = True
    return is_inner
