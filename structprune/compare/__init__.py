"""A recipe by structprune and by torch-pruning, side by side: `structprune compare`."""

from .comparison import ROUNDINGS, SCHEMA, compare
from .picture import draw
from .table import compare_table

__all__ = ["ROUNDINGS", "SCHEMA", "compare", "compare_table", "draw"]
