"""How fast curation is: pairs a second and core by step next to a plain loop, and how joins and vectors grow with rows.

    python demo_data/crawl.py
    python benchmarks/curate.py                                      # maps on the crawl; rows up to a million
    python benchmarks/curate.py --rows 10000 100000 1000000 10000000       # hours for the vectors

    maps      of pairs of the crawl: reading, decoding, and what each step measures once an image is decoded; in the
              same process a plain loop, Pillow's decoding and imagehash's phash (pip install imagehash)
    joins     the rules and duplicates of captions over made measures, from Parquet to the table
    vectors   pairs of near vectors of width 256, a twentieth of which have a near copy: the share of these that is
              found; next to it all products by NumPy, in blocks, up to 20,000

Times are CPU seconds, over all threads. Memory is what the process holds beyond mapped files (RssAnon), at most. Each
size has a process of its own.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402

if TYPE_CHECKING:
    from ernie_vil2.apps.curation import Pair, Step
    from ernie_vil2.data.samples import Sample

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

SETTINGS = ROOT / "configs" / "curate" / "crawl.yaml"
WIDTH = 256
LEAST = 0.9  # cosine of near vectors
COPIES = 20  # one vector in so many has a near copy
PLAIN = 20_000  # vectors up to which all products are computed
PART = 100_000  # rows of a made part
FAULTS = ("see http://a.com/b for more", "<b>red</b> hat", "IMG_0001.JPG", "call 13812345678", "no image available")
CAPTIONS = (
    "A red fox in fresh snow",
    "两个小女孩在公园里放风筝",
    "Vintage Ford Mustang in candy apple red",
    "杭州西湖断桥残雪",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(ROOT / "demo_data" / "crawl"), metavar="SOURCE")
    parser.add_argument("--pairs", type=int, default=2000, help="of the crawl that are measured")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--only", choices=("maps", "joins", "vectors"), nargs="+", default=["maps", "joins", "vectors"])
    parser.add_argument("--child", choices=("joins", "vectors"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps({"joins": joins, "vectors": vectors}[args.child](args.rows[0])))
        return 0
    if "maps" in args.only:
        print("| maps | pairs/s and core |\n| --- | ---: |")
        for name, rate in maps(args.data, args.pairs).items():
            print(f"| {name} | {rate:,.0f} |", flush=True)
    for part in ("joins", "vectors"):
        for number, rows in enumerate(args.rows if part in args.only else ()):
            found = child(part, rows)
            if not number:
                print(f"\n| {part} | {' | '.join(found)} |\n| ---: |{' ---: |' * len(found)}")
            print(f"| {rows:,} | {' | '.join(found.values())} |", flush=True)
    return 0


def child(part: str, rows: int) -> dict[str, str]:
    """What a process of its own measures."""
    command = [sys.executable, __file__, "--child", part, "--rows", str(rows)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603  -- a command of this script
    return json.loads(done.stdout.splitlines()[-1])


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def maps(data: str, count: int) -> dict[str, float]:
    """Pairs a second and core of each step, of pairs from all over the data."""
    import cv2
    import imagehash
    from PIL import Image

    from ernie_vil2.apps.curation import Pair, load_steps
    from ernie_vil2.data.readers import open_sources
    from ernie_vil2.data.samples import BadSample

    cv2.setNumThreads(0)
    source = open_sources([data])
    rows = np.linspace(0, len(source) - 1, min(count, len(source))).astype(int).tolist()
    samples: list[Sample] = []
    pairs: list[tuple[Pair, float]] = []
    reading = seconds(lambda: samples.extend(source[row] for row in rows))
    for sample in samples:
        pair = Pair(sample)
        try:
            pairs.append((pair, seconds(partial(getattr, pair, "pixels"))))
        except BadSample:
            continue
    decoding = sum(spent for _, spent in pairs)
    rates = {"reading": len(rows) / reading, "decoding": len(pairs) / decoding}
    steps = load_steps(SETTINGS)
    for step in steps:
        step.check()
        for pair, _ in pairs:  # whatever steps share counts for each
            forget_shared(pair)
        spent = seconds(partial(measure_pairs, step, [pair for pair, _ in pairs]))
        rates[step.name] = len(pairs) / max(spent, 1e-9)
    for pair, _ in pairs:
        forget_shared(pair)
    rates["all steps"] = len(pairs) / seconds(lambda: [step.measure(pair) for pair, _ in pairs for step in steps])

    def plain() -> list:
        opened = (Image.open(io.BytesIO(pair.sample.image)).convert("RGB") for pair, _ in pairs)
        return [imagehash.phash(image) for image in opened]

    def pillow() -> None:
        for pair, _ in pairs:
            Image.open(io.BytesIO(pair.sample.image)).convert("RGB")

    rates["plain loop: Pillow's decoding"] = len(pairs) / seconds(pillow)
    rates["plain loop: Pillow's decoding and imagehash.phash"] = len(pairs) / seconds(plain)
    return rates


def forget_shared(pair: "Pair") -> None:
    """Drop what steps share, except the pixels."""
    for name in ("luminance", "small_pixels", "thumbnails"):
        vars(pair).pop(name, None)


def measure_pairs(step: "Step", pairs: "list[Pair]") -> None:
    """Let a step edit the captions of all pairs, as it does with a chunk of a shard, and measure each."""
    step.edit(pairs)
    for pair in pairs:
        step.measure(pair)


class Memory:
    """The most memory that this process had beyond mapped files, in GB, while the block ran."""

    def __enter__(self) -> "Memory":
        self.most, self._end = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._end.wait(0.02):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.most = max(self.most, int(line.split()[1]) / 1e6)

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def joins(rows: int) -> dict[str, str]:
    """Rules, equal captions of many images, equal images, and the table, of made measures."""
    from ernie_vil2.apps.curation.joins import Joins, MeasuresFile
    from ernie_vil2.apps.curation.run import decide, write_table
    from ernie_vil2.apps.curation.step import load_steps

    cheap = [step for step in load_steps(SETTINGS) if step.name in ("text_rules", "image_rules", "exact_duplicates")]
    with tempfile.TemporaryDirectory() as folder:
        sizes = [min(PART, rows - first) for first in range(0, rows, PART)]
        parts = [
            MeasuresFile(made_part(Path(folder), number, size, rows), PART * number)
            for number, size in enumerate(sizes)
        ]
        with Memory() as memory:
            start, clock = time.process_time(), time.perf_counter()
            database = Joins(parts, Path(folder), memory=max(1.0, 3e-7 * rows))
            decide(database, cheap)
            deciding = time.process_time() - start
            (Path(folder) / "table").mkdir()
            write_table(database, sizes, Path(folder) / "table")
            spent, wall = time.process_time() - start, time.perf_counter() - clock
            database.close()
    return {
        "rules and duplicates, CPU s": f"{deciding:.1f}",
        "with the table, CPU s": f"{spent:.1f}",
        "rows/s and core": f"{rows / spent:,.0f}",
        "clock, s": f"{wall:.1f}",
        "memory, GB": f"{memory.most:.2f}",
    }


def made_part(folder: Path, number: int, size: int, rows: int) -> Path:
    """Measures of pairs, of which some have each fault, a tenth a copied image, and a twentieth a frequent caption."""
    import pyarrow as pa
    from pyarrow import parquet

    from ernie_vil2.apps.curation.caption_measures import MEASURES
    from ernie_vil2.apps.curation.steps.image_rules import ImageRules

    rng = np.random.default_rng(number)
    fault = rng.integers(0, 40, size)
    copied = np.where(
        rng.random(size) < 0.1, rng.integers(0, max(1, rows // 10), size), rng.integers(2**40, 2**62, size)
    )
    frequent = rng.random(size) < 0.05
    texts = [*FAULTS, *CAPTIONS * 40][:40]
    measures = {name: pa.array(np.zeros(size), pa.float32()) for name in [*MEASURES, *ImageRules.columns]}
    table = pa.table(
        measures
        | {
            "row": pa.array(np.arange(size), pa.int32()),
            "key": pa.array([f"{number:05}{row:06}" for row in range(size)]),
            "id": pa.array(rng.integers(0, 2**62, size), pa.uint64()),
            "error": pa.array(
                ["broken image" if is_broken else None for is_broken in rng.random(size) < 0.01], pa.string()
            ),
            "languages": pa.array(rng.choice(["en", "zh", "other"], size, p=[0.5, 0.4, 0.1])),
            "characters": pa.array(rng.integers(1, 200, size), pa.int32()),
            "words": pa.array(rng.integers(1, 40, size), pa.int32()),
            "letters": pa.array(rng.integers(1, 150, size), pa.int32()),
            "han": pa.array(rng.integers(0, 40, size), pa.int32()),
            "simple_captions": pa.array([texts[one] for one in fault.tolist()]),
            "text_key": pa.array(
                np.where(frequent, rng.integers(0, 50, size), rng.integers(2**40, 2**62, size)), pa.uint64()
            ),
            "width": pa.array(rng.integers(20, 1500, size), pa.int32()),
            "height": pa.array(rng.integers(20, 1500, size), pa.int32()),
            "aspect": pa.array(1 + rng.exponential(0.8, size), pa.float32()),
            "deviation": pa.array(rng.uniform(0, 90, size), pa.float32()),
            "relief": pa.array(rng.uniform(0, 30, size), pa.float32()),
            "content": pa.array([value.to_bytes(16, "little") for value in copied.tolist()], pa.binary()),
        }
    )
    path = folder / f"{number}.parquet"
    parquet.write_table(table, path, compression="zstd")
    return path


def made_vectors(path: Path, rows: int) -> np.ndarray:
    """`[rows, WIDTH]` float16 of length 1, mapped: around common directions, the last near copies of the first."""
    rng = np.random.default_rng(0)
    found = np.lib.format.open_memmap(path, "w+", np.float16, (rows, WIDTH))
    directions = rng.normal(size=(1000, WIDTH)).astype(np.float32)
    copies = rows // COPIES
    for start in range(0, rows, PART):
        end = min(start + PART, rows)
        block = rng.standard_normal((end - start, WIDTH), np.float32)
        block += 0.7 * directions[rng.integers(0, len(directions), end - start)]
        of = np.arange(max(start, rows - copies), end) - (rows - copies)
        if len(of):
            noise = rng.standard_normal((len(of), WIDTH), np.float32)
            originals = found[of].astype(np.float32) if of[-1] < start else block[of - start]
            originals = originals / np.linalg.norm(originals, axis=1, keepdims=True)
            block[-len(of) :] = originals + 0.25 / np.sqrt(WIDTH) * noise  # a cosine of 0.97
        found[start:end] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return found


def vectors(rows: int) -> dict[str, str]:
    """Near pairs of made vectors."""
    import faiss

    from ernie_vil2.apps.curation.neighbours import neighbours

    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        made_vectors(Path(folder) / "vectors.npy", rows)
        found = np.load(Path(folder) / "vectors.npy", mmap_mode="r")
        with Memory() as memory:
            start = time.process_time()
            near = pairs_of(neighbours(found, LEAST))
            spent = time.process_time() - start
        planted = {(row, rows - rows // COPIES + row) for row in range(rows // COPIES)}
        plain = "–"
        if rows <= PLAIN:
            start = time.process_time()
            exact = {(one, other) for one, other in products(found) if one < other}
            plain = f"{time.process_time() - start:.1f}"
            planted |= exact
    return {
        "CPU s": f"{spent:.1f}",
        "vectors/s and core": f"{rows / spent:,.0f}",
        "near pairs found, %": f"{100 * len(near & planted) / len(planted):.1f}",
        "memory, GB": f"{memory.most:.2f}",
        "NumPy, CPU s": plain,
    }


def pairs_of(found: Iterable) -> set[tuple[int, int]]:
    """Each pair once, the smaller row first."""
    return {
        (min(one, other), max(one, other))
        for near in found
        for one, other in zip(near.queries.tolist(), near.rows.tolist(), strict=True)
    }


def products(found: np.ndarray) -> Iterable[tuple[int, int]]:
    """All near pairs, by the products of all."""
    whole = np.asarray(found, np.float32)
    for start in range(0, len(whole), 1000):
        for one, other in zip(*np.nonzero(whole[start : start + 1000] @ whole.T >= LEAST), strict=True):
            yield start + int(one), int(other)


if __name__ == "__main__":
    sys.exit(main())
