"""Which rows of an index a query may be closest to: exact, or approximate in a fraction of the time.

An engine proposes candidates; the index ranks them anew by the exact product with its rows, so that an engine decides
what is found and never in which order. Engines are derived from the rows and can be built again at any time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ernie_vil2.files import atomic_write, write_text

RERANKED = 100
"""Candidates that an approximate engine proposes for a query, at least."""
EXACT_UP_TO = 50_000
"""Rows up to which an exact search takes about a millisecond, so that nothing else is worth building."""
TRAINING_ROWS_PER_CELL = 64
SAMPLED_ROWS = 50_000

Log = Callable[[str], None]


class Engine(Protocol):
    """Proposes rows for queries.

    Attributes:
        name: its name in `ENGINES`.
        facts: what building found, for JSON: its parameters, the recall that it reached, on which queries.
    """

    name: str
    facts: dict[str, Any]

    @classmethod
    def build(
        cls, rows: np.ndarray, queries: Callable[[], np.ndarray], recall: float, folder: Path, log: Log
    ) -> Engine:
        """Makes the engine and writes it into `folder`.

        Args:
            rows: `[N, D]` float16, L2-normalised.
            queries: gives `[Q, D]` float32 to tune on, of the kind that will be asked, where the engine is tuned.
            recall: share of the ten closest rows that is to be found.
        """

    @classmethod
    def open(cls, rows: np.ndarray, folder: Path) -> Engine:
        """Opens what `build` has written, for the same rows."""

    def candidates(self, queries: np.ndarray, count: int, allowed: np.ndarray | None = None) -> np.ndarray:
        """The rows that may be closest.

        Args:
            queries: `[Q, D]` float32.
            count: rows for each query.
            allowed: bool `[N]`, the rows that may be proposed; None: all.

        Returns:
            `[Q, count]` int64 rows, -1 where there are no more.
        """


class Exact:
    """The product with all rows, which are held in memory from the first query on."""

    name = "exact"

    def __init__(self, rows: np.ndarray):
        self.facts: dict[str, Any] = {"name": self.name, "rows": len(rows), "recall": 1.0}
        self._rows = rows
        self._index: Any = None

    @classmethod
    def build(cls, rows, queries, recall, folder, log):
        return cls(rows)

    @classmethod
    def open(cls, rows, folder):
        return cls(rows)

    def candidates(self, queries, count, allowed=None):
        import faiss

        if self._index is None:
            # A third of the time of a product in NumPy, which writes all scores before the best are chosen.
            index = faiss.IndexScalarQuantizer(
                self._rows.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
            )
            index.is_trained, index.ntotal = True, len(self._rows)
            faiss.copy_array_to_vector(np.ascontiguousarray(self._rows).view(np.uint8).ravel(), index.codes)
            self._index = index
        return _searched(self._index, queries, count, faiss.SearchParameters(sel=_selector(allowed)))


class _Asked(NamedTuple):
    """Queries `[Q, D]`, and the ten rows closest to each."""

    queries: np.ndarray
    closest: np.ndarray

    def shares(self, found: np.ndarray) -> np.ndarray:
        """For each query the share of the closest rows that is among those found."""
        return np.array([np.isin(b, a).mean() for a, b in zip(found, self.closest, strict=True)])


class _Faiss:
    """What the engines of faiss share: a file opened by memory map, and the search parameter that recall hangs on."""

    name: str
    file = "engine.faiss"
    breadths: tuple[int, ...]
    """Values of the search parameter, from quick to thorough."""

    def __init__(self, index: Any, facts: dict[str, Any]):
        self.facts = facts
        self._index = index

    @classmethod
    def build(cls, rows, queries, recall, folder, log):
        import faiss

        queries = queries()
        closest = ranked(rows, queries, _closest(rows.astype(np.float32), queries), min(10, len(rows)))[1]
        fitted, tuned_on, held_out = (_Asked(queries[third::3], closest[third::3]) for third in range(3))
        index, facts = cls._trained(rows, fitted.queries, tuned_on, recall, log)
        for block in _blocks(rows):
            index.add(block)
        engine = cls(index, {"name": cls.name, "rows": len(rows)} | facts)
        engine._tune(rows, tuned_on, recall, log)
        reached = engine._shares(rows, held_out if len(held_out.queries) else tuned_on).mean()
        engine.facts |= {"recall": round(float(reached), 4), "wanted_recall": recall, "queries": len(queries)}
        # Both at the end: who opens the index meanwhile finds the engine that was there.
        with atomic_write(folder / cls.file) as aside:
            faiss.write_index(index, str(aside))
        write_text(folder / "engine.json", json.dumps(engine.facts))
        return engine

    @classmethod
    def open(cls, rows, folder):
        import faiss

        facts = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
        return cls(faiss.read_index(str(folder / cls.file), faiss.IO_FLAG_MMAP), facts)

    def candidates(self, queries, count, allowed=None):

        breadth = self.facts["breadth"]
        if allowed is not None:
            # The ten closest of a third of the rows lie about as far as the thirty closest of all.
            breadth = round(breadth * len(allowed) / max(np.count_nonzero(allowed), 1))
        return _searched(self._index, queries, count, self._parameters(breadth, _selector(allowed)))

    def _tune(self, rows, asked, recall, log):
        """Chooses the least breadth that surely reaches the recall: less the standard error, for other queries."""
        for breadth in self.breadths:
            self.facts["breadth"] = breadth
            shares = self._shares(rows, asked)
            error = shares.std() / np.sqrt(len(shares))
            log(f"{self.name}, breadth {breadth}: recall@10 {shares.mean():.3f} ± {error:.3f}")
            if shares.mean() - error >= recall:
                break

    def _shares(self, rows, asked):
        return asked.shares(ranked(rows, asked.queries, self.candidates(asked.queries, RERANKED), 10)[1])


class Ivf(_Faiss):
    """Rows in cells around centroids, as 8-bit numbers; a query looks into the cells nearest to it.

    Texts that ask and pictures that answer leave most directions of the embeddings unused. Cells and 8-bit numbers are
    of those that either uses, a quarter of them for instance, and a query takes a quarter of the time.
    """

    name = "ivf"
    breadths = tuple(sorted({round(4 * 1.2**step) for step in range(33)}))

    @classmethod
    def _trained(cls, rows, queries, asked, recall, log):
        import faiss

        directions = _directions(rows, queries, asked, recall)
        width = len(directions)
        cells = min(1 << round(np.log2(max(4 * np.sqrt(len(rows)), 1))), max(len(rows) // 39, 1))
        log(f"{cls.name}: {cells:,} cells, {width} of {rows.shape[1]} directions")
        transform = faiss.LinearTransform(rows.shape[1], width, False)
        faiss.copy_array_to_vector(directions.ravel(), transform.A)
        transform.is_trained = True
        inner = faiss.index_factory(width, f"IVF{cells},SQ8", faiss.METRIC_INNER_PRODUCT)
        index = faiss.IndexPreTransform(transform, inner)
        index.train(_sampled(rows, cells * TRAINING_ROWS_PER_CELL))
        return index, {"cells": cells, "directions": width}

    @classmethod
    def open(cls, rows, folder):
        import faiss

        engine = super().open(rows, folder)
        # Reading ahead starts threads for every query, which takes longer than the query.
        faiss.downcast_InvertedLists(faiss.extract_index_ivf(engine._index).invlists).prefetch_nthread = 0
        return engine

    def _parameters(self, breadth, selector):
        import faiss

        return faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersIVF(nprobe=breadth, sel=selector))


class Hnsw(_Faiss):
    """A graph of neighbours that a query walks through, over float32 rows."""

    name = "hnsw"
    breadths = (100, 128, 192, 256, 384, 512, 768)

    @classmethod
    def _trained(cls, rows, queries, asked, recall, log):
        import faiss

        index = faiss.IndexHNSWFlat(rows.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 80
        return index, {}

    def _parameters(self, breadth, selector):
        import faiss

        return faiss.SearchParametersHNSW(efSearch=breadth, sel=selector)


ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (Exact, Ivf, Hnsw)}


def ranked(rows: np.ndarray, queries: np.ndarray, candidates: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The best `count` candidates of each query by the exact product.

    Args:
        rows: `[N, D]` float16.
        queries: `[Q, D]` float32.
        candidates: `[Q, C]` int64 rows, -1 for none.

    Returns:
        Scores `[Q, count]` float32 and rows `[Q, count]` int64, best first; -inf and -1 where there are no more.
    """
    scores = np.full([len(queries), count], -np.inf, np.float32)
    found = np.full([len(queries), count], -1, np.int64)
    for query, proposed, best_scores, best in zip(queries, candidates, scores, found, strict=True):
        proposed = np.sort(proposed[proposed >= 0])  # in the order of the file
        exact = rows[proposed].astype(np.float32) @ query
        order = np.argsort(-exact, kind="stable")[:count]
        best_scores[: len(order)], best[: len(order)] = exact[order], proposed[order]
    return scores, found


def _sampled(rows: np.ndarray, count: int) -> np.ndarray:
    return rows[np.sort(np.random.default_rng(0).permutation(len(rows))[:count])].astype(np.float32)


def _directions(rows: np.ndarray, queries: np.ndarray, asked: _Asked, recall: float) -> np.ndarray:
    """`[d, D]`, orthonormal: the directions in which rows and queries are largest, as many as the recall needs.

    Of what recall allows to be missed, at most a quarter is missed for want of directions.
    """
    sample = _sampled(rows, SAMPLED_ROWS)
    second_moment = sample.T @ sample / len(sample) + queries.T @ queries / len(queries)
    directions = np.ascontiguousarray(np.linalg.eigh(second_moment)[1].T[::-1], np.float32)
    for eighths in range(2, 8):
        kept = directions[: max(len(directions) * eighths // 8, 1)]
        projected = np.concatenate([block @ kept.T for block in _blocks(rows)])
        if asked.shares(_closest(projected, asked.queries @ kept.T)).mean() >= 1 - (1 - recall) / 4:
            return kept
    return directions


def _blocks(rows: np.ndarray, size: int = 1 << 16) -> Iterator[np.ndarray]:
    return (rows[start : start + size].astype(np.float32) for start in range(0, len(rows), size))


def _closest(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Candidates for many queries at once, by the product with all rows `[N, D]` float32."""
    import faiss

    return faiss.knn(np.ascontiguousarray(queries), rows, min(RERANKED, len(rows)), metric=faiss.METRIC_INNER_PRODUCT)[
        1
    ]


def _searched(index: Any, queries: np.ndarray, count: int, parameters: Any) -> np.ndarray:
    _, found = index.search(np.ascontiguousarray(queries), min(count, index.ntotal), params=parameters)
    missing = count - found.shape[1]
    return np.pad(found, ((0, 0), (0, missing)), constant_values=-1) if missing > 0 else found


def _selector(allowed: np.ndarray | None) -> Any:
    import faiss

    return None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
