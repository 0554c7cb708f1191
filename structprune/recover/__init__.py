"""What can be won back without labels and without training.

Enters: the dense and the slim network, the plan and calibration data. Leaves: a mended copy of the slim network. Each
method has its module: `means`, `least_squares` (with `moments`, its solver) and `batchnorm`; `steps` does them in turn.
Nothing here knows of groups, scores or budgets.
"""

from ..on_demand import call_like
from .steps import Recovered, recover

__all__ = ["Recovered", "recover"]

call_like(__name__, recover)
