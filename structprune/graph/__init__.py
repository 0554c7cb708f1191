"""From a model and example inputs to groups of coupled channels.

Enters: an `nn.Module` and inputs it runs on. Leaves: a `DependencyGraph` of groups, barriers and MACs.
`ops` records ATen nodes, `rules` says what each op does to channels, `axes`, `units` and `flow` hold the algebra,
`tracing` walks the nodes, `building` makes an immutable graph of what was written down, and `probe` checks it at other
widths. `channels` is that graph as data; functions on it say what a removal changes (`removal`, `attributes`,
`program`) and saves (`counting`), and why channels stay (`barriers`). Nothing here knows of scores, plans or surgery.
"""

from ..ops.record import op, rule
from ..ops.window import Window
from .barriers import Barrier
from .channels import ChannelGraph
from .counting import Polynomial, WidthCounter, count_group
from .dependency import DependencyGraph
from .flow import Flow, Unsupported
from .group import Group, Slice
from .rules.contraction import convolve
from .tracing import trace
from .values import Value

__all__ = [
    "Barrier",
    "ChannelGraph",
    "DependencyGraph",
    "Flow",
    "Group",
    "Polynomial",
    "Slice",
    "Unsupported",
    "Value",
    "WidthCounter",
    "Window",
    "convolve",
    "count_group",
    "op",
    "rule",
    "trace",
]
