"""Losses and gradients of a training step on statements with labels."""

from itertools import product

import numpy as np
import paddle

from tests.support.steps import ROWS, VIT, make_config
from tests.support.trainings import build_seeded_task

CASES = list(product(("entailment", "nlvr2"), ("concatenation", "interaction")))
# Relative errors: rounding in float32 and float64 adds up over the layers of two towers and a head.
TOLERANCES = {"float32": 1e-5, "float64": 1e-10}


def make_step(task, head, *changes):
    """Return the task and the step of a new model, as the trainer prepares them for one process."""
    config = make_config(VIT, f"Training.task={task}", f"Head.kind={head}", "Head.dropout=0.3",
                     "Model.text.vocabulary=demo_data/vocabulary.txt", *changes)  # fmt: skip
    built_task = build_seeded_task(config, initialize=False)
    built_task.model.train()
    built_task.prepare(None, None)
    return built_task, built_task._step


def make_batch(task, dtype="float32", rows=range(ROWS)):
    """Return views, labels and positions of some rows of the global batch."""
    rng, rows = np.random.default_rng(0), np.array(rows)
    names = {"entailment": ["image_1"], "nlvr2": ["image_1", "image_2"]}[task]
    views = {name: rng.normal(size=[ROWS, 3, 32, 32]).astype(dtype) for name in names}
    views["text_1"] = rng.integers(1, 50, size=[ROWS, 8])
    labels = rng.integers(0, 2, size=[ROWS, 1])
    return {name: paddle.to_tensor(view[rows]) for name, view in views.items()}, labels[rows], rows
