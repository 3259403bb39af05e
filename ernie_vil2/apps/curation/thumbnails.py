"""Thumbnails of many images on the disk, and the pairs of them that show the same.

Three things propose a pair: whole images whose vectors are near, in any of eight orientations; the same without a bar
or a frame of one of them; and local features that two images share. Each proposal is a guess of how one image lies in
the other; registration decides.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pydantic import Field

from ernie_vil2.apps.curation import likeness
from ernie_vil2.apps.curation.joins import Joins
from ernie_vil2.apps.curation.local_features import Features, find_features, guess_transforms, learn_projection
from ernie_vil2.apps.curation.registration import MIN_QUICK, SIDE, Verdict, View, check_guess, compare, make_view
from ernie_vil2.section import Fraction, Section

EXACT = 20_000  # vectors up to which every pair is looked at
PROBES = 6  # cells in which a vector is looked for
OF_A_CELL = 64  # vectors that a centroid is learnt from
QUERIES = 4_000_000  # whose cells are known at once
BLOCK = 4096
PAIRS = 100_000  # that are given at once
MIN_FEATURE_COSINE = 0.7  # of projected descriptors; 0.6 proposes four times as many pairs and no more copies
# Nearest ones of a cell that a vector, or a feature, is compared with. Where more are as near, as of a corner on a
# white ground, it says nothing.
MOST_NEAREST = 8
MIN_WHOLE_CORRELATION = 0.85  # of 16 x 16 samples of whole images; a guess of a feature is less exact
MAX_GUESSES = 4  # of a pair and batch that are checked
# Correlation of a guess from which a pair needs no others. A symmetrical face reaches 0.98 with its mirror image, whose
# details then differ.
SURE = 0.99
MAX_TRIES = 2  # guesses of a pair that are registered
EXTENT = 0.6  # by which the logarithms of two extents may differ: a small square is not a large one
CACHED_VIEWS = 4096  # 22 kB each


class Thumbnails(NamedTuple):
    """N of images, one or two of each, in files that are mapped.

    samples: `[N]` int64, what each is of.
    thumbnails: `[N, likeness.BYTES]` uint8.
    shapes, extents: `[N]` float32, as of `likeness.Thumbnail`.
    """

    samples: np.ndarray
    thumbnails: np.ndarray
    shapes: np.ndarray
    extents: np.ndarray

    @property
    def luminances(self) -> np.ndarray:
        """Luminances, `[N, 64, 64]` uint8."""
        return self.thumbnails[:, : SIDE * SIDE].reshape(-1, SIDE, SIDE)


class Alike(NamedTuple):
    """Pairs of thumbnails of images that show the same: rows, and how they are alike; `[P]` each.

    queries, rows: numbers of the thumbnails.
    likeness, is_local, is_turned, worse: as of `registration.Verdict`; the query is the first image.
    """

    queries: np.ndarray
    rows: np.ndarray
    likeness: np.ndarray
    is_local: np.ndarray
    is_turned: np.ndarray
    worse: np.ndarray

    def choose(self, chosen: np.ndarray) -> Alike:
        """Return the chosen pairs; `chosen` is `[P]` bool."""
        return Alike(*(values[chosen] for values in self))


def alive_thumbnails(joins: Joins) -> Thumbnails:
    """Return those of the pairs that are alive, in the folder of the joins."""
    count = joins.fetch_all("select coalesce(sum(len(thumbnail)), 0)::bigint from alive")[0][0]
    kinds: list[tuple[type, tuple[int, ...]]] = [
        (np.int64, ()),
        (np.uint8, (likeness.BYTES,)),
        (np.float32, ()),
        (np.float32, ()),
    ]
    images = Thumbnails(*(_on_disk(joins.folder, kind, (count, *shape)) for kind, shape in kinds))
    listed = ", ".join(f"unnest({column}) as {column}" for column in likeness.COLUMNS)
    first = 0
    for batch in joins.read_batches(f"select sample, {listed} from alive order by sample"):  # noqa: S608  -- no text of the data is in it
        rows = slice(first, first + len(batch))
        contents = b"".join(batch["thumbnail"].to_pylist())
        images.thumbnails[rows] = np.frombuffer(contents, np.uint8).reshape(len(batch), -1)
        for values, column in ((images.samples, "sample"), (images.shapes, "shape"), (images.extents, "extent")):
            values[rows] = batch[column].to_numpy()
        first += len(batch)
    return images


def _on_disk(folder: Path, kind: type, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array in a file without a name, which is deleted with it."""
    if not shape[0]:
        return np.zeros(shape, kind)  # of size 0 there is no map
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, kind, "w+", shape=shape)


class Comparison(Section):
    """When two images show the same."""

    candidates: Fraction = Field(0.85, description="least cosine of the vectors of two whole images that are compared")
    likeness: Fraction = Field(
        0.95, description="least correlation of two images that show the same, once light and colour are fitted"
    )
    crops: bool = Field(
        True, description="also compare images with crops of each other, to 60 % of a side, and with bars or stickers"
    )


class _Guesses:
    """Guesses of how images lie in each other, the best ones of each pair of thumbnails."""

    def __init__(self, images: Thumbnails, queries: Thumbnails | None, folder: Path):
        self.images = images
        self.queries = images if queries is None else queries
        self._is_own = queries is None
        self._views = [lru_cache(CACHED_VIEWS)(_view_reader(side)) for side in (self.queries, self.images)]
        self._best: dict[tuple[int, int], list[tuple[float, np.ndarray]]] = {}

    def add(self, queries: np.ndarray, rows: np.ndarray, transforms: np.ndarray, least: float) -> None:
        """Add guesses: rows of both, and maps from a query's samples to those of the image, `[P, 2, 3]`."""
        for query, row, transform in zip(queries.tolist(), rows.tolist(), transforms, strict=True):
            if self._is_own:
                if self.images.samples[query] == self.images.samples[row]:
                    continue
                if query > row:
                    query, row, transform = row, query, cv2.invertAffineTransform(transform)
            if abs(np.log(self.queries.extents[query] / self.images.extents[row])) > EXTENT:
                continue
            guesses = self._best.get((query, row), [])
            if len(guesses) >= MAX_TRIES and guesses[0][0] > SURE:
                continue
            correlation = self._check(query, row, transform)
            if correlation >= least:
                guesses = sorted([*guesses, (correlation, transform)], key=lambda guess: -guess[0])
                self._best[query, row] = guesses[:MAX_TRIES]

    def _check(self, query: int, row: int, transform: np.ndarray) -> float:
        template, image, transform = self._order(query, row, transform)
        return check_guess(template, image, transform)

    def _order(self, query: int, row: int, transform: np.ndarray) -> tuple[View, View, np.ndarray]:
        """Return the image that shows less as the template, the other one, and the map between them."""
        first, second = self._views[0](query), self._views[1](row)
        if abs(np.linalg.det(transform[:, :2])) > 1:
            return second, first, cv2.invertAffineTransform(transform).astype(np.float32)
        return first, second, transform.astype(np.float32)

    def _aspects(self, query: int, row: int, transform: np.ndarray) -> tuple[float, float]:
        aspects = float(self.queries.shapes[query]), float(self.images.shapes[row])
        return aspects[::-1] if abs(np.linalg.det(transform[:, :2])) > 1 else aspects

    def judge(self, min_likeness: float) -> Iterator[Alike]:
        """Yield the pairs that show the same."""
        columns: list[list] = [[] for _ in Alike._fields]
        for query, row in sorted(self._best):
            verdict = self._judge_pair(query, row, min_likeness)
            if verdict is not None:
                for column, value in zip(columns, (query, row, *verdict), strict=True):
                    column.append(value)
        kinds = (np.int64, np.int64, np.float32, bool, bool, np.int8)
        yield Alike(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))

    def _judge_pair(self, query: int, row: int, min_likeness: float) -> Verdict | None:
        """Return the verdict of the first guess under which images differ nowhere, or else of the first that fits."""
        chosen: Verdict | None = None
        for _, transform in self._best[query, row]:
            verdict = compare(*self._order(query, row, transform), self._aspects(query, row, transform))
            if verdict is None or verdict.likeness < min_likeness:
                continue
            if abs(np.linalg.det(transform[:, :2])) > 1:  # the query was not the template
                verdict = verdict._replace(worse=-verdict.worse)
            if not verdict.is_local:
                return verdict
            chosen = chosen or verdict
        return chosen


def _view_reader(images: Thumbnails) -> Callable[[int], View]:
    def read(row: int) -> View:
        return make_view(*likeness.split_thumbnail(images.thumbnails[row]))

    return read


def alike(
    images: Thumbnails, folder: Path, by: Comparison, queries: Thumbnails | None = None, turned: bool = True
) -> Iterator[Alike]:
    """Yield pairs of images that show the same, each once.

    Args:
        images: images.
        folder: folder for the vectors of the queries.
        by: thresholds of the comparison.
        queries: other images to compare with; None: the images themselves.
        turned: also find images that are mirrored or turned by quarters.
    """
    num_queries = len(images.samples if queries is None else queries.samples)
    if not num_queries or not len(images.samples):
        return
    guesses = _Guesses(images, queries, folder)
    _guess_by_vectors(guesses, folder, by, turned)
    if by.crops:
        _guess_by_features(guesses, turned)
    for matches in guesses.judge(by.likeness):
        yield matches if turned else matches.choose(~matches.is_turned)


def _guess_by_vectors(guesses: _Guesses, folder: Path, by: Comparison, turned: bool) -> None:
    """Add the guesses that whole images are the same."""
    vectors = _make_vectors(guesses.images, folder)
    is_own = guesses.queries is guesses.images
    query_vectors = vectors if is_own else _make_vectors(guesses.queries, folder)
    if by.crops:
        _guess_by_windows(guesses, vectors, query_vectors, by.candidates)
    for orientation in range(likeness.ORIENTATIONS if turned else 1):
        oriented = likeness.turn_vectors(query_vectors, orientation)
        transform = likeness.transform_of(orientation)  # of the oriented query's samples to the query's
        back = cv2.invertAffineTransform(transform)
        for near in neighbours(vectors, by.candidates, oriented, MOST_NEAREST):
            transforms = np.broadcast_to(back, (len(near.queries), 2, 3))
            guesses.add(near.queries, near.rows, transforms, MIN_WHOLE_CORRELATION)


def _guess_by_windows(guesses: _Guesses, vectors: np.ndarray, query_vectors: np.ndarray, least: float) -> None:
    """Add the guesses that an image is another one without a bar or a frame."""
    for window in likeness.WINDOWS:
        transform = likeness.transform_of_window(window)  # of the window's samples to the image's
        for near in neighbours(vectors, least, _make_window_vectors(guesses.queries, window), MOST_NEAREST):
            back = cv2.invertAffineTransform(transform)
            guesses.add(
                near.queries, near.rows, np.broadcast_to(back, (len(near.queries), 2, 3)), MIN_WHOLE_CORRELATION
            )
        if guesses.queries is guesses.images:
            continue
        for near in neighbours(_make_window_vectors(guesses.images, window), least, query_vectors, MOST_NEAREST):
            into = np.broadcast_to(transform, (len(near.queries), 2, 3))
            guesses.add(near.queries, near.rows, into, MIN_WHOLE_CORRELATION)


def _make_window_vectors(images: Thumbnails, window: likeness.Window) -> np.ndarray:
    return likeness.make_vectors(images.luminances[:, window.top : window.bottom, window.left : window.right]).astype(
        np.float16
    )


def _make_vectors(images: Thumbnails, folder: Path) -> np.ndarray:
    vectors = _on_disk(folder, np.float16, (len(images.samples), likeness.WIDTH))  # exact enough for candidates
    for start in range(0, len(vectors), BLOCK):
        vectors[start : start + BLOCK] = likeness.make_vectors(images.luminances[start : start + BLOCK])
    return vectors


def _guess_by_features(guesses: _Guesses, turned: bool) -> None:
    """Add the guesses of features that two images share."""
    rows = _first_of_samples(guesses.images)
    features = find_features(guesses.images.luminances[row] for row in rows)
    if guesses.queries is guesses.images:
        query_rows, query_features = rows, features
    else:
        query_rows = _first_of_samples(guesses.queries)
        query_features = find_features(guesses.queries.luminances[row] for row in query_rows)
    if not len(features.owners) or not len(query_features.owners):
        return
    projection = learn_projection(features.descriptors)
    descriptors = projection.apply(features.descriptors)
    flip = np.array([[-1, 0, SIDE - 1], [0, 1, 0], [0, 0, 1]], np.float32)
    for is_mirrored in (False, True) if turned else (False,):
        asking = query_features.mirror() if is_mirrored else query_features
        for near in neighbours(descriptors, MIN_FEATURE_COSINE, projection.apply(asking.descriptors), MOST_NEAREST):
            near = _drop_own_features(near, asking, features) if query_rows is rows else near
            transforms, is_plausible = guess_transforms(asking.keypoints[near.queries], features.keypoints[near.rows])
            near, transforms = near.of(is_plausible), transforms[is_plausible]
            if is_mirrored:  # from the query's samples, not from those of its mirror image
                transforms = transforms @ flip
            chosen = _choose_guesses(asking.owners[near.queries], features.owners[near.rows], near.cosines)
            query_owners, owners = asking.owners[near.queries[chosen]], features.owners[near.rows[chosen]]
            guesses.add(query_rows[query_owners], rows[owners], transforms[chosen], MIN_QUICK)


def _first_of_samples(images: Thumbnails) -> np.ndarray:
    """Return the row of the first thumbnail of each image, which shows most of it."""
    return np.unique(images.samples, return_index=True)[1]


def _drop_own_features(near: Neighbours, queries: Features, features: Features) -> Neighbours:
    return near.of(queries.owners[near.queries] != features.owners[near.rows])


def _choose_guesses(queries: np.ndarray, rows: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    """Return the numbers of the best guesses of each pair of a query and a row."""
    order = np.lexsort((-cosines, rows, queries))
    is_new = np.ones(len(order), bool)
    is_new[1:] = (queries[order][1:] != queries[order][:-1]) | (rows[order][1:] != rows[order][:-1])
    starts = np.flatnonzero(is_new)
    ranks = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return order[ranks < MAX_GUESSES]


class Neighbours(NamedTuple):
    """Pairs: rows of the queries, rows of the vectors, `[P]` int64, and their cosines, `[P]` float32."""

    queries: np.ndarray
    rows: np.ndarray
    cosines: np.ndarray

    def of(self, chosen: np.ndarray) -> Neighbours:
        """Return the chosen pairs; `chosen` is `[P]` bool."""
        return Neighbours(*(values[chosen] for values in self))


def neighbours(
    vectors: np.ndarray, least: float, queries: np.ndarray | None = None, most: int | None = None
) -> Iterator[Neighbours]:
    """Yield the pairs of a query and a vector whose cosine is at least `least`; of many vectors, nearly all pairs.

    Of more than `EXACT` vectors, those are found that lie in one of the `PROBES` cells that are nearest to the query: a
    memory of some cells is enough, whatever the number of vectors.

    Args:
        vectors: `[N, D]` float of length 1, in memory or mapped from a file.
        least: smallest cosine of a pair.
        queries: `[M, D]`; None: the vectors themselves, of which each pair is given once or twice.
        most: number of vectors of a cell, the nearest ones, that a query is paired with; None: all.
    """
    is_own = queries is None
    query_vectors = vectors if queries is None else queries
    if len(vectors) <= EXACT:
        whole = np.asarray(vectors, np.float32)
        for start in range(0, len(query_vectors), BLOCK):
            numbers = np.arange(start, min(start + BLOCK, len(query_vectors)))
            for near in _near(query_vectors, numbers, whole, np.arange(len(whole)), least, most):
                yield near.of(near.queries < near.rows) if is_own else near
        return
    centroids = _centroids(vectors)
    probed = _cells(vectors, centroids, PROBES if is_own else 1)
    order = np.argsort(probed[:, 0], kind="stable")
    ends = np.cumsum(np.bincount(probed[:, 0], minlength=len(centroids)))
    for first in range(0, len(query_vectors), len(query_vectors) if is_own else QUERIES):
        if queries is not None:
            probed = _cells(queries[first : first + QUERIES], centroids, PROBES)
        asking = np.argsort(probed.ravel(), kind="stable")
        asking_ends = np.cumsum(np.bincount(probed.ravel(), minlength=len(centroids)))
        for cell in range(len(centroids)):
            rows = order[ends[cell - 1] if cell else 0 : ends[cell]]
            numbers = first + asking[asking_ends[cell - 1] if cell else 0 : asking_ends[cell]] // PROBES
            if not len(rows):
                continue
            whole = np.asarray(vectors[rows], np.float32)
            for start in range(0, len(numbers), BLOCK):
                for near in _near(query_vectors, numbers[start : start + BLOCK], whole, rows, least, most):
                    yield near.of(near.queries != near.rows) if is_own else near


def _near(
    query_vectors: np.ndarray, numbers: np.ndarray, whole: np.ndarray, rows: np.ndarray, least: float, most: int | None
) -> Iterator[Neighbours]:
    cosines = np.asarray(query_vectors[numbers], np.float32) @ whole.T
    is_near = cosines >= least
    if most is not None:
        for row in np.flatnonzero(is_near.sum(axis=1) > most):
            is_near[row] &= cosines[row] >= np.partition(cosines[row], -most)[-most]
    near = np.nonzero(is_near)
    for start in range(0, len(near[0]), PAIRS):
        chosen_queries, chosen_rows = near[0][start : start + PAIRS], near[1][start : start + PAIRS]
        yield Neighbours(numbers[chosen_queries], rows[chosen_rows], cosines[chosen_queries, chosen_rows])


def _centroids(vectors: np.ndarray) -> np.ndarray:
    import faiss

    cells = int(2 * np.sqrt(len(vectors)))
    rng = np.random.default_rng(0)
    sample = np.sort(rng.choice(len(vectors), min(len(vectors), OF_A_CELL * cells), replace=False))
    learnt = faiss.Kmeans(vectors.shape[1], cells, niter=8, seed=0, spherical=True, max_points_per_centroid=OF_A_CELL)
    learnt.train(np.asarray(vectors[sample], np.float32))
    return learnt.centroids


def _cells(vectors: np.ndarray, centroids: np.ndarray, probes: int) -> np.ndarray:
    """Return the nearest cells of each vector, `[N, probes]` int32."""
    import faiss

    index = faiss.IndexFlatIP(centroids.shape[1])
    index.add(centroids)
    found = np.empty((len(vectors), probes), np.int32)
    for start in range(0, len(vectors), 8 * BLOCK):
        block = np.ascontiguousarray(vectors[start : start + 8 * BLOCK], np.float32)
        found[start : start + 8 * BLOCK] = index.search(block, probes)[1]
    return found
