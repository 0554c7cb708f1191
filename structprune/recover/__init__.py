"""What can be won back without labels.

Enters: the dense and the slim network, the plan and calibration data. Leaves: a mended copy of the slim network.
`recovery` says what a method is; each has its module: `means`, `least_squares` (with `moments`, its solver, and
`attention`, what it does for heads with fewer channels), `batchnorm`, `polish` (with `comparison_points` and
`sample_views`) and `temperature`; `method_sequence` does them in turn.
Nothing here knows of groups, scores or budgets.
"""

from ..lazy_imports import call_like, names_of
from ..recipe.recovery import RECOVERIES, RecoverySpec
from .method_sequence import Recovered, recover
from .recovery import Mending, Recovery

__all__ = ["RECOVERIES", "Mending", "Recovered", "Recovery", "RecoverySpec", "recover"]

__getattr__ = names_of(__name__, {})  # modules inside
call_like(__name__, recover)
