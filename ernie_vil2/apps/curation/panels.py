"""Find the picture that an image shows within strips: a page, a bar with a text, a filling, or a patterned frame.

A picture ends along straight lines, where the levels change in one step. Strips beyond such lines are taken off from
the outside if they are even, written on or blurred. What is left is the panel.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np

MIN_SIDE = 32  # pixels of an image, twice those of a panel: fewer lines are too few to tell
MIN_STEP = 6  # levels between two lines of pixels where an image ends: more than noise, less than a blurred filling
# Least share of a line that changes at once. Letters and rounded corners leave that much of a panel's side; trunks,
# shelves and horizons change less. On an even page a picture takes a part of the line only.
SIDE_SHARE, PART_SHARE = 0.75, 0.5
OPPOSITE_SHARE = 0.6  # likewise where a strip ends that is as wide as one on the opposite side
MAX_LINES = 12  # lines one way: a wall of bricks or a page of text has more, and no panel
MIN_GAP = 3  # pixels between two lines: the sides of a thin frame
EVEN_LEVELS, MIN_EVEN_SHARE = 12, 0.5  # levels from the median of a strip; share that has them: the rest are letters
MIN_EVEN_EDGE = 0.9  # likewise of the outermost line of a page
MAX_BLURRED = 0.5  # steps within a blurred strip, in proportion to those of what is left
# Share of the area: a smaller panel counts as one of several pictures, because a crop of little more does not count as
# a copy (`registration.MIN_AREA`). A larger one is the image itself.
MIN_PANEL, MAX_PANEL = 0.3, 0.96
_ACROSS = np.ones((5, 1), np.uint8)

Span = tuple[int, int]
"""First line and the one after the last."""


class _Lines(NamedTuple):
    """Luminance and its steps from each line to the next one, along one axis.

    levels: `[N, M]` uint8.
    steps: differences of the levels, `[N - 1, M]` uint8.
    peaks: 1 where a step is at least `MIN_STEP` and the greatest of five lines, else 0, `[N - 1, M]` uint8. In a rough
        image this is so for a fifth of a line.
    """

    levels: np.ndarray
    steps: np.ndarray
    peaks: np.ndarray


def find_panel(luminance: np.ndarray) -> tuple[slice, slice] | None:
    """Return the rows and columns of the picture within an image, `[H, W]` uint8; None if it has no strips."""
    if min(luminance.shape) < MIN_SIDE:
        return None
    lines = [_find_lines(luminance), _find_lines(cv2.transpose(luminance))]
    spans = _take_off_strips(lines, [(0, side) for side in luminance.shape], SIDE_SHARE)
    if _is_page(lines, spans):
        inner_spans = _take_off_strips(lines, spans, PART_SHARE)
        inner_spans = _take_off_strips(lines, inner_spans, SIDE_SHARE)
        if _has_sides(lines, inner_spans):
            spans = inner_spans
    (top, bottom), (left, right) = spans
    share = (bottom - top) * (right - left) / luminance.size
    if not MIN_PANEL <= share <= MAX_PANEL:
        return None
    return slice(top, bottom), slice(left, right)


def _find_lines(levels: np.ndarray) -> _Lines:
    steps = cv2.absdiff(levels[1:], levels[:-1])
    _, is_step = cv2.threshold(steps, MIN_STEP - 1, 1, cv2.THRESH_BINARY)
    is_greatest = cv2.compare(steps, cv2.dilate(steps, _ACROSS), cv2.CMP_EQ)
    return _Lines(levels, steps, cv2.bitwise_and(is_step, is_greatest))


def _take_off_strips(lines: Sequence[_Lines], spans: Sequence[Span], min_share: float) -> list[Span]:
    """Return the spans of rows and columns that are left when strips at all ends are taken off.

    Args:
        lines: lines of both axes.
        spans: spans of both axes.
        min_share: share of a line that changes where a strip ends.
    """
    rows = _take_off_ends(lines[0], spans[0], slice(*spans[1]), min_share)
    columns = _take_off_ends(lines[1], spans[1], slice(*rows), min_share)
    return [rows, columns]


def _take_off_ends(lines: _Lines, span: Span, columns: slice, min_share: float) -> Span:
    """Return the span of rows that is left when strips at both ends are taken off."""
    first, end = span
    if end - first < MIN_SIDE // 2:
        return span
    shares = cv2.reduce(lines.peaks[first : end - 1, columns], 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel()
    bounds = [first]
    for bound in (np.flatnonzero(shares >= min_share) + first + 1).tolist():
        if bound - bounds[-1] >= MIN_GAP:
            bounds.append(bound)
    if end - bounds[-1] < MIN_GAP:
        bounds.pop()
    bounds.append(end)
    if not 2 < len(bounds) <= MAX_LINES + 2:
        return span

    # The part with the most samples of other levels is the picture, or a part of it, and no strip.
    core = int(np.argmax([_count_uneven(lines.levels[slice(*part), columns]) for part in pairwise(bounds)]))
    for part in pairwise(bounds[: core + 1]):
        if not _is_strip(lines, part, (part[1], end), columns):
            break
        first = part[1]
    for part in reversed(list(pairwise(bounds[core + 1 :]))):
        if not _is_strip(lines, part, (first, part[0]), columns):
            break
        end = part[0]

    # A filling or a frame is as wide on one side as on the other.
    width_before, width_behind = first - span[0], span[1] - end
    if width_before and not width_behind:
        mirrored_end = span[1] - width_before
        if mirrored_end - first >= MIN_GAP and _measure_share(lines, mirrored_end, columns) >= OPPOSITE_SHARE:
            return first, mirrored_end
    if width_behind and not width_before:
        mirrored_first = span[0] + width_behind
        if end - mirrored_first >= MIN_GAP and _measure_share(lines, mirrored_first, columns) >= OPPOSITE_SHARE:
            return mirrored_first, end
    return first, end


def _count_uneven(levels: np.ndarray) -> int:
    """Return the number of samples that differ from the median by more than `EVEN_LEVELS`."""
    # NumPy, because cv2.absdiff takes the number for an array if there are one or four samples.
    differences = np.abs(levels.astype(np.int16) - np.int16(np.median(levels)))
    return int(np.count_nonzero(differences > EVEN_LEVELS))


def _is_strip(lines: _Lines, span: Span, inner_span: Span, columns: slice) -> bool:
    """Return whether rows are an even, written or blurred strip beside the inner rows."""
    strip = lines.levels[slice(*span), columns]
    if _count_uneven(strip) <= (1 - MIN_EVEN_SHARE) * strip.size:
        return True
    steps = cv2.mean(lines.steps[span[0] : span[1] - 1, columns])[0]
    inner_steps = cv2.mean(lines.steps[inner_span[0] : inner_span[1] - 1, columns])[0]
    return steps < MAX_BLURRED * inner_steps


def _is_page(lines: Sequence[_Lines], spans: Sequence[Span]) -> bool:
    """Return whether two opposite edges of a region are even."""
    for axis in (0, 1):
        first, end = spans[axis]
        edges = [lines[axis].levels[row : row + 1, slice(*spans[1 - axis])] for row in (first, end - 1)]
        if all(_count_uneven(edge) <= (1 - MIN_EVEN_EDGE) * edge.size for edge in edges):
            return True
    return False


def _has_sides(lines: Sequence[_Lines], spans: Sequence[Span]) -> bool:
    """Return whether all sides of a region are lines along most of it, or the edge of the image."""
    for axis in (0, 1):
        for bound in spans[axis]:
            is_edge = bound in (0, len(lines[axis].levels))
            if not is_edge and _measure_share(lines[axis], bound, slice(*spans[1 - axis])) < SIDE_SHARE:
                return False
    return True


def _measure_share(lines: _Lines, bound: int, columns: slice) -> float:
    """Return the share of peaks where row `bound` begins, or one row up or down if there are more."""
    near = lines.peaks[max(bound - 2, 0) : bound + 1, columns]
    return float(near.mean(axis=1).max())
