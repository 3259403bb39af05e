"""Find families of icon sets: a team's outline and filled versions, forks and copies. icon_study.py uses it.

Two sets are joined by **name** if they have one author or begin with the same word (`mdi` and `mdi-light`), or if the
smaller one shares most of its names of several words with the other; names that a standard gives (emoji, flags,
brands) say nothing. They are joined by **pixels** if a twentieth of the smaller set is drawn alike in the other.
"""

import io
import json
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

GRID = 16  # cells of a side of the grid on which drawings are compared
# Mean difference of two images on the grid, of ink from 0 to 1, up to which they are one drawing.
MAX_INK_DIFFERENCE = 0.04
# So many images of one hash are a disc, a square or a flag of three bars, which everybody draws.
MAX_GROUP_SIZE = 40
# Shares of the smaller set that two sets must have in common, and the least number of images or names.
SHARED_IMAGES, SHARED_NAMES, MIN_SHARED = 0.05, 0.5, 8
# Beginnings of the categories of sets whose names come from a standard.
STANDARD_CATEGORIES = ("Emoji", "Flags", "Logos", "Brands", "Social", "Programming")


class Icon(NamedTuple):
    """A sample of a set's shard: its key, the fields of its JSON, and its PNG."""

    key: str
    fields: dict
    png: bytes


class Shape(NamedTuple):
    """An image without its margins: a hash of 64 bits that equal drawings share, and its ink on a grid, [256] uint8."""

    bits: int
    ink: np.ndarray


def read_set(path: Path) -> Iterator[Icon]:
    """Yield the samples of a shard of icons.py."""
    with tarfile.open(path) as tar:
        members = iter(tar)
        for image, texts in zip(members, members, strict=True):
            png, fields = tar.extractfile(image), tar.extractfile(texts)
            if png is None or fields is None:
                raise ValueError(f"{path}: {image.name} and {texts.name} are not both files")
            yield Icon(image.name.removesuffix(".png"), json.load(fields), png.read())


def make_shape(png: bytes) -> Shape | None:
    """Return the shape of an image; None if it is blank."""
    ink = 255 - np.asarray(Image.open(io.BytesIO(png)).convert("L"))  # [H, W]
    is_drawn = ink > 24
    rows, columns = np.flatnonzero(is_drawn.any(axis=1)), np.flatnonzero(is_drawn.any(axis=0))
    if not rows.size:
        return None
    drawing = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]

    height, width = drawing.shape
    side = max(height, width)
    square = np.zeros((side, side), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = drawing
    grid = cv2.resize(square, (GRID, GRID), interpolation=cv2.INTER_AREA)
    # A bit for each 2 x 2 cells: whether they have more ink than the image on average.
    cells = grid.reshape(GRID // 2, 2, GRID // 2, 2).mean(axis=(1, 3)).reshape(-1)  # [64]
    return Shape(int.from_bytes(np.packbits(cells > cells.mean()).tobytes(), "big"), grid.reshape(-1))


class Drawings:
    """Shapes of all icons, in which equal drawings are found.

    Attributes:
        sets: name of the set of each icon.
        keys: key of each icon.
    """

    def __init__(self) -> None:
        self.sets: list[str] = []
        self.keys: list[str] = []
        self._bits: list[int] = []
        self._ink: list[np.ndarray] = []

    def add(self, name: str, key: str, shape: Shape) -> None:
        """Add an icon of the set `name`."""
        self.sets.append(name)
        self.keys.append(key)
        self._bits.append(shape.bits)
        self._ink.append(shape.ink)

    def group_by_hash(self) -> Iterator[list[int]]:
        """Yield the groups of two or more icons that have one hash, as rows of `sets` and `keys`."""
        bits = np.array(self._bits, np.uint64)
        order = np.argsort(bits, kind="stable")
        starts = np.flatnonzero(np.r_[True, bits[order][1:] != bits[order][:-1]])
        for group in np.split(order, starts[1:]):
            if len(group) > 1:
                yield group.tolist()

    def compare(self, left: Sequence[int], right: Sequence[int]) -> np.ndarray:
        """Return which icons of two lists of rows are one drawing, bool [left, right]."""
        left_ink = np.stack([self._ink[row] for row in left]).astype(np.float32)
        right_ink = np.stack([self._ink[row] for row in right]).astype(np.float32)
        return np.abs(left_ink[:, None] - right_ink[None]).mean(axis=2) <= MAX_INK_DIFFERENCE * 255


def count_shared_images(drawings: Drawings) -> dict[tuple[str, str], int]:
    """Count the drawings that two sets have in common, by pair of sets; plain shapes do not count."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for group in drawings.group_by_hash():
        if len(group) > MAX_GROUP_SIZE:
            continue
        is_same = drawings.compare(group, group)
        pairs_of_group = set()
        for left, right in combinations(range(len(group)), 2):
            first, second = sorted((drawings.sets[group[left]], drawings.sets[group[right]]))
            if is_same[left, right] and first != second:
                pairs_of_group.add((first, second))
        for pair in pairs_of_group:
            counts[pair] += 1
    return counts


def find_families(
    sets: Mapping[str, Mapping], names: Mapping[str, set[str]], num_shared: Mapping[tuple[str, str], int]
) -> tuple[list[list[str]], dict[str, list[tuple[str, str, str]]]]:
    """Find the sets that belong together.

    Args:
        sets: entries of sets.json.
        names: captions of several words of each set.
        num_shared: see `count_shared_images`.

    Returns:
        Families, the largest one first; and by rule the pairs that it joined, with the reason.
    """
    parents = {name: name for name in sets}
    joined_pairs: dict[str, list[tuple[str, str, str]]] = {"name": [], "pixels": []}

    def find_root(name: str) -> str:
        while parents[name] != name:
            name = parents[name]
        return name

    for left, right in combinations(sorted(sets), 2):
        reasons = {
            "name": _find_reason_in_names(left, right, sets, names),
            "pixels": _find_reason_in_pixels(left, right, sets, num_shared.get((left, right), 0)),
        }
        for rule, reason in reasons.items():
            if reason:
                joined_pairs[rule].append((left, right, reason))
                parents[find_root(left)] = find_root(right)
    families: dict[str, list[str]] = defaultdict(list)
    for name in sorted(sets):
        families[find_root(name)].append(name)
    return sorted(families.values(), key=len, reverse=True), joined_pairs


def _find_reason_in_names(left: str, right: str, sets: Mapping[str, Mapping], names: Mapping[str, set[str]]) -> str:
    """Return why authors or names join two sets; an empty text if they do not."""
    if sets[left]["author"].casefold() == sets[right]["author"].casefold():
        return f"author {sets[left]['author']}"
    prefix = left.split("-")[0]
    if prefix == right.split("-")[0]:
        return f"prefix {prefix}"
    for name in (left, right):
        if (sets[name]["category"] or "").startswith(STANDARD_CATEGORIES):
            return ""
    smaller = min(len(names[left]), len(names[right]))
    num_shared = len(names[left] & names[right])
    return f"{num_shared} of {smaller} names" if num_shared >= max(MIN_SHARED, SHARED_NAMES * smaller) else ""


def _find_reason_in_pixels(left: str, right: str, sets: Mapping[str, Mapping], num_shared: int) -> str:
    """Return why equal drawings join two sets; an empty text if they do not."""
    smaller = min(sets[left]["samples"], sets[right]["samples"])
    return f"{num_shared} of {smaller} images" if num_shared >= max(MIN_SHARED, SHARED_IMAGES * smaller) else ""
