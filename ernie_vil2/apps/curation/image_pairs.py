"""Cache of image pairs that may show the same, with their verdicts.

A run with other thresholds need not register the pairs again. A file holds every pair that is proposed (`guesses.py`),
and the verdict of registration where it is known. Its name depends on the images, the code and how pairs are proposed,
not on the likeness that a step asks for. Pairs of images that a step has removed are in it as well, and are registered
once nothing removes them. If images or code have changed, a new file takes over the verdicts of unchanged pairs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import cv2
import numpy as np

from ernie_vil2.apps.curation import details, guesses, likeness, local_features, neighbours, registration
from ernie_vil2.apps.curation.details import compare_details, decode_detail
from ernie_vil2.apps.curation.guesses import (
    MAX_TRIES,
    Comparison,
    Overlays,
    Searched,
    count_before,
    make_guesses,
    number_groups,
)
from ernie_vil2.apps.curation.neighbours import PAIRS_PER_BLOCK
from ernie_vil2.apps.curation.registration import FAILED, FINE_LEVEL, Verdict, View, compare, make_view, register
from ernie_vil2.apps.curation.thumbnails import Thumbnails
from ernie_vil2.io.files import atomic_write
from ernie_vil2.io.progress import progress_bar

CACHED_VIEWS = 4096  # 19 kB each
PAIRS_PER_REGISTRATION = 1024  # pairs whose thumbnails are in memory at once, some 50 MB
# Once a guess gives a verdict of at least this likeness that is not local, the other guesses are not tried: no other
# place fits better.
SURE = 0.97
UNKNOWN, OTHER, SAME = range(3)  # states of a pair: not registered yet, showing something else, showing the same
PAIR_DTYPE = np.dtype(
    [
        ("query", np.uint32),  # row of the first image's thumbnail
        ("row", np.uint32),  # row of the second image's thumbnail
        ("key", np.uint64),  # hash of both thumbnails, the guess and the code of the verdict
        ("transform", np.float32, (2, 3)),  # guess: map from query to row
        ("num_before", np.uint8),  # guesses of the same two images before this one, which are tried first
        ("state", np.uint8),  # UNKNOWN, OTHER or SAME
        # The verdict, `registration.Verdict`, if the state is SAME; `is_local` also if details differ in a spot.
        ("likeness", np.float32),
        ("is_local", bool),
        ("is_turned", bool),
        ("has_object", bool),
        ("worse", np.int8),  # 1: the query, -1: the row
    ]
)
"""A proposed pair with a guess, as it is stored in a file; two images may have several."""


class Alike(NamedTuple):
    """Pairs of thumbnails of images that show the same: rows, and how they are alike; `[P]` each.

    queries, rows: rows of the thumbnails.
    likeness, is_local, is_turned, has_object, worse: as of `registration.Verdict`; the query is the first image.
    """

    queries: np.ndarray
    rows: np.ndarray
    likeness: np.ndarray
    is_local: np.ndarray
    is_turned: np.ndarray
    has_object: np.ndarray
    worse: np.ndarray

    def choose(self, chosen: np.ndarray) -> Alike:
        """Return the chosen pairs; `chosen` is `[P]` bool."""
        return Alike(*(values[chosen] for values in self))


class _Side:
    """Images of one side of a comparison. Equal thumbnails are compared once, by the first of them.

    Attributes:
        images: thumbnails.
        digests: hash of each thumbnail, `[N]` uint64.
        rows: rows of the first of equal thumbnails, ascending.
        firsts: row of the first of the thumbnails that are equal to each, `[N]`.
        members: rows of the thumbnails that are alive, ordered by their `firsts`.
    """

    def __init__(self, images: Thumbnails, is_alive: np.ndarray | None):
        self.images = images
        self.digests = images.compute_digests()
        _, firsts, inverse = np.unique(self.digests, return_index=True, return_inverse=True)
        self.rows = np.sort(firsts)
        self.firsts = firsts[inverse]
        members = np.arange(len(images.samples)) if is_alive is None else np.flatnonzero(is_alive)
        self.members = members[np.argsort(self.firsts[members], kind="stable")]
        self._firsts_of_members = self.firsts[self.members]
        self.read_view = lru_cache(CACHED_VIEWS)(_view_reader(images))

    def find_members(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return, for each row, the start of its members in `members`, and their count."""
        starts = np.searchsorted(self._firsts_of_members, rows)
        ends = np.searchsorted(self._firsts_of_members, rows, side="right")
        return starts, ends - starts

    def describe(self) -> bytes:
        """Return a digest of all that proposals depend on."""
        digest = blake2b(self.digests.tobytes())
        digest.update(self.images.samples.tobytes())
        return digest.digest()


def _view_reader(images: Thumbnails) -> Callable[[int], View]:
    def read(row: int) -> View:
        return make_view(*likeness.split_thumbnail(images.thumbnails[row]))

    return read


def alike(
    images: Thumbnails,
    folder: Path,
    by: Comparison,
    queries: Thumbnails | None = None,
    turned: bool = True,
    is_alive: np.ndarray | None = None,
    name: str = "pairs",
) -> Iterator[Alike]:
    """Yield pairs of images that show the same, each once.

    Args:
        images: images.
        folder: folder for the pairs and what is needed to find them.
        by: thresholds of the comparison.
        queries: other images to compare with; None: the images themselves.
        turned: also find images that are mirrored or turned by quarters.
        is_alive: which images are wanted, `[N]` bool; None: all.
        name: beginning of the file's name, other than those of other comparisons in the folder.
    """
    if not len(images.samples) or (queries is not None and not len(queries.samples)):
        return
    right = _Side(images, is_alive)
    left = right if queries is None else _Side(queries, None)
    pairs = _open_pairs(left, right, folder, by, turned, name)
    _judge(pairs, left, right)
    for start in range(0, len(pairs), PAIRS_PER_BLOCK):
        block = pairs[start : start + PAIRS_PER_BLOCK]
        is_alike = (block["state"] == SAME) & (block["likeness"] >= by.likeness)
        if not turned:
            is_alike &= ~block["is_turned"]
        yield _expand(block[is_alike], left, right)


def _expand(pairs: np.ndarray, left: _Side, right: _Side) -> Alike:
    """Return the pairs of all living images that have the thumbnails of these pairs."""
    starts, counts = left.find_members(pairs["query"])
    other_starts, other_counts = right.find_members(pairs["row"])
    # A pair stands for all combinations of the members of its two thumbnails, numbered from 0.
    combination_counts = (counts * other_counts).astype(np.int64)
    chosen = np.repeat(np.arange(len(pairs)), combination_counts)
    first_combinations = np.cumsum(combination_counts) - combination_counts
    combinations = np.arange(len(chosen)) - np.repeat(first_combinations, combination_counts)
    queries = left.members[starts[chosen] + combinations // other_counts[chosen]]
    rows = right.members[other_starts[chosen] + combinations % other_counts[chosen]]
    columns = [pairs[column][chosen] for column in Alike._fields[2:]]
    expanded = Alike(queries, rows, *columns)
    if left is not right:
        return expanded
    samples = left.images.samples
    is_same_thumbnail = left.firsts[queries] == left.firsts[rows]
    # Of equal thumbnails, each pair comes in both orders.
    return expanded.choose((samples[queries] != samples[rows]) & (~is_same_thumbnail | (queries < rows)))


def _open_pairs(left: _Side, right: _Side, folder: Path, by: Comparison, turned: bool, name: str) -> np.ndarray:
    """Return all proposed pairs, `[P]` of `PAIR_DTYPE`, mapped from their file."""
    digest = blake2b(digest_size=12)
    for side in (left, right):
        digest.update(side.describe())
    digest.update(repr((by.candidates, by.crops, turned, PAIR_DTYPE, cv2.__version__)).encode())
    digest.update(_hash_code(details, guesses, likeness, local_features, neighbours, registration))
    path = folder / f"{name}-{digest.hexdigest()}.npy"
    earlier_paths = [other for other in sorted(folder.glob(f"{name}-*.npy")) if other != path]
    if not path.exists():
        _write_pairs(path, _propose(left, right, folder, by, turned), earlier_paths)
    for earlier in earlier_paths:
        earlier.unlink()
    return _map_pairs(path)


def _map_pairs(path: Path) -> np.ndarray:
    if path.stat().st_size < PAIR_DTYPE.itemsize:
        return np.empty(0, PAIR_DTYPE)
    return np.memmap(path, PAIR_DTYPE, "r+")


@cache
def _hash_code(*modules: ModuleType) -> bytes:
    """Return a digest of the code of modules: whatever changes there may change what they find."""
    digest = blake2b(digest_size=12)
    for module in modules:
        digest.update(inspect.getsource(module).encode())
    return digest.digest()


def _propose(left: _Side, right: _Side, folder: Path, by: Comparison, turned: bool) -> Iterator[np.ndarray]:
    """Yield the pairs that something proposes, ordered by query and row."""
    images = Searched(right.images, right.rows, folder)
    queries = images if left is right else Searched(left.images, left.rows, folder)
    guess_files = make_guesses(images, queries, by, turned)
    if left is right:
        # Equal thumbnails are the same image, unless they show nothing.
        rows = np.unique(left.firsts[left.firsts != np.arange(len(left.firsts))])
        identities = np.broadcast_to(np.eye(2, 3, dtype=np.float32), (len(rows), 2, 3))
        guess_files.write(rows, rows, identities, guesses.WHOLE_SUPPORT)

    code = np.frombuffer(_hash_code(details, registration)[:8], np.uint64)[0]
    for best in guess_files.read_best():
        pairs = np.zeros(len(best), PAIR_DTYPE)
        for column in ("query", "row", "transform"):
            pairs[column] = best[column]
        images_of_pair = left.images.samples[pairs["query"]], right.images.samples[pairs["row"]]
        pairs["num_before"] = count_before(number_groups(*images_of_pair))
        words = np.ascontiguousarray(pairs["transform"]).reshape(len(pairs), 6).view(np.uint32)
        columns = [left.digests[pairs["query"]], right.digests[pairs["row"]], *words.T]
        pairs["key"] = _mix(np.full(len(pairs), code), columns)
        yield pairs


def _mix(keys: np.ndarray, columns: list[np.ndarray]) -> np.ndarray:
    """Return numbers that follow from keys and columns, equal for equal rows and hardly for others, `[P]` uint64."""
    for column in columns:
        # Multiply by 2^64 over the golden ratio, whose bits are well mixed, and fold the upper bits down.
        keys = (keys ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def _write_pairs(path: Path, blocks: Iterator[np.ndarray], earlier_paths: list[Path]) -> None:
    """Write pairs, with the verdicts that are known from earlier files."""
    with atomic_write(path) as aside:
        with aside.open("wb") as file:
            for block in blocks:
                file.write(block.tobytes())
        pairs = _map_pairs(aside)
        for earlier_path in earlier_paths:
            earlier = _map_pairs(earlier_path)
            judged = np.flatnonzero(earlier["state"] != UNKNOWN)
            judged = judged[np.argsort(earlier["key"][judged])]
            judged_keys = earlier["key"][judged]
            for start in range(0, len(pairs) if len(judged) else 0, PAIRS_PER_BLOCK):
                block = pairs[start : start + PAIRS_PER_BLOCK]
                places = np.searchsorted(judged_keys, block["key"]).clip(max=len(judged) - 1)
                is_judged = judged_keys[places] == block["key"]
                for column in ("state", *Alike._fields[2:]):
                    block[column][is_judged] = earlier[column][judged[places[is_judged]]]


def _judge(pairs: np.ndarray, left: _Side, right: _Side) -> None:
    """Compare the pairs of living images whose verdict is not known, and write it into their file."""
    unknown = []
    for start in range(0, len(pairs), PAIRS_PER_BLOCK):
        block = pairs[start : start + PAIRS_PER_BLOCK]
        is_wanted = block["state"] == UNKNOWN
        for side, column in ((left, "query"), (right, "row")):
            _, counts = side.find_members(block[column])
            is_wanted &= counts > 0
        unknown.append(start + np.flatnonzero(is_wanted))
    numbers = np.concatenate(unknown or [np.empty(0, int)])
    nums_before = pairs["num_before"][numbers]
    with progress_bar(None, "comparing images", unit="pair", total=len(numbers)) as bar:
        for num_before in range(MAX_TRIES):
            numbers_of_try = numbers[nums_before == num_before]
            for start in range(0, len(numbers_of_try), PAIRS_PER_REGISTRATION):
                block = numbers_of_try[start : start + PAIRS_PER_REGISTRATION]
                bar.update(len(block))
                is_sure = np.zeros(len(block), bool)
                for distance in range(1, num_before + 1):
                    before = pairs[block - distance]
                    is_sure |= (before["state"] == SAME) & ~before["is_local"] & (before["likeness"] >= SURE)
                _judge_block(pairs, block[~is_sure], left, right)


def _judge_block(pairs: np.ndarray, numbers: np.ndarray, left: _Side, right: _Side) -> None:
    """Compare some pairs, and write their verdicts."""
    block = pairs[numbers]
    overlays = Overlays(block["query"], block["row"], block["transform"], left.images, right.images)
    templates, images = overlays.order(left.images.luminances, right.images.luminances)
    for luminance in (*templates, *images):  # blurred, because noise shortens the steps of registration
        cv2.GaussianBlur(luminance, (5, 5), 0, dst=luminance)
    transforms, ranks = register(templates, images, overlays.transforms, FINE_LEVEL)
    restored = overlays.restore(transforms)
    for index, number in enumerate(numbers.tolist()):
        verdict = None
        if ranks[index] > FAILED:
            query, row = left.read_view(int(block["query"][index])), right.read_view(int(block["row"][index]))
            template, image = (row, query) if overlays.is_swapped[index] else (query, row)
            verdict = compare(template, image, transforms[index], overlays.aspects[index])
        if verdict is not None:
            verdict = _judge_details(verdict, block[index], restored[index], left, right)
            for column in Alike._fields[2:]:
                pairs[column][number] = getattr(verdict, column)
        # The state comes last: a pair of a killed run is either known or not.
        pairs["state"][number] = OTHER if verdict is None else SAME


def _judge_details(verdict: Verdict, pair: np.void, transform: np.ndarray, left: _Side, right: _Side) -> Verdict:
    """Return the verdict after the details of both images are compared."""
    query, row = int(pair["query"]), int(pair["row"])
    first_picture = decode_detail(left.images.read_detail(query), left.images.boxes[query])
    second_picture = decode_detail(right.images.read_detail(row), right.images.boxes[row])
    difference = compare_details(first_picture, second_picture, transform)
    is_local = verdict.is_local or difference.has_spot
    return verdict._replace(is_local=is_local, has_object=difference.has_object, worse=difference.worse)
