"""What networks are for: losses, metrics, what of the outputs is compared, and how a batch becomes inputs and targets.

Enters a spec or a name, leaves a `Task`, by which `structprune.quality_judge` measures networks. One file adds a task.
It knows nothing of data, recipes, plans or training.
"""

from typing import TYPE_CHECKING

from .. import lazy_imports
from .spec import TASKS, TaskSpec

if TYPE_CHECKING:
    from .metrics import Metric, Tally
    from .task import Task, TaskKind

__all__ = ["TASKS", "Metric", "Tally", "Task", "TaskKind", "TaskSpec"]

_PLACES = {"Metric": "metrics", "Tally": "metrics", "Task": "task", "TaskKind": "task"}
__getattr__ = lazy_imports.names_of(__name__, _PLACES)
