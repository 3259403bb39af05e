"""Which vectors are near each other, among millions on the disk: cells around centroids, exact products within them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

EXACT = 20_000  # vectors up to which every pair is looked at
PROBES = 6  # cells in which a vector is looked for
OF_A_CELL = 64  # vectors that a centroid is learnt from
QUERIES = 4_000_000  # whose cells are known at once
BLOCK = 4096
PAIRS = 100_000  # that are given at once


class Neighbours(NamedTuple):
    """Pairs: rows of the queries, rows of the vectors, `[P]` int64, and their cosines, `[P]` float32."""

    queries: np.ndarray
    rows: np.ndarray
    cosines: np.ndarray

    def of(self, chosen: np.ndarray) -> Neighbours:
        """The pairs that are chosen, `[P]` bool."""
        return Neighbours(*(values[chosen] for values in self))


def neighbours(vectors: np.ndarray, least: float, queries: np.ndarray | None = None) -> Iterator[Neighbours]:
    """All pairs of a query and a vector whose cosine is at least `least`; among many, nearly all of them.

    Of more than `EXACT` vectors, those are found that lie in one of the `PROBES` cells that are nearest to the query: a
    memory of some cells is enough, whatever the number of vectors.

    Args:
        vectors: `[N, D]` float of length 1, in memory or mapped from a file.
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
    """The nearest cells of each vector, `[N, probes]` int32."""
    import faiss

    index = faiss.IndexFlatIP(centroids.shape[1])
    index.add(centroids)
    found = np.empty((len(vectors), probes), np.int32)
    for start in range(0, len(vectors), 8 * BLOCK):
        block = np.ascontiguousarray(vectors[start : start + 8 * BLOCK], np.float32)
        found[start : start + 8 * BLOCK] = index.search(block, probes)[1]
    return found
