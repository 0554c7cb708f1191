"""From a model and example inputs to groups of coupled channels.

Enters: an `nn.Module` and inputs it runs on. Leaves: a `DependencyGraph` of groups, barriers and MACs.
`capture` records ATen nodes, `rules` says what each op does to channels, `units` holds the algebra,
`dependency` puts them together. Nothing here knows of scores, plans or surgery.
"""

from .capture import Inputs
from .dependency import Barrier, DependencyGraph, Group, Slice, trace

__all__ = ["Barrier", "DependencyGraph", "Group", "Inputs", "Slice", "trace"]
