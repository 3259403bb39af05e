"""Peak memory and CPU seconds of a training step: direct, cached in micro batches, with recomputed blocks, and both.

    python benchmarks/cached_step.py
    python benchmarks/cached_step.py --batch 512 --micro-batch 32 --rounds 2

A ViT of 48 pixels and an ERNIE of 24 tokens, four view pairs, dropout on, float32, one thread, one process. Every
measurement is one step in a process of its own, after a small one that loads the kernels; the kinds of step take turns,
and each says how it was when it is done. At batch 1,024 the four take a minute and a half, the direct step 4.4 GiB.
Memory is what the process holds at the peak of one step less what it had before, with model and batch loaded, as
Linux counts it; it contains the gradients of the parameters. All kinds must give the same loss and the same gradient
norm, or the benchmark fails.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

SIDE, LENGTH = 48, 24  # pixels of an image, tokens of a text
SIZES = [
    f"Model.image={{name: ViT, image_size: {SIDE}, patch_size: 8, width: 128, depth: 3, heads: 2}}",
    f"Model.text={{name: ernie, width: 128, depth: 3, heads: 2, max_positions: {LENGTH}}}",
    f"Data.max_length={LENGTH}",
]
KINDS = {
    "direct": (),
    "cached": ("micro_batch",),
    "recomputed": ("recompute",),
    "cached and recomputed": ("micro_batch", "recompute"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1024, help="rows of the step")
    parser.add_argument("--micro-batch", type=int, default=64, help="rows that the cached step encodes at once")
    parser.add_argument("--rounds", type=int, default=1, help="turns of every kind; the median is printed")
    parser.add_argument("--measure", choices=KINDS, help=argparse.SUPPRESS)  # what a process of its own runs
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measured(args.measure, args.batch, args.micro_batch)))
        return 0

    print(
        f"batch {args.batch}, micro batches of {args.micro_batch}, one thread, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    rounds = [{kind: in_own_process(kind, args) for kind in KINDS} for _ in range(args.rounds)]
    results = {kind: {key: statistics.median(turn[kind][key] for turn in rounds) for key in rounds[0][kind]}
               for kind in KINDS}  # fmt: skip
    direct = results["direct"]
    print(f"{'':<24}{'MiB of the step':>16}{'of direct':>11}{'CPU seconds':>13}{'of direct':>11}")
    for kind, result in results.items():
        memory, seconds = (result[key] / direct[key] for key in ("memory", "seconds"))
        print(f"{kind:<24}{result['memory']:>16.0f}{memory:>11.3f}{result['seconds']:>13.2f}{seconds:>11.2f}")
    for kind, result in results.items():
        for value in ("loss", "norm"):
            if abs(result[value] - direct[value]) > 1e-5 * abs(direct[value]):
                print(f"error: {value} of the {kind} step: {result[value]}, direct {direct[value]}", file=sys.stderr)
                return 1
    return 0


def in_own_process(kind: str, args: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", kind, "--batch", args.batch, "--micro-batch", args.micro_batch]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True,  # noqa: S603  -- a command of this script
                          env={**os.environ, **threads})  # fmt: skip
    if done.returncode:
        sys.exit(f"the {kind} step failed:\n{done.stderr[-2000:] or f'exit status {done.returncode}'}")
    result = json.loads(done.stdout.splitlines()[-1])
    print(f"  {kind}: {result['memory']:.0f} MiB, {result['seconds']:.1f} CPU seconds", file=sys.stderr, flush=True)
    return result


def measured(kind: str, rows: int, micro_batch: int) -> dict[str, float]:
    """Return the peak MiB of one step, its CPU seconds, its loss, and the norm of all gradients."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from ernie_vil2.device import runtime

    runtime.configure()
    import numpy as np
    import paddle

    from ernie_vil2.config import load_config
    from ernie_vil2.losses import build_loss
    from ernie_vil2.models import build_dual_encoder
    from ernie_vil2.tasks.contrastive_step import build_step

    settings = {"micro_batch": micro_batch, "recompute": True}
    chosen = [f"Training.{key}={str(settings[key]).lower()}" for key in KINDS[kind]]

    def step_of(rows: int, micro_batch: int):
        small = [f"Training.micro_batch={micro_batch}"] * ("micro_batch" in KINDS[kind])
        config = load_config(None, [*SIZES, f"Training.global_batch={rows}", *chosen, *small])
        paddle.seed(0)
        model = build_dual_encoder(config.Model, 1000, config.Loss.temperature)
        model.train()
        loss = build_loss(config.Loss)
        return model, build_step(model, loss, config)

    def batch_of(rows: int):
        random = np.random.default_rng(0)
        images = {view: random.integers(0, 256, (rows, SIDE, SIDE, 3), np.uint8) for view in ("image_1", "image_2")}
        text = paddle.to_tensor(random.integers(5, 1000, (rows, LENGTH)))
        views = {name: paddle.to_tensor(image) for name, image in images.items()} | {"text_1": text, "text_2": text}
        ids = np.stack([np.arange(rows)] * 2, axis=1)
        return views, ids, np.arange(rows)

    def run(step, batch) -> float:
        total, _ = step.forward(*batch, step_index=0)
        step.backward()
        return float(total)

    run(step_of(8, 4)[1], batch_of(8))  # loads the kernels
    (model, step), batch = step_of(rows, micro_batch), batch_of(rows)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, start = resident("VmRSS"), time.process_time()
    loss = run(step, batch)
    seconds, memory = time.process_time() - start, resident("VmHWM") - before
    squares = [float((parameter.grad.astype("float64") ** 2).sum()) for parameter in model.parameters()
               if parameter.grad is not None]  # fmt: skip
    return {"memory": memory, "seconds": seconds, "loss": loss, "norm": sum(squares) ** 0.5}


def resident(what: str) -> float:
    """Return the resident memory of this process in MiB, now or at its peak."""
    match = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if match is None:
        raise OSError(f"/proc/self/status has no {what}")
    return int(match[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
