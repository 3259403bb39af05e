"""How long two ranks and one process train to the same curve, and how long one process agrees with itself.

    python benchmarks/rank_curves.py --steps 60
    python benchmarks/rank_curves.py --steps 60 --float64
    python benchmarks/rank_curves.py --steps 100 -o Optimizer.learning_rate=1e-4 -o Training.steps=100

The demo's own configuration (configs/demo/emoji.yaml) at `Training.global_batch=512`, from scratch and with batch norms
over all ranks, with its whole schedule, stopped after `--steps`. Against one process: two ranks; one process of which a
single weight is changed by one unit in its last digit; one process whose matrix products have two threads. Printed is
the largest difference of the loss, relative to the loss, up to a step. What the second and third lose is lost to
rounding. About 2 s a step and process of one core.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

DEMO = Path(__file__).parents[1] / "configs" / "demo" / "emoji.yaml"
RUNS = {  # name -> ranks, whether a weight is changed, threads
    "one process": (1, False, 1),
    "two ranks": (2, False, 1),
    "one weight, last digit": (1, True, 1),
    "two threads": (1, False, 2),
}
AFTER = (5, 10, 15, 20, 30, 40, 50, 60, 80, 100, 150, 200)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--float64", action="store_true", help="all of the run in float64")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="Section.key=value")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS)[1:], help="what is compared")
    parser.add_argument("--tolerance", type=float, help="fail where the relative difference is larger")
    parser.add_argument("--rank", choices=RUNS, help=argparse.SUPPRESS)  # what ranks of their own run
    args = parser.parse_args()
    if args.rank:
        return rank(args)

    from ernie_vil2.device.launch import run_ranks

    curves = {}
    for name in ("one process", *args.runs):
        ranks, _, threads = RUNS[name]
        os.environ |= {"MKL_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        with tempfile.TemporaryDirectory() as folder:
            output = f"Training.output={folder}/run"
            if code := run_ranks([sys.executable, *sys.argv, "--rank", name, "-o", output], ranks):
                return code
            records = map(json.loads, Path(folder, "run", "log.jsonl").read_text().splitlines())
            curves[name] = [record["loss"] for record in records if record["kind"] == "train"]
    shown = [step for step in AFTER if step <= args.steps]
    print(f"{'largest relative difference':<28}" + "".join(f"{f'{step} steps':>11}" for step in shown))
    one, worst = curves.pop("one process"), 0.0
    for name, other in curves.items():
        differences = [abs(a - b) / abs(a) for a, b in zip(one, other, strict=True)]
        print(f"{name:<28}" + "".join(f"{max(differences[:step]):>11.1e}" for step in shown))
        worst = max(worst, *differences)
    if args.tolerance is not None and not worst <= args.tolerance:
        print(f"error: {worst:.1e} is more than the tolerance of {args.tolerance:.1e}", file=sys.stderr)
        return 1
    return 0


def rank(args) -> int:
    from ernie_vil2.device import runtime

    runtime.configure()
    import numpy as np
    import paddle

    from ernie_vil2.config import load_config
    from ernie_vil2.training.trainer import Trainer

    paddle.set_default_dtype("float64" if args.float64 else "float32")
    own = ["Training.global_batch=512", "Training.sync_norms=true", "Model.image.weights=null",
           "Training.log_every=1", "Evaluation.every=0", "Training.device=cpu"]  # fmt: skip
    trainer = Trainer(load_config(str(DEMO), [*own, *args.override]))
    if RUNS[args.rank][1]:
        weight = trainer.model.text.network.encoder.layers[0].linear1.weight
        values = weight.numpy()
        values[0, 0] = np.nextafter(values[0, 0], np.inf, dtype=values.dtype)
        weight.set_value(values)
    step = trainer._train_step

    def counted(batch, rate):
        losses = step(batch, rate)
        if trainer.step == args.steps:
            trainer.signals.agree([1.0, 0.0])  # as a signal that all ranks have received
        return losses

    trainer._train_step = counted
    trainer.fit()
    return 0


if __name__ == "__main__":
    sys.exit(main())
