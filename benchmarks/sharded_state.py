"""Memory of a rank at the peak of a step, with and without sharding of the optimiser state (`Training.sharding`).

    python benchmarks/sharded_state.py
    python benchmarks/sharded_state.py --ranks 4 --width 256

Two towers of 8 blocks and ERNIE's vocabulary, float32, `--rows` random rows a rank, three steps with clipping, CPU
ranks on this machine over gloo. Memory is that of a rank's process at its peak, less what it had with model and
batch loaded, as Linux counts it: gradients, optimiser state, what the optimiser needs besides it, activations. All
ranks must end with weights of the same norm under both settings, to 1e-5, or the benchmark fails.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path

SETTINGS = ("none", "stage1")
RESULTS = "SHARDED_STATE_RESULTS"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rows", type=int, default=8, help="rows of each rank")
    parser.add_argument("--width", type=int, default=512, help="of both towers")
    parser.add_argument("--sharding", choices=SETTINGS, help=argparse.SUPPRESS)  # what ranks of their own run
    args = parser.parse_args()
    if args.sharding:
        return rank(args)

    from ernie_vil2.device.launch import run_ranks

    print(f"{args.ranks} ranks of {args.rows} rows, width {args.width}, load {os.getloadavg()[0]:.1f}")
    print(f"{'sharding':<10}{'rank':>5}{'weights MiB':>13}{'state MiB':>11}{'MiB of the steps':>18}")
    norms = []
    for sharding in SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            os.environ[RESULTS] = folder
            if code := run_ranks([sys.executable, *sys.argv, "--sharding", sharding], args.ranks):
                return code
            results = [json.loads(Path(folder, f"{number}.json").read_text()) for number in range(args.ranks)]
        for number, result in enumerate(results):
            print(f"{sharding:<10}{number:>5}{result['weights']:>13.0f}{result['state']:>11.0f}{result['peak']:>18.0f}")
            norms.append(result["norm"])
    if max(norms) - min(norms) > 1e-5 * max(norms):
        print(f"error: the weights' norms differ: {norms}", file=sys.stderr)
        return 1
    return 0


def rank(args: argparse.Namespace) -> int:
    from ernie_vil2.device import runtime

    runtime.configure()
    import numpy as np
    import paddle

    from ernie_vil2.config import load_config
    from ernie_vil2.losses import MultiViewLoss
    from ernie_vil2.models import build_dual_encoder
    from ernie_vil2.parallel.ranks import join_ranks
    from ernie_vil2.tasks import decay_groups
    from ernie_vil2.tasks.contrastive_step import build_step
    from ernie_vil2.training.optimizer import build_optimizer, compute_squared_gradient_norms, distribute

    size = f"width: {args.width}, depth: 8, heads: 8"
    config = load_config(
        None,
        [f"Model.image={{name: ViT, image_size: 32, patch_size: 8, {size}}}", "Data.max_length=16",
         f"Model.text={{name: ernie, {size}, max_positions: 16}}", f"Training.global_batch={args.ranks * args.rows}"],
    )  # fmt: skip
    paddle.set_device("cpu")
    number, _ = join_ranks(args.sharding == "stage1")
    paddle.seed(0)
    model = build_dual_encoder(config.Model, 40_000)
    model.train()
    scaler = paddle.amp.GradScaler(enable=False)
    optimizer = build_optimizer(model, decay_groups(model), config.Optimizer)
    parallel, optimizer, scaler = distribute(model, optimizer, scaler, args.sharding)
    trained = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    loss = MultiViewLoss(config.Loss.weights.model_dump(), config.Loss.duplicates)
    step = build_step(model, loss, config, parallel, scaler)

    positions = np.arange(args.rows) + number * args.rows
    random = np.random.default_rng(number)
    images = [paddle.to_tensor(random.integers(0, 256, (args.rows, 32, 32, 3), np.uint8)) for _ in range(2)]
    text = paddle.to_tensor(random.integers(5, 40_000, (args.rows, 16)))
    views = {"image_1": images[0], "image_2": images[1], "text_1": text, "text_2": text}
    ids = np.stack([positions] * 2, axis=1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    for turn in range(3):
        step.forward(views, ids, positions, turn)
        step.backward()
        compute_squared_gradient_norms(optimizer, trained, args.sharding)
        optimizer.step()
        optimizer.clear_grad()
    peak = resident("VmHWM") - before
    state = sum(value.size for key, value in optimizer.state_dict().items() if "_moment" in key)
    squares = sum(float((parameter.astype("float64") ** 2).sum()) for parameter in model.parameters())
    weights = sum(parameter.size for parameter in model.parameters())
    result = {"peak": peak, "state": state / 2**18, "weights": weights / 2**18, "norm": squares**0.5}
    Path(os.environ[RESULTS], f"{number}.json").write_text(json.dumps(result))
    return 0


def resident(what: str) -> float:
    """Return the resident memory of this process in MiB, now or at its peak."""
    match = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if match is None:
        raise OSError(f"/proc/self/status has no {what}")
    return int(match[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
