"""Bytes that a step sends between ranks, and its time: the gather with its backward, compared with two others.

    python benchmarks/gather_ranks.py
    python benchmarks/gather_ranks.py --ranks 4 --rows 512 --width 768
    unshare --user --map-root-user --net sh -c 'ip link set lo up; python benchmarks/gather_ranks.py'

Of each number of ranks up to `--ranks`, on this machine over gloo, three ways to score the rows of a rank against
those of all ranks, with random embeddings of the four views:

- ours: ids and row counts in one gather, the embeddings of all views in another, and one sum in backward;
- detached: the embeddings gathered view by view without a gradient, as `all_gather` gives them: the gradient is wrong;
- logits: blocks of logits, which every rank computes, gathered into the whole `N x N` of each view pair.

`sent` are bytes that leave a rank, by the ring that gloo and NCCL use; `payload / BD` what a rank puts in, divided by
the four views' rows x width x 4 bytes. Times are wall-clock, the median of `--repeats` that take turns, on rank 0.
In a network of its own (third command) the bytes that the kernel counted between the ranks are printed as well.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

WAYS = ("ours", "detached", "logits")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=4, help="the most ranks; every number from 1 is measured")
    parser.add_argument("--rows", type=int, default=256, help="rows of each rank")
    parser.add_argument("--width", type=int, default=512, help="dimensions of an embedding")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    if "PADDLE_TRAINER_ID" in os.environ:
        return rank(args)

    from ernie_vil2.device.launch import run_ranks

    print(f"{args.rows} rows a rank, width {args.width}, 4 views, float32; load {os.getloadavg()[0]:.1f}")
    print(f"{'ranks':>5} {'way':<9}{'sent MB':>9}{'kernel MB':>11}{'payload / BD':>14}{'ms':>8}{'of ours':>9}")
    for ranks in range(1, args.ranks + 1):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["GATHER_RANKS_RESULT"] = str(Path(folder) / "result.json")
            if code := run_ranks([sys.executable, *sys.argv], ranks):
                return code
            result = json.loads(Path(folder, "result.json").read_text())
        for way in WAYS:
            sent, kernel, ratio, milliseconds = result[way]
            share = milliseconds / result["ours"][3]
            kernel = "" if kernel is None else f"{kernel / 1e6:.2f}"
            print(f"{ranks:>5} {way:<9}{sent / 1e6:>9.2f}{kernel:>11}{ratio:>14.2f}{milliseconds:>8.1f}{share:>9.2f}")
        sys.stdout.flush()
    return 0


def rank(args: argparse.Namespace) -> int:
    from ernie_vil2.device import runtime

    runtime.configure()
    import paddle
    import paddle.distributed as dist

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from benchmarks.traffic import counted_traffic
    from ernie_vil2.config.sections import PAIRS, VIEWS
    from ernie_vil2.parallel import collectives, gather_ids, gather_views
    from ernie_vil2.parallel.ranks import join_ranks

    paddle.set_device("cpu")
    number, ranks = join_ranks()
    paddle.seed(number)
    shape = [args.rows, args.width]
    local = {view: paddle.nn.functional.normalize(paddle.randn(shape)) for view in VIEWS}
    for view in local.values():
        view.stop_gradient = False
    ids = paddle.arange(2 * args.rows).reshape([-1, 2])
    on_host = ids.numpy()
    upstream = {view: paddle.randn([ranks * args.rows, args.width]) for view in VIEWS}

    def ours():
        _, _, counts = gather_ids(ids, on_host, args.rows)()
        gathered, _ = gather_views(local, counts)
        paddle.autograd.backward([gathered[view] for view in VIEWS], [upstream[view] for view in VIEWS])

    def detached():
        collectives.all_gather(ids) if ranks > 1 else None
        return [collectives.all_gather(view.detach()) if ranks > 1 else view for view in local.values()]

    def logits():
        collectives.all_gather(ids) if ranks > 1 else None
        for rows, columns in PAIRS.values():
            block = paddle.matmul(local[rows].detach(), upstream[columns], transpose_y=True)
            if ranks > 1:
                collectives.all_gather(block)

    ways = {"ours": ours, "detached": detached, "logits": logits}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    result = {}
    for repeat in range(args.repeats + 1):
        for way, step in ways.items():
            dist.barrier() if ranks > 1 else None
            kernel_before, start = loopback_bytes(), time.perf_counter()
            with counted_traffic() as traffic:
                step()
            seconds[way].append(time.perf_counter() - start)
            dist.barrier() if ranks > 1 else None
            if repeat == 0:
                kernel_after = loopback_bytes()
                kernel = None
                if kernel_before is not None and kernel_after is not None:
                    kernel = (kernel_after - kernel_before) / ranks
                payload = sum(kind.payload for kind in traffic.values())
                sent = sum(kind.sent for kind in traffic.values())
                result[way] = [sent, kernel, payload / (len(VIEWS) * args.rows * args.width * 4)]
    if number == 0:
        for way, times in seconds.items():
            result[way].append(1e3 * statistics.median(times[1:]))
        Path(os.environ["GATHER_RANKS_RESULT"]).write_text(json.dumps(result))
    return 0


def loopback_bytes() -> int | None:
    """Return the bytes sent over the loopback device, in a network that has no other one; None elsewhere."""
    devices = {}
    for line in Path("/proc/net/dev").read_text().splitlines()[2:]:
        name, counts = line.split(":")
        devices[name.strip()] = counts.split()
    return int(devices["lo"][8]) if list(devices) == ["lo"] else None


if __name__ == "__main__":
    sys.exit(main())
