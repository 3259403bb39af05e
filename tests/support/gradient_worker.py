"""Gradients of the parameters on one rank: `main` writes FOLDER/rank_R.npz.

In a single process the same functions give the gradients that several ranks must compute.
"""

from dataclasses import dataclass

import numpy as np
import paddle
import paddle.distributed as dist
from paddle.distributed import fleet

from ernie_vil2.config import load_config
from ernie_vil2.config.sections import PAIRS
from ernie_vil2.losses import MultiViewLoss
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.parallel import collectives, gather, gather_views
from ernie_vil2.parallel.ranks import join_ranks
from ernie_vil2.tasks.contrastive_step import DirectStep

ROWS, WORDS = 12, 40
BOUNDS = {1: [0, 12], 2: [0, 5, 12], 3: [0, 5, 6, 12], 4: [0, 3, 4, 9, 12]}
"""Number of ranks -> bounds of their rows: a batch of 24 with 12 unusable samples, unevenly over the ranks."""

OVERRIDES = [
    "Model.image={name: ViT, image_size: 16, patch_size: 8, width: 16, depth: 2, heads: 2, drop_path: 0.3}",
    "Model.text={name: ernie, width: 16, depth: 1, heads: 2, max_positions: 8, dropout: 0.1, attention_dropout: 0.1}",
    "Data.max_length=8",
    "Training.global_batch=24",
]


@dataclass(frozen=True)
class Case:
    """A loss, its precision, and the convention by which gradients cross ranks."""

    pairs: tuple[str, ...] = tuple(PAIRS)
    duplicates: str = "positives"
    dtype: str = "float64"
    convention: str = "right"


CASES = {
    "sum float32": Case(dtype="float32"),
    "sum": Case(),
    "sum, duplicates ignored": Case(duplicates="ignored"),
    "sum, duplicates masked": Case(duplicates="masked"),
    **{pair: Case(pairs=(pair,)) for pair in PAIRS},
    **{f"{pair} float32": Case(pairs=(pair,), dtype="float32") for pair in PAIRS},
}
WRONG_CONVENTIONS = (
    "all against all, own slice",
    "that times N",
    "average, all against all",
    "no gradient through columns",
    "own slice",
)
CASES |= {convention: Case(convention=convention) for convention in WRONG_CONVENTIONS}


def make_batch(dtype):
    rng = np.random.default_rng(0)
    views = {name: rng.normal(size=[ROWS, 3, 16, 16]).astype(dtype) for name in ("image_1", "image_2")}
    text = rng.integers(1, WORDS, size=[ROWS, 8])
    text[np.arange(8) >= rng.integers(3, 9, size=[ROWS, 1])] = 0
    # Few ids for many rows: images and texts repeat, within a rank and across ranks.
    return views | {"text_1": text, "text_2": text}, rng.integers(0, 8, size=[ROWS, 2])


class WrongStep(DirectStep):
    """Step by a convention of public code that gives other gradients."""

    def __init__(self, *arguments, convention):
        super().__init__(*arguments)
        self.convention = convention

    def _score(self, local, scalars, ids, of_all):
        gathered_ids, _, counts = of_all()
        gathered, offset = gather_views(local, counts)
        if self.convention == "no gradient through columns":
            gathered = {name: view.detach() for name, view in gathered.items()}
        if self.convention in ("no gradient through columns", "own slice"):
            return self.loss(local, gathered, scalars, ids, gathered_ids, offset)
        total, pairs = self.loss(gathered, gathered, scalars, gathered_ids, gathered_ids)
        # The whole loss on every rank, where the step expects a share of it.
        return total if self.convention == "that times N" else total / dist.get_world_size(), pairs


class WrongGather(paddle.autograd.PyLayer):
    """Gathering with the right forward pass, and a backward pass that does not sum over ranks."""

    averages = False

    @staticmethod
    def forward(ctx, tensor, counts):
        ctx.counts = counts
        return gather._gather_padded(tensor, counts)

    @staticmethod
    def backward(ctx, gradient):
        if WrongGather.averages:
            gradient = collectives.all_reduce(gradient.clone()) / dist.get_world_size()
        return gradient.split(ctx.counts)[dist.get_rank()]


def compute_gradients(case: Case) -> dict[str, np.ndarray]:
    """Return the gradients of the parameters that the loss needs, on this rank and by name."""
    config = load_config(None, OVERRIDES)
    paddle.seed(1 + dist.get_rank())  # data parallel gives all ranks the weights of the first
    model = build_dual_encoder(config.Model, WORDS, temperature=0.1).to(dtype=case.dtype)
    parallel = fleet.distributed_model(model) if dist.get_world_size() > 1 else None
    loss = MultiViewLoss({pair: 1.0 + position for position, pair in enumerate(case.pairs)}, case.duplicates)
    if case.convention == "right":
        step = DirectStep(model, loss, config, parallel)
    else:
        step = WrongStep(model, loss, config, parallel, convention=case.convention)
    (parallel or model).train()

    rank, bounds = dist.get_rank(), BOUNDS[dist.get_world_size()]
    local_rows = slice(bounds[rank], bounds[rank + 1])
    views, ids = make_batch(case.dtype)
    views = {name: paddle.to_tensor(views[name][local_rows]) for name in loss.views}

    right_gather = gather._GatherRows
    if case.convention != "right":
        gather._GatherRows, WrongGather.averages = WrongGather, case.convention.startswith("average")
    try:
        step.forward(views, ids[local_rows], np.arange(ROWS)[local_rows], 7)
        step.backward()
    finally:
        gather._GatherRows = right_gather
    return {name: value.grad.numpy() for name, value in model.named_parameters() if value.grad is not None}


def main(folder, cases):
    """Compute the gradients of cases as one of the ranks."""
    rank, _ = join_ranks()
    arrays = {}
    for case in cases:
        arrays |= {f"{case}/{name}": value for name, value in compute_gradients(CASES[case]).items()}
    np.savez(folder / f"rank_{rank}.npz", **arrays)
