"""One rank of a run in which rank 1 is another than the others: `failing_rank.py FAULT [OVERRIDE ...]`."""

import sys
import time

import paddle
import paddle.distributed as dist

from ernie_vil2.cli import EXPECTED_ERRORS
from ernie_vil2.config import load_config
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.tasks import multi_view
from ernie_vil2.training import trainer as training
from ernie_vil2.training.checkpoint import FullDisk
from ernie_vil2.training.trainer import Trainer


def run(fault, overrides):
    if fault == "data" and dist.get_rank() == 1:
        multi_view.SampleStream = fails
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
        SampleStream.__getitem__ = lambda stream, position: read(
            stream, position if position < 40 else time.sleep(3600)
        )
    if fault == "gradient" and dist.get_rank() == 1:
        # Before data parallel averages it, or the ranks' sharding.
        parameter = trainer.model.text.parameters()[0]
        parameter.register_hook(lambda gradient: gradient * float("nan") if trainer.step in (1, 4) else gradient)
    if fault == "bad samples" and dist.get_rank() == 1:
        trainer.bad_samples.MIN_READ, trainer.bad_samples.max_share = 0, -1.0
    if fault == "disk" and dist.get_rank() == 0:
        training.save_checkpoint = fails
    if fault == "evaluation" and dist.get_rank() == 1:
        ErnieViL2.encode_texts = fails  # the images are rank 0's
    if fault == "late" and dist.get_rank() == 1:
        save = trainer._save

        def slow_save():
            save()
            time.sleep(40)  # as a large checkpoint on a slow disk would take rank 0

        trainer._save = slow_save
    finished = trainer.fit()
    print(f"rank {dist.get_rank()} finished: {finished}", flush=True)


def fails(*arguments):
    raise FullDisk("no room for it")


def main():
    try:
        run(sys.argv[1], sys.argv[2:])
    except EXPECTED_ERRORS as error:
        print(f"rank {dist.get_rank()} ends with {type(error).__name__}: {error}", flush=True)
        time.sleep(3)  # the launcher would end the other before it has reported it
        sys.exit(2)


if __name__ == "__main__":
    paddle.set_device("cpu")
    main()
