"""Scores for the units of every group.

Enters: a `DependencyGraph` (its groups and its model's weights) and, for some criteria, calibration data. Leaves:
`Scores`; or what each group's pruning costs, `Sensitivity`. `registry` holds the names, `views` what a criterion sees
of a group, `collect` and `scoring` run one over a graph; the criteria are in `norms`, `geometric`, `scaling`,
`activations`, `taylor` and `reconstruction`. Nothing here knows of budgets, plans or surgery.
"""

from ..lazy_imports import names_of
from .registry import CRITERIA, NEEDS, Criterion, criterion, criterion_of
from .scan import NothingToScan, scan_images, sensitivity
from .scoring import score, unscorable
from .views import COMBINE, GroupView

__all__ = [
    "COMBINE",
    "CRITERIA",
    "NEEDS",
    "Criterion",
    "GroupView",
    "NothingToScan",
    "criterion",
    "criterion_of",
    "scan_images",
    "score",
    "sensitivity",
    "unscorable",
]

__getattr__ = names_of(__name__, {})  # modules inside
