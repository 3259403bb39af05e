"""Crossings between host and device in a training step, and who makes them.

    python benchmarks/crossings.py
    python benchmarks/crossings.py --ranks 2
    python benchmarks/crossings.py -o Training.micro_batch=4 -o 'Model.image={name: EfficientNetB5, image_size: 32}'

Every crossing makes the host wait for all that the device has yet to do: `paddle.to_tensor` of host data, and `numpy`,
`item`, `tolist`, `float`, `int`, `bool` of a tensor; what a `Sender` sends is counted, too, though only a CPU waits for
it. They are counted on CPU as on a GPU, from one step to the next, in a run of the trainer with towers of the depth of
ViT-B and ERNIE-base and of small width, on the demo's drawings.
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
from unittest import mock

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
    parser.add_argument("-o", metavar="KEY=VALUE", dest="overrides", action="append", default=[])
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--run", help=argparse.SUPPRESS)  # of a process that counts: its run folder
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
    step = crossings_of_steps(trainer)[-1]
    if trainer.rank == 0:
        print(f"{step.total()} crossings in a step")
        for what, count in step.most_common():
            print(f"{count:>5}  {what}")
    return 0


def crossings_of_steps(trainer) -> list[Counter]:
    """What crosses between the beginnings of two steps of a run, for each but the last one, which ends the run."""
    steps, forward = [], trainer.task.forward
    with counted_crossings() as crossings:

        def noted(batch, step):
            steps.append(Counter(crossings))
            return forward(batch, step)

        trainer.task.forward = noted
        trainer.fit()
    return [after - before for before, after in itertools.pairwise(steps)]


@contextmanager
def counted_crossings() -> Iterator[Counter]:
    """Counts crossings within the block, by what crosses and the line of code that asks for it."""
    import paddle

    from ernie_vil2.device.transfers import Sender

    found: Counter = Counter()
    inside = False

    def counted(name, function):
        def call(*args, **kwargs):
            nonlocal inside
            if inside:  # `item` by way of `numpy` is one
                return function(*args, **kwargs)
            inside = True
            try:
                found[f"{name} {_asker()}"] += 1
                return function(*args, **kwargs)
            finally:
                inside = False

        return call

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(paddle, "to_tensor", counted("to_tensor", paddle.to_tensor)))
        stack.enter_context(mock.patch.object(Sender, "__call__", counted("send", Sender.__call__)))
        for name in TENSOR_METHODS:
            method = counted(name, getattr(paddle.Tensor, name))
            stack.enter_context(mock.patch.object(paddle.Tensor, name, method))
        yield found


def _asker() -> str:
    """The innermost line outside of Paddle and of this file."""
    import paddle

    own = (str(Path(paddle.__file__).parent), __file__)
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith(own):
            return f"{os.path.relpath(frame.filename, ROOT)}:{frame.lineno}: {frame.line}"
    return "?"


if __name__ == "__main__":
    sys.exit(main())
