"""Training steps of tiny models with frozen layers, in a single process and on several ranks."""

from dataclasses import dataclass
from functools import cache, partial
from itertools import product

import numpy as np
import paddle.distributed as dist
from paddle.distributed import fleet

import tests.support.towers  # noqa: F401 - its towers are named by their import path
from ernie_vil2.config import load_config
from ernie_vil2.models.dual_encoder import find_layer_groups
from ernie_vil2.parallel.norms import find_batch_norms, get_running_statistics, prepare_norms
from tests.support import entailment_steps, steps
from tests.support.steps import RANK_ROWS, ROWS, compute_step, measure_errors, use_default_dtype
from tests.support.trainings import build_seeded_task

IMAGES = {
    "ViT": "{name: ViT, image_size: 32, patch_size: 16, width: 16, depth: 2, heads: 2, drop_path: 0.3}",
    "RepVGG": "{name: RepVGG, image_size: 32, width: 8, depth: 1}",
    "cropping": "{name: 'tests.support.towers:Cropping', image_size: 32, width: 16}",
}
TEXTS = {"ernie": "ernie, pooling: cls", "mean": "ernie, pooling: mean", "bert": "bert, pooling: cls"}
TOWERS = tuple(zip(IMAGES, TEXTS, strict=True))
"""Pairs of an image and a text tower, in which every kind occurs once."""
SIZES = "width: 16, depth: 2, heads: 2, max_positions: 8, dropout: 0.2, attention_dropout: 0.2"
STEPS = {"direct": (), "recomputed": ("Training.recompute=true",), "cached": ("Training.micro_batch=4",),
         "cached, recomputed": ("Training.recompute=true", "Training.micro_batch=4")}  # fmt: skip
ROWS_OF_ALL_RANKS = tuple(np.concatenate(RANK_ROWS).tolist())


@dataclass(frozen=True)
class Case:
    """A model, its frozen layers, and the way its step is computed."""

    image: str
    text: str
    freeze: tuple[str, ...] = ()
    step: str = "direct"
    task: str = "multi_view"
    lora: bool = False

    @property
    def config(self):
        image_layers = "image.network.stage*" if self.image == "RepVGG" else "image.blocks.*"
        layers = f"[{image_layers}, text.network.encoder.*]"
        return load_config(None, [
            f"Model.image={IMAGES[self.image]}",
            f"Model.text={{name: {TEXTS[self.text]}, {SIZES}, vocabulary: demo_data/vocabulary.txt}}",
            "Model.embed_dim=12", "Views.resize=32", "Data.max_length=8", "Head={width: 16, dropout: 0.2}",
            "Loss={weights: {image_text: 0.5}, duplicates: positives}", "Schedule.warmup_steps=0",
            f"Training.task={self.task}", f"Training.global_batch={ROWS}", f"Tuning.freeze={list(self.freeze)}",
            f"Tuning.lora={{rank: 2, layers: {layers}}}" if self.lora else "Tuning.lora=null", *STEPS[self.step],
        ])  # fmt: skip


def build_case(case):
    """Return the task of a case with its model."""
    return build_seeded_task(case.config, initialize=False)


@cache
def list_layer_groups(image, text):
    """Return the names of the layer groups that hold parameters, by tower."""
    towers = find_layer_groups(build_case(Case(image, text)).model)
    groups = {}
    for tower, parameters_by_group in towers.items():
        groups[tower] = [group for group, parameters in parameters_by_group.items() if parameters]
    return groups


def list_frozen_groups(image, text):
    """Yield every layer group by itself, and together with all groups of its tower before it."""
    for names in list_layer_groups(image, text).values():
        for name in names:
            yield (name,)
        for end in range(2, len(names) + 1):
            yield tuple(names[:end])


def compute_gradients(case, unfreeze=False, rows=ROWS_OF_ALL_RANKS):
    """Compute a step in float64, and check that only norms with a trained weight update their running statistics.

    Args:
        unfreeze: whether frozen parameters get a gradient all the same; nothing else about the step changes.

    Returns:
        ((losses, gradients by the names of the parameters), names of the frozen parameters).
    """
    with use_default_dtype("float64"):
        task, ranks = build_case(case), dist.get_world_size()
        norms = find_batch_norms(task.model)
        for norm in norms.values():
            norm.to(dtype="float64")  # some begin in float32 whatever the default is
        statistics = {id(value) for value in get_running_statistics(task.model)}
        frozen = {name: value for name, value in task.model.named_parameters() if value.stop_gradient}
        for parameter in frozen.values():
            parameter.stop_gradient = not unfreeze or id(parameter) in statistics
        parallel = fleet.distributed_model(task.model) if ranks > 1 else None
        prepare_norms(task.model, ranks, case.config.Training)
        task.model.train()
        task.prepare(parallel, None)
        initial_means = {name: norm._mean.numpy() for name, norm in norms.items()}
        if case.task == "multi_view":
            views = steps.make_batch("float64", rows)
        else:
            views = entailment_steps.make_batch(case.task, "float64", rows)
        results = compute_step(task._step, views)
        for name, norm in norms.items():
            is_unchanged = np.array_equal(norm._mean.numpy(), initial_means[name])
            is_frozen = {f"{name}.weight", f"{name}.bias"} <= frozen.keys()
            assert is_unchanged == is_frozen, (case, name)
        return results, set(frozen)


compute_unfrozen_gradients = cache(partial(compute_gradients, unfreeze=True))


def check_case(case, losses, gradients, frozen):
    """Compare losses and gradients of a case with those of the same model in which no parameter is frozen."""
    (all_losses, all_gradients), _ = compute_unfrozen_gradients(case)
    assert not gradients.keys() & frozen
    expected = {name: value for name, value in all_gradients.items() if name not in frozen}
    # Both compute in float64, in another order where steps are recomputed or cached.
    assert max(measure_errors((losses, gradients), (all_losses, expected))) < 1e-9, case


def list_rank_cases():
    """Return cases for several ranks.

    Cached steps of towers with batch norms are left out: norms of a rank's micro batch see other rows than those of a
    single process.
    """
    cases = []
    for image, text in TOWERS:
        for frozen, step, lora in product(list_frozen_groups(image, text), STEPS, (False, True)):
            if image == "ViT" or "cached" not in step:
                cases.append(Case(image, text, frozen, step, lora=lora))
    return cases[:: len(cases) // 8]  # eight or nine of them, which take seconds


def compute_rank_arrays(cases, rank):
    """Return the losses and gradients of a rank, as arrays by name."""
    arrays = {}
    for number, case in enumerate(cases):
        (losses, gradients), _ = compute_gradients(case, rows=RANK_ROWS[rank])
        arrays |= {f"frozen/{number}/losses/{name}": value for name, value in losses.items()}
        arrays |= {f"frozen/{number}/gradients/{name}": value for name, value in gradients.items()}
    return arrays


def check_ranks(ranks, cases):
    """Compare the arrays of two ranks with the results of a single process."""
    for number, case in enumerate(cases):
        prefix = f"frozen/{number}"
        (expected_losses, _), frozen = compute_unfrozen_gradients(case)
        losses = {}
        for name in expected_losses:
            losses[name] = sum(float(rank[f"{prefix}/losses/{name}"]) for rank in ranks)
        for rank in ranks:
            start = f"{prefix}/gradients/"
            gradients = {name.removeprefix(start): rank[name] for name in rank if name.startswith(start)}
            check_case(case, losses, gradients, frozen)
