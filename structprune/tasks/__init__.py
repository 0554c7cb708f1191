"""What networks are for: losses, metrics, what of the outputs is compared, and how a batch becomes inputs and targets.

Enters a spec or a name, leaves a `Task`; a `Judge` measures networks by it on held-out data. One file adds a task. It
knows nothing of recipes, plans or training.
"""

from .judge import Judge, Quality
from .metrics import Metric, Tally
from .task import TASKS, Task, TaskKind, TaskSpec

__all__ = ["TASKS", "Judge", "Metric", "Quality", "Tally", "Task", "TaskKind", "TaskSpec"]
