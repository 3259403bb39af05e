"""One rank of the gather test: `python -m paddle.distributed.launch ... gather_worker.py FOLDER`.

Reads FOLDER/batch.npz, takes this rank's share of the rows and leaves FOLDER/rank_R.npz.
"""

import sys
from pathlib import Path

import numpy as np
import paddle
import paddle.distributed as dist

from ernie_vil2.losses import MultiViewLoss
from ernie_vil2.parallel import gather, gather_rows, gather_views


class OwnSliceOnly(paddle.autograd.PyLayer):
    """The common mistake: backward keeps this rank's slice and forgets the other ranks' gradients."""

    @staticmethod
    def forward(ctx, tensor, counts, offset):
        ctx.own = slice(offset, offset + tensor.shape[0])
        return gather._join(tensor, counts)

    @staticmethod
    def backward(ctx, gradient):
        return gradient[ctx.own]


def step(batch, own, dtype, tile=2):
    """Loss of this rank, and the gradients of its rows and of the scale."""
    local = {
        name: paddle.to_tensor(batch[name][own].astype(dtype), stop_gradient=False)
        for name in ("image_1", "image_2", "text_1", "text_2")
    }
    local_ids = paddle.to_tensor(batch["ids"][own])
    scale = paddle.to_tensor(batch["scale"].astype(dtype), stop_gradient=False)
    gathered, offset = gather_views(local)
    gathered_ids, _ = gather_rows(local_ids)
    weights = dict(zip(batch["pairs"].tolist(), batch["weights"].tolist(), strict=True))
    loss = MultiViewLoss(weights, "positives", tile)
    total, _ = loss(local, gathered, scale, local_ids, gathered_ids, offset)
    total.backward()
    gradients = {name: view.grad.numpy() for name, view in local.items()}
    return {"total": total.numpy(), "ids": gathered_ids.numpy(), "scale": scale.grad.numpy(), **gradients}


def main():
    paddle.set_device("cpu")
    dist.init_parallel_env()
    rank, folder = dist.get_rank(), Path(sys.argv[1])
    batch = np.load(folder / "batch.npz")
    bounds = batch["bounds"]
    own = slice(bounds[rank], bounds[rank + 1])

    found = {dtype: step(batch, own, dtype) for dtype in ("float32", "float64")}
    found["plain"] = step(batch, own, "float64", tile=None)
    gather._GatherRows = OwnSliceOnly
    found["wrong"] = step(batch, own, "float64")
    flat = {f"{run}/{name}": value for run, values in found.items() for name, value in values.items()}
    np.savez(folder / f"rank_{rank}.npz", **flat)


if __name__ == "__main__":
    main()
