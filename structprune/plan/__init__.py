"""From groups, scores and a budget to a `Plan`.

Enters: a `DependencyGraph` and `Scores`. Leaves: a `Plan`, plain data. `budget` says how much is allowed,
`allocation` (with `descent` and `knapsack`) how it is shared among groups, `planning` puts them together. No weight is
read or written here.
"""

from . import descent, knapsack  # each registers its allocations
from .allocation import ALLOCATIONS, allocation
from .budget import choices
from .planning import plan, realise

__all__ = ["ALLOCATIONS", "allocation", "choices", "descent", "knapsack", "plan", "realise"]
