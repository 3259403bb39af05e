"""Count the crossings between host and device in a training step, by the line of code that makes them.

    python benchmarks/crossings.py
    python benchmarks/crossings.py --ranks 2
    python benchmarks/crossings.py -o Training.micro_batch=4 -o 'Model.image={name: EfficientNetB5, image_size: 32}'

A crossing makes the host wait until the device has finished all its work. Crossings are `paddle.to_tensor` of host
data, and `numpy`, `item`, `tolist`, `float`, `int` and `bool` of a tensor. Data sent by a `Sender` counts as well,
though only a CPU waits for it. The trainer makes the same crossings on a CPU as on a GPU; here it trains on the CPU, on
the demo's drawings, with towers of the depth of ViT-B and ERNIE-base and of small width.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    from ernie_vil2.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
OVERRIDES = [
    "Model.image={name: ViT, image_size: 32, patch_size: 16, width: 24, depth: 12, heads: 2}",
    "Model.text={name: ernie, width: 24, depth: 12, heads: 2, max_positions: 24}",
    "Views.resize=32",
    "Data.max_length=24",
    f"Data.train=[{ROOT / 'demo_data' / 'emoji-train.tar'}]",
    "Data.workers=0",
    "Schedule.warmup_steps=0",
    "Training.global_batch=16",
    "Training.steps=5",
    "Training.log_every=100",
    "Training.checkpoint_every=100",
    "Training.device=cpu",
]
TENSOR_METHODS = ("numpy", "item", "tolist", "__array__", "__float__", "__int__", "__index__", "__bool__")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", metavar="KEY=VALUE", dest="overrides", action="append", default=[], help="setting")
    parser.add_argument("--ranks", type=int, default=1, help="processes; rank 0 prints its crossings")
    parser.add_argument("--run", help=argparse.SUPPRESS)  # run folder, of a process that counts
    args = parser.parse_args()
    if not args.run:
        from ernie_vil2.device.launch import run_ranks

        with tempfile.TemporaryDirectory() as folder:
            return run_ranks([sys.executable, *sys.argv, "--run", f"{folder}/run"], args.ranks)
    from ernie_vil2.device import runtime

    runtime.configure()
    from ernie_vil2.config import load_config
    from ernie_vil2.training.trainer import Trainer

    trainer = Trainer(load_config(None, [*OVERRIDES, *args.overrides, f"Training.output={args.run}"]))
    step = count_crossings_of_steps(trainer)[-1]
    if trainer.rank == 0:
        print(f"{step.total()} crossings in a step")
        for crossing, count in step.most_common():
            print(f"{count:>5}  {crossing}")
    return 0


def count_crossings_of_steps(trainer: Trainer) -> list[Counter]:
    """Train, and return the crossings of each step but the last one.

    A step lasts from its forward pass to that of the next step, which the last step lacks.
    """
    counts_at_steps = []
    forward = trainer.task.forward
    with count_crossings() as crossings:

        def count_and_forward(batch, step):
            counts_at_steps.append(Counter(crossings))
            return forward(batch, step)

        with mock.patch.object(trainer.task, "forward", count_and_forward):
            trainer.fit()
    return [end - start for start, end in itertools.pairwise(counts_at_steps)]


@contextmanager
def count_crossings() -> Iterator[Counter]:
    """Yield a counter of the crossings in the block, by function and calling line of code."""
    import paddle

    from ernie_vil2.device.transfers import Sender

    crossings: Counter = Counter()
    is_inside = False

    def count_calls(name, function):
        def call(*args, **kwargs):
            nonlocal is_inside
            # A function that calls another one, as `item` calls `numpy`, makes one crossing.
            if is_inside:
                return function(*args, **kwargs)
            is_inside = True
            try:
                crossings[f"{name} {_find_caller()}"] += 1
                return function(*args, **kwargs)
            finally:
                is_inside = False

        return call

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(paddle, "to_tensor", count_calls("to_tensor", paddle.to_tensor)))
        stack.enter_context(mock.patch.object(Sender, "__call__", count_calls("send", Sender.__call__)))
        for name in TENSOR_METHODS:
            method = count_calls(name, getattr(paddle.Tensor, name))
            stack.enter_context(mock.patch.object(paddle.Tensor, name, method))
        yield crossings


def _find_caller() -> str:
    """Return the innermost line outside of Paddle and of this file."""
    import paddle

    # With the separator, as folders of other packages begin like Paddle's: paddlenlp, paddleclas.
    ignored_paths = (str(Path(paddle.__file__).parent) + os.sep, __file__)
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith(ignored_paths):
            return f"{os.path.relpath(frame.filename, ROOT)}:{frame.lineno}: {frame.line}"
    return "?"


if __name__ == "__main__":
    sys.exit(main())
