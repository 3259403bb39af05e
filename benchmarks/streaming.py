"""Training samples a second from shards in an object store that is slow and fails, against the same from local disk.

    python benchmarks/streaming.py
    python benchmarks/streaming.py --shards 200 --faults 0.2 --rate 200

An HTTP server in a process of its own holds the shards and their `index.json`. Each of its answers waits for
`--latency` seconds and comes at `--speed` MiB a second. A share of `--faults` of the requests fails: half of these with
503, half by closing the connection in the middle of the file; of one answer in a hundred a byte is changed. The loader
of training (tokenised texts, two augmented views) reads one epoch of each:

    the local disk, the store without faults, the store with faults

as fast as it can, and then, from an empty cache again, at `--rate` samples a second, as a training step would ask for
them; `wait` is the share of that time in which the step had no batch. The cache is bounded to a part of the shards, so
that these leave it during the epoch. Every sample has to come exactly once.
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
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=10, help="in a shard, each an image of 320 x 240")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before an answer")
    parser.add_argument("--speed", type=float, default=20.0, help="MiB a second of one answer")
    parser.add_argument("--faults", type=float, default=0.1, help="share of the requests that fail")
    parser.add_argument("--cache", type=float, default=0.25, help="share of the shards that the cache holds")
    parser.add_argument("--rate", type=float, default=100.0, help="samples a second that a step asks for")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()

    from ernie_vil2.device import runtime

    runtime.configure()
    from ernie_vil2.data.readers import remote

    remote.RETRY_PAUSE = 0.2  # the store fails in moments, not in seconds
    with tempfile.TemporaryDirectory() as folder:
        size = write_shards(Path(folder, "shards"), args.shards, args.samples)
        os.environ["ERNIE_VIL2_SHARD_CACHE_GIB"] = str(args.cache * size / 2**30)
        os.environ["ERNIE_VIL2_CACHE"] = str(Path(folder, "cache"))
        print(f"{args.shards} shards of {args.samples} samples, {size / 2**20:.0f} MiB, cache {args.cache:.0%} of it")
        print(f"{'':24}{'samples/s':>10}{'wait':>8}{'start':>9}{'cache':>9}  lost  twice  late shards  requests")
        store = functools.partial(served, Path(folder, "shards"), args)
        with store(0.0) as well, store(args.faults) as ill:
            for name, root, log in (
                ("local disk", f"{folder}/shards", None),
                ("store", *well),
                (f"store, {args.faults:.0%} faults", *ill),
            ):
                fast, paced = (epoch(args, root, Path(folder, "cache"), rate) for rate in (None, args.rate))
                requests = "" if log is None else f"{log['requests']:,}, {log['faults']:,} failed"
                print(f"{name:24}{fast['rate']:10.0f}{paced['wait']:8.1%}{fast['start']:8.2f}s"
                      f"{max(fast['cache'], paced['cache']) / size:9.0%}  {fast['lost'] + paced['lost']:4}"
                      f"  {fast['twice'] + paced['twice']:5}  {fast['late'] + paced['late']:11}  {requests}",
                      flush=True)  # fmt: skip
    return 0


def write_shards(folder: Path, shards: int, samples: int) -> int:
    """Write shards of noisy images, which JPEG cannot make small, with their index; return the bytes of all."""
    import cv2
    import numpy as np

    from ernie_vil2.io.files import sha256

    folder.mkdir()
    rng = np.random.default_rng(0)
    entries, total_bytes = [], 0
    images = [cv2.imencode(".jpg", cv2.resize(rng.integers(0, 256, (60, 80, 3), np.uint8), (320, 240)))[1].tobytes()
              for _ in range(64)]  # fmt: skip
    for shard in range(shards):
        path = folder / f"{shard:04}.tar"
        with tarfile.open(path, "w") as archive:
            for row in range(samples):
                number = shard * samples + row
                for suffix, content in (("jpg", images[number % 64]), ("txt", f"第{number}张图片".encode())):
                    member = tarfile.TarInfo(f"{number}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        num_bytes = path.stat().st_size
        entries.append({"name": path.name, "samples": samples, "bytes": num_bytes, "sha256": sha256(path)})
        total_bytes += num_bytes
    (folder / "index.json").write_text(json.dumps({"shards": entries}))
    return total_bytes


class Store(http.server.SimpleHTTPRequestHandler):
    """Serve a folder, slowly and with faults."""

    def __init__(self, *args, settings, faults, log, **kwargs):
        self.settings, self.faults, self.log, self.random = settings, faults, log, random.Random()  # noqa: S311  -- no secret
        with contextlib.suppress(ConnectionError):  # who asked has ended
            super().__init__(*args, **kwargs)

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.log["requests"] += 1
        time.sleep(self.settings.latency)
        fault = self.random.random() < self.faults and not self.path.endswith("index.json")
        self.log["faults"] += fault
        if fault and self.random.random() < 0.5:
            self.send_error(503)
            return
        content = bytearray(Path(self.translate_path(self.path)).read_bytes())
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.faults and not fault and self.random.random() < 0.01:
            content[self.random.randrange(len(content))] ^= 1
            self.log["faults"] += 1
        for start in range(0, len(content) // (2 if fault else 1), 2**18):
            part = content[start : start + 2**18]
            time.sleep(len(part) / 2**20 / self.settings.speed)
            self.wfile.write(part)


@contextlib.contextmanager
def served(folder: Path, settings, faults: float):
    """Yield the address of a server, and its counts."""
    with multiprocessing.Manager() as manager:
        log, port = manager.dict(requests=0, faults=0), manager.Queue()
        server = multiprocessing.Process(target=serve, args=(folder, settings, faults, log, port), daemon=True)
        server.start()
        try:
            yield f"http://127.0.0.1:{port.get()}", log
        finally:
            server.kill()


def serve(folder: Path, settings, faults: float, log, port) -> None:
    handler = functools.partial(Store, directory=str(folder), settings=settings, faults=faults, log=log)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        port.put(server.server_port)
        server.serve_forever()


def epoch(args: argparse.Namespace, root: str, cache: Path, rate: float | None) -> dict:
    """Read one epoch from an empty cache; return samples a second, or the share of waiting at a rate, and counts."""
    import shutil

    from ernie_vil2.config import load_config
    from ernie_vil2.config.sections import VIEWS
    from ernie_vil2.data.loader import load_batches
    from ernie_vil2.data.readers.source import LATE_REMARK
    from ernie_vil2.data.stream import SampleStream
    from ernie_vil2.data.tokenizer import WordPieceTokenizer
    from ernie_vil2.tasks.multi_view import MultiViewRows

    shutil.rmtree(cache, ignore_errors=True)
    batch = 64
    settings = [f"Data.train=['{root}/{{0000..{args.shards - 1:04}}}.tar']", f"Training.global_batch={batch}",
                f"Data.workers={args.workers}", f"Data.shuffle_buffer={args.shards * args.samples // 20}"]  # fmt: skip
    config = load_config(None, settings)
    begun = time.monotonic()
    batches = load_batches(MultiViewRows(SampleStream(config), config, WordPieceTokenizer(), VIEWS), config)
    seen: Counter[str] = Counter()
    late, waited, most = 0, 0.0, 0
    for number in range(args.shards * args.samples // batch):
        asked = time.monotonic()
        found = next(batches)
        now = time.monotonic()
        if number == 0:
            start, first = now - begun, now
        else:
            waited += now - asked
        seen.update(found["names"])
        late += sum(remark == LATE_REMARK for remark, _ in found["remarks"])
        most = max(most, used(cache / "shards"))
        if rate:
            time.sleep(max(0.0, first + (number + 1) * batch / rate + waited - time.monotonic()))
    taken = time.monotonic() - first
    batches.close()
    total = args.shards * args.samples // batch * batch
    return {"rate": (total - batch) / taken, "wait": waited / taken, "start": start, "late": late, "cache": most,
            "lost": total - len(seen), "twice": seen.total() - len(seen)}  # fmt: skip


def used(folder: Path) -> int:
    """Return the bytes of a cache's files, also of those that are not whole."""
    sizes = []
    for path in folder.glob("*") if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size if path.is_file() and path.suffix != ".reserved" else 0)
    return sum(sizes)


if __name__ == "__main__":
    sys.exit(main())
