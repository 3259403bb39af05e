"""One rank of a run in which a single rank has a fault, mostly rank 1: `failing_rank.py FAULT [OVERRIDE ...]`."""

import sys
import time

import paddle
import paddle.distributed as dist

from ernie_vil2.cli import EXPECTED_ERRORS
from ernie_vil2.config import load_config
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.tasks import multi_view
from ernie_vil2.training import checkpoint_writer
from ernie_vil2.training.checkpoint import FullDisk
from ernie_vil2.training.trainer import Trainer


def run(fault, overrides):
    if fault == "data" and dist.get_rank() == 1:
        multi_view.SampleStream = raise_full_disk
    trainer = Trainer(load_config(None, overrides))
    loss = trainer.task._step.loss

    def compute_nan_loss(*arguments):
        total, pairs = loss(*arguments)
        if dist.get_rank() == 1 and trainer.step == 1:
            total = total * float("nan")
        return total, pairs

    compute_nan_loss.views = loss.views
    if fault == "nan":
        trainer.task._step.loss = compute_nan_loss
    if fault == "stuck":
        read_sample = SampleStream.__getitem__

        def read_or_hang(stream, position):
            if position >= 40:  # after a few steps
                time.sleep(3600)  # longer than any test waits
            return read_sample(stream, position)

        SampleStream.__getitem__ = read_or_hang
    if fault == "gradient" and dist.get_rank() == 1:
        # The hook runs before data parallel, or the ranks' sharding, averages the gradient.
        parameter = trainer.model.text.parameters()[0]
        parameter.register_hook(lambda gradient: gradient * float("nan") if trainer.step in (1, 4) else gradient)
    if fault == "bad samples" and dist.get_rank() == 1:
        trainer.bad_samples.MIN_READ, trainer.bad_samples.max_share = 0, -1.0
    if fault == "disk" and dist.get_rank() == 0:
        checkpoint_writer.save_checkpoint = raise_full_disk
    if fault == "evaluation" and dist.get_rank() == 1:
        ErnieViL2.start_texts = raise_full_disk  # rank 0 encodes the images
    if fault == "late" and dist.get_rank() == 1:
        save = trainer._save

        def slow_save(with_golden):
            save(with_golden)
            time.sleep(40)  # as long as a large checkpoint on a slow disk would occupy rank 0

        trainer._save = slow_save
    is_finished = trainer.fit()
    print(f"rank {dist.get_rank()} finished: {is_finished}", flush=True)


def raise_full_disk(*arguments):
    raise FullDisk("no room for it")


def main():
    try:
        run(sys.argv[1], sys.argv[2:])
    except EXPECTED_ERRORS as error:
        print(f"rank {dist.get_rank()} ends with {type(error).__name__}: {error}", flush=True)
        time.sleep(3)  # otherwise the launcher ends the other rank before it has printed its error
        sys.exit(2)


if __name__ == "__main__":
    paddle.set_device("cpu")
    main()
