"""Measure time and memory of scoring Crisscrossed Captions at its real size, compared with plain NumPy.

    python benchmarks/cxc.py --ratings FOLDER        # of sts_test.csv(.gz), sis_test.csv(.gz), sits_test.csv(.gz)

The embeddings of 25,000 captions and 5,000 images are random; everything runs in one thread. The baseline computes the
three matrices of scores in float32, block by block, and takes the ten best of each row: no exact sums, no rule for
ties, no ranks. Memory is what each takes at its peak over the embeddings.
"""

import argparse
import csv
import gzip
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.memory import read_peak, reset_peak

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
BLOCK_ROWS = 1024  # rows of a matrix of scores that the baseline computes at once


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratings", type=Path, required=True, metavar="FOLDER", help="folder of the ratings")
    parser.add_argument("--width", type=int, default=768, help="dimensions of an embedding")
    args = parser.parse_args()
    # NumPy reads the number of threads when it is imported, so the script starts again with it.
    if any(os.environ.get(name) != "1" for name in THREAD_VARIABLES):
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, "1")
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)  # noqa: S606  -- this command itself

    import numpy as np

    from ernie_vil2.data.samples import BadSampleReport
    from ernie_vil2.evaluation.encoded import EncodedBenchmark
    from ernie_vil2.evaluation.protocol import find_protocol, score_embeddings

    benchmark = make_benchmark(args.ratings)
    rng = np.random.default_rng(0)
    embeddings = []
    for num_rows in (len(benchmark.images), len(benchmark.texts)):
        rows = rng.normal(size=(num_rows, args.width)).astype(np.float32)
        embeddings.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    images, texts = embeddings

    memory_before, start = reset_peak(), time.perf_counter()
    for queries, candidates in ((images, texts), (texts, texts), (images, images)):
        for first_row in range(0, len(queries), BLOCK_ROWS):
            scores = queries[first_row : first_row + BLOCK_ROWS] @ candidates.T
            np.argpartition(scores, -11, axis=1)[:, -11:]  # ten, and the query itself
    baseline_seconds, baseline_memory = time.perf_counter() - start, read_peak() - memory_before

    memory_before, start = reset_peak(), time.perf_counter()
    encoded = EncodedBenchmark(benchmark, images, texts, BadSampleReport())
    evaluation = score_embeddings(encoded, find_protocol("cxc"))
    seconds, memory = time.perf_counter() - start, read_peak() - memory_before
    for direction, result in evaluation.results.items():
        num_queries = np.count_nonzero(result.ranking.rank)
        print(f"{direction:<16}{num_queries:>8,} queries, R@1 {result.recall['R@1']:.3f}")
    print(
        f"four directions {seconds:.1f} s, {memory:,.0f} MiB; plain products {baseline_seconds:.1f} s, "
        f"{baseline_memory:,.0f} MiB: {seconds / baseline_seconds:.2f} times the time"
    )
    return 0


def make_benchmark(ratings: Path):
    """Return MSCOCO's test set as the ratings name it: images without content, texts without words."""
    import numpy as np

    from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText
    from ernie_vil2.data.samples import BadSampleReport

    paths = list(ratings.glob("sits_test.csv*"))
    if not paths:
        raise SystemExit(f"error: {ratings} has no sits_test.csv or sits_test.csv.gz")
    open_file = gzip.open if paths[0].suffix == ".gz" else open
    original_pairs = []
    with open_file(paths[0], "rt") as file:
        for rating in csv.DictReader(file):
            if rating["sampling_method"] == "c2i_original":
                original_pairs.append((rating["image"], rating["caption"].split(":")[-1]))

    image_names = sorted({image for image, _ in original_pairs})
    image_rows = {name: row for row, name in enumerate(image_names)}
    return Benchmark(
        "mscoco-test",
        [BenchmarkImage(name, lambda: b"") for name in image_names],
        [BenchmarkText(caption, "x") for _, caption in original_pairs],
        np.array([(image_rows[image], row) for row, (image, _) in enumerate(original_pairs)]),
        BadSampleReport(),
        (ratings / "dataset_coco.json",),  # the path of the file next to which the ratings are looked for
    )


if __name__ == "__main__":
    sys.exit(main())
