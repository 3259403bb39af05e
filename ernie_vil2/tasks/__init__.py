"""Trainable tasks; the trainer knows a task only by `Task`, and `TASKS` imports the one that is configured."""

from ernie_vil2.tasks.task import TASKS, ParameterGroup, Task, build_task, decay_groups, find_task

__all__ = ["TASKS", "ParameterGroup", "Task", "build_task", "decay_groups", "find_task"]
