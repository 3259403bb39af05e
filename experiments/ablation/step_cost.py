"""Measure the CPU seconds of a training step of each model of a study, and find the steps of equal CPU time.

Each model makes a few steps, then each again in the opposite order, so that a machine that slows down or speeds up
meanwhile treats all alike. Times of a machine that does other work are longer; their ratios are much less affected.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from ernie_vil2.config import Config, validate_config
from ernie_vil2.config.load import merge_trees
from experiments.ablation.collect import read_curve
from experiments.ablation.definition import Run, Study


def measure_step_costs(study: Study, num_steps: int) -> dict[str, list[float]]:
    """Return the CPU seconds of a step of each model of the main group, measured twice.

    Args:
        study: the study; its run folders are not touched.
        num_steps: number of steps of a measurement.
    """
    main = study.definition.groups[0]
    runs = {run.model: run for run in study.runs() if run.group == main.name}

    # The first training of a process also loads code and fills the heap.
    _train_briefly(runs[main.models[0]], num_steps)
    costs: dict[str, list[float]] = {model: [] for model in main.models}
    for model in [*main.models, *reversed(main.models)]:
        costs[model].append(_train_briefly(runs[model], num_steps))
    return costs


def format_step_costs(study: Study, costs: dict[str, list[float]]) -> Iterator[str]:
    """Yield a line for each model: its costs, their ratio to the baseline's, and its steps at equal CPU time."""
    baseline = study.definition.baseline
    main = study.definition.groups[0].name
    steps = next(run.config.Training.steps for run in study.runs() if (run.group, run.model) == (main, baseline))
    for model, seconds in costs.items():
        ratio = sum(seconds) / sum(costs[baseline])
        measurements = " and ".join(f"{value:.4f}" for value in seconds)
        yield f"{model}: {measurements} CPU seconds a step, {ratio:.3f} of {baseline}, {steps / ratio:.0f} steps"


def _train_briefly(run: Run, num_steps: int) -> float:
    """Train a run for a few steps in a folder that is removed; return the CPU seconds of a step."""
    with tempfile.TemporaryDirectory() as folder:
        config = _shorten(run.config, num_steps, folder)
        from ernie_vil2.training.trainer import Trainer

        Trainer(config).fit()
        _, seconds = read_curve(Path(folder))
    if seconds is None:
        raise ValueError(f"{run}: its log has no CPU seconds")
    return seconds / num_steps


def _shorten(config: Config, num_steps: int, folder: str) -> Config:
    """Return a configuration of a few steps, without evaluations; shares of the run, such as stages, stay the same."""
    training = {"steps": num_steps, "output": folder, "log_every": num_steps, "checkpoint_every": num_steps}
    changes = {"Training": training, "Schedule": {"warmup_steps": 1}, "Evaluation": {"every": 0}}
    return validate_config(merge_trees(config.model_dump(), changes), "step cost")
