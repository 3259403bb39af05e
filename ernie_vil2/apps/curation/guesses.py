"""Guesses of how images lie in each other, from which registration starts.

A guess is an affine map from one thumbnail to another. Three things propose guesses: whole images whose vectors are
near, in any of eight orientations; the same without a bar or a frame of one of them; and local features that two images
share. Guesses are written to files, so that their number is not bounded by memory. Those with enough support are then
refined at 16 and at 32 samples a side (`registration.py`); guesses that fit badly are dropped on the way.
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
    CORNERS,
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
# Neighbours that a vector or a feature is paired with. Where more are as near, as at a corner on a white ground, its
# neighbours say nothing.
MAX_NEIGHBOURS = 8
WHOLE_SUPPORT = 1.0  # support of a guess of whole images; that of one feature is its cosine, which is less
MAX_COMPARED = 8  # places, by falling cosine, within which the guesses of a pair are compared with each other
# Samples between the corners of two guesses: below the first they agree, and below the second they are from one feature
# that was found in both directions.
AGREED_DISTANCE, SAME_DISTANCE = 12.0, 0.05
# Least support of a feature's guess: a high cosine, or another feature that agrees. Of 560 pairs of copies in a made
# crawl all but one have it, of 23,000 other pairs a third.
MIN_SUPPORT = 0.8
MAX_CHECKED = 8  # guesses of the features of a pair that are checked, the best supported ones
MAX_TRIES = 4  # guesses of two images that are registered at full size: two thumbnails each give four pairs
# Images that an image is registered with. Those of one template fit each other, and are no copies. This and the single
# trimmed guess of a pair saved a third of the time, and lost no copy in two made crawls.
MAX_PAIRS = 32
MIN_DISTANCE = 3.0  # samples between the corners of two guesses: from nearer ones registration reaches the same place
MAX_LOG_EXTENT_RATIO = 0.6  # largest difference of the logarithms of two extents: a small square is not a large one
# Queries whose guesses are in one file, and sorted in memory at once (some 50 MB), and the largest number of files.
ROWS_PER_FILE, MAX_FILES = 2**14, 256

GUESS = np.dtype([("query", np.uint32), ("row", np.uint32), ("score", np.float32), ("transform", np.float32, (2, 3))])
"""A guess: rows of a query and of an image, and the map from the samples of the query to those of the image.

Its score is its support until it is refined, then the score of `registration.register`; more is better.
"""

_FLIP = np.array([[-1, 0, SIDE - 1], [0, 1, 0], [0, 0, 1]], np.float32)  # from an image's samples to its mirror image's


class Comparison(Section):
    """When two images show the same."""

    candidates: Fraction = Field(0.85, description="least cosine of the vectors of two whole images that are compared")
    likeness: Fraction = Field(
        0.95, description="least correlation of two images that show the same, once light and colour are fitted"
    )
    crops: bool = Field(
        True, description="also compare images with crops of each other, to 60 % of a side, and with bars or stickers"
    )


class ThumbnailIndex:
    """Thumbnails that are compared with others: their vectors, their features, and smaller luminances.

    Args:
        thumbnails: thumbnails.
        rows: rows of those that are compared, in ascending order.
        folder: folder for what does not fit into memory.

    Attributes:
        pyramid: by side, luminances of that size, `[N, side, side]` float16; only those of `rows` are filled.
        feature_rows: for each of the F features of all `rows`, the row of its thumbnail, `[F]`.
        feature_numbers: the number of the feature among those of its thumbnail, `[F]`.
    """

    def __init__(self, thumbnails: Thumbnails, rows: np.ndarray, folder: Path):
        self.thumbnails = thumbnails
        self.rows = rows
        self.folder = folder
        self.pyramid = {}
        for side in (QUICK_SIDE, COARSE_SIDE):
            self.pyramid[side] = allocate(folder, np.float16, (len(thumbnails.samples), side, side))
        for row in rows.tolist():
            self.pyramid[QUICK_SIDE][row], self.pyramid[COARSE_SIDE][row] = make_pyramid(thumbnails.luminances[row])

        num_features = int(thumbnails.num_features[rows].sum(dtype=np.int64))
        self.feature_rows = allocate(folder, np.uint32, (num_features,))
        self.feature_numbers = allocate(folder, np.uint8, (num_features,))
        num_listed = 0
        for start in range(0, len(rows), BLOCK):
            feature_rows, feature_numbers = _list_features(thumbnails, rows[start : start + BLOCK])
            block = slice(num_listed, num_listed + len(feature_rows))
            self.feature_rows[block], self.feature_numbers[block] = feature_rows, feature_numbers
            num_listed = block.stop

    def make_vectors(self, window: likeness.Window | None = None) -> np.ndarray:
        """Return the vectors of the rows, or of a window of each, `[len(rows), WIDTH]` float16."""
        vectors = allocate(self.folder, np.float16, (len(self.rows), likeness.WIDTH))  # exact enough for candidates
        for start in range(0, len(vectors), BLOCK):
            luminances = self.thumbnails.luminances[self.rows[start : start + BLOCK]]
            if window is not None:
                luminances = luminances[:, window.top : window.bottom, window.left : window.right]
            vectors[start : start + BLOCK] = likeness.make_vectors(luminances)
        return vectors

    def read_descriptors(self, features: np.ndarray | slice) -> np.ndarray:
        """Return the descriptors of some features, `[F, 128]` uint8."""
        return self.thumbnails.features["descriptor"][self.feature_rows[features], self.feature_numbers[features]]

    def read_keypoints(self, features: np.ndarray) -> np.ndarray:
        """Return the keypoints of some features, `[F, 4]` float32."""
        return self.thumbnails.features["keypoint"][self.feature_rows[features], self.feature_numbers[features]]

    def project(self, projection: Projection, is_mirrored: bool) -> np.ndarray:
        """Return the projected descriptors of all features, or of the mirrored images, `[F, COMPONENTS]` float16."""
        projected = allocate(self.folder, np.float16, (len(self.feature_rows), COMPONENTS))
        for start in range(0, len(projected), BLOCK):
            descriptors = self.read_descriptors(slice(start, start + BLOCK))
            projected[start : start + BLOCK] = projection.apply(normalise_descriptors(descriptors, is_mirrored))
        return projected


def _list_features(thumbnails: Thumbnails, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each feature of these rows its row, and its number there, `[F]` each."""
    counts = thumbnails.num_features[rows].astype(np.int64)
    feature_rows = rows.repeat(counts)
    counts_before = (np.cumsum(counts) - counts).repeat(counts)
    return feature_rows, np.arange(len(feature_rows)) - counts_before


class GuessFiles:
    """Guesses in files without names, each of which holds those of successive queries.

    Args:
        images: images.
        queries: what they are compared with; the same object if it is the images themselves.
    """

    def __init__(self, images: ThumbnailIndex, queries: ThumbnailIndex):
        self.images, self.queries = images, queries
        self.is_self_comparison = queries is images
        num_rows = len(queries.thumbnails.samples)
        self._rows_per_file = max(ROWS_PER_FILE, -(-num_rows // MAX_FILES))
        num_files = -(-num_rows // self._rows_per_file)
        self._files = [tempfile.TemporaryFile(dir=images.folder) for _ in range(num_files)]  # noqa: SIM115  -- closed with this object

    def add(self, queries: np.ndarray, rows: np.ndarray, transforms: np.ndarray, supports: np.ndarray | float) -> None:
        """Add the guesses that are between different images of similar extents.

        Args:
            queries: rows of the queries' thumbnails, `[P]`.
            rows: rows of the images' thumbnails, `[P]`.
            transforms: maps from the queries' samples to those of the images, `[P, 2, 3]`.
            supports: what speaks for each guess, `[P]`, from 0 to 1; see `_choose_supported`.
        """
        extent_ratios = self.queries.thumbnails.extents[queries] / self.images.thumbnails.extents[rows]
        is_possible = np.abs(np.log(extent_ratios)) <= MAX_LOG_EXTENT_RATIO
        if self.is_self_comparison:
            is_possible &= self.images.thumbnails.samples[queries] != self.images.thumbnails.samples[rows]
        supports = np.broadcast_to(supports, len(queries))[is_possible]
        queries, rows = queries[is_possible], rows[is_possible]
        transforms = transforms[is_possible].astype(np.float32)
        if self.is_self_comparison:
            # Each pair may be proposed from either side, and is stored from the lower row to the higher one.
            is_backward = queries > rows
            transforms[is_backward] = invert_transforms(transforms[is_backward])
            queries, rows = np.minimum(queries, rows), np.maximum(queries, rows)
        self.write(queries, rows, transforms, supports)

    def write(
        self, queries: np.ndarray, rows: np.ndarray, transforms: np.ndarray, supports: np.ndarray | float
    ) -> None:
        """Write guesses without a check, also of an image and itself.

        The arguments are those of `add`. If images are compared with each other, no query is a higher row than its
        image.
        """
        guesses = np.empty(len(queries), GUESS)
        guesses["query"], guesses["row"] = queries, rows
        guesses["transform"], guesses["score"] = transforms, supports
        files = guesses["query"] // self._rows_per_file
        for number in np.unique(files).tolist():
            self._files[number].write(guesses[files == number].tobytes())

    def refine(self) -> Iterator[np.ndarray]:
        """Yield the guesses that fit, refined, `[P]` of `GUESS`: at most `MAX_TRIES` of two images, the best first."""
        for file in self._files:
            file.seek(0)
            guesses = _choose_supported(np.frombuffer(file.read(), GUESS))
            for level, max_guesses in zip(LEVELS, (MAX_CHECKED, MAX_TRIES, MAX_TRIES), strict=True):
                guesses = self._choose_best(self._register(guesses, level), max_guesses)
                if level.num_steps:  # before the first step, scores say little about pairs
                    guesses = self._limit_work(guesses)
            yield guesses

    def _limit_work(self, guesses: np.ndarray) -> np.ndarray:
        """Return the guesses of the best `MAX_PAIRS` pairs of each query.

        Trimmed guesses, from which samples were left out as a sticker's, are dropped unless they are a pair's best.

        Args:
            guesses: guesses, ordered by the samples of both images and by falling score.
        """
        queries = self.queries.thumbnails.samples[guesses["query"]]
        pairs = number_groups(queries, self.images.thumbnails.samples[guesses["row"]])
        is_best_of_pair = count_before(pairs) == 0
        # Without what fits worst nearly anything fits somewhere: 4,000 such guesses behind the best ones led to no
        # further copy.
        is_trimmed = guesses["score"] <= 0
        is_useful = is_best_of_pair | ~is_trimmed

        best_guesses = np.flatnonzero(is_best_of_pair)
        best_guesses = best_guesses[np.lexsort((-guesses["score"][best_guesses], queries[best_guesses]))]
        num_better_pairs = count_before(number_groups(queries[best_guesses]))
        surplus_pairs = pairs[best_guesses[num_better_pairs >= MAX_PAIRS]]
        return guesses[is_useful & ~np.isin(pairs, surplus_pairs)]

    def _register(self, guesses: np.ndarray, level: Level) -> np.ndarray:
        """Return guesses that are refined at a level, without those that fail."""
        blocks = [guesses[:0]]
        for start in range(0, len(guesses), BLOCK):
            block = guesses[start : start + BLOCK].copy()
            overlays = Overlays(
                block["query"], block["row"], block["transform"], self.queries.thumbnails, self.images.thumbnails
            )
            templates, images = overlays.order(self.queries.pyramid[level.side], self.images.pyramid[level.side])
            transforms, block["score"] = register(templates, images, overlays.transforms, level)
            passes = (block["score"] > FAILED) & is_plausible(transforms, overlays.aspects, level.slack)
            block["transform"] = overlays.restore(transforms)
            blocks.append(block[passes])
        return np.concatenate(blocks)

    def _choose_best(self, guesses: np.ndarray, max_guesses: int) -> np.ndarray:
        """Return the best guesses of every two images, whichever of their thumbnails they lay on each other.

        They are ordered by the samples of both images and by falling score.
        """
        first_samples = self.queries.thumbnails.samples[guesses["query"]]
        second_samples = self.images.thumbnails.samples[guesses["row"]]
        order = np.lexsort((-guesses["score"], second_samples, first_samples))
        guesses = guesses[order]
        pairs = number_groups(first_samples[order], second_samples[order])

        # Registration goes from near guesses to the same place, so that later ones add nothing.
        has_same_query = guesses["query"][1:] == guesses["query"][:-1]
        has_same_row = guesses["row"][1:] == guesses["row"][:-1]
        is_near = _measure_distances(guesses[1:], guesses[:-1]) < MIN_DISTANCE
        is_repeated = np.zeros(len(guesses), bool)
        is_repeated[1:] = has_same_query & has_same_row & is_near
        guesses, pairs = guesses[~is_repeated], pairs[~is_repeated]
        return guesses[count_before(pairs) < max_guesses]


class Overlays:
    """Guesses, turned so that they map the image that shows less, the template, to the one that shows more.

    Args:
        queries: rows of queries, `[P]`.
        rows: rows of images, `[P]`.
        transforms: maps from queries to images, `[P, 2, 3]`.
        query_thumbnails: thumbnails of the queries.
        image_thumbnails: thumbnails of the images.

    Attributes:
        is_swapped: which guesses have the image, and not the query, as the template, `[P]` bool.
        transforms: maps from templates to the other images, `[P, 2, 3]`.
        aspects: width over height of the template and of the other image, `[P, 2]`.
    """

    def __init__(
        self,
        queries: np.ndarray,
        rows: np.ndarray,
        transforms: np.ndarray,
        query_thumbnails: Thumbnails,
        image_thumbnails: Thumbnails,
    ):
        self.queries, self.rows = queries, rows
        self.is_swapped = np.abs(np.linalg.det(transforms[..., :2])) > 1
        self.transforms = self.restore(transforms)
        self.aspects = np.stack([query_thumbnails.shapes[queries], image_thumbnails.shapes[rows]], axis=1)
        self.aspects[self.is_swapped] = self.aspects[self.is_swapped, ::-1]

    def order(self, query_luminances: np.ndarray, image_luminances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the luminances of the templates and of the other images, `[P, S, S]` float32 each.

        Args:
            query_luminances: luminances of all thumbnails of the queries, `[N, S, S]`.
            image_luminances: luminances of all thumbnails of the images, `[M, S, S]`.
        """
        templates = query_luminances[self.queries].astype(np.float32)
        images = image_luminances[self.rows].astype(np.float32)
        templates[self.is_swapped], images[self.is_swapped] = images[self.is_swapped], templates[self.is_swapped]
        return templates, images

    def restore(self, transforms: np.ndarray) -> np.ndarray:
        """Turn maps from templates to the other images into maps from queries to images, or the reverse."""
        restored = transforms.copy()
        restored[self.is_swapped] = invert_transforms(restored[self.is_swapped])
        return restored


def number_groups(*columns: np.ndarray) -> np.ndarray:
    """Return the number of the group of each row, `[P]`: successive rows that are equal in all columns are a group."""
    is_new = np.zeros(len(columns[0]), bool)
    for column in columns:
        is_new[1:] |= column[1:] != column[:-1]
    return np.cumsum(is_new)


def count_before(groups: np.ndarray) -> np.ndarray:
    """Return how many rows of the same group come before each, `[P]`; `groups` ascend."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


def _measure_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return how far the corners of images lie apart under two guesses, in samples, `[P]`."""
    return np.abs((first["transform"] - second["transform"]) @ CORNERS).max(axis=(1, 2))


def _choose_supported(guesses: np.ndarray) -> np.ndarray:
    """Return the guesses with enough support, the best ones of each pair of thumbnails, ordered by query and row.

    The support of a guess of one feature is the cosine of its descriptors, and 1 more for each other feature of the
    pair whose guess is nearly the same. One shared feature of low cosine is chance in four of five pairs.
    """
    guesses = guesses[np.lexsort((-guesses["score"], guesses["row"], guesses["query"]))]
    pairs = number_groups(guesses["query"], guesses["row"])
    supports = guesses["score"].copy()
    for shift in range(1, MAX_COMPARED):  # compare each guess with the one that many places behind it
        better, worse = guesses[:-shift], guesses[shift:]
        distances = _measure_distances(better, worse)
        agrees = (pairs[shift:] == pairs[:-shift]) & (distances < AGREED_DISTANCE)
        agrees &= distances > SAME_DISTANCE  # a feature that was found in both directions counts once
        agrees &= better["score"] < WHOLE_SUPPORT  # a guess of whole images needs no feature, and is none
        supports[shift:] += agrees
        supports[:-shift] += agrees

    order = np.lexsort((-supports, pairs))
    is_chosen = (supports[order] >= MIN_SUPPORT) & (count_before(pairs[order]) < MAX_CHECKED)
    # The features of a symmetric image agree on any turn, so that guesses of whole images do not compete with them.
    is_chosen |= guesses["score"][order] >= WHOLE_SUPPORT
    return guesses[order[is_chosen]]


def make_guesses(
    images: ThumbnailIndex, queries: ThumbnailIndex, comparison: Comparison, with_turns: bool
) -> GuessFiles:
    """Return guesses of how images lie in queries, or in each other.

    Args:
        images: images.
        queries: what they are compared with; the same object if it is the images themselves.
        comparison: thresholds of the comparison.
        with_turns: also guess that images are mirrored or turned by quarters.
    """
    guesses = GuessFiles(images, queries)
    vectors = images.make_vectors()
    query_vectors = vectors if guesses.is_self_comparison else queries.make_vectors()
    if comparison.crops:
        _guess_by_windows(guesses, vectors, query_vectors, comparison.candidates)
    for orientation in range(likeness.ORIENTATIONS if with_turns else 1):
        # From the samples of the query to those of the oriented query.
        transform = invert_transforms(likeness.make_orientation_transform(orientation)[None])[0]
        oriented = allocate(images.folder, np.float16, query_vectors.shape)
        for start in range(0, len(oriented), BLOCK):
            block = slice(start, start + BLOCK)
            oriented[block] = likeness.turn_vectors(np.asarray(query_vectors[block]), orientation)
        _guess_by_vectors(guesses, vectors, oriented, transform, comparison.candidates)
    if comparison.crops:
        _guess_by_features(guesses, with_turns)
    return guesses


def _guess_by_vectors(
    guesses: GuessFiles, vectors: np.ndarray, query_vectors: np.ndarray, transform: np.ndarray, min_cosine: float
) -> None:
    """Add the guess `transform`, `[2, 3]`, from each query to the images whose vectors are near."""
    for pairs in neighbours(vectors, min_cosine, query_vectors, MAX_NEIGHBOURS, guesses.images.folder):
        transforms = np.broadcast_to(transform, (len(pairs.queries), 2, 3))
        guesses.add(guesses.queries.rows[pairs.queries], guesses.images.rows[pairs.rows], transforms, WHOLE_SUPPORT)


def _guess_by_windows(guesses: GuessFiles, vectors: np.ndarray, query_vectors: np.ndarray, min_cosine: float) -> None:
    """Add the guesses that an image is another one without a bar or a frame."""
    for window in likeness.WINDOWS:
        from_window = likeness.make_window_transform(window)  # from the window's samples to the image's
        to_window = invert_transforms(from_window[None])[0]
        _guess_by_vectors(guesses, vectors, guesses.queries.make_vectors(window), to_window, min_cosine)
        # Images that are compared with each other have been windows of each other by now.
        if not guesses.is_self_comparison:
            _guess_by_vectors(guesses, guesses.images.make_vectors(window), query_vectors, from_window, min_cosine)


def _guess_by_features(guesses: GuessFiles, with_turns: bool) -> None:
    """Add the guesses of features that two images share."""
    images, queries = guesses.images, guesses.queries
    if not len(images.feature_rows) or not len(queries.feature_rows):
        return
    sample = slice(None, None, max(1, len(images.feature_rows) // LEARN_FROM))
    projection = learn_projection(normalise_descriptors(images.read_descriptors(sample)))
    descriptors = images.project(projection, is_mirrored=False)
    _guess_by_descriptors(guesses, descriptors, projection, is_mirrored=False)
    if with_turns:  # keypoints have angles, so that only mirrored images need features of their own
        _guess_by_descriptors(guesses, descriptors, projection, is_mirrored=True)


def _guess_by_descriptors(
    guesses: GuessFiles, descriptors: np.ndarray, projection: Projection, is_mirrored: bool
) -> None:
    """Add the guesses of features of images, `descriptors`, that are near those of queries, or of mirrored queries."""
    images, queries = guesses.images, guesses.queries
    query_descriptors = descriptors
    if is_mirrored or not guesses.is_self_comparison:
        query_descriptors = queries.project(projection, is_mirrored)
    for pairs in neighbours(descriptors, MIN_FEATURE_COSINE, query_descriptors, MAX_NEIGHBOURS, images.folder):
        if guesses.is_self_comparison:
            pairs = pairs.of(queries.feature_rows[pairs.queries] != images.feature_rows[pairs.rows])
        keypoints = queries.read_keypoints(pairs.queries)
        if is_mirrored:
            keypoints = mirror_keypoints(keypoints)
        transforms, is_possible = guess_transforms(keypoints, images.read_keypoints(pairs.rows))
        pairs, transforms = pairs.of(is_possible), transforms[is_possible]
        if is_mirrored:  # from the query's samples, not from those of its mirror image
            transforms = transforms @ _FLIP
        query_rows = queries.feature_rows[pairs.queries].astype(np.int64)
        rows = images.feature_rows[pairs.rows].astype(np.int64)
        supports = pairs.cosines.clip(max=0.99)  # less than WHOLE_SUPPORT, by which whole images are told
        guesses.add(query_rows, rows, transforms, supports)
