"""Evaluators in the course of a run: rank 0's numbers on every rank, and errors that end no run."""

from __future__ import annotations

import math
from typing import Any

import paddle
from paddle import nn

from ernie_vil2.evaluators import Evaluator, Metrics
from ernie_vil2.parallel import collectives
from ernie_vil2.parallel.ranks import LostRank


def scored(name: str, evaluator: Evaluator, model: nn.Layer) -> Metrics:
    """What an evaluator makes of the model, alike on all ranks; what it raises is a failure. A collective."""
    own, error = Metrics({}), None
    model.eval()
    try:
        with paddle.no_grad():
            own = evaluator(model)
    except LostRank:
        raise
    except Exception as met:
        error = str(met) or type(met).__name__
    everyone = collectives.all_gather_object((own, error))
    metrics, _ = everyone[0]
    values = {key: float(value) for key, value in metrics.values.items()}
    failures = dict(metrics.failures)
    for rank, (_, why) in enumerate(everyone):
        if why is not None:
            failures.setdefault(name, why if rank == 0 else f"rank {rank}: {why}")
    if not failures and evaluator.best_by is not None and not math.isfinite(values.get(evaluator.best_by, math.nan)):
        failures[name] = f"no finite {evaluator.best_by}, by which the best checkpoint is chosen"
    return metrics._replace(values=values, failures=failures)


def as_record(name: str, evaluator: Evaluator, metrics: Metrics) -> dict[str, Any]:
    """For the log; what is not finite is null."""
    values = {key: value if math.isfinite(value) else None for key, value in metrics.values.items()}
    return {"evaluator": name, "best_by": evaluator.best_by, "shown": shown(metrics), "metrics": values}


def shown(metrics: Metrics) -> list[str]:
    """The names of the numbers that are printed and drawn."""
    return list(metrics.values if metrics.shown is None else metrics.shown)


def as_lines(metrics: Metrics) -> list[str]:
    """For the terminal, one for the numbers of each first part of their names: `zh: image_to_text/R@1 47.3, ...`."""
    groups: dict[str, list[str]] = {}
    for name in shown(metrics):
        group, _, rest = name.partition("/") if "/" in name else ("", "", name)
        groups.setdefault(group, []).append(f"{rest} {metrics.values[name]:.4g}")
    return [f"{group}: {', '.join(numbers)}".removeprefix(": ") for group, numbers in groups.items()]
