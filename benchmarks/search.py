"""Index types of a search index on real embeddings: build time, disk, memory, recall and latency, one query at a time.

    python benchmarks/search.py --index indexes/icons
    python benchmarks/search.py --index indexes/icons --queries queries.txt --threads 1 --kinds exact ivf numpy
    python benchmarks/search.py --index indexes/icons --among texts --kinds numpy exact
    python benchmarks/search.py --index indexes/icons --keep kinds      # what is there is not built again
    python benchmarks/search.py --rows 100000 --width 256       # random rows, which flatter: for a quick look only

In the same run, next to the product's own index types: `numpy`, a float32 product with argpartition; `faiss-flat`,
faiss alone; `milvus-lite`, where it is installed. Recall@10 is against the exact product over the float16 rows, on
queries that the kinds were not tuned on. Every kind is built in a process of its own, and opened and measured in
another: `reopen` is what that waits for from opening to the first answer, and `memory` what it holds more then, its
libraries being loaded before.
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
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

TUNED_ON = 3000
INDEX_TYPES = ("numpy", "exact", "ivf", "faiss-flat", "milvus-lite")
Search = Callable[[np.ndarray], np.ndarray]  # finds the ten rows closest to a query, [width] -> [10]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", metavar="FOLDER", help="an index in a folder, whose images are searched")
    parser.add_argument("--among", choices=("images", "texts"), default="images",
                        help="texts: the index's texts are searched, for its images")  # fmt: skip
    parser.add_argument("--queries", type=Path, help="texts to ask, one per line; default: captions of the index")
    parser.add_argument("--rows", type=int, default=50_000, help="of random rows, where there is no index")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--kinds", nargs="+", choices=INDEX_TYPES, default=INDEX_TYPES)
    parser.add_argument("--recall", type=float, default=0.98)
    parser.add_argument("--asked", type=int, default=300, help="queries that are timed, one after the other")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where inputs and kinds stay; default: nowhere")
    parser.add_argument("--child", nargs=2, metavar=("WORK", "KIND"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        work, kind = args.child
        print(json.dumps({"build": build, "measure": measure}[work](kind, args.keep, args.recall)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        args.keep = folder = args.keep or Path(temporary)
        if not (folder / "rows.npy").exists():
            folder.mkdir(parents=True, exist_ok=True)
            prepare(args, folder)
        count, width = np.load(folder / "rows.npy", mmap_mode="r").shape
        asked, tuned = (len(np.load(folder / "queries.npz")[name]) for name in ("asked", "tuned"))
        print(f"{count:,} rows of {width}, {asked} queries asked, {tuned} tuned on, "
              f"{args.threads} thread{'s'[: args.threads > 1]}")  # fmt: skip
        environment = os.environ | {name: str(args.threads) for name in
                                    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}  # fmt: skip
        print(f"\n{'kind':<12}{'build s':>9}{'disk MiB':>10}{'memory MiB':>12}{'reopen s':>10}"
              f"{'p50 ms':>9}{'p99 ms':>9}{'recall@10':>11}   parameters")  # fmt: skip
        baseline = None
        for kind in args.kinds:
            built = folder / kind / "built.json"
            found = json.loads(built.read_text()) if built.exists() else child("build", kind, args, environment)
            if "error" not in found:
                found |= child("measure", kind, args, environment)
            if "error" in found:
                print(f"{kind:<12} {found['error']}")
                continue
            print(f"{kind:<12}{found['build']:>9.1f}{found['disk']:>10.0f}{found['memory']:>12.0f}"
                  f"{found['reopen']:>10.3f}{found['p50']:>9.2f}{found['p99']:>9.2f}{found['recall']:>11.3f}"
                  f"   {found['parameters']}", flush=True)  # fmt: skip
            if kind == "numpy":
                baseline = found["p50"]
            elif baseline:
                print(f"{'':<12}{found['p50'] / baseline:.2f} of numpy's time")
    return 0


def child(work: str, kind: str, args: argparse.Namespace, environment: dict) -> dict:
    """Return the figures that a process of its own measures, or its error."""
    command = [sys.executable, __file__, "--child", work, kind, "--keep", str(args.keep),
               "--recall", str(args.recall)]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True)  # noqa: S603  -- a command of this script
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no word"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def prepare(args: argparse.Namespace, folder: Path) -> None:
    """Write rows, queries to tune on, queries to ask and the rows closest to these into the folder."""
    rng = np.random.default_rng(0)
    if args.index is None:
        shapes = ((args.rows, args.width), (args.asked + TUNED_ON, args.width))
        rows, queries = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
        rows, queries = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (rows, queries))
    else:
        from ernie_vil2.apps.search import open_index
        from ernie_vil2.apps.search.local_collection import LocalCollection

        with open_index(args.index) as index:
            searched = index.collection(args.among)
            if not isinstance(searched, LocalCollection):
                sys.exit(f"error: {args.index} holds no rows: name the folder of an index")
            rows = np.array(searched.rows)
            images = index.collection("images")
            if args.among == "texts":
                queries = rng.permutation(images.sample_embeddings(TUNED_ON + args.asked))
            else:
                texts = rng.permutation(images.sample_captions(TUNED_ON + args.asked)).tolist()
                if args.queries:
                    lines = args.queries.read_text(encoding="utf-8").splitlines()
                    lines = [line for line in lines if line.strip()][: args.asked]
                    args.asked, texts = len(lines), lines + texts[:TUNED_ON]
                queries = index.encode_texts(texts)
    asked, tuned = queries[: args.asked], queries[args.asked :]
    rows = rows.astype(np.float16)
    floats = rows.astype(np.float32)
    closest = [np.argpartition(floats @ query, -10)[-10:] for query in asked]
    np.savez(folder / "queries.npz", asked=asked, tuned=tuned, closest=closest)
    np.save(folder / "rows.npy", rows)


def build(kind: str, keep: Path, recall: float) -> dict:
    """Build a kind in a folder of its own, again if it was stopped before."""
    folder = keep / kind
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    rows, tuned = np.load(keep / "rows.npy", mmap_mode="r"), np.load(keep / "queries.npz")["tuned"]
    load_libraries(kind)
    start = time.perf_counter()
    BUILD[kind](rows, tuned, recall, folder)
    seconds = time.perf_counter() - start
    disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    found = {"build": seconds, "disk": disk / 2**20}
    (folder / "built.json").write_text(json.dumps(found))
    return found


def measure(kind: str, keep: Path, recall: float) -> dict:
    """Open a kind and ask it."""
    rows, queries = np.load(keep / "rows.npy", mmap_mode="r"), np.load(keep / "queries.npz")
    asked = queries["asked"]
    load_libraries(kind)
    before, start = resident(), time.perf_counter()
    search, parameters = OPEN[kind](rows, keep / kind)
    search(asked[0])
    reopen, memory = time.perf_counter() - start, resident() - before
    times, answers = [], []
    for query in asked:
        start = time.perf_counter()
        answers.append(search(query))
        times.append(1000 * (time.perf_counter() - start))
    found = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(answers, queries["closest"], strict=True)])
    return {"reopen": reopen, "memory": memory, "p50": float(np.percentile(times, 50)),
            "p99": float(np.percentile(times, 99)), "recall": float(found),
            "parameters": parameters}  # fmt: skip


def load_libraries(kind: str) -> None:
    for library in LIBRARIES[kind]:
        importlib.import_module(library)


def resident() -> float:
    """Return the MiB that this process holds, with the pages of files that it has touched, but without the rows."""
    total, path = 0, ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        parts = line.split()
        if "-" in parts[0] and not parts[0].endswith(":"):
            path = parts[-1]
        elif parts[0] == "Rss:" and not path.endswith("rows.npy"):
            total += int(parts[1])
    return total / 1024


def build_product(name: str):
    def build(rows, tuned, recall, folder):
        from ernie_vil2.apps.search.index_types import build_index_type

        build_index_type(name, rows, lambda: tuned, recall, folder, lambda line: print(line, file=sys.stderr))

    return build


def open_product(rows: np.ndarray, folder: Path) -> tuple[Search, str]:
    from ernie_vil2.apps.search.index_types import NUM_CANDIDATES, open_index_type, rank

    kind = open_index_type(rows, folder)

    def search(query):
        return rank(rows, query[None], kind.find_candidates(query[None], NUM_CANDIDATES), 10)[1][0]

    facts = ("cells", "directions", "num_probes", "recall")
    return search, json.dumps({key: value for key, value in kind.facts.items() if key in facts})


def open_numpy(rows: np.ndarray, folder: Path) -> tuple[Search, str]:
    floats = np.asarray(rows, np.float32)

    def search(query):
        scores = floats @ query
        best = np.argpartition(scores, -10)[-10:]
        return best[np.argsort(-scores[best])]

    return search, ""


def build_faiss_flat(rows, tuned, recall, folder):
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(np.asarray(rows, np.float32))
    faiss.write_index(index, str(folder / "flat.faiss"))


def open_faiss_flat(rows: np.ndarray, folder: Path) -> tuple[Search, str]:
    import faiss

    opened = faiss.read_index(str(folder / "flat.faiss"))
    return lambda query: opened.search(query[None], 10)[1][0], ""


def build_milvus_lite(rows, tuned, recall, folder):
    from pymilvus import DataType, MilvusClient

    client = MilvusClient(str(folder / "milvus.db"))
    indexes = client.prepare_index_params()
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=rows.shape[1])
    indexes.add_index("vector", index_type="IVF_SQ8", metric_type="IP", params={"nlist": 1024})
    client.create_collection("rows", schema=schema, index_params=indexes)
    for start in range(0, len(rows), 5000):
        block = np.asarray(rows[start : start + 5000], np.float32).tolist()
        client.insert("rows", [{"id": start + row, "vector": vector} for row, vector in enumerate(block)])
    client.flush("rows")
    client.close()


def open_milvus_lite(rows: np.ndarray, folder: Path) -> tuple[Search, str]:
    from pymilvus import MilvusClient

    client = MilvusClient(str(folder / "milvus.db"))
    client.load_collection("rows")

    def search(query):
        found = client.search("rows", [query.tolist()], limit=10, search_params={"params": {"nprobe": 128}})
        return np.array([hit["id"] for hit in found[0]])

    return search, "IVF_SQ8, nlist 1024, nprobe 128"


OURS = ("exact", "ivf")
LIBRARIES = dict.fromkeys(OURS, ("faiss", "ernie_vil2.apps.search.index_types")) | {
    "numpy": (),
    "faiss-flat": ("faiss",),
    "milvus-lite": ("pymilvus", "milvus_lite"),
}
BUILD = {name: build_product(name) for name in OURS} | {
    "numpy": lambda *_: None,
    "faiss-flat": build_faiss_flat,
    "milvus-lite": build_milvus_lite,
}
OPEN = dict.fromkeys(OURS, open_product) | {
    "numpy": open_numpy,
    "faiss-flat": open_faiss_flat,
    "milvus-lite": open_milvus_lite,
}


if __name__ == "__main__":
    sys.exit(main())
