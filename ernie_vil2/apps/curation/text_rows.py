"""Rows of text in an image: how many letters it shows, and how much it shows beside them."""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from ernie_vil2.apps.curation.image_measures import halve

# The constants were chosen on the made crawls of demo_data/crawls, with an eye on photographs and drawings of public
# repositories (docs/notes/curation.md). Lengths are in pixels of an image of at most 640 a side.
_EDGE = 24  # levels within 3 x 3 pixels; noise and the traces of compression are weaker
_WEAK_EDGE = 12  # of the faint drawings and textures that a page lacks
_MAX_EDGES = 0.55  # share of an image on which there are edges; pages of small print have up to 0.49
_MAX_CANDIDATES = 40  # the largest ones of a pass, which bounds the time

# Gaps that are closed within a row, as a share of the width, and the rows' heights at most, as a share of the image's.
# A wide gap joins the letters of a title, and a narrow one separates a label from the bar of a chart beside it.
_PASSES = ((0.04, 0.45), (0.013, 0.06))
_LEAST_ASPECT = 1.3  # width of a row over its height
_MIN_LETTERS = 3  # of a row that count: years and prices beside a chart, and windows in a wall, are shorter
_MAX_LETTERS = 8  # of a row that count, so that two lines above a picture are no page

_GROUND_TOLERANCE = 16  # levels; the ground of a row may be a gradient
_INK = 20  # levels between letters and the ground
_LARGE = 48  # pixels of height from which letters must be of one level inside; drawings are shaded
_MAX_LINE = 11  # width of a line between rows with its surroundings, in half the size
_LEAST_SIDE = 16  # pixels, in which there is hardly a letter
_MIN_MARGIN = 4  # of half the size: letters are surrounded by traces of compression


class TextShown(NamedTuple):
    """What an image shows of text.

    letters: number of letters, roughly: the widths over the heights of the rows with three or more, eight at most.
    share: share of the area with anything on it that is rows of text.
    """

    letters: float
    share: float


class Row(NamedTuple):
    """Box in an image of half the size."""

    left: int
    top: int
    width: int
    height: int

    @property
    def letters(self) -> float:
        """Number of letters that count, roughly."""
        letters = self.width / self.height
        return min(letters, _MAX_LETTERS) if letters >= _MIN_LETTERS else 0.0


def measure_text(luminance: np.ndarray) -> TextShown:
    """Find the rows of text of an image.

    Args:
        luminance: from `shrink_luminance`.
    """
    if min(luminance.shape) < _LEAST_SIDE:
        return TextShown(0.0, 0.0)
    kernel = np.ones((3, 3), np.uint8)
    contrast = cv2.subtract(cv2.dilate(luminance, kernel), cv2.erode(luminance, kernel))
    edges = _threshold_halves(contrast, _EDGE)
    share_of_edges = cv2.countNonZero(edges) / edges.size
    if not 0 < share_of_edges < _MAX_EDGES:
        return TextShown(0.0, 0.0)

    rows: list[Row] = []
    is_text = np.zeros_like(edges)
    for gap, max_height in _PASSES:
        for row in _find_candidates(edges, gap, max_height):
            is_known = is_text[row.top + row.height // 2, row.left + row.width // 2]
            if not is_known and _holds_letters(luminance, row):
                rows.append(row)
                is_text[row.top : row.top + row.height, row.left : row.left + row.width] = 255
    return TextShown(sum(row.letters for row in rows), _measure_share(contrast, rows) if rows else 0.0)


def _find_candidates(edges: np.ndarray, gap: float, max_height: float) -> list[Row]:
    """Return the boxes of marks that stand in a row."""
    kernel = np.ones((1, max(3, round(gap * edges.shape[1]))), np.uint8)
    marks = cv2.morphologyEx(edges, cv2.MORPH_CLOSE, kernel)
    # OpenCV finds those that touch at corners, too, in half the time of others.
    _, _, boxes, _ = cv2.connectedComponentsWithStats(marks, connectivity=8, ltype=cv2.CV_16U)
    boxes = boxes[1:]
    widths, heights, areas = boxes[:, cv2.CC_STAT_WIDTH], boxes[:, cv2.CC_STAT_HEIGHT], boxes[:, cv2.CC_STAT_AREA]
    is_row = (heights >= 3) & (heights <= max_height * edges.shape[0]) & (widths >= _LEAST_ASPECT * heights)
    # Letters fill their row, apart from ascenders.
    is_row &= areas >= 0.45 * widths * heights
    boxes = boxes[is_row]
    if len(boxes) > _MAX_CANDIDATES:
        boxes = boxes[np.argsort(-boxes[:, cv2.CC_STAT_AREA])[:_MAX_CANDIDATES]]
    return [Row(*box) for box in boxes[:, :4].tolist()]


def _holds_letters(luminance: np.ndarray, row: Row) -> bool:
    """Return whether a box holds strokes of one colour on an even ground, close to each other as those of letters."""
    # A margin of two pixels is ground.
    lines = slice(max(0, 2 * row.top - 2), 2 * (row.top + row.height) + 2)
    columns = slice(max(0, 2 * row.left - 2), 2 * (row.left + row.width) + 2)
    crop = luminance[lines, columns]
    # The first and the last line of most boxes show that they are none of text, which saves the others. The ends of all
    # lines are ground by definition.
    border = np.count_nonzero(np.abs(_subtract_ground(crop[:: len(crop) - 1])) <= _GROUND_TOLERANCE)
    if border + 2 * len(crop) < 0.85 * 2 * sum(crop.shape):
        return False

    differences = _subtract_ground(crop)
    dark, light = differences < -_INK, differences > _INK
    num_dark, num_light = np.count_nonzero(dark), np.count_nonzero(light)
    ink = dark if num_dark >= num_light else light
    num_ink = max(num_dark, num_light)
    # Letters are either darker or lighter than the ground, and cover a sixteenth to two thirds of their row.
    if min(num_dark, num_light) > 0.05 * num_ink or not 0.06 <= num_ink / crop.size <= 0.65:
        return False

    height, width = 2 * row.height - 2, 2 * row.width
    if height > _LARGE:
        levels = differences[ink]
        if (np.abs(levels - np.median(levels)) <= _INK).mean() < 0.6:
            return False

    strokes = np.count_nonzero(ink[:, 1:] & ~ink[:, :-1], axis=1) + ink[:, 0]  # [H], on each line
    middle = strokes[len(strokes) // 4 : 3 * len(strokes) // 4 + 1]
    # A letter has one stroke or more on its middle lines, for each height of a row. Bold ones are a third of the height
    # wide; in small print they touch.
    stroke_width = num_ink / max(1, int(strokes.sum()))
    max_stroke = 0.4 if height > 14 else 0.55
    return bool(np.median(middle) * height >= 0.7 * width and stroke_width <= max_stroke * height)


def _subtract_ground(lines: np.ndarray) -> np.ndarray:
    """Return by how many levels the pixels of lines differ from a ground that may be a gradient, float32."""
    width = lines.shape[1]
    # The ground is interpolated between the left and the right end of each line.
    ends = lines[:, :: width - 1].astype(np.float32)  # [H, 2]
    return lines - ends @ _make_end_weights(width)


@lru_cache(maxsize=640)  # widths of an image of 640 pixels
def _make_end_weights(width: int) -> np.ndarray:
    """Return the weights of the left and the right end of a line at each of its pixels, `[2, width]` float32."""
    right = np.linspace(0, 1, width, dtype=np.float32)
    return np.stack([1 - right, right])


def _threshold_halves(contrast: np.ndarray, level: int) -> np.ndarray:
    """Return 255 where any of 2 x 2 pixels reaches a level, in half the size."""
    reached = cv2.threshold(contrast, level - 1, 255, cv2.THRESH_BINARY)[1]
    return cv2.threshold(halve(reached), 0, 255, cv2.THRESH_BINARY)[1]


def _measure_share(contrast: np.ndarray, rows: list[Row]) -> float:
    """Return the share of the area with anything on it that is text.

    Args:
        contrast: levels within 3 x 3 pixels.
        rows: the rows of text.
    """
    edges = _threshold_halves(contrast, _WEAK_EDGE)
    num_text = 0
    for left, top, width, height in rows:
        num_text += width * height
        # What is nearer to a row than its height is a frame or a button around it.
        margin = max(_MIN_MARGIN, height)
        edges[max(0, top - margin) : top + height + margin, max(0, left - margin) : left + width + margin] = 0
    edges = _erase_lines(cv2.transpose(_erase_lines(edges)))
    num_other = cv2.countNonZero(cv2.morphologyEx(edges, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8)))
    return num_text / (num_text + num_other)


def _erase_lines(edges: np.ndarray) -> np.ndarray:
    """Return edges without thin horizontal lines, which separate the rows of a page."""
    lines = cv2.morphologyEx(edges, cv2.MORPH_OPEN, np.ones((1, max(3, edges.shape[1] // 8)), np.uint8))
    thick = cv2.morphologyEx(lines, cv2.MORPH_OPEN, np.ones((_MAX_LINE, 1), np.uint8))
    return cv2.subtract(edges, cv2.dilate(cv2.subtract(lines, thick), np.ones((1, 5), np.uint8)))
