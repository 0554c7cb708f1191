"""Scores for the units of every group.

Enters: a `DependencyGraph` (its groups and its model's weights). Leaves: `Scores`. `registry` holds the names,
`norms` the criteria by weight norm. Nothing here knows of budgets, plans or surgery.
"""

from . import norms  # registers its criteria
from .registry import CRITERIA, Criterion, GroupView, criterion, score

__all__ = ["CRITERIA", "Criterion", "GroupView", "criterion", "norms", "score"]
