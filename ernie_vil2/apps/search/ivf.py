"""The index type `ivf`: rows lie in cells around centroids, and a query scans the nearest cells (faiss)."""

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from ernie_vil2.apps.search import integrity
from ernie_vil2.apps.search.index_types import NUM_CANDIDATES, Log, make_selector, rank
from ernie_vil2.io.files import atomic_write, is_count, is_number, sha256

RECALL_AT = 10  # recall is the share of the ten closest rows that is found
# Rows from which k-means finds a centroid, on average. Above 256 faiss draws a sample itself.
TRAINING_ROWS_PER_CELL = 64
MIN_ROWS_PER_CELL = 39  # with fewer to train on, faiss warns; a small collection gets fewer cells instead
SAMPLE_SIZE = 50_000  # rows from which the directions are computed, and the centroids of a small collection
BLOCK_SIZE = 1 << 16  # rows that are converted to float32 together
LIST_ID_BYTES = 8  # faiss stores the number of a row next to its code
MAX_FILE_SIZE = 1 << 53  # bytes; bounds what a damaged index can claim to have


class _AnsweredQueries(NamedTuple):
    """Queries with the rows that they should find."""

    queries: np.ndarray  # [Q, D] float32
    closest: np.ndarray  # [Q, 10] rows

    def compute_recalls(self, retrieved: np.ndarray) -> np.ndarray:
        """Return for each query the share of its closest rows that was retrieved, `[Q]`."""
        shares = [np.isin(truth, rows).mean() for rows, truth in zip(retrieved, self.closest, strict=True)]
        return np.array(shares)


class Ivf:
    """Rows in cells around centroids, read by memory map; a query scans the cells whose centroids are nearest.

    Queries, which are texts, and rows, which are images, use few directions of the embedding space. The cells hold the
    coordinates of the rows along these directions as 8-bit numbers. With a quarter of the directions, for instance, a
    query takes a quarter of the time.
    """

    name = "ivf"
    # Numbers of cells that tuning tries, from 4 to about 1,400. Each is a fifth larger than the one before, so a query
    # takes at most about a fifth more time than the recall needs.
    probe_choices = tuple(sorted({round(4 * 1.2**step) for step in range(33)}))

    def __init__(self, index: Any, facts: dict[str, Any]):
        self.facts = facts
        self._index = index

    @classmethod
    def build(cls, rows: np.ndarray, queries: Callable[[], np.ndarray], recall: float, folder: Path, log: Log) -> Self:
        import faiss

        # The rows that each query should find, by the exact product.
        all_queries = queries()
        candidates = _find_closest(_convert_blocks(rows), all_queries)
        _, closest = rank(rows, all_queries, candidates, min(RECALL_AT, len(rows)))
        # A third each: to compute the directions, to choose the number of cells, and to measure the recall.
        direction_queries = all_queries[::3]
        probe_queries = _AnsweredQueries(all_queries[1::3], closest[1::3])
        test_queries = _AnsweredQueries(all_queries[2::3], closest[2::3])
        if len(all_queries) == 1:  # as of a collection of one row
            probe_queries = _AnsweredQueries(all_queries, closest)
        directions = _choose_directions(rows, direction_queries, probe_queries, recall)

        # About 4 sqrt(N) cells balance the scan of the centroids with that of the cells.
        num_cells = 1 << round(np.log2(max(4 * np.sqrt(len(rows)), 1)))
        num_cells = min(num_cells, max(len(rows) // MIN_ROWS_PER_CELL, 1))
        cells = faiss.index_factory(len(directions), f"IVF{num_cells},SQ8", faiss.METRIC_INNER_PRODUCT)
        facts = {"name": cls.name, "rows": len(rows), "cells": num_cells, "directions": len(directions)}
        log(f"{json.dumps(facts)} of {rows.shape[1]}")
        # The projection is linear and was computed above, so only the cells are trained.
        projection = faiss.LinearTransform(rows.shape[1], len(directions), False)
        faiss.copy_array_to_vector(directions.ravel(), projection.A)
        projection.is_trained = True
        index = faiss.IndexPreTransform(projection, cells)
        index.train(_sample_rows(rows, max(num_cells * TRAINING_ROWS_PER_CELL, SAMPLE_SIZE)))
        for block in _convert_blocks(rows):
            index.add(block)

        # Recall is measured on queries that were not tuned on, if there are enough of them.
        index_type = cls(index, facts)  # shares `facts`, to which everything below adds
        index_type._choose_num_probes(rows, probe_queries, recall, log)
        if not len(test_queries.queries):
            test_queries = probe_queries
        measured_recall = index_type._measure_recalls(rows, test_queries).mean()
        facts |= {
            "recall": round(float(measured_recall), 4),
            "target_recall": recall,
            "queries": len(all_queries),
        }
        if measured_recall < recall:
            log(
                f"warning: {cls.name} finds {measured_recall:.4f} of the ten closest rows to queries that it was not "
                f"tuned on, less than the recall {recall} that was requested; the index type exact finds all"
            )

        # A new name, so that readers of the previous file are not disturbed.
        path = folder / f"{cls.name}-{secrets.token_hex(4)}.faiss"
        facts |= _write_index(index, path)
        facts |= {"crc32": integrity.compute_crc32(path, _header_size(facts)), "sha256": sha256(path)}
        return index_type

    @classmethod
    def open(cls, rows: np.ndarray, folder: Path, facts: dict[str, Any]) -> Self:
        import faiss

        width = rows.shape[1]
        _check_facts(facts, width, max(cls.probe_choices))
        index = _read_index(folder / facts["file"], facts)
        _check_index(index, width, facts)
        # Reading ahead starts threads for every query, which takes longer than the query.
        faiss.downcast_InvertedLists(faiss.extract_index_ivf(index).invlists).prefetch_nthread = 0
        return cls(index, facts)

    def find_candidates(self, queries: np.ndarray, count: int, allowed: np.ndarray | None = None) -> np.ndarray:
        import faiss

        num_probes = self.facts["num_probes"]
        if allowed is not None:
            # The fewer rows are allowed, the farther away are the closest of them, and the more cells must be scanned:
            # the ten closest of a third of the rows are about as far away as the thirty closest of all.
            num_probes = round(num_probes * len(allowed) / max(np.count_nonzero(allowed), 1))
        cell_parameters = faiss.SearchParametersIVF(nprobe=num_probes, sel=make_selector(allowed))
        parameters = faiss.SearchParametersPreTransform(index_params=cell_parameters)
        num_rows = min(count, self._index.ntotal)
        _, candidates = self._index.search(np.ascontiguousarray(queries), num_rows, params=parameters)
        return np.pad(candidates, ((0, 0), (0, count - num_rows)), constant_values=-1)

    def _choose_num_probes(self, rows: np.ndarray, probe_queries: _AnsweredQueries, recall: float, log: Log) -> None:
        """Set the fact `num_probes` to the smallest choice that reaches the recall, or to the largest if none does."""
        for num_probes in self.probe_choices:
            self.facts["num_probes"] = num_probes
            recalls = self._measure_recalls(rows, probe_queries)
            standard_error = recalls.std() / np.sqrt(len(recalls))
            log(f"{self.name}, {num_probes} cells per query: recall@10 {recalls.mean():.3f} ± {standard_error:.3f}")
            # With a margin of two standard errors, so that other queries very likely reach the recall, too.
            if recalls.mean() - 2 * standard_error >= recall:
                break

    def _measure_recalls(self, rows: np.ndarray, answered_queries: _AnsweredQueries) -> np.ndarray:
        queries = answered_queries.queries
        _, retrieved = rank(rows, queries, self.find_candidates(queries, NUM_CANDIDATES), RECALL_AT)
        return answered_queries.compute_recalls(retrieved)


def _choose_directions(
    rows: np.ndarray, queries: np.ndarray, probe_queries: _AnsweredQueries, recall: float
) -> np.ndarray:
    """Choose the directions along which the cells hold coordinates: those in which rows and queries are largest.

    The closest rows that are missed for lack of directions are at most a quarter of those that the recall allows to
    miss.

    Args:
        rows: `[N, D]` float16.
        queries: `[Q, D]` float32, from which the directions are computed, together with the rows.
        probe_queries: other queries, which decide how many directions there are.
        recall: recall that the index type should reach.

    Returns:
        `[d, D]` float32, orthonormal, d at most D.
    """
    sample = _sample_rows(rows, SAMPLE_SIZE)
    second_moment = sample.T @ sample / len(sample) + queries.T @ queries / len(queries)  # [D, D]
    eigenvectors = np.linalg.eigh(second_moment)[1].T[::-1]  # largest first
    directions = np.ascontiguousarray(eigenvectors, np.float32)
    required_recall = 1 - (1 - recall) / 4
    # A quarter of the directions is tried first, then an eighth more each time: a try searches all rows, so smaller
    # steps would take long.
    for num_eighths in range(2, 8):
        chosen = directions[: max(len(directions) * num_eighths // 8, 1)]
        projected_blocks = (block @ chosen.T for block in _convert_blocks(rows))
        retrieved = _find_closest(projected_blocks, probe_queries.queries @ chosen.T)
        if probe_queries.compute_recalls(retrieved).mean() >= required_recall:
            return chosen
    return directions


def _sample_rows(rows: np.ndarray, count: int) -> np.ndarray:
    numbers = np.random.default_rng(0).permutation(len(rows))[:count]
    return rows[np.sort(numbers)].astype(np.float32)


def _convert_blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows `[N, D]` as float32, block by block: all of them may not fit into memory."""
    for start in range(0, len(rows), BLOCK_SIZE):
        yield rows[start : start + BLOCK_SIZE].astype(np.float32)


def _find_closest(blocks: Iterable[np.ndarray], queries: np.ndarray) -> np.ndarray:
    """Return the closest rows of many queries by the product with all rows.

    Args:
        blocks: the rows, block by block, `[n, D]` float32.
        queries: `[Q, D]` float32.

    Returns:
        `[Q, NUM_CANDIDATES]` int64 rows, -1 where there are no more.
    """
    import faiss

    queries = np.ascontiguousarray(queries)
    closest = faiss.ResultHeap(len(queries), NUM_CANDIDATES, keep_max=True)
    first_row = 0
    for block in blocks:
        count = min(NUM_CANDIDATES, len(block))
        products, block_rows = faiss.knn(queries, block, count, metric=faiss.METRIC_INNER_PRODUCT)
        closest.add_result(products, first_row + block_rows)
        first_row += len(block)
    closest.finalize()
    return closest.I


def _header_size(facts: Mapping[str, Any]) -> int:
    """Return the number of bytes in front of the cells: what opening reads, among it the centroids.

    The cells, a code and a number for each row, are mapped and never read as a whole.
    """
    return facts["bytes"] - facts["rows"] * (facts["directions"] + LIST_ID_BYTES)


def _check_facts(facts: Mapping[str, Any], width: int, max_probes: int) -> None:
    """Raise DamagedIndex if facts are missing, of another form or out of range."""
    checks: dict[str, Callable[[Any], bool]] = {
        "file": partial(integrity.is_text, pattern=r"\w+-[0-9a-f]{8}\.faiss"),
        "bytes": lambda value: is_count(value, 1, MAX_FILE_SIZE),
        "directions": lambda value: is_count(value, 1, width),
        "cells": lambda value: is_count(value, 1, facts["rows"]),
        "num_probes": lambda value: is_count(value, 1, max_probes),
        "recall": lambda value: is_number(value, 0, 1),
        "target_recall": lambda value: is_number(value, 0, 1),
        "queries": lambda value: is_count(value, 0),
        "crc32": lambda value: is_count(value, 0, 2**32 - 1),
        "sha256": integrity.is_text,
    }
    integrity.check_form(facts, checks, "the index type")


def _write_index(index: Any, path: Path) -> dict[str, Any]:
    """Write an index of faiss and return the name and size of its file; OSError if the disk is full."""
    import faiss

    with atomic_write(path) as temporary_path:
        try:
            faiss.write_index(index, str(temporary_path))
        except RuntimeError as error:
            raise OSError(f"{path} cannot be written; is the disk full?") from error
        return {"file": path.name, "bytes": temporary_path.stat().st_size}


def _read_index(path: Path, facts: Mapping[str, Any]) -> Any:
    """Return a mapped index of faiss; RuntimeError or ValueError if its size or its header shows damage.

    `search.checking` compares the cells as well.
    """
    import faiss

    integrity.check_is_file(path)
    size = path.stat().st_size
    if size != facts["bytes"]:  # faiss would map what is missing
        raise ValueError(f"{path.name} has {size:,} of {facts['bytes']:,} bytes")
    if facts["crc32"] != integrity.compute_crc32(path, _header_size(facts)):
        raise ValueError(f"{path.name} differs from its checksum")
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP)


def _check_index(index: Any, width: int, facts: Mapping[str, Any]) -> None:
    """Raise ValueError if an index of faiss does not consist of the projection and the cells in its facts."""
    import faiss

    if not isinstance(index, faiss.IndexPreTransform):
        raise ValueError(f"{facts['file']} holds an index of another kind")
    cells = faiss.downcast_index(index.index)
    is_valid = False
    if isinstance(cells, faiss.IndexIVFScalarQuantizer):
        sizes = (index.d, index.ntotal, cells.ntotal, cells.d, cells.nlist, cells.quantizer.ntotal)
        num_rows, num_cells = facts["rows"], facts["cells"]
        is_valid = sizes == (width, num_rows, num_rows, facts["directions"], num_cells, num_cells)
    if not is_valid:
        raise ValueError(f"{facts['file']} is not what the index type describes")
