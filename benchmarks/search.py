"""Engines of a search index on real embeddings: build time, disk, memory, recall and latency, one query at a time.

    python benchmarks/search.py --index indexes/icons
    python benchmarks/search.py --index indexes/icons --queries queries.txt --threads 1 --engines exact ivf numpy
    python benchmarks/search.py --index indexes/icons --among texts --engines numpy exact
    python benchmarks/search.py --rows 100000 --width 256       # random rows, which flatter: for a quick look only

Beside the product's own engines stand, in the same run: `numpy`, a float32 product with argpartition; `faiss-flat`,
faiss alone; `milvus-lite`, where it is installed. Recall@10 is against the exact product over the float16 rows, on
queries that the engines were not tuned on. Every engine is measured in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TUNED_ON = 1500
ENGINES = ("numpy", "exact", "ivf", "hnsw", "faiss-flat", "milvus-lite")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", metavar="FOLDER", help="an index in a folder, whose pictures are searched")
    parser.add_argument("--among", choices=("images", "texts"), default="images",
                        help="texts: the index's texts are searched, for its pictures")  # fmt: skip
    parser.add_argument("--queries", type=Path, help="texts to ask, one per line; default: captions of the index")
    parser.add_argument("--rows", type=int, default=50_000, help="of random rows, where there is no index")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--recall", type=float, default=0.98)
    parser.add_argument("--asked", type=int, default=300, help="queries that are timed, one after the other")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        return measure(args)
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        prepare(args, inputs)
        environment = os.environ | {name: str(args.threads) for name in
                                    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}  # fmt: skip
        print(f"\n{'engine':<12}{'build s':>9}{'disk MiB':>10}{'memory MiB':>12}{'reopen s':>10}"
              f"{'p50 ms':>9}{'p99 ms':>9}{'recall@10':>11}   parameters")  # fmt: skip
        baseline = None
        for engine in args.engines:
            command = [sys.executable, __file__, "--measure", engine, "--index", str(inputs),
                       "--recall", str(args.recall), "--threads", str(args.threads)]  # fmt: skip
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                print(f"{engine:<12} {done.stderr.strip().splitlines()[-1]}")
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            print(f"{engine:<12}{found['build']:>9.1f}{found['disk']:>10.0f}{found['memory']:>12.0f}"
                  f"{found['reopen']:>10.3f}{found['p50']:>9.2f}{found['p99']:>9.2f}{found['recall']:>11.3f}"
                  f"   {found['parameters']}", flush=True)  # fmt: skip
            if engine == "numpy":
                baseline = found["p50"]
            elif baseline:
                print(f"{'':<12}{found['p50'] / baseline:.2f} of numpy's time")
    return 0


def prepare(args: argparse.Namespace, path: Path) -> None:
    """Rows, queries to tune on, and queries to ask."""
    import numpy as np

    rng = np.random.default_rng(0)
    if args.index is None:
        shapes = ((args.rows, args.width), (args.asked + TUNED_ON, args.width))
        rows, queries = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
        rows, queries = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (rows, queries))
    else:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from ernie_vil2.search import open_index

        with open_index(args.index) as index:
            rows = np.array(index.collection(args.among).rows)
            pictures = index.collection("images")
            if args.among == "texts":
                queries = rng.permutation(pictures.sample(TUNED_ON + args.asked))
            else:
                texts = rng.permutation(pictures.texts(TUNED_ON + args.asked)).tolist()
                if args.queries:
                    lines = args.queries.read_text(encoding="utf-8").splitlines()
                    lines = [line for line in lines if line.strip()][: args.asked]
                    args.asked, texts = len(lines), lines + texts[:TUNED_ON]
                queries = index.encode_texts(texts)
    asked, tuned = queries[: args.asked], queries[args.asked :]
    print(f"{len(rows):,} rows of {rows.shape[1]}, {len(asked)} queries asked, {len(tuned)} tuned on, "
          f"{args.threads} thread{'s'[: args.threads > 1]}")  # fmt: skip
    np.savez(path, rows=rows.astype(np.float16), asked=asked, tuned=tuned)


def measure(args: argparse.Namespace) -> int:
    """One engine: prints JSON."""
    import numpy as np

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from ernie_vil2.search.engines import RERANKED, Exact, ranked

    inputs = np.load(args.index)
    asked, tuned = inputs["asked"], inputs["tuned"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "rows.npy", inputs["rows"])
        rows = np.load(folder / "rows.npy", mmap_mode="r")
        start = time.perf_counter()
        built = ENGINE_BUILDERS[args.measure](rows, tuned, args.recall, folder)
        build = time.perf_counter() - start
        before, start = anonymous(), time.perf_counter()
        search = built()
        search(asked[0])
        reopen, memory = time.perf_counter() - start, anonymous() - before
        times, answers = [], []
        for query in asked:
            start = time.perf_counter()
            answers.append(search(query))
            times.append(1000 * (time.perf_counter() - start))
        truth = ranked(rows, asked, Exact(rows).candidates(asked, RERANKED), 10)[1]
        recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(answers, truth, strict=True)])
        disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != "rows.npy")
        print(json.dumps({"build": build, "disk": disk / 2**20, "memory": memory, "reopen": reopen,
                          "p50": float(np.percentile(times, 50)), "p99": float(np.percentile(times, 99)),
                          "recall": float(recall), "parameters": getattr(search, "parameters", "")}))  # fmt: skip
    return 0


def anonymous() -> float:
    """MiB that this process holds, with the pages of files that it has touched, but for the rows themselves."""
    held, path = 0, ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        parts = line.split()
        if "-" in parts[0] and not parts[0].endswith(":"):
            path = parts[-1]
        elif parts[0] == "Rss:" and not path.endswith("rows.npy"):
            held += int(parts[1])
    return held / 1024


def product_engine(name: str):
    def build(rows, tuned, recall, folder):
        from ernie_vil2.search.engines import ENGINES, RERANKED, ranked

        kind = ENGINES[name]
        kind.build(rows, lambda: tuned, recall, folder, lambda line: print(line, file=sys.stderr))

        def reopened():
            engine = kind.open(rows, folder)

            def search(query):
                return ranked(rows, query[None], engine.candidates(query[None], RERANKED), 10)[1][0]

            facts = {
                key: value for key, value in engine.facts.items() if key in ("cells", "directions", "breadth", "recall")
            }
            search.parameters = json.dumps(facts)
            return search

        return reopened

    return build


def numpy_product(rows, tuned, recall, folder):
    import numpy as np

    def reopened():
        held = np.asarray(rows, np.float32)

        def search(query):
            scores = held @ query
            best = np.argpartition(scores, -10)[-10:]
            return best[np.argsort(-scores[best])]

        return search

    return reopened


def faiss_flat(rows, tuned, recall, folder):
    import faiss
    import numpy as np

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(np.asarray(rows, np.float32))
    faiss.write_index(index, str(folder / "flat.faiss"))

    def reopened():
        opened = faiss.read_index(str(folder / "flat.faiss"))
        return lambda query: opened.search(query[None], 10)[1][0]

    return reopened


def milvus_lite(rows, tuned, recall, folder):
    import numpy as np
    from pymilvus import MilvusClient

    client = MilvusClient(str(folder / "milvus.db"))
    indexes = client.prepare_index_params()
    schema = MilvusClient.create_schema()
    from pymilvus import DataType

    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=rows.shape[1])
    indexes.add_index("vector", index_type="IVF_SQ8", metric_type="IP", params={"nlist": 1024})
    client.create_collection("rows", schema=schema, index_params=indexes)
    for start in range(0, len(rows), 5000):
        block = np.asarray(rows[start : start + 5000], np.float32).tolist()
        client.insert("rows", [{"id": start + row, "vector": vector} for row, vector in enumerate(block)])
    client.flush("rows")

    def reopened():
        client.load_collection("rows")

        def search(query):
            found = client.search("rows", [query.tolist()], limit=10, search_params={"params": {"nprobe": 128}})
            return np.array([hit["id"] for hit in found[0]])

        search.parameters = "IVF_SQ8, nlist 1024, nprobe 128"
        return search

    return reopened


ENGINE_BUILDERS = {name: product_engine(name) for name in ("exact", "ivf", "hnsw")} | {
    "numpy": numpy_product,
    "faiss-flat": faiss_flat,
    "milvus-lite": milvus_lite,
}


if __name__ == "__main__":
    sys.exit(main())
