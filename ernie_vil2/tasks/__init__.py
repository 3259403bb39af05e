"""What can be trained; the trainer knows a task by `Task` alone, and `TASKS` imports the one that is named."""

from ernie_vil2.tasks.task import TASKS, ParameterGroup, Task, build_task, decay_groups

__all__ = ["TASKS", "ParameterGroup", "Task", "build_task", "decay_groups"]
