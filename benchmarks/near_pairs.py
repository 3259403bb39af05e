"""What near-duplicates of many images cost: CPU time and memory by the number of thumbnails, and what is found.

    python benchmarks/near_pairs.py                                    # 10,000 and 30,000 thumbnails: minutes
    python benchmarks/near_pairs.py --rows 100000 300000 1000000

Thumbnails are made of random levels and random features. A twentieth are noisy copies of others, with the same features
but for noise. A copy is found if the pair is among those that show the same. Everything that curation does after the
measures is timed: vectors, features, proposals, checks, and registration; and then a second run, with another
threshold.

The last line extrapolates to ten million from the two largest sizes: a power of the number of thumbnails for the time,
and for the memory a constant and a part in proportion. It is an estimate, not a measurement. Each size has a process of
its own. Memory is what a process holds beyond mapped files (RssAnon), at most; that before the run is subtracted.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import cv2  # noqa: E402
import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ernie_vil2.apps.curation.details import DETAIL_SIDE, encode_detail  # noqa: E402
from ernie_vil2.apps.curation.guesses import Comparison  # noqa: E402
from ernie_vil2.apps.curation.image_pairs import find_matches  # noqa: E402
from ernie_vil2.apps.curation.likeness import Thumbnail  # noqa: E402
from ernie_vil2.apps.curation.local_features import FEATURE  # noqa: E402
from ernie_vil2.apps.curation.thumbnails import Thumbnails, allocate_thumbnails  # noqa: E402

COPIES = 20  # one image in so many is a copy
NUM_FEATURES = 12  # of an image; thumbnails of photographs have 12 to 24
TARGET = 10_000_000


class Memory:
    """The most memory beyond mapped files, in GB, that this process had in the block more than before it."""

    def __enter__(self) -> "Memory":
        self._before, self.most = self._read(), 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._end.wait(0.02):
            self.most = max(self.most, self._read() - self._before)

    @staticmethod
    def _read() -> float:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1e6
        raise OSError("/proc/self/status has no RssAnon")

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def draw_image(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return levels, `[64, 64, 3]` uint8, and features of a random image."""
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pixels = cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC)
    features = np.empty(NUM_FEATURES, FEATURE)
    features["keypoint"] = np.column_stack(
        [rng.uniform(4, 60, (NUM_FEATURES, 2)), rng.uniform(3, 12, NUM_FEATURES), rng.uniform(0, 6.28, NUM_FEATURES)]
    )
    # SIFT's numbers are mostly small, and few are large.
    features["descriptor"] = np.minimum(rng.exponential(35, (NUM_FEATURES, 128)), 255)
    return pixels, features


def copy_image(pixels: np.ndarray, features: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy copy of an image in other light."""
    noisy = 0.8 * pixels + 20 + rng.normal(0, 4, pixels.shape)
    changed = features.copy()
    changed["descriptor"] = np.clip(features["descriptor"] + rng.normal(0, 6, (len(features), 128)), 0, 255)
    return np.clip(noisy, 0, 255).astype(np.uint8), changed


def make_thumbnails(count: int, folder: Path) -> Thumbnails:
    """Return the thumbnails of images in files; the last ones are copies of the first ones."""
    # Every image is made twice, because the file has to have room for all details, which do not fit in memory together.
    num_bytes = sum(len(make_thumbnail(row, count).detail) for row in range(count))
    images = allocate_thumbnails(count, num_bytes, folder)
    for row in range(count):
        images.write(row, np.array([row]), [make_thumbnail(row, count)])
    return images


def make_thumbnail(row: int, count: int) -> Thumbnail:
    """Return the thumbnail of one of so many images, which has no borders."""
    original = row - (count - count // COPIES)
    pixels, features = draw_image(np.random.default_rng(original if original >= 0 else row))
    if original >= 0:
        pixels, features = copy_image(pixels, features, np.random.default_rng(row))
    luminance = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    colours = cv2.resize(pixels, (16, 16), interpolation=cv2.INTER_AREA)
    return Thumbnail(
        content=luminance.tobytes() + colours.tobytes(),
        shape=1.0,
        extent=1.0,
        features=features.tobytes(),
        box=np.array([0, 0, 1, 1], np.float32).tobytes(),
        detail=encode_detail(cv2.resize(pixels, (DETAIL_SIDE, DETAIL_SIDE), interpolation=cv2.INTER_CUBIC)),
    )


def measure(count: int) -> dict[str, float]:
    """Return what so many thumbnails cost."""
    import faiss

    faiss.omp_set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        images = make_thumbnails(count, Path(name))
        spent, pairs = [], set()
        with Memory() as memory:
            for likeness in (0.95, 0.97):
                start = time.process_time()
                blocks = list(find_matches(images, Path(name), Comparison(likeness=likeness)))
                spent.append(time.process_time() - start)
                if likeness == 0.95:
                    for block in blocks:
                        pairs |= set(zip(block.queries.tolist(), block.rows.tolist(), strict=True))
    num_copies = count // COPIES
    planted = {(row, count - num_copies + row) for row in range(num_copies)}
    return {
        "rows": count,
        "CPU s": spent[0],
        "again": spent[1],
        "found": 100 * len(pairs & planted) / max(1, num_copies),
        "false": len(pairs - planted),
        "memory": memory.most,
    }


def extrapolate(smaller: dict[str, float], larger: dict[str, float]) -> str:
    """Say what ten million would take, by two sizes."""
    ratio = larger["rows"] / smaller["rows"]
    power = math.log(larger["CPU s"] / smaller["CPU s"]) / math.log(ratio)
    hours = larger["CPU s"] * (TARGET / larger["rows"]) ** power / 3600
    slope = max(0.0, larger["memory"] - smaller["memory"]) / (larger["rows"] - smaller["rows"])
    memory = larger["memory"] + slope * (TARGET - larger["rows"])
    return f"estimated for {TARGET:,}: {hours:,.1f} CPU hours (rows to the power of {power:.2f}), {memory:.2f} GB"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 30_000])
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.child)))
        return 0
    print("| thumbnails | CPU s | rows/s | another threshold, CPU s | copies found, % | false pairs | memory, GB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    results = []
    for rows in sorted(args.rows):
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
