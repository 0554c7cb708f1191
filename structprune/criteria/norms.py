"""Criteria by weight norm."""

from __future__ import annotations

import torch
from torch import Tensor

from .registry import GroupView, criterion


@criterion("l1", "sum of absolute weights of the leading layer's filters (Li et al. 2017, section 3.1)")
def l1(group: GroupView) -> Tensor:
    """s_j = sum |F_j| over the kernels of filter j of the layer that makes the channels.

    Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 3.1; where layers are coupled by a
    shortcut, the projection shortcut decides for all (section 3.3): that is the group's leading layer. Units
    that the leading layer does not make are scored by the first layer that does. Scores compare filters of
    one layer, not of different layers.
    """
    scores = torch.full((group.units,), torch.nan, dtype=torch.float64)
    for weights in group.weights:
        if weights.role == "filter":
            norms = group.per_unit(weights, weights.sums(weights.tensor.abs()))
            made = torch.zeros(group.units, dtype=torch.bool)
            made[weights.index[weights.index >= 0]] = True
            scores = torch.where(scores.isnan() & made, norms, scores)
    return scores


@criterion("group_l1", "sum of absolute weights over every coupled filter and kernel; not Li et al.'s method")
def group_l1(group: GroupView) -> Tensor:
    """The L1 norm of everything that goes with a unit: all coupled filters, depthwise filters and kernels.

    A coupled-group variant in the spirit of DepGraph (Fang et al., CVPR 2023, section 3.3), with the L1 norm
    and without its normalisation; biases, normalisation and statistics are left out.
    """
    scores = torch.zeros(group.units, dtype=torch.float64)
    for weights in group.weights:
        if weights.role in ("filter", "passed", "consumer"):
            scores += group.per_unit(weights, weights.sums(weights.tensor.abs()))
    return scores
