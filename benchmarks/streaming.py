"""Measure training samples per second from a slow and faulty object store, next to the same shards on the local disk.

    python benchmarks/streaming.py
    python benchmarks/streaming.py --shards 200 --faults 0.2 --rate 200

An HTTP server in a process of its own holds the shards and their `index.json`. It waits `--latency` seconds before each
answer and sends `--speed` MiB per second. A share of `--faults` of the requests for shards fails: half of these with
status 503, half because the connection is closed in the middle of the file. One answer in a hundred has a changed byte.
The loader of training (tokenised texts, two augmented views) reads one epoch from each of:

    the local disk, the store without faults, the store with faults

First as fast as it can, then, from an empty cache again, at `--rate` samples per second, as a training step would
consume them; `wait` is the share of that time in which the step had no batch. The cache holds only a part of the
shards, so that they leave it during the epoch. Every sample has to come exactly once.
"""

import argparse
import contextlib
import functools
import http.server
import io
import json
import multiprocessing
import os
import random
import shutil
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

BATCH_SIZE = 64
NUM_IMAGES = 64  # distinct images, which the samples repeat
SEND_SIZE = 2**18  # bytes that the store sends at a time
CHANGED_SHARE = 0.01  # share of the answers of a faulty store that have a changed byte
RETRY_PAUSE = 0.2  # seconds; the store fails for moments, and the loader's own pause is for outages of seconds


class StoreLog(NamedTuple):
    """Counts of a store's requests and of those that failed, shared between processes."""

    num_requests: "Synchronized[int]"
    num_faults: "Synchronized[int]"


class EpochResult(NamedTuple):
    """Figures of an epoch.

    Attributes:
        rate: samples per second, from the first batch on.
        wait: share of the time from the first batch on in which no batch was ready.
        start: seconds until the first batch.
        num_lost: samples that did not come.
        num_repeated: samples that came again.
        num_late: shards that were fetched after attempts that failed.
        cache_size: largest size of the cache, in bytes.
    """

    rate: float
    wait: float
    start: float
    num_lost: int
    num_repeated: int
    num_late: int
    cache_size: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=10, help="samples of a shard, each an image of 320 x 240")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before an answer")
    parser.add_argument("--speed", type=float, default=20.0, help="MiB per second of one answer")
    parser.add_argument("--faults", type=float, default=0.1, help="share of the requests that fail")
    parser.add_argument("--cache", type=float, default=0.25, help="share of the shards that the cache holds")
    parser.add_argument("--rate", type=float, default=100.0, help="samples per second that a training step consumes")
    parser.add_argument("--workers", type=int, default=2, help="Data.workers, processes of the loader")
    args = parser.parse_args()
    if args.shards * args.samples < 2 * BATCH_SIZE:
        parser.error(f"rates are measured from the first batch on: have at least {2 * BATCH_SIZE} samples")

    from ernie_vil2.device import runtime

    runtime.configure()
    from ernie_vil2.data.readers import remote

    remote.RETRY_PAUSE = RETRY_PAUSE
    with tempfile.TemporaryDirectory() as name:
        shards, cache = Path(name, "shards"), Path(name, "cache")
        total_bytes = write_shards(shards, args.shards, args.samples)
        os.environ["ERNIE_VIL2_SHARD_CACHE_GIB"] = str(args.cache * total_bytes / 2**30)
        os.environ["ERNIE_VIL2_CACHE"] = str(cache)
        print(
            f"{args.shards} shards of {args.samples} samples, {total_bytes / 2**20:.0f} MiB, "
            f"cache {args.cache:.0%} of it"
        )
        print(f"{'':24}{'samples/s':>10}{'wait':>8}{'start':>9}{'cache':>9}  lost  twice  late shards  requests")
        measure("local disk", str(shards), None, args, cache, total_bytes)
        with run_store(shards, args, fault_rate=0.0) as (address, log):
            measure("store", address, log, args, cache, total_bytes)
        with run_store(shards, args, fault_rate=args.faults) as (address, log):
            measure(f"store, {args.faults:.0%} faults", address, log, args, cache, total_bytes)
    return 0


def measure(
    name: str, root: str, log: StoreLog | None, args: argparse.Namespace, cache: Path, total_bytes: int
) -> None:
    """Read an epoch as fast as possible and one at a fixed rate, and print a row; counts are those of both."""
    fast = read_epoch(args, root, cache, None)
    paced = read_epoch(args, root, cache, args.rate)
    requests = ""
    if log is not None:
        requests = f"{log.num_requests.value:,}, {log.num_faults.value:,} failed"
    print(
        f"{name:24}{fast.rate:10.0f}{paced.wait:8.1%}{fast.start:8.2f}s"
        f"{max(fast.cache_size, paced.cache_size) / total_bytes:9.0%}  {fast.num_lost + paced.num_lost:4}"
        f"  {fast.num_repeated + paced.num_repeated:5}  {fast.num_late + paced.num_late:11}  {requests}",
        flush=True,
    )


def write_shards(folder: Path, num_shards: int, shard_size: int) -> int:
    """Write shards with their index; return the bytes of all shards."""
    import cv2
    import numpy as np

    from ernie_vil2.io.files import sha256

    folder.mkdir()
    rng = np.random.default_rng(0)
    images = []
    for _ in range(NUM_IMAGES):
        # Noise, so that JPEG files have the size of photographs.
        pixels = cv2.resize(rng.integers(0, 256, (60, 80, 3), np.uint8), (320, 240))
        images.append(cv2.imencode(".jpg", pixels)[1].tobytes())

    entries, total_bytes = [], 0
    for shard in range(num_shards):
        path = folder / f"{shard:04}.tar"
        with tarfile.open(path, "w") as archive:
            for sample in range(shard * shard_size, (shard + 1) * shard_size):
                for suffix, content in (("jpg", images[sample % NUM_IMAGES]), ("txt", f"第{sample}张图片".encode())):
                    member = tarfile.TarInfo(f"{sample}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        num_bytes = path.stat().st_size
        entries.append({"name": path.name, "samples": shard_size, "bytes": num_bytes, "sha256": sha256(path)})
        total_bytes += num_bytes
    (folder / "index.json").write_text(json.dumps({"shards": entries}))
    return total_bytes


class StoreHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, slowly and with faults."""

    def __init__(self, *args, latency: float, speed: float, fault_rate: float, log: StoreLog, **kwargs):
        self.latency, self.speed = latency, speed
        self.fault_rate, self.log = fault_rate, log
        self.random = random.Random()  # noqa: S311  -- no secret
        with contextlib.suppress(ConnectionError):  # the client has ended
            super().__init__(*args, **kwargs)

    def log_message(self, *_):
        pass

    def do_GET(self):
        _increment(self.log.num_requests)
        time.sleep(self.latency)
        fails = self.random.random() < self.fault_rate and not self.path.endswith("index.json")
        if fails:
            _increment(self.log.num_faults)
        if fails and self.random.random() < 0.5:
            self.send_error(503)
            return

        content = bytearray(Path(self.translate_path(self.path)).read_bytes())
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fails:
            del content[len(content) // 2 :]  # the connection is closed after half of the promised bytes
        elif self.fault_rate and self.random.random() < CHANGED_SHARE:
            content[self.random.randrange(len(content))] ^= 1
            _increment(self.log.num_faults)
        for start in range(0, len(content), SEND_SIZE):
            chunk = content[start : start + SEND_SIZE]
            time.sleep(len(chunk) / 2**20 / self.speed)
            self.wfile.write(chunk)


def _increment(counter: "Synchronized[int]") -> None:
    # Requests come in threads, which would overwrite each other's counts.
    with counter.get_lock():
        counter.value += 1


@contextlib.contextmanager
def run_store(folder: Path, args: argparse.Namespace, fault_rate: float) -> Iterator[tuple[str, StoreLog]]:
    """Yield the address of a store that serves a folder, and its log."""
    log = StoreLog(multiprocessing.Value("q"), multiprocessing.Value("q"))
    ports: multiprocessing.Queue[int] = multiprocessing.Queue()
    handler = functools.partial(
        StoreHandler, directory=str(folder), latency=args.latency, speed=args.speed, fault_rate=fault_rate, log=log
    )
    server = multiprocessing.Process(target=serve, args=(handler, ports), daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{ports.get()}", log
    finally:
        server.kill()


def serve(handler: "functools.partial[StoreHandler]", ports: "multiprocessing.Queue[int]") -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        ports.put(server.server_port)
        server.serve_forever()


def read_epoch(args: argparse.Namespace, root: str, cache: Path, rate: float | None) -> EpochResult:
    """Read one epoch from an empty cache.

    Args:
        args: options of the command.
        root: folder or address of the shards.
        cache: folder of the cache, which is removed first.
        rate: samples per second that are consumed; None: as many as the loader has.
    """
    from ernie_vil2.config import load_config
    from ernie_vil2.config.sections import VIEWS
    from ernie_vil2.data.loader import load_batches
    from ernie_vil2.data.readers.source import LATE_REMARK
    from ernie_vil2.data.stream import SampleStream
    from ernie_vil2.data.tokenizer import WordPieceTokenizer
    from ernie_vil2.tasks.multi_view import MultiViewRows

    shutil.rmtree(cache, ignore_errors=True)
    options = [
        f"Data.train=['{root}/{{0000..{args.shards - 1:04}}}.tar']",
        f"Data.workers={args.workers}",
        f"Data.shuffle_buffer={args.shards * args.samples // 20}",  # 20 windows, far below the size of the cache
        f"Training.global_batch={BATCH_SIZE}",
    ]
    config = load_config(None, options)
    num_batches = args.shards * args.samples // BATCH_SIZE
    name_counts: Counter[str] = Counter()
    num_late, cache_size = 0, 0
    waiting_seconds = 0.0

    start_time = time.monotonic()
    batches = load_batches(MultiViewRows(SampleStream(config), config, WordPieceTokenizer(), VIEWS), config)
    first_time = start_time
    for number in range(num_batches):
        request_time = time.monotonic()
        batch = next(batches)
        arrival_time = time.monotonic()
        if number == 0:
            first_time = arrival_time
        else:
            waiting_seconds += arrival_time - request_time
        name_counts.update(batch["names"])
        num_late += sum(remark == LATE_REMARK for remark, _ in batch["remarks"])
        cache_size = max(cache_size, measure_size(cache / "shards"))
        if rate:
            # A step takes its time after a late batch, too: waiting moves all later steps.
            step_end = first_time + (number + 1) * BATCH_SIZE / rate + waiting_seconds
            time.sleep(max(0.0, step_end - time.monotonic()))
    seconds = time.monotonic() - first_time
    batches.close()

    num_samples = num_batches * BATCH_SIZE
    return EpochResult(
        rate=(num_samples - BATCH_SIZE) / seconds,
        wait=waiting_seconds / seconds,
        start=first_time - start_time,
        num_lost=num_samples - len(name_counts),
        num_repeated=name_counts.total() - len(name_counts),
        num_late=num_late,
        cache_size=cache_size,
    )


def measure_size(folder: Path) -> int:
    """Return the bytes of a cache's files, also of unfinished ones, but not of reservations."""
    num_bytes = 0
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # files leave the cache meanwhile
            if path.is_file() and path.suffix != ".reserved":
                num_bytes += path.stat().st_size
    return num_bytes


if __name__ == "__main__":
    sys.exit(main())
