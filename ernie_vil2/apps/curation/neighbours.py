"""Pairs of near vectors, among more vectors than fit into memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
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
        """Return the chosen pairs; `chosen` is `[P]` bool."""
        return Neighbours(*(values[chosen] for values in self))


def allocate(folder: Path | None, kind: np.dtype | type, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of zeros in a file without a name, which is deleted with it; in memory if there is no folder."""
    if folder is None or not shape[0]:  # of size 0 there is no map
        return np.zeros(shape, kind)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, kind, "w+", shape=shape)


def neighbours(
    vectors: np.ndarray,
    least: float,
    queries: np.ndarray | None = None,
    most: int | None = None,
    folder: Path | None = None,
) -> Iterator[Neighbours]:
    """Yield the pairs of a query and a vector whose cosine is at least `least`; of many vectors, nearly all pairs.

    Of more than `EXACT` vectors, those are found that lie in one of the `PROBES` cells that are nearest to the query: a
    memory of some cells is enough, whatever the number of vectors.

    Args:
        vectors: `[N, D]` float of length 1, in memory or mapped from a file.
        least: smallest cosine of a pair.
        queries: `[M, D]`; None: the vectors themselves, of which each pair is given once or twice.
        most: number of vectors of a cell, the nearest ones, that a query is paired with; None: all.
        folder: folder for the cells of the vectors; None: memory.
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
    cells = _find_cells(vectors, centroids, PROBES if is_own else 1, folder)
    order, ends = _group_by_cell(cells[:, :1], len(centroids), folder)
    for first in range(0, len(query_vectors), len(query_vectors) if is_own else QUERIES):
        if queries is not None:
            cells = _find_cells(queries[first : first + QUERIES], centroids, PROBES, folder)
        asking, asking_ends = _group_by_cell(cells, len(centroids), folder)
        for cell in range(len(centroids)):
            rows = order[ends[cell] : ends[cell + 1]].astype(np.int64)
            numbers = first + asking[asking_ends[cell] : asking_ends[cell + 1]].astype(np.int64)
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


def _find_cells(vectors: np.ndarray, centroids: np.ndarray, probes: int, folder: Path | None) -> np.ndarray:
    """Return the nearest cells of each vector, `[N, probes]` int32."""
    import faiss

    index = faiss.IndexFlatIP(centroids.shape[1])
    index.add(centroids)
    cells = allocate(folder, np.int32, (len(vectors), probes))
    for start in range(0, len(vectors), 8 * BLOCK):
        block = np.ascontiguousarray(vectors[start : start + 8 * BLOCK], np.float32)
        cells[start : start + 8 * BLOCK] = index.search(block, probes)[1]
    return cells


def _group_by_cell(cells: np.ndarray, num_cells: int, folder: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of each cell.

    Args:
        cells: cells of each row, `[N, K]` int32.
        num_cells: number of all cells.
        folder: folder for the rows; None: memory.

    Returns:
        Rows ordered by cell, `[N * K]` uint32, and where each cell begins and the last one ends, `[num_cells + 1]`.
    """
    size = 64 * BLOCK  # rows at a time, because a sort of all rows needs several times their memory
    counts = np.zeros(num_cells, np.int64)
    for start in range(0, len(cells), size):
        counts += np.bincount(cells[start : start + size].ravel(), minlength=num_cells)
    ends = np.concatenate([[0], np.cumsum(counts)])
    grouped = allocate(folder, np.uint32, (cells.size,))
    next_places = ends[:-1].copy()
    for start in range(0, len(cells), size):
        block = cells[start : start + size].ravel()
        order = np.argsort(block, kind="stable")
        sorted_cells = block[order]
        block_counts = np.bincount(block, minlength=num_cells)
        firsts = np.cumsum(block_counts) - block_counts
        places = next_places[sorted_cells] + np.arange(len(block)) - firsts[sorted_cells]
        grouped[places] = start + order // cells.shape[1]
        next_places += block_counts
    return grouped, ends
