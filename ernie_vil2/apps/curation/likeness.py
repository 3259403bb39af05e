"""How alike two images are, by thumbnails that survive resizing, recompression, borders, crops and grey.

Even borders and margins are cut off first. What is left becomes luminance of 64 x 64 and colour of 8 x 8. Two images
are compared as they are, and as crops of each other, at 32 x 32; those that agree once more at 64 x 64, spot by spot.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from ernie_vil2.data.decoding import resize_pixels

LARGEST = 128  # pixels of a side of what is looked at
FINE, SIDE, COLOUR = 64, 32, 8
BYTES = FINE * FINE + 2 * COLOUR * COLOUR
WIDTH = 64  # numbers of a vector, by which candidates are found
WINDOWS = 5  # of an image that are asked for: the whole, and at each corner what a crop could leave
EVEN = 12  # levels by which values of an even border may differ: JPEG's noise, but less than from yellow to white
WHITE = 245  # level from which a border is paper
LEAST = 0.3  # of a side, that is left of it
LEAST_CONTRAST = 8.0  # standard deviation of what is left
ASPECT = 0.2  # by which the logarithms of two aspect ratios may differ
EXTENT = 0.3  # likewise of two extents: a small square is not a large one; a frame of a tenth, or a crop, is within it
BLOCK = 5_000  # pairs that are compared at once
_LEVELS = np.arange(256)
# Shares of a side that a crop has lost at its two ends.
_CUTS = [(0, 0), (0.05, 0), (0, 0.05), (0.1, 0), (0, 0.1), (0.05, 0.05)]
_CROPS = [(rows, columns) for rows in _CUTS for columns in _CUTS]
_LIMITS = -0.02, 0.16  # of these shares, looked at closely: a tenth of an image is more of what its margins hold
SURE = 0.98  # likeness from which no crops are tried
WORTHWHILE = 0.82, 0.9  # correlations of 12 x 12 from which a crop is looked at closely, and once adjusted further
AGREED = 0.9  # likeness from which two images are compared at 64 x 64
MOVES = 0.025, 0.0125, 0.006, 0.003  # shares of a side by which the edges of a crop are adjusted
STRETCH = 0.03  # by which the logarithm of a crop's aspect ratio may be off, as margins are whole pixels


def trimmed(luminance: np.ndarray) -> list[tuple[slice, slice]]:
    """Rows and columns of an image, `[H, W]` uint8, within even borders: a frame, and the margin within it.

    The last border may be the ground of a plain sign whose edges a crop has cut off. Unless it is white on all sides,
    the part that includes it is another one, and comes first.
    """
    parts, paper = [(slice(0, luminance.shape[0]), slice(0, luminance.shape[1]))], True
    for _ in range(4):
        rows, columns = parts[-1]
        part = luminance[rows, columns]
        (top, bottom, left, right), levels = _even_lines(part)
        height, width = part.shape
        too_much = top + bottom > (1 - LEAST) * height or left + right > (1 - LEAST) * width
        if too_much or not (top or bottom or left or right):
            break
        if cv2.meanStdDev(part[top : height - bottom, left : width - right])[1].item() < LEAST_CONTRAST:
            break  # a plain shape is seen by its margin alone
        rows = slice(rows.start + top, rows.stop - bottom)
        columns = slice(columns.start + left, columns.stop - right)
        paper = min(top, bottom, left, right) > 0 and min(levels) >= WHITE
        parts.append((rows, columns))
    return parts[-1:] if paper else parts[-2:]


def _even_lines(luminance: np.ndarray) -> tuple[list[int], list[int]]:
    """How many lines from top, bottom, left and right on have the level of the first, nearly everywhere; the levels."""
    uneven: dict[tuple[int, int], np.ndarray] = {}  # by level and axis
    found, levels = [], []
    for axis, end in ((1, 0), (1, -1), (0, 0), (0, -1)):
        line = np.sort(luminance[end] if axis else luminance[:, end])
        level = (int(line[(len(line) - 1) // 2]) + int(line[len(line) // 2])) // 2  # the median
        if (level, axis) not in uneven:
            table = (np.abs(_LEVELS - level) > EVEN).astype(np.uint8)
            off = cv2.reduce(cv2.LUT(luminance, table), axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel()
            uneven[level, axis] = off > 0.02 * len(line)
        lines = uneven[level, axis][:: -1 if end else 1]
        first = int(lines.argmax())
        found.append(first if lines[first] else len(lines))
        levels.append(level)
    return found, levels


def shrunk(pixels: np.ndarray) -> np.ndarray:
    """Shrink an image, `[H, W, 3]` uint8, to at most `LARGEST` pixels a side."""
    shrink = max(pixels.shape[:2]) / LARGEST
    if shrink <= 1:
        return pixels
    height, width = (max(1, round(side / shrink)) for side in pixels.shape[:2])
    return resize_pixels(pixels, width, height)


class Thumbnail(NamedTuple):
    """`BYTES` bytes, the aspect ratio of what is within the borders, and the root of its share of the area."""

    content: bytes
    shape: float
    extent: float


COLUMNS = {"thumbnail": "list<binary>", "shape": "list<float>", "extent": "list<float>"}


def columns_of(thumbnails: Sequence[Thumbnail]) -> dict[str, Any]:
    """Return the thumbnails of an image as measures of a step; see `COLUMNS`."""
    return dict(zip(COLUMNS, map(list, zip(*thumbnails, strict=True)), strict=True))


def thumbnails_of(pixels: np.ndarray) -> list[Thumbnail]:
    """Return the thumbnails of an image, `[H, W, 3]` uint8 RGB: two if its last border may belong to it, else one."""
    colours = cv2.cvtColor(shrunk(pixels), cv2.COLOR_RGB2YCrCb)
    luminance = np.ascontiguousarray(colours[..., 0])
    return [_thumbnail(luminance[part], colours[part], luminance.size) for part in trimmed(luminance)]


def _thumbnail(luminance: np.ndarray, colours: np.ndarray, area: int) -> Thumbnail:
    fine = cv2.resize(luminance, (FINE, FINE), interpolation=cv2.INTER_AREA)
    chroma = cv2.resize(colours, (COLOUR, COLOUR), interpolation=cv2.INTER_AREA)[..., 1:]
    height, width = luminance.shape
    return Thumbnail(fine.tobytes() + chroma.tobytes(), width / height, (height * width / area) ** 0.5)


def comparable(shapes: np.ndarray, extents: np.ndarray) -> np.ndarray:
    """Whether pairs can show the same, `[P]` bool, by the aspect ratios and extents of both, `[2, P]` each."""
    apart = (np.abs(np.log(first / second)) for first, second in (shapes, extents))
    return np.logical_and(*(value < most for value, most in zip(apart, (ASPECT, EXTENT), strict=True)))


def luminances(thumbnails: np.ndarray) -> np.ndarray:
    """`[N, BYTES]` uint8 to `[N, 32, 32]` float32."""
    return _halved(_fine(thumbnails))


def _fine(thumbnails: np.ndarray) -> np.ndarray:
    """`[N, BYTES]` uint8 to `[N, 64, 64]` float32."""
    return thumbnails[:, : FINE * FINE].reshape(-1, FINE, FINE).astype(np.float32)


def mirrored(thumbnails: np.ndarray) -> np.ndarray:
    """Mirror thumbnails."""
    parts = thumbnails[:, : FINE * FINE].reshape(-1, FINE, FINE), thumbnails[:, FINE * FINE :]
    chroma = parts[1].reshape(-1, COLOUR, COLOUR, 2)[:, :, ::-1].reshape(len(thumbnails), -1)
    return np.concatenate([parts[0][:, :, ::-1].reshape(len(thumbnails), -1), chroma], axis=1)


def vectors(thumbnails: np.ndarray) -> np.ndarray:
    """Return vectors to search candidates by: luminance of 8 x 8 without its mean, `[N, 64]` float32 of length 1."""
    return _vectors(_halved(luminances(thumbnails)), (0, 0), (0, 0))


def windows(thumbnails: np.ndarray) -> np.ndarray:
    """Vectors of the whole images and of their corners, `[N, WINDOWS, 64]`; one is near the vector of a crop."""
    images, cuts = _halved(luminances(thumbnails)), [(0.06, 0.0), (0.0, 0.06)]
    corners = [_vectors(images, rows, columns) for rows in cuts for columns in cuts]
    return np.stack([_vectors(images, (0, 0), (0, 0)), *corners], axis=1)


def _vectors(images: np.ndarray, rows: tuple[float, float], columns: tuple[float, float]) -> np.ndarray:
    return _standard(_resampled(_resampled(images, rows, samples=8, axis=1), columns, samples=8, axis=2))


def likeness(
    first: np.ndarray, second: np.ndarray, stretch: np.ndarray | None = None, crops: bool = True
) -> np.ndarray:
    """Return how alike the images of each pair are, `[P]` float32: 1 if they are equal; the best of all crops counts.

    It is the correlation of luminances, less the differences of levels, of colours and of the worst spots.

    Args:
        first: thumbnails, `[P, BYTES]` uint8.
        second: thumbnails of the other images.
        stretch: logarithm of the second's aspect ratio over the first's, `[P]`; None: they are equal.
        crops: also compare each image with crops of the other by up to a tenth.
    """
    stretch = np.zeros(len(first), np.float32) if stretch is None else stretch
    found = [
        _likeness(first[rows], second[rows], stretch[rows], crops)
        for rows in (slice(start, start + BLOCK) for start in range(0, len(first), BLOCK))
    ]
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def _likeness(first: np.ndarray, second: np.ndarray, stretch: np.ndarray, crops: bool) -> np.ndarray:
    a, b = luminances(first), luminances(second)
    colours = _chroma(first), _chroma(second)
    best = _agreement(a, b) - _colours_apart(*colours)
    agreed = np.flatnonzero(best >= AGREED)
    best[agreed] -= _deviation(first[agreed], second[agreed], np.zeros((len(agreed), 4), np.float32))
    if not crops:
        return best
    left = np.flatnonzero(best < SURE)
    sides = ((first, a, colours[0]), (second, b, colours[1]))
    for (whose, one, hues), (others, other, other_hues), turned in ((*sides, stretch), (*sides[::-1], -stretch)):
        cuts, coarse = _best_crops(_halved(one[left]), _halved(other[left]), turned[left])
        close = left[coarse >= WORTHWHILE[0]]
        pairs, cuts = _adjusted(one, other, turned, close, cuts[coarse >= WORTHWHILE[0]])
        whole = np.zeros_like(cuts)
        value = _agreement(_parts(one[pairs], cuts), _parts(other[pairs], whole))
        value -= _colours_apart(_parts(hues[:, pairs], cuts, 6), _parts(other_hues[:, pairs], whole, 6))
        value -= _stretched(cuts, turned[pairs], STRETCH)
        agreed = np.flatnonzero(value >= AGREED)
        value[agreed] -= _deviation(whose[pairs[agreed]], others[pairs[agreed]], cuts[agreed])
        best[pairs] = np.maximum(best[pairs], value)
    return best


def _deviation(first: np.ndarray, second: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Return how much crops of images differ from others at the worst spots, 0 to some tenths.

    At 48 x 48, a value counts as far as the other has no such value within a pixel of it, so that edges may lie a
    little apart. It is in units of the contrast, of which noise is a part.
    """
    a, b = _parts(_fine(first), cuts, 48), _parts(_fine(second), np.zeros_like(cuts), 48)
    contrast = np.minimum(a.std(axis=(1, 2)), b.std(axis=(1, 2)))
    worst = np.zeros(len(a), np.float32)
    for one, other in ((a, b), (b, a)):
        least, most = (_of_neighbours(choose, other) for choose in (np.minimum, np.maximum))
        inner = one[:, 1:-1, 1:-1]
        off = np.maximum(np.maximum(inner - most, least - inner), 0)
        worst = np.maximum(worst, [cv2.blur(image, (5, 5)).max() for image in off])
    return 0.01 * np.maximum(50 * worst / np.maximum(contrast, 20) - 3, 0)


def _of_neighbours(choose: np.ufunc, images: np.ndarray) -> np.ndarray:
    """Return the smallest, the largest or the sum of each 3 x 3."""
    rows = choose(choose(images[:, :-2], images[:, 1:-1]), images[:, 2:])
    return choose(choose(rows[:, :, :-2], rows[:, :, 1:-1]), rows[:, :, 2:])


def _adjusted(
    one: np.ndarray, other: np.ndarray, stretch: np.ndarray, pairs: np.ndarray, cuts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of these pairs those that are worth it, and their crops, `[P, 4]`, each edge moved to where they agree best."""
    for move in MOVES:
        images, turned = one[pairs], stretch[pairs]
        whole = _standard(_parts(other[pairs], np.zeros_like(cuts)))
        best = _fitting(images, cuts, whole, turned)
        for edge in range(4):
            for step in (move, -move):
                tried = cuts.copy()
                tried[:, edge] = np.clip(tried[:, edge] + step, *_LIMITS)
                value = _fitting(images, tried, whole, turned)
                cuts = np.where((value > best)[:, None], tried, cuts)
                best = np.maximum(best, value)
        pairs, cuts = pairs[best >= WORTHWHILE[1]], cuts[best >= WORTHWHILE[1]]
    return pairs, cuts


def _fitting(images: np.ndarray, cuts: np.ndarray, whole: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    return np.einsum("pn,pn->p", _standard(_parts(images, cuts)), whole) - _stretched(cuts, stretch, STRETCH)


def _stretched(cuts: np.ndarray, stretch: np.ndarray, tolerated: float) -> np.ndarray:
    """By how much crops, `[..., 4]`, change the aspect ratio otherwise than it is known to have changed."""
    rows, columns = (1 - cuts[..., end] - cuts[..., end + 1] for end in (0, 2))
    return np.maximum(np.abs(np.log(columns / rows) - stretch) - tolerated, 0)


def _parts(images: np.ndarray, cuts: np.ndarray, samples: int = 24) -> np.ndarray:
    """Crops of images, `[..., P, samples, samples]`."""
    rows, columns = (_weights(images.shape[-1], cuts[:, end], cuts[:, end + 1], samples) for end in (0, 2))
    return rows @ images @ columns.transpose(0, 2, 1)


def _halved(images: np.ndarray) -> np.ndarray:
    half = images.shape[1] // 2
    return images.reshape(len(images), half, 2, half, 2).mean(axis=(2, 4))


def _best_crops(one: np.ndarray, other: np.ndarray, stretch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each image the crop that is most like another image, `[P, 4]`, and their correlation, by 12 x 12."""
    whole = _standard(_resampled(_resampled(other, _CUTS[0], samples=12, axis=1), _CUTS[0], samples=12, axis=2))
    best, found = np.full(len(one), -1.0, np.float32), np.zeros(len(one), np.int64)
    lines = {rows: _resampled(one, rows, samples=12, axis=1) for rows in _CUTS}
    for number, (rows, columns) in enumerate(_CROPS):
        value = np.einsum("pn,pn->p", _standard(_resampled(lines[rows], columns, samples=12, axis=2)), whole)
        value[_stretched(np.array([*rows, *columns]), stretch, 3 * STRETCH) > 0] = -1
        found[value > best] = number
        np.maximum(best, value, out=best)
    return np.array([rows + columns for rows, columns in _CROPS], np.float32)[found], best


def _standard(images: np.ndarray) -> np.ndarray:
    """Without their means, of length 1, `[P, pixels]`."""
    flat = images.reshape(len(images), images.shape[1] * images.shape[2])
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-3)


def _resampled(images: np.ndarray, cut: tuple[float, float], samples: int, axis: int) -> np.ndarray:
    """Of each image the part without two shares of a side, to so many samples along the axis, linearly."""
    [weights] = _weights(images.shape[axis], np.array(cut[:1]), np.array(cut[1:]), samples)
    return weights @ images if axis == 1 else images @ weights.T


def _weights(side: int, before: np.ndarray, after: np.ndarray, samples: int) -> np.ndarray:
    """`[P, samples, side]` float32: what is left of a side without its shares before and after, `[P]`, in samples."""
    positions = side * (before[:, None] + (1 - before - after)[:, None] * (np.arange(samples) + 0.5) / samples) - 0.5
    low = np.clip(np.floor(positions).astype(int), 0, side - 2)
    share = np.clip(positions - low, 0, 1).astype(np.float32)
    weights = np.zeros((*low.shape, side), np.float32)
    np.put_along_axis(weights, low[..., None], 1 - share[..., None], axis=2)
    np.put_along_axis(weights, low[..., None] + 1, share[..., None], axis=2)
    return weights


def _agreement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation, less the difference of the levels and that of the worst spot, in units of the contrast."""
    levels = [one.mean(axis=(1, 2)) for one in (a, b)]
    centred = [one - level[:, None, None] for one, level in zip((a, b), levels, strict=True)]
    contrasts = [np.sqrt((one**2).mean(axis=(1, 2)) + 4) for one in centred]  # two levels are noise
    correlation = ((centred[0] * centred[1]).mean(axis=(1, 2)) + 4) / (contrasts[0] * contrasts[1])
    spots = np.abs(_of_neighbours(np.add, a - b) / 9).max(axis=(1, 2))
    return correlation - 0.002 * np.maximum(np.abs(levels[0] - levels[1]) - 4, 0) - 0.005 * np.maximum(spots - 15, 0)


def _chroma(thumbnails: np.ndarray) -> np.ndarray:
    """Return the two colours of 8 x 8, `[2, N, 8, 8]` float32 about 0."""
    colours = thumbnails[:, FINE * FINE :].reshape(-1, COLOUR, COLOUR, 2).astype(np.float32) - 128
    return np.ascontiguousarray(colours.transpose(3, 0, 1, 2))


def _colours_apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return how much the colours of each pair differ, 0 to some tenths; 0 if one of the images is grey."""
    grey = np.minimum(*(np.abs(one).max(axis=(0, 2, 3)) for one in (a, b))) < 6
    apart = np.sqrt(((a - b) ** 2).sum(axis=0)).mean(axis=(1, 2))
    return np.where(grey, 0, 0.005 * np.maximum(apart - 6, 0)).astype(np.float32)
