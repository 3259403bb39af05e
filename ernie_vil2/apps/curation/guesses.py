"""Guesses of how images lie in each other, from which registration starts.

Three things propose a pair: whole images whose vectors are near, in any of eight orientations; the same without a bar
or a frame of one of them; and local features that two images share. A guess is checked at 16 x 16 samples. Those that
pass are written to files, so that their number is not bounded by memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import Field

from ernie_vil2.apps.curation import likeness
from ernie_vil2.apps.curation.local_features import (
    COMPONENTS,
    LEARN_FROM,
    Projection,
    guess_transforms,
    learn_projection,
    mirror_keypoints,
    normalise_descriptors,
)
from ernie_vil2.apps.curation.neighbours import BLOCK, allocate, neighbours
from ernie_vil2.apps.curation.registration import (
    MAX_CHECKS,
    MIN_QUICK,
    MIN_REFINED,
    MIN_TRIMMED_QUICK,
    MIN_TRIMMED_REFINED,
    QUICK_SIDE,
    QUICK_SLACK,
    SIDE,
    check_guesses,
    invert_transforms,
    is_plausible,
    make_quick,
    refine_guesses,
)
from ernie_vil2.apps.curation.thumbnails import Thumbnails
from ernie_vil2.section import Fraction, Section

MIN_FEATURE_COSINE = 0.7  # of projected descriptors; 0.6 proposes four times as many pairs and no more copies
# Nearest ones of a cell that a vector, or a feature, is compared with. Where more are as near, as of a corner on a
# white ground, it says nothing.
MOST_NEAREST = 8
MIN_WHOLE_CORRELATION = 0.85  # of 16 x 16 samples of whole images; a guess of a feature is less exact
MAX_GUESSES = 4  # of a pair and batch that are checked
MAX_TRIES = 2  # guesses of a pair that are registered
MIN_DISTANCE = 3.0  # samples between the corners of these: registration goes from nearer ones to the same place
EXTENT = 0.6  # by which the logarithms of two extents may differ: a small square is not a large one
ROWS_OF_A_FILE = 2**17  # queries whose guesses are sorted at once: some 100 MB

GUESS = np.dtype(
    [("query", np.uint32), ("row", np.uint32), ("correlation", np.float32), ("transform", np.float32, (2, 3))]
)
"""Rows of a query and of an image, and the map from the query's samples to those of the image."""


class Comparison(Section):
    """When two images show the same."""

    candidates: Fraction = Field(0.85, description="least cosine of the vectors of two whole images that are compared")
    likeness: Fraction = Field(
        0.95, description="least correlation of two images that show the same, once light and colour are fitted"
    )
    crops: bool = Field(
        True, description="also compare images with crops of each other, to 60 % of a side, and with bars or stickers"
    )


class Searched:
    """Rows of thumbnails that are compared with others, and what they are searched by.

    Args:
        images: thumbnails.
        rows: rows of those that are compared, in ascending order.
        folder: folder for what does not fit into memory.
    """

    def __init__(self, images: Thumbnails, rows: np.ndarray, folder: Path):
        self.images = images
        self.rows = rows
        self.folder = folder
        self.quick = allocate(folder, np.float16, (len(images.samples), QUICK_SIDE, QUICK_SIDE))
        for row in rows.tolist():
            self.quick[row] = make_quick(images.luminances[row])
        # A feature is known by the row of its thumbnail, and its number there.
        num_features = int(images.num_features[rows].sum(dtype=np.int64))
        self.owners = allocate(folder, np.uint32, (num_features,))
        self.numbers = allocate(folder, np.uint8, (num_features,))
        first = 0
        for start in range(0, len(rows), BLOCK):
            owners, numbers = _list_features(images, rows[start : start + BLOCK])
            features = slice(first, first + len(owners))
            self.owners[features], self.numbers[features] = owners, numbers
            first = features.stop

    def make_vectors(self, window: likeness.Window | None = None) -> np.ndarray:
        """Return the vectors of the rows, or of a window of each."""
        vectors = allocate(self.folder, np.float16, (len(self.rows), likeness.WIDTH))  # exact enough for candidates
        for start in range(0, len(vectors), BLOCK):
            luminances = self.images.luminances[self.rows[start : start + BLOCK]]
            if window is not None:
                luminances = luminances[:, window.top : window.bottom, window.left : window.right]
            vectors[start : start + BLOCK] = likeness.make_vectors(luminances)
        return vectors

    def read_descriptors(self, features: np.ndarray | slice) -> np.ndarray:
        """Return the descriptors of some features, `[F, 128]` uint8."""
        return self.images.features["descriptor"][self.owners[features], self.numbers[features]]

    def read_keypoints(self, features: np.ndarray) -> np.ndarray:
        """Return the keypoints of some features, `[F, 4]` float32."""
        return self.images.features["keypoint"][self.owners[features], self.numbers[features]]

    def project(self, projection: Projection, is_mirrored: bool) -> np.ndarray:
        """Return the projected descriptors of all features, or of the mirrored images, `[F, COMPONENTS]` float16."""
        projected = allocate(self.folder, np.float16, (len(self.owners), COMPONENTS))
        for start in range(0, len(projected), BLOCK):
            descriptors = self.read_descriptors(slice(start, start + BLOCK))
            projected[start : start + BLOCK] = projection.apply(normalise_descriptors(descriptors, is_mirrored))
        return projected


def _list_features(images: Thumbnails, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each feature of these rows its row, and its number there."""
    counts = images.num_features[rows].astype(np.int64)
    owners = rows.repeat(counts)
    firsts = (np.cumsum(counts) - counts).repeat(counts)
    return owners, np.arange(len(owners)) - firsts


class GuessFiles:
    """The guesses that pass a check, in files without names.

    Args:
        images: images.
        queries: what they are compared with; the same object if it is the images themselves.
    """

    def __init__(self, images: Searched, queries: Searched):
        self.images, self.queries = images, queries
        self.is_own = queries is images
        num_files = -(-len(queries.images.samples) // ROWS_OF_A_FILE)
        self._files = [tempfile.TemporaryFile(dir=images.folder) for _ in range(num_files)]  # noqa: SIM115  -- closed with this object

    def add(self, queries: np.ndarray, rows: np.ndarray, transforms: np.ndarray, least: float) -> None:
        """Add guesses between different images.

        Args:
            queries: rows of the queries' thumbnails, `[P]`.
            rows: rows of the images' thumbnails, `[P]`.
            transforms: maps from the queries' samples to those of the images, `[P, 2, 3]`.
            least: correlation that a guess must have.
        """
        extents = self.queries.images.extents[queries] / self.images.images.extents[rows]
        is_wanted = np.abs(np.log(extents)) <= EXTENT
        if self.is_own:
            is_wanted &= self.images.images.samples[queries] != self.images.images.samples[rows]
        queries, rows, transforms = queries[is_wanted], rows[is_wanted], transforms[is_wanted].astype(np.float32)
        if self.is_own:
            is_backward = queries > rows
            transforms[is_backward] = invert_transforms(transforms[is_backward])
            queries, rows = np.minimum(queries, rows), np.maximum(queries, rows)
        self.check(queries, rows, transforms, least)

    def check(self, queries: np.ndarray, rows: np.ndarray, transforms: np.ndarray, least: float) -> None:
        """Write those guesses, of any images, that have the least correlation, and stand being refined."""
        for start in range(0, len(queries), MAX_CHECKS):
            block = slice(start, start + MAX_CHECKS)
            guesses = np.empty(len(queries[block]), GUESS)
            guesses["query"], guesses["row"], guesses["transform"] = queries[block], rows[block], transforms[block]
            guesses = self._refine(guesses, least)
            files = guesses["query"] // ROWS_OF_A_FILE
            for number in np.unique(files).tolist():
                self._files[number].write(guesses[files == number].tobytes())

    def _refine(self, guesses: np.ndarray, least: float) -> np.ndarray:
        """Return refined guesses without those that fail."""
        templates = self.queries.quick[guesses["query"]].astype(np.float32)
        images = self.images.quick[guesses["row"]].astype(np.float32)
        shapes = [self.queries.images.shapes[guesses["query"]], self.images.images.shapes[guesses["row"]]]
        aspects = np.stack(shapes, axis=1)
        # The image that shows less is the template.
        is_swapped = shows_more(guesses["transform"])
        templates[is_swapped], images[is_swapped] = images[is_swapped], templates[is_swapped]
        aspects[is_swapped] = aspects[is_swapped, ::-1]
        transforms = guesses["transform"].copy()
        transforms[is_swapped] = invert_transforms(transforms[is_swapped])

        # Those that fit badly are refined once more without what a sticker may cover.
        refined = [guesses[:0]]
        remaining = np.arange(len(guesses))
        limits = ((False, least, MIN_REFINED), (True, max(least, MIN_TRIMMED_QUICK), MIN_TRIMMED_REFINED))
        for is_trimmed, min_quick, min_refined in limits:
            if not len(remaining):
                break
            correlations = check_guesses(templates[remaining], images[remaining], transforms[remaining], is_trimmed)
            numbers = remaining[correlations >= min_quick]
            if not len(numbers):
                continue
            maps, correlations = refine_guesses(templates[numbers], images[numbers], transforms[numbers], is_trimmed)
            is_good = (correlations >= min_refined) & is_plausible(maps, aspects[numbers], QUICK_SLACK)
            numbers, maps = numbers[is_good], maps[is_good]
            maps[is_swapped[numbers]] = invert_transforms(maps[is_swapped[numbers]])
            chosen = guesses[numbers]
            chosen["transform"], chosen["correlation"] = maps, correlations[is_good]
            if is_trimmed:  # the other guesses of a pair are tried first
                chosen["correlation"] -= 1
            refined.append(chosen)
            remaining = np.setdiff1d(remaining, numbers[correlations[is_good] >= MIN_TRIMMED_REFINED])
        return np.concatenate(refined)

    def read_best(self) -> Iterator[np.ndarray]:
        """Yield the best guesses of each pair, at most `MAX_TRIES`, ordered by query, row and falling correlation."""
        for file in self._files:
            file.seek(0)
            yield _choose_best(np.frombuffer(file.read(), GUESS))


def shows_more(transforms: np.ndarray) -> np.ndarray:
    """Return which maps shrink an image, `[P]` bool: it shows more than the one that it is mapped to."""
    return np.abs(np.linalg.det(transforms[..., :2])) > 1


def _choose_best(guesses: np.ndarray) -> np.ndarray:
    order = np.lexsort((-guesses["correlation"], guesses["row"], guesses["query"]))
    guesses = guesses[order]
    if not len(guesses):
        return guesses
    is_first = np.ones(len(guesses), bool)
    is_first[1:] = (guesses["query"][1:] != guesses["query"][:-1]) | (guesses["row"][1:] != guesses["row"][:-1])
    pairs = np.cumsum(is_first) - 1
    corners = np.array([(0, SIDE - 1, 0), (0, 0, SIDE - 1), (1, 1, 1)], np.float32)
    places = guesses["transform"] @ corners
    distances = np.abs(places - places[is_first][pairs]).max(axis=(1, 2))
    distant = np.flatnonzero(distances > MIN_DISTANCE)
    _, seconds = np.unique(pairs[distant], return_index=True)
    is_chosen = is_first
    is_chosen[distant[seconds]] = True
    return guesses[is_chosen]


def make_guesses(images: Searched, queries: Searched, by: Comparison, turned: bool) -> GuessFiles:
    """Return guesses of how images lie in queries, or in each other.

    Args:
        images: images.
        queries: what they are compared with; the same object if it is the images themselves.
        by: thresholds of the comparison.
        turned: also guess that images are mirrored or turned by quarters.
    """
    guesses = GuessFiles(images, queries)
    vectors = images.make_vectors()
    query_vectors = vectors if guesses.is_own else queries.make_vectors()
    if by.crops:
        _guess_by_windows(guesses, vectors, query_vectors, by.candidates)
    for orientation in range(likeness.ORIENTATIONS if turned else 1):
        # From the samples of the query to those of the oriented query.
        transform = invert_transforms(likeness.transform_of(orientation)[None])[0]
        oriented = allocate(images.folder, np.float16, query_vectors.shape)
        for start in range(0, len(oriented), BLOCK):
            block = slice(start, start + BLOCK)
            oriented[block] = likeness.turn_vectors(np.asarray(query_vectors[block]), orientation)
        _guess_by_vectors(guesses, vectors, oriented, transform, by.candidates)
    if by.crops:
        _guess_by_features(guesses, turned)
    return guesses


def _guess_by_vectors(
    guesses: GuessFiles, vectors: np.ndarray, query_vectors: np.ndarray, transform: np.ndarray, least: float
) -> None:
    for near in neighbours(vectors, least, query_vectors, MOST_NEAREST, guesses.images.folder):
        transforms = np.broadcast_to(transform, (len(near.queries), 2, 3))
        queries, rows = guesses.queries.rows[near.queries], guesses.images.rows[near.rows]
        guesses.add(queries, rows, transforms, MIN_WHOLE_CORRELATION)


def _guess_by_windows(guesses: GuessFiles, vectors: np.ndarray, query_vectors: np.ndarray, least: float) -> None:
    """Add the guesses that an image is another one without a bar or a frame."""
    for window in likeness.WINDOWS:
        transform = likeness.make_window_transform(window)  # of the window's samples to the image's
        back = invert_transforms(transform[None])[0]
        _guess_by_vectors(guesses, vectors, guesses.queries.make_vectors(window), back, least)
        if not guesses.is_own:
            _guess_by_vectors(guesses, guesses.images.make_vectors(window), query_vectors, transform, least)


def _guess_by_features(guesses: GuessFiles, turned: bool) -> None:
    """Add the guesses of features that two images share."""
    images, queries = guesses.images, guesses.queries
    if not len(images.owners) or not len(queries.owners):
        return
    sample = slice(None, None, max(1, len(images.owners) // LEARN_FROM))
    projection = learn_projection(normalise_descriptors(images.read_descriptors(sample)))
    descriptors = images.project(projection, is_mirrored=False)
    flip = np.array([[-1, 0, SIDE - 1], [0, 1, 0], [0, 0, 1]], np.float32)
    for is_mirrored in (False, True) if turned else (False,):
        if guesses.is_own and not is_mirrored:
            query_descriptors = descriptors
        else:
            query_descriptors = queries.project(projection, is_mirrored)
        for near in neighbours(descriptors, MIN_FEATURE_COSINE, query_descriptors, MOST_NEAREST, images.folder):
            if guesses.is_own:
                near = near.of(queries.owners[near.queries] != images.owners[near.rows])
            keypoints = queries.read_keypoints(near.queries)
            if is_mirrored:
                keypoints = mirror_keypoints(keypoints)
            transforms, is_plausible = guess_transforms(keypoints, images.read_keypoints(near.rows))
            near, transforms = near.of(is_plausible), transforms[is_plausible]
            if is_mirrored:  # from the query's samples, not from those of its mirror image
                transforms = transforms @ flip
            query_rows = queries.owners[near.queries].astype(np.int64)
            rows = images.owners[near.rows].astype(np.int64)
            chosen = _choose_guesses(query_rows, rows, near.cosines)
            guesses.add(query_rows[chosen], rows[chosen], transforms[chosen], MIN_QUICK)


def _choose_guesses(queries: np.ndarray, rows: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    """Return the numbers of the best guesses of each pair of a query and a row."""
    order = np.lexsort((-cosines, rows, queries))
    is_new = np.ones(len(order), bool)
    is_new[1:] = (queries[order][1:] != queries[order][:-1]) | (rows[order][1:] != rows[order][:-1])
    starts = np.flatnonzero(is_new)
    ranks = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return order[ranks < MAX_GUESSES]
