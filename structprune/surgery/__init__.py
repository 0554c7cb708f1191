"""From a dense model and a `Plan` to a slim model.

The one place that slices weights. It knows state_dict keys, indices and attributes, all of them from the plan. It knows
nothing of graphs, scores or tracing.
"""

from .graph_form import graph_module, layout_of
from .merging import merged
from .plan_checks import check, wrong_shape
from .slicing import prune, sliced

__all__ = ["check", "graph_module", "layout_of", "merged", "prune", "sliced", "wrong_shape"]
