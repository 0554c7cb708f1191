"""First-order Taylor expansion of the loss in the weights."""

from __future__ import annotations

from torch import Tensor

from .registry import criterion
from .views import GroupView


@criterion(
    "taylor",
    "square of the sum of weight × gradient over a filter, averaged over batches",
    source="Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, equation 8, over filters",
    needs=("gradients",),
    combine="sum",
)
def taylor(group: GroupView) -> list[Tensor]:
    """I_j = (Σ_{s in filter j} g_s w_s)², g being the gradient of the loss on a batch; coupled layers' filters add up.

    It estimates the square of the change of the loss when the filter goes.
    """
    members = []
    for weights in group.filters():
        assert weights.gradient is not None
        members.append(group.member(weights, weights.sums(weights.gradient * weights.tensor)).square())
    return members
