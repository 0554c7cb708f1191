"""The acceptance gate: is the slim network the one that the plan describes?

Enters: the dense and the slim model, the plan and real inputs. Leaves: a `Gate` of measured differences, each passed,
failed or not compared with its reason. `masked_reference` masks the dense model by the plan's `keep` and `statistics`
alone, with no group, rule or surgery; of `ops` it uses only the mode that sees each op run.
"""

from ..lazy_imports import call_like
from .comparison import TOLERANCE, Comparison
from .gate import Gate, verify
from .masked_reference import expanded, masked
from .other_weights import compare_random
from .running import batches_of, compare_finest
from .slim_and_masked import compare_slim_with_masked
from .training_step import compare_training

__all__ = [
    "TOLERANCE",
    "Comparison",
    "Gate",
    "batches_of",
    "compare_finest",
    "compare_random",
    "compare_slim_with_masked",
    "compare_training",
    "expanded",
    "masked",
    "verify",
]

call_like(__name__, verify)
