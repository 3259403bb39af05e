"""What can be trained: a task is a file here and a line below; the trainer knows them by `Task` alone."""

from __future__ import annotations

from collections.abc import Callable

from ernie_vil2.config import Config, ConfigError
from ernie_vil2.registry import Registry, UnknownName
from ernie_vil2.tasks.entailment import EntailmentTask, ImagePairTask
from ernie_vil2.tasks.multi_view import MultiViewTask
from ernie_vil2.tasks.task import ParameterGroup, Task, decay_groups

__all__ = [
    "TASKS",
    "EntailmentTask",
    "ImagePairTask",
    "MultiViewTask",
    "ParameterGroup",
    "Task",
    "build_task",
    "decay_groups",
]

TASKS: Registry[Callable[[Config], Task]] = Registry(
    "task", {"multi_view": MultiViewTask, "entailment": EntailmentTask, "image_pair": ImagePairTask}
)
"""By `Training.task`."""


def build_task(config: Config) -> Task:
    """The task that `Training.task` names; its model is not built yet.

    Raises:
        ConfigError: there is no such task.
    """
    try:
        task = TASKS.find(config.Training.task)
    except UnknownName as error:
        raise ConfigError(f"Training.task: {error}") from None
    return task(config)
