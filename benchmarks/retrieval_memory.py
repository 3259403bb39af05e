"""Peak memory and seconds of exact scoring in blocks, compared with the plain NumPy way.

    python benchmarks/retrieval_memory.py
    python benchmarks/retrieval_memory.py --images 10000 --texts 50000 --width 768 --baseline-images 2000

Inputs are random unit vectors in float32, with as many texts an image as divides them. The baseline holds the whole
matrix of scores and sorts it once in each direction; it is measured at a size that fits, where ours is measured too,
so that the ratios compare like with like. Each measurement has a process of its own; memory is that at its
peak, less what it had before and less the inputs, as Linux counts it. OMP_NUM_THREADS and similar set the threads.
"""

import argparse
import multiprocessing
import os
import re
import sys
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--texts", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=768, help="dimensions of an embedding")
    parser.add_argument("--baseline-images", type=int, default=2_000, help="images at which the baseline is measured")
    parser.add_argument("--block", type=int, default=1024, help="rows scored at once")
    args = parser.parse_args()

    texts_each = args.texts // args.images
    full = (args.images, args.images * texts_each, args.width, args.block)
    small = (args.baseline_images, args.baseline_images * texts_each, args.width, args.block)
    threads = os.environ.get("OMP_NUM_THREADS", "as many as BLAS takes")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, BLAS threads: {threads}")
    print(f"{'':<32}{'images':>8}{'texts':>8}{'inputs MB':>11}{'peak over inputs MB':>21}{'seconds':>9}")
    ours = report("evaluate_retrieval", in_blocks, full)
    ours_small = report("evaluate_retrieval", in_blocks, small)
    plain = report("whole matrix, argsort twice", whole_matrix, small)
    if plain[2] != ours_small[2]:
        print("error: the two do not agree on the ranks", file=sys.stderr)
        return 1
    memory, seconds = (theirs / mine for theirs, mine in zip(plain, ours_small[:2], strict=False))
    print(f"at the baseline's size: {memory:.1f} times less memory, {seconds:.1f} times faster, equal ranks")
    print(f"at full size: {ours[0]:.0f} MB over the inputs; the promise is below 1,500")
    return 0 if ours[0] < 1_500 else 1


def report(name, score, size) -> tuple[float, float, int]:
    """Print a line, and return peak MB over the inputs, seconds, and the sum of all ranks."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak, seconds, ranks = pool.apply(measured, (score, size))
    inputs = (size[0] + size[1]) * size[2] * 4 / 1e6
    print(f"{name:<32}{size[0]:>8}{size[1]:>8}{inputs:>11.0f}{peak:>21.0f}{seconds:>9.1f}", flush=True)
    return peak, seconds, ranks


def measured(score, size) -> tuple[float, float, int]:
    import numpy as np

    import ernie_vil2.evaluation  # noqa: F401 - imported before memory is counted
    from ernie_vil2.device import runtime

    runtime.configure()

    images, texts, width, block = size
    before = resident("VmRSS")
    random = np.random.default_rng(0)
    sides = [random.standard_normal((rows, width), np.float32) for rows in (images, texts)]
    for side in sides:
        for row in side:  # one at a time: what larger temporaries leave in the heap would hide what scoring takes
            row /= np.linalg.norm(row)
    pairs = np.stack([np.arange(texts) // (texts // images), np.arange(texts)], axis=1)
    inputs = sum(array.nbytes for array in (*sides, pairs)) / 1e6
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    start = time.perf_counter()
    ranks = score(*sides, pairs, block)
    return resident("VmHWM") - before - inputs, time.perf_counter() - start, ranks


def resident(what: str) -> float:
    """Return the resident memory of this process in MB, now or at its peak."""
    match = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if match is None:
        raise OSError(f"/proc/self/status has no {what}")
    return int(match[1]) * 1024 / 1e6


def in_blocks(images, texts, pairs, block) -> int:
    from ernie_vil2.evaluation import evaluate_retrieval
    from ernie_vil2.evaluation.ranking import Blocks

    results = evaluate_retrieval(images, texts, pairs, Blocks(block))
    return int(sum(result.ranking.rank.sum() for result in results.values()))


def whole_matrix(images, texts, pairs, block) -> int:
    import numpy as np

    scores = (images.astype(np.float64) @ texts.astype(np.float64).T).astype(np.float32)
    positions = np.argsort(-scores, axis=1, kind="stable").argsort(axis=1)  # of each text for each image
    first = np.full(len(images), len(texts))
    np.minimum.at(first, pairs[:, 0], positions[tuple(pairs.T)])
    positions = np.argsort(-scores.T, axis=1, kind="stable").argsort(axis=1)
    return int((first + 1).sum() + (positions[tuple(pairs.T[::-1])] + 1).sum())


if __name__ == "__main__":
    sys.exit(main())
