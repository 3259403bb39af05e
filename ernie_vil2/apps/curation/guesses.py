"""Guesses of how images lie in each other, from which registration starts.

A guess is an affine map from one thumbnail to another. Three things propose guesses: whole images whose vectors are
near, in any of eight orientations; the same without a bar or a frame of one of them; and local features that two images
share. A caller may add pairs of its own, such as those with equal captions. Guesses are written to files, so that their
number is not bounded by memory. Those with enough support are then refined at 16 and at 32 samples a side
(`registration.py`); guesses that fit badly, or lay other hues on each other (`hues.py`), are dropped on the way. In
between, those thumbnails of two images are chosen that show most of what both have in common.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from pydantic import Field

from ernie_vil2.apps.curation import likeness
from ernie_vil2.apps.curation.hues import have_other_hues
from ernie_vil2.apps.curation.local_features import (
    COMPONENTS,
    LEARN_FROM,
    Projection,
    guess_transforms,
    learn_projection,
    mirror_keypoints,
    normalise_descriptors,
)
from ernie_vil2.apps.curation.neighbours import BLOCK, Neighbours, allocate, neighbours
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
from ernie_vil2.apps.curation.thumbnails import MAX_THUMBNAILS, Thumbnails
from ernie_vil2.section import Fraction, Section

MIN_FEATURE_COSINE = 0.7  # of projected descriptors; 0.6 proposes four times as many pairs and no more copies
# Neighbours, the nearest ones, that a vector and a feature are paired with. A feature that has more, such as a corner
# on white, says nothing of what an image shows. With 8 there are half as many guesses more, and 0.1 % more copies.
MAX_NEIGHBOURS, MAX_FEATURE_NEIGHBOURS = 8, 4
WHOLE_SUPPORT = 1.0  # support of a guess of whole images; that of one feature is its cosine, which is less
MAX_COMPARED = 8  # places, by falling cosine, within which the guesses of a pair are compared with each other
# Samples between the corners of two guesses: below the first they agree, and below the second they are from one feature
# that was found in both directions.
AGREED_DISTANCE, SAME_DISTANCE = 12.0, 0.05
# Least support of a feature's guess: a high cosine, or another feature that agrees. Of 560 pairs of copies in a
# synthetic crawl (demo_data/crawls) all but one have it, of 23,000 other pairs a third.
MIN_SUPPORT = 0.8
MAX_CHECKED = 8  # guesses of the features of a pair that are checked, the best supported ones
MAX_TRIES = 4  # guesses of two images that are registered at full size, over all places and thumbnails
# Images that an image is registered with. Those of one template fit each other, and are no copies. This and the single
# trimmed guess of a pair of thumbnails saved a third of the time, and lost no copy in two synthetic crawls.
MAX_PAIRS = 32
MIN_DISTANCE = 3.0  # samples between the corners of two guesses: from nearer ones registration reaches the same place
MAX_LOG_EXTENT_RATIO = 0.6  # largest difference of the logarithms of two extents: a small square is not a large one
SAME_PLACE = 4.0  # samples between the corners of two images under two guesses that mean the same
MAX_SIBLINGS = 2  # pairs of thumbnails of two images that are tried in the best place
MIN_ROUGH_OVERLAP = 0.75  # like `registration.MIN_OVERLAP`, of maps that are not exact yet, at the points of `_GRID`
# Queries whose guesses are in one file, and sorted in memory at once (some 50 MB), and the largest number of files.
ROWS_PER_FILE, MAX_FILES = 2**14, 256

GUESS = np.dtype([("query", np.uint32), ("row", np.uint32), ("score", np.float32), ("transform", np.float32, (2, 3))])
"""A guess: rows of a query and of an image, and the map from the samples of the query to those of the image.

Its score is its support until it is refined, then the score of `registration.register`; more is better.
"""

# Places 8 samples apart all over a thumbnail, and ones; both axes are alike.
_GRID = np.stack([*np.mgrid[4:SIDE:8, 4:SIDE:8].reshape(2, -1), np.ones(64)]).astype(np.float32)
_FLIP = np.array([[-1, 0, SIDE - 1], [0, 1, 0], [0, 0, 1]], np.float32)  # from an image's samples to its mirror image's


class Comparison(Section):
    """Settings that decide which images are compared, and which of them show the same."""

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

    def add(
        self,
        queries: np.ndarray,
        rows: np.ndarray,
        transforms: np.ndarray,
        supports: np.ndarray | float,
        max_log_extent_ratio: float = MAX_LOG_EXTENT_RATIO,
    ) -> None:
        """Add the guesses that are between different images of similar extents.

        Args:
            queries: rows of the queries' thumbnails, `[P]`.
            rows: rows of the images' thumbnails, `[P]`.
            transforms: maps from the queries' samples to those of the images, `[P, 2, 3]`.
            supports: what speaks for each guess, `[P]`, from 0 to 1; see `_choose_supported`.
            max_log_extent_ratio: largest difference of the logarithms of the extents.
        """
        extent_ratios = self.queries.thumbnails.extents[queries] / self.images.thumbnails.extents[rows]
        is_possible = np.abs(np.log(extent_ratios)) <= max_log_extent_ratio
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

        The arguments are those of `add`. If images are compared with each other, no query may be a higher row than its
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
                if level.num_steps and level.side == QUICK_SIDE:
                    guesses = self._choose_thumbnails(guesses)
            yield guesses

    def _choose_thumbnails(self, guesses: np.ndarray) -> np.ndarray:
        """Return guesses that lay those thumbnails on each other that show most of what two images share.

        Two images may match best in other thumbnails, for example without borders. The best guess is carried over to
        all thumbnails of both images, and the `MAX_SIBLINGS` pairs that cover each other best stay. Guesses of other
        places stay as they are, unless their thumbnails hardly overlap.

        Args:
            guesses: guesses, ordered by the samples of both images and by falling score.
        """
        queries, images = self.queries.thumbnails, self.images.thumbnails
        pairs = number_groups(queries.samples[guesses["query"]], images.samples[guesses["row"]])
        firsts = np.flatnonzero(count_before(pairs) == 0)
        image_maps = self._map_images(guesses)
        distances = np.abs((image_maps - image_maps[firsts[pairs]]) @ CORNERS).max(axis=(1, 2))
        has_best_place = distances < SAME_PLACE

        siblings = np.concatenate([guesses[has_best_place], self._list_siblings(guesses[firsts])])
        other_guesses = guesses[~has_best_place]
        other_coverages, _ = self._measure_coverages(other_guesses)
        other_guesses = other_guesses[other_coverages > 0]
        coverages, areas = self._measure_coverages(siblings)
        siblings, coverages, areas = (values[coverages > 0] for values in (siblings, coverages, areas))

        first_samples, second_samples = queries.samples[siblings["query"]], images.samples[siblings["row"]]
        # Among coverages that are equal to a tenth, larger thumbnails show more.
        order = np.lexsort(
            (siblings["row"], siblings["query"], -areas, -coverages.round(1), second_samples, first_samples)
        )
        siblings = siblings[order]
        siblings = siblings[count_before(number_groups(siblings["query"], siblings["row"])) == 0]
        pairs = number_groups(queries.samples[siblings["query"]], images.samples[siblings["row"]])
        return np.concatenate([siblings[count_before(pairs) < MAX_SIBLINGS], other_guesses])

    def _map_images(self, guesses: np.ndarray) -> np.ndarray:
        """Return the maps between whole images, of 64 samples a side, that guesses mean, `[P, 2, 3]`."""
        query_boxes = self.queries.thumbnails.boxes[guesses["query"]]
        boxes = self.images.thumbnails.boxes[guesses["row"]]
        whole = np.broadcast_to(np.array([0, 0, 1, 1], np.float32), boxes.shape)
        from_query = chain_transforms(guesses["transform"], map_boxes(whole, query_boxes))
        return chain_transforms(map_boxes(boxes, whole), from_query)

    def _list_siblings(self, guesses: np.ndarray) -> np.ndarray:
        """Return what guesses say of other thumbnails of the same images."""
        queries, images = self.queries.thumbnails, self.images.thumbnails
        if self.is_self_comparison:
            guesses = guesses[queries.samples[guesses["query"]] != images.samples[guesses["row"]]]
        blocks = [guesses[:0]]
        for query_shift, row_shift in product(range(1 - MAX_THUMBNAILS, MAX_THUMBNAILS), repeat=2):
            if query_shift == row_shift == 0:
                continue
            has_both = queries.have_siblings(guesses["query"], query_shift)
            has_both &= images.have_siblings(guesses["row"], row_shift)
            block = guesses[has_both]
            siblings = block.copy()
            siblings["query"] = block["query"].astype(np.int64) + query_shift
            siblings["row"] = block["row"].astype(np.int64) + row_shift
            to_query = map_boxes(queries.boxes[siblings["query"]], queries.boxes[block["query"]])
            from_row = map_boxes(images.boxes[block["row"]], images.boxes[siblings["row"]])
            siblings["transform"] = chain_transforms(from_row, chain_transforms(block["transform"], to_query))
            blocks.append(siblings)
        return np.concatenate(blocks)

    def _measure_coverages(self, guesses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the share of the other thumbnail that each template covers, and the product of both areas, `[P]` each.

        The share is 0 if they overlap too little to be copies. Areas are shares of the images.
        """
        overlays = Overlays(
            guesses["query"], guesses["row"], guesses["transform"], self.queries.thumbnails, self.images.thumbnails
        )
        places = overlays.transforms @ _GRID  # [P, 2, 64]
        overlaps = ((places > -0.5) & (places < SIDE - 0.5)).all(axis=1).mean(axis=1)
        coverages = overlaps * np.abs(np.linalg.det(overlays.transforms[..., :2]))
        areas = np.ones(len(guesses))
        for thumbnails, rows in ((self.queries.thumbnails, overlays.queries), (self.images.thumbnails, overlays.rows)):
            areas *= np.prod(thumbnails.boxes[rows, 2:] - thumbnails.boxes[rows, :2], axis=1)
        return np.where(overlaps >= MIN_ROUGH_OVERLAP, coverages, 0), areas

    def _limit_work(self, guesses: np.ndarray) -> np.ndarray:
        """Return the guesses of the best `MAX_PAIRS` pairs of each query.

        Trimmed guesses, from which samples were left out as a sticker's, are dropped unless they are the best of their
        pair of thumbnails.

        Args:
            guesses: guesses, ordered by the samples of both images and by falling score.
        """
        query_samples = self.queries.thumbnails.samples[guesses["query"]]
        pairs = number_groups(query_samples, self.images.thumbnails.samples[guesses["row"]])
        is_best_of_pair = count_before(pairs) == 0
        # Without what fits worst nearly anything fits somewhere: 4,000 such guesses behind the best ones led to no
        # further copy. Other thumbnails of the same images may hardly overlap, and fit the better for it.
        is_trimmed = guesses["score"] <= 0  # `register` takes 1 off a trimmed correlation
        thumbnail_pairs = guesses["query"].astype(np.uint64) << np.uint64(32) | guesses["row"]
        is_best_of_thumbnails = np.zeros(len(guesses), bool)
        is_best_of_thumbnails[np.unique(thumbnail_pairs, return_index=True)[1]] = True
        is_useful = is_best_of_thumbnails | ~is_trimmed

        best_guesses = np.flatnonzero(is_best_of_pair)
        best_guesses = best_guesses[np.lexsort((-guesses["score"][best_guesses], query_samples[best_guesses]))]
        num_better_pairs = count_before(number_groups(query_samples[best_guesses]))
        surplus_pairs = pairs[best_guesses[num_better_pairs >= MAX_PAIRS]]
        return guesses[is_useful & ~np.isin(pairs, surplus_pairs)]

    def _register(self, guesses: np.ndarray, level: Level) -> np.ndarray:
        """Return guesses that are refined at a level, without those that fail or lay other hues on each other."""
        blocks = [guesses[:0]]
        for start in range(0, len(guesses), BLOCK):
            block = guesses[start : start + BLOCK].copy()
            overlays = Overlays(
                block["query"], block["row"], block["transform"], self.queries.thumbnails, self.images.thumbnails
            )
            templates, images = overlays.pick_pixels(self.queries.pyramid[level.side], self.images.pyramid[level.side])
            transforms, block["score"] = register(templates, images, overlays.transforms, level)
            passes = (block["score"] > FAILED) & is_plausible(transforms, overlays.aspects, level.slack)
            block["transform"] = overlays.invert_swapped(transforms)
            block = block[passes]
            # Hues are compared last, because they need a map that is nearly right.
            blocks.append(block[~self._have_other_hues(block, level.min_hue_agreement)])
        return np.concatenate(blocks)

    def _have_other_hues(self, guesses: np.ndarray, min_agreement: float) -> np.ndarray:
        """Return which guesses lay images of other hues on each other, `[P]` bool; see `hues.have_other_hues`."""
        overlays = Overlays(
            guesses["query"], guesses["row"], guesses["transform"], self.queries.thumbnails, self.images.thumbnails
        )
        templates, images = overlays.pick_pixels(self.queries.thumbnails.colours, self.images.thumbnails.colours)
        return have_other_hues(templates, images, overlays.transforms, min_agreement)

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
    """Guesses, inverted where needed so that they map the image that shows less, the template, to the other one.

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
        self.transforms = self.invert_swapped(transforms)
        self.aspects = np.stack([query_thumbnails.shapes[queries], image_thumbnails.shapes[rows]], axis=1)
        self.aspects[self.is_swapped] = self.aspects[self.is_swapped, ::-1]

    def pick_pixels(self, query_pixels: np.ndarray, image_pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the luminances, or the colours, of the templates and of the other images, `[P, S, S, ...]` float32.

        Args:
            query_pixels: those of all thumbnails of the queries, `[N, S, S, ...]`.
            image_pixels: those of all thumbnails of the images, `[M, S, S, ...]`.
        """
        templates = query_pixels[self.queries].astype(np.float32)
        images = image_pixels[self.rows].astype(np.float32)
        templates[self.is_swapped], images[self.is_swapped] = images[self.is_swapped], templates[self.is_swapped]
        return templates, images

    def invert_swapped(self, transforms: np.ndarray) -> np.ndarray:
        """Invert the maps of swapped guesses: query-to-image maps become template-to-other maps, or the reverse."""
        inverted = transforms.copy()
        inverted[self.is_swapped] = invert_transforms(inverted[self.is_swapped])
        return inverted


def map_boxes(boxes: np.ndarray, other_boxes: np.ndarray) -> np.ndarray:
    """Return the maps from the samples of thumbnails to those of others, as if both were of one image, `[P, 2, 3]`.

    Args:
        boxes: boxes of the thumbnails in their images, `[P, 4]`.
        other_boxes: boxes of the others.
    """
    sizes, other_sizes = boxes[:, 2:] - boxes[:, :2], other_boxes[:, 2:] - other_boxes[:, :2]
    scales = sizes / other_sizes  # [P, 2]
    maps = np.zeros((len(boxes), 2, 3), np.float32)
    maps[:, 0, 0], maps[:, 1, 1] = scales.T
    # The centre of sample 0 is half a sample from the corner.
    maps[:, :, 2] = SIDE * (boxes[:, :2] - other_boxes[:, :2]) / other_sizes + 0.5 * scales - 0.5
    return maps


def chain_transforms(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Return the affine maps, `[P, 2, 3]`, that apply the inner ones and then the outer ones."""
    chained = outer[:, :, :2] @ inner
    chained[:, :, 2] += outer[:, :, 2]
    return chained


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
        agrees &= better["score"] < WHOLE_SUPPORT  # only guesses of features support each other
        supports[shift:] += agrees
        supports[:-shift] += agrees

    order = np.lexsort((-supports, pairs))
    is_chosen = (supports[order] >= MIN_SUPPORT) & (count_before(pairs[order]) < MAX_CHECKED)
    # Whole-image guesses always stay: features of a symmetric image would fill all places with its turns.
    is_chosen |= guesses["score"][order] >= WHOLE_SUPPORT
    return guesses[order[is_chosen]]


def make_guesses(
    images: ThumbnailIndex, queries: ThumbnailIndex, comparison: Comparison, with_turns: bool
) -> GuessFiles:
    """Return guesses of how queries lie in images, or images in each other.

    Args:
        images: images.
        queries: what they are compared with; the same object if it is the images themselves.
        comparison: thresholds of the comparison.
        with_turns: also guess from turned vectors and mirrored features; other features find turned images anyway.
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
        # In a self-comparison the first call has already tried each pair both ways.
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
    # Keypoints have angles, so that only mirrored images need features of their own. They stand behind the others, so
    # that the cells of the descriptors are learnt once for both.
    num_features = len(queries.feature_rows)
    query_descriptors = descriptors if guesses.is_self_comparison else queries.project(projection, is_mirrored=False)
    if with_turns:
        unmirrored_descriptors = query_descriptors
        query_descriptors = allocate(images.folder, np.float16, (2 * num_features, COMPONENTS))
        query_descriptors[:num_features] = unmirrored_descriptors
        query_descriptors[num_features:] = queries.project(projection, is_mirrored=True)
    for pairs in neighbours(descriptors, MIN_FEATURE_COSINE, query_descriptors, MAX_FEATURE_NEIGHBOURS, images.folder):
        is_mirrored = pairs.queries >= num_features
        _add_shared_features(guesses, pairs.of(~is_mirrored), is_mirrored=False)
        mirrored_pairs = pairs.of(is_mirrored)
        mirrored_pairs = mirrored_pairs._replace(queries=mirrored_pairs.queries - num_features)
        _add_shared_features(guesses, mirrored_pairs, is_mirrored=True)


def _add_shared_features(guesses: GuessFiles, pairs: Neighbours, is_mirrored: bool) -> None:
    """Add the guesses of pairs of a feature of a query, or of the mirrored query, and one of an image."""
    images, queries = guesses.images, guesses.queries
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
    supports = pairs.cosines.clip(max=0.99)  # less than WHOLE_SUPPORT, which marks guesses of whole images
    guesses.add(query_rows, rows, transforms, supports)
