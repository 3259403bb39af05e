"""Measure the order and the opening of 1.5 billion samples in 300,000 shards, as each of 14 machines computes them.

    python benchmarks/scale.py
    python benchmarks/scale.py --samples 29000000 --shards 5800 --machines 14

No image is read. There is only an `index.json`, as `tools/prepare.py` writes it next to the shards, from which
`SampleStream` opens them as for a training on remote data. The order is computed by the code of training.
docs/notes/scale.md builds on these figures:

    opening     time and memory of a process until it knows all shards
    order       time of a position of the stream; time and memory of the first position after a resume
    reading     shards that a machine opens in an epoch, that several machines open, and that are open at a time
    shuffling   shards of a batch, and the share of its pairs of rows that come from the same shard
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

SAMPLE_BYTES = 50_000  # assumption A1 of docs/notes/scale.md
FOLDER = "memory://scale"  # of fsspec, which counts as remote
NUM_RESUMES = 5
NUM_TIMED_BATCHES = 40


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_500_000_000)
    parser.add_argument("--shards", type=int, default=300_000)
    parser.add_argument("--machines", type=int, default=14, help="machines, each of which reads one group of shards")
    parser.add_argument("--batch", type=int, default=7168, help="samples of a batch, over all machines")
    parser.add_argument("--buffer", type=int, default=1_400_000, help="Data.shuffle_buffer, over all machines")
    parser.add_argument("--batches", type=int, default=40, help="batches of an epoch whose shards are counted")
    args = parser.parse_args()

    from ernie_vil2.config import load_config
    from ernie_vil2.data.stream import SampleStream

    shard_sizes = write_index(args.samples, args.shards)
    options = [
        f"Data.train=['{FOLDER}/{{000000..{args.shards - 1:06}}}.tar']",
        f"Data.groups={args.machines}",
        f"Data.shuffle_buffer={args.buffer}",
        f"Training.global_batch={args.batch}",
    ]
    config = load_config(None, options)

    initial_memory, start = read_resident_memory(), time.process_time()
    stream = SampleStream(config)
    seconds = time.process_time() - start
    print(
        f"opening     {args.samples:,} samples in {args.shards:,} shards: {seconds:.1f} CPU s, "
        f"{read_resident_memory() - initial_memory:.0f} MiB"
    )
    measure_order(stream, args)
    count_opened_shards(stream, args)
    measure_shuffling(stream, shard_sizes, args)
    return 0


def write_index(num_samples: int, num_shards: int) -> np.ndarray:
    """Put an index of shards of slightly different sizes where fsspec finds it; return the samples of each shard."""
    import fsspec

    rng = np.random.default_rng(0)
    shard_sizes = rng.multinomial(num_samples, np.full(num_shards, 1 / num_shards))
    entries = []
    for shard, size in enumerate(shard_sizes.tolist()):
        digest = rng.bytes(32).hex()
        entries.append({"name": f"{shard:06}.tar", "samples": size, "bytes": size * SAMPLE_BYTES, "sha256": digest})
    content = json.dumps({"shards": entries}, indent=1).encode()
    fsspec.filesystem("memory").pipe("/scale/index.json", content)
    print(f"index.json  {len(content) / 2**20:.0f} MiB")
    return shard_sizes


def measure_order(stream: "SampleStream", args: argparse.Namespace) -> None:
    """Print what the first position after a resume costs, and each position from then on."""
    # A resume in another epoch has to shuffle its shards first; later positions of the epoch find them shuffled.
    initial_memory, resume_seconds = read_resident_memory(), []
    for epoch in range(NUM_RESUMES):
        position = (epoch * args.samples + args.samples // 3) // args.batch * args.batch
        start = time.process_time()
        stream.describe_location(position)
        resume_seconds.append(time.process_time() - start)
    print(
        f"order       first position of an epoch after a resume: {np.median(resume_seconds) * 1e3:.0f} ms, "
        f"{read_resident_memory() - initial_memory:.0f} MiB"
    )

    # The rows of one machine are the first ones of each batch.
    rows_per_machine = args.batch // args.machines
    start = time.process_time()
    for batch in range(NUM_TIMED_BATCHES):
        for row in range(rows_per_machine):
            stream.find_sample(batch * args.batch + row)
    seconds_per_batch = (time.process_time() - start) / NUM_TIMED_BATCHES
    print(
        f"            a position: {seconds_per_batch / rows_per_machine * 1e6:.1f} us, a machine's {rows_per_machine} "
        f"rows of a batch {seconds_per_batch * 1e3:.1f} ms"
    )


def count_opened_shards(stream: "SampleStream", args: argparse.Namespace) -> None:
    """Print how many shards each machine opens in the first epoch, and how many it has open at a time."""
    shards_by_machine: list[set[int]] = []
    max_open_shards = 0
    # No public method of the stream tells the windows of an order. It fetches a window's shards and the next one's.
    for order in stream._orders[0]:
        num_windows = order._share(0).num_windows
        windows = [set(order.window_shards(0, window)) for window in range(num_windows)]
        shards_by_machine.append(set().union(*windows))
        for shards, next_shards in itertools.pairwise(windows):
            max_open_shards = max(max_open_shards, len(shards | next_shards))

    num_machines_by_shard = Counter(itertools.chain.from_iterable(shards_by_machine))
    if len(num_machines_by_shard) != args.shards:
        raise SystemExit("error: not every shard was opened")
    num_shared = sum(num_machines > 1 for num_machines in num_machines_by_shard.values())
    counts = [len(shards) for shards in shards_by_machine]
    shard_bytes = args.samples / args.shards * SAMPLE_BYTES
    print(
        f"reading     a machine opens {min(counts):,} to {max(counts):,} shards in an epoch, "
        f"{max(counts) * shard_bytes / 1e12:.2f} TB; {num_shared} are opened twice"
    )
    cache_gigabytes = max_open_shards * shard_bytes / 1e9
    print(f"            a window and the next: {max_open_shards} shards, {cache_gigabytes:.1f} GB in a machine's cache")


def measure_shuffling(stream: "SampleStream", shard_sizes: np.ndarray, args: argparse.Namespace) -> None:
    """Print from how many shards the rows of a batch come, over batches from all over the first epoch."""
    shard_ends = np.cumsum(shard_sizes)
    shard_counts, same_shard_shares = [], []
    num_batches = args.samples // args.batch
    for batch in np.linspace(0, num_batches - 1, args.batches).astype(int).tolist():
        positions = range(batch * args.batch, (batch + 1) * args.batch)
        samples = [stream.find_sample(position)[1] for position in positions]
        rows_by_shard = np.bincount(np.searchsorted(shard_ends, samples, side="right"))
        shard_counts.append(np.count_nonzero(rows_by_shard))
        same_shard_pairs = (rows_by_shard * (rows_by_shard - 1)).sum()
        same_shard_shares.append(same_shard_pairs / (args.batch * (args.batch - 1)))
    print(
        f"shuffling   a batch is of {np.mean(shard_counts):.0f} shards, {np.mean(same_shard_shares):.3%} of its pairs "
        f"of rows of one ({1 / args.shards:.5%} if all samples were shuffled together)"
    )


def read_resident_memory() -> float:
    """Return the memory of this process in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmRSS")


if __name__ == "__main__":
    sys.exit(main())
