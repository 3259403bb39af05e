"""Cache of image pairs that may show the same, with their verdicts.

A file holds every pair that is proposed (`guesses.py`), and its verdict where it is known, so that a run with other
thresholds registers no pair again. The file's name depends on the images, the code and how pairs are proposed, but not
on the likeness that a step asks for. Pairs of images that a step has removed are in it as well, without a verdict; they
are registered in the first run in which no step removes them. If images or code have changed, a new file takes over the
verdicts of unchanged pairs.
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

from ernie_vil2.apps.curation import (
    details,
    guesses,
    hues,
    likeness,
    local_features,
    neighbours,
    registration,
    relighting,
)
from ernie_vil2.apps.curation.details import (
    Picture,
    compare_beside_sticker,
    compare_details,
    complete_verdict,
    decode_detail,
)
from ernie_vil2.apps.curation.guesses import (
    MAX_TRIES,
    Comparison,
    Overlays,
    ThumbnailIndex,
    count_before,
    make_guesses,
    map_boxes,
    number_groups,
)
from ernie_vil2.apps.curation.neighbours import PAIRS_PER_BLOCK
from ernie_vil2.apps.curation.registration import (
    FAILED,
    FINE_LEVEL,
    Verdict,
    View,
    compare,
    is_plausible,
    make_view,
    register,
)
from ernie_vil2.apps.curation.thumbnails import Thumbnails
from ernie_vil2.io.files import atomic_write
from ernie_vil2.io.progress import progress_bar

CACHED_VIEWS = 4096  # 19 kB each
CACHED_PICTURES = 128  # 300 kB each; a pair has often the same query as the pair before it
PAIRS_PER_REGISTRATION = 1024  # pairs whose thumbnails are in memory at once, some 50 MB
# Likeness from which a verdict that is not local ends the search: hardly any other guess of the pair fits better.
SURE_LIKENESS = 0.97
# Share of the allowed difference that a turned image may have, because eight orientations are eight chances to resemble
# another image. Of 64 turned copies in five crawls none falls below likeness 0.98; of 33 other turned pairs 5 do.
TURNED_SHARE = 0.4
# States of a pair: not registered (yet, or because a better guess was sure), showing something else, showing the same.
UNKNOWN, OTHER, SAME = range(3)
PAIR_DTYPE = np.dtype(
    [
        ("query", np.uint32),  # row of the first image's thumbnail
        ("row", np.uint32),  # row of the second image's thumbnail
        ("key", np.uint64),  # hash of both thumbnails, the guess and the code of the verdict
        ("transform", np.float32, (2, 3)),  # guess: map from query to row
        ("num_before", np.uint8),  # guesses of the same two images in the rows before, which are tried first
        ("is_suspect", bool),  # compared as whole images, without registration
        ("state", np.uint8),  # UNKNOWN, OTHER or SAME
        # The verdict, `registration.Verdict`, if the state is SAME; `is_local` also if details differ in a spot.
        ("likeness", np.float32),
        ("is_local", bool),
        ("is_turned", bool),
        ("has_object", bool),
        ("has_other_look", bool),
        ("has_trace", bool),
        ("worse", np.int8),  # 1: the query, -1: the row, 0: neither
    ]
)
"""A proposed pair of thumbnails with a guess, as it is stored in a file; two images may have several."""


class Matches(NamedTuple):
    """Pairs of thumbnails whose images show the same, and their verdicts; `[P]` each.

    queries, rows: rows of the thumbnails.
    likeness, is_local, is_turned, has_object, has_other_look, has_trace, worse: see `registration.Verdict`; the query
        is the first image.
    """

    queries: np.ndarray
    rows: np.ndarray
    likeness: np.ndarray
    is_local: np.ndarray
    is_turned: np.ndarray
    has_object: np.ndarray
    has_other_look: np.ndarray
    has_trace: np.ndarray
    worse: np.ndarray

    def select(self, mask: np.ndarray) -> Matches:
        """Return the pairs where the mask, `[P]` bool, is true."""
        return Matches(*(column[mask] for column in self))


_VERDICT_COLUMNS = Matches._fields[2:]


class _Side:
    """Images of one side of a comparison. Of equal thumbnails only the first one is compared, for all of them.

    Attributes:
        images: thumbnails.
        digests: hash of each thumbnail, `[N]` uint64.
        rows: rows of the thumbnails that are compared: the first ones of equal thumbnails, ascending.
        firsts: for each thumbnail, the row of the first one that is equal to it, `[N]`.
        members: rows of the thumbnails whose images no step has removed, ordered by their `firsts`; of a unique
            side, only the first one of equal thumbnails.
    """

    def __init__(self, images: Thumbnails, is_alive: np.ndarray | None, is_unique: bool = False):
        self.images = images
        self.digests = images.compute_digests()
        _, firsts, inverse = np.unique(self.digests, return_index=True, return_inverse=True)
        self.rows = np.sort(firsts)
        self.firsts = firsts[inverse]
        members = self.rows if is_unique else np.arange(len(images.samples))
        if is_alive is not None:
            members = members[is_alive[members]]
        self.members = members[np.argsort(self.firsts[members], kind="stable")]
        self._firsts_of_members = self.firsts[self.members]
        self.read_view = lru_cache(CACHED_VIEWS)(_make_view_reader(images))
        self.read_picture = lru_cache(CACHED_PICTURES)(_make_picture_reader(images))

    def find_member_ranges(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return, for each compared row, where the thumbnails equal to it begin in `members`, and their number."""
        starts = np.searchsorted(self._firsts_of_members, rows)
        ends = np.searchsorted(self._firsts_of_members, rows, side="right")
        return starts, ends - starts

    def find_first_rows(self, samples: np.ndarray) -> np.ndarray:
        """Return the row that is compared for the first thumbnail of each sample, `[S]`."""
        return self.firsts[np.searchsorted(self.images.samples, samples)]

    def compute_digest(self) -> bytes:
        """Return a digest of this side's thumbnails and their samples."""
        digest = blake2b(self.digests.tobytes())
        digest.update(self.images.samples.tobytes())
        return digest.digest()


def _make_view_reader(images: Thumbnails) -> Callable[[int], View]:
    # No method: a cached one would keep its side alive.
    def read(row: int) -> View:
        return make_view(*likeness.split_thumbnail(images.thumbnails[row]))

    return read


def _make_picture_reader(images: Thumbnails) -> Callable[[int], Picture]:
    def read(row: int) -> Picture:
        return decode_detail(images.read_detail(row), images.boxes[row])

    return read


def find_matches(
    images: Thumbnails,
    folder: Path,
    comparison: Comparison,
    queries: Thumbnails | None = None,
    with_turns: bool = True,
    is_alive: np.ndarray | None = None,
    suspects: np.ndarray | None = None,
    name: str = "pairs",
    unique_queries: bool = False,
) -> Iterator[Matches]:
    """Yield the pairs of images that show the same, in blocks, each pair of thumbnails once for each guess that fits.

    Args:
        images: thumbnails of the images.
        folder: folder for the file of the pairs, and for temporary files.
        comparison: thresholds of the comparison.
        queries: thumbnails of other images to compare with; None: the images themselves.
        with_turns: also find images that are mirrored or turned by quarters.
        is_alive: which thumbnails are compared, `[N]` bool; None: all.
        suspects: pairs of samples, of a query and an image, that are compared even if their thumbnails are not alike,
            for example because they have the same captions, `[S, 2]` int64; they also match if they differ in nothing
            but a sticker. Ignored unless `comparison.crops`.
        name: beginning of the file's name, which no other comparison in the folder has.
        unique_queries: of queries with equal thumbnails only the first one has pairs.
    """
    if not len(images.samples) or (queries is not None and not len(queries.samples)):
        return
    right = _Side(images, is_alive)
    left = right if queries is None else _Side(queries, None, unique_queries)
    if suspects is None:
        suspects = np.empty((0, 2), np.int64)
    pairs = _open_pairs(left, right, folder, comparison, with_turns, suspects, name)
    _judge(pairs, left, right)
    for start in range(0, len(pairs), PAIRS_PER_BLOCK):
        block = pairs[start : start + PAIRS_PER_BLOCK]
        max_differences = (1 - comparison.likeness) * np.where(block["is_turned"], TURNED_SHARE, 1.0)
        is_match = (block["state"] == SAME) & (1 - block["likeness"] <= max_differences)
        if not with_turns:
            is_match &= ~block["is_turned"]
        yield _expand(block[is_match], left, right)


def _expand(pairs: np.ndarray, left: _Side, right: _Side) -> Matches:
    """Return the matches of all images that have the thumbnails of these pairs, and that no step has removed."""
    left_starts, left_counts = left.find_member_ranges(pairs["query"])
    right_starts, right_counts = right.find_member_ranges(pairs["row"])
    # A pair stands for all combinations of the members of its two thumbnails, which are numbered from 0.
    num_combinations = (left_counts * right_counts).astype(np.int64)
    pair_numbers = np.repeat(np.arange(len(pairs)), num_combinations)
    num_before = np.cumsum(num_combinations) - num_combinations
    combinations = np.arange(len(pair_numbers)) - np.repeat(num_before, num_combinations)
    queries = left.members[left_starts[pair_numbers] + combinations // right_counts[pair_numbers]]
    rows = right.members[right_starts[pair_numbers] + combinations % right_counts[pair_numbers]]
    verdict_columns = [pairs[column][pair_numbers] for column in _VERDICT_COLUMNS]
    matches = Matches(queries, rows, *verdict_columns)
    if left is not right:
        return matches

    samples = left.images.samples
    is_same_image = samples[queries] == samples[rows]
    # The combinations of equal thumbnails have each pair in both orders.
    is_repeated = (left.firsts[queries] == left.firsts[rows]) & (queries >= rows)
    return matches.select(~is_same_image & ~is_repeated)


def _open_pairs(
    left: _Side,
    right: _Side,
    folder: Path,
    comparison: Comparison,
    with_turns: bool,
    suspects: np.ndarray,
    name: str,
) -> np.ndarray:
    """Return all proposed pairs, `[P]` of `PAIR_DTYPE`, mapped from their file, which is written if it is missing."""
    digest = blake2b(digest_size=12)
    for side in (left, right):
        digest.update(side.compute_digest())
    digest.update(suspects.tobytes())
    settings = (comparison.candidates, comparison.crops, with_turns, PAIR_DTYPE, cv2.__version__)
    digest.update(repr(settings).encode())
    digest.update(_hash_code(details, guesses, hues, likeness, local_features, neighbours, registration, relighting))
    path = folder / f"{name}-{digest.hexdigest()}.npy"
    earlier_paths = sorted(set(folder.glob(f"{name}-*.npy")) - {path})
    if not path.exists():
        _write_pairs(path, _propose(left, right, folder, comparison, with_turns, suspects), earlier_paths)
    for earlier_path in earlier_paths:
        earlier_path.unlink()
    return _map_pairs(path)


def _map_pairs(path: Path) -> np.ndarray:
    if path.stat().st_size < PAIR_DTYPE.itemsize:  # an empty file cannot be mapped
        return np.empty(0, PAIR_DTYPE)
    # An array, because reading one item of a memmap takes nine times as long.
    return np.asarray(np.memmap(path, PAIR_DTYPE, "r+"))


@cache
def _hash_code(*modules: ModuleType) -> bytes:
    """Return a digest of the code of modules, because any change of it may change pairs and verdicts."""
    digest = blake2b(digest_size=12)
    for module in modules:
        digest.update(inspect.getsource(module).encode())
    return digest.digest()


def _propose(
    left: _Side, right: _Side, folder: Path, comparison: Comparison, with_turns: bool, suspects: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield blocks of the proposed pairs, `[P]` of `PAIR_DTYPE`; the guesses of two images are successive rows."""
    images = ThumbnailIndex(right.images, right.rows, folder)
    queries = images if left is right else ThumbnailIndex(left.images, left.rows, folder)
    guess_files = make_guesses(images, queries, comparison, with_turns)
    if comparison.crops:
        # A thumbnail ends at an even border, and a sticker on that border moves its edge. The guess therefore lays the
        # whole images on each other, and the extents may differ by any factor.
        query_rows, rows = left.find_first_rows(suspects[:, 0]), right.find_first_rows(suspects[:, 1])
        transforms = map_boxes(left.images.boxes[query_rows], right.images.boxes[rows])
        guess_files.add(query_rows, rows, transforms, guesses.WHOLE_SUPPORT, max_log_extent_ratio=np.inf)
    if left is right:
        # One row stands for all equal thumbnails, so its match with itself stands for theirs. Only an image that shows
        # nothing does not match itself.
        shared_rows = np.unique(left.firsts[left.firsts != np.arange(len(left.firsts))])
        identities = np.broadcast_to(np.eye(2, 3, dtype=np.float32), (len(shared_rows), 2, 3))
        guess_files.write(shared_rows, shared_rows, identities, guesses.WHOLE_SUPPORT)

    for refined_guesses in guess_files.refine():
        pairs = np.zeros(len(refined_guesses), PAIR_DTYPE)
        for column in ("query", "row", "transform"):
            pairs[column] = refined_guesses[column]
        query_samples, row_samples = left.images.samples[pairs["query"]], right.images.samples[pairs["row"]]
        pairs["num_before"] = count_before(number_groups(query_samples, row_samples))
        yield _with_keys(pairs, left, right)
    if comparison.crops:
        suspect_rows = np.unique(np.stack([query_rows, rows], axis=1), axis=0)  # equal images share a row
        if left is right:
            suspect_rows = suspect_rows[suspect_rows[:, 0] != suspect_rows[:, 1]]
        pairs = np.zeros(len(suspect_rows), PAIR_DTYPE)
        pairs["query"], pairs["row"] = suspect_rows.T
        pairs["is_suspect"] = True
        yield _with_keys(pairs, left, right)


def _with_keys(pairs: np.ndarray, left: _Side, right: _Side) -> np.ndarray:
    """Return pairs, `[P]` of `PAIR_DTYPE`, with their keys."""
    code = np.frombuffer(_hash_code(details, registration, relighting)[:8], np.uint64)[0]
    numbers_of_transform = np.ascontiguousarray(pairs["transform"]).reshape(len(pairs), 6).view(np.uint32)
    columns = [left.digests[pairs["query"]], right.digests[pairs["row"]], pairs["is_suspect"], *numbers_of_transform.T]
    pairs["key"] = _hash_rows(np.full(len(pairs), code), columns)
    return pairs


def _hash_rows(keys: np.ndarray, columns: list[np.ndarray]) -> np.ndarray:
    """Return a hash of each row of the columns, begun from `keys`, `[P]` uint64."""
    for column in columns:
        # Multiply by 2^64 over the golden ratio, whose bits are well mixed, and fold the upper bits down.
        keys = (keys ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def _write_pairs(path: Path, blocks: Iterator[np.ndarray], earlier_paths: list[Path]) -> None:
    """Write pairs into a new file, with the verdicts that earlier files have of pairs of the same key."""
    with atomic_write(path) as aside:
        with aside.open("wb") as file:
            for block in blocks:
                file.write(block.tobytes())
        pairs = _map_pairs(aside)
        for earlier_path in earlier_paths:
            earlier = _map_pairs(earlier_path)
            judged = np.flatnonzero(earlier["state"] != UNKNOWN)
            if not len(judged):
                continue
            judged = judged[np.argsort(earlier["key"][judged])]
            judged_keys = earlier["key"][judged]
            for start in range(0, len(pairs), PAIRS_PER_BLOCK):
                block = pairs[start : start + PAIRS_PER_BLOCK]
                places = np.searchsorted(judged_keys, block["key"]).clip(max=len(judged) - 1)
                is_judged = judged_keys[places] == block["key"]
                sources = judged[places[is_judged]]
                for column in ("state", *_VERDICT_COLUMNS):
                    block[column][is_judged] = earlier[column][sources]


def _judge(pairs: np.ndarray, left: _Side, right: _Side) -> None:
    """Compare the pairs without a verdict whose images no step has removed, and write the verdicts into their file."""
    numbers_by_block = [np.empty(0, int)]
    for start in range(0, len(pairs), PAIRS_PER_BLOCK):
        block = pairs[start : start + PAIRS_PER_BLOCK]
        is_due = block["state"] == UNKNOWN
        for side, column in ((left, "query"), (right, "row")):
            _, num_members = side.find_member_ranges(block[column])
            is_due &= num_members > 0
        numbers_by_block.append(start + np.flatnonzero(is_due))
    numbers = np.concatenate(numbers_by_block)
    tries = pairs["num_before"][numbers]
    with progress_bar(None, "comparing images", unit="pair", total=len(numbers)) as bar:
        # The best guess of every two images comes first, then the second one of those without a sure verdict, ...
        for num_before in range(MAX_TRIES):
            numbers_of_try = numbers[tries == num_before]
            for start in range(0, len(numbers_of_try), PAIRS_PER_REGISTRATION):
                block = numbers_of_try[start : start + PAIRS_PER_REGISTRATION]
                bar.update(len(block))
                is_settled = np.zeros(len(block), bool)
                for distance in range(1, num_before + 1):
                    earlier_tries = pairs[block - distance]
                    is_whole = (earlier_tries["state"] == SAME) & ~earlier_tries["is_local"]
                    is_settled |= is_whole & (earlier_tries["likeness"] >= SURE_LIKENESS)
                _judge_block(pairs, block[~is_settled], left, right)


def _judge_block(pairs: np.ndarray, numbers: np.ndarray, left: _Side, right: _Side) -> None:
    """Compare the pairs of these numbers, `[B]`, and write their verdicts."""
    is_suspect = pairs["is_suspect"][numbers]
    for number in numbers[is_suspect].tolist():
        first, second = left.read_picture(int(pairs["query"][number])), right.read_picture(int(pairs["row"][number]))
        _write_verdict(pairs, number, compare_beside_sticker(first, second))
    numbers = numbers[~is_suspect]
    block = pairs[numbers]
    overlays = Overlays(block["query"], block["row"], block["transform"], left.images, right.images)
    templates, images = overlays.pick_pixels(left.images.luminances, right.images.luminances)
    for luminance in (*templates, *images):  # blurred, because noise shortens the steps of registration
        cv2.GaussianBlur(luminance, (5, 5), 0, dst=luminance)
    transforms, scores = register(templates, images, overlays.transforms, FINE_LEVEL)
    is_possible = (scores > FAILED) & is_plausible(transforms, overlays.aspects)
    query_transforms = overlays.invert_swapped(transforms)  # maps from queries to rows
    for index, number in enumerate(numbers.tolist()):
        verdict = None
        if is_possible[index]:
            query_view = left.read_view(int(block["query"][index]))
            row_view = right.read_view(int(block["row"][index]))
            template, image = (row_view, query_view) if overlays.is_swapped[index] else (query_view, row_view)
            verdict = compare(template, image, transforms[index], overlays.aspects[index])
        if verdict is not None:
            verdict = _judge_details(verdict, block[index], query_transforms[index], left, right)
        _write_verdict(pairs, number, verdict)


def _write_verdict(pairs: np.ndarray, number: int, verdict: Verdict | None) -> None:
    if verdict is not None:
        for column in _VERDICT_COLUMNS:
            pairs[column][number] = getattr(verdict, column)
    # The state comes last, so that a run that is killed here leaves the pair unknown.
    pairs["state"][number] = OTHER if verdict is None else SAME


def _judge_details(verdict: Verdict, pair: np.void, transform: np.ndarray, left: _Side, right: _Side) -> Verdict | None:
    """Return the verdict on a pair, completed by what a comparison of details says, or None if it shows another image.

    Args:
        verdict: what the thumbnails say.
        pair: record of `PAIR_DTYPE`.
        transform: registered map from the query's samples to those of the row, `[2, 3]`.
        left: side of the query.
        right: side of the row.
    """
    first_picture, second_picture = left.read_picture(int(pair["query"])), right.read_picture(int(pair["row"]))
    difference = compare_details(first_picture, second_picture, transform, must_be_relit=verdict.has_other_colours)
    return complete_verdict(verdict, difference)
