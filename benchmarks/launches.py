"""Kernels that a training step launches, the bytes that they read and write, and the bytes held for backward.

    python benchmarks/launches.py
    python benchmarks/launches.py -o Training.precision=float32
    python benchmarks/launches.py --towers base --steps direct
    PYTHONPATH=../older python benchmarks/launches.py

Nothing is timed. The second step of a run is counted on a CPU, but on the Python paths of a GPU build, with emulated
mixed precision (O1). The towers have the depth of ViT-B/16 and ERNIE base, so that they launch as many kernels, and a
small width. `--towers base` takes these two themselves, on two rows, to compare bytes. With PYTHONPATH this file counts
the steps of another checkout.

- Launches are calls of Paddle's kernels, as its profiler counts them. On a GPU some of these launch two or three CUDA
  kernels, such as the gradients of a linear layer. Lazy views launch none; a kernel that cannot read them launches a
  copy. Also counted, though the profiler does not show them, are the sums of gradients of a tensor that is used twice,
  and zeros that are written into gradients. Fused attention is one kernel.
- MB are the bytes of all tensors that these kernels read and write, by shape and type. The kernel of a gradient reads
  what its operation has saved and the gradients of the results, and writes those of the inputs. Casts and sums include
  those of weights and of their gradients, which do not grow with the rows.
- Held are the bytes of all tensors but parameters that are saved when backward begins, each counted once.

The kind of work of a kernel is recognised by its name, or by the function that calls it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.kernel_counter import Cost, StepCost

ROOT = Path(__file__).resolve().parents[1]
TOWERS = {
    "small": [
        "Model.image={name: ViT, image_size: 32, patch_size: 8, width: 48, depth: 12, heads: 2}",
        "Model.text={name: ernie, width: 48, depth: 12, heads: 2, max_positions: 24}",
        "Views.resize=32",
        "Data.max_length=24",
        "Training.global_batch=16",
    ],
    "base": [
        "Model.image={name: ViT-B/16, image_size: 224}",
        "Model.text={name: ernie-base}",
        "Data.max_length=48",
        "Training.global_batch=2",
    ],
}
MICRO_BATCH = {"small": 4, "base": 1}  # rows of a micro batch
OVERRIDES = [
    f"Data.train=[{ROOT / 'demo_data' / 'emoji-train.tar'}]",
    "Data.workers=0",
    "Schedule.warmup_steps=0",
    "Training.precision=bfloat16",
    "Training.steps=5",
    "Training.device=cpu",
]
STEPS = {"direct": [], "cached": ["Training.micro_batch={micro_batch}"], "recomputed": ["Training.recompute=true"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", metavar="KEY=VALUE", dest="overrides", action="append", default=[])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--towers", choices=TOWERS, default="small")
    args = parser.parse_args()

    # The package of PYTHONPATH comes first, but what counts comes from this checkout.
    sys.path.insert(len(sys.path) if os.environ.get("PYTHONPATH") else 0, str(ROOT))
    import ernie_vil2

    sys.path.insert(0, str(ROOT))
    os.environ["ERNIE_VIL2_RUNTIME"] = "0"
    os.environ.setdefault("GLOG_minloglevel", "2")
    ernie_vil2.runtime.configure()

    costs = {}
    for name in args.steps:
        with tempfile.TemporaryDirectory() as folder:
            changes = [change.format(micro_batch=MICRO_BATCH[args.towers]) for change in STEPS[name]]
            changes = [*TOWERS[args.towers], *OVERRIDES, *changes, *args.overrides, f"Training.output={folder}/run"]
            costs[name] = count_step(changes)
    print(f"{ernie_vil2.__path__[0]}")
    for line in render(costs):
        print(line)
    return 0


def count_step(overrides: Sequence[str]) -> StepCost:
    """Count the second step of a run: in the first one the optimiser also makes its moments."""
    from benchmarks.kernel_counter import KernelCounter
    from ernie_vil2.config import load_config
    from ernie_vil2.data.loader import load_batches
    from ernie_vil2.training.trainer import Trainer

    counter = KernelCounter()
    with counter.patch():
        config = load_config(None, overrides)
        trainer = Trainer(config, make_evaluators=lambda *_: {}, should_score_test=False)
        with trainer.folder_lock, closing(load_batches(trainer.sample_rows, config)) as batches:
            trainer.update(next(batches), 0, 0.0)
            trainer.update.finish_pending()
            batch = next(batches)
            with counter.count() as cost:
                trainer.update(batch, 1, 0.0)
                trainer.update.finish_pending()
    return cost


def render(costs: dict[str, StepCost]) -> Iterator[str]:
    """Yield the lines of a table with launches and MB by kind of work.

    Args:
        costs: cost of a step by the name of its column; a cached step has a second column, for a micro batch.
    """
    columns: dict[str, dict[str, Cost]] = {}
    for name, cost in costs.items():
        columns[name] = cost.kinds
        if cost.num_micro_batches:
            columns["a micro batch"] = cost.mean_micro_batch
    yield f"{'':<18}" + "".join(f"{name:>22}" for name in columns)
    yield f"{'':<18}" + f"{'launches':>12}{'MB':>10}" * len(columns)
    for kind in next(iter(columns.values())):
        cells = [f"{column[kind].launches:>12,}{column[kind].num_bytes / 1e6:>10,.2f}" for column in columns.values()]
        yield f"{kind:<18}" + "".join(cells)
    cells = []
    for column in columns.values():
        launches = sum(cost.launches for cost in column.values())
        cells.append(f"{launches:>12,}{count_passes(column) / 1e6:>10,.2f}")
    yield f"{'all':<18}" + "".join(cells) + "  (MB without matrix products)"
    held = [f"{costs[name].held_bytes / 1e6:>22,.2f}" if name in costs else f"{'':>22}" for name in columns]
    yield f"{'held, MB':<18}" + "".join(held)


def count_passes(kinds: dict[str, Cost]) -> int:
    """Return the bytes that kernels other than matrix products read and write."""
    return sum(cost.num_bytes for kind, cost in kinds.items() if kind != "matrix products")


if __name__ == "__main__":
    sys.exit(main())
