"""One rank of the tests of statements: `run_ranks([python, entailment_rank.py, FOLDER], 2)` leaves FOLDER/RANK.npz."""

import sys

import numpy as np
from paddle.distributed import fleet

from ernie_vil2.parallel.ranks import join_ranks
from tests.support.entailment_steps import CASES, TOLERANCES, batch, step_of
from tests.support.steps import OWN, compute, default_dtype


def main():
    rank, _ = join_ranks()
    found = {}
    for dtype in TOLERANCES:
        for task, head in CASES:
            for micro_batch in ("null", "2"):
                with default_dtype(dtype):
                    made, _ = step_of(task, head, f"Training.micro_batch={micro_batch}")
                    made.prepare(fleet.distributed_model(made.model), None)
                    losses, gradients = compute(made._step, batch(task, dtype, OWN[rank]))
                case = f"{dtype}/{task}/{head}/{micro_batch}"
                found |= {f"{case}/losses/{name}": value for name, value in losses.items()}
                found |= {f"{case}/gradients/{name}": value for name, value in gradients.items()}
    np.savez(f"{sys.argv[1]}/{rank}.npz", **found)


if __name__ == "__main__":
    main()
