"""Compare two images that show the same in their details: a letter, a button or another ground makes another image.

Thumbnails are too small to show a letter. Pairs whose thumbnails agree (`registration.py`) are therefore compared once
more, in colour and with their borders, at 160 samples of the longer side. The map between the thumbnails lays the
images over each other, light and colour are fitted for all samples together, and what then still differs is a spot.

The limits were chosen on the crawls of `demo_data/crawls` (`benchmarks/curate_truth.py`), and on one half of the images
of `benchmarks/likeness.py`.
"""

from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from ernie_vil2.apps.curation.registration import LUMA, SIDE, apply_curve, fit_colours, fit_light
from ernie_vil2.data.decoding import decode_image

DETAIL_SIDE = 160  # samples of the longer side: a letter of a fifteenth of the image has ten
QUALITY = 85  # of the JPEG in which an image is stored: some 6 kB, and 2 levels of noise
SPOT = 26.0  # levels: light that is cut off, compression and faint marks leave less, an object or a circle 30 and more
COLOUR_SPOT = 40.0  # levels of colour: saturation that is cut off leaves less, a button of another colour 49 and more
CLEAN, COLOUR_CLEAN = 5.0, 8.0  # likewise, up to which nothing needs to be measured again
MIN_SPOT = 8  # samples: fewer are the noise of a single edge
EDGE = 0.2  # share of a side within which marks, bars and frames are expected
MAX_BEYOND = 0.12  # share that both images show beyond the other: a crop, or a frame, is beyond one only
MIN_SAMPLES = 300  # that are compared at least
MIN_BEYOND = 0.04  # share that one image shows beyond the other; less is an inexact map
BAR_LEVELS, BAR_SHARE = 14, 0.55  # a bar or a frame has one level but for its letters
MAX_FILLING = 0.35  # edges of a filling on two opposite sides, in those of the image; a blurred copy has 0.1 to 0.3
# Tiled marks are in most of the nine cells of a grid, and thin. Spots in fewer cells are an object that moved.
MIN_MARKED_CELLS, MAX_MARKED = 7, 0.25
# An object is compact, while marks of text and strips are flat, and frames and cut corners are thin. Objects
# that were drawn into images have both sides of 0.09 and more; lines of text are 0.05 high, and cut corners 0.06 wide.
MIN_OBJECT_SIDE, MAX_OBJECT_ASPECT = 0.07, 2.5  # share of the shorter side of the image; ratio of its sides
JOINED = 2  # samples around what differs, within which it is one object
# Faint differences over a large part are another texture; marks all over cover up to 0.1 of the inner part.
FAINT, MAX_FAINT = 6.0, 0.2  # levels; share of the inner part
# An even rim is the ground of an object. A change of light that moves its level moves the object's levels as well.
RIM, EVEN_SHARE, EVEN_LEVELS = 0.05, 0.8, 12.0  # share of a side; share of the rim that has one level, within so many
OTHER_GROUND = 12.0  # levels of a channel, by which grounds differ: noise that is cut off at white leaves 8
OBJECT_CONTRAST = 40.0  # levels from the ground
MAX_UNCHANGED = 0.7  # ratio of two mean errors: 0.4 to 0.66 if the ground is another one, above 1 if the light is
BLURS = (0.7, 1.0, 1.4, 2.0, 2.8)  # samples, by which the sharper image is blurred until it is as soft as the other one
# The outline of a mark is an edge in the marked image alone: of 140 marks in the crawls one is taken for the other's.
MARK, COLOUR_MARK, MIN_MARK = 16.0, 26.0, 12  # levels, of light and of colour; samples
SHARPER_OUTLINE = 1.1  # ratio of the edges of two images along an outline
_NEIGHBOURS = np.ones((3, 3), np.uint8)
_WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


class Difference(NamedTuple):
    """What differs between two images that show the same.

    has_spot: whether they differ within, in their ground, or in how they are placed on it. Marks at an edge or all
        over, bars and cuts do not count, and neither do light, colours, noise and blur.
    has_object: whether they differ, even at an edge, in something of the shape of an object, and not of a line of text,
        a strip or a frame.
    worse: 1 if the first image has a mark, a strip or a sticker, or else if it shows less, or a bar or a frame more; -1
        if that is so of the second one; 0 if neither is known to be worse.
    """

    has_spot: bool
    has_object: bool
    worse: int


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


def compare_details(first: Picture, second: Picture, transform: np.ndarray) -> Difference:
    """Return what differs between two images.

    Args:
        first: an image.
        second: another image.
        transform: affine map from the samples of the first thumbnail to those of the second one, `[2, 3]`.
    """
    to_second = np.linalg.inv(_map_to_thumbnail(second)) @ np.vstack([transform, [0, 0, 1]]) @ _map_to_thumbnail(first)
    scale = abs(float(np.linalg.det(to_second[:2, :2]))) ** 0.5
    if scale < 0.999:  # the coarser image is the frame, so that nothing is enlarged
        back = np.linalg.inv(np.vstack([transform, [0, 0, 1]]))[:2]
        difference = compare_details(second, first, back)
        return difference._replace(worse=-difference.worse)
    covers = (
        _cover(second.pixels, to_second, first.pixels),
        _cover(first.pixels, np.linalg.inv(to_second), second.pixels),
    )
    # An image is worse if there is more beyond it in the other one.
    worse = _rate_beyond(second.pixels, covers[1] == 0) - _rate_beyond(first.pixels, covers[0] == 0)
    worse = int(np.sign(worse))
    overlay = _lay_over(first.pixels, second.pixels, covers, to_second, scale)
    if overlay is None or _has_other_ground(*overlay):
        return Difference(True, False, worse)
    is_covered = overlay.is_covered
    frame, warped = _soften_alike(overlay.frame, overlay.warped)
    measured = _measure_differences(frame, warped, is_covered)
    if measured is None:
        return Difference(True, False, worse)
    differences, colour_differences = measured
    is_clear = (differences > SPOT) | (colour_differences > COLOUR_SPOT)
    has_spot = _has_spot(is_clear)
    inner_differences = cv2.blur(differences, (5, 5))[is_covered & _find_inner(is_covered.shape)]
    has_spot |= bool(inner_differences.size) and float((inner_differences > FAINT).mean()) > MAX_FAINT
    differs = (differences > MARK) | (colour_differences > COLOUR_MARK)
    # An image with a mark is the worse one, whichever shows more.
    worse = _find_marked(frame, warped, differs, is_covered) or worse
    return Difference(has_spot, _has_object(is_clear), worse)


class _Overlay(NamedTuple):
    """What one image shows of another one, `[H, W, 3]` each, and where, `[H, W]` bool."""

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
        second: the image that is laid over it.
        covers: where the second image covers the first one, and the other way round, `[H, W]` uint8 each.
        to_second: map from the samples of the first to those of the second, `[3, 3]`.
        scale: samples of the second for one of the first, at least 1.
    """
    is_covered = covers[0]
    if 1 - max(is_covered.mean(), covers[1].mean()) > MAX_BEYOND:
        return None

    left, top, width, height = cv2.boundingRect(is_covered)
    rows, columns = slice(top, top + height), slice(left, left + width)
    is_covered = cv2.erode(is_covered[rows, columns], _NEIGHBOURS, iterations=2) > 0
    if is_covered.sum() < MIN_SAMPLES:
        return None
    if scale > 1.05:
        second = cv2.GaussianBlur(second, (0, 0), 0.5 * (scale**2 - 1) ** 0.5)
    to_second = to_second @ np.array([[1, 0, left], [0, 1, top], [0, 0, 1]])
    warped = cv2.warpAffine(second, to_second[:2], (width, height), flags=_WARP, borderMode=cv2.BORDER_REPLICATE)
    return _Overlay(first[rows, columns], warped, is_covered)


def _find_marked(first: np.ndarray, second: np.ndarray, differs: np.ndarray, is_covered: np.ndarray) -> int:
    """Return which of two images, `[H, W, 3]`, has a mark where they differ, as in `Difference.worse`."""
    if differs.sum() < MIN_MARK:
        return 0
    mark = differs.astype(np.uint8)
    grown, shrunk = cv2.dilate(mark, _NEIGHBOURS, iterations=2), cv2.erode(mark, _NEIGHBOURS, iterations=2)
    is_outline = (grown > shrunk) & is_covered
    if not is_outline.any():
        return 0
    edges = []
    for pixels in (first, second):
        slopes = np.stack([cv2.Sobel(pixels, cv2.CV_32F, 1, 0), cv2.Sobel(pixels, cv2.CV_32F, 0, 1)])
        edges.append(float(np.linalg.norm(slopes, axis=(0, 3))[is_outline].mean()))
    if max(edges) < SHARPER_OUTLINE * max(min(edges), 1e-3):
        return 0
    return 1 if edges[0] > edges[1] else -1


def _rate_beyond(pixels: np.ndarray, is_beyond: np.ndarray) -> int:
    """Return what an image, `[H, W, 3]`, shows beyond another one, `[H, W]` bool.

    Returns:
        1 if it shows more of the scene, 0 if it shows hardly more, -1 if what it shows more is a bar, a frame, or a
        blurred filling.
    """
    if is_beyond.mean() < MIN_BEYOND:
        return 0
    luminance = pixels @ LUMA
    beyond = is_beyond.astype(np.uint8)
    level = float(np.median(luminance[is_beyond]))
    has_level = np.abs(luminance - level) <= BAR_LEVELS
    if has_level[is_beyond].mean() >= BAR_SHARE:
        # An even ground that goes on within the image is a part of it, and no bar. The first sample is the bar's edge.
        ring = cv2.dilate(beyond, _NEIGHBOURS, iterations=5) > cv2.dilate(beyond, _NEIGHBOURS)
        goes_on = bool(ring.any()) and has_level[ring].mean() >= BAR_SHARE
        return 1 if goes_on else -1

    is_filled = (is_beyond[:, 0].mean() > 0.5 and is_beyond[:, -1].mean() > 0.5) or (
        is_beyond[0].mean() > 0.5 and is_beyond[-1].mean() > 0.5
    )
    edges = np.abs(cv2.Laplacian(luminance, cv2.CV_32F))
    places = [cv2.erode(mask.astype(np.uint8), _NEIGHBOURS, iterations=2) > 0 for mask in (is_beyond, ~is_beyond)]
    if not is_filled or not places[0].any() or not places[1].any():
        return 1
    return -1 if edges[places[0]].mean() < MAX_FILLING * edges[places[1]].mean() else 1


def _has_other_ground(first: np.ndarray, second: np.ndarray, is_covered: np.ndarray) -> bool:
    """Return whether an object has another ground in each image, `[H, W, 3]`, and the same colours."""
    height, width = is_covered.shape
    depth_y, depth_x = max(3, round(RIM * height)), max(3, round(RIM * width))
    is_rim = is_covered.copy()
    is_rim[depth_y : height - depth_y, depth_x : width - depth_x] = False
    grounds = []
    for pixels in (first, second):
        ground = np.median(pixels[is_rim], axis=0)
        is_even = np.abs(pixels[is_rim] - ground).max(axis=1) <= EVEN_LEVELS
        if is_even.mean() < EVEN_SHARE:
            return False
        grounds.append(ground)
    if np.abs(grounds[0] - grounds[1]).max() < OTHER_GROUND:
        return False
    is_object = is_covered & (np.abs(first - grounds[0]).max(axis=2) > OBJECT_CONTRAST)
    if is_object.sum() < MIN_SAMPLES:
        return False
    # The light that turns one ground into the other must fit the object better than no change of light.
    lit = np.minimum(first[is_object] * grounds[1] / np.maximum(grounds[0], 1), 255)
    unchanged_error = np.abs(second[is_object] - first[is_object]).mean()
    return bool(unchanged_error < MAX_UNCHANGED * np.abs(second[is_object] - lit).mean())


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
    softness = [_measure_edges(pixels) for pixels in (first, second)]
    if softness[0] < softness[1]:
        second, first = _soften_alike(second, first)
        return first, second
    for blur in BLURS:
        blurred = cv2.GaussianBlur(first, (0, 0), blur)
        if _measure_edges(blurred) < softness[1]:
            break
        first = blurred
    return first, second


def _measure_edges(pixels: np.ndarray) -> float:
    """Return the energy of the finest edges, in proportion to that of all levels."""
    luminance = pixels @ LUMA
    return float(cv2.Laplacian(luminance, cv2.CV_32F).var() / max(float(luminance.var()), 1))


def _measure_differences(
    first: np.ndarray, second: np.ndarray, is_covered: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return by how many levels light and colours differ, `[H, W]` each; None if levels do not rise together."""
    luminances = first @ LUMA, second @ LUMA
    light_fit = fit_light(*luminances, is_covered)
    if light_fit is None:
        return None
    curve, is_forward, lit, target = light_fit
    source, target_colours = (first, second) if is_forward else (second, first)
    differences = _find_differences(lit, target)
    colour_differences = _compare_colours(apply_curve(curve, source), target_colours, is_covered)
    # The curve is fitted to what is common: a level of few samples may lie beyond it, and be right as it is.
    if _exceeds(differences, is_covered, CLEAN):
        differences = np.minimum(differences, _find_differences(*luminances))
    if _exceeds(colour_differences, is_covered, COLOUR_CLEAN):
        colour_differences = np.minimum(colour_differences, _compare_colours(source, target_colours, is_covered))
    return differences * is_covered, colour_differences * is_covered


def _exceeds(values: np.ndarray, places: np.ndarray, limit: float) -> bool:
    return bool((values[places] > limit).any())


def _find_differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return by how much images differ, `[H, W]` or `[H, W, C]`, beyond a shift by a sample."""
    differences = np.zeros_like(first)
    for one_side, other_side in ((first, second), (second, first)):
        above = one_side - cv2.dilate(other_side, _NEIGHBOURS)
        below = cv2.erode(other_side, _NEIGHBOURS) - one_side
        differences = np.maximum(differences, cv2.blur(np.maximum(np.maximum(above, below), 0), (3, 3)))
    return differences


def _compare_colours(source: np.ndarray, target: np.ndarray, is_covered: np.ndarray) -> np.ndarray:
    """Return by how many levels colours differ once a saturation and a bounded tint are fitted, `[H, W]`."""
    height, width = is_covered.shape
    half_size = max(1, width // 2), max(1, height // 2)  # JPEG stores colours at half of the size
    source, target = (cv2.resize(image, half_size, interpolation=cv2.INTER_AREA) for image in (source, target))
    chroma = [image - (image @ LUMA)[..., None] for image in (source, target)]
    # Colours are fitted within the edge: a strong frame would take the fit over.
    is_inside = cv2.resize((is_covered & _find_inner(is_covered.shape)).astype(np.uint8), half_size) > 0
    # The paler image is predicted from the other one, because no saturation brings back colour to grey.
    energies = [float((values[is_inside] ** 2).sum()) for values in chroma]
    strong, pale = (chroma[0], chroma[1]) if energies[0] > energies[1] else (chroma[1], chroma[0])
    light = (target @ LUMA)[..., None] / 255
    # Every third sample is enough for four numbers.
    strong_samples, pale_samples, lightness = (values[is_inside][::3] for values in (strong, pale, light))
    saturation, tint = fit_colours(strong_samples, pale_samples, lightness, num_rounds=5, scale=8)
    differences = np.linalg.norm(_find_differences(saturation * strong + tint * light, pale), axis=2)
    return cv2.resize(differences, (width, height), interpolation=cv2.INTER_NEAREST)


def _has_spot(differs: np.ndarray) -> bool:
    """Return whether images differ within them, and not only by marks at an edge or all over, `[H, W]` bool."""
    if not differs.any():
        return False
    # A spot is inner if any of its samples is: a letter may begin near the edge.
    joined = cv2.dilate(differs.astype(np.uint8), _NEIGHBOURS)
    _, labels = cv2.connectedComponents(joined, connectivity=8)
    inner_labels = np.unique(labels[differs & _find_inner(differs.shape)])
    is_spot = differs & np.isin(labels, inner_labels)
    return bool(is_spot.sum() >= MIN_SPOT) and not _is_marked_all_over(differs)


def _is_marked_all_over(differs: np.ndarray) -> bool:
    cells = cv2.resize(differs.astype(np.float32), (3, 3), interpolation=cv2.INTER_AREA)
    return bool((cells > 0).sum() >= MIN_MARKED_CELLS and differs.mean() <= MAX_MARKED)


def _has_object(differs: np.ndarray) -> bool:
    """Return whether images differ in a spot of the shape of an object, wherever it is, `[H, W]` bool."""
    if not differs.any() or _is_marked_all_over(differs):
        return False
    height, width = differs.shape
    # Parts of an object that look like its ground leave gaps.
    joined = cv2.dilate(differs.astype(np.uint8), _NEIGHBOURS, iterations=JOINED)
    count, _, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    for left, top, box_width, box_height, _ in boxes[1:count].tolist():
        shorter, longer = sorted((box_width - 2 * JOINED, box_height - 2 * JOINED))
        is_compact = shorter >= MIN_OBJECT_SIDE * min(height, width) and longer <= MAX_OBJECT_ASPECT * shorter
        # What fills a corner is its rounding or its shadow.
        touches_side = left == 0 or left + box_width == width
        touches_end = top == 0 or top + box_height == height
        if is_compact and not (touches_side and touches_end):
            return True
    return False


def _find_inner(shape: tuple[int, ...]) -> np.ndarray:
    """Return what lies within the edge of an image, `[H, W]` bool."""
    height, width = shape
    depth_y, depth_x = round(EDGE * height), round(EDGE * width)
    is_inner = np.zeros((height, width), bool)
    is_inner[depth_y : height - depth_y, depth_x : width - depth_x] = True
    return is_inner
