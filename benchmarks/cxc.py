"""Crisscrossed Captions at its real size: seconds and memory of the four directions, against plain NumPy.

    python benchmarks/cxc.py --ratings FOLDER        # of sts_test.csv(.gz), sis_test.csv(.gz), sits_test.csv(.gz)

25,000 captions and 5,000 images with random embeddings, on one thread. The baseline computes the three matrices of
scores in float32, block by block, and takes the ten best of each row: no exact sums, no rule for ties, no ranks.
"""

import argparse
import csv
import gzip
import os
import resource
import sys
import time
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratings", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--width", type=int, default=768)
    args = parser.parse_args()
    if any(os.environ.get(name) != "1" for name in THREADS):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(THREADS, "1"))  # noqa: S606  -- this command itself
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import numpy as np

    from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText
    from ernie_vil2.data.samples import BadSampleReport
    from ernie_vil2.evaluation.encoded import EncodedBenchmark
    from ernie_vil2.evaluation.protocol import find_protocol, score_embeddings

    path = next(iter(args.ratings.glob("sits_test.csv*")))
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt") as file:
        pairs = [(row["image"], row["caption"].split(":")[-1]) for row in csv.DictReader(file)
                 if row["sampling_method"] == "c2i_original"]  # fmt: skip
    images = {name: row for row, name in enumerate(sorted({image for image, _ in pairs}))}
    benchmark = Benchmark(
        "mscoco-test",
        [BenchmarkImage(name, lambda: b"") for name in images],
        [BenchmarkText(caption, "x") for _, caption in pairs],
        np.array([(images[image], row) for row, (image, _) in enumerate(pairs)]),
        BadSampleReport(),
        (args.ratings / "dataset_coco.json",),
    )
    rng = np.random.default_rng(0)
    sides = [rng.normal(size=(len(rows), args.width)).astype(np.float32) for rows in (images, pairs)]
    sides = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]

    start = time.perf_counter()
    for left, right in ((0, 1), (1, 1), (0, 0)):
        for block in range(0, len(sides[left]), 1024):
            scores = sides[left][block : block + 1024] @ sides[right].T
            np.argpartition(scores, -11, axis=1)[:, -11:]
    baseline, before = time.perf_counter() - start, peak()
    start = time.perf_counter()
    images_side, texts_side = sides
    encoded = EncodedBenchmark(benchmark, images_side, texts_side, BadSampleReport())
    evaluation = score_embeddings(encoded, find_protocol("cxc"))
    seconds = time.perf_counter() - start
    for direction, result in evaluation.results.items():
        print(f"{direction:<16}{np.count_nonzero(result.ranking.rank):>8,} queries, R@1 {result.recall['R@1']:.3f}")
    print(f"four directions {seconds:.1f} s, peak {peak():,.0f} MiB (before {before:,.0f} MiB); "
          f"plain products {baseline:.1f} s: {seconds / baseline:.2f} times")  # fmt: skip
    return 0


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
