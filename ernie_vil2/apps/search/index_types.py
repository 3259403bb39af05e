"""Index types: which rows of an index a query may be closest to, found exactly, or approximately in less time.

An index type proposes candidates, and the index ranks them by the exact inner product with its rows: an index type
decides which rows are found, never their order. It is derived from the rows and can be rebuilt at any time.

The folder `index_type` of a collection holds `index_type.json`, the facts of an index type, and its own file if it
needs one.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from ernie_vil2.apps.search import integrity
from ernie_vil2.apps.search.collection import DamagedIndex
from ernie_vil2.io.files import check_version, is_count, load_json, write_json
from ernie_vil2.registry import Registry, UnknownName

# An approximate index type proposes at least so many candidates. It bounds how far down in its approximate order the
# closest rows may be; each further candidate costs one more exact product of a query.
NUM_CANDIDATES = 100
EXACT_UP_TO = 50_000  # rows that an exact search scans in about a millisecond, so that nothing else is worth building
ROWS_PER_THREAD = 16_384  # fewer rows take less time than waking up another thread
MAX_FACTS_LENGTH = 1 << 16  # characters of `index_type.json`, which has some hundred; bounds what a reader parses
FACTS_VERSION = 1  # of `index_type.json`

Log = Callable[[str], None]


class IndexType(Protocol):
    """Proposes rows for queries.

    Attributes:
        name: its name in `INDEX_TYPES`.
        facts: its parameters and the recall that it reached, for JSON; `rows` is the number of rows it covers.
    """

    name: str
    facts: dict[str, Any]

    @classmethod
    def build(cls, rows: np.ndarray, queries: Callable[[], np.ndarray], recall: float, folder: Path, log: Log) -> Self:
        """Build the index type and write it into a file of its own in `folder`, if it needs one.

        Its facts then have the name of that file, which ends in `.faiss`, as `file`, and its size as `bytes`.

        Args:
            rows: `[N, D]` float16, L2-normalised.
            queries: returns `[Q, D]` float32 to tune on, similar to those that will be asked; not called without need.
            recall: share of the ten closest rows that must be found.
            folder: of the index type.
            log: prints a line.
        """

    @classmethod
    def open(cls, rows: np.ndarray, folder: Path, facts: dict[str, Any]) -> Self:
        """Open what `build` has written, for the same rows.

        Raises:
            FileNotFoundError: the file is missing.
            KeyError, RuntimeError, TypeError, ValueError: facts or file are damaged, as far as opening reads them.
        """

    def find_candidates(self, queries: np.ndarray, count: int, allowed: np.ndarray | None = None) -> np.ndarray:
        """Return the rows that may be closest.

        Args:
            queries: `[Q, D]` float32.
            count: rows for each query.
            allowed: the rows that may be proposed, bool `[N]`; None: all.

        Returns:
            `[Q, count]` int64 rows, -1 where there are no more.
        """


class Exact:
    """The product with all rows in place: nothing is built or copied, so that opening takes no time."""

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

    def find_candidates(self, queries: np.ndarray, count: int, allowed: np.ndarray | None = None) -> np.ndarray:
        import faiss

        # Each thread scans a block of consecutive rows, and the best of all blocks are merged.
        queries = np.ascontiguousarray(queries, np.float32)
        num_threads = min(faiss.omp_get_max_threads(), max(len(self._rows) // ROWS_PER_THREAD, 1))
        bounds = np.linspace(0, len(self._rows), num_threads + 1, dtype=int)
        blocks = [slice(start, stop) for start, stop in itertools.pairwise(bounds)]
        scan = partial(self._scan_block, queries, count, allowed)
        if num_threads == 1:
            _, candidates = scan(blocks[0])
        else:
            with ThreadPoolExecutor(num_threads) as pool:
                results = list(pool.map(scan, blocks))
            scores = np.concatenate([block_scores for block_scores, _ in results], axis=1)  # [Q, threads * count]
            candidates = np.concatenate([block_rows for _, block_rows in results], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
            candidates = np.take_along_axis(candidates, order, axis=1)

        # The product with a row that is not finite is never among the best, so such rows leave places empty.
        num_allowed = len(self._rows) if allowed is None else np.count_nonzero(allowed)
        if (candidates[:, : min(count, num_allowed)] < 0).any():
            raise DamagedIndex("rows.f16 holds rows that are not finite")
        return candidates

    def _scan_block(
        self, queries: np.ndarray, count: int, allowed: np.ndarray | None, block: slice
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and rows, `[Q, count]`, of the closest rows of a block, best first; -inf and -1 for none.

        faiss scans the mapped float16 rows and keeps a heap of the best meanwhile. A product in NumPy would convert
        them to float32 first, and read twice as much memory.
        """
        import faiss

        heap_scores = np.full([len(queries), count], -np.inf, np.float32)
        heap_rows = np.full([len(queries), count], -1, np.int64)
        rows = self._rows[block]
        width = rows.shape[1]
        quantizer = faiss.ScalarQuantizer(width, faiss.ScalarQuantizer.QT_fp16)
        unused_quantizer = faiss.IndexFlatIP(width)  # the scanner wants one, although there are no cells
        selector = make_selector(None if allowed is None else allowed[block])
        scanner = quantizer.select_InvertedListScanner(
            faiss.METRIC_INNER_PRODUCT, unused_quantizer, True, selector, False
        )
        scanner.set_list(0, 0.0)
        codes = faiss.swig_ptr(rows.view(np.uint8).reshape(-1))
        for query, query_scores, query_rows in zip(queries, heap_scores, heap_rows, strict=True):
            scanner.set_query(faiss.swig_ptr(query))
            labels = faiss.swig_ptr(query_rows)
            # The third argument, ids of the codes, is not read: the scanner was told to return their positions (True).
            scanner.scan_codes(len(rows), codes, labels, faiss.swig_ptr(query_scores), labels, count)
        scanner.__swig_destroy__(scanner)  # faiss leaves it to the caller, without documenting it

        order = np.argsort(-heap_scores, axis=1, kind="stable")
        ordered_rows = np.take_along_axis(heap_rows, order, axis=1)
        ordered_rows = np.where(ordered_rows >= 0, ordered_rows + block.start, -1)
        return np.take_along_axis(heap_scores, order, axis=1), ordered_rows


INDEX_TYPES: Registry[type[IndexType]] = Registry(
    "index type",
    {
        "exact": "ernie_vil2.apps.search.index_types:Exact",
        "ivf": "ernie_vil2.apps.search.ivf:Ivf",
    },
)


def find_index_type(name: str) -> type[IndexType]:
    """Return the index type of a name, which may come from a stranger's index; UnknownName if it is none."""
    index_type = INDEX_TYPES.find(name)
    has_methods = all(callable(getattr(index_type, method, None)) for method in ("build", "open", "find_candidates"))
    if not isinstance(index_type, type) or not has_methods:
        raise UnknownName(f"{name} is not an index type")
    return index_type


def build_index_type(
    name: str, rows: np.ndarray, queries: Callable[[], np.ndarray], recall: float, folder: Path, log: Log
) -> IndexType:
    """Build an index type in a folder, see `IndexType.build`; the previous one answers until it is complete."""
    index_type = find_index_type(name).build(rows, queries, recall, folder, log)
    facts = integrity.seal({"version": FACTS_VERSION, **index_type.facts, "name": name})
    write_json(facts_path(folder), facts, indent=None)
    for file in folder.glob("*.faiss"):  # of the previous one
        if file.name != index_type.facts.get("file"):
            file.unlink()
    return index_type


def open_index_type(rows: np.ndarray, folder: Path) -> IndexType:
    """Return the index type in a folder, which covers the first of the rows; `Exact` if there is none.

    Raises:
        ValueError: its files cannot be read, or its module is not imported.
    """
    try:
        facts = read_facts(folder)
        index_type = find_index_type(facts["name"])
        if index_type is not Exact and facts["rows"] <= len(rows):
            return index_type.open(rows[: facts["rows"]], folder, facts)
    except FileNotFoundError:
        pass  # never built, or just replaced: the next reader finds the new one
    except UnknownName as error:
        raise ValueError(
            f"{folder}: {error}; import its module, or remove {folder} and build the index again"
        ) from error
    except (ValueError, KeyError, TypeError, RuntimeError, MemoryError) as error:
        raise ValueError(f"{folder} cannot be read ({error}); remove {folder} and build the index again") from error
    return Exact(rows)


def index_type_folder(collection: Path) -> Path:
    """Return the folder of the index type in the folder of a collection."""
    return collection / "index_type"


def facts_path(folder: Path) -> Path:
    """Return the path of the facts in the folder of an index type."""
    return folder / "index_type.json"


def read_facts(folder: Path) -> dict[str, Any]:
    """Return the facts of the index type in a folder.

    Raises:
        FileNotFoundError: none has been built.
        ValueError: the file has another version, form or checksum.
    """
    path = facts_path(folder)
    integrity.check_is_file(path)
    facts = load_json(path, MAX_FACTS_LENGTH)
    if not isinstance(facts, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    check_version(facts.get("version"), FACTS_VERSION, path.name, "another release built it")
    facts = integrity.unseal(facts, path.name)
    del facts["version"]
    if not isinstance(facts.get("name"), str) or not is_count(facts.get("rows"), 0):
        raise ValueError(f"{path.name} does not name an index type with its rows")
    return facts


def rank(rows: np.ndarray, queries: np.ndarray, candidates: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the best `count` candidates of each query by the exact inner product.

    Args:
        rows: `[N, D]` float16.
        queries: `[Q, D]` float32.
        candidates: `[Q, C]` int64 rows, -1 for none.
        count: rows for each query.

    Returns:
        Scores `[Q, count]` float32 and rows `[Q, count]` int64, best first; -inf and -1 where there are no more.

    Raises:
        DamagedIndex: a candidate is not a unit vector.
    """
    scores = np.full([len(queries), count], -np.inf, np.float32)
    best_rows = np.full([len(queries), count], -1, np.int64)
    for number, query in enumerate(queries):
        proposed = candidates[number]
        proposed = np.sort(proposed[proposed >= 0])  # in the order of the file, which reads it once from start to end
        embeddings = rows[proposed].astype(np.float32)  # [C, D]
        integrity.check_rows(embeddings, proposed)
        # Not by BLAS: its threads would spin in wait of more work for longer than all of this takes.
        products = np.einsum("cd,d->c", embeddings, query)
        order = np.argsort(-products, kind="stable")[:count]
        scores[number, : len(order)] = products[order]
        best_rows[number, : len(order)] = proposed[order]
    return scores, best_rows


def make_selector(allowed: np.ndarray | None) -> Any:
    """Return the rows in a mask, bool `[N]`, as faiss takes them; None for all."""
    import faiss

    return None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
