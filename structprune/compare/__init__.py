"""A recipe by structprune and by torch-pruning, side by side: `structprune compare`."""

from .comparison import ROUNDINGS, compare
from .picture import draw
from .records import SCHEMA, Comparison
from .table import compare_table

__all__ = ["ROUNDINGS", "SCHEMA", "Comparison", "compare", "compare_table", "draw"]
