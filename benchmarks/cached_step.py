"""Measure peak memory and CPU time of a training step: direct, in micro batches, with recomputed blocks, and both.

    python benchmarks/cached_step.py
    python benchmarks/cached_step.py --batch 512 --micro-batch 32 --rounds 2

The model is a ViT of 48 pixels and an ERNIE of 24 tokens, with four view pairs, dropout, float32 and one thread. Each
measurement is one step in a process of its own; the kinds of step take turns. With a batch of 1,024 all four take a
minute and a half, and the direct step takes 4.4 GiB.

Memory is the peak resident memory of the step less that with model and batch loaded, as Linux counts it. It includes
the gradients of the parameters. The benchmark fails unless all kinds have the same loss and gradient norm.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.memory import read_peak, reset_peak

IMAGE_SIZE = 48  # pixels
TEXT_LENGTH = 24  # tokens
NUM_WORDS = 1000  # of the vocabulary
OVERRIDES = [
    f"Model.image={{name: ViT, image_size: {IMAGE_SIZE}, patch_size: 8, width: 128, depth: 3, heads: 2}}",
    f"Model.text={{name: ernie, width: 128, depth: 3, heads: 2, max_positions: {TEXT_LENGTH}}}",
    f"Data.max_length={TEXT_LENGTH}",
]
# Kind of step -> settings of `Training` that it has.
KINDS = {
    "direct": (),
    "cached": ("micro_batch",),
    "recomputed": ("recompute",),
    "cached and recomputed": ("micro_batch", "recompute"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1024, help="image-text pairs of the step")
    parser.add_argument("--micro-batch", type=int, default=64, help="pairs that the cached step encodes at once")
    parser.add_argument("--rounds", type=int, default=1, help="measurements of each kind; the median is printed")
    parser.add_argument("--measure", choices=KINDS, help=argparse.SUPPRESS)  # of a process that measures
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.batch, args.micro_batch)))
        return 0

    print(
        f"batch {args.batch}, micro batches of {args.micro_batch}, one thread, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    results = measure_in_turn(args)
    print(f"{'':<24}{'MiB of the step':>16}{'of direct':>11}{'CPU seconds':>13}{'of direct':>11}")
    direct = results["direct"]
    for kind, result in results.items():
        memory_ratio = result["memory"] / (direct["memory"] or float("nan"))
        time_ratio = result["seconds"] / direct["seconds"]
        print(f"{kind:<24}{result['memory']:>16.0f}{memory_ratio:>11.3f}{result['seconds']:>13.2f}{time_ratio:>11.2f}")
    for kind, result in results.items():
        for key in ("loss", "norm"):
            if not abs(result[key] - direct[key]) <= 1e-5 * abs(direct[key]):  # NaN fails, too
                print(f"error: {key} of the {kind} step: {result[key]}, direct {direct[key]}", file=sys.stderr)
                return 1
    return 0


def measure_in_turn(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the medians of the measurements of each kind of step; the kinds take turns."""
    measurements: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(args.rounds):
        for kind in KINDS:
            measurements[kind].append(run_in_process(kind, args))
    medians: dict[str, dict[str, float]] = {}
    for kind, rounds in measurements.items():
        medians[kind] = {}
        for key in rounds[0]:
            medians[kind][key] = statistics.median(measurement[key] for measurement in rounds)
    return medians


def run_in_process(kind: str, args: argparse.Namespace) -> dict[str, float]:
    """Return what `measure` returns, measured in a new process with one thread."""
    command = [sys.executable, __file__, "--measure", kind]
    command += ["--batch", str(args.batch), "--micro-batch", str(args.micro_batch)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = subprocess.run(command, capture_output=True, text=True, env=environment)  # noqa: S603  -- a command of this script
    if process.returncode:
        sys.exit(f"the {kind} step failed:\n{process.stderr[-2000:] or f'exit status {process.returncode}'}")
    result = json.loads(process.stdout.splitlines()[-1])
    print(f"  {kind}: {result['memory']:.0f} MiB, {result['seconds']:.1f} CPU seconds", file=sys.stderr, flush=True)
    return result


def measure(kind: str, batch_size: int, micro_batch: int) -> dict[str, float]:
    """Return the peak memory of a step in MiB, its CPU seconds, its loss, and the norm of all gradients."""
    from ernie_vil2.device import runtime

    runtime.configure()
    import numpy as np
    import paddle

    from ernie_vil2.config import load_config
    from ernie_vil2.losses import build_loss
    from ernie_vil2.models import build_dual_encoder
    from ernie_vil2.tasks.contrastive_step import build_step

    def make_step(batch_size: int, micro_batch: int):
        overrides = [*OVERRIDES, f"Training.global_batch={batch_size}"]
        if "micro_batch" in KINDS[kind]:
            overrides.append(f"Training.micro_batch={micro_batch}")
        if "recompute" in KINDS[kind]:
            overrides.append("Training.recompute=true")
        config = load_config(None, overrides)
        paddle.seed(0)
        model = build_dual_encoder(config.Model, NUM_WORDS, config.Loss.temperature)
        model.train()
        return model, build_step(model, build_loss(config.Loss), config)

    def draw_batch(batch_size: int):
        rng = np.random.default_rng(0)
        views = {}
        for name in ("image_1", "image_2"):
            shape = batch_size, IMAGE_SIZE, IMAGE_SIZE, 3
            views[name] = paddle.to_tensor(rng.integers(0, 256, shape, np.uint8))
        text = paddle.to_tensor(rng.integers(5, NUM_WORDS, (batch_size, TEXT_LENGTH)))
        views |= {"text_1": text, "text_2": text}
        positions = np.arange(batch_size)
        ids = np.stack([positions, positions], axis=1)  # of image and text: all differ
        return views, ids, positions

    def run(step, batch) -> float:
        loss, _ = step.forward(*batch, step_index=0)
        step.backward()
        return float(loss)

    # The first step loads the kernels. Its model is freed, so that the measured one alone holds memory.
    run(make_step(batch_size=8, micro_batch=4)[1], draw_batch(8))
    model, step = make_step(batch_size, micro_batch)
    batch = draw_batch(batch_size)
    memory_before = reset_peak()
    start = time.process_time()
    loss = run(step, batch)
    seconds = time.process_time() - start
    memory = read_peak() - memory_before

    squared_norm = 0.0
    for parameter in model.parameters():
        if parameter.grad is not None:
            squared_norm += float((parameter.grad.astype("float64") ** 2).sum())
    return {"memory": memory, "seconds": seconds, "loss": loss, "norm": squared_norm**0.5}


if __name__ == "__main__":
    sys.exit(main())
