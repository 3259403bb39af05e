"""Two ranks with other running statistics against the mean worked out by hand."""

import numpy as np
import paddle

from ernie_vil2.parallel import average_statistics
from ernie_vil2.parallel.ranks import join_ranks
from tests.support.ranks import forked_ranks


def main(folder):
    """One of the ranks."""
    rank, _ = join_ranks()
    model = paddle.nn.Sequential(paddle.nn.BatchNorm2D(2), paddle.nn.Linear(2, 2), paddle.nn.BatchNorm2D(2))
    for norm in (model[0], model[2]):
        norm._mean.set_value(np.array([1, 2], "float32") + 10 * rank)
    model[2]._use_global_stats = True  # the mean of what never differs would be off by rounding
    weight = model[1].weight.numpy()
    average_statistics(model)
    assert (model[1].weight.numpy() == weight).all()
    assert model[2]._mean.numpy().tolist() == [1 + 10 * rank, 2 + 10 * rank]
    np.save(f"{folder}/{rank}.npy", [model[0]._mean.numpy(), model[0]._variance.numpy()])


def test_ranks_end_with_the_mean_of_their_statistics(tmp_path):
    forked_ranks(main, tmp_path)
    for rank in range(2):
        assert np.load(tmp_path / f"{rank}.npy").tolist() == [[6, 7], [1, 1]]
