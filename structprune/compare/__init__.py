"""A recipe by structprune and by torch-pruning side by side, `structprune compare`; two plans, `structprune diff`."""

from .comparison import ROUNDINGS, compare
from .picture import draw
from .plan_difference import PlanDifference, difference_of, difference_table
from .records import SCHEMA, Comparison
from .table import compare_table

__all__ = [
    "ROUNDINGS",
    "SCHEMA",
    "Comparison",
    "PlanDifference",
    "compare",
    "compare_table",
    "difference_of",
    "difference_table",
    "draw",
]
