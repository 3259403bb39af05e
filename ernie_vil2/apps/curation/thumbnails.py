"""Thumbnails of many images on the disk, and the pairs of them that show the same.

Candidates are near each other by their vectors: cells around centroids, exact products within them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import Field

from ernie_vil2.apps.curation import likeness
from ernie_vil2.apps.curation.joins import Joins
from ernie_vil2.section import Fraction, Section

EXACT = 20_000  # vectors up to which every pair is looked at
PROBES = 6  # cells in which a vector is looked for
OF_A_CELL = 64  # vectors that a centroid is learnt from
QUERIES = 4_000_000  # whose cells are known at once
BLOCK = 4096
PAIRS = 100_000  # that are given at once


class Thumbnails(NamedTuple):
    """N of images, one or two of each, in files that are mapped.

    samples: `[N]` int64, what each is of.
    thumbnails: `[N, likeness.BYTES]` uint8.
    vectors: `[N, likeness.WIDTH]` float16.
    shapes, extents: `[N]` float32, as of `likeness.Thumbnail`.
    """

    samples: np.ndarray
    thumbnails: np.ndarray
    vectors: np.ndarray
    shapes: np.ndarray
    extents: np.ndarray


class Alike(NamedTuple):
    """Pairs of thumbnails of images that show the same: rows, and how alike they are; `[P]` each."""

    queries: np.ndarray
    rows: np.ndarray
    likeness: np.ndarray


def alive_thumbnails(joins: Joins) -> Thumbnails:
    """Those of the pairs that are alive, in the folder of the joins."""
    count = joins.fetch_all("select coalesce(sum(len(thumbnail)), 0)::bigint from alive")[0][0]
    kinds: list[tuple[type, tuple[int, ...]]] = [
        (np.int64, ()),
        (np.uint8, (likeness.BYTES,)),
        (np.float16, (likeness.WIDTH,)),
        (np.float32, ()),
        (np.float32, ()),
    ]
    made = Thumbnails(*(_on_disk(joins.folder, kind, (count, *shape)) for kind, shape in kinds))
    listed = ", ".join(f"unnest({column}) as {column}" for column in likeness.COLUMNS)
    first = 0
    for batch in joins.read_batches(f"select sample, {listed} from alive order by sample"):  # noqa: S608  -- no text of the data is in it
        rows = slice(first, first + len(batch))
        values = np.frombuffer(b"".join(batch["thumbnail"].to_pylist()), np.uint8).reshape(len(batch), -1)
        made.thumbnails[rows], made.vectors[rows] = values, likeness.vectors(values)
        for part, column in ((made.samples, "sample"), (made.shapes, "shape"), (made.extents, "extent")):
            part[rows] = batch[column].to_numpy()
        first += len(batch)
    return made


def _on_disk(folder: Path, kind: type, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array in a file without a name, which is deleted with it."""
    if not shape[0]:
        return np.zeros(shape, kind)  # of size 0 there is no map
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, kind, "w+", shape=shape)


class Comparison(Section):
    """When two images show the same."""

    candidates: Fraction = Field(0.85, description="least cosine of the vectors of two images that are compared")
    likeness: Fraction = Field(0.95, description="from which two images show the same; 1: they are equal")
    crops: bool = Field(True, description="also compare images with crops of each other, by up to a tenth")


def alike(
    found: Thumbnails, folder: Path, by: Comparison, queries: Thumbnails | None = None, mirror: bool = False
) -> Iterator[Alike]:
    """Yield pairs of images that show the same, each once or several times.

    Args:
        found: images.
        folder: folder for the vectors of the queries.
        by: thresholds of the comparison.
        queries: other images to compare with; None: the images themselves.
        mirror: compare with the mirrored queries.
    """
    asked = found if queries is None else queries
    if not len(asked.samples) or not len(found.samples):
        return
    count = likeness.WINDOWS if by.crops else 1
    for near in neighbours(found.vectors, by.candidates, _asking(asked.thumbnails, folder, by.crops, mirror)):
        one, other = np.unique(np.stack([near.queries // count, near.rows]), axis=1)
        shapes = np.stack([asked.shapes[one], found.shapes[other]])
        close = likeness.comparable(shapes, np.stack([asked.extents[one], found.extents[other]]))
        if queries is None:
            close &= asked.samples[one] != found.samples[other]
        one, other = one[close], other[close]
        first, stretch = asked.thumbnails[one], np.log(shapes[1] / shapes[0])[close]
        first = likeness.mirrored(first) if mirror else first
        value = likeness.likeness(first, found.thumbnails[other], stretch, by.crops)
        same = value >= by.likeness
        if same.any():
            yield Alike(one[same], other[same], value[same])


def _asking(thumbnails: np.ndarray, folder: Path, crops: bool, mirror: bool) -> np.ndarray:
    """Return the vectors of images, or of all windows of each, one after another."""
    made = _on_disk(folder, np.float16, (len(thumbnails), likeness.WINDOWS if crops else 1, likeness.WIDTH))
    for start in range(0, len(thumbnails), likeness.BLOCK):
        block = thumbnails[start : start + likeness.BLOCK]
        block = likeness.mirrored(block) if mirror else block
        made[start : start + len(block)] = likeness.windows(block) if crops else likeness.vectors(block)[:, None]
    return made.reshape(-1, likeness.WIDTH)


class Neighbours(NamedTuple):
    """Pairs: rows of the queries, rows of the vectors, `[P]` int64, and their cosines, `[P]` float32."""

    queries: np.ndarray
    rows: np.ndarray
    cosines: np.ndarray

    def of(self, chosen: np.ndarray) -> Neighbours:
        """Return the chosen pairs; `chosen` is `[P]` bool."""
        return Neighbours(*(values[chosen] for values in self))


def neighbours(vectors: np.ndarray, least: float, queries: np.ndarray | None = None) -> Iterator[Neighbours]:
    """Yield the pairs of a query and a vector whose cosine is at least `least`; of many vectors, nearly all pairs.

    Of more than `EXACT` vectors, those are found that lie in one of the `PROBES` cells that are nearest to the query: a
    memory of some cells is enough, whatever the number of vectors.

    Args:
        vectors: `[N, D]` float of length 1, in memory or mapped from a file.
        least: smallest cosine of a pair.
        queries: `[M, D]`; None: the vectors themselves, of which each pair is given once or twice.
    """
    own = queries is None
    asked = vectors if queries is None else queries
    if len(vectors) <= EXACT:
        whole = np.asarray(vectors, np.float32)
        for start in range(0, len(asked), BLOCK):
            asks = np.arange(start, min(start + BLOCK, len(asked)))
            for found in _near(asked, asks, whole, np.arange(len(whole)), least):
                yield found.of(found.queries < found.rows) if own else found
        return
    centroids = _centroids(vectors)
    probed = _cells(vectors, centroids, PROBES if own else 1)
    order = np.argsort(probed[:, 0], kind="stable")
    ends = np.cumsum(np.bincount(probed[:, 0], minlength=len(centroids)))
    for first in range(0, len(asked), len(asked) if own else QUERIES):
        if queries is not None:
            probed = _cells(queries[first : first + QUERIES], centroids, PROBES)
        asking = np.argsort(probed.ravel(), kind="stable")
        asking_ends = np.cumsum(np.bincount(probed.ravel(), minlength=len(centroids)))
        for cell in range(len(centroids)):
            rows = order[ends[cell - 1] if cell else 0 : ends[cell]]
            asks = first + asking[asking_ends[cell - 1] if cell else 0 : asking_ends[cell]] // PROBES
            if not len(rows):
                continue
            whole = np.asarray(vectors[rows], np.float32)
            for start in range(0, len(asks), BLOCK):
                for found in _near(asked, asks[start : start + BLOCK], whole, rows, least):
                    yield found.of(found.queries != found.rows) if own else found


def _near(
    asked: np.ndarray, asks: np.ndarray, whole: np.ndarray, rows: np.ndarray, least: float
) -> Iterator[Neighbours]:
    cosines = np.asarray(asked[asks], np.float32) @ whole.T
    near = np.nonzero(cosines >= least)
    for start in range(0, len(near[0]), PAIRS):
        one, other = (part[start : start + PAIRS] for part in near)
        yield Neighbours(asks[one], rows[other], cosines[one, other])


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
