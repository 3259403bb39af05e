"""One rank of the tests of steps: `main(FOLDER)` leaves FOLDER/RANK.npz."""

import numpy as np
from paddle.distributed import fleet

from ernie_vil2.parallel.norms import synchronise_norms
from ernie_vil2.parallel.ranks import join_ranks
from ernie_vil2.tasks.contrastive_step import CachedStep, DirectStep
from tests.support.freezing import found_by_rank, of_ranks
from tests.support.steps import (
    OWN,
    VIT,
    batch,
    compute,
    default_dtype,
    model_and_loss,
    setting,
    settings_of,
)
from tests.support.trainings import REPVGG


def main(folder):
    rank, _ = join_ranks()
    found = {}
    for dtype in ("float32", "float64"):
        for run, image, kind in (
            ("DirectStep", VIT, DirectStep),
            ("CachedStep", VIT, CachedStep),
            ("SyncedNorms", REPVGG, DirectStep),
            ("CachedSigmoid", VIT, CachedStep),
            ("CachedWidths", VIT, CachedStep),
        ):
            with default_dtype(dtype):
                config = setting(image, "Training.micro_batch=2", *settings_of(run))
                model, loss = model_and_loss(config)
                assert synchronise_norms(model) == []
                step = kind(model, loss, config, fleet.distributed_model(model))
                losses, gradients = compute(step, batch(dtype, OWN[rank]))
            found |= {f"{dtype}/{run}/losses/{name}": value for name, value in losses.items()}
            found |= {f"{dtype}/{run}/gradients/{name}": value for name, value in gradients.items()}
    found |= found_by_rank(of_ranks(), rank)
    np.savez(f"{folder}/{rank}.npz", **found)
