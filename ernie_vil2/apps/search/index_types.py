"""Which rows of an index a query may be closest to: exact, or approximate in a fraction of the time.

An index type proposes candidates; the index ranks them again by the exact product with its rows, so that an index type
decides what is found and never in which order. It is derived from the rows and can be built again at any time.
"""

import itertools
import json
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from ernie_vil2.apps.search import integrity
from ernie_vil2.apps.search.collection import DamagedIndex
from ernie_vil2.io.files import sha256
from ernie_vil2.registry import Registry, UnknownName

RERANKED = 100  # candidates that an approximate index type proposes for a query, at least
EXACT_UP_TO = 50_000  # rows up to which an exact search takes about a millisecond: nothing else is worth building
SCANNED_ROWS = 16_384  # rows that are worth a thread
TRAINING_ROWS_PER_CELL = 64
SAMPLED_ROWS = 50_000

Log = Callable[[str], None]


class IndexType(Protocol):
    """Proposes rows for queries.

    Attributes:
        name: its name in `INDEX_TYPES`.
        facts: what building found, for JSON: its parameters, the recall that it reached, on which queries.
    """

    name: str
    facts: dict[str, Any]

    @classmethod
    def build(cls, rows: np.ndarray, queries: Callable[[], np.ndarray], recall: float, folder: Path, log: Log) -> Self:
        """Makes the index type and writes it into a file of its own in `folder`, if it needs one.

        Its facts then have the name as `file`, which ends in `.faiss`, and the size as `bytes`.

        Args:
            rows: `[N, D]` float16, L2-normalised.
            queries: gives `[Q, D]` float32 to tune on, of the kind that will be asked, where the index type is tuned.
            recall: share of the ten closest rows that is to be found.
        """

    @classmethod
    def open(cls, rows: np.ndarray, folder: Path, facts: dict[str, Any]) -> Self:
        """Opens what `build` has written and found, for the same rows.

        Raises:
            FileNotFoundError: its file is not there.
            KeyError, RuntimeError, TypeError, ValueError: facts or file are damaged, as far as opening reads them.
        """

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
    """The product with all rows, where they lie: nothing is built or copied, so that opening takes no time."""

    name = "exact"

    def __init__(self, rows: np.ndarray):
        self.facts: dict[str, Any] = {"name": self.name, "rows": len(rows), "recall": 1.0}
        self._rows = rows

    @classmethod
    def build(cls, rows: np.ndarray, queries: Callable[[], np.ndarray], recall: float, folder: Path, log: Log) -> Self:
        return cls(rows)

    @classmethod
    def open(cls, rows: np.ndarray, folder: Path, facts: dict[str, Any]) -> Self:
        return cls(rows)

    def candidates(self, queries: np.ndarray, count: int, allowed: np.ndarray | None = None) -> np.ndarray:
        import faiss

        queries = np.ascontiguousarray(queries, np.float32)
        threads = min(faiss.omp_get_max_threads(), max(len(self._rows) // SCANNED_ROWS, 1))
        bounds = np.linspace(0, len(self._rows), threads + 1, dtype=int)
        parts = [slice(*pair) for pair in itertools.pairwise(bounds)]
        scan = partial(self._scanned, queries, count, allowed)
        if threads == 1:
            rows = scan(parts[0])[1]
        else:
            with ThreadPoolExecutor(threads) as pool:
                scores, rows = (np.concatenate(found, axis=1) for found in zip(*pool.map(scan, parts), strict=True))
            best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
            rows = np.take_along_axis(rows, best, axis=1)
        there = len(self._rows) if allowed is None else np.count_nonzero(allowed)
        if (rows[:, : min(count, there)] < 0).any():
            raise DamagedIndex("rows.f16 holds rows that are not finite")  # their products are never among the best
        return rows

    def _scanned(
        self, queries: np.ndarray, count: int, allowed: np.ndarray | None, part: slice
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores and numbers, `[Q, count]`, of the closest rows of a part, best first; -inf and -1 for none.

        faiss scans memory that is not its own, half as much of it as a product in NumPy, and keeps the best meanwhile.
        """
        import faiss

        scores = np.full([len(queries), count], -np.inf, np.float32)  # of a heap of the best for each query
        found = np.full([len(queries), count], -1, np.int64)
        rows = self._rows[part]
        width = rows.shape[1]
        quantizer = faiss.ScalarQuantizer(width, faiss.ScalarQuantizer.QT_fp16)
        nowhere = faiss.IndexFlatIP(width)
        selector = _selector(None if allowed is None else allowed[part])
        scanner = quantizer.select_InvertedListScanner(faiss.METRIC_INNER_PRODUCT, nowhere, True, selector, False)
        scanner.set_list(0, 0.0)
        for query, best_scores, best in zip(queries, scores, found, strict=True):
            scanner.set_query(faiss.swig_ptr(query))
            scanner.scan_codes(
                len(rows), faiss.swig_ptr(rows.view(np.uint8).reshape(-1)), faiss.swig_ptr(best),
                faiss.swig_ptr(best_scores), faiss.swig_ptr(best), count,
            )  # fmt: skip
        scanner.__swig_destroy__(scanner)  # faiss leaves it to the caller, and says so to nobody
        order = np.argsort(-scores, axis=1, kind="stable")
        rows_of = np.take_along_axis(found, order, axis=1)
        return np.take_along_axis(scores, order, axis=1), np.where(rows_of >= 0, rows_of + part.start, -1)


class _Asked(NamedTuple):
    """Queries `[Q, D]`, and the ten rows closest to each."""

    queries: np.ndarray
    closest: np.ndarray

    def shares(self, found: np.ndarray) -> np.ndarray:
        """For each query the share of the closest rows that is among those found."""
        return np.array([np.isin(b, a).mean() for a, b in zip(found, self.closest, strict=True)])


class Ivf:
    """Rows in cells around centroids, read by memory map; a query looks into the cells nearest to it (faiss).

    Texts that ask and images that answer leave most directions of the embeddings unused. The cells hold rows as 8-bit
    numbers of the directions that either uses, a quarter of them for instance, and a query takes a quarter of the time.
    """

    name = "ivf"
    breadths = tuple(sorted({round(4 * 1.2**step) for step in range(33)}))
    """Cells that a query may look into, from quick to thorough; the recall hangs on it."""

    def __init__(self, index: Any, facts: dict[str, Any]):
        self.facts = facts
        self._index = index

    @classmethod
    def build(cls, rows: np.ndarray, queries: Callable[[], np.ndarray], recall: float, folder: Path, log: Log) -> Self:
        import faiss

        asked = queries()
        closest = ranked(rows, asked, _closest(rows.astype(np.float32), asked), min(10, len(rows)))[1]
        fitted, tuned_on, held_out = (_Asked(asked[third::3], closest[third::3]) for third in range(3))
        directions = _directions(rows, fitted.queries, tuned_on, recall)
        cells = min(1 << round(np.log2(max(4 * np.sqrt(len(rows)), 1))), max(len(rows) // 39, 1))
        inner = faiss.index_factory(len(directions), f"IVF{cells},SQ8", faiss.METRIC_INNER_PRODUCT)
        facts = {"name": cls.name, "rows": len(rows), "cells": cells, "directions": len(directions)}
        log(f"{json.dumps(facts)} of {rows.shape[1]}")
        transform = faiss.LinearTransform(rows.shape[1], len(directions), False)
        faiss.copy_array_to_vector(directions.ravel(), transform.A)
        transform.is_trained = True
        index = faiss.IndexPreTransform(transform, inner)
        index.train(_sampled(rows, max(cells * TRAINING_ROWS_PER_CELL, SAMPLED_ROWS)))
        for block in _blocks(rows):
            index.add(block)
        index_type = cls(index, facts)
        index_type._tune(rows, tuned_on, recall, log)
        reached = index_type._shares(rows, held_out if len(held_out.queries) else tuned_on).mean()
        index_type.facts |= {"recall": round(float(reached), 4), "wanted_recall": recall, "queries": len(asked)}
        if reached < recall:
            log(
                f"warning: {cls.name} finds {reached:.4f} of the ten closest rows to queries that it was not tuned on, "
                f"less than the recall {recall} that was asked for; the index type exact finds all"
            )
        index_type.facts |= integrity.write_index(index, folder / f"{cls.name}-{secrets.token_hex(4)}.faiss")
        path = folder / index_type.facts["file"]
        crc32 = integrity.crc32(path, cls._read_by_opening(index_type.facts))
        index_type.facts |= {"crc32": crc32, "sha256": sha256(path)}
        return index_type

    @classmethod
    def _read_by_opening(cls, facts: dict[str, Any]) -> int:
        """Bytes at the beginning of the file; behind them are the cells, a code and a number per row, mapped."""
        return facts["bytes"] - facts["rows"] * (facts["directions"] + 8)

    @classmethod
    def open(cls, rows: np.ndarray, folder: Path, facts: dict[str, Any]) -> Self:
        import faiss

        integrity.check_ivf_facts(facts, rows.shape[1], max(cls.breadths))
        index = integrity.read_index(folder / facts["file"], facts, cls._read_by_opening(facts))
        integrity.check_ivf(index, rows.shape[1], facts)
        # Reading ahead starts threads for every query, which takes longer than the query.
        faiss.downcast_InvertedLists(faiss.extract_index_ivf(index).invlists).prefetch_nthread = 0
        return cls(index, facts)

    def candidates(self, queries: np.ndarray, count: int, allowed: np.ndarray | None = None) -> np.ndarray:
        import faiss

        breadth = self.facts["breadth"]
        if allowed is not None:
            # The ten closest of a third of the rows lie about as far as the thirty closest of all.
            breadth = round(breadth * len(allowed) / max(np.count_nonzero(allowed), 1))
        inner = faiss.SearchParametersIVF(nprobe=breadth, sel=_selector(allowed))
        parameters = faiss.SearchParametersPreTransform(index_params=inner)
        most = min(count, self._index.ntotal)
        _, found = self._index.search(np.ascontiguousarray(queries), most, params=parameters)
        return np.pad(found, ((0, 0), (0, count - most)), constant_values=-1)

    def _tune(self, rows: np.ndarray, asked: _Asked, recall: float, log: Log) -> None:
        """Chooses the least breadth that surely reaches the recall: less two standard errors, for other queries."""
        for breadth in self.breadths:
            self.facts["breadth"] = breadth
            shares = self._shares(rows, asked)
            error = shares.std() / np.sqrt(len(shares))
            log(f"{self.name}, breadth {breadth}: recall@10 {shares.mean():.3f} ± {error:.3f}")
            if shares.mean() - 2 * error >= recall:
                break

    def _shares(self, rows: np.ndarray, asked: _Asked) -> np.ndarray:
        return asked.shares(ranked(rows, asked.queries, self.candidates(asked.queries, RERANKED), 10)[1])


INDEX_TYPES: Registry[type[IndexType]] = Registry(
    "index type",
    {
        "exact": "ernie_vil2.apps.search.index_types:Exact",
        "ivf": "ernie_vil2.apps.search.index_types:Ivf",
    },
)


def find_index_type(name: str) -> type[IndexType]:
    """The index type of a name, which may come from an index that a stranger made; UnknownName if there is none."""
    found, parts = INDEX_TYPES.find(name), ("build", "open", "candidates")
    if not isinstance(found, type) or not all(callable(getattr(found, part, None)) for part in parts):
        raise UnknownName(f"{name} is not an index type")
    return found


def build_index_type(
    name: str, rows: np.ndarray, queries: Callable[[], np.ndarray], recall: float, folder: Path, log: Log
) -> IndexType:
    """Builds an index type into a folder; the previous one answers until the end."""
    index_type = find_index_type(name).build(rows, queries, recall, folder, log)
    integrity.write_facts(folder, index_type.facts | {"name": name})
    for file in folder.glob("*.faiss"):
        if file.name != index_type.facts.get("file"):
            file.unlink()
    return index_type


def open_index_type(rows: np.ndarray, folder: Path) -> IndexType:
    """The index type of a folder, for the rows that were there when it was built; `Exact` where there is none.

    ValueError if its files cannot be read, or its module is not imported.
    """
    try:
        facts = integrity.read_facts(folder)
        index_type = find_index_type(facts["name"])
        if index_type is not Exact and facts["rows"] <= len(rows):
            return index_type.open(rows[: facts["rows"]], folder, facts)
    except FileNotFoundError:
        pass  # never built, or just replaced: who opens it again finds the next one
    except UnknownName as error:
        raise ValueError(
            f"{folder}: {error}; import its module, or remove {folder} and build the index again"
        ) from error
    except (ValueError, KeyError, TypeError, RuntimeError, MemoryError) as error:
        raise ValueError(f"{folder} cannot be read ({error}); remove {folder} and build the index again") from error
    return Exact(rows)


def ranked(rows: np.ndarray, queries: np.ndarray, candidates: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The best `count` candidates of each query by the exact product.

    Args:
        rows: `[N, D]` float16.
        queries: `[Q, D]` float32.
        candidates: `[Q, C]` int64 rows, -1 for none.

    Returns:
        Scores `[Q, count]` float32 and rows `[Q, count]` int64, best first; -inf and -1 where there are no more.

    Raises:
        DamagedIndex: a candidate is not a unit vector.
    """
    scores = np.full([len(queries), count], -np.inf, np.float32)
    found = np.full([len(queries), count], -1, np.int64)
    for query, proposed, best_scores, best in zip(queries, candidates, scores, found, strict=True):
        proposed = np.sort(proposed[proposed >= 0])  # in the order of the file
        embeddings = rows[proposed].astype(np.float32)
        integrity.check_rows(embeddings, proposed)
        # Not by BLAS, whose threads would spin for more work for longer than all of this takes.
        exact = np.einsum("cd,d->c", embeddings, query)
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

    queries, most = np.ascontiguousarray(queries), min(RERANKED, len(rows))
    return faiss.knn(queries, rows, most, metric=faiss.METRIC_INNER_PRODUCT)[1]


def _selector(allowed: np.ndarray | None) -> Any:
    import faiss

    return None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
