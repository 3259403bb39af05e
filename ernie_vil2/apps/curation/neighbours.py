"""Pairs of near vectors, among more vectors than fit into memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAX_EXACT_VECTORS = 20_000  # up to which every pair is looked at; more vectors are divided into cells
NUM_PROBES = 6  # cells in which the neighbours of a query are looked for
VECTORS_PER_CELL = 64  # from which a centroid is learnt
QUERIES_PER_PASS = 4_000_000  # whose cells are held at once
BLOCK = 4096  # vectors multiplied at once
PAIRS_PER_BLOCK = 100_000  # most pairs that are yielded at once
# Vectors that are as near as the last of the nearest ones, and are paired as well. One picture with thousands of
# different margins has as many equal vectors, and without a limit the pairs of each two of them.
MAX_TIES = 64


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
    if folder is None or not shape[0]:  # an empty file cannot be mapped
        return np.zeros(shape, kind)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.asarray(np.memmap(file, kind, "w+", shape=shape))


def neighbours(
    vectors: np.ndarray,
    least: float,
    queries: np.ndarray | None = None,
    most: int | None = None,
    folder: Path | None = None,
) -> Iterator[Neighbours]:
    """Yield the pairs of a query and a vector whose cosine is at least `least`; of many vectors, nearly all pairs.

    Of more than `MAX_EXACT_VECTORS` vectors, those are found that lie in one of the `NUM_PROBES` cells that are nearest
    to the query. Only the vectors of one cell at a time are in memory, whatever the number of vectors.

    Args:
        vectors: `[N, D]` float of length 1, in memory or mapped from a file.
        least: smallest cosine of a pair.
        queries: `[M, D]`; None: the vectors themselves; none is paired with itself. Beyond `MAX_EXACT_VECTORS` vectors
            a pair may come in both directions.
        most: number of vectors, the nearest ones, that a query is paired with: of all vectors, or beyond
            `MAX_EXACT_VECTORS` of each of its cells. Vectors as near as the last of them come too. Without `queries`,
            the vector itself counts before it is left out, and up to `MAX_EXACT_VECTORS` so do the vectors of earlier
            rows. None: all.
        folder: folder for the cells of the vectors; None: memory.
    """
    is_own = queries is None
    query_vectors = vectors if queries is None else queries
    if len(vectors) <= MAX_EXACT_VECTORS:
        candidates = np.asarray(vectors, np.float32)
        for start in range(0, len(query_vectors), BLOCK):
            numbers = np.arange(start, min(start + BLOCK, len(query_vectors)))
            for near in _near(query_vectors, numbers, candidates, np.arange(len(candidates)), least, most):
                yield near.of(near.queries < near.rows) if is_own else near
        return

    centroids = _centroids(vectors)
    cells = _find_cells(vectors, centroids, NUM_PROBES if is_own else 1, folder)
    rows_by_cell, bounds = _group_by_cell(cells[:, :1], len(centroids), folder)
    query_cells = cells
    del cells  # so that they are freed when the cells of other queries replace them

    # Own queries make a single pass: their cells are known already, as those of the vectors.
    step = len(query_vectors) if is_own else QUERIES_PER_PASS
    for first in range(0, len(query_vectors), step):
        if queries is not None:
            query_cells = _find_cells(queries[first : first + step], centroids, NUM_PROBES, folder)
        query_order, query_bounds = _group_by_cell(query_cells, len(centroids), folder)
        for cell in range(len(centroids)):
            rows = rows_by_cell[bounds[cell] : bounds[cell + 1]].astype(np.int64)
            numbers = first + query_order[query_bounds[cell] : query_bounds[cell + 1]].astype(np.int64)
            if not len(rows):
                continue
            candidates = np.asarray(vectors[rows], np.float32)
            for start in range(0, len(numbers), BLOCK):
                for near in _near(query_vectors, numbers[start : start + BLOCK], candidates, rows, least, most):
                    yield near.of(near.queries != near.rows) if is_own else near


def _near(
    query_vectors: np.ndarray,
    numbers: np.ndarray,
    candidates: np.ndarray,
    rows: np.ndarray,
    least: float,
    most: int | None,
) -> Iterator[Neighbours]:
    """Yield the pairs of queries `numbers` and candidates, whose rows are `rows`."""
    cosines = np.asarray(query_vectors[numbers], np.float32) @ candidates.T
    is_near = cosines >= least
    if most is not None:
        for row in np.flatnonzero(is_near.sum(axis=1) > most):
            least_near = np.partition(cosines[row], -most)[-most]
            is_near[row] &= cosines[row] >= least_near
            ties = np.flatnonzero(is_near[row] & (cosines[row] == least_near))
            if len(ties) > MAX_TIES:
                # Those behind the query's own row come first, so that every vector is among the ties of some queries.
                num_before = np.searchsorted(rows[ties], numbers[row], side="right")
                is_near[row, np.roll(ties, -num_before)[MAX_TIES:]] = False
    places = np.flatnonzero(is_near)  # in the flattened array; np.nonzero takes nine times as long
    for start in range(0, len(places), PAIRS_PER_BLOCK):
        chosen_queries, chosen_rows = np.divmod(places[start : start + PAIRS_PER_BLOCK], is_near.shape[1])
        yield Neighbours(numbers[chosen_queries], rows[chosen_rows], cosines[chosen_queries, chosen_rows])


def _centroids(vectors: np.ndarray) -> np.ndarray:
    import faiss

    cells = int(2 * np.sqrt(len(vectors)))
    rng = np.random.default_rng(0)
    sample = np.sort(rng.choice(len(vectors), min(len(vectors), VECTORS_PER_CELL * cells), replace=False))
    learnt = faiss.Kmeans(
        vectors.shape[1], cells, niter=8, seed=0, spherical=True, max_points_per_centroid=VECTORS_PER_CELL
    )
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
    bounds = np.concatenate([[0], np.cumsum(counts)])
    rows_by_cell = allocate(folder, np.uint32, (cells.size,))
    next_places = bounds[:-1].copy()
    for start in range(0, len(cells), size):
        block = cells[start : start + size].ravel()
        order = np.argsort(block, kind="stable")
        sorted_cells = block[order]
        block_counts = np.bincount(block, minlength=num_cells)
        firsts = np.cumsum(block_counts) - block_counts
        places = next_places[sorted_cells] + np.arange(len(block)) - firsts[sorted_cells]
        rows_by_cell[places] = start + order // cells.shape[1]
        next_places += block_counts
    return rows_by_cell, bounds
