"""Rows of text in an image: how many letters it shows, and how much it shows beside them."""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from ernie_vil2.apps.curation.image_measures import halve

# These constants, and the numbers in the functions, were chosen on the synthetic crawls of demo_data/crawls, with an
# eye on photographs and drawings of public repositories (docs/notes/curation.md). Lengths are in pixels of an image of
# at most 640 a side.
_EDGE = 24  # levels within 3 x 3 pixels; noise and the traces of compression are weaker
_WEAK_EDGE = 12  # also found in faint drawings and textures, which a page of text lacks
_MAX_EDGES = 0.55  # share of an image on which there are edges; pages of small print have up to 0.49
_MAX_CANDIDATES = 40  # rows of a pass that are looked at, the largest ones; it bounds the time

# Each pass has the widest gap that is closed within a row, as a share of the image's width, and the greatest height of
# a row, as a share of the image's height. A wide gap joins the letters of a title; a narrow one separates a label from
# the bar of a chart beside it.
_PASSES = ((0.04, 0.45), (0.013, 0.06))
_MIN_ASPECT = 1.3  # width of a row over its height
_MIN_LETTERS = 3  # a shorter row counts nothing: years and prices beside a chart, and windows in a wall
_MAX_LETTERS = 8  # a longer row counts no more, so that two lines above a picture are no page

_GROUND_TOLERANCE = 16  # levels; the ground of a row may be a gradient
_INK = 20  # levels between letters and the ground
_LARGE_HEIGHT = 48  # letters higher than this must be of one level inside; drawings are shaded
_MAX_LINE = 11  # thickness of a line between rows with the edges around it, in half the size
_MIN_SIDE = 16  # a smaller image has hardly room for a letter
_MIN_MARGIN = 4  # around a row, in half the size: letters are surrounded by traces of compression


class TextAmount(NamedTuple):
    """Amount of text in an image.

    letters: number of letters, roughly: the sum of `Row.letters`.
    share: share of the area with anything on it that is rows of text.
    """

    letters: float
    share: float


class Row(NamedTuple):
    """Box of a row of text, in pixels of half the size."""

    left: int
    top: int
    width: int
    height: int

    @property
    def letters(self) -> float:
        """Number of letters that count, roughly: a letter is as wide as it is high."""
        letters = self.width / self.height
        return min(letters, _MAX_LETTERS) if letters >= _MIN_LETTERS else 0.0


def measure_text(luminance: np.ndarray) -> TextAmount:
    """Measure the text of an image: its letters and its share.

    Args:
        luminance: from `shrink_luminance`, `[H, W]` uint8.
    """
    if min(luminance.shape) < _MIN_SIDE:
        return TextAmount(0.0, 0.0)
    kernel = np.ones((3, 3), np.uint8)
    contrast = cv2.subtract(cv2.dilate(luminance, kernel), cv2.erode(luminance, kernel))
    edges = _threshold_and_halve(contrast, _EDGE)
    edge_share = cv2.countNonZero(edges) / edges.size
    if not 0 < edge_share < _MAX_EDGES:
        return TextAmount(0.0, 0.0)

    rows: list[Row] = []
    text_mask = np.zeros_like(edges)
    for gap, max_height in _PASSES:
        for row in _find_candidates(edges, gap, max_height):
            # A row of an earlier pass, or a piece of it, does not count again.
            is_known = text_mask[row.top + row.height // 2, row.left + row.width // 2]
            if not is_known and _holds_letters(luminance, row):
                rows.append(row)
                text_mask[row.top : row.top + row.height, row.left : row.left + row.width] = 255
    if not rows:
        return TextAmount(0.0, 0.0)
    return TextAmount(sum(row.letters for row in rows), _measure_share(contrast, rows))


def _find_candidates(edges: np.ndarray, gap: float, max_height: float) -> list[Row]:
    """Return the boxes of marks that stand in a row.

    Args:
        edges: 255 at edges, in half the size.
        gap: widest gap within a row, as a share of the width.
        max_height: greatest height of a row, as a share of the height.
    """
    kernel = np.ones((1, max(3, round(gap * edges.shape[1]))), np.uint8)
    marks = cv2.morphologyEx(edges, cv2.MORPH_CLOSE, kernel)
    # With four neighbours instead of eight, OpenCV takes twice as long.
    _, _, boxes, _ = cv2.connectedComponentsWithStats(marks, connectivity=8, ltype=cv2.CV_16U)
    boxes = boxes[1:]  # the first one is the ground
    widths, heights, areas = boxes[:, cv2.CC_STAT_WIDTH], boxes[:, cv2.CC_STAT_HEIGHT], boxes[:, cv2.CC_STAT_AREA]
    is_row = (heights >= 3) & (heights <= max_height * edges.shape[0]) & (widths >= _MIN_ASPECT * heights)
    # Letters fill their row, apart from ascenders.
    is_row &= areas >= 0.45 * widths * heights
    boxes = boxes[is_row]
    if len(boxes) > _MAX_CANDIDATES:
        boxes = boxes[np.argsort(-boxes[:, cv2.CC_STAT_AREA])[:_MAX_CANDIDATES]]
    return [Row(*box) for box in boxes[:, :4].tolist()]


def _holds_letters(luminance: np.ndarray, row: Row) -> bool:
    """Return whether a box holds strokes of one colour on an even ground, close to each other as those of letters.

    Args:
        luminance: in full size.
        row: box in half the size.
    """
    # The box in full size, with a margin of two pixels of ground.
    lines = slice(max(0, 2 * row.top - 2), 2 * (row.top + row.height) + 2)
    columns = slice(max(0, 2 * row.left - 2), 2 * (row.left + row.width) + 2)
    crop = luminance[lines, columns]
    # Most of the border of a row is ground. The first and the last line are checked before the others, which saves
    # time. The ends of all lines are ground by definition.
    first_and_last = np.abs(_subtract_ground(crop[:: len(crop) - 1]))
    num_ground = np.count_nonzero(first_and_last <= _GROUND_TOLERANCE) + 2 * len(crop)
    perimeter = 2 * sum(crop.shape)
    if num_ground < 0.85 * perimeter:
        return False

    differences = _subtract_ground(crop)
    dark, light = differences < -_INK, differences > _INK
    num_dark, num_light = np.count_nonzero(dark), np.count_nonzero(light)
    ink = dark if num_dark >= num_light else light
    num_ink = max(num_dark, num_light)
    # Letters are either darker or lighter than the ground, and cover a sixteenth to two thirds of their row.
    if min(num_dark, num_light) > 0.05 * num_ink:
        return False
    if not 0.06 <= num_ink / crop.size <= 0.65:
        return False

    # Edges reach a pixel beyond the letters, above and below.
    height, width = 2 * row.height - 2, 2 * row.width
    if height > _LARGE_HEIGHT:
        levels = differences[ink]
        if (np.abs(levels - np.median(levels)) <= _INK).mean() < 0.6:
            return False

    strokes = np.count_nonzero(ink[:, 1:] & ~ink[:, :-1], axis=1) + ink[:, 0]  # [H], on each line
    middle_strokes = strokes[len(strokes) // 4 : 3 * len(strokes) // 4 + 1]
    # Bold strokes are a third of the height wide; in small print they touch.
    stroke_width = num_ink / max(1, int(strokes.sum()))
    max_stroke_width = 0.4 * height if height > 14 else 0.55 * height
    if stroke_width > max_stroke_width:
        return False
    # The middle lines have a stroke or more for each letter, which is about as wide as the row is high.
    return bool(np.median(middle_strokes) * height >= 0.7 * width)


def _subtract_ground(lines: np.ndarray) -> np.ndarray:
    """Return by how many levels the pixels of lines, `[H, W]`, differ from a ground that may be a gradient, float32."""
    width = lines.shape[1]
    # The ground is interpolated between the left and the right end of each line.
    ends = lines[:, :: width - 1].astype(np.float32)  # [H, 2]
    return lines - ends @ _make_end_weights(width)


@lru_cache(maxsize=640)  # widths of an image of 640 pixels
def _make_end_weights(width: int) -> np.ndarray:
    """Return the weights of the left and the right end of a line at each of its pixels, `[2, width]` float32."""
    right = np.linspace(0, 1, width, dtype=np.float32)
    return np.stack([1 - right, right])


def _threshold_and_halve(contrast: np.ndarray, level: int) -> np.ndarray:
    """Return a mask in half the size, 255 where any of 2 x 2 pixels reaches a level, else 0."""
    _, mask = cv2.threshold(contrast, level - 1, 255, cv2.THRESH_BINARY)
    _, half_mask = cv2.threshold(halve(mask), 0, 255, cv2.THRESH_BINARY)
    return half_mask


def _measure_share(contrast: np.ndarray, rows: list[Row]) -> float:
    """Return the share of the area with anything on it that is text.

    Args:
        contrast: range of the levels within 3 x 3 pixels, in full size.
        rows: rows of text, one or more, in half the size.
    """
    edges = _threshold_and_halve(contrast, _WEAK_EDGE)
    num_text = 0
    for left, top, width, height in rows:
        num_text += width * height
        # What is nearer to a row than its height is a frame or a button around it.
        margin = max(_MIN_MARGIN, height)
        edges[max(0, top - margin) : top + height + margin, max(0, left - margin) : left + width + margin] = 0
    # Horizontal lines, and, of the transposed image, vertical ones.
    edges = _erase_lines(cv2.transpose(_erase_lines(edges)))
    areas = cv2.morphologyEx(edges, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    num_other = cv2.countNonZero(areas)
    return num_text / (num_text + num_other)


def _erase_lines(edges: np.ndarray) -> np.ndarray:
    """Return edges without thin horizontal lines, which separate the rows of a page."""
    # An edge is part of a line if it runs along an eighth of the width.
    lines = cv2.morphologyEx(edges, cv2.MORPH_OPEN, np.ones((1, max(3, edges.shape[1] // 8)), np.uint8))
    thick_lines = cv2.morphologyEx(lines, cv2.MORPH_OPEN, np.ones((_MAX_LINE, 1), np.uint8))
    thin_lines = cv2.subtract(lines, thick_lines)
    wider_lines = cv2.dilate(thin_lines, np.ones((1, 5), np.uint8))
    return cv2.subtract(edges, wider_lines)
