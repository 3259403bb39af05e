"""Thumbnails of images, by which they are compared, and vectors that find candidates.

Even borders and margins are cut off first. The content within them is scaled to a luminance of 64 x 64 samples and
colours of 16 x 16. A picture within a page, bars or a filling has one more thumbnail (`panels.py`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from ernie_vil2.apps.curation.details import DETAIL_SIDE, encode_detail
from ernie_vil2.apps.curation.local_features import describe_features
from ernie_vil2.apps.curation.panels import find_panel
from ernie_vil2.apps.curation.registration import COLOUR_SIDE, SIDE
from ernie_vil2.data.decoding import resize_pixels

BYTES = SIDE * SIDE + 3 * COLOUR_SIDE * COLOUR_SIDE  # of the luminance and the colours of a thumbnail
FREQUENCIES = 8  # frequencies of either axis that a vector has: finer ones change with every shift
WIDTH = FREQUENCIES * FREQUENCIES  # numbers of a vector
ORIENTATIONS = 8  # four quarter turns of the image, and four of its mirror image
MAX_BORDERS = 4  # borders that are cut off one after the other: a frame, a margin within it, and two more
MAX_BORDER_DEVIATION = 12  # levels from a border's median that are JPEG's noise: less than from yellow to white
MAX_DEVIATING = 0.02  # share of a line of a border that may have other levels
WHITE_LEVEL = 245  # level from which a border is paper
MIN_CONTENT_SHARE = 0.3  # least share of a side that borders leave: a thicker border is part of the image
# Least standard deviation of the levels that borders leave. Less is a plain shape, which is seen by its margin alone.
MIN_CONTENT_CONTRAST = 8.0
SAME_REGION = 0.94  # share of two regions that both cover, from which a second thumbnail would add nothing
_LEVELS = np.arange(256)

Region = tuple[slice, slice]
"""Rows and columns of an image."""


def find_content(luminance: np.ndarray) -> list[Region]:
    """Return the rows and columns of an image, `[H, W]` uint8, within even borders: a frame, and the margin within it.

    The last border may be the ground of a plain sign whose edges a crop has cut off. Unless it is white on all sides,
    the region that includes it is returned as well, and comes first.
    """
    # Each region lies within the border of the region before.
    regions = [(slice(0, luminance.shape[0]), slice(0, luminance.shape[1]))]
    is_paper = True  # whether the last border is white on all sides; true if there is none
    max_border_share = 1 - MIN_CONTENT_SHARE
    for _ in range(MAX_BORDERS):
        rows, columns = regions[-1]
        region = luminance[rows, columns]
        height, width = region.shape
        border, levels = _count_border_lines(region)
        if not any(border):
            break
        top, bottom, left_side, right_side = border
        if top + bottom > max_border_share * height or left_side + right_side > max_border_share * width:
            break
        inner_region = region[top : height - bottom, left_side : width - right_side]
        if cv2.meanStdDev(inner_region)[1].item() < MIN_CONTENT_CONTRAST:
            break
        is_paper = min(border) > 0 and min(levels) >= WHITE_LEVEL
        inner_rows = slice(rows.start + top, rows.stop - bottom)
        inner_columns = slice(columns.start + left_side, columns.stop - right_side)
        regions.append((inner_rows, inner_columns))
    return regions[-1:] if is_paper else regions[-2:]


def _count_border_lines(luminance: np.ndarray) -> tuple[list[int], list[int]]:
    """Count the lines of the even border of an image, `[H, W]` uint8, at each of its sides.

    A line belongs to the border if nearly all of it has the median level of the outermost line.

    Returns:
        The counts at top, bottom, left and right, and the levels there.
    """
    # Whether each line is uneven, by level and axis: opposite sides of a frame have the same level.
    is_uneven: dict[tuple[int, int], np.ndarray] = {}
    counts, levels = [], []
    for axis, end in ((1, 0), (1, -1), (0, 0), (0, -1)):  # axis 1: rows are the lines, axis 0: columns
        line = np.sort(luminance[end] if axis else luminance[:, end])
        level = (int(line[(len(line) - 1) // 2]) + int(line[len(line) // 2])) // 2  # the median
        levels.append(level)
        max_deviating = MAX_DEVIATING * len(line)
        bounds = (level - MAX_BORDER_DEVIATION, level + MAX_BORDER_DEVIATION + 1)
        first_even, end_even = np.searchsorted(line, bounds).tolist()
        if len(line) - (end_even - first_even) > max_deviating:
            counts.append(0)  # as of most photographs, so that the lines behind it need not be looked at
            continue
        if (level, axis) not in is_uneven:
            deviates = (np.abs(_LEVELS - level) > MAX_BORDER_DEVIATION).astype(np.uint8)
            num_deviating = cv2.reduce(cv2.LUT(luminance, deviates), axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel()
            is_uneven[level, axis] = num_deviating > max_deviating
        lines = is_uneven[level, axis]
        if end:
            lines = lines[::-1]
        first_uneven = int(lines.argmax())
        counts.append(first_uneven if lines[first_uneven] else len(lines))
    return counts, levels


def limit_size(pixels: np.ndarray) -> np.ndarray:
    """Shrink an image, `[H, W, 3]` uint8, to at most `DETAIL_SIDE` pixels a side."""
    shrink = max(pixels.shape[:2]) / DETAIL_SIDE
    if shrink <= 1:
        return pixels
    height, width = (max(1, round(side / shrink)) for side in pixels.shape[:2])
    return resize_pixels(pixels, width, height)


class Thumbnail(NamedTuple):
    """The content of an image within its borders, as it is compared.

    content: luminance `[64, 64]` and colours `[16, 16, 3]`, `BYTES` bytes.
    shape: width over height of the content.
    extent: square root of the content's share of the image's area; of a picture within strips, that of the thumbnail
        before it.
    features: local features, records of `local_features.FEATURE`; only the first thumbnail of an image, which shows
        most of it, has any.
    box: left, top, right and bottom of the content, as shares of width and height, four float32.
    detail: JPEG of the whole image (`details.py`); only the first thumbnail of an image has it.
    """

    content: bytes
    shape: float
    extent: float
    features: bytes
    box: bytes
    detail: bytes


# Columns of the measures, in the order of the fields of `Thumbnail`.
COLUMNS = {
    "thumbnail": "list<binary>",
    "shape": "list<float>",
    "extent": "list<float>",
    "features": "list<binary>",
    "box": "list<binary>",
    "detail": "list<binary>",
}


def make_columns(thumbnails: Sequence[Thumbnail]) -> dict[str, Any]:
    """Return the thumbnails of an image as measures of a step: for each of `COLUMNS` a list with an entry for each."""
    values = [list(column) for column in zip(*thumbnails, strict=True)]
    return dict(zip(COLUMNS, values, strict=True))


def make_thumbnails(pixels: np.ndarray) -> list[Thumbnail]:
    """Return the thumbnails of an image, `[H, W, 3]` uint8 RGB.

    There are two if its last border may belong to it, and one more if it shows a picture within strips.
    """
    colours = limit_size(pixels)
    luminance = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)
    thumbnails: list[Thumbnail] = []
    regions = find_content(luminance)
    # Strips are no border: how much of an image its borders leave does not depend on them.
    extents = [(_measure_area(region) / luminance.size) ** 0.5 for region in regions]
    panel = _find_inner_picture(luminance)
    if panel is not None and all(_measure_overlap(panel, region) < SAME_REGION for region in regions):
        regions.append(panel)
        extents.append(extents[-1])
    for (rows, columns), extent in zip(regions, extents, strict=True):
        fine = cv2.resize(luminance[rows, columns], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        coarse = cv2.resize(colours[rows, columns], (COLOUR_SIDE, COLOUR_SIDE), interpolation=cv2.INTER_AREA)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        box = np.array([columns.start, rows.start, columns.stop, rows.stop], np.float32)
        box /= np.tile(luminance.shape[::-1], 2)  # width, height, width, height
        thumbnail = Thumbnail(
            content=fine.tobytes() + coarse.tobytes(),
            shape=width / height,
            extent=extent,
            features=b"" if thumbnails else describe_features(fine),
            box=box.tobytes(),
            detail=b"" if thumbnails else encode_detail(colours),
        )
        thumbnails.append(thumbnail)
    return thumbnails


def _find_inner_picture(luminance: np.ndarray) -> Region | None:
    """Return the rows and columns of the picture within strips, with its own margins, or None if there is none."""
    panel = find_panel(luminance)
    if panel is None:
        return None
    inside = luminance[panel]
    regions = find_content(inside)
    # A thing on white within a card would be a copy of the same thing on white anywhere else.
    has_white_margins = len(regions) == 1 and _measure_area(regions[0]) < inside.size
    return None if has_white_margins else panel


def _measure_overlap(first: Region, second: Region) -> float:
    """Return the share of two regions together that both of them cover."""
    common = 1
    for span, other_span in zip(first, second, strict=True):
        common *= max(0, min(span.stop, other_span.stop) - max(span.start, other_span.start))
    return common / (_measure_area(first) + _measure_area(second) - common)


def _measure_area(region: Region) -> int:
    rows, columns = region
    return (rows.stop - rows.start) * (columns.stop - columns.start)


def split_thumbnail(content: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return luminance `[64, 64]` and colours `[16, 16, 3]` of a thumbnail, `[BYTES]` uint8."""
    luminance = content[: SIDE * SIDE].reshape(SIDE, SIDE)
    return luminance, content[SIDE * SIDE :].reshape(COLOUR_SIDE, COLOUR_SIDE, 3)


def make_vectors(luminances: np.ndarray) -> np.ndarray:
    """Return vectors to search candidates by, `[N, WIDTH]` float32 of length 1, of luminances `[N, 64, 64]` uint8.

    They are the lowest frequencies of the cosine transform without the mean, so that gain and offset of the light do
    not matter. The square root of the frequency weights them: photographs differ little in the lowest ones.
    """
    rows, columns = np.mgrid[:FREQUENCIES, :FREQUENCIES]
    weights = np.sqrt(np.hypot(rows, columns)).astype(np.float32)  # 0 for the mean
    vectors = np.empty((len(luminances), WIDTH), np.float32)
    for number, luminance in enumerate(luminances):
        small = cv2.resize(luminance, (2 * FREQUENCIES, 2 * FREQUENCIES), interpolation=cv2.INTER_AREA)
        spectrum = cv2.dct(small.astype(np.float32))[:FREQUENCIES, :FREQUENCIES]
        vectors[number] = (spectrum * weights).ravel()
    # An even image has no frequencies: its vector stays 0, and is near to none.
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-3)


class Window(NamedTuple):
    """Rows and columns of a thumbnail's luminance."""

    top: int
    bottom: int
    left: int
    right: int


WINDOWS = [
    Window(5, SIDE, 0, SIDE),
    Window(8, SIDE, 0, SIDE),
    Window(0, SIDE - 5, 0, SIDE),
    Window(0, SIDE - 8, 0, SIDE),
    Window(3, SIDE - 3, 3, SIDE - 3),
    Window(7, SIDE - 7, 7, SIDE - 7),
]
"""Thumbnails without a bar of 8 or 12 % at top or bottom, or without a frame of 5 or 11 %.

They find images that have too few features to be found by these, such as a sky.
"""


def make_window_transform(window: Window) -> np.ndarray:
    """Return the map from the samples of an enlarged window to those of the image, `[2, 3]` float32."""
    scale_x, scale_y = (window.right - window.left) / SIDE, (window.bottom - window.top) / SIDE
    # The centre of sample 0 is half a sample from the corner, in the window and in the image.
    shift_x, shift_y = window.left + 0.5 * scale_x - 0.5, window.top + 0.5 * scale_y - 0.5
    return np.array([[scale_x, 0, shift_x], [0, scale_y, shift_y]], np.float32)


def turn_vectors(vectors: np.ndarray, orientation: int) -> np.ndarray:
    """Return the vectors of the images after `orient`, `[N, WIDTH]`, from those of the images."""
    spectra = vectors.reshape(-1, FREQUENCIES, FREQUENCIES)
    signs = np.where(np.arange(FREQUENCIES) % 2, -1, 1).astype(vectors.dtype)  # odd cosines change sign when mirrored
    for _ in range(orientation % 4):
        # A quarter turn exchanges the axes, and then turns the rows around.
        spectra = spectra.transpose(0, 2, 1) * signs[:, None]
    if orientation >= 4:
        spectra = spectra * signs
    return spectra.reshape(len(vectors), WIDTH)


def orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return an image after so many quarter turns, mirrored after them from 4 on."""
    turned = np.rot90(image, orientation % 4)
    return turned[:, ::-1] if orientation >= 4 else turned


def make_orientation_transform(orientation: int) -> np.ndarray:
    """Return the map from the samples of an oriented image to those of the image, `[2, 3]` float32."""
    # Where three corners of the oriented image come from determines the map.
    sample_numbers = orient(np.arange(SIDE * SIDE).reshape(SIDE, SIDE), orientation)
    corners = np.array([(0, 0), (SIDE - 1, 0), (0, SIDE - 1)])  # columns and rows
    source_numbers = sample_numbers[corners[:, 1], corners[:, 0]]
    sources = np.stack([source_numbers % SIDE, source_numbers // SIDE], axis=1)
    return cv2.getAffineTransform(corners.astype(np.float32), sources.astype(np.float32)).astype(np.float32)
