"""From groups, scores and a budget to a `Plan`.

Enters: a `DependencyGraph` and `Scores`. Leaves: a `Plan`, plain data. `budget` says how much is allowed,
`allocations` (with `descent` and `knapsack`) how it is shared among groups, `planning` puts them together. No weight is
read or written here.
"""

import importlib
import pkgutil

from ..on_demand import call_like
from .allocations import ALLOCATIONS, allocation
from .budget import choices
from .planning import plan, realise

__all__ = ["ALLOCATIONS", "allocation", "choices", "plan", "realise"]

for _module in pkgutil.iter_modules(__path__):  # each registers its allocations
    importlib.import_module(f"{__name__}.{_module.name}")

call_like(__name__, plan)
