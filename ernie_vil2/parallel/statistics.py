"""Running statistics of batch norms, which every rank gathers from its own rows."""

import paddle
import paddle.distributed as dist

from ernie_vil2.parallel import collectives
from ernie_vil2.parallel.norms import copied, moving_statistics, set_statistics


@paddle.no_grad()
def average_statistics(model):
    """Sets the running means and variances of a model's batch norms to their mean over the ranks, in place.

    Data parallel leaves them alone, so that each rank has those of its own rows. Before a model is scored by several
    ranks, or saved by one, they have to be those of all rows; those that training leaves alone are left alone here. A
    collective: every rank must call it; a single process needs no process group.

    Args:
        model: the same layers on every rank.
    """
    statistics = moving_statistics(model)
    if dist.get_world_size() == 1 or not statistics:
        return
    set_statistics(statistics, collectives.all_reduce(copied(statistics)) / dist.get_world_size())
