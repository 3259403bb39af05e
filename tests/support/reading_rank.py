"""One rank of a run that lists the shards its loader reads from, a line each: `reading_rank.py LIST [OVERRIDE ...]`."""

import os
import sys
from pathlib import Path

import paddle.distributed as dist

from ernie_vil2.config import load_config
from ernie_vil2.data.readers import ShardedSource
from ernie_vil2.training.trainer import Trainer

if __name__ == "__main__":
    trainer_process, read = os.getpid(), ShardedSource.__getitem__

    def listed(source, index):
        # The trainer itself compares the first samples with the other ranks'.
        if os.getpid() != trainer_process:
            with Path(sys.argv[1]).open("a") as log:
                print(dist.get_rank(), source.shards[source.locate(index)[0]].name, file=log)
        return read(source, index)

    ShardedSource.__getitem__ = listed
    Trainer(load_config(None, sys.argv[2:])).fit()
