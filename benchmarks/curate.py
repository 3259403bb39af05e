"""Measure the speed of curation: pairs per second of each step, and how joins and near vectors grow with the rows.

    python demo_data/crawl.py
    python benchmarks/curate.py                                      # maps on the crawl; rows up to a million
    python benchmarks/curate.py --rows 10000 100000 1000000 10000000       # hours for the vectors

    maps      pairs of the crawl per CPU second: reading, decoding, and each step on decoded images; next to them, in
              the same process, a plain loop of Pillow and imagehash (pip install imagehash)
    joins     rules and duplicates of captions on synthetic measures, from Parquet files to the table
    vectors   near pairs among synthetic vectors of width 256, a twentieth of which are near copies: the share of the
              near pairs that is found; up to 20,000 rows next to all products by NumPy, in blocks

Times are CPU seconds, over all threads. Memory is the peak beyond mapped files (RssAnon). Each size has a process of
its own.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

# One thread per library, so that a CPU second is a second of one core. Libraries read these when they are imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.memory import PeakMemory  # noqa: E402

if TYPE_CHECKING:
    from ernie_vil2.apps.curation import Pair, Step

SETTINGS = ROOT / "configs" / "curate" / "crawl.yaml"
WIDTH = 256
MIN_COSINE = 0.9  # of near vectors
ROWS_PER_COPY = 20  # one vector in so many is a near copy
MAX_ROWS_FOR_PRODUCTS = 20_000  # all products of more rows take minutes
BLOCK_SIZE = 100_000  # rows of a synthetic file, and of a block of synthetic vectors
PRODUCT_BLOCK_SIZE = 1000  # rows whose products with all others are in memory at a time
JOIN_STEPS = ("text_rules", "image_rules", "exact_duplicates")  # those that need no images
FAULTY_CAPTIONS = (
    "see http://a.com/b for more",
    "<b>red</b> hat",
    "IMG_0001.JPG",
    "call 13812345678",
    "no image available",
)
GOOD_CAPTIONS = (
    "A red fox in fresh snow",
    "两个小女孩在公园里放风筝",
    "Vintage Ford Mustang in candy apple red",
    "杭州西湖断桥残雪",
)
NUM_CAPTIONS = 40  # captions that are drawn from, so that each fault has one row in 40


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default=str(ROOT / "demo_data" / "crawl"), metavar="SOURCE", help="pairs for the maps"
    )
    parser.add_argument("--pairs", type=int, default=2000, help="number of pairs of the crawl that are measured")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="sizes for joins and vectors"
    )
    parser.add_argument("--only", choices=("maps", "joins", "vectors"), nargs="+", default=["maps", "joins", "vectors"])
    parser.add_argument("--child", choices=("joins", "vectors"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure = {"joins": measure_joins, "vectors": measure_vectors}[args.child]
        print(json.dumps(measure(args.rows[0])))
        return 0

    if "maps" in args.only:
        if find_spec("imagehash") is None:
            parser.error("maps compare with imagehash: pip install imagehash, or leave them out: --only joins vectors")
        print("| maps | pairs/s and core |\n| --- | ---: |")
        for name, rate in measure_maps(args.data, args.pairs).items():
            print(f"| {name} | {rate:,.0f} |", flush=True)
    for task in ("joins", "vectors"):
        if task in args.only:
            print_growth(task, args.rows)
    return 0


def print_growth(task: str, sizes: Iterable[int]) -> None:
    """Print a table with a row of figures for each size."""
    has_header = False
    for rows in sizes:
        figures = measure_in_child(task, rows)
        if not has_header:
            print(f"\n| {task} | {' | '.join(figures)} |\n| ---: |{' ---: |' * len(figures)}")
            has_header = True
        print(f"| {rows:,} | {' | '.join(figures.values())} |", flush=True)


def measure_in_child(task: str, rows: int) -> dict[str, str]:
    """Measure a task in a process of its own, so that the memory of earlier sizes does not count."""
    command = [sys.executable, __file__, "--child", task, "--rows", str(rows)]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603  -- a command of this script
    return json.loads(process.stdout.splitlines()[-1])


def measure_maps(data: str, max_pairs: int) -> dict[str, float]:
    """Return pairs per CPU second by the name of a step.

    Args:
        data: source of the pairs, which are taken from all over it.
        max_pairs: number of pairs, or all if the source has fewer.
    """
    import cv2
    import imagehash
    from PIL import Image

    from ernie_vil2.apps.curation import Pair, load_steps
    from ernie_vil2.data.readers import open_sources
    from ernie_vil2.data.samples import BadSample

    cv2.setNumThreads(0)
    source = open_sources([data])
    rows = np.linspace(0, len(source) - 1, min(max_pairs, len(source))).astype(int).tolist()
    start = time.process_time()
    samples = [source[row] for row in rows]
    rates = {"reading": len(rows) / (time.process_time() - start)}

    # Pairs without captions and with broken images are left out, also of the time.
    pairs: list[Pair] = []
    decoding_seconds = 0.0
    for sample in samples:
        start = time.process_time()
        try:
            pair = Pair(sample)
            _ = pair.pixels  # decoded here, and cached for the steps
        except BadSample:
            continue
        decoding_seconds += time.process_time() - start
        pairs.append(pair)
    rates["decoding"] = len(pairs) / decoding_seconds

    steps = load_steps(SETTINGS)
    for step in steps:
        step.check()
        rates[step.name] = measure_steps([step], pairs)
    rates["all steps"] = measure_steps(steps, pairs)

    start = time.process_time()
    for pair in pairs:
        Image.open(io.BytesIO(pair.sample.image)).convert("RGB")
    rates["plain loop: Pillow's decoding"] = len(pairs) / (time.process_time() - start)
    start = time.process_time()
    for pair in pairs:
        imagehash.phash(Image.open(io.BytesIO(pair.sample.image)).convert("RGB"))
    rates["plain loop: Pillow's decoding and imagehash.phash"] = len(pairs) / (time.process_time() - start)
    return rates


def measure_steps(steps: "Sequence[Step]", pairs: "list[Pair]") -> float:
    """Return decoded pairs per CPU second of steps, in the order of curation: all edits, then the measures by pair."""
    # Restore the pairs as they were when they were decoded: what steps share then counts for each of them that is
    # measured alone, and captions are cut anew.
    for pair in pairs:
        for name in ("luminance", "small_pixels", "thumbnails"):
            vars(pair).pop(name, None)
        pair.captions = pair.sample.readable_captions()

    start = time.process_time()
    for step in steps:
        step.edit(pairs)
    for pair in pairs:
        for step in steps:
            step.measure(pair)
    return len(pairs) / max(time.process_time() - start, 1e-9)  # a step without measures takes no time


def measure_joins(rows: int) -> dict[str, str]:
    """Decide on synthetic measures by rules, frequent captions and equal images, and write the table.

    Returns:
        Figures by the name of their column.
    """
    from ernie_vil2.apps.curation.joins import Joins, MeasuresFile
    from ernie_vil2.apps.curation.run import decide, write_table
    from ernie_vil2.apps.curation.step import load_steps

    steps = [step for step in load_steps(SETTINGS) if step.name in JOIN_STEPS]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, sizes = [], []
        for number, first_row in enumerate(range(0, rows, BLOCK_SIZE)):
            size = min(BLOCK_SIZE, rows - first_row)
            files.append(MeasuresFile(write_measures(folder, number, size, rows), first_row))
            sizes.append(size)
        table_folder = folder / "table"
        table_folder.mkdir()

        with PeakMemory() as memory:
            start_cpu, start = time.process_time(), time.perf_counter()
            # In GB: the 3 GB that ten million rows need, as docs/notes/curation.md says.
            database = Joins(files, folder, memory=max(1.0, 3e-7 * rows))
            decide(database, steps)
            deciding_seconds = time.process_time() - start_cpu
            write_table(database, sizes, table_folder)
            cpu_seconds = time.process_time() - start_cpu
            seconds = time.perf_counter() - start
            database.close()
    return {
        "rules and duplicates, CPU s": f"{deciding_seconds:.1f}",
        "with the table, CPU s": f"{cpu_seconds:.1f}",
        "rows/s and core": f"{rows / cpu_seconds:,.0f}",
        "clock, s": f"{seconds:.1f}",
        "memory, GB": f"{memory.peak:.2f}",
    }


def write_measures(folder: Path, number: int, size: int, total_rows: int) -> Path:
    """Write a Parquet file of synthetic measures.

    Each fault of a caption has one row in 40, a tenth of the rows copied images, a twentieth frequent captions, and a
    hundredth broken images.

    Args:
        folder: folder of the file.
        number: number of the file, which seeds the random generator.
        size: rows of the file.
        total_rows: rows of all files, among which images are copied.
    """
    import pyarrow as pa
    from pyarrow import parquet

    from ernie_vil2.apps.curation.caption_measures import MEASURES
    from ernie_vil2.apps.curation.steps.image_rules import ImageRules

    rng = np.random.default_rng(number)
    captions = [*FAULTY_CAPTIONS, *GOOD_CAPTIONS * NUM_CAPTIONS][:NUM_CAPTIONS]
    caption_numbers = rng.integers(0, NUM_CAPTIONS, size).tolist()
    # Copies draw their content from few numbers, other images from so many that none is drawn twice.
    is_copy = rng.random(size) < 0.1
    copied_contents = rng.integers(0, max(1, total_rows // 10), size)
    contents = np.where(is_copy, copied_contents, rng.integers(2**40, 2**62, size))
    has_frequent_caption = rng.random(size) < 0.05

    # The rules read all measures; those that are not drawn below are 0.
    columns: dict[str, Any] = {}
    for name in [*MEASURES, *ImageRules.columns]:
        columns[name] = pa.array(np.zeros(size), pa.float32())
    columns["row"] = pa.array(np.arange(size), pa.int32())
    columns["key"] = pa.array([f"{number:05}{row:06}" for row in range(size)])
    columns["id"] = pa.array(rng.integers(0, 2**62, size), pa.uint64())
    errors = ["broken image" if draw < 0.01 else None for draw in rng.random(size).tolist()]
    columns["error"] = pa.array(errors, pa.string())

    columns["languages"] = pa.array(rng.choice(["en", "zh", "other"], size, p=[0.5, 0.4, 0.1]))
    columns["characters"] = pa.array(rng.integers(1, 200, size), pa.int32())
    columns["words"] = pa.array(rng.integers(1, 40, size), pa.int32())
    columns["letters"] = pa.array(rng.integers(1, 150, size), pa.int32())
    columns["han"] = pa.array(rng.integers(0, 40, size), pa.int32())
    columns["simple_captions"] = pa.array([captions[caption] for caption in caption_numbers])
    frequent_keys, rare_keys = rng.integers(0, 50, size), rng.integers(2**40, 2**62, size)
    columns["text_key"] = pa.array(np.where(has_frequent_caption, frequent_keys, rare_keys), pa.uint64())

    columns["width"] = pa.array(rng.integers(20, 1500, size), pa.int32())
    columns["height"] = pa.array(rng.integers(20, 1500, size), pa.int32())
    columns["aspect"] = pa.array(1 + rng.exponential(0.8, size), pa.float32())
    columns["deviation"] = pa.array(rng.uniform(0, 90, size), pa.float32())
    columns["relief"] = pa.array(rng.uniform(0, 30, size), pa.float32())
    columns["content"] = pa.array([content.to_bytes(16, "little") for content in contents.tolist()], pa.binary())

    path = folder / f"{number}.parquet"
    parquet.write_table(pa.table(columns), path, compression="zstd")
    return path


def measure_vectors(rows: int) -> dict[str, str]:
    """Find the near pairs of synthetic vectors.

    Returns:
        Figures by the name of their column.
    """
    import faiss

    from ernie_vil2.apps.curation.neighbours import neighbours

    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vectors.npy")
        write_vectors(path, rows)
        vectors = np.load(path, mmap_mode="r")
        with PeakMemory() as memory:
            start = time.process_time()
            pairs = set()
            for block in neighbours(vectors, MIN_COSINE):
                for left, right in zip(block.queries.tolist(), block.rows.tolist(), strict=True):
                    pairs.add((min(left, right), max(left, right)))
            cpu_seconds = time.process_time() - start

        num_copies = rows // ROWS_PER_COPY
        true_pairs = {(row, rows - num_copies + row) for row in range(num_copies)}
        numpy_seconds = "–"
        if rows <= MAX_ROWS_FOR_PRODUCTS:
            start = time.process_time()
            true_pairs |= find_by_products(vectors)
            numpy_seconds = f"{time.process_time() - start:.1f}"
    return {
        "CPU s": f"{cpu_seconds:.1f}",
        "vectors/s and core": f"{rows / cpu_seconds:,.0f}",
        "near pairs found, %": f"{100 * len(pairs & true_pairs) / len(true_pairs):.1f}",
        "memory, GB": f"{memory.peak:.2f}",
        "NumPy, CPU s": numpy_seconds,
    }


def write_vectors(path: Path, rows: int) -> None:
    """Write `[rows, WIDTH]` float16 vectors of length 1 around common directions; the last copy the first ones."""
    rng = np.random.default_rng(0)
    vectors = np.lib.format.open_memmap(path, "w+", np.float16, (rows, WIDTH))
    directions = rng.normal(size=(1000, WIDTH)).astype(np.float32)
    first_copy = rows - rows // ROWS_PER_COPY
    for start in range(0, rows, BLOCK_SIZE):
        end = min(start + BLOCK_SIZE, rows)
        block = rng.standard_normal((end - start, WIDTH), np.float32)
        block += 0.7 * directions[rng.integers(0, len(directions), end - start)]

        original_rows = np.arange(max(start, first_copy), end) - first_copy
        num_copies = len(original_rows)
        if num_copies:
            # Originals are in an earlier block, which is written, or all in this one.
            is_written = original_rows[-1] < start
            originals = vectors[original_rows].astype(np.float32) if is_written else block[original_rows - start]
            originals = originals / np.linalg.norm(originals, axis=1, keepdims=True)
            noise = rng.standard_normal((num_copies, WIDTH), np.float32)
            block[-num_copies:] = originals + 0.25 / np.sqrt(WIDTH) * noise  # a cosine of 0.97
        vectors[start:end] = block / np.linalg.norm(block, axis=1, keepdims=True)


def find_by_products(vectors: np.ndarray) -> set[tuple[int, int]]:
    """Return all near pairs, the smaller row first, by the products of all vectors."""
    floats = np.asarray(vectors, np.float32)
    pairs = set()
    for start in range(0, len(floats), PRODUCT_BLOCK_SIZE):
        is_near = floats[start : start + PRODUCT_BLOCK_SIZE] @ floats.T >= MIN_COSINE
        left_rows, right_rows = np.nonzero(is_near)
        for left, right in zip((start + left_rows).tolist(), right_rows.tolist(), strict=True):
            if left < right:
                pairs.add((left, right))
    return pairs


if __name__ == "__main__":
    sys.exit(main())
