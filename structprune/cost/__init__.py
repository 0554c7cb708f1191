"""What widths cost on a runtime, from measurement.

Enters: a `DependencyGraph` and a runtime on this machine. Leaves: a `CostModel`, milliseconds as a function of the
widths, and the multiples between which nothing is gained. `multiples` finds those on two-layer chains, `probes` times
slim networks kernel by kernel, `model` fits them, `cache` keeps measurements, `learning` puts them together;
`measured_planning` plans and measures until a network is as fast as asked, `standard` gives plans the multiples that
they take unasked. A `Deadline` bounds how long each may measure.
"""

from .deadline import Deadline
from .learning import learn_cost, learn_multiples
from .measured_planning import Lead, lead_over_dense, plan_measured, wants_latency
from .model import CostModel, KernelCost
from .standard import check_may_time, known_multiples, may_time, standard_multiples

__all__ = [
    "CostModel",
    "Deadline",
    "KernelCost",
    "Lead",
    "check_may_time",
    "known_multiples",
    "lead_over_dense",
    "learn_cost",
    "learn_multiples",
    "may_time",
    "plan_measured",
    "standard_multiples",
    "wants_latency",
]
