"""What networks are for: losses, metrics, what of the outputs is compared, and how a batch becomes inputs and targets.

Enters a spec or a name, leaves a `Task`, by which `structprune.judge` measures networks. One file adds a task. It knows
nothing of data, recipes, plans or training.
"""

from .metrics import Metric, Tally
from .task import TASKS, Task, TaskKind, TaskSpec

__all__ = ["TASKS", "Metric", "Tally", "Task", "TaskKind", "TaskSpec"]
