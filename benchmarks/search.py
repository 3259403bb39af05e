"""Compare index types of a search index: build time, disk, memory, recall, and latency of one query at a time.

    python benchmarks/search.py --index indexes/icons
    python benchmarks/search.py --index indexes/icons --queries queries.txt --threads 1 --kinds exact ivf numpy
    python benchmarks/search.py --index indexes/icons --among texts --kinds numpy exact
    python benchmarks/search.py --index indexes/icons --keep kinds      # what is there is not built again
    python benchmarks/search.py --rows 100000 --width 256       # random rows, which flatter: for a quick look only

Next to the product's own index types, in the same run: `numpy`, a float32 product with argpartition; `faiss-flat`,
faiss alone; and `milvus-lite`, where it is installed. Recall@10 is against the exact product over the float16 rows, on
queries that the kinds were not tuned on. Every kind is built in one process, and opened and measured in another, which
has loaded its libraries before: `reopen` is the time from opening to the first answer, and `memory` the growth until
then.
"""

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

NUM_TUNING_QUERIES = 3000  # as many as the index has captions, if it has fewer
INDEX_TYPES = ("numpy", "exact", "ivf", "faiss-flat", "milvus-lite")
# Options that the inputs and the built kinds depend on.
KEPT_SETTINGS = ("index", "among", "queries", "rows", "width", "asked", "recall")
Search = Callable[[np.ndarray], np.ndarray]  # finds the ten rows closest to a query, [width] -> [10]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", metavar="FOLDER", help="folder of an index, whose images are searched")
    parser.add_argument(
        "--among", choices=("images", "texts"), default="images", help="texts: search the index's texts, for its images"
    )
    parser.add_argument("--queries", type=Path, help="file of texts, one per line; default: captions of the index")
    parser.add_argument("--rows", type=int, default=50_000, help="number of random rows, without --index")
    parser.add_argument("--width", type=int, default=256, help="width of random rows, without --index")
    parser.add_argument("--kinds", nargs="+", choices=INDEX_TYPES, default=INDEX_TYPES)
    parser.add_argument("--recall", type=float, default=0.98, help="recall that index types are tuned for")
    parser.add_argument("--asked", type=int, default=300, help="number of queries that are timed, one after the other")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="folder that keeps inputs and built kinds")
    parser.add_argument("--child", nargs=2, metavar=("WORK", "KIND"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.among == "texts" and args.queries:
        parser.error("--queries are texts, and --among texts is asked by images")
    if args.child:
        task, kind = args.child
        figures = build(kind, args.keep, args.recall) if task == "build" else measure(kind, args.keep)
        print(json.dumps(figures))
        return 0

    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        settings_file = folder / "settings.json"
        if not (folder / "rows.npy").exists():
            settings = {name: str(getattr(args, name)) for name in KEPT_SETTINGS}
            settings_file.write_text(json.dumps(settings), encoding="utf-8")
            prepare(args, folder)
        # Options that are left out are those of the folder.
        kept_settings = json.loads(settings_file.read_text(encoding="utf-8")) if settings_file.exists() else {}
        for name in KEPT_SETTINGS:
            value = getattr(args, name)
            if value != parser.get_default(name) and str(value) != kept_settings.get(name):
                parser.error(f"--{name} {value}: {folder} was made with {kept_settings.get(name)}; name another folder")
        print_table(args, folder)
    return 0


def print_table(args: argparse.Namespace, folder: Path) -> None:
    """Build the kinds that the folder lacks, measure all, and print a row for each."""
    num_rows, width = np.load(folder / "rows.npy", mmap_mode="r").shape
    queries = np.load(folder / "queries.npz")
    threads = "1 thread" if args.threads == 1 else f"{args.threads} threads"
    print(
        f"{num_rows:,} rows of {width}, {len(queries['asked'])} queries asked, {len(queries['tuned'])} tuned on, "
        f"{threads}"
    )
    print(
        f"\n{'kind':<12}{'build s':>9}{'disk MiB':>10}{'memory MiB':>12}{'reopen s':>10}{'p50 ms':>9}{'p99 ms':>9}"
        f"{'recall@10':>11}   parameters"
    )
    numpy_latency = None
    for kind in args.kinds:
        build_file = folder / kind / "built.json"
        figures = json.loads(build_file.read_text()) if build_file.exists() else run_child("build", kind, args, folder)
        if "error" not in figures:
            figures |= run_child("measure", kind, args, folder)
        if "error" in figures:
            print(f"{kind:<12} {figures['error']}")
            continue
        print(
            f"{kind:<12}{figures['build']:>9.1f}{figures['disk']:>10.0f}{figures['memory']:>12.0f}"
            f"{figures['reopen']:>10.3f}{figures['p50']:>9.2f}{figures['p99']:>9.2f}{figures['recall']:>11.3f}"
            f"   {figures['parameters']}",
            flush=True,
        )
        if kind == "numpy":
            numpy_latency = figures["p50"]
        elif numpy_latency:
            print(f"{'':<12}{figures['p50'] / numpy_latency:.2f} of numpy's time")


def run_child(task: str, kind: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Build or measure a kind in a process of its own; return its figures, or its last line as `error`."""
    command = [sys.executable, __file__, "--child", task, kind, "--keep", str(folder), "--recall", str(args.recall)]
    environment = dict(os.environ)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[variable] = str(args.threads)
    process = subprocess.run(command, env=environment, capture_output=True, text=True)  # noqa: S603  -- a command of this script
    if process.returncode:
        return {"error": (process.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(process.stdout.splitlines()[-1])


def prepare(args: argparse.Namespace, folder: Path) -> None:
    """Write the inputs of all kinds into a folder.

    `rows.npy` has the rows, `[N, D]` float16. `queries.npz` has the queries that are timed (`asked`), those that kinds
    are tuned on (`tuned`), and the ten rows closest to each of the timed ones (`closest`).
    """
    num_queries = args.asked + NUM_TUNING_QUERIES
    if args.index is None:
        rng = np.random.default_rng(0)
        rows = draw_unit_rows(rng, args.rows, args.width)
        queries = draw_unit_rows(rng, num_queries, args.width)
        num_timed = args.asked
    else:
        rows, queries, num_timed = read_index(args, num_queries)

    rows = rows.astype(np.float16)
    floats = rows.astype(np.float32)
    timed_queries, tuning_queries = queries[:num_timed], queries[num_timed:]
    closest = [np.argpartition(floats @ query, -10)[-10:] for query in timed_queries]
    np.savez(folder / "queries.npz", asked=timed_queries, tuned=tuning_queries, closest=closest)
    np.save(folder / "rows.npy", rows)  # last: its presence says that the inputs are complete


def draw_unit_rows(rng: np.random.Generator, num_rows: int, width: int) -> np.ndarray:
    """Return random rows of length 1, float32."""
    rows = rng.normal(size=(num_rows, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def read_index(args: argparse.Namespace, num_queries: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the rows of an index, queries for them, and how many of these, the first, are to be timed."""
    from ernie_vil2.apps.search import open_index
    from ernie_vil2.apps.search.local_collection import LocalCollection

    rng = np.random.default_rng(0)
    with open_index(args.index) as index:
        collection = index.collection(args.among)
        if not isinstance(collection, LocalCollection):
            sys.exit(f"error: {args.index} holds no rows: name the folder of an index")
        if not len(collection.rows):
            sys.exit(f"error: {args.index} has no {args.among}")
        rows = np.array(collection.rows)
        images = index.collection("images")
        if args.among == "texts":
            return rows, rng.permutation(images.sample_embeddings(num_queries)), args.asked

        texts = rng.permutation(images.sample_captions(num_queries)).tolist()
        num_timed = args.asked
        if args.queries:
            lines = args.queries.read_text(encoding="utf-8").splitlines()
            lines = [line for line in lines if line.strip()][: args.asked]
            num_timed = len(lines)
            texts = lines + texts[:NUM_TUNING_QUERIES]
        return rows, index.encode_texts(texts), num_timed


def build(kind: str, root: Path, recall: float) -> dict[str, float]:
    """Build a kind in a folder of its own, and keep its build time in seconds and its size on disk in MiB."""
    folder = root / kind
    shutil.rmtree(folder, ignore_errors=True)  # of a build that was stopped
    folder.mkdir()
    rows = np.load(root / "rows.npy", mmap_mode="r")
    tuning_queries = np.load(root / "queries.npz")["tuned"]
    load_libraries(kind)
    start = time.perf_counter()
    BUILDERS[kind](rows, tuning_queries, recall, folder)
    seconds = time.perf_counter() - start
    num_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    figures = {"build": seconds, "disk": num_bytes / 2**20}
    (folder / "built.json").write_text(json.dumps(figures))
    return figures


def measure(kind: str, root: Path) -> dict[str, Any]:
    """Open a kind and ask it; return seconds until the first answer, MiB, latencies in milliseconds, and recall@10."""
    rows = np.load(root / "rows.npy", mmap_mode="r")
    queries = np.load(root / "queries.npz")
    timed_queries = queries["asked"]
    load_libraries(kind)

    initial_memory, start = read_resident_memory(), time.perf_counter()
    search, parameters = OPENERS[kind](rows, root / kind)
    search(timed_queries[0])
    reopen = time.perf_counter() - start
    memory = read_resident_memory() - initial_memory

    latencies, recalls = [], []
    for query, closest in zip(timed_queries, queries["closest"], strict=True):
        start = time.perf_counter()
        answer = search(query)
        latencies.append(1000 * (time.perf_counter() - start))
        recalls.append(len(np.intersect1d(answer, closest)) / 10)
    return {
        "reopen": reopen,
        "memory": memory,
        "p50": float(np.percentile(latencies, 50)),
        "p99": float(np.percentile(latencies, 99)),
        "recall": float(np.mean(recalls)),
        "parameters": parameters,
    }


def load_libraries(kind: str) -> None:
    """Import what a kind needs, so that the time and memory of its libraries are not measured."""
    for library in LIBRARIES[kind]:
        importlib.import_module(library)


def read_resident_memory() -> float:
    """Return the MiB that this process holds, with the pages of files that it has touched, but without the rows."""
    kibibytes, path = 0, ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        fields = line.split()
        # A mapping begins with a line of its addresses and its path, and has a line of its resident size.
        is_mapping = "-" in fields[0] and not fields[0].endswith(":")
        if is_mapping:
            path = fields[-1]
        elif fields[0] == "Rss:" and not path.endswith("rows.npy"):
            kibibytes += int(fields[1])
    return kibibytes / 1024


def make_product_builder(name: str) -> Callable[..., None]:
    """Return a function that builds one of the product's index types."""

    def build_index(rows: np.ndarray, queries: np.ndarray, recall: float, folder: Path) -> None:
        from ernie_vil2.apps.search.index_types import build_index_type

        # Standard output is for the figures.
        build_index_type(name, rows, lambda: queries, recall, folder, lambda line: print(line, file=sys.stderr))

    return build_index


def open_product(rows: np.ndarray, folder: Path) -> tuple[Search, str]:
    from ernie_vil2.apps.search.index_types import NUM_CANDIDATES, open_index_type, rank

    index = open_index_type(rows, folder)

    def search(query: np.ndarray) -> np.ndarray:
        candidates = index.find_candidates(query[None], NUM_CANDIDATES)
        return rank(rows, query[None], candidates, 10)[1][0]

    parameters = {}
    for name, value in index.facts.items():
        if name in ("cells", "directions", "num_probes", "recall"):
            parameters[name] = value
    return search, json.dumps(parameters)


def open_numpy(rows: np.ndarray, folder: Path) -> tuple[Search, str]:
    floats = np.asarray(rows, np.float32)

    def search(query: np.ndarray) -> np.ndarray:
        scores = floats @ query
        best = np.argpartition(scores, -10)[-10:]
        return best[np.argsort(-scores[best])]

    return search, ""


def build_faiss_flat(rows: np.ndarray, queries: np.ndarray, recall: float, folder: Path) -> None:
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(np.asarray(rows, np.float32))
    faiss.write_index(index, str(folder / "flat.faiss"))


def open_faiss_flat(rows: np.ndarray, folder: Path) -> tuple[Search, str]:
    import faiss

    index = faiss.read_index(str(folder / "flat.faiss"))
    return lambda query: index.search(query[None], 10)[1][0], ""


def build_milvus_lite(rows: np.ndarray, queries: np.ndarray, recall: float, folder: Path) -> None:
    from pymilvus import DataType, MilvusClient

    client = MilvusClient(str(folder / "milvus.db"))
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=rows.shape[1])
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type="IVF_SQ8", metric_type="IP", params={"nlist": 1024})
    client.create_collection("rows", schema=schema, index_params=indexes)
    for start in range(0, len(rows), 5000):
        vectors = np.asarray(rows[start : start + 5000], np.float32).tolist()
        client.insert("rows", [{"id": row, "vector": vector} for row, vector in enumerate(vectors, start)])
    client.flush("rows")
    client.close()


def open_milvus_lite(rows: np.ndarray, folder: Path) -> tuple[Search, str]:
    from pymilvus import MilvusClient

    client = MilvusClient(str(folder / "milvus.db"))
    client.load_collection("rows")

    def search(query: np.ndarray) -> np.ndarray:
        answers = client.search("rows", [query.tolist()], limit=10, search_params={"params": {"nprobe": 128}})
        return np.array([hit["id"] for hit in answers[0]])

    return search, "IVF_SQ8, nlist 1024, nprobe 128"


# By kind: the modules to import first, the function that builds it, and the one that opens it.
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "numpy": (),
    "exact": ("faiss", "ernie_vil2.apps.search.index_types"),
    "ivf": ("faiss", "ernie_vil2.apps.search.index_types"),
    "faiss-flat": ("faiss",),
    "milvus-lite": ("pymilvus", "milvus_lite"),
}
BUILDERS: Mapping[str, Callable[..., None]] = {
    "numpy": lambda *_: None,
    "exact": make_product_builder("exact"),
    "ivf": make_product_builder("ivf"),
    "faiss-flat": build_faiss_flat,
    "milvus-lite": build_milvus_lite,
}
OPENERS: Mapping[str, Callable[[np.ndarray, Path], tuple[Search, str]]] = {
    "numpy": open_numpy,
    "exact": open_product,
    "ivf": open_product,
    "faiss-flat": open_faiss_flat,
    "milvus-lite": open_milvus_lite,
}


if __name__ == "__main__":
    sys.exit(main())
