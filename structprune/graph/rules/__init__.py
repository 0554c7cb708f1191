"""What each ATen op does to channels, and all else that is known of it: small rules, and no default.

A rule gets the op's arguments, each tensor as a `Value`, and returns the `Value` (or list of them) that the
op makes. It may `tie` axes, or raise `Unsupported`: then the node is a barrier, and every channel that
enters it stays. An op without a rule is a barrier too, so nothing is ever guessed. What stands beside a rule in `op(…)`
is what others ask of the op: `ops.record.OpRecord` says what each of it is.
"""

from . import contraction, indexing, parts, pointwise, recurrent, reduction, shape, without_rule  # each adds records

__all__ = ["contraction", "indexing", "parts", "pointwise", "recurrent", "reduction", "shape", "without_rule"]
