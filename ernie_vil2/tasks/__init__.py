"""What can be trained; the trainer knows a task by `Task` alone."""

from ernie_vil2.tasks.entailment import EntailmentTask, Nlvr2Task
from ernie_vil2.tasks.multi_view import MultiViewTask
from ernie_vil2.tasks.task import TASKS, ParameterGroup, Task, build_task, decay_groups

__all__ = [
    "TASKS",
    "EntailmentTask",
    "MultiViewTask",
    "Nlvr2Task",
    "ParameterGroup",
    "Task",
    "build_task",
    "decay_groups",
]
