"""QR codes in an image, known by the three squares at their corners."""

import math
from itertools import combinations, permutations
from typing import NamedTuple

import cv2
import numpy as np

# A module is the smallest square of a code. The square at a corner has a dark core of 3 modules a side, in a light ring
# of 5, in a dark one of 7. OpenCV's detector finds a sixth more photographs of codes, but takes five times as long,
# overlooks most codes without a light margin inside of the squares, and takes 12 of 300 photographs for codes.
_MAX_SIDE = 400  # pixels; a module of a large code that covers a twentieth of such an image is two pixels wide
# A pixel is dark that is darker than what is around it. One level for all of a photograph would take a shadow for dark.
_SURROUNDINGS, _MIN_DARKNESS = 51, 10  # pixels a side, odd; levels
_MIN_CORE = 20  # pixels: modules are 1.5 wide; smaller cores are also in Chinese characters such as 回
_MAX_CORNERS = 12  # four codes have as many; walls of windows have more
_MAX_SIZE_RATIO = 1.4  # of the squares of a code, which a photograph shows from the side
_MIN_LENGTH, _MAX_LENGTH = 12, 60  # modules between the centres of two squares: the smallest code has 14, large ones 50
_MIN_CHANGES = 6  # between dark and light along a mean line: a third of the modules of the smallest code


class _Corner(NamedTuple):
    """Square at a corner of a code: its centre `[2]`, x and y, and the width of a module, in pixels."""

    centre: np.ndarray
    module: float


class _Shapes(NamedTuple):
    """Connected areas: centres `[N, 2]`, x and y, areas and widths `[N]`, in pixels."""

    centres: np.ndarray
    areas: np.ndarray
    widths: np.ndarray


def measure_qr_code(luminance: np.ndarray) -> float:
    """Return the share of an image's area that its largest QR code covers, 0 without one.

    Args:
        luminance: from `shrink_luminance`, `[H, W]` uint8.
    """
    factor = _MAX_SIDE / max(luminance.shape)
    if factor < 1:
        height, width = (max(1, round(side * factor)) for side in luminance.shape)
        # For less than a factor of two, bilinear interpolation reads as many pixels as a mean over the area, in a fifth
        # of the time.
        luminance = cv2.resize(luminance, (width, height), interpolation=cv2.INTER_LINEAR)
    dark = cv2.adaptiveThreshold(
        luminance, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY_INV, _SURROUNDINGS, _MIN_DARKNESS
    )
    corners = _find_corners(dark)
    if len(corners) > _MAX_CORNERS:
        return 0.0
    area = 0.0
    for trio in combinations(corners, 3):
        area = max(area, _measure_code(dark, trio, corners))
    return min(1.0, area / luminance.size)


def _find_corners(dark: np.ndarray) -> list[_Corner]:
    """Return the dark squares that stand in the middle of a light ring.

    Args:
        dark: mask, 255 where the image is dark.
    """
    # A square that is turned by 45 degrees fills half of its box.
    cores = _find_shapes(dark, min_fill=0.45, max_fill=1)
    if len(cores.areas) < 3:
        return []
    # A ring fills 16 of 25 modules of its box, and half of that when it is turned.
    rings = _find_shapes(cv2.bitwise_not(dark), min_fill=0.2, max_fill=0.8)
    corners = []
    for centre, area, width in zip(*rings, strict=True):
        distances = np.hypot(*(cores.centres - centre).T)
        is_inside = (distances <= max(1, 0.1 * width)) & (width > 1.3 * cores.widths)
        # The ring has 16 modules and the core 9, but blurred edges make one of them larger.
        ratios = area / cores.areas
        is_inside &= (ratios > 1) & (ratios < 2.8)
        for core in np.flatnonzero(is_inside):
            # Together they are a square of 5 modules a side.
            corners.append(_Corner(centre, math.sqrt(area + cores.areas[core]) / 5))
    return corners


def _find_shapes(mask: np.ndarray, min_fill: float, max_fill: float) -> _Shapes:
    """Return the connected areas of a mask in square boxes, of which they fill a share between two bounds."""
    _, _, boxes, centres = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_16U)
    boxes, centres = boxes[1:], centres[1:]  # the first area is the ground, where the mask is 0
    widths, heights, areas = boxes[:, cv2.CC_STAT_WIDTH], boxes[:, cv2.CC_STAT_HEIGHT], boxes[:, cv2.CC_STAT_AREA]
    is_shape = (areas >= _MIN_CORE) & (np.abs(widths - heights) <= np.maximum(2, 0.25 * widths))
    fills = areas / (widths * heights)
    is_shape &= (fills >= min_fill) & (fills <= max_fill)
    return _Shapes(centres[is_shape], areas[is_shape], widths[is_shape])


def _measure_code(dark: np.ndarray, trio: tuple[_Corner, ...], corners: list[_Corner]) -> float:
    """Return the area in pixels of the code that has three squares at its corners, 0 if they belong to no code.

    Args:
        dark: mask, 255 where the image is dark.
        trio: the three squares.
        corners: all squares in the image.
    """
    modules = [corner.module for corner in trio]
    if max(modules) > _MAX_SIZE_RATIO * min(modules):
        return 0.0
    module = sum(modules) / 3
    centres = [corner.centre for corner in trio]
    # Which of the three stands at the right angle is not known.
    for corner, right, lower in permutations(centres):
        side, other_side = right - corner, lower - corner
        length, other_length = np.hypot(*side), np.hypot(*other_side)
        has_equal_sides = abs(length - other_length) <= 0.15 * length
        has_right_angle = abs(side @ other_side) <= 0.2 * length**2
        if not (has_equal_sides and has_right_angle and _MIN_LENGTH <= length / module <= _MAX_LENGTH):
            continue
        # A code has no fourth square of this size; windows and tiles have. Smaller ones are in characters beside it.
        middle = (right + lower) / 2
        num_squares = 0
        for square in corners:
            is_alike = max(square.module, module) <= _MAX_SIZE_RATIO * min(square.module, module)
            num_squares += is_alike and np.hypot(*(square.centre - middle)) <= length
        if num_squares == 3 and _changes_often(dark, np.stack([corner, right, lower])):
            # A code reaches half a square, 3.5 modules, beyond the centres at both ends.
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
