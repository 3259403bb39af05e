"""Thumbnails of images, by which they are compared, and vectors that find candidates.

Even borders and margins are cut off first. What is left becomes luminance of 64 x 64 and colours of 16 x 16.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from ernie_vil2.apps.curation.details import DETAIL_SIDE, encode_detail
from ernie_vil2.apps.curation.local_features import describe_features
from ernie_vil2.apps.curation.registration import COLOUR_SIDE, SIDE
from ernie_vil2.data.decoding import resize_pixels

BYTES = SIDE * SIDE + 3 * COLOUR_SIDE * COLOUR_SIDE
FREQUENCIES = 8  # of either axis that a vector has: finer ones change with every shift
WIDTH = FREQUENCIES * FREQUENCIES  # numbers of a vector
ORIENTATIONS = 8  # quarter turns, and those of the mirrored image
MAX_BORDER_DEVIATION = 12  # levels from a border's median that are JPEG's noise: less than from yellow to white
MAX_DEVIATING = 0.02  # share of a line of a border that may have other levels
WHITE_LEVEL = 245  # level from which a border is paper
MIN_CONTENT_SHARE = 0.3  # of a side: a thicker border is part of the image
MIN_CONTENT_CONTRAST = 8.0  # standard deviation of what borders leave; less is a plain shape, seen by its margin alone
_LEVELS = np.arange(256)


def find_content(luminance: np.ndarray) -> list[tuple[slice, slice]]:
    """Return the rows and columns of an image, `[H, W]` uint8, within even borders: a frame, and the margin within it.

    The last border may be the ground of a plain sign whose edges a crop has cut off. Unless it is white on all sides,
    the region that includes it is returned as well, and comes first.
    """
    regions = [(slice(0, luminance.shape[0]), slice(0, luminance.shape[1]))]
    is_paper = True
    for _ in range(4):
        rows, columns = regions[-1]
        content = luminance[rows, columns]
        (top, bottom, left_side, right_side), levels = _count_border_lines(content)
        height, width = content.shape
        if not (top or bottom or left_side or right_side):
            break
        max_border_share = 1 - MIN_CONTENT_SHARE
        if top + bottom > max_border_share * height or left_side + right_side > max_border_share * width:
            break
        inner = content[top : height - bottom, left_side : width - right_side]
        if cv2.meanStdDev(inner)[1].item() < MIN_CONTENT_CONTRAST:
            break
        rows = slice(rows.start + top, rows.stop - bottom)
        columns = slice(columns.start + left_side, columns.stop - right_side)
        is_paper = min(top, bottom, left_side, right_side) > 0 and min(levels) >= WHITE_LEVEL
        regions.append((rows, columns))
    return regions[-1:] if is_paper else regions[-2:]


def _count_border_lines(luminance: np.ndarray) -> tuple[list[int], list[int]]:
    """Count the lines from top, bottom, left and right on that have the level of the first one nearly everywhere.

    Returns:
        The four counts, and the four levels.
    """
    uneven: dict[tuple[int, int], np.ndarray] = {}  # by level and axis
    counts, levels = [], []
    for axis, end in ((1, 0), (1, -1), (0, 0), (0, -1)):
        line = np.sort(luminance[end] if axis else luminance[:, end])
        level = (int(line[(len(line) - 1) // 2]) + int(line[len(line) // 2])) // 2  # the median
        levels.append(level)
        max_deviating = MAX_DEVIATING * len(line)
        num_even = np.diff(np.searchsorted(line, (level - MAX_BORDER_DEVIATION, level + MAX_BORDER_DEVIATION + 1)))
        if len(line) - num_even.item() > max_deviating:
            counts.append(0)  # as of most photographs, so that the lines behind it need not be looked at
            continue
        if (level, axis) not in uneven:
            table = (np.abs(_LEVELS - level) > MAX_BORDER_DEVIATION).astype(np.uint8)
            deviating = cv2.reduce(cv2.LUT(luminance, table), axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel()
            uneven[level, axis] = deviating > max_deviating
        lines = uneven[level, axis][:: -1 if end else 1]
        first = int(lines.argmax())
        counts.append(first if lines[first] else len(lines))
    return counts, levels


def limit_size(pixels: np.ndarray) -> np.ndarray:
    """Shrink an image, `[H, W, 3]` uint8, to at most `DETAIL_SIDE` pixels a side."""
    shrink = max(pixels.shape[:2]) / DETAIL_SIDE
    if shrink <= 1:
        return pixels
    height, width = (max(1, round(side / shrink)) for side in pixels.shape[:2])
    return resize_pixels(pixels, width, height)


class Thumbnail(NamedTuple):
    """What an image is compared by, within its borders.

    content: luminance and colours, `BYTES` bytes.
    shape: aspect ratio.
    extent: root of its share of the area.
    features: local features of the first thumbnail of an image, which shows most of it; of the second one empty.
    box: left, top, right and bottom of what it shows, as shares of width and height, four float32.
    detail: JPEG of the whole image for the first thumbnail of an image (`details.py`); for the second one empty.
    """

    content: bytes
    shape: float
    extent: float
    features: bytes
    box: bytes
    detail: bytes


COLUMNS = {
    "thumbnail": "list<binary>",
    "shape": "list<float>",
    "extent": "list<float>",
    "features": "list<binary>",
    "box": "list<binary>",
    "detail": "list<binary>",
}


def make_columns(thumbnails: Sequence[Thumbnail]) -> dict[str, Any]:
    """Return the thumbnails of an image as measures of a step; see `COLUMNS`."""
    return dict(zip(COLUMNS, map(list, zip(*thumbnails, strict=True)), strict=True))


def make_thumbnails(pixels: np.ndarray) -> list[Thumbnail]:
    """Return the thumbnails of an image, `[H, W, 3]` uint8 RGB: two if its last border may belong to it, else one."""
    colours = limit_size(pixels)
    luminance = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)
    thumbnails: list[Thumbnail] = []
    for rows, columns in find_content(luminance):
        fine = cv2.resize(luminance[rows, columns], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        coarse = cv2.resize(colours[rows, columns], (COLOUR_SIDE, COLOUR_SIDE), interpolation=cv2.INTER_AREA)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        box = np.array([columns.start, rows.start, columns.stop, rows.stop], np.float32)
        box /= np.tile(luminance.shape[::-1], 2)
        thumbnail = Thumbnail(
            content=fine.tobytes() + coarse.tobytes(),
            shape=width / height,
            extent=(height * width / luminance.size) ** 0.5,
            features=b"" if thumbnails else describe_features(fine),
            box=box.astype(np.float32).tobytes(),
            detail=b"" if thumbnails else encode_detail(colours),
        )
        thumbnails.append(thumbnail)
    return thumbnails


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
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-3)


class Window(NamedTuple):
    """Rows and columns of a thumbnail's luminance."""

    top: int
    bottom: int
    left: int
    right: int


WINDOWS = [
    *(Window(bar, SIDE, 0, SIDE) for bar in (5, 8)),
    *(Window(0, SIDE - bar, 0, SIDE) for bar in (5, 8)),
    *(Window(edge, SIDE - edge, edge, SIDE - edge) for edge in (3, 7)),
]
"""Thumbnails without a bar of 8 or 12 % at top or bottom, or without a frame of 5 or 11 %, for images that have too few
features to be found by these, such as a sky."""


def make_window_transform(window: Window) -> np.ndarray:
    """Return the map from the samples of an enlarged window to those of the image, `[2, 3]` float32."""
    scale_x, scale_y = (window.right - window.left) / SIDE, (window.bottom - window.top) / SIDE
    return np.array(
        [[scale_x, 0, window.left + 0.5 * scale_x - 0.5], [0, scale_y, window.top + 0.5 * scale_y - 0.5]], np.float32
    )


def turn_vectors(vectors: np.ndarray, orientation: int) -> np.ndarray:
    """Return the vectors of the turned images; see `orient`."""
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
    numbers = orient(np.arange(SIDE * SIDE).reshape(SIDE, SIDE), orientation)
    corners = np.array([(0, 0), (SIDE - 1, 0), (0, SIDE - 1)])
    sources = numbers[corners[:, 1], corners[:, 0]]
    targets = np.stack([sources % SIDE, sources // SIDE], axis=1)
    return cv2.getAffineTransform(corners.astype(np.float32), targets.astype(np.float32)).astype(np.float32)
