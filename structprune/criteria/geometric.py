"""FPGM: filters near the geometric median of their layer are replaceable by the others."""

from __future__ import annotations

import torch
from torch import Tensor

from ..calibration.spread import AT_ONCE
from ..memory_limits import parts
from .norms import l2
from .registry import criterion
from .views import GroupView, Weights, combine

MIX_BY_NORM = 0.25  # of the removed filters: the paper's "FPGM-mix 40 %" removes 10 % of all by norm, 30 % by distance


@criterion(
    "fpgm",
    "sum of Euclidean distances to the layer's other filters",
    source="He et al., Filter Pruning via Geometric Median, CVPR 2019, equation 6",
    combine="leading",
)
def fpgm(group: GroupView) -> list[Tensor]:
    """Σ_j' ‖F_j - F_j'‖₂ (not squared) over the flattened filters of one layer; the smallest go.

    They are the nearest to the geometric median, which itself is not solved for.
    """
    return [_distances(group, weights, torch.ones(group.units, dtype=torch.bool)) for weights in group.filters()]


@criterion(
    "fpgm_mix",
    "a quarter of the removed filters by smallest L2 norm, the rest by distance among those left",
    source="He et al., CVPR 2019, section 4.1 (FPGM-mix)",
    needs=("widths",),
)
def fpgm_mix(group: GroupView) -> Tensor:
    """First the filters of smallest norm go, and leave the set over which distances are summed; then the nearest to the
    median of that set. Of the filters to remove, `MIX_BY_NORM` go by norm."""
    assert group.kept is not None
    norms = combine(l2(group), "leading")
    by_norm = round(MIX_BY_NORM * (group.units - group.kept))
    order = torch.argsort(norms, stable=True)
    left = torch.ones(group.units, dtype=torch.bool)
    left[order[:by_norm]] = False
    distances = combine([_distances(group, weights, left) for weights in group.filters()], "leading")
    scores = 1 + distances / distances.max().clamp_min(1e-300)
    scores[order[:by_norm]] = torch.arange(by_norm, dtype=torch.float64) / max(by_norm, 1)
    return scores


def _distances(group: GroupView, weights: Weights, counted: Tensor) -> Tensor:
    """For each unit, its filters' distances to the filters of the counted units of this layer, NaN if it has none."""
    filters = weights.positions().cpu()
    others = torch.zeros(len(filters), dtype=torch.bool)
    for column in weights.index.T:
        others |= (column >= 0) & counted[column]
    counted_filters = others.nonzero()[:, 0]
    sums = torch.zeros(len(filters), dtype=torch.float64)
    each = 8.0 * filters[:1].numel()
    for own in parts(len(filters), each, AT_ONCE):  # never all distances, nor all filters in float64
        for those in parts(len(counted_filters), each, AT_ONCE):
            sums[own] += torch.cdist(filters[own].double(), filters[counted_filters[those]].double()).sum(1)
    return group.member(weights, sums)
