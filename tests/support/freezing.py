"""Steps of tiny models of which parts are frozen, for a process alone and for one of several ranks."""

from dataclasses import dataclass
from functools import cache, partial

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
"""Each kind once."""
SIZES = "width: 16, depth: 2, heads: 2, max_positions: 8, dropout: 0.2, attention_dropout: 0.2"
STEPS = {"direct": (), "recomputed": ("Training.recompute=true",), "cached": ("Training.micro_batch=4",),
         "cached, recomputed": ("Training.recompute=true", "Training.micro_batch=4")}  # fmt: skip
ROWS_OF_ALL_RANKS = tuple(row for own in RANK_ROWS for row in own.tolist())
"""The rows of all ranks."""


@dataclass(frozen=True)
class Case:
    """A model, what of it is frozen, and how its step is computed."""

    image: str
    text: str
    freeze: tuple[str, ...] = ()
    step: str = "direct"
    task: str = "multi_view"
    lora: bool = False

    @property
    def config(self):
        layers = "[image.blocks.*, image.network.stage*, text.network.encoder.*]"
        layers = layers.replace(", image.network.stage*" if self.image != "RepVGG" else "image.blocks.*, ", "")
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
    """The names of the layer groups that hold parameters, by tower."""
    towers = find_layer_groups(build_case(Case(image, text)).model)
    return {tower: [name for name, frozen in found.items() if frozen] for tower, found in towers.items()}


def list_frozen_groups(image, text):
    """Yield every group by itself, and with all groups of its tower before it."""
    for names in list_layer_groups(image, text).values():
        yield from ((name,) for name in names)
        yield from (tuple(names[:end]) for end in range(2, len(names) + 1))


def compute_gradients(case, thawed=False, rows=ROWS_OF_ALL_RANKS):
    """Return the losses of a step and the gradients of its parameters, and the names of those that are frozen.

    `thawed`: what is frozen has a gradient all the same, and all else is as it is. That running statistics follow the
    rows where a weight of their norm is trained, and stay where none is, is checked on the way.
    """
    with use_default_dtype("float64"):
        task, ranks = build_case(case), dist.get_world_size()
        norms = find_batch_norms(task.model)
        for norm in norms.values():
            norm.to(dtype="float64")  # the older ones begin in float32
        statistics = {id(value) for value in get_running_statistics(task.model)}
        frozen = {name: value for name, value in task.model.named_parameters() if value.stop_gradient}
        for parameter in frozen.values():
            parameter.stop_gradient = not thawed or id(parameter) in statistics
        parallel = fleet.distributed_model(task.model) if ranks > 1 else None
        prepare_norms(task.model, ranks, case.config.Training)
        task.model.train()
        task.prepare(parallel, None)
        before = {name: norm._mean.numpy() for name, norm in norms.items()}
        if case.task == "multi_view":
            views = steps.make_batch("float64", rows)
        else:
            views = entailment_steps.make_batch(case.task, "float64", rows)
        found = compute_step(task._step, views)
        for name, norm in norms.items():
            stays = np.array_equal(norm._mean.numpy(), before[name])
            assert stays == ({f"{name}.weight", f"{name}.bias"} <= frozen.keys()), (case, name)
        return found, set(frozen)


compute_unfrozen_gradients = cache(partial(compute_gradients, thawed=True))


def check_case(case, losses, found, frozen):
    """Compare losses and gradients of a case with those of the same model where all parameters have one."""
    (all_losses, every), _ = compute_unfrozen_gradients(case)
    assert not found.keys() & frozen
    trained = {name: value for name, value in every.items() if name not in frozen}
    assert max(measure_errors((losses, found), (all_losses, trained))) < 1e-9, case


def list_rank_cases():
    """Return cases for several ranks, on which batch norms of a micro batch are others than those of one process."""
    cases = [
        Case(image, text, frozen, step, lora=lora)
        for image, text in TOWERS
        for frozen in list_frozen_groups(image, text)
        for step in STEPS
        for lora in (False, True)
        if image == "ViT" or "cached" not in step
    ]
    return cases[:: len(cases) // 8]


def compute_rank_arrays(cases, rank):
    """Return what a rank computes, as arrays by name."""
    arrays = {}
    for number, case in enumerate(cases):
        (losses, found), _ = compute_gradients(case, rows=RANK_ROWS[rank])
        arrays |= {f"frozen/{number}/losses/{name}": value for name, value in losses.items()}
        arrays |= {f"frozen/{number}/gradients/{name}": value for name, value in found.items()}
    return arrays


def check_ranks(ranks, cases):
    """Compare what two ranks have computed with one process."""
    for number, case in enumerate(cases):
        prefix = f"frozen/{number}"
        (losses, _), frozen = compute_unfrozen_gradients(case)
        losses = {name: sum(float(rank[f"{prefix}/losses/{name}"]) for rank in ranks) for name in losses}
        for rank in ranks:
            start = f"{prefix}/gradients/"
            found = {name.removeprefix(start): rank[name] for name in rank if name.startswith(start)}
            check_case(case, losses, found, frozen)
