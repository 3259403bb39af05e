"""`Data.groups`: ranks that read their own share of the shards train as one process that reads all of them."""

import os
import shutil

import numpy as np
import paddle.distributed as dist
import pytest

from ernie_vil2.data.readers import ShardedSource
from ernie_vil2.io.run_folder import list_checkpoints
from tests.support.commands import call
from tests.support.ranks import run_ranks, train
from tests.support.shapes import draw_shape_members, write_tar
from tests.support.trainings import read_logged_losses, to_arguments


@pytest.fixture
def grouped(overrides, tmp_path):
    """Eight shards of 16 samples, two for each of four groups: six steps come to all, the loader reads no further."""
    for number in range(8):
        write_tar(tmp_path / f"{number}.tar", draw_shape_members(1, seed=number))
    return [*overrides, f"Data.train=['{tmp_path}/*.tar']", "Data.val=[]", "Data.groups=4", "Data.workers=1",
            "Data.shuffle_buffer=64", "Training.steps=6", "Training.checkpoint_every=3"]  # fmt: skip


def list_shards(path, settings):
    """As a rank: train, and list the shards that its loader reads from, a line each."""
    trainer_process, read = os.getpid(), ShardedSource.__getitem__

    def listed(source, index):
        # The trainer itself compares the first samples with the other ranks'.
        if os.getpid() != trainer_process:
            with path.open("a") as log:
                print(dist.get_rank(), source.shards[source.locate(index)[0]].name, file=log)
        return read(source, index)

    ShardedSource.__getitem__ = listed
    train(settings)


@pytest.mark.slow
def test_two_ranks_open_their_own_shards_and_train_as_one(grouped, tmp_path):
    for ranks in (1, 2):
        output = [f"Training.output={tmp_path / f'ranks{ranks}'}", "Training.device=cpu"]
        run_ranks(list_shards, tmp_path / f"opened{ranks}", [*grouped, *output], ranks=ranks)
    read = {tuple(line.split()) for line in (tmp_path / "opened2").read_text().splitlines()}
    shares = [{shard for rank, shard in read if rank == number} for number in "01"]
    assert [len(share) for share in shares] == [4, 4] and not shares[0] & shares[1]
    one, two = read_logged_losses(tmp_path / "ranks1"), read_logged_losses(tmp_path / "ranks2")
    assert len(one) == 6 and np.allclose(one, two, rtol=1e-4), (one, two)

    # Killed after the third step, the run of two ranks goes on with one on the same batches.
    folder = tmp_path / "ranks2"
    shutil.rmtree(list_checkpoints(folder)[-1])
    rest = call("train", *to_arguments([*grouped, f"Training.output={folder}"]), "--resume")
    assert rest.returncode == 0 and "all 96 samples" in rest.stdout, rest.stdout + rest.stderr
    assert len(read_logged_losses(folder)) == 6 and np.allclose(two, read_logged_losses(folder), rtol=1e-4)
