"""One rank of a run in which rank 1 is another than the others: `failing_rank.py FAULT [OVERRIDE ...]`."""

import sys
import time

import paddle
import paddle.distributed as dist

from ernie_vil2.config import load_config
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.training.engine import Trainer


def main():
    fault, *overrides = sys.argv[1:]
    trainer = Trainer(load_config(None, overrides))
    loss = trainer.task._step.loss

    def only_here(*arguments):
        total, pairs = loss(*arguments)
        if dist.get_rank() == 1 and trainer.step == 1:
            total = total * float("nan")
        return total, pairs

    only_here.views = loss.views
    if fault == "nan":
        trainer.task._step.loss = only_here
    if fault == "stuck":
        read = SampleStream.__getitem__
        SampleStream.__getitem__ = lambda stream, place: read(stream, place if place < 40 else time.sleep(3600))
    if fault == "gradient" and dist.get_rank() == 1:
        # Before data parallel averages it, or the ranks' sharding.
        parameter = trainer.model.text.parameters()[0]
        parameter.register_hook(lambda gradient: gradient * float("nan") if trainer.step in (1, 4) else gradient)
    if fault == "late" and dist.get_rank() == 1:
        save = trainer._save

        def slow_save():
            save()
            time.sleep(40)  # as a large checkpoint on a slow disk would take rank 0

        trainer._save = slow_save
    finished = trainer.fit()
    print(f"rank {dist.get_rank()} finished: {finished}", flush=True)


if __name__ == "__main__":
    paddle.set_device("cpu")
    main()
