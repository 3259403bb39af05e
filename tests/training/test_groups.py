"""With `Data.groups`, ranks that read only their shards train like one process that reads all of them."""

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
def grouped_settings(overrides, tmp_path):
    """Write eight shards of 16 samples, two for each of four groups; six steps read from all, within an epoch."""
    for number in range(8):
        write_tar(tmp_path / f"{number}.tar", draw_shape_members(1, seed=number))
    return [*overrides, f"Data.train=['{tmp_path}/*.tar']", "Data.val=[]", "Data.groups=4", "Data.workers=1",
            "Data.shuffle_buffer=64", "Training.steps=6", "Training.checkpoint_every=3"]  # fmt: skip


def log_shards(path, settings):
    """Train as a rank, and append a line to a file for each sample its loader reads: the rank and the shard."""
    trainer_process, read_sample = os.getpid(), ShardedSource.__getitem__

    def log_and_read(source, index):
        # The trainer's process also reads the first samples, to compare them between ranks; only the loader's count.
        if os.getpid() != trainer_process:
            with path.open("a") as log:
                print(dist.get_rank(), source.shards[source.locate(index)[0]].name, file=log)
        return read_sample(source, index)

    ShardedSource.__getitem__ = log_and_read
    train(settings)


@pytest.mark.slow
def test_two_ranks_read_separate_shards_and_train_as_one(grouped_settings, tmp_path):
    for ranks in (1, 2):
        output = [f"Training.output={tmp_path / f'ranks{ranks}'}", "Training.device=cpu"]
        run_ranks(log_shards, tmp_path / f"opened{ranks}", [*grouped_settings, *output], ranks=ranks)
    shards_by_rank = {"0": set(), "1": set()}
    for line in (tmp_path / "opened2").read_text().splitlines():
        rank, shard = line.split()
        shards_by_rank[rank].add(shard)
    assert [len(shards) for shards in shards_by_rank.values()] == [4, 4]
    assert not shards_by_rank["0"] & shards_by_rank["1"]
    single, double = read_logged_losses(tmp_path / "ranks1"), read_logged_losses(tmp_path / "ranks2")
    # Two ranks add the same float32 numbers in another order.
    assert len(single) == 6 and np.allclose(single, double, rtol=1e-4), (single, double)

    # One rank resumes the run of two ranks from step 3, as after a kill, with the same batches.
    folder = tmp_path / "ranks2"
    shutil.rmtree(list_checkpoints(folder)[-1])
    process = call("train", *to_arguments([*grouped_settings, f"Training.output={folder}"]), "--resume")
    assert process.returncode == 0 and "all 96 samples" in process.stdout, process.stdout + process.stderr
    assert len(read_logged_losses(folder)) == 6 and np.allclose(double, read_logged_losses(folder), rtol=1e-4)
