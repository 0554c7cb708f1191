"""What each ATen op does to channels: one table of small rules, and no default.

A rule gets the op's arguments, each tensor as a `Value`, and returns the `Value` (or list of them) that the
op makes. It may `tie` axes, or raise `Unsupported`: then the node is a barrier, and every channel that
enters it stays. An op that is not in the table is a barrier too, so nothing is ever guessed.

Ops are named as in the ATen schema, without overload and without the `_` of the in-place form.
"""

from . import contraction, indexing, parts, pointwise, recurrent, reduction, shape  # each fills the table
from .table import RULES, rule

__all__ = ["RULES", "contraction", "indexing", "parts", "pointwise", "recurrent", "reduction", "rule", "shape"]
