"""From a model and example inputs to groups of coupled channels.

Enters: an `nn.Module` and inputs it runs on. Leaves: a `DependencyGraph` of groups, barriers and MACs.
`ops` records ATen nodes, `rules` says what each op does to channels, `axes`, `units` and `flow` hold the algebra,
`tracing` walks the nodes, `probe` checks the result at other widths, `group` is what goes together, and `dependency`
answers what can go and what that saves. Nothing here knows of scores, plans or surgery.
"""

from ..ops.record import op, rule
from .barriers import Barrier
from .dependency import DependencyGraph
from .flow import Flow, Unsupported, Value
from .group import Group, Slice
from .tally import Polynomial, Tally
from .tracing import trace

__all__ = [
    "Barrier",
    "DependencyGraph",
    "Flow",
    "Group",
    "Polynomial",
    "Slice",
    "Tally",
    "Unsupported",
    "Value",
    "op",
    "rule",
    "trace",
]
