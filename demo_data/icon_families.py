"""Which icon sets are of one family: a team's outline and filled versions, forks, copies. For icon_study.py.

Two sets are joined by **name** where they have one author or begin with the same word (`mdi` and `mdi-light`), or
where the smaller one has most of its names of several words from the other; names that a standard gives (emoji, flags,
brands) say nothing. They are joined by **pixels** where a twentieth of the smaller set is drawn alike in the other.
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

GRID = 16
ALIKE = 0.04
"""Mean difference of two images on the grid, of ink from 0 to 1, up to which they are one drawing."""
PLAIN = 40
"""So many images of one hash are a disc, a square or a flag of three bars, which everybody draws."""
SHARED_IMAGES, SHARED_NAMES, LEAST = 0.05, 0.5, 8
STANDARD = ("Emoji", "Flags", "Logos", "Brands", "Social", "Programming")


class Icon(NamedTuple):
    """A sample of a set's shard; `drawn` is what `shape` made of its image."""

    key: str
    fields: dict
    png: bytes


class Shape(NamedTuple):
    """An image without its margins: 64 bits that equal drawings share, and its ink on a grid, `[256]` uint8."""

    bits: int
    ink: np.ndarray


def read_set(path: Path) -> Iterator[Icon]:
    """The samples of a shard of icons.py."""
    with tarfile.open(path) as tar:
        members = iter(tar)
        for image, texts in zip(members, members, strict=True):
            png, fields = tar.extractfile(image), tar.extractfile(texts)
            if png is None or fields is None:
                raise ValueError(f"{path}: {image.name} and {texts.name} are not both files")
            yield Icon(image.name.removesuffix(".png"), json.load(fields), png.read())


def shape(png: bytes) -> Shape | None:
    """The shape of an image; None if it is blank."""
    ink = 255 - np.asarray(Image.open(io.BytesIO(png)).convert("L"))  # [H, W]
    rows, columns = (np.flatnonzero((ink > 24).any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    drawn = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = drawn.shape
    side = max(height, width)
    square = np.zeros((side, side), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = drawn
    grid = cv2.resize(square, (GRID, GRID), interpolation=cv2.INTER_AREA)
    cells = grid.reshape(GRID // 2, 2, GRID // 2, 2).mean(axis=(1, 3)).reshape(-1)  # [64]
    return Shape(int.from_bytes(np.packbits(cells > cells.mean()).tobytes(), "big"), grid.reshape(-1))


class Drawings:
    """The shapes of all icons, to find those that are drawn alike."""

    def __init__(self) -> None:
        self.sets: list[str] = []
        self.keys: list[str] = []
        self._bits: list[int] = []
        self._ink: list[np.ndarray] = []

    def add(self, name: str, key: str, found: Shape) -> None:
        """Takes an icon of a set."""
        self.sets.append(name)
        self.keys.append(key)
        self._bits.append(found.bits)
        self._ink.append(found.ink)

    def alike(self) -> Iterator[list[int]]:
        """Groups of icons that have one hash; rows of `sets` and `keys`."""
        bits = np.array(self._bits, np.uint64)
        order = np.argsort(bits, kind="stable")
        starts = np.flatnonzero(np.r_[True, bits[order][1:] != bits[order][:-1]])
        for group in np.split(order, starts[1:]):
            if len(group) > 1:
                yield group.tolist()

    def same(self, left: Sequence[int], right: Sequence[int]) -> np.ndarray:
        """Which of two lists of icons are one drawing, bool `[left, right]`."""
        first, second = (np.stack([self._ink[row] for row in rows]).astype(np.float32) for rows in (left, right))
        return np.abs(first[:, None] - second[None]).mean(axis=2) <= ALIKE * 255


def shared_images(drawings: Drawings) -> dict[tuple[str, str], int]:
    """For pairs of sets the number of drawings that both have; plain shapes do not count."""
    pairs: dict[tuple[str, str], int] = defaultdict(int)
    for group in drawings.alike():
        if len(group) > PLAIN:
            continue
        same = drawings.same(group, group)
        pairs_of_group = set()
        for a, b in combinations(range(len(group)), 2):
            first, second = sorted((drawings.sets[group[a]], drawings.sets[group[b]]))
            if same[a, b] and first != second:
                pairs_of_group.add((first, second))
        for pair in pairs_of_group:
            pairs[pair] += 1
    return pairs


def families(
    sets: Mapping[str, Mapping], names: Mapping[str, set[str]], images: Mapping[tuple[str, str], int]
) -> tuple[list[list[str]], dict[str, list[tuple[str, str, str]]]]:
    """Sets that belong together, largest family first, and by rule the pairs that it joined, with the reason.

    Args:
        sets: what sets.json says of each.
        names: of each the captions of several words.
        images: see `shared_images`.
    """
    parent = {name: name for name in sets}
    joined: dict[str, list[tuple[str, str, str]]] = {"name": [], "pixels": []}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for left, right in combinations(sorted(sets), 2):
        reasons = {
            "name": _by_name(left, right, sets, names),
            "pixels": _by_pixels(left, right, sets, images.get((left, right), 0)),
        }
        for rule, why in reasons.items():
            if why:
                joined[rule].append((left, right, why))
                parent[root(left)] = root(right)
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(sets):
        groups[root(name)].append(name)
    return sorted(groups.values(), key=len, reverse=True), joined


def _by_name(left: str, right: str, sets: Mapping[str, Mapping], names: Mapping[str, set[str]]) -> str:
    if sets[left]["author"].casefold() == sets[right]["author"].casefold():
        return f"author {sets[left]['author']}"
    if left.split("-")[0] == right.split("-")[0]:
        return f"prefix {left.split('-')[0]}"
    if any((sets[name]["category"] or "").startswith(STANDARD) for name in (left, right)):
        return ""
    smaller = min(len(names[left]), len(names[right]))
    shared = len(names[left] & names[right])
    return f"{shared} of {smaller} names" if shared >= max(LEAST, SHARED_NAMES * smaller) else ""


def _by_pixels(left: str, right: str, sets: Mapping[str, Mapping], shared: int) -> str:
    smaller = min(sets[left]["samples"], sets[right]["samples"])
    return f"{shared} of {smaller} images" if shared >= max(LEAST, SHARED_IMAGES * smaller) else ""
