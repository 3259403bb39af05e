"""One rank of the gather test: `main` reads FOLDER/batch.npz, takes its rows of it and leaves FOLDER/rank_R.npz."""

import numpy as np
import paddle

from benchmarks.traffic import counted_traffic
from ernie_vil2.losses import MultiViewLoss
from ernie_vil2.parallel import gather_ids, gather_rows, gather_views
from ernie_vil2.parallel.ranks import join_ranks


def step(batch, own, dtype, tile=2, widths=()):
    """Loss of this rank, and the gradients of its rows and of the scale."""
    local = {
        name: paddle.to_tensor(batch[name][own].astype(dtype), stop_gradient=False)
        for name in ("image_1", "image_2", "text_1", "text_2")
    }
    local_ids = paddle.to_tensor(batch["ids"][own])
    scale = paddle.to_tensor(batch["scale"].astype(dtype), stop_gradient=False)
    with counted_traffic() as traffic:
        gathered_ids, on_host, counts = gather_ids(local_ids, batch["ids"][own], capacity=6)()
        gathered, offset = gather_views(local, counts)
        weights = dict(zip(batch["pairs"].tolist(), batch["weights"].tolist(), strict=True))
        loss = MultiViewLoss(weights, "positives", tile, widths=widths)
        total, _ = loss(local, gathered, {"logit_scale": scale}, local_ids, gathered_ids, offset)
    with counted_traffic() as back:
        total.backward()
    gradients = {name: view.grad.numpy() for name, view in local.items()}
    sent = [traffic["all_gather"].calls, traffic["all_gather"].payload, back["all_reduce"].calls,
            back["all_reduce"].payload, len(traffic | back)]  # fmt: skip
    return {
        "total": total.numpy(),
        "ids": gathered_ids.numpy(),
        "ids_on_host": on_host,
        "counts": counts,
        "offsets": [offset, gather_rows(local_ids)[1]],
        "scale": scale.grad.numpy(),
        "sent": sent,
        **gradients,
    }


def main(folder):
    rank, _ = join_ranks()
    batch = np.load(folder / "batch.npz")
    bounds = batch["bounds"]
    own = slice(bounds[rank], bounds[rank + 1])

    found = {dtype: step(batch, own, dtype) for dtype in ("float32", "float64")}
    found["plain"] = step(batch, own, "float64", tile=None)
    found["widths"] = step(batch, own, "float64", widths=[1, 2, 4])
    found["float32 widths"] = step(batch, own, "float32", widths=[1, 2, 4])

    flat = {f"{run}/{name}": value for run, values in found.items() for name, value in values.items()}
    np.savez(folder / f"rank_{rank}.npz", **flat)
