"""The acceptance gate: is the slim network the one that the plan describes?

Enters: the dense and the slim model, the plan and real inputs. Leaves: a `Gate` of measured differences.
`masked` makes the reference from the plan's `keep` and `statistics` alone, with no group, rule or surgery; of
`graph` it uses only the mode that sees each op run.
"""

from .gate import Comparison, Gate, verify
from .masked import expanded, masked

__all__ = ["Comparison", "Gate", "expanded", "masked", "verify"]
