"""One rank of the tests of steps: `run_ranks([python, step_worker.py, FOLDER], 2)` leaves FOLDER/RANK.npz."""

import sys

import numpy as np
import paddle.distributed as dist
from paddle.distributed import fleet

from ernie_vil2.training.step import CachedStep, DirectStep
from tests.training.test_step import OWN, VIT, batch, compute, default_dtype, model_and_loss, setting


def main():
    fleet.init(is_collective=True, log_level="ERROR")
    rank = dist.get_rank()
    found = {}
    for dtype in ("float32", "float64"):
        for kind in (DirectStep, CachedStep):
            with default_dtype(dtype):
                config = setting(VIT, "Training.micro_batch=2")
                model, loss = model_and_loss(config)
                step = kind(model, loss, config, fleet.distributed_model(model))
                losses, gradients = compute(step, batch(dtype, OWN[rank]))
            run = f"{dtype}/{kind.__name__}"
            found |= {f"{run}/losses/{name}": value for name, value in losses.items()}
            found |= {f"{run}/gradients/{name}": value for name, value in gradients.items()}
    np.savez(f"{sys.argv[1]}/{rank}.npz", **found)


if __name__ == "__main__":
    main()
