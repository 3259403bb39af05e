"""QR codes in an image, known by the three squares at their corners."""

import math
from itertools import combinations, permutations
from typing import NamedTuple

import cv2
import numpy as np

# A square at a corner has a dark core of 3 modules a side, in a light ring of 5, in a dark one of 7. OpenCV's detector
# takes five times as long, overlooks half of the photographs of codes that this one finds and most codes without a
# light margin inside of the squares, and takes beds of flowers for codes.
_MAX_SIDE = 400  # pixels; a module of a large code that covers a twentieth of such an image is two pixels wide
_MIN_CORE = 20  # pixels, of modules 1.5 wide; smaller cores are also in Chinese characters such as 回
_MAX_CORNERS = 12  # of four codes; walls of windows have more
_MIN_LENGTH, _MAX_LENGTH = 12, 60  # modules between the centres of two squares: the smallest code has 14, large ones 50
_MIN_CHANGES = 6  # between dark and light along a line, in the mean: a third of the modules of the smallest code


class _Corner(NamedTuple):
    """Square at a corner of a code: its centre, and the width of a module."""

    centre: np.ndarray
    module: float


class _Shapes(NamedTuple):
    """Connected areas: centres `[N, 2]`, areas and widths `[N]`."""

    centres: np.ndarray
    areas: np.ndarray
    widths: np.ndarray


def measure_qr_code(luminance: np.ndarray) -> float:
    """Return the share of an image's area that its largest QR code covers, 0 without one.

    Args:
        luminance: from `shrink_luminance`.
    """
    factor = _MAX_SIDE / max(luminance.shape)
    if factor < 1:
        height, width = (max(1, round(side * factor)) for side in luminance.shape)
        # For less than a factor of two, bilinear interpolation reads as many pixels as a mean over the area, in a fifth
        # of the time.
        luminance = cv2.resize(luminance, (width, height), interpolation=cv2.INTER_LINEAR)
    _, dark = cv2.threshold(luminance, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    corners = _find_corners(dark)
    if len(corners) > _MAX_CORNERS:
        return 0.0
    area = max((_measure_code(dark, trio, corners) for trio in combinations(corners, 3)), default=0.0)
    return min(1.0, area / luminance.size)


def _find_corners(dark: np.ndarray) -> list[_Corner]:
    """Return the squares in the middle of a ring, of a mask that is 255 where the image is dark."""
    # A square that is turned by 45 degrees fills half of its box.
    cores = _find_shapes(dark, 0.45, 1)
    if len(cores.areas) < 3:
        return []
    # A ring fills 16 of 25 modules of its box, and half of that when it is turned.
    rings = _find_shapes(cv2.bitwise_not(dark), 0.2, 0.8)
    corners = []
    for centre, area, width in zip(*rings, strict=True):
        distances = np.hypot(*(cores.centres - centre).T)
        ratios = area / cores.areas  # 16 / 9, but blurred edges make one of them larger
        is_inside = (distances <= max(1, 0.1 * width)) & (ratios > 1) & (ratios < 2.8) & (width > 1.3 * cores.widths)
        for core in np.flatnonzero(is_inside):
            corners.append(_Corner(centre, math.sqrt(area + cores.areas[core]) / 5))
    return corners


def _find_shapes(mask: np.ndarray, min_fill: float, max_fill: float) -> _Shapes:
    """Return the connected areas of a mask whose box is a square, and that fill such a share of it."""
    _, _, boxes, centres = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_16U)
    boxes, centres = boxes[1:], centres[1:]  # the first area is what is 0
    widths, heights, areas = boxes[:, cv2.CC_STAT_WIDTH], boxes[:, cv2.CC_STAT_HEIGHT], boxes[:, cv2.CC_STAT_AREA]
    is_shape = (areas >= _MIN_CORE) & (np.abs(widths - heights) <= np.maximum(2, 0.25 * widths))
    fills = areas / (widths * heights)
    is_shape &= (fills >= min_fill) & (fills <= max_fill)
    return _Shapes(centres[is_shape], areas[is_shape], widths[is_shape])


def _measure_code(dark: np.ndarray, trio: tuple[_Corner, ...], corners: list[_Corner]) -> float:
    """Return the area of the code that has three squares at its corners, 0 if there is none."""
    modules = [corner.module for corner in trio]
    if max(modules) > 1.4 * min(modules):
        return 0.0
    module = sum(modules) / 3
    for corner, right, lower in permutations(corner.centre for corner in trio):
        side, other_side = right - corner, lower - corner
        length, other_length = np.hypot(*side), np.hypot(*other_side)
        is_square = abs(length - other_length) <= 0.15 * length and abs(side @ other_side) <= 0.2 * length**2
        if not _MIN_LENGTH <= length / module <= _MAX_LENGTH or not is_square:
            continue
        # A code has no fourth square; windows and tiles have.
        middle = (right + lower) / 2
        is_free = sum(np.hypot(*(other.centre - middle)) <= length for other in corners) == 3
        if is_free and _changes_often(dark, np.stack([corner, right, lower])):
            return float(math.sqrt(length * other_length) + 7 * module) ** 2
    return 0.0


def _changes_often(dark: np.ndarray, points: np.ndarray) -> bool:
    """Return whether a mask changes as often as a code between points `[3, 2]`, in both directions."""
    left, top = points.min(axis=0).astype(int)
    right, bottom = points.max(axis=0).astype(int)
    code = dark[top:bottom, left:right]
    changes_down = np.count_nonzero(code[1:] != code[:-1]) / code.shape[1]
    changes_right = np.count_nonzero(code[:, 1:] != code[:, :-1]) / code.shape[0]
    return min(changes_down, changes_right) >= _MIN_CHANGES
