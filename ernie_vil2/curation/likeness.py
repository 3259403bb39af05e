"""How alike two images are, by thumbnails of a kilobyte that survive resizing, recompression, borders, crops and grey.

Even borders and margins are cut off first. What is left becomes luminance of 32 x 32 and colour of 8 x 8. Two images
are compared as they are, and as crops of each other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np

SIDE, COLOUR = 32, 8
BYTES = SIDE * SIDE + 2 * COLOUR * COLOUR
WIDTH = 256
"""Numbers of a vector, by which candidates are found."""
EVEN = 28
"""Levels by which the values of an even border may differ: JPEG's noise at a low quality."""
LEAST = 0.3
"""Of a side, that is left of it."""
LEAST_CONTRAST = 8.0
"""Standard deviation of what is left."""
ASPECT = 0.2
"""By which the logarithms of two aspect ratios may differ."""
EXTENT = 0.3
"""Likewise of two extents: a small square is not a large one; a frame of a tenth, or a crop, is within it."""
BLOCK = 20_000
"""Pairs that are compared at once."""
_CUTS = [(0, 0), (0.05, 0), (0, 0.05), (0.1, 0), (0, 0.1), (0.05, 0.05)]
"""Shares of a side that a crop has lost at its two ends."""
_CROPS = [(rows, columns) for rows in _CUTS for columns in _CUTS]
SURE = 0.98
"""Likeness from which no crops are tried."""
CROPPED = 20.0
"""Levels that the worst spot may differ by where a crop is known to a twentieth only; else 15."""
WORTHWHILE = 0.85
"""Correlation of 12 x 12 from which a crop is looked at closely."""


def trimmed(luminance: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of an image, `[H, W]` uint8, within even borders: a frame, and the margin within it."""
    rows, columns = slice(0, luminance.shape[0]), slice(0, luminance.shape[1])
    for _ in range(4):
        part = luminance[rows, columns]
        turned = part.T
        height, width = part.shape
        top, bottom = _even_lines(part, 0), _even_lines(part, -1)
        left, right = _even_lines(turned, 0), _even_lines(turned, -1)
        if top + bottom > (1 - LEAST) * height or left + right > (1 - LEAST) * width:
            break
        if not (top or bottom or left or right):
            break
        if part[top : height - bottom, left : width - right].std() < LEAST_CONTRAST:
            break  # a plain shape is seen by its margin alone
        rows = slice(rows.start + top, rows.stop - bottom)
        columns = slice(columns.start + left, columns.stop - right)
    return rows, columns


def _even_lines(luminance: np.ndarray, end: int) -> int:
    """How many rows from the first (0) or the last (-1) on have the level of that one, nearly everywhere."""
    level = int(np.median(luminance[end]))
    off = (luminance > min(255, level + EVEN)) | (luminance < max(0, level - EVEN))
    uneven = np.count_nonzero(off, axis=1) > 0.02 * off.shape[1]
    if end:
        uneven = uneven[::-1]
    return int(uneven.argmax()) if uneven.any() else len(luminance)


class Thumbnail(NamedTuple):
    """`BYTES` bytes, the aspect ratio of what is within the borders, and the root of its share of the area."""

    content: bytes
    shape: float
    extent: float

    @property
    def columns(self) -> dict[str, Any]:
        """As the measures of a step, see `COLUMNS`."""
        return {"thumbnail": self.content, "shape": self.shape, "extent": self.extent}


COLUMNS = {"thumbnail": "binary", "shape": "float", "extent": "float"}


def thumbnail(pixels: np.ndarray) -> Thumbnail:
    """The thumbnail of an image, `[H, W, 3]` uint8 RGB."""
    shrink = max(pixels.shape[:2]) / 128
    if shrink > 1:
        size = [max(1, round(side / shrink)) for side in pixels.shape[1::-1]]
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    colours = cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb)
    part = np.ascontiguousarray(colours[trimmed(np.ascontiguousarray(colours[..., 0]))])
    luminance = cv2.resize(part[..., 0], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    chroma = cv2.resize(part[..., 1:], (COLOUR, COLOUR), interpolation=cv2.INTER_AREA)
    height, width = part.shape[:2]
    extent = (height * width / (colours.shape[0] * colours.shape[1])) ** 0.5
    return Thumbnail(luminance.tobytes() + chroma.tobytes(), width / height, extent)


def comparable(shapes: np.ndarray, extents: np.ndarray) -> np.ndarray:
    """Whether pairs can show the same, `[P]` bool, by the aspect ratios and extents of both, `[2, P]` each."""
    apart = (np.abs(np.log(first / second)) for first, second in (shapes, extents))
    return np.logical_and(*(value < most for value, most in zip(apart, (ASPECT, EXTENT), strict=True)))


def luminances(thumbnails: np.ndarray) -> np.ndarray:
    """`[N, BYTES]` uint8 to `[N, 32, 32]` float32."""
    return thumbnails[:, : SIDE * SIDE].reshape(-1, SIDE, SIDE).astype(np.float32)


def mirrored(thumbnails: np.ndarray) -> np.ndarray:
    """The thumbnails of the mirrored images."""
    parts = thumbnails[:, : SIDE * SIDE].reshape(-1, SIDE, SIDE), thumbnails[:, SIDE * SIDE :]
    chroma = parts[1].reshape(-1, COLOUR, COLOUR, 2)[:, :, ::-1].reshape(len(thumbnails), -1)
    return np.concatenate([parts[0][:, :, ::-1].reshape(len(thumbnails), -1), chroma], axis=1)


def vectors(thumbnails: np.ndarray) -> np.ndarray:
    """What candidates are found by: luminance of 16 x 16 without its mean, `[N, 256]` float32, of length 1."""
    small = luminances(thumbnails).reshape(-1, 16, 2, 16, 2).mean(axis=(2, 4)).reshape(-1, WIDTH)
    small -= small.mean(axis=1, keepdims=True)
    return small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)


def likeness(first: np.ndarray, second: np.ndarray, crops: bool = True) -> np.ndarray:
    """How alike the images of each pair are, `[P]` float32: 1 if they are equal, the better of all crops.

    It is the correlation of luminances less what their levels, their colours and their worst spot differ by.

    Args:
        first, second: thumbnails, `[P, BYTES]` uint8.
        crops: also compares each image with crops of the other by up to a tenth.
    """
    found = [
        _likeness(first[start : start + BLOCK], second[start : start + BLOCK], crops)
        for start in range(0, len(first), BLOCK)
    ]
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def _likeness(first: np.ndarray, second: np.ndarray, crops: bool) -> np.ndarray:
    a, b = luminances(first), luminances(second)
    apart = _colours_apart(first, second)
    best = _agreement(a, b) - apart
    if not crops:
        return best
    left = np.flatnonzero(best < SURE)
    for one, other in ((a, b), (b, a)):
        crop, coarse = _best_crops(_halved(one[left]), _halved(other[left]))
        worthwhile = coarse >= WORTHWHILE
        for number in np.unique(crop[worthwhile]).tolist():
            rows, columns = _CROPS[number]
            pairs = left[worthwhile & (crop == number)]
            cut = _resampled(_resampled(one[pairs], rows, samples=24, axis=1), columns, samples=24, axis=2)
            whole = _resampled(_resampled(other[pairs], _CUTS[0], samples=24, axis=1), _CUTS[0], samples=24, axis=2)
            best[pairs] = np.maximum(best[pairs], _agreement(cut, whole, tolerated=CROPPED) - apart[pairs])
    return best


def _halved(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), SIDE // 2, 2, SIDE // 2, 2).mean(axis=(2, 4))


def _best_crops(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each image the crop that is most like another image, as its number, and their correlation, by 12 x 12."""
    whole = _standard(_resampled(_resampled(other, _CUTS[0], samples=12, axis=1), _CUTS[0], samples=12, axis=2))
    best, found = np.full(len(one), -1.0, np.float32), np.zeros(len(one), np.int64)
    lines = {rows: _resampled(one, rows, samples=12, axis=1) for rows in _CUTS}
    for number, (rows, columns) in enumerate(_CROPS):
        value = np.einsum("pn,pn->p", _standard(_resampled(lines[rows], columns, samples=12, axis=2)), whole)
        found[value > best] = number
        np.maximum(best, value, out=best)
    return found, best


def _standard(images: np.ndarray) -> np.ndarray:
    """Without their means, of length 1, `[P, pixels]`."""
    flat = images.reshape(len(images), images.shape[1] * images.shape[2])
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-3)


def _resampled(images: np.ndarray, cut: tuple[float, float], samples: int, axis: int) -> np.ndarray:
    """Of each image the part without two shares of a side, to so many samples along the axis, linearly."""
    side, (before, after) = images.shape[axis], cut
    positions = side * (before + (1 - before - after) * (np.arange(samples) + 0.5) / samples) - 0.5
    low = np.clip(np.floor(positions).astype(int), 0, side - 2)
    share = np.clip(positions - low, 0, 1).astype(np.float32)
    weights = np.zeros((samples, side), np.float32)
    weights[np.arange(samples), low] = 1 - share
    weights[np.arange(samples), low + 1] += share
    return weights @ images if axis == 1 else images @ weights.T


def _agreement(a: np.ndarray, b: np.ndarray, tolerated: float = 15) -> np.ndarray:
    """Correlation, less the difference of the levels and that of the worst spot, in units of the contrast."""
    levels = [one.mean(axis=(1, 2)) for one in (a, b)]
    centred = [one - level[:, None, None] for one, level in zip((a, b), levels, strict=True)]
    contrasts = [np.sqrt((one**2).mean(axis=(1, 2)) + 4) for one in centred]  # two levels are noise
    correlation = ((centred[0] * centred[1]).mean(axis=(1, 2)) + 4) / (contrasts[0] * contrasts[1])
    spots = np.abs(_smoothed(a - b)).max(axis=(1, 2))
    return (
        correlation
        - 0.002 * np.maximum(np.abs(levels[0] - levels[1]) - 4, 0)
        - 0.005 * np.maximum(spots - tolerated, 0)
    )


def _smoothed(images: np.ndarray) -> np.ndarray:
    """Means of 3 x 3."""
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    return (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9


def _colours_apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """What the colours of each pair differ by, 0 to some tenths; 0 if one of the images is grey."""
    a, b = (
        one[:, SIDE * SIDE :].reshape(len(one), COLOUR * COLOUR, 2).astype(np.float32) - 128 for one in (first, second)
    )
    grey = np.minimum(np.abs(a).max(axis=(1, 2)), np.abs(b).max(axis=(1, 2))) < 6
    apart = np.sqrt(((a - b) ** 2).sum(axis=2)).mean(axis=1)
    return np.where(grey, 0, 0.005 * np.maximum(apart - 6, 0)).astype(np.float32)
