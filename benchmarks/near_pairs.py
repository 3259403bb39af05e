"""Measure the search for near-duplicates of images: CPU time, memory and copies found, by the number of thumbnails.

    python benchmarks/near_pairs.py                                    # 10,000 and 30,000 thumbnails: minutes
    python benchmarks/near_pairs.py --rows 100000 300000 1000000

Thumbnails have random levels and random local features. A twentieth are noisy copies of others, and a copy is found if
it is matched with its original. Timed is everything that curation does after the measures (vectors, features,
candidates, checks and registration), and then a second run with another threshold, which reads the results of the
first.

The last line extrapolates to ten million from the two largest sizes: time by a power law in the number of thumbnails,
memory by a straight line. It is an estimate, not a measurement. Each size has a process of its own. Memory is the
growth to the peak beyond mapped files (RssAnon).
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import cv2  # noqa: E402
import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.memory import PeakMemory  # noqa: E402
from ernie_vil2.apps.curation.details import DETAIL_SIDE, encode_detail  # noqa: E402
from ernie_vil2.apps.curation.guesses import Comparison  # noqa: E402
from ernie_vil2.apps.curation.image_pairs import find_matches  # noqa: E402
from ernie_vil2.apps.curation.likeness import Thumbnail  # noqa: E402
from ernie_vil2.apps.curation.local_features import FEATURE  # noqa: E402
from ernie_vil2.apps.curation.thumbnails import Thumbnails, allocate_thumbnails  # noqa: E402

ROWS_PER_COPY = 20  # one image in so many is a copy
NUM_FEATURES = 12  # local features of an image; thumbnails of photographs have 12 to 24
LEVELS_SIDE = 64  # pixels
THRESHOLDS = (0.95, 0.97)  # likeness of the first and of the second run
TARGET = 10_000_000  # thumbnails that are extrapolated to


def draw_image(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels, `[64, 64, 3]` uint8, and local features of a random image."""
    coarse_pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pixels = cv2.resize(coarse_pixels, (LEVELS_SIDE, LEVELS_SIDE), interpolation=cv2.INTER_CUBIC)
    positions = rng.uniform(4, 60, (NUM_FEATURES, 2))
    sizes = rng.uniform(3, 12, NUM_FEATURES)
    angles = rng.uniform(0, 6.28, NUM_FEATURES)
    features = np.empty(NUM_FEATURES, FEATURE)
    features["keypoint"] = np.column_stack([positions, sizes, angles])
    # SIFT's numbers are mostly small, and few are large.
    features["descriptor"] = np.minimum(rng.exponential(35, (NUM_FEATURES, 128)), 255)
    return pixels, features


def copy_image(pixels: np.ndarray, features: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy copy of an image with less contrast."""
    noisy_pixels = 0.8 * pixels + 20 + rng.normal(0, 4, pixels.shape)
    noisy_features = features.copy()
    descriptors = features["descriptor"] + rng.normal(0, 6, (len(features), 128))
    noisy_features["descriptor"] = np.clip(descriptors, 0, 255)
    return np.clip(noisy_pixels, 0, 255).astype(np.uint8), noisy_features


def make_thumbnail(row: int, num_rows: int) -> Thumbnail:
    """Return the thumbnail of the image of a row; the last rows are copies of the first ones."""
    # Each row seeds its own image, so that an original can be drawn again for its copy.
    original_row = row - (num_rows - num_rows // ROWS_PER_COPY)
    if original_row < 0:
        pixels, features = draw_image(np.random.default_rng(row))
    else:
        original_pixels, original_features = draw_image(np.random.default_rng(original_row))
        pixels, features = copy_image(original_pixels, original_features, np.random.default_rng(row))

    luminance = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    colours = cv2.resize(pixels, (16, 16), interpolation=cv2.INTER_AREA)
    return Thumbnail(
        content=luminance.tobytes() + colours.tobytes(),
        shape=1.0,
        extent=1.0,
        features=features.tobytes(),
        box=np.array([0, 0, 1, 1], np.float32).tobytes(),  # no borders
        detail=encode_detail(cv2.resize(pixels, (DETAIL_SIDE, DETAIL_SIDE), interpolation=cv2.INTER_CUBIC)),
    )


def write_thumbnails(num_rows: int, folder: Path) -> Thumbnails:
    """Write the thumbnails of all rows into files of a folder."""
    # Every thumbnail is made twice: the files are allocated by the size of all details, which do not fit in memory.
    num_bytes = sum(len(make_thumbnail(row, num_rows).detail) for row in range(num_rows))
    thumbnails = allocate_thumbnails(num_rows, num_bytes, folder)
    first_byte = 0
    for row in range(num_rows):
        thumbnail = make_thumbnail(row, num_rows)
        thumbnails.write(row, first_byte, row, [thumbnail])
        first_byte += len(thumbnail.detail)
    return thumbnails


def measure(num_rows: int) -> dict[str, float]:
    """Find the near-duplicates among so many thumbnails, and return the figures of a row of the table."""
    import faiss

    # One thread per library, so that a CPU second is a second of one core.
    faiss.omp_set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        thumbnails = write_thumbnails(num_rows, folder)
        cpu_seconds, pairs_by_run = [], []
        with PeakMemory() as memory:
            for likeness in THRESHOLDS:
                start = time.process_time()
                blocks = list(find_matches(thumbnails, folder, Comparison(likeness=likeness)))
                cpu_seconds.append(time.process_time() - start)
                pairs: set[tuple[int, int]] = set()
                for block in blocks:
                    pairs.update(zip(block.queries.tolist(), block.rows.tolist(), strict=True))
                pairs_by_run.append(pairs)

    num_copies = num_rows // ROWS_PER_COPY
    true_pairs = {(row, num_rows - num_copies + row) for row in range(num_copies)}
    return {
        "rows": num_rows,
        "CPU s": cpu_seconds[0],
        "again": cpu_seconds[1],
        "found": 100 * len(pairs_by_run[0] & true_pairs) / max(1, num_copies),
        "false": len(pairs_by_run[0] - true_pairs),
        "memory": memory.peak - memory.initial,
    }


def extrapolate(smaller: dict[str, float], larger: dict[str, float]) -> str:
    """Estimate time and memory for ten million thumbnails from the figures of two sizes."""
    ratio = larger["rows"] / smaller["rows"]
    power = math.log(larger["CPU s"] / smaller["CPU s"]) / math.log(ratio)
    hours = larger["CPU s"] * (TARGET / larger["rows"]) ** power / 3600
    slope = max(0.0, larger["memory"] - smaller["memory"]) / (larger["rows"] - smaller["rows"])
    memory = larger["memory"] + slope * (TARGET - larger["rows"])
    return f"estimated for {TARGET:,}: {hours:,.1f} CPU hours (rows to the power of {power:.2f}), {memory:.2f} GB"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 30_000], help="numbers of thumbnails")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.child)))
        return 0
    print("| thumbnails | CPU s | rows/s | another threshold, CPU s | copies found, % | false pairs | memory, GB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    results = []
    for rows in sorted(set(args.rows)):
        command = [sys.executable, __file__, "--child", str(rows)]
        process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603  -- a command of this script
        result = json.loads(process.stdout.splitlines()[-1])
        results.append(result)
        print(
            f"| {rows:,} | {result['CPU s']:.1f} | {rows / result['CPU s']:,.0f} | {result['again']:.1f} | "
            f"{result['found']:.1f} | {result['false']:,.0f} | {result['memory']:.2f} |",
            flush=True,
        )
    if len(results) > 1:
        print(extrapolate(*results[-2:]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
