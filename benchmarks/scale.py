"""The order and the opening of 1.5 billion samples in 300,000 shards, as each of 14 machines computes them.

    python benchmarks/scale.py
    python benchmarks/scale.py --samples 29000000 --shards 5800 --machines 14

No image is read: there is only an `index.json` such as `tools/prepare.py` leaves next to the shards, from which
`SampleStream` opens them as for a training at an address. Of the machines' rows of a batch the order is computed by the
code of training, and docs/notes/scale.md builds on what is printed:

    opening     time and memory of a process until it knows all shards
    order       time and memory of a position of the stream, and of the first after a resume
    reading     shards that a machine opens in an epoch, and that several open; those open at one time
    shuffling   shards in a batch, and the share of the pairs of rows in it that are of one shard
"""

import argparse
import itertools
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if TYPE_CHECKING:
    from ernie_vil2.data.stream import SampleStream

SAMPLE_BYTES = 50_000
FOLDER = "memory://scale"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_500_000_000)
    parser.add_argument("--shards", type=int, default=300_000)
    parser.add_argument("--machines", type=int, default=14, help="each reads one of the groups")
    parser.add_argument("--batch", type=int, default=7168)
    parser.add_argument("--buffer", type=int, default=1_400_000, help="Data.shuffle_buffer, over all machines")
    parser.add_argument("--batches", type=int, default=40, help="that are looked at, all over an epoch")
    args = parser.parse_args()

    from ernie_vil2.config import load_config
    from ernie_vil2.data.stream import SampleStream

    sizes = write_index(args.samples, args.shards)
    config = load_config(None, [
        f"Data.train=['{FOLDER}/{{000000..{args.shards - 1:06}}}.tar']", f"Data.groups={args.machines}",
        f"Data.shuffle_buffer={args.buffer}", f"Training.global_batch={args.batch}",
    ])  # fmt: skip

    before, start = resident(), time.process_time()
    stream = SampleStream(config)
    print(f"opening     {args.samples:,} samples in {args.shards:,} shards: {time.process_time() - start:.1f} CPU s, "
          f"{resident() - before:.0f} MiB")  # fmt: skip

    own = args.batch // args.machines
    before, times = resident(), []
    for epoch in range(5):
        start = time.process_time()
        stream.describe_location((epoch * args.samples + args.samples // 3) // args.batch * args.batch)
        times.append(time.process_time() - start)
    print(f"order       first position of an epoch after a resume: {np.median(times) * 1e3:.0f} ms, "
          f"{resident() - before:.0f} MiB")  # fmt: skip
    steps, start = 40, time.process_time()
    for step in range(steps):
        for row in range(own):
            number(stream, step * args.batch + row)
    taken = time.process_time() - start
    print(f"            a position: {taken / (steps * own) * 1e6:.1f} us, a machine's {own} rows of a batch "
          f"{taken / steps * 1e3:.1f} ms")  # fmt: skip

    opened, at_once = readings(stream, args.machines)
    several = sum(count > 1 for count in Counter(shard for shards in opened for shard in shards).values())
    counts = [len(shards) for shards in opened]
    if len(set().union(*opened)) != args.shards:
        raise SystemExit("error: not every shard was opened")
    shard = args.samples / args.shards * SAMPLE_BYTES
    print(f"reading     a machine opens {min(counts):,} to {max(counts):,} shards in an epoch, "
          f"{max(counts) * shard / 1e12:.2f} TB; {several} are opened twice")  # fmt: skip
    print(f"            a window and the next: {at_once} shards, {at_once * shard / 1e9:.1f} GB in a machine's cache")

    ends, shards, same = np.cumsum(sizes), [], []
    steps = args.samples // args.batch
    for step in np.linspace(0, steps - 1, args.batches).astype(int).tolist():
        rows = [number(stream, position) for position in range(step * args.batch, (step + 1) * args.batch)]
        rows_of_shards = np.bincount(np.searchsorted(ends, rows, side="right"))
        shards.append(np.count_nonzero(rows_of_shards))
        same.append((rows_of_shards * (rows_of_shards - 1)).sum() / (args.batch * (args.batch - 1)))
    print(f"shuffling   a batch is of {np.mean(shards):.0f} shards, {np.mean(same):.3%} of its pairs of rows of one "
          f"({1 / args.shards:.5%} if all samples were shuffled together)")  # fmt: skip
    return 0


def write_index(samples: int, shards: int) -> np.ndarray:
    """Put an index of shards of somewhat different sizes where fsspec finds it; return the sizes."""
    import fsspec

    rng = np.random.default_rng(0)
    sizes = rng.multinomial(samples, np.full(shards, 1 / shards))
    entries = [
        {"name": f"{shard:06}.tar", "samples": size, "bytes": size * SAMPLE_BYTES, "sha256": rng.bytes(32).hex()}
        for shard, size in enumerate(sizes.tolist())
    ]
    content = json.dumps({"shards": entries}, indent=1).encode()
    fsspec.filesystem("memory").pipe("/scale/index.json", content)
    print(f"index.json  {len(content) / 2**20:.0f} MiB")
    return sizes


def number(stream: "SampleStream", position: int) -> int:
    """Return the sample at a position, counted over all shards, as a loader's process does for each row."""
    return stream.find_sample(position)[1]


def readings(stream: "SampleStream", machines: int) -> tuple[list[set[int]], int]:
    """Return the shards of each group's windows of the first epoch, and the most that two windows in a row have."""
    opened, most = [], 0
    for order in stream._orders[0]:
        windows = [set(order.window_shards(0, window)) for window in range(order._share(0).num_windows)]
        opened.append(set().union(*windows))
        most = max([most, *(len(now | later) for now, later in itertools.pairwise(windows))])
    return opened, most


def resident() -> float:
    """Return the MiB of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
