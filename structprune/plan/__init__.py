"""From groups, scores and a budget to a `Plan`.

Enters: a `DependencyGraph` and `Scores`. Leaves: a `Plan`, plain data. `budget` says how much is allowed,
`allocations` what an allocation is (in `uniform`, `thresholds`, `descent`, `knapsack` they are), `planning` puts all
together. No weight is read or written here.
"""

from ..lazy_imports import call_like, names_of
from .allocations import ALLOCATIONS, Allocation, allocation, allocation_of
from .budget import choices
from .planning import plan, realise

__all__ = ["ALLOCATIONS", "Allocation", "allocation", "allocation_of", "choices", "plan", "realise"]

__getattr__ = names_of(__name__, {})  # modules inside
call_like(__name__, plan)
