"""One rank of the tests of agreement, one of three: `main(FOLDER)` leaves FOLDER/RANK.json."""

import json
import time

import paddle.distributed as dist

from ernie_vil2.data.samples import TooManyBadSamples
from ernie_vil2.parallel.collectives import agreed_errors, first_rank_first
from ernie_vil2.parallel.ranks import join_ranks
from ernie_vil2.training.step_agreement import BatchGate, StopSignals


def ended(action):
    try:
        return action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main(folder):
    rank, ranks = join_ranks()
    found = {}

    def in_a_block(failing):
        with agreed_errors():
            if rank in failing:
                raise OSError(f"the disk of {rank}")
        return "went on"

    def fetched():
        if rank == 0:
            time.sleep(1)
            (folder / "fetched").write_text("once")
            return "fetched"
        return (folder / "fetched").read_text()

    def not_fetched(failing):
        (folder / f"tried_{failing}_{rank}").touch()
        if rank == failing:
            raise ValueError(f"no such model on {rank}")

    for failing in ([], [0], [2], [1, 2]):
        found[f"block {failing}"] = ended(lambda failing=failing: in_a_block(failing))
    found["fetched"] = ended(lambda: first_rank_first(fetched))
    for failing in (0, 1):
        found[f"not fetched {failing}"] = ended(lambda failing=failing: first_rank_first(lambda: not_fetched(failing)))
    gate = BatchGate(ranks, StopSignals())
    error = TooManyBadSamples("3 of 4 samples") if rank == 1 else None
    found["gate"] = [ended(lambda: gate.lets_through(4, 2)), ended(lambda: gate.lets_through(rank, 1)),
                     ended(lambda: gate.lets_through(4, 2, error))]  # fmt: skip
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
