"""What scores a model in the course of its training: an evaluator is a file here and a line below."""

from __future__ import annotations

from collections.abc import Callable

from ernie_vil2.config import Config, ConfigError
from ernie_vil2.evaluators.classification import build_classification
from ernie_vil2.evaluators.evaluator import Evaluator, Metrics
from ernie_vil2.evaluators.retrieval import build_retrieval
from ernie_vil2.evaluators.statements import build_statements
from ernie_vil2.registry import Registry, UnknownName
from ernie_vil2.tasks import Task

__all__ = ["EVALUATORS", "Evaluator", "Metrics", "build_evaluators"]

EVALUATORS: Registry[Callable[[Config, Task], Evaluator | None]] = Registry(
    "evaluator",
    {"retrieval": build_retrieval, "classification": build_classification, "statements": build_statements},
)
"""By their names in `Evaluation.evaluators`; None: the configuration gives it nothing to score."""


def build_evaluators(config: Config, task: Task) -> dict[str, Evaluator]:
    """Those of `Evaluation.evaluators`, or else of the task, that have something to score.

    Raises:
        ConfigError: there is no such evaluator.
        OSError, ValueError: what one of them scores cannot be read.
    """
    names = task.evaluators if config.Evaluation.evaluators is None else config.Evaluation.evaluators
    try:
        makers = {name: EVALUATORS.find(name) for name in names}
    except UnknownName as error:
        raise ConfigError(f"Evaluation.evaluators: {error}") from None
    built = {name: make(config, task) for name, make in makers.items()}
    return {name: evaluator for name, evaluator in built.items() if evaluator is not None}
