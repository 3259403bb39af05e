"""Guesses of how images lie in each other, from which registration starts.

Three things propose a pair: whole images whose vectors are near, in any of eight orientations; the same without a bar
or a frame of one of them; and local features that two images share. Guesses are written to files, so that their number
is not bounded by memory. Of each pair, those that something speaks for are refined at 16 and at 32 samples of a side
(`registration.py`), and end where they fit badly.
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
    COARSE_SIDE,
    FAILED,
    LEVELS,
    QUICK_SIDE,
    SIDE,
    Level,
    invert_transforms,
    is_plausible,
    make_pyramid,
    register,
)
from ernie_vil2.apps.curation.thumbnails import Thumbnails
from ernie_vil2.section import Fraction, Section

MIN_FEATURE_COSINE = 0.7  # of projected descriptors; 0.6 proposes four times as many pairs and no more copies
# Nearest ones of a cell that a vector, or a feature, is compared with. Where more are as near, as of a corner on a
# white ground, it says nothing.
MOST_NEAREST = 8
WHOLE_SUPPORT = 1.0  # of a guess of whole images; that of a feature is less, unless others agree
MAX_COMPARED = 8  # guesses of a pair, by falling cosine, whose agreement with each is looked at
AGREED_DISTANCE, SAME_DISTANCE = 12.0, 0.05  # samples between the corners of guesses that agree, and that are the same
# Of a feature's guess: its cosine, or another feature that agrees. Of 560 pairs of a crawl whose copies were found, all
# but one have it, of 23,000 other pairs a third.
MIN_SUPPORT = 0.8
MAX_CHECKED = 8  # guesses of a pair, by its features, that are checked
MAX_TRIES = 4  # guesses of two images, whose borders give them up to four pairs of thumbnails, that are registered
MAX_PAIRS = 32  # images that an image is registered with: those of one template fit each other, and are no copies
MIN_DISTANCE = 3.0  # samples between the corners of these: registration goes from nearer ones to the same place
EXTENT = 0.6  # by which the logarithms of two extents may differ: a small square is not a large one
ROWS_OF_A_FILE, MAX_FILES = 2**14, 256  # queries whose guesses are sorted at once: some 50 MB; files that are open

GUESS = np.dtype([("query", np.uint32), ("row", np.uint32), ("rank", np.float32), ("transform", np.float32, (2, 3))])
"""Rows of a query and of an image, what speaks for a guess, and the map from the query's samples to the image's."""

_CORNERS = np.array([(0, SIDE - 1, 0), (0, 0, SIDE - 1), (1, 1, 1)], np.float32)


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
        self.pyramid = {}
        for side in (QUICK_SIDE, COARSE_SIDE):
            self.pyramid[side] = allocate(folder, np.float16, (len(images.samples), side, side))
        for row in rows.tolist():
            self.pyramid[QUICK_SIDE][row], self.pyramid[COARSE_SIDE][row] = make_pyramid(images.luminances[row])
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
    """Guesses in files without names.

    Args:
        images: images.
        queries: what they are compared with; the same object if it is the images themselves.
    """

    def __init__(self, images: Searched, queries: Searched):
        self.images, self.queries = images, queries
        self.is_own = queries is images
        num_rows = len(queries.images.samples)
        self._rows_of_file = max(ROWS_OF_A_FILE, -(-num_rows // MAX_FILES))
        num_files = -(-num_rows // self._rows_of_file)
        self._files = [tempfile.TemporaryFile(dir=images.folder) for _ in range(num_files)]  # noqa: SIM115  -- closed with this object

    def add(self, queries: np.ndarray, rows: np.ndarray, transforms: np.ndarray, supports: np.ndarray | float) -> None:
        """Add guesses between different images.

        Args:
            queries: rows of the queries' thumbnails, `[P]`.
            rows: rows of the images' thumbnails, `[P]`.
            transforms: maps from the queries' samples to those of the images, `[P, 2, 3]`.
            supports: what speaks for each guess, `[P]`, from 0 to 1; see `_choose_supported`.
        """
        extents = self.queries.images.extents[queries] / self.images.images.extents[rows]
        is_wanted = np.abs(np.log(extents)) <= EXTENT
        if self.is_own:
            is_wanted &= self.images.images.samples[queries] != self.images.images.samples[rows]
        supports = np.broadcast_to(supports, len(queries))[is_wanted]
        queries, rows, transforms = queries[is_wanted], rows[is_wanted], transforms[is_wanted].astype(np.float32)
        if self.is_own:
            is_backward = queries > rows
            transforms[is_backward] = invert_transforms(transforms[is_backward])
            queries, rows = np.minimum(queries, rows), np.maximum(queries, rows)
        self.write(queries, rows, transforms, supports)

    def write(
        self, queries: np.ndarray, rows: np.ndarray, transforms: np.ndarray, supports: np.ndarray | float
    ) -> None:
        """Write guesses of any images, also of an image and itself; if all are own, from lower rows to higher ones."""
        guesses = np.empty(len(queries), GUESS)
        guesses["query"], guesses["row"] = queries, rows
        guesses["transform"], guesses["rank"] = transforms, supports
        files = guesses["query"] // self._rows_of_file
        for number in np.unique(files).tolist():
            self._files[number].write(guesses[files == number].tobytes())

    def read_best(self) -> Iterator[np.ndarray]:
        """Yield the refined guesses, at most `MAX_TRIES` of two images, the best one of them first."""
        for file in self._files:
            file.seek(0)
            guesses = _choose_supported(np.frombuffer(file.read(), GUESS))
            for level, max_guesses in zip(LEVELS, (MAX_CHECKED, MAX_TRIES, MAX_TRIES), strict=True):
                guesses = self._choose_best(self._register(guesses, level), max_guesses)
                if level.num_steps:
                    guesses = self._limit_work(guesses)
            yield guesses

    def _limit_work(self, guesses: np.ndarray) -> np.ndarray:
        """Return the guesses of the best pairs of each query, of which only the best may leave a sticker out.

        Args:
            guesses: guesses, ordered by the samples of both images and by falling rank.
        """
        queries = self.queries.images.samples[guesses["query"]]
        pairs = number_groups(queries, self.images.images.samples[guesses["row"]])
        is_first = count_before(pairs) == 0
        # Without what fits worst nearly anything fits somewhere: of 4,000 later ones no further copy was found.
        is_wanted = is_first | (guesses["rank"] > 0)
        firsts = np.flatnonzero(is_first)
        firsts = firsts[np.lexsort((-guesses["rank"][firsts], queries[firsts]))]
        surplus = firsts[count_before(number_groups(queries[firsts])) >= MAX_PAIRS]
        return guesses[is_wanted & ~np.isin(pairs, pairs[surplus])]

    def _register(self, guesses: np.ndarray, level: Level) -> np.ndarray:
        """Return guesses that are refined at a level, without those that fail."""
        refined = [guesses[:0]]
        for start in range(0, len(guesses), BLOCK):
            block = guesses[start : start + BLOCK].copy()
            pairs = Overlays(block["query"], block["row"], block["transform"], self.queries.images, self.images.images)
            templates, images = pairs.order(self.queries.pyramid[level.side], self.images.pyramid[level.side])
            transforms, block["rank"] = register(templates, images, pairs.transforms, level)
            is_good = (block["rank"] > FAILED) & is_plausible(transforms, pairs.aspects, level.slack)
            block["transform"] = pairs.restore(transforms)
            refined.append(block[is_good])
        return np.concatenate(refined)

    def _choose_best(self, guesses: np.ndarray, max_guesses: int) -> np.ndarray:
        """Return the best guesses of every two images, of whichever of their thumbnails, and of every query."""
        samples = self.queries.images.samples[guesses["query"]], self.images.images.samples[guesses["row"]]
        order = np.lexsort((-guesses["rank"], samples[1], samples[0]))
        guesses, pairs = guesses[order], number_groups(samples[0][order], samples[1][order])
        # Registration goes from near guesses to the same place, so that later ones add nothing.
        is_repeated = np.zeros(len(guesses), bool)
        is_same_pair = (pairs[1:] == pairs[:-1]) & (guesses["query"][1:] == guesses["query"][:-1])
        is_same_pair &= guesses["row"][1:] == guesses["row"][:-1]
        is_repeated[1:] = is_same_pair & (_measure_distances(guesses[1:], guesses[:-1]) < MIN_DISTANCE)
        guesses, pairs = guesses[~is_repeated], pairs[~is_repeated]
        return guesses[count_before(pairs) < max_guesses]


class Overlays:
    """Guesses with the image that shows less, which is the template, before the other one.

    Args:
        queries: rows of queries, `[P]`.
        rows: rows of images, `[P]`.
        transforms: maps from queries to images, `[P, 2, 3]`.
        query_images: thumbnails of the queries.
        images: thumbnails of the images.

    Attributes:
        is_swapped: which templates are images and not queries, `[P]` bool.
        transforms: maps from templates to the other images, `[P, 2, 3]`.
        aspects: width over height of templates and the others, `[P, 2]`.
    """

    def __init__(
        self,
        queries: np.ndarray,
        rows: np.ndarray,
        transforms: np.ndarray,
        query_images: Thumbnails,
        images: Thumbnails,
    ):
        self.queries, self.rows = queries, rows
        self.is_swapped = np.abs(np.linalg.det(transforms[..., :2])) > 1
        self.transforms = self.restore(transforms)
        self.aspects = np.stack([query_images.shapes[queries], images.shapes[rows]], axis=1)
        self.aspects[self.is_swapped] = self.aspects[self.is_swapped, ::-1]

    def order(self, query_values: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return values of the templates, and those of the others, float32, of values of all queries and images."""
        first, second = query_values[self.queries].astype(np.float32), values[self.rows].astype(np.float32)
        first[self.is_swapped], second[self.is_swapped] = second[self.is_swapped], first[self.is_swapped]
        return first, second

    def restore(self, transforms: np.ndarray) -> np.ndarray:
        """Return the maps from queries to images of those from templates to the others, or the reverse."""
        restored = transforms.copy()
        restored[self.is_swapped] = invert_transforms(restored[self.is_swapped])
        return restored


def number_groups(*columns: np.ndarray) -> np.ndarray:
    """Return the number of the group of each row, `[P]`: rows that follow each other and are equal in all columns."""
    is_first = np.zeros(len(columns[0]), bool)
    for column in columns:
        is_first[1:] |= column[1:] != column[:-1]
    return np.cumsum(is_first)


def count_before(groups: np.ndarray) -> np.ndarray:
    """Return how many rows of the same group come before each, `[P]`."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


def _measure_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return how far the corners of images lie apart under two guesses, in samples, `[P]`."""
    return np.abs((first["transform"] - second["transform"]) @ _CORNERS).max(axis=(1, 2))


def _choose_supported(guesses: np.ndarray) -> np.ndarray:
    """Return the guesses that something speaks for, the best ones of each pair, ordered by query and row.

    A guess of a feature is worth the cosine of its descriptors: unless that is high, another feature of the same pair
    has to say nearly the same. One shared feature of low cosine is chance in four of five pairs.
    """
    guesses = guesses[np.lexsort((-guesses["rank"], guesses["row"], guesses["query"]))]
    pairs = number_groups(guesses["query"], guesses["row"])
    supports = guesses["rank"].copy()
    for shift in range(1, MAX_COMPARED):
        first, second = guesses[:-shift], guesses[shift:]
        distances = _measure_distances(first, second)
        is_agreed = (pairs[shift:] == pairs[:-shift]) & (distances < AGREED_DISTANCE)
        is_agreed &= distances > SAME_DISTANCE  # a feature that was found in both directions is one
        is_agreed &= first["rank"] < WHOLE_SUPPORT  # guesses of whole images are much the same
        supports[shift:] += is_agreed
        supports[:-shift] += is_agreed
    order = np.lexsort((-supports, pairs))
    is_chosen = (supports[order] >= MIN_SUPPORT) & (count_before(pairs[order]) < MAX_CHECKED)
    # The features of a symmetric image agree on any turn, so that guesses of whole images do not compete with them.
    is_chosen |= guesses["rank"][order] >= WHOLE_SUPPORT
    return guesses[order[is_chosen]]


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
        guesses.add(guesses.queries.rows[near.queries], guesses.images.rows[near.rows], transforms, WHOLE_SUPPORT)


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
            guesses.add(query_rows, images.owners[near.rows].astype(np.int64), transforms, near.cosines.clip(max=0.99))
